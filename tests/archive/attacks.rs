//! Hostile archives: each is refused with the entry's name, and reaches nothing.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::craft::{Block, Craft, record};
use super::{packed, real, refused, temp, unpack_into, unpacked};
use crate::support::require_root;
use acetate::archive::Owners;

#[track_caller]
fn says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
}

#[test]
fn dot_dot_in_a_name_is_refused_wherever_it_stands() {
    for name in [
        "../passwd",
        "a/../../passwd",
        "a/..",
        "..",
        "/../passwd",
        "./../x",
    ] {
        let error = refused(&Craft::default().dir("a").file(name, "new").end());
        says(&error, &[name, "leads out"]);
    }
}

#[test]
fn dot_dot_in_a_long_name_is_refused_too() {
    let pax = Craft::default().pax(&[("path", b"a/../../passwd")]);
    says(
        &refused(&pax.file("harmless", "new").end()),
        &["a/../../passwd"],
    );
    let gnu = Craft::default().with_data(Block::new(b"././@LongLink", b'L'), b"../../passwd\0");
    says(
        &refused(&gnu.file("harmless", "new").end()),
        &["../../passwd"],
    );
}

#[test]
fn an_absolute_name_lands_inside() {
    let tree = unpacked(&Craft::default().file("/etc/acetate-attack", "x").end());
    assert!(tree.path().join("etc/acetate-attack").exists());
    assert!(!std::path::Path::new("/etc/acetate-attack").exists());
}

#[test]
fn a_parent_that_is_a_symlink_leading_out_is_refused() {
    for target in ["/etc", "../..", "../../victims", "..", "a/../../x"] {
        let archive = Craft::default()
            .dir("a")
            .symlink("way", target)
            .file("way/secret", "new");
        says(&refused(&archive.end()), &["way/secret", "leads out"]);
    }
    let chain = Craft::default()
        .symlink("one", "two")
        .symlink("two", "..")
        .file("one/passwd", "new");
    says(&refused(&chain.end()), &["one/passwd", "leads out"]);
}

#[test]
fn a_circle_of_symlinks_as_parent_ends_with_an_error() {
    let archive = Craft::default()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/x", "new");
    says(&refused(&archive.end()), &["a/x", "too many symlinks"]);
}

/// The directory is made, entered and cached, then replaced by a symlink to elsewhere.
#[test]
fn a_directory_that_becomes_a_symlink_is_not_entered_by_memory() {
    let archive = Craft::default()
        .file("d/first", "1")
        .symlink("d", "/etc")
        .file("d/second", "2");
    says(&refused(&archive.end()), &["d/second", "leads out"]);
}

#[test]
fn hard_links_out_of_the_tree_are_refused() {
    let outside = Craft::default().hard_link("x", "../passwd").end();
    says(&refused(&outside), &["entry x", "../passwd"]);
    let absolute = Craft::default().hard_link("x", "/etc/passwd").end();
    says(
        &refused(&absolute),
        &["entry x", "/etc/passwd", "not in the archive"],
    );
    let through = Craft::default()
        .symlink("way", "/etc")
        .hard_link("x", "way/passwd")
        .end();
    says(&refused(&through), &["entry x", "way/passwd"]);
    let inner = Craft::default()
        .file("d/f", "1")
        .symlink("way", "d")
        .hard_link("x", "way/f")
        .end();
    says(&refused(&inner), &["entry x", "way/f"]);
}

#[test]
fn a_hard_link_to_a_symlink_is_the_symlink_and_writing_replaces_it() {
    let archive = Craft::default()
        .symlink("s", "/etc/passwd")
        .hard_link("h", "s")
        .file("h", "harmless");
    let tree = unpacked(&archive.end());
    let link = tree.path().join("s");
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(link.symlink_metadata().unwrap().nlink(), 1);
    assert_eq!(std::fs::read(tree.path().join("h")).unwrap(), b"harmless");
}

