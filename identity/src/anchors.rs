//! A fleet's trust anchors while its certificate authority changes (decision 0014): usually one.

use crate::anchor::FleetAnchor;
use crate::error::IdentityError;
use crate::pem;
use crate::profile::rules::{parse, signed_by_root};
use crate::profile::{self, Presented, Purpose, VerifiedIdentity};
use redan_protocol::authority::AUTHORITIES_MAX;
use redan_protocol::{Authorities, AuthorityState, DeviceId, Digest, FleetId, UnixSeconds};
use rustls::DistinguishedName;
use rustls::pki_types::CertificateDer;

/// Most revoked authorities that a refusal still names. Tripped by `only_the_last_revoked_authorities_are_named`.
pub const FORMER_MAX: usize = 4;

/// The roots that chains of one fleet end in: the active authority's, and those of others that its root custodians list. A chain is
/// judged by the one authority that signed its issuer, and by that alone.
#[derive(Clone, Debug)]
pub struct Anchors {
    active: FleetAnchor,
    others: Vec<(AuthorityState, FleetAnchor)>,
    former: Vec<FleetAnchor>,
}

impl From<FleetAnchor> for Anchors {
    fn from(active: FleetAnchor) -> Self {
        Self {
            active,
            others: Vec::new(),
            former: Vec::new(),
        }
    }
}

impl From<&FleetAnchor> for Anchors {
    fn from(active: &FleetAnchor) -> Self {
        active.clone().into()
    }
}

impl From<&Anchors> for Anchors {
    fn from(anchors: &Anchors) -> Self {
        anchors.clone()
    }
}

impl Anchors {
    /// The authorities of a verified root. Each is held to the profile of a fleet's root, and no two have one key: revoking the one
    /// would say nothing.
    pub fn of(fleet: &FleetId, listed: &Authorities) -> Result<Self, IdentityError> {
        let mut active = None;
        let mut others = Vec::new();
        let mut keys = Vec::new();
        for (name, authority) in listed.iter() {
            let root = CertificateDer::from(authority.certificate.clone());
            let anchor = FleetAnchor::new(fleet.clone(), root)?;
            let key = anchor.spki_sha256()?;
            if keys.contains(&key) {
                return Err(IdentityError::SameKey);
            }
            keys.push(key);
            if name == listed.active() {
                active = Some(anchor);
            } else {
                others.push((authority.state, anchor));
            }
        }
        let active = active.ok_or(IdentityError::Malformed {
            what: "the fleet's list of authorities",
        })?;
        let former = Vec::new();
        Ok(Self {
            active,
            others,
            former,
        })
    }

    /// What a voucher or a join token carries, PEM: the active authority first, then those that may become active. Whoever believes an
    /// old one as well gains nothing, for the server is served by the active one; and a tainted one must not be learned anew.
    pub fn carry(&self) -> String {
        let next = self
            .iter()
            .filter(|(state, _)| *state == AuthorityState::Prepared);
        let carried = std::iter::once(&self.active).chain(next.map(|(_, anchor)| anchor));
        let roots: Vec<_> = carried.map(|anchor| anchor.root().clone()).collect();
        pem::write_chain(&roots)
    }

    /// Reads what [`Self::carry`] wrote. It is believed as what carries it is; a list that root custodians signed takes its place.
    pub fn carried(fleet: &FleetId, text: &str) -> Result<Self, IdentityError> {
        let mut roots = pem::read_chain(text)?.into_iter();
        if roots.len() > AUTHORITIES_MAX {
            return Err(IdentityError::Malformed {
                what: "the authorities of a voucher",
            });
        }
        let first = roots.next().ok_or(IdentityError::Malformed {
            what: "the authorities of a voucher",
        })?;
        let active = FleetAnchor::new(fleet.clone(), first)?;
        let mut keys = vec![active.spki_sha256()?];
        let mut others = Vec::new();
        for root in roots {
            let anchor = FleetAnchor::new(fleet.clone(), root)?;
            let key = anchor.spki_sha256()?;
            if keys.contains(&key) {
                return Err(IdentityError::SameKey);
            }
            keys.push(key);
            others.push((AuthorityState::Prepared, anchor));
        }
        let former = Vec::new();
        Ok(Self {
            active,
            others,
            former,
        })
    }

