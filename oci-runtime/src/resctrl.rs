//! The kernel's file system of cache and bandwidth shares, where a machine has it (Documentation/filesystems/resctrl.rst).
//!
//! A class of service is a directory with a file `schemata`; who is in its `tasks` gets what that says, and his children too.
//! Below `mon_groups` of a class are groups that are only counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sys::at::{self, OFlag};

use crate::error::{Error, Step};
use crate::plan::{DEFAULT_CLASS, IntelRdt};

/// The groups of a container, which is in them; for [`Target::resctrl`](crate::Target::resctrl) and [`remove`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Groups {
    /// What processes that join the container join as well.
    pub joined: Vec<PathBuf>,
    /// Which of them are the container's own, the innermost first: they end with it.
    pub made: Vec<PathBuf>,
}

/// The mounted file system.
pub(crate) struct Resctrl {
    root: PathBuf,
}

/// Groups that are ready for a process.
#[derive(Debug)]
pub(crate) struct Prepared {
    tasks: Vec<OwnedFd>,
    pub(crate) groups: Groups,
    /// A class that was made just now and does not end with the container: others may join it by its name.
    lasting: Option<PathBuf>,
}

impl Prepared {
    /// All that was made, for a container that could not be created.
    pub(crate) fn all_made(&self) -> Groups {
        let made = self.groups.made.iter().chain(&self.lasting).cloned().collect();
        Groups { joined: Vec::new(), made }
    }

    /// Puts the calling process in; 0 is the caller.
    pub(crate) fn join_self(self) -> Result<(), Error> {
        for tasks in self.tasks {
            let mut tasks = File::from(tasks);
            let written = tasks.write_all(b"0");
            written
                .map_err(|error| {
                    sys::Error::from_io("write", &error, format_args!("{}, \"0\"", sys::error::fd(&tasks)))
                })
                .step(|| "join linux.intelRdt's group".to_owned())?;
        }
        Ok(())
    }
}

/// Makes the groups of a container, if its plan asks for any.
///
/// # Errors
/// Nothing is left of them.
pub(crate) fn prepare(rdt: Option<&IntelRdt>, id: &str) -> Result<Option<Prepared>, Error> {
    let Some(rdt) = rdt else { return Ok(None) };
    // The words after the field are runc's.
    let missing = || refuse("", "intelRdt is specified in config, but Intel RDT is not enabled");
    Resctrl::find()?.ok_or_else(missing)?.prepare(rdt, id).map(Some)
}

/// Opens the groups that a process shall join besides its container's cgroup. One that is gone is left out, as by runc.
pub(crate) fn open(joined: &[PathBuf]) -> Result<Prepared, Error> {
    let mut tasks = Vec::new();
    for group in joined.iter().filter(|group| group.exists()) {
        tasks.push(open_file(group, "tasks").step(|| format!("open group {}", group.display()))?);
    }
    Ok(Prepared { tasks, groups: Groups::default(), lasting: None })
}

/// Removes the groups that a container had for itself; what is gone already is removed.
///
/// # Errors
/// Those of rmdir(2), with the path.
pub fn remove(groups: &Groups) -> Result<(), Error> {
    groups.made.iter().try_for_each(|group| match std::fs::remove_dir(group) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let error = sys::Error::from_io("rmdir", &error, format_args!("{group:?}"));
            Err(error).step(|| format!("remove group {}", group.display()))
        }
        _ => Ok(()),
    })
}

/// Changes the share of a container's class: lines of `schemata` for the L3 cache and for the memory bandwidth.
///
/// # Errors
/// The machine has no such shares, the container no class, or the kernel refuses the line. The words are runc's.
pub fn update(groups: &Groups, cache: Option<&str>, bandwidth: Option<&str>) -> Result<(), Error> {
    if cache.is_none() && bandwidth.is_none() {
        return Ok(());
    }
    let resctrl = Resctrl::find()?;
    let can = |names: &[&str]| resctrl.as_ref().is_some_and(|resctrl| resctrl.can(names));
    let refused = |reason: &str| Err(Error::Refused(reason.to_owned()));
    if cache.is_some() && !can(CACHE) {
        return refused("Intel RDT/CAT: l3 cache schema is not enabled");
    }
    if bandwidth.is_some() && !can(BANDWIDTH) {
        return refused("Intel RDT/MBA: memory bandwidth schema is not enabled");
    }
    match (resctrl, groups.joined.first()) {
        (Some(resctrl), Some(class)) => {
            let lines: Vec<String> = cache.into_iter().chain(bandwidth).map(str::to_owned).collect();
            resctrl.write_schemata(class, &lines)
        }
        _ => refused("updating a non-existent Intel RDT configuration is not supported"),
    }
}

/// What `info` holds for each kind of share; that of the cache has another name where code and data have one each.
const CACHE: &[&str] = &["L3", "L3CODE"];
const BANDWIDTH: &[&str] = &["MB"];
const MONITORING: &[&str] = &["L3_MON"];

