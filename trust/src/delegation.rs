//! Whom a targets role trusts further, and for which paths (TUF 1.0.34 §4.5; TAP 15 for shares of all paths).

use crate::metadata::{Key, Malformed, RoleKeys, TOP_LEVEL};
use redan_protocol::Digest;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Whom a targets role trusts further.
#[derive(Clone, Debug, Deserialize)]
pub struct Delegations {
    /// Keys by id.
    pub keys: BTreeMap<String, Key>,
    /// Roles, first match first.
    #[serde(default)]
    pub roles: Vec<DelegatedRole>,
    /// Equal shares of all paths, in place of roles.
    #[serde(default)]
    pub succinct_roles: Option<SuccinctRoles>,
}

impl Delegations {
    /// The roles that are trusted for a path, in the order they are asked in.
    pub fn covering(&self, path: &str) -> impl Iterator<Item = DelegatedRole> {
        let roles = self.roles.iter().filter(|role| role.covers(path)).cloned();
        roles.chain(self.succinct_roles.as_ref().map(|roles| roles.role(path)))
    }

    pub(crate) fn sane(&self) -> Result<(), Malformed> {
        let mut names = BTreeSet::new();
        for role in &self.roles {
            RoleKeys {
                keyids: role.keyids.clone(),
                threshold: role.threshold,
            }
            .sane()?;
            // A delegated `root` would be stored as the root.
            let reserved = role.name.is_empty() || TOP_LEVEL.contains(&role.name.as_str());
            let twice = !names.insert(&role.name);
            if reserved || twice || role.paths.is_some() == role.path_hash_prefixes.is_some() {
                return Err(Malformed::Role);
            }
        }
        let Some(bins) = &self.succinct_roles else {
            return Ok(());
        };
        RoleKeys {
            keyids: bins.keyids.clone(),
            threshold: bins.threshold,
        }
        .sane()?;
        if !self.roles.is_empty() || !(1..=32).contains(&bins.bit_length) {
            return Err(Malformed::Role);
        }
        Ok(())
    }
}

/// Delegation to a power of two of roles with the same keys, each trusted for its share of all paths (TAP 15).
#[derive(Clone, Debug, Deserialize)]
pub struct SuccinctRoles {
    /// Their keys.
    pub keyids: Vec<String>,
    /// How many must sign.
    pub threshold: u32,
    /// So many bits of a path's SHA-256 choose its role: 1 to 32.
    pub bit_length: u32,
    /// What their names begin with.
    pub name_prefix: String,
}

impl SuccinctRoles {
    /// The one role that is trusted for a path. Nobody after it is asked.
    fn role(&self, path: &str) -> DelegatedRole {
        let digest = Digest::of(path.as_bytes());
        let first = digest
            .as_bytes()
            .first_chunk()
            .map_or(0, |first| u32::from_be_bytes(*first));
        // The length was checked when the role was read; a share of nobody would be the last one.
        let bin = first
            .checked_shr(32_u32.saturating_sub(self.bit_length))
            .unwrap_or(0);
        // Names have the digits of the last one.
        let digits = usize::try_from(self.bit_length.div_ceil(4)).unwrap_or(8);
        DelegatedRole {
            name: format!("{}-{bin:0digits$x}", self.name_prefix),
            keyids: self.keyids.clone(),
            threshold: self.threshold,
            terminating: true,
            paths: Some(vec![path.to_owned()]),
            path_hash_prefixes: None,
        }
    }
}

/// One delegation.
#[derive(Clone, Debug, Deserialize)]
pub struct DelegatedRole {
    /// Its name.
    pub name: String,
    /// Its keys.
    pub keyids: Vec<String>,
    /// How many must sign.
    pub threshold: u32,
    /// Nobody after it is asked for its paths.
    #[serde(default)]
    pub terminating: bool,
    /// Patterns of target paths.
    #[serde(default)]
    pub paths: Option<Vec<String>>,
    /// Prefixes of the SHA-256 of target paths.
    #[serde(default)]
    pub path_hash_prefixes: Option<Vec<String>>,
}

