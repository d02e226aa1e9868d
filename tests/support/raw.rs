//! System calls as a caller sees them: a number or an errno, relative to a directory descriptor.
//!
//! Thin on purpose: the oracle compares exactly what the kernel returned, so nothing is retried or mapped.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

/// What a call returned: its value or its errno.
pub type Ret = Result<i64, i32>;

/// A C string of a path that holds no NUL.
pub fn c(path: impl AsRef<[u8]>) -> CString {
    CString::new(path.as_ref()).unwrap()
}

/// Turns a libc return value into [`Ret`].
pub fn ret(value: impl Into<i64>) -> Ret {
    match value.into() {
        -1 => Err(errno()),
        value => Ok(value),
    }
}

/// The calling thread's errno.
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The name of an errno, for messages.
pub fn errno_name(errno: i32) -> String {
    rustix::io::Errno::from_raw_os_error(errno).to_string() + &format!(" [{errno}]")
}

/// `/proc/self/fd/DIR/PATH`: how to reach what has no `*at` call (the l*xattr family).
pub fn proc_path(dir: RawFd, path: &CStr) -> CString {
    let mut bytes = format!("/proc/self/fd/{dir}/").into_bytes();
    bytes.extend_from_slice(path.to_bytes());
    c(bytes)
}

/// `lgetxattr(2)`; the value, or the errno.
pub fn get_xattr(path: &CStr, name: &CStr) -> Result<Vec<u8>, i32> {
    let mut value = vec![0u8; 65536];
    // SAFETY: both strings are NUL-terminated, the buffer is as long as we say.
    let got = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    value.truncate(usize::try_from(ret(got as i64)?).unwrap());
    Ok(value)
}

/// `llistxattr(2)`, sorted.
pub fn list_xattrs(path: &CStr) -> Result<Vec<Vec<u8>>, i32> {
    let mut names = vec![0u8; 65536];
    // SAFETY: the path is NUL-terminated, the buffer is as long as we say.
    let got = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(ret(got as i64)?).unwrap());
    let mut names: Vec<_> = names
        .split(|&b| b == 0)
        .filter(|n| !n.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    names.sort();
    Ok(names)
}

/// `lsetxattr(2)`.
pub fn set_xattr(path: &CStr, name: &CStr, value: &[u8], flags: i32) -> Ret {
    // SAFETY: both strings are NUL-terminated, the value is as long as we say.
    ret(unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags,
        )
    })
}

/// `lremovexattr(2)`.
pub fn remove_xattr(path: &CStr, name: &CStr) -> Ret {
    // SAFETY: both strings are NUL-terminated.
    ret(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) })
}

/// `mknod(2)` at an absolute path; `rdev` as (major, minor).
pub fn mknod(path: &CStr, mode: u32, rdev: (u32, u32)) -> Ret {
    // SAFETY: the path is NUL-terminated.
    ret(unsafe { libc::mknod(path.as_ptr(), mode, libc::makedev(rdev.0, rdev.1)) })
}