fn refuse(field: &str, reason: &str) -> Error {
    Error::Refused(format!("linux.intelRdt{field}: {reason}"))
}

impl Resctrl {
    /// Wherever it is mounted: that is for the administrator to do.
    fn find() -> Result<Option<Resctrl>, Error> {
        let mounts = sys::mountinfo::read().step(|| "look for resctrl".to_owned())?;
        let mount = mounts.into_iter().find(|mount| mount.fstype == "resctrl");
        Ok(mount.map(|mount| Resctrl { root: mount.mount_point }))
    }

    fn can(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.root.join("info").join(name).exists())
    }

    fn prepare(&self, rdt: &IntelRdt, id: &str) -> Result<Prepared, Error> {
        if rdt.of_cache && !self.can(CACHE) {
            return Err(refuse(".l3CacheSchema", "Intel RDT/CAT is not enabled: resctrl has no info/L3"));
        }
        if rdt.of_bandwidth && !self.can(BANDWIDTH) {
            return Err(refuse(".memBwSchema", "Intel RDT/MBA is not enabled: resctrl has no info/MB"));
        }
        if rdt.monitoring && !self.can(MONITORING) {
            return Err(refuse(".enableMonitoring", "resctrl has no info/L3_MON"));
        }
        if id.is_empty() {
            return Err(refuse("", "a group is named after its container, which has no name here"));
        }
        let mut prepared = Prepared { tasks: Vec::new(), groups: Groups::default(), lasting: None };
        match self.make(rdt, id, &mut prepared) {
            Ok(()) => Ok(prepared),
            Err(error) => {
                // The error that led here is the one to tell.
                let _ = remove(&prepared.all_made());
                Err(error)
            }
        }
    }

    fn make(&self, rdt: &IntelRdt, id: &str, prepared: &mut Prepared) -> Result<(), Error> {
        let Prepared { tasks, groups, lasting } = prepared;
        let class = match rdt.class.as_deref() {
            Some(DEFAULT_CLASS) => self.root.clone(),
            Some(name) => self.root.join(name),
            None => self.root.join(id),
        };
        let shared = rdt.class.is_some();
        if shared && rdt.schemata.is_empty() && !class.exists() {
            let why = "has to be there when nothing says what it gets";
            return Err(refuse(".closID", &format!("{} {why}", class.display())));
        }
        let is_new = self.make_group(&class)?;
        match (is_new, shared) {
            (true, true) => *lasting = Some(class.clone()),
            (true, false) => groups.made.push(class.clone()),
            (false, _) => {}
        }
        if shared && !is_new {
            self.compare(&class, &rdt.schemata)?;
        } else if !rdt.schemata.is_empty() {
            self.write_schemata(&class, &rdt.schemata)?;
        }
        groups.joined.push(class.clone());
        if rdt.monitoring {
            let counted = class.join("mon_groups").join(id);
            if self.make_group(&counted)? {
                groups.made.insert(0, counted.clone());
            }
            groups.joined.push(counted);
        }
        let open = |group: &PathBuf| open_file(group, "tasks").step(|| format!("open group {}", group.display()));
        *tasks = groups.joined.iter().map(open).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// False if it is there already.
    fn make_group(&self, path: &Path) -> Result<bool, Error> {
        if path.is_dir() {
            return Ok(false);
        }
        let made = std::fs::create_dir_all(path)
            .map_err(|error| self.explain(sys::Error::from_io("mkdir", &error, format_args!("{path:?}"))));
        made.map(|()| true).step(|| format!("make group {} of linux.intelRdt", path.display()))
    }

    fn write_schemata(&self, class: &Path, schemata: &[String]) -> Result<(), Error> {
        let text: String = schemata.iter().map(|line| format!("{line}\n")).collect();
        let write = || {
            let mut file = File::from(open_file(class, "schemata")?);
            let written = file.write_all(text.as_bytes());
            written.map_err(|error| sys::Error::from_io("write", &error, format_args!("schemata, {text:?}")))
        };
        write().map_err(|error| self.explain(error)).step(|| format!("set the share of {}", class.display()))
    }

    /// A class that others made is not changed: it has to give already what is asked for.
    fn compare(&self, class: &Path, wanted: &[String]) -> Result<(), Error> {
        if wanted.is_empty() {
            return Ok(());
        }
        let path = class.join("schemata");
        let given = std::fs::read_to_string(&path)
            .map_err(|error| sys::Error::from_io("read", &error, format_args!("{path:?}")))
            .step(|| format!("read the share of {}", class.display()))?;
        match wanted.iter().flat_map(|text| text.lines()).find(|line| !gives(&given, line)) {
            None => Ok(()),
            Some(line) => Err(refuse(".closID", &format!("{} is there and does not give {line:?}", class.display()))),
        }
    }

    /// The kernel keeps a sentence about what failed last.
    fn explain(&self, error: sys::Error) -> sys::Error {
        match std::fs::read_to_string(self.root.join("info/last_cmd_status")) {
            Ok(status) if status.trim() != "ok" => error.with_detail(status.trim()),
            _ => error,
        }
    }
}

