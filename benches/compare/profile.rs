//! One operation in depth: which FUSE requests it costs, which system calls of the daemon, how much of its CPU time.
//!
//! An operation is done many times, twice over: once untouched, for the requests (the mount's own counters, asked by
//! ioctl), the time and the CPU time; once under strace, for the system calls, which are counted and never timed.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, StatxFlags, openat, renameat, statat, statx, unlinkat,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use acetate::fuse::control::{STATS, STATS_LEN};

use super::args::Operations;
use super::host::{Host, Outcome, Trouble, Workplace, cpu_time_of, doing, failed};
use super::report::{document, duration, pretty};
use super::rows::{numbered, timed};
use super::series::{install, write};
use super::systems::{Mounted, Plan, System, Way};
use super::trees::{Sizes, files_in};
use super::walk;

/// How long strace may take to take hold of the daemon.
const PATIENCE: Duration = Duration::from_secs(10);
/// Files of a directory that is listed.
const LISTED: u64 = 20;

/// What is done many times, with all names made before.
type Act = Box<dyn FnMut() -> Outcome<()>>;

/// An operation; `scene` makes what it needs on the mount, under names of the run's own, and gives what is measured.
struct Operation {
    name: &'static str,
    says: &'static str,
    scene: fn(&Path, &str, u64) -> Outcome<Act>,
}

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "lookup",
        says: "lstat of a lower file, first time",
        scene: lookup,
    },
    Operation {
        name: "getattr",
        says: "statx with AT_STATX_FORCE_SYNC",
        scene: getattr,
    },
    Operation {
        name: "read",
        says: "pread of 4 KiB of a lower file, O_DIRECT",
        scene: read,
    },
    Operation {
        name: "write",
        says: "pwrite of 100 bytes, hot",
        scene: write_small,
    },
    Operation {
        name: "create",
        says: "a new empty file",
        scene: create,
    },
    Operation {
        name: "unlink",
        says: "unlink of a new file",
        scene: unlink,
    },
    Operation {
        name: "rename",
        says: "rename of a new file",
        scene: rename,
    },
    Operation {
        name: "readdirplus",
        says: "first listing of a directory of 20 files",
        scene: readdirplus,
    },
    Operation {
        name: "getxattr",
        says: "getxattr of an attribute that a file has not",
        scene: getxattr,
    },
];

const RUNS: [&str; 2] = ["untouched", "traced"];

fn layers(at: &Path, count: u64) -> Outcome<()> {
    for run in RUNS {
        files_in(&at.join(format!("lookup-{run}")), count, Sizes::Small)?;
        for i in 0..count {
            files_in(&at.join(format!("list-{run}/d{i}")), LISTED, Sizes::Small)?;
        }
    }
    fs::write(at.join("file"), vec![7_u8; 1 << 20])?;
    Ok(())
}

/// Turns names and a call into what is measured.
fn over(
    names: Vec<CString>,
    mut call: impl FnMut(&std::ffi::CStr) -> rustix::io::Result<()> + 'static,
) -> Outcome<Act> {
    Ok(Box::new(move || {
        for name in &names {
            call(name)?;
        }
        Ok(())
    }))
}

fn lookup(root: &Path, run: &str, count: u64) -> Outcome<Act> {
    let dir = walk::open_path(&root.join(format!("lookup-{run}")))?;
    over(numbered("f", count), move |name| {
        statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map(drop)
    })
}

fn getattr(root: &Path, _run: &str, count: u64) -> Outcome<Act> {
    let dir = walk::open_path(root)?;
    over(numbered("", count), move |_| {
        statx(
            &dir,
            c"file",
            AtFlags::STATX_FORCE_SYNC,
            StatxFlags::BASIC_STATS,
        )
        .map(drop)
    })
}

