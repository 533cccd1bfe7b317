//! `redan`: publish components and operate fleets.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use redan::access::{Access, read_text};
use redan::error::CliError;
use redan::operate::{self, Rules, WaveArgument};
use redan::sign::{Keys, Signing};
use redan::{bundle, dev, draft, new, publish, release, show};
use redan_identity::IssuerKind;
use redan_identity::crl::{DEVICE_LISTS, OPERATOR_LISTS, SERVER_LISTS};
use redan_policy::{Explanation, explain, parse_ask, parse_device, parse_fleet};
use redan_protocol::join::{DevicePrefix, TokenId};
use redan_protocol::{
    ComponentName, DeviceId, Digest, DirectionSequence, OperatorName, ReleaseCounter, Role, Seconds, SetId,
};
use redan_trust::release_set::Ring;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Publish signed Wasm components and operate fleets of devices.
#[derive(Parser)]
#[command(name = "redan", version)]
struct Arguments {
    #[command(flatten)]
    access: Access,
    /// Answer with JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make a folder for a new component: an HTTP service to build, run and change.
    New {
        /// Its language.
        language: new::Language,
        /// Folder to make, named as the component.
        folder: PathBuf,
    },
    /// Hold a component against its ask, without signing anything.
    Check {
        /// The component.
        wasm: PathBuf,
        /// Its ask.
        #[arg(long)]
        ask: PathBuf,
    },
    /// Run a component here, unverified, with what its ask grants: `redan dev --help`.
    #[command(disable_help_flag = true)]
    Dev {
        /// Passed on to the bench, `redan-dev`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Explain what a workload would get: every grant with the line that decided it, every denial with the line to add.
    Explain {
        /// The publisher's ask.
        #[arg(long)]
        ask: PathBuf,
        /// The fleet policy.
        #[arg(long)]
        fleet: PathBuf,
        /// The device ceiling.
        #[arg(long)]
        device: PathBuf,
    },
    /// Sign a component and publish it.
    Publish {
        /// The component.
        wasm: PathBuf,
        /// Its ask; names component and version.
        #[arg(long)]
        ask: PathBuf,
        /// Release counter; only grows.
        #[arg(long)]
        counter: u64,
        /// Hardware class it was built for; may be given several times; none: any.
        #[arg(long)]
        hardware: Vec<String>,
        #[command(flatten)]
        signing: Signing,
    },
    /// What one signer began and others sign: publish, set publish and policy publish with --draft make one.
    #[command(subcommand)]
    Draft(DraftTask),
    /// The fleet policy.
    #[command(subcommand)]
    Policy(PolicyTask),
    /// Release sets.
    #[command(subcommand)]
    Set(SetTask),
    /// Directions for devices without a network.
    #[command(subcommand)]
    Direction(DirectionTask),
    /// Write a folder that brings a published direction to its device, or the fleet's present CA to one that was off while it changed.
    Bundle {
        /// The device.
        #[arg(long, required_unless_present = "authorities", requires = "sequence")]
        device: Option<DeviceId>,
        /// Sequence number of the direction.
        #[arg(long, value_parser = sequence, required_unless_present = "authorities", requires = "device")]
        sequence: Option<DirectionSequence>,
        /// No direction: the roots alone, which list the fleet's certificate authorities; for any of its devices.
        #[arg(long, conflicts_with_all = ["device", "sequence"])]
        authorities: bool,
        /// Folder to write; must not exist.
        #[arg(long)]
        out: PathBuf,
    },
    /// What a key ceremony assembled, or needs.
    #[command(subcommand)]
    Release(ReleaseTask),
    /// Devices.
    #[command(subcommand)]
    Device(DeviceTask),
    /// Rollouts.
    #[command(subcommand)]
    Rollout(RolloutTask),
    /// Join tokens: for devices that nobody admits one by one.
    #[command(subcommand)]
    Token(TokenTask),
    /// Operators: who may do what.
    #[command(subcommand)]
    Operator(OperatorTask),
    /// The revocation list, for whoever judges devices without the server.
    #[command(subcommand)]
    Crl(CrlTask),
    /// The audit log.
    #[command(subcommand)]
    Audit(AuditTask),
    /// Which fleet the server speaks for.
    Status,
    /// The server's metrics (Prometheus text).
    Metrics,
}

#[derive(Subcommand)]
enum DraftTask {
    /// Say what it is and changes, held against the server's present metadata.
    Inspect {
        /// The draft.
        file: PathBuf,
    },
    /// Add your signature and write a new file.
    Sign {
        /// The draft.
        file: PathBuf,
        #[command(flatten)]
        keys: Keys,
        /// First 8 characters or more of its `payload_sha256`, as you read them with inspect.
        #[arg(long)]
        confirm: String,
        /// File to write; must not exist.
        #[arg(long)]
        out: PathBuf,
    },
    /// Publish it once enough have signed, with a snapshot signed here.
    Upload {
        /// The draft.
        file: PathBuf,
        #[command(flatten)]
        keys: Keys,
    },
}

#[derive(Subcommand)]
enum PolicyTask {
    /// Sign and publish it.
    Publish {
        /// The policy document.
        file: PathBuf,
        #[command(flatten)]
        signing: Signing,
    },
}

#[derive(Subcommand)]
enum SetTask {
    /// Sign and publish a set of published components.
    Publish {
        /// Its name.
        id: SetId,
        /// A member, publisher/workload@version; may be given several times.
        #[arg(long = "member", required = true, value_parser = publish::parse_member)]
        members: Vec<(ComponentName, semver::Version)>,
        /// A ring, permille:opens-after; shares grow and end with 1000. None: everyone at once.
        #[arg(long = "ring", value_parser = publish::parse_ring)]
        rings: Vec<Ring>,
        /// A set devices may go back to; may be given several times.
        #[arg(long = "rollback-set")]
        rollback_sets: Vec<SetId>,
        #[command(flatten)]
        signing: Signing,
    },
}

#[derive(Subcommand)]
enum DirectionTask {
    /// Sign and publish the direction of one device to a published set.
    Publish {
        /// The device.
        #[arg(long)]
        device: DeviceId,
        /// Above every direction the device followed, whether from the server or carried.
        #[arg(long, value_parser = sequence)]
        sequence: DirectionSequence,
        /// The set.
        #[arg(long)]
        set: SetId,
        /// How long it may be applied: nobody can take a stick back.
        #[arg(long, value_parser = span)]
        good_for: Seconds,
        /// A member's SHA-256 that the device may try again after a failed trial; may be given several times.
        #[arg(long, value_parser = digest)]
        unblock: Vec<Digest>,
        #[command(flatten)]
        signing: Signing,
    },
}

#[derive(Subcommand)]
enum ReleaseTask {
    /// Upload new roots and targets files of the release repository, with a snapshot signed here.
    Upload {
        /// The public/release folder that redan-ceremony assemble wrote to.
        folder: PathBuf,
        #[command(flatten)]
        keys: Keys,
    },
    /// Bring the server's present metadata into a folder, for the next ceremony.
    Fetch {
        /// The public/release folder to carry to the custodians.
        folder: PathBuf,
    },
}

#[derive(Subcommand)]
enum DeviceTask {
    /// Admit a key that a device has made, and write the voucher to carry there.
    Admit {
        /// The file `redan-device init` wrote.
        #[arg(long)]
        request: PathBuf,
        /// Issue the certificate with the voucher, for a device without a path to the server; the request must hold one of the key
        /// (`redan-device init --offline`).
        #[arg(long)]
        offline: bool,
        /// A label, name=value; may be given several times.
        #[arg(long = "label", value_parser = label)]
        labels: Vec<(String, String)>,
        /// Where to write the voucher.
        #[arg(long)]
        out: PathBuf,
    },
    /// All devices: what they run, and why they are not updating.
    List,
    /// One device.
    Show {
        /// Its id.
        id: DeviceId,
    },
    /// End a device: have the policy signers order it to wipe itself, and revoke it.
    Decommission {
        /// Its id.
        id: DeviceId,
        #[command(flatten)]
        keys: Keys,
    },
    /// Revoke a device: none of its requests is answered from now on.
    Revoke {
        /// Its id.
        id: DeviceId,
    },
}

#[derive(Subcommand)]
enum RolloutTask {
    /// Start a rollout of a published set.
    Start {
        /// The set.
        #[arg(long)]
        set: SetId,
        /// A wave, name=device,device or name=500permille; in order; may be given several times.
        #[arg(long = "wave", required = true)]
        waves: Vec<WaveArgument>,
        /// So many failures halt it.
        #[arg(long, default_value_t = 1)]
        failure_threshold: u32,
        /// How long a wave is watched before the next.
        #[arg(long, default_value = "10m", value_parser = span)]
        soak: Seconds,
        /// A device that has not committed by then has failed.
        #[arg(long, default_value = "1h", value_parser = span)]
        deadline: Seconds,
        /// Offer nothing beyond the first wave before a second person agrees.
        #[arg(long)]
        approve: bool,
        /// A member's SHA-256 that devices may try again after a failed trial; may be given several times.
        #[arg(long, value_parser = digest)]
        unblock: Vec<Digest>,
    },
    /// All rollouts.
    List,
    /// One rollout.
    Show {
        /// Its number.
        id: u64,
    },
    /// Offer nothing new.
    Pause {
        /// Its number.
        id: u64,
    },
    /// Go on, taking the failures so far for known.
    Resume {
        /// Its number.
        id: u64,
    },
    /// Agree to what somebody else started.
    Approve {
        /// Its number.
        id: u64,
    },
    /// End it; devices that have not committed stay on what they had.
    Abort {
        /// Its number.
        id: u64,
    },
}

#[derive(Subcommand)]
enum CrlTask {
    /// Sign and publish the next one: of devices, which the server makes, or one that custodians made.
    Publish {
        /// Of servers, as `redan-ceremony crl --of servers` wrote it.
        #[arg(long, conflicts_with = "operators")]
        servers: Option<PathBuf>,
        /// Of operators, as `redan-ceremony crl --of operators` wrote it.
        #[arg(long)]
        operators: Option<PathBuf>,
        /// Of devices under an authority that is not active, as `redan-ceremony crl --of devices` wrote it.
        #[arg(long, conflicts_with_all = ["servers", "operators"])]
        devices: Option<PathBuf>,
        #[command(flatten)]
        keys: Keys,
    },
}

#[derive(Subcommand)]
enum TokenTask {
    /// Make a token. Whoever holds the file can enrol as many devices as it has uses left.
    Create {
        /// So many devices may use it.
        #[arg(long)]
        uses: u32,
        /// How long it can be used, at most 24h.
        #[arg(long, value_parser = span)]
        expires: Seconds,
        /// What it is for.
        #[arg(long, default_value = "")]
        label: String,
        /// How the devices' names must begin.
        #[arg(long, default_value = "")]
        prefix: DevicePrefix,
        /// Where to write it, readable by you alone.
        #[arg(long)]
        out: PathBuf,
    },
    /// All tokens, and how many devices have used each.
    List,
    /// Revoke a token. Devices that have enrolled with it stay enrolled.
    Revoke {
        /// Its id.
        token: String,
    },
}

#[derive(Subcommand)]
enum OperatorTask {
    /// All operators.
    List,
    /// Give a name a role. Custodians make the certificate: redan-ceremony issue --operator NAME.
    Add {
        /// The name in the certificate.
        name: OperatorName,
        /// viewer, operator, approver or admin.
        #[arg(long)]
        role: Role,
    },
    /// Change somebody's role; their open connections are closed.
    Role {
        /// Who.
        name: OperatorName,
        /// viewer, operator, approver or admin.
        role: Role,
    },
    /// Remove somebody: none of their requests is answered from now on.
    Remove {
        /// Who.
        name: OperatorName,
    },
}

#[derive(Subcommand)]
enum AuditTask {
    /// The whole log, as the server has it: not held to what this machine has seen.
    List,
    /// Take the log as it is now for the one to hold the server to, once you know why it is another than before.
    Accept {
        /// Hash of its newest entry, as `redan audit list` shows it.
        #[arg(long, value_parser = digest)]
        head: Digest,
    },
    /// Check the chain here, without believing the server.
    Verify {
        /// A head noted before: it must still be in the log.
        #[arg(long)]
        head: Option<String>,
    },
}

fn span(text: &str) -> Result<Seconds, String> {
    let millis = redan_policy::units::duration(text).ok_or("a time is written 30s, 10m or 1h")?;
    Ok(Seconds::new(millis.get() / 1000))
}

fn sequence(text: &str) -> Result<DirectionSequence, String> {
    let number = text.parse::<u64>().map_err(|error| error.to_string())?;
    Ok(DirectionSequence::new(number))
}

fn digest(text: &str) -> Result<Digest, String> {
    Digest::parse(text).map_err(|error| error.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a label is written name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(
                &format!("error: no threads: {error}\nbecause: internal\ntry: raise limits\n"),
                3,
            );
        }
    };
    match runtime.block_on(run(arguments.command, &arguments.access)) {
        Ok(answer) => {
            let text = match (&answer, arguments.json) {
                (Value::String(text), false) => text.clone(),
                (answer, true) => answer.to_string(),
                (answer, false) => show::render(answer),
            };
            let mut out = std::io::stdout();
            // A closed standard output (`| head`) is no error.
            drop(writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()));
            ExitCode::SUCCESS
        }
        Err(error) => fail(
            &format!(
                "error: {error}\nbecause: {}\ntry: {}\n",
                error.because(),
                error.remedy()
            ),
            error.exit(),
        ),
    }
}

