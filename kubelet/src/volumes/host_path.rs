//! hostPath: a path of the host, checked to be what its type says, made where it says so.
//!
//! The path is the node administrator's: whoever may create such pods may reach any file. It is followed as usual.

use k8s_openapi::api::core::v1::HostPathVolumeSource;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// A hostPath that can't be used. The texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostPathError {
    #[error("invalid HostPath `{0}`: must not contain '..'")]
    Backstep(String),
    #[error("hostPath type check failed: {path} is not a {expected}")]
    Type { path: String, expected: &'static str },
    #[error("{0} is an invalid volume type")]
    UnknownType(String),
    #[error("mkdir {path}")]
    MakeDirectory {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("open {path}")]
    MakeFile {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

/// Makes what `…OrCreate` asks for.
type Make = fn(&str) -> Result<(), HostPathError>;

/// What a type asks for.
struct Expected {
    /// In the words of the error.
    what: &'static str,
    is: fn(&Metadata) -> bool,
    make: Option<Make>,
}

/// Checks the path, and makes what `…OrCreate` asks for. Blocks for as long as the file system wants.
pub(super) fn set_up(source: &HostPathVolumeSource) -> Result<(), HostPathError> {
    let path = source.path.as_str();
    if path.split('/').any(|name| name == "..") {
        return Err(HostPathError::Backstep(path.to_owned()));
    }
    let Some(expected) = expected(source.type_.as_deref().unwrap_or_default())? else { return Ok(()) };
    let metadata = std::fs::metadata(path);
    match (metadata, expected.make) {
        (Ok(metadata), _) if (expected.is)(&metadata) => Ok(()),
        (Err(error), Some(make)) if error.kind() == ErrorKind::NotFound => make(path),
        _ => Err(HostPathError::Type { path: path.to_owned(), expected: expected.what }),
    }
}

/// What the type asks for; `None` if it does not care.
fn expected(kind: &str) -> Result<Option<Expected>, HostPathError> {
    let plain = |what, is| Ok(Some(Expected { what, is, make: None }));
    match kind {
        "" => Ok(None),
        "Directory" => plain("directory", Metadata::is_dir),
        "DirectoryOrCreate" => {
            Ok(Some(Expected { what: "directory", is: Metadata::is_dir, make: Some(make_directory) }))
        }
        "File" => plain("file", Metadata::is_file),
        "FileOrCreate" => Ok(Some(Expected { what: "file", is: Metadata::is_file, make: Some(make_file) })),
        "Socket" => plain("socket file", |metadata| metadata.file_type().is_socket()),
        "CharDevice" => plain("character device", |metadata| metadata.file_type().is_char_device()),
        "BlockDevice" => plain("block device", |metadata| metadata.file_type().is_block_device()),
        _ => Err(HostPathError::UnknownType(kind.to_owned())),
    }
}

fn make_directory(path: &str) -> Result<(), HostPathError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(|source| HostPathError::MakeDirectory { path: path.to_owned(), source })
}

/// The folder that it is in must exist, as upstream has it.
fn make_file(path: &str) -> Result<(), HostPathError> {
    let mut how = std::fs::OpenOptions::new();
    how.write(true).create(true).mode(0o644);
    how.open(Path::new(path)).map(drop).map_err(|source| HostPathError::MakeFile { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn set_up_as(path: &str, kind: &str) -> Result<(), String> {
        let source = HostPathVolumeSource { path: path.to_owned(), type_: Some(kind.to_owned()) };
        set_up(&source).map_err(|error| super::super::error::chain(&error))
    }

    #[test]
    fn what_is_there_must_be_what_the_type_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::File::create(&file).unwrap();
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let (folder, file) = (folder.path().to_str().unwrap(), file.to_str().unwrap());
        let (socket, missing) = (socket.to_str().unwrap(), &format!("{folder}/missing"));
        let check = |path: &str, kind: &str, expected: Option<&str>| {
            let expected = expected.map(|what| format!("hostPath type check failed: {path} is not a {what}"));
            assert_eq!(set_up_as(path, kind).err(), expected, "{path} as {kind}");
        };
        for (kind, what, fits) in [
            ("Directory", "directory", folder),
            ("DirectoryOrCreate", "directory", folder),
            ("File", "file", file),
            ("FileOrCreate", "file", file),
            ("Socket", "socket file", socket),
            ("CharDevice", "character device", "/dev/null"),
        ] {
            check(fits, kind, None);
            for other in [folder, file, socket, "/dev/null"] {
                if other != fits {
                    check(other, kind, Some(what));
                }
            }
        }
        check(missing, "Directory", Some("directory"));
        check(missing, "File", Some("file"));
        check("/dev/null", "BlockDevice", Some("block device"));
        check(missing, "", None);
    }

    #[test]
    fn or_create_makes_folders_all_the_way_but_a_file_only_in_a_folder_that_exists() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        set_up_as(&place("a/b"), "DirectoryOrCreate").unwrap();
        assert!(folder.path().join("a/b").is_dir());
        set_up_as(&place("f"), "FileOrCreate").unwrap();
        assert!(folder.path().join("f").is_file());
        let error = set_up_as(&place("x/f"), "FileOrCreate").unwrap_err();
        assert!(error.starts_with(&format!("open {}: No such file", place("x/f"))), "{error}");
    }

    #[test]
    fn a_path_that_steps_back_and_a_type_that_is_none_are_refused() {
        assert_eq!(set_up_as("/a/../b", "").unwrap_err(), "invalid HostPath `/a/../b`: must not contain '..'");
        assert_eq!(set_up_as("/", "Folder").unwrap_err(), "Folder is an invalid volume type");
    }
}
