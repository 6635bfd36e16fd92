//! The options of a mount, sorted into what the mount API takes them as.
//!
//! An option is one of four things: an attribute of the mount (`ro`, `nosuid`, …), the same for the whole tree below
//! it (`rro`, …), its propagation, or a parameter for the file system itself. The names are those that `mount(8)` and
//! the runtime-spec know, with a few of crun's; `orlop-runtime features` prints [`known_options`].

use sys::mount::MountFlags;

use super::id_mapping::IdMapped;
use super::mounts::{Attributes, Links, Parameter, Propagation};
use super::{PlanError, invalid};

#[derive(Debug, Clone, Copy)]
enum Change {
    Set(MountFlags),
    Clear(MountFlags),
    /// One of three; none of the bits is relatime.
    AccessTime(MountFlags),
    /// Not this one of the three: another that was asked for stays.
    NotAccessTime(MountFlags),
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
    ("norelatime", Change::NotAccessTime(MountFlags::empty())),
    ("noatime", Change::AccessTime(MountFlags::NOATIME)),
    ("atime", Change::NotAccessTime(MountFlags::NOATIME)),
    ("strictatime", Change::AccessTime(MountFlags::STRICTATIME)),
    ("nostrictatime", Change::NotAccessTime(MountFlags::STRICTATIME)),
];

/// Options of a superblock that `fsconfig` takes as flags for every file system. A bind mount has none of its own,
/// there they change nothing, as with `mount(8)`.
const SUPERBLOCK: [&str; 7] = ["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"];

/// Options that say nothing to the mount API: how loudly `mount(2)` may log, and a counter of changes that every file system
/// that has it has turned on for good.
const WITHOUT_EFFECT: [&str; 4] = ["silent", "loud", "iversion", "noiversion"];

/// Options of ours and of crun's, which no mount(2) has.
const EXTENSIONS: [&str; 4] = ["tmpcopyup", "copy-symlink", "src-nofollow", "dest-nofollow"];

const PROPAGATIONS: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

/// All options that are understood apart from a file system's own, as `features` lists them; sorted.
pub fn known_options() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().map(|(name, _)| name.to_string());
    let recursive = ATTRIBUTES.iter().map(|(name, _)| format!("r{name}"));
    let plain = SUPERBLOCK.iter().chain(&WITHOUT_EFFECT).chain(&PROPAGATIONS).chain(&EXTENSIONS);
    let plain = plain.chain(&["bind", "rbind", "remount", "defaults"]);
    let mut all: Vec<String> = attributes.chain(recursive).chain(plain.map(|name| name.to_string())).collect();
    all.sort();
    all
}

/// What a list of options asks for.
#[derive(Default)]
pub(super) struct Options {
    /// `Some(true)` with the mounts below the source.
    pub(super) bind: Option<bool>,
    pub(super) remount: bool,
    /// Some option is about the mount or its superblock: see [`MountPlan::exact`](super::MountPlan::exact).
    pub(super) changes_mount: bool,
    pub(super) attributes: Attributes,
    pub(super) recursive: Attributes,
    pub(super) propagation: Vec<Propagation>,
    /// Flags of any superblock.
    pub(super) superblock: Vec<Parameter>,
    /// Parameters of one kind of file system.
    pub(super) parameters: Vec<Parameter>,
    pub(super) id_mapped: Option<IdMapped>,
    pub(super) copy_up: bool,
    pub(super) links: Links,
}

impl Options {
    pub(super) fn parse(list: &[String], field: &str) -> Result<Options, PlanError> {
        let mut options = Options::default();
        for name in list {
            options.add(name, field)?;
        }
        Ok(options)
    }

