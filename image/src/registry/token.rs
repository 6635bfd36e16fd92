//! Proofs of who asks: made once per registry, repository and caller, kept until they expire, never written down.
//!
//! A bearer token is asked for as Docker's registries want it: by POST (OAuth2) where there is a secret to trade, and
//! by GET where the token server knows no POST or nothing is to be traded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::error::RegistryError;
use super::hosts::Endpoint;
use super::transport::{Transport, is_safe_realm, origin, protocol};
use crate::credentials::{Credentials, Secret};
use crate::digest::Digest;

/// What a token server may send.
const MAX_TOKEN: usize = 1 << 20;
/// How long a token is good if the server does not say (distribution's token specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token that is about to expire would do so on the way.
const MARGIN: Duration = Duration::from_secs(10);
/// Proofs that are kept at most.
const MAX_KEPT: usize = 4096;

/// Whose proof for what: origin, repository, and a digest of the secret.
type Key = (String, String, Option<Digest>);

/// An `Authorization` header and how long it is good.
#[derive(Clone)]
struct Proof {
    header: HeaderValue,
    until: Option<Instant>,
}

/// The place of one proof. Locked while a new one is fetched, so that many layers ask for one token.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<tokio::sync::Mutex<Option<Proof>>>);

/// All proofs of a store.
#[derive(Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<Key, Slot>>,
}

impl Tokens {
    /// The slot for `repository` at `endpoint`, with these credentials or none.
    pub(super) fn slot(&self, endpoint: &Endpoint, repository: &str, credentials: Option<&Credentials>) -> Slot {
        let who = credentials.map(|credentials| fingerprint(&credentials.secret));
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_KEPT {
            slots.clear();
        }
        slots.entry((endpoint.origin(), repository.to_owned(), who)).or_default().clone()
    }
}

fn fingerprint(secret: &Secret) -> Digest {
    let text = match secret {
        Secret::Password { username, password } => format!("password\0{username}\0{password}"),
        Secret::Identity(token) => format!("identity\0{token}"),
        Secret::Registry(token) => format!("registry\0{token}"),
    };
    Digest::sha256(text.as_bytes())
}

/// What a proof is fetched with.
pub(super) struct Asking<'a> {
    pub(super) transport: &'a Transport,
    pub(super) endpoint: &'a Endpoint,
    pub(super) repository: &'a str,
    pub(super) credentials: Option<&'a Credentials>,
    /// What it is needed for, for messages.
    pub(super) what: &'a str,
}

impl Slot {
    /// The proof that we have, if it is still good.
    pub(super) async fn current(&self) -> Option<HeaderValue> {
        let proof = self.0.lock().await;
        proof.as_ref().filter(|proof| proof.is_good()).map(|proof| proof.header.clone())
    }

    /// A new proof after `refused` was answered with these challenges; or one that somebody else got meanwhile.
    pub(super) async fn renew(
        &self,
        refused: Option<&HeaderValue>,
        challenges: &[Challenge],
        asking: &Asking<'_>,
    ) -> Result<HeaderValue, RegistryError> {
        let mut proof = self.0.lock().await;
        if let Some(other) = proof.as_ref().filter(|proof| proof.is_good() && Some(&proof.header) != refused) {
            return Ok(other.header.clone());
        }
        *proof = None;
        let new = asking.prove(challenges).await?;
        let header = new.header.clone();
        *proof = Some(new);
        Ok(header)
    }
}

impl Proof {
    fn is_good(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }

