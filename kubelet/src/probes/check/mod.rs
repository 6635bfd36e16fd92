//! One question to a container, one file per way of asking. What is asked is worked out once, when the container is found
//! running; texts of answers are upstream's, as far as its libraries' words can be said.

mod exec;
mod grpc;
mod http;
mod tcp;

pub(super) use http::Tls;

use crate::runtime::Runtime;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;
use tokio::sync::Semaphore;

/// What probes call themselves, where the pod does not say another name.
const USER_AGENT: &str = "kube-probe/1.36";
/// How much of an answer is read, in bytes.
const MAX_OUTPUT: usize = 10 * 1024;

/// Why a question has nowhere to go yet.
const NO_ADDRESS: &str = "the pod has no address";

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Yes.
    Success,
    /// Yes, but.
    Warning(String),
    /// No, and why.
    Failure(String),
    /// It could not be asked.
    Errored {
        /// Upstream's word for what comes of it: `unknown` or `failure`.
        state: &'static str,
        /// Why.
        message: String,
    },
}

/// A question, ready to be asked.
#[derive(Debug, Clone)]
pub(super) enum Check {
    /// A command in the container.
    Exec(Vec<String>),
    /// A GET request.
    Http(Box<http::Request>),
    /// A connection.
    Tcp(String, u16),
    /// `grpc.health.v1.Health/Check`.
    Grpc(grpc::Request),
    /// A spec that can't be asked, for example because it names a port that the container does not have.
    Impossible(String),
}

/// What it takes to ask.
pub(super) struct Asker<'a> {
    /// Runs commands in containers.
    pub(super) runtime: &'a dyn Runtime,
    /// TLS without verification: a probe asks whether somebody answers, not who.
    pub(super) tls: &'a Tls,
}

impl Check {
    /// Reads a probe of `container`, whose pod has this address.
    pub(super) fn of(probe: &Probe, container: &Container, address: Option<IpAddr>) -> Check {
        Check::try_of(probe, container, address).unwrap_or_else(Check::Impossible)
    }

    /// Whether it can be asked once the pod has an address.
    pub(super) fn waits_for_address(&self) -> bool {
        matches!(self, Check::Impossible(message) if message == NO_ADDRESS)
    }

    fn try_of(probe: &Probe, container: &Container, address: Option<IpAddr>) -> Result<Check, String> {
        let host = |named: Option<&str>| match (named.filter(|host| !host.is_empty()), address) {
            (Some(host), _) => Ok(host.to_owned()),
            (None, Some(address)) => Ok(address.to_string()),
            (None, None) => Err(NO_ADDRESS.to_owned()),
        };
        if let Some(exec) = &probe.exec {
            return Ok(Check::Exec(exec::command(exec, container)?));
        }
        if let Some(get) = &probe.http_get {
            let request = http::Request::new(get, &host(get.host.as_deref())?, port(&get.port, container)?)?;
            return Ok(Check::Http(Box::new(request)));
        }
        if let Some(socket) = &probe.tcp_socket {
            return Ok(Check::Tcp(host(socket.host.as_deref())?, port(&socket.port, container)?));
        }
        if let Some(grpc) = &probe.grpc {
            return Ok(Check::Grpc(grpc::Request::new(grpc, &host(None)?)?));
        }
        Err(format!("missing probe handler for container {}", container.name))
    }

    /// Asks the container of this id.
    pub(super) async fn ask(&self, asker: &Asker<'_>, container_id: &str, timeout: Duration) -> Answer {
        match self {
            Check::Exec(command) => exec::ask(asker.runtime, container_id, command, timeout).await,
            Check::Http(request) => request.ask(asker.tls, timeout).await,
            Check::Tcp(host, port) => tcp::ask(host, *port, timeout).await,
            Check::Grpc(request) => request.ask(timeout).await,
            Check::Impossible(message) => Answer::unknown(message.clone()),
        }
    }
}

impl Answer {
    fn unknown(message: impl Into<String>) -> Answer {
        Answer::Errored { state: "unknown", message: message.into() }
    }
}

/// A port's number: given, or that of the container's port of this name, or a number written as text.
fn port(wanted: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match wanted {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(text));
            match named {
                Some(port) => port.container_port,
                None => text.parse().map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))?,
            }
        }
    };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("invalid port number: {number}")),
    }
}

/// `host:port`, with brackets around IPv6.
fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Names that are looked up at a time, over all probes. A lookup holds a thread of those that everything that blocks shares,
/// and goes on when its probe has given up: names of a zone that never answers would take them all.
static LOOKUPS: Semaphore = Semaphore::const_new(16);

