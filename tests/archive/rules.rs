//! The rules of unpacking, one by one.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::craft::{Block, Craft};
use super::{packed, real, refused, temp, unpack_into, unpacked};
use crate::support::{
    Kind, Layers, Mount, Snapshot, require_fuse, require_kernel_overlay, require_root,
};

/// Names of a canonical archive, in order.
pub fn names(archive: &[u8]) -> Vec<String> {
    let mut reader = acetate::archive::Reader::new(std::io::Cursor::new(archive));
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8_lossy(&entry.path).into_owned());
    }
    names
}

/// The canonical names of what an archive was unpacked to.
fn becomes(archive: &Craft) -> Vec<String> {
    names(&packed(unpacked(&archive.clone().end()).path()))
}

#[test]
fn a_whiteout_never_hides_a_file_of_the_same_layer_wherever_it_stands() {
    let before = Craft::default().file(".wh.a", "").file("a", "x");
    let after = Craft::default().file("a", "x").file(".wh.a", "");
    assert_eq!(becomes(&before), ["a"]);
    assert_eq!(becomes(&after), ["a"]);
}

#[test]
fn a_whiteout_of_a_directory_that_is_here_too_makes_it_opaque() {
    let orders = [
        Craft::default().file(".wh.d", "").dir("d").file("d/f", "x"),
        Craft::default().dir("d").file(".wh.d", "").file("d/f", "x"),
        Craft::default().dir("d").file("d/f", "x").file(".wh.d", ""),
        Craft::default().file(".wh.d", "").file("d/f", "x"),
        Craft::default().file("d/f", "x").file(".wh.d", ""),
    ];
    for order in orders {
        assert_eq!(becomes(&order), ["d/", "d/.wh..wh..opq", "d/f"]);
    }
}

#[test]
fn an_opaque_marker_never_hides_siblings_wherever_it_stands() {
    let orders = [
        Craft::default()
            .dir("d")
            .file("d/.wh..wh..opq", "")
            .file("d/f", "x"),
        Craft::default()
            .dir("d")
            .file("d/f", "x")
            .file("d/.wh..wh..opq", ""),
        Craft::default()
            .file("d/.wh..wh..opq", "")
            .file("d/f", "x")
            .dir("d"),
    ];
    for order in orders {
        assert_eq!(becomes(&order), ["d/", "d/.wh..wh..opq", "d/f"]);
    }
    let root = Craft::default().file("f", "x").file(".wh..wh..opq", "");
    assert_eq!(becomes(&root), [".wh..wh..opq", "f"]);
}

/// buildkit writes both.
#[test]
fn a_whiteout_below_a_whiteout_says_nothing_more() {
    let orders = [
        Craft::default()
            .file(".wh.d", "")
            .file("d/.wh.f", "")
            .file("d/e/.wh.g", ""),
        Craft::default()
            .file("d/.wh.f", "")
            .file("d/e/.wh.g", "")
            .file(".wh.d", ""),
    ];
    for order in orders {
        assert_eq!(becomes(&order), [".wh.d"]);
    }
    let with_object = Craft::default()
        .file("d/.wh.f", "")
        .file("d/x", "1")
        .file(".wh.d", "");
    assert_eq!(becomes(&with_object), ["d/", "d/.wh..wh..opq", "d/x"]);
}

/// Found by the fuzz target `whiteouts`: what was left in the opaque directory depended
/// on the order.
#[test]
fn in_an_opaque_directory_there_is_nothing_left_to_hide() {
    let orders = [
        Craft::default()
            .file("b/.wh.a", "")
            .file("b/f", "x")
            .file(".wh.b", ""),
        Craft::default()
            .file("b/.wh.a", "")
            .file(".wh.b", "")
            .file("b/f", "x"),
        Craft::default()
            .file(".wh.b", "")
            .file("b/f", "x")
            .file("b/.wh.a", ""),
    ];
    for order in orders {
        assert_eq!(becomes(&order), ["b/", "b/.wh..wh..opq", "b/f"]);
    }
    let deeper = Craft::default()
        .file("b/.wh..wh..opq", "")
        .file("b/c/.wh..wh..opq", "")
        .file("b/d/.wh.e", "");
    assert_eq!(becomes(&deeper), ["b/", "b/.wh..wh..opq"]);
}

