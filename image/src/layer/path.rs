//! Names in an archive as paths below a layer's root.

use super::extract::ExtractError;
use super::limits::Limits;

/// `path` as components joined by `/`: nothing absolute, no `.`, no `..` (which ends at the root), no slash at the end.
/// The root itself is empty.
pub(super) fn clean(path: &[u8], limits: &Limits) -> Result<Vec<u8>, ExtractError> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    match components.len() > limits.depth {
        true => Err(ExtractError::TooDeep { path: shown(path) }),
        false => Ok(components.join(&b'/')),
    }
}

/// The directory and the last component of a clean, non-empty path.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// For messages: every byte visible.
pub(super) fn shown(path: &[u8]) -> String {
    path[..path.len().min(256)].escape_ascii().to_string()
}

/// What a name in a layer means, if it is not a plain name. (OCI image-spec, layer.md, "Whiteouts")
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marker<'a> {
    /// `.wh.NAME`: the lower layers' NAME is gone.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: nothing of the lower layers' directory is seen.
    Opaque,
    /// Other `.wh..wh.` names, and everything below them: aufs' own bookkeeping, which is not part of the image.
    Metadata,
}

/// The marker that `path` (clean, not empty) is, or `None` for a plain name.
pub(super) fn marker(path: &[u8]) -> Result<Option<Marker<'_>>, ExtractError> {
    let (directory, name) = split(path);
    for component in directory.split(|b| *b == b'/') {
        if component.starts_with(b".wh..wh.") {
            return Ok(Some(Marker::Metadata));
        }
        if component.starts_with(b".wh.") {
            return Err(ExtractError::Whiteout { path: shown(path) });
        }
    }
    match name.strip_prefix(b".wh.") {
        None => Ok(None),
        Some(b".wh..opq") => Ok(Some(Marker::Opaque)),
        Some(hidden) if hidden.starts_with(b".wh.") => Ok(Some(Marker::Metadata)),
        Some(b"" | b"." | b"..") => Err(ExtractError::Whiteout { path: shown(path) }),
        Some(hidden) => Ok(Some(Marker::Whiteout(hidden))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_ends_up_below_the_root() {
        for (path, want) in [
            (&b"a/b"[..], &b"a/b"[..]),
            (b"/a//b/./c/", b"a/b/c"),
            (b"./", b""),
            (b"../../etc/passwd", b"etc/passwd"),
            (b"a/../../b", b"b"),
            (b"a/..", b""),
            (b"\xff\n\\", b"\xff\n\\"),
            (b"...", b"..."),
        ] {
            assert_eq!(clean(path, &Limits::PULL).unwrap(), want, "{}", path.escape_ascii());
        }
        let deep = b"a/".repeat(2000);
        assert!(clean(&deep, &Limits::PULL).is_err());
    }

    #[test]
    fn markers_are_told_from_names() {
        assert_eq!(marker(b"a/.wh.b").unwrap(), Some(Marker::Whiteout(b"b")));
        assert_eq!(marker(b".wh..wh..opq").unwrap(), Some(Marker::Opaque));
        assert_eq!(marker(b".wh..wh.plnk/1.2").unwrap(), Some(Marker::Metadata));
        assert_eq!(marker(b".wh..wh.aufs").unwrap(), Some(Marker::Metadata));
        assert_eq!(marker(b"a/wh.b").unwrap(), None);
        assert_eq!(marker(b".wh").unwrap(), None);
        for bad in [&b".wh."[..], b"a/.wh..", b".wh...", b".wh.a/b"] {
            assert!(marker(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
