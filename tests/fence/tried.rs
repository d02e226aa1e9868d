//! An event loop's own thread is made to call what no request calls.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::probe::{Held, threads};
use crate::support::host::own_mounts;
use crate::support::story::require_real_root;
use crate::support::{Base, Layers, Mount};

const EPERM: i64 = -(libc::EPERM as i64);
const EACCES: i64 = -(libc::EACCES as i64);
const ENOSYS: i64 = -(libc::ENOSYS as i64);
const HERE: u64 = libc::AT_FDCWD as u64;

fn open(thread: &Held, path: &Path, flags: i32) -> i64 {
    let at = thread.place(path);
    let fd = thread.call(libc::SYS_openat, [HERE, at, flags as u64, 0o600, 0, 0]);
    if fd >= 0 {
        assert_eq!(thread.call(libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0]), 0);
        return 0;
    }
    fd
}

fn a_loop(mount: &Mount) -> Held {
    // Any one sleeps in read(2) of /dev/fuse, or is about to.
    let (pid, begun) = (mount.pid().unwrap(), Instant::now());
    let tid = threads(pid, "fuser-")[0];
    let reads = || fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall"));
    let call = format!("{} ", libc::SYS_read);
    while !reads().unwrap().starts_with(&call) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", reads());
        std::thread::sleep(Duration::from_millis(1));
    }
    Held::take(tid)
}

#[test]
fn calls_that_no_request_makes_are_refused() {
    if !require_real_root() {
        return;
    }
    own_mounts();
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "");
    let thread = a_loop(&mount);
    assert_eq!(
        thread.call(libc::SYS_getpid, [0; 6]),
        i64::from(mount.pid().unwrap()),
        "the probe works"
    );
    let program = thread.place(Path::new("/bin/true"));
    let namespace = libc::CLONE_NEWUSER as u64;
    for (what, number, arguments, answer) in [
        ("execve", libc::SYS_execve, [program, 0, 0, 0, 0, 0], EPERM),
        ("fork", libc::SYS_fork, [0; 6], EPERM),
        (
            "clone of a process",
            libc::SYS_clone,
            [libc::SIGCHLD as u64, 0, 0, 0, 0, 0],
            EPERM,
        ),
        ("clone3", libc::SYS_clone3, [0; 6], ENOSYS),
        (
            "unshare",
            libc::SYS_unshare,
            [namespace, 0, 0, 0, 0, 0],
            EPERM,
        ),
        ("socket", libc::SYS_socket, [1, 1, 0, 0, 0, 0], EPERM),
        ("ptrace", libc::SYS_ptrace, [0, 1, 0, 0, 0, 0], EPERM),
        ("setuid", libc::SYS_setuid, [1000, 0, 0, 0, 0, 0], EPERM),
        (
            "mount",
            libc::SYS_mount,
            [program, program, program, 4096, 0, 0],
            EPERM,
        ),
        ("chroot", libc::SYS_chroot, [program, 0, 0, 0, 0, 0], EPERM),
        ("bpf", libc::SYS_bpf, [0; 6], EPERM),
        ("kill", libc::SYS_kill, [1, 0, 0, 0, 0, 0], EPERM),
        ("tgkill", libc::SYS_tgkill, [1, 1, 0, 0, 0, 0], EPERM),
        (
            "open_by_handle_at",
            libc::SYS_open_by_handle_at,
            [HERE, program, 0, 0, 0, 0],
            EPERM,
        ),
    ] {
        assert_eq!(thread.call(number, arguments), answer, "{what}");
    }
    drop(thread);
    std::fs::write(layers.at("after"), "it still serves").unwrap();
    mount.unmount();
}

#[test]
fn without_the_fence_they_work() {
    if !require_real_root() {
        return;
    }
    own_mounts();
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "fence=off");
    let thread = a_loop(&mount);
    let fd = thread.call(libc::SYS_socket, [1, 1, 0, 0, 0, 0]);
    assert!(fd >= 0, "{fd}");
    assert_eq!(
        thread.call(
            libc::SYS_kill,
            [u64::from(std::process::id()), 0, 0, 0, 0, 0]
        ),
        0
    );
    assert_eq!(open(&thread, Path::new("/etc/passwd"), libc::O_RDWR), 0);
    drop(thread);
    mount.unmount();
}

#[test]
fn nothing_beside_the_layers_can_be_opened_and_no_lower_written() {
    if !require_real_root() {
        return;
    }
    own_mounts();
    let layers = Layers::new(Base::Shm, 1);
    std::fs::write(layers.lowers[0].join("file"), "1").unwrap();
    let mount = Mount::acetate(&layers, "");
    if !landlock_is_there() {
        crate::support::skip("no Landlock here");
        return;
    }
    let thread = a_loop(&mount);
    let (read, write) = (libc::O_RDONLY, libc::O_RDWR);
    let make = libc::O_RDWR | libc::O_CREAT;
    let lower = &layers.lowers[0];
    for (path, flags, answer) in [
        (lower.join("file"), read, 0),
        (lower.join("file"), write, EACCES),
        (lower.join("new"), make, EACCES),
        (layers.upper.join("new"), make, 0),
        (layers.upper.join("new"), write, 0),
        (layers.root.join("beside"), make, EACCES),
        ("/etc/passwd".into(), read, EACCES),
        ("/etc".into(), read, EACCES),
        ("/proc/1/status".into(), read, 0),
        (lower.join("../../../../etc/passwd"), read, EACCES),
    ] {
        assert_eq!(
            open(&thread, &path, flags),
            answer,
            "{} {flags:o}",
            path.display()
        );
    }
    let file = thread.place(&lower.join("file"));
    assert_eq!(thread.call(libc::SYS_unlink, [file, 0, 0, 0, 0, 0]), EACCES);
    drop(thread);
    assert!(lower.join("file").exists());
    mount.unmount();
}

fn landlock_is_there() -> bool {
    // SAFETY: asks for a version; no pointer is followed.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, 1_u32) >= 2 }
}
