//! TLS that believes every certificate: a probe asks whether a container answers, and most that speak TLS have a
//! certificate which nobody but their clients could verify. Nothing secret is sent.

use crate::any_server::AnyServer;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How probes speak TLS; made when the first one does.
#[derive(Debug, Default)]
pub(in crate::probes) struct Tls {
    config: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    /// Encrypts a connection; says too whether HTTP/2 was agreed on.
    pub(super) async fn handshake(&self, host: &str, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, bool)> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no name for TLS")))?;
        let connector = TlsConnector::from(self.config.get_or_init(config).clone());
        let stream = connector.connect(name, stream).await?;
        let version_2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((stream, version_2))
    }
}

fn config() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring knows the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // No connection is used twice, and no session either.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}
