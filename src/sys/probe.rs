//! What this process and this file system can do, found by trying.

use std::os::fd::{AsFd, BorrowedFd};

use super::dir::{self, Rename};
use super::{Errno, Result};

/// How a whiteout can be made in a directory's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhiteoutKind {
    /// Character device 0:0.
    CharDevice,
    /// A plain `.wh.NAME` file.
    DotWh,
    /// An empty file with an xattr: where neither of the others can be made, as
    /// in a mount of another overlay.
    Xattr,
}

/// Makes a whiteout in `work`, renames over it and removes it again.
///
/// # Errors
/// Whatever made even a plain file impossible (EROFS, EACCES, ENOSPC).
pub fn whiteout_kind(work: BorrowedFd<'_>) -> Result<WhiteoutKind> {
    let name = b"#probe-whiteout";
    remove_if_there(work, name)?;
    let kind = match dir::mknod(work, name, libc::S_IFCHR, (0, 0)) {
        Ok(()) => {
            let kept = dir::probe(work, name)?.is_some_and(|s| s.is_whiteout());
            // Some file systems (virtiofs) make the node but cannot rename over it.
            let over = b"#probe-over";
            remove_if_there(work, over)?;
            drop(dir::create_file(work, over, 0o600)?);
            let renames = dir::rename((work, over), (work, name), Rename::Replace).is_ok();
            remove_if_there(work, over)?;
            if kept && renames {
                WhiteoutKind::CharDevice
            } else {
                file_kind(work)?
            }
        }
        Err(_) => {
            drop(dir::create_file(work, name, 0o600)?);
            file_kind(work)?
        }
    };
    remove_if_there(work, name)?;
    Ok(kind)
}

/// Whether a `.wh.` name can be made: an overlay refuses it.
fn file_kind(work: BorrowedFd<'_>) -> Result<WhiteoutKind> {
    let name = b".wh.#probe";
    match dir::create_file(work, name, 0o600) {
        Ok(_) | Err(Errno::EEXIST) => {
            remove_if_there(work, name)?;
            Ok(WhiteoutKind::DotWh)
        }
        Err(Errno::EINVAL | Errno::EPERM) => Ok(WhiteoutKind::Xattr),
        Err(e) => Err(e),
    }
}

/// Whether renameat2(2) RENAME_WHITEOUT works in `work`.
pub fn rename_whiteout(work: BorrowedFd<'_>) -> Result<bool> {
    let (a, b): (&[u8], &[u8]) = (b"#probe-a", b"#probe-b");
    remove_if_there(work, a)?;
    remove_if_there(work, b)?;
    drop(dir::create_file(work, a, 0o600)?);
    let ok = dir::rename((work, a), (work, b), Rename::Whiteout).is_ok()
        && dir::probe(work, a)?.is_some_and(|s| s.is_whiteout());
    remove_if_there(work, a)?;
    remove_if_there(work, b)?;
    Ok(ok)
}

/// Whether O_TMPFILE works in `work`.
pub fn unnamed_files(work: BorrowedFd<'_>) -> bool {
    let Ok(fd) = dir::create_unnamed(work, 0o600) else {
        return false;
    };
    let name = b"#probe-link";
    if remove_if_there(work, name).is_err() || dir::link_fd(fd.as_fd(), (work, name)).is_err() {
        return false;
    }
    remove_if_there(work, name).is_ok()
}

/// Whether two files in `work` can share their data (FICLONE).
pub fn reflinks(work: BorrowedFd<'_>) -> Result<()> {
    let (a, b): (&[u8], &[u8]) = (b"#probe-from", b"#probe-to");
    remove_if_there(work, a)?;
    remove_if_there(work, b)?;
    let from = dir::create_file(work, a, 0o600)?;
    let to = dir::create_file(work, b, 0o600)?;
    super::file::write_at(from.as_fd(), &[b'x'; 4096], 0)?;
    let cloned = rustix::fs::ioctl_ficlone(&to, &from);
    remove_if_there(work, a)?;
    remove_if_there(work, b)?;
    Ok(cloned?)
}

/// Whether a program gains capabilities when it is run.
pub fn has_capabilities(program: &std::path::Path) -> bool {
    rustix::fs::getxattr(program, "security.capability", &mut [0_u8; 64]).is_ok()
}

fn remove_if_there(d: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match dir::unlink(d, name) {
        Err(Errno::ENOENT) => Ok(()),
        r => r,
    }
}

/// The soft limit of open descriptors, raised to the hard one where allowed.
pub fn descriptor_limit() -> usize {
    let l = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let (Some(cur), Some(max)) = (l.current, l.maximum)
        && cur < max
        && rustix::process::setrlimit(
            rustix::process::Resource::Nofile,
            rustix::process::Rlimit {
                current: Some(max),
                maximum: Some(max),
            },
        )
        .is_ok()
    {
        return usize::try_from(max).unwrap_or(usize::MAX);
    }
    l.current
        .map_or(1 << 20, |c| usize::try_from(c).unwrap_or(usize::MAX))
}
