//! Guest text goes to its owner's file: bounded, escaped, and never a reason to fail.

use crate::device::Device;
use crate::{grants, guests};
use redan_protocol::Code;

#[test]
fn a_flood_is_cut_at_its_budget_and_counted() {
    for (attack, from) in [
        ("flood-stdout", "out"),
        ("flood-stderr", "err"),
        ("flood-log", "log"),
    ] {
        let mut device = Device::start();
        let slot = device.load(&guests::hostile_job(), &grants::job(attack)).unwrap();
        assert_eq!(device.run(slot), Ok(()), "{attack}");
        let signals = device.signals(slot);
        assert_eq!((signals.calls, signals.failures), (1, 0));
        assert_eq!(
            signals.last,
            Some(Code::LogLimit),
            "that lines were dropped is known"
        );
        let lines = device.log("hostile");
        assert!(lines.iter().all(|line| line.starts_with(from)), "{attack}");
        let bytes: usize = lines.iter().map(String::len).sum();
        assert!(
            (32 * 1024..=64 * 1024).contains(&bytes),
            "{bytes} bytes were kept"
        );
        device.serves_others();
    }
}

#[test]
fn all_versions_of_a_workload_share_one_budget() {
    let mut device = Device::start();
    for _ in 0..3 {
        assert_eq!(
            device.outcome(&guests::hostile_job(), &grants::job("flood-log")),
            Ok(())
        );
    }
    let bytes: usize = device.log("hostile").iter().map(String::len).sum();
    assert!(bytes <= 64 * 1024, "{bytes} bytes were kept");
}

#[test]
fn a_line_without_end_is_one_cut_line() {
    let mut device = Device::start();
    assert_eq!(
        device.outcome(&guests::hostile_job(), &grants::job("endless-line")),
        Ok(())
    );
    let lines = device.log("hostile");
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].chars().count(), "out ".len() + 4096 + 1);
    assert!(lines[0].ends_with('…'));
    device.serves_others();
}

#[test]
fn a_guest_cannot_forge_lines_or_reach_a_terminal() {
    let mut device = Device::start();
    assert_eq!(
        device.outcome(&guests::hostile_job(), &grants::job("forge-log-lines")),
        Ok(())
    );
    let wanted = [
        "log info a\\n0 err forged: b\\r\\u{1b}[2J\\u{202e}",
        "out c\\u{1b}[31m",
    ];
    assert_eq!(device.log("hostile"), wanted);
}

#[test]
fn the_words_of_a_panic_stay_with_the_owner() {
    let mut device = Device::start();
    assert_eq!(
        device.outcome(&guests::hostile_job(), &grants::job("panic")),
        Err(Code::Trapped)
    );
    assert!(device.log("hostile").iter().any(|line| line == "err as wanted"));
}
