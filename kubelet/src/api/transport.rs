//! How requests travel to the API server: one HTTP/2 connection, credentials, a rate limit, metrics.
//!
//! HTTP/2 because every Secret and ConfigMap has a watch: over HTTP/1.1 each would be a TLS connection of its own. Pings
//! find a connection that died silently within 45 s, as in every Kubernetes client.

use super::client::ConnectError;
use crate::metrics::Metrics;
use base64::Engine as _;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// What a kubeconfig says, with its certificates loaded.
///
/// # Errors
/// What is wrong with it, without a word of its content: it holds credentials.
pub(super) async fn read(path: &Path) -> Result<kube::Config, ConnectError> {
    let refused = |reason: String| ConnectError::Kubeconfig { path: path.to_owned(), reason };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| refused(describe(&error)))?;
    let user = kubeconfig.auth_infos.iter().find_map(|user| {
        let info = user.auth_info.as_ref()?;
        let what = info.exec.as_ref().map(|_| "exec").or(info.auth_provider.as_ref().map(|_| "auth-provider"))?;
        Some(format!("user {:?} has `{what}`: give a client certificate, a token or a tokenFile", user.name))
    });
    if let Some(reason) = user {
        return Err(refused(reason));
    }
    let proxied = kubeconfig.clusters.iter().filter_map(|cluster| cluster.cluster.as_ref());
    if proxied.into_iter().any(|cluster| cluster.proxy_url.as_ref().is_some_and(|url| !url.is_empty())) {
        return Err(refused("a cluster has `proxy-url`: proxies are not supported".to_owned()));
    }
    let options = KubeConfigOptions::default();
    kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| refused(describe(&error)))
}

/// The error without what it quotes: a parser shows the line it stumbles over, which may be the one with the token.
fn describe(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(_) => "it is not valid YAML, or a field is not what it should be".to_owned(),
        KubeconfigError::ReadConfig(source, _) => format!("read it: {source}"),
        KubeconfigError::ParseClusterUrl(_) => "`server` is not a URL".to_owned(),
        KubeconfigError::LoadCertificateAuthority(_) => {
            "load the certificate authority: not readable, or not base64".to_owned()
        }
        KubeconfigError::LoadClientCertificate(_) => {
            "load the client certificate: not readable, or not base64".to_owned()
        }
        KubeconfigError::LoadClientKey(_) => "load the client key: not readable, or not base64".to_owned(),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// A client with a connection of its own, which is made when something is asked.
pub(super) fn client(config: &kube::Config, metrics: Metrics) -> Result<kube::Client, kube::Error> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let mut connector =
        hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = config.tls_server_name.clone() {
        let name =
            rustls::pki_types::ServerName::try_from(name).map_err(|error| kube::Error::Service(Box::new(error)))?;
        connector = connector.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name));
    }
    let connector = connector.enable_all_versions().wrap_connector(http);
    let client = HyperClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build::<_, Body>(connector);
    let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
    let measured = tower::service_fn(move |request| measure(client.clone(), metrics.clone(), host.clone(), request));
    let service = config.extra_headers_layer()?.layer(measured);
    let base = config.base_uri_layer();
    let namespace = config.default_namespace.clone();
    Ok(match config.auth_layer()? {
        Some(auth) => kube::Client::new(base.layer(auth.layer(service)), namespace),
        None => kube::Client::new(base.layer(service), namespace),
    })
}

