//! When, where and as what the container's processes run: scheduling, I/O priority, CPUs, memory nodes, execution domain,
//! labels. In the first process and in one that joins.

use serde_json::{Value, json};
use tests::World;

use super::bundle::{Bundle, message};

const WAIT: &str = "touch /ready; sleep 100";

/// The policy and the nice value of the shell that runs this (proc_pid_stat(5), fields 41 and 19).
const SCHEDULING: &str = "read stat < /proc/self/stat; set -- ${stat##*)}; echo ${39} ${17}";

#[track_caller]
fn check_refused(bundle: &Bundle<'_>, expected: &str) {
    let output = bundle.run();
    assert_ne!(output.code, 0, "{}", output.stdout);
    assert!(message(&output).contains(expected), "{expected} in {}", message(&output));
}

#[test]
fn a_scheduling_policy_counts_for_the_container_and_for_what_joins_it() {
    let world = World::enter();
    for (scheduler, expected) in [
        (json!({"policy": "SCHED_OTHER", "nice": 7}), "0 7\n"),
        (json!({"policy": "SCHED_BATCH", "nice": 3}), "3 3\n"),
        (json!({"policy": "SCHED_IDLE"}), "5 0\n"),
    ] {
        let mut bundle = Bundle::new(&world, &format!("({SCHEDULING}) > /seen; {WAIT}"));
        bundle.set("/process/scheduler", scheduler);
        let running = bundle.start();
        assert_eq!(std::fs::read_to_string(bundle.rootfs("seen")).unwrap(), expected);
        assert_eq!(running.exec(SCHEDULING, json!({})).success(), expected);
        let own = json!({"scheduler": {"policy": "SCHED_OTHER", "nice": 1}});
        assert_eq!(running.exec(SCHEDULING, own).success(), "0 1\n");
    }
}

#[test]
fn a_policy_that_is_reset_on_fork_holds_for_the_program_and_not_for_its_children() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, &format!("{SCHEDULING}; sh -c '{SCHEDULING}'; true"));
    let scheduler = json!({"policy": "SCHED_BATCH", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    bundle.set("/process/scheduler", scheduler);
    assert_eq!(bundle.run().success(), "3 -5\n3 0\n");
}

// Ours by its wording.
#[test]
fn a_scheduler_that_makes_no_sense_or_no_kernel_has_is_refused_by_name() {
    let world = World::enter();
    for (scheduler, expected) in [
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice: 20 is not between -20 and 19"),
        (json!({"policy": "SCHED_BATCH", "priority": 1}), "process.scheduler.priority: is for SCHED_FIFO"),
        (json!({"policy": "SCHED_OTHER", "runtime": 1}), "process.scheduler.runtime: is for SCHED_DEADLINE only"),
        (json!({"policy": "SCHED_ISO"}), "set process.scheduler: sched_setattr(0, {policy=4,"),
    ] {
        let mut bundle = Bundle::new(&world, "true");
        bundle.set("/process/scheduler", scheduler);
        check_refused(&bundle, expected);
    }
}

#[test]
fn an_io_priority_counts_for_the_container_and_for_what_joins_it() {
    let world = World::enter();
    // busybox's ionice prints the class by name and the priority.
    let look = "busybox ionice";
    for (class, priority, expected) in
        [("BE", 6, "best-effort: prio 6\n"), ("RT", 1, "realtime: prio 1\n"), ("IDLE", 0, "idle\n")]
    {
        let mut bundle = Bundle::new(&world, &format!("{look} > /seen; {WAIT}"));
        let io = json!({"class": format!("IOPRIO_CLASS_{class}"), "priority": priority});
        bundle.set("/process/ioPriority", io);
        let running = bundle.start();
        assert_eq!(std::fs::read_to_string(bundle.rootfs("seen")).unwrap(), expected);
        assert_eq!(running.exec(look, json!({})).success(), expected);
        let own = json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 2}});
        assert_eq!(running.exec(look, own).success(), "best-effort: prio 2\n");
    }
    let mut bundle = Bundle::new(&world, "true");
    bundle.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}));
    check_refused(&bundle, "riority: 8");
}

