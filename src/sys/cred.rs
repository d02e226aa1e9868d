//! Per-thread credentials: who a new object belongs to.
//!
//! setfsuid(2) and setfsgid(2) change only the calling thread. Leaving uid 0
//! takes the file capabilities out of the effective set; they are put back at
//! once, so that only the *owner of new objects* changes and never what the
//! daemon may do. umask is per thread once the thread has left the shared
//! fs_struct (unshare(CLONE_FS), no privilege needed).

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Errno, Result};

thread_local! {
    /// What this thread creates as: (fsuid, fsgid).
    static CURRENT: Cell<Option<(u32, u32)>> = const { Cell::new(None) };
    static UMASK: Cell<Option<u32>> = const { Cell::new(None) };
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_V3: u32 = 0x2008_0522;

/// Set once the kernel leaves the effective set alone: see [`effective_set_stays`].
static STAYS: AtomicBool = AtomicBool::new(false);

/// Tells that SECBIT_NO_SETUID_FIXUP is set on this thread and all that will
/// create: two system calls less for each change of owner.
pub(super) fn effective_set_stays() {
    STAYS.store(true, Ordering::Relaxed);
}

/// Puts every permitted capability of this thread into its effective set.
fn raise_effective() {
    if STAYS.load(Ordering::Relaxed) {
        return;
    }
    let mut h = CapHeader {
        version: CAP_V3,
        pid: 0,
    };
    let mut d = [CapData::default(); 2];
    // SAFETY: version 3 reads and writes two CapData; both live on this stack.
    let ok = unsafe { libc::syscall(libc::SYS_capget, &mut h, d.as_mut_ptr()) } == 0;
    if !ok || d.iter().all(|c| c.effective == c.permitted) {
        return;
    }
    for c in &mut d {
        c.effective = c.permitted;
    }
    // SAFETY: as above.
    let r = unsafe { libc::syscall(libc::SYS_capset, &mut h, d.as_ptr()) };
    if r != 0 {
        tracing::warn!("capset failed: {}", Errno::last());
    }
}

/// Makes this thread create as `uid`:`gid` from now on.
///
/// # Errors
/// EOVERFLOW where the daemon's user namespace has no such id, EPERM where it
/// may not take it.
pub fn create_as(uid: u32, gid: u32) -> Result<()> {
    if CURRENT.get() == Some((uid, gid)) {
        return Ok(());
    }
    let before = current();
    CURRENT.set(None);
    if before.1 != gid {
        set_fs_id(libc::SYS_setfsgid, gid)?;
    }
    if before.0 != uid {
        let r = set_fs_id(libc::SYS_setfsuid, uid);
        raise_effective();
        if r.is_err() {
            // Back to where we were; a thread must not stay half changed.
            set_fs_id(libc::SYS_setfsgid, before.1)?;
            return r;
        }
    }
    CURRENT.set(Some((uid, gid)));
    Ok(())
}

/// (fsuid, fsgid) of this thread.
fn current() -> (u32, u32) {
    if let Some(c) = CURRENT.get() {
        return c;
    }
    // SAFETY: plain numbers; -1 is no valid id, so nothing changes and the
    // present one is returned.
    unsafe {
        (
            libc::syscall(libc::SYS_setfsuid, u32::MAX) as u32,
            libc::syscall(libc::SYS_setfsgid, u32::MAX) as u32,
        )
    }
}

fn set_fs_id(call: libc::c_long, id: u32) -> Result<()> {
    // SAFETY: plain numbers. The calls report no error: the second one, with an
    // invalid id, tells whether the first one was obeyed.
    let now = unsafe {
        libc::syscall(call, id);
        libc::syscall(call, u32::MAX) as u32
    };
    if now == id {
        Ok(())
    } else {
        Err(Errno::EOVERFLOW)
    }
}

/// The ids this thread creates as while nothing else is asked for.
pub fn own_ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

/// Sets this thread's own umask, leaving the other threads' alone.
pub fn set_umask(mask: u32) -> Result<()> {
    if UMASK.get() == Some(mask) {
        return Ok(());
    }
    if UMASK.get().is_none() {
        // SAFETY: CLONE_FS only detaches this thread's umask, cwd and root.
        if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
            return Err(Errno::last());
        }
    }
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask as libc::mode_t) };
    UMASK.set(Some(mask));
    Ok(())
}

/// Whether the requester, process `pid` of user and group `ids`, is in group
/// `gid` by its supplementary groups; false where /proc does not tell.
pub fn in_group(pid: u32, ids: (u32, u32), gid: u32) -> bool {
    let tells = || std::fs::read_to_string(format!("/proc/{pid}/status")).ok();
    // With hidepid= only the user's own processes may look, and root's with a
    // capability that we have given away.
    let as_the_user = || create_as(ids.0, ids.1).ok().and_then(|()| tells());
    let text = tells().or_else(as_the_user).unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix("Groups:"))
        .is_some_and(|g| g.split_whitespace().any(|w| w.parse() == Ok(gid)))
}
