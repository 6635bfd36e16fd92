//! Service account tokens: bound to their pod, kept for as long as they are young, renewed before they end.

use super::error::SetUpError;
use crate::api::{Api, ApiError};
use crate::clock::Clock;
use crate::pod::{Pod, PodUid};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccountTokenProjection;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// A token is renewed after this at the latest, however long it is good for.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Tokens are renewed up to so many seconds earlier than they have to be, each at a moment of its own: the pods of a
/// node that started together don't ask together.
const MAX_JITTER: u64 = 10;
/// What a token is good for where nobody says: the API server's default.
const DEFAULT_SECONDS: i64 = 3600;

/// Which token: one per pod, audience and lifetime.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    pod: PodUid,
    account: String,
    audience: Option<String>,
    seconds: Option<i64>,
}

/// A token and its time. Has no Debug: it is a secret.
#[derive(Clone)]
struct Token {
    text: String,
    issued: Timestamp,
    expires: Timestamp,
}

impl Token {
    /// Whether four fifths of its time, or a day, are over.
    fn is_old(&self, now: Timestamp, jitter: SignedDuration) -> bool {
        let lifetime = self.expires.duration_since(self.issued);
        let fresh = (lifetime - lifetime / 5).min(MAX_AGE);
        now.duration_since(self.issued) > fresh - jitter
    }
}

/// All tokens of this node's pods. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tokens {
    clock: Clock,
    tokens: Arc<Mutex<BTreeMap<Key, Token>>>,
}

impl Tokens {
    /// None yet.
    pub(super) fn new(clock: Clock) -> Tokens {
        Tokens { clock, tokens: Arc::default() }
    }

    /// The token of a pod for a projection: the one that we have while it is young, else a new one; the old one again
    /// if there is no new one and it is still good.
    pub(super) async fn get(
        &self,
        api: &dyn Api,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
    ) -> Result<String, SetUpError> {
        let key = key(pod, source);
        let old = self.lock().get(&key).cloned();
        if let Some(token) = old.as_ref().filter(|token| !token.is_old(self.clock.now().wall, jitter(&key))) {
            return Ok(token.text.clone());
        }
        let answer = api.create_token(pod.namespace(), &key.account, &request(pod, &key)).await;
        let now = self.clock.now().wall;
        match (answer, old) {
            (Ok(answer), _) => {
                let nothing = || SetUpError::Token(ApiError::Unavailable("the answer holds no token".into()));
                let token = token(answer, now).ok_or_else(nothing)?;
                let text = token.text.clone();
                self.lock().insert(key, token);
                Ok(text)
            }
            (Err(error), Some(old)) if now < old.expires => {
                tracing::warn!(pod = %pod.uid(), error = %error, "a service account token could not be renewed yet");
                Ok(old.text)
            }
            (Err(source), Some(_)) => Err(SetUpError::TokenExpired { account: key.account, source }),
            (Err(error), None) => Err(SetUpError::Token(error)),
        }
    }

