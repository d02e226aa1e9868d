//! File handles of name_to_handle_at(2): names of inodes that outlive paths.
//! Encoding one needs no privilege.

use std::ffi::CString;
use std::os::fd::AsRawFd;

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
    let name = CString::new(spot.component()).map_err(|_| Errno::EINVAL)?;
    let mut h = RawHandle {
        bytes: MAX_HANDLE as u32,
        kind: 0,
        data: [0; MAX_HANDLE],
    };
    let mut mount_id: libc::c_int = 0;
    let flags = if spot.is_descriptor() {
        libc::AT_EMPTY_PATH
    } else {
        0
    };
    // SAFETY: `name` is NUL-terminated; `h` says how many bytes it has room for
    // and `mount_id` takes one int; all outlive the call.
    let r = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            spot.dirfd().as_raw_fd(),
            name.as_ptr(),
            &mut h,
            &mut mount_id,
            flags,
        )
    };
    if r != 0 {
        return Err(Errno::last());
    }
    let n = (h.bytes as usize).min(MAX_HANDLE);
    Ok(Handle {
        kind: h.kind,
        bytes: h.data.get(..n).unwrap_or_default().to_vec(),
    })
}
