//! The files of one boot: the image's, shared and read-only, and the disks that are made for it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// The disk for what the job writes, in bytes; sparse.
const SCRATCH: u64 = 16 << 30;

/// The files of one boot; what was made for it is removed when this is dropped.
pub(crate) struct Disks {
    dir: tempfile::TempDir,
    image: PathBuf,
}

impl Disks {
    /// Makes the job's disk and the scratch disk.
    pub(crate) fn make(image: &Path, job: &Path) -> anyhow::Result<Disks> {
        let dir = tempfile::Builder::new().prefix("orlop-vm-").tempdir_in("/var/tmp").context("make a folder")?;
        let disks = Disks { dir, image: image.to_owned() };
        let size = bytes_below(job)? / 1024 * 5 / 4 + 16 * 1024;
        let without_journal = ["-O", "^has_journal"].map(OsStr::new);
        let options = [&without_journal[..], &[OsStr::new("-d"), job.as_os_str()]].concat();
        mke2fs(&options, &disks.job(), Some(&format!("{size}K")))?;
        File::create(disks.scratch()).and_then(|file| file.set_len(SCRATCH)).context("make the scratch disk")?;
        let options = [&without_journal[..], &["-E", "lazy_itable_init=1"].map(OsStr::new)].concat();
        mke2fs(&options, &disks.scratch(), None)?;
        Ok(disks)
    }

    pub(crate) fn image(&self, file: &str) -> PathBuf {
        self.image.join(file)
    }

    pub(crate) fn job(&self) -> PathBuf {
        self.dir.path().join("job.img")
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch.img")
    }

    /// Where the console is written.
    pub(crate) fn console(&self) -> PathBuf {
        self.dir.path().join("console")
    }
}

fn mke2fs(options: &[&OsStr], file: &Path, size: Option<&str>) -> anyhow::Result<()> {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4"]).args(options).arg(file).args(size);
    let done = command.stdin(Stdio::null()).output().context("start mke2fs")?;
    if !done.status.success() {
        bail!("mke2fs {}: {}", file.display(), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// The sizes of all files below `dir`, with a block for each.
fn bytes_below(dir: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        let metadata = entry.metadata().with_context(|| format!("look at {}", entry.path().display()))?;
        total += 4096 + if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}
