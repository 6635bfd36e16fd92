//! The five capability sets of a thread (capabilities(7)).

use std::fmt;
use std::ops::{BitAnd, BitOr, Not};

use nix::libc;
use nix::sys::prctl;

use crate::Errno;
use crate::error::{Error, Result};

/// The names of linux/capability.h, in the order of their numbers.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A set of capabilities: bit `n` is the capability with number `n`, as `/proc/[pid]/status` shows them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(pub u64);

/// Not the name of a capability that we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(pub String);

impl Capabilities {
    /// No capability.
    pub const NONE: Capabilities = Capabilities(0);
    /// All that we know by name.
    pub const ALL: Capabilities = Capabilities((1 << NAMES.len()) - 1);

    /// One capability by name: `CAP_NET_ADMIN` or `net_admin`.
    pub fn from_name(name: &str) -> std::result::Result<Capabilities, UnknownCapability> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES.iter().position(|known| known.strip_prefix("CAP_") == Some(bare));
        number.map(|number| Capabilities(1 << number)).ok_or_else(|| UnknownCapability(name.to_owned()))
    }

    /// The set of all `names`; the first unknown one is the error.
    pub fn from_names<'a>(
        names: impl IntoIterator<Item = &'a str>,
    ) -> std::result::Result<Capabilities, UnknownCapability> {
        names.into_iter().try_fold(Capabilities::NONE, |set, name| Ok(set | Capabilities::from_name(name)?))
    }

    /// The names of the set's members; a number without a name is `CAP_41`.
    pub fn names(self) -> Vec<String> {
        let name = |number: usize| NAMES.get(number).map_or_else(|| format!("CAP_{number}"), |name| (*name).to_owned());
        (0..64).filter(|number| self.0 >> number & 1 == 1).map(name).collect()
    }

    /// Its members, each as a set of its own.
    pub fn each(self) -> impl Iterator<Item = Capabilities> {
        (0..64).map(move |number| Capabilities(self.0 & 1 << number)).filter(|member| !member.is_empty())
    }

    /// True if all of `other` are in this set.
    pub fn contains(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if the set has no member.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.is_empty() { "0".to_owned() } else { self.names().join("|") })
    }
}

impl BitOr for Capabilities {
    type Output = Capabilities;
    fn bitor(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 | other.0)
    }
}

impl BitAnd for Capabilities {
    type Output = Capabilities;
    fn bitand(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & other.0)
    }
}

impl Not for Capabilities {
    type Output = Capabilities;
    fn not(self) -> Capabilities {
        Capabilities(!self.0)
    }
}

/// The three sets of capget(2). Bounding and ambient have calls of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// What counts now.
    pub effective: Capabilities,
    /// What may be made effective.
    pub permitted: Capabilities,
    /// What an exec may take over, if the file says so too.
    pub inheritable: Capabilities,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits.
const VERSION_3: u32 = 0x2008_0522;

impl CapabilitySets {
    /// Those of the calling thread (capget(2)).
    pub fn current() -> Result<CapabilitySets> {
        let mut header = Header { version: VERSION_3, pid: 0 };
        let mut data = [Data::default(); 2];
        // SAFETY: a header of version 3 and the two data words that this version is defined to write.
        let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
        Errno::result(result).map_err(|errno| Error::new("capget", errno, "{_LINUX_CAPABILITY_VERSION_3, 0}"))?;
        let join =
            |field: fn(&Data) -> u32| Capabilities(u64::from(field(&data[1])) << 32 | u64::from(field(&data[0])));
        Ok(CapabilitySets {
            effective: join(|data| data.effective),
            permitted: join(|data| data.permitted),
            inheritable: join(|data| data.inheritable),
        })
    }

    /// Makes them those of the calling thread (capset(2)). EPERM for a permitted one that it does not have.
    pub fn apply(&self) -> Result<()> {
        let mut header = Header { version: VERSION_3, pid: 0 };
        let half = |shift: u32| Data {
            effective: (self.effective.0 >> shift) as u32,
            permitted: (self.permitted.0 >> shift) as u32,
            inheritable: (self.inheritable.0 >> shift) as u32,
        };
        let data = [half(0), half(32)];
        // SAFETY: a header of version 3 and the two data words that this version is defined to read.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
        Errno::result(result).map(drop).map_err(|errno| Error::new("capset", errno, format_args!("0, {self:?}")))
    }
}

