//! The whole story on this machine, played with the built programs as a person would play it.

use crate::build;
use anyhow::{Context, Result, ensure};
use clap::Args;
use redan_kit::stage::{JOB, Release, SERVICE, Stage};
use redan_kit::traffic::{Load, Tally, get, version};
use redan_kit::{DeviceView, Programs, interrupt};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For anything that takes a few check-ins of one second, on a busy machine.
const SOON: Duration = Duration::from_secs(45);
/// The devices of the story; the first one is the canary.
const DEVICES: [&str; 3] = ["press-1", "press-2", "press-3"];
const WORKLOAD_PATH: &str = "/thermo/";

/// Play the whole story on this machine.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Leave the fleet running when the story is over, and print how to go on by hand.
    #[arg(long)]
    keep: bool,
    /// One JSON object a step instead of prose.
    #[arg(long)]
    json: bool,
    /// Play with the programs as they were built last, whatever has changed since.
    #[arg(long)]
    no_build: bool,
    /// Folder to play in; a temporary one when left out. Must be empty.
    #[arg(long)]
    folder: Option<PathBuf>,
}

impl Options {
    pub(crate) fn for_ci() -> Self {
        Self {
            json: true,
            ..Self::default()
        }
    }
}

/// The story as it goes: the stage, and how to speak about it.
struct Story {
    stage: Stage,
    json: bool,
    number: u32,
}

type Act = fn(&mut Story) -> Result<Vec<String>>;

/// The steps: name for scripts, headline for people, what happens.
const ACTS: &[(&str, &str, Act)] = &[
    (
        "found",
        "Found a development fleet: ceremony, keys, TUF roots, fleet CA",
        found,
    ),
    (
        "control",
        "Start redan-control with its online keys only",
        control,
    ),
    (
        "enrol",
        "Three devices make their keys, are admitted by voucher, enrol over mutual TLS",
        enrol,
    ),
    (
        "release-1.0.0",
        "Sign policy and components, roll 1.0.0 out to everyone",
        first_release,
    ),
    (
        "requests",
        "Ask each device's workload over HTTP; see the timer job run",
        requests,
    ),
    (
        "update-1.1.0",
        "Roll 1.1.0 out, canary first, under load: no request may fail",
        update,
    ),
    (
        "rollback-1.2.0",
        "1.2.0 fails its health check: canary rolls back alone, rollout halts",
        rollback,
    ),
    (
        "attacks",
        "Three attacks on the running fleet, each refused with its code",
        attacks,
    ),
    (
        "audit",
        "Verify the audit chain; devices, versions, health",
        audit,
    ),
];

/// Plays it.
pub(crate) fn play(options: &Options) -> Result<()> {
    interrupt::watch()?;
    let target = if options.no_build {
        build::target()?
    } else {
        if !options.json {
            println!("Building guests and programs (cargo shows its own progress) …");
        }
        build::everything()?
    };
    interrupt::check()?;
    let programs = Programs::in_target(&target)?;
    let temporary = tempfile::Builder::new()
        .prefix("redan-demo-")
        .tempdir()
        .context("no temporary folder")?;
    let folder = match &options.folder {
        Some(folder) => {
            empty_or_missing(folder)?;
            folder.clone()
        }
        None => temporary.path().to_owned(),
    };
    let mut story = Story {
        stage: Stage::new(programs, &folder)?,
        json: options.json,
        number: 0,
    };
    let outcome = ACTS
        .iter()
        .try_for_each(|(name, headline, act)| story.act(name, headline, *act));
    if outcome.is_ok() && options.keep {
        keep(&mut story)?;
    }
    let stopped = story.stage.stop();
    if outcome.is_err() && !interrupt::asked() {
        let kept = temporary.keep();
        eprintln!(
            "The logs and folders of the failed story stay in {}",
            if options.folder.is_some() { &folder } else { &kept }.display()
        );
    }
    outcome.and(stopped)
}

