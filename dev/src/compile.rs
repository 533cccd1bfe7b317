//! Native code, by the compiler of a device in a confined process of its own: what is too much for it there is too much here.

use crate::fault::Fault;
use crate::remark;
use redan_channel::{ChannelError, pair, recv, send};
use redan_jail::{Folders, Kind, Spec, confine, inherited, reserve, spawn};
use redan_policy::EffectiveGrant;
use redan_protocol::ipc::{Compile, Compiled};
use redan_protocol::{Code, Digest};
use redan_runtime::compiler;
use redan_sealed::Sealed;
use rustix::process::Signal;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The word this program starts itself with.
const COMPILER: &str = "compiler";
/// Until the first word about a compilation that takes its time; doubles.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether this process was started to compile; then it has done so.
pub(crate) fn asked_to_compile() -> Option<Result<(), Fault>> {
    let mut words = std::env::args_os().skip(1);
    let alone = words.next()? == COMPILER && words.next().is_none();
    let channel = alone.then(|| inherited(3).ok()).flatten()?;
    let compile = || {
        confine(Kind::Compiler, Folders::default(), None).map_err(Fault::system("confining the compiler"))?;
        compiler::run(&channel).map_err(Fault::system("compiling"))
    };
    Some(compile())
}

/// Admits and compiles. Call from the main thread.
pub(crate) fn native(wasm: &[u8], grant: &EffectiveGrant, quiet: bool) -> Result<Sealed, Fault> {
    const WHAT: &str = "starting the compiler";
    reserve().map_err(Fault::system(WHAT))?;
    let (near, far) = pair().map_err(Fault::system(WHAT))?;
    let job = Compile {
        digest: Digest::of(wasm),
        grant: grant.canonical_json(),
    };
    let memory = redan_sealed::seal("component", wasm).map_err(Fault::system(WHAT))?;
    let mut child = spawn(Spec {
        arguments: vec![COMPILER.into()],
        descriptors: vec![far],
        environment: Vec::new(),
        with_parent: Signal::KILL.as_raw(),
    })
    .map_err(Fault::system(WHAT))?;
    send(&near, &job, &[memory.as_fd()]).map_err(Fault::system(WHAT))?;
    let (answered, answer) = channel();
    std::thread::spawn(move || answered.send(recv::<Compiled>(&near)));
    let (begun, mut patience) = (Instant::now(), PATIENCE);
    let answer = loop {
        match answer.recv_timeout(patience) {
            Ok(answer) => break answer,
            Err(RecvTimeoutError::Disconnected) => break Err(ChannelError::Closed),
            Err(RecvTimeoutError::Timeout) if quiet => {}
            Err(RecvTimeoutError::Timeout) => {
                remark(&format!(
                    "compiling {} KiB, {} s so far (a device does this once, before it sends traffic) …",
                    wasm.len().div_ceil(1024),
                    begun.elapsed().as_secs()
                ));
                patience = patience.saturating_mul(2);
            }
        }
    };
    let ended = child.wait().map_err(Fault::system("waiting for the compiler"))?;
    let Ok(answer) = answer else {
        // A signal: its limits of time and memory end it so.
        let code = ended
            .signal()
            .map_or(Code::CompilerFailed, |_| Code::CompileBudget);
        return Err(Fault::refused(code));
    };
    match answer.message {
        Compiled::Refused { code } => Err(Fault::refused(code)),
        Compiled::Done { .. } => {
            let file = answer.descriptors.into_iter().next();
            let file = file.ok_or_else(|| Fault::refused(Code::CompilerFailed))?;
            rustix::fs::fcntl_add_seals(&file, redan_sealed::WRITE_SEALS)
                .map_err(Fault::system("sealing the native code"))?;
            Sealed::read(&file).map_err(Fault::system("reading the native code"))
        }
    }
}
