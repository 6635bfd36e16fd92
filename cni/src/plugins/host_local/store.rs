//! The reservations of one network, in the reference's format.
//!
//! `<dataDir>/<network>/` holds `lock`, a file that is locked with flock(2) around every look and change; one file per
//! taken address, named by it, with `<container id>\r\n<interface>` in it; and `last_reserved_ip.<n>` with the address
//! last taken of range set n. Old versions wrote the container id alone.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, RenameFlags};

use super::failed;
use crate::error::{PluginError, code};

/// Reservations have some eighty bytes; what is longer was not written by us.
const RESERVATION_MAX: u64 = 4096;

/// The name of a reservation before it has that of its address. One that is left behind is removed by the next, never
/// written to: a process that was killed between two steps may have given the same file its address's name already.
const UNFINISHED: &str = ".reserving";

/// A network's directory.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    lock: File,
}

/// The same while this process holds its lock.
#[derive(Debug)]
pub(super) struct Locked {
    directory: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// Opens the directory, making it if need be.
    pub(super) fn open(directory: &Path) -> Result<Store, PluginError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
        made.map_err(|error| io_error("create", directory, &error))?;
        Store::open_lock(directory).map_err(|error| io_error("open the lock of", directory, &error))
    }

    /// Opens the directory; `None` if nothing was ever reserved in it.
    pub(super) fn open_existing(directory: &Path) -> Result<Option<Store>, PluginError> {
        match Store::open_lock(directory) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(io_error("open the lock of", directory, &error)),
            Ok(store) => Ok(Some(store)),
        }
    }

    fn open_lock(directory: &Path) -> std::io::Result<Store> {
        let mut options = OpenOptions::new();
        let lock =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(directory.join("lock"))?;
        Ok(Store { directory: directory.into(), lock })
    }

    /// Waits for the lock.
    pub(super) fn lock(self) -> Result<Locked, PluginError> {
        match Flock::lock(self.lock, FlockArg::LockExclusive) {
            Ok(lock) => Ok(Locked { directory: self.directory, _lock: lock }),
            Err((_, errno)) => Err(io_error("lock", &self.directory, &errno.into())),
        }
    }
}

impl Locked {
    /// Reserves an address; false if it is taken. The file appears with its content, so that a process killed at any
    /// point leaves no reservation that is nobody's: such a one could never be given back.
    pub(super) fn reserve(&self, address: Ipv4Addr, set: usize, id: &str, ifname: &str) -> Result<bool, PluginError> {
        if !self.is_free(address) {
            return Ok(false);
        }
        let (new, path) = (self.directory.join(UNFINISHED), self.directory.join(address.to_string()));
        create_anew(&new, format!("{id}\r\n{ifname}").as_bytes()).map_err(|error| io_error("write", &new, &error))?;
        if !self.give_name(address)? {
            return Ok(false);
        }
        if let Err(error) = self.remember_last(address, set) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(true)
    }

