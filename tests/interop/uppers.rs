//! Uppers made by one implementation and read by another.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::{file, xattr};
use crate::support::host::own_mounts;
use crate::support::{Base, Facets, Kind, Layers, Mount, Snapshot, diff, diff_with};
use crate::support::{require_fuse, require_kernel_overlay, require_root, skip};

const ALL_ON: &str = "redirect_dir=on,index=on,metacopy=on";

/// Two lowers with something of everything.
fn stack() -> Layers {
    own_mounts();
    let layers = Layers::new(Base::Disk, 2);
    let (top, low) = (&layers.lowers[0], &layers.lowers[1]);
    for name in [
        "dir/sub/a",
        "dir/sub/b",
        "dir/c",
        "moved/inner/f",
        "moved/g",
        "gone/x",
        "again/old",
        "top",
    ] {
        file(&low.join(name), name);
    }
    file(&low.join("big"), &"0123456789".repeat(50_000));
    fs::hard_link(low.join("dir/c"), low.join("link1")).unwrap();
    fs::hard_link(low.join("dir/c"), low.join("link2")).unwrap();
    symlink("dir/c", low.join("symlink")).unwrap();
    file(&top.join("moved/inner/from-top"), "t");
    file(&top.join("dir/sub/b"), "covered");
    xattr(&top.join("dir/sub/b"), "user.k", "v");
    layers
}

/// For whom the changes are meant: C knows neither redirects nor an index of hard links.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Kernel,
    C,
}

