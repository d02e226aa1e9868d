//! An object that is open: its attributes without another look at its name.
//!
//! [`Spot`](super::Spot) serves any object at any time; this serves who has just made
//! or opened a file anyway, at one cheap call each.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Timestamps, Uid, XattrFlags};

use super::Result;
use super::stat::SetTime;
use super::xattr::XATTR_MAX;

/// Makes a regular file that must not exist yet, for writing alone.
pub fn create(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        dir,
        name,
        flags,
        Mode::from_raw_mode(mode),
    )?)
}

/// Opens the regular file `name` for reading, without touching its access time where
/// that is allowed. Should it have become a FIFO or device meanwhile, this does not
/// wait for it; the caller asks what it got.
pub fn open_to_read(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may.
        Err(rustix::io::Errno::PERM) => {}
        r => return Ok(r?),
    }
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Changes owner and group.
pub fn chown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(rustix::fs::fchown(fd, Some(uid), Some(gid))?)
}

/// Changes the permission bits (0o7777).
pub fn chmod(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?)
}

/// Sets access and modification time.
pub fn set_times(fd: BorrowedFd<'_>, atime: SetTime, mtime: SetTime) -> Result<()> {
    let times = Timestamps {
        last_access: atime.to_rustix(),
        last_modification: mtime.to_rustix(),
    };
    Ok(rustix::fs::futimens(fd, &times)?)
}

/// Sets an extended attribute.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<()> {
    Ok(rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())?)
}

/// Removes an extended attribute. ENODATA where there is none.
pub fn remove_xattr(fd: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    Ok(rustix::fs::fremovexattr(fd, name)?)
}

/// The names of all attributes, each ended by NUL; empty where the file system has
/// none.
pub fn list_xattrs(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut small = [0u8; 512];
    match rustix::fs::flistxattr(fd, &mut small) {
        Ok(n) => return Ok(small.get(..n).unwrap_or_default().to_vec()),
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(rustix::io::Errno::RANGE) => {}
        Err(e) => return Err(e.into()),
    }
    let mut large = vec![0u8; XATTR_MAX];
    let n = rustix::fs::flistxattr(fd, &mut large[..])?;
    large.truncate(n);
    Ok(large)
}

/// The bits that this process takes from the mode of what it makes; all of them
/// where nothing tells (umask(2) can only be read by changing it, for all threads).
pub fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .unwrap_or(0o777)
}
