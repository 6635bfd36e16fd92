//! Several callers at once, which one process at a time can't show: who does the work, and what a cancellation stops.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::Duration;

use super::*;
use crate::reference::Reference;

/// A registry of one image whose layer is sent in two halves; the second waits for [`Registry::go_on`].
struct Registry {
    host: String,
    layer_requests: Arc<AtomicUsize>,
    broken_off: Arc<AtomicUsize>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Registry {
    fn start() -> Self {
        LazyLock::force(&CONTENT);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Self {
            host: listener.local_addr().unwrap().to_string(),
            layer_requests: Arc::default(),
            broken_off: Arc::default(),
            gate: Arc::default(),
        };
        let (requests, broken_off, gate) =
            (registry.layer_requests.clone(), registry.broken_off.clone(), registry.gate.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (requests, broken_off, gate) = (requests.clone(), broken_off.clone(), gate.clone());
                std::thread::spawn(move || {
                    if serve(connection, &requests, &gate).is_err() {
                        broken_off.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        registry
    }

    fn go_on(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    fn reference(&self, tag: &str) -> Reference {
        Reference::parse(&format!("{}/app:{tag}", self.host)).unwrap()
    }

    fn requests(&self) -> usize {
        self.layer_requests.load(Ordering::SeqCst)
    }
}

/// The documents of the image, and their digests, made once: hashing is slow in a debug build.
struct Content {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
    layer_digest: Digest,
}

static CONTENT: LazyLock<Content> = LazyLock::new(|| {
    let layer = layer();
    let layer_digest = Digest::sha256(&layer);
    let config = config(&layer_digest);
    let manifest = manifest(&layer_digest, layer.len(), &config);
    Content { manifest, config, layer, layer_digest }
});

/// A layer that no socket buffer holds, so that a client that is gone is noticed.
fn layer() -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    let content = vec![7; 6 << 20];
    let mut header = ::tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(u64::from(nix::unistd::getuid().as_raw()));
    header.set_gid(u64::from(nix::unistd::getgid().as_raw()));
    builder.append_data(&mut header, "file", content.as_slice()).unwrap();
    builder.into_inner().unwrap()
}

fn config(diff_id: &Digest) -> Vec<u8> {
    format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#).into()
}

fn manifest(layer: &Digest, size: usize, config: &[u8]) -> Vec<u8> {
    let of = |kind: &str, digest: &Digest, size: usize| {
        format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#)
    };
    let layer = of("layer.v1.tar", layer, size);
    let config = of("config.v1+json", &Digest::sha256(config), config.len());
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#).into()
}

fn serve(mut connection: TcpStream, requests: &AtomicUsize, gate: &(Mutex<bool>, Condvar)) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let is_layer = first.contains(CONTENT.layer_digest.as_str());
    let body = match first.contains("/manifests/") {
        true => &CONTENT.manifest,
        false if is_layer => &CONTENT.layer,
        false => &CONTENT.config,
    };
    let digest = if is_layer { CONTENT.layer_digest.clone() } else { Digest::sha256(body) };
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nDocker-Content-Digest: {digest}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    if first.starts_with("HEAD") {
        return Ok(());
    }
    if !is_layer {
        return connection.write_all(body);
    }
    requests.fetch_add(1, Ordering::SeqCst);
    connection.write_all(&body[..1000])?;
    let closed = gate.1.wait_while(gate.0.lock().unwrap(), |open| !*open).unwrap();
    drop(closed);
    connection.write_all(&body[1000..])
}

fn open(root: &Path, stall_timeout: Duration) -> Store {
    let store = Store::open(root, Config { parallel_layers: 2, stall_timeout, proxies: Proxies::default() }).unwrap();
    store.start_gc();
    store
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        // A look now and then: what is waited for needs the processor.
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.expect("the condition within a minute");
}

fn snapshots(root: &Path) -> usize {
    std::fs::read_dir(root.join("snapshots")).unwrap().count()
}

#[test]
fn many_pulls_of_one_image_download_its_layer_once() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let store = open(root.path(), Duration::from_secs(30));
    run(async {
        let pulls: Vec<_> = ["1", "2", "1", "3"]
            .map(|tag| {
                let (store, reference) = (store.clone(), registry.reference(tag));
                tokio::spawn(async move { store.pull(&reference, PullOptions::default()).await })
            })
            .into();
        until(|| registry.requests() == 1).await;
        registry.go_on();
        for pull in pulls {
            assert_eq!(pull.await.unwrap().unwrap().0, Digest::sha256(&CONTENT.config));
        }
    });
    assert_eq!(registry.requests(), 1);
    assert_eq!(store.list()[0].repo_tags.len(), 3);
    assert_eq!(snapshots(root.path()), 1);
}

#[test]
fn the_first_callers_cancellation_does_not_stop_the_others() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let store = open(root.path(), Duration::from_secs(30));
    run(async {
        let pull = |tag: &str| {
            let (store, reference) = (store.clone(), registry.reference(tag));
            tokio::spawn(async move { store.pull(&reference, PullOptions::default()).await })
        };
        let first = pull("1");
        until(|| registry.requests() == 1).await;
        let arrived = Arc::new(AtomicUsize::new(0));
        let counted = arrived.clone();
        let options = PullOptions {
            progress: Some(Arc::new(move |event| {
                if matches!(event, crate::Progress::Layer { phase: crate::Phase::Fetching, .. }) {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            })),
            ..PullOptions::default()
        };
        let second = {
            let (store, reference) = (store.clone(), registry.reference("2"));
            tokio::spawn(async move { store.pull(&reference, options).await })
        };
        // It has seen bytes that only the first one's download brought.
        until(|| arrived.load(Ordering::SeqCst) > 0).await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        registry.go_on();
        second.await.unwrap().unwrap();
    });
    assert_eq!(registry.requests(), 1);
}

#[test]
fn a_pull_that_nobody_wants_any_more_stops_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let store = open(root.path(), Duration::from_secs(30));
    run(async {
        let (pulling, reference) = (store.clone(), registry.reference("1"));
        let pull = tokio::spawn(async move { pulling.pull(&reference, PullOptions::default()).await });
        until(|| registry.requests() == 1).await;
        pull.abort();
        until(|| snapshots(root.path()) == 0).await;
        registry.go_on();
        until(|| registry.broken_off.load(Ordering::SeqCst) == 1).await;
    });
    assert!(store.list().is_empty());
}

#[test]
fn a_registry_that_stalls_is_given_up_on() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let store = open(root.path(), Duration::from_millis(200));
    let error = run(store.pull(&registry.reference("1"), PullOptions::default())).unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unavailable);
    let text = format!("{:?}", error.source);
    assert!(text.contains("Stalled"), "{text}");
    assert_eq!(snapshots(root.path()), 0);
}

