//! Watches that are resumed, begun again and given up.

use super::*;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::Status;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// What the server does next.
enum Step {
    List(Result<(Vec<&'static str>, &'static str), u16>),
    /// Takes the question and never answers.
    Silence,
    Watch(Result<Vec<serde_json::Value>, u16>),
}

/// A server that does as it is told, and notes what it was asked.
#[derive(Clone)]
struct Script(Arc<Mutex<(VecDeque<Step>, Vec<String>)>>);

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Script {
        Script(Arc::new(Mutex::new((steps.into_iter().collect(), Vec::new()))))
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().1.clone()
    }

    fn next(&self, question: String) -> Option<Step> {
        let mut inner = self.0.lock().unwrap();
        inner.1.push(question);
        inner.0.pop_front()
    }
}

fn refusal(code: u16) -> kube::Error {
    kube::Error::Api(Status::failure("no", "No").with_code(code).boxed())
}

fn object(name: &str, version: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "resourceVersion": version}})
}

impl Lists<ConfigMap> for Script {
    async fn list(&self) -> Result<(Vec<ConfigMap>, String), kube::Error> {
        match self.next("list".to_owned()) {
            Some(Step::List(Ok((names, version)))) => {
                let all = names.iter().map(|name| serde_json::from_value(object(name, version)).unwrap()).collect();
                Ok((all, version.to_owned()))
            }
            Some(Step::List(Err(code))) => Err(refusal(code)),
            Some(Step::Watch(_)) => panic!("a list instead of a watch"),
            Some(Step::Silence) | None => std::future::pending().await,
        }
    }

    async fn watch(&self, version: &str) -> Result<Events<ConfigMap>, kube::Error> {
        match self.next(format!("watch {version}")) {
            Some(Step::Watch(Ok(events))) => {
                let events: Vec<_> =
                    events.into_iter().map(|event| Ok(serde_json::from_value(event).unwrap())).collect();
                Ok(stream::iter(events).boxed())
            }
            Some(Step::Watch(Err(code))) => Err(refusal(code)),
            Some(Step::List(_)) => panic!("a watch instead of a list"),
            Some(Step::Silence) | None => std::future::pending().await,
        }
    }
}

/// What a listener is told while the server does these steps, and what the server was asked.
async fn check(steps: impl IntoIterator<Item = Step>, told: &[&str], asked: &[&str]) {
    let script = Script::new(steps);
    let mut seen = Box::pin(watch("things".to_owned(), script.clone()));
    let mut all = Vec::new();
    while let Ok(Some(seen)) = tokio::time::timeout(DEADLINE * 10, seen.next()).await {
        let name = |object: &ConfigMap| object.metadata.name.clone().unwrap();
        all.push(match seen {
            Seen::All(list) => format!("all {:?}", list.iter().map(name).collect::<Vec<_>>()),
            Seen::Upsert(object) => format!("upsert {}", name(&object)),
            Seen::Gone(object) => format!("gone {}", name(&object)),
            Seen::Failed(error) => format!("failed {error}"),
        });
    }
    assert_eq!(all, told);
    // Past the script's end the last question is asked again and again.
    let mut heard = script.asked();
    heard.truncate(asked.len());
    assert_eq!(heard, asked);
}

fn event(kind: &str, name: &str, version: &str) -> serde_json::Value {
    json!({"type": kind, "object": object(name, version)})
}

fn bookmark(version: &str) -> serde_json::Value {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": version}});
    json!({"type": "BOOKMARK", "object": object})
}

fn error(code: u16) -> serde_json::Value {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "m", "reason": "Expired",
                        "code": code});
    json!({"type": "ERROR", "object": status})
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_resumed_from_the_last_thing_it_said() {
    check(
        [
            Step::List(Ok((vec!["a"], "5"))),
            Step::Watch(Ok(vec![event("ADDED", "b", "6"), event("DELETED", "a", "7")])),
            Step::Watch(Ok(vec![bookmark("20")])),
        ],
        &["all [\"a\"]", "upsert b", "gone a"],
        &["list", "watch 5", "watch 7", "watch 20"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_version_is_listed_again_as_a_whole() {
    check(
        [Step::List(Ok((vec!["a", "b"], "5"))), Step::Watch(Ok(vec![error(410)])), Step::List(Ok((vec!["b"], "90")))],
        &["all [\"a\", \"b\"]", "all [\"b\"]"],
        &["list", "watch 5", "list", "watch 90"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_410_instead_of_a_watch_is_listed_again_too() {
    check(
        [Step::List(Ok((vec![], "5"))), Step::Watch(Err(410)), Step::List(Ok((vec!["c"], "9")))],
        &["all []", "all [\"c\"]"],
        &["list", "watch 5", "list", "watch 9"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_silent_and_ends_where_it_began() {
    let outage = (0..20).map(|_| Step::Watch(Err(503)));
    let steps = std::iter::once(Step::List(Ok((vec!["a"], "5")))).chain(outage);
    let steps = steps.chain([Step::Watch(Ok(vec![event("MODIFIED", "a", "6")]))]);
    let asked: Vec<_> = std::iter::once("list").chain((0..21).map(|_| "watch 5")).chain(["watch 6"]).collect();
    check(steps, &["all [\"a\"]", "upsert a"], &asked).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_first_list_hears_once_that_it_fails() {
    check(
        [Step::List(Err(403)), Step::List(Err(403)), Step::List(Err(500)), Step::List(Ok((vec!["a"], "1")))],
        &["failed no", "all [\"a\"]"],
        &["list", "list", "list", "list", "watch 1"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_asked_again() {
    check(
        [
            Step::Silence,
            Step::List(Ok((vec!["a"], "1"))),
            Step::Silence,
            Step::Watch(Ok(vec![event("ADDED", "b", "2")])),
        ],
        &["failed the API server did not answer within 60s", "all [\"a\"]", "upsert b"],
        &["list", "list", "watch 1", "watch 1", "watch 2"],
    )
    .await;
}

#[test]
fn pauses_double_up_to_ten_seconds_and_vary() {
    assert_eq!(pause(1, 500), FIRST_PAUSE);
    assert_eq!(pause(2, 500), FIRST_PAUSE * 2);
    assert_eq!(pause(99, 500), LONGEST_PAUSE);
    assert_ne!(pause(3, 0), pause(3, 999));
}
