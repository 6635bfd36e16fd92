//! Spec → Plan: everything that can be decided without touching the machine.
//!
//! The wire types of the runtime-spec end here. What comes out is complete and checked: the code that acts on it has
//! no `Option` to interpret and no field to refuse.

mod capabilities;
mod container_wide;
mod devices;
mod hooks;
mod id_map;
mod id_mapping;
mod intel_rdt;
mod memory_policy;
mod mount_options;
mod mounts;
mod namespaces;
mod net_devices;
mod number_list;
mod process;
mod resources;
mod scheduling;
mod seccomp;
mod sysctl;
mod time_offsets;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ::seccomp::Profile;
use cgroup::{CgroupPath, Resources};
use oci_spec::runtime::{Linux, Spec};

pub use capabilities::CapabilitySets;
pub use container_wide::ContainerWide;
pub use devices::{Device, NodeKind};
pub use hooks::{Hook, Hooks, KINDS as HOOK_KINDS};
pub use id_map::{IdMap, IdMaps, IdRange};
pub use id_mapping::IdMapping;
pub use intel_rdt::{DEFAULT_CLASS, IntelRdt};
pub use memory_policy::MemoryPolicy;
pub use mount_options::known_options;
pub(crate) use mounts::NOT_OF_TYPE_PROC;
pub use mounts::{Attributes, Links, MountKind, MountPlan, PROC_OVERMOUNTS, Parameter, Propagation};
pub use namespaces::{Namespace, Namespaces};
pub use net_devices::NetDevice;
pub use process::{ProcessPlan, Rlimit};
pub use resources::{LEAST_MEMORY, limits};
pub use scheduling::{CpuAffinity, IoPriority};
pub use sysctl::{Sysctl, SysctlNamespace};

/// A checked configuration, in the form that the container's first process works through.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// `root.path`, absolute if a bundle was given; `None` if the config has no root.
    pub root: Option<PathBuf>,
    /// The root file system becomes read-only once all is set up.
    pub root_readonly: bool,
    /// Propagation of `/` and, if recursive, of all mounts, after everything is mounted.
    pub root_propagation: Option<Propagation>,
    /// Which namespaces are new, joined, inherited.
    pub namespaces: Namespaces,
    /// What the ids of the user namespace are outside. `None` without one, and where a joined one shall tell.
    pub id_maps: Option<IdMaps>,
    /// Lines for `/proc/self/timens_offsets`, for a time namespace that is new; empty for none.
    pub time_offsets: String,
    /// Network devices of the host that become the container's.
    pub net_devices: Vec<NetDevice>,
    /// Host name; the UTS namespace is not the host's.
    pub hostname: Option<String>,
    /// NIS domain name; the UTS namespace is not the host's.
    pub domainname: Option<String>,
    /// In the order of the config.
    pub mounts: Vec<MountPlan>,
    /// Nodes to make, default ones included; not made when `/dev` is the host's.
    pub devices: Vec<Device>,
    /// Whether `/dev` is the container's own, so that nodes, links and the console belong there.
    pub own_dev: bool,
    /// Hidden: an empty read-only directory or `/dev/null` covers them.
    pub masked_paths: Vec<PathBuf>,
    /// Made read-only with everything below.
    pub readonly_paths: Vec<PathBuf>,
    /// Kernel parameters.
    pub sysctls: Vec<Sysctl>,
    /// The cgroup; `None` if the config names none: the caller chooses.
    pub cgroup: Option<CgroupPath>,
    /// Its limits, with the device rules that every container needs.
    pub resources: Resources,
    /// The system call filter, to be compiled.
    pub seccomp: Option<Profile>,
    /// What runs.
    pub process: ProcessPlan,
    /// What is strange in the config but no failure, for the caller's log.
    pub warnings: Vec<String>,
    /// The share of caches and memory bandwidth.
    pub intel_rdt: Option<IntelRdt>,
    /// Programs that run at the turns of the container's life.
    pub hooks: Hooks,
    /// The SELinux context of the file systems that are made for the container.
    pub mount_label: Option<String>,
}

/// Why a configuration can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A valid field that this version does not do.
    #[error("{field} is not supported: {reason}")]
    Unsupported {
        /// As in config.json, dotted.
        field: String,
        /// Why, or what to do without it.
        reason: String,
    },
    /// A field whose value makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// As in config.json, dotted.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> PlanError {
    PlanError::Invalid { field: field.into(), reason: reason.into() }
}

pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> PlanError {
    PlanError::Unsupported { field: field.into(), reason: reason.into() }
}

