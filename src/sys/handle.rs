//! File handles of name_to_handle_at(2): names of inodes that outlive paths.
//! Encoding one needs no privilege, and tells the mount beside.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{Errno, Result, Spot};

/// The kernel's limit, MAX_HANDLE_SZ.
const MAX_HANDLE: usize = 128;

/// A handle: its file system's type number and bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Handle {
    pub kind: i32,
    pub bytes: Vec<u8>,
}

#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    data: [u8; MAX_HANDLE],
}

/// The handle of the object at `spot`. EOPNOTSUPP where its file system has none.
pub fn of(spot: &Spot) -> Result<Handle> {
    let mut h = RawHandle {
        bytes: MAX_HANDLE as u32,
        kind: 0,
        data: [0; MAX_HANDLE],
    };
    encode(spot.dirfd(), spot.component(), &mut h)?;
    let n = (h.bytes as usize).min(MAX_HANDLE);
    Ok(Handle {
        kind: h.kind,
        bytes: h.data.get(..n).unwrap_or_default().to_vec(),
    })
}

/// The id of the mount that shows `name` in `dir` (an empty name: `dir` itself),
/// for kernels whose statx(2) does not tell it.
pub(crate) fn mount_id(dir: BorrowedFd<'_>, name: &[u8]) -> Result<u64> {
    // No room for a handle: only the mount is asked for.
    let mut h = RawHandle {
        bytes: 0,
        kind: 0,
        data: [0; MAX_HANDLE],
    };
    let mut id = NO_MOUNT;
    match encode_raw(dir, name, &mut h, &mut id) {
        Ok(()) | Err(Errno::EOVERFLOW) if id != NO_MOUNT => {
            return u64::try_from(id).map_err(|_| Errno::EIO);
        }
        Err(e @ (Errno::ENOENT | Errno::ENOTDIR)) => return Err(e),
        // A file system without handles.
        _ => {}
    }
    if name.is_empty() {
        return mount_id_of(dir.as_raw_fd());
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd: OwnedFd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    mount_id_of(fd.as_fd().as_raw_fd())
}

/// What /proc says of an open descriptor.
fn mount_id_of(fd: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))
        .map_err(|e| Errno::from_io(&e))?;
    text.lines()
        .find_map(|l| l.strip_prefix("mnt_id:"))
        .and_then(|n| n.trim().parse().ok())
        .ok_or(Errno::EIO)
}

const NO_MOUNT: libc::c_int = -1;

fn encode(dir: BorrowedFd<'_>, name: &[u8], h: &mut RawHandle) -> Result<()> {
    encode_raw(dir, name, h, &mut 0)
}

fn encode_raw(
    dir: BorrowedFd<'_>,
    name: &[u8],
    h: &mut RawHandle,
    mount_id: &mut libc::c_int,
) -> Result<()> {
    let flags = if name.is_empty() {
        libc::AT_EMPTY_PATH
    } else {
        0
    };
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `name` is NUL-terminated; `h` says how many bytes it has room for
    // and `mount_id` takes one int; all outlive the call.
    let r = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            std::ptr::from_mut(h),
            std::ptr::from_mut(mount_id),
            flags,
        )
    };
    if r == 0 { Ok(()) } else { Err(Errno::last()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_with_handles_and_without() {
        // /proc has no handles; the root of any test machine's disk does, or not.
        for path in ["/", "/proc", "/tmp"] {
            let fd = crate::sys::dir::open_root(std::path::Path::new(path)).unwrap();
            let by_statx = rustix::fs::statx(
                &fd,
                "",
                rustix::fs::AtFlags::EMPTY_PATH,
                rustix::fs::StatxFlags::MNT_ID,
            );
            let by_proc = mount_id_of(fd.as_raw_fd()).unwrap();
            assert_eq!(mount_id(fd.as_fd(), b"").unwrap(), by_proc, "{path}");
            if let Ok(x) = by_statx
                && x.stx_mask & rustix::fs::StatxFlags::MNT_ID.bits() != 0
            {
                assert_eq!(x.stx_mnt_id, by_proc, "{path}");
            }
        }
        let root = crate::sys::dir::open_root(std::path::Path::new("/")).unwrap();
        let proc = crate::sys::dir::open_root(std::path::Path::new("/proc")).unwrap();
        assert_eq!(
            mount_id(root.as_fd(), b"proc").unwrap(),
            mount_id_of(proc.as_raw_fd()).unwrap()
        );
        assert!(mount_id(root.as_fd(), b"no-such-name").is_err());
    }
}
