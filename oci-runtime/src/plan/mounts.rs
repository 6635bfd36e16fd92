//! `mounts`: each entry's kind, and its options sorted into what the mount API takes them as.
//!
//! An option is one of four things: an attribute of the mount (`ro`, `nosuid`, …), the same for the whole tree below
//! it (`rro`, …), its propagation, or a parameter for the file system itself. The names are those that `mount(8)` and
//! the runtime-spec know; `orlop-runtime features` prints [`known_options`].

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;
use sys::mount::{MountFlags, Propagation as PropagationKind};

use super::id_mapping::{IdMapped, IdMapping};
use super::{PlanError, invalid, unsupported};

/// A mount to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// In the container; absolute, without `.` and `..`.
    pub target: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
    /// Attributes of the mount itself.
    pub attributes: Attributes,
    /// Attributes of it and of all mounts below it.
    pub recursive: Attributes,
    /// Changes of propagation, in order.
    pub propagation: Vec<Propagation>,
    /// Whose owners it shows.
    pub id_mapping: Option<IdMapping>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Something of the host.
    Bind {
        /// On the host.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A new instance of a file system.
    Filesystem {
        /// As in `/proc/filesystems`.
        fstype: String,
        /// For a block device, or as a name.
        source: Option<String>,
        /// The file system's own parameters.
        parameters: Vec<Parameter>,
    },
    /// The container's own cgroups, in the host's layout.
    Cgroup,
}

/// A parameter for `fsconfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// Present or not.
    Flag(String),
    /// With a value.
    Value(String, String),
}

/// Mount attributes (`MOUNT_ATTR_*` of `mount_setattr(2)`) to set and to clear; the rest stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Bits to set.
    pub set: MountFlags,
    /// Bits to clear; the field of access times is cleared as a whole.
    pub clear: MountFlags,
}

impl Attributes {
    /// Whether nothing is changed.
    pub fn is_empty(self) -> bool {
        self == Attributes::default()
    }

    /// Whether the mount becomes read-only.
    pub fn read_only(self) -> bool {
        self.set.contains(MountFlags::RDONLY)
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Set(bit) => {
                self.set |= bit;
                self.clear -= bit;
            }
            Change::Clear(bit) => {
                self.clear |= bit;
                self.set -= bit;
            }
            Change::AccessTime(mode) => {
                self.set = (self.set - MountFlags::ATIME) | mode;
                self.clear |= MountFlags::ATIME;
            }
        }
    }
}

/// How a mount shares later mounts and unmounts with its copies (`mount_namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// Who sees mounts made below.
    pub kind: PropagationKind,
    /// For all mounts below it as well.
    pub recursive: bool,
}

impl Propagation {
    pub(super) fn parse(name: &str) -> Option<Propagation> {
        let (kind, recursive) = match name {
            "private" => (PropagationKind::Private, false),
            "rprivate" => (PropagationKind::Private, true),
            "slave" => (PropagationKind::Slave, false),
            "rslave" => (PropagationKind::Slave, true),
            "shared" => (PropagationKind::Shared, false),
            "rshared" => (PropagationKind::Shared, true),
            "unbindable" => (PropagationKind::Unbindable, false),
            "runbindable" => (PropagationKind::Unbindable, true),
            _ => return None,
        };
        Some(Propagation { kind, recursive })
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Set(MountFlags),
    Clear(MountFlags),
    AccessTime(MountFlags),
}

/// Attribute options; each but `defaults`-like ones also exists with an `r` in front, for the whole tree.
const ATTRIBUTES: [(&str, Change); 18] = [
    ("ro", Change::Set(MountFlags::RDONLY)),
    ("rw", Change::Clear(MountFlags::RDONLY)),
    ("nosuid", Change::Set(MountFlags::NOSUID)),
    ("suid", Change::Clear(MountFlags::NOSUID)),
    ("nodev", Change::Set(MountFlags::NODEV)),
    ("dev", Change::Clear(MountFlags::NODEV)),
    ("noexec", Change::Set(MountFlags::NOEXEC)),
    ("exec", Change::Clear(MountFlags::NOEXEC)),
    ("nodiratime", Change::Set(MountFlags::NODIRATIME)),
    ("diratime", Change::Clear(MountFlags::NODIRATIME)),
    ("nosymfollow", Change::Set(MountFlags::NOSYMFOLLOW)),
    ("symfollow", Change::Clear(MountFlags::NOSYMFOLLOW)),
    ("relatime", Change::AccessTime(MountFlags::empty())),
    ("norelatime", Change::AccessTime(MountFlags::empty())),
    ("noatime", Change::AccessTime(MountFlags::NOATIME)),
    ("atime", Change::AccessTime(MountFlags::empty())),
    ("strictatime", Change::AccessTime(MountFlags::STRICTATIME)),
    ("nostrictatime", Change::AccessTime(MountFlags::empty())),
];

/// Options of a superblock that `fsconfig` takes as flags for every file system. A bind mount has none of its own,
/// there they change nothing, as with `mount(8)`.
const SUPERBLOCK: [&str; 9] =
    ["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand", "iversion", "noiversion"];

/// Options that say nothing to the mount API: the default, and how loudly `mount(2)` may log.
const IGNORED: [&str; 3] = ["defaults", "silent", "loud"];

const PROPAGATIONS: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

/// All options that are understood apart from a file system's own, as `features` lists them; sorted.
pub fn known_options() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().map(|(name, _)| name.to_string());
    let recursive = ATTRIBUTES.iter().map(|(name, _)| format!("r{name}"));
    let plain = SUPERBLOCK.iter().chain(&IGNORED).chain(&PROPAGATIONS).chain(&["bind", "rbind"]);
    let mut all: Vec<String> = attributes.chain(recursive).chain(plain.map(|name| name.to_string())).collect();
    all.sort();
    all
}