/// When the client certificate ends, in seconds since 1970; `None` without one.
pub(super) fn certificate_expires(config: &kube::Config) -> Option<u64> {
    let user = &config.auth_info;
    let pem = match (&user.client_certificate_data, &user.client_certificate) {
        (Some(data), _) => base64::engine::general_purpose::STANDARD.decode(data).ok()?,
        (None, file) => std::fs::read(file.as_deref()?).ok()?,
    };
    let certificate = CertificateDer::from_pem_slice(&pem).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

type Response = http::Response<hyper::body::Incoming>;

/// One request, counted.
async fn measure<C>(
    mut client: C,
    metrics: Metrics,
    host: String,
    request: http::Request<Body>,
) -> Result<Response, BoxError>
where
    C: Service<http::Request<Body>, Response = Response>,
    C::Error: Into<BoxError>,
{
    let verb = match *request.method() {
        http::Method::GET => "GET",
        http::Method::POST => "POST",
        http::Method::PUT => "PUT",
        http::Method::PATCH => "PATCH",
        http::Method::DELETE => "DELETE",
        _ => "OTHER",
    };
    let start = Instant::now();
    let result = client.call(request).await;
    let code = result.as_ref().map_or("<error>".to_owned(), |response| response.status().as_u16().to_string());
    metrics.rest_client(verb, &host, &code, start.elapsed());
    result.map_err(Into::into)
}

/// So many calls a second on average, so many at once.
#[derive(Debug)]
pub(super) struct Throttle {
    per_second: f64,
    burst: f64,
    /// Tokens at a moment; less than none when calls wait.
    state: Mutex<(f64, Instant)>,
}

impl Throttle {
    /// `per_second` of 0 does not limit.
    pub(super) fn new(per_second: u32, burst: u32) -> Throttle {
        let burst = f64::from(burst.max(1));
        Throttle { per_second: f64::from(per_second), burst, state: Mutex::new((burst, Instant::now())) }
    }

    /// Waits for one's turn. Who gives up waiting gives the turn back: callers that come and go don't push back the others.
    pub(super) async fn turn(&self) {
        if self.per_second > 0.0
            && let Some(at) = self.take(Instant::now())
        {
            let mut waiting = Waiting { throttle: self, due: false };
            tokio::time::sleep_until(at).await;
            waiting.due = true;
        }
    }

    fn state(&self) -> MutexGuard<'_, (f64, Instant)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token; the moment from which it may be used, if that is not now.
    fn take(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let (tokens, at) = *state;
        let filled = (tokens + now.duration_since(at).as_secs_f64() * self.per_second).min(self.burst) - 1.0;
        *state = (filled, now);
        (filled < 0.0).then(|| now + Duration::from_secs_f64(-filled / self.per_second))
    }
}

/// Somebody whose turn has yet to come.
struct Waiting<'a> {
    throttle: &'a Throttle,
    due: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.due {
            self.throttle.state().0 += 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_beyond_the_burst_wait_for_their_turn() {
        let throttle = Throttle::new(10, 3);
        let start = Instant::now();
        for _ in 0..3 {
            throttle.turn().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..5 {
            throttle.turn().await;
        }
        assert!((0.499..0.51).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_give_up_waiting_do_not_push_back_the_others() {
        let throttle = Throttle::new(10, 1);
        throttle.turn().await;
        for _ in 0..1000 {
            assert!(futures_util::FutureExt::now_or_never(throttle.turn()).is_none());
        }
        let start = Instant::now();
        throttle.turn().await;
        assert!(start.elapsed() <= Duration::from_millis(101), "{:?}", start.elapsed());
    }

    async fn refused(kubeconfig: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        sys::fs::atomic_write(&path, kubeconfig.as_bytes(), sys::fs::Durability::Rename, 0o600).unwrap();
        read(&path).await.unwrap_err().to_string()
    }

    fn kubeconfig(user: &str, more: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n\
             clusters:\n- name: k\n  cluster: {{server: https://127.0.0.1:1{more}}}\nusers:\n- name: u\n  user: {user}\n"
        )
    }

    #[tokio::test]
    async fn the_end_of_the_client_certificate_is_known() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let pem = parameters.self_signed(&key).unwrap().pem();
        let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        let (certificate, key) = (encode(pem), encode(key.serialize_pem()));
        let user = format!("{{client-certificate-data: {certificate}, client-key-data: {key}}}");
        for (user, expires) in [(user.as_str(), Some(1_893_456_000)), ("{token: t}", None)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("kubeconfig");
            let text = kubeconfig(user, "");
            sys::fs::atomic_write(&path, text.as_bytes(), sys::fs::Durability::Rename, 0o600).unwrap();
            assert_eq!(certificate_expires(&read(&path).await.unwrap()), expires);
        }
    }

    #[tokio::test]
    async fn credentials_by_a_program_are_refused_by_name() {
        let text = refused(&kubeconfig("{exec: {apiVersion: client.authentication.k8s.io/v1, command: x}}", "")).await;
        assert!(text.contains("user \"u\" has `exec`"), "{text}");
    }

    #[tokio::test]
    async fn a_broken_kubeconfig_is_named_and_its_token_is_not() {
        let text = refused("users:\n- name: u\n  user: {token: [canary-token]}\n").await;
        assert!(text.contains("kubeconfig") && !text.contains("canary"), "{text}");
    }
}
