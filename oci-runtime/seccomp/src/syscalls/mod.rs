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

/// The number on x86_64, x86, x32: in the order of [`Abi`].
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

/// A system call by its name: what the tables know of it, looked up once for all ABIs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    numbers: Numbers,
    /// On x86, as a function of another call.
    multiplexed: Option<Entry>,
}

impl Call {
    /// `None` for a name that no ABI has.
    pub(crate) fn named(name: &str) -> Option<Call> {
        let found = table::TABLE.binary_search_by_key(&name, |&(known, _)| known);
        let function = MULTIPLEXED.binary_search_by_key(&name, |&(known, ..)| known).ok();
        let numbers = match (found, function) {
            (Ok(found), _) => table::TABLE[found].1,
            (Err(_), Some(_)) => [NONE; 3],
            (Err(_), None) => return None,
        };
        let multiplexed = function.and_then(|function| {
            let (_, through, value) = MULTIPLEXED[function];
            Some(Entry::Multiplexed(number(through, Abi::X86)?, value))
        });
        Some(Call { numbers, multiplexed })
    }

    /// The entries of the call on an ABI: none, one, or two on x86, where a socket can be made in two ways. Numbers are
    /// without x32's bit 30.
    pub(crate) fn entries(self, abi: Abi) -> impl Iterator<Item = Entry> {
        let multiplexed = self.multiplexed.filter(|_| abi == Abi::X86);
        let direct = Some(self.numbers[abi as usize]).filter(|&number| number != NONE);
        multiplexed.into_iter().chain(direct.map(|number| Entry::Direct(number.into())))
    }
}

/// The number of a call on an ABI, without x32's bit 30.
pub(crate) fn number(name: &str, abi: Abi) -> Option<u32> {
    let found = table::TABLE.binary_search_by_key(&name, |&(known, _)| known).ok()?;
    let number = table::TABLE[found].1[abi as usize];
    (number != NONE).then_some(u32::from(number))
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
        assert_eq!(numbers("read"), [Some(0), Some(3), Some(0)]);
        assert_eq!(numbers("execve"), [Some(59), Some(11), Some(520)]);
        assert_eq!(numbers("chown32"), [None, Some(212), None]);
        assert_eq!(numbers("frobnicate"), [None; 3]);
    }

    #[test]
    fn a_socket_on_x86_is_made_in_two_ways() {
        let socket = Call::named("socket").unwrap();
        let entries: Vec<Entry> = socket.entries(Abi::X86).collect();
        assert_eq!(entries, [Entry::Multiplexed(102, 1), Entry::Direct(359)]);
    }
}
