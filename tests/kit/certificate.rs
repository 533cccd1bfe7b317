// A device's certificate as a test wants it. Tests `include!` it: the kit knows nothing of `redan-identity`, which those tests test.

use anyhow::{Context as _, Result};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, SubjectPublicKeyInfo,
};
use redan_identity::{KeyFile, pem, profile};
use redan_kit::Stage;
use redan_kit::stage::FLEET;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Gives a stopped device a certificate for the key it has (`SubjectPublicKeyInfo`, DER), by the fleet's own issuer and right in every line,
/// whose last second is so many seconds away from now. It began when the issuer did: five minutes before the fleet was founded.
pub(crate) fn ending_in(stage: &Stage, device: &str, spki: &[u8], seconds: i64) -> Result<()> {
    let by = std::fs::read_to_string(stage.fleet().join("online/device-issuer.pem"))?;
    let issuer = pem::read_chain(&by)?.remove(0);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let (uri, host) = (
        format!("spiffe://{FLEET}/device/{device}"),
        format!("{device}.device.{FLEET}"),
    );
    params.subject_alt_names = vec![
        SanType::URI(uri.as_str().try_into()?),
        SanType::DnsName(host.as_str().try_into()?),
    ];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from([0x55; 16].to_vec()));
    let began = profile::valid_between(&issuer)?.0.get();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    params.not_before = (UNIX_EPOCH + Duration::from_secs(began)).into();
    let ends = now.checked_add_signed(seconds).context("a time")?;
    params.not_after = (UNIX_EPOCH + Duration::from_secs(ends)).into();
    let signer = KeyPair::from_pem(&KeyFile::from_pem(&by)?.to_pem())?;
    let signer = Issuer::from_ca_cert_der(&issuer, signer)?;
    let leaf = params.signed_by(&SubjectPublicKeyInfo::from_der(spki)?, &signer)?;
    let chain = pem::write_chain(&[leaf.der().clone(), issuer]);
    std::fs::write(stage.device(device)?.state.join("identity/chain.pem"), chain)?;
    Ok(())
}
