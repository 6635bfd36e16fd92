//! A container in the making: who makes it, and what is there of it already.
//!
//! `<root>/<id>/lock` is held by its creator from the moment that the id is taken until there is a state.json, and tells in
//! lines of JSON how far it has come, each written before there is something to clean up. A creator that was killed holds no
//! lock any more, so what it left is told from what another one is still at, and `delete` finds it here. What it has cloned
//! needs no line: until it is ready it ends with its creator, and it is in the cgroup from its first step on.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_runtime::resctrl::Groups;
use serde::{Deserialize, Serialize};
use sys::Errno;
use sys::poll::Interest;
use sys::process::{Pid, PidFd, Process};
use sys::record_lock::RecordLock;
use sys::signal::Signal;

use super::Error;
use super::kill::PATIENCE;
use super::store::{self, Container, LOCK, Record};

/// How far it has come.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// This process makes it; its cgroup may not be its own yet.
    Begun { creator: i32, record: Box<Record> },
    /// A group of resctrl that is to be made for it.
    Group { path: PathBuf },
    /// Whatever is in its cgroup is its own.
    CgroupMade,
    /// Its first process, if that is not born there.
    Restored { pid: i32, start_time: u64 },
}

/// An id that we have taken.
#[derive(Debug)]
pub(crate) struct Making {
    pub(crate) dir: PathBuf,
    lock: RecordLock,
}

impl Making {
    /// In a directory that was just made.
    pub(crate) fn in_directory(dir: PathBuf) -> Result<Making, Error> {
        let lock = RecordLock::open(dir.join(LOCK))?;
        match lock.try_take()? && lock.is_linked()? {
            true => Ok(Making { dir, lock }),
            false => Err(format!("{} is being removed by another process", dir.display()).into()),
        }
    }

    /// Before there is a cgroup.
    pub(crate) fn begin(&self, record: &Record) -> Result<(), Error> {
        let creator = std::process::id().cast_signed();
        self.write(&Step::Begun { creator, record: Box::new(record.clone()) })
    }

    /// Before a group of resctrl is made.
    pub(crate) fn makes_group(&self, path: &Path) -> Result<(), Error> {
        self.write(&Step::Group { path: path.to_owned() })
    }

    /// From here on what is in the cgroup is the container's.
    pub(crate) fn has_cgroup(&self) -> Result<(), Error> {
        self.write(&Step::CgroupMade)
    }

    /// The process that criu has made.
    pub(crate) fn has_process(&self, process: &Process) -> Result<(), Error> {
        self.write(&Step::Restored { pid: process.pid.as_raw(), start_time: process.start_time })
    }

    /// Removes the directory, unless it has gone, and the id may be another one's.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match self.lock.is_linked()? {
            true => store::remove(&self.dir),
            false => Ok(()),
        }
    }

    fn write(&self, step: &Step) -> Result<(), Error> {
        let mut line = serde_json::to_vec(step).map_err(|error| format!("encode a step: {error}"))?;
        line.push(b'\n');
        let written = self.lock.file().write_all(&line);
        Ok(written.map_err(|error| format!("write to {}: {error}", self.dir.join(LOCK).display()))?)
    }
}

/// What a creator that is no more has left, held against others that want to remove it too.
pub(crate) struct Abandoned {
    pub(crate) dir: PathBuf,
    steps: Vec<Step>,
    _lock: RecordLock,
}

impl Abandoned {
    /// What is left at `dir`, a directory without a state.json. A creator that is still at it is an error; with `force` it is
    /// ended. `None` if there is no such directory (any more).
    pub(crate) fn take(dir: &Path, force: bool) -> Result<Option<Abandoned>, Error> {
        let lock = match RecordLock::open(dir.join(LOCK)) {
            Err(error) if error.is(Errno::ENOENT) => return Ok(None),
            opened => opened?,
        };
        while !lock.try_take()? {
            let creator = read(&lock, dir)?.iter().find_map(Step::creator);
            match lock.holder()? {
                Some(holder) if creator != Some(holder) => lock.take()?,
                Some(_) if !force => return Err("container is being created".into()),
                Some(creator) => end(creator, &lock)?,
                None => {}
            }
        }
        if !lock.is_linked()? {
            return Ok(None);
        }
        Ok(Some(Abandoned { dir: dir.to_owned(), steps: read(&lock, dir)?, _lock: lock }))
    }

    /// What can be removed as a container is, if it came that far.
    pub(crate) fn container(&self) -> Option<Container> {
        let mut record = self.steps.iter().find_map(|step| match step {
            Step::Begun { record, .. } => Some(Record::clone(record)),
            _ => None,
        })?;
        for step in &self.steps {
            if let Step::Restored { pid, start_time } = *step {
                (record.pid, record.start_time) = (pid, start_time);
            }
        }
        Some(Container::new(self.dir.clone(), record))
    }

    /// The groups of resctrl that were made or about to be, the innermost first.
    pub(crate) fn groups(&self) -> Groups {
        let group = |step: &Step| match step {
            Step::Group { path } => Some(path.clone()),
            _ => None,
        };
        Groups { joined: Vec::new(), made: self.steps.iter().rev().filter_map(group).collect() }
    }

    /// Whether what is in the cgroup is the container's; it could be somebody else's before.
    pub(crate) fn owns_cgroup(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::CgroupMade))
    }
}

impl Step {
    fn creator(&self) -> Option<Pid> {
        match self {
            Step::Begun { creator, .. } => Some(Pid::from_raw(*creator)),
            _ => None,
        }
    }
}

/// Through the fd that is locked: closing another one of the same file would give up the lock. A line that was cut off was
/// written by somebody who did not come to do what it says.
fn read(lock: &RecordLock, dir: &Path) -> Result<Vec<Step>, Error> {
    let mut text = Vec::new();
    let mut file = lock.file();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut text));
    read.map_err(|error| format!("read {}: {error}", dir.join(LOCK).display()))?;
    Ok(text.split(|byte| *byte == b'\n').map_while(|line| serde_json::from_slice(line).ok()).collect())
}

/// Ends a creator, which has to be the one that holds the lock: its number could be another's by now.
fn end(creator: Pid, lock: &RecordLock) -> Result<(), Error> {
    let process = match PidFd::open(creator) {
        Err(error) if error.is(Errno::ESRCH) => return Ok(()),
        opened => opened?,
    };
    if lock.holder()? != Some(creator) {
        return Ok(());
    }
    match process.send_signal(Signal::SIGKILL) {
        Err(error) if error.is(Errno::ESRCH) => return Ok(()),
        sent => sent?,
    }
    let ready = sys::poll::poll(&[(process.as_fd(), Interest::READ)], Some(PATIENCE))?;
    match ready.first().is_some_and(|ready| !ready.is_empty()) {
        true => Ok(()),
        false => Err(format!("process {creator}, which makes the container, does not end").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_a_creator_that_is_gone_are_known_the_innermost_first() {
        let dir = tempfile::tempdir().unwrap();
        let [class, counted] = ["/resctrl/box", "/resctrl/box/mon_groups/box"].map(PathBuf::from);
        let making = Making::in_directory(dir.path().to_owned()).unwrap();
        making.makes_group(&class).unwrap();
        making.makes_group(&counted).unwrap();
        drop(making);
        let abandoned = Abandoned::take(dir.path(), true).unwrap().unwrap();
        assert_eq!(abandoned.groups(), Groups { joined: Vec::new(), made: vec![counted, class] });
    }
}
