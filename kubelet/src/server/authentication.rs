//! Who asks: a client certificate, a bearer token, or nobody in particular.
//!
//! Credentials that are shown and not good are refused even where anonymous callers are welcome. Tokens are never kept or
//! logged: the cache knows them by their hash.

use super::cache::Cache;
use super::listen::Peer;
use super::tls::ClientCa;
use crate::api::{Api, ApiError};
use crate::config::Config;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long the API server may take to say whose token it is.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// How many reviews are under way at a time; how many a second is the API client's to bound.
const REVIEWS: usize = 16;
/// Of which for one address: strangers wait behind each other, not before those who are known elsewhere.
const PER_ADDRESS: usize = 2;
/// How many tokens are remembered, and how many that are not good: making those up costs nothing.
const KEPT: usize = 1024;
const REFUSED: usize = 1024;

/// Somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

/// Why somebody is nobody. What is displayed holds no credential.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unauthenticated {
    #[error("there are no credentials")]
    Nothing,
    #[error("the client certificate is not good")]
    Certificate(#[source] rustls::Error),
    #[error("the client certificate names nobody")]
    Nameless,
    #[error("the token is not good")]
    Token,
    #[error("the API server could not say whose token it is")]
    Review(#[source] ApiError),
    #[error("the API server did not say in time whose token it is")]
    Timeout,
}

/// Finds out who asks.
pub(super) struct Authenticator {
    client_ca: Option<Arc<ClientCa>>,
    anonymous: bool,
    review: Option<Review>,
}

/// Asks the API server whose token it is.
struct Review {
    api: Arc<dyn Api>,
    keep: Duration,
    /// By the token's hash.
    kept: Cache<[u8; 32], User>,
    /// The hashes of tokens that are not good. They don't push out the good ones.
    refused: Cache<[u8; 32], ()>,
    turns: Semaphore,
    /// The turns of each address that waits for a review.
    gates: Mutex<HashMap<Option<IpAddr>, Weak<Semaphore>>>,
}

impl Authenticator {
    pub(super) fn new(config: &Config, api: Arc<dyn Api>, client_ca: Option<Arc<ClientCa>>) -> Authenticator {
        let review = config.serving.token_review.map(|keep| Review {
            api,
            keep,
            kept: Cache::new(KEPT),
            refused: Cache::new(REFUSED),
            turns: Semaphore::new(REVIEWS),
            gates: Mutex::default(),
        });
        Authenticator { client_ca, anonymous: config.serving.anonymous, review }
    }

    /// Who shows this certificate chain, or these headers.
    pub(super) async fn authenticate(&self, peer: &Peer, headers: &HeaderMap) -> Result<User, Unauthenticated> {
        let chain = &*peer.chain;
        let mut refused = None;
        if let (Some(ca), [_, ..]) = (&self.client_ca, chain) {
            match by_certificate(ca, chain) {
                Ok(user) => return Ok(authenticated(user)),
                Err(error) => refused = Some(error),
            }
        }
        if let (Some(review), Some(token)) = (&self.review, bearer(headers)) {
            return review.user(token, peer.origin).await.map(authenticated);
        }
        match refused {
            Some(error) => Err(error),
            None if self.anonymous => Ok(anonymous()),
            None => Err(Unauthenticated::Nothing),
        }
    }
}

fn anonymous() -> User {
    User {
        name: "system:anonymous".to_owned(),
        uid: None,
        groups: vec!["system:unauthenticated".to_owned()],
        extra: BTreeMap::new(),
    }
}

/// Adds the group of all whom we know.
fn authenticated(mut user: User) -> User {
    let group = "system:authenticated";
    if !user.groups.iter().any(|one| one == group) {
        user.groups.push(group.to_owned());
    }
    user
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// Common name → user, organisations → groups. Of several names the last one counts, as for the API server: to both a
/// certificate is the same user.
fn by_certificate(ca: &ClientCa, chain: &[CertificateDer<'static>]) -> Result<User, Unauthenticated> {
    ca.verify(chain).map_err(Unauthenticated::Certificate)?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0]).map_err(|_| Unauthenticated::Nameless)?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().last().and_then(|name| name.as_str().ok()).filter(|name| !name.is_empty());
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    let mut fingerprint = "X509SHA256=".to_owned();
    for byte in Sha256::digest(&chain[0]) {
        let _ = write!(fingerprint, "{byte:02x}");
    }
    Ok(User {
        name: name.ok_or(Unauthenticated::Nameless)?.to_owned(),
        uid: None,
        groups,
        extra: BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), vec![fingerprint])]),
    })
}

