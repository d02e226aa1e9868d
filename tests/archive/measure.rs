//! How fast without a store, beside GNU tar on the same disk in the same run. Not a part
//! of the usual tests: a busy machine would fail them. Of the program itself
//! `scripts/compare-store` tells the times, on a disk that is made for it; for these
//! give TMPDIR on such a one:
//!
//! `cargo test --release --test archive -- --ignored --nocapture measure`

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use acetate::archive::{Compress, PackOptions, Sync, UnpackOptions, pack, unpack};
use acetate::sys::dir;

use super::{Base, real};

/// What is packed: `ACETATE_MEASURE_FILES` files of 10 KiB in the mean, else 50,000.
fn files() -> usize {
    let asked = std::env::var("ACETATE_MEASURE_FILES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(50_000)
}

const ROUNDS: usize = 3;

/// Files of sizes as in a system's root: many small, some large.
fn make_tree(root: &Path) {
    let mut state = 7u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut noise = vec![0u8; 1 << 20];
    // Bytes that shrink about as programs and texts do.
    for chunk in noise.chunks_mut(16) {
        let value = random();
        chunk[..8].copy_from_slice(&value.to_le_bytes());
    }
    let files = files();
    let mut left = files * 10_486;
    for n in 0..files {
        let dir = root.join(format!("d{:02}/e{:02}", n / 2500, n / 50 % 50));
        if n % 50 == 0 {
            std::fs::create_dir_all(&dir).unwrap();
        }
        let mean = left / (files - n);
        let size = if n % 100 == 0 {
            mean * 40
        } else {
            mean * 6 / 10
        };
        let size = size.min(noise.len() - 4096).min(left);
        let from = random() as usize % 4096;
        std::fs::write(dir.join(format!("file-{n:05}")), &noise[from..from + size]).unwrap();
        left -= size;
    }
}

/// Seconds on the wall, and of processors in this process and those it waited for.
#[derive(Clone, Copy, Debug)]
struct Cost {
    wall: f64,
    cpu: f64,
}

fn timed(what: impl FnOnce()) -> Cost {
    let (start, before) = (Instant::now(), cpu());
    what();
    Cost {
        wall: start.elapsed().as_secs_f64(),
        cpu: cpu() - before,
    }
}

/// Fields 14 to 17 of proc_pid_stat(5), in hundredths of a second.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(4)
        .map(|n| n.parse::<u64>().unwrap())
        .sum();
    ticks as f64 / 100.0
}

fn gnu_tar(args: &[&str], archive: &Path, dir: &Path) {
    let mut command = Command::new("tar");
    command.args(args).arg(archive).arg("-C").arg(dir).arg(".");
    assert!(command.status().unwrap().success());
}

fn ours(archive: &Path, into: &Path) {
    let root = dir::open_root(into).unwrap();
    let options = UnpackOptions {
        sync: Sync::No,
        ..UnpackOptions::new(real())
    };
    let source = File::open(archive).unwrap();
    unpack(source, root.as_fd(), &options, &mut |_| {}).unwrap();
}

/// The least of each.
fn best(costs: &[Cost]) -> Cost {
    let least = |of: fn(&Cost) -> f64| costs.iter().map(of).fold(f64::MAX, f64::min);
    Cost {
        wall: least(|c| c.wall),
        cpu: least(|c| c.cpu),
    }
}

/// Prints both; how many times as long as GNU tar ours took.
fn tell(what: &str, (theirs, ours): (Cost, Cost)) -> f64 {
    let ratio = ours.wall / theirs.wall;
    println!(
        "{what}: GNU tar {:.2} s ({:.2} of processors), ours {:.2} s ({:.2}), ratio {ratio:.2}",
        theirs.wall, theirs.cpu, ours.wall, ours.cpu
    );
    ratio
}

struct Bench {
    work: tempfile::TempDir,
    tree: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let work = tempfile::tempdir_in(Base::Disk.dir()).unwrap();
        let tree = work.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        make_tree(&tree);
        Bench { work, tree }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// Best times of GNU tar and of ours, turn about.
    fn import(&self, archive: &Path) -> (Cost, Cost) {
        let (mut theirs, mut our) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            for turn in 0..2 {
                // Nothing is removed before the end: ext4 looks long for inodes where
                // many were freed a moment ago, and the next one would pay for it.
                let into = tempfile::tempdir_in(self.work.path()).unwrap().keep();
                if (round + turn) % 2 == 0 {
                    theirs.push(timed(|| gnu_tar(&["-xpf"], archive, &into)));
                } else {
                    our.push(timed(|| ours(archive, &into)));
                }
            }
        }
        (best(&theirs), best(&our))
    }
}

fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
#[ignore = "measures"]
fn import_and_export_beside_gnu_tar() {
    let bench = Bench::new();
    let archive = bench.at("archive.tar");
    gnu_tar(&["-cf"], &archive, &bench.tree);
    reset_peak();
    let import = tell("import plain", bench.import(&archive));
    let memory = peak_mib();
    println!("import: peak {memory} MiB");
    for (name, program) in [("gz", "gzip"), ("zst", "zstd")] {
        let packed = bench.at(&format!("archive.tar.{name}"));
        let out = File::create(&packed).unwrap();
        let made = Command::new(program)
            .arg("-c")
            .arg(&archive)
            .stdout(out)
            .status();
        assert!(made.unwrap().success());
        tell(&format!("import {name}"), bench.import(&packed));
    }
    let (mut theirs, mut plain) = (Vec::new(), Vec::new());
    let root = dir::open_root(&bench.tree).unwrap();
    let out = bench.at("out.tar");
    reset_peak();
    for _ in 0..ROUNDS {
        theirs.push(timed(|| gnu_tar(&["-cf"], &out, &bench.tree)));
        plain.push(timed(|| {
            let out = File::create(&out).unwrap();
            pack(root.as_fd(), out, &PackOptions::new(real()), &mut |_| {}).unwrap();
        }));
    }
    let export = tell("export plain", (best(&theirs), best(&plain)));
    let export_memory = peak_mib();
    println!("export: peak {export_memory} MiB");
    for compress in [Compress::No, Compress::Gzip, Compress::Zstd] {
        let cost = timed(|| {
            let options = PackOptions {
                compress,
                ..PackOptions::new(real())
            };
            pack(root.as_fd(), std::io::sink(), &options, &mut |_| {}).unwrap();
        });
        println!("digests alone, compression {compress:?}: {cost:.2?}");
    }
    assert!(memory < 64 && export_memory < 64);
    assert!(import < 1.1, "import took {import:.2} times as long");
    assert!(export < 1.1, "export took {export:.2} times as long");
}
