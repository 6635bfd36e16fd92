//! In a root beside a canary that nothing may reach.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

/// A root beside a canary that nothing may touch.
struct Fixture {
    outside: tempfile::TempDir,
    root: RootFd,
}

impl Fixture {
    fn new() -> Fixture {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(outside.path().join("canary/dir")).unwrap();
        fs::create_dir(outside.path().join("root")).unwrap();
        let root = RootFd::open(outside.path().join("root")).unwrap();
        Fixture { outside, root }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.outside.path().join("root").join(path)
    }

    fn canary_is_unchanged(&self) -> bool {
        let canary = self.outside.path().join("canary");
        let names = |path: &Path| fs::read_dir(path).unwrap().count();
        names(&canary) == 1 && names(&canary.join("dir")) == 0
    }
}

#[test]
fn absolute_paths_dot_dot_and_links_stay_inside() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.inside("etc")).unwrap();
    symlink("/etc", fixture.inside("absolute")).unwrap();
    symlink("../../../../../etc", fixture.inside("upwards")).unwrap();
    let inode = fs::metadata(fixture.inside("etc")).unwrap().ino();
    for path in ["etc", "/etc", "../etc", "/../../etc", "absolute", "upwards", "etc/../../etc/."] {
        assert_eq!(fixture.root.metadata(Path::new(path)).unwrap().ino(), inode, "{path}");
    }
}

#[test]
fn a_path_beneath_may_use_links_that_stay_inside_and_no_others() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.inside("a/b")).unwrap();
    for (link, target) in [("inside", "a/../a/b"), ("absolute", "/a"), ("upwards", "../canary"), ("gone", "a/x")] {
        symlink(target, fixture.inside(link)).unwrap();
    }
    let inode = fs::metadata(fixture.inside("a/b")).unwrap().ino();
    assert_eq!(at::fstat(&fixture.root.open_path_beneath(Path::new("inside")).unwrap()).unwrap().st_ino, inode);
    let errno = |path: &str| fixture.root.open_path_beneath(Path::new(path)).unwrap_err().errno();
    for path in ["absolute", "upwards", "upwards/dir", "/a", "..", "a/../../canary"] {
        assert_eq!(errno(path), Errno::EXDEV, "{path}");
    }
    assert_eq!(errno("gone"), Errno::ENOENT);
}

#[test]
fn what_is_made_beneath_has_the_mode_asked_for_and_is_never_made_through_a_link() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.inside("a")).unwrap();
    symlink("a", fixture.inside("link")).unwrap();
    symlink("a/gone", fixture.inside("gone")).unwrap();
    symlink("../canary/new", fixture.inside("out")).unwrap();
    let made = fixture.root.make_path_beneath(Path::new("link/x/y"), 0o2777).unwrap();
    assert_eq!(at::fstat(&made).unwrap().st_ino, fs::metadata(fixture.inside("a/x/y")).unwrap().ino());
    for path in ["a/x", "a/x/y"] {
        assert_eq!(fs::metadata(fixture.inside(path)).unwrap().mode() & 0o7777, 0o2777, "{path}");
    }
    let errno = |path: &str| fixture.root.make_path_beneath(Path::new(path), 0o777).unwrap_err().errno();
    assert_eq!(errno("gone"), Errno::ENOTDIR);
    assert_eq!(errno("out"), Errno::EXDEV);
    assert_eq!(errno("new/../../canary/x"), Errno::EINVAL);
    assert!(!fixture.inside("a/gone").exists() && fixture.canary_is_unchanged());
}

#[test]
fn a_magic_link_is_refused() {
    let root = RootFd::open("/").unwrap();
    let error = root.open_path(Path::new("/proc/self/exe")).unwrap_err();
    assert!(error.is(Errno::ELOOP), "{error}");
    assert!(error.to_string().contains("RESOLVE_NO_MAGICLINKS"), "{error}");
}

#[test]
fn mkdir_all_makes_what_is_missing_and_finds_what_exists() {
    let fixture = Fixture::new();
    fixture.root.mkdir_all(Path::new("/a/b/c"), 0o755).unwrap();
    fixture.root.mkdir_all(Path::new("a/b/c/../d"), 0o755).unwrap();
    fixture.root.mkdir_all(Path::new("/"), 0o755).unwrap();
    assert!(fixture.inside("a/b/c").is_dir() && fixture.inside("a/b/d").is_dir());
}

#[test]
fn mkdir_all_follows_a_dangling_link_inside_the_root() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.inside("var")).unwrap();
    symlink("/run", fixture.inside("var/run")).unwrap();
    symlink("../../../lock", fixture.inside("var/lock")).unwrap();
    fixture.root.mkdir_all(Path::new("var/run/secrets/token"), 0o755).unwrap();
    fixture.root.mkdir_all(Path::new("var/lock/x"), 0o755).unwrap();
    assert!(fixture.inside("run/secrets/token").is_dir());
    assert!(fixture.inside("lock/x").is_dir());
}

#[test]
fn mkdir_all_through_a_link_to_the_outside_changes_nothing_there() {
    let fixture = Fixture::new();
    let canary = fixture.outside.path().join("canary");
    symlink(&canary, fixture.inside("link")).unwrap();
    fixture.root.mkdir_all(Path::new("link/new"), 0o755).unwrap();
    assert!(fixture.canary_is_unchanged());
    assert!(fixture.inside(canary.strip_prefix("/").unwrap().to_str().unwrap()).join("new").is_dir());
}

