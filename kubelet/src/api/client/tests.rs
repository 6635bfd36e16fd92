//! The client above a server that is a function.

use super::*;
use http::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::json;
use std::collections::BTreeMap;

/// Answers to the calls for a pod's objects: each path is forbidden the first times it is asked for.
#[derive(Clone, Default)]
struct Behind(Arc<Mutex<BTreeMap<String, u32>>>);

impl Behind {
    /// A client of a server that forbids everything `times` times.
    fn cluster(&self, times: u32) -> Cluster {
        let asked = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let count = {
                let mut asked = asked.0.lock().unwrap();
                let count = asked.entry(path.clone()).or_default();
                *count += 1;
                *count
            };
            ready(Ok::<_, tower::BoxError>(answer(&path, count > times)))
        });
        let client = kube::Client::new(service, "default");
        Cluster::over("n", &LIMITS, client.clone(), client)
    }

    fn asked(&self, path: &str) -> u32 {
        self.0.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

fn answer(path: &str, allowed: bool) -> Response<Body> {
    let (status, body) = match (allowed, path.ends_with("/token")) {
        (false, _) => {
            let status =
                json!({ "kind": "Status", "status": "Failure", "reason": "Forbidden", "message": "no", "code": 403 });
            (StatusCode::FORBIDDEN, status)
        }
        (true, true) => (
            StatusCode::CREATED,
            json!({ "spec": { "audiences": [] }, "status": { "token": "t", "expirationTimestamp": null } }),
        ),
        (true, false) => (StatusCode::OK, json!({ "metadata": { "name": "o" } })),
    };
    Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap()
}

const LIMITS: ApiLimits = ApiLimits { qps: 100, burst: 100, event_qps: 100, event_burst: 100 };
const TOKEN: &str = "/api/v1/namespaces/ns/serviceaccounts/robot/token";
const SECRET: &str = "/api/v1/namespaces/ns/secrets/o";
const CONFIG_MAP: &str = "/api/v1/namespaces/ns/configmaps/o";

/// Mutant: a pod that is faster than the API server's caches is told that it may not have its own token.
#[tokio::test(start_paused = true)]
async fn what_belongs_to_a_pod_is_asked_for_again_when_the_server_is_behind() {
    let server = Behind::default();
    let cluster = server.cluster(2);
    let request = TokenRequest::default();
    cluster.create_token("ns", "robot", &request).await.unwrap();
    cluster.secret("ns", "o").await.unwrap();
    cluster.config_map("ns", "o").await.unwrap();
    assert_eq!([TOKEN, SECRET, CONFIG_MAP].map(|path| server.asked(path)), [3, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_stays_forbidden_is_refused_in_the_servers_words() {
    let server = Behind::default();
    let cluster = server.cluster(u32::MAX);
    let error = cluster.secret("ns", "o").await.unwrap_err();
    assert!(matches!(&error, ApiError::Refused { status: 403, message } if message == "no"), "{error:?}");
}

/// A pod of another node, an event of a namespace that ends: to ask again would change nothing.
#[tokio::test(start_paused = true)]
async fn other_calls_are_not_repeated() {
    let server = Behind::default();
    let cluster = server.cluster(1);
    cluster.pod("ns", "p").await.unwrap_err();
    assert_eq!(server.asked("/api/v1/namespaces/ns/pods/p"), 1);
}
