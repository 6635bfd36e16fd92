//! Pulls from registries that break, lie, limit and redirect.

use tests::images::{Blob, Compression, Image, Layer};

use crate::registry_server::{Reply, Server, Store};

/// Larger than what fits into any buffer on the way, and hard to compress.
fn content() -> Vec<u8> {
    let mut state = 1_u32;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..600_000).map(step).collect()
}

fn layer() -> Blob {
    Layer::new().dir("etc", 0o755).file("etc/content", 0o644, content()).finish(Compression::Gzip)
}

fn image() -> Image {
    Image::new(vec![layer()], &["/bin/true"])
}

fn is_layer(path: &str) -> bool {
    path.ends_with(&layer().digest)
}

#[track_caller]
fn is_whole(store: &Store) {
    assert_eq!(store.file("etc/content"), content());
}

#[test]
fn a_tag_names_the_image_and_a_digest_does_not() {
    let image = image();
    let server = Server::honest(&[("app:1", &image)]);
    let store = Store::new();
    assert_eq!(store.pull(&format!("{}/app@{}", server.host, image.digest())).success().trim(), image.id());
    assert_eq!(store.images()[0]["repoTags"], serde_json::json!([]));
    store.pull(&format!("{}/app:1", server.host)).success();
    let images = store.images();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0]["repoTags"], serde_json::json!([format!("{}/app:1", server.host)]));
    assert_eq!(images[0]["repoDigests"], serde_json::json!([format!("{}/app@{}", server.host, image.digest())]));
    assert_eq!(server.requests_for(&layer().digest).len(), 1, "the layer was downloaded twice");
    is_whole(&store);
}

#[test]
fn a_broken_download_is_resumed_where_it_broke() {
    let server = Server::start(&[("app:1", &image())], |request, before, reply| match before {
        0 if is_layer(request.path()) => reply.cut(100_000),
        1 if is_layer(request.path()) => reply.cut(200_000),
        _ => reply,
    });
    let store = Store::new();
    store.pull(&format!("{}/app:1", server.host)).success();
    let ranges: Vec<String> =
        server.requests_for(&layer().digest).iter().map(|request| request.header("range").to_owned()).collect();
    assert_eq!(ranges, ["", "bytes=100000-", "bytes=300000-"]);
    is_whole(&store);
}

#[test]
fn a_registry_without_ranges_is_read_again_from_the_start() {
    let server = Server::start(&[("app:1", &image())], |request, before, reply| {
        if !is_layer(request.path()) {
            return reply;
        }
        let whole = Reply { body: layer().bytes, ..Reply::status(200) };
        if before == 0 { whole.cut(100_000) } else { whole }
    });
    let store = Store::new();
    store.pull(&format!("{}/app:1", server.host)).success();
    is_whole(&store);
}

#[test]
fn a_resumed_download_that_starts_elsewhere_is_refused() {
    let server = Server::start(&[("app:1", &image())], |request, before, reply| match before {
        0 if is_layer(request.path()) => reply.cut(100_000),
        _ if is_layer(request.path()) => reply.with("Content-Range", "bytes 5-600000/600001"),
        _ => reply,
    });
    let text = Store::new().refusal(&format!("{}/app:1", server.host));
    assert!(text.contains("asked for bytes from 100000, it answers \"bytes 5-"), "{text}");
}

#[test]
fn a_download_that_never_comes_to_its_end_is_given_up() {
    let server = Server::start(
        &[("app:1", &image())],
        |request, _, reply| {
            if is_layer(request.path()) { reply.cut(0) } else { reply }
        },
    );
    let text = Store::new().refusal(&format!("{}/app:1", server.host));
    assert!(text.contains(&format!("get layer {}", layer().digest)), "{text}");
    assert!(server.requests_for(&layer().digest).len() <= 5);
}

#[test]
fn a_registry_that_lies_about_lengths_is_refused() {
    for (length, want) in
        [(layer().bytes.len() + 1, "but the manifest says"), (layer().bytes.len() - 1, "but the manifest says")]
    {
        let server = Server::start(&[("app:1", &image())], move |request, _, reply| match is_layer(request.path()) {
            true => {
                let mut body = reply.body.clone();
                body.resize(length, 0);
                Reply { body, ..reply }
            }
            false => reply,
        });
        let text = Store::new().refusal(&format!("{}/app:1", server.host));
        assert!(text.contains(want) && text.contains(&server.host), "{text}");
    }
}

#[test]
fn wrong_content_is_named_and_leaves_nothing() {
    let spoil = |mut reply: Reply| {
        let middle = reply.body.len() / 2;
        reply.body[middle] ^= 0xff;
        reply
    };
    let image = image();
    for (part, want) in [
        (layer().digest, "the registry sent content whose digest is sha256:"),
        (tests::images::digest(&image.config_blob()), "the content's digest is sha256:"),
        (image.digest(), "the content's digest is sha256:"),
    ] {
        let wrong = part.clone();
        let server =
            Server::start(
                &[("app:1", &image)],
                move |request, _, reply| {
                    if request.path().ends_with(&wrong) { spoil(reply) } else { reply }
                },
            );
        let text = Store::new().refusal(&format!("{}/app:1", server.host));
        assert!(text.contains(want) && text.contains(&part), "{text}");
    }
}

#[test]
fn a_layer_that_is_not_what_the_config_says_is_refused() {
    let mut wrong = image();
    wrong.layers[0].diff_id = tests::images::digest(b"something else");
    let server = Server::honest(&[("app:1", &wrong)]);
    let text = Store::new().refusal(&format!("{}/app:1", server.host));
    assert!(text.contains("but the image's config says"), "{text}");
}

