//! Masked and read-only paths (CVE-2017-16539, CVE-2018-10892, CVE-2025-31133).

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use serde_json::json;
use tests::{World, write};

use super::Bundle;

/// CVE-2017-16539, CVE-2018-10892, CVE-2025-31133: every masked path, whatever of them this kernel has.
#[test]
fn masked_paths_are_empty_and_their_cover_cannot_be_changed() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "");
    let paths: Vec<String> = serde_json::from_value(bundle.config["linux"]["maskedPaths"].clone()).unwrap();
    let script = format!(
        "for p in {}; do test -d $p && ls $p; test -f $p -o -c $p && cat $p; \
         chmod 600 $p 2>/dev/null && echo changed $p; test -d $p && touch $p/x 2>/dev/null && echo wrote $p; done; \
         test -c /proc/keys -a -d /sys/firmware && echo covered; echo x > /proc/sys/kernel/domainname || echo kept",
        paths.join(" ")
    );
    bundle.set("/process/args/2", json!(script));
    let mode = || fs::metadata("/dev/null").unwrap().mode();
    let before = mode();
    assert_eq!(bundle.run().success(), "covered\nkept\n");
    assert_eq!(mode(), before);
}

/// CVE-2025-31133: the cover is the host's null device, not what the container has at its name.
#[test]
fn what_covers_a_masked_file_does_not_come_from_the_container() {
    let world = World::enter();
    let volume = world.new_dir("volume");
    symlink("/etc/passwd", volume.join("null")).unwrap();
    let mut bundle = Bundle::new(&world, "stat -c '%F %t:%T' /proc/keys; echo x >/proc/keys; echo end");
    bundle.mount(json!({"destination": "/dev", "type": "bind", "source": volume, "options": ["rbind"]}));
    assert_eq!(bundle.run().success(), "character special file 1:3\nend\n");
    assert!(fs::read_to_string(bundle.rootfs("etc/passwd")).unwrap().starts_with("root:"));
}

#[test]
fn a_masked_or_read_only_path_that_is_a_link_hides_what_it_leads_to_in_the_container() {
    let world = World::enter();
    let script =
        "cat /secret /link; test -s /tmp/secret/.. ; ls /hidden /tmp/dir; touch /tmp/ro/x 2>/dev/null || echo kept";
    let mut bundle = Bundle::new(&world, script);
    write(&bundle.rootfs("secret"), "secret\n");
    for dir in ["dir", "ro"] {
        fs::create_dir_all(bundle.rootfs("tmp").join(dir)).unwrap();
    }
    write(&bundle.rootfs("tmp/dir/secret"), "secret\n");
    for (link, target) in [("link", "/../../../secret"), ("hidden", "tmp/dir"), ("ro", "/tmp/ro")] {
        symlink(target, bundle.rootfs(link)).unwrap();
    }
    bundle.set("/linux/maskedPaths", json!(["/link", "/hidden"]));
    bundle.set("/linux/readonlyPaths", json!(["/ro"]));
    assert_eq!(bundle.run().success(), "/hidden:\n\n/tmp/dir:\nkept\n");
}
