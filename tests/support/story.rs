//! Tests that tell a story: layers made by a shell script, then steps inside the mount, a remount between them.
//!
//! Each story runs on the program under test and, where that is the reference, on kernel overlayfs: every step
//! must succeed on both (`sh -eu`), print the same, and leave the same tree, before and after a remount.

use std::fmt::Debug;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{
    Base, Facets, Kind, Layers, Mount, Snapshot, diff_with, require_fuse, require_root, skip,
};

/// What the kernel must be asked for so that it keeps hard links and renames directories as we do.
pub const KERNEL: &str = "redirect_dir=on,index=on,metacopy=off";

/// After this a shell step counts as hung. Generous: CI machines stall.
const HANG: Duration = Duration::from_secs(90);

/// True for root who may make devices, give files to anybody and set trusted xattrs, with /dev/fuse; else says why not.
/// `ACETATE_TEST_IN_USERNS=1` lets root of a user namespace pass: for stories known to need nothing of that.
pub fn require_real_root() -> bool {
    let real =
        super::host::in_initial_userns() || std::env::var_os("ACETATE_TEST_IN_USERNS").is_some();
    require_root() && (real || skip("needs root outside of user namespaces")) && require_fuse()
}

/// Layers, steps, and how far the kernel is the reference.
#[derive(Debug, Clone)]
pub struct Story {
    base: Base,
    lowers: usize,
    setup: String,
    steps: Vec<String>,
    options: String,
    kernel_options: String,
    kernel: bool,
    facets: Facets,
}

impl Story {
    /// `setup` runs in the directory around the layers: `l0` (topmost) … `upper`.
    pub fn new(lowers: usize, setup: &str) -> Self {
        Self {
            base: Base::Shm,
            lowers,
            setup: setup.to_owned(),
            steps: Vec::new(),
            options: String::new(),
            kernel_options: KERNEL.to_owned(),
            kernel: true,
            facets: Facets::TREE,
        }
    }

    /// A script run in the mount; the mount is made anew before each.
    pub fn step(mut self, script: &str) -> Self {
        self.steps.push(script.to_owned());
        self
    }

    /// Mount words for the program under test.
    pub fn options(mut self, options: &str) -> Self {
        self.options = options.to_owned();
        self
    }

    /// Mount words for the kernel.
    pub fn kernel_options(mut self, options: &str) -> Self {
        self.kernel_options = options.to_owned();
        self
    }

    /// Layers on a disk file system.
    pub fn on_disk(mut self) -> Self {
        self.base = Base::Disk;
        self
    }

    /// The kernel does this differently (worse, or not at all); `_reason` stands in the test for the reader.
    pub fn not_the_kernel(mut self, _reason: &str) -> Self {
        self.kernel = false;
        self
    }

    /// Runs it on both; returns what the steps printed on ours.
    pub fn run(self) -> Vec<String> {
        if !require_real_root() {
            return Vec::new();
        }
        let (ours, our_tree) = self.run_on(Kind::Acetate);
        // In a user namespace the kernel refuses the options that make it the reference.
        if self.kernel && super::host::in_initial_userns() {
            let (kernel, kernel_tree) = self.run_on(Kind::Kernel);
            assert_eq!(
                ours, kernel,
                "what the steps printed, ours and the kernel's"
            );
            let lines = diff_with(&our_tree, &kernel_tree, self.facets);
            assert!(
                lines.is_empty(),
                "trees differ, ours | the kernel's: {lines:#?}"
            );
        }
        ours
    }

    fn run_on(&self, kind: Kind) -> (Vec<String>, Snapshot) {
        let layers = Layers::new(self.base, self.lowers);
        sh(&layers.root, &self.setup).unwrap_or_else(|e| panic!("set-up: {e}"));
        let words = if kind == Kind::Kernel {
            &self.kernel_options
        } else {
            &self.options
        };
        let mut printed = Vec::new();
        let mut left: Option<Snapshot> = None;
        for (i, script) in self.steps.iter().enumerate() {
            let mount = Mount::with(kind, &layers, words);
            // Only from the second mount on: the first step must meet a mount that nobody has looked at.
            if let Some(left) = &left {
                let now = Snapshot::of(&layers.merged);
                let lines = diff_with(left, &now, Facets::REMOUNT);
                assert!(
                    lines.is_empty(),
                    "{kind:?}: remount before step {i}, left | found: {lines:#?}"
                );
            }
            match sh(&layers.merged, script) {
                Ok(text) => printed.push(text),
                Err(e) => panic!("{kind:?}: step {i}: {e}"),
            }
            left = Some(Snapshot::of(&layers.merged));
            mount.unmount();
        }
        let mount = Mount::with(kind, &layers, words);
        let last = Snapshot::of(&layers.merged);
        let left = left.unwrap_or_else(|| last.clone());
        let lines = diff_with(&left, &last, Facets::REMOUNT);
        assert!(
            lines.is_empty(),
            "{kind:?}: after the last remount, left | found: {lines:#?}"
        );
        mount.unmount();
        (printed, last)
    }
}

