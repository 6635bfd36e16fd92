//! What a container runtime does with CNI: find the network's configuration, run its plugins, remember what they did.
//!
//! [`Networks`] keeps nothing of the configuration in memory: reading and validating it takes less than 0.1 ms, a
//! hundredth of starting the plugins, and so no change of a file, a folder or a plugin's binary can be missed, and no
//! restart is ever needed. `conflist` parses, `chain` runs plugins, `cache` is libcni's result cache.

mod cache;
mod chain;
mod conflist;
mod readiness;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::convert::{self, ConvertError};
use crate::error::PluginError;
use crate::names::{check_arguments, check_container_id, check_interface_name};
use crate::result::CniResult;
use crate::version::Version;
use cache::{Cache, Cached};
use chain::Chain;
use readiness::Readiness;

pub use cache::CacheError;
pub use chain::PluginFailure;
pub use conflist::{NetworkList, PluginConfig};
pub use readiness::NotReady;

/// The configured network, as it is on disk at each use.
#[derive(Debug)]
pub struct Networks {
    conf_dir: PathBuf,
    bin_dirs: Vec<PathBuf>,
    cache: Cache,
    deadlines: Deadlines,
    readiness: Readiness,
}

/// How long a plugin may take before it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For ADD and CHECK.
    pub add: Duration,
    /// For DEL.
    pub del: Duration,
    /// For STATUS.
    pub status: Duration,
}

impl Default for Deadlines {
    /// A kubelet gives RunPodSandbox four minutes and StopPodSandbox two; our error must come before its own.
    fn default() -> Deadlines {
        let seconds = Duration::from_secs;
        Deadlines { add: seconds(180), del: seconds(60), status: seconds(5) }
    }
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
    /// `CNI_ARGS`, in this order. An ADD with a `;` or a control byte in one of them is refused: what comes from a
    /// pod's name must not become an argument of its own, such as `IP`.
    pub args: Vec<(String, String)>,
    /// Capability arguments (`portMappings`, `bandwidth`, `dns`, …); each plugin gets those that it declares.
    pub capabilities: Map<String, Value>,
}

