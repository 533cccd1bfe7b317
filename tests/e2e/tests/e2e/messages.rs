//! Messages in and out of a signed workload, with two real brokers (mosquitto): MQTT 5 over TLS for what comes in, 3.1.1 for what
//! goes out.

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use redan_identity::pem;
use redan_kit::stage::{Release, await_that, free_address, must, run};
use redan_kit::{Process, Programs, Stage};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";
const ALARM: &str = "acme/alarm";
const PASSWORD: &str = "kept-in-a-file-of-the-device";

/// Whether mosquitto is here; a word where it is not and nobody insists (continuous integration does).
fn is_there() -> Result<bool> {
    let programs = ["mosquitto", "mosquitto_passwd", "mosquitto_pub", "mosquitto_sub"];
    let missing = programs.iter().find(|program| {
        let mut asked = Command::new(program);
        asked
            .arg("--help")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        asked.status().is_err()
    });
    if let Some(missing) = missing {
        ensure!(
            std::env::var_os("REDAN_SERVICES").is_none(),
            "{missing} is not installed"
        );
        eprintln!("left out: {missing} is not installed (Debian packages mosquitto and mosquitto-clients)");
    }
    Ok(missing.is_none())
}

/// A real broker, with a password.
struct Broker {
    folder: PathBuf,
    address: SocketAddr,
    tls: bool,
    process: Option<Process>,
}

