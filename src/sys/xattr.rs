//! Extended attributes of an object that is named by a [`Spot`].
//!
//! Linux 6.13 has `*xattrat(2)`; before that the way is a path through
//! /proc/self/fd. Objects are never opened for it, so FIFOs and devices are safe.

use std::ffi::CString;
use std::os::fd::AsRawFd;

use super::features::{self, Feature};
use super::{Errno, Result, Spot};

/// The kernel's limit for one value and for one list (XATTR_SIZE_MAX, XATTR_LIST_MAX).
pub const XATTR_MAX: usize = 65536;

const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// struct xattr_args, include/uapi/linux/xattr.h
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

fn cstr(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

/// Whether the new calls can serve this spot: they take no O_PATH descriptor of
/// the object itself.
fn by_at(spot: &Spot) -> bool {
    !spot.is_descriptor() && features::allowed(Feature::XattrAt)
}

fn answer(r: libc::c_long) -> Result<usize> {
    usize::try_from(r).map_err(|_| Errno::last())
}

/// Whether an answer of the new calls means that they are missing.
fn missing(r: &Result<usize>) -> bool {
    if matches!(r, Err(Errno::ENOSYS)) {
        features::is_missing(Feature::XattrAt);
        return true;
    }
    false
}

/// Whether a descriptor only names its object (O_PATH); an open file answers by
/// itself, without a walk through /proc.
fn names_only(r: &Result<usize>) -> bool {
    matches!(r, Err(Errno::EBADF))
}

/// Reads into `buf`; the value's length. ERANGE where it does not fit.
fn get_raw(spot: &Spot, name: &CString, buf: &mut [u8]) -> Result<usize> {
    if by_at(spot) {
        let comp = cstr(spot.component())?;
        let args = XattrArgs {
            value: buf.as_mut_ptr() as u64,
            size: u32::try_from(buf.len()).unwrap_or(u32::MAX),
            flags: 0,
        };
        // SAFETY: the strings are NUL-terminated, `args` points at `buf` with
        // its length; all outlive the call.
        let r = answer(unsafe {
            libc::syscall(
                SYS_GETXATTRAT,
                spot.dirfd().as_raw_fd(),
                comp.as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
                name.as_ptr(),
                &args,
                std::mem::size_of::<XattrArgs>(),
            )
        });
        if !missing(&r) {
            return r;
        }
    }
    if spot.is_descriptor() {
        // SAFETY: a NUL-terminated string and a buffer of the length given.
        let r = answer(unsafe {
            let b = buf.as_mut_ptr().cast();
            libc::fgetxattr(spot.dirfd().as_raw_fd(), name.as_ptr(), b, buf.len())
        } as libc::c_long);
        if !names_only(&r) {
            return r;
        }
    }
    let path = cstr(&spot.proc_path())?;
    let (p, n, b, l) = (
        path.as_ptr(),
        name.as_ptr(),
        buf.as_mut_ptr().cast(),
        buf.len(),
    );
    // SAFETY: NUL-terminated strings and a buffer of the length given.
    let r = unsafe {
        if spot.is_descriptor() {
            libc::getxattr(p, n, b, l)
        } else {
            libc::lgetxattr(p, n, b, l)
        }
    };
    answer(r as libc::c_long)
}

/// The value of `name`; `None` where the object has no such attribute or its
/// file system knows none of the kind.
pub fn get(spot: &Spot, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let name = cstr(name)?;
    let mut buf = vec![0u8; 256];
    loop {
        match get_raw(spot, &name, &mut buf) {
            Ok(n) => {
                buf.truncate(n);
                return Ok(Some(buf));
            }
            // EACCES: a user.* attribute of an object that this process may not
            // read says nothing to it either.
            Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EACCES) => return Ok(None),
            Err(Errno::ERANGE) if buf.len() < XATTR_MAX => buf = vec![0u8; XATTR_MAX],
            Err(e) => return Err(e),
        }
    }
}

/// Like [`get`], but tells "not supported" from "has none".
pub fn get_strict(spot: &Spot, name: &[u8]) -> Result<Vec<u8>> {
    let name = cstr(name)?;
    let mut buf = vec![0u8; 256];
    loop {
        match get_raw(spot, &name, &mut buf) {
            Ok(n) => {
                buf.truncate(n);
                return Ok(buf);
            }
            Err(Errno::ERANGE) if buf.len() < XATTR_MAX => buf = vec![0u8; XATTR_MAX],
            Err(e) => return Err(e),
        }
    }
}