fn empty_or_missing(folder: &Path) -> Result<()> {
    if let Ok(mut entries) = std::fs::read_dir(folder) {
        ensure!(
            entries.next().is_none(),
            "{} is not empty; name an empty or new folder with --folder",
            folder.display()
        );
    }
    Ok(())
}

impl Story {
    fn act(&mut self, name: &str, headline: &str, act: Act) -> Result<()> {
        interrupt::check()?;
        self.number += 1;
        if !self.json {
            println!("\n[{}/{}] {headline}", self.number, ACTS.len());
        }
        let begun = Instant::now();
        // Ctrl-C reaches every process of a terminal: what fails because of it is no failure of the story.
        let outcome = act(self).or_else(|error| interrupt::check().and(Err(error)));
        let seconds = begun.elapsed().as_secs_f64();
        match &outcome {
            Ok(lines) if self.json => {
                println!(
                    "{}",
                    json!({"step": name, "ok": true, "seconds": seconds, "seen": lines})
                );
            }
            Ok(lines) => {
                for line in lines {
                    println!("      {line}");
                }
                println!("      seen to hold in {seconds:.1} s");
            }
            Err(error) if self.json => {
                println!(
                    "{}",
                    json!({"step": name, "ok": false, "seconds": seconds, "error": format!("{error:#}")})
                );
            }
            Err(_) => {}
        }
        outcome.map(drop).with_context(|| format!("step {name}"))
    }
}

fn found(story: &mut Story) -> Result<Vec<String>> {
    story.stage.run_ceremony()?;
    let profile = std::fs::read_to_string(story.stage.fleet().join("public/fleet.json"))?;
    let profile: Value = serde_json::from_str(&profile)?;
    ensure!(
        profile.get("profile") == Some(&json!("development")),
        "the fleet does not say it is for development"
    );
    Ok(vec![format!(
        "keys, roots and CA in {}",
        story.stage.fleet().display()
    )])
}

fn control(story: &mut Story) -> Result<Vec<String>> {
    let address = story.stage.start_control()?;
    Ok(vec![format!(
        "listening on {address}, TLS 1.3, both sides authenticated"
    )])
}

fn enrol(story: &mut Story) -> Result<Vec<String>> {
    for id in DEVICES {
        story.stage.add_device(id)?;
    }
    story
        .stage
        .await_devices("three devices to check in", SOON, |views| {
            views.len() == DEVICES.len() && views.iter().all(|view| view.isolation.is_some())
        })?;
    Ok(vec![format!("{} enrolled and checked in", DEVICES.join(", "))])
}

fn first_release(story: &mut Story) -> Result<Vec<String>> {
    let stage = &story.stage;
    stage.publish_policy(&stage.programs.repository.join("policies/fleet/demo.toml"))?;
    stage.publish(Release {
        component: SERVICE,
        version: "1.0.0",
        counter: 1,
    })?;
    stage.publish(Release {
        component: JOB,
        version: "1.0.0",
        counter: 1,
    })?;
    stage.publish_set("plant-1", &[(SERVICE, "1.0.0"), (JOB, "1.0.0")])?;
    let rollout = stage.start_rollout("plant-1", &["all=1000permille"])?;
    let views = stage.await_devices("everyone to commit 1.0.0", SOON, |views| all_on(views, "1.0.0"))?;
    let rollout = stage.await_rollout(&rollout, &["complete"], SOON)?;
    let isolation = views.first().and_then(|view| view.isolation.as_ref());
    Ok(vec![
        format!("rollout {}", state(&rollout)),
        "every device verified, compiled, probed and committed".into(),
        format!(
            "isolation of executors on this kernel and user: {}",
            isolation.map(mechanisms).unwrap_or_default()
        ),
    ])
}

/// Which isolation mechanisms are in force, and which are not.
fn mechanisms(isolation: &Value) -> String {
    let each = isolation.as_object().into_iter().flatten();
    let words: Vec<String> = each
        .map(|(name, on)| format!("{name} {}", if *on == Value::Bool(true) { "yes" } else { "no" }))
        .collect();
    words.join(", ")
}

