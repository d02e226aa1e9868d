//! A mount for the length of a test.
//!
//! The FUSE daemon is a foreground child of the test (`acetate mount -f`), so that it can be waited for and
//! killed by its own process id, and never outlives the test.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Layers;
use super::host::slowly;

/// Who serves a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The program under test, by FUSE.
    Acetate,
    /// Kernel overlayfs.
    Kernel,
    /// Nobody: the mountpoint is a plain directory with a copy of what the lowers show.
    Plain,
}

/// A mounted overlay; dropping it unmounts and waits for the daemon to end.
#[derive(Debug)]
pub struct Mount {
    /// The mountpoint.
    pub point: PathBuf,
    /// Who serves it.
    pub kind: Kind,
    daemon: Option<Child>,
    /// What the daemon says.
    log: Option<std::fs::File>,
    mounted: bool,
}

/// How long a mount may take to appear, and a daemon to end: generous, as CI machines stall.
const PATIENCE: Duration = Duration::from_secs(20);

impl Mount {
    /// Mounts with the program under test; `extra` are more words for `-o`. Panics with its stderr if it fails.
    pub fn acetate(layers: &Layers, extra: &str) -> Self {
        Self::try_acetate(layers, extra).unwrap_or_else(|e| panic!("mount with {extra:?}: {e}"))
    }

    /// As [`Mount::acetate`], the failure as a value (the daemon's stderr in it).
    pub fn try_acetate(layers: &Layers, extra: &str) -> io::Result<Self> {
        let mut command = acetate_command(&join(layers, extra), &layers.merged);
        if acetate_bin()
            .file_name()
            .is_none_or(|name| name != "acetate")
        {
            return Self::spawn(command, &layers.merged);
        }
        // Ours says when the mount is as it will stay: a mount is moved into place while it comes up, and who
        // looks too early holds on to what lies below.
        let socket = layers.root.join("ready");
        let _of_a_mount_before = std::fs::remove_file(&socket);
        let listener = std::os::unix::net::UnixDatagram::bind(&socket)?;
        listener.set_read_timeout(Some(Duration::from_millis(2)))?;
        command.env("NOTIFY_SOCKET", &socket);
        Self::start(command, &layers.merged, || {
            let mut message = [0u8; 256];
            listener
                .recv(&mut message)
                .is_ok_and(|n| message[..n].starts_with(b"READY=1"))
        })
    }

    /// Runs `command` (any foreground daemon) and waits until it serves `point`.
    pub fn spawn(command: Command, point: &Path) -> io::Result<Self> {
        // A stat that answers proves that the daemon serves, not only that mount(2) was called.
        Self::start(command, point, || {
            std::thread::sleep(Duration::from_millis(2));
            is_mountpoint(point) && point.metadata().is_ok()
        })
    }

    fn start(
        mut command: Command,
        point: &Path,
        mut ready: impl FnMut() -> bool,
    ) -> io::Result<Self> {
        let log = tempfile::tempfile()?;
        let daemon = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()?;
        let mut mount = Self {
            point: point.to_owned(),
            kind: Kind::Acetate,
            daemon: Some(daemon),
            log: Some(log.try_clone()?),
            mounted: true,
        };
        let deadline = Instant::now() + slowly(PATIENCE);
        while !ready() {
            let ended = mount
                .daemon
                .as_mut()
                .and_then(|d| d.try_wait().transpose())
                .transpose()?;
            if ended.is_some() || Instant::now() > deadline {
                mount.mounted = is_mountpoint(point);
                let said = read_log(log);
                return Err(io::Error::other(format!("not mounted ({ended:?}): {said}")));
            }
        }
        Ok(mount)
    }

    /// Mounts with kernel overlayfs.
    pub fn kernel(layers: &Layers, extra: &str) -> Self {
        Self::try_kernel(layers, extra)
            .unwrap_or_else(|e| panic!("kernel mount with {extra:?}: {e}"))
    }

