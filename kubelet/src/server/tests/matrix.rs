//! Every route × verb × identity: the status, and what the API server was asked. The table is `matrix.txt`.

use super::authorities::Authority;
use super::http::Client;
use super::{ALLOWED, DENIED, PROXY_READER, Served};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use std::fmt::Write;

const VERBS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];

/// Every route, what does not exist, and ways around the table that must not be ways.
const PATHS: [&str; 40] = [
    "/healthz",
    "/healthz/ping",
    "/healthz/log",
    "/healthz/syncloop",
    "/healthz/other",
    "/pods",
    "/pods/",
    "/runningpods",
    "/runningpods/",
    "/stats/summary",
    "/stats",
    "/metrics",
    "/metrics/resource",
    "/metrics/cadvisor",
    "/metrics/probes",
    "/metrics/slis",
    "/configz",
    "/containerLogs/ns/web/c",
    "/containerLogs/ns/web",
    "/exec/ns/web/c",
    "/exec/ns/web/u1/c",
    "/attach/ns/web/c",
    "/attach/ns/web/u1/c",
    "/run/ns/web/c",
    "/run/ns/web/u1/c",
    "/portForward/ns/web",
    "/portForward/ns/web/u1",
    "/checkpoint/ns/web/c",
    "/logs/",
    "/logs/syslog",
    "/debug/pprof/",
    "/debug/flags/v",
    "/statusz",
    "/flagz",
    "/",
    "//exec/ns/web/c",
    "/pods/../exec/ns/web/c",
    "/%65xec/ns/web/c",
    "/EXEC/ns/web/c",
    "/podsexec",
];

/// `get pods`: the verb and the subresource.
fn asked(review: &SubjectAccessReview) -> String {
    let attributes = review.spec.resource_attributes.clone().unwrap();
    assert_eq!((attributes.resource.as_deref(), attributes.name.as_deref()), (Some("nodes"), Some("node")));
    let verb = attributes.verb.filter(|verb| !verb.is_empty()).unwrap_or("-".to_owned());
    format!("{verb} {}", attributes.subresource.unwrap())
}

#[tokio::test]
async fn every_route_verb_and_identity_is_as_the_golden_table_says() {
    let served = Served::start().await;
    served.put_running(&["hello"]);
    let certificate = |name: &str| Some(served.clients.client(name, Some("group")));
    let connect = async || {
        [
            served.client(None).await,
            served.client(Some(ALLOWED)).await,
            served.client(Some(DENIED)).await,
            served.client(Some("token-of-nobody")).await,
            Client::tls(served.address, certificate("allowed")).await,
            Client::tls(served.address, certificate("denied")).await,
        ]
    };
    let mut table = "# path, verb | anonymous, token: allowed, denied, invalid, certificate: allowed, denied | reviews of the allowed, of the denied\n".to_owned();
    for path in PATHS {
        // The connection of somebody who is not known ends after ten seconds: long for a path, not for all of them.
        let mut clients = connect().await;
        for verb in VERBS {
            let mut statuses = Vec::new();
            let mut reviews = Vec::new();
            for client in &mut clients {
                served.api.state().access_reviews.clear();
                statuses.push(client.send(verb, path).await.status.to_string());
                let asked: Vec<String> = served.api.state().access_reviews.iter().map(asked).collect();
                reviews.push(asked.join(", "));
            }
            // Whoever is not known is not asked about, and how somebody is known makes no difference.
            assert_eq!((reviews[0].as_str(), reviews[3].as_str()), ("", ""), "{verb} {path}");
            assert_eq!((&reviews[1], &reviews[2]), (&reviews[4], &reviews[5]), "{verb} {path}");
            let statuses = statuses.join(" ");
            writeln!(table, "{path} {verb} | {statuses} | {} | {}", reviews[1], reviews[2]).unwrap();
        }
    }
    let golden = include_str!("matrix.txt");
    if table != golden {
        let differs = |(new, old): &(&str, &str)| new != old;
        let first = table.lines().zip(golden.lines()).find(differs);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/server/tests/matrix.txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            sys::fs::atomic_write(path, table.as_bytes(), sys::fs::Durability::Rename, 0o644).unwrap();
        }
        panic!("not as {path} says (UPDATE_EXPECTED=1 rewrites it); first (is, was): {first:#?}");
    }
}

#[tokio::test]
async fn reading_nodes_proxy_is_not_enough_to_run_commands() {
    let served = Served::start().await;
    served.put_running(&[]);
    let mut client = served.client(Some(PROXY_READER)).await;
    for path in ["/exec/ns/web/c?command=id&output=1", "/attach/ns/web/c?output=1", "/portForward/ns/web"] {
        let reply = client.send("GET", path).await;
        assert_eq!(reply.status, 403, "{path}: {reply:?}");
    }
    assert_eq!(client.send("GET", "/containerLogs/ns/web/c").await.status, 200);
}

