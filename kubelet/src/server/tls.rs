//! TLS of :10250: the certificate that we show, and the CA of those who show us one.
//!
//! Both are files that others renew (kubeadm, cert-manager, a human), so both are looked at again when somebody connects.
//! A client's certificate is not judged in the handshake but with each request, as upstream does: a client with one of
//! another CA gets 401 and can show a token, and one that has expired meanwhile is refused on an open connection too.

use super::ServerError;
use super::certificate;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::stamp::Stamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often files are looked at, if anybody connects at all.
const LOOK: Duration = Duration::from_secs(1);
/// Certificates are small; what is larger is something else.
const LARGEST: u64 = 1 << 20;

type Result<T> = std::result::Result<T, ServerError>;
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A value made of files, made anew when one of them changed.
#[derive(Debug)]
struct FromFiles<T> {
    files: Vec<PathBuf>,
    held: Mutex<Held<T>>,
}

#[derive(Debug)]
struct Held<T> {
    value: Arc<T>,
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
}

impl<T> FromFiles<T> {
    /// Makes the value for the first time.
    fn load(files: Vec<PathBuf>, make: impl FnOnce(&[PathBuf]) -> Result<T>) -> Result<FromFiles<T>> {
        // Before they are read: what changes meanwhile is found at the next look.
        let stamps = stamps(&files);
        let held = Held { value: Arc::new(make(&files)?), stamps, looked: Instant::now() };
        Ok(FromFiles { files, held: Mutex::new(held) })
    }

    fn get(&self) -> Arc<T> {
        Arc::clone(&self.held().value)
    }

    fn held(&self) -> MutexGuard<'_, Held<T>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the value anew if a file changed; keeps the old one if that fails. Nobody who needs the value waits for the disk.
    fn refresh(&self, make: impl FnOnce(&[PathBuf]) -> Result<T>) {
        let before = {
            let mut held = self.held();
            if held.looked.elapsed() < LOOK {
                return;
            }
            held.looked = Instant::now();
            held.stamps.clone()
        };
        let stamps = stamps(&self.files);
        if stamps == before {
            return;
        }
        let made = make(&self.files);
        let mut held = self.held();
        held.stamps = stamps;
        match made {
            Ok(value) => held.value = Arc::new(value),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, files = ?self.files, "changed certificates are not good: the ones before stay");
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| std::fs::metadata(file).ok().map(|meta| Stamp::of(&meta))).collect()
}

/// The CA of client certificates.
#[derive(Debug)]
pub(super) struct ClientCa(FromFiles<Verifier>);

#[derive(Debug)]
struct Verifier(Arc<dyn ClientCertVerifier>);

impl ClientCa {
    fn load(file: &Path) -> Result<ClientCa> {
        let files = vec![file.to_owned()];
        FromFiles::load(files, verifier).map(ClientCa)
    }

    /// Whether the first certificate is for a client, valid now, and leads to our CA.
    pub(super) fn verify(&self, chain: &[CertificateDer<'static>]) -> std::result::Result<(), rustls::Error> {
        let (first, rest) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.0.get().0.verify_client_cert(first, rest, UnixTime::now()).map(|_| ())
    }
}

fn verifier(files: &[PathBuf]) -> Result<Verifier> {
    let mut roots = RootCertStore::empty();
    for file in files {
        let step = || format!("read the CA of clients from {}", file.display());
        let pem = read(file).map_err(|source| ServerError::Tls { step: step(), source })?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let added = certificate.map_err(Cause::from).and_then(|one| roots.add(one).map_err(Cause::from));
            added.map_err(|source| ServerError::Tls { step: step(), source })?;
        }
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let step = || format!("use the CA of clients in {files:?}");
    verifier.map(Verifier).map_err(|source| ServerError::Tls { step: step(), source: source.into() })
}

fn read(file: &Path) -> std::result::Result<Vec<u8>, Cause> {
    Ok(sys::fs::read_bounded(file, LARGEST)?)
}

/// The certificate that we show.
#[derive(Debug)]
struct Shown {
    files: FromFiles<CertifiedKey>,
    metrics: MetricsOf,
}

/// Metrics without their Debug, which is as long as a scrape.
struct MetricsOf(Metrics);

impl std::fmt::Debug for MetricsOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.files.get())
    }
}

