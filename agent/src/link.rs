//! A connection to the control server: dialled here, proven by `redan-identity`.

use redan_identity::client::Connection;
use redan_protocol::Code;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for one TCP handshake: a mobile line's worst, tripled.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

/// Where the server is and as whom we talk to it.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) server: String,
    pub(crate) host: String,
    pub(crate) config: Arc<rustls::ClientConfig>,
}

impl Link {
    /// The addresses of the server, as the resolver has them now.
    pub(crate) async fn addresses(&self) -> Result<Vec<SocketAddr>, Code> {
        let found = tokio::net::lookup_host(&self.server)
            .await
            .map_err(|_| Code::Unreachable)?;
        Ok(found.collect())
    }

    /// Dials and proves the server.
    pub(crate) async fn open(&self) -> Result<Connection, Code> {
        for address in self.addresses().await? {
            let dialled = tokio::time::timeout(DIAL_WITHIN, tokio::net::TcpStream::connect(address)).await;
            if let Ok(Ok(stream)) = dialled {
                let opened = Connection::open(stream, Arc::clone(&self.config), &self.host).await;
                return opened.map_err(|error| error.code());
            }
        }
        Err(Code::Unreachable)
    }
}