impl DelegatedRole {
    /// Whether this role is trusted for a path.
    pub fn covers(&self, path: &str) -> bool {
        let by_path = self
            .paths
            .iter()
            .flatten()
            .any(|pattern| path_matches(pattern, path));
        let hash = Digest::of(path.as_bytes()).to_string();
        let by_hash = self
            .path_hash_prefixes
            .iter()
            .flatten()
            .any(|prefix| hash.starts_with(prefix.as_str()));
        by_path || by_hash
    }
}

/// TUF 1.0.34 §4.5 PATHPATTERN: equal numbers of segments; `*` and `?` never cross `/`.
pub(crate) fn path_matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len()
        && pattern
            .iter()
            .zip(&path)
            .all(|(pattern, segment)| glob(pattern.as_bytes(), segment.as_bytes()))
}

/// Shell-style match of one segment, linear in memory, quadratic in time at worst.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star, mut mark) = (0_usize, 0_usize, None, 0_usize);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some(p);
                mark = t;
                p = p.saturating_add(1);
            }
            Some(c) if *c == b'?' || Some(c) == text.get(t) => {
                p = p.saturating_add(1);
                t = t.saturating_add(1);
            }
            _ => {
                let Some(last) = star else { return false };
                p = last.saturating_add(1);
                mark = mark.saturating_add(1);
                t = mark;
            }
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|c| *c == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_equal_numbers_of_segments() {
        for (pattern, path, matches) in [
            (
                "components/acme/thermo/*/*",
                "components/acme/thermo/1.0.0/abc.wasm",
                true,
            ),
            (
                "components/acme/thermo/*/*",
                "components/acme/thermo/1.0.0/x/abc.wasm",
                false,
            ),
            (
                "components/acme/thermo/*/*",
                "components/acme/thermo/abc.wasm",
                false,
            ),
            ("plans/*", "plans/a/b", false),
            ("*", "a/b", false),
            ("foo-version-?.tgz", "foo-version-2.tgz", true),
            ("*.tgz", "foo.tgz", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2", false),
            ("**", "x", true),
        ] {
            assert_eq!(path_matches(pattern, path), matches, "{pattern} {path}");
        }
    }

    /// Numbers from `tuf.api.metadata.SuccinctRoles.get_role_for_target`.
    #[test]
    fn a_path_falls_to_the_share_that_the_reference_implementation_names() {
        for (bit_length, path, name) in [
            (1, "a", "bin-1"),
            (1, "dir/file", "bin-0"),
            (1, "x/y z", "bin-1"),
            (2, "a", "bin-3"),
            (2, "dir/file", "bin-0"),
            (2, "x/y z", "bin-2"),
            (4, "a", "bin-c"),
            (4, "dir/file", "bin-2"),
            (4, "x/y z", "bin-9"),
            (5, "a", "bin-19"),
            (5, "dir/file", "bin-04"),
            (5, "x/y z", "bin-12"),
            (8, "a", "bin-ca"),
            (8, "dir/file", "bin-20"),
            (8, "x/y z", "bin-96"),
            (9, "a", "bin-195"),
            (9, "dir/file", "bin-040"),
            (9, "x/y z", "bin-12d"),
            (16, "a", "bin-ca97"),
            (16, "dir/file", "bin-2079"),
            (16, "x/y z", "bin-96ec"),
            (31, "a", "bin-654bc089"),
            (31, "dir/file", "bin-103cc2a5"),
            (31, "x/y z", "bin-4b762d9f"),
            (32, "a", "bin-ca978112"),
            (32, "dir/file", "bin-2079854a"),
            (32, "x/y z", "bin-96ec5b3f"),
        ] {
            let roles = SuccinctRoles {
                keyids: Vec::new(),
                threshold: 1,
                bit_length,
                name_prefix: "bin".into(),
            };
            assert_eq!(roles.role(path).name, name);
        }
    }
}