fn requests(story: &mut Story) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    for device in &story.stage.devices {
        let answer = get(device.service, WORKLOAD_PATH)?;
        ensure!(
            answer.status == 200,
            "{} answered {} {:?}",
            device.id,
            answer.status,
            answer.code
        );
        ensure!(
            version(&answer.body).as_deref() == Some("1.0.0"),
            "{} answered {}",
            device.id,
            answer.body
        );
        seen.push(format!(
            "{} http://{}{WORKLOAD_PATH} → {}",
            device.id,
            device.service,
            answer.body.trim()
        ));
    }
    story
        .stage
        .await_devices("the timer job to be healthy everywhere", SOON, |views| {
            views
                .iter()
                .all(|view| view.healthy_version(JOB) == Some("1.0.0"))
        })?;
    let line = story.stage.await_job_output(SOON)?;
    seen.push(format!("the timer job wrote to its owner's local log: {line}"));
    Ok(seen)
}

fn update(story: &mut Story) -> Result<Vec<String>> {
    let stage = &story.stage;
    stage.publish(Release {
        component: SERVICE,
        version: "1.1.0",
        counter: 2,
    })?;
    stage.publish_set("plant-2", &[(SERVICE, "1.1.0"), (JOB, "1.0.0")])?;
    let load: Vec<Load> = stage
        .devices
        .iter()
        .map(|d| Load::start(d.service, WORKLOAD_PATH))
        .collect();
    let [canary, ..] = DEVICES;
    let rollout = stage.start_rollout("plant-2", &[&format!("canary={canary}"), "all=1000permille"])?;
    let mut canary_was_first = false;
    stage.await_devices("everyone to commit 1.1.0", SOON, |views| {
        canary_was_first |= only_canary_on(views, canary, "1.1.0");
        all_on(views, "1.1.0")
    })?;
    let rollout = stage.await_rollout(&rollout, &["complete"], SOON)?;
    let tallies: Vec<Tally> = load.into_iter().map(Load::finish).collect();
    ensure!(canary_was_first, "the canary was never alone on 1.1.0");
    for (device, tally) in stage.devices.iter().zip(&tallies) {
        ensure!(
            tally.failed == 0,
            "{} failed {} requests: {:?}",
            device.id,
            tally.failed,
            tally.examples
        );
        ensure!(
            tally.versions == ["1.0.0", "1.1.0"],
            "{} answered with versions {:?}",
            device.id,
            tally.versions
        );
    }
    let answered: u64 = tallies.iter().map(|tally| tally.answered).sum();
    Ok(vec![
        format!("rollout {}, canary {canary} first", state(&rollout)),
        format!("{answered} requests answered during the swaps, 0 failed"),
    ])
}

fn rollback(story: &mut Story) -> Result<Vec<String>> {
    let stage = &story.stage;
    stage.publish(Release {
        component: SERVICE,
        version: "1.2.0",
        counter: 3,
    })?;
    stage.publish_set("plant-3", &[(SERVICE, "1.2.0"), (JOB, "1.0.0")])?;
    let [canary, ..] = DEVICES;
    let rollout = stage.start_rollout("plant-3", &[&format!("canary={canary}"), "all=1000permille"])?;
    let mut others_offered = false;
    let views = stage.await_devices("the canary to roll back", SOON, |views| {
        others_offered |= views
            .iter()
            .any(|v| v.device != canary && v.desired_set.as_deref() == Some("plant-3"));
        views.iter().any(|v| {
            v.device == canary && v.rollback.is_some() && v.healthy_version(SERVICE) == Some("1.1.0")
        })
    })?;
    let rollout = stage.await_rollout(&rollout, &["halted"], SOON)?;
    ensure!(
        !others_offered,
        "a device other than the canary was directed to 1.2.0"
    );
    for device in &stage.devices {
        let answer = get(device.service, WORKLOAD_PATH)?;
        ensure!(
            version(&answer.body).as_deref() == Some("1.1.0"),
            "{} answered {}",
            device.id,
            answer.body
        );
    }
    let code = views
        .iter()
        .find(|v| v.device == canary)
        .and_then(|v| v.rollback.clone())
        .unwrap_or_default();
    Ok(vec![
        format!("{canary} rolled back by itself ({code}) and answers with 1.1.0"),
        format!("rollout {}; the others were never offered 1.2.0", state(&rollout)),
    ])
}

