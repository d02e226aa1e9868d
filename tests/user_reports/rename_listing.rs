//! Section B, second part: listings while the directory changes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{RawDir, SeekFrom};

use crate::support::Base;
use crate::support::story::{on_ours, sh};

/// One getdents64 call with a buffer of `size` bytes: names with the offset to go on behind each.
fn getdents(fd: impl AsFd, size: usize) -> Vec<(String, u64)> {
    let mut buffer = vec![MaybeUninit::uninit(); size];
    let mut dir = RawDir::new(fd, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = dir.next() {
        let entry = entry.unwrap();
        names.push((
            entry.file_name().to_str().unwrap().to_owned(),
            entry.next_entry_cookie(),
        ));
        if dir.is_buffer_empty() {
            break;
        }
    }
    names.retain(|(name, _)| name != "." && name != "..");
    names
}

fn open(path: &Path) -> File {
    File::open(path).unwrap()
}

fn ours(entries: usize, work: impl Fn(&Path)) {
    let half = entries / 2;
    let setup = format!(
        "mkdir l0/d l1/d; cd l1/d; seq -f lower%.0f {half} | xargs touch; cd ../../l0/d; seq -f top%.0f {half} | xargs touch; rm -f top1; mknod lower1 c 0 0"
    );
    on_ours(Base::Shm, 2, &setup, "", |layers, _| work(&layers.at("d")));
}

/// F#46, MM#24603: a file unlinked in the middle of a listing was still listed, and `rm -r` went round in circles.
/// Unlink what each call returned, with a small buffer, 100,000 entries (12,500 in an emulated machine, still hundreds of
/// calls): all are seen once, none is left.
#[test]
fn f46_unlinking_what_a_listing_returned_empties_the_directory() {
    let count = crate::support::host::fewer(100_000) as usize;
    ours(count, |dir| {
        let fd = open(dir);
        let mut seen = BTreeMap::new();
        loop {
            let names = getdents(&fd, 2000);
            if names.is_empty() {
                break;
            }
            for (name, _) in names {
                fs::remove_file(dir.join(&name))
                    .unwrap_or_else(|e| panic!("listed, but not there: {name}: {e}"));
                *seen.entry(name).or_insert(0) += 1;
            }
        }
        assert_eq!(
            seen.len(),
            count - 2,
            "one by one, each name was to be seen"
        );
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
        // A second listing through the same descriptor, from the start.
        rustix::fs::seek(&fd, SeekFrom::Start(0)).unwrap();
        assert_eq!(getdents(&fd, 2000), []);
    });
}

/// The other half of F#46: seekdir(3) to any remembered place gives what followed it then.
#[test]
fn f46_seekdir_to_any_remembered_place() {
    ours(3_000, |dir| {
        let fd = open(dir);
        let mut all = Vec::new();
        loop {
            let names = getdents(&fd, 1000);
            if names.is_empty() {
                break;
            }
            all.extend(names);
        }
        assert_eq!(all.len(), 2_998);
        for i in [0, 1, 500, 1499, 2996, 17, 2000] {
            rustix::fs::seek(&fd, SeekFrom::Start(all[i].1)).unwrap();
            let next = getdents(&fd, 1000);
            assert_eq!(next[0].0, all[i + 1].0, "after the entry {i}");
        }
        rustix::fs::seek(&fd, SeekFrom::Start(all.last().unwrap().1)).unwrap();
        assert_eq!(getdents(&fd, 1000), [], "behind the last");
    });
}

/// openwrt/packages#28291: entries were listed twice or not at all, because offsets shifted while names were inserted.
/// Creates and unlinks between the calls: every name that was there all the time appears exactly once.
#[test]
fn openwrt28291_offsets_are_stable_while_names_come_and_go() {
    ours(20_000, |dir| {
        let fd = open(dir);
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut calls = 0;
        loop {
            let names = getdents(&fd, 4000);
            if names.is_empty() {
                break;
            }
            for (name, _) in names {
                *seen.entry(name).or_default() += 1;
            }
            fs::write(dir.join(format!("new{calls}")), "").unwrap();
            // Names that the listing may or may not have passed.
            for name in [
                format!("lower{}", 2 + calls * 10),
                format!("top{}", 5_000 + calls),
            ] {
                fs::remove_file(dir.join(name)).unwrap();
            }
            calls += 1;
        }
        assert!(calls > 20, "too few calls to tell: {calls}");
        let gone = |name: &str| {
            (0..calls).any(|c| {
                name == format!("lower{}", 2 + c * 10) || name == format!("top{}", 5_000 + c)
            })
        };
        for i in 2..=10_000 {
            for name in [format!("lower{i}"), format!("top{i}")] {
                let times = seen.get(&name).copied().unwrap_or(0);
                assert!(
                    times == 1 || (times == 0 && gone(&name)),
                    "{name} was listed {times} times"
                );
            }
        }
        assert!(seen.values().all(|&n| n == 1), "a name listed twice");
    });
}

/// A directory handle of the peers was a snapshot for ever (peer bug B6): after rewinddir a new entry shows.
#[test]
fn b6_a_rewound_handle_shows_new_entries() {
    ours(10, |dir| {
        let fd = open(dir);
        assert_eq!(getdents(&fd, 30_000).len(), 8);
        fs::write(dir.join("later"), "").unwrap();
        sh(dir, "rm lower2").unwrap();
        rustix::fs::seek(&fd, SeekFrom::Start(0)).unwrap();
        let names: Vec<_> = getdents(&fd, 30_000)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(
            names.contains(&"later".to_owned()) && !names.contains(&"lower2".to_owned()),
            "{names:?}"
        );
    });
}

// F#291, F#320, F#190, F#298, F#462 (changes made behind the mount's back in a layer are not seen): lowers are immutable
// while mounted, by design and documented, as on the kernel; a refresh call is a wish of section M, so no test stands
// here.
