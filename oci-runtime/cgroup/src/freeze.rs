//! Stopping and resuming all processes of a cgroup.
//!
//! With the v1 freezer where it is mounted, so that other tools see the state; with v2's `cgroup.freeze` else.

use std::time::{Duration, Instant};

use crate::cgroup::pause;
use crate::dir::Dir;
use crate::{Cgroup, CgroupPath, Error, Kind, Layout, Result};

/// Freezing fails if it takes longer: a task in an uninterruptible sleep cannot be frozen.
pub(crate) const FREEZE_DEADLINE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops every process. A cgroup without processes is frozen at once.
    pub fn freeze(&self) -> Result<()> {
        self.freeze_within(FREEZE_DEADLINE)
    }

    /// [`Cgroup::freeze`] with less patience.
    pub(crate) fn freeze_within(&self, deadline: Duration) -> Result<()> {
        match (self.controller("freezer"), self.unified_dir()) {
            (Some(dir), _) => freeze_v1(dir, deadline),
            (None, Some(dir)) => freeze_v2(dir, deadline),
            (None, None) => Err(Error::Unsupported { what: format!("freeze {}: no freezer is mounted", self.path()) }),
        }
    }

    /// Resumes every process. Does nothing for one that is not frozen, or that is gone.
    pub fn thaw(&self) -> Result<()> {
        thaw(self.controller("freezer"), self.unified_dir())
    }

    /// [`Cgroup::thaw`] of the one at a path, of which nothing else is opened.
    pub fn thaw_at(layout: &Layout, path: &str) -> Result<()> {
        let (freezer, unified) = freezers_at(layout, path)?;
        unless_gone(layout, (), write_thawed(freezer.as_ref(), unified.as_ref()))
    }

    /// True from the moment that freezing was asked for.
    pub fn is_frozen(&self) -> Result<bool> {
        is_frozen(self.controller("freezer"), self.unified_dir())
    }

    /// [`Cgroup::is_frozen`] of the one at a path, of which nothing else is opened.
    pub fn is_frozen_at(layout: &Layout, path: &str) -> Result<bool> {
        let (freezer, unified) = freezers_at(layout, path)?;
        unless_gone(layout, false, frozen_state(freezer.as_ref(), unified.as_ref()))
    }
}

/// Where a cgroup is in the hierarchies of the v1 freezer and of v2.
fn freezers_at(layout: &Layout, path: &str) -> Result<(Option<Dir>, Option<Dir>)> {
    let path = CgroupPath::parse(path)?;
    let find = |wanted: &dyn Fn(&Kind) -> bool| {
        let found = layout.hierarchies().iter().find(|hierarchy| wanted(&hierarchy.kind));
        found.map(|hierarchy| hierarchy.root.below(path.relative()))
    };
    Ok((find(&|kind| kind.controls("freezer")), find(&|kind| *kind == Kind::V2)))
}

/// `otherwise`, if there is no such cgroup in hierarchies that are there themselves.
fn unless_gone<T>(layout: &Layout, otherwise: T, result: Result<T>) -> Result<T> {
    match result {
        Err(error) if error.is_gone() => {
            layout.hierarchies().iter().try_for_each(|hierarchy| hierarchy.still_there()).map(|()| otherwise)
        }
        result => result,
    }
}

fn thaw(freezer: Option<&Dir>, unified: Option<&Dir>) -> Result<()> {
    match write_thawed(freezer, unified) {
        Err(error) if error.is_gone() => Ok(()),
        result => result,
    }
}

fn write_thawed(freezer: Option<&Dir>, unified: Option<&Dir>) -> Result<()> {
    match (freezer, unified) {
        (Some(dir), _) => dir.write("freezer.state", "THAWED"),
        (None, Some(dir)) => dir.write("cgroup.freeze", "0"),
        (None, None) => Ok(()),
    }
}

fn is_frozen(freezer: Option<&Dir>, unified: Option<&Dir>) -> Result<bool> {
    match frozen_state(freezer, unified) {
        Err(error) if error.is_gone() => Ok(false),
        state => state,
    }
}

fn frozen_state(freezer: Option<&Dir>, unified: Option<&Dir>) -> Result<bool> {
    match (freezer, unified) {
        (Some(dir), _) => dir.read("freezer.state").map(|state| state.trim_end() != "THAWED"),
        (None, Some(dir)) => dir.read("cgroup.freeze").map(|state| state.trim_end() == "1"),
        (None, None) => Ok(false),
    }
}

/// A task that is just being forked escapes one pass of the v1 freezer and leaves it FREEZING; writing the state
/// again makes another pass (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
fn freeze_v1(dir: &Dir, deadline: Duration) -> Result<()> {
    let frozen = wait_until(dir, deadline, || {
        dir.write("freezer.state", "FROZEN")?;
        has_line(dir, "freezer.state", "FROZEN")
    });
    // Half frozen is worse than not frozen.
    or_thaw(frozen, || dir.write("freezer.state", "THAWED"))
}

/// Somebody who sends a signal at the same time thaws it when he has: it is asked for again at every look.
fn freeze_v2(dir: &Dir, deadline: Duration) -> Result<()> {
    let frozen = wait_until(dir, deadline, || {
        dir.write("cgroup.freeze", "1")?;
        has_line(dir, "cgroup.events", "frozen 1")
    });
    or_thaw(frozen, || dir.write("cgroup.freeze", "0"))
}

fn or_thaw(frozen: Result<()>, thaw: impl FnOnce() -> Result<()>) -> Result<()> {
    match frozen {
        Err(error) if !error.is_gone() => {
            // What led here is the failure to tell.
            let _ = thaw();
            Err(error)
        }
        result => result,
    }
}

fn has_line(dir: &Dir, name: &str, wanted: &str) -> Result<bool> {
    Ok(dir.read(name)?.lines().any(|line| line == wanted))
}

fn wait_until(dir: &Dir, deadline: Duration, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    let mut step = Duration::from_micros(100);
    while !reached()? {
        if start.elapsed() > deadline {
            let (path, seconds) = (dir.path().to_owned(), deadline.as_secs());
            return Err(Error::Deadline { path, state: "frozen", seconds });
        }
        step = (step * 2).min(Duration::from_millis(20));
        pause(step);
    }
    Ok(())
}
