//! What the agent takes, keeps, and holds a server to.

use super::*;
use crate::clock::{Clock, wall};
use crate::disk::faulty::{Cut, FaultyDisk};
use redan_identity::client::{ClientError, Connection};
use redan_identity::crl::{CRL_LIFE_OFFLINE_MAX, RevokedSerial, serial_of, write_lists};
use redan_identity::tls::{FleetServer, Fleets, accept, device_client, fleet_server};
use redan_identity::{CertificateDer, FleetAnchor, FleetCa, Issuer, KeyFile};
use redan_protocol::wire::control_host;
use redan_protocol::{ByteCount, DeviceId, FleetId, Seconds, SpiffeId};
use std::collections::BTreeSet;

const LIFE: Seconds = Seconds::new(30 * 86_400);

/// A fleet with a server, and a device's disk.
struct Scene {
    ca: FleetCa,
    anchor: FleetAnchor,
    servers: Issuer,
    server: FleetServer,
    chain: Vec<CertificateDer<'static>>,
    proven: Proven,
}

impl Scene {
    fn new() -> Self {
        let fleet = FleetId::parse("plant.example").unwrap();
        let ca = FleetCa::found(fleet.clone(), wall()).unwrap();
        let anchor = ca.anchor().unwrap();
        let servers = ca.issuer(IssuerKind::Server, wall()).unwrap();
        let key = KeyFile::generate().unwrap();
        let chain = servers
            .issue_for(&SpiffeId::Control(fleet), &key, wall())
            .unwrap();
        Self {
            server: fleet_server(&anchor, &chain, &key, wall()).unwrap(),
            proven: Proven::new(Clock::start()),
            ca,
            anchor,
            servers,
            chain,
        }
    }

    /// A device that starts anew: what it knows is on its disk.
    fn start(&mut self, disk: &FaultyDisk) -> ServerLists {
        self.proven = Proven::new(Clock::start());
        ServerLists::open(disk, Path::new("revoked"), &(&self.anchor).into(), &self.proven).unwrap()
    }

    /// List `number`, on which the server is or is not.
    fn list(&self, number: u64, revoked: bool, life: Seconds) -> Vec<u8> {
        let serial = serial_of(&self.chain[0]).unwrap();
        let entry = RevokedSerial { serial, at: wall() };
        let revoked = BTreeSet::from_iter(revoked.then_some(entry));
        let list = self.servers.crl(number, &revoked, wall(), life).unwrap();
        write_lists(self.servers.certificate(), &list).into_bytes()
    }

    fn offer(lists: &mut ServerLists, disk: &FaultyDisk, file: &[u8]) -> Option<Code> {
        lists.offer(disk, Digest::of(file), file, wall());
        lists.alarm()
    }

    /// Whether a handshake of the device with the server comes to an end.
    async fn shakes(&self) -> Result<(), ClientError> {
        let id = SpiffeId::Device(self.anchor.fleet().clone(), DeviceId::parse("press-1").unwrap());
        let key = KeyFile::generate().unwrap();
        let issuer = self.ca.issuer(IssuerKind::Device, wall()).unwrap();
        let chain = issuer.issue_for(&id, &key, wall()).unwrap();
        let config = device_client(&self.anchor, chain, &key, self.proven.floor()).unwrap();
        let fleets = Fleets::default();
        fleets.put(&self.anchor, &self.server);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let server = async { drop(accept(&fleets, far, wall).await) };
        let host = control_host(self.anchor.fleet());
        let (opened, ()) = tokio::join!(Connection::open(near, config, &host), server);
        opened.map(drop)
    }
}

const REVOKED: Result<(), ClientError> = Err(ClientError::Refused(Code::CertificateRevoked));

/// Holds: the key of a server's certificate that was taken back.
#[tokio::test]
async fn a_revoked_server_is_refused_from_the_list_on_over_restarts_and_until_a_newer_list() {
    let mut scene = Scene::new();
    let disk = FaultyDisk::default();
    let mut lists = scene.start(&disk);
    assert_eq!(
        (lists.alarm(), scene.shakes().await),
        (None, Ok(())),
        "no list yet"
    );
    assert_eq!(Scene::offer(&mut lists, &disk, &scene.list(1, true, LIFE)), None);
    assert_eq!(scene.shakes().await, REVOKED);
    let disk = disk.power_cycle(false);
    let mut lists = scene.start(&disk);
    assert_eq!(
        (lists.alarm(), scene.shakes().await),
        (None, REVOKED),
        "restarted"
    );
    assert_eq!(Scene::offer(&mut lists, &disk, &scene.list(2, false, LIFE)), None);
    assert_eq!(scene.shakes().await, Ok(()));
}

