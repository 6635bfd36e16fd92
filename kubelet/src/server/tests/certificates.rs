//! The certificate that the server shows: made, kept, renewed by others.

use super::http::Client;
use super::{Served, config, fill};
use crate::metrics::Metrics;
use crate::server::tls::Tls;
use rustls::pki_types::CertificateDer;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What a client is shown.
async fn shown(served: &Served) -> CertificateDer<'static> {
    let stream = super::http::connect(served.address, None, b"h2").await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn a_node_without_certificate_makes_one_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = {
        let mut config = config(folder.path());
        config.serving.client_ca = None;
        config
    };
    let (certificate, key) = (config.cert_dir.join("kubelet.crt"), config.cert_dir.join("kubelet.key"));
    let metrics = Metrics::new("node");
    let read = || (std::fs::read(&certificate).unwrap(), std::fs::read(&key).unwrap());
    Tls::load(&config, &metrics).unwrap();
    assert_eq!((mode(&certificate), mode(&key)), (0o644, 0o600));
    let first = read();
    Tls::load(&config, &metrics).unwrap();
    assert_eq!(read(), first);
    // A crash between the two writes leaves a pair that does not fit.
    fill(&key, rcgen::KeyPair::generate().unwrap().serialize_pem().as_bytes());
    Tls::load(&config, &metrics).unwrap();
    assert_ne!(read().0, first.0);
    for broken in ["", "garbage"] {
        fill(&certificate, broken.as_bytes());
        Tls::load(&config, &metrics).unwrap();
    }
}

#[tokio::test]
async fn what_is_given_and_not_good_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let metrics = Metrics::new("node");
    let error = Tls::load(&config, &metrics).unwrap_err();
    assert!(error.to_string().contains("clients.crt"), "{error}");
    config.serving.client_ca = None;
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    config.serving.tls = Some((certificate.clone(), key.clone()));
    let error = Tls::load(&config, &metrics).unwrap_err();
    assert!(error.to_string().contains("tls.crt"), "{error}");
    assert!(!certificate.exists() && !key.exists(), "what is given is never made");
}

#[tokio::test]
async fn a_certificate_that_somebody_renewed_is_shown_without_a_restart() {
    let served = Served::start().await;
    let before = shown(&served).await;
    let pki = served.folder.path().join("pki");
    let pair = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(vec!["node".to_owned()]).unwrap().self_signed(&pair).unwrap();
    fill(&pki.join("kubelet.key"), pair.serialize_pem().as_bytes());
    fill(&pki.join("kubelet.crt"), made.pem().as_bytes());
    let renewed = async {
        while shown(&served).await == before {
            tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), renewed).await.expect("the new certificate is shown");
    assert_eq!(shown(&served).await, *made.der());
    // A broken one is not: the one before stays.
    fill(&pki.join("kubelet.crt"), b"garbage");
    let looks = tokio::time::Instant::now() + Duration::from_millis(1500);
    while tokio::time::Instant::now() < looks {
        assert_eq!(shown(&served).await, *made.der());
    }
}

#[tokio::test]
async fn the_smallest_version_of_tls_is_configurable() {
    use rustls::version::{TLS12, TLS13};
    for (only_tls13, offered, works) in [(true, &TLS12, false), (true, &TLS13, true), (false, &TLS12, true)] {
        let served = Served::with(|config| config.serving.only_tls13 = only_tls13).await;
        let stream = super::http::connect_with(served.address, None, b"h2", &[offered]).await;
        assert_eq!(stream.is_ok(), works, "only 1.3: {only_tls13}, offered {offered:?}");
    }
}

#[tokio::test]
async fn of_two_names_in_a_certificate_the_last_one_is_the_user_as_for_the_api_server() {
    let served = Served::start().await;
    let identity = served.clients.client_of_two_names("harmless", "manager");
    Client::tls(served.address, Some(identity)).await.send("GET", "/pods").await;
    let asked = served.api.state().access_reviews.last().unwrap().spec.user.clone();
    assert_eq!(asked.as_deref(), Some("manager"));
}
