//! The tree of kubepods: what all pods, the pods of a class, and one pod may use.
//!
//! ```text
//! <cgroupRoot>/kubepods                  all pods: what the node can give
//! <cgroupRoot>/kubepods/pod<uid>         a Guaranteed pod
//! <cgroupRoot>/kubepods/burstable        CPU shares of what its pods request together
//! <cgroupRoot>/kubepods/burstable/pod<uid>
//! <cgroupRoot>/kubepods/besteffort       the least CPU shares
//! <cgroupRoot>/kubepods/besteffort/pod<uid>
//! ```
//!
//! Containers' own cgroups, below their pods', are the runtime's. The cgroupfs driver is built, on v1, hybrid and v2; the
//! systemd driver is refused by name. Nothing outside `<cgroupRoot>/kubepods` is ever changed, but that on v2 the
//! cgroups above it pass their controllers on.
//!
//! Calls write to the kernel's files and block for a moment; ending processes may take longer.

mod limits;
mod usage;

use crate::config::{Config, Limits};
use crate::pod::{Pod, PodUid, QosClass};
use cgroup::{Cgroup, Layout, Mode, Resources};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use limits::Optional;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use usage::Usage;

/// How long killed processes may take to be gone.
const KILL: Duration = Duration::from_secs(10);

/// Why the tree can't be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A driver, a setting or a host that is not built for.
    #[error("{0}")]
    Unsupported(String),
    /// A cgroup that can't be found, made, limited, emptied or removed.
    #[error("{step} cgroup {path}")]
    Step {
        /// What was tried: `find`, `make`, `limit`, `kill`, `remove`.
        step: &'static str,
        /// The cgroup.
        path: String,
        /// Why.
        #[source]
        source: cgroup::Error,
    },
}

/// The result of a step.
pub type Result<T> = std::result::Result<T, CgroupError>;

/// The cgroups of kubepods.
#[derive(Debug)]
pub struct Cgroups {
    layout: Layout,
    settings: Limits,
    /// `<cgroupRoot>/kubepods`.
    kubepods: String,
    /// What all pods together may use.
    node: Resources,
    optional: Optional,
}

impl Cgroups {
    /// Makes kubepods and the two classes below the configured root. Limits of the whole follow with [`Self::enforce`].
    ///
    /// `capacity` is the machine's: what is set aside is taken off here.
    ///
    /// # Errors
    /// The systemd driver, `cgroupsPerQOS: false`, a host without the cpu or memory controller; a cgroup that can't be
    /// made.
    pub fn open(
        config: &Config,
        driver: proto::CgroupDriver,
        capacity: &BTreeMap<String, Quantity>,
    ) -> Result<Cgroups> {
        let unsupported = |what: &str| Err(CgroupError::Unsupported(what.to_owned()));
        if driver == proto::CgroupDriver::Systemd {
            return unsupported(
                "cgroupDriver: systemd is not supported by this kubelet; have the runtime use cgroupfs",
            );
        }
        if !config.limits.cgroups_per_qos {
            return unsupported("cgroupsPerQOS: false is not supported by this kubelet");
        }
        let layout = Layout::detect().map_err(|source| step("find", &config.limits.cgroup_root, source))?;
        Cgroups::in_layout(layout, &config.limits, capacity, usage::pid_max())
    }

    /// As [`Self::open`], in a layout that is known.
    pub(crate) fn in_layout(
        layout: Layout,
        settings: &Limits,
        capacity: &BTreeMap<String, Quantity>,
        pid_max: Option<u64>,
    ) -> Result<Cgroups> {
        let missing: Vec<&str> = ["cpu", "memory"].into_iter().filter(|name| !layout.has(name)).collect();
        if !missing.is_empty() {
            let message = format!("these cgroup controllers are not mounted: {}", missing.join(", "));
            return Err(CgroupError::Unsupported(message));
        }
        let optional = Optional { pids: layout.has("pids"), hugetlb: layout.has("hugetlb") };
        if !optional.pids {
            tracing::warn!(
                "the pids cgroup controller is not mounted: pods can make as many processes as the machine takes"
            );
        }
        let cgroups = Cgroups {
            node: limits::node(settings, capacity, pid_max, optional),
            kubepods: format!("{}/kubepods", settings.cgroup_root.trim_end_matches('/')),
            settings: settings.clone(),
            layout,
            optional,
        };
        cgroups.ensure(&cgroups.kubepods, &Resources { cpu: cgroups.node.cpu.clone(), ..Resources::default() })?;
        for class in [QosClass::BestEffort, QosClass::Burstable] {
            cgroups.ensure(&cgroups.class(class), &limits::class(resources_floor()))?;
        }
        Ok(cgroups)
    }

    /// Whether the host has cgroup v2 alone.
    pub fn is_v2(&self) -> bool {
        self.layout.mode() == Mode::V2
    }

    /// The path of kubepods, as events name it.
    pub fn kubepods(&self) -> &str {
        &self.kubepods
    }

    /// Limits all pods to what the node has for them. Fails as long as they use more: try again after a minute.
    ///
    /// # Errors
    /// A limit that the kernel refuses.
    pub fn enforce(&self) -> Result<()> {
        self.ensure(&self.kubepods, &self.node).map(drop)
    }

