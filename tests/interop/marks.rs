//! Whiteouts and opaque marks of all dialects, laid by hand into layers as clients leave them.
//!
//! Every test looks twice: listings first and then lookups, and the other way round after a remount, as the answer
//! must not depend on who asked first.

use std::fs;
use std::path::Path;

use super::{file, whiteout, xattr};
use crate::support::host::own_mounts;
use crate::support::story::{Story, sh};
use crate::support::{Base, Kind, Layers, Mount, Snapshot, diff};
use crate::support::{require_fuse, require_kernel_overlay, require_root};

/// Mounts, and asserts that exactly `names` exist (below the root), both by listing and by lookup of `absent`.
fn assert_names(layers: &Layers, names: &[&str], absent: &[&str]) {
    for lookups_first in [false, true] {
        let mount = Mount::acetate(layers, "");
        let check_absent = || {
            for name in absent {
                let found = layers.at(name).symlink_metadata();
                assert!(
                    found.is_err(),
                    "{name} can be looked up (lookups first: {lookups_first})"
                );
            }
        };
        if lookups_first {
            check_absent();
        }
        let tree = Snapshot::of(&layers.merged);
        let seen: Vec<_> = tree
            .names()
            .into_iter()
            .filter(|name| *name != ".")
            .collect();
        assert_eq!(seen, names, "lookups first: {lookups_first}");
        tree.assert_sound("with marks");
        check_absent();
        mount.unmount();
    }
}

fn ready() -> bool {
    require_root() && require_fuse()
}

/// Three lowers: `d` with a different file in each, `same` in all.
fn three() -> Layers {
    own_mounts();
    let layers = Layers::new(Base::Disk, 3);
    for (i, lower) in layers.lowers.iter().enumerate() {
        file(&lower.join(format!("d/f{i}")), &i.to_string());
        file(&lower.join("d/same"), &i.to_string());
    }
    layers
}

#[test]
fn a_wh_file_hides_what_is_below_and_nothing_else() {
    if !ready() {
        return;
    }
    let layers = three();
    let middle = &layers.lowers[1];
    // Hides the file of the bottom, not its namesake in the same layer, nor the one above.
    file(&middle.join("d/.wh.f2"), "");
    file(&middle.join("d/.wh.same"), "");
    file(&middle.join("d/.wh.f0"), "");
    assert_names(
        &layers,
        &["d", "d/f0", "d/f1", "d/same"],
        &["d/.wh.f2", "d/.wh.same", "d/f2"],
    );
    let mount = Mount::acetate(&layers, "");
    assert_eq!(fs::read_to_string(layers.at("d/same")).unwrap(), "0");
    mount.unmount();
}

/// 2.0.0 let the content of the layers below shine through a directory of the hidden name.
#[test]
fn a_wh_file_for_a_directory_hides_its_content() {
    if !ready() {
        return;
    }
    let layers = three();
    fs::remove_dir_all(layers.lowers[1].join("d")).unwrap();
    file(&layers.lowers[1].join(".wh.d"), "");
    // The topmost layer makes it anew: only its own content is there.
    assert_names(
        &layers,
        &["d", "d/f0", "d/same"],
        &["d/f1", "d/f2", ".wh.d"],
    );
}

#[test]
fn a_directory_beside_its_own_whiteout_hides_only_below() {
    if !ready() {
        return;
    }
    let layers = three();
    // buildkit writes both: the whiteout is for the layers below.
    file(&layers.lowers[1].join(".wh.d"), "");
    assert_names(
        &layers,
        &["d", "d/f0", "d/f1", "d/same"],
        &["d/f2", ".wh.d"],
    );
}

#[test]
fn an_opq_file_makes_a_directory_opaque() {
    if !ready() {
        return;
    }
    let layers = three();
    file(&layers.lowers[1].join("d/.wh..wh..opq"), "");
    assert_names(
        &layers,
        &["d", "d/f0", "d/f1", "d/same"],
        &["d/f2", "d/.wh..wh..opq"],
    );
}

#[test]
fn every_opaque_attribute_counts() {
    if !ready() {
        return;
    }
    for name in [
        "trusted.overlay.opaque",
        "user.overlay.opaque",
        "user.fuseoverlayfs.opaque",
    ] {
        let layers = three();
        xattr(&layers.lowers[1].join("d"), name, "y");
        eprintln!("{name}");
        assert_names(&layers, &["d", "d/f0", "d/f1", "d/same"], &["d/f2"]);
    }
}

