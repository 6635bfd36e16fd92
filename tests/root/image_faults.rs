//! Pulls that die or fail at any system call that changes something: afterwards the store opens, and an image is whole
//! or not there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::mount::{MsFlags, mount, umount};
use tests::images::{Compression, Image, Layer};
use tests::{Registry, World};

use crate::image_store::{Store, tree};

/// Whatever changes a file system, and what makes it durable, as far as Debian's strace knows it.
const CALLS: [&str; 20] = [
    "write",
    "pwrite64",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "syncfs",
    "rename",
    "renameat2",
    "mkdir",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "linkat",
    "unlinkat",
    "unlink",
    "fchownat",
    "utimensat",
    "setxattr",
    "chmod",
];
/// Calls of one kind in one thread that are tried; a small pull has fewer of nearly every kind.
const DEEPEST: u32 = 40;

/// A small image with something of every kind.
fn image() -> Image {
    let lower = Layer::new()
        .entry(tar::EntryType::Directory, "dir/", 0o750, (3, 4), "", b"")
        .entry(tar::EntryType::Regular, "dir/setuid", 0o4755, (1000, 1000), "", &[7; 30_000])
        .hard_link("dir/link", "dir/setuid")
        .symlink("symlink", "dir/setuid")
        .entry(tar::EntryType::Fifo, "fifo", 0o600, (0, 0), "", b"");
    let upper = Layer::new().file("dir/more", 0o644, "more").file(".wh.symlink", 0o644, "").file(
        "other/.wh..wh..opq",
        0o644,
        "",
    );
    Image::new(vec![lower.finish(Compression::Gzip), upper.finish(Compression::Zstd)], &["/dir/setuid"])
}

/// What the layers look like after a pull that nobody disturbed, in the order of their content.
fn trees(store: &Store<'_>) -> Vec<BTreeMap<String, String>> {
    let mut trees: Vec<_> = store.layers().iter().map(|layer| without_times(tree(layer))).collect();
    trees.sort();
    trees
}

/// Without the times of what no archive gives a time: whiteouts.
fn without_times(tree: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_whiteout = |line: &str| line.starts_with("20000 ");
    tree.into_iter()
        .map(|(name, line)| if is_whiteout(&line) { (name, "whiteout".to_owned()) } else { (name, line) })
        .collect()
}

struct Scene<'a> {
    world: &'a World,
    reference: String,
    id: String,
    whole: Vec<BTreeMap<String, String>>,
    _registry: Registry,
}