/// Found by the fuzz target `whiteouts`: an empty directory showed, in some orders.
#[test]
fn directories_that_only_whiteouts_have_brought_do_not_show_in_an_opaque_one() {
    let orders = [
        Craft::default()
            .file("a/b/c/.wh.d", "")
            .file(".wh.a", "")
            .file("a/f", "x"),
        Craft::default()
            .file("a/f", "x")
            .file("a/b/c/.wh.d", "")
            .file(".wh.a", ""),
        Craft::default()
            .file(".wh.a", "")
            .file("a/f", "x")
            .file("a/b/c/.wh.d", ""),
    ];
    for order in orders {
        assert_eq!(becomes(&order), ["a/", "a/.wh..wh..opq", "a/f"]);
    }
    let marker = Craft::default()
        .file("a", "x")
        .dir("a")
        .file("a/b/.wh..wh..opq", "");
    assert_eq!(becomes(&marker), ["a/", "a/.wh..wh..opq"]);
    let open = Craft::default().file("a/f", "x").file("a/b/.wh.d", "");
    assert_eq!(becomes(&open), ["a/", "a/b/", "a/b/.wh.d", "a/f"]);
}

#[test]
fn aufs_names_are_passed_over() {
    let archive = Craft::default()
        .dir(".wh..wh.plnk")
        .file(".wh..wh.plnk/1.2", "x")
        .file(".wh..wh.aufs", "")
        .hard_link("d/.wh.f", ".wh..wh.aufs")
        .file("f", "x");
    assert_eq!(becomes(&archive), ["d/", "d/.wh.f", "f"]);
}

#[test]
fn a_whiteout_of_the_longest_name_there_is_survives() {
    let name = format!(".wh.{}", "n".repeat(255));
    let archive = Craft::default()
        .pax(&[("path", name.as_bytes())])
        .file("x", "");
    assert_eq!(becomes(&archive), [name]);
}

#[test]
fn the_last_of_several_entries_of_one_name_counts() {
    let archive = Craft::default()
        .file("f", "one")
        .block(Block::new(b"d", b'5').mode(0o700))
        .file("d/in", "x")
        .file("f", "two, longer")
        .block(Block::new(b"d", b'5').mode(0o711).mtime(7));
    let tree = unpacked(&archive.end());
    assert_eq!(
        std::fs::read(tree.path().join("f")).unwrap(),
        b"two, longer"
    );
    let d = tree.path().join("d").metadata().unwrap();
    assert_eq!((d.mode() & 0o7777, d.mtime()), (0o711, 7));
    assert!(tree.path().join("d/in").exists());
}

#[test]
fn a_replaced_entry_leaves_its_other_names_alone() {
    let archive = Craft::default()
        .file("a", "old")
        .hard_link("b", "a")
        .file("a", "new");
    let tree = unpacked(&archive.end());
    assert_eq!(std::fs::read(tree.path().join("b")).unwrap(), b"old");
    assert_eq!(std::fs::read(tree.path().join("a")).unwrap(), b"new");
}

#[test]
fn attributes_of_an_earlier_directory_entry_do_not_stay() {
    let archive = Craft::default()
        .pax(&[("SCHILY.xattr.user.old", b"1")])
        .dir("d")
        .pax(&[("SCHILY.xattr.user.new", b"2")])
        .dir("d");
    let out = String::from_utf8_lossy(&packed(unpacked(&archive.end()).path())).into_owned();
    assert!(out.contains("user.new=2") && !out.contains("user.old"));
}

