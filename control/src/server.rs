//! Accepting connections: the name asked for chooses the fleet, its anchors judge the certificate, and requests go to `routes`.

use crate::checkin::tick;
use crate::config::Config;
use crate::error::ServerError;
use crate::fleet::Fleet;
use crate::gate::{Gate, Handshake};
use crate::routes::Caller;
use crate::speak::{Conversation, speak};
use redan_identity::Peer;
use redan_identity::tls::{Fleets, accept};
use redan_protocol::{Code, FleetId, UnixSeconds};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Between two looks at soaks, deadlines and expiring timestamps.
const TICK: Duration = Duration::from_secs(1);

/// What is served now.
#[derive(Debug, Default)]
struct Served(RwLock<BTreeMap<FleetId, Arc<Fleet>>>);

impl Served {
    fn get(&self, id: &FleetId) -> Option<Arc<Fleet>> {
        let fleets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        fleets.get(id).cloned()
    }

    fn all(&self) -> Vec<Arc<Fleet>> {
        let fleets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        fleets.values().cloned().collect()
    }

    fn remove(&self, id: &FleetId) {
        let mut fleets = self.0.write().unwrap_or_else(PoisonError::into_inner);
        fleets.remove(id);
    }
}

/// The fleets of this server by the names they are reached under.
#[derive(Debug)]
pub struct Server {
    fleets: Arc<Served>,
    names: Arc<Fleets>,
    config: Config,
}

pub(crate) fn now() -> UnixSeconds {
    UnixSeconds::new(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    )
}

impl Server {
    /// Opens every registered fleet.
    pub async fn open(config: Config) -> Result<Self, ServerError> {
        let folder = config.state.join("fleets");
        let mut fleets = BTreeMap::new();
        let names = Arc::new(Fleets::default());
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.map_err(|error| ServerError::file(&folder, &error))?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if let Ok(id) = FleetId::parse(name) {
                let settings = config.fleets.get(&id).cloned().unwrap_or_default();
                let (fleet, tls) = Fleet::open_with(&path, id.clone(), settings, now()).await?;
                let mut state = fleet.state.lock().await;
                state.warned = Some(now());
                crate::expiry::warn(&fleet, &state, now());
                drop(state);
                names.put(&fleet.held().anchors, &tls);
                fleets.insert(id, Arc::new(fleet));
            }
        }
        if fleets.is_empty() {
            return Err(ServerError::NoFleet);
        }
        Ok(Self {
            fleets: Arc::new(Served(RwLock::new(fleets))),
            names,
            config,
        })
    }

    /// What takes new certificates over while the server serves.
    pub fn reloader(&self) -> Reloader {
        Reloader {
            fleets: Arc::clone(&self.fleets),
            names: Arc::clone(&self.names),
        }
    }

    /// Serves until told to stop; then lets requests that have begun be answered.
    pub async fn serve(
        self,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), ServerError> {
        let server = Arc::new(self);
        let gate = Gate::new(
            server.config.handshakes_max,
            server.config.handshakes_per_address_max,
        );
        let slots = Arc::new(Semaphore::new(server.config.connections_max));
        let mut connections = tokio::task::JoinSet::new();
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = stop.changed() => break,
                _ = ticks.tick() => {
                    for fleet in server.fleets.all() {
                        if let Err(refused) = tick(&fleet, now()).await {
                            tracing::error!(fleet = %fleet.id, code = %refused.code, "a tick failed");
                        }
                    }
                }
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        // Full: the connection is closed unanswered, the accept loop stays alive.
                        if let Some(handshake) = gate.enter(from.ip())
                            && let Ok(slot) = Arc::clone(&slots).try_acquire_owned()
                        {
                            let (server, stop) = (Arc::clone(&server), stop.clone());
                            connections.spawn(async move {
                                server.connection(stream, handshake, stop).await;
                                drop(slot);
                            });
                        }
                    }
                    Err(error) => tracing::warn!(%error, "a connection could not be accepted"),
                },
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
        for fleet in server.fleets.all() {
            let mut state = fleet.state.lock().await;
            if let Err(refused) = crate::checkin::save_seen(&fleet, &mut state, now()).await {
                tracing::error!(fleet = %fleet.id, code = %refused.code, "when devices were last seen was not kept");
            }
        }
        Ok(())
    }

    async fn connection(&self, stream: TcpStream, mut handshake: Handshake, stop: watch::Receiver<bool>) {
        let Ok(local) = stream.local_addr() else { return };
        let opened = Instant::now();
        // Small answers, many of them.
        drop(stream.set_nodelay(true));
        let accepted = tokio::select! {
            biased;
            // In a place of its own: a connection lives for an hour, its handshake for a moment.
            accepted = Box::pin(accept(&self.names, stream, now)) => accepted,
            () = handshake.gives_way() => Err(Code::Overloaded),
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(code) => {
                tracing::warn!(code = %code, "a handshake was refused");
                return;
            }
        };
        drop(handshake);
        let Some(fleet) = self.fleets.get(&accepted.fleet) else {
            return;
        };
        // Its own share is used up: closed unanswered, and nobody of another fleet notices.
        let Ok(_place) = Arc::clone(&fleet.places).try_acquire_owned() else {
            return;
        };
        let mut entry = match &accepted.peer {
            Peer::Known(identity) | Peer::Expired(identity) => {
                let (id, authority) = (identity.id().clone(), identity.authority());
                let entry = fleet.live.enter(id, authority);
                // Revoked between the handshake and here; from here on it is cut.
                if fleet.held().anchors.state(authority).is_none() {
                    return;
                }
                Some(entry)
            }
            Peer::Enrolling { .. } => None,
        };
        let caller = Arc::new(Caller {
            fleet: Arc::clone(&fleet),
            peer: accepted.peer,
            binding: accepted.binding,
            host: accepted.host,
            server: local,
            opened,
            interval: self.config.checkin_interval_seconds,
            grace: self.config.renewal_grace_seconds,
        });
        let conversation = Conversation {
            caller,
            entry: entry.as_mut(),
            stop,
        };
        // In a place of its own: every step it is handed through would make room for it.
        speak(Box::new(accepted.stream), conversation).await;
    }
}

