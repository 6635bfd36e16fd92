//! One repository at all the places that may serve it, for the time of one pull.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::mpsc;

use super::error::RegistryError;
use super::hosts::{self, Endpoint, HostsError};
use super::token::{Asking, Tokens};
use super::transport::{Request, Transport, protocol};
use super::{body, challenge, retry};
use crate::credentials::Credentials;
use crate::digest::{Algorithm, Digest};
use crate::manifest::{ACCEPT, Descriptor, MAX_DOCUMENT};
use crate::reference::Reference;

/// A broken download that brought nothing new this often in a row is given up on.
const MAX_FRUITLESS: u32 = 3;

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) digest: Digest,
    /// As the registry says it; empty if it does not.
    pub(crate) media_type: String,
    /// The document, where the registry could only be asked for all of it.
    pub(crate) document: Option<Bytes>,
}

/// A repository, its endpoints, and who asks.
pub(crate) struct Session {
    transport: Arc<Transport>,
    tokens: Arc<Tokens>,
    reference: Reference,
    endpoints: Vec<Endpoint>,
    credentials: Option<Credentials>,
}

impl Session {
    /// Reads where `reference` may be served from.
    pub(crate) fn new(
        transport: Arc<Transport>,
        tokens: Arc<Tokens>,
        reference: &Reference,
        credentials: Option<Credentials>,
        hosts_dirs: &[std::path::PathBuf],
    ) -> Result<Self, HostsError> {
        let endpoints = hosts::endpoints(reference.host(), hosts_dirs)?;
        Ok(Self { transport, tokens, reference: reference.clone(), endpoints, credentials })
    }

    /// Asks what the reference means, with a HEAD: registries do not count those against limits, and it proves that
    /// the caller may have the image even if all of it is here already.
    pub(crate) async fn resolve(&self) -> Result<Resolved, RegistryError> {
        let by_tag = self.reference.digest().is_none();
        let able = |endpoint: &&Endpoint| match by_tag {
            true => endpoint.capabilities.resolve,
            false => endpoint.capabilities.pull,
        };
        let capability = if by_tag { "resolve" } else { "pull" };
        self.first_of(able, capability, |endpoint, is_last| self.resolve_at(endpoint, is_last)).await
    }

    /// The manifest or index `digest`, verified.
    pub(crate) async fn manifest(&self, digest: &Digest) -> Result<(Bytes, String), RegistryError> {
        let what = &format!("get manifest {digest}");
        self.first_of(
            |endpoint| endpoint.capabilities.pull,
            "pull",
            |endpoint, is_last| async move {
                let request = self.request(endpoint, Method::GET, "manifests", digest.as_str(), what);
                let response = self.send(endpoint, &request, is_last).await?;
                let media_type = media_type(&response);
                Ok((self.document(response, digest, what).await?, media_type))
            },
        )
        .await
    }

    /// A small blob, verified.
    pub(crate) async fn document_blob(&self, descriptor: &Descriptor) -> Result<Bytes, RegistryError> {
        let what = &format!("get blob {}", descriptor.digest);
        self.first_of(
            |endpoint| endpoint.capabilities.pull,
            "pull",
            |endpoint, is_last| async move {
                let request = self.request(endpoint, Method::GET, "blobs", descriptor.digest.as_str(), what);
                let response = self.send(endpoint, &request, is_last).await?;
                self.document(response, &descriptor.digest, what).await
            },
        )
        .await
    }

