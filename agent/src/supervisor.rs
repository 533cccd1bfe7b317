//! Talking to the supervisor: it starts and stops the sibling processes and says when one ended.

use crate::main_loop::Event;
use redan_channel::AsyncChannel;
use redan_protocol::Code;
use redan_protocol::ipc::{FromSupervisor, ToSupervisor};
use redan_protocol::report::Isolation;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use tokio::sync::{mpsc, oneshot};

/// A process that was started, with its channels.
pub(crate) struct Started {
    pub(crate) isolation: Isolation,
    pub(crate) descriptors: Vec<OwnedFd>,
}

struct Request {
    message: ToSupervisor,
    answer: Option<oneshot::Sender<Result<Started, Code>>>,
}

/// Asks the supervisor. Cloneable; answers come in the order of the questions.
#[derive(Clone)]
pub(crate) struct Supervisor(mpsc::UnboundedSender<Request>);

impl Supervisor {
    /// Takes the channel over. When it ends, the main loop is told.
    pub(crate) fn start(channel: AsyncChannel, events: mpsc::UnboundedSender<Event>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::task::spawn_local(serve(channel, receiver, events));
        Self(sender)
    }

    /// Starts a process and waits until it runs.
    pub(crate) async fn ask(&self, message: ToSupervisor) -> Result<Started, Code> {
        let (answer, started) = oneshot::channel();
        let answer = Some(answer);
        let request = Request { message, answer };
        self.0.send(request).map_err(|_| Code::Internal)?;
        started.await.map_err(|_| Code::Internal)?
    }

    /// Says something that has no answer.
    pub(crate) fn tell(&self, message: ToSupervisor) {
        drop(self.0.send(Request {
            message,
            answer: None,
        }));
    }
}

async fn serve(
    channel: AsyncChannel,
    mut requests: mpsc::UnboundedReceiver<Request>,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut asked: VecDeque<oneshot::Sender<Result<Started, Code>>> = VecDeque::new();
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some(Request { message, answer }) = request else { return };
                // An asker that is not answered reads it from the dropped sender.
                if channel.send(&message, &[]).await.is_ok() {
                    asked.extend(answer);
                }
            }
            received = channel.recv::<FromSupervisor>() => {
                let Ok(received) = received else {
                    drop(events.send(Event::SupervisorGone));
                    return;
                };
                match received.message {
                    FromSupervisor::Started { isolation } => {
                        let started = Started { isolation, descriptors: received.descriptors };
                        if let Some(answer) = asked.pop_front() {
                            drop(answer.send(Ok(started)));
                        }
                    }
                    FromSupervisor::Failed { code } => {
                        if let Some(answer) = asked.pop_front() {
                            drop(answer.send(Err(code)));
                        }
                    }
                    FromSupervisor::ExecutorEnded { publisher } => {
                        drop(events.send(Event::ExecutorEnded(publisher)));
                    }
                }
            }
        }
    }
}
