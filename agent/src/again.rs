//! Asking for a certificate again: after which wait, and for how long. Whoever asks many devices to wait asks them all for the same time,
//! so each adds a wait of its own, which doubles and has a random part.

use crate::AgentError;
use crate::store::random;
use redan_identity::client::Response;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// First wait after a failure; doubles. Short, for a device that has expired can do nothing else.
const AGAIN_MIN: Duration = Duration::from_secs(2);
/// Longest wait, also when the server names a longer one: it would end the device's renewals otherwise.
const AGAIN_MAX: Duration = Duration::from_hours(1);
/// How long `redan-device enrol` goes on while the server says that it has too much to do. A hall with one token is in by then.
const ENROL_FOR: Duration = Duration::from_mins(15);

/// How long to wait after so many failures: three quarters to the whole of twice the wait before, beyond what the server asks for.
pub(crate) fn wait(failures: u32, named: Option<Duration>, random: u8) -> Duration {
    let whole = AGAIN_MIN.saturating_mul(1 << failures.min(16)).min(AGAIN_MAX);
    let part = whole.checked_div(1024).unwrap_or_default();
    let own = whole.saturating_sub(part.saturating_mul(u32::from(random)));
    named.unwrap_or_default().saturating_add(own).min(AGAIN_MAX)
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3), of an answer that the server is too busy now. The other form, a date, is a clock's, and
/// no server of ours says it.
pub(crate) fn wait_named(response: &Response) -> Option<Duration> {
    let field = response.headers.get("retry-after")?.to_str().ok()?;
    seconds(response.status, field)
}

fn seconds(status: u16, field: &str) -> Option<Duration> {
    (status == 503).then(|| field.parse().ok().map(Duration::from_secs))?
}

/// The same of a refusal.
pub(crate) fn wait_named_by(error: &AgentError) -> Option<Duration> {
    match error {
        AgentError::Answer { wait, .. } => *wait,
        _ => None,
    }
}

/// Asks again for as long as the server names a time at which it would answer better. Nothing is lost meanwhile: what is asked with is on
/// the disk, and a use of a token counts with the certificate.
pub(crate) async fn until_served<T>(ask: impl AsyncFn() -> Result<T, AgentError>) -> Result<T, AgentError> {
    let until = Instant::now() + ENROL_FOR;
    let mut failures = 0;
    loop {
        let error = match ask().await {
            Err(error) if wait_named_by(&error).is_some() => error,
            answered => return answered,
        };
        let [byte] = random::<1>().unwrap_or_default();
        let wait = wait(failures, wait_named_by(&error), byte);
        if Instant::now() + wait > until {
            return Err(error);
        }
        tracing::warn!(
            code = error.code().name(),
            seconds = wait.as_secs(),
            "the server has too much to do: asked again by itself after this time"
        );
        sleep(wait).await;
        failures = failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_protocol::Code;
    use std::cell::Cell;

    fn busy(seconds: u64) -> AgentError {
        AgentError::Answer {
            status: 503,
            code: Code::IssuingPaced,
            wait: Some(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn waits_double_within_bounds_and_come_on_top_of_what_the_server_asks_for() {
        assert_eq!(wait(0, None, 0), AGAIN_MIN);
        assert_eq!(wait(3, None, 0), AGAIN_MIN * 8);
        assert!(wait(3, None, u8::MAX) > AGAIN_MIN * 6 && wait(3, None, u8::MAX) < wait(3, None, 0));
        let minute = Duration::from_mins(1);
        assert_eq!(wait(3, Some(minute), 9), minute + wait(3, None, 9));
        assert_eq!(wait(99, Some(minute), 0), AGAIN_MAX);
        assert_eq!(wait(0, Some(Duration::MAX), 0), AGAIN_MAX);
    }

    #[test]
    fn only_a_busy_servers_word_in_seconds_is_a_time_to_wait() {
        assert_eq!(seconds(503, "7"), Some(Duration::from_secs(7)));
        for (status, field) in [
            (403, "7"),
            (503, "-7"),
            (503, "Fri, 31 Dec 1999 23:59:59 GMT"),
            (503, "99999999999999999999999"),
        ] {
            assert_eq!(seconds(status, field), None, "{status} {field}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_is_told_to_wait_comes_back_by_itself_and_not_before() {
        let asked = Cell::new(0);
        let began = Instant::now();
        let served = until_served(async || {
            asked.set(asked.get() + 1);
            if asked.get() < 4 {
                Err(busy(20))
            } else {
                Ok(began.elapsed())
            }
        });
        let after = served.await.unwrap();
        // Twenty seconds each time, and 2, 4 and 8 more, of which chance takes up to a quarter.
        assert!(
            after > Duration::from_secs(70) && after <= Duration::from_secs(74),
            "{after:?}"
        );
        assert_eq!(asked.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_enrolment_gives_up_in_the_end_and_at_once_on_every_other_word() {
        let began = Instant::now();
        let error = until_served::<()>(async || Err(busy(1))).await.unwrap_err();
        assert_eq!(error.code(), Code::IssuingPaced);
        assert!(began.elapsed() <= ENROL_FOR);
        let asked = Cell::new(0);
        let error = until_served::<()>(async || {
            asked.set(asked.get() + 1);
            Err(AgentError::Answer {
                status: 403,
                code: Code::TokenInvalid,
                wait: None,
            })
        });
        assert_eq!(error.await.unwrap_err().code(), Code::TokenInvalid);
        assert_eq!(asked.get(), 1);
    }
}
