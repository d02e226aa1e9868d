//! ioctl(2) whose data has the size that its number says.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Errno, Result};

/// Sends `data` with a request made by `_IOW`, `_IOR` or `_IOWR`; the answer, if
/// any, is in it afterwards.
///
/// # Errors
/// EINVAL where the request's size is not that of `data`; else what was answered.
pub fn ioctl(fd: BorrowedFd<'_>, request: u32, data: &mut [u8]) -> Result<()> {
    let size = usize::try_from(request >> 16 & 0x3fff).map_err(|_| Errno::EINVAL)?;
    if size != data.len() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the kernel reads and writes as many bytes as the request's number
    // says, which is the length of `data`, alive until the call returns.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, data.as_mut_ptr()) };
    if r < 0 { Err(Errno::last()) } else { Ok(()) }
}
