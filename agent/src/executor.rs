//! One publisher's executor as the agent sees it: started when first needed, told what to do in order, believed about
//! health and nothing else.

use crate::access::Access;
use crate::broker::Broker;
use crate::main_loop::Event;
use crate::native::Native;
use crate::supervisor::Started;
use redan_agent_core::{Input, MemberRecord};
use redan_channel::AsyncChannel;
use redan_policy::EffectiveGrant;
use redan_protocol::ipc::{
    FromExecutor, LentFolder, SecretValue, SlotId, ToExecutor, ToSupervisor, WorkloadKind,
};
use redan_protocol::report::Isolation;
use redan_protocol::{ByteCount, Code, Digest, PublisherName};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Longest time from the start of an executor to its first message: engine and pool on the slowest machine, times ten.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// What the main loop wants done.
pub(crate) enum Command {
    Load {
        slot: SlotId,
        member: Box<MemberRecord>,
        beside: Beside,
    },
    Tell(Option<SlotId>, ToExecutor),
    /// An order and the end of a link beside it.
    Link(Box<ToExecutor>, OwnedFd),
}

/// What a version is handed beside its code and grant.
pub(crate) struct Beside {
    pub(crate) listener: Option<TcpListener>,
    pub(crate) access: Vec<Access>,
    pub(crate) secrets: Vec<(String, SecretValue)>,
}

impl Command {
    /// The slot that fails when the command cannot be given.
    fn slot(&self) -> Option<SlotId> {
        match self {
            Self::Load { slot, .. } => Some(*slot),
            Self::Tell(slot, _) => *slot,
            Self::Link(..) => None,
        }
    }
}

/// What an executor needs from its surroundings.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) native: Native,
    pub(crate) broker: Broker,
    /// Each executor's part of the device's memory.
    pub(crate) memory: ByteCount,
    /// Whether they run WASI 0.3 too.
    pub(crate) wasi_0_3: bool,
    /// The folders that the ceiling maps volumes to.
    pub(crate) lent: Vec<LentFolder>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
}

/// A publisher's executor. Dropping it stops the talking, not the process: the supervisor owns that.
pub(crate) struct Executor(mpsc::UnboundedSender<Command>);

impl Executor {
    pub(crate) fn start(publisher: PublisherName, around: Around) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::task::spawn_local(serve(publisher, around, receiver));
        Self(sender)
    }

    pub(crate) fn tell(&self, command: Command) {
        // A receiver that is gone has said so by an event; the machine loads anew.
        drop(self.0.send(command));
    }
}

struct Running {
    channel: Rc<AsyncChannel>,
    engines: Engines,
    isolation: Isolation,
}

/// An executor's engines, by what each is for.
#[derive(Clone, Copy)]
struct Engines {
    plain: Digest,
    /// Counts fuel.
    metered: Digest,
    /// Runs WASI 0.3; there is none unless the ceiling had it switched on when this process started.
    wasi_0_3: Option<Digest>,
}

impl Running {
    /// The engine a grant's code is for, if this executor keeps it in as the grant demands.
    fn admit(&self, grant: &EffectiveGrant) -> Result<Digest, Code> {
        admit(grant, self.engines, self.isolation)
    }
}

fn admit(grant: &EffectiveGrant, engines: Engines, isolation: Isolation) -> Result<Digest, Code> {
    if let Some(missing) = grant.isolation.iter().find(|wanted| !wanted.is_in(&isolation)) {
        tracing::warn!(component = %grant.component, ?missing, "its policy demands more isolation than there is");
        return Err(Code::IsolationMissing);
    }
    if grant.world.is_wasi_0_3() {
        return engines.wasi_0_3.ok_or(Code::WasiSwitchedOff);
    }
    Ok(if grant.limits.fuel_per_call > 0 {
        engines.metered
    } else {
        engines.plain
    })
}

