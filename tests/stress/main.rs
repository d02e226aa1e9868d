//! Four processes at once in one mounted tree, then: what the live mount shows must be what a remount shows.
//!
//! Every FUSE overlay we know fails this: names listed that cannot be looked up, files lost, links counted wrong.
//! Each process works in a directory of its own, where every answer is known (`private.rs`), and in directories
//! all share, where only the kinds of errors are known (`shared.rs`). Files verify themselves (`block.rs`).
//!
//! | variable | meaning |
//! |---|---|
//! | `STRESS_SECONDS` | length of each run (default 20) |
//! | `STRESS_SEED` | seed (printed; default: the time) |
//! | `STRESS_KERNEL` | also run on kernel overlayfs, to test the test |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod block;
mod cached;
mod private;
mod shared;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use block::FileId;
use support::{Base, Facets, Kind, Layers, Mount, Snapshot, diff_with};
use support::{require_fuse, require_kernel_overlay, require_root};

const WORKERS: u64 = 4;
/// Directories that all processes use; `0..3` exist in a lower, with files.
const SHARED: &[&str] = &["s0", "s1", "s2", "s3"];

/// A small generator of our own: a process must not share one.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .map_or(default, |text| text.parse().unwrap())
}

/// Two lowers: shared directories with files, hard links among them, and a private directory per process.
fn lowers(layers: &Layers) {
    for (i, lower) in layers.lowers.iter().enumerate() {
        for dir in &SHARED[i..3] {
            fs::create_dir(lower.join(dir)).unwrap();
            for n in 0..12 {
                let path = lower.join(dir).join(format!("n{n}"));
                block::create(
                    &path,
                    &FileId::new(format!("lower{i}-{dir}-{n}")),
                    1 + n % 4,
                )
                .unwrap();
                if n % 3 == 0 {
                    fs::hard_link(&path, lower.join(dir).join(format!("n{}", 20 + n))).unwrap();
                }
            }
            fs::create_dir_all(lower.join(dir).join("sub/deep")).unwrap();
        }
        for worker in 0..WORKERS {
            let own = lower.join(format!("p{worker}"));
            fs::create_dir(&own).unwrap();
            for n in 0..8 {
                let id = FileId::new(format!("lower{i}-p{worker}-{n}"));
                block::create(&own.join(format!("l{i}-{n}")), &id, 2).unwrap();
            }
        }
    }
}

fn run(kind: Kind, options: &str) {
    let (seconds, seed) = (
        number("STRESS_SECONDS", 20),
        std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
    );
    let seed = number("STRESS_SEED", seed);
    eprintln!("stress {kind:?} {options:?}: STRESS_SEED={seed}, {seconds} s");
    support::host::own_mounts();
    let layers = Layers::new(Base::Shm, 2);
    lowers(&layers);
    let mount = Mount::with(kind, &layers, options);
    let workers: Vec<_> = (0..WORKERS)
        .map(|id| {
            Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "worker",
                    "--ignored",
                    "--nocapture",
                    "--test-threads=1",
                ])
                .env("STRESS_WORKER", id.to_string())
                .env("STRESS_ROOT", &layers.merged)
                .env("STRESS_SEED", seed.to_string())
                .env("STRESS_SECONDS", seconds.to_string())
                .spawn()
                .unwrap()
        })
        .collect();
    let forgetting = AtomicBool::new(true);
    let ended: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(|| forget(&layers.merged, &forgetting));
        let ended = workers
            .into_iter()
            .map(|mut w| w.wait().unwrap().success())
            .collect();
        forgetting.store(false, Ordering::Release);
        ended
    });
    let live = Snapshot::of(&layers.merged);
    let stale = cached::stale(&layers.merged, &live).unwrap();
    mount.unmount();
    let again = Mount::with(kind, &layers, options);
    let remounted = Snapshot::of(&layers.merged);
    let one_file_each = names_of_one_file(&layers.merged, &remounted);
    again.unmount();
    assert_eq!(
        stale,
        Vec::<String>::new(),
        "the kernel keeps what is not so"
    );
    let lines = diff_with(&live, &remounted, Facets::REMOUNT);
    eprintln!(
        "stress {kind:?} {options:?}: {} objects at the end",
        live.objects.len()
    );
    assert!(
        lines.is_empty(),
        "live | remounted, {} differences:\n{}",
        lines.len(),
        lines[..lines.len().min(40)].join("\n")
    );
    assert_eq!(
        one_file_each,
        Vec::<String>::new(),
        "files that lost their identity"
    );
    assert_eq!(
        ended,
        vec![true; WORKERS as usize],
        "a worker saw something wrong (its message is above)"
    );
    if kind == Kind::Acetate && require_kernel_overlay() {
        let kernel = Mount::kernel(&layers, "redirect_dir=on,index=on,metacopy=on");
        let lines = diff_with(&remounted, &Snapshot::of(&layers.merged), Facets::TREE);
        kernel.unmount();
        assert!(
            lines.is_empty(),
            "acetate | kernel on the same upper:\n{}",
            lines[..lines.len().min(40)].join("\n")
        );
    }
}