    /// Makes the unfinished reservation that of the address, in one step: at no time has the file two names. False if
    /// the address is taken.
    fn give_name(&self, address: Ipv4Addr) -> Result<bool, PluginError> {
        let directory = File::open(&self.directory).map_err(|error| io_error("open", &self.directory, &error))?;
        let name = address.to_string();
        match sys::at::renameat(&directory, UNFINISHED, &directory, &name, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::EEXIST) => Ok(false),
            Err(error) => Err(PluginError { code: code::IO, ..error.into() }),
        }
    }

    fn remember_last(&self, address: Ipv4Addr, set: usize) -> Result<(), PluginError> {
        replace(&self.last_reserved_path(set), address.to_string().as_bytes())
    }

    /// The address last taken of a range set; `None` if there is none or its file is no address (a torn write).
    pub(super) fn last_reserved(&self, set: usize) -> Option<Ipv4Addr> {
        read_bounded(&self.last_reserved_path(set)).ok()?.trim().parse().ok()
    }

    fn last_reserved_path(&self, set: usize) -> PathBuf {
        self.directory.join(format!("last_reserved_ip.{set}"))
    }

    /// Whether nobody has the address.
    pub(super) fn is_free(&self, address: Ipv4Addr) -> bool {
        !self.directory.join(address.to_string()).exists()
    }

    /// The addresses of an attachment.
    pub(super) fn held_by(&self, id: &str, ifname: &str) -> Result<Vec<Ipv4Addr>, PluginError> {
        let held = self.reservations()?.into_iter().filter(|held| held.is_of(id, ifname) || held.is_old_style_of(id));
        Ok(held.map(|held| held.address).collect())
    }

    /// Gives back all addresses of an attachment; none is no error.
    pub(super) fn release(&self, id: &str, ifname: &str) -> Result<(), PluginError> {
        let all = self.reservations()?;
        let mut own: Vec<_> = all.iter().filter(|held| held.is_of(id, ifname)).collect();
        if own.is_empty() {
            own = all.iter().filter(|held| held.is_old_style_of(id)).collect();
        }
        own.iter().try_for_each(|reservation| self.give_back(reservation.address))
    }

    /// Gives back one address; none is no error.
    pub(super) fn give_back(&self, address: Ipv4Addr) -> Result<(), PluginError> {
        let path = self.directory.join(address.to_string());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    /// How the network's addresses are used, in words: a reservation is live if libcni's cache, which lies beside our
    /// directory, knows its attachment and the namespace that it was made for is still there.
    pub(super) fn usage(&self, network: &str) -> Result<String, PluginError> {
        let all = self.reservations()?;
        let results = self.directory.parent().and_then(Path::parent).map(|base| base.join("results"));
        let Some(results) = results.filter(|results| results.is_dir()) else {
            return Ok(format!("{} used", all.len()));
        };
        let live = all.iter().filter(|held| held.is_live(network, &results)).count();
        let leaked = all.len() - live;
        let hint = match leaked {
            0 => String::new(),
            _ => format!(" (reserved for sandboxes that are gone: see the files in {})", self.directory.display()),
        };
        Ok(format!("{} used: {live} live, {leaked} leaked{hint}", all.len()))
    }

    /// All reservations; files that are none of an address are passed over, as the reference does.
    fn reservations(&self) -> Result<Vec<Reservation>, PluginError> {
        let unreadable = |error| io_error("list", &self.directory, &error);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A file that can't be read is nobody's; it still blocks its address.
            let owner = read_bounded(&entry.path()).unwrap_or_default().trim().to_owned();
            found.push(Reservation { address, owner });
        }
        Ok(found)
    }
}

/// One taken address.
#[derive(Debug)]
struct Reservation {
    address: Ipv4Addr,
    owner: String,
}

impl Reservation {
    fn is_of(&self, id: &str, ifname: &str) -> bool {
        self.owner == format!("{id}\r\n{ifname}")
    }

    fn is_old_style_of(&self, id: &str) -> bool {
        self.owner == id
    }

    fn is_live(&self, network: &str, results: &Path) -> bool {
        let Some((id, ifname)) = self.owner.split_once("\r\n") else { return false };
        let cached = results.join(format!("{network}-{id}-{ifname}"));
        let Ok(text) = std::fs::read(cached) else { return false };
        let cached: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
        let netns = cached.as_ref().and_then(|cached| cached["netns"].as_str());
        netns.is_some_and(|netns| Path::new(netns).exists())
    }
}

/// Writes a file that is nobody else's: one that has the name loses it.
fn create_anew(path: &Path, content: &[u8]) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}