    /// With authorities that were revoked, newest last: nothing is verified by them, but whoever comes with a certificate of theirs is
    /// told so.
    #[must_use]
    pub fn with_former(mut self, former: impl IntoIterator<Item = FleetAnchor>) -> Self {
        self.former.extend(former);
        self.former = std::mem::take(&mut self.former)
            .into_iter()
            .filter(|gone| self.state(gone.sha256()).is_none())
            .collect();
        let old = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..old);
        self
    }

    /// The fleet.
    pub fn fleet(&self) -> &FleetId {
        self.active.fleet()
    }

    /// What issues now.
    pub fn active(&self) -> &FleetAnchor {
        &self.active
    }

    /// All that verify, the active one first.
    pub fn iter(&self) -> impl Iterator<Item = (AuthorityState, &FleetAnchor)> {
        let others = self.others.iter().map(|(state, anchor)| (*state, anchor));
        std::iter::once((AuthorityState::Active, &self.active)).chain(others)
    }

    /// How an authority stands; `None`: nothing is verified by it.
    pub fn state(&self, authority: Digest) -> Option<AuthorityState> {
        self.iter()
            .find(|(_, anchor)| anchor.sha256() == authority)
            .map(|(state, _)| state)
    }

    /// Whether the same authorities are in the same states.
    pub fn same_as(&self, other: &Self) -> bool {
        let listed = |anchors: &Self| -> Vec<_> {
            let each = anchors.iter().map(|(state, anchor)| (anchor.sha256(), state));
            let mut each: Vec<_> = each.collect();
            each.sort();
            each
        };
        listed(self) == listed(other)
    }

    /// The authority that a chain's issuer is signed by; whether the chain is good is for [`Self::check`] to say.
    pub fn above(&self, chain: &[CertificateDer<'_>]) -> Option<&FleetAnchor> {
        self.signer_of(chain.get(1)?)
    }

    /// The authority that an issuer is signed by.
    pub fn signer_of(&self, issuer: &CertificateDer<'_>) -> Option<&FleetAnchor> {
        let issuer = parse(issuer).ok()?;
        self.iter()
            .map(|(_, anchor)| anchor)
            .find(|anchor| parse(anchor.root()).is_ok_and(|root| signed_by_root(&issuer, &root).is_ok()))
    }

    /// The one root that judges a chain. With one authority there is nothing to choose, nor is there for a chain that none of them
    /// signed: the active one's refusal says what is wrong with it.
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<&FleetAnchor, IdentityError> {
        if self.others.is_empty() && self.former.is_empty() {
            return Ok(&self.active);
        }
        if let Some(anchor) = self.above(chain) {
            return Ok(anchor);
        }
        let issuer = chain.get(1).and_then(|issuer| parse(issuer).ok());
        let signed = |gone: &&FleetAnchor| {
            let root = parse(gone.root());
            issuer
                .as_ref()
                .zip(root.ok())
                .is_some_and(|(issuer, root)| signed_by_root(issuer, &root).is_ok())
        };
        match self.former.iter().find(signed) {
            Some(gone) => Err(IdentityError::Revoked {
                fleet: self.fleet().clone(),
                authority: gone.sha256(),
            }),
            None => Ok(&self.active),
        }
    }

    /// [`profile::check`] under the authority the chain is of.
    pub fn check(
        &self,
        chain: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixSeconds,
    ) -> Result<VerifiedIdentity, IdentityError> {
        profile::check(self.judge(chain)?, chain, purpose, now)
    }

    /// [`profile::check_client`] under the authority the chain is of.
    pub fn check_client(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixSeconds,
    ) -> Result<Presented, IdentityError> {
        profile::check_client(self.judge(chain)?, chain, now)
    }

    /// [`profile::check_device_leaf`] under the authority the chain is of.
    pub fn check_device_leaf(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixSeconds,
    ) -> Result<(FleetId, DeviceId, Digest), IdentityError> {
        profile::check_device_leaf(self.judge(chain)?, chain, now)
    }

    /// The subjects of the roots, as a client names whom it believes (RFC 8446 §4.2.4).
    pub(crate) fn subjects(&self) -> Vec<DistinguishedName> {
        self.iter().filter_map(|(_, anchor)| anchor.subject()).collect()
    }
}