#[test]
fn every_type_replaces_every_other() {
    if !require_root() {
        return;
    }
    type Make = fn(Craft) -> Craft;
    let kinds: [(&str, Make); 5] = [
        ("file", |c| c.file("x", "content")),
        ("dir", |c| c.dir("x")),
        ("symlink", |c| c.symlink("x", "nowhere")),
        ("fifo", |c| c.block(Block::new(b"x", b'6'))),
        ("device", |c| c.block(Block::new(b"x", b'3').device(1, 3))),
    ];
    for (first, make_first) in &kinds {
        for (last, make_last) in &kinds {
            let mut archive = make_first(Craft::default());
            if *first == "dir" {
                archive = archive.file("x/deep/inside", "y");
            }
            let archive = make_last(archive).file("after", "z");
            let tree = unpacked(&archive.end());
            let made = unpacked(&make_last(Craft::default()).file("after", "z").end());
            let mut want = names(&packed(made.path()));
            let more: &[&str] = match (*first, *last) {
                ("dir", "dir") => &["x/deep/", "x/deep/inside"],
                // What was here hid the layers below; so must what took its place.
                (_, "dir") => &["x/.wh..wh..opq"],
                _ => &[],
            };
            want.extend(more.iter().map(|name| (*name).to_owned()));
            assert_eq!(names(&packed(tree.path())), want, "{first} then {last}");
        }
    }
}

#[test]
fn missing_parents_are_made_the_same_on_any_day() {
    let archive = Craft::default().file("a/b/c", "x");
    let tree = unpacked(&archive.clone().end());
    let b = tree.path().join("a/b").metadata().unwrap();
    assert_eq!((b.mode() & 0o7777, b.mtime(), b.uid()), (0o755, 0, 0));
    assert_eq!(packed(tree.path()), packed(unpacked(&archive.end()).path()));
}

/// A layer's owner is the archive's, not whoever's directory it was unpacked in.
#[test]
fn set_gid_and_acls_of_the_directory_around_reach_no_entry() {
    if !require_root() {
        return;
    }
    let into = temp();
    rustix::fs::chown(into.path(), None, Some(rustix::fs::Gid::from_raw(77))).unwrap();
    rustix::fs::chmod(into.path(), rustix::fs::Mode::from_raw_mode(0o2770)).unwrap();
    let acl =
        acetate::layer::acl::Acl::from_text("user::rwx,user:9:rwx,group::---,mask::rwx,other::---");
    let acl = acl.unwrap().encode();
    let name = "system.posix_acl_default";
    rustix::fs::setxattr(into.path(), name, &acl, rustix::fs::XattrFlags::empty()).unwrap();
    let archive = Craft::default()
        .file("f", "x")
        .dir("d")
        .file("d/g", "y")
        .end();
    unpack_into(&archive, into.path(), real()).unwrap();
    assert_eq!(packed(into.path()), packed(unpacked(&archive).path()));
    let f = into.path().join("f").metadata().unwrap();
    assert_eq!((f.gid(), f.mode() & 0o7777), (0, 0o644));
}

