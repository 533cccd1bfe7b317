//! A fleet's certificate authorities as its root custodians list them (decision 0014). One list, of one form: whatever breaks it does
//! not read.
//!
//! ```text
//! absent ─prepare▶ prepared ─activate▶ active ─activate (of another)▶ old ─taint▶ tainted ─revoke▶ absent
//!                     └──────────────────────── revoke ─────────────────────────────────────────────▲
//! ```
//!
//! The terms are those of SPIRE's local authorities. Absent is revoked: nobody verifies anything by it.

use crate::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Most authorities in a list: two changes that overlap. Tripped by `a_list_of_any_other_form_does_not_read`.
pub const AUTHORITIES_MAX: usize = 4;
/// Largest certificate of an authority, bytes: as for every other certificate. Tripped by `a_list_of_any_other_form_does_not_read`.
pub const AUTHORITY_LEN_MAX: usize = 8 * 1024;

/// What an authority is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AuthorityState {
    /// Known to everybody, and issues nothing yet.
    Prepared,
    /// Issues everything new. There is exactly one.
    Active,
    /// Issues nothing any more; what it issued is good.
    Old,
    /// What it issued is to be replaced at once; until it is, it is good.
    Tainted,
}

impl AuthorityState {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Old => "old",
            Self::Tainted => "tainted",
        }
    }
}

impl From<AuthorityState> for String {
    fn from(state: AuthorityState) -> Self {
        state.name().to_owned()
    }
}

/// A word that names no state.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an authority is prepared, active, old or tainted")]
pub struct StateError;

impl TryFrom<String> for AuthorityState {
    type Error = StateError;

    fn try_from(word: String) -> Result<Self, StateError> {
        let all = [Self::Prepared, Self::Active, Self::Old, Self::Tainted];
        all.into_iter()
            .find(|state| state.name() == word)
            .ok_or(StateError)
    }
}

impl fmt::Display for AuthorityState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One authority.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// What it is good for.
    pub state: AuthorityState,
    /// Its root certificate, DER.
    #[serde(with = "hexadecimal")]
    pub certificate: Vec<u8>,
}

/// The authorities of a fleet by SHA-256 of their certificates: one to four, exactly one of them active.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<Digest, Authority>",
    into = "BTreeMap<Digest, Authority>"
)]
pub struct Authorities {
    active: Digest,
    listed: BTreeMap<Digest, Authority>,
}

/// Why something is no list of authorities.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthoritiesError {
    /// No active one, or several.
    #[error("{found} authorities are active, and it must be one")]
    Active {
        /// How many.
        found: usize,
    },
    /// Too many.
    #[error("{found} authorities are listed, and the most is {AUTHORITIES_MAX}")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// A certificate under the name of another.
    #[error("a certificate is not the one its authority is named after")]
    Name,
    /// A certificate over the limit.
    #[error("a certificate is longer than {AUTHORITY_LEN_MAX} bytes")]
    Length,
}

impl TryFrom<BTreeMap<Digest, Authority>> for Authorities {
    type Error = AuthoritiesError;

    fn try_from(listed: BTreeMap<Digest, Authority>) -> Result<Self, AuthoritiesError> {
        if listed.len() > AUTHORITIES_MAX {
            return Err(AuthoritiesError::TooMany { found: listed.len() });
        }
        for (name, authority) in &listed {
            if authority.certificate.len() > AUTHORITY_LEN_MAX {
                return Err(AuthoritiesError::Length);
            }
            if Digest::of(&authority.certificate) != *name {
                return Err(AuthoritiesError::Name);
            }
        }
        let active = |(_, authority): &(&Digest, &Authority)| authority.state == AuthorityState::Active;
        let active: Vec<Digest> = listed.iter().filter(active).map(|(name, _)| *name).collect();
        match active.as_slice() {
            [active] => Ok(Self {
                active: *active,
                listed,
            }),
            several => Err(AuthoritiesError::Active { found: several.len() }),
        }
    }
}

impl From<Authorities> for BTreeMap<Digest, Authority> {
    fn from(authorities: Authorities) -> Self {
        authorities.listed
    }
}

