//! Starting and stopping.

use crate::raw::Raw;
use crate::site::{Site, ceremony, ceremony_of_three, config};
use redan_control::error::ServerError;
use redan_control::register;
use redan_control::server::Server;
use redan_identity::client::ClientError;
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

#[tokio::test]
async fn a_server_does_not_start_with_an_offline_key_that_came_later() {
    let site = Site::open().await;
    let online = site.kept().join("online");
    let config = config(site.folder.path());
    let offline = |name: &str| site.founded().join("offline").join(name);
    let start = async || Server::open(config.clone()).await.err();
    for (key, file, role) in [
        (
            "release.root-1.key.json",
            "release.root-1.key.json",
            "release.root",
        ),
        // Under the name of a key that it needs, too.
        (
            "release.targets-1.key.json",
            "director.targets.key.json",
            "release.targets",
        ),
        (
            "component.acme.thermo-1.key.json",
            "x.key.json",
            "component.acme.thermo",
        ),
    ] {
        let to = online.join(file);
        let before = std::fs::read(&to).ok();
        std::fs::copy(offline(key), &to).unwrap();
        let error = start().await.unwrap();
        let said = format!(
            "{} is a key of {role}, which signs offline; this server must not hold it",
            to.display()
        );
        assert_eq!((error.to_string(), error.code()), (said, Code::NotAuthorised));
        match before {
            Some(bytes) => std::fs::write(&to, bytes).unwrap(),
            None => std::fs::remove_file(&to).unwrap(),
        }
    }
    let stray = online.join("notes.txt");
    std::fs::write(&stray, "remember the key").unwrap();
    let error = start().await.unwrap();
    assert!(
        matches!(&error, ServerError::StrayKey { path } if *path == stray.display().to_string()),
        "{error}"
    );
    std::fs::remove_file(&stray).unwrap();
    assert!(start().await.is_none(), "positive control");
}

#[tokio::test]
async fn a_start_removes_what_a_power_cut_left_of_writing_a_key_and_nothing_else() {
    let site = Site::open().await;
    let online = site.kept().join("online");
    let config = config(site.folder.path());
    let start = async || Server::open(config.clone()).await.err();
    // Torn, or whole and not yet renamed.
    for name in ["server.pem", "device-issuer.pem", "release.timestamp.key.json"] {
        let whole = std::fs::read(online.join(name)).unwrap();
        for left in [&whole[..whole.len() / 2], &whole[..], b""] {
            let path = online.join(format!("{name}.new"));
            std::fs::write(&path, left).unwrap();
            assert!(start().await.is_none(), "{name}");
            assert!(!path.exists(), "{name}");
            assert_eq!(std::fs::read(online.join(name)).unwrap(), whole);
        }
    }
    // What no write of these files leaves is a stray as ever, and stays for whoever put it there.
    for name in [
        "notes.txt.new",
        "server.pem.new.new",
        "operator-issuer.pem.new",
        "server.pem.old",
    ] {
        let stray = online.join(name);
        std::fs::write(&stray, "a key").unwrap();
        let error = start().await.unwrap();
        let path = stray.display().to_string();
        assert!(
            matches!(&error, ServerError::StrayKey { path: named } if *named == path),
            "{error}"
        );
        std::fs::remove_file(&stray).unwrap();
    }
    let link = online.join("server.pem.new");
    std::os::unix::fs::symlink(online.join("server.pem"), &link).unwrap();
    let error = start().await.unwrap();
    assert!(matches!(&error, ServerError::StrayKey { .. }), "{error}");
    std::fs::remove_file(&link).unwrap();
    // Without the whole one it may be all there is of a key.
    let (whole, left) = (online.join("server.pem"), online.join("server.pem.new"));
    std::fs::rename(&whole, &left).unwrap();
    assert!(start().await.is_some());
    std::fs::rename(&left, &whole).unwrap();
    assert!(start().await.is_none(), "positive control");
}

#[tokio::test]
async fn no_holders_key_of_any_offline_role_is_held_whatever_its_threshold() {
    let folder = tempfile::tempdir().unwrap();
    let founded = folder.path().join("fleet");
    ceremony_of_three("plant.example", &founded);
    let config = config(folder.path());
    let (online, public) = (founded.join("online"), founded.join("public"));
    let held = online.join("kept.key.json");
    let mut roles = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(founded.join("offline")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some((role, _)) = name
            .strip_suffix(".key.json")
            .and_then(|name| name.rsplit_once('-'))
        else {
            continue;
        };
        std::fs::copy(&path, &held).unwrap();
        let error = register::add(&config, &online, &public).await.unwrap_err();
        let wanted = role.trim_start_matches("release.");
        let ServerError::OfflineKey { role: said, .. } = &error else {
            panic!("{name}: {error}");
        };
        assert_eq!(said.trim_start_matches("release."), wanted, "{name}");
        *roles.entry(wanted.to_owned()).or_insert(0) += 1;
    }
    let three = [
        "component.acme.thermo",
        "direction",
        "director.root",
        "plan",
        "policy",
        "root",
        "snapshot",
        "targets",
    ];
    assert_eq!(roles, three.map(|role| (role.to_owned(), 3)).into());
    std::fs::remove_file(held).unwrap();
    register::add(&config, &online, &public).await.unwrap();
}