#[test]
fn hard_links_to_directories_and_to_nothing_are_refused() {
    let dir = Craft::default().dir("d").hard_link("x", "d").end();
    says(&refused(&dir), &["entry x", "directory"]);
    let later = Craft::default().hard_link("x", "f").file("f", "1").end();
    says(
        &refused(&later),
        &["entry x", "not in the archive before it"],
    );
    let whiteout = Craft::default().file(".wh.f", "").hard_link("x", "f").end();
    says(&refused(&whiteout), &["entry x"]);
}

#[test]
fn device_nodes_are_made_by_root_alone_and_never_as_whiteouts() {
    if !require_root() {
        return;
    }
    let null = Block::new(b"null", b'3').device(1, 3).mode(0o666);
    let tree = unpacked(&Craft::default().block(null.clone()).end());
    let made = tree.path().join("null").symlink_metadata().unwrap();
    assert!(made.file_type().is_char_device());
    assert_eq!(made.rdev(), rustix::fs::makedev(1, 3));
    let into = temp();
    let archive = Craft::default().block(null).end();
    unpack_into(&archive, into.path(), Owners::Recorded).unwrap();
    let kept = into.path().join("null").symlink_metadata().unwrap();
    assert!(kept.is_file() && kept.len() == 0);
    let whiteout = Craft::default().block(Block::new(b"f", b'3').device(0, 0));
    says(&refused(&whiteout.end()), &["entry f", "whiteout"]);
}

#[test]
fn setuid_is_kept_by_root_and_only_recorded_without() {
    let su = Block::new(b"su", b'0').mode(0o4755);
    let archive = Craft::default().with_data(su, b"x").end();
    if require_root() {
        let tree = unpacked(&archive);
        let mode = tree.path().join("su").metadata().unwrap().mode();
        assert_eq!(mode & 0o7777, 0o4755);
    }
    let into = temp();
    unpack_into(&archive, into.path(), Owners::Recorded).unwrap();
    let mode = into.path().join("su").metadata().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755, "nobody may run it as us");
}

#[test]
fn names_with_newlines_and_other_bytes_are_kept_and_shown_escaped() {
    let odd: &[u8] = b"new\nline\x1b[2J\xff\xfe";
    let archive = Craft::default().with_data(Block::new(odd, b'0'), b"x");
    let tree = unpacked(&archive.clone().end());
    use std::os::unix::ffi::OsStrExt;
    let path = tree.path().join(std::ffi::OsStr::from_bytes(odd));
    assert_eq!(std::fs::read(path).unwrap(), b"x");
    let again = unpacked(&packed(tree.path()));
    assert_eq!(packed(again.path()), packed(tree.path()));
    let error = refused(&archive.block(Block::new(odd, b'1').link(b"none")).end());
    says(&error, &["new\\nline\\u{1b}[2J\\xff\\xfe"]);
    assert!(!error.contains('\n') && !error.contains('\u{1b}'));
}

#[test]
fn whiteouts_of_no_name_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh...", "d/.wh./x"] {
        let error = refused(&Craft::default().dir("d").file(name, "").end());
        says(&error, &[name]);
    }
    says(
        &refused(&Craft::default().file(".wh.d/x", "").end()),
        &[".wh.d/x"],
    );
}

#[test]
fn the_root_is_replaced_by_nothing() {
    for flag in [b'0', b'2', b'3', b'6'] {
        let root = Block::new(b".", flag).link(b"/etc").device(1, 3);
        let error = refused(&Craft::default().block(root).end());
        says(&error, &["entry .", "root"]);
    }
    let link = Craft::default().file("f", "1").hard_link("./", "f").end();
    says(&refused(&link), &["root"]);
}

#[test]
fn a_file_as_parent_is_refused() {
    let archive = Craft::default().file("f", "1").file("f/x", "2").end();
    says(&refused(&archive), &["f/x", "no directory"]);
}

#[test]
fn an_archive_within_a_files_data_is_only_data() {
    let inner = Craft::default().file("../../passwd", "new").end();
    let archive = Craft::default().with_data(Block::new(b"inner.tar", b'0'), &inner);
    let tree = unpacked(&archive.file("after", "x").end());
    assert_eq!(std::fs::read(tree.path().join("inner.tar")).unwrap(), inner);
    assert!(tree.path().join("after").exists());
}

