//! Against a directory that looks like resctrl.

use super::*;

/// A directory that looks like resctrl, with the class `gold`.
fn fixture() -> (tempfile::TempDir, Resctrl) {
    let dir = tempfile::tempdir().unwrap();
    for path in ["info/L3", "info/MB", "info/L3_MON", "mon_groups", "gold/mon_groups"] {
        std::fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    let file = |path: &str, text: &str| {
        File::create(dir.path().join(path)).unwrap().write_all(text.as_bytes()).unwrap();
    };
    file("schemata", "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n");
    file("gold/schemata", "    L3:0=0000f;1=fffff\n    MB:0= 20;1=100\n");
    let root = dir.path().to_owned();
    (dir, Resctrl { root })
}

/// As the kernel, which makes the directory of its monitoring groups with a class.
fn prepare(resctrl: &Resctrl, rdt: &IntelRdt, id: &str) -> Result<Prepared, Error> {
    let mut announce = |path: &Path| {
        // Where a test has put a file in the way, it is what comes next that has to say so.
        let _ = std::fs::create_dir_all(path.parent().unwrap());
    };
    resctrl.prepare(rdt, id, &mut announce)
}

fn rdt(class: Option<&str>, schemata: &[&str], monitoring: bool) -> IntelRdt {
    IntelRdt {
        class: class.map(str::to_owned),
        schemata: schemata.iter().map(|line| (*line).to_owned()).collect(),
        of_cache: schemata.iter().any(|line| line.starts_with("L3")),
        of_bandwidth: schemata.iter().any(|line| line.starts_with("MB")),
        monitoring,
    }
}

fn read(resctrl: &Resctrl, path: &str) -> String {
    std::fs::read_to_string(resctrl.root.join(path)).unwrap()
}

#[test]
fn a_container_without_a_class_has_one_of_its_own_that_ends_with_it() {
    let (_dir, resctrl) = fixture();
    let prepared = prepare(&resctrl, &rdt(None, &["L3:0=f", "MB:0=10"], true), "box").unwrap();
    let (class, counted) = (resctrl.root.join("box"), resctrl.root.join("box/mon_groups/box"));
    assert_eq!(prepared.groups.joined, [class.clone(), counted.clone()]);
    assert_eq!(prepared.groups.made, [counted, class]);
    assert_eq!(read(&resctrl, "box/schemata"), "L3:0=f\nMB:0=10\n");
    prepared.join_self().unwrap();
    assert_eq!((read(&resctrl, "box/tasks"), read(&resctrl, "box/mon_groups/box/tasks")), ("0".into(), "0".into()));
}

#[test]
fn a_class_that_is_there_is_joined_if_it_gives_what_is_asked_for_and_never_changed_or_removed() {
    let (_dir, resctrl) = fixture();
    let before = read(&resctrl, "gold/schemata");
    for schemata in [&[][..], &["L3:0=f"][..], &["L3:1=fffff;0=f", "MB:1=100;0=20"][..]] {
        let groups = prepare(&resctrl, &rdt(Some("gold"), schemata, false), "box").unwrap().groups;
        assert_eq!((groups.joined, groups.made), (vec![resctrl.root.join("gold")], vec![]));
    }
    for schemata in ["L3:0=ff", "MB:0=10", "L3:2=f", "L2:0=f", "L3"] {
        let error = prepare(&resctrl, &rdt(Some("gold"), &[schemata], false), "box").unwrap_err().to_string();
        assert!(error.starts_with("linux.intelRdt.closID: ") && error.contains("does not give"), "{error}");
    }
    assert_eq!(read(&resctrl, "gold/schemata"), before);
    let counted = prepare(&resctrl, &rdt(Some("gold"), &[], true), "box").unwrap().groups;
    assert_eq!(counted.made, [resctrl.root.join("gold/mon_groups/box")]);
}

#[test]
fn a_class_that_is_not_there_is_made_only_if_it_is_said_what_it_gives() {
    let (_dir, resctrl) = fixture();
    let error = prepare(&resctrl, &rdt(Some("new"), &[], false), "box").unwrap_err().to_string();
    assert!(error.contains("linux.intelRdt.closID: ") && error.contains("has to be there"), "{error}");
    assert!(!resctrl.root.join("new").exists());
    let groups = prepare(&resctrl, &rdt(Some("new"), &["L3:0=3"], false), "box").unwrap().groups;
    // It is there for others too, and stays.
    assert_eq!((groups.made.len(), read(&resctrl, "new/schemata")), (0, "L3:0=3\n".to_owned()));
}

#[test]
fn what_goes_with_a_container_that_fails_is_all_that_was_made_for_it() {
    let (_dir, resctrl) = fixture();
    let monitored = rdt(Some("new"), &["L3:0=3"], true);
    let prepared = prepare(&resctrl, &monitored, "box").unwrap();
    let counted = resctrl.root.join("new/mon_groups/box");
    assert_eq!(prepared.all_made().made, [counted, resctrl.root.join("new")]);
    let prepared = prepare(&resctrl, &rdt(Some("gold"), &[], false), "box").unwrap();
    assert_eq!(prepared.all_made(), Groups::default());
}

#[test]
fn each_group_is_announced_before_it_is_made_and_no_other() {
    let (_dir, resctrl) = fixture();
    let mut announced = Vec::new();
    let mut announce = |path: &Path| {
        assert!(!path.exists(), "{path:?}");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        announced.push(path.to_owned());
    };
    resctrl.prepare(&rdt(None, &["L3:0=3"], true), "box", &mut announce).unwrap();
    resctrl.prepare(&rdt(Some("gold"), &[], true), "box", &mut announce).unwrap();
    resctrl.prepare(&rdt(Some("gold"), &[], true), "box", &mut announce).unwrap();
    let made = ["box", "box/mon_groups/box", "gold/mon_groups/box"];
    assert_eq!(announced, made.map(|path| resctrl.root.join(path)));
}

#[test]
fn a_class_that_somebody_else_makes_meanwhile_is_his() {
    let (_dir, resctrl) = fixture();
    let mut announce = |path: &Path| {
        std::fs::create_dir_all(path).unwrap();
        File::create(path.join("schemata")).unwrap().write_all(b"L3:0=1\n").unwrap();
    };
    let error = resctrl.prepare(&rdt(Some("new"), &["L3:0=3"], false), "box", &mut announce).unwrap_err();
    assert!(error.to_string().contains("does not give"), "{error}");
    assert_eq!(read(&resctrl, "new/schemata"), "L3:0=1\n");
}

#[test]
fn of_the_groups_of_a_creator_that_was_killed_those_stay_that_somebody_is_in() {
    let (_dir, resctrl) = fixture();
    let [made, used, never] = ["made", "used", "never"].map(|name| resctrl.root.join(name));
    std::fs::create_dir(&made).unwrap();
    std::fs::create_dir(&used).unwrap();
    File::create(used.join("tasks")).unwrap().write_all(b"1\n").unwrap();
    remove_unused(&Groups { joined: Vec::new(), made: vec![made.clone(), used.clone(), never] }).unwrap();
    assert_eq!((made.exists(), used.exists()), (false, true));
}

#[test]
fn the_default_class_is_the_root() {
    let (_dir, resctrl) = fixture();
    let groups = prepare(&resctrl, &rdt(Some("/"), &["MB:0=100"], true), "box").unwrap().groups;
    assert_eq!(groups.joined, [resctrl.root.clone(), resctrl.root.join("mon_groups/box")]);
    assert_eq!(groups.made, [resctrl.root.join("mon_groups/box")]);
}

#[test]
fn what_the_machine_lacks_is_refused_by_name() {
    for (missing, rdt, field) in [
        ("info/L3", rdt(None, &["L3:0=f"], false), "linux.intelRdt.l3CacheSchema: "),
        ("info/MB", rdt(None, &["MB:0=10"], false), "linux.intelRdt.memBwSchema: "),
        ("info/L3_MON", rdt(None, &[], true), "linux.intelRdt.enableMonitoring: "),
    ] {
        let (_dir, resctrl) = fixture();
        std::fs::remove_dir(resctrl.root.join(missing)).unwrap();
        let error = prepare(&resctrl, &rdt, "box").unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
}

#[test]
fn a_group_that_cannot_be_made_tells_the_kernels_reason() {
    let (_dir, resctrl) = fixture();
    File::create(resctrl.root.join("info/last_cmd_status")).unwrap().write_all(b"out of CLOSIDs\n").unwrap();
    std::fs::remove_dir(resctrl.root.join("gold/mon_groups")).unwrap();
    File::create(resctrl.root.join("gold/mon_groups")).unwrap();
    let error = prepare(&resctrl, &rdt(Some("gold"), &[], true), "box").unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("mkdir(") && cause.ends_with("out of CLOSIDs"), "{cause}");
}
