//! When everything that expires on the server's side does, and what of it ought to be replaced now. Nobody is to be surprised: it is in
//! the metrics all the time, and in the log from the day on that there is no more time to lose.

use crate::fleet::{Fleet, State};
use crate::release::Files;
use redan_protocol::{Seconds, UnixSeconds};
use redan_trust::Claimed;
use redan_trust::metadata::{Metadata, Root, Snapshot, Targets, Timestamp, file_name};

/// Two lives of what an issuer issues and the grace of devices that are away (20-identity).
const AUTHORITY_SPARE: Seconds = Seconds::new(182 * 86_400);
/// What a year's role leaves for a ceremony: its holders sign one after another, days apart.
const YEAR_SPARE: Seconds = Seconds::new(60 * 86_400);
/// A third of 90 days: the server's certificate, snapshot and plan; and components, whose signers publish anyway.
const QUARTER_SPARE: Seconds = Seconds::new(30 * 86_400);
/// Half of a timestamp's life: the server has failed to make it anew for half a day by then.
const TIMESTAMP_SPARE: Seconds = Seconds::new(24 * 3600);

/// Something that expires.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expiry {
    /// What, for example `release.snapshot` or `certificate.server`.
    pub of: String,
    /// Its last second.
    pub at: UnixSeconds,
}

impl Expiry {
    fn spare(&self) -> Seconds {
        match self.of.as_str() {
            "certificate.server" => QUARTER_SPARE,
            of if of.starts_with("certificate.") => AUTHORITY_SPARE,
            "release.timestamp" => TIMESTAMP_SPARE,
            "release.root" | "director.root" | "release.targets" | "release.policy" => YEAR_SPARE,
            _ => QUARTER_SPARE,
        }
    }

    /// Whether it ought to be replaced now.
    pub fn is_due(&self, now: UnixSeconds) -> bool {
        now.after(self.spare()) >= self.at
    }
}

/// Everything: certificates, roots of both repositories, and every role of the release repository that the served snapshot lists. A
/// device's director files are made anew whenever it asks.
pub fn all(fleet: &Fleet, state: &State) -> Vec<Expiry> {
    let files = &state.release;
    let held = fleet.held();
    let mut found: Vec<Expiry> = Vec::new();
    let mut note = |of: String, at: Option<UnixSeconds>| found.extend(at.map(|at| Expiry { of, at }));
    for (of, at) in held.certificates() {
        note(of, Some(at));
    }
    let root = newest_root(files).or_else(|| expires::<Root>(fleet.release_root.as_bytes()));
    note("release.root".to_owned(), root);
    note("director.root".to_owned(), newest_root(&held.director_roots));
    let Some(timestamp) = files
        .get("timestamp.json")
        .and_then(|bytes| parsed::<Timestamp>(bytes))
    else {
        return found;
    };
    note("release.timestamp".to_owned(), Some(timestamp.expires()));
    let version = timestamp.snapshot().map(|entry| entry.version);
    let snapshot = files.get(&file_name("snapshot", version));
    let Some(snapshot) = snapshot.and_then(|bytes| parsed::<Snapshot>(bytes)) else {
        return found;
    };
    note("release.snapshot".to_owned(), Some(snapshot.expires()));
    for (file, entry) in &snapshot.meta {
        let role = file.trim_end_matches(".json");
        let bytes = files.get(&file_name(role, Some(entry.version)));
        note(
            format!("release.{role}"),
            bytes.and_then(|bytes| expires::<Targets>(bytes)),
        );
    }
    found
}

/// Says in the log what ought to be replaced now.
pub(crate) fn warn(fleet: &Fleet, state: &State, now: UnixSeconds) {
    for expiry in all(fleet, state).into_iter().filter(|expiry| expiry.is_due(now)) {
        let days = expiry.at.get().saturating_sub(now.get()).checked_div(86_400);
        tracing::warn!(
            fleet = %fleet.id,
            of = expiry.of,
            days_left = days.unwrap_or_default(),
            "expires soon; replace it: docs/control.md, what expires"
        );
    }
}

fn newest_root(files: &Files) -> Option<UnixSeconds> {
    let roots = files.iter().filter_map(|(name, bytes)| {
        let version = name.strip_suffix(".root.json")?.parse::<u64>().ok()?;
        Some((version, bytes))
    });
    let (_, newest) = roots.max_by_key(|(version, _)| *version)?;
    expires::<Root>(newest)
}

fn parsed<T: Metadata>(bytes: &[u8]) -> Option<T> {
    Some(Claimed::<T>::parse(bytes).ok()?.into_peeked())
}

fn expires<T: Metadata>(bytes: &[u8]) -> Option<UnixSeconds> {
    Some(parsed::<T>(bytes)?.expires())
}
