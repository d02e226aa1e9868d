//! How many system calls of the daemon each operation costs, counted by strace: pinned, so that one more fails here and
//! is meant. One less fails too, until [`TABLE`] says so.
//!
//! What is counted is all threads of the daemon, every reply among it. Not counted is the read(2) that waits for the next
//! request, one for each request (FORGETs come when the kernel likes), nor what threads and the allocator do for themselves. The
//! caller is root, layers are on tmpfs. `cargo test --test roundtrips system_calls -- --nocapture` prints the table with
//! the calls by name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, StatxFlags, XattrFlags};

use crate::support::host::require_program;
use crate::support::story::require_real_root;
use crate::support::{Base, Layers, Mount, skip};

/// How often an operation is done while it is counted: what happens by the way stays below half a call for each.
const TIMES: usize = 50;
/// Lowers, the lowest with everything; the others have the directories of the operations that are about them.
const LOWERS: usize = 30;
/// Names in a directory that is listed.
const LISTED: usize = 20;
/// How long strace may take to take hold of the daemon.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waiting, a look whether more requests are there (`src/fuse/polling.rs`), and memory; `total` is strace's last line.
const UNCOUNTED: &[&str] = &[
    "total",
    "read",
    "futex",
    "restart_syscall",
    "sched_yield",
    "mmap",
    "munmap",
    "mprotect",
    "madvise",
    "ppoll",
    "brk",
];

/// How many calls an operation may cost.
#[derive(Clone, Copy, Debug)]
enum Calls {
    /// So many.
    Exactly(u32),
    /// As many, or fewer: for what is not the same each time.
    #[allow(dead_code)]
    AtMost(u32),
}
use Calls::Exactly;

/// The table. Requests of each operation are in `main.rs`.
const TABLE: &[(&str, Calls)] = &[
    ("lookup of a name, first time", Exactly(2)),
    ("lookup of a missing name", Exactly(2)),
    ("lookup in one of 30 lowers", Exactly(2)),
    ("lookup in none of 30 lowers", Exactly(1)),
    ("getattr", Exactly(2)),
    ("read of 4 KiB", Exactly(2)),
    ("write of 100 bytes", Exactly(2)),
    ("create", Exactly(13)),
    ("mkdir", Exactly(13)),
    ("symlink", Exactly(13)),
    ("link", Exactly(14)),
    ("unlink", Exactly(9)),
    ("rmdir", Exactly(13)),
    ("rename of a file", Exactly(15)),
    ("first listing of 20 names", Exactly(29)),
    ("getxattr, present", Exactly(2)),
    ("getxattr, absent", Exactly(2)),
    ("chmod", Exactly(3)),
    ("copy-up of a small file", Exactly(29)),
];

/// An operation in a directory of the mount; `act` is done [`TIMES`] times, each time with another number.
struct Operation {
    name: &'static str,
    before: fn(&Path),
    act: fn(&Path, usize),
}

fn nothing(_: &Path) {}

fn numbered(dir: &Path, name: &str, i: usize) -> PathBuf {
    dir.join(format!("{name}{i}"))
}

fn each(make: impl Fn(usize)) {
    (0..TIMES).for_each(make);
}

/// The directory is in the upper, and all is there that the first change makes.
fn written(dir: &Path) {
    fs::write(dir.join("w"), [1; 100]).unwrap();
}

/// So many names were asked for in vain that the lowers have been listed.
fn known_lowers(dir: &Path) {
    (0..4).for_each(|i| drop(numbered(dir, "never", i).symlink_metadata().unwrap_err()));
}

fn new_files(dir: &Path) {
    each(|i| drop(File::create_new(numbered(dir, "n", i)).unwrap()));
}

fn synced_stat(path: &Path) {
    let flags = AtFlags::STATX_FORCE_SYNC;
    rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::BASIC_STATS).unwrap();
}

