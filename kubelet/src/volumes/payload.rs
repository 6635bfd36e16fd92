//! What the files of a volume shall hold: paths that can't leave it, contents that never show in a log.

use super::error::SetUpError;
use k8s_openapi::api::core::v1::KeyToPath;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// The permissions of files where the volume says nothing: what the API server fills in.
const DEFAULT_MODE: u32 = 0o644;

/// One file.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct File {
    /// Its content.
    pub(super) data: Vec<u8>,
    /// Its permissions.
    pub(super) mode: u32,
    /// Its owner; `None` for root.
    pub(super) owner: Option<u32>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File {{ {} bytes, {:#o}, owner {:?} }}", self.data.len(), self.mode, self.owner)
    }
}

/// The most that the files of a volume may hold together with their paths, in bytes. An object has at most 1 MiB, but one
/// key can be shown under any number of paths, and each is a copy: here, then on the node's disk or in its memory.
const MAX_CONTENT: usize = 64 << 20;

/// All files of a volume, by clean relative path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Payload {
    files: BTreeMap<PathBuf, File>,
    /// Of all contents and paths.
    bytes: usize,
}

/// A file that a volume can't hold. The texts about paths are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FileError {
    #[error("the files of the volume hold more than {MAX_CONTENT} bytes together, the most that this kubelet writes")]
    Much,
    #[error("invalid path: must not be empty: {0:?}")]
    Empty(String),
    #[error("invalid path: must be relative path: {0}")]
    Absolute(String),
    #[error("invalid path: must be less than or equal to 4096 characters")]
    Long,
    #[error("invalid path: must not contain '..': {0}")]
    Backstep(String),
    #[error("invalid path: filenames must be less than or equal to 255 characters")]
    LongName,
    #[error("invalid path: must not start with '..': {0}")]
    Reserved(String),
    #[error("invalid path: must not contain a NUL byte: {0:?}")]
    Nul(String),
}

/// Checks a path as it stands in the API, and takes `.` and double slashes out of it. What starts with `..` is the
/// atomic writer's own.
fn clean(path: &str) -> Result<PathBuf, FileError> {
    let text = || path.to_owned();
    match path {
        _ if path.starts_with('/') => return Err(FileError::Absolute(text())),
        _ if path.len() > 4096 => return Err(FileError::Long),
        _ if path.contains('\0') => return Err(FileError::Nul(text())),
        _ => {}
    }
    let names = path.split('/');
    if names.clone().any(|name| name == "..") {
        return Err(FileError::Backstep(text()));
    }
    if names.clone().any(|name| name.len() > 255) {
        return Err(FileError::LongName);
    }
    if path.starts_with("..") {
        return Err(FileError::Reserved(text()));
    }
    let clean: PathBuf = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    match clean.as_os_str().as_encoded_bytes() {
        [] => Err(FileError::Empty(text())),
        [b'.', b'.', ..] => Err(FileError::Reserved(text())), // `./..x`
        _ => Ok(clean),
    }
}

impl Payload {
    /// Adds or replaces a file.
    pub(super) fn insert(&mut self, path: &str, file: File) -> Result<(), FileError> {
        self.put(clean(path)?, file)
    }

    /// Adds all files of another payload over those of this one.
    pub(super) fn extend(&mut self, other: Payload) -> Result<(), FileError> {
        other.files.into_iter().try_for_each(|(path, file)| self.put(path, file))
    }

    fn put(&mut self, path: PathBuf, file: File) -> Result<(), FileError> {
        let size = |file: &File| path.as_os_str().len() + file.data.len();
        let bytes = self.bytes - self.files.get(&path).map_or(0, size) + size(&file);
        if bytes > MAX_CONTENT {
            return Err(FileError::Much);
        }
        self.bytes = bytes;
        self.files.insert(path, file);
        Ok(())
    }

    /// The files in order.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, &File)> {
        self.files.iter().map(|(path, file)| (path.as_path(), file))
    }

    /// The file of a path.
    pub(super) fn get(&self, path: &Path) -> Option<&File> {
        self.files.get(path)
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The names that a pod sees at the top of the volume, each with the owner of a file below it.
    pub(super) fn top_names(&self) -> BTreeMap<&str, Option<u32>> {
        self.files.iter().filter_map(|(path, file)| Some((path.iter().next()?.to_str()?, file.owner))).collect()
    }
}

/// An object's keys, as a volume shows them: all of them, or those that `items` name, where it says.
pub(super) struct Keys<'a> {
    /// `items`.
    pub(super) items: Option<&'a [KeyToPath]>,
    /// `defaultMode`.
    pub(super) default_mode: Option<i32>,
    /// Whether a key of `items` may be missing.
    pub(super) optional: bool,
}

