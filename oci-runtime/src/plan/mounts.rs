//! `mounts`: what each entry mounts, where and how.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;
use sys::mount::{Attr, MountFlags, Propagation as PropagationKind};

use super::id_mapping::IdMapping;
use super::mount_options::Options;
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
    /// Attributes that the options do not name are cleared, but for access times. As in runc, this is so for a bind mount whose
    /// options name any, and for a mount that is changed: what is mounted looks as it was asked for, wherever it comes from.
    pub exact: bool,
    /// Attributes of it and of all mounts below it.
    pub recursive: Attributes,
    /// Changes of propagation, in order.
    pub propagation: Vec<Propagation>,
    /// Whose owners it shows.
    pub id_mapping: Option<IdMapping>,
    /// A tmpfs begins with what the image has at its place.
    pub copy_up: bool,
    /// What is done about symbolic links.
    pub links: Links,
}

/// What is done about symbolic links at either end of a mount, whose last component is followed else. The names of the
/// options, and the idea, are crun's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Links {
    /// A source that is a link is not mounted but made again in the container; attributes and id mappings are for one that is
    /// not.
    pub copy: bool,
    /// A source that is a link is mounted itself.
    pub mount_source: bool,
    /// A target that is a link is covered itself.
    pub cover_target: bool,
}

impl Links {
    /// The option that asked for the first of them.
    fn first_name(self) -> Option<&'static str> {
        let options =
            [(self.copy, "copy-symlink"), (self.mount_source, "src-nofollow"), (self.cover_target, "dest-nofollow")];
        options.into_iter().find_map(|(asked, name)| asked.then_some(name))
    }
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
    /// What is mounted at the target already is changed (`remount`).
    Remount {
        /// Parameters of its file system; `None` with `bind`: only the mount is changed.
        parameters: Option<Vec<Parameter>>,
    },
}

/// A parameter for `fsconfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// Present or not.
    Flag(String),
    /// With a value.
    Value(String, String),
}

impl Parameter {
    /// Without its value.
    pub fn name(&self) -> &str {
        match self {
            Parameter::Flag(name) | Parameter::Value(name, _) => name,
        }
    }
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

    /// With all that is not named cleared. Access times are named as a whole or stay as they are.
    pub fn exactly(self) -> Attributes {
        const ALL: MountFlags = MountFlags::RDONLY
            .union(MountFlags::NOSUID)
            .union(MountFlags::NODEV)
            .union(MountFlags::NOEXEC)
            .union(MountFlags::NOSYMFOLLOW);
        let mut clear = self.clear | ALL;
        if self.names_access_time() {
            clear |= MountFlags::ATIME | MountFlags::NODIRATIME;
        }
        Attributes { set: self.set, clear: (clear - self.set) | (clear & MountFlags::ATIME) }
    }

    /// What can be changed of a mount whose attributes may not be taken away, because they are those that a user namespace was
    /// given it with: they stay, unless the options want them gone.
    ///
    /// # Errors
    /// What stands against it.
    pub fn beside(self, locked: MountFlags) -> Result<Attributes, String> {
        let times = MountFlags::ATIME | MountFlags::NODIRATIME;
        let stuck = locked & (self.clear - times);
        let names = |flags: MountFlags| flags.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join("|");
        if !stuck.is_empty() {
            return Err(format!("cannot clear locked flags {}", names(stuck)));
        }
        if self.names_access_time() && self.set & times != locked & times {
            return Err(format!("cannot change locked atime flags {}", names(locked & times)));
        }
        Ok(Attributes { set: self.set - times, clear: MountFlags::empty() })
    }

    fn names_access_time(self) -> bool {
        self.clear.intersects(MountFlags::ATIME) || self.set.contains(MountFlags::NODIRATIME)
    }
}

