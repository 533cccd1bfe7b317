//! Egress: rule check, resolve, address check, dial, pass the descriptor.
//!
//! What it is: the only process of the device that dials for workloads. An executor names a host and a port; the broker holds
//! them against the rules the *agent* gave it, resolves once, checks every address, dials exactly a checked one, and hands the
//! connected socket over. TLS and bytes stay in the executor.
//!
//! Whom it believes: the agent, for rules. Executors for nothing: which publisher a channel belongs to was said by the agent, and
//! a component of another publisher is refused.
//!
//! Invariants: no address is dialled that was not checked after resolution; the control server is out of reach whatever a rule says.
//!
//! Absent on purpose: keys, payload, method and path rules (those need the bytes, and the executor has them).
//!
//! Start reading at [`Book::admit`].
#![forbid(unsafe_code)]

mod dial;

use dial::{System, dial};
use redan_channel::{ChannelError, recv, send};
use redan_policy::egress::{address_allowed, admits_connection, meant, parse_authority};
use redan_policy::grant::HttpRule;
use redan_protocol::ipc::{Connect, Connected, ToBroker};
use redan_protocol::{Code, ComponentName, PublisherName};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Most connections being dialled at once, over all executors.
const DIALS_MAX: usize = 32;

/// Why the broker stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BrokerError {
    /// The agent's channel failed.
    #[error("the agent's channel: {0}")]
    Agent(#[source] ChannelError),
}

/// The rules in force.
#[derive(Debug, Default)]
pub struct Book {
    rules: BTreeMap<ComponentName, Vec<HttpRule>>,
    brokers: BTreeMap<ComponentName, Vec<(String, u16)>>,
    forbidden: Vec<SocketAddr>,
}

/// A destination that passed the rules and still has to pass the address check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admitted {
    host: String,
    port: u16,
    range: Range,
}

/// Which addresses a destination may turn out to have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Range {
    /// Public ones.
    Public,
    /// Private ones too (RFC 1918, RFC 4193).
    Private,
    /// A broker of messages: private ones too, and loopback where the device's owner wrote just that.
    Broker,
}

impl Book {
    /// Takes what the agent says; a descriptor-less part of it.
    pub fn learn(&mut self, message: ToBroker) {
        match message {
            ToBroker::Attach { .. } => {}
            ToBroker::Rules { component, rules } => {
                // Rules that do not read grant nothing.
                let rules = serde_json::from_slice(&rules).unwrap_or_default();
                self.rules.insert(component, rules);
            }
            ToBroker::Forbid { addresses } => self.forbidden = addresses,
            ToBroker::Remove { component } => {
                self.rules.remove(&component);
            }
            ToBroker::Brokers { component, brokers } => {
                self.brokers.insert(component, brokers);
            }
        }
    }

    /// Holds a request against the rules. The component must belong to the publisher whose executor asks.
    pub fn admit(&self, publisher: &PublisherName, request: &Connect) -> Result<Admitted, Code> {
        if request.component.publisher() != publisher {
            return Err(Code::EgressDenied);
        }
        // Parsed again, by the one parser: an executor may be in a guest's hands.
        let bracketed = if request.host.contains(':') {
            format!("[{}]", request.host)
        } else {
            request.host.clone()
        };
        let (host, port) = parse_authority(&format!("{bracketed}:{}", request.port), request.https)
            .ok_or(Code::EgressDenied)?;
        if request.messages {
            let named = self.brokers.get(&request.component).into_iter().flatten();
            let range = Range::Broker;
            return if named.into_iter().any(|named| *named == (host.clone(), port)) {
                Ok(Admitted { host, port, range })
            } else {
                Err(Code::EgressDenied)
            };
        }
        let rules = self
            .rules
            .get(&request.component)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let fitting = rules
            .iter()
            .filter(|rule| admits_connection(rule, request.https, &host, port));
        let private = fitting
            .map(|rule| rule.private_addresses)
            .reduce(|a, b| a || b)
            .ok_or(Code::EgressDenied)?;
        let range = if private { Range::Private } else { Range::Public };
        Ok(Admitted { host, port, range })
    }

