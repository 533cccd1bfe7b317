//! Who somebody is says their verified certificate and nothing else. A request that says it in another way is refused and written down
//! (attack P01): no honest client of ours does that, and a proxy that adds such fields must not stand before this server.

use crate::error::Refused;
use crate::fleet::Fleet;
use crate::store::Put;
use axum::http::HeaderMap;
use redan_protocol::audit::Action;
use redan_protocol::{Code, Seconds, UnixSeconds};
use std::collections::BTreeMap;

/// Header fields that say who somebody is, or where they are; lower case. `authorization` is one too, but for the proof of a join token,
/// which `simpleenroll` takes.
const FIELDS: &[&str] = &[
    "authorization",
    "cookie",
    "forwarded",
    "proxy-authorization",
    "remote-user",
    "via",
    "x-real-ip",
];
/// Beginnings of such fields: what proxies and service meshes are known to add (Envoy, nginx, AWS, Traefik, SPIFFE helpers).
const BEGINNINGS: &[&str] = &[
    "ssl-client",
    "x-amzn-",
    "x-client-",
    "x-device",
    "x-forwarded",
    "x-operator",
    "x-redan-",
    "x-remote-",
    "x-spiffe",
    "x-ssl-",
    "x-tls-",
];
/// Somebody who goes on claiming is written to the audit log no more often than this.
const AUDITED_EVERY: Seconds = Seconds::new(3600);
/// Most callers whose last claim is remembered; with more the oldest is forgotten. Tripped by
/// `a_crowd_of_claims_does_not_grow_the_memory`.
const REMEMBERED_MAX: usize = 1024;

/// The first field of a request that claims an identity. Only its name is looked at, its value never.
pub(crate) fn claimed(headers: &HeaderMap, token: bool) -> Option<&'static str> {
    let names = headers.keys().map(axum::http::HeaderName::as_str);
    names
        .filter(|name| !(token && *name == "authorization"))
        .find_map(|name| {
            let whole = FIELDS.iter().find(|field| **field == name);
            let begun = BEGINNINGS.iter().find(|beginning| name.starts_with(**beginning));
            whole.or(begun).copied()
        })
}

impl Fleet {
    /// Refuses a request with a claim, and writes down who made it. `who`: by the connection.
    pub(crate) async fn refuse_claim(
        &self,
        who: &str,
        field: &str,
        now: UnixSeconds,
    ) -> Result<Refused, Refused> {
        tracing::warn!(fleet = %self.id, who, field, "a request claims an identity");
        let mut state = self.state.lock().await;
        let told = state.claims.get(who).copied();
        if told.is_none_or(|told| now >= told.after(AUDITED_EVERY)) {
            let action = (Action::IdentityClaimed, field.to_owned());
            let nothing: Vec<Put> = Vec::new();
            self.commit(&mut state, now, who, nothing, &[action]).await?;
            remember(&mut state.claims, who, now);
        }
        Ok(Refused::plain(Code::IdentityClaimed))
    }
}

fn remember(claims: &mut BTreeMap<String, UnixSeconds>, who: &str, now: UnixSeconds) {
    if claims.len() >= REMEMBERED_MAX {
        let oldest = claims.iter().min_by_key(|(_, told)| **told);
        if let Some(oldest) = oldest.map(|(who, _)| who.clone()) {
            claims.remove(&oldest);
        }
    }
    claims.insert(who.to_owned(), now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn of(name: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("x"))])
    }

    #[test]
    fn what_says_who_somebody_is_is_a_claim_and_what_clients_send_is_none() {
        for name in [
            "x-client-cert",
            "x-forwarded-for",
            "x-forwarded-client-cert",
            "x-spiffe-id",
            "ssl-client-verify",
            "x-ssl-client-cn",
            "x-amzn-mtls-clientcert",
            "forwarded",
            "authorization",
            "cookie",
        ] {
            assert!(claimed(&of(name), false).is_some(), "{name}");
        }
        for name in [
            "host",
            "content-type",
            "content-length",
            "range",
            "if-range",
            "accept",
            "user-agent",
            "expect",
        ] {
            assert_eq!(claimed(&of(name), false), None, "{name}");
        }
        assert_eq!(
            claimed(&of("authorization"), true),
            None,
            "the proof of a join token"
        );
    }

    #[test]
    fn a_crowd_of_claims_does_not_grow_the_memory() {
        let mut claims = BTreeMap::new();
        for at in 0..3000 {
            remember(&mut claims, &format!("device {at}"), UnixSeconds::new(at));
        }
        assert_eq!(claims.len(), REMEMBERED_MAX);
        assert!(claims.contains_key("device 2999") && !claims.contains_key("device 0"));
    }
}
