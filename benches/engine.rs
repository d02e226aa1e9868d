//! The engine without a mount, through the library's own functions: a regression shows without /dev/fuse.
//!
//! Layers lie in /dev/shm where there is one, so that the disk is not what is measured. Needs root, as layers do.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use tempfile::TempDir;

use acetate::fuse::counters::{Counters, Op};
use acetate::fuse::serving::Serving;
use acetate::idmap::{IdExtent, IdMap};
use acetate::overlay::Overlay;
use acetate::overlay::inode::node::Node;
use acetate::overlay::ops::ensure_upper::Need;
use acetate::overlay::options::{LowerArg, Options};

const LAYERS: [usize; 3] = [1, 10, 100];
/// Files that are copied up on one mount.
const COPIED: u64 = 200;

/// Lower layers and an upper, removed when dropped.
struct Stack {
    dir: TempDir,
    count: usize,
}

impl Stack {
    fn new(count: usize) -> Self {
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() {
            TempDir::new_in(shm)
        } else {
            TempDir::new()
        };
        let stack = Stack {
            dir: dir.unwrap(),
            count,
        };
        for i in 0..count {
            fs::create_dir_all(stack.lower(i).join("d")).unwrap();
        }
        stack
    }

    /// A lower layer; 0 is the uppermost.
    fn lower(&self, i: usize) -> std::path::PathBuf {
        self.dir.path().join(format!("l{i}"))
    }

    fn lowest(&self) -> std::path::PathBuf {
        self.lower(self.count - 1)
    }

    /// Opens the layers with an empty upper.
    fn open(&self) -> Overlay {
        let [upper, work] = ["upper", "work"].map(|name| {
            let path = self.dir.path().join(name);
            if path.exists() {
                fs::remove_dir_all(&path).unwrap();
            }
            fs::create_dir(&path).unwrap();
            path
        });
        let lower = |i| LowerArg {
            path: self.lower(i),
            data_only: false,
            beside: None,
        };
        let options = Options {
            lowers: (0..self.count).map(lower).collect(),
            upper: Some(upper),
            work: Some(work),
            ..Options::default()
        };
        Overlay::open(&options).unwrap()
    }
}

/// The directory `d`, known to the kernel as a directory is that is asked in: a node given back never waits for it.
fn dir_of(overlay: &Overlay) -> Arc<Node> {
    let dir = overlay.lookup(overlay.root(), b"d").unwrap().unwrap().node;
    overlay.remember(&dir);
    dir
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    for count in LAYERS {
        let stack = Stack::new(count);
        fs::write(stack.lowest().join("d/file"), "x").unwrap();
        let overlay = stack.open();
        let dir = dir_of(&overlay);
        // The node is given back each time, as a FORGET does, so it is found and made anew.
        group.bench_function(BenchmarkId::new("hit", count), |b| {
            b.iter(|| {
                let entry = overlay.lookup(&dir, black_box(b"file")).unwrap().unwrap();
                overlay.release(entry.node);
            });
        });
        group.bench_function(BenchmarkId::new("miss", count), |b| {
            b.iter(|| {
                assert!(
                    overlay
                        .lookup(&dir, black_box(b"missing"))
                        .unwrap()
                        .is_none()
                )
            });
        });
    }
    group.finish();
}

/// The first listing of a directory of 10,000 names that the layers share.
fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge 10000 names");
    group.sample_size(10);
    for count in LAYERS {
        let stack = Stack::new(count);
        for i in 0..10_000 {
            fs::write(stack.lower(i % count).join(format!("d/file{i}")), "").unwrap();
        }
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter_batched(
                || stack.open(),
                |overlay| {
                    assert_eq!(overlay.listing(&dir_of(&overlay)).unwrap().len(), 10_000);
                    overlay
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Copies `count` files up on a fresh upper; only the copies are timed.
fn copy_some(stack: &Stack, count: u64) -> Duration {
    let overlay = stack.open();
    let dir = dir_of(&overlay);
    let nodes: Vec<_> = (0..count)
        .map(|i| {
            overlay
                .lookup(&dir, format!("f{i}").as_bytes())
                .unwrap()
                .unwrap()
                .node
        })
        .collect();
    let start = Instant::now();
    for node in &nodes {
        overlay.ensure_upper(node, Need::Data).unwrap();
    }
    start.elapsed()
}

fn copy_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("copy-up");
    group.sample_size(10);
    for (name, bytes) in [("4 KiB", 4096), ("1 MiB", 1 << 20)] {
        let stack = Stack::new(1);
        for i in 0..COPIED {
            fs::write(stack.lowest().join(format!("d/f{i}")), vec![7_u8; bytes]).unwrap();
        }
        group.bench_function(name, |b| {
            b.iter_custom(|wanted| {
                let mut left = wanted;
                let mut spent = Duration::ZERO;
                while left > 0 {
                    let now = left.min(COPIED);
                    spent += copy_some(&stack, now);
                    left -= now;
                }
                spent
            });
        });
    }
    group.finish();
}

fn id_mapping(c: &mut Criterion) {
    let mut group = c.benchmark_group("id mapping");
    // 1 is a user alone, 2 one with subordinate ids, 340 the most that a kernel's map holds.
    for count in [0_u32, 1, 2, 340] {
        let extent = |i| IdExtent {
            disk: i * 100,
            view: 100_000 + i * 100,
            count: 100,
        };
        let map = IdMap::new((0..count).map(extent).collect(), None);
        let last = count.saturating_sub(1) * 100 + 99;
        group.bench_function(BenchmarkId::new("to view", count), |b| {
            b.iter(|| map.to_view(black_box(last)))
        });
        group.bench_function(BenchmarkId::new("to disk", count), |b| {
            b.iter(|| map.to_disk(black_box(100_000 + last)));
        });
    }
    group.finish();
}

/// The time that this thread has run: other programs that want the processor do not count.
fn own_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// What the figures of `acetate stats` cost each request, alone and beside another thread that counts the same.
fn counting(c: &mut Criterion) {
    let counters = Counters::start();
    let mut group = c.benchmark_group("counting a request");
    let counted = |b: &mut criterion::Bencher<'_>| {
        b.iter_custom(|n| {
            let start = own_time();
            for _ in 0..n {
                drop(Serving::begin(counters, None, black_box(Op::Lookup), None));
            }
            own_time() - start
        });
    };
    group.bench_function("one thread", counted);
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop(Serving::begin(counters, None, black_box(Op::Lookup), None));
            }
        });
        group.bench_function("beside a second thread", counted);
        over.store(true, Ordering::Relaxed);
    });
    group.bench_function("two readings of the clock, nothing counted", |b| {
        b.iter_custom(|n| {
            let start = own_time();
            for _ in 0..n {
                black_box(black_box(Instant::now()).elapsed());
            }
            own_time() - start
        });
    });
    group.finish();
}

criterion_group!(benches, lookup, merge, copy_up, id_mapping, counting);
criterion_main!(benches);