/// Writes a file over.
fn replace(path: &Path, content: &[u8]) -> Result<(), PluginError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content)).map_err(|error| io_error("write", path, &error))
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(RESERVATION_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn io_error(doing: &str, path: &Path, error: &std::io::Error) -> PluginError {
    let failure = failed(format!("{doing} {}: {error}", path.display()));
    PluginError { code: code::IO, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn content(directory: &Path, name: &str) -> String {
        String::from_utf8(std::fs::read(directory.join(name)).unwrap()).unwrap()
    }

    fn put(directory: &Path, name: &str, content: &str) {
        File::create(directory.join(name)).unwrap().write_all(content.as_bytes()).unwrap();
    }

    #[test]
    fn reservations_have_the_bytes_of_the_reference() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap().lock().unwrap();
        assert!(store.reserve(address("10.0.0.2"), 0, "c1", "eth0").unwrap());
        assert!(!store.reserve(address("10.0.0.2"), 0, "c2", "eth0").unwrap(), "taken");
        assert_eq!(content(directory.path(), "10.0.0.2"), "c1\r\neth0");
        assert_eq!(content(directory.path(), "last_reserved_ip.0"), "10.0.0.2");
        assert_eq!(store.last_reserved(0), Some(address("10.0.0.2")));
        assert_eq!(store.last_reserved(1), None);
    }

    #[test]
    fn a_reservation_cut_short_between_its_two_names_keeps_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap().lock().unwrap();
        put(directory.path(), UNFINISHED, "a\r\neth0");
        std::fs::hard_link(directory.path().join(UNFINISHED), directory.path().join("10.0.0.2")).unwrap();
        assert!(store.reserve(address("10.0.0.3"), 0, "b", "eth0").unwrap());
        assert_eq!(content(directory.path(), "10.0.0.2"), "a\r\neth0");
        store.release("b", "eth0").unwrap();
        assert!(!store.is_free(address("10.0.0.2")) && store.is_free(address("10.0.0.3")));
        assert!(!directory.path().join(UNFINISHED).exists());
    }

    #[test]
    fn release_takes_only_the_attachments_own_and_twice_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap().lock().unwrap();
        for (ip, id, ifname) in [("10.0.0.2", "c1", "eth0"), ("10.0.0.3", "c1", "eth1"), ("10.0.0.4", "c12", "eth0")] {
            store.reserve(address(ip), 0, id, ifname).unwrap();
        }
        store.release("c1", "eth0").unwrap();
        store.release("c1", "eth0").unwrap();
        assert!(store.is_free(address("10.0.0.2")));
        assert!(!store.is_free(address("10.0.0.3")) && !store.is_free(address("10.0.0.4")));
    }

    #[test]
    fn what_an_old_version_reserved_is_found_and_released() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "10.0.0.9", "c1");
        let store = Store::open(directory.path()).unwrap().lock().unwrap();
        assert_eq!(store.held_by("c1", "eth0").unwrap(), [address("10.0.0.9")]);
        store.release("c1", "eth0").unwrap();
        assert!(store.is_free(address("10.0.0.9")));
    }

    #[test]
    fn foreign_and_torn_files_harm_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap().lock().unwrap();
        put(directory.path(), "last_reserved_ip.0", "10.0.");
        put(directory.path(), "10.0.0.2", "");
        put(directory.path(), "note.txt", "c1\r\neth0");
        std::fs::create_dir(directory.path().join("10.0.0.3")).unwrap();
        assert_eq!(store.last_reserved(0), None);
        assert!(store.held_by("c1", "eth0").unwrap().is_empty());
        store.release("c1", "eth0").unwrap();
        assert!(directory.path().join("note.txt").exists());
    }

    #[test]
    fn a_directory_that_was_never_used_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Store::open_existing(&directory.path().join("net")).unwrap().is_none());
    }

    #[test]
    fn usage_counts_the_live_and_the_leaked() {
        let base = tempfile::tempdir().unwrap();
        let network = base.path().join("networks/net");
        let store = Store::open(&network).unwrap().lock().unwrap();
        for (ip, id) in [("10.0.0.2", "live"), ("10.0.0.3", "gone"), ("10.0.0.4", "unknown")] {
            store.reserve(address(ip), 0, id, "eth0").unwrap();
        }
        assert_eq!(store.usage("net").unwrap(), "3 used");
        let results = base.path().join("results");
        std::fs::create_dir(&results).unwrap();
        put(&results, "net-live-eth0", r#"{"netns": "/proc/self/ns/net"}"#);
        put(&results, "net-gone-eth0", r#"{"netns": "/run/netns/gone"}"#);
        assert!(store.usage("net").unwrap().starts_with("3 used: 1 live, 2 leaked"), "{}", store.usage("net").unwrap());
    }
}