/// CVE-2025-62518: the PAX size counts, so that a header's smaller one does not make
/// the data be read as headers.
#[test]
fn the_pax_size_counts_where_the_header_says_another() {
    let inner = Craft::default().file("smuggled", "x").end();
    let size = inner.len().to_string();
    for header_size in [0, 512] {
        let archive = Craft::default()
            .pax(&[("size", size.as_bytes())])
            .block(Block::new(b"inner.tar", b'0').size(header_size))
            .data(&inner)
            .file("after", "x");
        let tree = unpacked(&archive.end());
        assert_eq!(std::fs::read(tree.path().join("inner.tar")).unwrap(), inner);
        assert!(!tree.path().join("smuggled").exists());
        assert!(tree.path().join("after").exists());
    }
}

/// GHSA-3pv8-6f4r-ffg2: the PAX size is the file's, not that of a long name between.
#[test]
fn the_pax_size_is_not_that_of_a_long_name_header() {
    let archive = Craft::default()
        .pax(&[("size", b"3")])
        .with_data(
            Block::new(b"././@LongLink", b'L'),
            &[&b"long/name"[..], &[0]].concat(),
        )
        .block(Block::new(b"x", b'0').size(0))
        .data(b"abc")
        .end();
    let tree = unpacked(&archive);
    assert_eq!(
        std::fs::read(tree.path().join("long/name")).unwrap(),
        b"abc"
    );
}

#[test]
fn links_and_directories_with_data_are_refused() {
    for flag in *b"123456" {
        let odd = Block::new(b"odd", flag).link(b"t").device(1, 3).size(512);
        let hidden = Craft::default().file("smuggled", "x").end();
        let error = refused(&Craft::default().block(odd).data(&hidden).end());
        says(&error, &["entry odd", "has data"]);
    }
}

#[test]
fn two_extended_headers_for_one_entry_are_refused() {
    let two = Craft::default()
        .pax(&[("path", b"a")])
        .pax(&[("path", b"b")])
        .file("c", "");
    says(&refused(&two.end()), &["second extended header"]);
    let long = Block::new(b"././@LongLink", b'L');
    let two = Craft::default()
        .with_data(long.clone(), b"a\0")
        .with_data(long, b"b\0")
        .file("c", "");
    says(&refused(&two.end()), &["second extended header"]);
}

#[test]
fn a_global_header_cannot_rename_or_resize_all_entries() {
    for (key, value) in [
        ("path", "x"),
        ("size", "1"),
        ("linkpath", "x"),
        ("GNU.sparse.map", "0,1"),
    ] {
        let body = record(key, value.as_bytes());
        let archive = Craft::default()
            .with_data(Block::new(b"pax_global_header", b'g'), &body)
            .file("f", "");
        says(&refused(&archive.end()), &["pax_global_header"]);
    }
    let git = record("comment", b"0123456789abcdef");
    let archive = Craft::default().with_data(Block::new(b"pax_global_header", b'g'), &git);
    assert!(
        unpacked(&archive.file("f", "x").end())
            .path()
            .join("f")
            .exists()
    );
}

