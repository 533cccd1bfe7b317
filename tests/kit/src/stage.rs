//! A development fleet on this machine: ceremony, control server, devices, publishing.

use crate::traffic::{get, version};
use crate::{DeviceView, Process, Programs};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The fleet's name.
pub const FLEET: &str = "demo.redan.test";
/// The HTTP service of the story.
pub const SERVICE: &str = "acme/thermo";
/// The timer job of the story.
pub const JOB: &str = "acme/tick";
/// For a whole rollout to a few devices on a busy machine.
const ROLLOUT_WITHIN: Duration = Duration::from_mins(1);
/// Between two looks at the server while something is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// A fleet with its server and devices.
#[derive(Debug)]
pub struct Stage {
    /// The programs it plays with.
    pub programs: Programs,
    /// Everything it writes is below.
    pub folder: PathBuf,
    control: Option<Process>,
    address: Option<SocketAddr>,
    /// Its devices, in the order they were added.
    pub devices: Vec<Device>,
    /// What `--key` names for a purpose, when that is not the file the founding wrote.
    pub keys: BTreeMap<String, String>,
    /// What everything but running devices takes for now.
    pub world: World,
}

/// The time of the platform, and of whoever admits and enrols a device. Running devices have the machine's: the two differ as they do
/// where a device's clock is wrong.
#[derive(Clone, Debug, Default)]
pub enum World {
    /// The machine's.
    #[default]
    Real,
    /// So many days away from the machine's, by this `libfaketime`.
    Away(i32, PathBuf),
}

impl World {
    /// So many days away; `None`: Debian's `faketime` is not installed.
    pub fn away(days: i32) -> Option<Self> {
        let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
        let mut libraries = places
            .iter()
            .map(|place| Path::new(place).join("faketime/libfaketimeMT.so.1"));
        libraries
            .find(|library| library.exists())
            .map(|library| Self::Away(days, library))
    }
}

/// One device of a stage.
#[derive(Debug)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// Its state folder.
    pub state: PathBuf,
    /// Where its HTTP workload listens.
    pub service: SocketAddr,
    config: PathBuf,
    process: Option<Process>,
}

/// A component to publish.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// `publisher/workload`
    pub component: &'a str,
    /// Semantic version.
    pub version: &'a str,
    /// Release counter.
    pub counter: u64,
}

