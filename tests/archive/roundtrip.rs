//! The same tree gives the same bytes, and the bytes the same tree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use acetate::archive::{Compress, Compression, PackOptions, Times, pack};
use acetate::digest::Digest;
use acetate::sys::dir;
use proptest::prelude::*;
use std::os::fd::AsFd;

use super::craft::{Block, Craft};
use super::rules::names;
use super::{pack_with, packed, real, temp, unpack_into, unpacked};
use crate::support::host::require_program;
use crate::support::require_root;

/// An archive in every compressed form that the host's tools and our crates make.
pub fn compressed(tar: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    gzip.write_all(tar).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(6));
    bzip2.write_all(tar).unwrap();
    let mut all = vec![
        ("gzip", gzip.finish().unwrap()),
        ("zstd", {
            let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
            zstd.include_checksum(true).unwrap();
            zstd.write_all(tar).unwrap();
            zstd.finish().unwrap()
        }),
        ("bzip2", bzip2.finish().unwrap()),
    ];
    if require_program("xz") {
        all.push(("xz", filter("xz", &["-c"], tar)));
    }
    all
}

fn filter(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    out
}

/// Something of everything that a layer can hold.
pub fn rich() -> Vec<u8> {
    let acl = b"user::rwx,user:9:r-x,group::r-x,mask::r-x,other::---";
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("long/{}/{}", "d".repeat(200), "f".repeat(250));
    Craft::default()
        .block(Block::new(b"./", b'5').mode(0o750).owner(5, 6).mtime(99))
        .dir("d")
        .block(
            Block::new(b"d/su", b'0')
                .mode(0o6755)
                .owner(1, 2)
                .mtime(1_700_000_000),
        )
        .with_data(
            Block::new(b"d/f", b'0').mode(0o640),
            &b"content".repeat(1000),
        )
        .hard_link("another/name", "d/f")
        .hard_link("d/g", "d/f")
        .block(
            Block::new(b"d/link", b'2')
                .link(b"../elsewhere")
                .owner(1000, 1000),
        )
        .hard_link("d/link2", "d/link")
        .block(
            Block::new(b"null", b'3')
                .mode(0o666)
                .device(1, 3)
                .owner(0, 5),
        )
        .block(Block::new(b"disk", b'4').mode(0o660).device(259, 70000))
        .block(Block::new(b"pipe", b'6').mode(0o600).owner(7, 7))
        .pax(&[
            ("SCHILY.xattr.user.bytes", b"a\n\0=b"),
            ("SCHILY.xattr.security.capability", &capability),
            ("mtime", b"1600000000.000000001"),
        ])
        .file("cap", "x")
        .pax(&[("SCHILY.acl.access", acl), ("SCHILY.acl.default", acl)])
        .block(Block::new(b"acl", b'5').mode(0o750))
        .pax(&[("uid", b"4000000000"), ("gid", b"4000000001")])
        .file("far", "x")
        .file(".wh.gone", "")
        .file("d/.wh..wh..opq", "")
        .file("d/.wh.too", "")
        .pax(&[("path", long.as_bytes())])
        .file("x", "y")
        .pax(&[
            ("GNU.sparse.map", b"1000000,4"),
            ("GNU.sparse.size", b"2000000"),
        ])
        .file("sparse", "data")
        .with_data(Block::new(b"new\nline\xff", b'0'), b"z")
        .end()
}

#[test]
fn a_canonical_archive_comes_back_byte_for_byte() {
    if !require_root() {
        return;
    }
    let first = unpacked(&rich());
    let canonical = packed(first.path());
    let second = unpacked(&canonical);
    assert!(packed(second.path()) == canonical, "other bytes");
    assert_eq!(
        names(&canonical)[..6],
        ["./", ".wh.gone", "acl/", "another/", "another/name", "cap"]
    );
    assert!(canonical.ends_with(&[0; 1024]));
    assert_eq!(canonical.len() % 512, 0);
}

