//! Files that the kernel is given before it asks: on read-only mounts alone.

use std::fs;

use super::support::counters::requests;
use super::support::story::require_real_root;
use super::support::{Base, Layers, Mount};

const FILES: u64 = 400;

/// Layers with one directory of small files, each with a content of its own.
fn layers() -> Layers {
    let layers = Layers::new(Base::Shm, 1);
    let dir = layers.lowers.first().unwrap().join("d");
    fs::create_dir(&dir).unwrap();
    for i in 0..FILES {
        let text = format!("{i} ").repeat(usize::try_from(i * 7).unwrap() + 1);
        fs::write(dir.join(format!("f{i}")), text).unwrap();
    }
    layers
}

/// Reads everything, each directory in the order of its listing, and compares it
/// with what the lower has; how many READ requests that took.
fn read_all(layers: &Layers) -> u64 {
    let before = requests(&layers.merged, "read");
    let lower = layers.lowers.first().unwrap().join("d");
    let mut seen = 0;
    for entry in fs::read_dir(layers.at("d")).unwrap() {
        let entry = entry.unwrap();
        // Asked for its attributes: as `ls -l`, tar or cp would.
        let size = entry.metadata().unwrap().len();
        let data = fs::read(entry.path()).unwrap();
        assert_eq!(data.len() as u64, size);
        assert!(data == fs::read(lower.join(entry.file_name())).unwrap());
        seen += 1;
    }
    assert_eq!(seen, FILES);
    requests(&layers.merged, "read") - before
}

#[test]
fn a_read_only_mount_gives_files_before_they_are_asked_for() {
    if !require_real_root() {
        return;
    }
    let mut counts = Vec::new();
    // How far ahead it gets is a matter of who runs when: once in five is enough.
    for _ in 0..5 {
        let mut layers = layers();
        layers.writable = false;
        let mount = Mount::acetate(&layers, "push_ahead=on");
        counts.push(read_all(&layers));
        drop(mount);
        if counts.last().is_some_and(|n| *n < FILES) {
            return;
        }
    }
    panic!("READ requests for {FILES} files: {counts:?}");
}

#[test]
fn a_mount_that_can_be_written_never_does() {
    if !require_real_root() {
        return;
    }
    let writable = layers();
    let mount = Mount::acetate(&writable, "push_ahead=on");
    assert_eq!(read_all(&writable), FILES);
    drop(mount);

    let mut off = layers();
    off.writable = false;
    let mount = Mount::acetate(&off, "");
    assert_eq!(read_all(&off), FILES);
    drop(mount);
}
