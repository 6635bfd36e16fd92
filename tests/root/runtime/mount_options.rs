//! The options of mounts, each as runc has it. Where ours does more, the test says so.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sys::rootfd::RootFd;
use tests::{World, output, write};

use super::bundle::{Bundle, message};

/// A directory of the host that is a mount of its own, gone with this.
struct Mounted<'a> {
    world: &'a World,
    path: PathBuf,
}

impl<'a> Mounted<'a> {
    fn new(world: &'a World, options: &str) -> Mounted<'a> {
        let path = world.new_dir("volume");
        output(world.command("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path)).success();
        Mounted { world, path }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        output(self.world.command("umount").arg("-R").arg(&self.path)).success();
    }
}

fn bind(target: &str, source: &Path, options: &[&str]) -> Value {
    json!({"destination": target, "type": "bind", "source": source, "options": options})
}

fn tmpfs(target: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options})
}

/// What `/proc/mounts` of a container says of each mount's options.
fn seen(world: &World, mounts: &[Value]) -> Vec<String> {
    let mut bundle =
        Bundle::new(world, "while read a b c d e; do case $b in /v*) echo $b $d;; esac; done < /proc/mounts");
    for mount in mounts {
        bundle.mount(mount.clone());
    }
    let attributes = ["rw", "ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow"];
    let text = bundle.run().success();
    let lines = text.lines().map(|line| {
        let (target, options) = line.split_once(' ').unwrap();
        let options: Vec<&str> = options.split(',').filter(|option| attributes.contains(option)).collect();
        format!("{target} {}", options.join(","))
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

/// The propagation in lines of a target and the tags of its mount, without numbers, by target.
fn kinds(text: &str) -> Vec<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let kind = |line: &str| line.split_once(' ').map_or("", |(_, kind)| kind).replace(|c: char| c.is_ascii_digit(), "");
    lines.into_iter().map(|line| kind(line).trim().to_owned()).collect()
}

#[test]
fn a_bind_mount_whose_options_name_any_attribute_has_just_these() {
    let world = World::enter();
    let volume = Mounted::new(&world, "nosuid,nodev,noexec,noatime");
    let mounts = [
        bind("/v0", &volume.path, &["rbind"]),
        bind("/v1", &volume.path, &["rbind", "rprivate"]),
        bind("/v2", &volume.path, &["rbind", "ro"]),
        bind("/v3", &volume.path, &["rbind", "rw"]),
        bind("/v4", &volume.path, &["bind", "nodev", "relatime"]),
        bind("/v5", &volume.path, &["bind", "nodiratime"]),
        bind("/v6", &volume.path, &["bind", "strictatime", "nosymfollow"]),
        bind("/v7", &volume.path, &["bind", "async"]),
        bind("/v8", &volume.path, &["bind", "ro", "rw", "nosuid", "suid", "noexec"]),
    ];
    let expected = [
        "/v0 rw,nosuid,nodev,noexec,noatime",
        "/v1 rw,nosuid,nodev,noexec,noatime",
        "/v2 ro,noatime",
        "/v3 rw,noatime",
        "/v4 rw,nodev,relatime",
        "/v5 rw,nodiratime,relatime",
        "/v6 rw,nosymfollow",
        "/v7 rw,noatime",
        "/v8 rw,noexec,noatime",
    ];
    assert_eq!(seen(&world, &mounts), expected);
}

#[test]
fn recursive_attributes_come_last_and_hold_for_what_is_mounted_below() {
    let world = World::enter();
    let volume = Mounted::new(&world, "nosuid");
    fs::create_dir(volume.path.join("below")).unwrap();
    output(world.command("mount").args(["-t", "tmpfs", "tmpfs"]).arg(volume.path.join("below"))).success();
    let mounts = [
        bind("/v0", &volume.path, &["rbind", "rw", "rro"]),
        bind("/v1", &volume.path, &["rbind", "ro", "rrw"]),
        bind("/v2", &volume.path, &["rbind", "ro"]),
        bind("/v3", &volume.path, &["rbind", "rnoatime", "rnoexec", "rnosymfollow"]),
    ];
    let expected = [
        "/v0 ro,relatime",
        "/v0/below ro,relatime",
        "/v1 rw,relatime",
        "/v1/below rw,relatime",
        "/v2 ro,relatime",
        "/v2/below rw,relatime",
        "/v3 rw,nosuid,noexec,noatime,nosymfollow",
        "/v3/below rw,noexec,noatime,nosymfollow",
    ];
    assert_eq!(seen(&world, &mounts), expected);
}

#[test]
fn a_new_file_system_has_the_attributes_and_parameters_of_its_options() {
    let world = World::enter();
    let mounts = [
        tmpfs("/v0", &["nosuid", "nodev", "noexec", "ro"]),
        tmpfs("/v1", &["noatime", "nodiratime", "nosymfollow"]),
        tmpfs("/v2", &["strictatime", "sync", "dirsync", "lazytime", "iversion", "silent", "nomand"]),
        tmpfs("/v3", &["size=64k,mode=711", "uid=5", "gid=6"]),
    ];
    let expected = ["/v0 ro,nosuid,nodev,noexec,relatime", "/v1 rw,noatime,nodiratime,nosymfollow", "/v2 rw"];
    assert_eq!(seen(&world, &mounts[..3]), expected);
    let mut bundle = Bundle::new(&world, "stat -c '%a %u:%g' /v3; stat -f -c '%b %s' /v3; grep /v2 /proc/mounts");
    bundle.mount(mounts[2].clone()).mount(mounts[3].clone());
    let text = bundle.run().success();
    assert!(text.starts_with("711 5:6\n16 4096\n"), "{text}");
    assert!(text.contains("sync") && text.contains("dirsync") && text.contains("lazytime"), "{text}");
}

#[test]
fn every_kind_of_propagation_is_set_in_its_order() {
    let world = World::enter();
    let volume = Mounted::new(&world, "nosuid");
    output(world.command("mount").arg("--make-shared").arg(&volume.path)).success();
    let script = "while read a b c d e f g; do case $e in /v*) echo $e ${g%%-*};; esac; done < /proc/self/mountinfo";
    let mut bundle = Bundle::new(&world, script);
    let lists = [
        &["rprivate"][..],
        &["private"],
        &["rslave"],
        &["slave"],
        &["rshared"],
        &["shared"],
        &["unbindable"],
        &["runbindable"],
        &["private", "rslave"],
        &["rslave", "private", "shared"],
        &[],
    ];
    for (index, list) in lists.iter().enumerate() {
        bundle.mount(bind(&format!("/v{index:02}"), &volume.path, &[&["rbind"], *list].concat()));
    }
    bundle.mount(tmpfs("/vs", &["shared"])).mount(tmpfs("/vu", &["unbindable"])).mount(tmpfs("/vp", &[]));
    let text = bundle.run().success();
    let expected = [
        "",
        "",
        "master:",
        "master:",
        "shared: master:",
        "shared: master:",
        "unbindable",
        "unbindable",
        "",
        "shared:",
        "master:",
        "",
        "shared:",
        "unbindable",
    ];
    assert_eq!(kinds(&text), expected, "{text}");
}

#[test]
fn a_tmpfs_can_begin_with_what_the_image_has_there() {
    let world = World::enter();
    let script = "stat -c '%n %a %u:%g' /v/sub /v/sub/file; cat /v/sub/file; readlink /v/link; \
                  echo more > /v/sub/file; ls /new; stat -c %a /v /mode";
    let mut bundle = Bundle::new(&world, script);
    for path in ["v", "v/sub", "mode"] {
        fs::create_dir(bundle.rootfs(path)).unwrap();
        fs::set_permissions(bundle.rootfs(path), fs::Permissions::from_mode(0o751)).unwrap();
    }
    write(&bundle.rootfs("v/sub/file"), "content\n");
    chown(bundle.rootfs("v/sub/file"), Some(1000), Some(2000)).unwrap();
    fs::set_permissions(bundle.rootfs("v/sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
    // To the host's own file, would anybody follow it.
    symlink("/etc/passwd", bundle.rootfs("v/link")).unwrap();
    bundle.mount(tmpfs("/v", &["tmpcopyup", "nosuid", "nodev"])).mount(tmpfs("/new", &["tmpcopyup"]));
    bundle.mount(tmpfs("/mode", &["tmpcopyup", "mode=700"]));
    let expected = "/v/sub 751 0:0\n/v/sub/file 640 1000:2000\ncontent\n/etc/passwd\n751\n700\n";
    assert_eq!(bundle.run().success(), expected);
    assert_eq!(fs::read_to_string(bundle.rootfs("v/sub/file")).unwrap(), "content\n");
}

/// runc copies no extended attributes and no devices (an overlay's whiteouts among them), and leaves the directory to root.
#[test]
fn a_tmpfs_that_begins_with_a_copy_has_owners_extended_attributes_and_whiteouts() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "touch /ready; sleep 100");
    fs::create_dir(bundle.rootfs("v")).unwrap();
    write(&bundle.rootfs("v/file"), "content");
    chown(bundle.rootfs("v"), Some(1000), Some(1000)).unwrap();
    let attribute = "trusted.orlop";
    sys::at::fsetxattr(&fs::File::open(bundle.rootfs("v/file")).unwrap(), attribute, b"kept").unwrap();
    let made = std::process::Command::new("mknod").arg(bundle.rootfs("v/gone")).args(["c", "0", "0"]).status();
    assert!(made.unwrap().success());
    bundle.mount(tmpfs("/v", &["tmpcopyup", "ro"]));
    let running = bundle.start();
    let root = RootFd::open(format!("/proc/{}/root", running.pid())).unwrap();
    let copy = root.open_path(Path::new("/v/file")).unwrap();
    assert_eq!(sys::at::fgetxattr(&copy, attribute).unwrap().unwrap(), b"kept");
    assert_eq!(root.metadata(Path::new("/v")).unwrap().uid(), 1000);
    assert_eq!(root.metadata(Path::new("/v/gone")).unwrap().mode(), 0o20644);
    assert!(sys::mount::is_read_only(&copy).unwrap());
}

#[test]
fn an_overlay_is_mounted_from_directories_of_the_host() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "cat /v/a /v/b; echo new > /v/c");
    for (dir, file) in [("one", "a"), ("two", "b"), ("upper", "x"), ("work", "")] {
        fs::create_dir(bundle.dir.join(dir)).unwrap();
        if !file.is_empty() {
            write(&bundle.dir.join(dir).join(file), format!("{dir}\n"));
        }
    }
    let dir = bundle.dir.display();
    let options =
        [format!("lowerdir={dir}/one:{dir}/two"), format!("upperdir={dir}/upper"), format!("workdir={dir}/work")];
    let overlay = json!({"destination": "/v", "type": "overlay", "source": "overlay", "options": options});
    bundle.mount(overlay);
    assert_eq!(bundle.run().success(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(bundle.dir.join("upper/c")).unwrap(), "new\n");
}

#[test]
fn a_mount_that_is_there_can_be_changed() {
    let world = World::enter();
    let volume = Mounted::new(&world, "nosuid");
    let mounts = [
        tmpfs("/v0", &["noexec", "nodev"]),
        tmpfs("/v0", &["remount", "nosuid", "size=64k"]),
        bind("/v1", &volume.path, &["bind", "noexec"]),
        bind("/v1", &volume.path, &["bind", "remount", "ro", "nodev"]),
    ];
    assert_eq!(seen(&world, &mounts), ["/v0 rw,nosuid,relatime", "/v1 ro,nodev,relatime"]);
    let mut bundle = Bundle::new(&world, "true");
    bundle.mount(bind("/tmp", &volume.path, &["bind", "remount", "ro"]));
    assert_ne!(bundle.run().code, 0, "nothing is mounted there");
}

#[test]
fn the_mount_of_cgroups_can_be_changed_as_any_other() {
    let world = World::enter();
    let target = "/v";
    let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    let cgroup = json!({"destination": target, "type": "cgroup", "source": "cgroup", "options": options});
    let remount = tmpfs(target, &["remount", "bind", "ro", "noexec"]);
    let hidden = tmpfs(target, &["nosuid"]);
    // Sorted: the tmpfs that is covered comes last.
    assert_eq!(top(&seen(&world, &[hidden, cgroup, remount]), target), ["ro,noexec,relatime", "rw,nosuid,relatime"]);
}

/// The attributes of what is mounted there, not below it.
fn top<'a>(seen: &'a [String], target: &str) -> Vec<&'a str> {
    seen.iter().filter_map(|line| line.strip_prefix(target)?.strip_prefix(' ')).collect()
}