/// The archive's own default ACL is not inherited either: each entry says what it has.
#[test]
fn acls_are_kept_and_not_inherited_within_the_archive() {
    if !require_root() {
        return;
    }
    let text = b"user::rwx,user:9:r-x,group::r-x,mask::r-x,other::---";
    let archive = Craft::default()
        .pax(&[("SCHILY.acl.default", text), ("SCHILY.acl.access", text)])
        .block(Block::new(b"d", b'5').mode(0o2750).owner(3, 4))
        .block(Block::new(b"d/f", b'0').mode(0o666))
        .block(Block::new(b"d/sub", b'5').mode(0o777))
        .file("d/sub/g", "x");
    let tree = unpacked(&archive.end());
    let facts = Snapshot::of(tree.path());
    let xattrs = |name: &str| {
        facts.objects[name]
            .xattrs
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(xattrs("d").len(), 2);
    for (name, mode) in [("d/f", 0o666), ("d/sub", 0o777), ("d/sub/g", 0o644)] {
        assert!(
            xattrs(name).is_empty(),
            "{name} inherited {:?}",
            xattrs(name)
        );
        let object = &facts.objects[name];
        assert_eq!((object.mode, object.gid), (mode, 0), "{name}");
    }
}

#[test]
fn a_relative_symlink_within_the_tree_is_followed_as_a_parent() {
    let archive = Craft::default()
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("usr/lib64", "../lib")
        .file("lib/a", "1")
        .file("usr/lib64/b", "2")
        .file("lib/c", "3");
    let tree = unpacked(&archive.end());
    assert!(tree.path().join("lib").is_symlink());
    assert_eq!(
        names(&packed(tree.path())),
        [
            "lib",
            "usr/",
            "usr/lib/",
            "usr/lib/a",
            "usr/lib/b",
            "usr/lib/c",
            "usr/lib64"
        ]
    );
    let dangling = Craft::default()
        .symlink("lib", "usr/lib")
        .file("lib/a", "1")
        .end();
    assert!(refused(&dangling).contains("missing"));
}

#[test]
fn times_are_kept_to_the_nanosecond_and_directories_get_theirs_last() {
    let archive = Craft::default()
        .pax(&[("mtime", b"1000000000.123456789")])
        .dir("d")
        .pax(&[("mtime", b"-1.5")])
        .file("d/f", "x")
        .block(Block::new(b"e", b'5').mtime(5))
        .file("d/late", "x")
        .hard_link("e/link", "d/f")
        .block(Block::new(b"./", b'5').mtime(9));
    let tree = unpacked(&archive.end());
    let time = |name: &str| {
        let m = tree.path().join(name).symlink_metadata().unwrap();
        (m.mtime(), m.mtime_nsec())
    };
    assert_eq!(time("d"), (1_000_000_000, 123_456_789));
    assert_eq!(time("d/f"), (-2, 500_000_000));
    assert_eq!(time("e"), (5, 0));
    assert_eq!(time("."), (9, 0));
}

#[test]
fn a_hard_link_to_itself_changes_nothing() {
    let archive = Craft::default().file("f", "x").hard_link("f", "./f");
    assert_eq!(becomes(&archive), ["f"]);
}

fn sparse_content() -> Vec<u8> {
    let mut bytes = vec![0u8; 300_000];
    bytes[100_000..100_004].copy_from_slice(b"data");
    bytes[299_999] = b'!';
    bytes
}

fn check_sparse(archive: Craft) {
    let tree = unpacked(&archive.file("after", "x").end());
    let file = tree.path().join("f");
    assert_eq!(std::fs::read(&file).unwrap(), sparse_content());
    assert!(
        file.metadata().unwrap().blocks() * 512 < 200_000,
        "no hole is left"
    );
    assert!(tree.path().join("after").exists());
}

#[test]
fn all_sparse_forms_become_holes() {
    let extents = "100000,4,299999,1";
    let realsize: (&str, &[u8]) = ("GNU.sparse.size", b"300000");
    check_sparse(
        Craft::default()
            .pax(&[
                realsize,
                ("GNU.sparse.map", extents.as_bytes()),
                ("GNU.sparse.name", b"f"),
            ])
            .file("GNUSparseFile.1/f", "data!"),
    );
    check_sparse(
        Craft::default()
            .pax(&[
                realsize,
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"100000"),
                ("GNU.sparse.numbytes", b"4"),
                ("GNU.sparse.offset", b"299999"),
                ("GNU.sparse.numbytes", b"1"),
            ])
            .file("f", "data!"),
    );
    let mut map = b"2\n100000\n4\n299999\n1\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"data!");
    check_sparse(
        Craft::default()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", b"300000"),
                ("GNU.sparse.name", b"f"),
            ])
            .with_data(Block::new(b"GNUSparseFile.1/f", b'0'), &map),
    );
    // Old GNU, its second extent in a block of its own.
    let mut gnu = Block::new(b"f", b'S').size(5);
    gnu.put(257, b"ustar  \0");
    for slot in 0..3 {
        gnu.put(
            386 + slot * 24,
            format!("{:011o}\0{:011o}\0", 100_000, 0).as_bytes(),
        );
    }
    gnu.put(
        386 + 3 * 24,
        format!("{:011o}\0{:011o}\0", 100_000, 4).as_bytes(),
    );
    gnu.put(482, &[1]);
    gnu.put(483, format!("{:011o}\0", 300_000).as_bytes());
    let more = format!("{:011o}\0{:011o}\0", 299_999, 1);
    check_sparse(
        Craft::default()
            .block(gnu)
            .data(more.as_bytes())
            .data(b"data!"),
    );
}

