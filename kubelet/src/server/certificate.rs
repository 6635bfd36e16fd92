//! Our own certificate, for a node that was given none: `kubelet.crt` and `kubelet.key`, upstream's names and place.

use super::ServerError;
use crate::config::Config;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use sys::fs::{Durability, atomic_write};

/// How long a certificate of ours is good.
const YEAR: i64 = 365 * 24 * 3600;
/// One that ends sooner than this is made anew at the next start.
const MONTH: i64 = 30 * 24 * 3600;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The files of our own certificate and key, made if they are missing, unreadable or about to end.
pub(super) fn own(config: &Config) -> Result<(PathBuf, PathBuf), ServerError> {
    let (certificate, key) = (config.cert_dir.join("kubelet.crt"), config.cert_dir.join("kubelet.key"));
    let now = jiff::Timestamp::now().as_second();
    if !good(&certificate, &key, now) {
        make(config, &certificate, &key, now).map_err(|source| ServerError::Tls {
            step: format!("make the certificate {}", certificate.display()),
            source,
        })?;
    }
    Ok((certificate, key))
}

/// Whether there are both, and the certificate lasts for some time. Whether they fit is found out when they are loaded.
fn good(certificate: &Path, key: &Path, now: i64) -> bool {
    let first = sys::fs::read_bounded(certificate, 1 << 20).ok();
    let first = first.and_then(|pem| CertificateDer::from_pem_slice(&pem).ok());
    let lasts =
        first.and_then(|first| expires(&first)).is_some_and(|at| i64::try_from(at).is_ok_and(|at| at > now + MONTH));
    lasts && fits(certificate, key)
}

fn fits(certificate: &Path, key: &Path) -> bool {
    let (Ok(chain), Ok(key)) = (sys::fs::read_bounded(certificate, 1 << 20), sys::fs::read_bounded(key, 1 << 20))
    else {
        return false;
    };
    let chain = CertificateDer::pem_slice_iter(&chain).filter_map(Result::ok).collect();
    let Ok(key) = rustls::pki_types::PrivateKeyDer::from_pem_slice(&key) else { return false };
    rustls::sign::CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).is_ok()
}

fn make(config: &Config, certificate: &Path, key: &Path, now: i64) -> Result<(), Cause> {
    let pair = KeyPair::generate()?;
    let made = parameters(config, now)?.self_signed(&pair)?;
    std::fs::create_dir_all(&config.cert_dir)?;
    // The key first: a crash in between leaves two that don't fit, which are then both made anew.
    atomic_write(key, pair.serialize_pem().as_bytes(), Durability::Synced, 0o600)?;
    atomic_write(certificate, made.pem().as_bytes(), Durability::Synced, 0o644)?;
    Ok(())
}

fn parameters(config: &Config, now: i64) -> Result<CertificateParams, Cause> {
    let mut parameters = CertificateParams::new(vec![config.node_name.clone()])?;
    parameters.subject_alt_names.extend(config.node_ips.iter().copied().map(SanType::IpAddress));
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, format!("{}@{now}", config.node_name));
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // An hour back: clocks differ.
    let from = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(now - 3600)?);
    parameters.not_before = from.into();
    parameters.not_after = (from + std::time::Duration::from_secs(u64::try_from(YEAR)?)).into();
    Ok(parameters)
}

/// When a certificate ends, in seconds since 1970.
pub(super) fn expires(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}
