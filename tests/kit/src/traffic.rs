//! Plain HTTP to a workload's own listener on loopback, as its clients on the device would send it.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Value of `redan-code`, when the runtime itself answered.
    pub code: Option<String>,
    /// Body, at most 1 MiB.
    pub body: String,
}

fn client() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_WITHIN))
        .http_status_as_error(false)
        .build()
        .new_agent()
}

fn answer(response: ureq::http::Response<ureq::Body>) -> Result<Answer> {
    let (parts, mut body) = response.into_parts();
    let code = parts
        .headers
        .get("redan-code")
        .and_then(|v| v.to_str().ok())
        .map(ToOwned::to_owned);
    let body = body.with_config().limit(1 << 20).read_to_string()?;
    Ok(Answer {
        status: parts.status.as_u16(),
        code,
        body,
    })
}

/// `GET` once, on a new connection.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let response = client().get(format!("http://{address}{path}")).call();
    answer(response.with_context(|| format!("no answer from {address}{path}"))?)
}

/// A steady client: one request after another on a kept-alive connection, until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Tally>,
}

/// What a [`Load`] saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers with a status below 500.
    pub answered: u64,
    /// Everything else, the first few in words.
    pub failed: u64,
    /// The first failures.
    pub examples: Vec<String>,
    /// Distinct bodies' `version` fields in the order they first appeared.
    pub versions: Vec<String>,
}

impl Load {
    /// Starts it.
    pub fn start(address: SocketAddr, path: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let url = format!("http://{address}{path}");
        let (halt, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let client = client();
            let mut tally = Tally::default();
            while !halt.load(Ordering::Relaxed) {
                match client.get(&url).call().map_err(Into::into).and_then(answer) {
                    Ok(answer) if answer.status < 500 => {
                        tally.answered += 1;
                        if let Some(version) = version(&answer.body)
                            && tally.versions.last() != Some(&version)
                        {
                            tally.versions.push(version);
                        }
                    }
                    Ok(answer) => tally.fail(format!("{} {:?}", answer.status, answer.code)),
                    Err(error) => tally.fail(format!("{error:#}")),
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            tally
        });
        Self { stop, sent, thread }
    }

    /// Requests sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops it and says what it saw.
    pub fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

impl Tally {
    fn fail(&mut self, what: String) {
        self.failed += 1;
        if self.examples.len() < 3 {
            self.examples.push(what);
        }
    }
}

/// The `version` field of a JSON body.
pub fn version(body: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(body).ok()?;
    value.get("version")?.as_str().map(ToOwned::to_owned)
}