impl Broker {
    fn found(folder: &Path, tls: bool) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let address = free_address()?;
        let passwords = folder.join("passwords");
        let mut make = Command::new("mosquitto_passwd");
        make.args(["-b", "-c"]).arg(&passwords).args(["plant", PASSWORD]);
        must(run(&mut make)?, "mosquitto_passwd")?;
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous false\npassword_file {}\npersistence true\npersistence_location {}/\n\
             autosave_interval 1\nautosave_on_changes true\nuser root\nlog_dest file {}\nlog_type all\nconnection_messages true\n",
            address.port(),
            passwords.display(),
            folder.display(),
            folder.join("mosquitto.log").display()
        );
        let certified = if tls { certify(folder)? } else { String::new() };
        std::fs::write(folder.join("mosquitto.conf"), text + &certified)?;
        let mut broker = Self {
            folder: folder.to_owned(),
            address,
            tls,
            process: None,
        };
        broker.start()?;
        Ok(broker)
    }

    fn start(&mut self) -> Result<()> {
        let mut start = Command::new("mosquitto");
        start.arg("-c").arg(self.folder.join("mosquitto.conf"));
        let mut process = Process::start("mosquitto", &mut start, &self.folder.join("mosquitto.err"))?;
        let address = self.address;
        await_that("mosquitto to listen", SOON, || {
            ensure!(process.runs(), "mosquitto ended; {}", process.tail());
            Ok(std::net::TcpStream::connect(address)
                .map(drop)
                .map_err(|error| error.to_string()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop()?;
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.join("mosquitto.log")
    }

    /// How often a line of its log holds all of these.
    fn said(&self, words: &[&str]) -> Result<usize> {
        let log = std::fs::read(self.log())?;
        let log = String::from_utf8_lossy(&log);
        let fits = |line: &&str| words.iter().all(|word| line.contains(word));
        Ok(log.lines().filter(fits).count())
    }

    fn client(&self, program: &str, id: &str) -> Command {
        let mut client = Command::new(program);
        client.args(["-h", "127.0.0.1", "-p", &self.address.port().to_string()]);
        if self.tls {
            client.arg("--cafile").arg(self.folder.join("authority.pem"));
        }
        client.args(["-u", "plant", "-P", PASSWORD, "-q", "1", "-i", id]);
        client
    }

    fn publish(&self, topic: &str, text: &str) -> Result<()> {
        let mut publish = self.client("mosquitto_pub", "sensor");
        publish.args(["-t", topic, "-m", text]);
        must(run(&mut publish)?, "mosquitto_pub")?;
        Ok(())
    }
}

/// An authority of the plant's own, and a certificate of it for loopback; the lines that have the broker show it.
fn certify(folder: &Path) -> Result<String> {
    let mut params = CertificateParams::new(Vec::new())?;
    // Not the name every certificate of the library has: a leaf that names itself as its issuer is believed by nobody.
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "the plant's own");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::from_ca_cert_der(authority.der(), key)?;
    let own = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&own, &issuer)?;
    let mut lines = Vec::new();
    for (key, name, text) in [
        (
            "cafile",
            "authority.pem",
            pem::write_chain(&[authority.der().clone()]),
        ),
        ("certfile", "broker.pem", pem::write_chain(&[leaf.der().clone()])),
        ("keyfile", "broker.key.pem", own.serialize_pem()),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        lines.push(format!("{key} {}\n", path.display()));
    }
    Ok(lines.concat())
}

/// Who hears the alarms. Its session outlives it and the broker.
struct Listener {
    process: Process,
    heard: BTreeSet<String>,
}

impl Listener {
    fn start(broker: &Broker) -> Result<Self> {
        let mut listen = broker.client("mosquitto_sub", "operator");
        listen.args(["-c", "-t", "plant/#", "-F", "%t %p"]);
        let process = Process::start("mosquitto_sub", &mut listen, &broker.folder.join("listener.log"))?;
        await_that("the listener to be subscribed", SOON, || {
            Ok(if broker.said(&["Sending SUBACK to operator"])? > 0 {
                Ok(())
            } else {
                Err(String::new())
            })
        })?;
        Ok(Self {
            process,
            heard: BTreeSet::new(),
        })
    }

    /// Until an alarm about this reading was heard, now or before; the alarm.
    fn hears(&mut self, reading: &str) -> Result<String> {
        loop {
            let start = format!("plant/7/alarm {reading} (");
            if let Some(found) = self.heard.iter().find(|line| line.starts_with(&start)) {
                return Ok(found.clone());
            }
            let line = self
                .process
                .ready("")
                .with_context(|| format!("no alarm about {reading}"))?;
            self.heard.insert(line);
        }
    }
}

/// Two brokers, a fleet, and a device that runs the first release of the handler.
struct Plant {
    stage: Stage,
    readings: Broker,
    alarms: Broker,
    listener: Listener,
}

impl Plant {
    fn found(folder: &Path) -> Result<Self> {
        let readings = Broker::found(&folder.join("plant-bus"), true)?;
        let alarms = Broker::found(&folder.join("alarm-bus"), false)?;
        let listener = Listener::start(&alarms)?;
        let mut stage = Stage::new(Programs::find()?, &folder.join("stage"))?;
        stage.run_ceremony_for(&[ALARM])?;
        stage.start_control()?;
        stage.prepare_device(DEVICE)?;
        let credentials = folder.join("credentials");
        std::fs::write(&credentials, format!("plant\n{PASSWORD}\n"))?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&credentials, private)?;
        let authority = readings.folder.join("authority.pem").display().to_string();
        let template = stage.programs.repository.join("policies/device/messages.toml");
        let ceiling = std::fs::read_to_string(template)?
            .replace(
                "mqtt://127.0.0.1:1883\"",
                &format!("mqtts://{}\"\nroots = \"{authority}\"", readings.address),
            )
            .replace("127.0.0.1:1884", &alarms.address.to_string())
            .replace(
                "/etc/redan/plant-bus.credentials",
                &credentials.display().to_string(),
            )
            .replace(
                "/etc/redan/alarm-bus.credentials",
                &credentials.display().to_string(),
            );
        std::fs::write(
            stage.folder.join("devices").join(DEVICE).join("ceiling.toml"),
            ceiling,
        )?;
        stage.start_device(DEVICE)?;
        stage.publish_policy(&stage.programs.repository.join("policies/fleet/messages.toml"))?;
        let mut plant = Self {
            stage,
            readings,
            alarms,
            listener,
        };
        let rollout = plant.release("1.0.0", 1)?;
        plant.stage.await_rollout(&rollout, &["complete"], SOON)?;
        Ok(plant)
    }

    /// Publishes a release of the handler and starts its rollout.
    fn release(&mut self, version: &str, counter: u64) -> Result<String> {
        self.stage.publish(Release {
            component: ALARM,
            version,
            counter,
        })?;
        let set = format!("plant-{counter}");
        self.stage.publish_set(&set, &[(ALARM, version)])?;
        self.stage.start_rollout(&set, &["all=1000permille"])
    }

    fn measure(&self, reading: &str) -> Result<()> {
        self.readings.publish("plant/7/temp", reading)
    }

    /// The executor's process.
    fn executor(&mut self) -> Result<Pid> {
        let supervisor = self.stage.device_mut(DEVICE)?.process()?.id();
        await_that("an executor", SOON, || {
            for entry in std::fs::read_dir("/proc")?.flatten() {
                let Some(id) = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<i32>().ok())
                else {
                    continue;
                };
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
                let ours = status.lines().any(|line| line == format!("PPid:\t{supervisor}"));
                if ours && line.split(|byte| *byte == 0).any(|word| word == b"executor") {
                    return Ok(Pid::from_raw(id).ok_or_else(|| "no process id".to_owned()));
                }
            }
            Ok(Err("none runs".to_owned()))
        })
    }

    fn stop(mut self) -> Result<()> {
        self.stage.stop()?;
        self.readings.stop()?;
        self.alarms.stop()
    }
}