/// runc looks the target up again. A link there, or who exchanges it, would have another mount changed: a volume made writable.
#[test]
fn a_mount_is_changed_wherever_its_target_leads_to_by_then() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "touch /w/x && echo writable; grep ' /w ' /proc/mounts | grep -c ' ro,'");
    symlink("/w", bundle.rootfs("v")).unwrap();
    bundle.mount(tmpfs("/v", &[])).mount(tmpfs("/w", &[])).mount(tmpfs("/v", &["remount", "ro"]));
    assert_eq!(bundle.run().success(), "writable\n1\n");
}

#[test]
fn a_file_is_bound_where_neither_it_nor_its_directories_are() {
    let world = World::enter();
    let file = world.new_dir("volume").join("file");
    write(&file, "content\n");
    let mut bundle = Bundle::new(&world, "cat /v/a/b; stat -c %a /v/a");
    bundle.mount(bind("/v/a/b", &file, &["bind"]));
    assert_eq!(bundle.run().success(), "content\n755\n");
    assert_eq!(fs::metadata(bundle.rootfs("v/a/b")).unwrap().len(), 0);
}

#[test]
fn a_relative_destination_is_one_of_the_root_and_strange() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "grep -c ' /v/x ' /proc/mounts");
    bundle.mount(tmpfs("v/x", &[]));
    let run = bundle.run();
    assert!(message(&run).contains("mount destination v/x is not absolute."), "{run:?}");
    assert_eq!(run.success(), "1\n");
}