    /// Every resolved address must be allowed: one private address among public ones is an attempt at rebinding (attack W10).
    pub fn check(&self, admitted: &Admitted, addresses: &[SocketAddr]) -> Result<(), Code> {
        if addresses.is_empty() {
            return Err(Code::EgressNameUnknown);
        }
        let allowed = |address: &SocketAddr| {
            let ip = meant(address.ip());
            let same_host = |no: &&SocketAddr| meant(no.ip()) == ip;
            let mut forbidden = self.forbidden.iter().filter(same_host);
            match admitted.range {
                Range::Public => address_allowed(address.ip(), false) && forbidden.next().is_none(),
                Range::Private => address_allowed(address.ip(), true) && forbidden.next().is_none(),
                // The owner named this very host and port: only the control server's own port is out of reach there.
                Range::Broker => {
                    let loopback = ip.is_loopback() && names_loopback(&admitted.host);
                    (loopback || address_allowed(address.ip(), true))
                        && !forbidden.any(|no| no.port() == address.port())
                }
            }
        };
        if addresses.iter().all(allowed) {
            Ok(())
        } else {
            Err(Code::EgressAddressDenied)
        }
    }
}

/// A name that can only mean this device: no name of the network that was made to resolve to it.
fn names_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Serves until the agent closes its channel.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the channel is the broker's: it closes when the broker ends"
)]
pub fn run(agent: OwnedFd) -> Result<(), BrokerError> {
    let book = Arc::new(Mutex::new(Book::default()));
    let dials = Arc::new(Dials::default());
    loop {
        let received = match recv::<ToBroker>(&agent) {
            Ok(received) => received,
            Err(ChannelError::Closed) => return Ok(()),
            Err(ChannelError::Malformed | ChannelError::TooLarge) => continue,
            Err(error) => return Err(BrokerError::Agent(error)),
        };
        match (received.message, received.descriptors.into_iter().next()) {
            (ToBroker::Attach { publisher }, Some(channel)) => {
                let (book, dials) = (Arc::clone(&book), Arc::clone(&dials));
                std::thread::spawn(move || serve(&publisher, &Arc::new(channel), &book, &dials));
            }
            (message, _) => book.lock().unwrap_or_else(PoisonError::into_inner).learn(message),
        }
    }
}

/// One executor's requests, until it goes.
fn serve(publisher: &PublisherName, channel: &Arc<OwnedFd>, book: &Arc<Mutex<Book>>, dials: &Arc<Dials>) {
    while let Ok(received) = recv::<Connect>(channel.as_ref()) {
        let request = received.message;
        let admitted = book
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(publisher, &request);
        match admitted {
            Err(code) => {
                // An executor that is gone needs no answer.
                let _ = send(channel.as_ref(), &Connected::No { id: request.id, code }, &[]);
            }
            Ok(admitted) => {
                let (channel, book, slot) = (Arc::clone(channel), Arc::clone(book), dials.enter());
                std::thread::spawn(move || {
                    let answered = match dial(&System, &admitted, &book) {
                        Ok(stream) => send(&*channel, &Connected::Yes { id: request.id }, &[stream.as_fd()]),
                        Err(code) => send(&*channel, &Connected::No { id: request.id, code }, &[]),
                    };
                    // An executor that is gone needs no answer.
                    let _ = answered;
                    drop(slot);
                });
            }
        }
    }
}

/// How many dials are under way; a slot is given back when it is dropped.
#[derive(Debug, Default)]
struct Dials {
    count: Mutex<usize>,
    less: Condvar,
}

struct Slot(Arc<Dials>);