/// For writing. The kernel has made it: O_CREAT makes nothing in resctrl.
fn open_file(group: &Path, name: &str) -> sys::Result<OwnedFd> {
    let directory = sys::rootfd::RootFd::open(group)?;
    at::openat(&directory, name, OFlag::O_WRONLY | OFlag::O_CREAT, 0o600)
}

/// Whether the text of a `schemata` file gives what a line of one asks for, whose order and leading zeros may be others.
fn gives(schemata: &str, line: &str) -> bool {
    let Some((resource, wanted)) = shares(line) else { return false };
    let given = schemata.lines().filter_map(shares).find(|(known, _)| *known == resource);
    given.is_some_and(|(_, given)| wanted.iter().all(|(domain, share)| given.get(domain) == Some(share)))
}

/// `L3:0=7ff;1=1f`: a resource, and what each of its domains gives.
fn shares(line: &str) -> Option<(&str, BTreeMap<u32, &str>)> {
    let (resource, domains) = line.trim().split_once(':')?;
    let all = domains.split(';').map(|domain| {
        let (number, share) = domain.split_once('=')?;
        let bare = share.trim().trim_start_matches('0');
        Some((number.trim().parse().ok()?, if bare.is_empty() { "0" } else { bare }))
    });
    Some((resource.trim(), all.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
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
        let prepared = resctrl.prepare(&rdt(None, &["L3:0=f", "MB:0=10"], true), "box").unwrap();
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
            let groups = resctrl.prepare(&rdt(Some("gold"), schemata, false), "box").unwrap().groups;
            assert_eq!((groups.joined, groups.made), (vec![resctrl.root.join("gold")], vec![]));
        }
        for schemata in ["L3:0=ff", "MB:0=10", "L3:2=f", "L2:0=f", "L3"] {
            let error = resctrl.prepare(&rdt(Some("gold"), &[schemata], false), "box").unwrap_err().to_string();
            assert!(error.starts_with("linux.intelRdt.closID: ") && error.contains("does not give"), "{error}");
        }
        assert_eq!(read(&resctrl, "gold/schemata"), before);
        let counted = resctrl.prepare(&rdt(Some("gold"), &[], true), "box").unwrap().groups;
        assert_eq!(counted.made, [resctrl.root.join("gold/mon_groups/box")]);
    }

    #[test]
    fn a_class_that_is_not_there_is_made_only_if_it_is_said_what_it_gives() {
        let (_dir, resctrl) = fixture();
        let error = resctrl.prepare(&rdt(Some("new"), &[], false), "box").unwrap_err().to_string();
        assert!(error.contains("linux.intelRdt.closID: ") && error.contains("has to be there"), "{error}");
        assert!(!resctrl.root.join("new").exists());
        let groups = resctrl.prepare(&rdt(Some("new"), &["L3:0=3"], false), "box").unwrap().groups;
        // It is there for others too, and stays.
        assert_eq!((groups.made.len(), read(&resctrl, "new/schemata")), (0, "L3:0=3\n".to_owned()));
    }

    #[test]
    fn what_goes_with_a_container_that_fails_is_all_that_was_made_for_it() {
        let (_dir, resctrl) = fixture();
        let monitored = rdt(Some("new"), &["L3:0=3"], true);
        let prepared = resctrl.prepare(&monitored, "box").unwrap();
        let counted = resctrl.root.join("new/mon_groups/box");
        assert_eq!(prepared.all_made().made, [counted, resctrl.root.join("new")]);
        let prepared = resctrl.prepare(&rdt(Some("gold"), &[], false), "box").unwrap();
        assert_eq!(prepared.all_made(), Groups::default());
    }

    #[test]
    fn the_default_class_is_the_root() {
        let (_dir, resctrl) = fixture();
        let groups = resctrl.prepare(&rdt(Some("/"), &["MB:0=100"], true), "box").unwrap().groups;
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
            let error = resctrl.prepare(&rdt, "box").unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }

    #[test]
    fn a_group_that_cannot_be_made_tells_the_kernels_reason() {
        let (_dir, resctrl) = fixture();
        File::create(resctrl.root.join("info/last_cmd_status")).unwrap().write_all(b"out of CLOSIDs\n").unwrap();
        std::fs::remove_dir(resctrl.root.join("gold/mon_groups")).unwrap();
        File::create(resctrl.root.join("gold/mon_groups")).unwrap();
        let error = resctrl.prepare(&rdt(Some("gold"), &[], true), "box").unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("mkdir(") && cause.ends_with("out of CLOSIDs"), "{cause}");
    }
}
