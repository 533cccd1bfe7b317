//! The check-in: a closed report in, a signed statement out.

use crate::raw::Raw;
use crate::site::{Site, now};
use redan_protocol::report::Report;
use redan_protocol::wire::{CHECKIN_LEN_MAX, CHECKIN_REPLY_LEN, CheckIn, CheckInReply, Nonce, Versions};
use redan_protocol::{Code, Seconds, Version64};
use serde_json::{Value, json};

fn body() -> Value {
    let nonce = Nonce([1; 16]);
    serde_json::to_value(CheckIn {
        nonce,
        settled: None,
        report: Report::default(),
    })
    .unwrap()
}

#[tokio::test]
async fn a_check_in_is_answered_with_a_statement_for_this_device_and_nonce() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let reply = device.check_in(Report::default()).await;
    let signed = &reply.statement["signed"];
    assert_eq!(signed["_type"], "time-statement");
    assert_eq!(signed["device"], "spiffe://plant.example/device/press-1");
    assert_eq!(signed["nonce"], "07".repeat(16));
    assert!(signed["time"].as_u64().unwrap().abs_diff(now().get()) < 60);
    assert_eq!(reply.interval, Seconds::new(3));
    assert_eq!(reply.statement["signatures"].as_array().unwrap().len(), 1);
}

/// A statement that confirms what the device has done all with is looked at by nobody; any other is signed.
#[tokio::test]
async fn only_a_device_that_has_settled_on_the_served_versions_gets_a_statement_that_nobody_signed() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let first = device.check_in(Report::default()).await.statement;
    let served: Versions = serde_json::from_value(json!({
        "release": first["signed"]["release"], "director": first["signed"]["director"],
    }))
    .unwrap();
    let next = |version: Version64| Version64::new(version.get() + 1);
    let newer = Versions {
        release: next(served.release),
        ..served
    };
    let directed = Versions {
        director: next(served.director),
        ..served
    };
    for (settled, signatures) in [
        (None, 1),
        (Some(newer), 1),
        (Some(directed), 1),
        (Some(served), 0),
    ] {
        let statement = device
            .check_in_settled(settled, Report::default())
            .await
            .statement;
        assert_eq!(
            statement["signatures"].as_array().unwrap().len(),
            signatures,
            "{settled:?}"
        );
        // But for the time, which goes on, they say the same.
        for name in ["_type", "device", "nonce", "release", "director"] {
            assert_eq!(statement["signed"][name], first["signed"][name], "{name}");
        }
        assert!(statement["signed"]["time"].as_u64() >= first["signed"]["time"].as_u64());
    }
}

#[tokio::test]
async fn what_a_device_reported_is_what_operators_see_after_a_restart_too() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let report = Report {
        refusal: Some(Code::DiskFull),
        ..Report::default()
    };
    device.check_in(report).await;
    drop(device);
    let seen = site.operator().await.get("/v1/devices").await.json();
    assert_eq!(seen[0]["refusal"], "disk-full");
    let site = site.restart().await;
    let seen = site.operator().await.get("/v1/devices").await.json();
    assert_eq!(seen[0]["refusal"], "disk-full");
}

/// Whoever reads the line (attack A04): a first word, a full story and another fleet position are answered in one size.
#[tokio::test]
async fn every_check_in_is_answered_in_one_length_whatever_it_says() {
    let site = Site::open().await;
    let mut plain = body();
    let mut lengths = Vec::new();
    for name in [
        "p",
        "press-with-a-name-that-is-long-and-says-much-about-its-place",
    ] {
        let mut device = site.device(name).await;
        plain["settled"] = json!(null);
        for sequence in [0, u64::MAX, u64::MAX] {
            plain["report"]["sequence"] = json!(sequence);
            let answer = device.post("/v1/checkin", &plain).await;
            assert_eq!(answer.status, 200);
            let reply: CheckInReply = serde_json::from_slice(&answer.body).unwrap();
            lengths.push(answer.body.len());
            // The last answer of a device is without a signature.
            let said = &reply.statement["signed"];
            plain["settled"] = json!({"release": said["release"], "director": said["director"]});
        }
    }
    assert_eq!(lengths, [usize::try_from(CHECKIN_REPLY_LEN.get()).unwrap(); 6]);
}

