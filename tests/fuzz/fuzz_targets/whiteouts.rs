//! Whiteouts translated, in any order and number: what they mean does not depend on
//! where they stand, and comes back the same.

#![no_main]

use std::io::Cursor;
use std::os::fd::AsFd;

use acetate::archive::{Error, Ids, Owners, PackOptions, Sync, UnpackOptions, pack, unpack};
use acetate::sys::dir;
use libfuzzer_sys::fuzz_target;

/// What a name may be made of: few enough that they meet.
const PARTS: [&str; 3] = ["a", "b", "c"];

fuzz_target!(|data: &[u8]| {
    let entries: Vec<Vec<u8>> = data.chunks_exact(3).take(40).map(entry).collect();
    let as_given = canonical(entries.iter());
    let Ok(archive) = as_given else {
        return;
    };
    // Its own archive gives the same tree.
    let blocks = archive.chunks_exact(512).filter(|b| b[0] != 0);
    let again: Vec<Vec<u8>> = blocks.map(<[u8]>::to_vec).collect();
    let back = canonical(again.iter()).expect("our own archive is refused");
    assert!(back == archive, "another tree");
    // Whiteouts first and last: an archive that is taken either way is one layer.
    let is_whiteout = |e: &&Vec<u8>| e[..100].windows(4).any(|w| w == b".wh.");
    let objects = || entries.iter().filter(|e| !is_whiteout(e));
    let whiteouts = || entries.iter().filter(is_whiteout);
    for other in [
        canonical(whiteouts().chain(objects())),
        canonical(objects().chain(whiteouts())),
    ] {
        match other {
            Ok(other) => assert!(other == archive, "the order of whiteouts matters"),
            Err(e) => panic!("taken in one order and refused in another: {e}"),
        }
    }
});

/// An empty file or a directory, a whiteout or an opaque marker.
fn entry(bytes: &[u8]) -> Vec<u8> {
    let [what, first, second] = bytes else {
        unreachable!("three bytes")
    };
    let mut parts = vec![PARTS[usize::from(first & 1)], PARTS[usize::from(first >> 1 & 1)]];
    parts.truncate(usize::from(first >> 2 & 3).min(2));
    let last = PARTS[usize::from(second % 3)];
    let last = match what % 5 {
        0 | 1 => last.to_owned(),
        2 => format!(".wh.{last}"),
        3 => ".wh..wh..opq".to_owned(),
        _ => format!(".wh..wh.{last}"),
    };
    parts.push(&last);
    let name = parts.join("/");
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000755");
    for at in [108, 116] {
        block[at..at + 7].copy_from_slice(b"0000000");
    }
    for at in [124, 136] {
        block[at..at + 11].copy_from_slice(b"00000000000");
    }
    block[156] = if what % 5 == 1 { b'5' } else { b'0' };
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The canonical archive of what these entries unpack to.
fn canonical<'a>(entries: impl Iterator<Item = &'a Vec<u8>>) -> Result<Vec<u8>, Error> {
    let mut archive: Vec<u8> = entries.flatten().copied().collect();
    archive.extend_from_slice(&[0; 1024]);
    let into = tempfile::tempdir().expect("a directory");
    let root = dir::open_root(into.path()).expect("its descriptor");
    let options = UnpackOptions {
        sync: Sync::No,
        ..UnpackOptions::new(Owners::Real(Ids::default()))
    };
    unpack(Cursor::new(archive), root.as_fd(), &options, &mut |_| {})?;
    let mut out = Vec::new();
    let options = PackOptions::new(Owners::Real(Ids::default()));
    pack(root.as_fd(), &mut out, &options, &mut |_| {})?;
    Ok(out)
}
