//! Where a registry's content may come from: containerd's `certs.d/<host>/hosts.toml`, read again at every pull.
//!
//! For a host the first of these that exists is used, in each directory in turn: `<host>_<port>_`, `<host>:<port>`,
//! `<host>`, `_default`. Without a `hosts.toml` the folder may hold Docker's layout: `*.crt` are authorities,
//! `x.cert` with `x.key` a client's certificate. Without either the registry itself is asked, by HTTPS, or by HTTP if it
//! is this very machine.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// Docker Hub's name in references, and where its API lives.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");
/// No hosts.toml of anyone is larger.
const MAX_HOSTS_TOML: u64 = 1 << 20;

/// One place that may serve a repository.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `http` or `https`.
    pub(crate) scheme: String,
    /// `host[:port]`.
    pub(crate) host: String,
    /// The API's root: `/v2`, or what `override_path` says.
    pub(crate) path: String,
    /// The registry's host that this one stands in for, sent as `?ns=`; `None` for the registry itself.
    pub(crate) namespace: Option<String>,
    pub(crate) capabilities: Capabilities,
    pub(crate) tls: Tls,
    /// Sent with every request to this host, and to no other.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) dial_timeout: Option<Duration>,
}

/// Without the values of its headers: they may be credentials.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Endpoint")
            .field("scheme", &self.scheme)
            .field("host", &self.host)
            .field("path", &self.path)
            .field("namespace", &self.namespace)
            .field("capabilities", &self.capabilities)
            .field("tls", &self.tls)
            .field("headers", &headers)
            .field("dial_timeout", &self.dial_timeout)
            .finish()
    }
}

/// What an endpoint is trusted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Content by digest.
    pub(crate) pull: bool,
    /// What a tag means.
    pub(crate) resolve: bool,
}

/// How an HTTPS endpoint is verified, and how we identify ourselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// PEM files of more authorities, beside the host's trust store.
    pub(crate) authorities: Vec<PathBuf>,
    /// PEM files of a certificate and its key; without the second, the first holds both.
    pub(crate) clients: Vec<(PathBuf, Option<PathBuf>)>,
    pub(crate) skip_verify: bool,
}

/// Why the configuration of a host can't be used. Wrong configuration never falls back to the registry itself: that
/// would ask the internet for what an administrator sent elsewhere.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// The file can't be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type; the message has line and column.
    #[error("parse {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is of the right type but makes no sense.
    #[error("{path}: {what}")]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The endpoints for content of `host`, in the order in which they are asked.
pub(crate) fn endpoints(host: &str, directories: &[PathBuf]) -> Result<Vec<Endpoint>, HostsError> {
    for directory in directories {
        for name in folder_names(host) {
            let folder = directory.join(&name);
            if !folder.is_dir() {
                continue;
            }
            let file = folder.join("hosts.toml");
            return match read_bounded(&file)? {
                Some(text) => parse(&text, host, &file),
                None => Ok(vec![Endpoint { tls: docker_layout(&folder)?, ..Endpoint::of_registry(host) }]),
            };
        }
    }
    Ok(vec![Endpoint::of_registry(host)])
}

impl Endpoint {
    /// The registry itself, without any configuration.
    fn of_registry(host: &str) -> Self {
        let address = if host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { host };
        Self {
            scheme: if is_loopback(address) { "http" } else { "https" }.into(),
            host: address.to_owned(),
            path: "/v2".into(),
            namespace: None,
            capabilities: Capabilities { pull: true, resolve: true },
            tls: Tls::default(),
            headers: Vec::new(),
            dial_timeout: None,
        }
    }

    /// `scheme://host`, for messages.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }
}

/// Is the host part of `address` this machine? Such registries are spoken to in HTTP by every client.
pub(crate) fn is_loopback(address: &str) -> bool {
    let host = match address.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => address.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn folder_names(host: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((name, port)) = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) {
        names.push(format!("{name}_{port}_"));
    }
    names.push(host.to_owned());
    names.push("_default".to_owned());
    names
}