#[test]
fn a_pax_header_of_any_claimed_size_costs_no_memory() {
    for size in [9 << 20, 0o77_777_777_777] {
        let header = Block::new(b"PaxHeaders.0/bomb", b'x').size(size);
        let error = refused(&Craft::default().block(header).file("f", "").end());
        says(&error, &["PaxHeaders.0/bomb"]);
    }
    let base_256 = {
        let mut block = Block::new(b"PaxHeaders.0/bomb", b'x');
        block.put(
            124,
            &[
                0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
        );
        block
    };
    let error = refused(&Craft::default().block(base_256).file("f", "").end());
    says(&error, &["PaxHeaders.0/bomb", "cut short"]);
}

#[test]
fn a_million_xattrs_are_refused_with_the_entrys_name() {
    let mut body = Vec::new();
    for n in 0..1_000_000 {
        body.extend(record(&format!("SCHILY.xattr.user.{n}"), b""));
    }
    let bomb = Craft::default().with_data(Block::new(b"PaxHeaders.0/f", b'x'), &body);
    says(
        &refused(&bomb.file("bombed", "x").end()),
        &["entry bombed", "extended header"],
    );
    // Few enough for the header, too many for an object.
    let end = body.len() / 4;
    let end = body[..end].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    let bomb = Craft::default().with_data(Block::new(b"PaxHeaders.0/f", b'x'), &body[..end]);
    says(
        &refused(&bomb.file("bombed", "x").end()),
        &["entry bombed", "more xattrs"],
    );
}

#[test]
fn xattrs_that_no_kernel_takes_are_refused() {
    let long_name = format!("SCHILY.xattr.user.{}", "n".repeat(300));
    let nul_name = "SCHILY.xattr.user.\0x".to_owned();
    for (key, value) in [
        (long_name, 1),
        (nul_name, 1),
        ("SCHILY.xattr.user.x".into(), 65537),
    ] {
        let archive = Craft::default().pax(&[(&key, &vec![b'v'; value])]);
        says(
            &refused(&archive.file("f", "").end()),
            &["entry f", "xattr"],
        );
    }
    let archive = Craft::default()
        .pax(&[("SCHILY.xattr.nonsense", b"v")])
        .file("f", "");
    assert!(
        unpacked(&archive.end()).path().join("f").exists(),
        "no namespace of a layer's"
    );
}

#[test]
fn malformed_pax_records_are_refused_with_the_entrys_name() {
    for body in [
        &b"99 path=a\n"[..],
        b"0 path=a\n",
        b"path=a\n",
        b"8 path=a\n",
        b"13 size=x123\n",
    ] {
        let archive = Craft::default().with_data(Block::new(b"PaxHeaders.0/f", b'x'), body);
        says(
            &refused(&archive.file("f", "").end()),
            &["entry f", "record"],
        );
    }
    let lonely = Craft::default().pax(&[("path", b"a")]).end();
    says(&refused(&lonely), &["extended header without an entry"]);
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let lies: &[(&[u8], &[u8])] = &[
        (b"0,5,3,5", b"10"),
        (b"0,20", b"10"),
        (b"18446744073709551615,2", b"10"),
        (b"0,3", b"10"),
        (b"0", b"10"),
        (b"x,1", b"10"),
    ];
    for (map, size) in lies {
        let archive = Craft::default()
            .pax(&[("GNU.sparse.map", map), ("GNU.sparse.size", size)])
            .file("f", "0123456789");
        says(&refused(&archive.end()), &["entry f"]);
    }
    let many = vec!["0,0"; 500_000].join(",").into_bytes();
    let archive = Craft::default()
        .pax(&[("GNU.sparse.map", &many), ("GNU.sparse.size", b"0")])
        .file("f", "");
    says(&refused(&archive.end()), &["entry f", "extents"]);
}

#[test]
fn a_sparse_map_in_the_data_cannot_run_on_for_ever() {
    let keys: [(&str, &[u8]); 3] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"10"),
    ];
    for data in [
        "400001\n",
        "5\n0\n",
        "99999999999999999999\n",
        "-1\n",
        &"1".repeat(600),
    ] {
        let archive = Craft::default().pax(&keys).file("f", data);
        says(&refused(&archive.end()), &["entry f", "sparse map"]);
    }
}

#[test]
fn a_file_of_more_bytes_than_a_file_system_has_is_refused_by_it() {
    let archive = Craft::default()
        .pax(&[
            ("GNU.sparse.map", b""),
            ("GNU.sparse.size", b"18446744073709551615"),
        ])
        .file("huge", "");
    says(&refused(&archive.end()), &["huge"]);
    let empty_map = Craft::default()
        .pax(&[
            ("GNU.sparse.map", b"0,0"),
            ("GNU.sparse.size", b"9223372036854775807"),
        ])
        .file("huge", "");
    let into = temp();
    // btrfs and XFS take it, ext4 does not; either way nothing is written.
    match unpack_into(&empty_map.end(), into.path(), real()) {
        Ok(_) => assert_eq!(into.path().join("huge").metadata().unwrap().blocks(), 0),
        Err(e) => says(&e.to_string(), &["huge"]),
    }
}