fn read(root: &Path, _run: &str, count: u64) -> Outcome<Act> {
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = doing("open", openat(CWD, root.join("file"), flags, Mode::empty()))?;
    let mut memory = vec![0_u8; 8192];
    let from = memory.as_ptr().align_offset(4096);
    let mut at = 0;
    over(numbered("", count), move |_| {
        at = (at + 4096) % (1 << 20);
        let page = memory
            .get_mut(from..from + 4096)
            .ok_or(rustix::io::Errno::INVAL)?;
        rustix::io::pread(&file, page, at).map(drop)
    })
}

fn write_small(root: &Path, run: &str, count: u64) -> Outcome<Act> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = openat(CWD, root.join(format!("written-{run}")), flags, Mode::RWXU)?;
    let bytes = [7_u8; 100];
    rustix::io::pwrite(&file, &bytes, 0)?;
    over(numbered("", count), move |_| {
        rustix::io::pwrite(&file, &bytes, 0).map(drop)
    })
}

const NEW: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::CLOEXEC);

/// A new directory with `count` new files.
fn new_files(root: &Path, name: &str, count: u64) -> Outcome<std::os::fd::OwnedFd> {
    let path = root.join(name);
    fs::create_dir(&path)?;
    let dir = walk::open_path(&path)?;
    for file in numbered("n", count) {
        openat(&dir, &file, NEW, Mode::RWXU)?;
    }
    Ok(dir)
}

fn create(root: &Path, run: &str, count: u64) -> Outcome<Act> {
    let dir = new_files(root, &format!("create-{run}"), 0)?;
    over(numbered("n", count), move |name| {
        openat(&dir, name, NEW, Mode::RWXU).map(drop)
    })
}

fn unlink(root: &Path, run: &str, count: u64) -> Outcome<Act> {
    let dir = new_files(root, &format!("unlink-{run}"), count)?;
    over(numbered("n", count), move |name| {
        unlinkat(&dir, name, AtFlags::empty())
    })
}

fn rename(root: &Path, run: &str, count: u64) -> Outcome<Act> {
    let dir = new_files(root, &format!("rename-{run}"), count)?;
    let mut targets = numbered("to", count).into_iter();
    over(numbered("n", count), move |name| {
        let to = targets.next().ok_or(rustix::io::Errno::RANGE)?;
        renameat(&dir, name, &dir, &to)
    })
}

