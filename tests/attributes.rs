//! The kernel may keep attributes for ever, so none may be kept that were true only before a change.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{Base, Layers, Mount, require_fuse, require_root};

/// How long each race is run.
const SECONDS: u64 = 4;

/// What is compared: mode and the times that a change moves.
fn attributes(path: &Path) -> (u32, i64, i64, i64, i64) {
    let m = fs::symlink_metadata(path).unwrap();
    (
        m.mode(),
        m.mtime(),
        m.mtime_nsec(),
        m.ctime(),
        m.ctime_nsec(),
    )
}

/// Lets some threads ask for the attributes of `name` while others change it, stops all for an instant now and then, and
/// compares what the mount shows with what the upper has.
fn race(layers: &Layers, name: &str, change: impl Fn(u64) + Sync) {
    race_and_wait(layers, name, Duration::ZERO, change);
}

/// As [`race`], where the kernel is told so much later.
fn race_and_wait(layers: &Layers, name: &str, later: Duration, change: impl Fn(u64) + Sync) {
    let (shown, real) = (layers.at(name), layers.upper.join(name));
    let (turn, over, n) = (RwLock::new(()), AtomicBool::new(false), AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(SECONDS);
    let mut looks = 0;
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (turn, over, n, shown, change) = (&turn, &over, &n, &shown, &change);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let _turn = turn.read().unwrap();
                    if worker < 2 {
                        change(n.fetch_add(1, Ordering::Relaxed));
                    } else {
                        drop(fs::symlink_metadata(shown));
                    }
                }
            });
        }
        let mut wrong = None;
        while Instant::now() < until && wrong.is_none() {
            std::thread::sleep(Duration::from_micros(700));
            let _all = turn.write().unwrap();
            looks += 1;
            let differ = || {
                let (a, b) = (attributes(&shown), attributes(&real));
                (a != b).then_some((a, b))
            };
            wrong = differ().and_then(|_| {
                std::thread::sleep(later);
                differ()
            });
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(
            wrong,
            None,
            "shown | real, at look {looks}, change {}",
            n.load(Ordering::Relaxed)
        );
    });
    assert!(
        looks > 50 && n.load(Ordering::Relaxed) > 100,
        "{looks} looks"
    );
}

fn layers() -> Option<(Layers, Mount)> {
    if !(require_root() && require_fuse()) {
        return None;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "max_threads=4");
    fs::create_dir(layers.at("d")).unwrap();
    fs::write(layers.at("f"), "x").unwrap();
    Some((layers, mount))
}

/// Found by the stress on sixteen cores: the kernel asked for a directory's attributes, somebody made a file in it, and
/// the answer from before arrived after that: it was kept.
#[test]
fn attributes_of_a_directory_from_before_a_change_in_it_are_not_kept() {
    let Some((layers, mount)) = layers() else {
        return;
    };
    let dir = layers.at("d");
    race(&layers, "d", |n| {
        let (name, other) = (dir.join(format!("n{n}")), dir.join(format!("m{n}")));
        match n % 4 {
            0 => drop(fs::File::create(&name).and_then(|_| fs::remove_file(&name))),
            1 => drop(fs::create_dir(&name).and_then(|()| fs::remove_dir(&name))),
            2 => drop(std::os::unix::fs::symlink("t", &name).and_then(|()| fs::remove_file(&name))),
            _ => {
                fs::write(&name, "").unwrap();
                fs::hard_link(&name, &other).unwrap();
                fs::rename(&name, dir.join(format!("o{n}"))).unwrap();
            }
        }
    });
    mount.unmount();
}

/// The same where an ACL changes the mode, and attributes the ctime.
#[test]
fn attributes_of_a_file_from_before_its_acl_changed_are_not_kept() {
    let Some((layers, mount)) = layers() else {
        return;
    };
    let file = layers.at("f");
    race(&layers, "f", |n| {
        let path = support::raw::c(std::os::unix::ffi::OsStrExt::as_bytes(file.as_os_str()));
        // user::rw-, group::r-x or r--, other::r--: the mode 0654 or 0644.
        let group = if n % 2 == 0 { 5u16 } else { 4 };
        let mut acl = 2u32.to_le_bytes().to_vec();
        for (tag, perm) in [(1u16, 6u16), (4, group), (32, 4)] {
            acl.extend(tag.to_le_bytes());
            acl.extend(perm.to_le_bytes());
            acl.extend(u32::MAX.to_le_bytes());
        }
        rustix::fs::setxattr(
            &*path,
            c"system.posix_acl_access",
            &acl,
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        rustix::fs::setxattr(
            &*path,
            c"user.n",
            &n.to_le_bytes(),
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
    });
    mount.unmount();
}

/// A renamed file has a new ctime.
#[test]
fn attributes_of_a_file_from_before_its_rename_are_not_kept() {
    let Some((layers, mount)) = layers() else {
        return;
    };
    let (a, b) = (layers.at("f"), layers.at("g"));
    fs::hard_link(&a, layers.at("fixed")).unwrap();
    let one = std::sync::Mutex::new(());
    race(&layers, "fixed", |_| {
        let _one = one.lock().unwrap();
        fs::rename(&a, &b).unwrap();
        fs::rename(&b, &a).unwrap();
    });
    mount.unmount();
}

/// The times of a file that is written through a mapping.
#[test]
fn attributes_of_a_file_from_before_a_write_through_a_mapping_are_not_kept() {
    let Some((layers, mount)) = layers() else {
        return;
    };
    let path = layers.at("f");
    fs::write(&path, [0; 4096]).unwrap();
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let one = std::sync::Mutex::new(());
    race_and_wait(&layers, "f", Duration::from_millis(100), |n| {
        let _one = one.lock().unwrap();
        let map = support::mapping::Map::shared(&file, 4096);
        map.write(0, &n.to_le_bytes());
        map.sync();
    });
    drop(file);
    mount.unmount();
}