/// The addresses of a name; waits until there is room for one more lookup.
async fn look_up(
    lookups: &'static Semaphore,
    look: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> io::Result<Vec<SocketAddr>> {
    let permit = lookups.acquire().await.map_err(io::Error::other)?;
    let found = tokio::task::spawn_blocking(move || {
        let _until_it_ends = permit;
        look()
    });
    found.await.map_err(io::Error::other)?
}

/// Connects; the error is what Go's dialer says.
async fn connect(host: &str, port: u16) -> Result<tokio::net::TcpStream, String> {
    let address = join_host_port(host, port);
    let unknown = |_| format!("dial tcp: lookup {host}: no such host");
    let found = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => {
            let name = host.to_owned();
            let look = move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
            look_up(&LOOKUPS, look).await.map_err(unknown)?
        }
    };
    match tokio::net::TcpStream::connect(&found[..]).await {
        Ok(stream) => Ok(stream),
        Err(error) if error.raw_os_error().is_some() => Err(format!("dial tcp {address}: connect: {}", words(&error))),
        Err(error) => Err(unknown(error)),
    }
}

/// The kernel's words for an error, as Go prints them: without a capital, without a number.
fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => error.to_string(),
    }
}

/// As much of some output as is kept.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_OUTPUT)]).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ContainerPort, GRPCAction, HTTPGetAction, TCPSocketAction};

    /// A port of 127.0.0.1 that refuses connections, and that no other test gets while the socket is there.
    pub(super) fn closed_port() -> (tokio::net::TcpSocket, u16) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let port = socket.local_addr().unwrap().port();
        (socket, port)
    }

    fn container() -> Container {
        let port = |name: &str, number| ContainerPort {
            name: Some(name.to_owned()),
            container_port: number,
            ..ContainerPort::default()
        };
        Container { name: "c".to_owned(), ports: Some(vec![port("web", 8080), port("bad", 0)]), ..Container::default() }
    }

    #[track_caller]
    fn check_port(wanted: IntOrString, expected: Result<u16, &str>) {
        assert_eq!(port(&wanted, &container()), expected.map_err(str::to_owned));
    }

    #[test]
    fn a_port_is_a_number_a_name_or_a_number_as_text() {
        let text = |text: &str| IntOrString::String(text.to_owned());
        check_port(IntOrString::Int(80), Ok(80));
        check_port(text("web"), Ok(8080));
        check_port(text("8081"), Ok(8081));
        check_port(text("bad"), Err("invalid port number: 0"));
        check_port(IntOrString::Int(65536), Err("invalid port number: 65536"));
        check_port(IntOrString::Int(-1), Err("invalid port number: -1"));
        check_port(text("none"), Err("strconv.Atoi: parsing \"none\": invalid syntax"));
    }

    #[tokio::test]
    async fn a_lookup_that_hangs_keeps_its_place_when_its_probe_has_given_up() {
        use futures_util::FutureExt as _;
        let lookups: &'static Semaphore = Box::leak(Box::new(Semaphore::new(1)));
        let (answer, answered) = std::sync::mpsc::channel::<()>();
        let hanging = look_up(lookups, move || {
            let _ = answered.recv();
            Ok(Vec::new())
        });
        assert!(hanging.now_or_never().is_none(), "it was given up while it hangs");
        assert_eq!(lookups.available_permits(), 0);
        let next = || look_up(lookups, || Ok(Vec::new()));
        assert!(next().now_or_never().is_none(), "there is no room for another");
        drop(answer);
        assert_eq!(next().await.unwrap(), []);
    }

    #[test]
    fn the_pods_address_stands_in_for_a_host() {
        let tcp = |host: Option<&str>| Probe {
            tcp_socket: Some(TCPSocketAction { host: host.map(str::to_owned), port: IntOrString::Int(1) }),
            ..Probe::default()
        };
        let of = |host, address| format!("{:?}", Check::of(&tcp(host), &container(), address));
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        assert_eq!(of(None, Some(address)), "Tcp(\"10.0.0.7\", 1)");
        assert_eq!(of(Some(""), Some(address)), "Tcp(\"10.0.0.7\", 1)");
        assert_eq!(of(Some("example.org"), None), "Tcp(\"example.org\", 1)");
        // Never "": that would be this machine.
        assert_eq!(of(None, None), "Impossible(\"the pod has no address\")");
    }

    #[test]
    fn a_probe_that_asks_nothing_or_the_impossible_says_so_when_asked() {
        let get = HTTPGetAction { port: IntOrString::String("x".to_owned()), ..HTTPGetAction::default() };
        let grpc = GRPCAction { port: 0, service: None };
        for (probe, expected) in [
            (Probe::default(), "missing probe handler for container c"),
            (Probe { http_get: Some(get), ..Probe::default() }, "strconv.Atoi: parsing \"x\": invalid syntax"),
            (Probe { grpc: Some(grpc), ..Probe::default() }, "invalid port number: 0"),
        ] {
            match Check::of(&probe, &container(), Some(IpAddr::from([127, 0, 0, 1]))) {
                Check::Impossible(message) => assert_eq!(message, expected),
                other => panic!("{other:?}"),
            }
        }
    }
}