#[tokio::test]
async fn a_key_of_a_role_that_was_delegated_later_is_refused_as_well() {
    let site = Site::open().await;
    let late = redan_publish::SigningKey::generate("component.acme.late-1").unwrap();
    crate::release::delegate(&site, &late).await;
    let path = site.kept().join("online/late.key.json");
    late.save(&path).unwrap();
    let error = Server::open(config(site.folder.path())).await.err().unwrap();
    let role = "component.acme.late".to_owned();
    let said = ServerError::OfflineKey {
        path: path.display().to_string(),
        role,
    };
    assert_eq!(error.to_string(), said.to_string());
}

#[tokio::test]
async fn keys_and_roots_of_two_fleets_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    ceremony("plant.example", &one);
    ceremony("plant.example", &two);
    let copy = |name: &str| std::fs::copy(two.join(name), one.join(name)).unwrap();
    let keep = |name: &str| (name.to_owned(), std::fs::read(one.join(name)).unwrap());
    let restore = |(name, bytes): (String, Vec<u8>)| std::fs::write(one.join(name), bytes).unwrap();
    let add = async || {
        register::add(&config(folder.path()), &one.join("online"), &one.join("public"))
            .await
            .map_err(|error| (error.code(), error.to_string()))
    };
    for (name, code, word) in [
        (
            "online/director.targets.key.json",
            Code::NotAuthorised,
            "director.targets",
        ),
        (
            "online/release.timestamp.key.json",
            Code::NotAuthorised,
            "release.timestamp",
        ),
        ("public/director/1.root.json", Code::WrongFleet, "director root"),
        (
            "online/device-issuer.pem",
            Code::CertificateProfile,
            "device-issuer.pem",
        ),
    ] {
        let kept = keep(name);
        copy(name);
        let (found, said) = add().await.unwrap_err();
        assert_eq!(found, code, "{said}");
        assert!(said.contains(word), "{said}");
        restore(kept);
    }
    // The operators' issuer where the devices' belongs: its key signs offline.
    let kept = keep("online/device-issuer.pem");
    std::fs::copy(
        one.join("offline/operator-issuer.pem"),
        one.join("online/device-issuer.pem"),
    )
    .unwrap();
    let (found, said) = add().await.unwrap_err();
    assert_eq!(found, Code::CertificateProfile, "{said}");
    restore(kept);
    assert_eq!(add().await.unwrap().as_str(), "plant.example", "positive control");
}

#[tokio::test]
async fn a_server_told_to_stop_answers_what_has_begun_and_takes_nothing_new() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let mut idle = site.connect(&bundle).await.unwrap();
    assert_eq!(idle.get("/tuf/release/timestamp.json").await.status, 200);
    let body =
        serde_json::json!({"nonce": "00".repeat(16), "report": redan_protocol::report::Report::default()});
    let body = body.to_string();
    let mut begun = Raw::known(&site, &bundle).await;
    let head = format!(
        "POST /v1/checkin HTTP/1.1\r\nhost: control.plant.example\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    begun.send(&head).await;
    // The server asks for the body: the request has begun.
    assert_eq!(begun.status().await, "100");
    let address = site.address;
    let (_folder, running) = site.stopping();
    // The idle connection ends; the listener is gone before that one is waited for.
    assert_eq!(
        idle.ask_with("GET", "/tuf/release/timestamp.json", &[], "")
            .await
            .err(),
        Some(ClientError::Connection)
    );
    assert!(!running.is_finished(), "it waits for the request");
    begun.send(&body).await;
    assert_eq!(begun.status().await, "200");
    let rest = begun.rest().await;
    assert!(rest.contains("time-statement"), "{rest}");
    running.await.unwrap().unwrap();
    let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn metrics_count_devices_and_say_when_everything_expires() {
    let site = Site::open().await;
    site.device("press-1").await;
    site.device("press-2").await;
    let mut operator = site.operator().await;
    operator
        .post("/v1/devices/press-2/revoke", &serde_json::json!({}))
        .await
        .json();
    let answer = operator.get("/metrics").await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    for line in [
        "redan_devices_enrolled 1",
        "redan_devices_revoked 1",
        "redan_devices_refusing 0",
        "redan_rollouts_running 0",
        // The fleet, its admin, two admissions, two enrolments, a revocation.
        "redan_audit_entries 7",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
    let day = 86_400;
    for (of, life) in [
        ("certificate.server", 90 * day),
        ("certificate.server-issuer", 365 * day),
        ("certificate.device-issuer", 365 * day),
        ("certificate.ca", 3650 * day),
        ("release.root", 365 * day),
        ("director.root", 365 * day),
        ("release.timestamp", 2 * day),
        ("release.snapshot", 90 * day),
        ("release.targets", 365 * day),
        ("release.plan", 90 * day),
        ("release.policy", 365 * day),
        ("release.component.acme.thermo", 180 * day),
    ] {
        let start = format!("redan_seconds_left{{of=\"{of}\"}} ");
        let left = text.lines().find_map(|line| line.strip_prefix(&start));
        let left: u64 = left
            .unwrap_or_else(|| panic!("no {of} in {text}"))
            .parse()
            .unwrap();
        assert!(left <= life && left > life - day, "{of}: {left}");
    }
}
