//! Small files that are read and written whole: records, locks.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{Errno, Result};

/// Reads all of the regular file `name` in `dir`; a symlink is not followed.
///
/// # Errors
/// EFBIG where it is longer than `limit` bytes, EINVAL where it is no regular file.
pub fn read(dir: BorrowedFd<'_>, name: &[u8], limit: u64) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    let found = file.metadata().map_err(|e| Errno::from_io(&e))?;
    if !found.is_file() {
        return Err(Errno::EINVAL);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len().min(limit)).unwrap_or(0));
    let most = limit.saturating_add(1);
    let read = file.take(most).read_to_end(&mut bytes);
    read.map_err(|e| Errno::from_io(&e))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(Errno::EFBIG);
    }
    Ok(bytes)
}

/// Makes the file `name` in `dir`, which must not exist, and writes it to disk.
///
/// # Crash
/// It may be there in part: give it its final name by a rename.
pub fn write_new(dir: BorrowedFd<'_>, name: &[u8], bytes: &[u8]) -> Result<()> {
    let mut file = File::from(super::dir::create_file(dir, name, 0o644)?);
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|e| Errno::from_io(&e))
}

/// Opens the file `name` in `dir` to lock it, making it where it is not there.
pub fn open_to_lock(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        dir,
        name,
        flags,
        Mode::from_raw_mode(0o644),
    )?)
}