/// What a command answered.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Stage {
    /// An empty stage in `folder` (made if missing).
    pub fn new(programs: Programs, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            programs,
            folder: folder.to_owned(),
            control: None,
            address: None,
            devices: vec![],
            keys: BTreeMap::new(),
            world: World::Real,
        })
    }

    /// A program in the stage's world.
    fn platform(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let World::Away(days, library) = &self.world {
            command.env("LD_PRELOAD", library);
            command.env("FAKETIME", format!("{days:+}d"));
            // Spans stay spans: the kernel is asked for monotonic time by itself as well.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command.env("DONT_FAKE_MONOTONIC", "1");
        }
        command
    }

    /// The world jumps while devices run on: the server starts again with what custodians issued anew there, for it and for the
    /// administrator, whose certificates may have ended.
    pub fn jump(&mut self, world: World) -> Result<()> {
        self.control()?.stop()?;
        self.world = world;
        let new = self.folder.join("new-online");
        if new.exists() {
            std::fs::remove_dir_all(&new)?;
        }
        std::fs::create_dir_all(&new)?;
        let admin = self.folder.join("admin.pem");
        self.issue("operator", &["--operator", "admin"], &admin)?;
        std::fs::rename(&admin, self.fleet().join("operators/admin.pem"))?;
        self.issue("server", &[], &new.join("server.pem"))?;
        let mut keys = self.platform(&self.programs.control);
        keys.args(["fleet", "keys", "--config"])
            .arg(self.folder.join("control.toml"));
        keys.arg("--online").arg(&new);
        keys.arg("--public").arg(self.fleet().join("public"));
        must(run(&mut keys)?, "redan-control fleet keys")?;
        self.start_control()?;
        Ok(())
    }

    fn issue(&self, issuer: &str, whose: &[&str], out: &Path) -> Result<()> {
        let mut issue = self.platform(&self.programs.ceremony);
        issue.arg("issue").args(whose);
        issue.arg("--fleet-dir").arg(self.fleet().join("public"));
        let issuer = self.fleet().join(format!("offline/{issuer}-issuer.pem"));
        issue.arg("--issuer").arg(issuer).arg("--out").arg(out);
        must(run(&mut issue)?, "redan-ceremony issue")?;
        Ok(())
    }

    /// Founds the fleet: the ceremony with development keys.
    pub fn run_ceremony(&self) -> Result<()> {
        self.run_ceremony_for(&[SERVICE, JOB])
    }

    /// The same for other components.
    pub fn run_ceremony_for(&self, components: &[&str]) -> Result<()> {
        let mut ceremony = self.platform(&self.programs.ceremony);
        ceremony.args(["init", "--profile", "development", "--fleet", FLEET]);
        let named = components
            .iter()
            .filter_map(|component| component.split('/').next());
        let publishers: BTreeSet<&str> = named.collect();
        for publisher in publishers {
            ceremony.args(["--publisher", publisher]);
        }
        for component in components {
            ceremony.args(["--component", component]);
        }
        ceremony.arg("--out").arg(self.fleet());
        must(run(&mut ceremony)?, "redan-ceremony init")?;
        Ok(())
    }

    /// The story up to the first committed release: ceremony, server, devices, policy, components, set, rollout.
    pub fn play_first_release(&mut self, devices: &[&str]) -> Result<()> {
        self.run_ceremony()?;
        self.start_control()?;
        for id in devices {
            self.add_device(id)?;
        }
        self.roll_first_release_out()
    }

    /// The end of that story, for the devices there are: policy, components, set, rollout.
    pub fn roll_first_release_out(&self) -> Result<()> {
        self.publish_policy(&self.programs.repository.join("policies/fleet/demo.toml"))?;
        for component in [SERVICE, JOB] {
            self.publish(Release {
                component,
                version: "1.0.0",
                counter: 1,
            })?;
        }
        self.publish_set("plant-1", &[(SERVICE, "1.0.0"), (JOB, "1.0.0")])?;
        let rollout = self.start_rollout("plant-1", &["all=1000permille"])?;
        self.await_rollout(&rollout, &["complete"], ROLLOUT_WITHIN)?;
        Ok(())
    }

    /// Another handle on a fleet that another process plays: no child processes, the same folders.
    pub fn attach(programs: Programs, folder: &Path, server: SocketAddr) -> Self {
        Self {
            programs,
            folder: folder.to_owned(),
            control: None,
            address: Some(server),
            devices: vec![],
            keys: BTreeMap::new(),
            world: World::Real,
        }
    }

    /// The same fleet and devices, talking to a server at another address. Its processes are not running.
    pub fn towards(&self, server: SocketAddr) -> Result<Self> {
        let mut towards = Self::attach(self.programs.clone(), &self.folder, server);
        for device in &self.devices {
            let text = std::fs::read_to_string(&device.config)?;
            let lines = text.lines().filter(|line| !line.starts_with("server"));
            let server = format!("server = \"{server}\"");
            let text: String = lines
                .chain([server.as_str()])
                .flat_map(|line| [line, "\n"])
                .collect();
            std::fs::write(&device.config, text)?;
            towards.devices.push(Device {
                id: device.id.clone(),
                state: device.state.clone(),
                service: device.service,
                config: device.config.clone(),
                process: None,
            });
        }
        Ok(towards)
    }

    /// The fleet's folder, as the ceremony wrote it.
    pub fn fleet(&self) -> PathBuf {
        self.folder.join("fleet")
    }

    /// The control server's state folder.
    pub fn control_state(&self) -> PathBuf {
        self.folder.join("control")
    }

    /// Where the control server listens.
    pub fn server(&self) -> Result<SocketAddr> {
        self.address.context("the control server was not started")
    }

    /// Registers the fleet with a new control server, and starts it.
    pub fn start_control(&mut self) -> Result<SocketAddr> {
        let config = self.folder.join("control.toml");
        if !config.exists() {
            let text = format!(
                "state = '{}'\nlisten = \"127.0.0.1:0\"\ncheckin_interval_seconds = 1\n",
                self.control_state().display()
            );
            std::fs::write(&config, text)?;
            let mut add = self.platform(&self.programs.control);
            add.args(["fleet", "add", "--config"]).arg(&config);
            add.arg("--online").arg(self.fleet().join("online"));
            add.arg("--public").arg(self.fleet().join("public"));
            must(run(&mut add)?, "redan-control fleet add")?;
        } else if let Some(address) = self.address {
            // A restarted server keeps its address: that is what its devices and vouchers know.
            let text = std::fs::read_to_string(&config)?;
            let text = text.replace("127.0.0.1:0", &address.to_string());
            std::fs::write(&config, text)?;
        }
        let mut serve = self.platform(&self.programs.control);
        serve.args(["serve", "--config"]).arg(&config);
        let mut process = Process::start("redan-control", &mut serve, &self.folder.join("control.log"))?;
        let address = process
            .ready("redan-control: listening on ")?
            .parse()
            .context("the server's address")?;
        self.address = Some(address);
        self.control = Some(process);
        Ok(address)
    }

    /// The control server's process.
    pub fn control(&mut self) -> Result<&mut Process> {
        self.control
            .as_mut()
            .context("the control server was not started")
    }

    /// Makes a device's key, has it admitted, enrols and starts it.
    pub fn add_device(&mut self, id: &str) -> Result<&Device> {
        self.prepare_device(id)?;
        self.start_device(id)?;
        self.device(id)
    }

    /// Makes a device's key, has it admitted and enrols it, without starting it.
    pub fn prepare_device(&mut self, id: &str) -> Result<()> {
        self.prepare_device_with(id, &[], "")
    }

    /// The same with more arguments of `init`, and more lines in the device's configuration.
    pub fn prepare_device_with(&mut self, id: &str, more: &[&str], settings: &str) -> Result<()> {
        let folder = self.folder.join("devices").join(id);
        std::fs::create_dir_all(&folder)?;
        let state = folder.join("state");
        let mut init = self.platform(&self.programs.device);
        init.args(["init", "--id", id, "--state"]).arg(&state).args(more);
        let request = must(run(&mut init)?, "redan-device init")?.stdout;
        let request_file = folder.join("admission.json");
        std::fs::write(&request_file, request)?;
        let voucher = folder.join("voucher.json");
        self.redan(&[
            "device",
            "admit",
            "--request",
            &request_file.to_string_lossy(),
            "--out",
            &voucher.to_string_lossy(),
        ])?;
        let mut enrol = self.platform(&self.programs.device);
        enrol
            .arg("enrol")
            .arg("--state")
            .arg(&state)
            .arg("--voucher")
            .arg(&voucher);
        enrol.args(["--server", &self.server()?.to_string()]);
        must(run(&mut enrol)?, "redan-device enrol")?;

        let service = free_address()?;
        let ceiling = folder.join("ceiling.toml");
        let template = self.programs.repository.join("policies/device/demo.toml");
        let text = std::fs::read_to_string(&template)
            .with_context(|| format!("cannot read {}", template.display()))?;
        std::fs::write(&ceiling, text.replace("127.0.0.1:8081", &service.to_string()))?;
        let config = folder.join("device.toml");
        std::fs::write(
            &config,
            format!(
                "{settings}state = '{}'\nceiling = '{}'\nserver = \"{}\"\n",
                state.display(),
                ceiling.display(),
                self.server()?
            ),
        )?;
        self.devices.push(Device {
            id: id.to_owned(),
            state,
            service,
            config,
            process: None,
        });
        Ok(())
    }

    /// Starts a device that was prepared or stopped.
    pub fn start_device(&mut self, id: &str) -> Result<()> {
        let command = Command::new(&self.programs.device);
        self.start_device_by(id, command)
    }

    /// The same, by a command that becomes the device when `run --config …` is added: a service manager's work.
    pub fn start_device_by(&mut self, id: &str, mut command: Command) -> Result<()> {
        let log = self.folder.join("devices").join(id).join("device.log");
        let device = self.device_mut(id)?;
        command.arg("run").arg("--config").arg(&device.config);
        let mut process = Process::start(&format!("redan-device {id}"), &mut command, &log)?;
        process.ready("redan-device: running as ")?;
        device.process = Some(process);
        Ok(())
    }

    /// A device.
    pub fn device(&self, id: &str) -> Result<&Device> {
        self.devices
            .iter()
            .find(|device| device.id == id)
            .with_context(|| format!("no device {id}"))
    }

    /// A device, to stop or kill it.
    pub fn device_mut(&mut self, id: &str) -> Result<&mut Device> {
        self.devices
            .iter_mut()
            .find(|device| device.id == id)
            .with_context(|| format!("no device {id}"))
    }

    /// Runs `redan` against the fleet's server as its administrator and reads its JSON answer.
    pub fn redan(&self, arguments: &[&str]) -> Result<Value> {
        let ran = must(
            self.redan_raw(arguments)?,
            &format!("redan {}", arguments.join(" ")),
        )?;
        if ran.stdout.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&ran.stdout).with_context(|| format!("redan answered no JSON: {}", ran.stdout))
    }

    /// The same without judging how it ended.
    pub fn redan_raw(&self, arguments: &[&str]) -> Result<Ran> {
        let mut command = self.platform(&self.programs.redan);
        // What it keeps of the fleet is the stage's, as everything else.
        command.env("REDAN_STATE", self.folder.join("operator"));
        command.args(self.access()?).arg("--json").args(arguments);
        run(&mut command)
    }

    /// The options that say which fleet, who, and where.
    pub fn access(&self) -> Result<Vec<String>> {
        let fleet = self.fleet();
        Ok(vec![
            "--fleet-dir".into(),
            fleet.join("public").to_string_lossy().into_owned(),
            "--operator".into(),
            fleet.join("operators/admin.pem").to_string_lossy().into_owned(),
            "--server".into(),
            self.server()?.to_string(),
        ])
    }

    /// A custodian's key.
    pub fn key(&self, purpose: &str) -> String {
        if let Some(key) = self.keys.get(purpose) {
            return key.clone();
        }
        self.fleet()
            .join("offline")
            .join(format!("{purpose}.key.json"))
            .to_string_lossy()
            .into_owned()
    }

    /// Signs and publishes the fleet policy.
    pub fn publish_policy(&self, file: &Path) -> Result<Value> {
        self.redan(&[
            "policy",
            "publish",
            &file.to_string_lossy(),
            "--key",
            &self.key("release.policy-1"),
            "--key",
            &self.key("release.snapshot-1"),
        ])
    }

    /// Signs and publishes a component from the built guests, with its ask from `policies/`.
    pub fn publish(&self, release: Release<'_>) -> Result<Value> {
        let (_, workload) = release.component.split_once('/').context("publisher/workload")?;
        let wasm = self.programs.guest(workload, release.version)?;
        self.publish_file(release, &wasm)
    }

    /// The same with the component's bytes from a given file.
    pub fn publish_file(&self, release: Release<'_>, wasm: &Path) -> Result<Value> {
        let (publisher, workload) = release.component.split_once('/').context("publisher/workload")?;
        let template = self
            .programs
            .repository
            .join("policies/ask")
            .join(format!("{workload}.toml"));
        let text = std::fs::read_to_string(&template)
            .with_context(|| format!("cannot read {}", template.display()))?;
        let ask = self
            .folder
            .join(format!("{workload}-{}.ask.toml", release.version));
        std::fs::write(
            &ask,
            text.replace(
                "version = \"1.0.0\"",
                &format!("version = \"{}\"", release.version),
            ),
        )?;
        self.redan(&[
            "publish",
            &wasm.to_string_lossy(),
            "--ask",
            &ask.to_string_lossy(),
            "--counter",
            &release.counter.to_string(),
            "--key",
            &self.key(&format!("component.{publisher}.{workload}-1")),
            "--key",
            &self.key("release.snapshot-1"),
        ])
    }

    /// Signs and publishes a release set.
    pub fn publish_set(&self, id: &str, members: &[(&str, &str)]) -> Result<Value> {
        let members: Vec<String> = members
            .iter()
            .map(|(component, version)| format!("{component}@{version}"))
            .collect();
        let (plan, snapshot) = (self.key("release.plan-1"), self.key("release.snapshot-1"));
        let mut arguments = vec!["set", "publish", id];
        for member in &members {
            arguments.extend(["--member", member]);
        }
        arguments.extend(["--key", &plan, "--key", &snapshot]);
        self.redan(&arguments)
    }

    /// Starts a rollout; waves as `redan rollout start` takes them.
    pub fn start_rollout(&self, set: &str, waves: &[&str]) -> Result<String> {
        let mut arguments = vec!["rollout", "start", "--set", set];
        for wave in waves {
            arguments.extend(["--wave", wave]);
        }
        arguments.extend(["--failure-threshold", "1", "--soak", "1s", "--deadline", "60s"]);
        let answer = self.redan(&arguments)?;
        match answer.get("id") {
            Some(Value::String(id)) => Ok(id.clone()),
            Some(Value::Number(id)) => Ok(id.to_string()),
            _ => bail!("the rollout has no id: {answer}"),
        }
    }

    /// A rollout as the server shows it.
    pub fn rollout(&self, id: &str) -> Result<Value> {
        self.redan(&["rollout", "show", id])
    }

    /// Waits for a line the timer job wrote into its owner's local log on the first device.
    pub fn await_job_output(&self, within: Duration) -> Result<String> {
        let device = self.devices.first().context("no device")?;
        let logs = device.state.join("data/acme/logs");
        await_that("the timer job's first line", within, || {
            let mut seen = Vec::new();
            for entry in std::fs::read_dir(&logs).into_iter().flatten().flatten() {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                if let Some(line) = text.lines().rev().find(|line| line.contains("tick")) {
                    return Ok(Ok(line.to_owned()));
                }
                seen.push(entry.path().display().to_string());
            }
            Ok(Err(format!("{} holds {seen:?}", logs.display())))
        })
    }

    /// Waits until a device's service answers as this version.
    pub fn await_version(&self, device: &str, wanted: &str, within: Duration) -> Result<()> {
        let service = self.device(device)?.service;
        await_that(&format!("version {wanted} of {device}"), within, || {
            Ok(match get(service, "/thermo/") {
                Ok(answer) if version(&answer.body).as_deref() == Some(wanted) => Ok(()),
                other => Err(format!("{other:?}")),
            })
        })
    }

    /// All devices as the server shows them.
    pub fn views(&self) -> Result<Vec<DeviceView>> {
        self.views_with(&[])
    }

    /// The same, to somebody with more options.
    pub fn views_with(&self, options: &[&str]) -> Result<Vec<DeviceView>> {
        let answer = self.redan(&[options, &["device", "list"]].concat())?;
        let list = answer.get("devices").cloned().unwrap_or(answer);
        serde_json::from_value(list).context("the list of devices")
    }

    /// Waits until the server's view of the devices is as wanted.
    pub fn await_devices(
        &self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&[DeviceView]) -> bool,
    ) -> Result<Vec<DeviceView>> {
        await_that(what, within, || {
            let views = self.views()?;
            Ok(if wanted(&views) {
                Ok(views)
            } else {
                Err(serde_json::to_string(&views)?)
            })
        })
    }

    /// Waits until a rollout is in one of the wanted states.
    pub fn await_rollout(&self, id: &str, wanted: &[&str], within: Duration) -> Result<Value> {
        await_that(
            &format!("rollout {id} to be {}", wanted.join(" or ")),
            within,
            || {
                let rollout = self.rollout(id)?;
                let state = rollout.get("state").and_then(Value::as_str).unwrap_or_default();
                Ok(if wanted.contains(&state) {
                    Ok(rollout)
                } else {
                    Err(rollout.to_string())
                })
            },
        )
    }

    /// Stops every device and the server, in order; an error names the first that did not stop well.
    pub fn stop(&mut self) -> Result<()> {
        for device in &mut self.devices {
            device.stop()?;
        }
        if let Some(mut control) = self.control.take() {
            let status = control.stop()?;
            ensure!(
                status.success(),
                "redan-control ended with {status}; {}",
                control.tail()
            );
        }
        Ok(())
    }
}

