//! May they: every request becomes a verb on `nodes/<name>/<subresource>`, which the API server's RBAC knows.
//!
//! The table is upstream's (pkg/kubelet/server/auth.go), but for one thing. Upstream takes the verb from the HTTP method
//! alone, and streams are opened with GET, so whoever may `get` nodes/proxy (many monitoring roles do) may run commands in
//! every pod of the node (kubernetes PR #136550). Here what runs, attaches or forwards is always `create`.

use super::authentication::User;
use super::cache::Cache;
use crate::api::{Api, ApiError};
use crate::config::{AccessReview, Config};
use axum::http::Method;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long the API server may take.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
const REVIEWS: usize = 16;
const KEPT: usize = 4096;
/// A question longer than this is not worth keeping: its user has thousands of groups.
const LONGEST_KEY: usize = 10_000;

/// What a request wants: the verb, and the subresources of which any one suffices, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) verb: &'static str,
    pub(super) subresources: &'static [&'static str],
}

impl Attributes {
    /// Of a request's method and path.
    pub(super) fn of(method: &Method, path: &str) -> Attributes {
        let below =
            |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let runs = ["/exec", "/attach", "/run", "/portForward"].into_iter().any(below);
        let subresources: &[&str] = if below("/pods") || below("/runningpods") {
            &["pods", "proxy"]
        } else if below("/healthz") {
            &["healthz", "proxy"]
        } else if below("/configz") {
            &["configz", "proxy"]
        } else if below("/stats") {
            &["stats"]
        } else if below("/metrics") {
            &["metrics"]
        } else if below("/logs") {
            &["log"]
        } else if below("/checkpoint") {
            &["checkpoint"]
        } else if below("/statusz") {
            &["statusz"]
        } else if below("/flagz") {
            &["configz"]
        } else {
            &["proxy"]
        };
        Attributes { verb: if runs { "create" } else { verb(method) }, subresources }
    }

    /// The text of a refusal, upstream's.
    pub(super) fn forbidden(&self, user: &str) -> String {
        format!(
            "Forbidden (user={user}, verb={}, resource=nodes, subresource(s)=[{}])\n",
            self.verb,
            self.subresources.join(" ")
        )
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("Authorization error (user={user}, verb={verb}, resource=nodes, subresource={subresource})")]
pub(super) struct Unanswered {
    user: String,
    verb: &'static str,
    subresource: &'static str,
    #[source]
    source: ReviewError,
}

#[derive(Debug, thiserror::Error)]
enum ReviewError {
    #[error("the API server did not answer in time")]
    Timeout,
    #[error(transparent)]
    Api(ApiError),
}

/// Asks the API server, and keeps its answers.
pub(super) struct Authorizer {
    api: Arc<dyn Api>,
    node: String,
    /// `None` allows everything.
    review: Option<AccessReview>,
    kept: Cache<String, bool>,
    turns: Semaphore,
}

impl Authorizer {
    pub(super) fn new(config: &Config, api: Arc<dyn Api>) -> Authorizer {
        Authorizer {
            api,
            node: config.node_name.clone(),
            review: config.serving.access_review,
            kept: Cache::new(KEPT),
            turns: Semaphore::new(REVIEWS),
        }
    }

    /// Whether `user` may.
    pub(super) async fn allows(&self, user: &User, wanted: &Attributes) -> Result<bool, Unanswered> {
        let Some(keep) = self.review else { return Ok(true) };
        for subresource in wanted.subresources {
            let allowed = self.review(user, wanted.verb, subresource, keep).await.map_err(|source| Unanswered {
                user: user.name.clone(),
                verb: wanted.verb,
                subresource,
                source,
            })?;
            if allowed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn review(
        &self,
        user: &User,
        verb: &str,
        subresource: &str,
        keep: AccessReview,
    ) -> Result<bool, ReviewError> {
        let spec = self.question(user, verb, subresource);
        // An answer to a question that can't be written is not kept: it would be everybody's.
        let key = serde_json::to_string(&spec).ok().filter(|key| key.len() <= LONGEST_KEY);
        if let Some(kept) = key.as_ref().and_then(|key| self.kept.get(key)) {
            return Ok(kept);
        }
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let asked = async {
            let _turn = self.turns.acquire().await.map_err(|_| ReviewError::Timeout)?;
            self.api.review_access(&review).await.map_err(ReviewError::Api)
        };
        let answer = tokio::time::timeout(REVIEW_TIMEOUT, asked).await.map_err(|_| ReviewError::Timeout)??;
        let status = answer.status.unwrap_or_default();
        let allowed = status.allowed && status.denied != Some(true);
        if let Some(key) = key {
            self.kept.put(key, allowed, if allowed { keep.allowed } else { keep.denied });
        }
        Ok(allowed)
    }

    fn question(&self, user: &User, verb: &str, subresource: &str) -> SubjectAccessReviewSpec {
        SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                version: Some("v1".to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(subresource.to_owned()),
                name: Some(self.node.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        }
    }
}
