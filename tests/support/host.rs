//! What this host can do, and how to be somebody else on it.
//!
//! A test whose host lacks something says so and returns: `if !require_root() { return; }`. The line is
//! written past libtest's capture (which only catches the print macros), so that a skipped test is always seen.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// A limit of time, as many times longer as `ACETATE_TEST_SLOW` says: for emulated machines.
pub fn slowly(limit: Duration) -> Duration {
    let times = std::env::var("ACETATE_TEST_SLOW").ok();
    limit * times.and_then(|t| t.parse().ok()).unwrap_or(1)
}

/// A number of repetitions, as many times smaller: where the same is done thousands of times.
pub fn fewer(count: u32) -> u32 {
    let slow = std::env::var("ACETATE_TEST_SLOW").ok();
    let times: u32 = slow.and_then(|t| t.parse().ok()).unwrap_or(1);
    (count / times.max(1)).max(1)
}

/// Prints `SKIP: reason`, and is false so that it can end a condition.
pub fn skip(reason: &str) -> bool {
    // The test's own name is the thread's name under libtest.
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("test").to_owned();
    // Past libtest's capture: a skip is never silent.
    let said = writeln!(std::io::stderr(), "SKIP: {name}: {reason}");
    assert!(said.is_ok(), "stderr cannot be written");
    false
}

/// True for root with its capabilities in the namespace we run in.
pub fn require_root() -> bool {
    rustix::process::geteuid().is_root() || skip("needs root")
}

/// True if this process may open /dev/fuse.
pub fn require_fuse() -> bool {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => true,
        Err(e) => skip(&format!("/dev/fuse cannot be opened: {e}")),
    }
}

/// True if this kernel has overlayfs and this process may mount it.
pub fn require_kernel_overlay() -> bool {
    // The module is loaded by the first mount, so /proc/filesystems alone would be too strict.
    let layers = super::Layers::new(super::Base::Shm, 1);
    match super::Mount::try_kernel(&layers, &kernel_probe_options()) {
        Ok(_) => true,
        Err(e) => skip(&format!("kernel overlayfs cannot be mounted here: {e}")),
    }
}

/// True if this kernel's overlayfs knows these mount words (`userxattr` came with 5.11), else says that it does not.
pub fn require_kernel_overlay_with(words: &str) -> bool {
    let layers = super::Layers::new(super::Base::Shm, 1);
    match super::Mount::try_kernel(&layers, words) {
        Ok(_) => true,
        Err(e) => skip(&format!("no kernel overlayfs with {words} here: {e}")),
    }
}

/// Version of the kernel that the program under test sees: this one's, or the older one that `ACETATE_KERNEL_FEATURES` plays.
pub fn kernel_seen() -> (u32, u32) {
    let version = |text: &str| {
        let (major, rest) = text.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let real = rustix::system::uname();
    let real = version(&real.release().to_string_lossy()).unwrap();
    let mask = std::env::var("ACETATE_KERNEL_FEATURES").unwrap_or_default();
    let played = mask.split([':', ',']).filter_map(version);
    played.chain([real]).min().unwrap_or(real)
}

/// In a user namespace the kernel wants `userxattr`; root needs nothing.
fn kernel_probe_options() -> String {
    if in_initial_userns() {
        String::new()
    } else {
        "userxattr".to_owned()
    }
}

/// Gives this thread, and what it starts from now on, a mount namespace of its own.
///
/// Other processes that make mount namespaces meanwhile (other tests, containers) then hold no copies of our
/// mounts: a copy keeps the kernel's upper busy and a FUSE daemon alive after umount. And nothing is left mounted,
/// whatever happens. Where it is not permitted nothing changes.
pub fn own_mounts() {
    // SAFETY: plain numbers and NUL-terminated strings.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) == 0 {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                std::ptr::null(),
                private,
                std::ptr::null(),
            );
        }
    }
}

/// True outside of any user namespace (the identity map of all numbers).
pub fn in_initial_userns() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"]
}

/// True if `program` is in the PATH, else says what is missing.
pub fn require_program(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
        .unwrap_or(false);
    found || skip(&format!("{program} is not installed"))
}

/// True if an ordinary user can make a user namespace here.
pub fn require_userns() -> bool {
    if !require_program("unshare") {
        return false;
    }
    match in_userns("true").output() {
        Ok(out) if out.status.success() => true,
        Ok(out) => skip(&format!(
            "no user namespaces: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        )),
        Err(e) => skip(&format!("no user namespaces: {e}")),
    }
}

/// A shell command run as `uid` with the group of the same number, no supplementary groups and no capabilities.
pub fn as_user(uid: u32, cmd: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            &format!("--reuid={uid}"),
            &format!("--regid={uid}"),
            "--clear-groups",
            "--",
            "sh",
            "-c",
        ])
        .arg(cmd);
    command
}

/// A shell command run as root of a new user namespace and mount namespace of its own.
pub fn in_userns(cmd: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-Urm", "--", "sh", "-c"]).arg(cmd);
    command
}

/// /dev/fuse open to all users for the life of this value.
///
/// Some hosts (this project's included) have it 0600, distributions have it 0666. A lock file keeps two test
/// processes from restoring each other's mode; holding one serialises those tests, so hold it briefly.
#[derive(Debug)]
pub struct DevFuseOpen {
    before: u32,
    _lock: File,
}

impl DevFuseOpen {
    /// Opens the device, or says why not and is None.
    pub fn new() -> Option<Self> {
        let path = Path::new("/dev/fuse");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(std::env::temp_dir().join("acetate-test-devfuse.lock"))
            .unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let Ok(meta) = path.metadata() else {
            skip("no /dev/fuse");
            return None;
        };
        let before = meta.mode() & 0o7777;
        if before & 0o006 != 0o006
            && let Err(e) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
        {
            skip(&format!(
                "/dev/fuse is {before:o} and cannot be opened to users: {e}"
            ));
            return None;
        }
        Some(Self {
            before,
            _lock: lock,
        })
    }
}

impl Drop for DevFuseOpen {
    fn drop(&mut self) {
        let _best_effort =
            std::fs::set_permissions("/dev/fuse", std::fs::Permissions::from_mode(self.before));
    }
}
