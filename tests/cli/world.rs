//! A place to mount in, cleaned up whatever happens, and eyes to look with.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program under test.
pub const ACETATE: &str = env!("CARGO_BIN_EXE_acetate");

/// Two lowers, an upper, a work directory, a mount point.
pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("acetate-cli-")
            .tempdir()
            .unwrap();
        for name in ["a", "b", "u", "w", "m"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("a/from-a"), "a").unwrap();
        fs::write(folder.path().join("b/from-b"), "b").unwrap();
        // Ordinary users must be able to walk in.
        Command::new("chmod")
            .arg("755")
            .arg(folder.path())
            .status()
            .unwrap();
        World { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `lowerdir=…` with both lowers, and upper and work if they are wanted.
    pub fn options(&self, writable: bool) -> String {
        let p = |n: &str| self.path(n).display().to_string();
        let mut text = format!("lowerdir={}:{}", p("a"), p("b"));
        if writable {
            text += &format!(",upperdir={},workdir={}", p("u"), p("w"));
        }
        text
    }

    /// Runs the program with these arguments in the world's folder.
    pub fn acetate<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.called("acetate", args)
    }

    /// The same under another name.
    pub fn called<S: AsRef<OsStr>>(&self, name: &str, args: &[S]) -> Output {
        let mut command = Command::new(ACETATE);
        command
            .arg0(name)
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        within(command, Duration::from_secs(20))
    }

    /// Runs a shell script in the world's folder; `$ACETATE` is the program.
    pub fn sh(&self, script: &str) -> Output {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(script)
            .env("ACETATE", ACETATE)
            .current_dir(self.folder.path());
        within(command, Duration::from_secs(30))
    }

    /// Mounts both lowers, and the upper if it is wanted, at `m`.
    pub fn mount(&self, writable: bool) {
        let out = self.acetate(&["mount", "-o", &self.options(writable), "m"]);
        assert!(out.status.success(), "{}", text(&out));
    }

    /// The mount's line of mountinfo.
    pub fn mount_line(&self) -> Option<String> {
        let place = self.path("m").display().to_string();
        let lines = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        lines
            .lines()
            .rev()
            .find(|l| l.split(' ').nth(4) == Some(&place))
            .map(str::to_owned)
    }

    /// Living processes whose command line names this world.
    pub fn daemons(&self) -> Vec<i32> {
        let mark = self.folder.path().file_name().unwrap().to_str().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let is_ours = String::from_utf8_lossy(&read("cmdline")).contains(mark)
                && String::from_utf8_lossy(&read("comm")).starts_with("acetate");
            if is_ours && !String::from_utf8_lossy(&read("status")).contains("State:\tZ") {
                found.push(pid);
            }
        }
        found
    }

    /// Waits until no process of this world lives.
    pub fn wait_for_the_end(&self) {
        wait_until("the daemon ends", || self.daemons().is_empty());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        while self.mount_line().is_some() {
            let done = Command::new("umount")
                .arg("-l")
                .arg(self.path("m"))
                .status();
            if !done.is_ok_and(|s| s.success()) {
                break;
            }
        }
        for pid in self.daemons() {
            signal(pid, "KILL");
        }
    }
}

pub fn signal(pid: i32, name: &str) {
    Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status()
        .unwrap();
}

/// A limit of time, as many times longer as `ACETATE_TEST_SLOW` says: for emulated machines.
fn slowly(limit: Duration) -> Duration {
    let times = std::env::var("ACETATE_TEST_SLOW").ok();
    limit * times.and_then(|t| t.parse().ok()).unwrap_or(1)
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < slowly(Duration::from_secs(10)),
            "in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs to the end of the process *and of its pipes*, as podman does: a daemon
/// that keeps stderr open makes this fail.
fn within(mut command: Command, limit: Duration) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    match receive.recv_timeout(slowly(limit)) {
        Ok(out) => out.unwrap(),
        Err(_) => {
            signal(pid, "KILL");
            panic!("{command:?} did not end, or did not let go of its output");
        }
    }
}

pub fn text(out: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// Whether mounts can be tried here; says so loudly where not.
pub fn can_mount() -> bool {
    let can = is_root() && Path::new("/dev/fuse").exists();
    if !can {
        eprintln!("SKIPPED: needs root and /dev/fuse");
    }
    can
}
