//! A directory of the host that no container may touch, and what it looked like.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use tests::{World, write};

/// Everything of one entry that an escape could change; reading it changes nothing of this.
type Entry = (PathBuf, [u64; 6], [i64; 4], Vec<u8>);

/// A directory outside of every container, with the names in it that a runtime makes or removes.
pub(crate) struct Canary {
    pub(crate) dir: PathBuf,
    before: Vec<Entry>,
}

impl Canary {
    /// What a runtime would remove is there (`ptmx`), what it would make is not (`console`, `null`, `fd`).
    pub(crate) fn new(world: &World) -> Canary {
        let dir = world.new_dir("canary");
        for sub in ["sub/deep", "pts", "self/attr/apparmor", "sys/net/ipv4"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        for file in
            ["file", "ptmx", "pts/ptmx", "self/attr/apparmor/exec", "self/oom_score_adj", "sys/net/ipv4/ip_forward"]
        {
            write(&dir.join(file), "canary");
        }
        let before = look(&dir);
        Canary { dir, before }
    }

    /// What is not as it was, if anything.
    pub(crate) fn difference(&self) -> Option<String> {
        let now = look(&self.dir);
        (now != self.before).then(|| format!("the canary was {:#?}\nand is {now:#?}", self.before))
    }

    #[track_caller]
    pub(crate) fn is_unchanged(&self) {
        if let Some(difference) = self.difference() {
            panic!("{difference}");
        }
    }
}

/// The tree at `path`, without following links.
fn look(path: &Path) -> Vec<Entry> {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let content = match () {
        () if kind.is_file() => fs::read(path).unwrap(),
        () if kind.is_symlink() => fs::read_link(path).unwrap().into_os_string().into_encoded_bytes(),
        () if kind.is_fifo() => b"fifo".to_vec(),
        () => Vec::new(),
    };
    let (owner, group) = (u64::from(metadata.uid()), u64::from(metadata.gid()));
    let facts = [metadata.ino(), u64::from(metadata.mode()), metadata.nlink(), owner, group, metadata.rdev()];
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    let mut entries = vec![(path.to_owned(), facts, times, content)];
    if kind.is_dir() {
        let mut children: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        children.sort();
        entries.extend(children.iter().flat_map(|child| look(child)));
    }
    entries
}