#[test]
fn a_plain_files_long_runs_of_zeros_become_holes() {
    let archive = Craft::default().with_data(Block::new(b"f", b'0'), &sparse_content());
    check_sparse(archive);
    let zeros = vec![0u8; 1 << 20];
    let tree = unpacked(
        &Craft::default()
            .with_data(Block::new(b"z", b'0'), &zeros)
            .end(),
    );
    let z = tree.path().join("z").metadata().unwrap();
    assert_eq!((z.len(), z.blocks()), (1 << 20, 0));
}

#[test]
fn old_names_mean_what_they_did() {
    let mut v7 = Block::new(b"dir/", 0);
    v7.put(257, &[0; 8]);
    let mut star = Block::new(b"name", b'0');
    star.put(345, b"prefix");
    star.put(476, b"00000000001 00000000002 ");
    star.put(508, b"tar\0");
    let mut gnu = Block::new(b"gnu", b'0');
    gnu.put(257, b"ustar  \0");
    gnu.put(345, b"00000000001\0");
    let archive = Craft::default().block(v7).block(star).block(gnu);
    assert_eq!(becomes(&archive), ["dir/", "gnu", "prefix/", "prefix/name"]);
}

/// The kernel itself says what the unpacked marks mean.
#[test]
fn kernel_overlayfs_sees_what_the_whiteouts_say() {
    if !require_root() || !require_kernel_overlay() {
        return;
    }
    let layers = Layers::new(super::support::Base::Disk, 2);
    let [top, bottom] = &layers.lowers[..] else {
        panic!("two lowers")
    };
    unpack_over(
        bottom,
        &Craft::default()
            .file("gone", "1")
            .file("d/old", "2")
            .file("e/old", "3")
            .file("kept/x", "4"),
    );
    let above = Craft::default()
        .file(".wh.gone", "")
        .file("d/.wh..wh..opq", "")
        .file("d/new", "5")
        .file("e", "now a file")
        .dir("kept")
        .file("kept/y", "6")
        .file(".wh.f", "");
    unpack_over(top, &above);
    let mount = Mount::kernel(&layers, "");
    let seen = Snapshot::of(&layers.merged);
    let names: Vec<_> = seen.names().into_iter().map(str::to_owned).collect();
    drop(mount);
    assert_eq!(names, [".", "d", "d/new", "e", "kept", "kept/x", "kept/y"]);
}

fn unpack_over(dir: &Path, archive: &Craft) {
    unpack_into(&archive.clone().end(), dir, real()).unwrap();
}

/// Where a device 0:0 cannot be made, whiteouts are `.wh.` files (kernel overlayfs) or
/// empty files with an xattr (a mount of ours): what they mean is the same, in any order.
#[test]
fn inside_another_overlay_whiteouts_have_another_form_and_the_same_meaning() {
    if !require_root() || !require_kernel_overlay() || !require_fuse() {
        return;
    }
    let archives = [
        Craft::default().file(".wh.a", "").file("d/.wh.b", ""),
        Craft::default().file(".wh.a", "").file("a", "x"),
        Craft::default().file("a", "x").file(".wh.a", ""),
        Craft::default().file(".wh.d", "").dir("d").file("d/f", "x"),
        Craft::default().dir("d").file("d/f", "x").file(".wh.d", ""),
        Craft::default().file(".wh.d", "").file("d/f", "x"),
        Craft::default().file(".wh.d", "").file("d/.wh.f", ""),
        Craft::default().file("d/.wh.f", "").file(".wh.d", ""),
        Craft::default().file("d/.wh..wh..opq", "").file("d/f", "x"),
        Craft::default()
            .file(".wh.f", "")
            .file("f", "")
            .file("g", ""),
    ];
    for kind in [Kind::Kernel, Kind::Acetate] {
        let layers = Layers::new(super::support::Base::Disk, 1);
        let mount = Mount::with(kind, &layers, "");
        for (n, archive) in archives.iter().enumerate() {
            let into = layers.merged.join(format!("t{n}"));
            std::fs::create_dir(&into).unwrap();
            unpack_over(&into, archive);
            let there = names(&packed(&into));
            assert_eq!(there, becomes(archive), "{kind:?}, archive {n}");
            assert!(packed(&into) == packed(unpacked(&archive.clone().end()).path()));
        }
        drop(mount);
    }
}
