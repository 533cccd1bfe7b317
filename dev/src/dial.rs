//! Where connections come from: the developer's own table first; then a device's broker, or, where everything is offered, this process.

use crate::fault::Fault;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redan_channel::{pair, send};
use redan_host_api::bench::Witness;
use redan_host_api::egress::Dial;
use redan_policy::EffectiveGrant;
use redan_protocol::ipc::ToBroker;
use redan_protocol::{Code, ComponentName};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use tokio::net::TcpStream;

/// Addresses the developer gave for names.
pub(crate) struct Resolving {
    pub(crate) table: BTreeMap<(String, u16), SocketAddr>,
    pub(crate) otherwise: Arc<dyn Dial>,
}

impl Dial for Resolving {
    fn dial(
        &self,
        component: &ComponentName,
        https: bool,
        host: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<OwnedFd, Code>> {
        match self.table.get(&(host.to_owned(), port)) {
            Some(address) => connect(vec![*address]).boxed(),
            None => self.otherwise.dial(component, https, host, port),
        }
    }
}

/// Any address of any name.
pub(crate) struct Anywhere {
    pub(crate) witness: Option<Arc<Witness>>,
}

impl Dial for Anywhere {
    fn dial(
        &self,
        _: &ComponentName,
        _: bool,
        host: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<OwnedFd, Code>> {
        let (host, witness) = (host.to_owned(), self.witness.clone());
        async move {
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            let found: Vec<SocketAddr> = found.map_err(|_| Code::EgressNameUnknown)?.collect();
            if let Some(witness) = witness
                && found.iter().any(|address| private(address.ip()))
            {
                witness.note(|seen| {
                    seen.private.insert(host);
                });
            }
            connect(found).await
        }
        .boxed()
    }
}

/// RFC 1918, RFC 4193: what a grant can open. Others nobody can.
fn private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

async fn connect(addresses: Vec<SocketAddr>) -> Result<OwnedFd, Code> {
    let stream = TcpStream::connect(addresses.as_slice()).await;
    let stream = stream.and_then(TcpStream::into_std);
    stream.map(OwnedFd::from).map_err(|_| Code::EgressUnreachable)
}

/// A device's own broker, on threads of this process, with the rules of one grant. Call inside a runtime.
pub(crate) fn broker(grant: &EffectiveGrant) -> Result<Arc<dyn Dial>, Fault> {
    const WHAT: &str = "starting the broker";
    let (agent, far_agent) = pair().map_err(Fault::system(WHAT))?;
    let (executor, far_executor) = pair().map_err(Fault::system(WHAT))?;
    // It ends with this process; the channel is left open until then.
    std::thread::spawn(move || redan_broker::run(far_agent));
    let rules = ToBroker::Rules {
        component: grant.component.clone(),
        rules: serde_json::to_vec(&grant.net_http).map_err(Fault::system(WHAT))?,
    };
    send(&agent, &rules, &[]).map_err(Fault::system(WHAT))?;
    let attach = ToBroker::Attach {
        publisher: grant.component.publisher().clone(),
    };
    send(&agent, &attach, &[far_executor.as_fd()]).map_err(Fault::system(WHAT))?;
    let dial = redan_runtime::bench::dial_through(executor).map_err(Fault::system(WHAT))?;
    Ok(Arc::new(Kept { dial, _agent: agent }))
}

struct Kept {
    dial: Arc<dyn Dial>,
    _agent: OwnedFd,
}

impl Dial for Kept {
    fn dial(
        &self,
        component: &ComponentName,
        https: bool,
        host: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<OwnedFd, Code>> {
        self.dial.dial(component, https, host, port)
    }
}
