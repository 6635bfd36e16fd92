//! Archives made byte by byte, since no tool would write most of them.

use super::*;

/// A header block with a right checksum; `edit` may break it first.
fn header(name: &[u8], flag: u8, size: u64, edit: impl Fn(&mut [u8; BLOCK])) -> Vec<u8> {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000001\0");
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    edit(&mut block);
    block[148..156].copy_from_slice(b"        ");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.to_vec()
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    data
}

fn entry(name: &[u8], flag: u8, data: &[u8]) -> Vec<u8> {
    [header(name, flag, data.len() as u64, |_| {}), padded(data)].concat()
}

fn link(name: &[u8], flag: u8, target: &[u8]) -> Vec<u8> {
    header(name, flag, 0, |block| block[157..157 + target.len()].copy_from_slice(target))
}

fn gnu(block: &mut [u8; BLOCK]) {
    block[257..265].copy_from_slice(b"ustar  \0");
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        data.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
    }
    entry(b"PaxHeaders/x", b'x', &data)
}

fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

/// Entries with their content.
fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    // A small buffer, so that everything crosses its border somewhere.
    let mut entries = Entries::new(std::io::BufReader::with_capacity(77, archive), Limits::PULL);
    let mut all = Vec::new();
    while let Some(entry) = entries.next()? {
        let mut content = Vec::new();
        while let Some(chunk) = entries.chunk()? {
            content.extend_from_slice(chunk);
        }
        all.push((entry, content));
    }
    entries.drain()?;
    Ok(all)
}

#[track_caller]
fn refused(archive: &[u8], want: &Fault) {
    match read(archive) {
        Err(TarError::Fault { fault, .. }) => assert_eq!(&fault, want),
        other => panic!("want {want:?}, got {other:?}"),
    }
}

#[test]
fn files_links_and_directories_are_read() {
    let archive = [
        entry(b"a/b", b'0', b"hello"),
        link(b"l", b'2', b"/a/b"),
        link(b"h", b'1', b"a/b"),
        entry(b"old/", 0, b""),
        entry(b"d", b'5', b""),
        entry(b"f", b'6', b""),
        entry(&[b'x'; 100], b'7', b"full name"),
        end(),
        b"garbage after the end".to_vec(),
    ]
    .concat();
    let all = read(&archive).unwrap();
    let kinds: Vec<&Kind> = all.iter().map(|(entry, _)| &entry.kind).collect();
    assert_eq!(
        kinds,
        [
            &Kind::File { size: 5, map: None },
            &Kind::Symlink(b"/a/b".to_vec()),
            &Kind::HardLink(b"a/b".to_vec()),
            &Kind::Directory,
            &Kind::Directory,
            &Kind::Fifo,
            &Kind::File { size: 9, map: None },
        ]
    );
    assert_eq!(all[0].1, b"hello");
    assert_eq!(all[6].0.path, [b'x'; 100]);
}

#[test]
fn an_empty_layer_and_one_without_an_end_are_archives() {
    assert!(read(b"").unwrap().is_empty());
    assert!(read(&end()).unwrap().is_empty());
    assert_eq!(read(&entry(b"a", b'0', b"x")).unwrap().len(), 1);
    assert!(read(&vec![0; BLOCK]).unwrap().is_empty());
}

