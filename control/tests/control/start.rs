//! Starting and stopping.

use crate::site::{Site, ceremony, config};
use redan_control::config::Config;
use redan_control::error::ServerError;
use redan_control::register;
use redan_control::server::Server;
use redan_protocol::Code;

#[tokio::test]
async fn a_key_that_signs_offline_is_refused_whatever_it_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let founded = folder.path().join("fleet");
    ceremony("plant.example", &founded);
    for name in [
        "release.root-1.key.json",
        "release.targets-1.key.json",
        "release.snapshot-1.key.json",
        "release.policy-1.key.json",
        "component.acme.thermo-1.key.json",
        "director.root-1.key.json",
        "fleet-ca.key.pem",
        "operator-issuer.pem",
        "server-issuer.pem",
    ] {
        let (from, to) = (
            founded.join("offline").join(name),
            founded.join("online").join(name),
        );
        std::fs::copy(&from, &to).unwrap();
        let error = register::add(
            &config(folder.path()),
            &founded.join("online"),
            &founded.join("public"),
        )
        .await
        .unwrap_err();
        assert_eq!((error.code(), error.exit()), (Code::NotAuthorised, 1), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        std::fs::remove_file(to).unwrap();
    }
    let added = register::add(
        &config(folder.path()),
        &founded.join("online"),
        &founded.join("public"),
    )
    .await;
    assert_eq!(added.unwrap().as_str(), "plant.example", "positive control");
}

#[tokio::test]
async fn a_fleet_is_registered_once_and_a_server_without_one_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Server::open(config(folder.path())).await,
        Err(ServerError::NoFleet)
    ));
    let founded = folder.path().join("fleet");
    ceremony("plant.example", &founded);
    let add = async || {
        register::add(
            &config(folder.path()),
            &founded.join("online"),
            &founded.join("public"),
        )
        .await
    };
    add().await.unwrap();
    assert!(matches!(add().await, Err(ServerError::FleetExists(name)) if name == "plant.example"));
}

#[tokio::test]
async fn a_missing_key_is_named_and_nothing_is_half_registered() {
    let folder = tempfile::tempdir().unwrap();
    let founded = folder.path().join("fleet");
    ceremony("plant.example", &founded);
    std::fs::remove_file(founded.join("online/director.targets.key.json")).unwrap();
    let error = register::add(
        &config(folder.path()),
        &founded.join("online"),
        &founded.join("public"),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("director.targets.key.json"), "{error}");
    let left = std::fs::read_dir(config(folder.path()).state.join("fleets"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

#[test]
fn a_configuration_with_an_unknown_key_names_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("control.toml");
    std::fs::write(&file, "state = \"x\"\nlisten = \"127.0.0.1:0\"\nverify = false\n").unwrap();
    let error = Config::load(&file).unwrap_err();
    let text = error.to_string();
    for word in ["control.toml", "line 3", "verify"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    assert_eq!(error.exit(), 2);
}

#[tokio::test]
async fn a_server_told_to_stop_answers_what_has_begun_and_takes_nothing_new() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    assert_eq!(device.get("/tuf/release/timestamp.json").await.status, 200);
    let address = site.address;
    let (_folder, running) = site.stopping();
    running.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert!(
        device
            .ask_with("GET", "/tuf/release/timestamp.json", &[], "")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn metrics_count_devices_and_seconds_left() {
    let site = Site::open().await;
    site.device("press-1").await;
    let answer = site.operator().await.get("/metrics").await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains("\nredan_devices_enrolled 1\n"), "{text}");
    for name in [
        "redan_release_timestamp_seconds_left",
        "redan_release_targets_seconds_left",
        "redan_audit_entries",
    ] {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("no {name}"));
        let value: u64 = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(value > 0, "{line}");
    }
}
