//! A connection to the control server: dialled here, proven by `redan-identity`.

use redan_identity::Anchors;
use redan_identity::client::Connection;
use redan_protocol::Code;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for one TCP handshake: a mobile line's worst, tripled.
const DIAL_WITHIN: Duration = Duration::from_secs(10);
/// After so many answers in a row without news an address is left for the next one: an address that only repeats old answers holds a
/// device back for so many check-ins, if another one speaks the truth.
pub(crate) const QUIET_MAX: u32 = 16;

/// Where the server is and as whom we talk to it. Copies of it present the same certificate, also after it was renewed: a key that
/// the server has superseded must not speak again. They take turns together, too: what one finds a liar, all leave.
#[derive(Clone)]
pub(crate) struct Link {
    /// `host:port` of the one server, the first to be asked first. Never empty.
    servers: Rc<[Server]>,
    turn: Rc<Cell<Turn>>,
    quiet: Rc<Cell<u32>>,
    host: String,
    config: Rc<RefCell<Arc<rustls::ClientConfig>>>,
    trusted: Rc<RefCell<Trusted>>,
}

/// What is believed of the server's certificate, and how often that changed.
#[derive(Default)]
struct Trusted {
    anchors: Option<Anchors>,
    changes: u64,
}

/// A connection while it is used for long: whether what it was opened under still holds.
#[derive(Default)]
pub(crate) struct Standing {
    trusted: Rc<RefCell<Trusted>>,
    changes: u64,
}

impl Standing {
    /// Whether the server's chain is still of an authority that is believed. Judged anew only when that changed.
    pub(crate) fn holds(&mut self, connection: &Connection) -> bool {
        let trusted = self.trusted.borrow();
        if self.changes == trusted.changes {
            return true;
        }
        self.changes = trusted.changes;
        let anchors = trusted.anchors.as_ref();
        anchors.is_none_or(|anchors| connection.stands_under(anchors))
    }
}

/// One address of the server, and what the resolver last made of it.
struct Server {
    name: String,
    known: RefCell<Vec<SocketAddr>>,
}

/// Which address is asked. Counts up for ever: who says that one failed cannot mean a later one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Turn(usize);

impl Link {
    /// `first` and `more` are addresses of one server: each must prove the same identity.
    pub(crate) fn new(
        first: String,
        more: &[String],
        host: String,
        config: Arc<rustls::ClientConfig>,
    ) -> Self {
        let more: Vec<String> = more.iter().filter(|name| **name != first).cloned().collect();
        let known = RefCell::default;
        let servers = std::iter::once(first).chain(more);
        Self {
            servers: servers.map(|name| Server { name, known: known() }).collect(),
            turn: Rc::new(Cell::new(Turn(0))),
            quiet: Rc::default(),
            host,
            config: Rc::new(RefCell::new(config)),
            trusted: Rc::default(),
        }
    }

    /// The same server by another of its names.
    pub(crate) fn named(&self, host: String, config: Arc<rustls::ClientConfig>) -> Self {
        Self {
            host,
            config: Rc::new(RefCell::new(config)),
            ..self.clone()
        }
    }

    /// What is believed from now on: connections that were opened under less are ended by whoever uses them.
    pub(crate) fn trust(&self, anchors: &Anchors) {
        let mut trusted = self.trusted.borrow_mut();
        trusted.anchors = Some(anchors.clone());
        trusted.changes = trusted.changes.wrapping_add(1);
    }

    /// Asked before a connection is opened, to be asked again while it is used.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            changes: self.trusted.borrow().changes,
            trusted: Rc::clone(&self.trusted),
        }
    }

    /// Presents another certificate from the next connection on.
    pub(crate) fn present(&self, config: Arc<rustls::ClientConfig>) {
        self.config.replace(config);
    }

    /// Whose turn it is: taken before a try, and given back to [`Self::pass`] when that failed.
    pub(crate) fn turn(&self) -> Turn {
        self.turn.get()
    }

    /// The address that had this turn is unreachable, refuses or lies: the next try goes to the next one. Whoever says so of a turn
    /// that is over changes nothing, or two tries that failed at once would lead back to the liar.
    pub(crate) fn pass(&self, turn: Turn) {
        if self.turn.get() == turn {
            self.turn.set(Turn(turn.0.wrapping_add(1)));
            self.quiet.set(0);
        }
    }

    /// It had nothing new, which nobody signed.
    pub(crate) fn quiet(&self, turn: Turn) {
        let quiet = self.quiet.get().saturating_add(1);
        self.quiet.set(quiet);
        if quiet >= QUIET_MAX {
            self.pass(turn);
        }
    }

    /// It had news, and they were good.
    pub(crate) fn proven(&self) {
        self.quiet.set(0);
    }

    fn present_server(&self) -> Option<&Server> {
        let Turn(turn) = self.turn.get();
        turn.checked_rem(self.servers.len())
            .and_then(|at| self.servers.get(at))
    }

    /// The address whose turn it is, to be shown.
    pub(crate) fn server(&self) -> String {
        self.present_server()
            .map(|server| server.name.clone())
            .unwrap_or_default()
    }

    /// All addresses of the server, as the resolver has them now; those of a name it does not answer for, as it had them last.
    pub(crate) async fn addresses(&self) -> Vec<SocketAddr> {
        let asked: Vec<_> = self
            .servers
            .iter()
            .map(|server| (server, tokio::spawn(resolve(server.name.clone()))))
            .collect();
        let mut all = Vec::new();
        for (server, asked) in asked {
            if let Ok(Ok(found)) = asked.await {
                server.known.replace(found);
            }
            all.extend(server.known.borrow().iter().copied());
        }
        all
    }

    /// Dials and proves the server.
    pub(crate) async fn open(&self) -> Result<Connection, Code> {
        for address in resolve(self.server()).await? {
            let dialled = tokio::time::timeout(DIAL_WITHIN, tokio::net::TcpStream::connect(address)).await;
            if let Ok(Ok(stream)) = dialled {
                let config = Arc::clone(&self.config.borrow());
                let opened = Connection::open(stream, config, &self.host).await;
                return opened.map_err(|error| error.code());
            }
        }
        Err(Code::Unreachable)
    }
}

async fn resolve(server: String) -> Result<Vec<SocketAddr>, Code> {
    let asked = tokio::time::timeout(DIAL_WITHIN, tokio::net::lookup_host(server)).await;
    match asked {
        Ok(Ok(found)) => Ok(found.collect()),
        _ => Err(Code::Unreachable),
    }
}
