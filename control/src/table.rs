//! Every route there is, as data: dispatch, roles, the table of docs/control.md and the matrix of tests are made from this one list.

use axum::http::Method;
use redan_protocol::Role;

/// Whom a route answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Who {
    /// Whoever has a key, on `enrol.<fleet>`.
    Anybody,
    /// A device of the fleet.
    Device,
    /// An operator of the fleet with this role or a higher one.
    Operator(Role),
}

impl Who {
    /// Whether both stand behind the same kind of connection: a route of another kind does not exist for it.
    const fn meets(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Anybody, Self::Anybody)
                | (Self::Device, Self::Device)
                | (Self::Operator(_), Self::Operator(_))
        )
    }
}

/// What is done. `routes` and the tests match it without a default: a new one does not compile without an answer and a case.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "the table below says method and path of each")]
pub enum Op {
    CaCerts,
    Enroll,
    Reenroll,
    CheckIn,
    ReleaseFile,
    DirectorFile,
    Artifact,
    Fleet,
    Admit,
    Devices,
    Device,
    Revoke,
    Publish,
    PutArtifact,
    Start,
    Rollouts,
    Rollout,
    Pause,
    Resume,
    Abort,
    Approve,
    Audit,
    AuditFrom,
    Metrics,
    Operators,
    AddOperator,
    SetRole,
    RemoveOperator,
    Tokens,
    MakeToken,
    RevokeToken,
    Crl,
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Whom it answers.
    pub who: Who,
    /// Its method.
    pub method: Method,
    /// Its path, to the letter; a segment in braces is any one segment.
    pub path: &'static str,
    /// What is done.
    pub op: Op,
}

const fn route(who: Who, method: Method, path: &'static str, op: Op) -> Route {
    Route {
        who,
        method,
        path,
        op,
    }
}

const VIEWER: Who = Who::Operator(Role::Viewer);
const OPERATOR: Who = Who::Operator(Role::Operator);
const APPROVER: Who = Who::Operator(Role::Approver);
const ADMIN: Who = Who::Operator(Role::Admin);

/// The routes.
pub static ROUTES: &[Route] = &[
    route(Who::Anybody, Method::GET, "/.well-known/est/cacerts", Op::CaCerts),
    route(
        Who::Anybody,
        Method::POST,
        "/.well-known/est/simpleenroll",
        Op::Enroll,
    ),
    route(Who::Device, Method::GET, "/.well-known/est/cacerts", Op::CaCerts),
    route(
        Who::Device,
        Method::POST,
        "/.well-known/est/simplereenroll",
        Op::Reenroll,
    ),
    route(Who::Device, Method::POST, "/v1/checkin", Op::CheckIn),
    route(Who::Device, Method::GET, "/tuf/release/{file}", Op::ReleaseFile),
    route(Who::Device, Method::GET, "/tuf/director/{file}", Op::DirectorFile),
    route(Who::Device, Method::GET, "/artifacts/{sha256}", Op::Artifact),
    route(VIEWER, Method::GET, "/v1/fleet", Op::Fleet),
    route(VIEWER, Method::GET, "/v1/devices", Op::Devices),
    route(VIEWER, Method::GET, "/v1/devices/{device}", Op::Device),
    route(VIEWER, Method::GET, "/v1/release/{file}", Op::ReleaseFile),
    route(VIEWER, Method::GET, "/v1/artifacts/{sha256}", Op::Artifact),
    route(VIEWER, Method::GET, "/v1/rollouts", Op::Rollouts),
    route(VIEWER, Method::GET, "/v1/rollouts/{rollout}", Op::Rollout),
    route(VIEWER, Method::GET, "/v1/operators", Op::Operators),
    route(VIEWER, Method::GET, "/v1/audit", Op::Audit),
    route(VIEWER, Method::GET, "/v1/audit/{entry}", Op::AuditFrom),
    route(VIEWER, Method::GET, "/metrics", Op::Metrics),
    route(OPERATOR, Method::POST, "/v1/devices/admit", Op::Admit),
    route(OPERATOR, Method::POST, "/v1/devices/{device}/revoke", Op::Revoke),
    route(VIEWER, Method::GET, "/v1/tokens", Op::Tokens),
    route(OPERATOR, Method::POST, "/v1/tokens", Op::MakeToken),
    route(
        OPERATOR,
        Method::POST,
        "/v1/tokens/{token}/revoke",
        Op::RevokeToken,
    ),
    route(OPERATOR, Method::POST, "/v1/crl", Op::Crl),
    route(OPERATOR, Method::POST, "/v1/release", Op::Publish),
    route(OPERATOR, Method::PUT, "/v1/artifacts/{sha256}", Op::PutArtifact),
    route(OPERATOR, Method::POST, "/v1/rollouts", Op::Start),
    route(OPERATOR, Method::POST, "/v1/rollouts/{rollout}/pause", Op::Pause),
    route(
        OPERATOR,
        Method::POST,
        "/v1/rollouts/{rollout}/resume",
        Op::Resume,
    ),
    route(OPERATOR, Method::POST, "/v1/rollouts/{rollout}/abort", Op::Abort),
    route(
        APPROVER,
        Method::POST,
        "/v1/rollouts/{rollout}/approve",
        Op::Approve,
    ),
    route(ADMIN, Method::POST, "/v1/operators", Op::AddOperator),
    route(ADMIN, Method::POST, "/v1/operators/{operator}/role", Op::SetRole),
    route(
        ADMIN,
        Method::POST,
        "/v1/operators/{operator}/remove",
        Op::RemoveOperator,
    ),
];