fn read_bounded(path: &Path) -> Result<Option<String>, HostsError> {
    use std::io::Read as _;
    let wrong = |source| HostsError::Read { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(wrong(e)),
    };
    let mut text = String::new();
    file.take(MAX_HOSTS_TOML).read_to_string(&mut text).map_err(wrong)?;
    Ok(Some(text))
}

fn docker_layout(folder: &Path) -> Result<Tls, HostsError> {
    let wrong = |source| HostsError::Read { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        files.push(entry.map_err(wrong)?.path());
    }
    files.sort();
    let mut tls = Tls::default();
    for file in files {
        match file.extension().and_then(|e| e.to_str()) {
            Some("crt") => tls.authorities.push(file),
            Some("cert") => {
                let key = file.with_extension("key");
                tls.clients.push((file, Some(key)));
            }
            _ => {}
        }
    }
    Ok(tls)
}

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    #[serde(flatten)]
    server_settings: Flat,
}

/// The keys that are legal both at the top (for `server`) and in a `[host."…"]` table.
#[derive(Default, Deserialize)]
struct Flat {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<ClientFiles>,
    skip_verify: Option<bool>,
    header: Option<BTreeMap<String, OneOrMany>>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// `"file"`, `["file", "file"]` or `[["cert", "key"], …]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum ClientFiles {
    One(String),
    Many(Vec<String>),
    Pairs(Vec<(String, String)>),
}

const KEYS: [&str; 7] = ["capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"];

fn parse(text: &str, registry: &str, path: &Path) -> Result<Vec<Endpoint>, HostsError> {
    let syntax = |source| HostsError::Parse { path: path.to_owned(), source: Box::new(source) };
    let value = |what| HostsError::Value { path: path.to_owned(), what };
    let table: toml::Table = text.parse().map_err(syntax)?;
    if let Some(unknown) =
        table.keys().find(|key| !KEYS.contains(&key.as_str()) && !["server", "host"].contains(&key.as_str()))
    {
        return Err(value(format!("unknown key {unknown:?}")));
    }
    let file: File = toml::from_str(text).map_err(syntax)?;
    let mut endpoints = Vec::new();
    // `toml::Table` without `preserve_order` sorts its keys, so the order of the tables is read from the text.
    let mut hosts: Vec<(&String, &toml::Value)> = file.host.iter().collect();
    hosts.sort_by_key(|(url, _)| position_of(text, url));
    for (url, settings) in hosts {
        let unknown = settings.as_table().and_then(|t| t.keys().find(|key| !KEYS.contains(&key.as_str())));
        if let Some(unknown) = unknown {
            return Err(value(format!("host {url:?}: unknown key {unknown:?}")));
        }
        let settings: Flat = settings.clone().try_into().map_err(syntax)?;
        let mut endpoint = endpoint(url, settings, path)?;
        endpoint.namespace = Some(registry.to_owned()).filter(|name| *name != endpoint.host);
        endpoints.push(endpoint);
    }
    match file.server.as_deref() {
        Some("") => {}
        Some(server) => endpoints.push(endpoint(server, file.server_settings, path)?),
        None => {
            let itself = Endpoint::of_registry(registry);
            let url = itself.origin();
            endpoints.push(endpoint(&url, file.server_settings, path)?);
        }
    }
    if endpoints.is_empty() {
        return Err(value("it names no host and an empty server".into()));
    }
    Ok(endpoints)
}

/// Where `[host."url"]` stands in the text; what can't be found comes last.
fn position_of(text: &str, url: &str) -> usize {
    [format!("\"{url}\""), format!("'{url}'"), url.to_owned()]
        .iter()
        .filter_map(|quoted| {
            text.match_indices(quoted.as_str())
                .map(|(at, _)| at)
                .find(|at| text[..*at].rsplit('\n').next().is_some_and(|line| line.trim_start().starts_with("[host")))
        })
        .min()
        .unwrap_or(usize::MAX)
}