impl MountPlan {
    pub(super) fn from_spec(mount: &Mount, field: &str) -> Result<MountPlan, PlanError> {
        let target = clean(mount.destination());
        check_target(&target, field)?;
        let options = Options::parse(mount.options().as_deref().unwrap_or_default(), field)?;
        let fstype = mount.typ().as_deref().unwrap_or_default();
        let source = mount.source().clone().filter(|source| !source.as_os_str().is_empty());
        let kind = match (options.bind, fstype) {
            (Some(recursive), _) => bind(source, recursive, field)?,
            (None, "bind") => bind(source, false, field)?,
            (None, "cgroup") => MountKind::Cgroup,
            (None, "" | "none") => return Err(invalid(format!("{field}.type"), "missing, and it is no bind mount")),
            (None, fstype) => MountKind::Filesystem {
                fstype: fstype.to_owned(),
                source: source.map(|source| source.to_string_lossy().into_owned()),
                parameters: options.parameters,
            },
        };
        // What covers all of procfs would answer the runtime's and the program's questions in its place (CVE-2019-16884). Whether
        // the source of a bind mount is one shows when it is opened.
        let procfs = matches!(&kind, MountKind::Filesystem { fstype, .. } if fstype == "proc");
        if target == Path::new("/proc") && !procfs && !matches!(kind, MountKind::Bind { .. }) {
            return Err(invalid(format!("{field}.destination"), NOT_OF_TYPE_PROC));
        }
        let id_mapping = IdMapping::from_spec(mount, options.id_mapped, field)?;
        if id_mapping.is_some() && !matches!(kind, MountKind::Bind { .. }) {
            return Err(unsupported(field, "only bind mounts can be id-mapped"));
        }
        Ok(MountPlan {
            target,
            kind,
            id_mapping,
            attributes: options.attributes,
            recursive: options.recursive,
            propagation: options.propagation,
        })
    }
}

fn bind(source: Option<PathBuf>, recursive: bool, field: &str) -> Result<MountKind, PlanError> {
    match source {
        Some(source) => Ok(MountKind::Bind { source, recursive }),
        None => Err(invalid(format!("{field}.source"), "missing for a bind mount")),
    }
}

#[derive(Default)]
struct Options {
    bind: Option<bool>,
    attributes: Attributes,
    recursive: Attributes,
    propagation: Vec<Propagation>,
    parameters: Vec<Parameter>,
    id_mapped: Option<IdMapped>,
}

impl Options {
    fn parse(list: &[String], field: &str) -> Result<Options, PlanError> {
        let mut options = Options::default();
        for name in list {
            options.add(name, field)?;
        }
        Ok(options)
    }