#[test]
fn ids_that_linux_does_not_have_are_refused() {
    for id in ["4294967295", "4294967296", "18446744073709551615"] {
        let archive = Craft::default()
            .pax(&[("uid", id.as_bytes())])
            .file("f", "");
        says(&refused(&archive.end()), &["entry f", id]);
    }
    let mut negative = Block::new(b"f", b'0');
    negative.put(108, &[0xff; 8]);
    says(
        &refused(&Craft::default().block(negative).end()),
        &["entry f", "-1"],
    );
}

#[test]
fn names_and_targets_longer_than_any_are_refused() {
    let component = vec![b'n'; 256];
    let archive = Craft::default().pax(&[("path", &component)]).file("f", "");
    says(&refused(&archive.end()), &["256 bytes"]);
    let long = vec![b'n'; 70_000];
    let archive = Craft::default().pax(&[("path", &long)]).file("f", "");
    says(&refused(&archive.end()), &["70000 bytes"]);
    let gnu = Craft::default().with_data(Block::new(b"././@LongLink", b'L'), &long);
    says(&refused(&gnu.file("f", "").end()), &["entry f"]);
    let target = vec![b't'; 4096];
    let archive = Craft::default()
        .pax(&[("linkpath", &target)])
        .symlink("s", "x");
    says(&refused(&archive.end()), &["entry s", "target"]);
}

#[test]
fn private_xattrs_in_an_archive_are_no_marks() {
    if !require_root() {
        return;
    }
    let archive = Craft::default()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.fuseoverlayfs.opaque", b"y"),
            ("SCHILY.xattr.user.containers.override_stat", b"0:0:4755"),
        ])
        .dir("d")
        .end();
    let tree = unpacked(&archive);
    let d = acetate::sys::Spot::at(
        acetate::sys::dir::open_root(tree.path()).unwrap().into(),
        acetate::sys::Name::from(&b"d"[..]),
    );
    let marks = acetate::layer::mark::Marks::read(&d).unwrap();
    assert_eq!(marks.opaque, acetate::layer::mark::Opaque::No);
    assert!(marks.redirect.is_none() && marks.disguise.is_none() && !marks.bad_redirect);
    // What an overlay inside could have set comes back; the rest is gone.
    let again = String::from_utf8_lossy(&packed(tree.path())).into_owned();
    assert!(again.contains("SCHILY.xattr.trusted.overlay.opaque=y"));
    assert!(!again.contains("fuseoverlayfs") && !again.contains("override_stat"));
}

#[test]
fn unknown_entry_types_are_refused() {
    for flag in *b"DMNAZ" {
        let error = refused(&Craft::default().block(Block::new(b"odd", flag)).end());
        says(&error, &["entry odd", "type"]);
    }
    let label = Craft::default()
        .block(Block::new(b"volume", b'V'))
        .file("f", "x");
    assert!(unpacked(&label.end()).path().join("f").exists());
}

#[test]
fn the_directory_to_unpack_into_must_be_empty() {
    let into = temp();
    std::fs::write(into.path().join("f"), "old").unwrap();
    let error = unpack_into(
        &Craft::default().file("f", "new").end(),
        into.path(),
        real(),
    );
    assert!(error.unwrap_err().to_string().contains("not empty"));
    assert_eq!(std::fs::read(into.path().join("f")).unwrap(), b"old");
}

#[test]
fn unreadable_modes_do_not_stop_an_ordinary_owner() {
    let archive = Craft::default()
        .block(Block::new(b"d", b'5').mode(0))
        .with_data(Block::new(b"d/f", b'0').mode(0), b"x")
        .end();
    let into = temp();
    unpack_into(&archive, into.path(), Owners::Recorded).unwrap();
    let mode = |name: &str| {
        into.path()
            .join(name)
            .metadata()
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!((mode("d") & 0o777, mode("d/f") & 0o777), (0o700, 0o600));
}
