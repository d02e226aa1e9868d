//! Signals passed on to a child that does the work, and its end waited for.
//!
//! A terminal sends its signals to every process of the foreground group, the
//! child among them: those are not passed on, or it would get them twice.

use std::mem::MaybeUninit;

pub use rustix::process::Pid;
use rustix::process::WaitOptions;

use super::Errno;

/// What is passed on.
const PASSED: [i32; 7] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
];

/// Signals wait for [`until_end`] from now on, in this process and its children.
pub fn hold() {
    mask(libc::SIG_BLOCK);
}

/// They have their usual effect again.
pub fn release() {
    mask(libc::SIG_UNBLOCK);
}

fn mask(how: i32) {
    let set = set();
    // SAFETY: `set` is initialised; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(how, &set, std::ptr::null_mut()) };
}

fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set; the signal numbers are valid.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in PASSED.into_iter().chain([libc::SIGCHLD]) {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Passes signals on to `child` until it ends; its exit status, or 128 and the
/// signal's number (sh(1)). Other children that end meanwhile are forgotten: a
/// first process of a PID namespace gets those that lost their parents.
///
/// The caller has called [`hold`] before it made the child.
pub fn until_end(child: Pid) -> u8 {
    // Nobody is watched, so there is always an end.
    until_end_or(child, || false).unwrap_or(u8::MAX)
}

/// The same for a process that has asked to get SIGCHLD when its parent ends
/// ([`super::brood::hear_of_parent`]); `None` where `parent` ended first.
pub fn until_end_below(child: Pid, parent: Pid) -> Option<u8> {
    until_end_or(child, || rustix::process::getppid() != Some(parent))
}

fn until_end_or(child: Pid, given_up: impl Fn() -> bool) -> Option<u8> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => return Some(code_of(status)),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => continue,
            // It is gone, and its status with it: somebody made us ignore SIGCHLD.
            Err(_) => return Some(u8::MAX),
            Ok(None) if given_up() => return None,
            Ok(None) => {}
        }
        if let Some((signal, by_kernel)) = next()
            && signal != libc::SIGCHLD
            && !by_kernel
        {
            send(child, signal);
        }
    }
}

/// Waits until there are no children, for no longer than this.
pub fn until_none(most: std::time::Duration) {
    let until = std::time::Instant::now() + most;
    while std::time::Instant::now() < until {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::CHILD) => return,
            Ok(Some(_)) => {}
            _ => std::thread::sleep(std::time::Duration::from_millis(2)),
        }
    }
}

fn code_of(status: rustix::process::WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    };
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// The next signal, and whether the kernel itself sent it.
fn next() -> Option<(i32, bool)> {
    let set = set();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: both pointers are to live values; siginfo_t is plain numbers, of
    // which every pattern is one, so it may be read also where nothing was written.
    let (signal, info) = unsafe {
        let signal = libc::sigwaitinfo(&set, info.as_mut_ptr());
        (signal, info.assume_init())
    };
    (signal > 0).then_some((signal, info.si_code == libc::SI_KERNEL))
}

/// Sends a signal; to a process that has ended it is sent in vain.
pub fn send(to: Pid, signal: i32) {
    // SAFETY: plain numbers.
    let failed = unsafe { libc::kill(to.as_raw_nonzero().get(), signal) } != 0;
    if failed {
        tracing::debug!("signal {signal}: {}", Errno::last());
    }
}

/// Kills a child and waits for its end.
pub fn kill(child: Pid) {
    send(child, libc::SIGKILL);
    until_end(child);
}