async fn serve(publisher: PublisherName, around: Around, mut commands: mpsc::UnboundedReceiver<Command>) {
    let tell = |input| drop(around.events.send(Event::Claim(publisher.clone(), input)));
    let running = match begin(&publisher, &around).await {
        Ok(running) => running,
        Err(code) => {
            tracing::warn!(%publisher, code = code.name(), "the executor did not start");
            if code != Code::ExecutorFailed {
                drop(around.events.send(Event::ExecutorEnded(publisher.clone())));
            }
            while let Some(command) = commands.recv().await {
                if let Some(slot) = command.slot() {
                    tell(Input::Failed(slot, Code::ExecutorFailed));
                }
            }
            return;
        }
    };
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Load { slot, member, beside }) => {
                    let engine = running.admit(member.grant());
                    let (channel, native) = (Rc::clone(&running.channel), around.native.clone());
                    let (events, publisher) = (around.events.clone(), publisher.clone());
                    tokio::task::spawn_local(async move {
                        let loaded = match engine {
                            Ok(engine) => load(channel, engine, native, slot, member, beside).await,
                            Err(code) => Err(code),
                        };
                        if let Err(code) = loaded {
                            tracing::warn!(slot = slot.0, code = code.name(), "not loaded");
                            drop(events.send(Event::Claim(publisher, Input::Failed(slot, code))));
                        }
                    });
                }
                Some(Command::Link(order, end)) => {
                    if let Err(error) = running.channel.send(&*order, &[end.as_fd()]).await {
                        tracing::error!(%publisher, "an end of a link was not handed over: {error}");
                    }
                }
                Some(Command::Tell(slot, message)) => {
                    if running.channel.send(&message, &[]).await.is_err()
                        && let Some(slot) = slot
                    {
                        tell(Input::Failed(slot, Code::ExecutorFailed));
                    }
                }
            },
            received = running.channel.recv::<FromExecutor>() => match received {
                Ok(received) => {
                    if let Some(input) = claim(received.message) {
                        tell(input);
                    }
                }
                // The supervisor says that it ended; until then commands fail.
                Err(_) => break,
            },
        }
    }
    while let Some(command) = commands.recv().await {
        if let Some(slot) = command.slot() {
            tell(Input::Failed(slot, Code::ExecutorFailed));
        }
    }
}

/// Starts the process and waits for its first message. One that never says it is stopped, and the supervisor will tell.
async fn begin(publisher: &PublisherName, around: &Around) -> Result<Running, Code> {
    let request = ToSupervisor::StartExecutor {
        publisher: publisher.clone(),
        wasi_0_3: around.wasi_0_3,
        lent: around.lent.clone(),
    };
    // Not started at all: the supervisor will not say that it ended.
    let started = around.native.supervisor.ask(request).await.map_err(|code| {
        if code == Code::ExecutorFailed {
            Code::Internal
        } else {
            code
        }
    })?;
    let met = meet(publisher, around, started).await;
    if met.is_err() {
        let publisher = publisher.clone();
        around
            .native
            .supervisor
            .tell(ToSupervisor::StopExecutor { publisher });
    }
    met
}

async fn meet(publisher: &PublisherName, around: &Around, started: Started) -> Result<Running, Code> {
    let failed = |_| Code::ExecutorFailed;
    let mut descriptors = started.descriptors.into_iter();
    let (Some(own), Some(far)) = (descriptors.next(), descriptors.next()) else {
        return Err(Code::ExecutorFailed);
    };
    around.broker.attach(publisher.clone(), far);
    let channel = Rc::new(AsyncChannel::new(own).map_err(failed)?);
    let first = tokio::time::timeout(READY_WITHIN, channel.recv::<FromExecutor>())
        .await
        .map_err(|_| Code::ExecutorFailed)?
        .map_err(failed)?;
    let FromExecutor::Ready {
        engine,
        metered,
        wasi_0_3,
        isolation,
    } = first.message
    else {
        return Err(Code::ExecutorFailed);
    };
    let memory = ToExecutor::Memory { total: around.memory };
    channel.send(&memory, &[]).await.map_err(failed)?;
    let isolation = either(started.isolation, isolation);
    drop(around.events.send(Event::Isolated(publisher.clone(), isolation)));
    Ok(Running {
        channel,
        engines: Engines {
            plain: engine,
            metered,
            wasi_0_3,
        },
        isolation,
    })
}

/// What the supervisor put around the process and what the process put around itself.
fn either(around: Isolation, inside: Isolation) -> Isolation {
    Isolation {
        processes: around.processes || inside.processes,
        users: around.users || inside.users,
        landlock: around.landlock || inside.landlock,
        seccomp: around.seccomp || inside.seccomp,
        no_new_privs: around.no_new_privs || inside.no_new_privs,
    }
}

async fn load(
    channel: Rc<AsyncChannel>,
    engine: Digest,
    native: Native,
    slot: SlotId,
    member: Box<MemberRecord>,
    beside: Beside,
) -> Result<(), Code> {
    let Beside {
        listener,
        access,
        secrets,
    } = beside;
    if member.kind() == WorkloadKind::Service && listener.is_none() {
        return Err(Code::CapabilityDenied);
    }
    let code = native.code(&member, engine).await?;
    for access in access {
        access.hand_over(&channel, slot).await?;
    }
    let message = ToExecutor::Load {
        slot,
        component: member.component().clone(),
        digest: member.digest(),
        kind: member.kind(),
        grant: member.grant().canonical_json(),
    };
    if !secrets.is_empty() {
        let values = ToExecutor::Secrets {
            slot,
            values: secrets,
        };
        channel
            .send(&values, &[])
            .await
            .map_err(|_| Code::ExecutorFailed)?;
    }
    let beside = [Some(code.as_fd()), listener.as_ref().map(TcpListener::as_fd)];
    let beside: Vec<_> = beside.into_iter().flatten().collect();
    channel
        .send(&message, &beside)
        .await
        .map_err(|_| Code::ExecutorFailed)
}