    fn add(&mut self, name: &str, field: &str) -> Result<(), PlanError> {
        let change = |name: &str| ATTRIBUTES.iter().find(|(known, _)| *known == name).map(|(_, change)| *change);
        if let Some(change) = change(name) {
            self.changes_mount = true;
            apply(&mut self.attributes, change);
        } else if let Some(propagation) = Propagation::parse(name) {
            self.propagation.push(propagation);
        } else if let Some(change) = name.strip_prefix('r').and_then(change) {
            apply(&mut self.recursive, change);
        } else if SUPERBLOCK.contains(&name) {
            self.changes_mount = true;
            self.superblock.push(Parameter::Flag(name.to_owned()));
        } else {
            match name {
                "bind" => self.bind = Some(self.bind.unwrap_or(false)),
                "rbind" => self.bind = Some(true),
                "remount" => self.remount = true,
                "tmpcopyup" => self.copy_up = true,
                "copy-symlink" => self.links.copy = true,
                "src-nofollow" => self.links.mount_source = true,
                "dest-nofollow" => self.links.cover_target = true,
                "idmap" => self.id_mapped = Some(IdMapped::default()),
                "ridmap" => self.id_mapped = Some(IdMapped { recursive: true, ..IdMapped::default() }),
                name if name.starts_with("idmap=") => self.id_mapped = Some(IdMapped::parse(name, field)?),
                "defaults" => {}
                name if WITHOUT_EFFECT.contains(&name) => self.changes_mount = true,
                name => self.parameters.extend(parameters(name, field)?),
            }
        }
        Ok(())
    }
}

fn apply(attributes: &mut Attributes, change: Change) {
    match change {
        Change::Set(bit) => {
            attributes.set |= bit;
            attributes.clear -= bit;
        }
        Change::Clear(bit) => {
            attributes.clear |= bit;
            attributes.set -= bit;
        }
        Change::AccessTime(mode) => {
            attributes.set = (attributes.set - MountFlags::ATIME) | mode;
            attributes.clear |= MountFlags::ATIME;
        }
        Change::NotAccessTime(mode) => {
            attributes.set -= mode;
            attributes.clear |= MountFlags::ATIME;
        }
    }
}

/// What an option that is not known says to the file system. With mount(2) all of them were one string, in which commas
/// outside quotes separate; some engines still write it as one option.
fn parameters(option: &str, field: &str) -> Result<Vec<Parameter>, PlanError> {
    if option.contains('\0') {
        return Err(invalid(format!("{field}.options"), "holds a NUL"));
    }
    let mut quoted = false;
    let separates = |character: char| {
        quoted ^= character == '"';
        character == ',' && !quoted
    };
    let parts = option.split(separates).filter(|part| !part.is_empty());
    parts.map(|part| parameter(part, field)).collect()
}

fn parameter(option: &str, field: &str) -> Result<Parameter, PlanError> {
    let unquoted = |value: &str| value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).map(str::to_owned);
    match option.split_once('=') {
        Some(("", _)) => Err(invalid(format!("{field}.options"), format!("{option:?} has no name"))),
        Some((name, value)) => {
            Ok(Parameter::Value(name.to_owned(), unquoted(value).unwrap_or_else(|| value.to_owned())))
        }
        None => Ok(Parameter::Flag(option.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use sys::mount::Propagation as PropagationKind;

    use super::*;

    const NONE: MountFlags = MountFlags::empty();

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
        check_attributes("noatime,nostrictatime,norelatime", MountFlags::NOATIME, MountFlags::ATIME);
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
        assert_eq!(options.parameters, [value("mode", "755"), value("size", "65536k"), flag("newinstance")]);
        assert_eq!(options.superblock, [flag("sync")]);
        let one = Options::parse(&[r#"mode=1,context="a:b:c1,c2",,x"#.to_owned(), String::new()], "mounts[0]").unwrap();
        assert_eq!(one.parameters, [value("mode", "1"), value("context", "a:b:c1,c2"), flag("x")]);
    }

    /// runc 1.5.2's, and crun's three.
    #[test]
    fn every_option_of_runc_is_known() {
        let known = known_options();
        let mut runc: Vec<String> = RUNC.split_whitespace().map(str::to_owned).collect();
        runc.extend(["copy-symlink", "dest-nofollow", "src-nofollow"].map(str::to_owned));
        runc.sort();
        assert_eq!(known, runc);
        for name in known {
            let options = Options::parse(std::slice::from_ref(&name), "mounts[0]").unwrap();
            assert!(options.parameters.is_empty(), "{name}");
        }
    }

    const RUNC: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
        nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind \
        rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid \
        rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared \
        silent slave strictatime suid symfollow sync tmpcopyup unbindable";
}