/// The highest capability number of this kernel: the first that `PR_CAPBSET_READ` refuses, less one.
pub fn last_capability() -> u32 {
    // SAFETY: this request takes no pointers.
    let known = |number: &u32| unsafe { libc::prctl(libc::PR_CAPBSET_READ, *number, 0, 0, 0) } >= 0;
    (0..64).take_while(known).last().unwrap_or(0)
}

/// Removes all but `keep` from the bounding set, those that this kernel has and we don't know by name included
/// (`PR_CAPBSET_DROP`). Needs CAP_SETPCAP.
pub fn drop_bounding(keep: Capabilities) -> Result<()> {
    for number in (0..64).filter(|number| keep.0 >> number & 1 == 0) {
        // SAFETY: this request takes no pointers.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        match Errno::result(result) {
            Ok(_) => {}
            // The first number that this kernel does not have: one call less for each that it has.
            Err(Errno::EINVAL) if number > 0 => break,
            Err(errno) => {
                let name = Capabilities(1 << number);
                return Err(Error::new("prctl", errno, format_args!("PR_CAPBSET_DROP, {name:?}")));
            }
        }
    }
    Ok(())
}

/// Empties the ambient set (`PR_CAP_AMBIENT_CLEAR_ALL`).
pub fn clear_ambient() -> Result<()> {
    ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)
        .map_err(|errno| Error::new("prctl", errno, "PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL"))
}

/// Adds capabilities to the ambient set (`PR_CAP_AMBIENT_RAISE`). Each must be permitted and inheritable: EPERM.
pub fn raise_ambient(raise: Capabilities) -> Result<()> {
    for member in raise.each() {
        ambient(libc::PR_CAP_AMBIENT_RAISE, member.0.trailing_zeros()).map_err(|errno| {
            Error::new("prctl", errno, format_args!("PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, {member:?}"))
        })?;
    }
    Ok(())
}

fn ambient(request: libc::c_int, number: u32) -> nix::Result<()> {
    // SAFETY: this request takes no pointers.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, request, number, 0, 0) }).map(drop)
}

/// Whether the permitted set survives leaving user 0 (`PR_SET_KEEPCAPS`). An exec turns it off.
pub fn set_keep_capabilities(on: bool) -> Result<()> {
    prctl::set_keepcaps(on).map_err(|errno| Error::new("prctl", errno, format_args!("PR_SET_KEEPCAPS, {on}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_agree_with_the_kernels_header() {
        assert_eq!(Capabilities::from_name("CAP_CHOWN").unwrap().0, 1);
        assert_eq!(Capabilities::from_name("sys_admin").unwrap().0, 1 << 21);
        assert_eq!(Capabilities::from_name("CAP_CHECKPOINT_RESTORE").unwrap().0, 1 << 40);
        let set = Capabilities::from_names(["CAP_KILL", "CAP_BPF"]).unwrap();
        assert_eq!(set.names(), ["CAP_KILL", "CAP_BPF"]);
        assert_eq!(format!("{set:?} {:?}", Capabilities::NONE), "CAP_KILL|CAP_BPF 0");
    }

    #[test]
    fn an_unknown_name_is_refused() {
        for name in ["CAP_FLY", "", "CAP_", "CAP_CAP_KILL"] {
            assert_eq!(Capabilities::from_name(name), Err(UnknownCapability(name.to_owned())));
        }
    }

    #[test]
    fn the_sets_of_this_thread_are_what_procfs_shows() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let shown = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            Capabilities(u64::from_str_radix(line.trim(), 16).unwrap())
        };
        let sets = CapabilitySets::current().unwrap();
        assert_eq!(sets.effective, shown("CapEff:"));
        assert_eq!(sets.permitted, shown("CapPrm:"));
        assert_eq!(sets.inheritable, shown("CapInh:"));
    }

    #[test]
    fn a_thread_can_give_up_everything() {
        let thread = std::thread::spawn(|| {
            CapabilitySets::default().apply().unwrap();
            assert_eq!(CapabilitySets::current().unwrap(), CapabilitySets::default());
            let all = CapabilitySets { permitted: Capabilities::ALL, ..CapabilitySets::default() };
            assert!(all.apply().unwrap_err().is(Errno::EPERM));
            clear_ambient().unwrap();
            assert!(raise_ambient(Capabilities(1)).unwrap_err().is(Errno::EPERM));
        });
        thread.join().unwrap();
    }

    #[test]
    fn the_kernel_has_at_least_the_capabilities_of_linux_5_9() {
        assert!(last_capability() >= 40);
    }
}
