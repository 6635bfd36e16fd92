//! A private image store on the World's disk in memory, driven through `orlop image`, and the trees in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use sys::at;
use tests::images::digest;
use tests::{Output, World, binary, output, write};

/// One store.
pub(crate) struct Store<'a> {
    world: &'a World,
    dir: PathBuf,
}

impl<'a> Store<'a> {
    /// A new, empty one.
    pub(crate) fn new(world: &'a World) -> Store<'a> {
        Store::at(world, world.new_dir("store"))
    }

    /// In a directory that a test prepared.
    pub(crate) fn at(world: &'a World, dir: PathBuf) -> Store<'a> {
        write(&dir.join("config.toml"), format!("[registry]\nhosts_dirs = [\"{}/certs.d\"]\n", dir.display()));
        Store { world, dir }
    }

    /// Where it lies: `root/image` below it is the store itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// `orlop image ARGUMENTS`, started by `wrapper` (a debugger's command line) if there is one.
    pub(crate) fn orlop(&self, wrapper: &[String], arguments: &[&str]) -> Output {
        let mut command = match wrapper {
            [] => self.world.command(binary("orlop")),
            [program, rest @ ..] => {
                let mut command = self.world.command(program);
                command.args(rest).arg(binary("orlop"));
                command
            }
        };
        self.flags(&mut command);
        output(command.arg("image").args(arguments))
    }

    pub(crate) fn pull(&self, reference: &str) -> Output {
        self.orlop(&[], &["pull", reference])
    }

    /// The ids of all images.
    #[track_caller]
    pub(crate) fn images(&self) -> Vec<String> {
        let text = self.orlop(&[], &["ls", "-o", "json"]).success();
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let images = json["images"].as_array().expect("a list");
        images.iter().map(|image| image["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// The trees of all layers, oldest first.
    pub(crate) fn layers(&self) -> Vec<PathBuf> {
        let snapshots = self.dir.join("root/image/snapshots");
        let mut numbers: Vec<u64> = fs::read_dir(&snapshots)
            .expect("snapshots")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().parse().expect("a number"))
            .collect();
        numbers.sort_unstable();
        numbers.iter().map(|number| snapshots.join(number.to_string()).join("fs")).collect()
    }

    fn flags(&self, command: &mut Command) {
        command.arg("--config").arg(self.dir.join("config.toml")).arg("--root").arg(self.dir.join("root"));
        command.arg("--state").arg(self.dir.join("state")).arg("--socket").arg(self.dir.join("no-daemon.sock"));
    }
}

/// Every file below `root` in one line: type, mode, owner, links, times of what is no directory, content.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    walk(root, root, &mut lines);
    lines
}

fn walk(root: &Path, path: &Path, lines: &mut BTreeMap<String, String>) {
    let metadata = fs::symlink_metadata(path).expect("lstat");
    let kind = metadata.file_type();
    let mut line = format!("{:o} {}:{}", metadata.mode(), metadata.uid(), metadata.gid());
    if kind.is_symlink() {
        line.push_str(&format!(" -> {}", fs::read_link(path).expect("readlink").display()));
    } else if kind.is_char_device() || kind.is_block_device() {
        let (major, minor) = at::device_parts(metadata.rdev());
        line.push_str(&format!(" {major}:{minor}"));
    } else if kind.is_file() {
        let mut content = Vec::new();
        File::open(path).and_then(|mut file| file.read_to_end(&mut content)).expect("read");
        line.push_str(&format!(" {} links, {} bytes, {}", metadata.nlink(), content.len(), &digest(&content)[7..19]));
    }
    if !kind.is_dir() {
        line.push_str(&format!(", {}", metadata.mtime()));
    }
    if kind.is_file() || kind.is_dir() {
        for (name, value) in attributes(path) {
            line.push_str(&format!(", {name}={}", value.escape_ascii()));
        }
    }
    let name = path.strip_prefix(root).expect("below the root").as_os_str().as_encoded_bytes().escape_ascii();
    lines.insert(name.to_string(), line);
    if kind.is_dir() {
        for entry in fs::read_dir(path).expect("readdir") {
            walk(root, &entry.expect("entry").path(), lines);
        }
    }
}

/// Extended attributes, without those that the host's security modules add.
pub(crate) fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let file = File::open(path).expect("open");
    let names = at::flistxattr(&file).expect("listxattr");
    let names = names.iter().map(|name| name.to_string_lossy().into_owned()).filter(|name| name != "security.selinux");
    names.map(|name| (name.clone(), at::fgetxattr(&file, &name).expect("getxattr").unwrap_or_default())).collect()
}