/// Holds: lists of other issuers and other times, and whatever is no list (P16).
#[tokio::test]
async fn no_bad_list_takes_the_place_of_the_good_one_and_each_raises_its_alarm() {
    let mut scene = Scene::new();
    let disk = FaultyDisk::default();
    let mut lists = scene.start(&disk);
    assert_eq!(Scene::offer(&mut lists, &disk, &scene.list(7, true, LIFE)), None);
    let good = scene.list(8, false, LIFE);
    let foreign = Scene::new();
    let operators = scene.ca.issuer(IssuerKind::Operator, wall()).unwrap();
    let of_operators = operators.crl(8, &BTreeSet::new(), wall(), LIFE).unwrap();
    let too_long = Seconds::new(CRL_LIFE_OFFLINE_MAX.get() + 1);
    for (what, file, wanted) in [
        (
            "an older number",
            scene.list(6, false, LIFE),
            Code::RevocationListRollback,
        ),
        (
            "the same number",
            scene.list(7, false, LIFE),
            Code::RevocationListRollback,
        ),
        (
            "a longer life",
            scene.list(8, false, too_long),
            Code::RevocationListInvalid,
        ),
        (
            "another fleet's issuer",
            foreign.list(8, false, LIFE),
            Code::RevocationListInvalid,
        ),
        (
            "an issuer of another kind",
            write_lists(operators.certificate(), &of_operators).into_bytes(),
            Code::RevocationListInvalid,
        ),
        ("10 MB", vec![b'\n'; 10_000_000], Code::RevocationListInvalid),
        (
            "half of it",
            good[..good.len() / 2].to_vec(),
            Code::RevocationListInvalid,
        ),
        ("nothing", Vec::new(), Code::RevocationListInvalid),
    ] {
        assert_eq!(Scene::offer(&mut lists, &disk, &file), Some(wanted), "{what}");
        assert_eq!(scene.shakes().await, REVOKED, "{what}");
        let mut again = scene.start(&disk);
        assert_eq!(scene.shakes().await, REVOKED, "{what}, restarted");
        std::mem::swap(&mut lists, &mut again);
    }
    // One that has run out when it comes.
    let late = UnixSeconds::new(wall().get() + LIFE.get() + 60);
    lists.offer(&disk, Digest::of(&good), &good, late);
    assert_eq!(lists.alarm(), Some(Code::RevocationListExpired));
    assert_eq!(scene.shakes().await, REVOKED);
    assert_eq!(Scene::offer(&mut lists, &disk, &good), None, "positive control");
    assert_eq!(scene.shakes().await, Ok(()));
}

#[tokio::test]
async fn a_list_that_runs_out_stays_in_force_and_raises_an_alarm() {
    let mut scene = Scene::new();
    let disk = FaultyDisk::default();
    let mut lists = scene.start(&disk);
    assert_eq!(
        Scene::offer(&mut lists, &disk, &scene.list(1, true, Seconds::new(60))),
        None
    );
    scene.proven.learn(UnixSeconds::new(wall().get() + 3600));
    assert_eq!(lists.alarm(), Some(Code::RevocationListExpired));
    assert_eq!(scene.shakes().await, REVOKED);
    let later = scene.proven.now();
    lists = scene.start(&disk);
    scene.proven.learn(later);
    assert_eq!(lists.alarm(), Some(Code::RevocationListExpired), "restarted");
    assert_eq!(scene.shakes().await, REVOKED);
}

#[test]
fn a_power_cut_at_any_call_leaves_the_old_or_the_new_list_and_never_none() {
    let mut scene = Scene::new();
    let (first, second) = (scene.list(1, true, LIFE), scene.list(2, false, LIFE));
    let mut names = |disk: &FaultyDisk| {
        let lists = scene.start(disk);
        let chain = scene.chain.clone();
        let known = scene.proven.lists().get();
        let judged = known.check(
            &scene.anchor,
            &chain,
            redan_identity::profile::Purpose::Server,
            wall(),
        );
        (lists, judged.map(drop))
    };
    let with_first = || FaultyDisk::default();
    for at in 0..3 {
        for cut in [Cut::Before, Cut::After, Cut::Torn] {
            for lucky in [false, true] {
                let disk = with_first();
                let (mut lists, _) = names(&disk);
                assert_eq!(Scene::offer(&mut lists, &disk, &first), None);
                let disk = disk.power_cycle(false).with_fault(at, cut);
                let (mut lists, _) = names(&disk);
                assert!(Scene::offer(&mut lists, &disk, &second).is_some(), "said");
                let disk = disk.power_cycle(lucky);
                let (mut lists, judged) = names(&disk);
                assert!(
                    judged == Err(CrlFault::Revoked) || judged == Ok(()),
                    "call {at}, {cut:?}: {judged:?}"
                );
                assert_eq!(Scene::offer(&mut lists, &disk, &second), None);
                assert_eq!(names(&disk.power_cycle(false)).1, Ok(()));
            }
        }
    }
}

#[test]
fn a_list_that_the_disk_does_not_take_is_in_force_all_the_same_and_read_again() {
    let mut scene = Scene::new();
    let disk = FaultyDisk::default().with_fault(0, Cut::Error(io::ErrorKind::StorageFull));
    let mut lists = scene.start(&disk);
    let list = scene.list(1, true, LIFE);
    assert_eq!(Scene::offer(&mut lists, &disk, &list), Some(Code::DiskFull));
    assert_eq!(lists.taken, None);
    assert!(!scene.proven.lists().get().keep().is_empty());
    assert_eq!(Scene::offer(&mut lists, &disk, &list), None);
    assert_eq!(lists.taken, Some(Digest::of(&list)));
}

#[test]
fn two_damaged_copies_are_said_and_the_next_list_is_taken() {
    let mut scene = Scene::new();
    let disk = FaultyDisk::default();
    let mut lists = scene.start(&disk);
    for number in 1..=2 {
        let list = scene.list(number, true, LIFE);
        assert_eq!(Scene::offer(&mut lists, &disk, &list), None);
    }
    for copy in ["revoked/a", "revoked/b"] {
        disk.flip_a_bit(Path::new(copy), 900);
    }
    let mut lists = scene.start(&disk);
    assert_eq!(lists.alarm(), Some(Code::StateLost));
    assert_eq!(Scene::offer(&mut lists, &disk, &scene.list(3, true, LIFE)), None);
    assert_eq!(disk.read(Path::new("none"), ByteCount::kib(1)).unwrap(), None);
}
