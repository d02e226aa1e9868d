//! What a kernel's FUSE offers: read from its first request, INIT, of a mount
//! that is made for that and never answered.
//!
//! `struct fuse_in_header` and `struct fuse_init_in` of include/uapi/linux/fuse.h;
//! fuser parses them too, but only in a session that then serves.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::sys::mount::{self, Errno, MountFlags};
use crate::sys::{Result, fusermount, process};

/// What INIT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Minor number of protocol version 7.
    pub minor: u32,
    /// FUSE_… flags, `flags2` in the upper half.
    pub flags: u64,
}

/// A flag that acetate asks for because requests get fewer or cheaper by it.
#[derive(Debug, Clone, Copy)]
pub struct Lever {
    /// Its bit.
    pub bit: u32,
    /// A stable name.
    pub name: &'static str,
    /// The Linux version that has it.
    pub since: &'static str,
    /// What is so without it.
    pub without: &'static str,
}

/// Those that kernels in use may lack.
pub const LEVERS: &[Lever] = &[
    Lever {
        bit: 17,
        name: "fuse_zero_message_open",
        since: "3.15",
        without: "each open and close of a file is a request",
    },
    Lever {
        bit: 18,
        name: "fuse_parallel_directory_operations",
        since: "4.7",
        without: "lookups in one directory wait for each other",
    },
    Lever {
        bit: 20,
        name: "fuse_posix_acl",
        since: "4.9",
        without: "POSIX ACLs are not enforced",
    },
    Lever {
        bit: 23,
        name: "fuse_symlink_cache",
        since: "4.20",
        without: "each readlink is a request",
    },
    Lever {
        bit: 24,
        name: "fuse_zero_message_opendir",
        since: "5.1",
        without: "each opendir is a request",
    },
    Lever {
        bit: 28,
        name: "fuse_killpriv_v2",
        since: "5.11",
        without: "each write asks for an attribute first",
    },
];

/// The bit of FUSE_PASSTHROUGH (Linux 6.9).
pub const PASSTHROUGH: u32 = 37;

impl Offer {
    /// Reads an INIT request.
    pub fn parse(request: &[u8]) -> Option<Offer> {
        const HEADER: usize = 40;
        const INIT: u32 = 26;
        /// FUSE_INIT_EXT: there is a `flags2`.
        const EXTENDED: u32 = 1 << 30;
        let word = |at: usize| {
            let bytes = request.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        if word(4)? != INIT || word(HEADER)? != 7 {
            return None;
        }
        let low = word(HEADER + 12)?;
        let high = match low & EXTENDED {
            0 => 0,
            _ => word(HEADER + 16).unwrap_or(0),
        };
        Some(Offer {
            minor: word(HEADER + 4)?,
            flags: u64::from(high) << 32 | u64::from(low),
        })
    }

    /// Whether a flag is offered.
    pub fn has(&self, bit: u32) -> bool {
        self.flags & (1 << bit) != 0
    }
}

/// Mounts at `place` and reads what the kernel offers. For a process, or a
/// thread, in a mount namespace of its own: the mount ends with that.
pub fn by_kernel(place: &Path) -> Result<Vec<u8>> {
    let device = mount::open_fuse_device()?;
    let (uid, gid) = process::effective_ids();
    let data = format!(
        "fd={},rootmode=40755,user_id={uid},group_id={gid}",
        mount::number_of(&device)
    );
    let (kind, source) = ("fuse.acetate", OsStr::new("acetate-doctor"));
    mount::mount_fuse(place, kind, source, MountFlags::empty(), OsStr::new(&data))?;
    first_request(&device)
}

/// The same by fusermount3, and unmounts again.
pub fn by_program(place: &Path) -> std::result::Result<Vec<u8>, fusermount::Error> {
    let options = OsStr::new("fsname=acetate-doctor,subtype=acetate");
    let device = fusermount::mount(place, options)?;
    let read = first_request(&device);
    fusermount::unmount(place, mount::Detach::Now)?;
    read.map_err(|e| fusermount::Error::Broken(format!("reading /dev/fuse: {e}")))
}

fn first_request(device: &OwnedFd) -> Result<Vec<u8>> {
    // It is there as soon as the mount is; a filter in between may differ.
    for _ in 0..100 {
        match mount::read_request(device) {
            Err(Errno::EAGAIN) => std::thread::sleep(std::time::Duration::from_millis(10)),
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, words: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        bytes[4..8].copy_from_slice(&opcode.to_ne_bytes());
        bytes.extend(words.iter().flat_map(|w| w.to_ne_bytes()));
        bytes
    }

    #[test]
    fn init_says_what_the_kernel_offers() {
        let old = Offer::parse(&request(26, &[7, 27, 0, 1 << 17])).unwrap();
        assert_eq!((old.minor, old.has(17), old.has(24)), (27, true, false));
        let new = Offer::parse(&request(26, &[7, 44, 0, 1 << 30, 1 << 5])).unwrap();
        assert!(new.has(37) && !new.has(5));
        // Without the word that there is one, the rest is something else.
        let none = Offer::parse(&request(26, &[7, 31, 0, 0, 1 << 5])).unwrap();
        assert!(!none.has(37));
    }

    #[test]
    fn anything_else_is_no_offer() {
        for wrong in [
            request(1, &[7, 31, 0, 0]),
            request(26, &[8, 0, 0, 0]),
            request(26, &[7, 31]),
            Vec::new(),
        ] {
            assert_eq!(Offer::parse(&wrong), None);
        }
    }
}
