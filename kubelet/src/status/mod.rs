//! What is told of a pod: its phase, its conditions, its containers. Pure functions, and the [`writer`].

pub mod writer;

/// What stands in a container's way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// Reason and message of its waiting state: `CrashLoopBackOff`, `ErrImagePull`, ….
    pub waiting: Option<(String, String)>,
}

/// Why a pod ends for good, other than by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Termination {
    /// It was not admitted: phase Failed, nothing was run.
    Rejected {
        /// `OutOfcpu`, `NodeAffinity`, ….
        reason: String,
        /// The message after `Pod was rejected: `.
        message: String,
    },
    /// The node ran short of something: phase Failed, reason Evicted.
    Evicted {
        /// What it ran short of.
        message: String,
    },
    /// `activeDeadlineSeconds` is over: phase Failed, reason DeadlineExceeded.
    DeadlineExceeded,
    /// The object is being deleted, or is gone. The phase follows from the containers once all have ended.
    Deleted,
}
