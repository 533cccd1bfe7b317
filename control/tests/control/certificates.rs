//! The server's own certificates: replaced while it serves, and missed before they end.

use crate::program::{control, line, registered, registered_at, running, tell};
use crate::raw::Raw;
use crate::site::now;
use redan_identity::{CertificateDer, FleetAnchor, Issuer, IssuerKind, KeyFile, pem};
use redan_protocol::{FleetId, SpiffeId, UnixSeconds};
use rustix::process::Signal;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

const DAY: u64 = 86_400;

fn fleet() -> FleetId {
    FleetId::parse("plant.example").unwrap()
}

/// What custodians bring when the server's certificate is to be replaced: a new key, and a leaf by the offline issuer of a fleet.
fn fresh(founded: &Path) -> (Vec<u8>, CertificateDer<'static>) {
    let ca = std::fs::read_to_string(founded.join("public/ca.pem")).unwrap();
    let anchor = FleetAnchor::from_pem(fleet(), &ca).unwrap();
    let by = std::fs::read_to_string(founded.join("offline/server-issuer.pem")).unwrap();
    let (by, chain) = pem::read_bundle(&by).unwrap();
    let issuer = Issuer::load(IssuerKind::Server, anchor, by, chain[0].clone());
    let key = KeyFile::generate().unwrap();
    let chain = issuer
        .issue_for(&SpiffeId::Control(fleet()), &key, now())
        .unwrap();
    (
        pem::write_bundle(&key, &chain).as_bytes().to_vec(),
        chain[0].clone(),
    )
}

#[tokio::test]
async fn a_new_server_certificate_is_taken_over_without_dropping_a_connection() {
    let (folder, file) = registered().await;
    let (mut child, mut out, address) = running(&file);
    let founded = folder.path().join("fleet");
    let admin = founded.join("operators/admin.pem");
    let mut open = Raw::at(address, &fleet(), &admin).await;
    open.send(
        "POST /v1/rollouts HTTP/1.1\r\nhost: control.plant.example\r\ncontent-length: 2\r\n\
         expect: 100-continue\r\n\r\n",
    )
    .await;
    assert_eq!(open.status().await, "100", "the request has begun");
    let (bundle, leaf) = fresh(&founded);
    assert_ne!(open.server(), leaf);
    let server = folder.path().join("state/fleets/plant.example/online/server.pem");
    std::fs::write(&server, bundle).unwrap();
    tell(&child, Signal::HUP);
    let now_there =
        "redan-control: plant.example goes on with the keys, certificates and roots that are there now\n";
    assert_eq!(line(&mut out), now_there);
    assert_eq!(Raw::at(address, &fleet(), &admin).await.server(), leaf);
    open.send("{}").await;
    assert_eq!(open.status().await, "400", "answered as ever");
    tell(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_server_certificate_that_would_not_start_is_not_taken_over() {
    let (folder, file) = registered().await;
    let (other, _) = registered().await;
    let (mut child, mut out, address) = running(&file);
    let founded = folder.path().join("fleet");
    let admin = founded.join("operators/admin.pem");
    let before = Raw::at(address, &fleet(), &admin).await.server();
    let server = folder.path().join("state/fleets/plant.example/online/server.pem");
    let (bundle, _) = fresh(&founded);
    let (other_bundle, _) = fresh(&other.path().join("fleet"));
    let another_key = [KeyFile::generate().unwrap().to_pem().as_bytes(), &bundle].concat();
    let operator = std::fs::read(&admin).unwrap();
    for bad in [b"".to_vec(), b"rot".to_vec(), other_bundle, another_key, operator] {
        std::fs::write(&server, bad).unwrap();
        tell(&child, Signal::HUP);
        let had = "redan-control: plant.example goes on with the keys, certificates and roots it had\n";
        assert_eq!(line(&mut out), had);
        assert_eq!(Raw::at(address, &fleet(), &admin).await.server(), before);
    }
    std::fs::remove_file(&server).unwrap();
    tell(&child, Signal::HUP);
    line(&mut out);
    assert_eq!(Raw::at(address, &fleet(), &admin).await.server(), before);
    tell(&child, Signal::TERM);
    child.wait().unwrap();
}

#[tokio::test]
async fn what_ends_soon_is_said_at_start() {
    let seventy_days_ago = UnixSeconds::new(now().get() - 70 * DAY);
    for (founded, warned) in [(now(), false), (seventy_days_ago, true)] {
        let (_folder, file) = registered_at(founded).await;
        let mut serve = control(&["serve", "--config", file.to_str().unwrap()]);
        let mut child = serve
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        assert!(line(&mut out).starts_with("redan-control: listening on "));
        tell(&child, Signal::TERM);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        for of in ["certificate.server\"", "release.snapshot\"", "release.plan\""] {
            assert_eq!(said.contains(of), warned, "{of}: {said}");
        }
        assert!(!said.contains("release.root"), "{said}");
        assert_eq!(said.contains("expires soon; replace it"), warned, "{said}");
        child.wait().unwrap();
    }
}