    /// How many endpoints may serve blobs.
    pub(crate) fn blob_endpoints(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.capabilities.pull).count()
    }

    /// Sends the blob's bytes to `sink`, resuming where a connection breaks. The first `skip` endpoints are passed
    /// over: what came from them was wrong. Returns which endpoint sent the first byte, and so is the first that may have
    /// spoiled the blob; the digest is the receiver's to check.
    ///
    /// Ends early, without an error, if the receiver is gone: it has its own.
    pub(crate) async fn blob(
        &self,
        descriptor: &Descriptor,
        skip: usize,
        sink: mpsc::Sender<Bytes>,
        arrived: impl Fn(u64),
    ) -> Result<usize, RegistryError> {
        let mut download = Download { descriptor, sink, arrived, offset: 0 };
        let able: Vec<&Endpoint> = self.endpoints.iter().filter(|e| e.capabilities.pull).collect();
        let mut errors = Vec::new();
        let mut first = None;
        for (at, endpoint) in able.iter().enumerate().skip(skip) {
            let sent = self.blob_from(endpoint, at + 1 == able.len(), &mut download).await;
            if download.offset > 0 {
                first = first.or(Some(at));
            }
            match sent {
                Ok(()) => return Ok(first.unwrap_or(at)),
                Err(error) => errors.push(error),
            }
        }
        Err(if errors.is_empty() { self.no_endpoint("pull") } else { RegistryError::of_all(errors) })
    }

    async fn blob_from<F: Fn(u64)>(
        &self,
        endpoint: &Endpoint,
        is_last: bool,
        download: &mut Download<'_, F>,
    ) -> Result<(), RegistryError> {
        let what = format!("get layer {}", download.descriptor.digest);
        let mut fruitless = 0;
        loop {
            let before = download.offset;
            let mut request = self.request(endpoint, Method::GET, "blobs", download.descriptor.digest.as_str(), &what);
            if before > 0 {
                let range = HeaderValue::try_from(format!("bytes={before}-"));
                request.headers.insert(header::RANGE, range.unwrap_or(HeaderValue::from_static("bytes=0-")));
            }
            let response = self.send(endpoint, &request, is_last).await?;
            let Err(error) = download.copy(response, self.transport.stall_timeout(), &what).await else {
                return Ok(());
            };
            fruitless = if download.offset > before { 1 } else { fruitless + 1 };
            if !error.is_transient() || fruitless >= MAX_FRUITLESS {
                return Err(error);
            }
            tracing::debug!(%error, offset = download.offset, "download broke, resuming");
            if let Some(delay) = retry::delay(&error, fruitless, is_last, retry::random()) {
                wait(delay).await;
            }
        }
    }

    async fn resolve_at(&self, endpoint: &Endpoint, is_last: bool) -> Result<Resolved, RegistryError> {
        let name = match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => digest.as_str(),
            (None, tag) => tag.unwrap_or("latest"),
        };
        let what = format!("get manifest {name} of {}", self.reference.path());
        let head = self.request(endpoint, Method::HEAD, "manifests", name, &what);
        let answer = self.send(endpoint, &head, is_last).await;
        if let Ok(response) = &answer
            && let Some(digest) = response.headers().get("docker-content-digest")
        {
            let digest = digest.to_str().ok().and_then(|text| text.parse::<Digest>().ok());
            let digest =
                digest.ok_or_else(|| protocol(response.url(), &what, "its Docker-Content-Digest is no digest"))?;
            self.check_asked(&digest, response.url(), &what)?;
            return Ok(Resolved { digest, media_type: media_type(response), document: None });
        }
        // No digest in the answer, no HEAD at all, or a refusal whose reason only a GET tells.
        use RegistryError::{Network, RateLimited, Stalled};
        if let Err(error @ (Network { .. } | Stalled { .. } | RateLimited { .. })) = answer {
            return Err(error);
        }
        let get = Request { method: Method::GET, ..head };
        let response = self.send(endpoint, &get, is_last).await?;
        let (media_type, url) = (media_type(&response), response.url().clone());
        let bytes = body::read(response, MAX_DOCUMENT as usize, self.transport.stall_timeout(), &what).await?;
        let algorithm = self.reference.digest().map_or(Algorithm::Sha256, Digest::algorithm);
        let mut hasher = algorithm.hasher();
        hasher.update(&bytes);
        let digest = hasher.finish();
        self.check_asked(&digest, &url, &what)?;
        Ok(Resolved { digest, media_type, document: Some(bytes.into()) })
    }

    /// Asked for a digest, a registry must not answer with another.
    fn check_asked(&self, got: &Digest, url: &Url, what: &str) -> Result<(), RegistryError> {
        match self.reference.digest() {
            Some(asked) if asked != got => Err(protocol(url, what, format!("it answers with {got}"))),
            _ => Ok(()),
        }
    }

    async fn document(&self, response: Response, digest: &Digest, what: &str) -> Result<Bytes, RegistryError> {
        let host = super::transport::origin(response.url());
        let bytes = body::read(response, MAX_DOCUMENT as usize, self.transport.stall_timeout(), what).await?;
        let mut hasher = digest.algorithm().hasher();
        hasher.update(&bytes);
        let got = hasher.finish();
        match got == *digest {
            true => Ok(bytes.into()),
            false => Err(RegistryError::WrongDigest { host, what: what.to_owned(), got }),
        }
    }

    /// The first success among the endpoints that are `able`; they are asked in order.
    // `ask` is no AsyncFn: a future that is general over the endpoint's lifetime is not known to be Send.
    async fn first_of<'a, T, F>(
        &'a self,
        able: impl Fn(&&Endpoint) -> bool,
        capability: &'static str,
        ask: impl Fn(&'a Endpoint, bool) -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let able: Vec<&Endpoint> = self.endpoints.iter().filter(able).collect();
        let mut errors = Vec::new();
        for (at, endpoint) in able.iter().enumerate() {
            match ask(endpoint, at + 1 == able.len()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => errors.push(error),
            }
        }
        Err(if errors.is_empty() { self.no_endpoint(capability) } else { RegistryError::of_all(errors) })
    }

    fn no_endpoint(&self, capability: &'static str) -> RegistryError {
        RegistryError::NoEndpoint { host: self.reference.host().to_owned(), capability }
    }

    fn request(&self, endpoint: &Endpoint, method: Method, kind: &str, name: &str, what: &str) -> Request {
        // Host, path and names were parsed, so this is a URL; a hosts.toml with a strange path is told so when sent.
        let text = format!("{}{}/{}/{kind}/{name}", endpoint.origin(), endpoint.path, self.reference.path());
        let mut url = Url::parse(&text).unwrap_or_else(|_| Url::parse("http://invalid.invalid/").expect("a constant"));
        if let Some(namespace) = &endpoint.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        let mut headers = HeaderMap::new();
        let accept = if kind == "manifests" { ACCEPT } else { "*/*" };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        Request { method, url, headers, what: what.to_owned() }
    }

    /// Sends with retries; anything that is no success is an error.
    async fn send(&self, endpoint: &Endpoint, request: &Request, is_last: bool) -> Result<Response, RegistryError> {
        let mut attempt = 1;
        loop {
            let error = match self.send_authorized(endpoint, request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            match retry::delay(&error, attempt, is_last, retry::random()) {
                None => return Err(error),
                Some(delay) => {
                    tracing::debug!(%error, ?delay, "asking again");
                    wait(delay).await;
                }
            }
            attempt += 1;
        }
    }

    /// Sends with the proof that we have; if it is refused, once more with a new one.
    async fn send_authorized(&self, endpoint: &Endpoint, request: &Request) -> Result<Response, RegistryError> {
        let credentials = self.credentials_for(endpoint);
        let slot = self.tokens.slot(endpoint, self.reference.path(), credentials);
        let proof = slot.current().await;
        let response = self.transport.send(endpoint, request, proof.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.successful(response, credentials, request).await;
        }
        if super::transport::origin(response.url()) != super::transport::origin(&request.url) {
            // Credentials are for the registry, not for wherever it sends us.
            let problem = "it redirects to a place that wants credentials".to_owned();
            return Err(self.denied(&response, request, problem, String::new()));
        }
        let challenges: Vec<_> = response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let asking = Asking {
            transport: &self.transport,
            endpoint,
            repository: self.reference.path(),
            credentials,
            what: &request.what,
        };
        let proof = slot.renew(proof.as_ref(), &challenges, &asking).await?;
        let response = self.transport.send(endpoint, request, Some(&proof)).await?;
        self.successful(response, credentials, request).await
    }

    /// Credentials go to the registry that they are for: by default the one in the image's name, never a mirror.
    fn credentials_for(&self, endpoint: &Endpoint) -> Option<&Credentials> {
        let credentials = self.credentials.as_ref()?;
        let wanted = credentials.server.as_deref().map_or(self.reference.host(), host_of);
        (api_host(wanted) == endpoint.host).then_some(credentials)
    }

    async fn successful(
        &self,
        response: Response,
        credentials: Option<&Credentials>,
        request: &Request,
    ) -> Result<Response, RegistryError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let (host, what) = (super::transport::origin(response.url()), request.what.clone());
        let headers = response.headers().clone();
        let retry_after = seconds(&headers, "retry-after");
        let url = response.url().clone();
        let body = body::read(response, 64 << 10, self.transport.stall_timeout(), &what).await.unwrap_or_default();
        let message = body::message(&body);
        Err(match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { host, what, message },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let who = if credentials.is_some() { "the credentials given" } else { "anonymous access" };
                RegistryError::Denied { host, what, problem: format!("it refuses {who}"), message }
            }
            StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited {
                host,
                what,
                limit: text(&headers, "ratelimit-limit").map(|limit| limit_in_words(&limit)),
                reset: retry_after.or(seconds(&headers, "ratelimit-reset")).or(until(&headers, "x-ratelimit-reset")),
                anonymous: credentials.is_none(),
                message,
            },
            StatusCode::RANGE_NOT_SATISFIABLE => protocol(&url, &what, "it has fewer bytes than the manifest says"),
            status => RegistryError::Status { host, what, status, message, retry_after },
        })
    }

    fn denied(&self, response: &Response, request: &Request, problem: String, message: String) -> RegistryError {
        RegistryError::Denied {
            host: super::transport::origin(response.url()),
            what: request.what.clone(),
            problem,
            message,
        }
    }
}

