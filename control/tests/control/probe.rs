//! One request for each route, made from the server's own table: a route without a case here does not compile.

use crate::site::Answer;
use axum::http::Method;
use redan_control::table::{Op, ROUTES, Route};
use redan_protocol::Code;

/// A request that changes nothing, and what it is answered if its caller may ask.
pub(crate) struct Probe {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: &'static str,
    pub(crate) answer: Said,
}

/// Status and code; no code for what is not refused.
pub(crate) type Said = (u16, Option<Code>);

pub(crate) const FOUND: Said = (200, None);
pub(crate) const NOTHING: Said = (404, Some(Code::NotFound));

impl Answer {
    pub(crate) fn said(&self) -> Said {
        if self.status == 200 {
            FOUND
        } else {
            let (status, code) = self.refusal();
            (status, Some(code))
        }
    }
}

pub(crate) fn probes() -> impl Iterator<Item = (&'static Route, Probe)> {
    ROUTES.iter().map(|route| (route, probe(route)))
}

/// The same requests, each for something that is there and for something that is not.
pub(crate) fn probe(route: &Route) -> Probe {
    let (part, body, answer) = match route.op {
        Op::CaCerts
        | Op::Fleet
        | Op::Devices
        | Op::Rollouts
        | Op::Audit
        | Op::Metrics
        | Op::Operators
        | Op::Tokens => ("", "", FOUND),
        // Sent as JSON.
        Op::Enroll | Op::Reenroll => ("", "x", (415, Some(Code::WrongContentType))),
        Op::ReleaseFile => ("timestamp.json", "", FOUND),
        Op::DirectorFile => ("1.root.json", "", FOUND),
        Op::Artifact => (ZEROS, "", (404, Some(Code::ArtifactMissing))),
        Op::PutArtifact => (ZEROS, "{}", (400, Some(Code::DigestMismatch))),
        Op::Device => ("press-1", "", FOUND),
        Op::AuditFrom => ("0", "", FOUND),
        Op::CheckIn | Op::Admit | Op::Publish | Op::Start | Op::AddOperator | Op::MakeToken => {
            ("", "{}", (400, Some(Code::BadRequest)))
        }
        Op::SetRole => ("nobody", "{}", (400, Some(Code::BadRequest))),
        Op::Crl => ("", "{}", FOUND),
        Op::Revoke | Op::RemoveOperator | Op::RevokeToken => ("nobody", "", NOTHING),
        Op::Rollout | Op::Pause | Op::Resume | Op::Abort | Op::Approve => ("7", "", NOTHING),
    };
    Probe {
        method: route.method.clone(),
        path: filled(route.path, part),
        body,
        answer,
    }
}

pub(crate) const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A pattern with its one pair of braces filled in.
pub(crate) fn filled(pattern: &str, part: &str) -> String {
    match (pattern.split_once('{'), pattern.split_once('}')) {
        (Some((before, _)), Some((_, after))) => format!("{before}{part}{after}"),
        _ => pattern.to_owned(),
    }
}
