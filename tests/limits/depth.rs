//! Depth: directories and paths longer than a path may be.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::support::story::{require_real_root, sh};
use crate::support::{Base, Layers, Mount};

/// Directories far deeper than PATH_MAX, of a lower and new ones: made, listed, copied up at the bottom, renamed in the middle,
/// removed; by descriptors, as no path reaches them.
#[test]
fn depth_beyond_path_max() {
    if !(require_real_root()) {
        return;
    }
    let (depth, name) = (120, "n".repeat(100));
    let chain = |root: &Path, top: &str, make: bool| -> Vec<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut all = vec![rustix::fs::open(root, flags, Mode::empty()).unwrap()];
        for level in 0..depth {
            let name = if level == 0 { top } else { &name };
            if make {
                rustix::fs::mkdirat(&all[level], name, Mode::from_raw_mode(0o755)).unwrap();
            }
            all.push(
                rustix::fs::openat(&all[level], name, flags, Mode::empty())
                    .unwrap_or_else(|e| panic!("level {level}: {e}")),
            );
        }
        all
    };
    let write = |dir: &OwnedFd, name: &str, text: &str| {
        let file = rustix::fs::openat(
            dir,
            name,
            OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND,
            Mode::from_raw_mode(0o644),
        )
        .unwrap();
        rustix::io::write(&file, text.as_bytes()).unwrap();
    };
    let read = |dir: &OwnedFd, name: &str| {
        let file = rustix::fs::openat(dir, name, OFlags::RDONLY, Mode::empty()).unwrap();
        let mut buffer = [0; 64];
        let n = rustix::io::read(&file, &mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    };
    let layers = Layers::new(Base::Shm, 1);
    write(
        chain(&layers.lowers[0], "lower", true).last().unwrap(),
        "f",
        "low",
    );
    for round in 0..2 {
        let mount = Mount::acetate(&layers, "");
        if round == 0 {
            let low = chain(&layers.merged, "lower", false);
            write(&low[depth], "f", "+up");
            write(&low[depth / 2], "middle", "m");
            rustix::fs::renameat(&low[depth], "f", &low[depth - 1], "g").unwrap();
            drop(low);
            // Everything below moves with it.
            fs::rename(layers.at("lower"), layers.at("moved")).unwrap();
            write(
                chain(&layers.merged, "new", true).last().unwrap(),
                "f",
                "new",
            );
            let new = chain(&layers.merged, "new", false);
            rustix::fs::renameat(&new[40], &name, &new[0], "cut").unwrap();
        }
        let moved = chain(&layers.merged, "moved", false);
        assert_eq!(
            (
                read(&moved[depth - 1], "g").as_str(),
                read(&moved[depth / 2], "middle").as_str()
            ),
            ("low+up", "m")
        );
        assert!(rustix::fs::statat(&moved[depth], "f", AtFlags::empty()).is_err());
        drop(moved);
        let out = sh(
            &layers.merged,
            "find . -type f | awk '{ print length($0) }' | sort -n; ls",
        )
        .unwrap();
        assert_eq!(out.lines().last().unwrap(), "new", "{out}");
        assert!(
            out.lines()
                .take(3)
                .all(|l| l.parse::<u32>().unwrap() > 4000),
            "find went all the way down: {out}"
        );
        mount.unmount();
    }
    let mount = Mount::acetate(&layers, "");
    sh(&layers.merged, "rm -r moved new cut; ls -A")
        .map(|out| assert_eq!(out, ""))
        .unwrap();
    mount.unmount();
    // tempfile's removal of the layers goes by path: do it the way that has no limit.
    sh(&layers.root, "rm -rf l0/lower").unwrap();
}

/// The longest path a call can take (4,095 bytes) works under a mount whose own path is short, with names of 255 bytes.
#[test]
fn a_path_of_4095_bytes() {
    if !(require_real_root()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "");
    let mut path = layers.merged.clone();
    while path.as_os_str().len() + 257 < 4095 {
        path.push("d".repeat(255));
        fs::create_dir(&path).unwrap();
    }
    let room = 4095 - path.as_os_str().len() - 1;
    let file = path.join("f".repeat(room));
    assert_eq!(file.as_os_str().len(), 4095);
    fs::write(&file, "end").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "end");
    let too_long = fs::write(path.join("f".repeat(room + 1)), "").map_err(|e| e.raw_os_error());
    assert_eq!(too_long, Err(Some(libc::ENAMETOOLONG)));
    fs::remove_file(&file).unwrap();
    sh(&layers.merged, "rm -r *").unwrap();
    mount.unmount();
}