impl Dials {
    fn enter(self: &Arc<Self>) -> Slot {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count >= DIALS_MAX {
            count = self.less.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
        *count = count.saturating_add(1);
        Slot(Arc::clone(self))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        self.0.less.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_policy::egress::parse_origin;
    use redan_policy::grant::NetBudget;

    pub(crate) fn book(origin: &str, private: bool) -> Book {
        let rule = HttpRule {
            id: "cloud".into(),
            allow: vec![vec![parse_origin(origin).unwrap()]],
            deny: vec![],
            methods: vec!["GET".into()],
            paths: vec![],
            private_addresses: private,
            roots: redan_policy::grant::Roots::Public,
            budget: NetBudget::default(),
        };
        let mut book = Book::default();
        let rules = serde_json::to_vec(&[rule]).unwrap();
        book.learn(ToBroker::Rules {
            component: ComponentName::parse("acme/thermo").unwrap(),
            rules,
        });
        book.learn(ToBroker::Forbid {
            addresses: vec![
                "192.168.7.7:8443".parse().unwrap(),
                "9.9.9.9:443".parse().unwrap(),
            ],
        });
        book
    }

    pub(crate) fn asks(host: &str, port: u16) -> Connect {
        let component = ComponentName::parse("acme/thermo").unwrap();
        Connect {
            id: 1,
            component,
            https: true,
            host: host.into(),
            port,
            messages: false,
        }
    }

    pub(crate) fn acme() -> PublisherName {
        PublisherName::parse("acme").unwrap()
    }

    #[test]
    fn an_executor_speaks_for_its_own_publisher_only() {
        let book = book("https://api.acme.example", false);
        let other = PublisherName::parse("evil").unwrap();
        assert_eq!(
            book.admit(&other, &asks("api.acme.example", 443)),
            Err(Code::EgressDenied)
        );
        assert!(book.admit(&acme(), &asks("api.acme.example", 443)).is_ok());
        assert_eq!(
            book.admit(&acme(), &asks("api.acme.example", 444)),
            Err(Code::EgressDenied)
        );
        assert_eq!(
            book.admit(&acme(), &asks("evil.example", 443)),
            Err(Code::EgressDenied)
        );
        assert_eq!(
            book.admit(&acme(), &asks("api.acme.example@evil.example", 443)),
            Err(Code::EgressDenied)
        );
    }

    #[test]
    fn one_special_address_among_public_ones_refuses_them_all() {
        let book = book("https://api.acme.example", true);
        let admitted = book.admit(&acme(), &asks("api.acme.example", 443)).unwrap();
        let public: SocketAddr = "1.1.1.1:443".parse().unwrap();
        assert_eq!(book.check(&admitted, &[public]), Ok(()));
        assert_eq!(book.check(&admitted, &[]), Err(Code::EgressNameUnknown));
        for other in [
            "127.0.0.1:443",
            "169.254.169.254:443",
            "[::ffff:127.0.0.1]:443",
            "192.168.7.7:443",
        ] {
            let addresses = [public, other.parse().unwrap()];
            assert_eq!(
                book.check(&admitted, &addresses),
                Err(Code::EgressAddressDenied),
                "{other}"
            );
        }
        assert_eq!(
            book.check(&admitted, &["192.168.7.8:443".parse().unwrap()]),
            Ok(())
        );
    }

    #[test]
    fn a_broker_of_messages_is_reached_where_the_owner_said_and_nowhere_else() {
        let mut book = book("https://api.acme.example", true);
        let to = |host: &str, port| Connect {
            https: false,
            messages: true,
            ..asks(host, port)
        };
        assert_eq!(
            book.admit(&acme(), &to("api.acme.example", 443)),
            Err(Code::EgressDenied),
            "a rule of HTTP is none of messages"
        );
        book.learn(ToBroker::Brokers {
            component: ComponentName::parse("acme/thermo").unwrap(),
            brokers: vec![
                ("127.0.0.1".into(), 1883),
                ("broker.plant".into(), 1883),
                ("192.168.7.7".into(), 8443),
            ],
        });
        for (host, port) in [("127.0.0.1", 1884), ("127.0.0.2", 1883), ("broker.plant", 8883)] {
            assert_eq!(
                book.admit(&acme(), &to(host, port)),
                Err(Code::EgressDenied),
                "{host}:{port}"
            );
        }
        assert_eq!(
            book.admit(&acme(), &asks("broker.plant", 1883)),
            Err(Code::EgressDenied),
            "nor does a broker become a destination of HTTP"
        );
        let check = |host: &str, port, addresses: &[&str]| {
            let admitted = book.admit(&acme(), &to(host, port)).unwrap();
            let addresses: Vec<SocketAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            book.check(&admitted, &addresses)
        };
        assert_eq!(check("127.0.0.1", 1883, &["127.0.0.1:1883"]), Ok(()));
        assert_eq!(check("broker.plant", 1883, &["10.0.0.5:1883"]), Ok(()));
        // A name of the network that came to mean this device, or the cloud's metadata.
        for other in [
            "127.0.0.1:1883",
            "169.254.169.254:1883",
            "[::ffff:127.0.0.1]:1883",
            "0.0.0.0:1883",
        ] {
            assert_eq!(
                check("broker.plant", 1883, &["10.0.0.5:1883", other]),
                Err(Code::EgressAddressDenied),
                "{other}"
            );
        }
        assert_eq!(
            check("192.168.7.7", 8443, &["192.168.7.7:8443"]),
            Err(Code::EgressAddressDenied),
            "the control server is out of reach whatever the owner wrote"
        );
        // Taken away: the list is said anew, and is all there is.
        book.learn(ToBroker::Brokers {
            component: ComponentName::parse("acme/thermo").unwrap(),
            brokers: vec![("broker.plant".into(), 1883)],
        });
        assert_eq!(
            book.admit(&acme(), &to("127.0.0.1", 1883)),
            Err(Code::EgressDenied)
        );
        assert!(book.admit(&acme(), &to("broker.plant", 1883)).is_ok());
    }

    #[test]
    fn removed_rules_admit_nothing() {
        let mut book = book("https://api.acme.example", false);
        book.learn(ToBroker::Remove {
            component: ComponentName::parse("acme/thermo").unwrap(),
        });
        assert_eq!(
            book.admit(&acme(), &asks("api.acme.example", 443)),
            Err(Code::EgressDenied)
        );
    }

    #[test]
    fn loopback_is_refused_over_the_channel_even_when_a_rule_names_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (agent, far_agent) = redan_channel::pair().unwrap();
        let broker = std::thread::spawn(move || run(far_agent));
        let (executor, far_executor) = redan_channel::pair().unwrap();
        let attach = ToBroker::Attach { publisher: acme() };
        send(&agent, &attach, &[far_executor.as_fd()]).unwrap();
        let origin = format!("https://127.0.0.1:{port}");
        let book = book(&origin, true);
        let rules = serde_json::to_vec(&book.rules.values().next().unwrap()).unwrap();
        send(
            &agent,
            &ToBroker::Rules {
                component: ComponentName::parse("acme/thermo").unwrap(),
                rules,
            },
            &[],
        )
        .unwrap();
        // Rules have no answer: ask until they are in force, which the code tells.
        let code = loop {
            send(&executor, &asks("127.0.0.1", port), &[]).unwrap();
            match recv::<Connected>(&executor).unwrap().message {
                Connected::No {
                    code: Code::EgressDenied,
                    ..
                } => {}
                Connected::No { code, .. } => break code,
                Connected::Yes { .. } => panic!("loopback was dialled"),
            }
        };
        assert_eq!(code, Code::EgressAddressDenied);
        drop(agent);
        assert_eq!(broker.join().unwrap(), Ok(()));
    }
}