fn list_raw(spot: &Spot, buf: &mut [u8]) -> Result<usize> {
    if by_at(spot) {
        let comp = cstr(spot.component())?;
        // SAFETY: a NUL-terminated string and a buffer of the length given.
        let r = answer(unsafe {
            libc::syscall(
                SYS_LISTXATTRAT,
                spot.dirfd().as_raw_fd(),
                comp.as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
                buf.as_mut_ptr(),
                buf.len(),
            )
        });
        if !missing(&r) {
            return r;
        }
    }
    if spot.is_descriptor() {
        // SAFETY: a buffer of the length given.
        let r = answer(unsafe {
            let b = buf.as_mut_ptr().cast();
            libc::flistxattr(spot.dirfd().as_raw_fd(), b, buf.len())
        } as libc::c_long);
        if !names_only(&r) {
            return r;
        }
    }
    let path = cstr(&spot.proc_path())?;
    let (p, b, l) = (path.as_ptr(), buf.as_mut_ptr().cast(), buf.len());
    // SAFETY: a NUL-terminated string and a buffer of the length given.
    let r = unsafe {
        if spot.is_descriptor() {
            libc::listxattr(p, b, l)
        } else {
            libc::llistxattr(p, b, l)
        }
    };
    answer(r as libc::c_long)
}

/// The names of all attributes, each ended by NUL; empty where there are none,
/// where the file system knows none, or where they may not be listed.
pub fn list(spot: &Spot) -> Result<Vec<u8>> {
    match list_strict(spot) {
        Err(Errno::EOPNOTSUPP | Errno::EACCES) => Ok(Vec::new()),
        r => r,
    }
}

/// Like [`list`], but where none may be listed, or the file system knows none,
/// that is an error.
pub fn list_strict(spot: &Spot) -> Result<Vec<u8>> {
    let mut small = [0u8; 512];
    match list_raw(spot, &mut small) {
        Ok(n) => return Ok(small.get(..n).unwrap_or_default().to_vec()),
        Err(Errno::ERANGE) => {}
        Err(e) => return Err(e),
    }
    let mut buf = vec![0u8; XATTR_MAX];
    let n = list_raw(spot, &mut buf)?;
    buf.truncate(n);
    Ok(buf)
}

/// The names in a list of [`list`].
pub fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| *b == 0).filter(|n| !n.is_empty())
}

/// Sets an attribute; `flags` are XATTR_CREATE and XATTR_REPLACE.
pub fn set(spot: &Spot, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
    let name = cstr(name)?;
    if by_at(spot) {
        let comp = cstr(spot.component())?;
        let args = XattrArgs {
            value: value.as_ptr() as u64,
            size: u32::try_from(value.len()).map_err(|_| Errno::E2BIG)?,
            flags: flags as u32,
        };
        // SAFETY: the strings are NUL-terminated, `args` points at `value` with
        // its length; all outlive the call.
        let r = answer(unsafe {
            libc::syscall(
                SYS_SETXATTRAT,
                spot.dirfd().as_raw_fd(),
                comp.as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
                name.as_ptr(),
                &args,
                std::mem::size_of::<XattrArgs>(),
            )
        });
        if !missing(&r) {
            return r.map(|_| ());
        }
    }
    if spot.is_descriptor() {
        // SAFETY: a NUL-terminated string and a value of the length given.
        let r = answer(libc::c_long::from(unsafe {
            let v = value.as_ptr().cast();
            libc::fsetxattr(
                spot.dirfd().as_raw_fd(),
                name.as_ptr(),
                v,
                value.len(),
                flags,
            )
        }));
        if !names_only(&r) {
            return r.map(|_| ());
        }
    }
    let path = cstr(&spot.proc_path())?;
    let (p, n, v, l) = (
        path.as_ptr(),
        name.as_ptr(),
        value.as_ptr().cast(),
        value.len(),
    );
    // SAFETY: NUL-terminated strings and a value of the length given.
    let r = unsafe {
        if spot.is_descriptor() {
            libc::setxattr(p, n, v, l, flags)
        } else {
            libc::lsetxattr(p, n, v, l, flags)
        }
    };
    answer(r.into()).map(|_| ())
}

/// Removes an attribute. ENODATA where there is none.
pub fn remove(spot: &Spot, name: &[u8]) -> Result<()> {
    let name = cstr(name)?;
    if by_at(spot) {
        let comp = cstr(spot.component())?;
        // SAFETY: NUL-terminated strings that outlive the call.
        let r = answer(unsafe {
            libc::syscall(
                SYS_REMOVEXATTRAT,
                spot.dirfd().as_raw_fd(),
                comp.as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
                name.as_ptr(),
            )
        });
        if !missing(&r) {
            return r.map(|_| ());
        }
    }
    let path = cstr(&spot.proc_path())?;
    // SAFETY: NUL-terminated strings that outlive the call.
    let r = unsafe {
        if spot.is_descriptor() {
            libc::removexattr(path.as_ptr(), name.as_ptr())
        } else {
            libc::lremovexattr(path.as_ptr(), name.as_ptr())
        }
    };
    answer(r.into()).map(|_| ())
}
