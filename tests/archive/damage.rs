//! Archives that are cut short, corrupted, padded or followed by something.

use std::io::Cursor;

use acetate::archive::Reader;
use proptest::prelude::*;

use super::craft::{Block, Craft};
use super::{real, refused, temp, unpack_into, unpacked};

/// One of everything, small.
fn small() -> Vec<u8> {
    Craft::default()
        .dir("d")
        .file("d/f", &"content ".repeat(100))
        .pax(&[("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"v")])
        .file("d/g", "x")
        .hard_link("h", "d/f")
        .symlink("s", "d")
        .file("d/.wh.gone", "")
        .file("d/.wh..wh..opq", "")
        .with_data(Block::new(b"././@LongLink", b'L'), &[b'n'; 200])
        .file("short", "y")
        .end()
}

#[test]
fn an_archive_cut_at_any_block_is_an_error_and_never_a_panic() {
    let whole = small();
    unpacked(&whole);
    for blocks in 0..whole.len() / 512 {
        let error = refused(&whole[..blocks * 512]);
        assert!(!error.is_empty());
    }
}

#[test]
fn an_archive_cut_at_any_byte_is_an_error_and_never_a_panic() {
    let whole = small();
    for len in (0..whole.len()).step_by(37) {
        let mut reader = Reader::new(Cursor::new(&whole[..len]));
        let mut ended = false;
        while let Ok(entry) = reader.next_entry() {
            if entry.is_none() {
                ended = true;
                break;
            }
        }
        assert!(!ended, "cut at {len}, and read to its end");
    }
}

#[test]
fn data_that_is_missing_is_told_with_the_files_name() {
    let whole = Craft::default()
        .file("first", "x")
        .file("cut", &"y".repeat(2000))
        .end();
    let error = refused(&whole[..512 * 4]);
    assert!(
        error.contains("entry cut") && error.contains("cut short"),
        "{error}"
    );
}

#[test]
fn compressed_archives_cut_short_are_errors() {
    let whole = small();
    for (name, bytes) in super::roundtrip::compressed(&whole) {
        for part in [1, bytes.len() / 2, bytes.len() - 1] {
            let into = temp();
            let cut = unpack_into(&bytes[..part], into.path(), real());
            assert!(cut.is_err(), "{name} cut at {part}");
        }
    }
}

#[test]
fn compressed_archives_with_a_wrong_byte_are_errors() {
    let whole = small();
    for (name, bytes) in super::roundtrip::compressed(&whole) {
        for at in (20..bytes.len()).step_by(bytes.len() / 20) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            let into = temp();
            if let Ok(done) = unpack_into(&bytes, into.path(), real()) {
                // A bit that says nothing, such as a gzip header's time.
                assert_eq!(
                    done.totals.tar,
                    Some(acetate::digest::Digest::of(&whole)),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn nothing_may_follow_a_compressed_archive() {
    for (name, mut bytes) in super::roundtrip::compressed(&small()) {
        bytes.extend_from_slice(b"something that was appended");
        let into = temp();
        assert!(unpack_into(&bytes, into.path(), real()).is_err(), "{name}");
    }
}

#[test]
fn only_zeros_may_follow_the_end_marker() {
    let mut padded = small();
    padded.resize(padded.len().next_multiple_of(10240) + 700, 0);
    unpacked(&padded);
    let two = [small(), small()].concat();
    assert!(refused(&two).contains("follows the end marker"));
    let mut late = padded;
    late.push(1);
    assert!(refused(&late).contains("follows the end marker"));
}

#[test]
fn one_block_of_zeros_is_no_end() {
    let file = Craft::default().file("f", "x").0;
    let half = [&file[..], &[0; 512], &file[..], &[0; 1024]].concat();
    assert!(refused(&half).contains("half an end marker"));
    assert!(refused(&[&file[..], &[0; 512]].concat()).contains("cut short"));
}

#[test]
fn what_is_no_archive_is_told_as_such() {
    assert!(refused(b"").contains("empty"));
    assert!(refused(&[b'x'; 2000]).contains("no tar header"));
    assert!(refused(b"#!/bin/sh\n").contains("cut short"));
    unpacked(&[0; 1024]);
}

#[test]
fn numbers_that_are_none_are_told_with_the_entrys_name() {
    for (at, what) in [
        (100, "mode"),
        (108, "uid"),
        (116, "gid"),
        (124, "size"),
        (136, "mtime"),
    ] {
        let mut block = Block::new(b"odd", b'0');
        block.put(at, b"12z");
        let error = refused(&Craft::default().block(block).end());
        assert!(
            error.contains("entry odd") || what == "size",
            "{what}: {error}"
        );
        assert!(error.contains(what), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is changed: no panic, no loop, and nothing but errors or entries.
    #[test]
    fn random_damage_is_an_error_or_another_archive(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        reseal in any::<bool>(),
    ) {
        let mut bytes = small();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if reseal {
            for block in bytes.chunks_exact_mut(512) {
                let whole: [u8; 512] = (&*block).try_into().unwrap();
                if &whole[257..262] == b"ustar" {
                    block.copy_from_slice(&Block(whole).sealed());
                }
            }
        }
        let into = temp();
        if let Ok(done) = unpack_into(&bytes, into.path(), real()) {
            prop_assert!(done.entries < 100);
        }
    }
}
