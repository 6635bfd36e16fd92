//! A GET request.
//!
//! A container decides what a probe is answered, so a probe is a way to make the kubelet, which sits in the host's network,
//! ask something of somebody else. Therefore a redirect is followed on the same host only, as upstream does; another host
//! is never connected to, and the pod is told so by an event. No proxy, no cookies, no connection is used twice, and no
//! more than 10 KiB of a body are read.

mod exchange;
mod tls;

pub(in crate::probes) use tls::Tls;

use super::{Answer, USER_AGENT, join_host_port};
use exchange::Failed;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT as AGENT};
use http::{HeaderMap, StatusCode};
use k8s_openapi::api::core::v1::HTTPGetAction;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// How often a redirect is followed.
const MAX_REQUESTS: usize = 10;

/// What is asked, and where.
#[derive(Debug, Clone)]
pub(in crate::probes) struct Request {
    target: Target,
    headers: HeaderMap,
}

/// A URL that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    url: Url,
    port: u16,
}

/// A response, its body cut.
#[derive(Debug)]
pub(super) struct Response {
    status: StatusCode,
    location: Option<HeaderValue>,
    body: String,
}

/// What to do with a response.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Done(Answer),
    Ask(Target),
    Stop(String),
}

impl Request {
    pub(super) fn new(get: &HTTPGetAction, host: &str, port: u16) -> Result<Request, String> {
        let scheme = get.scheme.as_deref().filter(|scheme| !scheme.is_empty()).unwrap_or("http").to_lowercase();
        let target = Target::new(&scheme, host, port, get.path.as_deref().unwrap_or_default())?;
        let mut headers = HeaderMap::new();
        for header in get.http_headers.iter().flatten() {
            let name = HeaderName::from_bytes(header.name.as_bytes())
                .map_err(|_| format!("net/http: invalid header field name {:?}", header.name))?;
            let value = HeaderValue::from_bytes(header.value.as_bytes())
                .map_err(|_| format!("net/http: invalid header field value for {:?}", header.name))?;
            headers.append(name, value);
        }
        Ok(Request { target, headers: complete(headers) })
    }

    /// Asks: yes is a status of 200 to 399.
    pub(super) async fn ask(&self, tls: &Tls, timeout: Duration) -> Answer {
        let deadline = Instant::now() + timeout;
        let mut target = self.target.clone();
        for number in 1.. {
            let headers = self.headers_for(&target);
            let response = match exchange::get(&target, headers, tls, deadline).await {
                Ok(response) => response,
                Err(Failed::Asking(why)) => return failure(&target, &why),
                // Upstream asks again for an answer that breaks off, and calls it errored in the end.
                Err(Failed::Reading(why)) => return Answer::Errored { state: "failure", message: why },
            };
            target = match judge(&self.target, &target, &response, number) {
                Next::Done(answer) => return answer,
                Next::Stop(why) => return failure(&target, &why),
                Next::Ask(next) => next,
            };
        }
        unreachable!("`judge` ends it after {MAX_REQUESTS} requests")
    }

    /// The pod's headers, with the name of the host that is asked where the pod gives none.
    fn headers_for(&self, target: &Target) -> HeaderMap {
        let mut headers = self.headers.clone();
        if !headers.contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(&target.authority())
        {
            headers.insert(HOST, host);
        }
        headers
    }
}

/// What follows from a response to the `number`th request, the first of which went to `first`.
fn judge(first: &Target, asked: &Target, response: &Response, number: usize) -> Next {
    let status = response.status.as_u16();
    match (redirect(asked, response), status) {
        (Some(Err(why)), _) => Next::Stop(why),
        (Some(Ok(next)), _) if next.url.host() == first.url.host() => {
            if number >= MAX_REQUESTS {
                return Next::Stop(format!("stopped after {MAX_REQUESTS} redirects"));
            }
            Next::Ask(next)
        }
        (_, 300..400) => {
            Next::Done(Answer::Warning(format!("Probe terminated redirects, Response body: {}", response.body)))
        }
        (_, 200..300) => Next::Done(Answer::Success),
        // The body is the container's: it does not go into the event.
        _ => Next::Done(Answer::Failure(format!("HTTP probe failed with statuscode: {status}"))),
    }
}

/// Where a response sends us, if it does.
fn redirect(asked: &Target, response: &Response) -> Option<Result<Target, String>> {
    if !matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.location.as_ref().filter(|location| !location.is_empty())?;
    let text = String::from_utf8_lossy(location.as_bytes());
    Some(asked.join(&text).map_err(|why| format!("failed to parse Location header {text:?}: {why}")))
}

/// Adds what every probe sends.
fn complete(mut headers: HeaderMap) -> HeaderMap {
    if !headers.contains_key(AGENT) {
        headers.insert(AGENT, HeaderValue::from_static(USER_AGENT));
    }
    match headers.get(ACCEPT) {
        None => {
            headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        }
        // A way to send none.
        Some(value) if value.is_empty() => {
            headers.remove(ACCEPT);
        }
        Some(_) => {}
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers
}

fn failure(target: &Target, why: &str) -> Answer {
    Answer::Failure(format!("Get \"{target}\": {why}"))
}

impl Target {
    fn new(scheme: &str, host: &str, port: u16, path: &str) -> Result<Target, String> {
        if !matches!(scheme, "http" | "https") {
            return Err(format!("unsupported protocol scheme {scheme:?}"));
        }
        let root = format!("{scheme}://{}/", join_host_port(host, port));
        let base = Url::parse(&root).map_err(|error| format!("parse {root:?}: {error}"))?;
        // A path may come with a scheme and a host; upstream replaces both.
        let mut url = base.join(path).ok().filter(|url| url.has_host()).unwrap_or_else(|| base.clone());
        if url.origin() != base.origin() {
            let (path, query) = (url.path().to_owned(), url.query().map(str::to_owned));
            url = base;
            url.set_path(&path);
            url.set_query(query.as_deref());
        }
        Ok(Target { url, port })
    }

    fn join(&self, location: &str) -> Result<Target, String> {
        let url = self.url.join(location).map_err(|error| error.to_string())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("unsupported protocol scheme {:?}", url.scheme()));
        }
        let port = url.port_or_known_default().ok_or("no port")?;
        Ok(Target { url, port })
    }

    fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    fn authority(&self) -> String {
        join_host_port(self.host(), self.port)
    }

    /// What the request line says.
    fn path(&self) -> String {
        match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        }
    }

    fn encrypted(&self) -> bool {
        self.url.scheme() == "https"
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.url.scheme(), self.authority(), self.path())
    }
}

#[cfg(test)]
mod tests;
