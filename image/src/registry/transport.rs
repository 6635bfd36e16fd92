//! HTTP to one endpoint: TLS as its `hosts.toml` says, proxies, and redirects that take no credentials along.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, Url};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::RegistryError;
use super::hosts::{Endpoint, Tls, is_loopback};
use crate::digest::{Algorithm, Digest};

const MAX_REDIRECTS: usize = 10;
/// How long a connection may take to come up, where `hosts.toml` says nothing.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Clients that are kept; a node talks to fewer registries than this.
const MAX_CLIENTS: usize = 64;

/// The proxies of the environment, read at the edge of the program.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` registries.
    pub http: Option<String>,
    /// For `https://` registries.
    pub https: Option<String>,
    /// Hosts, domains and networks that are reached directly, separated by commas.
    pub none: String,
}

impl Proxies {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` and their lower-case forms (which win) through `variable`.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            variable(&name.to_lowercase()).or_else(|| variable(name)).filter(|value| !value.trim().is_empty())
        };
        Self { http: either("HTTP_PROXY"), https: either("HTTPS_PROXY"), none: either("NO_PROXY").unwrap_or_default() }
    }
}

/// Without what stands before the host: it is a user's name and password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |proxy: &Option<String>| {
            proxy.as_deref().map(|url| match url.rsplit_once('@') {
                Some((_, host)) => format!("***@{host}"),
                None => url.to_owned(),
            })
        };
        let (http, https) = (shown(&self.http), shown(&self.https));
        f.debug_struct("Proxies").field("http", &http).field("https", &https).field("none", &self.none).finish()
    }
}

/// One request, before it is known who proves what.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// For messages, such as `get manifest latest`.
    pub(super) what: String,
}

/// What makes two requests share a client: the TLS setting, the time to connect, and what the setting's files hold.
type ClientKey = (Tls, Duration, Option<Digest>);

/// The HTTP clients of a store; one per TLS setting, so that connections are shared between pulls.
pub(crate) struct Transport {
    proxies: Proxies,
    stall_timeout: Duration,
    clients: Mutex<HashMap<ClientKey, Client>>,
    roots: OnceLock<Arc<rustls::RootCertStore>>,
}

impl Transport {
    pub(crate) fn new(proxies: Proxies, stall_timeout: Duration) -> Self {
        Self { proxies, stall_timeout, clients: Mutex::default(), roots: OnceLock::new() }
    }

    pub(super) fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }

    /// Sends `request` to `endpoint` and follows redirects by hand. Authorization, the endpoint's own headers, its
    /// client certificate and its loosened verification stay with the endpoint's host.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(endpoint, request, &url, authorization).await?;
            let Some(next) = redirect(&response, &url) else { return Ok(response) };
            url = next.map_err(|problem| protocol(&url, &request.what, problem))?;
        }
        Err(protocol(&url, &request.what, format!("more than {MAX_REDIRECTS} redirects")))
    }

    async fn send_once(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let is_endpoint = origin(url) == origin(&request.url);
        let mut headers = request.headers.clone();
        // Layers are compressed already; a proxy that compresses again would break digests and ranges.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if is_endpoint {
            for (name, value) in &endpoint.headers {
                let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
                    return Err(protocol(url, &request.what, format!("header {name:?} of hosts.toml is not valid")));
                };
                headers.append(name, value);
            }
            if let Some(authorization) = authorization {
                headers.insert(header::AUTHORIZATION, authorization.clone());
            }
        }
        let tls = if is_endpoint { endpoint.tls.clone() } else { Tls::default() };
        let client = self.client(tls, endpoint.dial_timeout.unwrap_or(DIAL_TIMEOUT))?;
        let sent = client.request(request.method.clone(), url.clone()).headers(headers).send();
        self.answered(url, &request.what, sent).await
    }

    /// The answer of a token server to a form (POST) or a query (GET). Never redirected.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        form: Option<&[(&str, &str)]>,
        authorization: Option<HeaderValue>,
        what: &str,
    ) -> Result<Response, RegistryError> {
        let same_host = url.host_str() == endpoint.host.split(':').next();
        let tls = if same_host { endpoint.tls.clone() } else { Tls::default() };
        let client = self.client(tls, endpoint.dial_timeout.unwrap_or(DIAL_TIMEOUT))?;
        let mut request = match form {
            Some(form) => client.post(url.clone()).form(form),
            None => client.get(url.clone()),
        };
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        self.answered(url, what, request.send()).await
    }

    async fn answered(
        &self,
        url: &Url,
        what: &str,
        sent: impl Future<Output = reqwest::Result<Response>>,
    ) -> Result<Response, RegistryError> {
        let (host, what) = (origin(url), what.to_owned());
        match tokio::time::timeout(self.stall_timeout, sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(RegistryError::Network { host, what, source: source.without_url() }),
            Err(_) => Err(RegistryError::Stalled { host, what, after: self.stall_timeout }),
        }
    }

    fn client(&self, tls: Tls, dial: Duration) -> Result<Client, RegistryError> {
        let key = (tls.clone(), dial, fingerprint(&tls)?);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let problem = |error: reqwest::Error| RegistryError::Settings {
            what: "set up the HTTP client".into(),
            problem: error.to_string(),
        };
        let mut builder = Client::builder()
            .user_agent(concat!("orlop/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(dial)
            .tcp_nodelay(true)
            .tls_backend_preconfigured(self.tls(&tls)?);
        // As every Go program: this machine is never reached through a proxy.
        let none = reqwest::NoProxy::from_string(&format!("localhost,127.0.0.0/8,::1,{}", self.proxies.none));
        if let Some(proxy) = &self.proxies.http {
            builder = builder.proxy(reqwest::Proxy::http(proxy).map_err(problem)?.no_proxy(none.clone()));
        }
        if let Some(proxy) = &self.proxies.https {
            builder = builder.proxy(reqwest::Proxy::https(proxy).map_err(problem)?.no_proxy(none));
        }
        let client = builder.build().map_err(problem)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn tls(&self, tls: &Tls) -> Result<rustls::ClientConfig, RegistryError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let problem =
            |error: rustls::Error| RegistryError::Settings { what: "set up TLS".into(), problem: error.to_string() };
        let versions = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(problem)?;
        let verified = match tls.skip_verify {
            true => {
                let anyone = Arc::new(anyone::Anyone(provider));
                versions.dangerous().with_custom_certificate_verifier(anyone)
            }
            false => versions.with_root_certificates(self.roots_with(tls)?),
        };
        match tls.clients.first() {
            None => Ok(verified.with_no_client_auth()),
            Some((certificate, key)) => {
                let wrong = |error| RegistryError::settings(certificate, error);
                let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
                let key_file = key.as_ref().unwrap_or(certificate);
                let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| RegistryError::settings(key_file, e))?;
                verified.with_client_auth_cert(chain.map_err(wrong)?, key).map_err(problem)
            }
        }
    }

    /// The host's trust store, and the authorities of `tls` beside it.
    fn roots_with(&self, tls: &Tls) -> Result<Arc<rustls::RootCertStore>, RegistryError> {
        let host = self.roots.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "a certificate of the host's trust store is left out");
            }
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            Arc::new(roots)
        });
        if tls.authorities.is_empty() {
            return Ok(host.clone());
        }
        let mut roots = rustls::RootCertStore::clone(host);
        for file in &tls.authorities {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
            for certificate in certificates.map_err(|error| RegistryError::settings(file, error))? {
                roots.add(certificate).map_err(|error| RegistryError::settings(file, error))?;
            }
        }
        Ok(Arc::new(roots))
    }
}

/// What the files of a TLS setting hold now, so that a renewed certificate is seen by the next request.
fn fingerprint(tls: &Tls) -> Result<Option<Digest>, RegistryError> {
    let clients = tls.clients.iter().flat_map(|(certificate, key)| std::iter::once(certificate).chain(key));
    let mut files = tls.authorities.iter().chain(clients).peekable();
    if files.peek().is_none() {
        return Ok(None);
    }
    let mut hasher = Algorithm::Sha256.hasher();
    for file in files {
        hasher.update(&std::fs::read(file).map_err(|error| RegistryError::settings(file, error))?);
    }
    Ok(Some(hasher.finish()))
}

/// `scheme://host:port`, for messages and comparisons; the port is left out where it is the scheme's own.
pub(super) fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

pub(super) fn protocol(url: &Url, what: &str, problem: impl Into<String>) -> RegistryError {
    RegistryError::Protocol { host: origin(url), what: what.to_owned(), problem: problem.into() }
}

/// Where `response` sends us, if it does.
fn redirect(response: &Response, from: &Url) -> Option<Result<Url, String>> {
    use StatusCode as S;
    let is_redirect = matches!(
        response.status(),
        S::MOVED_PERMANENTLY | S::FOUND | S::SEE_OTHER | S::TEMPORARY_REDIRECT | S::PERMANENT_REDIRECT
    );
    is_redirect.then(|| {
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or("a redirect without a location")?;
        let next = from.join(location).map_err(|error| format!("a redirect to {location:?}: {error}"))?;
        match (from.scheme(), next.scheme()) {
            ("https", "https") | ("http", "http" | "https") => Ok(next),
            (from, next) => Err(format!("a redirect from {from} to {next}")),
        }
    })
}

/// True if secrets may be sent to the token server `realm` that a registry at `endpoint` names: by HTTPS, or to the
/// very host that speaks HTTP anyway, or within this machine.
pub(super) fn is_safe_realm(endpoint: &Endpoint, realm: &Url) -> bool {
    let host = realm.host_str().unwrap_or_default();
    let same_host = endpoint.host.rsplit_once(':').map_or(endpoint.host.as_str(), |(name, _)| name) == host;
    realm.scheme() == "https"
        || (realm.scheme() == "http"
            && endpoint.scheme == "http"
            && (same_host || (is_loopback(host) && is_loopback(&endpoint.host))))
}

/// `skip_verify = true`: an administrator's own decision for one host.
mod anyone {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct Anyone(pub(super) Arc<CryptoProvider>);

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_proxy_is_not_printed() {
        let proxies = Proxies { https: Some("http://me:secret@proxy:3128".into()), ..Proxies::default() };
        let text = format!("{proxies:?}");
        assert!(text.contains("***@proxy:3128") && !text.contains("secret"), "{text}");
    }
}