/// Runs `work` in a mount of ours and in one of the kernel over equal layers; the results must be equal.
pub fn on_both<R: PartialEq + Debug>(
    lowers: usize,
    setup: &str,
    work: impl Fn(&Path) -> R,
) -> Option<R> {
    if !require_real_root() {
        return None;
    }
    let run = |kind, words: &str| {
        let layers = Layers::new(Base::Shm, lowers);
        sh(&layers.root, setup).unwrap_or_else(|e| panic!("set-up: {e}"));
        let mount = Mount::with(kind, &layers, words);
        let result = work(&layers.merged);
        mount.unmount();
        result
    };
    let ours = run(Kind::Acetate, "");
    if super::host::in_initial_userns() {
        let kernel = run(Kind::Kernel, KERNEL);
        assert_eq!(ours, kernel, "ours | the kernel's");
    }
    Some(ours)
}

/// Runs `work` in a mount of ours over layers made by `setup`.
pub fn on_ours<R>(
    base: Base,
    lowers: usize,
    setup: &str,
    words: &str,
    work: impl Fn(&Layers, &Mount) -> R,
) -> Option<R> {
    if !require_real_root() {
        return None;
    }
    let layers = Layers::new(base, lowers);
    sh(&layers.root, setup).unwrap_or_else(|e| panic!("set-up: {e}"));
    let mount = Mount::acetate(&layers, words);
    let result = work(&layers, &mount);
    mount.unmount();
    Some(result)
}

/// `sh -euc script` in `dir`: its stdout, or its status with all it said. A hang is an error, not a wait for ever.
pub fn sh(dir: &Path, script: &str) -> Result<String, String> {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(dir);
    finish(command, script)
}

/// As [`sh`], by an ordinary user with no capabilities.
pub fn sh_as(uid: u32, dir: &Path, script: &str) -> Result<String, String> {
    let mut command = super::as_user(uid, format!("set -eu\n{script}"));
    command.current_dir(dir);
    finish(command, script)
}

fn finish(mut command: Command, script: &str) -> Result<String, String> {
    let mut out = tempfile::tempfile().unwrap();
    let mut err = tempfile::tempfile().unwrap();
    let mut child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + super::host::slowly(HANG);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.to_string();
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            break "no end: hung".to_owned();
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let (out, err) = (text(&mut out), text(&mut err));
    match status.as_str() {
        "exit status: 0" => Ok(out),
        status => Err(format!(
            "{status}\n--- stdout\n{out}--- stderr\n{err}--- script\n{script}"
        )),
    }
}

fn text(file: &mut std::fs::File) -> String {
    use std::io::Seek;
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs `work` in a thread of its own with another user's ids, no groups and no capabilities.
///
/// Linux keeps credentials per thread; libc's setuid(2) changes all of them, so the calls are made raw.
pub fn as_uid<R: Send>(uid: u32, work: impl FnOnce() -> R + Send) -> R {
    let body = move || {
        let id = libc::c_long::from(uid);
        // SAFETY: these calls read no memory of ours (setgroups with 0 ids ignores its pointer).
        unsafe {
            assert_eq!(
                libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()),
                0
            );
            assert_eq!(libc::syscall(libc::SYS_setresgid, id, id, id), 0);
            assert_eq!(libc::syscall(libc::SYS_setresuid, id, id, id), 0);
        }
        work()
    };
    std::thread::scope(|scope| match scope.spawn(body).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// True where layers of this base keep the `user.` xattrs that some stories need.
pub fn require_user_xattrs(base: Base) -> bool {
    let layers = Layers::new(base, 0);
    let path = super::raw::c(std::os::unix::ffi::OsStrExt::as_bytes(
        layers.upper.as_os_str(),
    ));
    match super::raw::set_xattr(&path, c"user.probe", b"1", 0) {
        Ok(_) => true,
        Err(e) => skip(&format!(
            "no user xattrs in {:?}: {}",
            base.dir(),
            super::raw::errno_name(e)
        )),
    }
}