impl<'a> Scene<'a> {
    fn new(world: &'a World) -> Scene<'a> {
        let registry = Registry::start(world);
        registry.add("app", "1", &image());
        let reference = format!("{}/app:1", registry.host());
        let store = Store::new(world);
        store.pull(&reference).success();
        let whole = trees(&store);
        assert_eq!(whole.len(), 2);
        Scene { world, reference, id: image().id(), whole, _registry: registry }
    }

    /// Pulls with `fault` in the `number`th `call` of any thread. `false` once no thread gets that far.
    fn disturb(&self, call: &str, fault: &str, number: u32) -> bool {
        let store = Store::new(self.world);
        let trace = store.dir().join("trace");
        let inject = format!("inject={call}:{fault}:when={number}");
        let strace =
            ["strace", "-f", "-qq", "-o", &trace.display().to_string(), "-e", &format!("trace={call}"), "-e", &inject];
        let done = store.orlop(&strace.map(str::to_owned), &["pull", &self.reference]);
        let traced = std::fs::read_to_string(&trace).unwrap_or_else(|error| panic!("{error}: {}", done.stderr));
        if !(traced.contains("(INJECTED)") || traced.contains("+++ killed by SIGKILL +++")) {
            return false;
        }
        let what = format!("{call}, {fault}, number {number} (exit code {}: {})", done.code, done.stderr);
        let listed = store.images();
        if done.code == 0 {
            assert_eq!(listed, std::slice::from_ref(&self.id), "{what}: a pull that succeeded is not there");
        }
        match listed.as_slice() {
            [] => assert!(store.layers().is_empty(), "{what}: layers without an image after a start"),
            [id] => {
                assert_eq!(*id, self.id, "{what}");
                assert_eq!(trees(&store), self.whole, "{what}: an image that is not whole");
            }
            _ => panic!("{what}: {listed:?}"),
        }
        assert_eq!(store.pull(&self.reference).success().trim(), self.id, "{what}: no pull works any more");
        assert_eq!(trees(&store), self.whole, "{what}: the pull after it is not whole");
        std::fs::remove_dir_all(store.dir()).expect("the store is done with");
        true
    }

    /// Every call of every kind in turn; returns how many points there were.
    fn disturb_all(&self, fault: &str) -> u32 {
        let mut points = 0;
        for call in CALLS {
            points += (1..=DEEPEST).take_while(|number| self.disturb(call, fault, *number)).count() as u32;
        }
        points
    }
}

#[test]
fn a_pull_that_is_killed_anywhere_leaves_an_image_whole_or_not_there() {
    let world = World::enter();
    let points = Scene::new(&world).disturb_all("signal=SIGKILL");
    println!("{points} points");
    assert!(points > 50, "only {points} points: is the injection at work?");
}

#[test]
fn a_disk_that_is_full_anywhere_leaves_an_image_whole_or_not_there() {
    let world = World::enter();
    let points = Scene::new(&world).disturb_all("error=ENOSPC");
    println!("{points} points");
    assert!(points > 50, "only {points} points: is the injection at work?");
}

#[test]
fn a_disk_that_fails_anywhere_leaves_an_image_whole_or_not_there() {
    let world = World::enter();
    let points = Scene::new(&world).disturb_all("error=EIO");
    println!("{points} points");
    assert!(points > 50, "only {points} points: is the injection at work?");
}

#[test]
fn a_full_disk_is_named_and_a_pull_works_when_there_is_room_again() {
    let world = World::enter();
    let registry = Registry::start(&world);
    let big = Layer::new().file("big", 0o644, vec![1; 4 << 20]).finish(Compression::Gzip);
    registry.add("app", "1", &Image::new(vec![big], &["/big"]));
    let reference = format!("{}/app:1", registry.host());
    let disk: PathBuf = world.new_dir("disk");
    let none: Option<&str> = None;
    mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=3m")).expect("a small disk");
    let store = Store::at(&world, disk.clone());
    let text = store.pull(&reference).stderr;
    assert!(text.contains("unpack \"big\"") && text.contains("No space left on device"), "{text}");
    assert!(store.images().is_empty() && store.layers().is_empty());
    mount(none, &disk, none, MsFlags::MS_REMOUNT, Some("size=30m")).expect("a larger disk");
    store.pull(&reference).success();

    mount(none, &disk, none, MsFlags::MS_REMOUNT, Some("size=30m,nr_inodes=40")).expect("few inodes");
    let many = (0..60).fold(Layer::new(), |layer, n| layer.file(&format!("f{n}"), 0o644, ""));
    registry.add("many", "1", &Image::new(vec![many.finish(Compression::Gzip)], &["/f0"]));
    let text = store.pull(&format!("{}/many:1", registry.host())).stderr;
    assert!(text.contains("No space left on device"), "{text}");
    assert_eq!(store.images().len(), 1, "the other image is still there");
    umount(&disk).expect("the small disk");
}

#[test]
fn a_store_belongs_to_one_process_and_the_second_is_told_to_whom() {
    let world = World::enter();
    let store = Store::new(&world);
    store.images();
    let lock = store.dir().join("root/image/lock");
    let held = sys::fs::lock_exclusive(&lock).expect("the lock");
    tests::write(&lock, "orlop (process 4711)\n");
    let text = store.orlop(&[], &["ls"]).stderr;
    assert!(text.contains("is in use by orlop (process 4711)"), "{text}");
    drop(held);
    assert!(store.images().is_empty());
}

#[test]
fn a_store_is_closed_to_everyone_else_and_repaired_if_it_was_open() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::enter();
    let store = Store::new(&world);
    store.images();
    let root = store.dir().join("root/image");
    for name in [".", "snapshots", "blobs", "trash"] {
        let path = root.join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    store.images();
    for name in [".", "snapshots", "blobs", "trash"] {
        let mode = std::fs::metadata(root.join(name)).expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}

#[test]
fn what_was_removed_is_gone_and_shared_layers_stay() {
    let world = World::enter();
    let registry = Registry::start(&world);
    let layer = |name: &str| Layer::new().file(name, 0o644, name).finish(Compression::Gzip);
    let (shared, own) = (layer("shared"), layer("own"));
    registry.add("a", "1", &Image::new(vec![shared.clone(), own], &["/own"]));
    registry.add("a", "2", &Image::new(vec![shared], &["/shared"]));
    let store = Store::new(&world);
    let name = |tag: &str| format!("{}/a:{tag}", registry.host());
    store.pull(&name("1")).success();
    store.pull(&name("2")).success();
    assert_eq!(store.layers().len(), 2);
    store.orlop(&[], &["rm", &name("1")]).success();
    assert_eq!(store.images().len(), 1);
    assert_eq!(store.layers().len(), 1);
    assert!(store.layers()[0].join("shared").exists());
}