/// What a path leads to for one kind of caller.
#[derive(Debug)]
pub enum Found<'a> {
    /// A route, and what stands in its braces.
    Route(&'static Route, Vec<&'a str>),
    /// A path that has other methods.
    WrongMethod,
    /// Nothing, or something of others.
    Nothing,
}

/// Looks a path up among the routes of one kind of caller. The role is not asked here.
pub fn find<'a>(who: Who, method: &Method, path: &'a str) -> Found<'a> {
    let mut other_method = false;
    for route in ROUTES.iter().filter(|route| route.who.meets(who)) {
        if let Some(parts) = parts(route.path, path) {
            if route.method == *method {
                return Found::Route(route, parts);
            }
            other_method = true;
        }
    }
    if other_method {
        Found::WrongMethod
    } else {
        Found::Nothing
    }
}

/// What stands in the braces of a pattern, when the path is one of it.
fn parts<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut found = Vec::new();
    let mut given = path.split('/');
    for wanted in pattern.split('/') {
        let segment = given.next()?;
        if wanted.starts_with('{') {
            found.push(segment);
        } else if wanted != segment {
            return None;
        }
    }
    given.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// The table as docs/control.md shows it.
    fn documented() -> String {
        let mut text = String::from("| who | route |\n|---|---|\n");
        for route in ROUTES {
            let who = match route.who {
                Who::Anybody => "any key, on `enrol.<fleet>`".to_owned(),
                Who::Device => "device".to_owned(),
                Who::Operator(role) => format!("operator: {role}"),
            };
            let path = route.path.replace('{', "<").replace('}', ">");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {who} | `{} {path}` |", route.method);
        }
        text
    }

    #[test]
    fn the_documentation_lists_every_route_with_its_role() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/control.md");
        let text = std::fs::read_to_string(file).unwrap();
        let (before, rest) = text.split_once("<!-- routes -->\n").unwrap();
        let (listed, after) = rest.split_once("<!-- end -->").unwrap();
        if std::env::var_os("REDAN_BLESS").is_some() {
            let blessed = format!("{before}<!-- routes -->\n{}<!-- end -->{after}", documented());
            std::fs::write(file, blessed).unwrap();
        } else {
            assert_eq!(listed, documented(), "REDAN_BLESS=1 writes it anew");
        }
    }

    #[test]
    fn a_path_is_matched_segment_by_segment_and_by_the_letter() {
        let device = |path| match find(Who::Device, &Method::GET, path) {
            Found::Route(route, parts) => Some((route.op, parts)),
            _ => None,
        };
        assert_eq!(
            device("/artifacts/ab"),
            Some((Op::Artifact, vec!["ab"])),
            "positive control"
        );
        for path in [
            "",
            "/",
            "/artifacts",
            "/artifacts/ab/",
            "//artifacts/ab",
            "/Artifacts/ab",
            "/v1/devices",
        ] {
            assert_eq!(device(path), None, "{path}");
        }
        assert!(matches!(
            find(Who::Device, &Method::PUT, "/artifacts/ab"),
            Found::WrongMethod
        ));
    }

    #[test]
    fn no_two_routes_of_one_caller_answer_the_same_request() {
        for (at, one) in ROUTES.iter().enumerate() {
            for other in ROUTES.iter().skip(at + 1) {
                let same = one.who.meets(other.who) && one.method == other.method;
                let shape = |route: &Route| parts(route.path, other.path).is_some();
                assert!(
                    !(same && (shape(one) || parts(other.path, one.path).is_some())),
                    "{one:?} {other:?}"
                );
            }
        }
    }
}