impl Keys<'_> {
    /// The payload of an object that holds `data`; `missing` is the error for a key that it should have.
    pub(super) fn of(
        &self,
        data: &BTreeMap<&str, &[u8]>,
        missing: fn(String) -> SetUpError,
    ) -> Result<Payload, SetUpError> {
        let mut payload = Payload::default();
        let file = |data: &[u8], own| File { data: data.to_vec(), mode: mode(own, self.default_mode), owner: None };
        let Some(items) = self.items.filter(|items| !items.is_empty()) else {
            for (key, data) in data {
                payload.insert(key, file(data, None))?;
            }
            return Ok(payload);
        };
        for item in items {
            match data.get(item.key.as_str()) {
                Some(data) => payload.insert(&item.path, file(data, item.mode))?,
                None if self.optional => {}
                None => return Err(missing(item.key.clone())),
            }
        }
        Ok(payload)
    }
}

/// The permissions of one file: its own, the volume's, or the default.
pub(super) fn mode(own: Option<i32>, volume: Option<i32>) -> u32 {
    own.or(volume).and_then(|mode| u32::try_from(mode).ok()).unwrap_or(DEFAULT_MODE) & 0o7777
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A payload of `path → content`, all 0644.
    pub(in crate::volumes) fn payload(files: &[(&str, &str)]) -> Payload {
        let mut payload = Payload::default();
        for (path, data) in files {
            payload.insert(path, File { data: data.as_bytes().to_vec(), mode: 0o644, owner: None }).unwrap();
        }
        payload
    }

    fn check(path: &str, expected: Result<&str, FileError>) {
        assert_eq!(clean(path), expected.map(PathBuf::from), "{path:?}");
    }

    #[test]
    fn a_path_that_leaves_the_volume_or_meets_the_writers_own_names_is_refused() {
        check("a/b", Ok("a/b"));
        check("a//./b/", Ok("a/b"));
        check("..a", Err(FileError::Reserved("..a".into())));
        check("./..data", Err(FileError::Reserved("./..data".into())));
        check("a/..b", Ok("a/..b"));
        check("...", Err(FileError::Reserved("...".into())));
        check("..", Err(FileError::Backstep("..".into())));
        check("a/../../b", Err(FileError::Backstep("a/../../b".into())));
        check("/etc/passwd", Err(FileError::Absolute("/etc/passwd".into())));
        check("", Err(FileError::Empty(String::new())));
        check("./", Err(FileError::Empty("./".into())));
        check("a\0b", Err(FileError::Nul("a\0b".into())));
        check(&"x".repeat(256), Err(FileError::LongName));
        check(&"x/".repeat(2049), Err(FileError::Long));
    }

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let data = BTreeMap::from([("a", &b"1"[..]), ("b", b"2")]);
        let item = |key: &str, path: &str, mode| KeyToPath { key: key.into(), path: path.into(), mode };
        let items = [item("b", "x/y", Some(0o400)), item("a", "z", None)];
        let keys = Keys { items: Some(&items), default_mode: Some(0o440), optional: false };
        let payload = keys.of(&data, SetUpError::SecretKey).unwrap();
        let shown: Vec<_> = payload.files().map(|(path, file)| (path.to_str().unwrap(), file.mode)).collect();
        assert_eq!(shown, [("x/y", 0o400), ("z", 0o440)]);
        let missing = [item("c", "c", None)];
        let of =
            |optional| Keys { items: Some(&missing), default_mode: None, optional }.of(&data, SetUpError::SecretKey);
        assert_eq!(of(false).unwrap_err().to_string(), "references non-existent secret key: c");
        assert_eq!(of(true).unwrap(), Payload::default());
        let all = Keys { items: None, default_mode: None, optional: false };
        assert_eq!(all.of(&data, SetUpError::SecretKey).unwrap(), super::tests::payload(&[("a", "1"), ("b", "2")]));
    }

    /// Ten kilobytes of items that were ten gigabytes of heap, and then of disk.
    #[test]
    fn a_key_under_many_paths_ends_at_a_bound() {
        let megabyte = vec![0; 1 << 20];
        let data = BTreeMap::from([("a", megabyte.as_slice())]);
        let items: Vec<KeyToPath> =
            (0..100).map(|n| KeyToPath { key: "a".into(), path: n.to_string(), mode: None }).collect();
        let of =
            |items| Keys { items: Some(items), default_mode: None, optional: false }.of(&data, SetUpError::SecretKey);
        assert_eq!(of(&items[..63]).unwrap().len(), 63);
        assert!(of(&items).unwrap_err().to_string().contains("more than 67108864 bytes"));
        let mut sum = of(&items[..40]).unwrap();
        sum.extend(of(&items[..40]).unwrap()).unwrap();
        assert_eq!(sum.extend(of(&items[40..80]).unwrap()), Err(FileError::Much));
    }

    #[test]
    fn the_top_names_are_what_a_pod_sees_first() {
        let payload = payload(&[("a/b", ""), ("a/c/d", ""), ("e", "")]);
        assert_eq!(payload.top_names().into_keys().collect::<Vec<_>>(), ["a", "e"]);
    }

    #[test]
    fn content_does_not_show_when_a_payload_is_printed() {
        assert!(!format!("{:?}", payload(&[("token", "s3cret")])).contains("s3cret"));
    }
}
