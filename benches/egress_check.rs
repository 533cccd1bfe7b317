//! What does the check of one outgoing request cost? Ours is all of it and no network: the executor's half (the URL parsed, the rules
//! matched, budgets, header fields), then the broker's (parsed again, matched again, each resolved address judged), with eight rules of
//! which the last fits. It ends where the dialling would begin. The reference is what comes next anyway: a connection to a listener on
//! this machine, opened and closed.

use redan_benches::fleet::{ASK_SERVICE, grant};
use redan_benches::{Asking, compare, each};
use redan_broker::Book;
use redan_host_api::egress::{Dial, Egress, Outside, public_tls};
use redan_policy::egress::parse_origin;
use redan_policy::grant::{HttpRule, NetBudget, Roots};
use redan_protocol::ipc::{Connect, ToBroker};
use redan_protocol::{Code, ComponentName, PublisherName};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;

/// Rules of the grant.
const RULES: u32 = 8;
/// What a resolver would say.
const ADDRESSES: [&str; 2] = ["93.184.216.34:443", "[2606:2800:220:1::1]:443"];

/// The broker, up to where it would dial.
struct UpToDialling {
    book: Book,
    publisher: PublisherName,
    addresses: Vec<SocketAddr>,
}

impl Dial for UpToDialling {
    fn dial(
        &self,
        component: &ComponentName,
        https: bool,
        host: &str,
        port: u16,
    ) -> Pin<Box<dyn Future<Output = Result<OwnedFd, Code>> + Send>> {
        let request = Connect {
            id: 1,
            component: component.clone(),
            https,
            host: host.to_owned(),
            port,
            messages: false,
        };
        let admitted = self.book.admit(&self.publisher, &request);
        let checked = admitted.and_then(|admitted| self.book.check(&admitted, &self.addresses));
        let code = checked.err().unwrap_or(Code::EgressUnreachable);
        Box::pin(async move { Err(code) })
    }
}

pub(crate) fn bench(asking: &mut Asking) {
    let mut grant = grant(ASK_SERVICE).unwrap();
    grant.net_http = (1..=RULES).map(rule).collect();
    let mut book = Book::default();
    book.learn(ToBroker::Rules {
        component: grant.component.clone(),
        rules: serde_json::to_vec(&grant.net_http).unwrap(),
    });
    book.learn(ToBroker::Forbid {
        addresses: vec!["9.9.9.9:443".parse().unwrap()],
    });
    let outside = Outside {
        dial: Arc::new(UpToDialling {
            book,
            publisher: grant.component.publisher().clone(),
            addresses: ADDRESSES.map(|address| address.parse().unwrap()).to_vec(),
        }),
        public: public_tls().unwrap(),
        secrets: Arc::default(),
    };
    let egress = Arc::new(Egress::new(&grant, outside).unwrap());
    let url = format!("https://api-{RULES}.example.com/v1/readings/7");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();

    compare(
        asking,
        "egress check",
        &mut |times| {
            each(times, || {
                let egress = Arc::clone(&egress);
                let sent = egress.post(&url, "application/json", "1", b"{}".to_vec());
                // Admitted by both halves; only the network is not there.
                assert_eq!(runtime.block_on(sent), Err(Code::EgressUnreachable));
            })
        },
        ("connection on this machine", &mut |times| {
            each(times, || {
                let client = TcpStream::connect(address).unwrap();
                drop((client, listener.accept().unwrap()));
            })
        }),
    );
}

fn rule(nth: u32) -> HttpRule {
    let origin = |text: &str| parse_origin(text).unwrap();
    HttpRule {
        id: format!("api-{nth}"),
        allow: vec![
            vec![origin(&format!("https://api-{nth}.example.com"))],
            vec![origin("https://*.example.org"), origin("https://*.example.com")],
        ],
        deny: vec![origin("https://admin.example.com")],
        methods: vec!["GET".to_owned(), "POST".to_owned()],
        paths: vec![vec!["/v1/...".to_owned()], vec!["/...".to_owned()]],
        private_addresses: false,
        roots: Roots::Public,
        budget: NetBudget::default(),
    }
}