#[test]
fn links_that_lead_to_each_other_are_refused() {
    let fixture = Fixture::new();
    symlink("b", fixture.inside("a")).unwrap();
    symlink("a", fixture.inside("b")).unwrap();
    symlink("grow/x", fixture.inside("grow")).unwrap();
    for path in ["a/x", "a", "grow"] {
        let error = fixture.root.mkdir_all(Path::new(path), 0o755).unwrap_err();
        assert!(error.is(Errno::ELOOP), "{error}");
        let error = fixture.root.ensure_file(Path::new(path), 0o644).unwrap_err();
        assert!(error.is(Errno::ELOOP), "{error}");
    }
}

#[test]
fn mkdir_all_refuses_to_go_up_from_what_does_not_exist() {
    let fixture = Fixture::new();
    let error = fixture.root.mkdir_all(Path::new("none/../x"), 0o755).unwrap_err();
    assert!(error.is(Errno::ENOENT), "{error}");
    fs::File::create(fixture.inside("file")).unwrap();
    let error = fixture.root.mkdir_all(Path::new("file/x"), 0o755).unwrap_err();
    assert!(error.is(Errno::ENOTDIR), "{error}");
}

#[test]
fn a_new_file_never_replaces_or_follows_what_is_there() {
    let fixture = Fixture::new();
    symlink(fixture.outside.path().join("canary/new"), fixture.inside("link")).unwrap();
    assert!(fixture.root.create_file(Path::new("link"), 0o600).unwrap_err().is(Errno::EEXIST));
    fixture.root.create_file(Path::new("file"), 0o600).unwrap();
    assert!(fixture.root.create_file(Path::new("file"), 0o600).unwrap_err().is(Errno::EEXIST));
    assert!(fixture.canary_is_unchanged());
}

#[test]
fn ensure_file_makes_a_mount_target_behind_a_dangling_link() {
    let fixture = Fixture::new();
    symlink("/run/resolv.conf", fixture.inside("resolv.conf")).unwrap();
    let target = fixture.root.ensure_file(Path::new("/resolv.conf"), 0o644).unwrap();
    let made = RootFd::open(fixture.inside("run")).unwrap().open_path(Path::new("resolv.conf")).unwrap();
    assert!(at::same_file(&target, &made).unwrap());
    assert!(at::same_file(&target, &fixture.root.ensure_file(Path::new("resolv.conf"), 0).unwrap()).unwrap());
}

#[test]
fn the_last_component_of_a_removal_is_not_followed() {
    let fixture = Fixture::new();
    symlink(fixture.outside.path().join("canary"), fixture.inside("link")).unwrap();
    fixture.root.remove_all(Path::new("link")).unwrap();
    assert!(fixture.canary_is_unchanged());
    assert!(fixture.root.symlink_metadata(Path::new("link")).unwrap_err().is(Errno::ENOENT));
}

#[test]
fn remove_all_takes_a_tree_deeper_than_any_path_and_leaves_what_links_point_to() {
    let fixture = Fixture::new();
    let long = "d".repeat(200); // 60,000 bytes of path in all, PATH_MAX is 4,096
    let mut directory = fixture.root.mkdir_all(Path::new("top"), 0o755).unwrap();
    for _ in 0..300 {
        at::mkdirat(&directory, &long, 0o755).unwrap();
        at::symlinkat("/", &directory, "link").unwrap();
        directory = at::openat(&directory, &long, OFlag::O_PATH, 0).unwrap();
    }
    fixture.root.remove_all(Path::new("top")).unwrap();
    fixture.root.remove_all(Path::new("top")).unwrap(); // gone is success
    fixture.root.remove_all(Path::new("none/at/all")).unwrap();
    assert!(!fixture.inside("top").exists());
    assert!(fixture.canary_is_unchanged());
}

#[test]
fn a_bounded_read_takes_regular_files_up_to_its_limit_only() {
    let fixture = Fixture::new();
    let file = fixture.root.create_file(Path::new("file"), 0o600).unwrap();
    std::io::Write::write_all(&mut &file, b"12345").unwrap();
    assert_eq!(fixture.root.read_bounded(Path::new("file"), 5).unwrap(), b"12345");
    assert!(fixture.root.read_bounded(Path::new("file"), 4).unwrap_err().is(Errno::EFBIG));
    fixture.root.mknod(Path::new("fifo"), SFlag::S_IFIFO, 0o600, 0).unwrap();
    let error = fixture.root.read_bounded(Path::new("fifo"), 5).unwrap_err();
    assert!(error.to_string().contains("not a regular file but S_IFIFO"), "{error}");
}

#[test]
fn links_and_hard_links_are_made_without_following() {
    let fixture = Fixture::new();
    fixture.root.symlink("/etc/passwd", Path::new("link")).unwrap();
    fixture.root.hard_link(Path::new("link"), Path::new("second")).unwrap();
    assert_eq!(fixture.root.readlink(Path::new("second")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fixture.root.symlink_metadata(Path::new("link")).unwrap().nlink(), 2);
}

#[test]
fn only_plain_names_make_a_plain_relative_path() {
    for (path, plain) in [("a/b", true), ("./a", false), ("", false), ("/a", false), ("a/..", false)] {
        assert_eq!(is_plain_relative(Path::new(path)), plain, "{path}");
    }
}
