//! What an operator may do. The server's store says which role a name has; no certificate and no header does.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything, changes nothing.
    Viewer,
    /// Admits and revokes devices, publishes, starts and steers rollouts.
    Operator,
    /// Agrees to rollouts that another person started.
    Approver,
    /// Says who has which role.
    Admin,
}

/// A word that is no role.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a role is viewer, operator, approver or admin")]
pub struct NoRole;

impl Role {
    /// All of them, the least first.
    pub const ALL: &'static [Self] = &[Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = NoRole;
    fn from_str(text: &str) -> Result<Self, NoRole> {
        let mut all = Self::ALL.iter().copied();
        all.find(|role| role.name() == text).ok_or(NoRole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_one_of_four_words_and_each_is_more_than_the_one_before() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(*role));
            assert_eq!(serde_json::to_string(role).unwrap(), format!("\"{role}\""));
        }
        for word in ["", "root", "Admin", "admin "] {
            assert_eq!(word.parse::<Role>(), Err(NoRole), "{word:?}");
        }
        assert!(Role::ALL.is_sorted());
    }
}
