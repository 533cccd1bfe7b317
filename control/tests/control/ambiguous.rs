//! Paths and documents that two readers could read differently (attacks H06, H07).

use crate::site::Site;
use redan_protocol::Code;
use redan_protocol::report::Report;
use redan_protocol::wire::{CheckIn, Nonce};
use serde_json::json;

#[tokio::test]
async fn a_path_is_taken_to_the_letter() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let own = "/tuf/release/timestamp.json";
    assert_eq!(device.get(own).await.status, 200, "positive control");
    let long = format!("/artifacts/{}", "a".repeat(8192));
    for path in [
        "/tuf/release/timestamp.json/",
        "/tuf/release/timestamp.json%00",
        "/tuf/release/%00",
        "/tuf/release//timestamp.json",
        "//tuf/release/timestamp.json",
        "/tuf/./release/timestamp.json",
        "/tuf/release/../release/timestamp.json",
        "/tuf/release/%2e%2e/release/timestamp.json",
        "/tuf/release/..%2frelease%2ftimestamp.json",
        "/tuf/release/%74imestamp.json",
        "/tuf/release/TIMESTAMP.json",
        "/tuf/release/%c0%ae%c0%ae/timestamp.json",
        "/tuf/release/%ff",
        "/tuf/release/..\\timestamp.json",
        "/artifacts/%00",
        "/artifacts//",
        &long,
    ] {
        match device
            .ask_with("GET", path, &[], "")
            .await
            .map(|answer| answer.refusal())
        {
            Ok(refusal) => assert_eq!(refusal, (404, Code::NotFound), "{path}"),
            // What our own client does not write as a request line at all.
            Err(error) => assert_eq!(error.code(), Code::Internal, "{path}"),
        }
    }
}

#[tokio::test]
async fn a_document_that_could_be_read_in_two_ways_is_refused() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let mut operator = site.operator().await;
    let check_in = CheckIn {
        nonce: Nonce([1; 16]),
        settled: None,
        report: Report::default(),
    };
    let check_in = serde_json::to_string(&check_in).unwrap();
    let admit = json!({"device": "press-2", "spki": "00".repeat(32)}).to_string();
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    for (text, operators) in [(&check_in, false), (&admit, true)] {
        let twice = format!("{{{},{}", &text[1..text.len() - 1], &text[1..]);
        let spoilt: Vec<Vec<u8>> = vec![
            twice.into_bytes(),
            format!("\u{feff}{text}").into_bytes(),
            format!("{text}{text}").into_bytes(),
            text.replacen('{', &format!("{{\"x\":{deep},"), 1).into_bytes(),
            text.replacen('{', "{\"x\":9007199254740993,", 1).into_bytes(),
            text.replacen('{', "{\"x\":NaN,", 1).into_bytes(),
            text.replacen(':', ":18446744073709551616,\"x\":", 1).into_bytes(),
            text.replacen('"', "'", 2).into_bytes(),
            [&text.as_bytes()[..2], b"\xff", &text.as_bytes()[2..]].concat(),
            deep.clone().into_bytes(),
            Vec::new(),
        ];
        let (caller, path) = if operators {
            (&mut operator, "/v1/devices/admit")
        } else {
            (&mut device, "/v1/checkin")
        };
        for body in spoilt {
            let shown = String::from_utf8_lossy(&body).into_owned();
            let answer = caller.ask("POST", path, body).await;
            assert_eq!(answer.refusal(), (400, Code::BadRequest), "{path}: {shown}");
        }
        assert_eq!(
            caller.ask("POST", path, text.clone()).await.status,
            200,
            "positive control"
        );
    }
}
