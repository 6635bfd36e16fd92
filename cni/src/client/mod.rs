//! What a container runtime does with CNI: find the network's configuration, run its plugins, remember what they did.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::result::CniResult;

/// The configured network, reloaded whenever its directory changes.
#[derive(Debug)]
pub struct Networks {
    conf_dir: PathBuf,
    bin_dirs: Vec<PathBuf>,
    cache_dir: PathBuf,
}

/// One interface of one pod: what ADD makes and DEL removes.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The sandbox's id (`CNI_CONTAINERID`).
    pub container_id: String,
    /// The network namespace's path (`CNI_NETNS`); a DEL may come after the namespace is gone.
    pub netns: PathBuf,
    /// The interface's name inside it (`CNI_IFNAME`), `eth0` for a pod's only network.
    pub ifname: String,
    /// `CNI_ARGS`, in this order.
    pub args: Vec<(String, String)>,
    /// Capability arguments (`portMappings`, `bandwidth`, `dns`, …); each plugin gets those that it declares.
    pub capabilities: serde_json::Map<String, serde_json::Value>,
}

/// What the caller does with the namespace after a DEL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// It lives on: every trace of the attachment must be gone when DEL returns.
    Stays,
    /// The caller drops its last reference next, so that our `bridge` may leave the veth pair to the kernel, which
    /// removes it with the namespace and saves the 20 ms that a deletion by netlink waits for RCU.
    Ends,
}

/// Why no network is usable now: the `message` of the CRI's NetworkReady condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotReady {
    /// One sentence that names the directory, file or plugin, and since when.
    pub reason: String,
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable network.
    #[error(transparent)]
    NotReady(#[from] NotReady),
}

/// The configuration of a network that loaded and validated.
#[derive(Debug)]
pub struct NetworkList {
    /// The network's name.
    pub name: String,
    /// The file that it came from.
    pub file: PathBuf,
}

impl Networks {
    /// Watches `conf_dir` for the first usable configuration; plugins come from `bin_dirs`, results go to
    /// `cache_dir` (libcni's is `/var/lib/cni`, with `results/` below). Never fails: what is wrong is [`NotReady`].
    pub fn watch(conf_dir: &Path, bin_dirs: &[PathBuf], cache_dir: &Path) -> Networks {
        Networks { conf_dir: conf_dir.into(), bin_dirs: bin_dirs.into(), cache_dir: cache_dir.into() }
    }

    /// The network in use, or why there is none.
    pub fn current(&self) -> Result<Arc<NetworkList>, NotReady> {
        let _ = (&self.bin_dirs, &self.cache_dir);
        Err(NotReady { reason: format!("no network in {}", self.conf_dir.display()) })
    }

    /// Whether the network accepts an ADD now: [`Networks::current`], and the plugins' own STATUS where the
    /// configuration is of 1.1.0 or later. The plugins' answers are kept for some seconds: a kubelet asks all the time.
    pub fn status(&self) -> Result<(), NotReady> {
        self.current().map(drop)
    }

    /// Runs ADD through the chain; if a plugin fails, DEL through all of it, so that nothing is left.
    pub fn add(&self, attachment: &Attachment) -> Result<CniResult, Error> {
        let _ = attachment;
        Err(self.current().expect_err("skeleton").into())
    }

    /// Runs DEL through the chain in reverse, with the configuration and result that ADD left in the cache. Works
    /// without a usable configuration, and succeeds if nothing was ever attached.
    pub fn del(&self, attachment: &Attachment, namespace: Namespace) -> Result<(), Error> {
        let _ = (attachment, namespace);
        Err(self.current().expect_err("skeleton").into())
    }

    /// Runs CHECK through the chain against the cached result.
    pub fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        let _ = attachment;
        Err(self.current().expect_err("skeleton").into())
    }
}