impl Plan {
    /// Checks the whole of `spec`; relative paths of the host in it are taken relative to `bundle`.
    ///
    /// # Errors
    /// The first field that is refused.
    pub fn from_spec(spec: &Spec, bundle: Option<&Path>) -> Result<Plan, PlanError> {
        check_version(spec.version())?;
        let linux = spec.linux().as_ref().ok_or_else(|| invalid("linux", "missing"))?;
        let process = spec.process().as_ref().ok_or_else(|| invalid("process", "missing"))?;
        let namespaces = Namespaces::from_spec(linux.namespaces().as_deref().unwrap_or_default())?;
        let mut mounts = mounts(spec, bundle, &namespaces)?;
        let mount_label = label("linux.mountLabel", linux.mount_label())?;
        if let Some(label) = &mount_label {
            mounts.iter_mut().for_each(|mount| give_context(mount, label));
        }
        let root = spec.root().as_ref();
        let id_maps =
            id_map::of_container(&namespaces.user, linux.uid_mappings().as_deref(), linux.gid_mappings().as_deref())?;
        let own_dev = !mounts.iter().any(is_dev_of_host);
        let plan = Plan {
            root: root.map(|root| on_host(root.path(), bundle)),
            root_readonly: root.and_then(|root| root.readonly()).unwrap_or(false),
            root_propagation: root_propagation(linux)?,
            hostname: uts_name("hostname", spec.hostname(), &namespaces)?,
            domainname: uts_name("domainname", spec.domainname(), &namespaces)?,
            own_dev,
            mounts,
            devices: devices::nodes(linux.devices().as_deref().unwrap_or_default())?,
            masked_paths: paths("linux.maskedPaths", linux.masked_paths().as_deref())?,
            readonly_paths: paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
            sysctls: sysctls(linux.sysctl().as_ref(), &namespaces)?,
            cgroup: cgroup_path(linux)?,
            resources: resources(linux)?,
            seccomp: linux.seccomp().as_ref().map(seccomp::profile).transpose()?,
            process: ProcessPlan::joining(process, &ContainerWide::from_spec(spec))?,
            warnings: warnings(spec, own_dev),
            mount_label,
            intel_rdt: linux.intel_rdt().as_ref().map(IntelRdt::from_spec).transpose()?,
            hooks: Hooks::from_spec(spec.hooks().as_ref())?,
            time_offsets: time_offsets::from_spec(&namespaces.time, linux.time_offsets().as_ref())?,
            net_devices: net_devices::from_spec(&namespaces.network, linux.net_devices().as_ref())?,
            id_maps,
            namespaces,
        };
        if let Some(maps) = &plan.id_maps {
            maps.check(&plan)?;
        }
        Ok(plan)
    }

    /// One more mount, after the config's.
    ///
    /// # Errors
    /// It is refused.
    pub fn add_mount(&mut self, mount: &oci_spec::runtime::Mount) -> Result<(), PlanError> {
        let plan = MountPlan::from_spec(mount, &format!("mounts[{}]", self.mounts.len()))?;
        self.mounts.push(plan);
        Ok(())
    }
}

fn check_version(version: &str) -> Result<(), PlanError> {
    let mut parts = version.split(['.', '-', '+']);
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u64>().ok());
    match (number(parts.next()), number(parts.next()), number(parts.next())) {
        (Some(1), Some(_), Some(_)) => Ok(()),
        (Some(_), Some(_), Some(_)) => Err(unsupported("ociVersion", format!("{version}; 1.0.0 to 1.3 are"))),
        _ => Err(invalid("ociVersion", format!("{version:?} is not a version"))),
    }
}

/// A label of SELinux or AppArmor; an empty one is none.
fn label(field: &str, label: &Option<String>) -> Result<Option<String>, PlanError> {
    match label.as_deref() {
        None | Some("") => Ok(None),
        Some(label) if label.contains(char::is_control) => Err(invalid(field, format!("{label:?} is not a label"))),
        Some(label) => Ok(Some(label.to_owned())),
    }
}

/// As runc: file systems of the kernel's own have labels of the policy's own; mqueue's, which takes none as a parameter, is set
/// when it is there.
fn give_context(mount: &mut MountPlan, label: &str) {
    let MountKind::Filesystem { fstype, parameters, .. } = &mut mount.kind else { return };
    let said = parameters.iter().any(|known| matches!(known, Parameter::Value(name, _) if name == "context"));
    if !said && !matches!(fstype.as_str(), "proc" | "sysfs" | "mqueue") {
        parameters.push(Parameter::Value("context".to_owned(), label.to_owned()));
    }
}