/// What an executor says, as a claim the machine weighs.
fn claim(message: FromExecutor) -> Option<Input> {
    Some(match message {
        FromExecutor::Ready { .. } => return None,
        FromExecutor::Loaded { slot } => Input::Loaded(slot),
        FromExecutor::Failed { slot, code } => Input::Failed(slot, code),
        FromExecutor::Probed { slot, health, code } => Input::Probed { slot, health, code },
        FromExecutor::Activated { slot } => Input::Activated(slot),
        FromExecutor::Unloaded { slot } => Input::Unloaded(slot),
        FromExecutor::Yields { slot, after } => Input::Yields { slot, after },
        FromExecutor::Signals { slot, signals } => Input::Signals { slot, signals },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_policy::{intersect, parse_ask, parse_device, parse_fleet};

    fn engines(wasi_0_3: Option<Digest>) -> Engines {
        Engines {
            plain: Digest::of(b"plain"),
            metered: Digest::of(b"metered"),
            wasi_0_3,
        }
    }

    fn grant(limits: &str, fleet: &str, device: &str) -> EffectiveGrant {
        let head = |kind: &str, rest: &str| format!("schema = \"redan.policy/1\"\nkind = \"{kind}\"\n{rest}");
        let ask = format!(
            "[subject]\nname = \"acme/thermo\"\nversion = \"1.0.0\"\nworld = \"wasi:cli/command@0.2\"\n{limits}"
        );
        let fleet = format!(
            "serial = 1\n[subject]\npublishers = [\"acme\"]\nnames = [\"acme/*\"]\nworlds = [\"wasi:cli/command@0.2\"]\n{fleet}"
        );
        let device = format!("hardware = \"gateway\"\n[subject]\nnames = [\"acme/*\"]\n{device}");
        intersect(
            &parse_ask("ask", &head("ask", &ask)).unwrap(),
            &parse_fleet("fleet", &head("fleet", &fleet)).unwrap(),
            &parse_device("device", &head("device", &device)).unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn a_workload_runs_only_with_the_isolation_its_policies_demand() {
        let engines = engines(None);
        let of_fleet = "[require]\nisolation = [\"landlock\", \"users\"]\n";
        let of_device = "[require]\nisolation = [\"seccomp\", \"processes\", \"no-new-privs\"]\n";
        let everything = Isolation {
            processes: true,
            users: true,
            landlock: true,
            seccomp: true,
            no_new_privs: true,
        };
        let demanding = grant("", of_fleet, of_device);
        assert_eq!(admit(&demanding, engines, everything), Ok(engines.plain));
        for lacking in [
            Isolation {
                processes: false,
                ..everything
            },
            Isolation {
                users: false,
                ..everything
            },
            Isolation {
                landlock: false,
                ..everything
            },
            Isolation {
                seccomp: false,
                ..everything
            },
            Isolation {
                no_new_privs: false,
                ..everything
            },
        ] {
            let refused = admit(&demanding, engines, lacking);
            assert_eq!(refused, Err(Code::IsolationMissing), "{lacking:?}");
        }
        let modest = grant("", "", "");
        assert_eq!(admit(&modest, engines, Isolation::default()), Ok(engines.plain));
    }

    #[test]
    fn a_workload_with_a_limit_of_fuel_has_the_engine_that_counts_it() {
        let engines = engines(None);
        let metered = grant("[limits]\nfuel_per_call = 1000\n", "", "");
        assert_eq!(
            admit(&metered, engines, Isolation::default()),
            Ok(engines.metered)
        );
    }

    #[test]
    fn a_service_of_wasi_0_3_goes_to_an_executor_that_is_switched_to_it() {
        let head = |kind: &str, rest: &str| format!("schema = \"redan.policy/1\"\nkind = \"{kind}\"\n{rest}");
        let world = "wasi:http/service@0.3";
        let ask = format!("[subject]\nname = \"acme/thermo\"\nversion = \"1.0.0\"\nworld = \"{world}\"\n");
        let fleet = format!(
            "serial = 1\n[subject]\npublishers = [\"acme\"]\nnames = [\"acme/*\"]\nworlds = [\"{world}\"]\n"
        );
        let device = "hardware = \"gateway\"\n[subject]\nnames = [\"acme/*\"]\n[runtime]\nwasi_0_3 = true\n";
        let grant = intersect(
            &parse_ask("ask", &head("ask", &ask)).unwrap(),
            &parse_fleet("fleet", &head("fleet", &fleet)).unwrap(),
            &parse_device("device", &head("device", device)).unwrap(),
        )
        .unwrap();
        let none = Isolation::default();
        assert_eq!(admit(&grant, engines(None), none), Err(Code::WasiSwitchedOff));
        let digest = Digest::of(b"tasks");
        assert_eq!(admit(&grant, engines(Some(digest)), none), Ok(digest));
    }
}