fn attacks(story: &mut Story) -> Result<Vec<String>> {
    let mut lab = crate::attacks::lab()?;
    lab.arg("--json");
    lab.arg("--stage")
        .arg(&story.stage.folder)
        .arg("--server")
        .arg(story.stage.server()?.to_string());
    let ran = redan_kit::stage::run(&mut lab)?;
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout)
        .with_context(|| format!("the attack lab answered {}{}", ran.stdout, ran.stderr))?;
    ensure!(rows.len() >= 3, "only {} attacks were tried", rows.len());
    let mut seen = Vec::new();
    for row in rows {
        let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or("–").to_owned();
        ensure!(
            text("status") == "refused",
            "attack {} was {}: {}",
            text("id"),
            text("status"),
            ran.stderr
        );
        seen.push(format!(
            "{} {}: refused, {}",
            text("id"),
            text("title"),
            text("code")
        ));
    }
    Ok(seen)
}

fn audit(story: &mut Story) -> Result<Vec<String>> {
    let verified = story.stage.redan(&["audit", "verify"])?;
    let mut seen = vec![format!("audit chain verified: {verified}")];
    let head = ["device", "set", "phase", "workloads", "rollback", "refusal"].map(str::to_owned);
    let mut rows = vec![head];
    for view in story.stage.views()? {
        let workloads: Vec<String> = view
            .slots
            .iter()
            .map(|s| format!("{} {} {}", s.component, s.version, s.health))
            .collect();
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".into());
        rows.push([
            view.device,
            or_none(view.set),
            or_none(view.phase),
            workloads.join(", "),
            or_none(view.rollback),
            or_none(view.refusal),
        ]);
    }
    seen.extend(aligned(&rows));
    Ok(seen)
}

/// Rows with their columns under each other.
fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let widths: Vec<usize> = (0..N)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let line = |row: &[String; N]| -> String {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn keep(story: &mut Story) -> Result<()> {
    let words = story.stage.access()?;
    let access = words.join(" ");
    let redan = story.stage.programs.redan.display();
    println!("\nThe fleet keeps running. Go on by hand, for example:");
    println!("  {redan} {access} device list");
    println!("  {redan} {access} rollout list");
    println!("  {redan} {access} audit verify");
    for device in &story.stage.devices {
        println!("  curl http://{}{WORKLOAD_PATH}", device.service);
        println!(
            "  {} status --state {}",
            story.stage.programs.device.display(),
            device.state.display()
        );
    }
    println!("Publish your own as acme/thermo, with a counter of 4 (docs/dev.md, docs/cli.md):");
    if let Some(folder) = story.stage.programs.redan.parent() {
        println!("  export PATH={}:$PATH", folder.display());
    }
    for pair in words.chunks_exact(2) {
        if let [option, value] = pair {
            let name = option.trim_start_matches('-').replace('-', "_").to_uppercase();
            println!("  export REDAN_{name}={value}");
        }
    }
    let keys = story.stage.fleet().join("offline");
    println!(
        "  ls {}   # the keys; in earnest they are on machines without a network",
        keys.display()
    );
    println!("Ctrl-C stops every process.");
    while !interrupt::asked() {
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn all_on(views: &[DeviceView], version: &str) -> bool {
    views.len() == DEVICES.len() && views.iter().all(|view| committed(view, version))
}

fn only_canary_on(views: &[DeviceView], canary: &str, version: &str) -> bool {
    views
        .iter()
        .all(|view| committed(view, version) == (view.device == canary))
}

fn committed(view: &DeviceView, version: &str) -> bool {
    view.healthy_version(SERVICE) == Some(version) && view.phase.as_deref() != Some("trial")
}

fn state(rollout: &Value) -> &str {
    rollout.get("state").and_then(Value::as_str).unwrap_or("?")
}
