//! Data of regular files.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, SeekFrom};

use super::{Errno, Result};

/// Reads at `offset` until `buf` is full or the file ends; the count read.
pub fn read_at(fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0usize;
    while done < buf.len() {
        let Some(rest) = buf.get_mut(done..) else {
            break;
        };
        match rustix::io::pread(fd, rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            // Not what was read so far: whoever asked would take it for the end of
            // the file, and the kernel keep zeros for the rest of its pages.
            Err(e) => return Err(e.into()),
        }
    }
    Ok(done)
}

/// Whether a file was opened for reading and writing.
pub fn reads_and_writes(fd: BorrowedFd<'_>) -> Result<bool> {
    let mode = rustix::fs::fcntl_getfl(fd)? & rustix::fs::OFlags::RWMODE;
    Ok(mode == rustix::fs::OFlags::RDWR)
}

/// Whether the file system of an open file has direct I/O (O_DIRECT).
pub fn takes_direct_io(fd: BorrowedFd<'_>) -> bool {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).is_ok()
}

/// Writes all of `data` at `offset`; a short count where the disk fills up.
pub fn write_at(fd: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<usize> {
    let mut done = 0usize;
    while done < data.len() {
        let Some(rest) = data.get(done..) else { break };
        match rustix::io::pwrite(fd, rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) if done == 0 => return Err(e.into()),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Sets the length.
pub fn truncate(fd: BorrowedFd<'_>, size: u64) -> Result<()> {
    Ok(rustix::fs::ftruncate(fd, size)?)
}

/// fallocate(2) with the flags as the caller gave them.
pub fn fallocate(fd: BorrowedFd<'_>, mode: u32, offset: u64, len: u64) -> Result<()> {
    let flags = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
    Ok(rustix::fs::fallocate(fd, flags, offset, len)?)
}

/// The next data (or hole) at or after `offset`. ENXIO past the end.
pub fn seek_data(fd: BorrowedFd<'_>, offset: u64) -> Result<u64> {
    Ok(rustix::fs::seek(fd, SeekFrom::Data(offset))?)
}

/// The next hole at or after `offset`. ENXIO past the end.
pub fn seek_hole(fd: BorrowedFd<'_>, offset: u64) -> Result<u64> {
    Ok(rustix::fs::seek(fd, SeekFrom::Hole(offset))?)
}

/// Writes data (and metadata unless `data_only`) to disk.
pub fn sync(fd: BorrowedFd<'_>, data_only: bool) -> Result<()> {
    if data_only {
        rustix::fs::fdatasync(fd)?;
    } else {
        rustix::fs::fsync(fd)?;
    }
    Ok(())
}

/// Has a file's data on its way to disk, so that [`sync`] of many files waits once.
pub fn begin_to_write(fd: BorrowedFd<'_>) {
    // SAFETY: plain numbers; sync_file_range(2) of the whole file.
    let failed =
        unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) != 0 };
    if failed {
        // Not every file system can; what waits for it does the work then.
        tracing::trace!("sync_file_range: {}", Errno::last());
    }
}

/// Writes the whole file system that `fd` stands on to disk.
pub fn sync_fs(fd: BorrowedFd<'_>) -> Result<()> {
    // syncfs(2) refuses O_PATH descriptors.
    let fd = super::dir::open_readable(fd)?;
    Ok(rustix::fs::syncfs(fd)?)
}

/// What statvfs(3) says.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct FsStat {
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub bsize: u32,
    pub namelen: u32,
    pub frsize: u32,
    pub f_type: i64,
}

/// Numbers of the file system that `fd` stands on.
pub fn fs_stat(fd: BorrowedFd<'_>) -> Result<FsStat> {
    let s = rustix::fs::fstatfs(fd)?;
    Ok(FsStat {
        blocks: s.f_blocks,
        bfree: s.f_bfree,
        bavail: s.f_bavail,
        files: s.f_files,
        ffree: s.f_ffree,
        bsize: u32::try_from(s.f_bsize).unwrap_or(4096),
        namelen: u32::try_from(s.f_namelen).unwrap_or(255),
        frsize: u32::try_from(s.f_frsize).unwrap_or(4096),
        f_type: s.f_type,
    })
}

/// FS_IOC_GETFLAGS: chattr(1)'s flags. ENOTTY where the file system has none.
pub fn inode_flags(fd: BorrowedFd<'_>) -> Result<u32> {
    let mut v: libc::c_int = 0;
    // SAFETY: FS_IOC_GETFLAGS writes one int through the pointer, which lives
    // until the call returns.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut v) };
    if r < 0 {
        Err(Errno::last())
    } else {
        Ok(v as u32)
    }
}

/// FS_IOC_SETFLAGS.
pub fn set_inode_flags(fd: BorrowedFd<'_>, flags: u32) -> Result<()> {
    let v = flags as libc::c_int;
    // SAFETY: FS_IOC_SETFLAGS reads one int through the pointer, which lives
    // until the call returns.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_SETFLAGS, &v) };
    if r < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// struct fsxattr, include/uapi/linux/fs.h: flags, extent size, project and so on.
pub const FSXATTR_LEN: usize = 28;

/// FS_IOC_FSGETXATTR, uninterpreted.
pub fn fs_xattr(fd: BorrowedFd<'_>) -> Result<[u8; FSXATTR_LEN]> {
    // _IOR('X', 31, struct fsxattr)
    const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f;
    let mut v = [0u8; FSXATTR_LEN];
    // SAFETY: the kernel writes sizeof(struct fsxattr) = 28 bytes.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSGETXATTR, v.as_mut_ptr()) };
    if r < 0 { Err(Errno::last()) } else { Ok(v) }
}

/// FS_IOC_FSSETXATTR.
pub fn set_fs_xattr(fd: BorrowedFd<'_>, v: &[u8; FSXATTR_LEN]) -> Result<()> {
    // _IOW('X', 32, struct fsxattr)
    const FS_IOC_FSSETXATTR: libc::Ioctl = 0x401c_5820;
    // SAFETY: the kernel reads sizeof(struct fsxattr) = 28 bytes.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSSETXATTR, v.as_ptr()) };
    if r < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// A second descriptor for the same open description.
pub fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// Takes a shared flock(2) without waiting; EWOULDBLOCK comes back as EBUSY.
pub fn try_lock_shared(fd: BorrowedFd<'_>) -> Result<()> {
    match rustix::fs::flock(fd, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Errno::EBUSY),
        r => Ok(r?),
    }
}

/// Takes an exclusive flock(2) without waiting; EWOULDBLOCK comes back as EBUSY.
pub fn try_lock(fd: BorrowedFd<'_>) -> Result<()> {
    match rustix::fs::flock(fd, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Errno::EBUSY),
        r => Ok(r?),
    }
}