#[test]
fn long_names_come_from_prefix_gnu_and_pax() {
    let long = [b'n'; 300];
    let prefixed = header(b"name", b'0', 0, |block| block[345..350].copy_from_slice(b"a/b/c"));
    let by_gnu = [
        [header(b"././@LongLink", b'L', 301, gnu), padded(&[&long[..], b"\0"].concat())].concat(),
        [header(b"././@LongLink", b'K', 301, gnu), padded(&[&long[..], b"\0"].concat())].concat(),
        header(b"short", b'2', 0, gnu),
    ]
    .concat();
    let name = String::from_utf8(long.to_vec()).unwrap();
    let by_pax = [pax(&[("path", &name), ("linkpath", &name), ("mtime", "7.5")]), header(b"short", b'2', 0, |_| {})];
    let all = read(&[prefixed, by_gnu, by_pax.concat(), end()].concat()).unwrap();
    assert_eq!(all[0].0.path, b"a/b/c/name");
    for (entry, _) in &all[1..] {
        assert_eq!(entry.path, long);
        assert_eq!(entry.kind, Kind::Symlink(long.to_vec()));
    }
    assert_eq!(all[2].0.modified, Timestamp { seconds: 7, nanoseconds: 500_000_000 });
}

#[test]
fn devices_have_numbers() {
    let device = header(b"null", b'3', 0, |block| {
        block[329..337].copy_from_slice(b"0000001\0");
        block[337..345].copy_from_slice(b"0000003\0");
    });
    assert_eq!(read(&device).unwrap()[0].0.kind, Kind::CharDevice(1, 3));
}

#[test]
fn sparse_files_of_every_format_have_their_map() {
    let map = vec![Segment { offset: 512, length: 3 }, Segment { offset: 4096, length: 2 }];
    let want = Kind::File { size: 10_000, map: Some(map) };
    let numbers: &[(&str, &str)] = &[
        ("GNU.sparse.size", "10000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "512"),
        ("GNU.sparse.numbytes", "3"),
        ("GNU.sparse.offset", "4096"),
        ("GNU.sparse.numbytes", "2"),
    ];
    let v01 = [("GNU.sparse.size", "10000"), ("GNU.sparse.name", "f"), ("GNU.sparse.map", "512,3,4096,2")];
    let v10 = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "f"),
        ("GNU.sparse.realsize", "10000"),
    ];
    let with_map = [padded(b"2\n512\n3\n4096\n2\n"), b"abcde".to_vec()].concat();
    let old = header(b"f", b'S', 5, |block| {
        gnu(block);
        for (at, number) in [(386, 512), (398, 3), (483, 10_000)] {
            block[at..at + 12].copy_from_slice(format!("{number:011o}\0").as_bytes());
        }
        block[482] = 1;
    });
    let mut extension = vec![0; BLOCK];
    extension[..24].copy_from_slice(format!("{:011o}\0{:011o}\0", 4096, 2).as_bytes());
    let archive = [
        pax(numbers),
        entry(b"f", b'0', b"abcde"),
        pax(&v01),
        entry(b"GNUSparseFile.1/f", b'0', b"abcde"),
        pax(&v10),
        entry(b"GNUSparseFile.1/f", b'0', &with_map),
        old,
        extension,
        padded(b"abcde"),
        entry(b"after", b'0', b"!"),
    ];
    let all = read(&archive.concat()).unwrap();
    assert_eq!(all.len(), 5);
    for (entry, content) in &all[..4] {
        assert_eq!((&entry.path[..], &entry.kind, &content[..]), (&b"f"[..], &want, &b"abcde"[..]));
    }
}

#[test]
fn a_sparse_map_that_lies_is_refused() {
    let sparse = |map: &str, data: &[u8]| {
        [pax(&[("GNU.sparse.size", "100"), ("GNU.sparse.map", map)]), entry(b"f", b'0', data)].concat()
    };
    refused(&sparse("10,2,5,1", b"abc"), &Fault::Sparse("segments overlap or go backwards"));
    refused(&sparse("99,3", b"abc"), &Fault::Sparse("a segment ends beyond the file"));
    refused(&sparse("0,2", b"abc"), &Fault::Sparse("the segments are not as long as the data"));
    refused(&sparse("18446744073709551615,2", b"ab"), &Fault::Sparse("a segment ends beyond the file"));
    refused(&sparse("0", b""), &Fault::Sparse("an offset has no length"));
    let many = "1,0,".repeat(70_000);
    refused(&sparse(many.trim_end_matches(','), b""), &Fault::TooLarge("sparse map"));
}

