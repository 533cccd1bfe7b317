//! From an admitted name to a connected socket: resolve once, judge every address, dial exactly those.

use crate::{Admitted, Book};
use redan_protocol::Code;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Longest wait for one address to answer.
const DIAL_WITHIN: Duration = Duration::from_secs(10);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// The network as the broker uses it. A trait so that tests can be the resolver that lies.
pub(crate) trait Net: Send + Sync + 'static {
    /// What the resolver says a name is, now.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
    /// Connects to one address. Takes no name: nothing can be looked up again between the check and the connection.
    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// The system's own.
#[derive(Debug)]
pub(crate) struct System;

impl Net for System {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect_timeout(&address, DIAL_WITHIN)
    }
}

/// Resolves once, checks every address, dials exactly those.
///
/// Nothing of an answer is kept for the next connection: a name with a TTL of 0 is judged anew each time, and an answer that was good
/// once is no reason to believe the next one (attack W10).
pub(crate) fn dial(net: &impl Net, admitted: &Admitted, book: &Mutex<Book>) -> Result<TcpStream, Code> {
    let found = net
        .resolve(&admitted.host, admitted.port)
        .map_err(|_| Code::EgressNameUnknown)?;
    let addresses: Vec<SocketAddr> = found.into_iter().take(ADDRESSES_MAX).collect();
    book.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .check(admitted, &addresses)?;
    let mut streams = addresses.iter().filter_map(|address| net.connect(*address).ok());
    let stream = streams.next().ok_or(Code::EgressUnreachable)?;
    stream
        .set_nonblocking(true)
        .map_err(|_| Code::EgressUnreachable)?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