/// A blob on its way.
struct Download<'a, F> {
    descriptor: &'a Descriptor,
    sink: mpsc::Sender<Bytes>,
    /// Told how many bytes have arrived in all.
    arrived: F,
    offset: u64,
}

impl<F: Fn(u64)> Download<'_, F> {
    /// Passes a response on from where we are. `Ok`: all is there, or nobody wants more.
    async fn copy(&mut self, mut response: Response, stall: Duration, what: &str) -> Result<(), RegistryError> {
        let mut ignore = self.start_of(&response, what)?;
        while let Some(mut chunk) = body::chunk(&mut response, stall, what).await? {
            // A server that knows no ranges starts again at the beginning.
            let ignored = ignore.min(chunk.len() as u64);
            ignore -= ignored;
            bytes::Buf::advance(&mut chunk, usize::try_from(ignored).unwrap_or(0));
            if chunk.is_empty() {
                continue;
            }
            if self.offset + chunk.len() as u64 > self.descriptor.size {
                let problem = format!("it sends more than the {} bytes that the manifest says", self.descriptor.size);
                return Err(protocol(response.url(), what, problem));
            }
            self.offset += chunk.len() as u64;
            if self.sink.send(chunk).await.is_err() {
                return Ok(());
            }
            (self.arrived)(self.offset);
        }
        match self.offset == self.descriptor.size {
            true => Ok(()),
            false => Err(RegistryError::Status {
                host: super::transport::origin(response.url()),
                what: format!("{what}: it ends after {} of {} bytes", self.offset, self.descriptor.size),
                // What a gateway says when its upstream breaks off: to be tried again.
                status: StatusCode::BAD_GATEWAY,
                message: String::new(),
                retry_after: None,
            }),
        }
    }

    /// How many bytes to pass over, after checking that the response starts where we asked and ends where it must.
    fn start_of(&self, response: &Response, what: &str) -> Result<u64, RegistryError> {
        let wrong = |problem: String| Err(protocol(response.url(), what, problem));
        if let Some(encoding) = text(response.headers(), "content-encoding").filter(|e| e != "identity") {
            return wrong(format!("it encodes the content as {encoding:?}, which was not asked for"));
        }
        let total = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = text(response.headers(), "content-range").unwrap_or_default();
                let start = range.strip_prefix("bytes ").and_then(|r| r.split('-').next()).and_then(|s| s.parse().ok());
                if start != Some(self.offset) {
                    return wrong(format!("asked for bytes from {}, it answers {range:?}", self.offset));
                }
                response.content_length().map(|length| length + self.offset)
            }
            _ => response.content_length(),
        };
        if let Some(total) = total.filter(|total| *total != self.descriptor.size) {
            return wrong(format!("it has {total} bytes, but the manifest says {}", self.descriptor.size));
        }
        Ok(if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { self.offset })
    }
}

