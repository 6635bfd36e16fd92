//! No credential in a log, at the highest verbosity.

use super::authorities::Identity;
use super::http::Client;
use super::{DENIED, Served};
use crate::api::ApiError;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const CANARY: &str = "canary-0123456789abcdef";

/// Keeps everything that anybody logs.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<String>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Everything {
    fn add(&self, metadata: &Metadata<'_>, record: impl FnOnce(&mut Fields<'_>)) {
        let mut text = self.0.lock().unwrap();
        let _ = write!(text, "\n{} {}", metadata.level(), metadata.target());
        record(&mut Fields(&mut text));
    }
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.add(span.metadata(), |fields| span.record(fields));
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Fields(&mut self.0.lock().unwrap()));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        self.add(event.metadata(), |fields| event.record(fields));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn no_token_and_no_key_is_ever_logged() {
    let logged = Everything::default();
    let subscribed = tracing::subscriber::set_default(logged.clone());
    let served = Served::start().await;
    // Refused, unanswered, forbidden, over both protocols.
    served.client(Some(CANARY)).await.send("GET", &format!("/pods?token={CANARY}")).await;
    served.api.fail("review_token", [ApiError::Unavailable("connection refused".to_owned())]);
    served.client(Some(&format!("{CANARY}-2"))).await.send("GET", "/pods").await;
    Client::tls_two(served.address).await.with_token(Some(CANARY)).send("GET", "/exec/ns/web/c").await;
    served.client(Some(DENIED)).await.send("GET", "/pods").await;
    let stranger: Identity = super::Authority::new("other").client("x", None);
    Client::tls(served.address, Some(stranger)).await.send("GET", "/pods").await;
    drop(subscribed);
    let logged = logged.0.lock().unwrap();
    assert!(logged.contains("a request was not authenticated"), "the log is caught: {logged}");
    assert!(logged.contains("could not be authenticated"), "{logged}");
    for secret in [CANARY, DENIED, "PRIVATE KEY"] {
        let line = logged.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}
