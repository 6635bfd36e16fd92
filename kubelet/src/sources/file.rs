//! The folder of static pods: read when inotify says that it changed, and every now and then in case it did not.
//!
//! A manifest that is broken leaves the pod of its last good version running, for as long as this kubelet runs, and the pods
//! of all others. Nothing is said before the folder could be read: whoever heard "no pods" would end them. Each mistake is
//! logged once.

use super::manifest::{self, ManifestError, SEEN};
use crate::clock::Clock;
use crate::pod::Pod;
use crate::stamp::Stamp;
use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, warn};

/// The largest manifest, upstream's limit.
const LARGEST: u64 = 10 << 20;
/// Changes come in groups: an editor writes, renames and deletes.
const QUIET: Duration = Duration::from_millis(50);

/// Starts reading; each message is everything that the folder has. Ends when nobody listens.
pub(super) fn start(path: PathBuf, every: Duration, node_name: String, clock: Clock) -> mpsc::Receiver<Vec<Pod>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(watch(path, every, node_name, clock, sender));
    receiver
}

async fn watch(path: PathBuf, every: Duration, node_name: String, clock: Clock, pods: mpsc::Sender<Vec<Pod>>) {
    let mut folder = Folder { path: path.clone(), node_name, files: BTreeMap::new(), problem: None };
    let mut notices = Notices::new();
    let mut rescan = tokio::time::interval(every.max(Duration::from_secs(1)));
    rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said: Option<Vec<Pod>> = None;
    loop {
        tokio::select! {
            () = pods.closed() => return,
            _ = rescan.tick() => {}
            () = notices.next() => tokio::time::sleep_until(Instant::now() + QUIET).await,
        }
        // Before reading, so that nothing changes unseen in between; the folder may be another one than it was.
        notices.look_at(&path);
        let now = clock.now().wall;
        let read = tokio::task::spawn_blocking(move || {
            let listed = folder.read(now);
            (folder, listed)
        });
        let Ok((back, listed)) = read.await else { return };
        folder = back;
        if !listed {
            continue;
        }
        let all = folder.pods();
        let same = |said: &Vec<Pod>| {
            said.len() == all.len() && said.iter().zip(&all).all(|(said, pod)| said.wants_the_same(pod))
        };
        if !said.as_ref().is_some_and(same) && pods.send(all.clone()).await.is_err() {
            return;
        }
        said = Some(all);
    }
}

/// What was read of the folder.
struct Folder {
    path: PathBuf,
    node_name: String,
    files: BTreeMap<PathBuf, Known>,
    /// What was last said to be wrong with the folder itself.
    problem: Option<String>,
}

/// A file as it was read last.
struct Known {
    /// `None` if it could not be read: it is tried again.
    stamp: Option<Stamp>,
    /// The pod of its last good version.
    pod: Option<Pod>,
    /// What is wrong with the present one.
    problem: Option<String>,
}

impl Folder {
    /// All pods, one per name and UID: of two manifests with one name, the first in the order of files counts.
    fn pods(&mut self) -> Vec<Pod> {
        let mut all: Vec<Pod> = Vec::new();
        for (path, known) in &mut self.files {
            let Some(pod) = &known.pod else { continue };
            let same_name = |other: &Pod| (other.namespace(), other.name()) == (pod.namespace(), pod.name());
            let taken = if all.iter().any(same_name) {
                Some("name")
            } else {
                all.iter().any(|other| other.uid() == pod.uid()).then_some("metadata.uid")
            };
            if let Some(what) = taken {
                say(&mut known.problem, format!("{}: another manifest has the {what} of this pod", path.display()));
                continue;
            }
            all.push(pod.clone());
        }
        all.sort_by(|a, b| a.uid().cmp(b.uid()));
        all
    }

