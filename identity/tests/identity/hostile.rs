//! Bytes nobody of us wrote: never a panic, never an identity.

use crate::forge::{Forge, NOW, fleet};
use proptest::prelude::*;
use redan_identity::profile::{IssuerKind, Purpose, check, latest_not_before, presented_spki};
use redan_identity::{FleetAnchor, KeyFile, est, pem};
use redan_protocol::UnixSeconds;
use rustls::pki_types::CertificateDer;
use std::sync::LazyLock;

static CHAIN: LazyLock<(FleetAnchor, Vec<Vec<u8>>)> = LazyLock::new(|| {
    let forged = Forge::new(IssuerKind::Device).signed();
    let anchor = FleetAnchor::new(fleet(), forged.root).unwrap();
    (anchor, forged.chain.iter().map(|der| der.to_vec()).collect())
});

proptest! {
    #[test]
    fn noise_is_nobody(leaf in prop::collection::vec(any::<u8>(), 0..512), issuer in prop::collection::vec(any::<u8>(), 0..64)) {
        let chain = [CertificateDer::from(leaf), CertificateDer::from(issuer)];
        prop_assert!(check(&CHAIN.0, &chain, Purpose::Client, UnixSeconds::new(NOW)).is_err());
        prop_assert_eq!(latest_not_before(&chain), UnixSeconds::new(0));
        prop_assert!(presented_spki(&chain[0]).is_err());
    }

    #[test]
    fn a_spliced_chain_is_nobody(at in 0_usize..700, cut in 0_usize..40, new in prop::collection::vec(any::<u8>(), 0..40), which in 0_usize..2) {
        let mut chain = CHAIN.1.clone();
        let bytes = &mut chain[which];
        let from = at.min(bytes.len());
        let to = (from + cut).min(bytes.len());
        prop_assume!(bytes[from..to] != new);
        bytes.splice(from..to, new);
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        prop_assert!(check(&CHAIN.0, &chain, Purpose::Client, UnixSeconds::new(NOW)).is_err());
    }

    #[test]
    fn texts_are_refused_without_a_panic(text in "[ -~\n]{0,300}") {
        prop_assert!(est::decode_csr(&text).is_err());
        prop_assert!(est::decode_certs_only(&text).is_err());
        prop_assert!(pem::read_chain(&text).is_err());
        prop_assert!(pem::read_bundle(&text).is_err());
        prop_assert!(KeyFile::from_pem(&text).is_err());
        prop_assert!(FleetAnchor::from_pem(fleet(), &text).is_err());
    }
}
