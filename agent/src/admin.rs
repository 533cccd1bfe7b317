//! The admin socket: one question, one answer. Only the owner of the state folder reaches it.

use crate::main_loop::Event;
use crate::{AgentError, Status};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

/// Longest wait for a running agent's answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
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
