//! Metadata only, searched for (attacks A03, A05): random marks go into everything a workload hears, keeps, says and is configured with, on
//! ways that go well and ways that do not; then every byte that came to the platform, and every byte the runtime itself logs, is searched.
//!
//! The guest is `guest-examples/hostile/canary`: it repeats all of it wherever it can. The programs log everything they know how to log.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

pub(crate) mod memory;
mod relay;
mod search;

use anyhow::{Context as _, Result, ensure};
use redan_kit::stage::{JOB, Release, SERVICE, await_that, run};
use redan_kit::{Programs, Stage};
use relay::Relay;
use search::{Marks, encodings, gzip, zlib};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";
/// An address that is not loopback, which no rule can admit; there is one where the test has a network of its own.
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(10, 213, 7, 1);
/// What the guest may write to its owner's log: all of it.
const BUDGET: &str = "8MiB/min";
/// Set where the test plays: it starts itself again, with a network of its own if it may, and with every log line there is.
const PLAYS: &str = "REDAN_CANARY";

#[test]
fn no_mark_put_into_a_workload_reaches_the_platform_or_a_log_of_the_runtime() -> Result<()> {
    if let Some(network) = std::env::var_os(PLAYS) {
        return play(network == "own");
    }
    let program = std::env::current_exe()?;
    let name = "canary::no_mark_put_into_a_workload_reaches_the_platform_or_a_log_of_the_runtime";
    let own = format!("ip link set lo up && ip addr add {UPSTREAM}/32 dev lo");
    let may =
        run(Command::new("unshare").args(["--net", "sh", "-c", &own])).is_ok_and(|ran| ran.code == Some(0));
    let (network, before) = if may {
        ("own", own.as_str())
    } else {
        ensure!(
            std::env::var_os("REDAN_SERVICES").is_none(),
            "no network of its own"
        );
        eprintln!("left out: answers of an upstream (only root can give the test a network of its own)");
        ("shared", "true")
    };
    let mut again = Command::new(if may { "unshare" } else { "env" });
    if may {
        again.arg("--net");
    }
    // Whoever wants core dumps gets them where nothing prevents them.
    again.args([
        "sh",
        "-c",
        &format!("{before} && ulimit -c unlimited; exec \"$0\" \"$@\""),
    ]);
    again.arg(program).args([name, "--exact", "--nocapture"]);
    again.env(PLAYS, network).env("REDAN_LOG", "trace");
    let ran = run(&mut again)?;
    ensure!(ran.code == Some(0), "{}{}", ran.stdout, ran.stderr);
    Ok(())
}

/// Everything that is searched, by where it was.
type Places = BTreeMap<String, Vec<u8>>;

fn play(own_network: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut marks = Marks::default();
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    let upstream = own_network.then(|| Upstream::start(&mut marks)).transpose()?;
    let (relay, service) = settle(&mut stage, &mut marks, upstream.as_ref())?;
    converse(&mut marks, service, upstream.as_ref())?;
    passed_on(&stage, &marks)?;
    memories(&mut stage, &marks)?;

    // An update that fails its probe, saying why wherever it can, and is rolled back.
    publish(&stage, "1.1.0", 2, upstream.as_ref())?;
    stage.publish_set("sick", &[(SERVICE, "1.1.0"), (JOB, "1.0.0"), (RECEIVER, "1.0.0")])?;
    let rollout = stage.start_rollout("sick", &["all=1000permille"])?;
    stage.await_rollout(&rollout, &["halted"], SOON)?;
    stage.await_devices("a rollback", SOON, |views| {
        views.iter().any(|view| view.rollback.is_some())
    })?;

    // Every process dies as of a bug, and what it had in memory stays nowhere; then the device goes on, and reports.
    crash(&mut stage)?;
    let before = relay.sent().len();
    stage.start_device(DEVICE)?;
    converse(&mut marks, service, upstream.as_ref())?;
    await_that("reports after the restart", SOON, || {
        let more = count(&relay.sent()[before..], b"POST /v1/checkin");
        Ok((more > 4).then_some(()).ok_or(more.to_string()))
    })?;
    let mut places = asked(&stage)?;
    stage.stop()?;
    kept(&stage, &relay, &mut places)?;

    all_were_heard(&stage, &marks, upstream.as_ref())?;
    nothing_is_there(&marks, &places)?;
    dumps(folder.path())?;
    whatever_leaks_is_found(&marks, &places)
}