    /// Makes the pod's cgroup where it is missing, with its limits; the sandbox's `cgroup_parent`.
    ///
    /// # Errors
    /// A cgroup that can't be made or limited.
    pub fn ensure_pod(&self, pod: &Pod) -> Result<String> {
        let path = self.pod(pod.qos(), pod.uid());
        self.ensure(&path, &limits::pod(pod, &self.settings, self.optional))?;
        Ok(path)
    }

    /// Kills every process in the pod's cgroup, in whichever class it is, and waits until they are gone.
    ///
    /// # Errors
    /// Processes that don't end.
    pub fn kill_pod(&self, uid: &PodUid) -> Result<()> {
        self.everywhere(uid).try_for_each(|path| self.kill(&path).map(drop))
    }

    /// Kills what is left in the pod's cgroup and removes it, with all below. Nothing if it is gone.
    ///
    /// # Errors
    /// Processes that don't end, a cgroup that can't be removed.
    pub fn remove_pod(&self, uid: &PodUid) -> Result<()> {
        self.everywhere(uid).try_for_each(|path| {
            let cgroup = self.kill(&path)?;
            cgroup.delete().map_err(|source| step("remove", &path, source))
        })
    }

    /// The pods that have a cgroup in any hierarchy. Which of them are orphans is the caller's to say.
    ///
    /// # Errors
    /// A folder that can't be read.
    pub fn pods(&self) -> Result<BTreeSet<PodUid>> {
        let mut pods = BTreeSet::new();
        for class in CLASSES {
            let path = self.class(class);
            let names = self.find(&path)?.children().map_err(|source| step("find", &path, source))?;
            pods.extend(names.iter().filter_map(|name| PodUid::parse(name.strip_prefix("pod")?).ok()));
        }
        Ok(pods)
    }

    /// Gives Burstable pods the CPU shares of what they request together. For all active pods, when one comes or goes,
    /// and every minute.
    ///
    /// # Errors
    /// A limit that the kernel refuses.
    pub fn update_burstable(&self, pods: &[Pod]) -> Result<()> {
        let path = self.class(QosClass::Burstable);
        self.ensure(&path, &limits::class(limits::burstable_shares(pods))).map(drop)
    }

    /// What the pod uses; `None` if it has no cgroup.
    pub fn pod_usage(&self, uid: &PodUid) -> Option<Usage> {
        self.everywhere(uid).find_map(|path| self.usage(&path))
    }

    /// What the CPU quota of a container did; `None` if the runtime put it elsewhere than below the pod's cgroup.
    pub fn throttling(&self, uid: &PodUid, container: &str) -> Option<cgroup::Throttling> {
        self.everywhere(uid).find_map(|pod| {
            let cgroup = self.find(&format!("{pod}/{container}")).ok().filter(Cgroup::exists)?;
            cgroup.stats().ok()?.cpu?.throttling
        })
    }

    /// What all pods use together.
    pub fn pods_usage(&self) -> Option<Usage> {
        self.usage(&self.kubepods)
    }

    /// What the whole machine uses.
    pub fn node_usage(&self) -> Option<Usage> {
        self.layout.stats().ok().map(|stats| usage::of_node(&stats))
    }

    fn usage(&self, path: &str) -> Option<Usage> {
        let cgroup = self.find(path).ok().filter(Cgroup::exists)?;
        cgroup.stats().ok().map(|stats| usage::of(&stats))
    }

    fn ensure(&self, path: &str, resources: &Resources) -> Result<Cgroup> {
        Cgroup::ensure_interior(&self.layout, path, resources).map_err(|source| step("make", path, source))
    }

    fn find(&self, path: &str) -> Result<Cgroup> {
        Cgroup::open(&self.layout, path).map_err(|source| step("find", path, source))
    }

    fn kill(&self, path: &str) -> Result<Cgroup> {
        let cgroup = self.find(path)?;
        cgroup.kill(KILL).map_err(|source| step("kill", path, source))?;
        Ok(cgroup)
    }

    fn class(&self, class: QosClass) -> String {
        match Config::qos_cgroup(class) {
            None => self.kubepods.clone(),
            Some(name) => format!("{}/{name}", self.kubepods),
        }
    }

    fn pod(&self, class: QosClass, uid: &PodUid) -> String {
        format!("{}/pod{uid}", self.class(class))
    }

    /// Where a pod may be whose class is not known any more.
    fn everywhere(&self, uid: &PodUid) -> impl Iterator<Item = String> {
        CLASSES.map(|class| self.pod(class, uid)).into_iter()
    }
}

const CLASSES: [QosClass; 3] = [QosClass::Burstable, QosClass::BestEffort, QosClass::Guaranteed];

/// The least CPU shares: what BestEffort always has, and Burstable until the first pod comes.
fn resources_floor() -> u64 {
    crate::spec::resources::shares(0)
}

fn step(step: &'static str, path: &str, source: cgroup::Error) -> CgroupError {
    CgroupError::Step { step, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
