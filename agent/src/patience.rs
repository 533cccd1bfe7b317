//! How slow a server may be: below a floor an answer is given up, so that nobody holds a device in one request for ever.
//!
//! The client of `redan-identity` bounds the wait for each piece of an answer; a server that sends one byte at a time keeps
//! every one of those waits short (slow retrieval, attack T04).

use bytes::Bytes;
use redan_identity::client::{ClientError, Connection, Download, Response, STEP_WITHIN};
use redan_protocol::{ByteCount, Code};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Slowest line anything is taken over, bytes a second: 30 kbit/s, which `FETCH_DEADLINE` of the core is made for.
const FLOOR: u64 = 3_750;
/// A download must keep to the floor in each such window: a mobile line may be silent for a while.
pub(crate) const WINDOW: Duration = Duration::from_mins(2);

/// Longest time for a whole answer of at most so many bytes.
pub(crate) fn patience(limit: ByteCount) -> Duration {
    let seconds = limit.get().checked_div(FLOOR).unwrap_or_default();
    STEP_WITHIN.saturating_add(Duration::from_secs(seconds))
}

/// [`Connection::request`], given up when the whole answer is slower than the floor.
pub(crate) async fn request(
    connection: &mut Connection,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
    limit: ByteCount,
) -> Result<Response, ClientError> {
    let answer = connection.request(method, path, headers, body, limit);
    timeout(patience(limit), answer)
        .await
        .map_err(|_| ClientError::Timeout)?
}

/// Keeps a download to the floor.
pub(crate) struct Pace {
    end: Instant,
    taken: u64,
}

impl Pace {
    /// The first window begins.
    pub(crate) fn begin() -> Self {
        Self {
            end: Instant::now() + WINDOW,
            taken: 0,
        }
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn chunk(&mut self, download: &mut Download) -> Result<Option<Bytes>, Code> {
        loop {
            let Ok(chunk) = timeout_at(self.end, download.chunk()).await else {
                if self.taken < FLOOR.saturating_mul(WINDOW.as_secs()) {
                    return Err(Code::FetchBudget);
                }
                *self = Self::begin();
                continue;
            };
            let chunk = chunk.map_err(|error| error.code())?;
            let length = chunk.as_ref().map_or(0, Bytes::len);
            self.taken = self
                .taken
                .saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            return Ok(chunk);
        }
    }
}