/// Who hears what the canary says to another workload of the device.
const RECEIVER: &str = "acme/alarm";
const RECEIVERS_ASK: &str = r#"schema = "redan.policy/1"
kind = "ask"
[subject]
name = "acme/alarm"
version = "1.0.0"
world = "redan:messaging/handler@0.1"
[[trigger.bus]]
id = "canary"
from = "acme/thermo"
subscribe = ["plant/+"]
budget = { messages = "1000/s" }
required = true
[[net.bus]]
id = "alarms"
to = "acme/thermo"
publish = ["plant/+/alarm"]
[[outbox]]
id = "alarms"
to = "alarms"
[log]
budget = "8MiB/min"
[health]
interval = "250ms"
timeout = "2s"
probation = "2s"
"#;
/// What fleet and device say of it.
const ADMITTED: &str = r#"[[trigger.bus]]
id = "canary"
from = "acme/thermo"
subscribe = ["plant/#"]
[[net.bus]]
id = "canary"
to = "acme/alarm"
publish = ["plant/#"]
[[outbox]]
id = "bus"
"#;

/// A device behind the relay that runs the canary, its settings full of marks.
fn settle(stage: &mut Stage, marks: &mut Marks, upstream: Option<&Upstream>) -> Result<(Relay, SocketAddr)> {
    stage.run_ceremony_for(&[SERVICE, JOB, RECEIVER])?;
    let server = stage.start_control()?;
    stage.prepare_device(DEVICE)?;
    let device = stage.device(DEVICE)?;
    let (relay, address) = Relay::between(stage, &device.state)?;
    let (service, home) = (device.service, stage.folder.join("devices").join(DEVICE));
    let config = home.join("device.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, text.replace(&server.to_string(), &address.to_string()))?;
    let values = format!(
        "[env]\nallow = [\"CANARY\"]\nvalues = {{ CANARY = \"{}\" }}\n[config]\nkeys = [\"canary\"]\nvalues = {{ canary = \"{}\" }}\n",
        marks.make("an environment value")?,
        marks.make("a configuration value")?,
    );
    let rest = "[[fs]]\nname = \"state\"\nmode = \"rw\"\n";
    let ceiling = home.join("ceiling.toml");
    let text = std::fs::read_to_string(&ceiling)?;
    // Else the guest's own budget hides what it says.
    let text = text.replace("64KiB/min", BUDGET);
    std::fs::write(
        &ceiling,
        format!(
            "{text}\n{rest}host = \"{}\"\n{ADMITTED}{values}{}",
            lent(stage)?.display(),
            egress(upstream)
        ),
    )?;
    stage.start_device(DEVICE)?;

    let policy = stage.folder.join("policy.toml");
    let text = std::fs::read_to_string(stage.programs.repository.join("policies/fleet/demo.toml"))?;
    let names = "[env]\nallow = [\"CANARY\"]\n[config]\nkeys = [\"canary\"]\n";
    let text = text.replace("32KiB/min", BUDGET).replace(
        "\"wasi:cli/command@0.2\"]",
        "\"wasi:cli/command@0.2\", \"redan:messaging/handler@0.1\"]",
    );
    std::fs::write(
        &policy,
        format!("{text}\n{rest}{ADMITTED}{names}{}", egress(upstream)),
    )?;
    stage.publish_policy(&policy)?;
    publish(stage, "1.0.0", 1, upstream)?;
    stage.publish(Release {
        component: JOB,
        version: "1.0.0",
        counter: 1,
    })?;
    let ask = stage.folder.join("receiver.ask.toml");
    std::fs::write(&ask, RECEIVERS_ASK)?;
    sign(stage, "alarm", "1.0.0", &ask, 1, "component.acme.alarm-1")?;
    stage.publish_set(
        "plant-1",
        &[(SERVICE, "1.0.0"), (JOB, "1.0.0"), (RECEIVER, "1.0.0")],
    )?;
    let rollout = stage.start_rollout("plant-1", &["all=1000permille"])?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    Ok((relay, service))
}

/// A folder of the device's own, outside of its state, for the canary's volume: whoever its publisher's user is, it may write there.
fn lent(stage: &Stage) -> Result<PathBuf> {
    let folder = stage.folder.join("lent");
    std::fs::create_dir_all(&folder)?;
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    open(&stage.folder, 0o711)?;
    open(&folder, 0o777)?;
    Ok(folder)
}

fn egress(upstream: Option<&Upstream>) -> String {
    let Some(upstream) = upstream else {
        return String::new();
    };
    format!(
        "[[net.http]]\nid = \"upstream\"\nallow = [\"http://{}\"]\nmethods = [\"POST\"]\nprivate_addresses = true\n",
        upstream.address
    )
}

/// Publishes the canary as the service.
fn publish(stage: &Stage, version: &str, counter: u64, upstream: Option<&Upstream>) -> Result<()> {
    let text = std::fs::read_to_string(stage.programs.repository.join("policies/ask/thermo.toml"))?;
    let text = text.replace("version = \"1.0.0\"", &format!("version = \"{version}\""));
    let text = text.replace("64KiB/min", BUDGET);
    let more = "[[fs]]\nname = \"state\"\nguest = \"/state\"\nmode = \"rw\"\nrequired = true\n\
                [env]\nallow = [\"CANARY\"]\nrequired = true\n[config]\nkeys = [\"canary\"]\nrequired = true\n\
                [[net.bus]]\nid = \"bus\"\nto = \"acme/alarm\"\npublish = [\"plant/+\"]\nbudget = { messages = \"1000/s\" }\n\
                [[outbox]]\nid = \"bus\"\nto = \"bus\"\nrequired = true\n";
    // Without an upstream there is a rule all the same, for an address that nobody has.
    let rule = match upstream {
        Some(_) => egress(upstream),
        None => "[[net.http]]\nid = \"upstream\"\nallow = [\"http://10.213.7.1\"]\nmethods = [\"POST\"]\n"
            .to_owned(),
    };
    let ask = stage.folder.join(format!("canary-{version}.ask.toml"));
    std::fs::write(&ask, format!("{text}\n{more}{rule}"))?;
    sign(stage, "canary", version, &ask, counter, "component.acme.thermo-1")
}

fn sign(stage: &Stage, guest: &str, version: &str, ask: &Path, counter: u64, key: &str) -> Result<()> {
    stage.redan(&[
        "publish",
        &stage.programs.guest(guest, version)?.to_string_lossy(),
        "--ask",
        &ask.to_string_lossy(),
        "--counter",
        &counter.to_string(),
        "--key",
        &stage.key(key),
        "--key",
        &stage.key("release.snapshot-1"),
    ])?;
    Ok(())
}

/// Requests of every kind, each with marks of its own in every part of it.
fn converse(marks: &mut Marks, service: SocketAddr, upstream: Option<&Upstream>) -> Result<()> {
    await_that("the canary to answer", SOON, || {
        let answer = ask(
            service,
            b"GET /thermo/well HTTP/1.1\r\nhost: canary\r\nconnection: close\r\n\r\n",
        )?;
        Ok(answer.contains("200 OK").then_some(()).ok_or(answer))
    })?;
    for way in ["well", "panics", "fails", "loops", "hoards", "breaks-off"] {
        let answer = ask(service, &request(marks, way, &[])?)?;
        let well = answer.starts_with("HTTP/1.1 200");
        // How much of an answer that breaks off is out by then is a race.
        ensure!(well == (way == "well") || way == "breaks-off", "{way}: {answer}");
    }
    // What the runtime itself refuses: another route, another method, too much, and what is no HTTP at all.
    let mark = |marks: &mut Marks, what: &str| marks.make(&format!("{what} that is refused"));
    let head = "host: canary\r\nconnection: close\r\n";
    let route = format!(
        "GET /{}/?{} HTTP/1.1\r\n{head}\r\n",
        mark(marks, "a route")?,
        mark(marks, "a query")?
    );
    let method = format!(
        "{} /thermo/well HTTP/1.1\r\n{head}\r\n",
        mark(marks, "a method")?.to_uppercase()
    );
    let large = format!(
        "GET /thermo/well HTTP/1.1\r\n{head}x-large: {}{}\r\n\r\n",
        mark(marks, "a large header")?,
        "x".repeat(20_000)
    );
    let body = format!("{}{}", mark(marks, "a large body")?, "x".repeat(70_000));
    let body = format!(
        "POST /thermo/well HTTP/1.1\r\n{head}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let garbage = format!(
        "{}\r\n{}\r\n\r\n",
        mark(marks, "garbage")?,
        mark(marks, "more garbage")?
    );
    for refused in [route, method, large, body, garbage] {
        let answer = ask(service, refused.as_bytes())?;
        ensure!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    // Outgoing: to a host no rule names, and to one that answers well, in nonsense, or not at all.
    let host = format!("{}.example", marks.make("the host of a denied request")?);
    let answer = ask(service, &request(marks, "asks", &[("x-authority", &host)])?)?;
    ensure!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    if let Some(upstream) = upstream {
        let authority = upstream.address.to_string();
        for kind in [Kind::Well, Kind::Nonsense, Kind::Nothing] {
            *upstream.kind.lock().expect("nobody panics with it") = kind;
            let answer = ask(service, &request(marks, "asks", &[("x-authority", &authority)])?)?;
            ensure!(
                answer.starts_with("HTTP/1.1 200") == (kind == Kind::Well),
                "{kind:?}: {answer}"
            );
        }
    }
    Ok(())
}

/// A request with a fresh mark in path, query, headers, body and trailers, and marks for what the guest is to do with them.
fn request(marks: &mut Marks, way: &str, more: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut mark = |what: &str| marks.make(&format!("{what} of a request that {way}"));
    let mut text = format!(
        "POST /thermo/{way}/{}?{}={} HTTP/1.1\r\nhost: {}\r\n",
        mark("path")?,
        mark("query key")?,
        mark("query value")?,
        mark("host")?
    )
    .into_bytes();
    for (name, what) in [
        ("x-context", "log context"),
        ("x-key", "key"),
        ("x-value", "value"),
        ("x-file", "file name"),
        ("x-content", "file content"),
        ("x-answer", "answer header"),
        ("x-send-header", "outgoing header"),
        ("x-send-path", "outgoing path"),
        ("x-send-body", "outgoing body"),
        ("x-topic", "bus topic"),
        ("x-type", "bus content type"),
        ("x-said", "bus payload"),
        ("x-name", "bus item's name"),
        ("authorization", "authorization"),
        ("cookie", "cookie"),
        ("referer", "referer"),
    ] {
        write!(text, "{name}: {}\r\n", mark(what)?)?;
    }
    write!(text, "x-{}: {}\r\n", mark("header name")?, mark("header value")?)?;
    for (name, value) in more {
        write!(text, "{name}: {value}\r\n")?;
    }
    let body = mark("body")?;
    write!(
        text,
        "trailer: x-last\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\nx-last: {}\r\n\r\n",
        body.len(),
        mark("trailer")?
    )?;
    Ok(text)
}

/// Whole answer, whatever it is; empty when the connection was only closed.
fn ask(address: SocketAddr, request: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    // A request that is refused in the middle breaks the pipe.
    stream.write_all(request).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// How the upstream answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Well,
    Nonsense,
    Nothing,
}

/// Somebody a workload may ask, and what he says.
struct Upstream {
    address: SocketAddr,
    kind: Arc<Mutex<Kind>>,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Upstream {
    fn start(marks: &mut Marks) -> Result<Self> {
        let listener = TcpListener::bind((IpAddr::V4(UPSTREAM), 0))?;
        let address = listener.local_addr()?;
        let well = format!(
            "HTTP/1.1 200 OK\r\nx-upstream: {}\r\ncontent-length: 32\r\nconnection: close\r\n\r\n{}",
            marks.make("the upstream's header")?,
            marks.make("the upstream's body")?
        );
        let nonsense = format!("{}\r\n\r\n", marks.make("the upstream's nonsense")?);
        let (kind, heard) = (Arc::new(Mutex::new(Kind::Well)), Arc::new(Mutex::new(Vec::new())));
        let (says, keeps) = (Arc::clone(&kind), Arc::clone(&heard));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = Vec::new();
                let mut buffer = [0; 4_096];
                while !request.ends_with(b"0\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(count @ 1..) => request.extend(&buffer[..count]),
                        _ => break,
                    }
                }
                keeps.lock().expect("nobody panics with it").extend(request);
                let answer = match *says.lock().expect("nobody panics with it") {
                    Kind::Well => well.as_str(),
                    Kind::Nonsense => nonsense.as_str(),
                    Kind::Nothing => "",
                };
                stream.write_all(answer.as_bytes()).ok();
            }
        });
        Ok(Self { address, kind, heard })
    }
}

