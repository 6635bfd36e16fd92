//! Names and numbers of system calls.

mod table;

/// The ABIs through which a process on x86_64 can call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Abi {
    /// The native one.
    X86_64,
    /// 32-bit programs, through `int 0x80` or `sysenter`; any program can.
    X86,
    /// 32-bit pointers in 64-bit mode. The kernel tells it from x86_64 by bit 30 of the number alone.
    X32,
}

/// Bit 30 of an x32 number (`__X32_SYSCALL_BIT`).
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// The number on x86_64, x86, x32.
type Numbers = [u16; 3];
/// The ABI does not have it.
const NONE: u16 = u16::MAX;

/// The calls that x86 has, or once had, only as a function of `socketcall` or `ipc`: name, that call, the value
/// of its first argument (include/uapi/linux/net.h, ipc.h).
static MULTIPLEXED: [(&str, &str, u32); 32] = [
    ("accept", "socketcall", 5),
    ("accept4", "socketcall", 18),
    ("bind", "socketcall", 2),
    ("connect", "socketcall", 3),
    ("getpeername", "socketcall", 7),
    ("getsockname", "socketcall", 6),
    ("getsockopt", "socketcall", 15),
    ("listen", "socketcall", 4),
    ("msgctl", "ipc", 14),
    ("msgget", "ipc", 13),
    ("msgrcv", "ipc", 12),
    ("msgsnd", "ipc", 11),
    ("recv", "socketcall", 10),
    ("recvfrom", "socketcall", 12),
    ("recvmmsg", "socketcall", 19),
    ("recvmsg", "socketcall", 17),
    ("semctl", "ipc", 3),
    ("semget", "ipc", 2),
    ("semop", "ipc", 1),
    ("semtimedop", "ipc", 4),
    ("send", "socketcall", 9),
    ("sendmmsg", "socketcall", 20),
    ("sendmsg", "socketcall", 16),
    ("sendto", "socketcall", 11),
    ("setsockopt", "socketcall", 14),
    ("shmat", "ipc", 21),
    ("shmctl", "ipc", 24),
    ("shmdt", "ipc", 22),
    ("shmget", "ipc", 23),
    ("shutdown", "socketcall", 13),
    ("socket", "socketcall", 1),
    ("socketpair", "socketcall", 8),
];

/// Where a name leads to on an ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The call itself.
    Direct(u32),
    /// This call, when its first argument has this value.
    Multiplexed(u32, u32),
}

/// The entries of a call on an ABI: none, one, or two on x86, where a socket can be made in two ways.
pub(crate) fn entries(name: &str, abi: Abi) -> impl Iterator<Item = Entry> {
    let multiplexed = MULTIPLEXED
        .binary_search_by_key(&name, |&(known, ..)| known)
        .ok()
        .filter(|_| abi == Abi::X86)
        .and_then(|found| Some(Entry::Multiplexed(number(MULTIPLEXED[found].1, abi)?, MULTIPLEXED[found].2)));
    let direct = number(name, abi).map(Entry::Direct);
    multiplexed.into_iter().chain(direct)
}

/// The number of a call on an ABI, bit 30 included.
pub(crate) fn number(name: &str, abi: Abi) -> Option<u32> {
    let found = table::TABLE.binary_search_by_key(&name, |&(known, _)| known).ok()?;
    let [x86_64, x86, x32] = table::TABLE[found].1;
    let given = |number| (number != NONE).then_some(u32::from(number));
    match abi {
        Abi::X86_64 => given(x86_64),
        Abi::X86 => given(x86),
        Abi::X32 => given(x32).map(|number| number | X32_BIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_are_sorted_so_that_every_name_is_found() {
        assert!(table::TABLE.is_sorted_by_key(|&(name, _)| name));
        assert!(MULTIPLEXED.is_sorted_by_key(|&(name, ..)| name));
    }

    #[test]
    fn no_two_names_share_a_number() {
        for abi in [Abi::X86_64, Abi::X86, Abi::X32] {
            let mut numbers: Vec<u32> = table::TABLE.iter().filter_map(|&(name, _)| number(name, abi)).collect();
            numbers.sort_unstable();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{abi:?}");
        }
    }

    #[test]
    fn a_name_leads_to_its_numbers() {
        let numbers = |name| [Abi::X86_64, Abi::X86, Abi::X32].map(|abi| number(name, abi));
        assert_eq!(numbers("read"), [Some(0), Some(3), Some(X32_BIT)]);
        assert_eq!(numbers("execve"), [Some(59), Some(11), Some(X32_BIT | 520)]);
        assert_eq!(numbers("chown32"), [None, Some(212), None]);
        assert_eq!(numbers("frobnicate"), [None; 3]);
    }

    #[test]
    fn a_socket_on_x86_is_made_in_two_ways() {
        let entries: Vec<Entry> = entries("socket", Abi::X86).collect();
        assert_eq!(entries, [Entry::Multiplexed(102, 1), Entry::Direct(359)]);
    }
}
