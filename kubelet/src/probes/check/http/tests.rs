//! HTTP probes against servers that answer, redirect and hang.

use super::*;
use k8s_openapi::api::core::v1::HTTPHeader;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const LONG: Duration = Duration::from_secs(10);

/// A server on one address that answers each request with what `answer` makes of its head, byte for byte.
struct Server {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(ip: &str, answer: impl Fn(&str) -> String + Send + 'static) -> Server {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heads, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::default()));
        let (written, counted) = (Arc::clone(&heads), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let head = head(&mut stream).await;
                let response = answer(&head);
                written.lock().unwrap().push(head);
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        Server { port, heads, connections, task }
    }

    fn head(&self, number: usize) -> String {
        self.heads.lock().unwrap()[number].clone()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn head(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn get(path: &str, headers: &[(&str, &str)]) -> HTTPGetAction {
    let header = |(name, value): &(&str, &str)| HTTPHeader { name: (*name).to_owned(), value: (*value).to_owned() };
    HTTPGetAction {
        path: Some(path.to_owned()),
        http_headers: Some(headers.iter().map(header).collect()),
        ..HTTPGetAction::default()
    }
}

async fn ask(action: &HTTPGetAction, port: u16, timeout: Duration) -> Answer {
    Request::new(action, "127.0.0.1", port).unwrap().ask(&Tls::default(), timeout).await
}

#[track_caller]
fn check_failure(answer: &Answer, expected: &str) {
    assert_eq!(*answer, Answer::Failure(expected.to_owned()));
}

#[tokio::test]
async fn a_status_of_200_to_399_is_well_and_another_one_is_named_without_the_body() {
    for (status, expected) in [
        ("200 OK", Answer::Success),
        ("299 Odd", Answer::Success),
        ("304 Not Modified", Answer::Warning("Probe terminated redirects, Response body: ".into())),
        ("302 Found", Answer::Warning("Probe terminated redirects, Response body: secret".into())),
        ("404 Not Found", Answer::Failure("HTTP probe failed with statuscode: 404".into())),
        ("500 Oh", Answer::Failure("HTTP probe failed with statuscode: 500".into())),
    ] {
        let body = if status.starts_with("304") { "" } else { "secret" };
        let server = Server::start("127.0.0.1", move |_| response(status, "", body)).await;
        assert_eq!(ask(&get("/", &[]), server.port, LONG).await, expected, "{status}");
    }
}

#[tokio::test]
async fn a_request_looks_like_upstreams() {
    let server = Server::start("127.0.0.1", |_| response("200 OK", "", "")).await;
    let port = server.port;
    assert_eq!(ask(&get("healthz?full=1", &[]), port, LONG).await, Answer::Success);
    let expected = format!(
        "GET /healthz?full=1 HTTP/1.1\r\nUser-Agent: kube-probe/1.36\r\nAccept: */*\r\nConnection: close\r\n\
         Host: 127.0.0.1:{port}\r\n\r\n"
    );
    assert_eq!(server.head(0), expected);
    let own = [("host", "example.org"), ("USER-AGENT", "mine"), ("accept", ""), ("X-A", "1"), ("x-a", "2")];
    assert_eq!(ask(&get("/", &own), port, LONG).await, Answer::Success);
    let head = server.head(1);
    assert!(head.contains("Host: example.org\r\n") && head.contains("User-Agent: mine\r\n"), "{head}");
    assert!(head.contains("X-A: 1\r\n") && head.contains("X-A: 2\r\n") && !head.contains("Accept"), "{head}");
}

/// The sink must never hear of the probe: a container that answers with a redirect could otherwise make the kubelet ask
/// the node's own services, or the cloud's, for it. Mutant: `judge` follows whatever has a host.
#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed() {
    let sink = Server::start("127.0.0.2", |_| response("200 OK", "", "")).await;
    for location in [format!("http://127.0.0.2:{}/x", sink.port), format!("//127.0.0.2:{}/x", sink.port)] {
        for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
            let location = format!("Location: {location}\r\n");
            let server = Server::start("127.0.0.1", move |_| response(status, &location, "moved")).await;
            let answer = ask(&get("/", &[]), server.port, LONG).await;
            let warning = "Probe terminated redirects, Response body: moved";
            assert_eq!(answer, Answer::Warning(warning.to_owned()), "{status}");
        }
    }
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn a_redirect_by_way_of_the_own_host_does_not_reach_another_one() {
    let sink = Server::start("127.0.0.2", |_| response("200 OK", "", "")).await;
    let away = format!("Location: http://127.0.0.2:{}/\r\n", sink.port);
    let answer = move |head: &str| match head.starts_with("GET /first ") {
        true => response("302 Found", "Location: /second\r\n", ""),
        false => response("302 Found", &away, "away"),
    };
    let server = Server::start("127.0.0.1", answer).await;
    let warning = "Probe terminated redirects, Response body: away";
    assert_eq!(ask(&get("/first", &[]), server.port, LONG).await, Answer::Warning(warning.to_owned()));
    assert_eq!((server.connections(), sink.connections()), (2, 0));
}

#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed_ten_times() {
    let other = Server::start("127.0.0.1", |_| response("200 OK", "", "")).await;
    let location = format!("Location: http://127.0.0.1:{}/there?a=b\r\n", other.port);
    let server = Server::start("127.0.0.1", move |_| response("302 Found", &location, "")).await;
    assert_eq!(ask(&get("/", &[]), server.port, LONG).await, Answer::Success);
    assert!(other.head(0).starts_with("GET /there?a=b HTTP/1.1\r\n"), "{}", other.head(0));

    let circle = Server::start("127.0.0.1", |_| response("302 Found", "Location: again\r\n", "")).await;
    let stopped = format!("Get \"http://127.0.0.1:{}/again\": stopped after 10 redirects", circle.port);
    check_failure(&ask(&get("/", &[]), circle.port, LONG).await, &stopped);
    assert_eq!(circle.connections(), 10);

    let strange = Server::start("127.0.0.1", |_| response("302 Found", "Location: ftp://127.0.0.1/\r\n", "")).await;
    let Answer::Failure(message) = ask(&get("/", &[]), strange.port, LONG).await else { panic!() };
    assert!(message.contains("unsupported protocol scheme \"ftp\""), "{message}");
}

#[tokio::test]
async fn no_more_than_ten_kibibytes_of_a_body_are_read() {
    let endless = |_: &str| format!("HTTP/1.1 302 Found\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(20_000));
    let server = Server::start("127.0.0.1", endless).await;
    let Answer::Warning(message) = ask(&get("/", &[]), server.port, LONG).await else { panic!() };
    assert_eq!(message.matches('x').count(), 10 * 1024);
}

#[tokio::test]
async fn a_head_without_end_is_a_failure() {
    let endless = |_: &str| format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20));
    let server = Server::start("127.0.0.1", endless).await;
    let answer = ask(&get("/", &[]), server.port, LONG).await;
    assert!(matches!(answer, Answer::Failure(_)), "{answer:?}");
}

#[tokio::test]
async fn what_fails_is_told_in_gos_words() {
    let server = Server::start("127.0.0.1", |_| String::new()).await;
    let url = format!("http://127.0.0.1:{}/", server.port);
    check_failure(&ask(&get("/", &[]), server.port, LONG).await, &format!("Get \"{url}\": EOF"));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    let accepted = async {
        let connection = silent.accept().await.unwrap();
        // What comes next is the deadline.
        tokio::time::pause();
        connection
    };
    let action = get("/", &[]);
    let (answer, _connection) = tokio::join!(ask(&action, port, LONG), accepted);
    tokio::time::resume();
    check_failure(&answer, &format!("Get \"http://127.0.0.1:{port}/\": {late}"));
    let (_socket, port) = crate::probes::check::tests::closed_port();
    let refused = format!("Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused");
    check_failure(&ask(&get("/", &[]), port, LONG).await, &refused);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_not_an_answer() {
    let server = Server::start("127.0.0.1", |_| "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_owned()).await;
    let answer = ask(&get("/", &[]), server.port, LONG).await;
    assert!(matches!(answer, Answer::Errored { state: "failure", .. }), "{answer:?}");
}

#[tokio::test]
async fn tls_is_spoken_with_a_certificate_that_nobody_knows() {
    let own = rcgen::generate_simple_self_signed(vec!["nobody.invalid".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let request = head(&mut stream).await;
        stream.write_all(response("200 OK", "", "").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        request
    });
    let action = HTTPGetAction { scheme: Some("HTTPS".to_owned()), ..get("/", &[]) };
    assert_eq!(ask(&action, port, LONG).await, Answer::Success);
    assert!(task.await.unwrap().starts_with("GET / HTTP/1.1\r\n"));

    let plain = Server::start("127.0.0.1", |_| "HTTP/1.0 400 Bad Request\r\n\r\n".to_owned()).await;
    let Answer::Failure(message) = ask(&action, plain.port, Duration::from_secs(1)).await else { panic!() };
    assert!(message.starts_with(&format!("Get \"https://127.0.0.1:{}/\": ", plain.port)), "{message}");
}

#[track_caller]
fn check_url(scheme: &str, host: &str, path: &str, expected: &str) {
    assert_eq!(Target::new(scheme, host, 80, path).unwrap().to_string(), expected);
}

#[test]
fn a_path_never_chooses_the_host() {
    check_url("http", "10.0.0.7", "", "http://10.0.0.7:80/");
    check_url("http", "10.0.0.7", "/a b?c=d#e", "http://10.0.0.7:80/a%20b?c=d");
    check_url("https", "fd00::7", "?x", "https://[fd00::7]:80/?x");
    check_url("http", "10.0.0.7", "http://evil.example:81/x?y", "http://10.0.0.7:80/x?y");
    check_url("http", "10.0.0.7", "//evil.example/x", "http://10.0.0.7:80/x");
    check_url("http", "10.0.0.7", "https://10.0.0.7/x", "http://10.0.0.7:80/x");
    check_url("http", "10.0.0.7", "javascript:alert(1)", "http://10.0.0.7:80/");
}

#[test]
fn what_can_not_be_asked_is_named() {
    let of = |action: &HTTPGetAction, host| Request::new(action, host, 80).map(|_| ()).unwrap_err();
    let gopher = HTTPGetAction { scheme: Some("gopher".to_owned()), ..get("/", &[]) };
    assert_eq!(of(&gopher, "h"), "unsupported protocol scheme \"gopher\"");
    assert!(of(&get("/", &[]), "a b").starts_with("parse \"http://a b:80/\": "));
    assert_eq!(of(&get("/", &[("a b", "c")]), "h"), "net/http: invalid header field name \"a b\"");
    assert_eq!(of(&get("/", &[("a", "b\r\nc: d")]), "h"), "net/http: invalid header field value for \"a\"");
}