#[test]
fn a_personality_counts_for_the_container_and_for_what_joins_it() {
    let world = World::enter();
    for (domain, machine) in [("LINUX", "x86_64\n"), ("LINUX32", "i686\n")] {
        let mut bundle = Bundle::new(&world, &format!("busybox uname -m > /seen; {WAIT}"));
        bundle.set("/linux/personality", json!({"domain": domain}));
        let running = bundle.start();
        assert_eq!(std::fs::read_to_string(bundle.rootfs("seen")).unwrap(), machine);
        assert_eq!(running.exec("busybox uname -m", json!({})).success(), machine);
    }
}

#[test]
fn a_personality_is_set_before_a_filter_that_forbids_it() {
    let world = World::enter();
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new(&world, "busybox uname -m");
        bundle.set("/linux/personality", json!({"domain": "LINUX32"}));
        bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH"}));
        bundle.set("/process/noNewPrivileges", Value::Bool(no_new_privileges));
        let names = ["personality", "sched_setattr", "ioprio_set", "set_mempolicy", "sched_setaffinity"];
        let rules = json!([{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]);
        let profile =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules});
        bundle.set("/linux/seccomp", profile);
        assert_eq!(bundle.run().success(), "i686\n", "{no_new_privileges}");
    }
}

#[test]
fn a_memory_policy_counts_for_the_container_and_for_what_joins_it() {
    let world = World::enter();
    let look = "read line < /proc/self/numa_maps; set -- $line; echo $2";
    for (policy, expected) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0\n"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), "bind=static:0\n"),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}),
            "interleave=relative:0\n",
        ),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), "prefer:0\n"),
        (json!({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}), "prefer (many):0\n"),
        (json!({"mode": "MPOL_LOCAL"}), "local\n"),
        (json!({"mode": "MPOL_DEFAULT"}), "default\n"),
    ] {
        let mut bundle = Bundle::new(&world, &format!("({look}) > /seen; {WAIT}"));
        bundle.set("/linux/memoryPolicy", policy);
        let running = bundle.start();
        let first_word = expected.split(' ').next().unwrap().trim_end();
        assert_eq!(std::fs::read_to_string(bundle.rootfs("seen")).unwrap().trim_end(), first_word);
        assert_eq!(running.exec(look, json!({})).success().trim_end(), first_word);
    }
    let mut bundle = Bundle::new(&world, "true");
    bundle.set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "1023"}));
    check_refused(&bundle, "set_mempolicy");
}

/// The number of a CPU that the tests may use, and how many there are.
fn own_cpus() -> (usize, usize) {
    let mask = sys::process::affinity().unwrap();
    let cpus: Vec<usize> = (0..mask.len() * 64).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect();
    assert!(cpus.len() > 1, "a test about CPUs needs two");
    (cpus[0], cpus.len())
}

const CPUS: &str = "grep Cpus_allowed_list /proc/self/status";

#[test]
fn the_cpus_of_the_creator_are_not_the_containers() {
    let world = World::enter();
    let (first, _) = own_cpus();
    let bundle = Bundle::new(&world, &format!("{CPUS} > /seen; {WAIT}"));
    let all = Bundle::new(&world, CPUS).run().success();
    std::thread::scope(|scope| {
        // The child of a thread has the thread's CPUs, and the container is the runtime's child.
        let bound = scope.spawn(|| {
            let mut mask = vec![0; first / 64 + 1];
            mask[first / 64] = 1 << (first % 64);
            sys::process::set_affinity(&mask).unwrap();
            let running = bundle.start();
            (std::fs::read_to_string(bundle.rootfs("seen")).unwrap(), running.exec(CPUS, json!({})).success())
        });
        let (seen, joined) = bound.join().unwrap();
        assert_eq!((seen.as_str(), joined.as_str()), (all.as_str(), all.as_str()));
        assert_ne!(all, format!("Cpus_allowed_list:\t{first}\n"));
    });
}

