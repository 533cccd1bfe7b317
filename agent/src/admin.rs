//! The admin sockets: one question, one answer. Only the owner of the state folder reaches them.

use crate::main_loop::Event;
use crate::{AgentError, Applied, Status};
use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

/// Longest wait for a running agent's answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for a bundle to be judged and brought onto the disk: 32 components of 64 MiB from a slow stick.
const APPLIED_WITHIN: Duration = Duration::from_mins(15);
/// Longest path of a bundle, bytes (Linux `PATH_MAX`).
const PATH_LEN_MAX: u64 = 4096;
/// Largest answer, bytes: some hundred slots.
const ANSWER_LEN_MAX: u64 = 1024 * 1024;

/// Asks the running agent of this state folder, over its admin socket, how it is.
pub fn status(state: &Path) -> Result<Status, AgentError> {
    crate::burial::look(state)?;
    let path = state.join("admin.sock");
    let not_running = |_| AgentError::NotRunning {
        state: state.to_owned(),
    };
    let stream = UnixStream::connect(&path).map_err(not_running)?;
    stream
        .set_read_timeout(Some(ANSWER_WITHIN))
        .map_err(not_running)?;
    let mut bytes = Vec::new();
    stream
        .take(ANSWER_LEN_MAX)
        .read_to_end(&mut bytes)
        .map_err(|source| AgentError::file("read", &path, source))?;
    serde_json::from_slice(&bytes)
        .map_err(|_| AgentError::file("read", &path, std::io::ErrorKind::InvalidData.into()))
}

/// Hands a bundle to the running agent and waits for what becomes of it.
pub fn apply(state: &Path, bundle: &Path) -> Result<Applied, AgentError> {
    let bundle = std::fs::canonicalize(bundle).map_err(|source| AgentError::file("find", bundle, source))?;
    let path = state.join("apply.sock");
    let not_running = |_| AgentError::NotRunning {
        state: state.to_owned(),
    };
    let mut stream = UnixStream::connect(&path).map_err(not_running)?;
    stream
        .set_read_timeout(Some(APPLIED_WITHIN))
        .map_err(not_running)?;
    let mut bytes = Vec::new();
    stream
        .write_all(bundle.as_os_str().as_bytes())
        .and_then(|()| stream.shutdown(std::net::Shutdown::Write))
        .and_then(|()| stream.take(ANSWER_LEN_MAX).read_to_end(&mut bytes))
        .map_err(|source| AgentError::file("talk over", &path, source))?;
    serde_json::from_slice(&bytes)
        .map_err(|_| AgentError::file("read", &path, std::io::ErrorKind::InvalidData.into()))
}

/// Takes the path of a bundle from each connection, and answers with what became of it.
pub(crate) async fn take_bundles(listener: UnixListener, events: mpsc::UnboundedSender<Event>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let events = events.clone();
        tokio::task::spawn_local(async move {
            let mut path = Vec::new();
            let mut bounded = (&mut stream).take(PATH_LEN_MAX);
            let read = bounded.read_to_end(&mut path);
            if !matches!(tokio::time::timeout(ANSWER_WITHIN, read).await, Ok(Ok(_))) {
                return;
            }
            let (asked, answer) = oneshot::channel();
            let folder = PathBuf::from(OsString::from_vec(path));
            if events.send(Event::Apply(folder, asked)).is_err() {
                return;
            }
            let Ok(applied) = answer.await else { return };
            if let Ok(bytes) = serde_json::to_vec(&applied) {
                drop(tokio::time::timeout(ANSWER_WITHIN, stream.write_all(&bytes)).await);
            }
        });
    }
}

/// Binds the socket; a stale one of an agent that died is removed, for we hold the lock.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, AgentError> {
    let failed = |source| AgentError::file("listen on", path, source);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    UnixListener::bind(path).map_err(failed)
}

/// Answers each connection with the status.
pub(crate) async fn serve(listener: UnixListener, events: mpsc::UnboundedSender<Event>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (asked, answer) = oneshot::channel();
        if events.send(Event::Status(asked)).is_err() {
            return;
        }
        tokio::task::spawn_local(async move {
            let Ok(status) = answer.await else { return };
            if let Ok(bytes) = serde_json::to_vec(&status) {
                // Who asked may have left.
                drop(tokio::time::timeout(ANSWER_WITHIN, stream.write_all(&bytes)).await);
            }
        });
    }
}
