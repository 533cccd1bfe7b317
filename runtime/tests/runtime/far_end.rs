//! The broker's far end of the executor's channel.

use redan_protocol::Code;
use redan_protocol::ipc::{Connect, Connected};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The questions so far.
pub(crate) type Asked = Arc<Mutex<Vec<Connect>>>;

/// Answers questions for sockets until the executor is gone; keeps what was asked.
pub(crate) struct FarEnd {
    pub(crate) asked: Asked,
    _thread: JoinHandle<()>,
}

impl FarEnd {
    /// A broker without rules.
    pub(crate) fn refusing() -> (Self, OwnedFd) {
        Self::answering(|_| Err(Code::EgressDenied))
    }

    /// A broker that says yes to everything, with so many sockets.
    pub(crate) fn with_sockets(count: usize, address: SocketAddr) -> (Self, OwnedFd) {
        let (far, near) = redan_channel::pair().unwrap();
        let thread = std::thread::spawn(move || {
            while let Ok(received) = redan_channel::recv::<Connect>(&far) {
                let id = received.message.id;
                let sockets: Vec<_> = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
                let beside: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
                if redan_channel::send(&far, &Connected::Yes { id }, &beside).is_err() {
                    return;
                }
            }
        });
        let far_end = Self {
            asked: Arc::default(),
            _thread: thread,
        };
        (far_end, near)
    }

    /// A broker that is not there any more.
    pub(crate) fn gone() -> (Self, OwnedFd) {
        let (far, near) = redan_channel::pair().unwrap();
        drop(far);
        let far_end = Self {
            asked: Arc::default(),
            _thread: std::thread::spawn(|| {}),
        };
        (far_end, near)
    }

    /// A broker that dials what `rule` says.
    pub(crate) fn answering(
        rule: impl Fn(&Connect) -> Result<SocketAddr, Code> + Send + 'static,
    ) -> (Self, OwnedFd) {
        let (far, near) = redan_channel::pair().unwrap();
        let asked = Asked::default();
        let keep = Arc::clone(&asked);
        let thread = std::thread::spawn(move || {
            while let Ok(received) = redan_channel::recv::<Connect>(&far) {
                let question = received.message;
                let id = question.id;
                let answer = match rule(&question) {
                    Ok(address) => {
                        let socket = TcpStream::connect(address).unwrap();
                        redan_channel::send(&far, &Connected::Yes { id }, &[socket.as_fd()])
                    }
                    Err(code) => redan_channel::send(&far, &Connected::No { id, code }, &[]),
                };
                keep.lock().unwrap().push(question);
                if answer.is_err() {
                    return;
                }
            }
        });
        let far_end = Self {
            asked,
            _thread: thread,
        };
        (far_end, near)
    }
}