/// Loads the certificate and its key, and checks that they belong together.
fn certified(files: &[PathBuf], provider: &CryptoProvider, metrics: &Metrics) -> Result<CertifiedKey> {
    let [certificate, key] = files else { unreachable!("made of two files") };
    let step = || format!("use the certificate {} with the key {}", certificate.display(), key.display());
    let load = || -> std::result::Result<CertifiedKey, Cause> {
        let chain = CertificateDer::pem_slice_iter(&read(certificate)?).collect::<std::result::Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&read(key)?)?;
        Ok(CertifiedKey::from_der(chain, key, provider)?)
    };
    let loaded = load().map_err(|source| ServerError::Tls { step: step(), source })?;
    if let Some(expires) = loaded.cert.first().and_then(|first| certificate::expires(first)) {
        metrics.server_certificate_expires(expires);
    }
    Ok(loaded)
}

/// Lets anybody show a certificate, and checks that they have its key; [`ClientCa`] says whether it is good.
#[derive(Debug)]
struct Anybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> std::result::Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a handshake needs.
#[derive(Debug)]
pub(super) struct Tls {
    /// For tokio-rustls.
    pub(super) config: Arc<ServerConfig>,
    /// Judges client certificates.
    pub(super) client_ca: Option<Arc<ClientCa>>,
    shown: Arc<Shown>,
    provider: Arc<CryptoProvider>,
}

impl Tls {
    /// Loads what is given, and makes what is not.
    pub(super) fn load(config: &Config, metrics: &Metrics) -> Result<Tls> {
        let (certificate, key) = match &config.serving.tls {
            Some(given) => given.clone(),
            None => certificate::own(config)?,
        };
        let provider = Arc::new(provider(&config.serving.cipher_suites));
        let files = vec![certificate, key];
        let files = FromFiles::load(files, |files| certified(files, &provider, metrics))?;
        let shown = Arc::new(Shown { files, metrics: MetricsOf(metrics.clone()) });
        let client_ca = config.serving.client_ca.as_deref().map(ClientCa::load).transpose()?.map(Arc::new);
        let step = || "use the TLS settings tlsMinVersion and tlsCipherSuites".to_owned();
        let versions: &[_] =
            if config.serving.only_tls13 { &[&rustls::version::TLS13] } else { rustls::DEFAULT_VERSIONS };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|source| ServerError::Tls { step: step(), source: source.into() })?;
        let builder = match client_ca {
            Some(_) => builder.with_client_cert_verifier(Arc::new(Anybody {
                algorithms: provider.signature_verification_algorithms,
            })),
            None => builder.with_no_client_auth(),
        };
        let mut tls = builder.with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls { config: Arc::new(tls), client_ca, shown, provider })
    }

    /// Looks at the files again. May wait for a disk.
    pub(super) fn refresh(&self) {
        self.shown.files.refresh(|files| certified(files, &self.provider, &self.shown.metrics.0));
        if let Some(ca) = &self.client_ca {
            ca.0.refresh(verifier);
        }
    }
}

/// ring's algorithms, those of TLS 1.2 limited to `suites` if any are named. Those of 1.3 are not configurable, as upstream.
fn provider(suites: &[String]) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !suites.is_empty() {
        let named = |suite: &rustls::SupportedCipherSuite| {
            suite.tls13().is_some() || suite.suite().as_str().is_some_and(|name| suites.iter().any(|one| one == name))
        };
        provider.cipher_suites.retain(named);
    }
    provider
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;
    use sys::fs::{Durability, atomic_write};

    fn text(files: &[PathBuf]) -> Result<String> {
        Ok(std::fs::read_to_string(&files[0]).unwrap())
    }

    /// Each version has the same mtime.
    fn write(path: &Path, text: &str) {
        atomic_write(path, text.as_bytes(), Durability::Rename, 0o600).unwrap();
        std::fs::File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_changes_while_it_is_read_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        write(&file, "old");
        let loaded = FromFiles::load(vec![file.clone()], |files| {
            let read = text(files);
            write(&file, "new");
            read
        });
        let files = loaded.unwrap();
        assert_eq!(*files.get(), "old");
        tokio::time::advance(LOOK).await;
        files.refresh(text);
        assert_eq!(*files.get(), "new");
    }

    #[tokio::test(start_paused = true)]
    async fn the_value_can_be_had_while_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        write(&file, "old");
        let files = FromFiles::load(vec![file.clone()], text).unwrap();
        write(&file, "new");
        tokio::time::advance(LOOK).await;
        files.refresh(|changed| {
            assert!(files.held.try_lock().is_ok());
            text(changed)
        });
        assert_eq!(*files.get(), "new");
    }
}
