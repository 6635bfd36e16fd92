//! A registry that does what a test tells it: every answer can be replaced, cut off or lied about, and every request is
//! remembered.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use tests::images::{Image, digest};
use tests::{Output, binary, output, write};

/// What a client asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection is closed after this many bytes of the body.
    pub(crate) cut: Option<usize>,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: Vec::new(), cut: None }
    }

    pub(crate) fn json(status: u16, body: &str) -> Reply {
        Reply { body: body.into(), ..Reply::status(status) }.with("Content-Type", "application/json")
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.retain(|(old, _)| !old.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Reply {
        self.cut = Some(after);
        self
    }
}

/// Decides an answer: given the request, how many of this method and path came before, and what an honest registry
/// would say.
type Script = dyn Fn(&Request, usize, Reply) -> Reply + Send + Sync;

/// A running registry. Its thread ends with the test process.
pub(crate) struct Server {
    pub(crate) host: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Serves `images` as `(repository:tag, image)` honestly, where `script` does not say otherwise.
    pub(crate) fn start(
        images: &[(&str, &Image)],
        script: impl Fn(&Request, usize, Reply) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener.local_addr().expect("its address").to_string();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let content = Arc::new(content(images));
        let script: Arc<Script> = Arc::new(script);
        let remembered = requests.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (content, script, requests) = (content.clone(), script.clone(), remembered.clone());
                std::thread::spawn(move || serve(connection, &content, &*script, &requests));
            }
        });
        Server { host, requests }
    }

    /// A registry that tells no lie.
    pub(crate) fn honest(images: &[(&str, &Image)]) -> Server {
        Server::start(images, |_, _, reply| reply)
    }

    /// Everything that was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic in a server thread").clone()
    }

    /// The requests whose path contains `part`.
    pub(crate) fn requests_for(&self, part: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.path().contains(part)).collect()
    }
}

type Content = HashMap<String, (String, Vec<u8>)>;

/// Media type and bytes by path.
fn content(images: &[(&str, &Image)]) -> Content {
    let mut content = Content::new();
    for (name, image) in images {
        let (repository, tag) = name.split_once(':').expect("repository:tag");
        for reference in [tag.to_owned(), image.digest()] {
            let path = format!("/v2/{repository}/manifests/{reference}");
            content.insert(path, (image.media_type().to_owned(), image.manifest()));
        }
        let blobs = image.layers.iter().map(|layer| layer.bytes.clone()).chain([image.config_blob()]);
        for bytes in blobs {
            let path = format!("/v2/{repository}/blobs/{}", digest(&bytes));
            content.insert(path, ("application/octet-stream".to_owned(), bytes));
        }
    }
    content
}

fn serve(connection: TcpStream, content: &Content, script: &Script, requests: &Mutex<Vec<Request>>) {
    let Some(request) = read(&connection) else { return };
    let mut all = requests.lock().expect("no panic in a server thread");
    let same = |old: &&Request| (&old.method, old.path()) == (&request.method, request.path());
    let before = all.iter().filter(same).count();
    all.push(request.clone());
    drop(all);
    let reply = script(&request, before, honest(content, &request));
    // A client that has hung up has its reasons.
    let _gone = send(connection, &request, &reply);
}

fn read(connection: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    std::io::Read::read_exact(&mut reader, &mut body).ok()?;
    Some(Request { method, target, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

fn honest(content: &Content, request: &Request) -> Reply {
    let Some((media_type, bytes)) = content.get(request.path()) else {
        return Reply::json(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#);
    };
    let start = request.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    let reply = match start.and_then(|start| start.parse::<usize>().ok()) {
        Some(start) => Reply { body: bytes[start..].to_vec(), ..Reply::status(206) }
            .with("Content-Range", &format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())),
        None => Reply { body: bytes.clone(), ..Reply::status(200) },
    };
    reply.with("Content-Type", media_type).with("Docker-Content-Digest", &digest(bytes))
}

fn send(mut connection: TcpStream, request: &Request, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    connection.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    connection.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])
}

/// A private image store, driven through `orlop image`.
pub(crate) struct Store {
    dir: tempfile::TempDir,
}

impl Store {
    pub(crate) fn new() -> Store {
        // In memory: a pull syncs its whole file system, and a disk would also write what others left dirty.
        let dir = tempfile::tempdir_in("/dev/shm").expect("a temporary directory");
        let hosts = dir.path().join("certs.d");
        std::fs::create_dir(&hosts).expect("certs.d");
        let config = format!("[registry]\nhosts_dirs = [\"{}\"]\n", hosts.display());
        write(&dir.path().join("config.toml"), config);
        Store { dir }
    }

    /// Writes `certs.d/<host>/hosts.toml`.
    pub(crate) fn hosts(&self, host: &str, text: &str) {
        let folder = self.dir.path().join("certs.d").join(host);
        std::fs::create_dir_all(&folder).expect("a host's folder");
        write(&folder.join("hosts.toml"), text);
    }

    pub(crate) fn pull(&self, reference: &str) -> Output {
        self.pull_with(&[], reference)
    }

    /// With environment variables.
    pub(crate) fn pull_with(&self, variables: &[(&str, String)], reference: &str) -> Output {
        let mut command = self.command();
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        output(command.args(["pull", reference]))
    }

    pub(crate) fn pull_as(&self, reference: &str, creds: &str) -> Output {
        self.orlop(&["pull", reference, "--creds", creds])
    }

    /// The pull must fail; returns what it says, after checking that nothing is left of it.
    #[track_caller]
    pub(crate) fn refusal(&self, reference: &str) -> String {
        let done = self.pull(reference);
        assert_ne!(done.code, 0, "the pull succeeded: {}", done.stdout);
        assert!(self.images().is_empty(), "a refused image is listed");
        let left = std::fs::read_dir(self.root().join("image/snapshots")).expect("the store's snapshots").count();
        assert_eq!(left, 0, "a refused image left layers");
        done.stderr
    }

    /// Every image, as `orlop image ls -o json` has it.
    #[track_caller]
    pub(crate) fn images(&self) -> Vec<serde_json::Value> {
        let text = self.orlop(&["ls", "-o", "json"]).success();
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json["images"].as_array().expect("a list").clone()
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A file of the only layer.
    pub(crate) fn file(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let snapshots = std::fs::read_dir(self.root().join("image/snapshots")).expect("snapshots");
        let paths = snapshots.map(|entry| entry.expect("entry").path().join("fs").join(path.as_ref()));
        std::fs::read(paths.into_iter().find(|path| path.exists()).expect("a layer with the file")).expect("file")
    }

    fn orlop(&self, arguments: &[&str]) -> Output {
        output(self.command().args(arguments))
    }

    /// `orlop image` for this store, without proxies.
    fn command(&self) -> Command {
        let dir = self.dir.path();
        let mut command = Command::new(binary("orlop"));
        command.arg("--config").arg(dir.join("config.toml")).arg("--root").arg(self.root());
        command.arg("--state").arg(dir.join("state")).arg("--socket").arg(dir.join("no-daemon.sock"));
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(proxy);
        }
        command.arg("image");
        command
    }
}