/// Takes new keys, certificates and roots over. Open connections keep their certificate and go on, but for those of whoever came with
/// one under an authority that was revoked; who comes later sees the new one.
#[derive(Debug)]
pub struct Reloader {
    fleets: Arc<Served>,
    names: Arc<Fleets>,
}

/// How a fleet is served after the server has looked again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reloaded {
    /// With the certificate that is there now.
    Served,
    /// No longer: its folder was set aside.
    Dropped,
}

impl Reloader {
    /// Reads every fleet's folder again. What would have been refused at start is refused now, and the fleet goes on with what it had. A
    /// fleet whose folder was set aside is dropped, and its connections are closed.
    pub async fn reload(&self) -> Vec<(FleetId, Result<Reloaded, ServerError>)> {
        let mut outcomes = Vec::new();
        for fleet in self.fleets.all() {
            let outcome = if fleet.is_here() {
                match fleet.reload(now()).await {
                    Ok(tls) => {
                        let anchors = &fleet.held().anchors;
                        self.names.put(anchors, &tls);
                        let revoked = |authority| anchors.state(authority).is_none();
                        fleet.live.cut_under(revoked).await;
                        Ok(Reloaded::Served)
                    }
                    Err(error) => Err(error),
                }
            } else {
                self.names.remove(&fleet.id);
                self.fleets.remove(&fleet.id);
                fleet.gone.store(true, Ordering::SeqCst);
                fleet.live.cut_all().await;
                Ok(Reloaded::Dropped)
            };
            outcomes.push((fleet.id.clone(), outcome));
        }
        outcomes
    }
}
