//! The machine: namespaces that take everything along, a working directory, and what /proc tells.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set in the process that runs inside the namespaces.
const INSIDE: &str = "ACETATE_COMPARE_INSIDE";

/// Why there is no figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be measured here, and why.
    Skipped(String),
    /// It failed.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Skipped(why) => write!(f, "SKIPPED: {why}"),
            Trouble::Failed(why) => f.write_str(why),
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(e: std::io::Error) -> Self {
        Trouble::Failed(e.to_string())
    }
}

impl From<rustix::io::Errno> for Trouble {
    fn from(e: rustix::io::Errno) -> Self {
        std::io::Error::from(e).into()
    }
}

/// A value, or why there is none.
pub type Outcome<T> = Result<T, Trouble>;

/// A failure as a sentence.
pub fn failed<T>(why: impl Into<String>) -> Outcome<T> {
    Err(Trouble::Failed(why.into()))
}

/// Says what was being done.
pub fn doing<T, E: fmt::Display>(what: &str, r: Result<T, E>) -> Outcome<T> {
    r.map_err(|e| Trouble::Failed(format!("{what}: {e}")))
}

/// Proof that this process is inside the namespaces.
#[derive(Debug)]
pub struct Host(());

/// Goes on inside mount and process namespaces of its own; the process outside waits and ends with the same status.
///
/// `--kill-child` and `--pdeathsig` tie the three together: when the outer one is killed, by ^C too, all the others go,
/// and with the last of them the mounts.
pub fn inside() -> Outcome<Host> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(Host(()));
    }
    if !rustix::process::geteuid().is_root() {
        return failed("it needs root: it makes mounts and namespaces, and is uid 1000 in turn");
    }
    let status = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "--",
            "unshare",
            "--mount",
            "--propagation",
            "private",
        ])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .process_group(0)
        .status();
    let status = doing("setpriv and unshare (util-linux)", status)?;
    std::process::exit(status.code().unwrap_or(1));
}

/// A directory on a disk and a tmpfs in it, removed when dropped.
#[derive(Debug)]
pub struct Workplace {
    /// On the disk.
    pub disk: PathBuf,
    /// On memory.
    pub tmpfs: PathBuf,
    /// The programs, where everybody may run them.
    pub programs: PathBuf,
}

impl Workplace {
    /// Makes it below `dir`; and gives every user a /dev/fuse, in this mount namespace only.
    pub fn new(_inside: &Host, dir: &Path) -> Outcome<Workplace> {
        remove_left_behind(dir);
        let disk = dir.join(format!("acetate-compare.{}", started()));
        let (tmpfs, programs) = (disk.join("tmpfs"), disk.join("programs"));
        for made in [&disk, &tmpfs, &programs] {
            doing(
                &format!("make {}", made.display()),
                fs::create_dir_all(made),
            )?;
            fs::set_permissions(made, fs::Permissions::from_mode(0o755))?;
        }
        let place = Workplace {
            disk,
            tmpfs,
            programs,
        };
        run(Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                "size=90%,nr_inodes=0,mode=755",
                "tmpfs",
            ])
            .arg(&place.tmpfs))?;
        let device = place.tmpfs.join("fuse");
        run(Command::new("mknod")
            .args(["-m", "666"])
            .arg(&device)
            .args(["c", "10", "229"]))?;
        run(Command::new("mount")
            .arg("--bind")
            .arg(&device)
            .arg("/dev/fuse"))?;
        Ok(place)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _left_to_the_next_run = run(Command::new("umount").arg("-l").arg(&self.tmpfs))
            .and_then(|()| Ok(fs::remove_dir_all(&self.disk)?));
    }
}

/// A number that names this run: process numbers are small and alike in every namespace.
fn started() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |t| t.as_nanos())
}

/// Removes what a killed run has left: its tmpfs went with its namespace, its trees did not. A day old, to spare the living.
fn remove_left_behind(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries {
        let ours = entry
            .file_name()
            .to_string_lossy()
            .starts_with("acetate-compare.");
        let age = entry
            .metadata()
            .and_then(|m| m.modified())
            .ok()
            .and_then(|t| t.elapsed().ok());
        if ours && age.is_some_and(|a| a.as_secs() > 86_400) {
            let _best_effort = fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs a program; its last words are the failure.
pub fn run(command: &mut Command) -> Outcome<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = doing(
        &name,
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output(),
    )?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let last = said
        .lines()
        .rfind(|l| !l.trim().is_empty())
        .unwrap_or("no words");
    failed(format!("{name}: {}: {last}", out.status))
}

/// A command run by uid 1000 with no other group and no capability.
pub fn as_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=1000", "--regid=1000", "--clear-groups", "--"])
        .arg(program);
    command
}

/// A line of /proc/PID/status in KiB.
pub fn memory_of(pid: u32, field: &str) -> Outcome<u64> {
    let text = doing(
        "the daemon's status",
        fs::read_to_string(format!("/proc/{pid}/status")),
    )?;
    text.lines()
        .find_map(|l| {
            l.strip_prefix(field)?
                .trim_start_matches(':')
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .ok_or_else(|| Trouble::Failed(format!("no {field} in the daemon's status")))
}

/// What all threads of a process have run so far, in ns.
pub fn cpu_time_of(pid: u32) -> Outcome<u64> {
    let tasks = doing(
        "the daemon's threads",
        fs::read_dir(format!("/proc/{pid}/task")),
    )?;
    let ran = |task: fs::DirEntry| -> Option<u64> {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Ok(tasks.flatten().filter_map(ran).sum())
}