/// Positive control: what the canary said to another workload of the device came there, past the agent.
fn passed_on(stage: &Stage, marks: &Marks) -> Result<()> {
    let log = stage.device(DEVICE)?.state.join("data/acme/logs/alarm.log");
    await_that("every message of the canary", SOON, || {
        let heard = std::fs::read(&log).unwrap_or_default();
        let said = marks
            .all()
            .filter(|(what, _)| what.starts_with("bus topic") || what.starts_with("bus payload"));
        let missing: Vec<&str> = said
            .filter(|(_, text)| count(&heard, text.as_bytes()) == 0)
            .map(|(what, _)| what)
            .collect();
        Ok(if missing.is_empty() {
            Ok(())
        } else {
            Err(missing.join(", "))
        })
    })
}

/// Kills every process of the device as a failed assertion would, the executor first; and stops what begins in their places.
fn crash(stage: &mut Stage) -> Result<()> {
    let device = stage.device_mut(DEVICE)?.process()?;
    let supervisor = device.id();
    let mut children: Vec<_> = memory::processes(supervisor)?.into_iter().collect();
    children.retain(|(kind, _)| kind != "supervisor");
    children.sort_by_key(|(kind, _)| kind != "executor");
    ensure!(children.len() >= 3, "agent, broker and executor: {children:?}");
    for (_, child) in &children {
        let id = i32::try_from(*child)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        // The first one's end may take the others along.
        rustix::process::kill_process(id.context("a process")?, rustix::process::Signal::ABORT).ok();
    }
    await_that("others in their places", SOON, || {
        let now = memory::processes(supervisor)?;
        let dead = |id: &u32| children.iter().any(|(_, child)| child == id);
        Ok(if now.contains_key("agent") && !now.values().any(dead) {
            Ok(())
        } else {
            Err(format!("{children:?}, now {now:?}"))
        })
    })?;
    stage.device_mut(DEVICE)?.stop()
}