fn readdirplus(root: &Path, run: &str, count: u64) -> Outcome<Act> {
    let dir = walk::open_path(&root.join(format!("list-{run}")))?;
    let names = numbered("d", count);
    // The directories themselves are known, so that only their listing is measured.
    for name in &names {
        statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    over(names, move |name| {
        walk::list(walk::open_dir(&dir, name)?).map(drop)
    })
}

fn getxattr(root: &Path, _run: &str, count: u64) -> Outcome<Act> {
    let file = CString::new(root.join("file").into_os_string().into_encoded_bytes())
        .map_err(std::io::Error::other)?;
    let mut value = [0_u8; 64];
    over(numbered("", count), move |_| {
        match rustix::fs::getxattr(&file, c"user.none", &mut value[..]) {
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => other.map(drop),
        }
    })
}

type Counts = BTreeMap<String, u64>;

/// What the mount has served so far.
fn requests(root: &File) -> Outcome<Counts> {
    let mut text = vec![0_u8; STATS_LEN];
    // SAFETY: the request says that STATS_LEN bytes are written, and the buffer has them.
    let rc = unsafe {
        libc::ioctl(
            root.as_raw_fd(),
            libc::c_ulong::from(STATS),
            text.as_mut_ptr(),
        )
    };
    if rc != 0 {
        return failed(format!(
            "the mount's counters: {}",
            std::io::Error::last_os_error()
        ));
    }
    let text = String::from_utf8_lossy(&text);
    let lines = text
        .trim_end_matches('\0')
        .lines()
        .filter_map(|l| l.split_once(' '));
    Ok(lines
        .filter(|(name, _)| *name != "ioctl")
        .filter_map(|(name, n)| Some((name.to_owned(), n.trim().parse().ok()?)))
        .collect())
}

fn more(before: &Counts, after: &Counts) -> Counts {
    let difference = after
        .iter()
        .map(|(name, n)| (name.clone(), n - before.get(name).copied().unwrap_or(0)));
    difference.filter(|(_, n)| *n > 0).collect()
}

/// strace, holding all threads of a process.
struct Trace {
    strace: Child,
    log: PathBuf,
}

impl Trace {
    fn of(pid: u32, log: PathBuf) -> Outcome<Trace> {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(&log)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let trace = Trace {
            strace: doing("strace (apt install strace)", strace)?,
            log,
        };
        let deadline = Instant::now() + PATIENCE;
        while !is_traced(pid)? {
            if Instant::now() > deadline {
                trace.counts()?;
                return Err(Trouble::Skipped(
                    "strace cannot take hold of the daemon here".into(),
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(trace)
    }

    /// Lets go; how often each system call was made.
    fn counts(mut self) -> Outcome<Counts> {
        let pid = i32::try_from(self.strace.id()).ok().and_then(Pid::from_raw);
        pid.map_or(Ok(()), |p| kill_process(p, Signal::INT))?;
        self.strace.wait()?;
        let mut counts = Counts::new();
        for line in doing("strace's output", fs::read_to_string(&self.log))?.lines() {
            // `PID name(...`; the second half of a call that was interrupted begins with `<...`.
            let call = line
                .split_once(' ')
                .and_then(|(_, rest)| rest.trim_start().split_once('('));
            if let Some((name, _)) =
                call.filter(|(n, _)| n.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            {
                *counts.entry(known_name(name).to_owned()).or_default() += 1;
            }
        }
        Ok(counts)
    }
}

/// The names of calls that are newer than the strace of many distributions.
fn known_name(name: &str) -> &str {
    match name {
        "syscall_0x1cf" => "setxattrat",
        "syscall_0x1d0" => "getxattrat",
        "syscall_0x1d1" => "listxattrat",
        "syscall_0x1d2" => "removexattrat",
        other => other,
    }
}

fn is_traced(pid: u32) -> Outcome<bool> {
    let tasks = doing(
        "the daemon's threads",
        fs::read_dir(format!("/proc/{pid}/task")),
    )?;
    let traced = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|l| {
            l.strip_prefix("TracerPid:")
                .is_some_and(|p| p.trim() != "0")
        })
    };
    Ok(tasks.flatten().all(traced))
}

/// What one operation costs.
struct Profile<'a> {
    operation: &'a Operation,
    count: u64,
    time: f64,
    cpu: f64,
    requests: Counts,
    calls: Outcome<Counts>,
}

impl Profile<'_> {
    fn take<'a>(
        operation: &'a Operation,
        mount: &Mounted,
        at: &Path,
        log: &Path,
        count: u64,
    ) -> Outcome<Profile<'a>> {
        let pid = mount
            .pid()
            .ok_or_else(|| Trouble::Failed("there is no daemon".into()))?;
        let root = File::open(at)?;
        let [untouched, traced] = RUNS;
        let mut act = (operation.scene)(at, untouched, count)?;
        let (requests_before, cpu_before) = (requests(&root)?, cpu_time_of(pid)?);
        let time = timed(count, &mut act)?.each();
        let cpu = cpu_time_of(pid)?.saturating_sub(cpu_before) as f64 / count as f64;
        let requests = more(&requests_before, &requests(&root)?);
        let mut act = (operation.scene)(at, traced, count)?;
        let calls = Trace::of(pid, log.to_owned()).and_then(|trace| {
            act()?;
            trace.counts()
        });
        Ok(Profile {
            operation,
            count,
            time,
            cpu,
            requests,
            calls,
        })
    }

    fn each(&self, n: u64) -> f64 {
        n as f64 / self.count as f64
    }

    /// The daemon's system calls for each request.
    fn calls_each(&self) -> Option<f64> {
        let served: u64 = self.requests.values().sum();
        let calls: u64 = self.calls.as_ref().ok()?.values().sum();
        (served > 0).then(|| calls as f64 / served as f64)
    }

    /// `name 1.0, name 0.5`: those that happen at least every twentieth time.
    fn shares(&self, counts: &Counts) -> String {
        let mut shares: Vec<_> = counts
            .iter()
            .map(|(name, n)| (self.each(*n), name))
            .filter(|(n, _)| *n >= 0.05)
            .collect();
        shares.sort_by(|a, b| b.0.total_cmp(&a.0));
        shares
            .iter()
            .map(|(n, name)| format!("{name} {n:.1}"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn text(&self) -> String {
        let calls = match &self.calls {
            Ok(calls) => self.shares(calls),
            Err(trouble) => trouble.to_string(),
        };
        let each = self
            .calls_each()
            .map_or_else(|| "-".into(), |n| format!("{n:.1}"));
        let (time, cpu) = (duration(self.time), duration(self.cpu));
        format!(
            "{:<12} {time:>9} {cpu:>9} {each:>9}  {} | {calls}",
            self.operation.name,
            self.shares(&self.requests)
        )
    }

    fn json(&self) -> serde_json::Value {
        let shares = |counts: &Counts| -> BTreeMap<String, f64> {
            counts
                .iter()
                .map(|(name, n)| (name.clone(), self.each(*n)))
                .collect()
        };
        json!({
            "row": self.operation.name,
            "operation": self.operation.says,
            "ns": self.time,
            "cpu_ns": self.cpu,
            "requests": shares(&self.requests),
            "system_calls": self.calls.as_ref().ok().map(shares),
            "system_calls_per_request": self.calls_each(),
            "trouble": self.calls.as_ref().err().map(ToString::to_string),
        })
    }
}

/// The verb.
pub fn run(host: &Host, wanted: &Operations) -> Outcome<()> {
    let known = |word: &String| OPERATIONS.iter().any(|o| o.name == word);
    if let Some(word) = wanted.operations.iter().find(|w| !known(w)) {
        let names: Vec<_> = OPERATIONS.iter().map(|o| o.name).collect();
        return failed(format!(
            "there is no operation {word}: {}",
            names.join(", ")
        ));
    }
    let place = Workplace::new(host, &wanted.dir)?;
    let installed = install(&place, &[System::Acetate])?;
    let (cell, lower) = (place.tmpfs.join("cell"), place.tmpfs.join("lower"));
    for made in ["", "merged", "upper", "work"] {
        fs::create_dir(cell.join(made))?;
    }
    fs::create_dir(&lower)?;
    let count = wanted.count.max(1);
    layers(&lower, count)?;
    let plan = Plan {
        system: System::Acetate,
        way: Way::Root,
        lowers: &[lower],
        cell: &cell,
        programs: &place.programs,
        options: &wanted.options,
        descriptors: None,
    };
    let mount = plan.mount()?;
    println!(
        "{:<12} {:>9} {:>9} {:>9}  requests | daemon's system calls, each for one operation",
        "operation", "time", "CPU", "calls/req"
    );
    let mut cells = Vec::new();
    let chosen = |o: &&Operation| {
        wanted.operations.is_empty() || wanted.operations.iter().any(|w| w == o.name)
    };
    for operation in OPERATIONS.iter().filter(chosen) {
        let profile = Profile::take(
            operation,
            &mount,
            &cell.join("merged"),
            &place.tmpfs.join("strace"),
            count,
        )?;
        println!("{}", profile.text());
        cells.push(profile.json());
    }
    mount.unmount()?;
    write(
        wanted.json.as_deref(),
        &pretty(&document("profile", &installed, false, &cells))?,
    )
}