#[test]
fn messages_come_in_and_go_out_and_none_is_lost_whatever_ends_meanwhile() -> Result<()> {
    if !is_there()? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut plant = Plant::found(folder.path())?;
    let client = "press-1-acme-alarm";

    plant.measure("91.5 of 1")?;
    plant.listener.hears("91.5 of 1")?;
    await_that("the acknowledgement", SOON, || {
        let seen = plant.readings.said(&["Received PUBACK from", client])?;
        Ok(if seen == 1 { Ok(()) } else { Err(format!("{seen}")) })
    })?;

    // Delivered, not acknowledged, and the executor is gone.
    let executor = plant.executor()?;
    kill_process(executor, Signal::STOP)?;
    plant.measure("92 of 2")?;
    await_that("the delivery", SOON, || {
        let seen = plant.readings.said(&["Sending PUBLISH to", client])?;
        Ok(if seen == 2 { Ok(()) } else { Err(format!("{seen}")) })
    })?;
    kill_process(executor, Signal::KILL)?;
    plant.listener.hears("92 of 2")?;

    // The broker of the alarms is away: they wait on the device's disk, through the end of the executor and of the device.
    plant.alarms.stop()?;
    for number in 10..20 {
        plant.measure(&format!("93 of {number}"))?;
    }
    await_that("ten more acknowledgements", SOON, || {
        let seen = plant.readings.said(&["Received PUBACK from", client])?;
        Ok(if seen >= 12 {
            Ok(())
        } else {
            Err(format!("{seen}"))
        })
    })?;
    let executor = plant.executor()?;
    kill_process(executor, Signal::KILL)?;
    plant.stage.device_mut(DEVICE)?.kill()?;
    // Nobody is there, and the readings' broker keeps them.
    plant.measure("94 of 3")?;
    plant.readings.stop()?;
    plant.readings.start()?;
    plant.alarms.start()?;
    plant.stage.start_device(DEVICE)?;
    for number in 10..20 {
        plant.listener.hears(&format!("93 of {number}"))?;
    }
    plant.listener.hears("94 of 3")?;

    // The broker of the readings stops and starts beside a running device: the session goes on.
    plant.readings.stop()?;
    plant.readings.start()?;
    await_that("the device to come back", SOON, || {
        let log = plant.readings.said(&["Sending CONNACK to", client, "(1, 0)"])?;
        Ok(if log >= 2 { Ok(()) } else { Err(format!("{log}")) })
    })?;
    plant.measure("95 of 4")?;
    plant.listener.hears("95 of 4")?;
    plant.stop()
}

#[test]
fn no_message_is_lost_while_a_new_version_takes_over() -> Result<()> {
    if !is_there()? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut plant = Plant::found(folder.path())?;
    let rollout = plant.release("1.1.0", 2)?;
    let mut sent = 0;
    await_that("the rollout", SOON, || {
        for _ in 0..5 {
            sent += 1;
            plant.measure(&format!("90 of {sent}"))?;
        }
        let shown = plant.stage.rollout(&rollout)?;
        let state = shown
            .get("state")
            .and_then(|state| state.as_str())
            .unwrap_or_default();
        Ok(if state == "complete" {
            Ok(())
        } else {
            Err(shown.to_string())
        })
    })?;
    sent += 1;
    plant.measure(&format!("90 of {sent}"))?;
    let mut versions = BTreeSet::new();
    for number in 1..=sent {
        let alarm = plant.listener.hears(&format!("90 of {number}"))?;
        versions.insert(alarm.rsplit_once('(').map(|(_, version)| version.to_owned()));
    }
    ensure!(versions.len() == 2, "{versions:?} of {sent} messages");
    plant.stop()
}

