//! Registries behind a token server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tests::images::{Compression, Image, Layer};

use crate::registry_server::{Reply, Request, Server, Store};

/// Three layers, so that several downloads want a token at once.
fn image() -> Image {
    let layer = |name: &str| Layer::new().file(name, 0o644, name).finish(Compression::Gzip);
    Image::new(vec![layer("a"), layer("b"), layer("c")], &["/a"])
}

/// A registry that wants `Bearer <token>` from the token server `realm`.
fn registry(realm: &str, good: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Server {
    let challenge = format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"repository:app:pull\"");
    Server::start(&[("app:1", &image())], move |request, _, reply| match good(request) {
        true => reply,
        false => Reply::status(401).with("WWW-Authenticate", &challenge),
    })
}

fn bearer(token: &'static str) -> impl Fn(&Request) -> bool {
    move |request| request.header("authorization") == format!("Bearer {token}")
}

#[test]
fn an_anonymous_token_is_fetched_once_for_the_whole_pull() {
    let tokens = Server::start(&[], |_, _, _| Reply::json(200, r#"{"token":"t1","expires_in":300}"#));
    let server = registry(&format!("http://{}/token", tokens.host), bearer("t1"));
    Store::new().pull(&format!("{}/app:1", server.host)).success();
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].method, "GET");
    assert_eq!(asked[0].target, "/token?service=reg&scope=repository%3Aapp%3Apull");
}

#[test]
fn a_secret_is_traded_by_post() {
    let tokens = Server::start(&[], |_, _, _| Reply::json(200, r#"{"access_token":"t2"}"#));
    let server = registry(&format!("http://{}/token", tokens.host), bearer("t2"));
    Store::new().pull_as(&format!("{}/app:1", server.host), "me:p&ss w/rd").success();
    let asked = &tokens.requests()[0];
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/token"));
    for part in
        ["grant_type=password", "username=me", "password=p%26ss+w%2Frd", "service=reg", "scope=repository%3Aapp%3Apull"]
    {
        assert!(asked.body.contains(part), "{part} is missing: {}", asked.body);
    }
}

#[test]
fn a_token_server_that_knows_no_post_is_asked_by_get() {
    for status in [404, 405, 400, 401] {
        let tokens = Server::start(&[], move |request, _, _| match request.method.as_str() {
            "POST" => Reply::status(status),
            _ => Reply::json(200, r#"{"token":"t3"}"#),
        });
        let server = registry(&format!("http://{}/token", tokens.host), bearer("t3"));
        Store::new().pull_as(&format!("{}/app:1", server.host), "me:secret").success();
        let asked = &tokens.requests()[1];
        assert_eq!((asked.method.as_str(), asked.header("authorization")), ("GET", "Basic bWU6c2VjcmV0"));
        assert!(asked.target.contains("account=me"), "{}", asked.target);
    }
}

#[test]
fn a_token_that_is_refused_is_renewed_once() {
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    let tokens = Server::start(&[], move |_, _, _| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::json(200, &format!(r#"{{"token":"n{number}"}}"#))
    });
    let realm = format!("http://{}/token", tokens.host);
    // The registry forgets the first token as soon as it is asked for a blob.
    let server = registry(&realm, |request| match request.path().contains("/blobs/") {
        true => request.header("authorization") == "Bearer n2",
        false => request.header("authorization").starts_with("Bearer n"),
    });
    Store::new().pull(&format!("{}/app:1", server.host)).success();
    assert_eq!(given.load(Ordering::SeqCst), 2);

    let never = registry(&realm, |_| false);
    let text = Store::new().refusal(&format!("{}/app:1", never.host));
    assert!(text.contains("it refuses anonymous access"), "{text}");
}

#[test]
fn a_token_server_that_refuses_is_named() {
    let tokens = Server::start(&[], |_, _, _| Reply::json(401, r#"{"details":"incorrect username or password"}"#));
    let server = registry(&format!("http://{}/token", tokens.host), |_| false);
    let text = Store::new().pull_as(&format!("{}/app:1", server.host), "me:secret").stderr;
    let want = format!(
        "its token server http://{} refuses the credentials given (it says: incorrect username or password)",
        tokens.host
    );
    assert!(text.contains(&want), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn no_secret_goes_to_a_token_server_in_clear_text() {
    let server = registry("http://192.0.2.1/token", |_| false);
    let text = Store::new().pull_as(&format!("{}/app:1", server.host), "me:secret").stderr;
    assert!(text.contains("is not HTTPS: nothing was sent there"), "{text}");
}

#[test]
fn a_token_that_is_no_header_or_no_token_is_refused() {
    for answer in [r#"{"token":"a\nb"}"#, r#"{"token":""}"#, "{}", "<html>"] {
        let tokens = Server::start(&[], move |_, _, _| Reply::json(200, answer));
        let server = registry(&format!("http://{}/token", tokens.host), |_| false);
        let text = Store::new().refusal(&format!("{}/app:1", server.host));
        assert!(text.contains("the token server's answer holds no token"), "{answer}: {text}");
    }
}
