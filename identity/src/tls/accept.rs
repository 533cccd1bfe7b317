//! From a connected stream to a peer: the name asked for chooses the fleet, and the fleet's anchors judge the certificate.

use super::verify::Members;
use super::{FleetServer, Peer, peer, refusal};
use crate::anchors::Anchors;
use crate::join::Binding;
use redan_protocol::wire::{control_host, enrol_host};
use redan_protocol::{Code, FleetId, UnixSeconds};
use rustls::ServerConfig;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// Longest handshake (attacks.md, TLS profile). Tripped by `a_client_that_says_nothing_is_dropped`.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// One name the server answers to.
#[derive(Clone, Debug)]
pub struct Face {
    /// The fleet's anchors.
    pub anchors: Anchors,
    /// Whether only enrolment is served here.
    pub enrolment: bool,
    config: Arc<ServerConfig>,
    members: Option<Arc<Members>>,
}

/// The fleets a process serves, by the name a client asks for. May change at any time: a handshake sees the old or the new set-up,
/// whole, and connections that are open keep theirs.
#[derive(Debug, Default)]
pub struct Fleets(RwLock<Arc<BTreeMap<String, Face>>>);

impl Fleets {
    /// Serves a fleet from now on, or serves it with another certificate.
    pub fn put(&self, anchors: impl Into<Anchors>, server: &FleetServer) {
        let anchors = anchors.into();
        let face = |enrolment: bool, config: &Arc<ServerConfig>| Face {
            anchors: anchors.clone(),
            enrolment,
            config: Arc::clone(config),
            members: (!enrolment).then(|| Arc::clone(&server.members)),
        };
        self.change(|faces| {
            faces.insert(control_host(anchors.fleet()), face(false, &server.control));
            faces.insert(enrol_host(anchors.fleet()), face(true, &server.enrol));
        });
    }

    /// Serves a fleet no longer.
    pub fn remove(&self, fleet: &FleetId) {
        self.change(|faces| {
            faces.remove(&control_host(fleet));
            faces.remove(&enrol_host(fleet));
        });
    }

    /// Who answers to a name.
    pub fn at(&self, host: &str) -> Option<Face> {
        let faces = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        faces.get(host).cloned()
    }

    fn change(&self, edit: impl FnOnce(&mut BTreeMap<String, Face>)) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut faces = BTreeMap::clone(&held);
        edit(&mut faces);
        *held = Arc::new(faces);
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub stream: TlsStream<S>,
    /// The fleet it is for.
    pub fleet: FleetId,
    /// The name asked for: every request's authority must equal it.
    pub host: String,
    /// Who opened it.
    pub peer: Peer,
    /// What proofs on this connection are bound to.
    pub binding: Binding,
}

/// Shakes hands. `Err` says why not, for the log: the other side learns an alert at most, and without a name of ours nothing.
pub async fn accept<S>(
    fleets: &Fleets,
    stream: S,
    clock: impl Fn() -> UnixSeconds,
) -> Result<Accepted<S>, Code>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::time::timeout(HANDSHAKE_WITHIN, handshake(fleets, stream, clock))
        .await
        .unwrap_or(Err(Code::Overloaded))
}

async fn handshake<S>(
    fleets: &Fleets,
    stream: S,
    clock: impl Fn() -> UnixSeconds,
) -> Result<Accepted<S>, Code>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await;
    let hello = hello.map_err(|_| Code::BadRequest)?;
    let host = hello.client_hello().server_name().unwrap_or_default().to_owned();
    let face = fleets.at(&host).ok_or(Code::MisdirectedRequest)?;
    // rustls refuses protocols it does not have in common with a client, but lets a client name none (RFC 7301 §3.2).
    if hello.client_hello().alpn().is_none() {
        return Err(Code::BadRequest);
    }
    let stream = hello.into_stream(face.config).await;
    let stream = stream.map_err(|error| refusal(&error).unwrap_or(Code::BadRequest))?;
    let chain = stream.get_ref().1.peer_certificates();
    let found = face.members.as_ref().zip(chain);
    let peer = match found.and_then(|(members, chain)| members.found(chain)) {
        Some(presented) => Ok(presented.into()),
        None => peer(&face.anchors, face.enrolment, chain, clock()),
    };
    let binding = Binding::of(stream.get_ref().1).map_err(|_| Code::Internal)?;
    Ok(Accepted {
        binding,
        peer: peer.map_err(|error| error.code())?,
        fleet: face.anchors.fleet().clone(),
        stream,
        host,
    })
}
