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

/// Makes the groups of a container, if its plan asks for any. `announce` is called with each before it is made.
///
/// # Errors
/// Nothing is left of them.
pub(crate) fn prepare(
    rdt: Option<&IntelRdt>,
    id: &str,
    announce: &mut dyn FnMut(&Path),
) -> Result<Option<Prepared>, Error> {
    let Some(rdt) = rdt else { return Ok(None) };
    // The words after the field are runc's.
    let missing = || refuse("", "intelRdt is specified in config, but Intel RDT is not enabled");
    Resctrl::find()?.ok_or_else(missing)?.prepare(rdt, id, announce).map(Some)
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

/// Removes groups that a creator which was killed was about to make, or has made. One that somebody is in is a stranger's, and
/// stays.
///
/// # Errors
/// As [`remove`].
pub fn remove_unused(groups: &Groups) -> Result<(), Error> {
    let is_used = |group: &&PathBuf| std::fs::read(group.join("tasks")).is_ok_and(|tasks| !tasks.is_empty());
    let made = groups.made.iter().filter(|group| !is_used(group)).cloned().collect();
    remove(&Groups { joined: Vec::new(), made })
}

/// Changes the share of a container's class: lines of `schemata` for the L3 cache and for the memory bandwidth.
///
/// As runc, it does so for a class that the container shares with others (`closID`) too: a config asks for what it finds, but who
/// asks for a change means it. It holds for all who are in the class.
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

    fn prepare(&self, rdt: &IntelRdt, id: &str, announce: &mut dyn FnMut(&Path)) -> Result<Prepared, Error> {
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
        match self.make(rdt, id, announce, &mut prepared) {
            Ok(()) => Ok(prepared),
            Err(error) => {
                // The error that led here is the one to tell.
                let _ = remove(&prepared.all_made());
                Err(error)
            }
        }
    }

    fn make(
        &self,
        rdt: &IntelRdt,
        id: &str,
        announce: &mut dyn FnMut(&Path),
        prepared: &mut Prepared,
    ) -> Result<(), Error> {
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
        let is_new = self.make_group(&class, announce)?;
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
            if self.make_group(&counted, announce)? {
                groups.made.insert(0, counted.clone());
            }
            groups.joined.push(counted);
        }
        let open = |group: &PathBuf| open_file(group, "tasks").step(|| format!("open group {}", group.display()));
        *tasks = groups.joined.iter().map(open).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// False if it is there already.
    fn make_group(&self, path: &Path, announce: &mut dyn FnMut(&Path)) -> Result<bool, Error> {
        if path.is_dir() {
            return Ok(false);
        }
        announce(path);
        let made = match std::fs::create_dir(path) {
            // Somebody else was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
            made => made.map(|()| true),
        };
        made.map_err(|error| self.explain(sys::Error::from_io("mkdir", &error, format_args!("{path:?}"))))
            .step(|| format!("make group {} of linux.intelRdt", path.display()))
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
mod tests;