#[allow(clippy::disallowed_methods, reason = "a back-off is the one thing that is a wait for time")]
async fn wait(delay: Duration) {
    tokio::time::sleep(delay).await;
}

fn media_type(response: &Response) -> String {
    let value = text(response.headers(), "content-type").unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// A header that counts seconds. The other form of `Retry-After`, a date, is rare enough to be treated as absent.
fn seconds(headers: &HeaderMap, name: &str) -> Option<Duration> {
    text(headers, name)?.trim().parse().ok().map(Duration::from_secs)
}

/// A header that holds a point in time, in seconds since 1970.
fn until(headers: &HeaderMap, name: &str) -> Option<Duration> {
    let at = std::time::UNIX_EPOCH + seconds(headers, name)?;
    at.duration_since(std::time::SystemTime::now()).ok()
}

/// Docker Hub's `100;w=21600` in words.
fn limit_in_words(limit: &str) -> String {
    let window = limit.split_once(";w=").and_then(|(count, window)| Some((count, window.parse::<u64>().ok()?)));
    match window {
        Some((count, window)) if window % 3600 == 0 => format!("{count} per {} h", window / 3600),
        Some((count, window)) => format!("{count} per {window} s"),
        None => limit.to_owned(),
    }
}

/// The host of a server address, which kubelets and Docker write as host, as URL, and with a path.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Where the API of a registry lives; Docker Hub has four names.
fn api_host(host: &str) -> &str {
    match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "auth.docker.io" => "registry-1.docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses_are_compared_by_host() {
        for (server, want) in [
            ("https://index.docker.io/v1/", "registry-1.docker.io"),
            ("docker.io", "registry-1.docker.io"),
            ("http://localhost:5000/v2", "localhost:5000"),
            ("quay.io", "quay.io"),
        ] {
            assert_eq!(api_host(host_of(server)), want);
        }
    }

    #[test]
    fn limits_are_told_in_words() {
        assert_eq!(limit_in_words("100;w=21600"), "100 per 6 h");
        assert_eq!(limit_in_words("5;w=10"), "5 per 10 s");
        assert_eq!(limit_in_words("100"), "100");
    }
}