#[test]
fn character_devices_hide_in_any_position() {
    if !ready() {
        return;
    }
    let layers = three();
    whiteout(&layers.lowers[0].join("d/f1"));
    whiteout(&layers.lowers[1].join("d/f2"));
    // Over nothing at all, in the lowest layer and in the upper.
    whiteout(&layers.lowers[2].join("nothing"));
    whiteout(&layers.upper.join("nothing-either"));
    assert_names(
        &layers,
        &["d", "d/f0", "d/same"],
        &["d/f1", "d/f2", "nothing", "nothing-either"],
    );
}

/// As containers and nested overlays write them where character devices are not to be had.
#[test]
fn attribute_whiteouts_hide_where_the_directory_says_so() {
    if !(ready() && require_kernel_overlay()) {
        return;
    }
    let layers = three();
    let middle = &layers.lowers[1];
    xattr(&middle.join("d"), "trusted.overlay.opaque", "x");
    file(&middle.join("d/f2"), "");
    xattr(&middle.join("d/f2"), "trusted.overlay.whiteout", "");
    let kernel = Mount::kernel(&layers, "");
    let reference = Snapshot::of(&layers.merged);
    kernel.unmount();
    assert_names(&layers, &["d", "d/f0", "d/f1", "d/same"], &["d/f2"]);
    if reference.objects.contains_key("d/f2") {
        crate::support::skip("the kernel of this host knows no xattr whiteouts (Linux 6.7)");
        return;
    }
    let mount = Mount::acetate(&layers, "");
    let lines = diff(&reference, &Snapshot::of(&layers.merged));
    mount.unmount();
    assert!(lines.is_empty(), "{lines:#?}");
}

#[test]
fn no_mark_is_visible_among_the_attributes() {
    if !ready() {
        return;
    }
    let layers = three();
    let dir = layers.lowers[0].join("d");
    for name in [
        "trusted.overlay.origin",
        "trusted.overlay.impure",
        "user.fuseoverlayfs.origin",
        "user.overlay.impure",
    ] {
        xattr(&dir, name, "y");
    }
    xattr(&dir, "user.containers.override_stat", "0:0:0755");
    xattr(&dir, "user.mine", "kept");
    let mount = Mount::acetate(&layers, "");
    let tree = Snapshot::of(&layers.merged);
    mount.unmount();
    let names: Vec<_> = tree.objects["d"].xattrs.keys().collect();
    assert_eq!(names, ["user.mine"]);
}

/// Peer bug B1: a deleted file came back in a directory made anew over a lower one, after a listing.
#[test]
fn a_deleted_file_does_not_come_back_in_a_directory_made_anew() {
    if !ready() {
        return;
    }
    let layers = Layers::new(Base::Disk, 1);
    file(&layers.lowers[0].join("a/sub/x"), "x");
    file(&layers.lowers[0].join("a/f2"), "1");
    let mount = Mount::acetate(&layers, "");
    fs::remove_dir_all(layers.at("a/sub")).unwrap();
    fs::create_dir(layers.at("a/sub")).unwrap();
    fs::write(layers.at("a/sub/new"), "new").unwrap();
    fs::remove_file(layers.at("a/f2")).unwrap();
    mount.unmount();
    // The order that showed it: the parent listed, the directory listed, then the hidden name asked for.
    let mount = Mount::acetate(&layers, "");
    assert_eq!(listed(&layers.at("a")), ["sub"]);
    assert_eq!(listed(&layers.at("a/sub")), ["new"]);
    assert!(
        layers.at("a/sub/x").symlink_metadata().is_err(),
        "the deleted file is back"
    );
    mount.unmount();
}

