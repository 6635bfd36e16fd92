//! Blocking work on volumes, watched: a call on a dead NFS server never returns, and nothing but its own pod may wait.
//!
//! Each piece of work is a *stage*: it has a name, a path, and a thread of its own from tokio's pool. After
//! [`SLOW`] a warning says where it hangs; after [`GIVE_UP`] the caller gets an error and may come back. The thread
//! stays until the kernel lets it go, so a volume with a stage under way gets no second one: a dead mount costs one
//! thread, however often its pod is tried again.

use crate::pod::PodUid;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinError;
use tokio::time::Instant;

/// When a stage is worth a warning.
pub(super) const SLOW: Duration = Duration::from_secs(10);
/// When its caller goes on without it.
pub(super) const GIVE_UP: Duration = Duration::from_secs(30);

/// A stage that does not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stalled {
    stage: &'static str,
    path: PathBuf,
    seconds: u64,
    /// The kernel function that the thread sleeps in, where the kernel says.
    waiting_in: Option<String>,
}

impl std::error::Error for Stalled {}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} has not returned for {} s", self.stage, self.path.display(), self.seconds)?;
        match &self.waiting_in {
            Some(function) => write!(f, ", waiting in {function}"),
            None => Ok(()),
        }
    }
}

/// What a stage works on. Two stages of a pod with the same work never run at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// One volume.
    Volume(String),
    /// The end of all volumes.
    TakeDown,
    /// Their size.
    Measure,
}

impl Work {
    /// On the volume of this name.
    pub(super) fn on(volume: &str) -> Work {
        Work::Volume(volume.to_owned())
    }
}

type Key = (PodUid, Work);

/// What runs now. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Stages {
    running: Arc<Mutex<BTreeMap<Key, Stage>>>,
    /// Told each time that one ends.
    ended: Arc<Notify>,
}

/// One piece of work under way.
#[derive(Debug, Clone)]
struct Stage {
    name: &'static str,
    path: PathBuf,
    since: Instant,
    /// `/proc/self/task/<tid>` of its thread, once it has one.
    thread: Option<PathBuf>,
}

impl Stage {
    fn stalled(&self) -> Stalled {
        let wchan = self.thread.as_ref().and_then(|thread| std::fs::read_to_string(thread.join("wchan")).ok());
        Stalled {
            stage: self.name,
            path: self.path.clone(),
            seconds: self.since.elapsed().as_secs(),
            waiting_in: wchan.filter(|name| name != "0" && !name.is_empty()),
        }
    }
}

impl Stages {
    /// Runs `work` for a pod's volume on a thread of its own. Fails if it takes too long, or if the volume's last stage
    /// still runs.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        uid: &PodUid,
        on: Work,
        name: &'static str,
        path: &Path,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stalled> {
        let stage = Stage { name, path: path.to_owned(), since: Instant::now(), thread: None };
        let key = (uid.clone(), on);
        let running = self.start(&key, stage).map_err(|before| before.stalled())?;
        let mut task = tokio::task::spawn_blocking(move || {
            running.is_here();
            work()
        });
        for (wait, warn) in [(SLOW, true), (GIVE_UP - SLOW, false)] {
            match tokio::time::timeout(wait, &mut task).await {
                Ok(Ok(result)) => return Ok(result),
                Ok(Err(failed)) => return Ok(joined(failed).await),
                Err(_) => {}
            }
            if warn && let Some(stalled) = self.of(&key) {
                tracing::warn!(pod = %uid, error = %stalled, "work on a volume hangs");
            }
        }
        Err(self.of(&key).unwrap_or(Stalled {
            stage: name,
            path: path.to_owned(),
            seconds: GIVE_UP.as_secs(),
            waiting_in: None,
        }))
    }