#[test]
fn what_a_bind_mount_can_not_have_is_refused() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "true");
    bundle.mount(bind("/v", Path::new("/tmp"), &["rbind", "size=64k"]));
    let run = bundle.run();
    assert_ne!(run.code, 0);
    let expected = "bind mounts cannot have any filesystem-specific options applied";
    assert!(message(&run).contains(expected), "{run:?}");
}

/// crun's, which runc does not have.
#[test]
fn links_at_either_end_of_a_mount_can_be_copied_mounted_or_covered() {
    let world = World::enter();
    let volume = world.new_dir("volume");
    write(&volume.join("file"), "content\n");
    symlink("file", volume.join("link")).unwrap();
    let script = "readlink /copied; readlink /mounted; cat /followed /covered; readlink /covered || echo no link";
    let mut bundle = Bundle::new(&world, script);
    symlink("/nowhere", bundle.rootfs("covered")).unwrap();
    bundle.mount(bind("/copied", &volume.join("link"), &["bind", "copy-symlink"]));
    bundle.mount(bind("/mounted", &volume.join("link"), &["bind", "src-nofollow"]));
    bundle.mount(bind("/followed", &volume.join("link"), &["bind", "copy-symlink", "ro"]));
    bundle.mount(bind("/covered", &volume.join("file"), &["bind", "dest-nofollow"]));
    bundle.set("/mounts/9/source", json!(volume.join("file")));
    assert_eq!(bundle.run().success(), "file\nfile\ncontent\ncontent\nno link\n");
}

/// Those of the volumes as well: what is not recursive, runc leaves as it is on the host.
#[test]
fn the_propagation_of_the_root_is_what_volumes_begin_with() {
    let world = World::enter();
    let volume = Mounted::new(&world, "nosuid");
    output(world.command("mount").arg("--make-shared").arg(&volume.path)).success();
    let script = "while read a b c d e f g; do case $e in /|/v*) echo $e ${g%%-*};; esac; done < /proc/self/mountinfo";
    for (name, root, plain, shared) in [
        ("rprivate", "", "", "shared:"),
        ("rslave", "", "master:", "shared: master:"),
        ("shared", "shared:", "shared:", "shared:"),
        ("rshared", "shared:", "shared:", "shared:"),
    ] {
        let mut bundle = Bundle::new(&world, script);
        bundle.set("/linux/rootfsPropagation", json!(name));
        bundle.mount(bind("/v0", &volume.path, &["rbind"]));
        bundle.mount(bind("/v1", &volume.path, &["rbind", "rshared"]));
        assert_eq!(kinds(&bundle.run().success()), [root, plain, shared], "{name}");
    }
}