/// What is done to one authority.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// It becomes known.
    Prepare,
    /// It issues from now on; the one that did is old.
    Activate,
    /// What it issued is to be replaced at once.
    Taint,
    /// It is verified by no more.
    Revoke,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Activate => "activate",
            Self::Taint => "taint",
            Self::Revoke => "revoke",
        })
    }
}

/// Two lists between which there is not exactly one legal step.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StepError {
    /// The authority is in a state the step does not begin from.
    #[error("authority {authority} is {from}, and cannot become {to}")]
    Illegal {
        /// Which.
        authority: Digest,
        /// How it stands; `revoked` for one that is not listed.
        from: &'static str,
        /// What it would be.
        to: &'static str,
    },
    /// More than one step at once.
    #[error("{0} steps at once: one list takes one step, so that every device can follow")]
    Several(usize),
}

impl Authorities {
    /// A list of one, which is active: what a fleet is founded with.
    pub fn founded(certificate: Vec<u8>) -> Result<Self, AuthoritiesError> {
        let name = Digest::of(&certificate);
        let state = AuthorityState::Active;
        BTreeMap::from([(name, Authority { state, certificate })]).try_into()
    }

    /// The active one's name.
    pub fn active(&self) -> Digest {
        self.active
    }

    /// How one stands; `None`: revoked, or never heard of.
    pub fn state(&self, authority: Digest) -> Option<AuthorityState> {
        self.listed.get(&authority).map(|authority| authority.state)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (Digest, &Authority)> {
        self.listed.iter().map(|(name, authority)| (*name, authority))
    }

    /// The one legal step from this list to a later one; `None`: they are the same.
    pub fn step_to(&self, later: &Self) -> Result<Option<(Step, Digest)>, StepError> {
        use AuthorityState::{Active, Old, Prepared, Tainted};
        let names = self.listed.keys().chain(later.listed.keys());
        let mut names: Vec<Digest> = names.copied().collect();
        names.sort();
        names.dedup();
        let mut steps = Vec::new();
        for authority in names {
            let (from, to) = (self.state(authority), later.state(authority));
            let step = match (from, to) {
                (from, to) if from == to => continue,
                // The other half of an activation: it counts with the one that became active, which there is exactly one of.
                (Some(Active), Some(Old)) => continue,
                (None, Some(Prepared)) => Step::Prepare,
                (Some(Prepared), Some(Active)) => Step::Activate,
                (Some(Old), Some(Tainted)) => Step::Taint,
                (Some(Tainted | Prepared), None) => Step::Revoke,
                (from, to) => {
                    let name = |state: Option<AuthorityState>| state.map_or("revoked", AuthorityState::name);
                    return Err(StepError::Illegal {
                        authority,
                        from: name(from),
                        to: name(to),
                    });
                }
            };
            steps.push((step, authority));
        }
        match steps.as_slice() {
            [] => Ok(None),
            [step] => Ok(Some(*step)),
            several => Err(StepError::Several(several.len())),
        }
    }
}

mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        // One way to write it: an upper-case digit would be a second form of one list.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(D::Error::custom("not lower-case hexadecimal"));
        }
        hex::decode(text).map_err(|_| D::Error::custom("not lower-case hexadecimal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AuthorityState::{Active, Old, Prepared, Tainted};

    fn list(entries: &[(&str, AuthorityState)]) -> Result<Authorities, AuthoritiesError> {
        let one = |(name, state): &(&str, AuthorityState)| {
            let certificate = name.as_bytes().to_vec();
            let state = *state;
            (Digest::of(&certificate), Authority { state, certificate })
        };
        entries.iter().map(one).collect::<BTreeMap<_, _>>().try_into()
    }

    #[test]
    fn a_list_of_any_other_form_does_not_read() {
        let none = AuthoritiesError::Active { found: 0 };
        assert_eq!(list(&[]), Err(none));
        assert_eq!(list(&[("a", Prepared), ("b", Old), ("c", Tainted)]), Err(none));
        let two = AuthoritiesError::Active { found: 2 };
        assert_eq!(list(&[("a", Active), ("b", Active)]), Err(two));
        let four = [("a", Active), ("b", Old), ("c", Tainted), ("d", Prepared)];
        list(&four).unwrap();
        let five = [four.as_slice(), &[("e", Old)]].concat();
        assert_eq!(list(&five), Err(AuthoritiesError::TooMany { found: 5 }));
        let named = |name: Digest, certificate: Vec<u8>| {
            let state = Active;
            Authorities::try_from(BTreeMap::from([(name, Authority { state, certificate })]))
        };
        assert_eq!(
            named(Digest::of(b"b"), b"a".to_vec()),
            Err(AuthoritiesError::Name)
        );
        for (length, fits) in [(AUTHORITY_LEN_MAX, true), (AUTHORITY_LEN_MAX + 1, false)] {
            let long = vec![7; length];
            let read = named(Digest::of(&long), long);
            assert_eq!(read.err(), (!fits).then_some(AuthoritiesError::Length));
        }
        // What does not keep the form does not come out of JSON either, nor does one written another way.
        let name = Digest::of(b"a");
        let read = |text: &str| serde_json::from_str::<Authorities>(text).is_ok();
        let good = format!("{{\"{name}\":{{\"state\":\"active\",\"certificate\":\"61\"}}}}");
        assert!(read(&good));
        let text = serde_json::to_string(&serde_json::from_str::<Authorities>(&good).unwrap()).unwrap();
        assert_eq!(text, good);
        for (from, to) in [
            ("active", "old"),
            ("active", "Active"),
            ("active", "revoked"),
            ("\"61\"", "\"62\""),
            ("\"61\"", "\"6\""),
            ("\"61\"", "[97]"),
            ("\"61\"}", "\"61\",\"more\":1}"),
            (&name.to_string(), &name.to_string().to_uppercase()),
        ] {
            assert!(!read(&good.replace(from, to)), "{to}");
        }
        assert!(!read("{}"));
    }

    /// Every pair of states of one authority, beside another that is active throughout where it can be.
    #[test]
    fn a_step_is_legal_or_is_named_with_where_it_would_lead() {
        let states = [None, Some(Prepared), Some(Active), Some(Old), Some(Tainted)];
        let legal = [
            (None, Some(Prepared), Step::Prepare),
            (Some(Prepared), Some(Active), Step::Activate),
            (Some(Prepared), None, Step::Revoke),
            (Some(Old), Some(Tainted), Step::Taint),
            (Some(Tainted), None, Step::Revoke),
        ];
        let x = Digest::of(b"x");
        for from in states {
            for to in states {
                // Who is active beside it, before and after.
                let beside = |state: Option<AuthorityState>, when_active| match state {
                    Some(Active) => when_active,
                    _ => Active,
                };
                let entry = |state: Option<AuthorityState>, when_active| {
                    let mut entries = vec![("a", beside(state, when_active))];
                    entries.extend(state.map(|state| ("x", state)));
                    list(&entries).unwrap()
                };
                // Where `x` leaves the active state, `a` must have been prepared for it.
                let (before, after) = (entry(from, Prepared), entry(to, Old));
                let step = before.step_to(&after);
                let expected = legal.iter().find(|(a, b, _)| (*a, *b) == (from, to));
                match (expected, from == to) {
                    (Some((_, _, expected)), _) => assert_eq!(step, Ok(Some((*expected, x)))),
                    (None, true) if from != Some(Active) => assert_eq!(step, Ok(None)),
                    (None, true) => assert!(step.is_err(), "{step:?}"),
                    // The other half of an activation.
                    (None, false) if (from, to) == (Some(Active), Some(Old)) => {
                        assert_eq!(step, Ok(Some((Step::Activate, Digest::of(b"a")))));
                    }
                    (None, false) => {
                        let name =
                            |state: Option<AuthorityState>| state.map_or("revoked", AuthorityState::name);
                        let named = StepError::Illegal {
                            authority: x,
                            from: name(from),
                            to: name(to),
                        };
                        assert_eq!(step, Err(named), "{from:?} {to:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_list_takes_one_step() {
        let before = list(&[("a", Active)]).unwrap();
        let after = list(&[("a", Active), ("b", Prepared), ("c", Prepared)]).unwrap();
        assert_eq!(before.step_to(&after), Err(StepError::Several(2)));
        let before = list(&[("a", Active), ("b", Prepared), ("c", Tainted)]).unwrap();
        let after = list(&[("a", Old), ("b", Active)]).unwrap();
        assert_eq!(before.step_to(&after), Err(StepError::Several(2)));
        assert_eq!(after.step_to(&after), Ok(None));
    }
}