    /// Waits until nothing of this pod makes anything in its folder any more: whoever takes the folder away comes
    /// after. Fails with a stage that does not end.
    pub(super) async fn settled(&self, uid: &PodUid, folder: &Path) -> Result<(), Stalled> {
        let deadline = Instant::now() + GIVE_UP;
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable(); // before we look, so that no end is missed
            let Some(stage) = self.in_folder(uid, folder) else { return Ok(()) };
            if tokio::time::timeout_at(deadline, ended).await.is_err() {
                return Err(stage.stalled());
            }
        }
    }

    fn in_folder(&self, uid: &PodUid, folder: &Path) -> Option<Stage> {
        let makes = |(key, stage): &(&Key, &Stage)| -> bool {
            key.0 == *uid && matches!(key.1, Work::Volume(_)) && stage.path.starts_with(folder)
        };
        self.lock().iter().find(makes).map(|(_, stage)| stage.clone())
    }

    fn of(&self, key: &Key) -> Option<Stalled> {
        let stage = self.lock().get(key).cloned();
        stage.map(|stage| stage.stalled())
    }

    /// Notes a stage, or fails with the one that runs.
    fn start(&self, key: &Key, stage: Stage) -> Result<Running, Stage> {
        let mut stages = self.lock();
        if let Some(before) = stages.get(key) {
            return Err(before.clone());
        }
        stages.insert(key.clone(), stage);
        Ok(Running { stages: self.clone(), key: key.clone() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Stage>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of blocking work without a result: its panic goes on; if it never began, the runtime is being shut down,
/// and whoever waits ends with it.
pub(super) async fn joined<T>(failed: JoinError) -> T {
    match failed.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_cancelled) => std::future::pending().await,
    }
}

/// Ends the note of a stage when its work does, however that ends.
struct Running {
    stages: Stages,
    key: Key,
}

impl Running {
    /// Notes the calling thread as the one that works.
    fn is_here(&self) {
        let thread = std::fs::read_link("/proc/thread-self").ok().map(|link| Path::new("/proc").join(link));
        if let Some(stage) = self.stages.lock().get_mut(&self.key) {
            stage.thread = thread;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stages.lock().remove(&self.key);
        self.stages.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Mutant: a stop of the process is a panic, because some work had not begun yet.
    #[tokio::test]
    async fn work_that_a_shutdown_cancels_is_no_panic() {
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        let cancelled = task.await.unwrap_err();
        assert!(futures_util::poll!(std::pin::pin!(joined::<()>(cancelled))).is_pending());
    }

    fn uid() -> PodUid {
        PodUid::parse("u1").unwrap()
    }

    /// Virtual time stands still while a blocking task runs, so these use real threads and a paused clock by hand.
    #[tokio::test]
    async fn a_volume_gets_no_second_thread_while_the_first_hangs_and_others_go_on() {
        tokio::time::pause();
        let stages = Stages::default();
        let (release, hang) = mpsc::channel::<()>();
        let hung = tokio::spawn({
            let stages = stages.clone();
            async move {
                stages.run(&uid(), Work::on("nfs"), "stat", Path::new("/dead"), move || hang.recv()).await.map(drop)
            }
        });
        while stages.of(&(uid(), Work::on("nfs"))).is_none() {
            tokio::task::yield_now().await;
        }
        let error = stages.run(&uid(), Work::on("nfs"), "stat", Path::new("/dead"), || ()).await.unwrap_err();
        assert!(error.to_string().starts_with("stat /dead has not returned for 0 s"), "{error}");
        assert_eq!(stages.run(&uid(), Work::on("other"), "stat", Path::new("/"), || 7).await, Ok(7));
        while !hung.is_finished() {
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let error = hung.await.unwrap().unwrap_err();
        assert_eq!((error.stage, error.path.as_path()), ("stat", Path::new("/dead")));
        let pod = uid();
        let mut settled = std::pin::pin!(stages.settled(&pod, Path::new("/dead")));
        assert!(futures_util::poll!(&mut settled).is_pending());
        assert_eq!(stages.settled(&uid(), Path::new("/elsewhere")).await, Ok(()));
        release.send(()).unwrap();
        assert_eq!(settled.await, Ok(()));
        assert_eq!(stages.run(&uid(), Work::on("nfs"), "stat", Path::new("/"), || 8).await, Ok(8));
    }
}