impl Review {
    async fn user(&self, token: &str, origin: Option<IpAddr>) -> Result<User, Unauthenticated> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.known(&key) {
            return known;
        }
        let asked = tokio::time::timeout(REVIEW_TIMEOUT, async {
            let gate = self.gate(origin);
            let _gate = gate.acquire().await.map_err(|_| Unauthenticated::Timeout)?;
            let _turn = self.turns.acquire().await.map_err(|_| Unauthenticated::Timeout)?;
            // Whoever waited with the same token has its answer now.
            if let Some(known) = self.known(&key) {
                return known;
            }
            let user = self.ask(token).await?;
            match &user {
                Some(user) => self.kept.put(key, user.clone(), self.keep),
                None => self.refused.put(key, (), self.keep),
            }
            user.ok_or(Unauthenticated::Token)
        });
        asked.await.map_err(|_| Unauthenticated::Timeout)?
    }

    /// What was said of a token before.
    fn known(&self, key: &[u8; 32]) -> Option<Result<User, Unauthenticated>> {
        let good = self.kept.get(key).map(Ok);
        good.or_else(|| self.refused.get(key).map(|()| Err(Unauthenticated::Token)))
    }

    /// The turns of an address: the same for as long as somebody from there waits.
    fn gate(&self, origin: Option<IpAddr>) -> Arc<Semaphore> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(&origin).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Semaphore::new(PER_ADDRESS));
        gates.insert(origin, Arc::downgrade(&gate));
        gate
    }

    async fn ask(&self, token: &str) -> Result<Option<User>, Unauthenticated> {
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = self.api.review_token(&review).await.map_err(Unauthenticated::Review)?;
        let status = answer.status.unwrap_or_default();
        Ok(status.user.filter(|_| status.authenticated == Some(true)).and_then(user))
    }
}

fn user(info: UserInfo) -> Option<User> {
    Some(User {
        name: info.username.filter(|name| !name.is_empty())?,
        uid: info.uid.filter(|uid| !uid.is_empty()),
        groups: info.groups.unwrap_or_default(),
        extra: info.extra.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::api::FakeApi;
    use futures_util::FutureExt as _;
    use k8s_openapi::api::authentication::v1::TokenReviewStatus;

    fn review(api: &FakeApi) -> Review {
        Review {
            api: api.api(),
            keep: Duration::from_secs(120),
            kept: Cache::new(KEPT),
            refused: Cache::new(REFUSED),
            turns: Semaphore::new(REVIEWS),
            gates: Mutex::default(),
        }
    }

    fn only_good(review: &TokenReview) -> TokenReview {
        let good = review.spec.token == "good";
        let user = UserInfo { username: Some("scraper".to_owned()), ..UserInfo::default() };
        let status = TokenReviewStatus { authenticated: Some(good), user: Some(user), ..TokenReviewStatus::default() };
        TokenReview { status: Some(status), ..review.clone() }
    }

    #[tokio::test]
    async fn tokens_of_strangers_do_not_push_out_a_good_one() {
        let api = FakeApi::new();
        api.state().token_review = Some(only_good);
        let review = review(&api);
        assert_eq!(review.user("good", None).await.unwrap().name, "scraper");
        for stranger in 0..2 * KEPT {
            assert!(matches!(review.user(&stranger.to_string(), None).await, Err(Unauthenticated::Token)));
        }
        api.fail("review_token", [ApiError::Unavailable("connection refused".to_owned())]);
        review.user("good", None).await.expect("it is still known");
    }

    #[tokio::test]
    async fn strangers_of_one_address_wait_behind_each_other_alone() {
        let review = review(&FakeApi::new());
        let stranger = Some(IpAddr::from([192, 0, 2, 1]));
        let (one, same) = (review.gate(stranger), review.gate(stranger));
        let _held = one.acquire_many(u32::try_from(PER_ADDRESS).unwrap()).await.unwrap();
        assert_eq!(same.available_permits(), 0);
        assert_eq!(review.gate(Some(IpAddr::from([192, 0, 2, 2]))).available_permits(), PER_ADDRESS);
        assert!(review.user("x", stranger).now_or_never().is_none(), "it waits");
        assert_eq!(review.turns.available_permits(), REVIEWS, "and takes nobody's turn");
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("BEARER abc", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("abc", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, header.parse().unwrap());
            assert_eq!(bearer(&headers), token, "{header:?}");
        }
    }
}
