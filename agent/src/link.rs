//! A connection to the control server: dialled here, proven by `redan-identity`.

use redan_identity::client::Connection;
use redan_protocol::Code;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for one TCP handshake: a mobile line's worst, tripled.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

/// Where the server is and as whom we talk to it. Copies of it present the same certificate, also after it was renewed: a key that
/// the server has superseded must not speak again.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) server: String,
    host: String,
    config: Rc<RefCell<Arc<rustls::ClientConfig>>>,
}

impl Link {
    pub(crate) fn new(server: String, host: String, config: Arc<rustls::ClientConfig>) -> Self {
        let config = Rc::new(RefCell::new(config));
        Self { server, host, config }
    }

    /// Presents another certificate from the next connection on.
    pub(crate) fn present(&self, config: Arc<rustls::ClientConfig>) {
        self.config.replace(config);
    }

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
                let config = Arc::clone(&self.config.borrow());
                let opened = Connection::open(stream, config, &self.host).await;
                return opened.map_err(|error| error.code());
            }
        }
        Err(Code::Unreachable)
    }
}