/// Who talks to the platform has seen no payload: not a byte of it is in the memory of supervisor, agent and broker. The executor's is
/// the positive control; the agent knows the settings, for it computes the grant.
fn memories(stage: &mut Stage, marks: &Marks) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: the memory of processes (only root can read it)");
        return Ok(());
    }
    let processes = memory::processes(stage.device_mut(DEVICE)?.process()?.id())?;
    for kind in ["supervisor", "agent", "broker", "executor"] {
        let process = *processes
            .get(kind)
            .with_context(|| format!("no {kind}: {processes:?}"))?;
        let memory = memory::memory(process)?;
        ensure!(memory.len() > 100_000, "{kind} has {} bytes", memory.len());
        let mut found = marks.find(&memory);
        if kind == "executor" {
            ensure!(
                !found.is_empty(),
                "the search finds nothing where the payload was"
            );
            continue;
        }
        // The names of hosts are what the broker is there to check.
        found.retain(|found| {
            kind != "agent" || !found.what.ends_with("value") || found.what.contains("request")
        });
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        ensure!(found.is_empty(), "in the memory of the {kind}: {found:?}");
    }
    Ok(())
}

/// What the running programs answer whoever may ask.
fn asked(stage: &Stage) -> Result<Places> {
    let mut places = Places::new();
    for command in [
        &["device", "list"][..],
        &["device", "show", DEVICE],
        &["rollout", "list"],
        &["audit", "list"],
        &["metrics"],
    ] {
        let ran = stage.redan_raw(command)?;
        ensure!(ran.code == Some(0), "{command:?}: {}{}", ran.stdout, ran.stderr);
        places.insert(format!("redan {}", command.join(" ")), ran.stdout.into_bytes());
    }
    let mut status = Command::new(&stage.programs.device);
    status
        .args(["status", "--state"])
        .arg(&stage.device(DEVICE)?.state);
    let ran = run(&mut status)?;
    ensure!(ran.code == Some(0), "{}{}", ran.stdout, ran.stderr);
    let shown: Value = serde_json::from_str(&ran.stdout)?;
    ensure!(shown.pointer("/slots/1").is_some(), "{shown}");
    places.insert(
        "redan-device status".to_owned(),
        format!("{}{}", ran.stdout, ran.stderr).into_bytes(),
    );
    Ok(places)
}