fn fail(text: &str, exit: u8) -> ExitCode {
    drop(std::io::stderr().write_all(text.as_bytes()));
    ExitCode::from(exit)
}

async fn run(task: Task, access: &Access) -> Result<Value, CliError> {
    match task {
        Task::New { language, folder } => new::component(language, &folder).map(Value::String),
        Task::Check { wasm, ask } => {
            let (bytes, _, parsed, found) = publish::check_files(&wasm, &ask)?;
            Ok(json!({
                "component": parsed.name(),
                "version": parsed.version(),
                "length": bytes.len(),
                "imports": found.imports,
                "exports": found.exports,
            }))
        }
        Task::Dev { arguments } => Err(dev::become_bench(&arguments)),
        Task::Explain { ask, fleet, device } => explained(&ask, &fleet, &device),
        Task::Publish {
            wasm,
            ask,
            counter,
            hardware,
            signing,
        } => {
            publish::component(
                access,
                &wasm,
                &ask,
                ReleaseCounter::new(counter),
                hardware,
                &signing,
            )
            .await
        }
        Task::Draft(DraftTask::Inspect { file }) => draft::inspect(access, &file).await,
        Task::Draft(DraftTask::Sign {
            file,
            keys,
            confirm,
            out,
        }) => draft::sign(access, &file, &keys, &confirm, &out).await,
        Task::Draft(DraftTask::Upload { file, keys }) => draft::upload(access, &file, &keys).await,
        Task::Policy(PolicyTask::Publish { file, signing }) => publish::policy(access, &file, &signing).await,
        Task::Set(SetTask::Publish {
            id,
            members,
            rings,
            rollback_sets,
            signing,
        }) => publish::set(access, id, &members, rings, rollback_sets, &signing).await,
        Task::Direction(DirectionTask::Publish {
            device,
            sequence,
            set,
            good_for,
            unblock,
            signing,
        }) => bundle::publish(access, device, sequence, set, (good_for, unblock), &signing).await,
        Task::Bundle {
            device,
            sequence,
            authorities: _,
            out,
        } => bundle::make(access, device.zip(sequence), &out).await,
        Task::Release(ReleaseTask::Upload { folder, keys }) => {
            release::upload(access, &folder, &keys.open()?).await
        }
        Task::Release(ReleaseTask::Fetch { folder }) => release::fetch(access, &folder).await,
        Task::Device(DeviceTask::Admit {
            request,
            offline,
            labels,
            out,
        }) => operate::admit(access, &request, offline, &labels, &out).await,
        Task::Device(DeviceTask::List) => operate::get(access, "/v1/devices").await,
        Task::Device(DeviceTask::Show { id }) => operate::get(access, &format!("/v1/devices/{id}")).await,
        Task::Device(DeviceTask::Decommission { id, keys }) => {
            publish::decommission(access, &id, &keys).await
        }
        Task::Device(DeviceTask::Revoke { id }) => {
            operate::post(access, &format!("/v1/devices/{id}/revoke")).await
        }
        Task::Rollout(task) => rollouts(task, access).await,
        Task::Token(task) => tokens(task, access).await,
        Task::Operator(task) => operators(task, access).await,
        Task::Crl(task) => crl(task, access).await,
        Task::Audit(task) => audit(task, access).await,
        Task::Status => operate::get(access, "/v1/fleet").await,
        Task::Metrics => Ok(Value::String(access.connect().await?.text("/metrics").await?)),
    }
}

