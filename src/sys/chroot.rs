//! A directory as root by chroot(2), for good: without a way back.
//!
//! chroot(2) alone holds nobody: with a descriptor or a current directory outside, or
//! by a second chroot(2), a process gets out. So all three are taken away. It is no wall
//! all the same: a process with root's other rights can change others that are outside.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::process::close_inherited;
use super::{Errno, Result};

/// Makes a directory the root of this process and of all that it starts. Of its
/// descriptors stay stdin, stdout and stderr, where they are no directories, and `keep`,
/// which must be closed on exec. For a forked process that never returns to the owners
/// of the others.
///
/// # Errors
/// EPERM without CAP_SYS_CHROOT, or where a seccomp filter forbids it.
pub fn enter(directory: OwnedFd, keep: RawFd) -> Result<()> {
    no_directory_as_stdio()?;
    rustix::process::fchdir(&directory)?;
    // Before the number is closed under it.
    drop(directory);
    close_inherited(&[keep]);
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    give_up_chroot()
}

/// By a directory of the host the command would have a way out.
fn no_directory_as_stdio() -> Result<()> {
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    for number in 0..=2 {
        // SAFETY: asks what the number is; EBADF where it is nothing.
        let stat = rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(number) });
        let is_directory = |mode| mode & libc::S_IFMT == libc::S_IFDIR;
        if !stat.is_ok_and(|s| is_directory(s.st_mode)) {
            continue;
        }
        // SAFETY: dup2 over 0, 1 and 2, which std never owns, only uses.
        if unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), number) } < 0 {
            return Err(Errno::last());
        }
    }
    Ok(())
}

/// This process and what it runs, be it root's, can change their root no more.
fn give_up_chroot() -> Result<()> {
    let right = CapabilitySet::SYS_CHROOT;
    match rustix::thread::remove_capability_from_bounding_set(right) {
        Ok(()) => {}
        // Without CAP_SETPCAP: what is given up does not come back by a program either.
        Err(rustix::io::Errno::PERM) => rustix::thread::set_no_new_privs(true)?,
        Err(e) => return Err(e.into()),
    }
    let now = rustix::thread::capabilities(None)?;
    let less = CapabilitySets {
        effective: now.effective - right,
        permitted: now.permitted - right,
        inheritable: now.inheritable - right,
    };
    Ok(rustix::thread::set_capabilities(None, less)?)
}