    /// Forgets the tokens of a pod that is gone.
    pub(super) fn forget(&self, uid: &PodUid) {
        self.lock().retain(|key, _| key.pod != *uid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(pod: &Pod, source: &ServiceAccountTokenProjection) -> Key {
    Key {
        pod: pod.uid().clone(),
        account: pod.spec().service_account_name.clone().unwrap_or_else(|| "default".into()),
        audience: source.audience.clone().filter(|audience| !audience.is_empty()),
        seconds: source.expiration_seconds,
    }
}

/// A token that ends with its pod.
fn request(pod: &Pod, key: &Key) -> TokenRequest {
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(pod.name().into()),
        uid: Some(pod.uid().to_string()),
    };
    let spec = TokenRequestSpec {
        audiences: Some(key.audience.clone().into_iter().collect()),
        bound_object_ref: Some(bound),
        expiration_seconds: key.seconds,
    };
    TokenRequest { spec: Some(spec), ..TokenRequest::default() }
}

/// The token of an answer. The server may have given it another lifetime than we asked for, and says which.
fn token(answer: TokenRequest, now: Timestamp) -> Option<Token> {
    let status = answer.status?;
    let seconds = answer.spec.and_then(|spec| spec.expiration_seconds).unwrap_or(DEFAULT_SECONDS);
    let lifetime = SignedDuration::from_secs(seconds);
    // A server may say any number: one that no clock can show is no lifetime.
    let expires = match status.expiration_timestamp {
        Some(time) => time.0,
        None => now.checked_add(lifetime).ok()?,
    };
    Some(Token { text: status.token?, issued: expires.checked_sub(lifetime).ok()?, expires })
}

/// The same for a token each time it is looked at, and spread over all tokens.
fn jitter(key: &Key) -> SignedDuration {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    SignedDuration::from_millis(i64::try_from(hasher.finish() % (MAX_JITTER * 1000)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::api::FakeApi;
    use crate::volumes::tests::pod_of;
    use k8s_openapi::api::authentication::v1::TokenRequestStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;
    use std::time::Duration;

    fn pod() -> Pod {
        pod_of(json!({ "containers": [], "serviceAccountName": "robot" }))
    }

    fn projection(audience: &str) -> ServiceAccountTokenProjection {
        let audience = (!audience.is_empty()).then(|| audience.to_owned());
        ServiceAccountTokenProjection { audience, expiration_seconds: Some(600), path: "token".into() }
    }

    /// A server, and tokens on a clock that follows tokio's.
    struct Fixture {
        api: FakeApi,
        tokens: Tokens,
    }

    impl Fixture {
        fn new() -> Fixture {
            let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
            Fixture { api: FakeApi::new(), tokens: Tokens::new(clock) }
        }

        async fn get(&self, audience: &str) -> Result<String, SetUpError> {
            self.tokens.get(&self.api, &pod(), &projection(audience)).await
        }

        fn unreachable(&self) {
            self.api.fail("create_token", [ApiError::Unavailable("connection refused".into())]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_of_ten_minutes_is_renewed_after_eight() {
        let fixture = Fixture::new();
        let first = fixture.get("").await.unwrap();
        let mut renewed_at = None;
        for second in 1..=600 {
            tokio::time::advance(Duration::from_secs(1)).await;
            if fixture.get("").await.unwrap() != first && renewed_at.is_none() {
                renewed_at = Some(second);
            }
        }
        let renewed_at = renewed_at.expect("the token is renewed before it ends");
        assert!((470..=481).contains(&renewed_at), "{renewed_at} s");
        assert_eq!(fixture.api.state().calls, ["create_token n/robot", "create_token n/robot"]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_audience_has_a_token_of_its_own_until_the_pod_is_gone() {
        let fixture = Fixture::new();
        let (first, second) = (fixture.get("").await.unwrap(), fixture.get("vault").await.unwrap());
        assert_ne!(first, second);
        assert_eq!(fixture.get("").await.unwrap(), first);
        fixture.tokens.forget(&PodUid::parse("other").unwrap());
        assert_eq!(fixture.get("").await.unwrap(), first);
        fixture.tokens.forget(pod().uid());
        assert_ne!(fixture.get("").await.unwrap(), first);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_token_serves_until_it_ends_when_the_server_is_away() {
        let fixture = Fixture::new();
        let first = fixture.get("").await.unwrap();
        tokio::time::advance(Duration::from_secs(500)).await;
        fixture.unreachable();
        assert_eq!(fixture.get("").await.unwrap(), first);
        tokio::time::advance(Duration::from_secs(101)).await;
        fixture.unreachable();
        let error = super::super::error::chain(&fixture.get("").await.unwrap_err());
        assert_eq!(error, "token for service account \"robot\" expired and refresh failed: connection refused");
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_token_the_servers_words_are_the_error() {
        let fixture = Fixture::new();
        fixture.api.fail("create_token", [ApiError::NotFound("serviceaccounts \"robot\" not found".into())]);
        let error = super::super::error::chain(&fixture.get("").await.unwrap_err());
        assert_eq!(error, "failed to fetch token: serviceaccounts \"robot\" not found");
    }

    #[test]
    fn a_token_is_asked_for_its_pod_and_audience() {
        let request = request(&pod(), &key(&pod(), &projection("vault")));
        let expected = json!({
            "audiences": ["vault"],
            "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u" },
            "expirationSeconds": 600,
        });
        assert_eq!(serde_json::to_value(request.spec).unwrap(), expected);
    }

    #[test]
    fn a_lifetime_beyond_all_clocks_is_no_token() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let is_one = |seconds: i64, expires: Option<Timestamp>| {
            let spec = TokenRequestSpec { expiration_seconds: Some(seconds), ..TokenRequestSpec::default() };
            let status = TokenRequestStatus { token: Some("t".into()), expiration_timestamp: expires.map(Time) };
            token(TokenRequest { spec: Some(spec), status: Some(status), ..TokenRequest::default() }, now).is_some()
        };
        assert!(is_one(600, None) && is_one(600, Some(now)));
        for seconds in [i64::MAX, i64::MIN] {
            assert!(!is_one(seconds, None) && !is_one(seconds, Some(now)), "{seconds}");
        }
    }

    #[test]
    fn a_token_is_old_after_four_fifths_of_its_time_or_a_day() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let check = |lifetime_hours: i64, age_minutes: i64, expected| {
            let expires = start + SignedDuration::from_hours(lifetime_hours);
            let token = Token { text: String::new(), issued: start, expires };
            let now = start + SignedDuration::from_mins(age_minutes);
            assert_eq!(token.is_old(now, SignedDuration::ZERO), expected, "{lifetime_hours} h, {age_minutes} min");
        };
        check(1, 48, false);
        check(1, 49, true);
        check(24 * 365, 24 * 60, false);
        check(24 * 365, 24 * 60 + 1, true);
    }
}
