//! Signals: which are ignored, which are waited for.

use std::mem::MaybeUninit;

/// The signals that ask a mount to end.
pub const END: [i32; 2] = [libc::SIGTERM, libc::SIGINT];

/// What a daemon must not die of: a reader that went away, a terminal that
/// closed, a file size limit (`ulimit -f`: the write then fails with EFBIG,
/// which belongs to whoever wrote).
pub fn ignore_what_would_kill_a_daemon() {
    for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGXFSZ] {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Makes waiting for children possible where the caller ignored SIGCHLD.
pub fn restore_child_signal() {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Keeps the signals of [`END`] pending for [`wait_for_end`], in this thread
/// and every thread it makes from now on.
pub fn block_end() {
    let set = end_set();
    // SAFETY: `set` is initialised; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
}

/// Waits for a signal of [`END`]; which one.
pub fn wait_for_end() -> Option<i32> {
    let set = end_set();
    let mut signal = 0;
    // SAFETY: both pointers are to live values.
    let failed = unsafe { libc::sigwait(&set, &mut signal) };
    (failed == 0).then_some(signal)
}

/// Ends this process at once, the way the signal would have.
pub fn die_of(signal: i32) -> ! {
    // SAFETY: SIG_DFL runs no code of ours; the set is initialised; raise and
    // _exit take plain numbers.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let set = end_set();
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::raise(signal);
        libc::_exit(128 + signal)
    }
}

fn end_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set; the signal numbers are valid.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in END {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}