    fn add(&mut self, name: &str, field: &str) -> Result<(), PlanError> {
        let change = |name: &str| ATTRIBUTES.iter().find(|(known, _)| *known == name).map(|(_, change)| *change);
        if let Some(change) = change(name) {
            self.attributes.apply(change);
        } else if let Some(propagation) = Propagation::parse(name) {
            self.propagation.push(propagation);
        } else if let Some(change) = name.strip_prefix('r').and_then(change) {
            self.recursive.apply(change);
        } else if SUPERBLOCK.contains(&name) {
            self.parameters.push(Parameter::Flag(name.to_owned()));
        } else {
            match name {
                "bind" => self.bind = Some(self.bind.unwrap_or(false)),
                "rbind" => self.bind = Some(true),
                "tmpcopyup" => return Err(unsupported(format!("{field}.options"), "tmpcopyup is not built yet")),
                "remount" => return Err(unsupported(format!("{field}.options"), "remount: mount it as it should be")),
                "idmap" => self.id_mapped = Some(IdMapped::default()),
                "ridmap" => self.id_mapped = Some(IdMapped { recursive: true, ..IdMapped::default() }),
                name if name.starts_with("idmap=") => self.id_mapped = Some(IdMapped::parse(name, field)?),
                name if IGNORED.contains(&name) => {}
                name => self.parameters.push(parameter(name, field)?),
            }
        }
        Ok(())
    }
}

fn parameter(option: &str, field: &str) -> Result<Parameter, PlanError> {
    match option.split_once('=') {
        _ if option.contains('\0') => Err(invalid(format!("{field}.options"), "holds a NUL")),
        Some(("", _)) => Err(invalid(format!("{field}.options"), format!("{option:?} has no name"))),
        None if option.is_empty() => Err(invalid(format!("{field}.options"), "holds an empty option")),
        Some((name, value)) => Ok(Parameter::Value(name.to_owned(), value.to_owned())),
        None => Ok(Parameter::Flag(option.to_owned())),
    }
}

/// Without `.` and `..`, which can't leave the root; a relative path starts there, as in runc.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Files below `/proc` that a container manager (lxcfs) replaces; nothing else there may be covered, because the
/// runtime's and the program's trust in procfs would be misled (CVE-2019-16884).
pub const PROC_OVERMOUNTS: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// runc's words.
pub(crate) const NOT_OF_TYPE_PROC: &str = "\"/proc\" cannot be mounted because it is not of type proc";