#[tokio::test]
async fn a_checkin_one_byte_over_the_limit_is_refused() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let limit = usize::try_from(CHECKIN_LEN_MAX.get()).unwrap();
    let mut text = body().to_string();
    // White space belongs to no member: as long as it fits, it is the same check-in.
    text.push_str(&" ".repeat(limit - text.len()));
    assert_eq!(
        device.ask("POST", "/v1/checkin", text.clone()).await.status,
        200,
        "positive control"
    );
    text.push(' ');
    assert_eq!(
        device.ask("POST", "/v1/checkin", text).await.refusal(),
        (413, Code::TooLarge)
    );
}

#[tokio::test]
async fn nothing_but_the_closed_report_is_taken() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let mut more = body();
    more["payload"] = json!("what the guest saw");
    let mut inside = body();
    inside["report"]["log"] = json!("what the guest said");
    let mut code = body();
    code["report"]["refusal"] = json!("made-up");
    let mut nonce = body();
    nonce["nonce"] = json!("short");
    for refused in [more, inside, code, nonce, json!(null), json!([1])] {
        let answer = device.post("/v1/checkin", &refused).await;
        assert_eq!(answer.refusal(), (400, Code::BadRequest), "{refused}");
    }
    assert_eq!(
        device.post("/v1/checkin", &body()).await.status,
        200,
        "positive control"
    );
}

/// The attacker cuts the device off: whoever looks sees for how long it has been silent.
#[tokio::test]
async fn operators_see_how_long_a_device_has_been_silent() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let mut operator = site.operator().await;
    let line = "redan_device_silent_seconds{device=\"press-1\"} ";
    let never = operator.get("/v1/devices/press-1").await.json();
    assert_eq!(never["silent_seconds"], json!(null));
    let metrics = String::from_utf8(operator.get("/metrics").await.body.to_vec()).unwrap();
    assert!(!metrics.contains(line), "{metrics}");

    assert_eq!(device.post("/v1/checkin", &body()).await.status, 200);
    let seen = operator.get("/v1/devices/press-1").await.json();
    let metrics = String::from_utf8(operator.get("/metrics").await.body.to_vec()).unwrap();
    let shown = seen["silent_seconds"].as_u64().unwrap();
    let counted = metrics
        .lines()
        .find_map(|found| found.strip_prefix(line))
        .unwrap();
    // The second look is not before the first, and both count from the same check-in.
    assert!(counted.parse::<u64>().unwrap() >= shown, "{shown}, {metrics}");
    assert!(seen["last_seen"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    for headers in [
        &[("content-type", "text/plain")][..],
        &[],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        let answer = device
            .ask_with("POST", "/v1/checkin", headers, body().to_string())
            .await
            .unwrap();
        assert_eq!(answer.refusal(), (415, Code::WrongContentType), "{headers:?}");
    }
}

#[tokio::test]
async fn a_report_that_cannot_be_kept_is_not_taken() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    site.statement("ALTER TABLE documents RENAME TO lost").await;
    let answer = device.post("/v1/checkin", &body()).await;
    assert_eq!(answer.refusal(), (503, Code::StoreFailed));
    let seen = site.operator().await.get("/v1/devices/press-1").await.json();
    assert_eq!(seen["last_seen"], json!(null));
    site.statement("ALTER TABLE lost RENAME TO documents").await;
    assert_eq!(
        device.post("/v1/checkin", &body()).await.status,
        200,
        "positive control"
    );
}

#[tokio::test]
async fn a_checkin_that_does_not_say_its_length_is_refused() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let text = body().to_string();
    let mut raw = Raw::known(&site, &bundle).await;
    let head = "POST /v1/checkin HTTP/1.1\r\nhost: control.plant.example\r\n\
                content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    raw.send(head).await;
    raw.send(&format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()))
        .await;
    let said = raw.rest().await;
    assert!(
        said.starts_with("HTTP/1.1 400") && said.contains("content-length"),
        "{said}"
    );
}