    fn new(scheme: &str, value: &str, until: Option<Instant>) -> Option<Self> {
        let mut header = HeaderValue::try_from(format!("{scheme} {value}")).ok()?;
        header.set_sensitive(true);
        Some(Self { header, until })
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Asking<'_> {
    async fn prove(&self, challenges: &[Challenge]) -> Result<Proof, RegistryError> {
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        match (bearer, self.credentials.map(|credentials| &credentials.secret)) {
            (_, Some(Secret::Registry(token))) => {
                Proof::new("Bearer", token, None).ok_or_else(|| self.denied("the registry token is not a valid header"))
            }
            (Some(Challenge::Bearer { realm, service, scope }), secret) => {
                self.token(realm, service.as_deref(), scope.as_deref(), secret).await
            }
            (_, Some(Secret::Password { username, password })) if challenges.contains(&Challenge::Basic) => {
                Ok(basic(username, password))
            }
            (_, None) if challenges.contains(&Challenge::Basic) => {
                Err(self.denied("it wants a user name and a password, and none were given"))
            }
            (_, Some(_)) => Err(self.denied("it does not take the kind of credentials that were given")),
            (_, None) => Err(self.denied("it refuses anonymous access and does not say how to authenticate")),
        }
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        secret: Option<&Secret>,
    ) -> Result<Proof, RegistryError> {
        let url = Url::parse(realm).map_err(|_| self.denied(&format!("its token server {realm:?} is no URL")))?;
        if !is_safe_realm(self.endpoint, &url) {
            return Err(self.denied(&format!("its token server {realm:?} is not HTTPS: nothing was sent there")));
        }
        let own_scope = format!("repository:{}:pull", self.repository);
        let scope = scope.unwrap_or(&own_scope);
        let mut parameters = Vec::new();
        parameters.extend(service.map(|service| ("service", service)));
        parameters.push(("scope", scope));

        if let Some(secret) = secret {
            let answer = self.post(&url, &parameters, secret).await?;
            let knows_no_post = matches!(answer.status().as_u16(), 400 | 401 | 404 | 405);
            if !(knows_no_post && matches!(secret, Secret::Password { .. })) {
                return self.read(&url, answer).await;
            }
        }
        let answer = self.get(url.clone(), &parameters, secret).await?;
        self.read(&url, answer).await
    }

    async fn post(&self, url: &Url, parameters: &[(&str, &str)], secret: &Secret) -> Result<Response, RegistryError> {
        let mut form = parameters.to_vec();
        form.push(("client_id", "orlop"));
        match secret {
            Secret::Password { username, password } => {
                form.extend([("grant_type", "password"), ("username", username), ("password", password)]);
            }
            Secret::Identity(token) | Secret::Registry(token) => {
                form.extend([("grant_type", "refresh_token"), ("refresh_token", token)]);
            }
        }
        self.transport.ask(self.endpoint, url, Some(&form), None, self.what).await
    }

    async fn get(
        &self,
        mut url: Url,
        parameters: &[(&str, &str)],
        secret: Option<&Secret>,
    ) -> Result<Response, RegistryError> {
        url.query_pairs_mut().extend_pairs(parameters);
        let mut authorization = None;
        if let Some(Secret::Password { username, password }) = secret {
            url.query_pairs_mut().append_pair("account", username);
            authorization = Some(basic(username, password).header);
        }
        self.transport.ask(self.endpoint, &url, None, authorization, self.what).await
    }

    async fn read(&self, url: &Url, answer: Response) -> Result<Proof, RegistryError> {
        let status = answer.status();
        let body = super::body::read(answer, MAX_TOKEN, self.transport.stall_timeout(), self.what).await?;
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(RegistryError::Denied {
                host: self.endpoint.origin(),
                what: self.what.to_owned(),
                problem: format!("its token server {} refuses {}", origin(url), self.who()),
                message: super::body::message(&body),
            });
        }
        if !status.is_success() {
            let message = super::body::message(&body);
            let (host, what) = (origin(url), format!("get a token to {}", self.what));
            return Err(RegistryError::Status { host, what, status, message, retry_after: None });
        }
        let wrong = || protocol(url, self.what, "the token server's answer holds no token");
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| wrong())?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or_else(wrong)?;
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        // A server's clock decides, so the time runs from now and not from its `issued_at`.
        let until = Instant::now().checked_add(life.saturating_sub(MARGIN));
        Proof::new("Bearer", &token, until).ok_or_else(wrong)
    }

    fn who(&self) -> &'static str {
        if self.credentials.is_some() { "the credentials given" } else { "anonymous access" }
    }

    fn denied(&self, problem: &str) -> RegistryError {
        RegistryError::Denied {
            host: self.endpoint.origin(),
            what: self.what.to_owned(),
            problem: problem.to_owned(),
            message: String::new(),
        }
    }
}

fn basic(username: &str, password: &str) -> Proof {
    let encoded = STANDARD.encode(format!("{username}:{password}"));
    // Base64 is always a valid header value.
    let mut header = HeaderValue::try_from(format!("Basic {encoded}")).unwrap_or(HeaderValue::from_static("Basic"));
    header.set_sensitive(true);
    Proof { header, until: None }
}