#[test]
fn every_compression_is_found_by_content_and_gives_the_same_tree() {
    let tar = rich_without_root();
    let want = packed(unpacked(&tar).path());
    for (name, bytes) in compressed(&tar) {
        let into = temp();
        let done = unpack_into(&bytes, into.path(), real()).unwrap();
        assert!(packed(into.path()) == want, "{name}");
        assert_eq!(done.totals.tar, Some(Digest::of(&tar)), "{name}");
        assert_eq!(done.totals.source, Some(Digest::of(&bytes)), "{name}");
        assert_eq!(done.totals.tar_size, tar.len() as u64);
        assert_eq!(done.totals.source_size, bytes.len() as u64);
    }
}

fn rich_without_root() -> Vec<u8> {
    Craft::default()
        .dir("d")
        .with_data(Block::new(b"d/f", b'0'), &pseudo_random(700_000))
        .symlink("s", "d/f")
        .end()
}

fn pseudo_random(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

#[test]
fn several_members_are_one_archive() {
    let tar = rich_without_root();
    let (a, b) = tar.split_at(123_456);
    let forms = compressed(a).into_iter().zip(compressed(b));
    for ((name, mut first), (_, second)) in forms {
        first.extend(second);
        let into = temp();
        let done =
            unpack_into(&first, into.path(), real()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(done.totals.tar, Some(Digest::of(&tar)), "{name}");
    }
    let skippable = [
        &b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..],
        &compressed(&tar)[1].1,
    ]
    .concat();
    assert_eq!(compressed(&tar)[1].0, "zstd");
    let into = temp();
    let done = unpack_into(&skippable, into.path(), real()).unwrap();
    assert_eq!(done.totals.compression, Compression::Zstd);
}

#[test]
fn a_name_that_begins_like_a_compressed_file_is_a_name() {
    for magic in [
        &b"\x1f\x8b\x08"[..],
        b"BZh9",
        b"\x28\xb5\x2f\xfd",
        b"\xfd7zXZ",
    ] {
        let tree = unpacked(
            &Craft::default()
                .with_data(Block::new(magic, b'0'), b"x")
                .end(),
        );
        assert!(tree.path().join(OsStr::from_bytes(magic)).exists());
    }
}

#[test]
fn what_we_compress_is_the_same_each_time_and_others_can_read_it() {
    let tree = unpacked(&rich_without_root());
    let plain = packed(tree.path());
    for (compress, program) in [(Compress::Gzip, "gzip"), (Compress::Zstd, "zstd")] {
        let options = PackOptions {
            compress,
            ..PackOptions::new(real())
        };
        let once = pack_with(tree.path(), &options).unwrap();
        assert_eq!(once, pack_with(tree.path(), &options).unwrap());
        if compress == Compress::Gzip {
            // No time, "unknown" system.
            assert_eq!(once[4..8], [0; 4]);
            assert_eq!(once[9], 255);
        }
        if require_program(program) {
            assert!(filter(program, &["-dc"], &once) == plain, "{program}");
        }
        let root = dir::open_root(tree.path()).unwrap();
        let done = pack(root.as_fd(), std::io::sink(), &options, &mut |_| {}).unwrap();
        assert_eq!(done.diff_id, Digest::of(&plain));
        assert_eq!(done.blob, Digest::of(&once));
        assert_eq!(done.size, plain.len() as u64);
        assert_eq!(done.blob_size, once.len() as u64);
        assert_eq!(done.entries, names(&plain).len() as u64);
    }
}

#[test]
fn an_empty_layer_is_an_empty_archive_with_the_known_digest() {
    let tree = unpacked(&[0; 1024]);
    let archive = packed(tree.path());
    assert_eq!(archive, [0; 1024]);
    // Known to every tool of the OCI world.
    assert_eq!(
        Digest::of(&archive).to_string(),
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}

#[test]
fn times_can_be_capped() {
    let tree = unpacked(
        &Craft::default()
            .pax(&[("mtime", b"100.5")])
            .file("early", "x")
            .block(Block::new(b"late", b'0').mtime(2_000_000_000))
            .end(),
    );
    let options = PackOptions {
        times: Times::NotAfter(1000),
        ..PackOptions::new(real())
    };
    let archive = pack_with(tree.path(), &options).unwrap();
    let again = unpacked(&archive);
    let mtime = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        let m = again.path().join(name).metadata().unwrap();
        (m.mtime(), m.mtime_nsec())
    };
    assert_eq!((mtime("early"), mtime("late")), ((100, 0), (1000, 0)));
}

#[test]
fn the_first_name_in_order_is_the_file_whatever_came_first() {
    let one = Craft::default()
        .file("b", "x")
        .hard_link("a", "b")
        .hard_link("c", "b");
    let two = Craft::default()
        .file("c", "x")
        .hard_link("b", "c")
        .hard_link("a", "b");
    let archive = packed(unpacked(&one.end()).path());
    assert_eq!(archive, packed(unpacked(&two.end()).path()));
    assert_eq!(archive[156], b'0');
    assert_eq!(&archive[..2], b"a\0");
}

/// Trees to be made at random.
#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>, u32),
    Dir(BTreeMap<Vec<u8>, Node>, u32),
    Symlink(Vec<u8>),
    Whiteout,
}

