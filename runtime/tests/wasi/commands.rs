//! `wasi:cli/command` and what comes with it.

use crate::{Folders, Outcome, Start, guest, ours, reference};

/// The outcome under the reference, after it was found to be the same here.
#[track_caller]
fn same(start: &Start) -> Outcome {
    let wasm = guest::job();
    let expected = reference::run(&wasm, "guest", start, &Folders::new());
    let found = ours::run(&wasm, start, &Folders::new());
    assert_eq!(found, expected, "{start:?}");
    expected
}

#[track_caller]
fn ends_well(what: &'static str) -> Outcome {
    let outcome = same(&Start {
        arguments: vec![what],
        ..Start::default()
    });
    assert_eq!(outcome.exit, Some(0), "{outcome:?}");
    assert!(!outcome.out.is_empty(), "{what} says something");
    outcome
}

#[test]
fn arguments_reach_a_program_as_they_were_given() {
    let outcome = same(&Start {
        arguments: vec!["args", "", "a b", "--flag", "\u{fc}\u{1f600}"],
        ..Start::default()
    });
    assert_eq!(
        outcome.out,
        "[\"args\", \"\", \"a b\", \"--flag\", \"\u{fc}\u{1f600}\"]\n"
    );
}

#[test]
fn a_program_sees_its_own_environment_and_no_other() {
    let outcome = same(&Start {
        arguments: vec!["env"],
        env: vec![("A", "1"), ("EMPTY", ""), ("LONG", "x=y; \u{fc}")],
        ..Start::default()
    });
    assert!(
        outcome
            .out
            .starts_with("[(\"A\", \"1\"), (\"EMPTY\", \"\"), (\"LONG\""),
        "{outcome:?}"
    );
}

#[test]
fn a_program_ends_as_it_says() {
    let status = |what| {
        same(&Start {
            arguments: vec![what],
            ..Start::default()
        })
    };
    assert_eq!(status("exit-ok").exit, Some(0));
    assert_eq!(status("exit-ok").out, "before\n");
    for what in ["exit", "exit-err", "fail"] {
        assert_eq!(status(what).exit, Some(1), "{what}");
    }
    assert_ne!(status("exit-code").exit, Some(0));
    assert_eq!(status("panic").exit, None);
    assert_eq!(
        status("nothing of the kind").exit.map(|status| status != 0),
        Some(true)
    );
}

#[test]
fn standard_input_is_read_to_its_end() {
    for input in [&b""[..], b"\n", b"one\ntwo\nno line end", b"\xff\0bytes"] {
        for what in ["stdin", "stdin-bytes"] {
            let outcome = same(&Start {
                arguments: vec![what],
                input,
                ..Start::default()
            });
            // What is no text is an error of the guest's own reader.
            assert!(
                outcome.exit == Some(0) || input.starts_with(b"\xff"),
                "{outcome:?}"
            );
        }
    }
}

#[test]
fn standard_output_and_error_arrive_whole_and_apart() {
    let outcome = ends_well("stdout");
    assert!(outcome.out.len() > 100_000 && outcome.out.ends_with("raw\n"));
    assert_eq!(outcome.err, "to the other\nroom true\n");
}

#[test]
fn a_program_without_a_terminal_is_told_so() {
    assert_eq!(ends_well("terminal").out, "false false false\n");
}

#[test]
fn clocks_go_forward_and_wake_what_sleeps() {
    assert_eq!(ends_well("monotonic").out, "true true true\npast true\n");
    assert_eq!(ends_well("wall").out, "true true true\n");
    assert_eq!(ends_well("sleep").out, "slept true\nwoke true\nat once\n");
}

#[test]
fn random_numbers_are_there_and_differ() {
    assert_eq!(ends_well("random").out, "32 true true\n0\n32 true\ntrue\ntrue\n");
}

#[test]
fn polling_and_streams_are_the_same() {
    ends_well("poll");
    ends_well("streams");
    let outcome = same(&Start {
        arguments: vec!["closed"],
        input: b"abcdef",
        ..Start::default()
    });
    assert_eq!(outcome.exit, Some(0), "{outcome:?}");
}

#[test]
fn files_open_read_write_and_grow_the_same() {
    ends_well("open");
    ends_well("positions");
}

#[test]
fn folders_and_names_are_the_same() {
    ends_well("folders");
    ends_well("names");
}

#[test]
fn links_stay_within_their_volume_the_same() {
    ends_well("links");
}

#[test]
fn times_and_identities_of_files_are_the_same() {
    ends_well("times");
}

#[test]
fn nothing_outside_a_volume_is_reached_the_same_way() {
    ends_well("outside");
    ends_well("read-only");
    ends_well("preopens");
}

/// By the names of the programs of outside suites, which no registry holds (docs/runtime.md).
#[test]
fn what_outside_suites_ask_of_files_is_the_same() {
    for what in [
        "suite-slashes",
        "suite-links",
        "suite-paths",
        "suite-leave",
        "suite-odd-times",
        "suite-places",
        "suite-sizes",
    ] {
        ends_well(what);
    }
}

/// Differs on purpose: two volumes are two file systems, whatever leave a guest has in each.
#[test]
fn no_file_goes_from_one_volume_to_another() {
    let start = Start {
        arguments: vec!["suite-across"],
        ..Start::default()
    };
    let left = "Ok(\"own\") Ok(\"read me\")\n";
    for (outcome, code) in [
        (
            reference::run(&guest::job(), "guest", &start, &Folders::new()),
            "not-permitted\n",
        ),
        (
            ours::run(&guest::job(), &start, &Folders::new()),
            "cross-device\n",
        ),
    ] {
        assert_eq!(outcome.out, format!("{}{left}", code.repeat(4)));
        assert_eq!(outcome.exit, Some(0));
    }
}

#[test]
fn what_outside_suites_do_often_is_the_same() {
    ends_well("suite-often");
}

#[test]
fn what_outside_suites_expect_to_trap_traps_the_same() {
    for what in [
        "trap-poll-nothing",
        "trap-stream-before-pollable",
        "trap-long-blocking-write",
    ] {
        let outcome = same(&Start {
            arguments: vec![what],
            ..Start::default()
        });
        assert_eq!(outcome.exit, None, "{what} {outcome:?}");
    }
    // An exit while something is open is an exit.
    let outcome = same(&Start {
        arguments: vec!["trap-exit-within"],
        ..Start::default()
    });
    assert_eq!(outcome.exit, Some(0), "{outcome:?}");
}

#[test]
fn sockets_refuse_as_they_do_without_a_network() {
    let outcome = ends_well("sockets");
    assert!(outcome.out.starts_with("Err(PermissionDenied)"), "{outcome:?}");
}
