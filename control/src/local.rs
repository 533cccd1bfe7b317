//! The running server as its own host reaches it: one server a state folder, and a socket there on which it is told to take new keys,
//! certificates and roots over. It can be told nothing else, and only by whoever may write the state folder anyway.

use crate::error::ServerError;
use redan_protocol::{Code, FleetId};
use serde::{Deserialize, Serialize};
use std::fs::{File, Permissions, TryLockError};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// Longest wait for the server's answer: it may be starting.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// Longest answer, bytes: a few lines for each of a thousand fleets.
const ANSWER_LEN_MAX: u64 = 1024 * 1024;

/// How one fleet took what is in its folder.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The fleet.
    pub fleet: FleetId,
    /// Why it goes on with what it had; `None`: taken over.
    pub refused: Option<(Code, String)>,
}

/// What became of telling the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Told {
    /// Nobody serves this state folder: its next start takes everything over.
    NotRunning,
    /// It has tried.
    Answered(Vec<Outcome>),
}

/// A server's hold of its state folder, until it ends.
#[derive(Debug)]
pub struct Door {
    listener: Option<UnixListener>,
    _lock: File,
}

fn lock(state: &Path) -> PathBuf {
    state.join("serve.lock")
}

fn socket(state: &Path) -> PathBuf {
    state.join("serve.sock")
}

impl Door {
    /// Takes the state folder, unless another server has it.
    pub fn open(state: &Path) -> Result<Self, ServerError> {
        if !state.exists() {
            return Err(ServerError::NoFleet);
        }
        let path = lock(state);
        let held = File::create(&path).map_err(|error| ServerError::file(&path, &error))?;
        held.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => ServerError::Running {
                state: state.display().to_string(),
            },
            TryLockError::Error(error) => ServerError::file(&path, &error),
        })?;
        let path = socket(state);
        // Of a server that was killed: the lock says that nobody listens there.
        drop(std::fs::remove_file(&path));
        let listener = UnixListener::bind(&path).and_then(|listener| {
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map(|()| listener)
        });
        let listener = listener.map_err(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot be told by redan-control fleet keys; SIGHUP says the same");
        });
        Ok(Self {
            listener: listener.ok(),
            _lock: held,
        })
    }

    /// The next who tells this server to take over what is in its folders.
    pub async fn told(&self) -> Telling {
        loop {
            match &self.listener {
                Some(listener) => match listener.accept().await {
                    Ok((stream, _)) => return Telling(stream),
                    Err(error) => tracing::warn!(%error, "a local connection could not be accepted"),
                },
                None => std::future::pending().await,
            }
        }
    }
}

/// Somebody who waits for the answer.
#[derive(Debug)]
pub struct Telling(UnixStream);

impl Telling {
    /// Answers. Whoever went away did not want to know.
    pub async fn answer(mut self, outcomes: &[Outcome]) {
        let text = serde_json::to_vec(outcomes).unwrap_or_default();
        let sent = tokio::time::timeout(ANSWER_WITHIN, self.0.write_all(&text)).await;
        drop(sent);
    }
}

/// Tells the server of a state folder to take over what is in its folders, and waits until it has.
pub async fn tell(state: &Path) -> Result<Told, ServerError> {
    let path = lock(state);
    match File::open(&path) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => return Ok(Told::NotRunning),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(ServerError::file(&path, &error)),
        },
        Err(_) => return Ok(Told::NotRunning),
    }
    let untold = || ServerError::Untold {
        state: state.display().to_string(),
    };
    let asked = async {
        let stream = UnixStream::connect(socket(state)).await?;
        let mut text = Vec::new();
        stream.take(ANSWER_LEN_MAX).read_to_end(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let answered = tokio::time::timeout(ANSWER_WITHIN, asked).await;
    let text = answered.map_err(|_| untold())?.map_err(|_| untold())?;
    let outcomes = serde_json::from_slice(&text).map_err(|_| untold())?;
    Ok(Told::Answered(outcomes))
}