#[test]
fn a_lease_that_comes_while_the_image_is_being_removed_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    registry.go_on();
    let store = open(root.path(), Duration::from_secs(30));
    let id = run(store.pull(&registry.reference("1"), PullOptions::default())).unwrap();
    let change = store.inner.decide(|state| Some(state.removal(&id))).unwrap();
    assert!(matches!(store.lease("late", &id), Err(StoreError::NotFound(_))));
    store.inner.carry_out(&change).unwrap();
    assert!(store.list().is_empty());
    assert_eq!(snapshots(root.path()), 0);
}

#[test]
fn a_layer_whose_directory_is_lost_or_another_ones_is_forgotten_for_good() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    registry.go_on();
    let pull = |store: &Store| run(store.pull(&registry.reference("1"), PullOptions::default())).unwrap();
    let open = || open(root.path(), Duration::from_secs(30));
    pull(&open());
    let tree = |number: u32| root.path().join(format!("snapshots/{number}"));
    std::fs::remove_dir_all(tree(1)).unwrap();
    let store = open();
    assert!(store.list().is_empty());
    pull(&store);
    assert!(tree(2).is_dir(), "the number is not used again");
    drop(store);
    let rows = database::Database::open(root.path()).unwrap().read().unwrap();
    assert_eq!(rows.snapshots.into_values().map(|row| row.directory).collect::<Vec<_>>(), [2]);

    File::create(tree(2).join("chain")).unwrap();
    assert!(open().list().is_empty(), "the directory says that it is another layer");
    assert_eq!(snapshots(root.path()), 0);
}

