//! Secrets, bundles and TLS of a document.

use super::{ASK, DEVICE, FLEET, Flaw, LABEL, hold, label};
use crate::pem::certificates;
use crate::schema::{Document, InjectSection, Kind, NetHttpSection};
use redan_protocol::ComponentName;
use std::collections::BTreeSet;

pub(super) fn check(d: &Document) -> Result<(), Flaw> {
    bundles(d)?;
    for (nth, section) in d.net.http.iter().enumerate() {
        tls(nth, section)?;
    }
    secrets(d)
}

fn bundles(d: &Document) -> Result<(), Flaw> {
    hold(
        d.kind != Kind::Ask || d.bundles.is_empty(),
        "bundles",
        0,
        "",
        super::ABOVE,
    )?;
    hold(
        d.bundles.keys().all(|name| label(name)),
        "bundles",
        0,
        "",
        "names a bundle that is not one word of lower-case letters, digits and inner hyphens; write a name such as \"acme-ca\"",
    )?;
    hold(
        d.bundles.values().all(|pem| certificates(pem).is_some()),
        "bundles",
        0,
        "",
        "must hold one to eight certificates in PEM and nothing else, such as '''-----BEGIN CERTIFICATE----- …'''",
    )
}

fn tls(nth: usize, section: &NetHttpSection) -> Result<(), Flaw> {
    const PLAIN: &str =
        "says nothing about plain http: name an origin such as \"https://api.example\", or remove it";
    let https = section.allow.iter().any(|origin| origin.0.https);
    hold(section.tls.is_none() || https, "net.http", nth, "tls", PLAIN)
}

fn secrets(d: &Document) -> Result<(), Flaw> {
    const NAMED: &str = "must name secrets such as \"acme/api-token\"";
    let Some(secrets) = &d.secrets else {
        return Ok(());
    };
    let at = |good, key, what| hold(good, "secrets", 0, key, what);
    let whole = |name: &String| ComponentName::parse(name).is_ok();
    at(d.kind == Kind::Ask || secrets.inject.is_empty(), "inject", ASK)?;
    at(d.kind == Kind::Ask || !secrets.required, "required", ASK)?;
    at(
        d.kind == Kind::Device || secrets.files.is_empty(),
        "files",
        DEVICE,
    )?;
    at(
        d.kind != Kind::Device || secrets.uses.is_empty(),
        "use",
        "belongs to an ask or a fleet policy; a device ceiling maps secrets with `files`",
    )?;
    at(
        d.kind != Kind::Fleet || secrets.uses.iter().all(whole),
        "use",
        NAMED,
    )?;
    at(secrets.files.keys().all(whole), "files", NAMED)?;
    at(
        secrets
            .files
            .values()
            .all(|path| crate::egress::is_path(path) && !path.ends_with('/')),
        "files",
        "must be absolute paths without `.` or `..`, such as \"/etc/redan/secrets/api-token\"",
    )?;
    if d.kind != Kind::Ask {
        return Ok(());
    }
    at(secrets.uses.iter().all(|handle| label(handle)), "use", LABEL)?;
    let mut seen = BTreeSet::new();
    for inject in &secrets.inject {
        let known = secrets.uses.contains(&inject.secret);
        at(
            known,
            "inject",
            "names a secret that `use` does not list; add it there",
        )?;
        at(injects_well(d, inject), "inject", INJECT)?;
        at(
            seen.insert((&inject.net, &inject.header)),
            "inject",
            "sets a header twice; remove one of the two",
        )?;
    }
    let injected = |handle: &String| secrets.inject.iter().any(|inject| inject.secret == *handle);
    at(
        secrets.uses.iter().all(injected),
        "use",
        "lists a secret that no `inject` uses: it never reaches the guest; add { secret = …, net = …, header = … } to `inject`, or remove it",
    )
}

const INJECT: &str = "must name a `[[net.http]]` of this ask whose origins are all https, and a header such as \"authorization\" that is not \
                      one of the connection's own";

/// A secret leaves over TLS only, and in no field that says where a message ends or whom it is for.
fn injects_well(d: &Document, inject: &InjectSection) -> bool {
    let rule = d.net.http.iter().find(|rule| rule.id == inject.net);
    let https = rule.is_some_and(|rule| rule.allow.iter().all(|origin| origin.0.https));
    https && is_injectable(&inject.header)
}

/// Whether a header field may carry a secret: a token (RFC 9110 §5.6.2) in lower case that neither frames nor routes a message.
fn is_injectable(header: &str) -> bool {
    const OWN: &[&str] = &[
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    !header.is_empty()
        && header.bytes().all(token)
        && !OWN.contains(&header)
        && !header.starts_with("proxy-")
        && !header.starts_with("redan-")
}

/// Which keys belong to a fleet policy alone.
pub(super) fn fleet_only(d: &Document) -> Result<(), Flaw> {
    let fleet = d.kind == Kind::Fleet;
    for (absent, section, key) in [
        (d.revoke.min_version.is_empty(), "revoke", "min_version"),
        (
            d.require.ask_signed_within.is_none(),
            "require",
            "ask_signed_within",
        ),
        (d.runtime.min.is_none(), "runtime", "min"),
    ] {
        hold(fleet || absent, section, 0, key, FLEET)?;
    }
    hold(
        d.require.provenance.is_none(),
        "require",
        0,
        "provenance",
        "cannot be checked by a device: no provenance statement reaches it; remove the line, and check provenance before signing",
    )
}

const WHOLE: &str = "must be whole seconds and longer than nothing, such as \"14d\"";

/// Staleness and reports: of a fleet policy or a device ceiling.
pub(super) fn standing(d: &Document) -> Result<(), Flaw> {
    let above = d.kind != Kind::Ask;
    let stale = d.stale;
    let some = |good, section, key, what| hold(good, section, 0, key, what);
    some(above || stale.max_age.is_none(), "stale", "max_age", super::ABOVE)?;
    some(above || stale.after.is_none(), "stale", "after", super::ABOVE)?;
    some(
        above || d.report.events.is_none(),
        "report",
        "events",
        super::ABOVE,
    )?;
    some(
        stale.max_age.is_some() || stale.after.is_none(),
        "stale",
        "after",
        "says nothing without `max_age`; add max_age = \"14d\"",
    )?;
    let seconds = |span: crate::units::Span| span.0.get() > 0 && span.0.get().checked_rem(1000) == Some(0);
    some(stale.max_age.is_none_or(seconds), "stale", "max_age", WHOLE)?;
    let within = d.require.ask_signed_within;
    some(within.is_none_or(seconds), "require", "ask_signed_within", WHOLE)?;
    let least = |events: &BTreeSet<_>| events.contains(&crate::schema::ReportEvent::State);
    some(
        d.report.events.as_ref().is_none_or(least),
        "report",
        "events",
        "must hold \"state\", without which a fleet is blind; write [\"state\"] for the least",
    )
}