#[tokio::test]
async fn refusals_have_upstreams_text() {
    let served = Served::start().await;
    let mut nobody = served.client(None).await;
    assert_eq!(nobody.send("GET", "/pods").await.body, "Unauthorized");
    let mut denied = served.client(Some(DENIED)).await;
    let forbidden = "Forbidden (user=denied, verb=get, resource=nodes, subresource(s)=[pods proxy])\n";
    assert_eq!(denied.send("GET", "/pods").await.body, forbidden);
    let error = crate::api::ApiError::Unavailable("connection refused".to_owned());
    served.api.fail("review_access", [error]);
    let reply = denied.send("GET", "/metrics").await;
    let text = "Authorization error (user=denied, verb=get, resource=nodes, subresource=metrics)";
    assert_eq!((reply.status, reply.body.as_str()), (500, text));
}

#[tokio::test]
async fn certificates_that_are_not_good_are_nobody() {
    let served = Served::start().await;
    let other = Authority::new("clients");
    for (identity, why) in [
        (other.client("allowed", None), "another CA of the same name"),
        (served.clients.expired("allowed"), "expired"),
        (served.clients.server("allowed"), "not a client's"),
        (served.clients.client("", None), "names nobody"),
    ] {
        let reply = Client::tls(served.address, Some(identity)).await.send("GET", "/pods").await;
        assert_eq!((reply.status, reply.body.as_str()), (401, "Unauthorized"), "{why}");
    }
    // A token beside a certificate that is not good still counts.
    let identity = other.client("allowed", None);
    let mut client = Client::tls(served.address, Some(identity)).await.with_token(Some(ALLOWED));
    assert_eq!(client.send("GET", "/pods").await.status, 200);
}

#[tokio::test]
async fn a_certificate_names_user_and_group() {
    let served = Served::start().await;
    let identity = served.clients.client("allowed", Some("system:masters"));
    Client::tls(served.address, Some(identity)).await.send("GET", "/metrics").await;
    let review = served.api.state().access_reviews[0].clone();
    assert_eq!(review.spec.user.as_deref(), Some("allowed"));
    let groups = ["system:masters", "system:authenticated"].map(str::to_owned);
    assert_eq!(review.spec.groups.as_deref(), Some(&groups[..]));
}

#[tokio::test]
async fn anonymous_callers_are_told_apart_from_bad_credentials() {
    let served = Served::with(|config| {
        config.serving.anonymous = true;
        config.serving.access_review = None;
    })
    .await;
    assert_eq!(served.client(None).await.send("GET", "/pods").await.status, 200);
    assert_eq!(served.client(Some("token-of-nobody")).await.send("GET", "/pods").await.status, 401);
    let identity = Authority::new("other").client("allowed", None);
    assert_eq!(Client::tls(served.address, Some(identity)).await.send("GET", "/pods").await.status, 401);
}

#[tokio::test]
async fn tokens_and_accesses_are_asked_about_once() {
    let served = Served::with(|config| {
        let minutes = std::time::Duration::from_secs(60);
        config.serving.access_review = Some(crate::config::AccessReview { allowed: minutes, denied: minutes });
    })
    .await;
    for token in [ALLOWED, DENIED, "token-of-nobody"] {
        for _ in 0..3 {
            served.client(Some(token)).await.send("GET", "/metrics").await;
        }
    }
    let count = |verb: &str| served.api.state().calls.iter().filter(|call| call.starts_with(verb)).count();
    assert_eq!((count("review_token"), count("review_access")), (3, 2));
}

#[tokio::test]
async fn debugging_can_be_turned_off() {
    let served = Served::with(|config| config.debugging_handlers = false).await;
    for path in ["/exec/ns/web/c", "/run/ns/web/c", "/containerLogs/ns/web/c", "/runningpods/", "/logs/x"] {
        let reply = served.get(path).await;
        assert_eq!((reply.status, reply.body.as_str()), (405, "Debug endpoints are disabled.\n"), "{path}");
    }
    assert_eq!(served.get("/pods").await.status, 200);
    assert_eq!(served.get("/configz").await.status, 404);
}

#[tokio::test]
async fn the_health_port_serves_health_alone() {
    let served = Served::start().await;
    served.put_running(&["hello"]);
    let mut client = Client::plain(served.healthz).await;
    for path in PATHS {
        let reply = client.send("GET", path).await;
        let expected = if matches!(path.split('?').next(), Some("/healthz" | "/healthz/ping")) { 200 } else { 404 };
        assert_eq!(reply.status, expected, "{path}");
    }
}
