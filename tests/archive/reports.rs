//! Section K of user-reports.md ("Store: diff, commit, tar"), the rows that are about
//! archives. Each test names its reports.

use std::os::unix::fs::MetadataExt;

use acetate::archive::{PackOptions, Redirects};

use super::craft::{Block, Craft};
use super::rules::names;
use super::{pack_with, packed, real, refused, temp, unpacked};
use crate::support::raw::{c, set_xattr};
use crate::support::require_root;

fn xattr(path: &std::path::Path, name: &str, value: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    assert!(set_xattr(&c(path.as_os_str().as_bytes()), &c(name), value, 0).is_ok());
}

/// buildah#2082, fuse-overlayfs#172: private xattrs ended up in images.
#[test]
fn no_private_xattr_of_an_overlay_leaves_with_the_layer() {
    if !require_root() {
        return;
    }
    let tree = temp();
    let d = tree.path().join("d");
    std::fs::create_dir(&d).unwrap();
    for (name, value) in [
        ("trusted.overlay.opaque", &b"y"[..]),
        ("trusted.overlay.origin", b"\0\xfbgarbage"),
        ("trusted.overlay.impure", b"y"),
        ("trusted.overlay.nlink", b"U+1"),
        ("trusted.overlay.upper", b"x"),
        ("trusted.overlay.uuid", b"0123456789abcdef"),
        ("trusted.overlay.protattr", b"i"),
        ("user.overlay.origin", b"x"),
        ("user.fuseoverlayfs.origin", b"x"),
        ("user.containers.override_stat", b"0:0:755:dir"),
        ("user.mine", b"kept"),
    ] {
        xattr(&d, name, value);
    }
    let archive = packed(tree.path());
    let text = String::from_utf8_lossy(&archive).into_owned();
    assert!(text.contains("SCHILY.xattr.user.mine=kept"));
    assert!(!text.contains("overlay.") && !text.contains("containers."));
    let list = names(&archive);
    assert!(
        list.ends_with(&["d/".into(), "d/.wh..wh..opq".into()]),
        "{list:?}"
    );
}

/// buildah#4942: what did not change was in the layer once more; a build of nothing is
/// an archive of nothing.
#[test]
fn an_upper_without_changes_has_no_entries() {
    let tree = unpacked(&[0; 1024]);
    assert!(names(&packed(tree.path())).is_empty());
}

/// buildah#2816: mount points' stubs were committed.
#[test]
fn excluded_paths_are_left_out_with_all_below_them() {
    let archive = Craft::default()
        .dir("etc")
        .file("etc/hosts", "")
        .file("etc/hosts.allow", "")
        .file("run/secrets/a", "");
    let tree = unpacked(&archive.end());
    let mut options = PackOptions::new(real());
    options.exclude = [&b"etc/hosts"[..], b"run/secrets"]
        .map(<[u8]>::to_vec)
        .into();
    let out = pack_with(tree.path(), &options).unwrap();
    assert_eq!(names(&out), ["etc/", "etc/hosts.allow", "run/"]);
}

/// fuse-overlayfs#181, #312, buildah#2161: device nodes and directories where files
/// were ended a commit.
#[test]
fn devices_and_changed_types_are_packed() {
    if !require_root() {
        return;
    }
    let archive = Craft::default()
        .block(Block::new(b"dev/null", b'3').device(1, 3).mode(0o666))
        .dir("was-a-file")
        .file("was-a-file/now", "x")
        .block(Block::new(b"fifo", b'6'));
    let tree = unpacked(&archive.end());
    let listed = names(&packed(tree.path()));
    assert_eq!(
        listed,
        ["dev/", "dev/null", "fifo", "was-a-file/", "was-a-file/now"]
    );
}

/// moby#25193: a deleted file stayed in later layers.
#[test]
fn what_a_layer_deletes_is_in_its_archive() {
    let archive = Craft::default().file("d/.wh.gone", "").file(".wh.too", "");
    let out = packed(unpacked(&archive.end()).path());
    assert_eq!(names(&out), [".wh.too", "d/", "d/.wh.gone"]);
}