/// Makes the kernel forget every name and file that nobody uses, again and again, as it does when memory runs short:
/// a remount drops the names of that file system alone. What is known of a file is then less than it has.
fn forget(merged: &Path, go_on: &AtomicBool) {
    while go_on.load(Ordering::Acquire) {
        rustix::mount::mount_remount(merged, rustix::mount::MountFlags::empty(), c"").unwrap();
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Every file carries an identity that was given once: names of different inodes with one identity mean that a
/// copy-up broke a hard link, or that a write went to the wrong file.
fn names_of_one_file(root: &Path, tree: &Snapshot) -> Vec<String> {
    let mut seen: BTreeMap<FileId, (u64, String)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, object) in tree.objects.iter().filter(|(_, o)| o.kind == 'f') {
        match block::verify(&root.join(name)) {
            Err(e) => wrong.push(format!("{name}: {e}")),
            Ok(None) => {}
            Ok(Some(id)) => {
                let first = seen
                    .entry(id.clone())
                    .or_insert_with(|| (object.ino, name.clone()));
                if first.0 != object.ino {
                    wrong.push(format!(
                        "{name} and {} are two files with the identity {id:?}",
                        first.1
                    ));
                }
            }
        }
    }
    wrong
}

#[test]
#[ignore = "one of the processes of the other tests"]
fn worker() {
    let Some(id) = std::env::var("STRESS_WORKER").ok() else {
        return;
    };
    let root = std::path::PathBuf::from(std::env::var_os("STRESS_ROOT").unwrap());
    let id: u64 = id.parse().unwrap();
    let mut random = Random(number("STRESS_SEED", 0) ^ (id << 32));
    let end = Instant::now() + Duration::from_secs(number("STRESS_SECONDS", 20));
    let mut private = private::Private::new(&root.join(format!("p{id}")), id);
    let mut shared = shared::Shared::new(&root, id);
    while Instant::now() < end {
        if random.below(3) == 0 {
            private.step(&mut random);
        } else {
            shared.step(&mut random);
        }
    }
    private.check();
    eprintln!(
        "  worker {id}: {} private and {} shared operations",
        private.done, shared.done
    );
    assert!(
        private.done > 20 && shared.done > 20,
        "hardly anything was done"
    );
}

#[test]
fn four_processes_leave_the_tree_that_a_remount_shows() {
    if require_root() && require_fuse() {
        run(Kind::Acetate, "");
    }
}

/// With four descriptors to cache almost every read and write reopens its file, while names move.
#[test]
fn four_processes_with_four_cached_descriptors() {
    if !(require_root() && require_fuse()) {
        return;
    }
    if support::mount::is_peer(&support::mount::acetate_bin()) {
        support::skip("the peer has no fd_cache option");
        return;
    }
    run(Kind::Acetate, "fd_cache=4");
}

#[test]
#[ignore = "tests the test: run with STRESS_KERNEL=1"]
fn four_processes_on_the_kernel() {
    if require_root() && require_kernel_overlay() && std::env::var_os("STRESS_KERNEL").is_some() {
        run(Kind::Kernel, "redirect_dir=on,index=on");
    }
}
