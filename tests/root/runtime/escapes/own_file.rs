//! The runtime's own file, and the process that executes it (CVE-2019-5736, CVE-2016-9962).

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use serde_json::json;
use tests::{World, binary, write};

use super::Bundle;

/// CVE-2019-5736: the entry point, a link to it and a script's interpreter.
#[test]
fn the_runtimes_own_file_is_not_run_in_a_container_and_cannot_be_written_there() {
    let world = World::enter();
    let runtime = std::env::var_os("ORLOP_RUNTIME").map_or_else(|| binary("orlop-runtime"), PathBuf::from);
    let before = (fs::read(&runtime).unwrap(), fs::metadata(&runtime).unwrap().mtime());
    for program in ["/proc/self/exe", "/entry"] {
        let mut bundle = Bundle::new(&world, "");
        symlink("/proc/self/exe", bundle.rootfs("entry")).unwrap();
        bundle.set("/process/args", json!([program, "--version"]));
        let refused = bundle.run();
        assert_ne!(refused.code, 0, "{}", refused.stdout);
        assert!(refused.stderr.contains("it is the runtime itself"), "{}", refused.stderr);
    }
    let mut bundle = Bundle::new(&world, "");
    write(&bundle.rootfs("entry"), "#!/proc/self/exe --root\n");
    fs::set_permissions(bundle.rootfs("entry"), fs::Permissions::from_mode(0o755)).unwrap();
    bundle.set("/process/args", json!(["/entry"]));
    let _either = bundle.run();
    // A neighbour that tries to open the file of every process that comes and goes, while others join.
    let script = "touch /ready; while true; do for p in /proc/[0-9]*; do \
                  test $p = /proc/1 || test $p = /proc/$$ || echo x 2>/dev/null >> $p/exe; done; done";
    let bundle = Bundle::new(&world, script);
    let running = bundle.start();
    for _ in 0..20 {
        let _either = running.exec("true", json!({}));
    }
    drop(running);
    assert!(
        before == (fs::read(&runtime).unwrap(), fs::metadata(&runtime).unwrap().mtime()),
        "the runtime was changed"
    );
}

#[test]
fn the_file_that_a_waiting_container_executes_is_on_a_read_only_mount() {
    let world = World::enter();
    let bundle = Bundle::new(&world, "true");
    let waiting = bundle.create();
    // Looked at, not tried: while it is executed the kernel refuses with another error, and afterwards no more.
    let exe = format!("/proc/{}/exe", waiting.pid);
    let flags = nix::sys::statvfs::statvfs(exe.as_str()).unwrap().flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "{flags:?}");
}

/// CVE-2016-9962: the neighbour has the same capabilities; what keeps it out is that the runtime is not dumpable.
#[test]
fn a_neighbour_in_its_pid_namespace_cannot_look_into_a_container_that_waits() {
    let world = World::enter();
    // Without a process that ends: it would be seen, and then have nothing to be looked into.
    let neighbour = Bundle::new(&world, ": > /ready; sleep 100");
    let running = neighbour.start();
    let mut bundle = Bundle::new(&world, "true");
    let path = format!("/proc/{}/ns/pid", running.pid());
    bundle.set("/linux/namespaces/1", json!({"type": "pid", "path": path}));
    let waiting = bundle.create();
    let script = "for p in /proc/[0-9]*; do if readlink $p/exe >/dev/null; then \
                  ls $p/fd/ $p/root/ >/dev/null && echo seen $(readlink $p/exe); else echo hidden; fi; done 2>/dev/null";
    let capabilities = neighbour.config["process"]["capabilities"].clone();
    let seen = running.exec(script, json!({"capabilities": capabilities})).success();
    assert_eq!(seen.lines().filter(|line| *line == "hidden").count(), 1, "{seen} (it is {})", waiting.pid);
    assert!(seen.lines().all(|line| ["hidden", "seen /bin/busybox"].contains(&line)), "{seen}");
}
