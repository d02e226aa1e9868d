//! What came after the first twenty: crashes, open files that lose their last name, and mounts in a row.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::host::require_program;
use crate::support::story::{require_user_xattrs, sh};
use crate::support::{Base, Layers, Mount, skip};
use crate::{Watch, able, code, inside};

/// Finding 21: with `metacopy=on`, a crash within the O_TRUNC of a metacopied file left a file of the old size full of zeros, for
/// every reader: the mark that said "the data lies below" went before the size did. Old or empty, nothing between.
#[test]
fn finding_21_a_crash_while_a_metacopy_is_truncated_leaves_no_zeros() {
    if !(able() && require_program("strace")) {
        return;
    }
    for call in [
        "ftruncate",
        "truncate",
        "fremovexattr",
        "removexattr",
        "lremovexattr",
    ] {
        let layers = Layers::new(Base::Disk, 1);
        fs::write(layers.lowers[0].join("f"), "hello world").unwrap();
        inside(&layers, "metacopy=on", "chmod 600 f").unwrap();
        let mount = Mount::acetate(&layers, "metacopy=on");
        let watch = Watch::over(&mount);
        let pid = mount.pid().unwrap();
        let mut strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()])
            .args([
                "-e",
                &format!("trace={call}"),
                "-e",
                &format!("inject={call}:signal=KILL:when=1"),
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + crate::support::host::slowly(Duration::from_secs(10));
        let traced = || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
            let all: Vec<_> = tasks
                .map(|t| fs::read_to_string(t.path().join("status")).unwrap_or_default())
                .collect();
            all.iter().all(|s| !s.contains("TracerPid:\t0\n"))
        };
        while !traced() && Instant::now() < deadline && strace.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let attached = traced();
        if attached {
            let _perhaps_cut_off = fs::write(layers.at("f"), "");
        }
        drop(watch);
        mount.kill_daemon();
        let _ended_already = strace.kill();
        strace.wait().unwrap();
        if !attached {
            skip("strace cannot attach here");
            return;
        }
        let seen = inside(&layers, "metacopy=on", "cat f | tr '\\0' 0").unwrap();
        assert!(
            seen.is_empty() || seen == "hello world",
            "killed at {call}: {seen}"
        );
    }
}

/// Finding 22: the last names of an open, hard-linked file were removed while no descriptor was to spare: its link count was written to the
/// whiteout that had just taken its name. EPERM, though the name was gone on the disk, and it went on being listed.
#[test]
fn finding_22_the_last_name_of_an_open_hard_link_goes_without_an_error() {
    if !(able() && require_user_xattrs(Base::Disk)) {
        return;
    }
    for words in ["userxattr,fd_cache=4", "fd_cache=4"] {
        for place in ["l0", "upper"] {
            let layers = Layers::new(Base::Disk, 1);
            sh(
                &layers.root.join(place),
                "for i in 1 2 3 4 5 6 7 8; do echo $i > f$i; ln f$i h$i; done",
            )
            .unwrap();
            let mount = Mount::acetate(&layers, words);
            let watch = Watch::over(&mount);
            let open = |name: &str| {
                File::options()
                    .read(true)
                    .write(true)
                    .open(layers.at(name))
                    .unwrap()
            };
            let mut held = Vec::new();
            let mut removed = Vec::new();
            for i in 1..=8 {
                held.push((i, open(&format!("f{i}")), open(&format!("h{i}"))));
                removed.push(code(fs::remove_file(layers.at(&format!("f{i}")))));
                removed.push(code(fs::remove_file(layers.at(&format!("h{i}")))));
            }
            let left = sh(&layers.merged, "ls -A").unwrap();
            for (i, f, h) in &held {
                f.write_all_at(b"X", 0).unwrap();
                let mut text = [0; 2];
                h.read_exact_at(&mut text, 0).unwrap();
                assert_eq!(
                    (&text, h.metadata().unwrap().nlink()),
                    (b"X\n", 0),
                    "{words}, {place}: file {i}"
                );
            }
            drop(held);
            drop(watch);
            mount.unmount();
            assert_eq!(
                (removed, left.as_str()),
                (vec![Ok(()); 16], ""),
                "{words}, {place}"
            );
            assert_eq!(
                inside(&layers, words, "ls -A").unwrap(),
                "",
                "{words}, {place}, after a remount"
            );
        }
    }
}

/// Finding 23: a single caller met EBUSY in a rename over open, removed and hard-linked names (index=off, few descriptors): there was
/// nobody to be overtaken by.
#[test]
fn finding_23_a_single_caller_never_meets_ebusy() {
    if !able() {
        return;
    }
    for (seed, words) in (1..=6).flat_map(|s| [(s, "index=off,fd_cache=4"), (s, "fd_cache=4")]) {
        let layers = Layers::new(Base::Disk, 1);
        sh(
            &layers.lowers[0],
            "for i in 0 1 2 3 4 5; do echo $i > f$i; ln f$i h$i; done",
        )
        .unwrap();
        let mount = Mount::acetate(&layers, words);
        let watch = Watch::over(&mount);
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed) | 1;
        let mut random = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let mut held = Vec::new();
        let mut told = Vec::new();
        for step in 0..400 {
            let mut name = || {
                layers.at(&format!(
                    "{}{}",
                    ["f", "h", "r"][random(3) as usize],
                    random(6)
                ))
            };
            let (a, b) = (name(), name());
            let (what, result) = match random(7) {
                0 => (
                    "open",
                    File::options()
                        .read(true)
                        .write(true)
                        .open(&a)
                        .map(|f| held.push(f)),
                ),
                1 => ("write", fs::write(&a, "new")),
                2 => ("unlink", fs::remove_file(&a)),
                3 => ("link", fs::hard_link(&a, &b)),
                _ => ("rename", fs::rename(&a, &b)),
            };
            match code(result) {
                Ok(()) | Err(libc::ENOENT | libc::EEXIST) => {}
                Err(errno) => told.push(format!(
                    "step {step}: {what} {} {}: errno {errno}",
                    a.display(),
                    b.display()
                )),
            }
            if held.len() > 20 {
                held.remove(random(20) as usize);
            }
        }
        drop(held);
        drop(watch);
        mount.unmount();
        assert!(told.is_empty(), "seed {seed}, {words}: {told:#?}");
    }
}

/// Finding 24: the next mount of an upper, right after the umount of the last, was refused as "in use": the daemon that was going had not
/// let go yet. `podman stop; podman start` does just that.
#[test]
fn finding_24_an_upper_can_be_mounted_again_at_once() {
    if !able() {
        return;
    }
    let layers = Layers::new(Base::Disk, 1);
    let mut old = Vec::new();
    for round in 0..8 {
        let mount =
            Mount::try_acetate(&layers, "").unwrap_or_else(|e| panic!("round {round}: {e}"));
        let watch = Watch::over(&mount);
        fs::write(layers.at("f"), vec![round; 8 << 20]).unwrap();
        let gone = sh(&layers.root, "umount merged");
        drop(watch);
        // The daemon is waited for only at the end.
        old.push(mount);
        gone.unwrap();
    }
    drop(old);
    assert_eq!(
        inside(&layers, "", "head -c 1 f | od -An -tu1 | tr -d ' '").unwrap(),
        "7\n"
    );
}