/// Changes of every kind that leaves a mark in the upper.
fn change(root: &Path, reader: Reader) {
    fs::remove_file(root.join("top")).unwrap();
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::remove_dir_all(root.join("again")).unwrap();
    fs::create_dir(root.join("again")).unwrap();
    fs::write(root.join("again/new"), "new").unwrap();
    // Metadata only: a metacopy where that is on.
    fs::set_permissions(root.join("big"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(root.join("dir/sub/a"), "rewritten").unwrap();
    fs::rename(root.join("dir/sub/b"), root.join("dir/b-moved")).unwrap();
    fs::create_dir(root.join("made")).unwrap();
    fs::write(root.join("made/f"), "f").unwrap();
    if reader == Reader::Kernel {
        // One inode under three names stays one.
        let mut linked = fs::OpenOptions::new()
            .append(true)
            .open(root.join("link1"))
            .unwrap();
        std::io::Write::write_all(&mut linked, b"+").unwrap();
        drop(linked);
        fs::hard_link(root.join("link2"), root.join("dir/link3")).unwrap();
        fs::rename(root.join("moved"), root.join("made/moved-here")).unwrap();
        fs::rename(
            root.join("made/moved-here/inner"),
            root.join("inner-at-top"),
        )
        .unwrap();
        // The name is used again, by something that has nothing to do with it.
        file(&root.join("moved/other"), "other");
    }
}

/// What `kind` shows of `layers`, unmounted again.
fn view(kind: Kind, layers: &Layers, options: &str) -> Snapshot {
    let mount = Mount::with(kind, layers, options);
    let tree = Snapshot::of(&layers.merged);
    mount.unmount();
    tree.assert_sound(&format!("{kind:?}"));
    tree
}

fn assert_same(a: &Snapshot, b: &Snapshot, what: &str) {
    let lines = diff(a, b);
    assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
}

fn ready() -> bool {
    require_root() && require_fuse() && require_kernel_overlay()
}

/// Changes by `maker`; then the upper is read by both, as an upper and as the topmost of three lowers.
fn made_by(maker: Kind, options: &str) {
    let layers = stack();
    let mount = Mount::with(maker, &layers, options);
    change(&layers.merged, Reader::Kernel);
    let live = Snapshot::of(&layers.merged);
    mount.unmount();
    live.assert_sound("the live mount");
    assert_eq!(
        fs::read_to_string(layers.lowers[1].join("link1")).unwrap(),
        "dir/c",
        "a lower was written"
    );
    for reader in [Kind::Acetate, Kind::Kernel] {
        assert_same(
            &live,
            &view(reader, &layers, options),
            &format!("made by {maker:?} | read by {reader:?}"),
        );
    }
    // As a middle layer, under an upper and another lower that adds a little.
    let mut above = layers.sibling(Base::Disk);
    let extra = above.root.join("extra");
    file(&extra.join("made/moved-here/added"), "added");
    above.lowers.splice(0..0, [extra, layers.upper.clone()]);
    let (ours, theirs) = (
        view(Kind::Acetate, &above, options),
        view(Kind::Kernel, &above, options),
    );
    assert!(
        ours.objects.contains_key("made/moved-here/added")
            && ours.objects.contains_key("made/moved-here/g")
    );
    assert_same(
        &theirs,
        &ours,
        "a former upper as a middle layer, kernel | acetate",
    );
}

#[test]
fn an_upper_made_by_the_kernel() {
    if ready() {
        made_by(Kind::Kernel, ALL_ON);
    }
}

#[test]
fn an_upper_made_by_acetate() {
    if ready() {
        made_by(Kind::Acetate, ALL_ON);
    }
}

#[test]
fn an_upper_made_by_acetate_by_default() {
    if !ready() {
        return;
    }
    let layers = stack();
    let mount = Mount::acetate(&layers, "");
    change(&layers.merged, Reader::Kernel);
    let live = Snapshot::of(&layers.merged);
    mount.unmount();
    assert_same(
        &live,
        &view(Kind::Kernel, &layers, ALL_ON),
        "acetate with its defaults | kernel with all on",
    );
}

/// Work goes on in turns: neither may trip over what the other left in the work directory and the index.
#[test]
fn the_kernel_and_acetate_take_turns() {
    if !ready() {
        return;
    }
    let layers = stack();
    for turn in 0..6 {
        let kind = if turn % 2 == 0 {
            Kind::Acetate
        } else {
            Kind::Kernel
        };
        let mount = Mount::with(kind, &layers, ALL_ON);
        let root = &layers.merged;
        fs::write(root.join(format!("file{turn}")), "x").unwrap();
        fs::hard_link(root.join("link1"), root.join(format!("link-by-turn{turn}"))).unwrap();
        fs::rename(root.join("moved"), root.join("moving")).unwrap();
        fs::rename(root.join("moving"), root.join("moved")).unwrap();
        fs::remove_dir_all(root.join("again")).unwrap();
        file(&root.join("again/of"), &turn.to_string());
        fs::set_permissions(root.join("big"), fs::Permissions::from_mode(0o600 + turn)).unwrap();
        let live = Snapshot::of(root);
        mount.unmount();
        live.assert_sound(&format!("turn {turn}"));
        for reader in [Kind::Acetate, Kind::Kernel] {
            assert_same(
                &live,
                &view(reader, &layers, ALL_ON),
                &format!("turn {turn} by {kind:?} | {reader:?}"),
            );
        }
    }
    let tree = view(Kind::Kernel, &layers, ALL_ON);
    assert_eq!(
        tree.objects["link1"].nlink, 9,
        "dir/c, link1, link2 and six more"
    );
}

/// The C implementation, as installed.
fn c_mount(layers: &Layers) -> Option<Mount> {
    let program = "/usr/bin/fuse-overlayfs";
    if !Path::new(program).exists() {
        skip("fuse-overlayfs is not installed");
        return None;
    }
    let mut command = Command::new(program);
    command
        .args(["-f", "-o", &layers.options()])
        .arg(&layers.merged);
    Some(Mount::spawn(command, &layers.merged).unwrap())
}

/// Hard links aside, which C breaks over a remount.
const C_KNOWS: Facets = Facets {
    links: false,
    xattrs: false,
    ..Facets::TREE
};

#[test]
fn an_upper_made_by_c_fuse_overlayfs() {
    if !(require_root() && require_fuse()) {
        return;
    }
    let layers = stack();
    let Some(mount) = c_mount(&layers) else {
        return;
    };
    change(&layers.merged, Reader::C);
    let live = Snapshot::of(&layers.merged);
    mount.unmount();
    let ours = view(Kind::Acetate, &layers, "");
    let lines = diff_with(&live, &ours, C_KNOWS);
    assert!(lines.is_empty(), "C | acetate:\n{}", lines.join("\n"));
    assert!(!ours.objects.contains_key("again/old") && !ours.objects.contains_key("top"));
}

#[test]
fn an_upper_made_by_acetate_read_by_c_fuse_overlayfs() {
    if !(require_root() && require_fuse()) {
        return;
    }
    let layers = stack();
    // C reads neither redirects nor metacopies.
    let mount = Mount::acetate(&layers, "redirect_dir=off,metacopy=off");
    change(&layers.merged, Reader::C);
    let live = Snapshot::of(&layers.merged);
    mount.unmount();
    let Some(mount) = c_mount(&layers) else {
        return;
    };
    let theirs = Snapshot::of(&layers.merged);
    mount.unmount();
    let lines = diff_with(&live, &theirs, C_KNOWS);
    assert!(lines.is_empty(), "acetate | C:\n{}", lines.join("\n"));
}

/// Peer bug B2: a directory made over a whiteout directly below the root of the mount had no opaque mark, and the
/// lower's files came back after a remount.
#[test]
fn a_directory_made_anew_at_the_top_stays_empty_over_a_remount() {
    if !ready() {
        return;
    }
    let layers = stack();
    let mount = Mount::acetate(&layers, "");
    fs::remove_dir_all(layers.at("dir")).unwrap();
    fs::create_dir(layers.at("dir")).unwrap();
    fs::write(layers.at("dir/n"), "n").unwrap();
    mount.unmount();
    for reader in [Kind::Acetate, Kind::Kernel] {
        let tree = view(reader, &layers, "");
        let inside: Vec<_> = tree
            .names()
            .into_iter()
            .filter(|name| name.starts_with("dir/"))
            .collect();
        assert_eq!(inside, ["dir/n"], "{reader:?}");
    }
}
