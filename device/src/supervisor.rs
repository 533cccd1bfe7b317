//! The supervisor: starts the other processes, reaps them, stops them in order. No network, no keys, no payload.
//!
//! When the agent or the broker dies, everybody else is stopped, and all of it is begun again: nothing of a dead agent's making goes on
//! under a living one that does not know of it. Too many deaths end the program, and the service manager takes over.
//!
//! Every child is started from the main thread, since the kernel ties "die with your parent" to the thread that forked.

use crate::fault::Fault;
use crate::restarts::Restarts;
use redan_channel::{ChannelError, pair, recv, send};
use redan_jail::{Child, Spec, may_give_users, reserve, spawn};
use redan_protocol::ipc::{FromSupervisor, LentFolder, ToSupervisor};
use redan_protocol::report::Isolation;
use redan_protocol::{Code, PublisherName};
use rustix::process::{Pid, Signal, WaitOptions};
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long the agent may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// First user id of executors, if this process may give users; one for each publisher, by its name.
const USERS_FROM: u32 = 0x7265_0000;
/// How many there are.
const USERS: u32 = 0xffff;
/// User ids of the broker and of compilers, below those of executors.
const BROKER_USER: u32 = USERS_FROM - 1;
const COMPILER_USER: u32 = USERS_FROM - 2;

/// What a program ends with that panicked: it did not say why in words of its own.
const PANICKED: u8 = 101;

/// Which agent, of those this supervisor started one after another.
type Turn = u64;

/// What the main thread waits for.
enum Event {
    /// By which agent: what one that is dead asked for is not done for the next one.
    Asked(Turn, ToSupervisor),
    AgentGone,
    Children,
    Stop,
}

/// Who a child is.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Who {
    Agent,
    Broker,
    Executor(PublisherName),
    Compiler,
}

struct Supervisor {
    config: PathBuf,
    state: PathBuf,
    module_environment: Vec<String>,
    turn: Turn,
    agent: Option<Arc<OwnedFd>>,
    events: Sender<Event>,
    restarts: Restarts,
    children: BTreeMap<i32, (Who, Child)>,
    /// Whether children can have users of their own.
    users: bool,
}

/// Runs until a signal, until the agent ends in words of its own, or until too much died. Gives the exit code of the program.
pub(crate) fn run(config: &Path) -> Result<u8, Fault> {
    reserve()?;
    let config = std::path::absolute(config).map_err(Fault::system("reading the working directory"))?;
    let loaded = redan_agent::Config::load(&config)?;
    // What a power cut left of a device that was decommissioned goes now.
    redan_agent::refuse_decommissioned(&loaded.state)?;
    let (events, inbox) = channel();
    signals(events.clone())?;

    let mut supervisor = Supervisor {
        config,
        state: loaded.state,
        module_environment: loaded.module_environment,
        turn: 0,
        agent: None,
        events,
        restarts: Restarts::default(),
        children: BTreeMap::new(),
        users: may_give_users(),
    };
    supervisor.begin()?;
    let outcome = supervisor.serve(&inbox);
    supervisor.stop(&inbox);
    // Nobody writes into the state folder any more: what executors kept there while the agent ended goes too.
    redan_agent::refuse_decommissioned(&supervisor.state)?;
    outcome
}