/// moby#5632, image-spec#1204, go-containerregistry#2323: hard links into other layers
/// were copied, dangling or wrong.
#[test]
fn hard_links_are_within_one_layer_or_an_error() {
    let error = refused(&Craft::default().hard_link("b", "in-a-lower-layer").end());
    assert!(
        error.contains("entry b") && error.contains("in-a-lower-layer"),
        "{error}"
    );
    let tree = temp();
    std::fs::create_dir(tree.path().join("t")).unwrap();
    std::fs::write(tree.path().join("outside"), "x").unwrap();
    std::fs::hard_link(tree.path().join("outside"), tree.path().join("t/in")).unwrap();
    let out = packed(&tree.path().join("t"));
    let mut reader = acetate::archive::Reader::new(&out[..]);
    let mut last = None;
    while let Some(entry) = reader.next_entry().unwrap() {
        last = Some(entry);
    }
    let last = last.unwrap();
    assert_eq!(
        (&last.path[..], last.size),
        (&b"in"[..], 1),
        "a file with its data"
    );
}

/// apple/container#1797: a hard link whose directory has no entry.
#[test]
fn the_parents_of_a_hard_link_are_made() {
    let archive = Craft::default().file("f", "x").hard_link("new/dir/f", "f");
    let tree = unpacked(&archive.end());
    assert_eq!(tree.path().join("new/dir/f").metadata().unwrap().nlink(), 2);
}

/// woof-CE#3853, overlayfs-tools#7, zram-config#17: tools lost data where there was
/// metacopy or a redirect.
#[test]
fn a_tree_that_cannot_stand_alone_is_refused() {
    if !require_root() {
        return;
    }
    for (mark, value) in [
        ("metacopy", &b""[..]),
        ("redirect", b"/elsewhere"),
        ("redirect", b"//"),
    ] {
        let tree = temp();
        std::fs::write(tree.path().join("f"), "").unwrap();
        xattr(
            &tree.path().join("f"),
            &format!("trusted.overlay.{mark}"),
            value,
        );
        let error = pack_with(tree.path(), &PackOptions::new(real())).unwrap_err();
        assert!(
            error.to_string().contains("f: its data or its name"),
            "{error}"
        );
        let options = PackOptions {
            redirects: Redirects::Resolved,
            ..PackOptions::new(real())
        };
        let out = pack_with(tree.path(), &options).unwrap();
        assert!(!String::from_utf8_lossy(&out).contains("overlay"));
    }
}

/// buildkit#3168, #3981, moby#50063, buildah#6208, umoci#601, podman#14978: the same
/// tree gave other bytes; whiteouts had the time of their export.
#[test]
fn the_same_tree_gives_the_same_bytes_whatever_the_order_and_the_day() {
    let a = Craft::default()
        .dir("d")
        .file("d/x", "1")
        .file("d/.wh.y", "")
        .file("a", "2");
    let b = Craft::default()
        .block(Block::new(b"d/.wh.y", b'0').mtime(1_900_000_000))
        .file("a", "2")
        .file("d/x", "1")
        .dir("d");
    let one = packed(unpacked(&a.end()).path());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(one == packed(unpacked(&b.end()).path()));
}

/// bootc#920: xattrs counted for the digest and were then lost.
#[test]
fn every_xattr_of_an_archive_is_in_the_tree_or_an_error() {
    let archive = Craft::default()
        .pax(&[
            ("SCHILY.xattr.user.a", b"1"),
            ("LIBARCHIVE.xattr.user.b", b"Mg"),
        ])
        .file("f", "x");
    let out = packed(unpacked(&archive.end()).path());
    let text = String::from_utf8_lossy(&out).into_owned();
    assert!(text.contains("user.a=1\n") && text.contains("user.b=2\n"));
    let symlink = Craft::default()
        .pax(&[("SCHILY.xattr.user.a", b"1")])
        .symlink("s", "t");
    let error = refused(&symlink.end());
    assert!(error.contains("user.a") && error.contains(" s"), "{error}");
}
