//! The directories a thread may open anything below: a Landlock domain.
//!
//! What requests reach is named by a directory descriptor and one component,
//! so no fault in a path can lead out of a layer; this makes the kernel say so
//! too, and it makes lowers read-only for good: they may be opened to read and
//! nothing below them can be made, removed or renamed. (Landlock knows no
//! chmod, chown, utimes or setxattr; for those the rule above has to do.)
//!
//! Rules hang on the directories' inodes and hold for private clones of their
//! mounts as well. Descriptors opened before are not asked again.
//!
//! A domain forbids every change of mounts, so the threads that unmount must
//! not enter it. It is entered from ABI 2 on (Linux 5.19): before that it would
//! forbid a rename from the work directory to the upper.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::Outcome;
use crate::sys::{Errno, Result};

/// LANDLOCK_ACCESS_FS_…: bits 0 to 14 in the order of the header.
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// EXECUTE to REFER: what ABI 2 knows.
const UP_TO_REFER: u64 = (1 << 14) - 1;
const EXECUTE: u64 = 1;
/// From ABI 3 on.
const TRUNCATE: u64 = 1 << 14;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// What may be done below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Open and list.
    Read,
    /// All but running programs.
    Write,
}

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// Whether what is opened may be run by others: the kernel opens a program that it
/// reads by itself (`passthrough=on`) with our rights, EXECUTE among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    /// Nothing below may be run through a file of ours.
    Shut,
    /// Clients run what the kernel opens for them. (We run nothing: execve(2) is refused
    /// by [`super::calls`].)
    Open,
}

/// A domain that is not entered yet.
#[derive(Debug)]
pub struct Paths {
    ruleset: OwnedFd,
    handled: u64,
}

impl Paths {
    /// A domain in which nothing may be opened.
    ///
    /// # Errors
    /// ENOSYS, EOPNOTSUPP where the kernel has no Landlock, or an old one.
    pub fn new(programs: Programs) -> Result<Paths> {
        // SAFETY: asks for a number; no pointer is followed.
        let abi = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<RulesetAttr>(),
                0_usize,
                CREATE_RULESET_VERSION,
            )
        };
        let handled = match abi {
            -1 => return Err(Errno::last()),
            0 | 1 => return Err(Errno::EOPNOTSUPP),
            2 => UP_TO_REFER,
            _ => UP_TO_REFER | TRUNCATE,
        };
        let handled = match programs {
            Programs::Shut => handled,
            Programs::Open => handled & !EXECUTE,
        };
        let attr = RulesetAttr {
            handled_access_fs: handled,
        };
        // SAFETY: `attr` lives until the call returns, and its size is given.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &attr,
                size_of::<RulesetAttr>(),
                0_u32,
            )
        };
        let fd = i32::try_from(fd).map_err(|_| Errno::EIO)?;
        if fd < 0 {
            return Err(Errno::last());
        }
        // SAFETY: a new descriptor that nobody else owns.
        let ruleset = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Paths { ruleset, handled })
    }

    /// Allows access below a directory, or to one file.
    pub fn allow(&mut self, place: BorrowedFd<'_>, access: Access) -> Result<()> {
        let wanted = match access {
            Access::Read => READ_FILE | READ_DIR,
            Access::Write => !EXECUTE,
        };
        let directory = rustix::fs::fstat(place)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        // The kernel refuses rights over a file that only directories have.
        let fits = if directory { self.handled } else { READ_FILE };
        let attr = PathBeneathAttr {
            allowed_access: wanted & fits,
            parent_fd: place.as_raw_fd(),
        };
        // SAFETY: `attr` is as the header has it and lives until the call returns.
        let r = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.ruleset.as_raw_fd(),
                RULE_PATH_BENEATH,
                &attr,
                0_u32,
            )
        };
        if r == 0 { Ok(()) } else { Err(Errno::last()) }
    }

    /// The same for a path; nothing happens where it leads nowhere.
    pub fn allow_path(&mut self, path: &Path, access: Access) -> Result<()> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(place) => self.allow(place.as_fd(), access),
            Err(_) => Ok(()),
        }
    }

    /// Enters it: this thread and those it makes from now on.
    pub fn enter(&self) -> Outcome {
        // SAFETY: plain numbers.
        let r = unsafe {
            libc::syscall(
                libc::SYS_landlock_restrict_self,
                self.ruleset.as_raw_fd(),
                0_u32,
            )
        };
        Outcome::of(if r == 0 { Ok(()) } else { Err(Errno::last()) })
    }
}