/// A path of the host: relative to the bundle, if there is one.
fn on_host(path: &Path, bundle: Option<&Path>) -> PathBuf {
    bundle.map_or_else(|| path.to_owned(), |bundle| bundle.join(path))
}

fn mounts(spec: &Spec, bundle: Option<&Path>, namespaces: &Namespaces) -> Result<Vec<MountPlan>, PlanError> {
    let mut plans = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let mut plan = MountPlan::from_spec(mount, &format!("mounts[{index}]"))?;
        if plan.id_mapping.as_ref().is_some_and(|mapping| mapping.maps.is_none()) && !namespaces.user.is_private() {
            let reason = "idmap needs uidMappings and gidMappings: there is no user namespace whose maps it could take";
            return Err(invalid(format!("mounts[{index}].options"), reason));
        }
        if let MountKind::Bind { source, .. } = &mut plan.kind {
            *source = on_host(source, bundle);
        }
        plans.push(plan);
    }
    Ok(plans)
}

/// The words are runc's.
fn warnings(spec: &Spec, own_dev: bool) -> Vec<String> {
    let destinations = spec.mounts().iter().flatten().map(|mount| mount.destination());
    let relative = destinations.filter(|destination| !destination.is_absolute());
    let warning = |destination: &PathBuf| {
        format!(
            "mount destination {} is not absolute. Support for non-absolute mount destinations will be removed in a \
             future release.",
            destination.display()
        )
    };
    // In the host's /dev nothing is made, and so no link either.
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref()).filter(|_| own_dev);
    relative.map(warning).chain(devices.and_then(|devices| devices::warning(devices))).collect()
}

fn is_dev_of_host(mount: &MountPlan) -> bool {
    mount.target == Path::new("/dev") && matches!(mount.kind, MountKind::Bind { .. })
}

fn root_propagation(linux: &Linux) -> Result<Option<Propagation>, PlanError> {
    match linux.rootfs_propagation().as_deref() {
        None | Some("") => Ok(None),
        Some(name) => match Propagation::parse(name) {
            Some(propagation) => Ok(Some(propagation)),
            None => Err(invalid("linux.rootfsPropagation", format!("{name:?} is not a kind of propagation"))),
        },
    }
}

fn uts_name(field: &str, name: &Option<String>, namespaces: &Namespaces) -> Result<Option<String>, PlanError> {
    match name.as_deref() {
        None | Some("") => Ok(None),
        Some(_) if !namespaces.uts.is_private() => {
            Err(invalid(field, "can't be set without a UTS namespace of the container's own"))
        }
        Some(name) if name.len() > 64 => Err(invalid(field, format!("{name:?} is longer than 64 bytes"))),
        Some(name) => Ok(Some(name.to_owned())),
    }
}

fn paths(field: &str, list: Option<&[String]>) -> Result<Vec<PathBuf>, PlanError> {
    let mut paths = Vec::new();
    for path in list.unwrap_or_default() {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(invalid(field, format!("{path:?} is not an absolute path")));
        }
        let path = mounts::clean(Path::new(path));
        if path == Path::new("/") {
            return Err(invalid(field, "holds the root"));
        }
        paths.push(path);
    }
    Ok(paths)
}

fn sysctls(map: Option<&HashMap<String, String>>, namespaces: &Namespaces) -> Result<Vec<Sysctl>, PlanError> {
    let mut sysctls: Vec<Sysctl> = Vec::new();
    for (name, value) in map.into_iter().flatten() {
        sysctls.push(Sysctl::from_spec(name, value, namespaces)?);
    }
    // A map has no order; with one, the same config fails the same way each time.
    sysctls.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sysctls)
}

fn cgroup_path(linux: &Linux) -> Result<Option<CgroupPath>, PlanError> {
    let Some(path) = linux.cgroups_path() else { return Ok(None) };
    match path.to_str() {
        Some("") => Ok(None),
        Some(path) => {
            CgroupPath::parse(path).map(Some).map_err(|error| invalid("linux.cgroupsPath", error.to_string()))
        }
        None => Err(invalid("linux.cgroupsPath", format!("{path:?} is not UTF-8"))),
    }
}

fn resources(linux: &Linux) -> Result<Resources, PlanError> {
    let config = linux.resources().as_ref();
    let mut resources = config.map(limits).transpose()?.unwrap_or_default();
    let rules = config.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    resources.devices = devices::rules(rules)?;
    Ok(resources)
}

#[cfg(test)]
mod every_field;
#[cfg(test)]
mod tests;
