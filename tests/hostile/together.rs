//! Several calls at once: nobody waits for somebody else's copy, and no call fails because another one was faster.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::story::sh;
use crate::support::{Base, Layers, Mount};
use crate::{Watch, able, code};

/// Lowers with one big file of several names, and one of a single name.
const BIG: &str = "mkdir l0/d l0/beside; head -c 600000000 /dev/zero | tr '\\0' x > l0/big; ln l0/big l0/second; head -c 600000000 l0/big > l0/single; echo small > l0/small";

/// Where files have flags for chattr: tmpfs has none before Linux 6.6.
fn base_with_flags() -> Base {
    let probe = Layers::new(Base::Shm, 1);
    match sh(&probe.lowers[0], ": > f; chattr +A f") {
        Ok(_) => Base::Shm,
        Err(_) => Base::Disk,
    }
}

/// Runs `long` beside a row of lookups on a mount with a single event loop; how many of them were answered within it.
fn answered_beside(big: &Layers, base: Base, words: &str, long: &str) -> (usize, Duration) {
    let layers = big.sibling(base);
    let words = format!(
        "max_threads=1,timeout=0{}{words}",
        if words.is_empty() { "" } else { "," }
    );
    let mount = Mount::acetate(&layers, &words);
    let watch = Watch::over(&mount);
    fs::write(layers.at("d/new"), "new").unwrap();
    // By its descriptor: the client's kernel locks the directories of a rename, and others wait there whoever serves them.
    let open = File::open(layers.at("beside")).unwrap();
    let beside = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    let done = AtomicBool::new(false);
    let window = Mutex::new(None);
    let (answered, result) = std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let start = Instant::now();
            let result = sh(&layers.merged, long);
            *window.lock().unwrap() = Some((start, Instant::now()));
            done.store(true, Ordering::Release);
            result
        });
        let mut rounds = Vec::new();
        while !done.load(Ordering::Acquire) {
            let start = Instant::now();
            let missing = code(fs::symlink_metadata(
                beside.join(format!("missing{}", rounds.len())),
            ));
            assert_eq!(missing, Err(libc::ENOENT));
            rounds.push((start, Instant::now()));
            std::thread::sleep(Duration::from_millis(1));
        }
        (rounds, job.join().unwrap())
    });
    drop((open, watch));
    mount.unmount();
    result.unwrap_or_else(|e| panic!("{long}: {e}"));
    let (from, to) = window.into_inner().unwrap().unwrap();
    // The program that makes the call starts and ends too; only answers of the middle half count.
    let (from, to, all) = (from + (to - from) / 4, to - (to - from) / 4, to - from);
    (
        answered
            .iter()
            .filter(|(a, b)| *a >= from && *b <= to)
            .count(),
        all,
    )
}

/// Finding 15: three kinds of long copies ran in an event loop, and as many such calls as there were loops stopped the whole mount.
/// Here there is one loop; while any call copies, others are answered.
#[test]
fn finding_15_no_long_copy_stops_the_mount() {
    if !able() {
        return;
    }
    let base = base_with_flags();
    let big = Layers::new(base, 1);
    sh(&big.root, BIG).unwrap();
    let mut stalled = Vec::new();
    for (words, long) in [
        ("", "echo x >> single"),
        ("", "mv d/new big"),
        ("", "chattr +A single"),
        ("", "chattr +A second"),
        ("metacopy=on", "chmod 600 second"),
        ("metacopy=on", "chown 5:6 second"),
        ("metacopy=on", "chattr +A single"),
        ("", "touch -d 2001-01-01 second"),
        ("", "ln second third"),
        ("", "setfattr -n trusted.x -v y second"),
        ("", "mv big d/big"),
        ("", "rm big"),
        ("", "truncate -s 500000000 second"),
    ] {
        let (answered, took) = answered_beside(&big, base, words, long);
        let quick = took < Duration::from_millis(60);
        let line = format!(
            "`{long}` ({words}) took {took:?}, and {answered} lookups were answered meanwhile"
        );
        println!("{line}");
        if !quick && answered < 3 {
            stalled.push(line);
        }
    }
    assert!(stalled.is_empty(), "{stalled:#?}");
}

/// Renames of everything to everywhere until the time is up; every result is one of `allowed`.
fn rename_storm(root: &Path, seed: usize, until: Instant, count: &AtomicUsize) -> Vec<i32> {
    let mut strange = Vec::new();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    };
    while Instant::now() < until {
        let (from, to) = (random(6), random(6));
        let path = |i: usize, f: usize| root.join(format!("d{}/f{f}", i % 3));
        let (a, b) = (path(from, random(6)), path(to, random(6)));
        let result = match random(10) {
            0 => fs::write(&a, "new"),
            1 => fs::remove_file(&a),
            2 => fs::hard_link(&a, &b),
            3 => File::options()
                .append(true)
                .open(&a)
                .and_then(|mut f| f.write_all(b"+")),
            _ => fs::rename(&a, &b),
        };
        count.fetch_add(1, Ordering::Relaxed);
        match code(result) {
            Ok(()) | Err(libc::ENOENT | libc::EEXIST) => {}
            Err(errno) => strange.push(errno),
        }
    }
    strange
}

/// Finding 19: a rename whose preparation was overtaken by another call ended with EBUSY; no kernel does that. Whatever happens
/// beside it, a rename gives what some order of the calls would give.
#[test]
fn finding_19_a_rename_beside_others_never_says_ebusy() {
    if !able() {
        return;
    }
    for words in ["index=off", ""] {
        let layers = Layers::new(Base::Shm, 2);
        sh(&layers.root, "for d in 0 1 2; do mkdir l0/d$d l1/d$d; for f in 0 1 2 3 4 5; do echo $d$f > l1/d$d/f$f; done; ln l1/d$d/f0 l1/d$d/again; done").unwrap();
        let mount = Mount::acetate(&layers, words);
        let watch = Watch::over(&mount);
        let (until, count) = (Instant::now() + Duration::from_secs(4), AtomicUsize::new(0));
        let strange: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (1..=8)
                .map(|seed| {
                    scope.spawn({
                        let (root, count) = (&layers.merged, &count);
                        move || rename_storm(root, seed, until, count)
                    })
                })
                .collect();
            all.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        drop(watch);
        mount.unmount();
        println!(
            "{} calls, {} strange",
            count.load(Ordering::Relaxed),
            strange.len()
        );
        assert!(
            strange.is_empty(),
            "{words}: errnos {strange:?} in {} calls",
            count.load(Ordering::Relaxed)
        );
    }
}
