//! A root file system that is hostile from the beginning and changes while its container starts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::attempt::attempt;
use super::host::Host;
use super::layout::Layout;
use super::random::Random;
use super::{Counts, seed, seeds, side_by_side};
use crate::runtime::bundle::Bundle;
use crate::runtime::effort;
use crate::runtime::tmpfs::Tmpfs;

/// Where mounts go: below names that are exchanged, and up again.
const TARGETS: [&str; 16] = [
    "/v",
    "/v/dir/x",
    "/v/../v/dir/new",
    "/v/dir/../../tmp/y",
    "/v/up/a/b",
    "/v/out/file",
    "/srv/work/m",
    "/etc/passwd",
    "/etc/hosts",
    "/run/secrets/deep",
    "/dev/shm",
    "/dev/extra",
    "/dev/pts",
    "/../../tmp/z",
    "/sys/fs/cgroup/x",
    "/tmp/hidden",
];

#[test]
fn a_root_file_system_that_changes_while_its_container_starts_changes_nothing_else() {
    let begun = Instant::now();
    // A guest's tenth would be too few to say how many run: of the first thirty three or four can at all, unless they lose a race.
    let all = effort::tries(300, 10_000).max(100);
    let exchanges = AtomicU64::new(0);
    let counts = side_by_side(all, |world, tries| {
        let tmpfs = Tmpfs::mount(world.new_dir("bundle"));
        let mut bundle = Bundle::new_in(world, tmpfs.0.clone(), "echo alive");
        tests::copy_program(bundle.rootfs("bin/busybox"), tmpfs.0.join("busybox"));
        let cgroup = format!("/{}/runtime", world.name());
        let plain = bundle.config.clone();
        let host = Host::new(world);
        let canary = host.canary.dir.clone();
        let layout = Layout { dir: &tmpfs.0, canary: &canary };
        let mut counts = Counts::default();
        for number in tries {
            let mut random = Random::new(seed(), number.into());
            layout.make(&mut random);
            bundle.config = config(&plain, &mut random);
            bundle.write_config();
            let mut command = bundle.runtime();
            command.arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
            let stop = AtomicBool::new(false);
            let end = std::thread::scope(|scope| {
                let neighbour = random.clone();
                scope.spawn(|| layout.exchange(neighbour, &stop, &exchanges));
                let end = attempt(command, &bundle.dir, 1);
                stop.store(true, Ordering::Relaxed);
                end
            });
            let wrong = match &end {
                Err(error) => Some(error.clone()),
                Ok(_) => host.difference(&bundle, &cgroup),
            };
            if let Some(wrong) = wrong {
                panic!("try {number} of seed {}: {wrong}\n{}", seed(), bundle.config);
            }
            counts.add(end.expect("an end").0);
        }
        counts
    });
    let exchanges = exchanges.into_inner();
    let ends = [("starts", counts.ran + counts.refused), ("exchanges", exchanges), ("ran", counts.ran)];
    effort::report("root file systems", &ends, begun);
    assert!(counts.ran > u64::from(all) / 20 && counts.refused > 0, "{counts:?}");
}

/// A configuration that leads through the names that are exchanged.
fn config(plain: &Value, random: &mut Random) -> Value {
    let mut config = plain.clone();
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| !random.once_in(if mount["destination"] == "/dev" { 2 } else { 6 }));
    for _ in 0..random.below(4) {
        let target = *random.pick(&TARGETS);
        let option = *random.pick(&["ro", "nosuid", "rslave", "rshared", "rro", "noexec"]);
        mounts.push(match random.below(3) {
            0 => json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": [option]}),
            1 => json!({"destination": target, "type": "bind", "source": "volume", "options": ["rbind", option]}),
            _ => json!({"destination": target, "type": "bind", "source": "config.json", "options": ["bind", option]}),
        });
    }
    let cwd = *random.pick(&[
        "/",
        "/",
        "/srv/work",
        "/srv/new/dir",
        "/v/dir/cwd",
        "/tmp/../srv",
        "/proc/self/fd/5",
        "/dev/pts",
    ]);
    let node = |path: &str| json!({"path": path, "type": "c", "major": 1, "minor": 3, "uid": 7, "gid": 7});
    config["process"]["cwd"] = json!(cwd);
    config["process"]["terminal"] = json!(random.once_in(3));
    config["process"]["user"]["uid"] = json!(if random.once_in(3) { 1000 } else { 0 });
    config["process"]["oomScoreAdj"] = json!(100);
    config["root"]["readonly"] = json!(random.once_in(4));
    config["linux"]["devices"] = json!([node("/dev/extra"), node("/srv/work/node"), node("/v/dir/null")]);
    config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    if random.once_in(4) {
        seeds::map_ids(&mut config);
    }
    for (list, paths) in [
        ("maskedPaths", ["/tmp/hidden", "/v/dir/file", "/etc/passwd"]),
        ("readonlyPaths", ["/tmp/ro", "/v/up", "/dev/shm"]),
    ] {
        let list = config["linux"][list].as_array_mut().expect("a list");
        list.extend(paths.iter().filter(|_| random.once_in(2)).map(|path| json!(path)));
    }
    config
}