impl From<Attributes> for Attr<'_> {
    fn from(attributes: Attributes) -> Self {
        Attr { set: attributes.set, clr: attributes.clear, ..Attr::default() }
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

impl MountPlan {
    pub(super) fn from_spec(mount: &Mount, field: &str) -> Result<MountPlan, PlanError> {
        let target = clean(mount.destination());
        check_target(&target, field)?;
        let options = Options::parse(mount.options().as_deref().unwrap_or_default(), field)?;
        let kind = kind(mount, &options, field)?;
        // What covers all of procfs would answer the runtime's and the program's questions in its place (CVE-2019-16884). Whether
        // the source of a bind mount is one shows when it is opened.
        let procfs = matches!(&kind, MountKind::Filesystem { fstype, .. } if fstype == "proc");
        let elsewhere = matches!(kind, MountKind::Bind { .. } | MountKind::Remount { .. });
        if target == Path::new("/proc") && !procfs && !elsewhere {
            return Err(invalid(format!("{field}.destination"), NOT_OF_TYPE_PROC));
        }
        let id_mapping = IdMapping::from_spec(mount, options.id_mapped, field)?;
        if id_mapping.is_some() && !matches!(kind, MountKind::Bind { .. }) {
            return Err(unsupported(field, "only bind mounts can be id-mapped"));
        }
        let exact = match kind {
            MountKind::Bind { .. } => options.changes_mount,
            MountKind::Remount { .. } => true,
            MountKind::Filesystem { .. } | MountKind::Cgroup => false,
        };
        let is_tmpfs = matches!(&kind, MountKind::Filesystem { fstype, .. } if fstype == "tmpfs");
        Ok(MountPlan {
            target,
            kind,
            id_mapping,
            attributes: options.attributes,
            exact,
            recursive: options.recursive,
            propagation: options.propagation,
            // As in runc, another file system has what it has.
            copy_up: options.copy_up && is_tmpfs,
            links: options.links,
        })
    }
}

fn kind(mount: &Mount, options: &Options, field: &str) -> Result<MountKind, PlanError> {
    let fstype = mount.typ().as_deref().unwrap_or_default();
    let source = mount.source().clone().filter(|source| !source.as_os_str().is_empty());
    let bind = options.bind.or((fstype == "bind").then_some(false));
    if bind.is_some() && !options.parameters.is_empty() {
        // runc's words. The kernel would ignore them.
        let reason = "bind mounts cannot have any filesystem-specific options applied";
        return Err(invalid(format!("{field}.options"), reason));
    }
    let is_bind = bind.is_some() && !options.remount;
    if let (false, Some(name)) = (is_bind, options.links.first_name()) {
        return Err(invalid(format!("{field}.options"), format!("{name} is for bind mounts only")));
    }
    if let ("cgroup", None, false, Some(first)) =
        (fstype, bind, options.remount, options.superblock.iter().chain(&options.parameters).next())
    {
        return Err(invalid(format!("{field}.options"), format!("a cgroup mount takes no {:?}", first.name())));
    }
    let parameters = || options.superblock.iter().chain(&options.parameters).cloned().collect();
    match (bind, fstype) {
        _ if options.remount => Ok(MountKind::Remount { parameters: bind.is_none().then(parameters) }),
        (Some(recursive), _) => match source {
            Some(source) => Ok(MountKind::Bind { source, recursive }),
            None => Err(invalid(format!("{field}.source"), "missing for a bind mount")),
        },
        (None, "cgroup") => Ok(MountKind::Cgroup),
        (None, "" | "none") => Err(invalid(format!("{field}.type"), "missing, and it is no bind mount")),
        (None, fstype) => Ok(MountKind::Filesystem {
            fstype: fstype.to_owned(),
            source: source.map(|source| source.to_string_lossy().into_owned()),
            parameters: parameters(),
        }),
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

    fn plan(json: &str) -> Result<MountPlan, PlanError> {
        MountPlan::from_spec(&serde_json::from_str(json).unwrap(), "mounts[0]")
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
    fn a_bind_mount_has_just_what_its_options_name_once_they_name_any() {
        let plan = |options: &str| {
            let json = format!(r#"{{"destination":"/x","type":"bind","source":"/a","options":[{options}]}}"#);
            plan(&json).unwrap()
        };
        assert!(
            !plan(r#""rbind","rprivate","rro""#).exact
                && plan(r#""bind","rw""#).exact
                && plan(r#""bind","sync""#).exact
        );
        let all =
            MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOSYMFOLLOW;
        let exactly = |options: &str| plan(options).attributes.exactly();
        assert_eq!(exactly(r#""bind","ro""#), Attributes { set: MountFlags::RDONLY, clear: all - MountFlags::RDONLY });
        let times = MountFlags::ATIME | MountFlags::NODIRATIME;
        assert_eq!(exactly(r#""bind","noatime""#), Attributes { set: MountFlags::NOATIME, clear: all | times });
    }

    #[test]
    fn what_is_locked_stays_unless_the_options_want_it_gone() {
        let beside = |options: &str, locked: MountFlags| {
            let json = format!(r#"{{"destination":"/x","type":"bind","source":"/a","options":["bind",{options}]}}"#);
            plan(&json).unwrap().attributes.beside(locked)
        };
        let locked = MountFlags::NODEV | MountFlags::NOATIME;
        let ro = Attributes { set: MountFlags::RDONLY, ..Attributes::default() };
        assert_eq!(beside(r#""ro""#, locked), Ok(ro));
        assert_eq!(beside(r#""ro","noatime""#, locked), Ok(ro));
        assert_eq!(beside(r#""rw""#, MountFlags::RDONLY), Err("cannot clear locked flags RDONLY".to_owned()));
        assert!(beside(r#""ro","dev""#, locked).is_err());
        let changed = beside(r#""relatime""#, locked).unwrap_err();
        assert!(changed.starts_with("cannot change locked atime flags"), "{changed}");
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
    fn options_that_would_do_nothing_are_refused() {
        let refused = |kind: &str, option: &str| {
            let json =
                format!(r#"{{"destination":"/x","type":"{kind}","source":"/a","options":["nosuid","{option}"]}}"#);
            plan(&json).unwrap_err().to_string()
        };
        for option in ["bogus=1", "memory", "sync"] {
            let expected = format!("a cgroup mount takes no {:?}", option.trim_end_matches("=1"));
            assert!(refused("cgroup", option).starts_with("mounts[0].options: "), "{option}");
            assert!(refused("cgroup", option).contains(&expected), "{option}");
        }
        for option in ["copy-symlink", "src-nofollow", "dest-nofollow"] {
            for kind in ["tmpfs", "cgroup"] {
                assert_eq!(refused(kind, option), format!("mounts[0].options: {option} is for bind mounts only"));
            }
        }
    }

    #[test]
    fn id_mappings_are_refused_by_name() {
        let mapping = r#"[{"containerID":0,"hostID":1000,"size":1}]"#;
        let json = format!(r#"{{"destination":"/x","type":"tmpfs","uidMappings":{mapping},"gidMappings":{mapping}}}"#);
        assert!(matches!(plan(&json), Err(PlanError::Unsupported { field, .. }) if field == "mounts[0]"));
    }
}