/// What the caller does with the namespace after a DEL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// It lives on: every trace of the attachment must be gone when DEL returns.
    Stays,
    /// The caller drops its last reference next, so that our `bridge` may leave the veth pair to the kernel, which
    /// removes it with the namespace and saves the 20 ms that a deletion by netlink waits for RCU.
    ///
    /// To be said only when no process is left in the namespace, or each has its SIGKILL: DEL gives the addresses to
    /// the next pod, and a process that lived on, with CAP_NET_ADMIN and an interface that is still on the bridge,
    /// could take them back. A caller whose processes would not end says [`Namespace::Stays`].
    Ends,
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable network.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// The attachment's names are not valid.
    #[error("CNI: {0}")]
    Attachment(PluginError),
    /// A plugin failed.
    #[error("CNI {verb} by plugin {plugin:?} of network {network:?}{}{undo}", of_file(file))]
    Plugin {
        /// The verb.
        verb: &'static str,
        /// The plugin's type.
        plugin: String,
        /// The network's name.
        network: String,
        /// The configuration file, empty if it came from the result cache.
        file: PathBuf,
        /// How it failed.
        #[source]
        source: Box<PluginFailure>,
        /// If undoing the ADD failed too, how.
        undo: String,
    },
    /// The result cache failed.
    #[error("CNI result cache")]
    Cache(#[from] CacheError),
    /// The result can't be written in the configuration's version.
    #[error("CNI result")]
    Result(#[from] ConvertError),
}

impl Error {
    /// Whether nothing is left of an ADD that failed with this.
    fn is_undone(&self) -> bool {
        matches!(self, Error::Plugin { undo, .. } if undo.is_empty())
    }
}

fn of_file(file: &Path) -> String {
    if file.as_os_str().is_empty() { String::new() } else { format!(" ({})", file.display()) }
}

impl Networks {
    /// The networks of `conf_dir`; plugins come from `bin_dirs`, results go to `cache_dir` (libcni's is
    /// `/var/lib/cni`, with `results/` below). Never fails: what is wrong is [`NotReady`].
    pub fn watch(conf_dir: &Path, bin_dirs: &[PathBuf], cache_dir: &Path) -> Networks {
        Networks::with_deadlines(conf_dir, bin_dirs, cache_dir, Deadlines::default())
    }

    /// As [`Networks::watch`], with other deadlines.
    pub fn with_deadlines(conf_dir: &Path, bin_dirs: &[PathBuf], cache_dir: &Path, deadlines: Deadlines) -> Networks {
        Networks {
            conf_dir: conf_dir.into(),
            bin_dirs: bin_dirs.into(),
            cache: Cache::new(cache_dir),
            deadlines,
            readiness: Readiness::default(),
        }
    }

    /// The network in use, or why there is none.
    pub fn current(&self) -> Result<Arc<NetworkList>, NotReady> {
        self.readiness.look(&self.conf_dir, &self.bin_dirs).map(Arc::new)
    }

    /// Whether the network accepts an ADD now: [`Networks::current`], and the plugins' own STATUS where the
    /// configuration is of 1.1.0 or later. The plugins' answer is kept for some seconds: a kubelet asks all the time.
    pub fn status(&self) -> Result<(), NotReady> {
        let list = self.current()?;
        if version_of(&list) < Version::WITH_STATUS {
            return Ok(());
        }
        self.readiness.ask_plugins(&list, || self.chain(&list).status())
    }

    /// Runs ADD through the chain; if a plugin fails, DEL through it and those before it, so that nothing is left.
    ///
    /// The attachment is in the cache before the first plugin runs: whenever this process ends, a DEL finds the
    /// configuration that the ADD had. It leaves the cache again only when the failure is undone.
    pub fn add(&self, attachment: &Attachment) -> Result<CniResult, Error> {
        check_names(attachment)?;
        check_arguments(&attachment.args).map_err(Error::Attachment)?;
        let list = self.current()?;
        let chain = self.chain(&list);
        let begun = Cached::begun(attachment, &list.name, &list.bytes);
        self.cache.put(attachment, &begun)?;
        let result = chain.add(attachment).inspect_err(|error| {
            if error.is_undone() {
                // One that stays costs a DEL of nothing.
                let _ = self.cache.remove(&list.name, attachment);
            }
        })?;
        let written = convert::to_json(&result, &list.cni_version);
        let previous = written.as_ref().ok().filter(|_| version_of(&list) >= Version::WITH_CHECK).cloned();
        let kept = written
            .map_err(Error::from)
            .and_then(|written| Ok(self.cache.put(attachment, &begun.with_result(written))?));
        if let Err(error) = kept {
            // The failure that is told is the first one; what could not be undone is still in the cache.
            if chain.del(attachment, previous.as_ref(), Namespace::Stays).is_ok() {
                let _ = self.cache.remove(&list.name, attachment);
            }
            return Err(error);
        }
        Ok(result)
    }

    /// Runs DEL through the chain in reverse, with the configuration and result that ADD left in the cache. Works
    /// without a usable configuration, and succeeds if nothing was ever attached. If a plugin fails, the cache keeps
    /// the attachment for the next DEL.
    pub fn del(&self, attachment: &Attachment, namespace: Namespace) -> Result<(), Error> {
        check_names(attachment)?;
        let cached = self.cache.find(attachment)?;
        if cached.is_empty() {
            // Nothing was attached, or its entry can't be read: the configuration of now is the best guess.
            let Ok(list) = self.current() else { return Ok(()) };
            self.chain(&list).del(attachment, None, namespace)?;
            return Ok(self.cache.remove(&list.name, attachment)?);
        }
        for cached in cached {
            self.del_cached(attachment, &cached, namespace)?;
            self.cache.remove(&cached.network_name, attachment)?;
        }
        Ok(())
    }

    fn del_cached(&self, attachment: &Attachment, cached: &Cached, namespace: Namespace) -> Result<(), Error> {
        let parsed = cached.config().and_then(|bytes| NetworkList::parse(Path::new(""), bytes).ok());
        let list = match parsed.filter(|list| !list.plugins.is_empty()) {
            Some(list) => list,
            // Unreadable: go on with what is configured now, as libcni does.
            None => Arc::unwrap_or_clone(self.current()?),
        };
        let result = cached.result.as_ref().filter(|_| version_of(&list) >= Version::WITH_CHECK);
        self.chain(&list).del(&cached.attachment(attachment), result, namespace)
    }

    /// Runs CHECK through the chain against the cached result; nothing where the configuration disables it or is too
    /// old to have it.
    pub fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        check_names(attachment)?;
        for cached in self.cache.find(attachment)? {
            let parsed = cached.config().and_then(|bytes| NetworkList::parse(Path::new(""), bytes).ok());
            let Some(list) = parsed else { continue };
            if !list.disable_check && version_of(&list) >= Version::WITH_CHECK {
                self.chain(&list).check(&cached.attachment(attachment), cached.result.as_ref())?;
            }
        }
        Ok(())
    }

    /// Runs VERSION of a plugin: the protocol versions that it speaks, ascending.
    pub fn versions(&self, plugin: &str) -> Result<Vec<String>, PluginFailure> {
        chain::versions(plugin, &self.bin_dirs, self.deadlines.status)
    }

    fn chain<'a>(&'a self, list: &'a NetworkList) -> Chain<'a> {
        Chain { list, bin_dirs: &self.bin_dirs, deadlines: self.deadlines }
    }
}

/// The version was parsed when the list was.
fn version_of(list: &NetworkList) -> Version {
    list.cni_version.parse().unwrap_or(Version::CURRENT)
}

fn check_names(attachment: &Attachment) -> Result<(), Error> {
    check_container_id(&attachment.container_id).map_err(Error::Attachment)?;
    check_interface_name(&attachment.ifname).map_err(Error::Attachment)
}