async fn audit(task: AuditTask, access: &Access) -> Result<Value, CliError> {
    match task {
        AuditTask::List => operate::list_audit(access).await,
        AuditTask::Accept { head } => operate::accept_audit(access, head).await,
        AuditTask::Verify { head } => operate::verify_audit(access, head.as_deref()).await,
    }
}

fn explained(ask: &Path, fleet: &Path, device: &Path) -> Result<Value, CliError> {
    let named = |path: &Path| path.display().to_string();
    let ask = parse_ask(&named(ask), &read_text(ask)?)?;
    let fleet = parse_fleet(&named(fleet), &read_text(fleet)?)?;
    let device = parse_device(&named(device), &read_text(device)?)?;
    let explanation = explain(&ask, &fleet, &device);
    if let Explanation::Denied(denied) = &explanation {
        drop(std::io::stderr().write_all(format!("{explanation}\n").as_bytes()));
        return Err(CliError::Denied(denied.code()));
    }
    Ok(Value::String(explanation.to_string()))
}

async fn crl(task: CrlTask, access: &Access) -> Result<Value, CliError> {
    let CrlTask::Publish {
        servers,
        operators,
        devices,
        keys,
    } = task;
    let made = [
        (servers, (IssuerKind::Server, SERVER_LISTS)),
        (operators, (IssuerKind::Operator, OPERATOR_LISTS)),
        (devices, (IssuerKind::Device, DEVICE_LISTS)),
    ];
    let made = made.into_iter().find_map(|(file, of)| Some((file?, of)));
    match made {
        Some((file, of)) => publish::offline_crl(access, of, &file, &keys).await,
        None => publish::crl(access, &keys).await,
    }
}

