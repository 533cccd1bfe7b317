//! Who the operators of a fleet are and what each may do: the server's store says it, and is asked for every request. A certificate
//! says only who somebody is.

use crate::error::{Refused, StoreError};
use crate::fleet::{Fleet, State};
use crate::operator::Operator;
use crate::store::Put;
use redan_identity::{IssuerKind, VerifiedIdentity};
use redan_protocol::audit::Action;
use redan_protocol::{Code, OperatorName, Role, SpiffeId, UnixSeconds};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Whom the founding ceremony makes an operator's certificate for.
const FIRST_ADMIN: &str = "admin";

/// An operator as the server knows them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorRow {
    /// What they may do.
    pub role: Role,
    /// When they were added.
    pub added: UnixSeconds,
    /// When they were removed, if they were.
    pub removed: Option<UnixSeconds>,
    /// Certificates made before this count no longer: a name that comes back does not bring the old certificate back with it.
    pub certificates_since: UnixSeconds,
}

impl State {
    /// The role of a name, for a certificate that lives to `expires`. `None`: nobody the server knows.
    pub(crate) fn role(&self, name: &OperatorName, expires: UnixSeconds) -> Option<Role> {
        let row = self.operators.get(name).filter(|row| row.removed.is_none())?;
        // Every operator's leaf lives equally long, so its last second says when it was made.
        let made_since = row.certificates_since.after(IssuerKind::Operator.leaf_life());
        let current = row.certificates_since == UnixSeconds::default() || expires > made_since;
        current.then_some(row.role)
    }
}

impl Fleet {
    /// What an operator may do now. Asked for every request, so that a removal acts on connections that are open.
    pub(crate) async fn role(&self, name: &OperatorName, expires: UnixSeconds) -> Result<Role, Refused> {
        let state = self.state.lock().await;
        let role = state.role(name, expires);
        role.ok_or_else(|| Refused::plain(Code::NotAuthorised))
    }

    /// Refuses a certificate that custodians took back. Asked per request, like the role.
    pub(crate) async fn not_taken_back(&self, identity: &VerifiedIdentity) -> Result<(), Refused> {
        if self.state.lock().await.operator_lists.name(identity) {
            return Err(Refused::plain(Code::CertificateRevoked));
        }
        Ok(())
    }

    /// A fleet that knows no operator yet gets its first admin: whom the founding ceremony made.
    pub(crate) async fn first_admin(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        if !state.operators.is_empty() {
            return Ok(());
        }
        let fault = |_| StoreError::Document {
            kind: "operator",
            id: FIRST_ADMIN.to_owned(),
        };
        let name = OperatorName::parse(FIRST_ADMIN).map_err(fault)?;
        let row = OperatorRow {
            role: Role::Admin,
            added: now,
            removed: None,
            certificates_since: UnixSeconds::default(),
        };
        let put = Put::json("operator", name.as_str(), &row)?;
        let action = (Action::OperatorAdded, format!("{name} admin"));
        self.commit(&mut state, now, "local", vec![put], &[action])
            .await?;
        state.operators.insert(name, row);
        Ok(())
    }
}

/// `POST /v1/operators`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {
    name: OperatorName,
    role: Role,
}

/// `POST /v1/operators/<name>/role`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRole {
    role: Role,
}

impl Operator<'_> {
    /// Which fleet this is, and who asks.
    pub async fn whoami(&self) -> Result<Value, Refused> {
        let fleet = self.fleet;
        let role = fleet.role(self.name, self.expires).await?;
        let ca = fleet.held().anchors.active().sha256();
        let state = fleet.state.lock().await;
        let authorities = crate::authorities::view(fleet, &state);
        Ok(json!({
            "fleet": fleet.id,
            "ca_sha256": ca,
            "authorities": authorities,
            "operator": self.name,
            "role": role,
        }))
    }

    /// All of them, also who was removed.
    pub async fn operators(&self) -> Value {
        let state = self.fleet.state.lock().await;
        state
            .operators
            .iter()
            .map(|(name, row)| operator_view(name, row))
            .collect()
    }

    /// Gives a name a role. The certificate is made by custodians; before both are there, the name can do nothing.
    pub async fn add_operator(&self, Add { name, role }: Add) -> Result<Value, Refused> {
        let mut state = self.fleet.state.lock().await;
        let before = state.operators.get(&name);
        if before.is_some_and(|row| row.removed.is_none()) {
            let detail = format!("{name} is an operator already; change the role instead");
            return Err(Refused::because(Code::Conflict, detail));
        }
        let row = OperatorRow {
            role,
            added: self.now,
            removed: None,
            certificates_since: before.map_or_else(UnixSeconds::default, |row| row.certificates_since),
        };
        let subject = format!("{name} {role}");
        self.keep_operator(&mut state, &name, row, Action::OperatorAdded, subject)
            .await
    }

    /// Changes what somebody else may do; their connections are closed, so that nothing is under way with the old role.
    pub async fn set_role(&self, name: &OperatorName, SetRole { role }: SetRole) -> Result<Value, Refused> {
        let view = {
            let mut state = self.fleet.state.lock().await;
            let row = self.another(&state, name)?;
            let row = OperatorRow { role, ..row };
            let subject = format!("{name} {role}");
            self.keep_operator(&mut state, name, row, Action::OperatorRoleChanged, subject)
                .await?
        };
        self.cut_operator(name).await;
        Ok(view)
    }

    /// Removes somebody else: from the next request on, none is answered, and when this returns their open connections are closed.
    pub async fn remove_operator(&self, name: &OperatorName) -> Result<Value, Refused> {
        let view = {
            let mut state = self.fleet.state.lock().await;
            let row = self.another(&state, name)?;
            let row = OperatorRow {
                removed: Some(self.now),
                certificates_since: self.now,
                ..row
            };
            let subject = name.to_string();
            self.keep_operator(&mut state, name, row, Action::OperatorRemoved, subject)
                .await?
        };
        self.cut_operator(name).await;
        Ok(view)
    }

    /// Whoever acts stays an admin, so there is always one.
    fn another(&self, state: &State, name: &OperatorName) -> Result<OperatorRow, Refused> {
        if name == self.name {
            return Err(Refused::plain(Code::OwnAccount));
        }
        let row = state.operators.get(name).filter(|row| row.removed.is_none());
        row.cloned().ok_or_else(|| {
            Refused::because(
                Code::NotFound,
                format!("there is no operator {name} in this fleet"),
            )
        })
    }

    async fn keep_operator(
        &self,
        state: &mut State,
        name: &OperatorName,
        row: OperatorRow,
        action: Action,
        subject: String,
    ) -> Result<Value, Refused> {
        let put = Put::json("operator", name.as_str(), &row)?;
        self.commit(state, vec![put], action, subject).await?;
        let view = operator_view(name, &row);
        state.operators.insert(name.clone(), row);
        Ok(view)
    }

    async fn cut_operator(&self, name: &OperatorName) {
        let id = SpiffeId::Operator(self.fleet.id.clone(), name.clone());
        self.fleet.live.cut(&id).await;
    }
}

fn operator_view(name: &OperatorName, row: &OperatorRow) -> Value {
    json!({"operator": name, "role": row.role, "added": row.added, "removed": row.removed})
}
