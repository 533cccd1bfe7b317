//! The chain of decisions.

use crate::room::{Room, done, refused};
use serde_json::Value;

fn lines(room: &Room) -> Vec<Value> {
    let text = std::fs::read_to_string(room.path("fleet/public/transcript.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn every_decision_is_a_line_that_names_the_one_before() {
    let room = Room::found();
    room.complete(
        "root",
        &["rotate", "--role", "root"],
        &["release.root-1", "release.root-2"],
    );
    // Refusals decide nothing.
    refused(&room.request("no", &["rotate", "--role", "nobody"]), 1, &[]);
    let lines = lines(&room);
    let commands: Vec<&str> = lines
        .iter()
        .map(|line| line["command"].as_str().unwrap())
        .collect();
    assert_eq!(commands, ["init", "request", "assemble"]);
    assert_eq!(lines[1]["payload_sha256"], lines[2]["payload_sha256"]);
    assert_eq!(lines[2]["decided"], "assembled release/2.root.json");
    assert_eq!(lines[2]["previous"], lines[1]["hash"]);
    assert!(done(&room.run(&["verify"])).contains("transcript: 3 entries in one chain"));
}

#[test]
fn a_signer_writes_on_the_transcript_they_name() {
    let room = Room::found();
    done(&room.request("root", &["rotate", "--role", "root"]));
    let (request, key) = (room.text("root.request.json"), room.private("release.root-1"));
    let (own, out) = (room.text("own.jsonl"), room.text("signature.json"));
    let digest = room.digest("root");
    done(&room.run(&[
        "sign",
        "--request",
        &request,
        "--key",
        &key,
        "--confirm",
        &digest,
        "--out",
        &out,
        "--transcript",
        &own,
    ]));
    let text = std::fs::read_to_string(&own).unwrap();
    let decided = format!("{} signed root 2", room.id("release.root-1"));
    assert!(text.contains(&decided), "{text}");
    assert!(done(&room.run(&["verify", "--transcript", &own])).contains("transcript: 1 entries"));
}

#[test]
fn a_line_that_was_changed_moved_or_taken_out_is_the_first_bad_one() {
    let room = Room::found();
    let holders = ["release.root-1", "release.root-2"];
    room.complete("root", &["rotate", "--role", "root"], &holders);
    room.complete("again", &["rotate", "--role", "root"], &holders);
    let path = room.path("fleet/public/transcript.jsonl");
    let good = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    assert_eq!(lines.len(), 5);
    let join = |lines: &[&str]| lines.join("\n") + "\n";
    let cases = [
        (
            good.replacen(
                "assembled release/2.root.json",
                "assembled release/9.root.json",
                1,
            ),
            3,
        ),
        (
            good.replacen("\"command\":\"request\"", "\"command\":\"reqvest\"", 1),
            2,
        ),
        (join(&[lines[0], lines[2], lines[3], lines[4]]), 2),
        (join(&[lines[1], lines[2]]), 1),
        (join(&[lines[0], lines[1], lines[1]]), 3),
        (format!("{good}{{}}\n"), 6),
        (good.trim_end().to_owned(), 5),
    ];
    for (bad, line) in cases {
        std::fs::write(&path, bad).unwrap();
        let named = format!("line {line} of");
        refused(&room.run(&["verify"]), 1, &[&named, "transcript.jsonl"]);
        // Nothing is written on it either.
        refused(&room.request("more", &["rotate", "--role", "root"]), 1, &[&named]);
        assert!(!room.path("more.request.json").exists());
    }
    std::fs::write(&path, good).unwrap();
    done(&room.run(&["verify"]));
}
