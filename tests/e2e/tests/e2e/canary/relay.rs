//! What a device says before it is encrypted: a relay that holds the server's key and the device's, and keeps every byte.

use anyhow::{Context as _, Result};
use redan_identity::tls::{self, Fleets};
use redan_identity::{FleetAnchor, KeyFile, pem};
use redan_kit::Stage;
use redan_kit::stage::FLEET;
use redan_protocol::wire::control_host;
use redan_protocol::{FleetId, UnixSeconds};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// Plaintext, one entry for each direction of each connection.
#[derive(Clone, Default)]
pub(crate) struct Relay {
    up: Kept,
    down: Kept,
}

type Kept = Arc<Mutex<Vec<Arc<Mutex<Vec<u8>>>>>>;

fn now() -> UnixSeconds {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixSeconds::new(since.map_or(0, |since| since.as_secs()))
}

impl Relay {
    /// Between one device and the stage's server; gives the address the device is to ask.
    pub(crate) fn between(stage: &Stage, device: &Path) -> Result<(Self, SocketAddr)> {
        let fleet = FleetId::parse(FLEET)?;
        let ca = std::fs::read_to_string(stage.fleet().join("public/ca.pem"))?;
        let anchor = FleetAnchor::from_pem(fleet.clone(), &ca)?;
        let (key, chain) = pem::load_bundle(&stage.fleet().join("online/server.pem"))?;
        let fleets = Fleets::default();
        fleets.put(&anchor, &tls::fleet_server(&anchor, &chain, &key, now())?);
        let own = device.join("identity");
        let key = KeyFile::from_pem(&std::fs::read_to_string(own.join("key.pem"))?)?;
        let chain = pem::read_chain(&std::fs::read_to_string(own.join("chain.pem"))?)?;
        let connector = TlsConnector::from(tls::device_client(&anchor, chain, &key, now())?);
        let (server, host) = (stage.server()?, control_host(&fleet));

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let relay = Self::default();
        let (kept, fleets) = (relay.clone(), Arc::new(fleets));
        std::thread::spawn(move || {
            runtime.block_on(async {
                while let Ok((near, _)) = listener.accept().await {
                    let (kept, fleets, connector, host) =
                        (kept.clone(), Arc::clone(&fleets), connector.clone(), host.clone());
                    // A connection that ends early is the device's affair: what was said is kept.
                    tokio::spawn(
                        async move { kept.hand_on(near, &fleets, &connector, server, host).await.ok() },
                    );
                }
            });
        });
        Ok((relay, address))
    }

    async fn hand_on(
        &self,
        near: TcpStream,
        fleets: &Fleets,
        connector: &TlsConnector,
        server: SocketAddr,
        host: String,
    ) -> Result<()> {
        let refused = |code| anyhow::anyhow!("{code}");
        let near = tls::accept(fleets, near, now).await.map_err(refused)?.stream;
        let far = TcpStream::connect(server).await?;
        let far = connector.connect(host.try_into().context("a name")?, far).await?;
        let (near_out, near_in) = tokio::io::split(near);
        let (far_out, far_in) = tokio::io::split(far);
        let up = pump(near_out, far_in, entry(&self.up));
        let down = pump(far_out, near_in, entry(&self.down));
        tokio::join!(up, down);
        Ok(())
    }

    /// What the device sent, connection after connection.
    pub(crate) fn sent(&self) -> Vec<u8> {
        joined(&self.up)
    }

    /// What it was answered.
    pub(crate) fn answered(&self) -> Vec<u8> {
        joined(&self.down)
    }
}

fn entry(kept: &Kept) -> Arc<Mutex<Vec<u8>>> {
    let entry = Arc::default();
    kept.lock()
        .expect("nobody panics with it")
        .push(Arc::clone(&entry));
    entry
}

fn joined(kept: &Kept) -> Vec<u8> {
    let all = kept.lock().expect("nobody panics with it");
    let each = all
        .iter()
        .map(|entry| entry.lock().expect("nobody panics with it").clone());
    each.collect::<Vec<_>>().concat()
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, kept: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        kept.lock()
            .expect("nobody panics with it")
            .extend(&buffer[..count]);
        if to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    to.shutdown().await.ok();
}
