//! Volumes whose owners are shown as maps have them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::{World, output, write};

use super::bundle::{Bundle, message};
use super::user_namespaces;

/// A volume on a file system that every kernel can map; it is removed when this is dropped.
struct Volume(PathBuf);

impl Volume {
    /// With files of the users 0 and 7, in groups of the same number.
    fn new(world: &World) -> Volume {
        let is_ext = |dir: &&str| {
            Path::new(dir).is_dir()
                && output(world.command("stat").args(["-f", "-c", "%T", dir])).success().trim() == "ext2/ext3"
        };
        let disk = ["/scratch", "/var/tmp", "/tmp"].into_iter().find(is_ext).expect("a directory on ext4");
        let dir = Path::new(disk).join(format!("{}-{}", world.name(), world.count()));
        fs::create_dir(&dir).unwrap();
        for (name, id) in [("root", 0), ("seven", 7)] {
            write(&dir.join(name), "");
            chown(dir.join(name), Some(id), Some(id)).unwrap();
        }
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        Volume(dir)
    }

    fn bind(&self, options: &[&str]) -> Value {
        json!({"destination": "/v", "type": "bind", "source": self.0, "options": options})
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const LOOK: &str = "cd /v; stat -c %u:%g root seven; touch new; stat -c %u:%g new";

fn with_maps(mut mount: Value, inside: u32, outside: u32) -> Value {
    let maps = json!([{"containerID": inside, "hostID": outside, "size": 100}]);
    mount["uidMappings"] = maps.clone();
    mount["gidMappings"] = maps;
    mount
}

#[test]
fn owners_are_mapped_without_a_user_namespace() {
    let world = World::enter();
    let volume = Volume::new(&world);
    let mut bundle = Bundle::new(&world, "");
    bundle.set("/process/args/2", json!(LOOK)).set("/process/user", json!({"uid": 1000, "gid": 1001}));
    bundle.mount(with_maps(volume.bind(&["rbind"]), 0, 1000));
    assert_eq!(bundle.run().success(), "1000:1000\n1007:1007\n1000:1001\n");
    let new = fs::metadata(volume.0.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (0, 1));
}

#[test]
fn a_container_with_a_user_namespace_sees_a_volume_of_the_hosts_root_as_its_own() {
    let world = World::enter();
    for maps in [false, true] {
        let volume = Volume::new(&world);
        let mut bundle = user_namespaces::bundle(&world, LOOK);
        bundle.mount(match maps {
            // The container's own maps, by name and by the option alone.
            true => with_maps(volume.bind(&["rbind"]), 0, 100_000),
            false => volume.bind(&["rbind", "idmap"]),
        });
        assert_eq!(bundle.run().success(), "0:0\n7:7\n0:0\n", "{maps}");
        let new = fs::metadata(volume.0.join("new")).unwrap();
        assert_eq!((new.uid(), new.gid()), (0, 0));
    }
}

#[test]
fn a_joined_user_namespace_maps_a_volume_too() {
    let world = World::enter();
    let volume = Volume::new(&world);
    let first = user_namespaces::bundle(&world, "touch /ready; sleep 100");
    let running = first.start();
    let mut second = user_namespaces::bundle(&world, LOOK);
    let namespaces = second.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.last_mut().unwrap()["path"] = json!(format!("/proc/{}/ns/user", running.pid()));
    second.mount(volume.bind(&["rbind", "idmap"]));
    assert_eq!(second.run().success(), "0:0\n7:7\n0:0\n");
}

#[test]
fn mounts_below_are_mapped_only_if_that_is_asked_for() {
    let world = World::enter();
    for (option, expected) in [("idmap", "1000\n65534\n"), ("ridmap", "1000\n1000\n")] {
        let (volume, below) = (Volume::new(&world), Volume::new(&world));
        fs::create_dir(volume.0.join("below")).unwrap();
        let target = volume.0.join("below");
        output(world.command("mount").arg("--bind").arg(&below.0).arg(&target)).success();
        let mut bundle = Bundle::new(&world, "stat -c %u /v/root /v/below/root");
        if option == "idmap" {
            bundle.set("/process/args/2", json!("stat -c %u /v/root; stat -c %u /v/below/root"));
        }
        bundle.mount(with_maps(volume.bind(&["rbind", option]), 0, 1000));
        let seen = bundle.run().success();
        output(world.command("umount").arg(&target)).success();
        // Not mapped, it is as on the host.
        assert_eq!(seen, expected.replace("65534", "0"), "{option}");
    }
}

/// crun's way to say it.
#[test]
fn maps_can_be_named_in_the_option() {
    if std::env::var_os("ORLOP_RUNTIME").is_some_and(|runtime| Path::new(&runtime).ends_with("runc")) {
        return;
    }
    let world = World::enter();
    let volume = Volume::new(&world);
    let mut bundle = Bundle::new(&world, "stat -c %u:%g /v/root /v/seven");
    bundle.mount(volume.bind(&["rbind", "idmap=uids=0-50-1#7-60-1;gids=0-70-1#7-80-1"]));
    assert_eq!(bundle.run().success(), "50:70\n60:80\n");
}

#[test]
fn a_volume_that_can_not_be_mapped_is_refused_by_its_name() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "true");
    let proc = json!({"destination": "/v", "type": "bind", "source": "/proc/fs", "options": ["bind"]});
    bundle.mount(with_maps(proc, 0, 1000));
    let refused = bundle.run();
    let expected = "map the ids of volume /proc/fs on /v: this kernel has no id-mapped mounts of its file system";
    assert!(refused.code != 0 && message(&refused).contains(expected), "{refused:?}");
    let mut bundle = Bundle::new(&world, "true");
    bundle.mount(json!({"destination": "/v", "type": "bind", "source": "/", "options": ["bind", "idmap"]}));
    let refused = bundle.run();
    assert!(refused.code != 0 && message(&refused).contains("there is no user namespace"), "{refused:?}");
}