fn listed(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = dir
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The same layers under the kernel, where it has an opinion: only its own marks.
#[test]
fn kernel_marks_mean_the_same_to_both() {
    if !(ready() && require_kernel_overlay()) {
        return;
    }
    let layers = three();
    whiteout(&layers.lowers[0].join("d/f2"));
    xattr(&layers.lowers[1].join("d"), "trusted.overlay.opaque", "y");
    fs::create_dir_all(layers.lowers[0].join("moved")).unwrap();
    xattr(
        &layers.lowers[0].join("moved"),
        "trusted.overlay.redirect",
        "/elsewhere",
    );
    file(&layers.lowers[2].join("elsewhere/inside"), "i");
    // As a rename leaves it.
    whiteout(&layers.lowers[0].join("elsewhere"));
    let mut trees = vec![];
    for kind in [Kind::Kernel, Kind::Acetate] {
        let mount = Mount::with(kind, &layers, "redirect_dir=on");
        trees.push(Snapshot::of(&layers.merged));
        mount.unmount();
    }
    assert!(trees[0].objects.contains_key("moved/inside"));
    let lines = diff(&trees[0], &trees[1]);
    assert!(lines.is_empty(), "kernel | acetate: {lines:#?}");
}

/// What a marker in a layer's root hides stays hidden, wherever a redirect leads: a directory that is renamed, a file whose
/// data is looked for. The rename brought back what lay below the marker.
#[test]
fn an_opq_file_in_a_root_hides_from_redirects_too() {
    if !ready() {
        return;
    }
    own_mounts();
    for mut marker in [
        Path::new("l1/.wh..wh..opq").to_owned(),
        Path::new("l1/.wh..opq").to_owned(),
        Path::new("l0/.wh..wh..opq").to_owned(),
    ] {
        let layers = Layers::new(Base::Disk, 3);
        file(&layers.lowers[0].join("b/top"), "");
        file(&layers.lowers[2].join("b/hidden"), "");
        file(&layers.lowers[2].join("data"), "below");
        file(&layers.lowers[0].join("meta"), "12345");
        for (name, value) in [("metacopy", ""), ("redirect", "/data")] {
            xattr(
                &layers.lowers[0].join("meta"),
                &format!("trusted.overlay.{name}"),
                value,
            );
        }
        marker = layers.root.join(marker);
        file(&marker, "");
        let mount = Mount::acetate(&layers, "redirect_dir=on");
        fs::rename(layers.at("b"), layers.at("c")).unwrap();
        mount.unmount();
        for options in ["redirect_dir=on", ""] {
            let mount = Mount::acetate(&layers, options);
            let names: Vec<_> = fs::read_dir(layers.at("c"))
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            assert_eq!(names, ["top"], "{}", marker.display());
            assert!(!layers.at("c/hidden").exists());
            assert!(fs::read(layers.at("meta")).is_err());
            mount.unmount();
        }
    }
}

/// An opaque directory on the way to what a redirect names hides it, also where the rest of the way is not in that layer: the
/// search went on below, so a directory that was renamed showed what had been hidden.
#[test]
fn an_opaque_directory_hides_from_redirects_that_pass_it() {
    if !require_kernel_overlay() {
        return;
    }
    for mark in [
        "setfattr -n trusted.overlay.opaque -v y l1/p",
        "touch l1/p/.wh..wh..opq",
    ] {
        let story = Story::new(
            3,
            &format!("mkdir -p l0/p/q/b l1/p l2/p/q/b; touch l0/p/q/b/top l2/p/q/b/hidden; {mark}"),
        )
        .step("ls p/q/b; mv p/q/b c; ls c")
        .step("ls c; mv c p/d; ls p/d")
        .step("ls p/d");
        let story = if mark.starts_with("touch") {
            story.not_the_kernel("it does not know the marker")
        } else {
            story
        };
        for printed in story.options("redirect_dir=on").run() {
            assert!(!printed.contains("hidden"), "{mark}: {printed}");
        }
    }
}

/// Data of metacopies on a mount below a layer that holds data only: entered where `submounts=follow` says so.
#[test]
fn a_mount_in_a_data_only_layer_is_entered_where_that_is_asked_for() {
    if !ready() {
        return;
    }
    own_mounts();
    let mut layers = Layers::new(Base::Disk, 2);
    layers.writable = false;
    let mounted = layers.lowers[1].join("in");
    fs::create_dir(&mounted).unwrap();
    sh(&layers.root, "mount -t tmpfs none l1/in").unwrap();
    file(&mounted.join("data"), "12345");
    file(&layers.lowers[0].join("meta"), "54321");
    for (name, value) in [("metacopy", ""), ("redirect", "/in/data")] {
        xattr(
            &layers.lowers[0].join("meta"),
            &format!("trusted.overlay.{name}"),
            value,
        );
    }
    file(&layers.lowers[0].join("x"), "");
    let data = layers.lowers.pop().unwrap();
    layers
        .lowers
        .push(Path::new(&format!(":{}", data.display())).to_owned());
    for (options, found) in [("submounts=follow", Some("12345")), ("", None)] {
        let mount = Mount::acetate(&layers, options);
        let read = fs::read_to_string(layers.at("meta")).ok();
        assert_eq!(read.as_deref(), found, "{options}");
        mount.unmount();
    }
    sh(&layers.root, "umount l1/in").unwrap();
}
