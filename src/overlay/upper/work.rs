//! The work directory: owned by one mount at a time, swept at its start.
//!
//! `WORKDIR/work` holds staged objects and `WORKDIR/index` anchors of hard
//! links, as on the kernel. `WORKDIR/work/incompat/volatile` marks a volatile
//! mount that did not end well (Documentation/filesystems/overlayfs.rst,
//! "Volatile mount").

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::sys::dir::{self, Cross};
pub use crate::sys::tree::remove as remove_tree;
use crate::sys::{Errno, Kind, Name, Result, Spot, best_effort};

/// Opens a subdirectory, making it (mode 0700 until then) if it is not there.
pub fn open_or_make(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Arc<OwnedFd>> {
    match dir::mkdir(parent, name, 0o700) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e),
    }
    let fd = dir::open_dir_at(parent, name, Cross::Refuse)?;
    Ok(Arc::new(fd))
}

/// Whether the directory holds names that no overlay gives there: the kernel's
/// and ours begin with `#`, fuse-overlayfs counts.
pub fn holds_foreign(work: &Arc<OwnedFd>) -> Result<bool> {
    let mut foreign = false;
    dir::list(work.as_fd(), |e| {
        let counted = e.name.iter().all(u8::is_ascii_digit);
        foreign |= !counted && !e.name.starts_with(b"#") && e.name != b"incompat";
    })?;
    Ok(foreign)
}

/// Removes all that a previous owner left in the work directory.
pub fn sweep(work: &Arc<OwnedFd>) -> Result<()> {
    let mut names = Vec::new();
    dir::list(work.as_fd(), |e| names.push(e.name))?;
    for name in names {
        remove_tree(work, &name)?;
    }
    Ok(())
}

/// Removes the whiteouts and opaque markers of a directory that hides its
/// lowers altogether. `xattrs`: empty files may be whiteouts.
pub fn drop_whiteouts(at: &Arc<OwnedFd>, xattrs: bool) -> Result<()> {
    use crate::layer::mark;
    let mut names = Vec::new();
    dir::list(at.as_fd(), |e| {
        let marker = mark::is_dot_wh(&e.name) && !mark::OPAQUE_FILES.contains(&&e.name[..]);
        let plain = xattrs && e.kind == Some(Kind::File);
        if marker || plain || matches!(e.kind, None | Some(Kind::Char)) {
            names.push((e.name, marker));
        }
    })?;
    for (name, marker) in names {
        let stat = dir::probe(at.as_fd(), &name)?;
        let empty = stat.is_some_and(|s| s.kind() == Kind::File && s.size == 0);
        let gone = marker
            || stat.is_some_and(|s| s.is_whiteout())
            || (xattrs
                && empty
                && mark::Marks::read(&Spot::at(at.clone(), Name::from(&name[..])))?.whiteout);
        if gone {
            dir::unlink(at.as_fd(), &name)?;
        }
    }
    Ok(())
}

/// Marks the mount volatile for as long as it lasts.
pub fn mark_volatile(work: BorrowedFd<'_>) -> Result<()> {
    let incompat = open_or_make(work, b"incompat")?;
    let volatile = open_or_make(incompat.as_fd(), b"volatile")?;
    match dir::create_file(volatile.as_fd(), b"dirty", 0o600) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Removes the mark of a volatile mount that ended well.
pub fn unmark_volatile(work: &Arc<OwnedFd>) {
    best_effort("remove the volatile mark", remove_tree(work, b"incompat"));
}