fn endpoint(url: &str, settings: Flat, file: &Path) -> Result<Endpoint, HostsError> {
    let value = |what| HostsError::Value { path: file.to_owned(), what };
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return Err(value(format!("{url:?}: the scheme is neither http nor https"))),
        None => (if is_loopback(url) { "http" } else { "https" }, url),
    };
    let (host, path) = match rest.find('/') {
        Some(slash) => (&rest[..slash], rest[slash..].trim_end_matches('/')),
        None => (rest, ""),
    };
    if host.is_empty() || host.contains(['@', '?', '#', ' ']) {
        return Err(value(format!("{url:?} is no registry URL")));
    }
    let host = if host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { host };
    let path = match settings.override_path.unwrap_or(false) || path.ends_with("/v2") {
        true => path.to_owned(),
        false => format!("{path}/v2"),
    };
    let folder = file.parent().unwrap_or(Path::new("/"));
    Ok(Endpoint {
        scheme: scheme.to_owned(),
        host: host.to_owned(),
        path,
        namespace: None,
        capabilities: capabilities(settings.capabilities, url, file)?,
        tls: Tls {
            authorities: many(settings.ca).into_iter().map(|ca| folder.join(ca)).collect(),
            clients: client_files(settings.client, folder),
            skip_verify: settings.skip_verify.unwrap_or(false),
        },
        headers: headers(settings.header),
        dial_timeout: settings
            .dial_timeout
            .map(|text| duration(&text).ok_or(text))
            .transpose()
            .map_err(|text| value(format!("{url:?}: dial_timeout {text:?} is no duration such as \"10s\"")))?,
    })
}

fn many(values: Option<OneOrMany>) -> Vec<String> {
    match values {
        None => Vec::new(),
        Some(OneOrMany::One(value)) => vec![value],
        Some(OneOrMany::Many(values)) => values,
    }
}

fn client_files(files: Option<ClientFiles>, folder: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
    match files {
        None => Vec::new(),
        Some(ClientFiles::One(file)) => vec![(folder.join(file), None)],
        Some(ClientFiles::Many(files)) => files.into_iter().map(|file| (folder.join(file), None)).collect(),
        Some(ClientFiles::Pairs(pairs)) => {
            let both = |(cert, key): (String, String)| {
                let key = (!key.is_empty()).then(|| folder.join(key));
                (folder.join(cert), key)
            };
            pairs.into_iter().map(both).collect()
        }
    }
}

fn headers(headers: Option<BTreeMap<String, OneOrMany>>) -> Vec<(String, String)> {
    let headers = headers.unwrap_or_default();
    headers
        .into_iter()
        .flat_map(|(name, values)| many(Some(values)).into_iter().map(move |v| (name.clone(), v)))
        .collect()
}

fn capabilities(named: Option<Vec<String>>, url: &str, file: &Path) -> Result<Capabilities, HostsError> {
    let Some(named) = named else { return Ok(Capabilities { pull: true, resolve: true }) };
    if let Some(unknown) = named.iter().find(|name| !["pull", "resolve", "push", "referrers"].contains(&name.as_str()))
    {
        let what = format!("{url:?}: capability {unknown:?} is none of pull, resolve, push, referrers");
        return Err(HostsError::Value { path: file.to_owned(), what });
    }
    let has = |name: &str| named.iter().any(|n| n == name);
    Ok(Capabilities { pull: has("pull"), resolve: has("resolve") })
}

