//! What `kubectl logs` gets.

use super::http::Client;
use super::{ALLOWED, Served};
use crate::runtime::{ContainerState, Exit};
use http_body_util::BodyExt;
use std::io::Write;
use std::time::Duration;

const PATH: &str = "/containerLogs/ns/web/c";

#[tokio::test]
async fn a_log_is_shown_as_the_query_says() {
    let served = Served::start().await;
    served.put_running(&["one", "two", "three"]);
    for (query, expected) in [
        ("", "one\ntwo\nthree\n"),
        ("?tailLines=1", "three\n"),
        ("?limitBytes=5", "one\nt"),
        ("?tailLines=2&timestamps=true", "2026-01-01T00:00:00.000000000Z two\n2026-01-01T00:00:00.000000000Z three\n"),
        ("?sinceTime=2026-01-01T00:00:01Z", ""),
        ("?sinceTime=2025-12-31T00:00:00Z&tailLines=1", "three\n"),
    ] {
        let reply = served.get(&format!("{PATH}{query}")).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, expected), "{query}");
        assert_eq!(reply.content_type, "text/plain; charset=utf-8");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_upstreams_words() {
    let served = Served::start().await;
    served.put_web(
        ContainerState::Created,
        serde_json::json!({ "containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ContainerCreating" } },
        }] }),
    );
    for (path, status, text) in [
        (PATH, 400, r#"container "c" in pod "web" is waiting to start: ContainerCreating"#),
        ("/containerLogs/ns/web/c?previous=true", 400, r#"previous terminated container "c" in pod "web" not found"#),
        ("/containerLogs/ns/web/x", 404, r#"container "x" not found in pod "web""#),
        ("/containerLogs/ns/no/c", 404, r#"pod "no" does not exist"#),
        ("/containerLogs/other/web/c", 404, r#"pod "web" does not exist"#),
        ("/containerLogs/ns/web/c?tailLines=-1", 422, r#"{"message": "Invalid request."}"#),
        ("/containerLogs/ns/web/c?tailLines=x", 400, r#"{"message": "Unable to decode query."}"#),
    ] {
        let reply = served.get(path).await;
        assert_eq!((reply.status, reply.body.as_str()), (status, text), "{path}");
    }
}

#[tokio::test]
async fn a_log_that_leads_out_of_its_folder_is_not_read() {
    let served = Served::start().await;
    served.put_running(&["mine"]);
    let secret = served.folder.path().join("secret");
    super::fill(&secret, b"2026-01-01T00:00:00Z stdout F secret of the host\n");
    std::fs::remove_file(served.log()).unwrap();
    std::os::unix::fs::symlink(&secret, served.log()).unwrap();
    let reply = served.get(PATH).await;
    assert_eq!(reply.status, 400);
    assert!(!reply.body.contains("secret of"), "{}", reply.body);
}

#[tokio::test]
async fn a_followed_log_ends_with_its_container() {
    let served = Served::start().await;
    let pod = served.put_running(&["one"]);
    let mut client = Client::tls_two(served.address).await.with_token(Some(ALLOWED));
    let mut body = client.open("GET", "/containerLogs/ns/web/c?follow=true").await.into_body();
    let mut next = async || {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("something in time");
        frame.map(|frame| frame.unwrap().into_data().unwrap_or_default())
    };
    assert_eq!(next().await.as_deref(), Some(&b"one\n"[..]));
    let mut log = std::fs::OpenOptions::new().append(true).open(served.log()).unwrap();
    log.write_all(b"2026-01-01T00:00:00Z stdout F two\n").unwrap();
    assert_eq!(next().await.as_deref(), Some(&b"two\n"[..]));
    served.table.update(pod.uid(), |entry| {
        let mut observed = (*entry.observed).clone();
        observed.containers[0].state = ContainerState::Exited(Exit {
            started_at: None,
            finished_at: jiff::Timestamp::UNIX_EPOCH,
            code: 0,
            reason: "Completed".to_owned(),
            message: String::new(),
        });
        entry.observed = observed.into();
    });
    assert_eq!(next().await.filter(|data| !data.is_empty()), None);
}