async fn rollouts(task: RolloutTask, access: &Access) -> Result<Value, CliError> {
    match task {
        RolloutTask::Start {
            set,
            waves,
            failure_threshold,
            soak,
            deadline,
            approve,
            unblock,
        } => {
            let rules = Rules {
                failure_threshold,
                soak,
                deadline,
                approve,
            };
            operate::start(access, &set, &waves, rules, &unblock).await
        }
        RolloutTask::List => operate::get(access, "/v1/rollouts").await,
        RolloutTask::Show { id } => operate::get(access, &format!("/v1/rollouts/{id}")).await,
        RolloutTask::Pause { id } => operate::post(access, &format!("/v1/rollouts/{id}/pause")).await,
        RolloutTask::Resume { id } => operate::post(access, &format!("/v1/rollouts/{id}/resume")).await,
        RolloutTask::Approve { id } => operate::post(access, &format!("/v1/rollouts/{id}/approve")).await,
        RolloutTask::Abort { id } => operate::post(access, &format!("/v1/rollouts/{id}/abort")).await,
    }
}

async fn tokens(task: TokenTask, access: &Access) -> Result<Value, CliError> {
    match task {
        TokenTask::Create {
            uses,
            expires,
            label,
            prefix,
            out,
        } => {
            let body = json!({"uses": uses, "expires_in_seconds": expires, "label": label, "prefix": prefix});
            operate::token(access, &body, &out).await
        }
        TokenTask::List => operate::get(access, "/v1/tokens").await,
        TokenTask::Revoke { token } => {
            let token = TokenId::parse(&token).map_err(|error| CliError::Usage {
                what: error.to_string(),
                remedy: "take it from `redan token list`",
            })?;
            operate::post(access, &format!("/v1/tokens/{token}/revoke")).await
        }
    }
}

async fn operators(task: OperatorTask, access: &Access) -> Result<Value, CliError> {
    match task {
        OperatorTask::List => operate::get(access, "/v1/operators").await,
        OperatorTask::Add { name, role } => {
            operate::send(access, "/v1/operators", &json!({"name": name, "role": role})).await
        }
        OperatorTask::Role { name, role } => {
            operate::send(
                access,
                &format!("/v1/operators/{name}/role"),
                &json!({"role": role}),
            )
            .await
        }
        OperatorTask::Remove { name } => operate::post(access, &format!("/v1/operators/{name}/remove")).await,
    }
}
