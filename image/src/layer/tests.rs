//! The pipeline as a whole, on layers small enough to be made here. What needs root is tested in `tests/root`.

use std::io::Write as _;
use std::path::Path;

use super::*;

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        // Whoever runs this may own what it makes, and no other's files.
        header.set_uid(u64::from(nix::unistd::getuid().as_raw()));
        header.set_gid(u64::from(nix::unistd::getgid().as_raw()));
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Applies `blob`, which should be `expected`, in chunks of `chunk` bytes.
fn apply_as(blob: &[u8], expected: &Expected, target: &Path, chunk: usize) -> Result<LayerTree, LayerError> {
    apply_within(Limits { free_expansion: 4 << 20, ..Limits::PULL }, blob, expected, target, chunk)
}

fn apply_within(
    limits: Limits,
    blob: &[u8],
    expected: &Expected,
    target: &Path,
    chunk: usize,
) -> Result<LayerTree, LayerError> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for chunk in blob.chunks(chunk) {
                if sender.blocking_send(Bytes::copy_from_slice(chunk)).is_err() {
                    break;
                }
            }
        });
        apply(receiver, expected, RootFd::open(target).unwrap(), limits)
    })
}

fn expected(blob: &[u8], archive: &[u8]) -> Expected {
    Expected { blob: Digest::sha256(blob), size: blob.len() as u64, diff_id: Digest::sha256(archive) }
}

#[test]
fn every_compression_gives_the_same_tree_whatever_the_chunks() {
    let content = b"some content ".repeat(5_000);
    let whole = archive(&[("a/b/file", &content), ("a/empty", b"")]);
    let (first, second) = whole.split_at(whole.len() / 2);
    let frames = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
    let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &frames(&whole)].concat();
    for blob in [
        whole.clone(),
        gzip(&whole),
        [gzip(first), gzip(second)].concat(),
        frames(&whole),
        [frames(first), frames(second)].concat(),
        skippable,
    ] {
        for chunk in [1 << 20, 1000, 7] {
            let target = tempfile::tempdir().unwrap();
            let tree = apply_as(&blob, &expected(&blob, &whole), target.path(), chunk).unwrap();
            assert_eq!(std::fs::read(target.path().join("a/b/file")).unwrap(), content);
            assert_eq!(tree.implied, [Path::new("a"), Path::new("a/b")]);
            assert_eq!(tree.inodes, 5);
        }
    }
}

#[test]
fn both_digests_and_the_length_are_checked() {
    let whole = archive(&[("f", b"x")]);
    let blob = gzip(&whole);
    let good = expected(&blob, &whole);
    let target = || tempfile::tempdir().unwrap();
    let wrong_diff = Expected { diff_id: Digest::sha256(b"other"), ..good.clone() };
    assert!(matches!(apply_as(&blob, &wrong_diff, target().path(), 99), Err(LayerError::WrongDiff { .. })));
    let wrong_blob = Expected { blob: Digest::sha256(b"other"), ..good.clone() };
    assert!(matches!(apply_as(&blob, &wrong_blob, target().path(), 99), Err(LayerError::WrongBlob { .. })));
    let cut = &blob[..blob.len() - 9];
    assert!(matches!(apply_as(cut, &good, target().path(), 99), Err(LayerError::Incomplete { .. })));
    assert!(matches!(apply_as(b"", &good, target().path(), 99), Err(LayerError::Incomplete { got: 0, .. })));
}

#[test]
fn wrong_bytes_are_told_from_a_broken_archive() {
    let whole = archive(&[("f", &[7; 100_000])]);
    let blob = gzip(&whole);
    let mut spoiled = blob.clone();
    spoiled[40] ^= 0xff;
    let target = tempfile::tempdir().unwrap();
    let error = apply_as(&spoiled, &expected(&blob, &whole), target.path(), 512).unwrap_err();
    assert!(matches!(error, LayerError::WrongBlob { .. }), "{error}");
    let error = apply_as(&spoiled, &expected(&spoiled, &whole), target.path(), 512).unwrap_err();
    assert!(matches!(error, LayerError::Inflate(_)), "{error}");
    let no_tar = gzip(&[b'x'; 5000]);
    let error = apply_as(&no_tar, &expected(&no_tar, &[b'x'; 5000]), target.path(), 512).unwrap_err();
    assert!(matches!(error, LayerError::Tar(_)), "{error}");
}

#[test]
fn bombs_are_defused() {
    let zeros = vec![0_u8; 8 << 20];
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&zeros).unwrap();
    let blob = encoder.finish().unwrap();
    let target = tempfile::tempdir().unwrap();
    // Zeros are the end of an archive and what follows it; their number is the only harm.
    let error = apply_as(&blob, &expected(&blob, b""), target.path(), 1 << 16).unwrap_err();
    assert!(matches!(error, LayerError::Inflate(InflateError::Bomb { .. })), "{error}");

    // Nor does a manifest that promises more bytes than will ever come.
    let promised = Expected { size: 1 << 40, ..expected(&blob, b"") };
    let stopped = AtomicBool::new(false);
    let received = AtomicU64::new(0);
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.blocking_send(Bytes::from(blob)).unwrap();
    drop(sender);
    let mut compressed = Compressed::new(receiver, &received, &promised, &stopped);
    let limits = Limits { free_expansion: 4 << 20, ..Limits::PULL };
    let limit = || limits.expansion(received.load(Ordering::Relaxed));
    let error = inflate(&mut compressed, limit, drop).unwrap_err();
    assert!(matches!(error, InflateError::Bomb { .. }), "{error}");

    let mut wide = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(31).unwrap();
    wide.long_distance_matching(true).unwrap();
    wide.write_all(b"x").unwrap();
    let blob = wide.finish().unwrap();
    let error = apply_as(&blob, &expected(&blob, b"x"), target.path(), 1 << 16).unwrap_err();
    assert!(matches!(error, LayerError::Inflate(InflateError::Format { .. })), "{error}");
}

#[test]
fn directories_that_paths_imply_are_counted_and_their_memory_is_bounded() {
    let deep = |name: &str| format!("{}file", format!("{name}/").repeat(20));
    let whole = archive(&[(&deep("a"), b""), (&deep("b"), b"")]);
    let apply = |limits| {
        let target = tempfile::tempdir().unwrap();
        apply_within(limits, &whole, &expected(&whole, &whole), target.path(), 1 << 16)
    };
    assert_eq!(apply(Limits { entries: 40, ..Limits::PULL }).unwrap().implied.len(), 40);
    for limits in [Limits { entries: 39, ..Limits::PULL }, Limits { deferred: 2000, ..Limits::PULL }] {
        let error = apply(limits).unwrap_err();
        let is_refused = matches!(error, LayerError::Extract(ExtractError::TooManyDirectories { .. }));
        assert!(is_refused, "{error}");
    }
}

#[test]
fn what_a_file_replaces_is_forgotten_and_its_neighbours_are_not() {
    let whole = archive(&[("a/b/c/x", b""), ("a/b.d/x", b""), ("a/b0/x", b""), ("a/b", b"")]);
    let target = tempfile::tempdir().unwrap();
    let tree = apply_as(&whole, &expected(&whole, &whole), target.path(), 1 << 16).unwrap();
    assert_eq!(tree.implied, ["a", "a/b.d", "a/b0"].map(Path::new));
}
