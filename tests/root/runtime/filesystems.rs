//! What a container sees mounted, and how.

use std::fs;

use serde_json::json;
use tests::{World, write};

use super::bundle::Bundle;

#[test]
fn a_volume_is_bound_with_the_attributes_of_its_options() {
    let world = World::enter();
    let volume = world.new_dir("volume");
    write(&volume.join("file"), "data\n");
    let mut bundle = Bundle::new(
        &world,
        "cat /rw/file /file; touch /rw/new || echo rw; touch /ro/new 2>/dev/null || echo ro; grep -E ' /(rw|ro|file) ' /proc/mounts | while read a b c d e; do echo $b $d; done",
    );
    let bind = |target: &str, source: &str, options: &[&str]| json!({"destination": target, "type": "bind", "source": volume.join(source), "options": options});
    bundle.mount(bind("/rw", "", &["rbind", "rw", "nosuid", "rprivate"]));
    bundle.mount(bind("/ro", "", &["rbind", "ro", "noatime"]));
    bundle.mount(bind("/file", "file", &["bind", "ro", "nodev"]));
    let seen = bundle.run().success();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..3], ["data", "data", "ro"]);
    assert!(lines[3].starts_with("/rw rw,nosuid,relatime"), "{seen}");
    assert!(lines[4].starts_with("/ro ro,noatime"), "{seen}");
    assert!(lines[5].starts_with("/file ro,nodev,relatime"), "{seen}");
    assert!(volume.join("new").exists());
}

#[test]
fn a_recursive_read_only_volume_is_read_only_below_its_mounts_as_well() {
    let world = World::enter();
    let volume = world.new_dir("volume");
    fs::create_dir(volume.join("below")).unwrap();
    tests::output(world.command("mount").args(["-t", "tmpfs", "tmpfs"]).arg(volume.join("below"))).success();
    let script = "touch /ro/below/x 2>/dev/null || echo ro; touch /rro/below/x 2>/dev/null || echo rro";
    let mut bundle = Bundle::new(&world, script);
    for (target, option) in [("/ro", "ro"), ("/rro", "rro")] {
        bundle.mount(json!({"destination": target, "type": "bind", "source": volume, "options": ["rbind", option]}));
    }
    assert_eq!(bundle.run().success(), "rro\n");
    tests::output(world.command("umount").arg(volume.join("below"))).success();
}

#[test]
fn later_mounts_of_the_host_show_up_where_the_volume_is_a_slave_and_nowhere_else() {
    let world = World::enter();
    let volume = world.new_dir("volume");
    fs::create_dir(volume.join("later")).unwrap();
    let mount = |arguments: &[&str]| tests::output(world.command("mount").args(arguments)).success();
    let path = volume.to_str().unwrap();
    mount(&["--bind", path, path]);
    mount(&["--make-shared", path]);
    let mut bundle = Bundle::new(&world, "touch /ready; sleep 100");
    for (target, option) in [("/slave", "rslave"), ("/private", "rprivate")] {
        bundle.mount(json!({"destination": target, "type": "bind", "source": volume, "options": ["rbind", option]}));
    }
    let running = bundle.start();
    mount(&["-t", "tmpfs", "tmpfs", &format!("{path}/later")]);
    write(&volume.join("later/file"), "");
    let seen = running.exec("ls /slave/later /private/later", json!({})).success();
    assert_eq!(seen, "/private/later:\n\n/slave/later:\nfile\n");
    drop(running);
    tests::output(world.command("umount").args(["-R", path])).success();
}

#[test]
fn a_shared_volume_gives_the_containers_mounts_to_the_host() {
    let world = World::enter();
    let volume = world.new_dir("volume");
    fs::create_dir(volume.join("below")).unwrap();
    let path = volume.to_str().unwrap();
    tests::output(world.command("mount").args(["--bind", path, path])).success();
    tests::output(world.command("mount").args(["--make-shared", path])).success();
    let mut bundle = Bundle::new(&world, "mount -t tmpfs tmpfs /shared/below && touch /shared/below/file");
    let capabilities = json!(["CAP_SYS_ADMIN"]);
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), capabilities.clone());
    }
    bundle.set("/linux/rootfsPropagation", json!("rshared"));
    bundle.mount(json!({"destination": "/shared", "type": "bind", "source": path, "options": ["rbind", "rshared"]}));
    bundle.run().success();
    assert!(volume.join("below/file").exists());
    tests::output(world.command("umount").args(["-R", path])).success();
}

#[test]
fn a_read_only_root_is_read_only_and_its_volumes_are_not() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "touch /x 2>/dev/null || echo ro; touch /tmp/x /dev/shm/x && echo rw");
    bundle.set("/root/readonly", json!(true));
    bundle.mount(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}));
    assert_eq!(bundle.run().success(), "ro\nrw\n");
}

#[test]
fn a_tmpfs_looks_like_the_directory_that_it_covers() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "stat -c %a /tmp /new; touch /ro/x 2>/dev/null || echo ro; ls /ro");
    std::os::unix::fs::chown(bundle.rootfs("tmp"), Some(0), Some(0)).unwrap();
    fs::set_permissions(bundle.rootfs("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let tmpfs = |target: &str, options: &[&str]| json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options});
    bundle.mount(tmpfs("/tmp", &[]));
    bundle.mount(tmpfs("/new", &["mode=700"]));
    // A mount below a read-only one still finds its place.
    bundle.mount(tmpfs("/ro", &["ro"]));
    bundle.mount(tmpfs("/ro/below", &[]));
    assert_eq!(bundle.run().success(), "1777\n700\nro\nbelow\n");
}

#[test]
fn the_default_devices_and_links_are_there_and_usable() {
    let world = World::enter();
    let mut bundle = Bundle::new(
        &world,
        "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done; \
         for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; \
         echo x > /dev/null && stat -c '%t:%T %a %u:%g' /dev/fuse; test -p /dev/pipe && echo pipe",
    );
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 1, "gid": 2},
            {"path": "/dev/pipe", "type": "p", "major": 0, "minor": 0},
        ]),
    );
    let expected = "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n\
                    /dev/urandom 1:9 666\n/dev/tty 5:0 666\n\
                    /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n\
                    a:e5 640 1:2\npipe\n";
    assert_eq!(bundle.run().success(), expected);
}

#[test]
fn cgroups_are_the_containers_own_and_read_only_with_and_without_a_cgroup_namespace() {
    let world = World::enter();
    let v1 = "cd /sys/fs/cgroup/memory; cat memory.limit_in_bytes; echo 0 2>/dev/null > tasks || echo read-only";
    let v2 = "cd /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); cat memory.max; \
              echo 0 2>/dev/null > cgroup.procs || echo read-only";
    let script = tests::cgroup::by_version(v1, v2);
    let limit = 64 << 20;
    for own in [true, false] {
        let mut bundle = Bundle::new(&world, script);
        bundle.set("/linux/resources/memory", json!({"limit": limit}));
        if !own {
            let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
        }
        assert_eq!(bundle.run().success(), format!("{limit}\nread-only\n"), "own namespace: {own}");
    }
}

#[test]
fn cgroups_share_mounts_as_their_options_say() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "grep ' /sys/fs/cgroup ' /proc/self/mountinfo");
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    let cgroup = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").unwrap();
    cgroup["options"] = json!(["nosuid", "noexec", "nodev", "ro", "rshared"]);
    let line = bundle.run().success();
    assert!(line.contains(" shared:"), "{line}");
}