impl Device {
    /// Its process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process
            .as_mut()
            .with_context(|| format!("{} does not run", self.id))
    }

    /// Stops it in order.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.stop()?;
            ensure!(
                status.success(),
                "{} ended with {status}; {}",
                self.id,
                process.tail()
            );
        }
        Ok(())
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }
}

/// Looks again and again until the answer is `Ok`, or says what was seen last.
pub fn await_that<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        crate::interrupt::check()?;
        match look()? {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= deadline => {
                bail!("waited {within:?} for {what}; what was seen last: {seen}")
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<Ran> {
    crate::interrupt::check()?;
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    Ok(Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Fails when a command did.
pub fn must(ran: Ran, what: &str) -> Result<Ran> {
    ensure!(
        ran.code == Some(0),
        "{what} ended with {:?}\n{}{}",
        ran.code,
        ran.stdout,
        ran.stderr
    );
    Ok(ran)
}

/// First port given to workloads, and how many there are: below the range the kernel takes ports of outgoing connections from, so
/// that nobody gets one between now and the moment the device listens there.
const PORTS: (u16, u16) = (20_000, 12_000);

/// An address on loopback that was free a moment ago. Stages of other processes begin elsewhere in the range.
pub fn free_address() -> Result<SocketAddr> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let (first, count) = PORTS;
    for _ in 0..count {
        let next = std::process::id()
            .wrapping_mul(97)
            .wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = first + u16::try_from(next % u32::from(count))?;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port from {first} on is free on loopback")
}
