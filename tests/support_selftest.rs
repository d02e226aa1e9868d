//! The test support tested: a listing that could not see a difference would make every other test worthless.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/mod.rs"]
mod support;

use std::fs;

use support::{
    Base, Facets, Layers, Mount, Snapshot, diff, diff_with, require_kernel_overlay, require_root,
};

#[test]
fn a_snapshot_sees_every_kind_of_difference() {
    let a = Layers::new(Base::Shm, 0);
    let b = Layers::new(Base::Shm, 0);
    for root in [&a.upper, &b.upper] {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "same").unwrap();
        fs::hard_link(root.join("d/f"), root.join("g")).unwrap();
        std::os::unix::fs::symlink("target", root.join("l")).unwrap();
    }
    assert_eq!(
        diff(&Snapshot::of(&a.upper), &Snapshot::of(&b.upper)),
        Vec::<String>::new()
    );

    fs::write(b.upper.join("d/f"), "sAme").unwrap();
    let lines = diff(&Snapshot::of(&a.upper), &Snapshot::of(&b.upper));
    assert_eq!(lines.len(), 2, "one inode under two names: {lines:?}");
    assert!(lines[0].starts_with("d/f (f): content"), "{lines:?}");

    fs::remove_file(b.upper.join("g")).unwrap();
    fs::write(b.upper.join("g"), "sAme").unwrap();
    let lines = diff(&Snapshot::of(&a.upper), &Snapshot::of(&b.upper));
    assert!(lines.iter().any(|l| l.contains("nlink 2 | 1")), "{lines:?}");

    let mtime = diff_with(
        &Snapshot::of(&a.upper),
        &Snapshot::of(&b.upper),
        Facets::REMOUNT,
    );
    assert!(mtime.iter().any(|l| l.contains("mtime")), "{mtime:?}");
}

#[test]
fn a_kernel_mount_comes_and_goes() {
    if !(require_root() && require_kernel_overlay()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 2);
    fs::write(layers.lowers[1].join("f"), "lower").unwrap();
    let mount = Mount::kernel(&layers, "");
    assert_eq!(fs::read_to_string(layers.at("f")).unwrap(), "lower");
    mount.unmount();
    assert!(!layers.at("f").exists());
}