    /// Looks at all files. False if it is not known which there are.
    fn read(&mut self, now: Timestamp) -> bool {
        let paths = match self.list() {
            Ok(paths) => {
                self.problem = None;
                paths
            }
            // A folder that is not there has no pods; one that can't be read keeps those that it had.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                say(&mut self.problem, format!("{}: there is no such folder", self.path.display()));
                Vec::new()
            }
            Err(error) => {
                say(&mut self.problem, format!("read {}: {error}", self.path.display()));
                return false;
            }
        };
        self.files.retain(|path, _| paths.contains(path));
        for path in paths {
            self.look(path, now);
        }
        true
    }

    /// The files in it, in the order of their names; dotfiles are editors' business.
    fn list(&self) -> io::Result<Vec<PathBuf>> {
        if std::fs::metadata(&self.path)?.is_file() {
            return Ok(vec![self.path.clone()]);
        }
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn look(&mut self, path: PathBuf, now: Timestamp) {
        let found = match std::fs::metadata(&path) {
            Ok(meta) if meta.is_file() => Stamp::of(&meta),
            // It went away meanwhile: the next round will see.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return drop(self.files.remove(&path)),
            Ok(_) => return self.spoiled(path, "not a file"),
            Err(error) => return self.spoiled(path, error),
        };
        if self.files.get(&path).is_some_and(|known| known.stamp == Some(found)) {
            return;
        }
        let parsed = match open(&path) {
            Ok(text) => self.parse(&path, text, now),
            Err(error) if is_of_this_version(&error) => Err(ManifestError(format!("{}: {error}", path.display()))),
            Err(error) => return self.spoiled(path, error),
        };
        let known = self.files.entry(path).or_insert(Known { stamp: None, pod: None, problem: None });
        known.stamp = Some(found);
        match parsed {
            Ok(pod) => {
                known.problem = None;
                // The same content in another file version is the same pod, and was seen before.
                if !known.pod.as_ref().is_some_and(|known| same_content(known, &pod)) {
                    known.pod = Some(pod);
                }
            }
            Err(ManifestError(problem)) => say(&mut known.problem, problem),
        }
    }

    fn parse(&self, path: &Path, text: String, now: Timestamp) -> Result<Pod, ManifestError> {
        manifest::parse(path, text, &self.node_name, now)
    }

    /// It can't be read now.
    fn spoiled(&mut self, path: PathBuf, problem: impl Display) {
        let text = format!("{}: {problem}", path.display());
        let known = self.files.entry(path).or_insert(Known { stamp: None, pod: None, problem: None });
        known.stamp = None;
        say(&mut known.problem, text);
    }
}

/// Whether two readings of a manifest say the same, whenever it was that they were seen. A manifest may have a UID of its
/// own, which then stays whatever else it says.
fn same_content(known: &Pod, read: &Pod) -> bool {
    let Some(seen) = known.annotation(SEEN) else { return false };
    let mut object = read.object().clone();
    object.metadata.annotations.get_or_insert_default().insert(SEEN.to_owned(), seen.to_owned());
    *known.object() == object
}

/// Logs a mistake, unless it is the one that was logged before.
fn say(last: &mut Option<String>, problem: String) {
    if last.as_ref() != Some(&problem) {
        error!("static pod: {problem}");
        *last = Some(problem);
    }
}

/// A manifest's text, with a limit.
fn open(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 10 MiB"));
    }
    Ok(text)
}

/// Whether reading the file again can't end otherwise as long as nobody changes it: too large, no text.
fn is_of_this_version(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidData)
}

/// inotify, where there is any: without it the folder is read every now and then only.
struct Notices(Option<AsyncFd<Watcher>>);

struct Watcher(Inotify);

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Notices {
    fn new() -> Notices {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(io::Error::from);
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that may lie about their fd; an Inotify can't"
        )]
        let made = inotify.and_then(|inotify| AsyncFd::with_interest(Watcher(inotify), Interest::READABLE));
        match made {
            Ok(made) => Notices(Some(made)),
            Err(error) => {
                warn!(%error, "no inotify: changes of static pods are seen by reading the folder every now and then");
                Notices(None)
            }
        }
    }

    /// Watches this path, if it is there. The same folder again costs nothing.
    fn look_at(&self, path: &Path) {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_MODIFY;
        if let Some(fd) = &self.0 {
            // What is not there yet is looked for at the next round.
            let _ = fd.get_ref().0.add_watch(path, flags);
        }
    }

    /// Returns when something has changed.
    async fn next(&mut self) {
        let Some(fd) = &self.0 else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = fd.readable().await else { return std::future::pending().await };
            // Which file it was does not matter: all are looked at.
            match ready.try_io(|fd| fd.get_ref().0.read_events().map_err(io::Error::from)) {
                Ok(_) => return,
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