    /// As [`Mount::kernel`], the failure as a value.
    pub fn try_kernel(layers: &Layers, extra: &str) -> io::Result<Self> {
        let options = CString::new(join(layers, extra))?;
        let point = CString::new(layers.merged.as_os_str().as_bytes())?;
        let deadline = Instant::now() + slowly(Duration::from_secs(5));
        loop {
            // SAFETY: four NUL-terminated strings that live until the call returns.
            let rc = unsafe {
                libc::mount(
                    c"overlay".as_ptr(),
                    point.as_ptr(),
                    c"overlay".as_ptr(),
                    0,
                    options.as_ptr().cast(),
                )
            };
            let error = io::Error::last_os_error();
            if rc == 0 {
                break;
            }
            // Another process may have made a mount namespace, with a copy of the mount that we just took down:
            // the kernel calls the upper busy until it is gone.
            if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self {
            point: layers.merged.clone(),
            kind: Kind::Kernel,
            daemon: None,
            log: None,
            mounted: true,
        })
    }

    /// Copies what the lowers show into the mountpoint, the first time; nothing is mounted. What an ordinary file
    /// system does is the reference where kernel overlayfs refuses.
    pub fn try_plain(layers: &Layers, extra: &str) -> io::Result<Self> {
        let plain = Self {
            point: layers.merged.clone(),
            kind: Kind::Plain,
            daemon: None,
            log: None,
            mounted: false,
        };
        // A note beside it, as the copy may have been emptied since.
        let note = layers.root.join("plain");
        if note.exists() {
            return Ok(plain);
        }
        std::fs::write(note, "")?;
        let view = tempfile::tempdir_in(&layers.root)?;
        let mut source = layers.borrowed();
        source.merged = view.path().to_owned();
        let mount = Self::try_kernel(&source, extra)?;
        // Its exit status says nothing: the kernel lists some whiteouts that cp then cannot find.
        Command::new("cp")
            .arg("-aT")
            .arg(view.path())
            .arg(&layers.merged)
            .stderr(Stdio::null())
            .status()?;
        mount.unmount();
        Ok(plain)
    }

    /// Mounts `layers` with any of them; the failure as a value.
    pub fn try_with(kind: Kind, layers: &Layers, extra: &str) -> io::Result<Self> {
        match kind {
            Kind::Acetate => Self::try_acetate(layers, extra),
            Kind::Kernel => Self::try_kernel(layers, extra),
            Kind::Plain => Self::try_plain(layers, extra),
        }
    }

    /// Mounts `layers` with any of them.
    pub fn with(kind: Kind, layers: &Layers, extra: &str) -> Self {
        Self::try_with(kind, layers, extra)
            .unwrap_or_else(|e| panic!("{kind:?} mount with {extra:?}: {e}"))
    }

    /// The daemon's process id (None for the kernel).
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Ends the daemon as a crash would, and removes the dead mount. The mount's clients get ENOTCONN.
    pub fn kill_daemon(mut self) {
        if let Some(daemon) = self.daemon.as_mut() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
        self.daemon = None;
        self.detach();
    }