#[test]
fn a_write_that_fails_anywhere_keeps_the_store_neither_from_removing_nor_from_pulling() {
    let registry = Registry::start();
    registry.go_on();
    for left in [0, 2, 5] {
        let root = tempfile::tempdir().unwrap();
        let store = open(root.path(), Duration::from_secs(30));
        let pull = || run(store.pull(&registry.reference("1"), PullOptions::default())).unwrap();
        store.inner.database.fill_disk_after(left);
        let id = pull();
        store.inner.database.fill_disk_after(left);
        assert!(store.remove(&id.to_string()).unwrap());
        assert_eq!(snapshots(root.path()), 0);
        let rows = store.inner.database.read().unwrap();
        assert!(rows.images.is_empty() && rows.snapshots.is_empty(), "after {left} writes");
    }
}

#[test]
fn a_failed_commit_that_had_reached_the_disk_is_taken_back() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    registry.go_on();
    let store = open(root.path(), Duration::from_secs(30));
    let id = run(store.pull(&registry.reference("1"), PullOptions::default())).unwrap();
    // As if a removal had been reported as failed, and yet had become durable.
    let removal = store.inner.state().removal(&id);
    store.inner.database.commit(&removal).unwrap();
    store.inner.database.fill_disk_after(0);
    store.inner.write(&records::Change::default()).unwrap();
    assert!(store.inner.database.read().unwrap().images.contains_key(&id));
}

#[test]
fn a_config_that_was_changed_on_disk_is_not_served_and_the_next_pull_repairs_it() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    registry.go_on();
    let pull = |store: &Store| run(store.pull(&registry.reference("1"), PullOptions::default())).unwrap();
    let open = || open(root.path(), Duration::from_secs(30));
    let store = open();
    let id = pull(&store);
    let path = blobs::path(root.path(), &id.0);
    let good = std::fs::read_to_string(&path).unwrap();
    let forge = || std::fs::rename(forged(root.path(), &good), &path).unwrap();
    forge();
    pull(&store);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), good);
    drop(store);
    forge();
    assert!(open().list().is_empty());
}

/// Another config, that would be as valid.
fn forged(root: &Path, good: &str) -> std::path::PathBuf {
    let path = root.join("forged");
    let text = good.replacen('{', r#"{"config":{"User":"0"},"#, 1);
    File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path
}

#[test]
fn a_layer_that_has_landed_is_not_downloaded_again_before_it_is_committed() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    registry.go_on();
    let store = open(root.path(), Duration::from_secs(30));
    let landed = Arc::new(AtomicUsize::new(0));
    let pull = |tag: &str| {
        let (store, reference, landed) = (store.clone(), registry.reference(tag), landed.clone());
        let progress: crate::progress::ProgressSink = Arc::new(move |event| {
            if matches!(event, crate::Progress::Layer { phase: crate::Phase::Done, .. }) {
                landed.fetch_add(1, Ordering::SeqCst);
            }
        });
        let options = PullOptions { progress: Some(progress), ..PullOptions::default() };
        tokio::spawn(async move { store.pull(&reference, options).await })
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let committing = store.inner.committing.lock().unwrap();
    let (first, second) = runtime.block_on(async {
        let first = pull("1");
        until(|| landed.load(Ordering::SeqCst) == 1).await;
        let second = pull("2");
        until(|| landed.load(Ordering::SeqCst) == 2).await;
        (first, second)
    });
    drop(committing);
    for pull in [first, second] {
        runtime.block_on(pull).unwrap().unwrap();
    }
    assert_eq!(registry.requests(), 1);
}