/// Past the page cache.
fn direct_read(dir: &Path, i: usize) {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(dir.join("large"))
        .unwrap();
    let mut memory = vec![0_u8; 8192];
    let from = memory.as_ptr().align_offset(4096);
    let page = &mut memory[from..from + 4096];
    file.read_exact_at(page, 4096 * i as u64).unwrap();
}

fn append(path: &Path) {
    let mut file = File::options().append(true).open(path).unwrap();
    file.write_all(b"more").unwrap();
}

fn operations() -> Vec<Operation> {
    let op = |name, before, act| Operation { name, before, act };
    vec![
        op("lookup of a name, first time", nothing, |d, i| {
            crate::stat(&numbered(d, "f", i));
        }),
        op("lookup of a missing name", nothing, |d, i| {
            drop(numbered(d, "no", i).symlink_metadata().unwrap_err());
        }),
        op("lookup in one of 30 lowers", known_lowers, |d, i| {
            crate::stat(&numbered(d, "f", i));
        }),
        op("lookup in none of 30 lowers", known_lowers, |d, i| {
            drop(numbered(d, "no", i).symlink_metadata().unwrap_err());
        }),
        op("getattr", nothing, |d, _| synced_stat(&d.join("f0"))),
        op("read of 4 KiB", |d| direct_read(d, 0), direct_read),
        op("write of 100 bytes", written, |d, _| {
            let file = File::options().write(true).open(d.join("w")).unwrap();
            file.write_all_at(&[2; 100], 0).unwrap();
        }),
        op("create", written, |d, i| {
            drop(File::create_new(numbered(d, "n", i)).unwrap());
        }),
        op("mkdir", written, |d, i| {
            fs::create_dir(numbered(d, "n", i)).unwrap()
        }),
        op("symlink", written, |d, i| {
            symlink("f0", numbered(d, "n", i)).unwrap()
        }),
        op("link", written, |d, i| {
            fs::hard_link(d.join("w"), numbered(d, "n", i)).unwrap();
        }),
        op("unlink", new_files, |d, i| {
            fs::remove_file(numbered(d, "n", i)).unwrap()
        }),
        op(
            "rmdir",
            |d| each(|i| fs::create_dir(numbered(d, "n", i)).unwrap()),
            |d, i| {
                fs::remove_dir(numbered(d, "n", i)).unwrap();
            },
        ),
        op("rename of a file", new_files, |d, i| {
            fs::rename(numbered(d, "n", i), numbered(d, "m", i)).unwrap();
        }),
        op(
            "first listing of 20 names",
            |d| each(|i| crate::stat(&numbered(d, "d", i))),
            |d, i| assert_eq!(fs::read_dir(numbered(d, "d", i)).unwrap().count(), LISTED),
        ),
        op("getxattr, present", nothing, |d, _| {
            let n = rustix::fs::getxattr(d.join("f0"), c"trusted.here", &mut [0_u8; 8][..]);
            assert_eq!(n, Ok(1));
        }),
        op("getxattr, absent", nothing, |d, _| {
            let n = rustix::fs::getxattr(d.join("f0"), c"trusted.none", &mut [0_u8; 8][..]);
            assert_eq!(n, Err(rustix::io::Errno::NODATA));
        }),
        op("chmod", written, |d, i| {
            let mode = if i % 2 == 0 { 0o600 } else { 0o640 };
            fs::set_permissions(d.join("w"), fs::Permissions::from_mode(mode)).unwrap();
        }),
        op(
            "copy-up of a small file",
            |d| {
                written(d);
                each(|i| crate::stat(&numbered(d, "f", i)));
            },
            |d, i| append(&numbered(d, "f", i)),
        ),
    ]
}

