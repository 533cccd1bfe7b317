//! Jobs: what goes in, what comes out, and what is refused.

use crate::{bench, fed, guest, ran, refused, text};

fn conformance(words: &[&str]) -> std::process::Command {
    let job = guest::built("conformance-job.wasm");
    bench(&[&["-q", job.as_str()], words].concat())
}

#[test]
fn a_programs_exit_code_output_and_input_are_its_own() {
    let ended = ran(conformance(&["--", "args", "a b", "--help"]));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(text(&ended.stdout), "[\"args\", \"a b\", \"--help\"]\n");
    assert_eq!(text(&ended.stderr), "");
    assert_eq!(ran(conformance(&["--", "fail"])).status.code(), Some(1));
    assert_eq!(
        ran(conformance(&["--", "nothing of the kind"])).status.code(),
        Some(1)
    );
    let ended = fed(conformance(&["--", "stdin"]), b"one\ntwo");
    assert_eq!(text(&ended.stdout), "\"one\\n\"\n\"two\"\nend 0\n");
    let ended = ran(conformance(&["--env", "A=1", "--", "env"]));
    assert!(
        text(&ended.stdout).starts_with("[(\"A\", \"1\")] true"),
        "{ended:?}"
    );
}

#[test]
fn a_program_that_traps_ends_as_one_that_a_signal_ended() {
    let ended = ran(conformance(&["--", "panic"]));
    refused(&ended, "trapped", 134);
    assert!(
        text(&ended.stderr).contains("as wanted"),
        "the guest's own words come first"
    );
}

#[test]
fn folders_are_lent_where_the_guest_is_to_see_them() {
    let folder = tempfile::tempdir().unwrap();
    let lent = format!("{}::/state", folder.path().display());
    let ended = ran(conformance(&["--dir", &lent, "--", "positions"]));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(folder.path().join("p").exists());
    let lent = format!("{}::/lib::ro", folder.path().display());
    std::fs::write(folder.path().join("given"), "read me").unwrap();
    let ended = ran(conformance(&["--dir", &lent, "--", "read-only"]));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(!folder.path().join("new").exists());
}

#[test]
fn it_says_that_nothing_was_verified_unless_it_is_told_to_be_quiet() {
    let job = guest::built("conformance-job.wasm");
    let loud = ran(bench(&[&job, "--", "args"]));
    assert!(
        text(&loud.stderr).contains("NOTHING IS VERIFIED HERE"),
        "{loud:?}"
    );
}

#[test]
fn what_this_runtime_does_not_offer_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let ask = folder.path().join("ask.toml");
    let plain = "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/job\"\nversion = \"1.0.0\"\n\
                 world = \"wasi:cli/command@0.2\"\n";
    std::fs::write(&ask, plain).unwrap();
    let ask = ask.display().to_string();
    let with_ask = |guest: &str| ran(bench(&["-q", guest, "--ask", &ask]));
    refused(
        &with_ask(&guest::importing(folder.path(), "wasi:sockets/tcp@0.2.0")),
        "sockets-not-offered",
        1,
    );
    refused(
        &with_ask(&guest::importing(folder.path(), "wasi:cli/environment@0.3.0")),
        "wasi-not-offered",
        1,
    );
    refused(
        &with_ask(&guest::importing(folder.path(), "wasi:config/store@0.2.0-rc.1")),
        "undeclared-import",
        1,
    );
    refused(
        &with_ask(&guest::importing(folder.path(), "evil:host/shell@0.2.0")),
        "undeclared-import",
        1,
    );
    refused(
        &with_ask(&guest::written(folder.path(), "(module)")),
        "core-module",
        1,
    );
    refused(
        &with_ask(&guest::written(folder.path(), "(component)")),
        "missing-export",
        1,
    );
    let no_wasm = with_ask("Cargo.toml");
    refused(&no_wasm, "malformed-component", 1);
    assert!(text(&no_wasm.stderr).contains("error: Cargo.toml is no WebAssembly at all"));
    refused(&with_ask("nowhere.wasm"), "disk-failed", 3);
    // Without an ask the stub is linked, so that a standard library's import hinders nobody; it still refuses.
    let ended = ran(bench(&[
        "-q",
        &guest::importing(folder.path(), "wasi:sockets/tcp@0.2.0"),
    ]));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn a_policy_and_a_ceiling_that_are_given_are_held_to() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ask = write(
        "ask.toml",
        "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/job\"\nversion = \"1.0.0\"\n\
         world = \"wasi:cli/command@0.2\"\n[clock]\nwall = true\nrequired = true\n[log]\n[net.sockets]\n",
    );
    let fleet = "schema = \"redan.policy/1\"\nkind = \"fleet\"\nserial = 1\n[subject]\npublishers = [\"acme\"]\n\
                 names = [\"acme/*\"]\nworlds = [\"wasi:cli/command@0.2\"]\n[log]\n";
    let job = guest::built("conformance-job.wasm");
    let poor = write("fleet.toml", fleet);
    let under = |fleet: &str| {
        ran(bench(&[
            "-q", &job, "--ask", &ask, "--fleet", fleet, "--", "wall",
        ]))
    };
    refused(&under(&poor), "capability-denied", 1);
    let rich = write("rich.toml", &format!("{fleet}[clock]\nwall = true\n"));
    let ended = under(&rich);
    assert_eq!(text(&ended.stdout), "true true true\n", "{ended:?}");
}