#[test]
fn a_process_that_joins_has_its_final_cpus_and_its_initial_ones_without() {
    let world = World::enter();
    let (first, _) = own_cpus();
    let one = format!("Cpus_allowed_list:\t{first}\n");
    let mut bundle = Bundle::new(&world, &format!("{CPUS} > /seen; {WAIT}"));
    bundle.set("/process/execCPUAffinity", json!({"final": first.to_string()}));
    let running = bundle.start();
    // Not for the first process.
    assert_ne!(std::fs::read_to_string(bundle.rootfs("seen")).unwrap(), one);
    assert_eq!(running.exec(CPUS, json!({})).success(), one);
    let other = json!({"execCPUAffinity": {"initial": "0-1023", "final": format!(" {first},")}});
    assert_eq!(running.exec(CPUS, other).success(), one);
    let refused = running.exec(CPUS, json!({"execCPUAffinity": {"initial": "1022", "final": "0"}}));
    assert!(refused.code != 0 && message(&refused).contains("nitial"), "{refused:?}");
    let refused = running.exec(CPUS, json!({"execCPUAffinity": {"final": "1022"}}));
    assert!(refused.code != 0 && message(&refused).contains("inal"), "{refused:?}");
}

// Ours: runc lets the kernel refuse the second label.
#[test]
fn a_label_of_a_security_module_that_is_not_there_is_refused_by_name() {
    let world = World::enter();
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap();
    let label = json!("system_u:system_r:container_t:s0:c1,c2");
    assert!(!filesystems.contains("selinuxfs"), "this test is for a kernel without SELinux");
    for pointer in ["/process/selinuxLabel", "/linux/mountLabel"] {
        let mut bundle = Bundle::new(&world, "true");
        bundle.set(pointer, label.clone());
        check_refused(&bundle, "selinux label is specified in config, but selinux is disabled or not supported");
    }
    let bundle = Bundle::new(&world, WAIT);
    let running = bundle.start();
    let refused = running.exec("true", json!({"selinuxLabel": label}));
    assert!(refused.code == 255 && message(&refused).contains("process.selinuxLabel: selinux label"), "{refused:?}");
    let refused = running.exec("true", json!({"apparmorProfile": "web"}));
    assert!(refused.code == 255 && message(&refused).contains("pparmor"), "{refused:?}");
}

#[test]
fn an_ambient_capability_that_cannot_be_raised_is_a_warning() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "grep CapAmb /proc/self/status");
    bundle.set("/process/capabilities/ambient", json!(["CAP_CHOWN", "CAP_TELEPORT"]));
    let run = bundle.run();
    assert!(run.stderr.contains("can't raise ambient capability CAP_CHOWN: "), "{run:?}");
    assert!(run.stderr.contains("ignoring unknown or unavailable capabilities: [CAP_TELEPORT]"), "{run:?}");
    assert_eq!(run.success(), "CapAmb:\t0000000000000000\n");
}

#[test]
fn a_share_of_caches_is_refused_where_the_kernel_has_none_to_give() {
    let world = World::enter();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(" - resctrl "), "this test is for a machine without resctrl");
    for rdt in
        [json!({}), json!({"closID": "gold"}), json!({"l3CacheSchema": "L3:0=f"}), json!({"enableMonitoring": true})]
    {
        let mut bundle = Bundle::new(&world, "true");
        bundle.set("/linux/intelRdt", rdt);
        check_refused(&bundle, "intelRdt is specified in config, but Intel RDT is not enabled");
    }
    let bundle = Bundle::new(&world, WAIT);
    let _running = bundle.start();
    for (flag, line, expected) in [
        ("--l3-cache-schema", "L3:0=f", "Intel RDT/CAT: l3 cache schema is not enabled"),
        ("--mem-bw-schema", "MB:0=20", "Intel RDT/MBA: memory bandwidth schema is not enabled"),
    ] {
        let refused = tests::output(bundle.runtime().args(["update", flag, line, &bundle.id]));
        assert!(refused.code == 1 && message(&refused).contains(expected), "{refused:?}");
    }
}