#[test]
fn a_registry_that_is_busy_is_asked_again() {
    let server = Server::start(&[("app:1", &image())], |_, before, reply| match before {
        0 => Reply::status(503),
        1 => Reply::status(429).with("Retry-After", "0"),
        _ => reply,
    });
    let store = Store::new();
    store.pull(&format!("{}/app:1", server.host)).success();
    is_whole(&store);
}

#[test]
fn a_rate_limit_is_told_with_its_numbers() {
    let server = Server::start(&[], |_, _, _| {
        Reply::json(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#)
            .with("RateLimit-Limit", "100;w=21600")
            .with("Retry-After", "2460")
    });
    let text = Store::new().refusal(&format!("{}/app:1", server.host));
    for part in ["limit 100 per 6 h", "resets in 41 min", "anonymous: no credentials matched", &server.host] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert_eq!(server.requests().len(), 1, "nobody waits 41 minutes, and nobody asks again before");
}

#[test]
fn credentials_stay_with_their_registry_when_it_redirects() {
    let elsewhere = Server::honest(&[("app:1", &image())]);
    let other = elsewhere.host.clone();
    let server = Server::start(&[("app:1", &image())], move |request, _, reply| {
        if request.header("authorization") != "Basic bWU6c2VjcmV0" {
            return Reply::status(401).with("WWW-Authenticate", "Basic realm=\"registry\"");
        }
        match is_layer(request.path()) {
            true => Reply::status(307).with("Location", &format!("http://{other}{}", request.target)),
            false => reply,
        }
    });
    let store = Store::new();
    store.pull_as(&format!("{}/app:1", server.host), "me:secret").success();
    is_whole(&store);
    let seen = elsewhere.requests();
    assert!(!seen.is_empty() && seen.iter().all(|request| request.header("authorization").is_empty()), "{seen:?}");
}

#[test]
fn a_place_that_we_are_sent_to_gets_no_credentials_even_if_it_asks() {
    let thief = Server::start(&[], |_, _, _| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
    let other = thief.host.clone();
    let server = Server::start(&[("app:1", &image())], move |request, _, reply| match is_layer(request.path()) {
        true => Reply::status(302).with("Location", &format!("http://{other}/x")),
        false => reply,
    });
    let done = Store::new().pull_as(&format!("{}/app:1", server.host), "me:secret");
    assert!(done.stderr.contains("redirects to a place that wants credentials"), "{}", done.stderr);
    assert!(thief.requests().iter().all(|request| request.header("authorization").is_empty()));
}

#[test]
fn redirects_end() {
    let server =
        Server::start(&[], |request, _, _| Reply::status(302).with("Location", &format!("{}x", request.target)));
    let text = Store::new().refusal(&format!("{}/app:1", server.host));
    assert!(text.contains("more than 10 redirects"), "{text}");
}

#[test]
fn wrong_credentials_are_refused_with_one_clear_error() {
    let server = Server::start(&[], |_, _, _| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
    let store = Store::new();
    let text = store.pull_as(&format!("{}/app:1", server.host), "me:secret").stderr;
    assert!(text.contains("it refuses the credentials given"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let text = store.refusal(&format!("{}/app:1", server.host));
    assert!(text.contains("wants a user name and a password, and none were given"), "{text}");
}

#[test]
fn a_registry_can_not_pass_another_manifest_off_as_the_one_asked_for() {
    let image = image();
    let other = Image::new(vec![layer()], &["/bin/false"]);
    let lie = (other.digest(), other.manifest());
    let server =
        Server::start(&[("app:1", &image)], move |request, _, reply| match request.path().contains("/manifests/") {
            true => Reply { body: lie.1.clone(), ..reply }.with("Docker-Content-Digest", &lie.0),
            false => reply,
        });
    let text = Store::new().refusal(&format!("{}/app@{}", server.host, image.digest()));
    assert!(text.contains(&format!("it answers with {}", other.digest())), "{text}");
}

#[test]
fn a_registry_without_head_or_digests_is_asked_with_get() {
    for status in [200, 405, 404] {
        let server = Server::start(&[("app:1", &image())], move |request, _, mut reply| {
            reply.headers.retain(|(name, _)| name != "Docker-Content-Digest");
            if request.method == "HEAD" { Reply { status, ..reply } } else { reply }
        });
        let store = Store::new();
        assert_eq!(store.pull(&format!("{}/app:1", server.host)).success().trim(), image().id());
    }
}

#[test]
fn documents_beyond_measure_are_not_read() {
    let server =
        Server::start(&[("app:1", &image())], |request, _, reply| match request.path().contains("/manifests/") {
            true if request.method == "GET" => Reply { body: vec![b' '; 5 << 20], ..reply },
            _ => reply,
        });
    let text = Store::new().refusal(&format!("{}/app:1", server.host));
    assert!(text.contains("longer than 4194304 bytes"), "{text}");
}

#[test]
fn a_missing_image_and_a_missing_registry_are_told_apart() {
    let server = Server::honest(&[]);
    let text = Store::new().refusal(&format!("{}/app:1", server.host));
    assert!(text.contains("get manifest 1 of app: not found (it says: manifest unknown)"), "{text}");
    let text = Store::new().refusal("127.0.0.1:1/app:1");
    assert!(text.contains("http://127.0.0.1:1: get manifest 1 of app: connect: "), "{text}");
}

#[test]
fn an_image_for_another_platform_is_named() {
    let mut arm = image();
    arm.architecture = "arm64".into();
    let server = Server::honest(&[("app:1", &arm)]);
    let text = Store::new().refusal(&format!("{}/app:1", server.host));
    assert!(text.contains("the image is for linux/arm64, this is linux/amd64"), "{text}");
}
