//! Listing with getdents64(2) into a buffer on the stack: nothing is allocated in a loop that is timed.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, openat, statat};

use super::host::{Outcome, doing};

/// What glibc asks with.
const BUFFER: usize = 32 * 1024;

/// Opens a directory for listing.
pub fn open_dir(at: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(at, name, flags, Mode::empty())
}

/// Opens a directory by its path.
pub fn open_path(path: &Path) -> Outcome<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    doing(
        &format!("open {}", path.display()),
        openat(CWD, path, flags, Mode::empty()),
    )
}

/// Lists a directory once; `.` and `..` are not counted. How many names.
pub fn list(dir: impl AsFd) -> rustix::io::Result<u64> {
    let mut names = 0;
    each(dir, |_, _| {
        names += 1;
        Ok(())
    })?;
    Ok(names)
}

/// Lists a whole tree by names and types, as find(1) does. How many names.
pub fn walk(dir: impl AsFd) -> rustix::io::Result<u64> {
    let dir = dir.as_fd();
    let mut names = 0;
    each(dir, |name, kind| {
        names += 1;
        if kind == FileType::Directory {
            names += walk(open_dir(dir, name)?)?;
        }
        Ok(())
    })?;
    Ok(names)
}

/// What is kept of a tree before a loop is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Regular files.
    Files,
    /// Everything.
    All,
}

/// The paths of a tree, relative to its root, in the order of the listing.
pub fn paths(root: &Path, which: Which) -> Outcome<Vec<CString>> {
    let mut found = Vec::new();
    doing(
        "list the tree",
        collect(open_path(root)?, b"", which, &mut found),
    )?;
    Ok(found)
}

fn collect(
    dir: OwnedFd,
    below: &[u8],
    which: Which,
    found: &mut Vec<CString>,
) -> rustix::io::Result<()> {
    each(&dir, |name, kind| {
        let mut path = below.to_vec();
        path.extend_from_slice(name.to_bytes());
        if kind == FileType::RegularFile || which == Which::All {
            found.extend(CString::new(path.clone()).ok());
        }
        if kind == FileType::Directory {
            path.push(b'/');
            collect(open_dir(&dir, name)?, &path, which, found)?;
        }
        Ok(())
    })
}

fn each(
    dir: impl AsFd,
    mut f: impl FnMut(&CStr, FileType) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let dir = dir.as_fd();
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            kind => kind,
        };
        f(name, kind)?;
    }
    Ok(())
}
