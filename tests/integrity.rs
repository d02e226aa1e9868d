//! Data integrity: real and hard use of the data of copied-up files, compared with the same run on a plain directory.
//!
//! The worst bug of the peers (user report F#475): a sqlite database in WAL mode, copied up, with pages in wrong places;
//! small files overwritten by shorter ones that held old bytes, or zeros, at the new length. So: sqlite with mmap on a
//! database of a lower layer, shorter overwrites with O_TRUNC, readers that stay open, other sizes changing under
//! mappings, all under memory pressure, with the writeback cache and without.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use support::mapping::Map;
use support::story::{require_real_root, sh};
use support::{Base, Layers, Mount, Snapshot, diff_with, host};

/// A deterministic source of numbers: the run on the plain directory is the same run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Drops clean pages again and again, so that what was written must come back from the daemon and the disk.
fn under_pressure<R>(work: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                // Refused without root or in a container: then there is less pressure, and the comparison still holds.
                let _unless_refused = fs::write("/proc/sys/vm/drop_caches", "3");
                std::thread::sleep(std::time::Duration::from_millis(150));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// The mount words tried: every way the page cache can be used.
const CACHES: [&str; 3] = ["", "writeback", "timeout=0"];

/// Runs `work` on a plain copy of `setup`'s tree and on mounts over it; the trees must be equal, through the mount, after
/// a remount, and what lies in the upper must be what the mount shows.
fn equal_to_plain(setup: &str, work: impl Fn(&Path)) {
    if !(require_real_root()) {
        return;
    }
    let plain = Layers::new(Base::Disk, 1);
    sh(&plain.root, setup).unwrap();
    under_pressure(|| work(&plain.lowers[0]));
    let wanted = Snapshot::of(&plain.lowers[0]);
    let facets = support::Facets {
        xattrs: false,
        ..support::Facets::TREE
    };
    for words in CACHES {
        let layers = Layers::new(Base::Disk, 1);
        sh(&layers.root, setup).unwrap();
        let before = Snapshot::of(&layers.lowers[0]);
        let mount = Mount::acetate(&layers, words);
        under_pressure(|| work(&layers.merged));
        let got = Snapshot::of(&layers.merged);
        assert_eq!(
            diff_with(&wanted, &got, facets),
            Vec::<String>::new(),
            "{words}: plain | mounted"
        );
        mount.unmount();
        assert_eq!(
            diff_with(
                &before,
                &Snapshot::of(&layers.lowers[0]),
                support::Facets::REMOUNT
            ),
            Vec::<String>::new(),
            "{words}: the lower"
        );
        let mount = Mount::acetate(&layers, words);
        let again = Snapshot::of(&layers.merged);
        mount.unmount();
        assert_eq!(
            diff_with(&wanted, &again, facets),
            Vec::<String>::new(),
            "{words}: plain | after the remount"
        );
    }
}

/// A database of a lower layer, in WAL mode, read through a mapping, written by several connections, with checkpoints while
/// another connection reads; then a second database in rollback-journal mode, and a vacuum.
#[test]
fn sqlite_in_wal_mode_with_mmap_on_a_database_of_a_lower_layer() {
    if !host::require_program("sqlite3") {
        return;
    }
    let setup = "cd l0; for db in wal.db journal.db; do sqlite3 $db \"
        pragma page_size=4096; create table t(id integer primary key, n integer, text); create index i on t(n);
        with recursive c(x) as (select 1 union all select x+1 from c where x < 40000) insert into t select x, x * 7919 % 10007, hex(zeroblob(50 + x % 200)) from c;\"; done";
    equal_to_plain(setup, |root| {
        let database = |name: &str, script: String| {
            sh(
                root,
                &format!("sqlite3 -bail -batch {name} <<'E'\n.timeout 60000\n{script}\nE"),
            )
            .unwrap_or_else(|e| panic!("{e}"))
        };
        let pragmas = "pragma mmap_size=268435456;";
        let mode = database("wal.db", "pragma journal_mode=wal;".to_owned());
        assert_eq!(
            mode.trim(),
            "wal",
            "the file system must be able to hold the shared memory of the WAL"
        );
        std::thread::scope(|scope| {
            for writer in 0..3 {
                scope.spawn(move || {
                    for round in 0..6 {
                        // Ranges of ids of their own: the outcome does not depend on who comes first.
                        let (low, high) = (writer * 13_000, writer * 13_000 + 12_000);
                        database(
                            "wal.db",
                            format!(
                                "{pragmas} begin immediate; update t set text = hex(zeroblob(20 + (id * {round}) % 300)), n = n + 1 where id between {low} and {high} and id % 7 = {round};
                                 delete from t where id between {low} and {high} and id % 97 = {round}; commit; pragma wal_checkpoint(passive);"
                            ),
                        );
                    }
                });
            }
            scope.spawn(move || {
                for _ in 0..10 {
                    let said = database("wal.db", format!("{pragmas} pragma quick_check;"));
                    assert!(said.lines().any(|l| l == "ok"), "{said}");
                }
            });
        });
        let journal = format!(
            "{pragmas} pragma journal_mode=delete; begin; update t set text = 'short' where id % 3 = 0; delete from t where id > 30000; commit; vacuum; begin; delete from t; rollback; pragma integrity_check;"
        );
        assert!(database("journal.db", journal).ends_with("ok\n"));
        assert!(database("wal.db", format!("{pragmas} pragma integrity_check;")).ends_with("ok\n"));
        // The content as text, whose hash is compared: pages are laid out as the writers happened to come.
        for name in ["wal.db", "journal.db"] {
            let dump = database(
                name,
                format!("{pragmas} select id, n, text from t order by id;"),
            );
            fs::write(root.join(format!("{name}.dump")), dump).unwrap();
        }
        sh(root, "sqlite3 wal.db 'pragma wal_checkpoint(truncate); pragma journal_mode=delete;' >/dev/null; rm -f wal.db wal.db-wal wal.db-shm journal.db").unwrap();
    });
}

/// Files of a lower layer are overwritten shorter with O_TRUNC, longer, in the middle, truncated and extended, by
/// descriptors and mappings, while readers that were open before go on and must see nothing but what is in the file.
#[test]
fn random_overwrites_of_lower_files_with_readers_open_throughout() {
    let setup = "mkdir l0/d; for i in 0 1 2 3 4 5 6 7 8 9 10 11; do head -c $((i * 7001 + 100)) /dev/zero | tr '\\0' x > l0/d/$i; done; ln l0/d/3 l0/d/hard3";
    equal_to_plain(setup, |root| {
        let mut numbers = Numbers(475);
        let path = |n: u64| -> PathBuf { root.join(format!("d/{n}")) };
        let readers: Vec<_> = (0..12).map(|n| File::open(path(n)).unwrap()).collect();
        // In an emulated machine 187 rounds: each kind of change still comes dozens of times.
        for round in 0..u64::from(host::fewer(1500)) {
            let n = numbers.below(12);
            let text: Vec<u8> = (0..numbers.below(9000))
                .map(|i| (round + i) as u8)
                .collect();
            match numbers.below(8) {
                0 | 1 => fs::write(path(n), &text).unwrap(),
                2 => {
                    let file = File::options().write(true).open(path(n)).unwrap();
                    file.write_all_at(&text, numbers.below(40_000)).unwrap();
                }
                3 => File::options()
                    .write(true)
                    .open(path(n))
                    .unwrap()
                    .set_len(numbers.below(60_000))
                    .unwrap(),
                4 => {
                    use std::io::Write;
                    File::options()
                        .append(true)
                        .open(path(n))
                        .unwrap()
                        .write_all(&text)
                        .unwrap();
                }
                5 => {
                    let file = File::options()
                        .read(true)
                        .write(true)
                        .open(path(n))
                        .unwrap();
                    let len = file.metadata().unwrap().len() as usize;
                    if len > 0 {
                        let map = Map::shared(&file, len);
                        map.write(numbers.below(len as u64) as usize, b"m");
                        map.write(len - 1, b"e");
                    }
                }
                6 => {
                    let other = path(numbers.below(12));
                    let bytes = fs::read(&other).unwrap();
                    fs::write(root.join("d/tmp"), &bytes).unwrap();
                    fs::rename(root.join("d/tmp"), root.join(format!("d/new{n}"))).unwrap();
                }
                _ => {
                    let file = File::options().write(true).open(path(n)).unwrap();
                    let flags = rustix::fs::FallocateFlags::PUNCH_HOLE
                        | rustix::fs::FallocateFlags::KEEP_SIZE;
                    rustix::fs::fallocate(
                        &file,
                        flags,
                        numbers.below(5000),
                        1 + numbers.below(5000),
                    )
                    .unwrap();
                }
            }
            // The reader's descriptor and a new one see one file.
            let through_path = fs::read(path(n)).unwrap();
            let mut through_reader = vec![0; through_path.len() + 1];
            let got = read_full(&readers[n as usize], &mut through_reader);
            assert_eq!(
                got,
                through_path.len(),
                "round {round}: length through the reader's descriptor"
            );
            assert!(
                through_reader[..got] == through_path[..],
                "round {round}: file {n}: the open reader sees other bytes"
            );
        }
    });
}

fn read_full(file: &File, buffer: &mut [u8]) -> usize {
    let mut at = 0;
    while at < buffer.len() {
        match file.read_at(&mut buffer[at..], at as u64).unwrap() {
            0 => break,
            n => at += n,
        }
    }
    at
}

/// The second half of F#475: small files replaced in place by shorter ones, many at once, closed, the caches dropped, read.
#[test]
fn shorter_overwrites_of_many_small_lower_files() {
    let setup = "mkdir l0/s; i=0; while [ $i -lt 400 ]; do seq $i $((i + 200)) > l0/s/$i; i=$((i + 1)); done";
    equal_to_plain(setup, |root| {
        std::thread::scope(|scope| {
            for part in 0..4 {
                scope.spawn(move || {
                    let mut numbers = Numbers(part);
                    for i in (part..400).step_by(4) {
                        let path = root.join(format!("s/{i}"));
                        for round in 0..3 {
                            let text =
                                format!("{i} {round} ").repeat(1 + numbers.below(30) as usize);
                            fs::write(&path, &text).unwrap();
                            assert_eq!(
                                fs::read_to_string(&path).unwrap(),
                                text,
                                "{i}, round {round}"
                            );
                        }
                    }
                });
            }
        });
    });
}

/// A copy-up in the middle of reading and writing by many: the first write to a big lower file happens while readers are
/// half-way, and other writers wait for the same copy-up. Nobody sees a byte that was never there.
#[test]
fn readers_and_writers_during_one_copy_up() {
    equal_to_plain(
        "head -c 40000000 /dev/zero | tr '\\0' a > l0/big; ln l0/big l0/big2",
        |root| {
            let size = 40_000_000_u64;
            std::thread::scope(|scope| {
                for writer in 0..4_u64 {
                    scope.spawn(move || {
                        let name = if writer % 2 == 0 { "big" } else { "big2" };
                        let file = File::options().write(true).open(root.join(name)).unwrap();
                        for i in 0..50 {
                            file.write_all_at(
                                &[b'b' + writer as u8; 100],
                                (i * 4 + writer) * 200_000,
                            )
                            .unwrap();
                        }
                    });
                }
                for reader in 0..2 {
                    scope.spawn(move || {
                        let file = File::open(root.join(if reader == 0 { "big" } else { "big2" }))
                            .unwrap();
                        let mut buffer = vec![0; 1 << 20];
                        let mut at = 0;
                        while at < size {
                            let n = file.read_at(&mut buffer, at).unwrap();
                            assert!(n > 0, "the file ends at {at}");
                            assert!(
                                buffer[..n].iter().all(|b| (b'a'..=b'e').contains(b)),
                                "a byte that nobody wrote, near {at}"
                            );
                            at += n as u64;
                        }
                    });
                }
            });
            assert_eq!(root.join("big").metadata().unwrap().len(), size);
        },
    );
}

/// What the fsx crate does for buffered and mapped I/O (`scripts/conformance`), with O_DIRECT: random reads, writes, truncates,
/// punches and copies, odd and aligned, through a direct descriptor, a buffered one and a mapping of the same file, each read
/// checked against a model. `ACETATE_FSX_OPS`: how many operations, default 20,000 for each cache mode.
#[test]
fn direct_io_exerciser() {
    if !(require_real_root()) {
        return;
    }
    let operations: u64 = std::env::var("ACETATE_FSX_OPS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20_000);
    let seed: u64 = std::env::var("ACETATE_SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1);
    for words in CACHES {
        let layers = Layers::new(Base::Disk, 1);
        let mut model = vec![b'l'; 200_000];
        fs::write(layers.lowers[0].join("f"), &model).unwrap();
        let mount = Mount::acetate(&layers, words);
        let mut exerciser = Exerciser::open(&layers.at("f"), seed);
        for operation in 0..operations {
            exerciser
                .step(&mut model)
                .unwrap_or_else(|e| panic!("{words}: seed {seed}, operation {operation}: {e}"));
        }
        drop(exerciser);
        assert!(
            fs::read(layers.at("f")).unwrap() == model,
            "{words}: at the end"
        );
        mount.unmount();
        assert!(
            fs::read(layers.upper.join("f")).unwrap() == model,
            "{words}: in the upper"
        );
    }
}

struct Exerciser {
    direct: File,
    buffered: File,
    numbers: Numbers,
}

/// The size the file may grow to.
const MOST: u64 = 262_144;

impl Exerciser {
    fn open(path: &Path, seed: u64) -> Self {
        use std::os::unix::fs::OpenOptionsExt;
        let options = || File::options().read(true).write(true).clone();
        Self {
            direct: options().custom_flags(libc::O_DIRECT).open(path).unwrap(),
            buffered: options().open(path).unwrap(),
            numbers: Numbers(seed),
        }
    }

    fn step(&mut self, model: &mut Vec<u8>) -> Result<(), String> {
        let align = [1, 512, 4096][self.numbers.below(3) as usize];
        let at = self.numbers.below(MOST - 70_000) / align * align;
        let len = ((1 + self.numbers.below(65_000)) / align * align).max(align.min(512)) as usize;
        let file = if self.numbers.below(4) == 0 {
            &self.buffered
        } else {
            &self.direct
        };
        let (start, end) = (at as usize, at as usize + len);
        match self.numbers.below(10) {
            0..=3 => {
                let mut got = vec![0; len];
                let n = read_some(file, &mut got, at)?;
                let wanted = &model[start.min(model.len())..end.min(model.len())];
                if got[..n] != *wanted {
                    return Err(format!(
                        "read of {len} at {at}: {n} bytes, wanted {}; first difference at {:?}",
                        wanted.len(),
                        got.iter().zip(wanted).position(|(a, b)| a != b)
                    ));
                }
            }
            4..=6 => {
                let byte = self.numbers.below(256) as u8;
                let text: Vec<u8> = (0..len).map(|i| byte.wrapping_add((i / 7) as u8)).collect();
                file.write_all_at(&text, at)
                    .map_err(|e| format!("write of {len} at {at}: {e}"))?;
                if model.len() < end {
                    model.resize(end, 0);
                }
                model[start..end].copy_from_slice(&text);
            }
            7 => {
                file.set_len(at)
                    .map_err(|e| format!("truncate to {at}: {e}"))?;
                model.resize(start, 0);
            }
            8 => {
                let flags =
                    rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(file, flags, at, len as u64)
                    .map_err(|e| format!("punch: {e}"))?;
                let (start, end) = (start.min(model.len()), end.min(model.len()));
                model[start..end].fill(0);
            }
            _ if model.len() > 4096 => {
                let map = Map::shared(&self.buffered, model.len());
                let at = start.min(model.len() - 1000);
                if map.read(at, 1000) != model[at..at + 1000] {
                    return Err(format!("mapping at {at}"));
                }
                map.write(at, b"through the mapping");
                map.sync();
                model[at..at + 19].copy_from_slice(b"through the mapping");
            }
            _ => {}
        }
        let size = self.direct.metadata().map_err(|e| e.to_string())?.len();
        if size != model.len() as u64 {
            return Err(format!("size {size}, wanted {}", model.len()));
        }
        Ok(())
    }
}

fn read_some(file: &File, buffer: &mut [u8], at: u64) -> Result<usize, String> {
    let mut got = 0;
    while got < buffer.len() {
        match file
            .read_at(&mut buffer[got..], at + got as u64)
            .map_err(|e| format!("read at {at}: {e}"))?
        {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}
