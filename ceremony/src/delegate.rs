//! Who may sign which component: delegations of the release repository's targets role.

use redan_protocol::ComponentName;
use redan_publish::{Delegation, Signers};

/// A component's own role: its paths and nobody else's. `*` never crosses `/`, so the two wildcards are version and file.
pub fn component(name: &ComponentName, signers: Signers) -> Delegation {
    Delegation {
        name: name.role(),
        paths: vec![format!("components/{name}/*/*")],
        signers,
    }
}

/// The role that directs devices without a network (decision 0007), also of fleets founded before there was one.
pub fn direction(signers: Signers) -> Delegation {
    documents("direction", "directions/*/*", signers)
}

/// The role of plans or policies.
pub fn documents(role: &str, path: &str, signers: Signers) -> Delegation {
    Delegation {
        name: role.to_owned(),
        paths: vec![path.to_owned()],
        signers,
    }
}