/// Signals become events; a thread of its own, which starts nothing.
fn signals(events: Sender<Event>) -> Result<(), Fault> {
    use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
    let mut caught = signal_hook::iterator::Signals::new([SIGCHLD, SIGINT, SIGTERM])
        .map_err(Fault::system("watching for signals"))?;
    std::thread::spawn(move || {
        for signal in caught.forever() {
            let event = if signal == SIGCHLD {
                Event::Children
            } else {
                Event::Stop
            };
            if events.send(event).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// An agent's requests become events.
fn listen(agent: Arc<OwnedFd>, turn: Turn, events: Sender<Event>) {
    std::thread::spawn(move || {
        loop {
            let event = match recv::<ToSupervisor>(agent.as_ref()) {
                Ok(received) => Event::Asked(turn, received.message),
                Err(ChannelError::Malformed | ChannelError::TooLarge) => continue,
                Err(_) => Event::AgentGone,
            };
            let last = matches!(event, Event::AgentGone);
            if events.send(event).is_err() || last {
                return;
            }
        }
    });
}

impl Supervisor {
    /// A broker and an agent, with new channels and no memory of the ones before: what runs, the agent finds in its journal, and what is
    /// loaded is checked as at any start.
    fn begin(&mut self) -> Result<(), Fault> {
        let (agent, far_agent) = pair()?;
        let (broker, far_broker) = pair()?;
        self.start(Who::Broker, self.as_user("broker", BROKER_USER), vec![far_broker])?;
        let arguments = vec![
            "agent".into(),
            "--config".into(),
            self.config.clone().into_os_string(),
        ];
        self.start(Who::Agent, arguments, vec![far_agent, broker])?;
        let agent = Arc::new(agent);
        self.turn = self.turn.saturating_add(1);
        self.agent = Some(Arc::clone(&agent));
        listen(agent, self.turn, self.events.clone());
        Ok(())
    }

    fn start(&mut self, who: Who, arguments: Vec<OsString>, descriptors: Vec<OwnedFd>) -> Result<(), Fault> {
        // The agent is asked to stop in order; everybody else has nothing to lose.
        let with_parent = if who == Who::Agent {
            Signal::TERM
        } else {
            Signal::KILL
        }
        .as_raw();
        // The others load no module.
        let environment = match who {
            Who::Agent => self.module_environment.clone(),
            Who::Broker | Who::Executor(_) | Who::Compiler => Vec::new(),
        };
        let child = spawn(Spec {
            arguments,
            descriptors,
            environment,
            with_parent,
        })?;
        let id = i32::try_from(child.id()).unwrap_or_default();
        self.children.insert(id, (who, child));
        Ok(())
    }

    /// Arguments of a process that is to have a user of its own, if this one may give it.
    fn as_user(&self, kind: &str, user: u32) -> Vec<OsString> {
        let mut arguments = vec![kind.into()];
        if self.users {
            arguments.extend(["--user".into(), user.to_string().into()]);
        }
        arguments
    }

    fn serve(&mut self, inbox: &Receiver<Event>) -> Result<u8, Fault> {
        loop {
            match inbox.recv() {
                Ok(Event::Stop) | Err(_) => return Ok(0),
                Ok(Event::Asked(turn, request)) if turn == self.turn => self.answer(request),
                // Its end will be reaped, with its exit code.
                Ok(Event::Asked(..) | Event::AgentGone) => {}
                Ok(Event::Children) => {
                    let ended = self.reap();
                    let died = ended
                        .iter()
                        .find(|(who, _)| matches!(who, Who::Agent | Who::Broker));
                    if let Some((who, code)) = died {
                        // A broker ends in order when its agent is gone, and may be reaped first.
                        let broker = *who == Who::Broker && *code != Some(0);
                        let who = if broker { "broker" } else { "agent" };
                        let said = ended.iter().find(|(who, _)| *who == Who::Agent);
                        let said = said.and_then(|(_, code)| *code);
                        if let ControlFlow::Break(code) = self.begin_again(who, said, inbox)? {
                            return Ok(code);
                        }
                        continue;
                    }
                    for (who, _) in ended {
                        if let Who::Executor(publisher) = who {
                            self.tell(&FromSupervisor::ExecutorEnded { publisher }, &[]);
                        }
                    }
                }
            }
        }
    }

    /// The agent or the broker is gone. All others end; then, unless the agent said why it ended, everything is begun again.
    fn begin_again(
        &mut self,
        who: &'static str,
        said: Option<u8>,
        inbox: &Receiver<Event>,
    ) -> Result<ControlFlow<u8>, Fault> {
        // An agent that ends by itself keeps its code, whatever signal reaches it then.
        let late = self.end_all();
        let said = said.or(late);
        if let Some(code) = said.filter(|code| *code != PANICKED) {
            return Ok(ControlFlow::Break(code));
        }
        // Not a secret: it only has to differ from device to device.
        let random = RandomState::new().hash_one(self.turn);
        let random = u32::try_from(random >> 32).unwrap_or_default();
        let Some(pause) = self.restarts.after_death(Instant::now(), random) else {
            manager(&[NotifyState::Status("gave up: its processes die again and again")]);
            return Err(Fault::GaveUp(who));
        };
        tracing::error!(process = who, ?pause, "a process died: everything is begun again");
        manager(&[NotifyState::Status("beginning again: a process died")]);
        let deadline = Instant::now().checked_add(pause).unwrap_or_else(Instant::now);
        loop {
            match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(ControlFlow::Break(0)),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        self.begin()?;
        Ok(ControlFlow::Continue(()))
    }

    /// Children that have ended, with their exit codes; `None`: by a signal.
    fn reap(&mut self) -> Vec<(Who, Option<u8>)> {
        let mut ended = Vec::new();
        for (who, child) in self.children.values_mut() {
            if let Ok(Some(status)) = child.try_wait() {
                ended.push((who.clone(), code_of(status)));
            }
        }
        self.children
            .retain(|_, (_, child)| matches!(child.try_wait(), Ok(None)));
        ended
    }

    fn answer(&mut self, request: ToSupervisor) {
        let answered = match request {
            ToSupervisor::StartExecutor {
                publisher,
                wasi_0_3,
                lent,
            } => self.start_executor(&publisher, wasi_0_3, lent),
            ToSupervisor::StartCompiler => self.start_compiler(),
            ToSupervisor::StopExecutor { publisher } => {
                self.signal(&Who::Executor(publisher), Signal::KILL);
                return;
            }
            ToSupervisor::Running => {
                manager(&[
                    NotifyState::Ready,
                    NotifyState::Watchdog,
                    NotifyState::Status("running"),
                ]);
                return;
            }
        };
        match answered {
            Ok(descriptors) => {
                let isolation = Isolation {
                    processes: true,
                    ..Isolation::default()
                };
                self.tell(&FromSupervisor::Started { isolation }, &descriptors);
            }
            Err(fault) => {
                tracing::error!(%fault, "a process could not be started");
                self.tell(&FromSupervisor::Failed { code: Code::Internal }, &[]);
            }
        }
    }

    fn start_executor(
        &mut self,
        publisher: &PublisherName,
        wasi_0_3: bool,
        lent: Vec<LentFolder>,
    ) -> Result<Vec<OwnedFd>, Fault> {
        let data = self.state.join("data").join(publisher.as_str());
        std::fs::create_dir_all(&data).map_err(Fault::system("making the data folder"))?;
        let mut arguments: Vec<OsString> =
            vec!["executor".into(), "--publisher".into(), publisher.as_str().into()];
        arguments.extend(["--data".into(), data.clone().into_os_string()]);
        if wasi_0_3 {
            arguments.push("--wasi-0-3".into());
        }
        for LentFolder { path, writable } in lent {
            let flag = if writable { "--lend-writable=" } else { "--lend=" };
            arguments.push(format!("{flag}{path}").into());
        }
        if self.users {
            let user = user_of(publisher);
            own(&data, user).map_err(Fault::system("giving the data folder to its user"))?;
            arguments.extend(["--user".into(), user.to_string().into()]);
        }
        let (agent, far_agent) = pair()?;
        let (broker, far_broker) = pair()?;
        self.start(
            Who::Executor(publisher.clone()),
            arguments,
            vec![far_agent, far_broker],
        )?;
        Ok(vec![agent, broker])
    }

    fn start_compiler(&mut self) -> Result<Vec<OwnedFd>, Fault> {
        let (near, far) = pair()?;
        self.start(Who::Compiler, self.as_user("compiler", COMPILER_USER), vec![far])?;
        Ok(vec![near])
    }

    fn tell(&self, message: &FromSupervisor, descriptors: &[OwnedFd]) {
        let borrowed: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        // An agent that is gone will be reaped.
        if let Some(agent) = &self.agent {
            let _ = send(agent.as_ref(), message, &borrowed);
        }
    }

    fn signal(&self, whom: &Who, signal: Signal) {
        for (id, (who, _)) in &self.children {
            if who == whom
                && let Some(pid) = Pid::from_raw(*id)
            {
                // It may have ended meanwhile; then it is reaped.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }

    /// Kills and reaps every child, so that no port, lock or file of theirs is held any longer. The agent's exit code, if it was there
    /// and ended by itself.
    fn end_all(&mut self) -> Option<u8> {
        for (_, child) in self.children.values_mut() {
            // It may have ended meanwhile.
            drop(child.kill());
        }
        let mut said = None;
        for (who, mut child) in std::mem::take(&mut self.children).into_values() {
            let status = child.wait();
            if who == Who::Agent {
                said = status.ok().and_then(code_of);
            }
        }
        said
    }

    /// The agent first, in order; then everybody else at once. Nothing is left behind.
    fn stop(&mut self, inbox: &Receiver<Event>) {
        manager(&[NotifyState::Stopping]);
        self.signal(&Who::Agent, Signal::TERM);
        let deadline = Instant::now() + STOP_WITHIN;
        while self.children.values().any(|(who, _)| *who == Who::Agent) {
            match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => drop(self.reap()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        self.end_all();
        // Whatever a child may have left behind in its group.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
}

fn code_of(status: ExitStatus) -> Option<u8> {
    status.code().and_then(|code| u8::try_from(code).ok())
}

/// Tells the service manager, if one started this program and asked to be told (`NOTIFY_SOCKET`, `sd_notify(3)`).
fn manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager was not told: {error}");
    }
}

/// A user id of its own for each publisher.
fn user_of(publisher: &PublisherName) -> u32 {
    let digest = redan_protocol::Digest::of(publisher.as_str().as_bytes());
    let [a, b, ..] = *digest.as_bytes();
    USERS_FROM
        .saturating_add(u32::from(u16::from_be_bytes([a, b])) % USERS)
        .saturating_add(1)
}

/// Gives a folder and everything in it to a user, unless it is theirs already: then guests may have filled it, and nothing in it is
/// any business of this process. The folder itself comes last, so that a pass that was cut off is done again.
fn own(folder: &Path, user: u32) -> std::io::Result<()> {
    if folder.symlink_metadata()?.uid() == user {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.symlink_metadata()?.is_dir() {
            own(&path, user)?;
        } else {
            lchown(&path, Some(user), Some(user))?;
        }
    }
    lchown(folder, Some(user), Some(user))
}
