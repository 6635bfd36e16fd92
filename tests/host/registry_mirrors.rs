//! `certs.d`: who is asked for content, in which order, and who is trusted with what.

use tests::images::{Compression, Image, Layer};

use crate::registry_server::{Reply, Server, Store};

fn image() -> Image {
    Image::new(vec![Layer::new().file("f", 0o644, "x").finish(Compression::Gzip)], &["/f"])
}

fn mirror(host: &str, capabilities: &str) -> String {
    format!("[host.\"http://{host}\"]\n  capabilities = [{capabilities}]\n")
}

#[test]
fn a_mirror_serves_under_the_name_of_the_registry_it_stands_in_for() {
    let server = Server::honest(&[("team/app:1", &image())]);
    let store = Store::new();
    store.hosts("registry.example", &mirror(&server.host, "\"pull\", \"resolve\""));
    store.pull("registry.example/team/app:1").success();
    let images = store.images();
    assert_eq!(images[0]["repoTags"], serde_json::json!(["registry.example/team/app:1"]));
    assert_eq!(
        images[0]["repoDigests"],
        serde_json::json!([format!("registry.example/team/app@{}", image().digest())])
    );
    for request in server.requests() {
        assert!(request.target.ends_with("?ns=registry.example"), "{}", request.target);
    }
}

#[test]
fn the_next_mirror_is_asked_when_one_fails() {
    let down = "127.0.0.1:1";
    let empty = Server::honest(&[]);
    let broken = Server::start(&[], |_, _, _| Reply::status(500));
    let good = Server::honest(&[("library/app:1", &image())]);
    let store = Store::new();
    let all = "\"pull\", \"resolve\"";
    let text: String = [down, &empty.host, &broken.host, &good.host].iter().map(|host| mirror(host, all)).collect();
    store.hosts("_default", &text);
    store.pull("docker.io/app:1").success();
    assert_eq!(store.images()[0]["repoTags"], serde_json::json!(["docker.io/library/app:1"]));
    assert!(!empty.requests().is_empty() && !broken.requests().is_empty());
}

#[test]
fn when_all_fail_each_says_why() {
    let empty = Server::honest(&[]);
    let store = Store::new();
    let text = format!("server = \"http://127.0.0.1:1\"\n{}", mirror(&empty.host, "\"pull\", \"resolve\""));
    store.hosts("registry.example", &text);
    let text = store.refusal("registry.example/app:1");
    assert!(text.contains(&format!("http://{}: get manifest 1 of app: not found", empty.host)), "{text}");
    assert!(text.contains("http://127.0.0.1:1: get manifest 1 of app: connect: "), "{text}");
}

#[test]
fn a_mirror_that_may_not_resolve_is_asked_for_digests_only() {
    let server = Server::honest(&[("app:1", &image())]);
    let cache = Server::honest(&[("app:1", &image())]);
    let store = Store::new();
    let text = format!("server = \"http://{}\"\n{}", server.host, mirror(&cache.host, "\"pull\""));
    store.hosts("registry.example", &text);
    store.pull("registry.example/app:1").success();
    assert!(cache.requests_for("/manifests/1").is_empty());
    assert_eq!(cache.requests_for("/blobs/").len(), 2);
    assert!(server.requests_for("/blobs/").is_empty());
}

#[test]
fn content_that_a_mirror_spoiled_comes_from_the_next() {
    let spoiled = Server::start(&[("app:1", &image())], |request, _, mut reply| {
        if request.path().contains("/blobs/") {
            reply.body[0] ^= 0xff;
        }
        reply
    });
    let good = Server::honest(&[("app:1", &image())]);
    let store = Store::new();
    let text = format!("server = \"http://{}\"\n{}", good.host, mirror(&spoiled.host, "\"pull\", \"resolve\""));
    store.hosts("registry.example", &text);
    store.pull("registry.example/app:1").success();
    assert_eq!(store.file("f"), b"x");
}

#[test]
fn a_mirror_gets_its_own_headers_and_never_the_credentials() {
    let server = Server::start(&[("app:1", &image())], |request, _, reply| match request.header("authorization") {
        "" => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""),
        _ => reply,
    });
    let mirror = Server::start(&[], |_, _, _| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
    let store = Store::new();
    let folder = server.host.replace(':', "_") + "_";
    let text = format!(
        "[host.\"http://{}/proxy/k8s\"]\n override_path = true\n [host.\"http://{}/proxy/k8s\".header]\n x-key = \"v\"\n",
        mirror.host, mirror.host
    );
    store.hosts(&folder, &text);
    store.pull_as(&format!("{}/app:1", server.host), "me:secret").success();
    let seen = mirror.requests();
    assert!(!seen.is_empty());
    for request in seen {
        assert_eq!((request.header("authorization"), request.header("x-key")), ("", "v"));
        assert!(request.path().starts_with("/proxy/k8s/app/"), "{}", request.target);
    }
    assert!(server.requests().iter().all(|request| request.header("x-key").is_empty()));
}

#[test]
fn a_broken_hosts_toml_is_named_and_nobody_is_asked() {
    let server = Server::honest(&[("app:1", &image())]);
    let store = Store::new();
    let folder = server.host.replace(':', "_") + "_";
    store.hosts(&folder, "server = [");
    let text = store.refusal(&format!("{}/app:1", server.host));
    assert!(text.contains("hosts.toml") && text.contains("line 1"), "{text}");
    assert!(server.requests().is_empty());
    store.hosts(&folder, "");
    store.pull(&format!("{}/app:1", server.host)).success();
}

#[test]
fn the_proxy_of_the_environment_is_asked_for_what_is_not_this_machine() {
    let proxy = Server::start(&[], |_, _, _| Reply::status(404));
    let local = Server::honest(&[("app:1", &image())]);
    let store = Store::new();
    store.hosts("registry.example", "server = \"http://registry.example\"");
    let variables = [("http_proxy", format!("http://{}", proxy.host)), ("no_proxy", "other.example".to_owned())];
    let text = store.pull_with(&variables, "registry.example/app:1").stderr;
    assert!(text.contains("not found"), "{text}");
    let asked = proxy.requests();
    assert_eq!(asked[0].target, "http://registry.example/v2/app/manifests/1");
    store.pull_with(&variables, &format!("{}/app:1", local.host)).success();
    assert_eq!(proxy.requests().len(), asked.len(), "a registry on this machine is reached directly");
}