/// Go's duration, as far as anyone writes it: `500ms`, `10s`, `1m`, `1m30s`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let unit = match &rest[digits..unit_end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            _ => return None,
        };
        total += unit.checked_mul(number)?;
        rest = &rest[unit_end..];
    }
    (!total.is_zero()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Endpoint>, HostsError> {
        parse(text, "registry.k8s.io", Path::new("/certs.d/registry.k8s.io/hosts.toml"))
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_then_the_server() {
        let endpoints = read(
            r#"server = "https://registry.k8s.io"
               [host."http://127.0.0.1:5000"]
                 capabilities = ["pull", "resolve"]
               [host."https://mirror.example/proxy/k8s"]
                 capabilities = ["pull"]
                 override_path = true
                 ca = "ca.pem"
                 client = [["c.pem", "k.pem"]]
                 skip_verify = true
                 dial_timeout = "1m30s"
                 [host."https://mirror.example/proxy/k8s".header]
                   x-a = "1"
                   x-b = ["2", "3"]"#,
        )
        .unwrap();
        let names: Vec<String> = endpoints.iter().map(|e| format!("{}{}", e.origin(), e.path)).collect();
        assert_eq!(
            names,
            ["http://127.0.0.1:5000/v2", "https://mirror.example/proxy/k8s", "https://registry.k8s.io/v2"]
        );
        let mirror = &endpoints[1];
        assert_eq!(mirror.namespace.as_deref(), Some("registry.k8s.io"));
        assert_eq!(endpoints[2].namespace, None);
        assert!(!mirror.capabilities.resolve && mirror.capabilities.pull);
        assert_eq!(mirror.tls.authorities, [Path::new("/certs.d/registry.k8s.io/ca.pem")]);
        assert_eq!(mirror.tls.clients.len(), 1);
        assert!(mirror.tls.skip_verify);
        assert_eq!(mirror.dial_timeout, Some(Duration::from_secs(90)));
        assert_eq!(mirror.headers.len(), 3);
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it() {
        for (text, want) in [
            ("server = [", "parse /certs.d"),
            ("sever = \"x\"", "unknown key \"sever\""),
            ("[host.\"https://a\"]\nskip_verfy = true", "unknown key \"skip_verfy\""),
            ("[host.\"ftp://a\"]", "scheme"),
            ("[host.\"https://a\"]\ncapabilities = [\"pul\"]", "capability \"pul\""),
            ("[host.\"https://a\"]\ndial_timeout = \"soon\"", "dial_timeout"),
            ("server = \"\"", "names no host"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn the_folder_of_a_host_is_found_by_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, port: u16| {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
            let text = format!("server = \"http://127.0.0.1:{port}\"");
            std::io::Write::write_all(
                &mut std::fs::File::create(dir.path().join(name).join("hosts.toml")).unwrap(),
                text.as_bytes(),
            )
            .unwrap();
        };
        write("_default", 1);
        write("a.example:5000", 2);
        write("b.example_5000_", 3);
        std::fs::create_dir_all(dir.path().join("docker.example")).unwrap();
        std::fs::File::create(dir.path().join("docker.example/x.crt")).unwrap();
        std::fs::File::create(dir.path().join("docker.example/c.cert")).unwrap();
        let asked = |host: &str| endpoints(host, &[dir.path().join("missing"), dir.path().to_owned()]).unwrap();
        assert_eq!(asked("other.example")[0].host, "127.0.0.1:1");
        assert_eq!(asked("a.example:5000")[0].host, "127.0.0.1:2");
        assert_eq!(asked("b.example:5000")[0].host, "127.0.0.1:3");
        let docker = asked("docker.example");
        assert_eq!(docker[0].host, "docker.example");
        assert_eq!(docker[0].tls.authorities.len(), 1);
        assert_eq!(
            docker[0].tls.clients,
            [(dir.path().join("docker.example/c.cert"), Some(dir.path().join("docker.example/c.key")))]
        );
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_http() {
        for (host, want) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("docker.io", false),
            ("10.0.0.1:5000", false),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
        ] {
            assert_eq!(is_loopback(host), want, "{host}");
        }
        assert_eq!(Endpoint::of_registry("docker.io").origin(), "https://registry-1.docker.io");
    }
}
