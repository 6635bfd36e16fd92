//! Debian's docker-registry as people run it: behind a token server, behind TLS with an authority of one's own, and with
//! client certificates.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tests::images::{Compression, Format, Image, Layer, index, store_manifest};
use tests::{World, eventually, output, write};

use crate::image_store::Store;

/// A registry with a configuration of the test's own. Its host is `registry.test:PORT`, which is not this machine as far
/// as names go.
struct Configured {
    process: Child,
    host: String,
    port: u16,
}

impl Configured {
    /// `http` and `rest` are parts of docker-registry's configuration.
    fn start(world: &World, dir: &Path, http: &str, rest: &str) -> Configured {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).expect("a free port").port();
        let config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n{http}\n{rest}\n",
            dir.display()
        );
        write(&dir.join("config.yml"), config);
        let log = std::fs::File::create(dir.join("log")).expect("the registry's log");
        let mut command = world.command("docker-registry");
        command.arg("serve").arg(dir.join("config.yml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().expect("start docker-registry (Debian package docker-registry)");
        eventually("docker-registry listens", Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", port)));
        Configured { process, host: format!("registry.test:{port}"), port }
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn image() -> Image {
    let layer = |name: &str| Layer::new().file(name, 0o644, name).finish(Compression::Gzip);
    Image::new(vec![layer("a"), layer("b")], &["/a"])
}

/// Runs a shell script in `dir`; arguments come as `$1`, `$2`, ….
fn shell(world: &World, dir: &Path, script: &str, arguments: &[&str]) -> String {
    output(world.command("sh").current_dir(dir).args(["-euc", script, "sh"]).args(arguments)).success()
}

/// Writes `ca.pem`, `ca.key`, `server.pem`, `server.key`, `client.pem` and `client.key`.
fn certificates(world: &World, dir: &Path) {
    let script = "exec 2>/dev/null
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj '/CN=test authority'
        for name in server client; do
            openssl req -newkey rsa:2048 -nodes -keyout $name.key -out $name.csr -subj /CN=$name
            printf 'subjectAltName=DNS:registry.test\n' > $name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
        done";
    shell(world, dir, script, &[]);
}

fn name_registry() {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    write(Path::new("/etc/hosts"), format!("{hosts}\n127.0.0.1 registry.test\n"));
}

fn hosts_toml(store: &Store<'_>, folder: &str, text: &str) -> std::path::PathBuf {
    let folder = store.dir().join("certs.d").join(folder);
    std::fs::create_dir_all(&folder).expect("a host's folder");
    if !text.is_empty() {
        write(&folder.join("hosts.toml"), text);
    }
    folder
}

#[test]
fn an_authority_of_ones_own_is_trusted_where_certs_d_says_so() {
    let world = World::enter();
    name_registry();
    let dir = world.new_dir("registry");
    certificates(&world, &dir);
    image().store(&dir, "app", "1");
    let tls = format!("  tls: {{certificate: {0}/server.pem, key: {0}/server.key}}", dir.display());
    let registry = Configured::start(&world, &dir, &tls, "");
    let reference = format!("{}/app:1", registry.host);
    let authority = std::fs::read(dir.join("ca.pem")).expect("the authority");

    let store = Store::new(&world);
    let text = store.pull(&reference).stderr;
    assert!(text.contains("certificate") && text.contains(&registry.host), "{text}");

    let store = Store::new(&world);
    let folder = hosts_toml(&store, &registry.host, "");
    write(&folder.join("authority.crt"), &authority);
    store.pull(&reference).success();

    let store = Store::new(&world);
    let folder = hosts_toml(&store, &format!("registry.test_{}_", registry.port), "ca = \"own.pem\"");
    write(&folder.join("own.pem"), &authority);
    store.pull(&reference).success();

    let store = Store::new(&world);
    hosts_toml(&store, &registry.host, &format!("[host.\"https://{}\"]\nskip_verify = true", registry.host));
    store.pull(&reference).success();

    let store = Store::new(&world);
    hosts_toml(&store, &registry.host, "ca = \"missing.pem\"");
    let text = store.pull(&reference).stderr;
    assert!(text.contains("missing.pem"), "{text}");
}

#[test]
fn a_client_certificate_is_shown_where_certs_d_says_so() {
    let world = World::enter();
    name_registry();
    let dir = world.new_dir("registry");
    certificates(&world, &dir);
    image().store(&dir, "app", "1");
    let tls =
        format!("  tls: {{certificate: {0}/server.pem, key: {0}/server.key, clientcas: [{0}/ca.pem]}}", dir.display());
    let registry = Configured::start(&world, &dir, &tls, "");
    let reference = format!("{}/app:1", registry.host);

    let store = Store::new(&world);
    hosts_toml(&store, &registry.host, &format!("ca = \"{}/ca.pem\"", dir.display()));
    assert_ne!(store.pull(&reference).code, 0);

    let store = Store::new(&world);
    let text = format!("ca = \"{0}/ca.pem\"\nclient = [[\"{0}/client.pem\", \"{0}/client.key\"]]", dir.display());
    hosts_toml(&store, &registry.host, &text);
    store.pull(&reference).success();
}

#[test]
fn a_registry_with_a_token_server_is_pulled_from() {
    let world = World::enter();
    let dir = world.new_dir("registry");
    certificates(&world, &dir);
    image().store(&dir, "team/app", "1");
    let tokens = TokenServer::start(&world, &dir);
    let auth = format!(
        "auth: {{token: {{realm: 'http://{}/token', service: test, issuer: tests, rootcertbundle: {}/ca.pem}}}}",
        tokens.host,
        dir.display()
    );
    let registry = Configured::start(&world, &dir, "", &auth);
    let reference = format!("127.0.0.1:{}/team/app:1", registry.port);

    let store = Store::new(&world);
    store.pull(&reference).success();
    assert_eq!(tokens.asked(), ["GET /token?service=test&scope=repository%3Ateam%2Fapp%3Apull"]);

    let store = Store::new(&world);
    store.orlop(&[], &["pull", &reference, "--creds", "me:secret"]).success();
    assert_eq!(tokens.asked()[1], "POST /token");
}

#[test]
fn an_index_gives_the_image_of_this_platform() {
    let world = World::enter();
    let dir = world.new_dir("registry");
    let (ours, mut arm) = (image(), image());
    arm.architecture = "arm64".into();
    for format in [Format::Oci, Format::Docker] {
        let (mut ours, mut arm) = (ours.clone(), arm.clone());
        (ours.format, arm.format) = (format, format);
        ours.store(&dir, "app", "amd64");
        arm.store(&dir, "app", "arm64");
        store_manifest(&dir, "app", "both", &index(format, &[&arm, &ours]));
        store_manifest(&dir, "app", "other", &index(format, &[&arm]));
        let registry = Configured::start(&world, &dir, "", "");
        let store = Store::new(&world);
        let name = |tag: &str| format!("127.0.0.1:{}/app:{tag}", registry.port);
        assert_eq!(store.pull(&name("both")).success().trim(), ours.id(), "{format:?}");
        let text = store.pull(&name("other")).stderr;
        assert!(text.contains("no image for linux/amd64 in the index, only for linux/arm64"), "{text}");
    }
}

/// Hands out one token, which is good for the repository of the test. Its thread ends with it: a thread that shares its
/// file system with the test's would keep the test in the World.
struct TokenServer {
    host: String,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TokenServer {
    fn start(world: &World, dir: &Path) -> TokenServer {
        // RFC 7515 and distribution's token specification; `x5c` names the certificate that the registry trusts.
        let script = r#"
            url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
            now=$(date +%s)
            chain=$(openssl x509 -in ca.pem -outform DER | openssl base64 -A)
            header=$(printf '{"typ":"JWT","alg":"RS256","x5c":["%s"]}' "$chain" | url)
            access='[{"type":"repository","name":"team/app","actions":["pull"]}]'
            claims=$(printf '{"iss":"tests","sub":"","aud":"test","exp":%s,"nbf":%s,"iat":%s,"jti":"1","access":%s}' \
                $((now + 600)) $((now - 60)) $now "$access" | url)
            signature=$(printf '%s.%s' "$header" "$claims" | openssl dgst -sha256 -sign ca.key -binary | url)
            printf '%s.%s.%s' "$header" "$claims" "$signature""#;
        let token = shell(world, dir, script, &[]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener.local_addr().expect("its address").to_string();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let (remembered, stopping) = (asked.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if stopping.load(Ordering::SeqCst) {
                    break;
                }
                _ = answer(connection, &token, &remembered);
            }
        });
        TokenServer { host, asked, stop, thread: Some(thread) }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic in the server").clone()
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(&self.host);
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// Reads one request to its end, or the answer would be lost with the connection; remembers its first line without the
/// version; and answers.
fn answer(mut connection: TcpStream, token: &str, remembered: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let first = lines.next()?;
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let length = head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    std::io::copy(&mut reader.take(length.unwrap_or(0)), &mut std::io::sink()).ok()?;
    let (line, _version) = first.rsplit_once(' ')?;
    remembered.lock().expect("no panic in the server").push(line.to_owned());
    let body = format!("{{\"token\":\"{token}\",\"expires_in\":300}}");
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    connection.write_all(format!("{head}{body}").as_bytes()).ok()
}