/// What went over the wire, and what is on disk once all programs have ended.
fn kept(stage: &Stage, relay: &Relay, places: &mut Places) -> Result<()> {
    places.insert("what the device sent".to_owned(), relay.sent());
    places.insert("what the device was answered".to_owned(), relay.answered());
    for log in ["control.log", "devices/press-1/device.log"] {
        let bytes = std::fs::read(stage.folder.join(log))?;
        ensure!(
            count(&bytes, b" redan_") > 0,
            "{log} holds not much: {}",
            String::from_utf8_lossy(&bytes)
        );
        places.insert(log.to_owned(), bytes);
    }
    let mut control = Vec::new();
    files(&stage.control_state(), &mut control)?;
    ensure!(
        control.iter().any(|path| path.ends_with("fleet.sqlite")),
        "{control:?}"
    );
    for path in control {
        places.insert(path.display().to_string(), std::fs::read(&path)?);
    }
    Ok(())
}

/// Regular files below a folder.
fn files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files(&entry.path(), into)?;
        } else if kind.is_file() {
            into.push(entry.path());
        }
    }
    Ok(())
}

/// Positive control: the workload did process the marks. Each is in its owner's files on the device, or the upstream has it.
fn all_were_heard(stage: &Stage, marks: &Marks, upstream: Option<&Upstream>) -> Result<()> {
    let mut own = Vec::new();
    files(&stage.device(DEVICE)?.state.join("data/acme"), &mut own)?;
    let kept = own.len();
    files(&lent(stage)?, &mut own)?;
    ensure!(own.len() > kept, "nothing in the folder that the ceiling maps");
    let mut heard = Vec::new();
    for path in own {
        heard.extend(path.display().to_string().into_bytes());
        heard.extend(std::fs::read(path)?);
    }
    if let Some(upstream) = upstream {
        heard.extend(upstream.heard.lock().expect("nobody panics with it").iter());
    }
    for (what, text) in marks.all() {
        // What the runtime refuses no guest hears, and of nonsense nothing is handed to it.
        let never = what.ends_with("that is refused") || what.ends_with("nonsense");
        ensure!(
            never || count(&heard, text.as_bytes()) > 0,
            "no workload heard of {what}"
        );
    }
    Ok(())
}