/// How many connections of loopback lead to this port.
fn connections(port: u16) -> Result<usize> {
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let to = format!(":{port:04X}");
    let mut columns = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Far end, then state: 1 is an open one.
    Ok(columns
        .by_ref()
        .filter(|row| matches!(row.get(2..4), Some([far, "01"]) if far.ends_with(&to)))
        .count())
}

#[test]
fn what_policy_takes_has_no_session_with_a_broker_any_more() -> Result<()> {
    if !is_there()? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut plant = Plant::found(folder.path())?;
    let client = "press-1-acme-alarm";
    plant.measure("91 of 1")?;
    plant.listener.hears("91 of 1")?;
    let (readings, alarms) = (plant.readings.address.port(), plant.alarms.address.port());
    // Beside the device's, the listener's.
    ensure!((connections(readings)?, connections(alarms)?) == (1, 2));
    let before = plant.readings.said(&["New client connected", client])?;
    let repository = &plant.stage.programs.repository;
    let policy = std::fs::read_to_string(repository.join("policies/fleet/messages.toml"))?;
    let publish = |plant: &Plant, serial: u32, subscribe: &str| -> Result<()> {
        let text = policy
            .replace("serial = 1", &format!("serial = {serial}"))
            .replace("subscribe = [\"plant/#\"]", subscribe);
        let path = folder.path().join("policy.toml");
        std::fs::write(&path, text)?;
        plant.stage.publish_policy(&path).map(drop)
    };
    publish(&plant, 2, "subscribe = [\"office/#\"]")?;
    await_that("both sessions to be closed", SOON, || {
        let open = (connections(readings)?, connections(alarms)?);
        Ok(if open == (0, 1) {
            Ok(())
        } else {
            Err(format!("{open:?}"))
        })
    })?;
    // Nobody comes back to a broker that has just started.
    plant.readings.stop()?;
    plant.readings.start()?;
    plant.measure("92 of 2")?;
    publish(&plant, 3, "subscribe = [\"plant/#\"]")?;
    plant.measure("93 of 3")?;
    plant.listener.hears("93 of 3")?;
    let after = plant.readings.said(&["New client connected", client])?;
    ensure!(after == before + 1, "connected {before} times, then {after}");
    plant.stop()
}

#[test]
fn nothing_of_a_message_reaches_the_platform_or_a_log() -> Result<()> {
    if !is_there()? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut plant = Plant::found(folder.path())?;
    let mark = "99.125 of canary-3f9c";
    plant.measure(mark)?;
    plant.listener.hears(mark)?;
    // What no document admits, and what is no reading: the ways that end in a code.
    plant
        .readings
        .publish("plant/7/temp", "canary-3f9c is no number")?;
    let devices = plant.stage.views()?;
    plant.stage.stop()?;
    let marks = ["canary-3f9c", "99.125", "plant/7", "press-1-acme-alarm", PASSWORD];
    let shown = format!("{devices:?}");
    let mut searched = vec![(PathBuf::from("what the server shows"), shown.into_bytes())];
    for path in [
        plant.stage.folder.join("control.log"),
        plant.stage.folder.join("devices").join(DEVICE).join("device.log"),
    ] {
        searched.push((path.clone(), std::fs::read(&path)?));
    }
    files_below(&plant.stage.control_state(), &mut searched)?;
    ensure!(searched.len() > 3, "only {} places were searched", searched.len());
    for (place, bytes) in &searched {
        for mark in marks {
            let found = bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
            ensure!(!found, "{mark:?} is in {}", place.display());
        }
    }
    plant.stop()
}

fn files_below(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files_below(&path, found)?;
        } else if path.is_file() {
            found.push((path.clone(), std::fs::read(&path)?));
        }
    }
    Ok(())
}