fn check_target(target: &Path, field: &str) -> Result<(), PlanError> {
    let refuse = |reason: String| Err(invalid(format!("{field}.destination"), reason));
    if target == Path::new("/") {
        return refuse("the root can't be a mount's target".to_owned());
    }
    let allowed = target == Path::new("/proc") || PROC_OVERMOUNTS.iter().any(|path| target == Path::new(path));
    if target.starts_with("/proc") && !allowed {
        return refuse(format!("{target:?} cannot be mounted because it is inside /proc"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: MountFlags = MountFlags::empty();

    fn plan(json: &str) -> Result<MountPlan, PlanError> {
        MountPlan::from_spec(&serde_json::from_str(json).unwrap(), "mounts[0]")
    }

    fn options(list: &str) -> Options {
        let list: Vec<String> = list.split(',').map(str::to_owned).collect();
        Options::parse(&list, "mounts[0]").unwrap()
    }

    #[track_caller]
    fn check_attributes(list: &str, set: MountFlags, clear: MountFlags) {
        assert_eq!(options(list).attributes, Attributes { set, clear }, "{list}");
        let recursive: Vec<String> = list.split(',').map(|name| format!("r{name}")).collect();
        assert_eq!(options(&recursive.join(",")).recursive, Attributes { set, clear }, "recursive {list}");
    }

    #[test]
    fn attribute_options_set_and_clear_and_the_last_one_wins() {
        check_attributes("ro", MountFlags::RDONLY, NONE);
        check_attributes("ro,rw", NONE, MountFlags::RDONLY);
        check_attributes("rw,ro", MountFlags::RDONLY, NONE);
        let three = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        check_attributes("nosuid,nodev,noexec", three, NONE);
        check_attributes("nosuid,nodev,noexec,exec,dev,suid", NONE, three);
        check_attributes("nosymfollow", MountFlags::NOSYMFOLLOW, NONE);
    }

    #[test]
    fn access_time_options_replace_each_other() {
        check_attributes("noatime", MountFlags::NOATIME, MountFlags::ATIME);
        check_attributes("noatime,strictatime", MountFlags::STRICTATIME, MountFlags::ATIME);
        check_attributes("strictatime,relatime", NONE, MountFlags::ATIME);
        check_attributes("noatime,atime,nodiratime", MountFlags::NODIRATIME, MountFlags::ATIME);
    }

    #[test]
    fn names_that_begin_with_r_are_not_mistaken_for_recursive_ones() {
        let options = options("relatime,rprivate,rbind");
        assert!(options.recursive.is_empty());
        assert_eq!(options.propagation, [Propagation { kind: PropagationKind::Private, recursive: true }]);
        assert_eq!(options.bind, Some(true));
        assert!(options.parameters.is_empty());
    }

    #[test]
    fn the_rest_is_for_the_file_system() {
        let options = options("mode=755,size=65536k,newinstance,sync,defaults");
        let value = |name: &str, value: &str| Parameter::Value(name.to_owned(), value.to_owned());
        let flag = |name: &str| Parameter::Flag(name.to_owned());
        assert_eq!(
            options.parameters,
            [value("mode", "755"), value("size", "65536k"), flag("newinstance"), flag("sync")]
        );
    }

    #[test]
    fn the_kind_follows_from_options_before_type() {
        let kind = |json: &str| plan(json).map(|plan| plan.kind);
        let bind = |recursive| Ok(MountKind::Bind { source: "/a".into(), recursive });
        assert_eq!(kind(r#"{"destination":"/x","type":"bind","source":"/a","options":["rbind"]}"#), bind(true));
        assert_eq!(kind(r#"{"destination":"/x","type":"none","source":"/a","options":["bind"]}"#), bind(false));
        assert_eq!(kind(r#"{"destination":"/x","source":"/a","options":["rbind","bind"]}"#), bind(true));
        assert_eq!(kind(r#"{"destination":"/x","type":"bind","source":"/a"}"#), bind(false));
        assert_eq!(kind(r#"{"destination":"/x","type":"cgroup","source":"cgroup"}"#), Ok(MountKind::Cgroup));
        let error = |json: &str| plan(json).unwrap_err().to_string();
        assert_eq!(error(r#"{"destination":"/x"}"#), "mounts[0].type: missing, and it is no bind mount");
        assert_eq!(error(r#"{"destination":"/x","type":"bind"}"#), "mounts[0].source: missing for a bind mount");
    }

    #[test]
    fn targets_are_cleaned_and_stay_out_of_proc() {
        let target = |path: &str| {
            plan(&format!(r#"{{"destination":{path:?},"type":"tmpfs"}}"#))
                .map(|plan| plan.target)
                .map_err(|e| e.to_string())
        };
        assert_eq!(target("data"), Ok("/data".into()));
        assert_eq!(target("/a/../../b/./c/"), Ok("/b/c".into()));
        let refused = format!("mounts[0].destination: {NOT_OF_TYPE_PROC}");
        assert_eq!(target("/./proc/"), Err(refused));
        assert_eq!(plan(r#"{"destination":"/proc","type":"proc"}"#).unwrap().target, Path::new("/proc"));
        assert_eq!(target("/proc/cpuinfo"), Ok("/proc/cpuinfo".into()));
        assert_eq!(target("/processes"), Ok("/processes".into()));
        for path in ["/proc/self/attr", "/x/../proc/sys", "/", "/a/.."] {
            assert!(target(path).is_err(), "{path}");
        }
        assert_eq!(
            target("/proc/sys"),
            Err("mounts[0].destination: \"/proc/sys\" cannot be mounted because it is inside /proc".to_owned())
        );
    }

    #[test]
    fn id_mappings_are_refused_by_name() {
        let mapping = r#"[{"containerID":0,"hostID":1000,"size":1}]"#;
        let json = format!(r#"{{"destination":"/x","type":"tmpfs","uidMappings":{mapping},"gidMappings":{mapping}}}"#);
        assert!(matches!(plan(&json), Err(PlanError::Unsupported { field, .. }) if field == "mounts[0]"));
    }
}