    /// Unmounts, and panics if the mount was busy or its daemon did not end with success.
    pub fn unmount(mut self) {
        if self.kind == Kind::Plain {
            return;
        }
        let deadline = Instant::now() + slowly(Duration::from_secs(5));
        while let Err(e) = umount(&self.point, 0) {
            // EBUSY for a moment is normal: another process may just be walking through.
            assert!(
                Instant::now() < deadline,
                "umount {}: {e}",
                self.point.display()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        self.mounted = is_mountpoint(&self.point);
        assert!(
            !self.mounted,
            "{} is still mounted after umount",
            self.point.display()
        );
        if let Some(status) = self.wait() {
            assert!(
                status.success(),
                "the daemon of {} ended with {status}: {}",
                self.point.display(),
                self.log.take().map(read_log).unwrap_or_default()
            );
        }
    }

    /// Waits for the daemon; kills it if it does not end by itself.
    fn wait(&mut self) -> Option<std::process::ExitStatus> {
        let mut daemon = self.daemon.take()?;
        let deadline = Instant::now() + slowly(PATIENCE);
        let mut asked = false;
        loop {
            if let Some(status) = daemon.try_wait().unwrap() {
                return Some(status);
            }
            if !asked && Instant::now() > deadline - slowly(PATIENCE) / 2 {
                asked = true;
                if !held_by_another_namespace(&self.point) {
                    continue;
                }
                // A mount namespace that somebody made while this mount stood has a copy of it, and the daemon serves
                // that copy for as long as the namespace lives. That is the kernel's way, and no fault of the daemon.
                daemon.kill().unwrap();
                daemon.wait().unwrap();
                return None;
            }
            if Instant::now() > deadline {
                eprintln!(
                    "daemon {} does not end: {}",
                    daemon.id(),
                    where_it_waits(daemon.id())
                );
                daemon.kill().unwrap();
                return daemon.wait().ok();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn detach(&mut self) {
        if std::mem::take(&mut self.mounted) && is_mountpoint(&self.point) {
            let _best_effort = umount(&self.point, libc::MNT_DETACH);
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.detach();
        self.wait();
    }
}

/// The foreground command line of the program under test.
pub fn acetate_command(options: &str, point: &Path) -> Command {
    let bin = acetate_bin();
    let mut command = Command::new(&bin);
    if is_peer(&bin) {
        // It knows no redirects, index or metacopy, and refuses to start with the first.
        let ours = ["redirect_dir=", "index=", "metacopy="];
        let words: Vec<_> = options
            .split(',')
            .filter(|w| !ours.iter().any(|o| w.starts_with(o)))
            .collect();
        command.args(["-f", "-o", &words.join(",")]).arg(point);
    } else {
        command.args(["mount", "-f", "-o", options]).arg(point);
    }
    command
}

/// True if the program under test is one of the peers, tried for comparison.
pub fn is_peer(bin: &Path) -> bool {
    bin.file_name().is_some_and(|name| name == "fuse-overlayfs")
}

/// The program under test.
pub fn acetate_bin() -> PathBuf {
    std::env::var_os("ACETATE_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_acetate")),
        PathBuf::from,
    )
}

fn join(layers: &Layers, extra: &str) -> String {
    match extra {
        "" => layers.options(),
        extra => format!("{},{extra}", layers.options()),
    }
}

/// What the threads of a process wait for, to explain a hang.
fn where_it_waits(pid: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let read =
        |path: PathBuf, name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
    tasks
        .map(|t| {
            format!(
                "[{} {}] ",
                read(t.path(), "comm").trim(),
                read(t.path(), "stack").replace('\n', " ")
            )
        })
        .collect()
}

fn umount(point: &Path, flags: i32) -> io::Result<()> {
    let point = CString::new(point.as_os_str().as_bytes())?;
    // SAFETY: a NUL-terminated path that lives until the call returns.
    match unsafe { libc::umount2(point.as_ptr(), flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// True if some process lives in a mount namespace where this is still mounted.
fn held_by_another_namespace(point: &Path) -> bool {
    let want = point.as_os_str().as_bytes();
    let tables = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    tables
        .filter_map(|process| std::fs::read(process.path().join("mountinfo")).ok())
        .any(|table| names_mount(&table, want))
}

/// True if something is mounted exactly there (asked of the mount table: a dead FUSE mount answers no stat).
pub fn is_mountpoint(point: &Path) -> bool {
    // The thread's: see `host::own_mounts`.
    let table = std::fs::read("/proc/thread-self/mountinfo").unwrap_or_default();
    names_mount(&table, point.as_os_str().as_bytes())
}

fn names_mount(table: &[u8], point: &[u8]) -> bool {
    table
        .split(|&b| b == b'\n')
        .any(|line| line.split(|&b| b == b' ').nth(4) == Some(point))
}

fn read_log(mut log: std::fs::File) -> String {
    use std::io::Seek;
    let mut said = String::new();
    let _best_effort = log.rewind().and_then(|()| log.read_to_string(&mut said));
    said
}