fn nothing_is_there(marks: &Marks, places: &Places) -> Result<()> {
    // Positive control: what the platform may know is seen in every one of these.
    for place in [
        "what the device sent",
        "redan device list",
        "redan audit list",
        "redan-device status",
        "fleet.sqlite",
    ] {
        let mut all = places.iter().filter(|(name, _)| name.contains(place));
        ensure!(
            all.any(|(_, bytes)| count(bytes, b"plant-1") > 0),
            "{place} names no set"
        );
    }
    let mut leaks = Vec::new();
    for (place, bytes) in places {
        leaks.extend(
            marks
                .find(bytes)
                .into_iter()
                .map(|found| format!("{place}: {found}")),
        );
    }
    ensure!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    Ok(())
}

/// Nobody's memory is in any file: the processes that crashed were asked for core dumps by their limit and left none.
fn dumps(folder: &Path) -> Result<()> {
    let mut all = Vec::new();
    files(folder, &mut all)?;
    for path in all {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        ensure!(!name.starts_with("core"), "{} is a core dump", path.display());
        let mut head = [0; 18];
        let short = std::fs::File::open(&path)?.read_exact(&mut head).is_err();
        // ELF (gABI, e_type at 16): ET_CORE is 4.
        ensure!(
            short || head[..4] != *b"\x7fELF" || head[16] != 4,
            "{} is a core dump",
            path.display()
        );
    }
    Ok(())
}

/// The same search over the same places finds a mark that was put there, in every encoding and compressed, whatever is around it.
fn whatever_leaks_is_found(marks: &Marks, places: &Places) -> Result<()> {
    let (what, text) = marks.all().next().context("a mark")?;
    for (place, bytes) in places {
        // The middle of a large file is as good as all of it.
        let bytes = &bytes[..bytes.len().min(20_000)];
        for (how, spelling) in encodings(text) {
            for planted in [spelling.clone(), gzip(&spelling), zlib(&spelling)] {
                let at = bytes.len() / 2;
                let leak = [&bytes[..at], &planted, &bytes[at..]].concat();
                let found = marks.find(&leak);
                ensure!(
                    found.iter().any(|found| found.what == what),
                    "a planted leak in {place} as {how} was not found"
                );
            }
        }
    }
    Ok(())
}

fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).filter(|window| *window == what).count()
}