/// The lower layer has a directory for each operation.
fn layers() -> Layers {
    let layers = Layers::new(Base::Shm, LOWERS);
    let (lowest, above) = layers.lowers.split_last().unwrap();
    for (i, operation) in operations().iter().enumerate() {
        if operation.name.ends_with("30 lowers") {
            for layer in above {
                fs::create_dir(layer.join(i.to_string())).unwrap();
            }
        }
        let dir = lowest.join(i.to_string());
        fs::create_dir(&dir).unwrap();
        each(|i| fs::write(numbered(&dir, "f", i), b"small").unwrap());
        rustix::fs::setxattr(dir.join("f0"), c"trusted.here", b"1", XattrFlags::empty()).unwrap();
        fs::write(dir.join("large"), vec![7; 4096 * TIMES]).unwrap();
        each(|i| {
            let listed = numbered(&dir, "d", i);
            fs::create_dir(&listed).unwrap();
            (0..LISTED).for_each(|k| fs::write(numbered(&listed, "f", k), b"").unwrap());
        });
    }
    layers
}

type Counts = BTreeMap<String, u64>;

/// strace, holding all threads of a process and counting what they call.
struct Trace {
    strace: Child,
    table: PathBuf,
}

impl Trace {
    /// `None` where this may not be done here.
    fn of(pid: u32, table: PathBuf) -> Option<Self> {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-c", "-U", "calls,name", "-o"])
            .arg(&table)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut trace = Trace { strace, table };
        let deadline = Instant::now() + crate::support::host::slowly(PATIENCE);
        while !is_traced(pid) {
            let ended = trace.strace.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                trace.counts();
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(trace)
    }

    /// Lets go; how often each call was made.
    fn counts(mut self) -> Counts {
        let pid = i32::try_from(self.strace.id()).unwrap();
        // SAFETY: plain numbers; the process is a child that nobody has waited for.
        unsafe { libc::kill(pid, libc::SIGINT) };
        self.strace.wait().unwrap();
        let table = fs::read_to_string(&self.table).unwrap_or_default();
        table.lines().filter_map(counted).collect()
    }
}

/// A line `COUNT NAME` of strace's table, of a call that is counted here.
fn counted(line: &str) -> Option<(String, u64)> {
    let (count, name) = line.trim().split_once(char::is_whitespace)?;
    let name = name.trim();
    Some((name.to_owned(), count.parse().ok()?)).filter(|_| !UNCOUNTED.contains(&name))
}

fn is_traced(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks
        .map(|task| fs::read_to_string(task.path().join("status")).unwrap_or_default())
        .all(|status| {
            let tracer = status.lines().find_map(|l| l.strip_prefix("TracerPid:"));
            tracer.is_none_or(|pid| pid.trim() != "0")
        })
}

#[test]
fn each_operation_costs_so_many_system_calls() {
    if !(require_real_root() && require_program("strace")) {
        return;
    }
    let layers = layers();
    // A follower looks after its client now and then.
    let mount = Mount::acetate(&layers, "follow_client=off");
    let pid = mount.pid().unwrap();
    let mut wrong = Vec::new();
    for (i, operation) in operations().into_iter().enumerate() {
        let dir = layers.merged.join(i.to_string());
        dir.metadata().unwrap();
        (operation.before)(&dir);
        let Some(trace) = Trace::of(pid, layers.root.join("calls")) else {
            skip("strace cannot take hold of the daemon here");
            return;
        };
        each(|i| (operation.act)(&dir, i));
        let counts = trace.counts();
        let (_, wanted) = TABLE
            .iter()
            .find(|(name, _)| *name == operation.name)
            .unwrap();
        let all = counts.values().sum::<u64>() as f64 / TIMES as f64;
        let names: Vec<_> = counts
            .iter()
            .map(|(name, n)| (name, *n as f64 / TIMES as f64))
            .filter(|(_, n)| *n >= 0.01)
            .map(|(name, n)| format!("{name} {n:.2}"))
            .collect();
        let found = format!("{:<30} {all:>6.2}  {}", operation.name, names.join(", "));
        println!("{found}");
        let rounded = all.round() as u32;
        let as_wanted = match *wanted {
            Exactly(n) => rounded == n,
            Calls::AtMost(n) => rounded <= n,
        };
        if !as_wanted {
            wrong.push(format!("{found}: expected {wanted:?}"));
        }
    }
    mount.unmount();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