#[test]
fn a_size_that_is_told_twice_must_be_one_size() {
    let smuggled = [pax(&[("size", "1536")]), header(b"outer", b'0', 0, |_| {}), entry(b"inner", b'0', b"x")].concat();
    refused(&smuggled, &Fault::Ambiguous("size"));
    let same = [pax(&[("size", "5")]), entry(b"a", b'0', b"hello")].concat();
    assert_eq!(read(&same).unwrap()[0].1, b"hello");
}

#[test]
fn what_tars_read_differently_is_refused() {
    let long = |flag| [header(b"././@LongLink", flag, 2, gnu), padded(b"n\0")].concat();
    let file = || entry(b"f", b'0', b"");
    let global = |record: &[u8]| [entry(b"g", b'g', record), file()].concat();
    refused(&[pax(&[("size", "0")]), long(b'L'), file()].concat(), &Fault::Ambiguous("mix of PAX and GNU headers"));
    refused(&[long(b'L'), long(b'L'), file()].concat(), &Fault::Ambiguous("long name"));
    refused(&[pax(&[("a", "b")]), pax(&[("a", "b")]), file()].concat(), &Fault::Ambiguous("PAX header"));
    refused(&global(b"9 path=x\n"), &Fault::Ambiguous("global PAX header"));
    refused(&[vec![0; BLOCK], file()].concat(), &Fault::Ambiguous("lone block of zeros"));
    refused(&entry(b"l", b'2', b""), &Fault::Empty("link target"));
    refused(&[header(b"l", b'1', 3, |block| block[157] = b'f'), padded(b"abc")].concat(), &Fault::Content);
    refused(&entry(b"d", b'5', b"abc"), &Fault::Content);
    refused(&entry(b"", b'0', b""), &Fault::Empty("name"));
    refused(&entry(b"v", b'V', b""), &Fault::Type('V'));
    refused(&pax(&[("path", "x")]), &Fault::Truncated);
    assert_eq!(read(&global(b"12 comment=\n")).unwrap().len(), 1);
}

#[test]
fn what_is_cut_off_or_too_large_is_refused() {
    let whole = [entry(b"a", b'0', &[b'x'; 1000]), end()].concat();
    for cut in [1, 511, 513, 1500] {
        refused(&whole[..cut], &Fault::Truncated);
    }
    refused(&header(b"p", b'x', 100 << 20, |_| {}), &Fault::TooLarge("PAX header"));
    refused(&header(b"n", b'L', 5000, gnu), &Fault::TooLarge("long name"));
    let path = "p/".repeat(2100);
    refused(&[pax(&[("path", &path)]), entry(b"f", b'0', b"")].concat(), &Fault::TooLarge("path"));
    let mut broken = entry(b"a", b'0', b"");
    broken[0] = b'b';
    refused(&broken, &Fault::Checksum);
    refused(
        &header(b"u", b'0', 0, |b| b[108..116].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff")),
        &Fault::Number("uid"),
    );
    refused(&header(b"s", b'0', 0, |b| b[124..136].fill(0xff)), &Fault::Number("size"));
}

#[test]
fn no_prefix_and_no_flipped_byte_makes_it_panic() {
    let archive = [
        pax(&[("path", "some/long/name"), ("GNU.sparse.size", "100"), ("GNU.sparse.map", "0,3,50,2")]),
        entry(b"f", b'0', b"abcde"),
        [header(b"././@LongLink", b'L', 5, gnu), padded(b"name\0")].concat(),
        link(b"l", b'2', b"target"),
        end(),
    ]
    .concat();
    for at in 0..archive.len() {
        let _any = read(&archive[..at]);
        for bit in [0x01, 0x80] {
            let mut flipped = archive.clone();
            flipped[at] ^= bit;
            let _any = read(&flipped);
        }
    }
}