fn node() -> impl Strategy<Value = Node> {
    let mode = 0u32..0o10000;
    let leaf = prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..2000), mode.clone())
            .prop_map(|(d, m)| Node::File(d, m)),
        prop::collection::vec(1u8.., 1..300).prop_map(Node::Symlink),
        Just(Node::Whiteout),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        (
            prop::collection::btree_map(name(), inner, 0..6),
            0u32..0o10000,
        )
            .prop_map(|(d, m)| Node::Dir(d, m))
    })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-c]{1,2}".prop_map(String::into_bytes),
        prop::collection::vec(1u8.., 1..255),
    ]
    .prop_map(|name| name.into_iter().filter(|b| *b != b'/').collect::<Vec<u8>>())
    .prop_filter("a name", |name| {
        !name.is_empty() && name != b"." && name != b".." && !name.starts_with(b".wh.")
    })
}

fn make(node: &Node, at: &Path) {
    use std::os::unix::fs::PermissionsExt;
    match node {
        Node::File(data, mode) => {
            std::fs::write(at, data).unwrap();
            std::fs::set_permissions(at, PermissionsExt::from_mode(*mode)).unwrap();
        }
        Node::Dir(inside, mode) => {
            std::fs::create_dir(at).unwrap();
            for (name, node) in inside {
                make(node, &at.join(OsStr::from_bytes(name)));
            }
            std::fs::set_permissions(at, PermissionsExt::from_mode(*mode)).unwrap();
        }
        Node::Symlink(target) => {
            std::os::unix::fs::symlink(OsStr::from_bytes(target), at).unwrap();
        }
        Node::Whiteout => {
            let path = crate::support::raw::c(at.as_os_str().as_bytes());
            assert!(crate::support::raw::mknod(&path, libc::S_IFCHR, (0, 0)).is_ok());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Any tree: what is packed comes out again, with real owners and with recorded ones.
    #[test]
    fn any_tree_survives(tree in node()) {
        if !require_root() {
            return Ok(());
        }
        let tmp = temp();
        let root = tmp.path().join("t");
        std::fs::create_dir(&root).unwrap();
        make(&tree, &root.join("n"));
        let archive = packed(&root);
        let again = unpacked(&archive);
        prop_assert!(packed(again.path()) == archive);
        let recorded = temp();
        let done = unpack_into(&archive, recorded.path(), acetate::archive::Owners::Recorded);
        let records = done.unwrap().records;
        prop_assert!(super::packed_recorded(recorded.path(), records) == archive);
    }
}
