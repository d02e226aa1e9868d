//! One object's copy up to a [`Staged`]: the steps in order, with reasons.
//!
//! # Crash
//! Nothing here gives a final name: what a crash leaves stands in the work
//! directory. See ovl_copy_up_tmpfile() and ovl_copy_up_workdir() in
//! fs/overlayfs/copy_up.c.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Upper;
use super::stage::{Blank, Staged};
use crate::layer::disguise::Disguise;
use crate::layer::mark::{NlinkMark, Origin};
use crate::sys::{Kind, ObjectId, Result, Spot, Stat, best_effort, copy, file};

/// What the copy takes along.
#[derive(Debug)]
pub struct Source<'a> {
    /// The lower object.
    pub spot: &'a Spot,
    /// Its undisguised attributes.
    pub stat: &'a Stat,
    /// Its data; `None` for anything but a regular file, for a file about to be
    /// emptied, and for a metacopy.
    pub data: Option<Arc<OwnedFd>>,
    /// Where it came from, to be noted.
    pub origin: Option<&'a Origin>,
    /// Only metadata is copied: the size is kept as a hole.
    pub metacopy: bool,
    /// It has several names: the copy is counted relative to the lower's.
    pub several_names: bool,
}

impl Upper {
    /// Copies everything but the name; which object the copy is.
    pub fn copy_up(&self, src: &Source<'_>) -> Result<(Staged<'_>, ObjectId)> {
        let kind = src.stat.kind();
        let target = if kind == Kind::Symlink {
            link_target(src.spot)?
        } else {
            Vec::new()
        };
        let staged = self.stage(Blank {
            kind,
            target: &target,
            rdev: src.stat.rdev,
        })?;
        let spot = staged.spot();
        // Data first: writing drops capabilities and moves times.
        if let (Some(from), Some(to)) = (&src.data, staged.file()) {
            copy::clone_known(from.as_fd(), to.as_fd(), src.stat)?;
        } else if let (true, Some(to)) = (src.metacopy, staged.file()) {
            file::truncate(to.as_fd(), src.stat.size)?;
        }
        // xattrs (ACLs among them) before owner and mode would be undone by
        // them; capabilities are dropped by chown, so owner comes first.
        let fresh = spot.stat()?;
        self.set_owner_and_mode(&spot, &fresh, &Disguise::of(src.stat))?;
        if kind == Kind::Symlink {
            self.give_symlink(&spot, Some(src.stat.uid), Some(src.stat.gid));
        }
        self.copy_xattrs(src.spot, &spot)?;
        if let Some(v) = src.origin.and_then(Origin::encode) {
            best_effort("note an origin", self.set_mark(&spot, "origin", &v));
        }
        if src.metacopy {
            self.set_mark(&spot, "metacopy", b"")?;
        }
        if src.several_names {
            let mark = NlinkMark::Lower(0).encode();
            best_effort("note a link count", self.set_mark(&spot, "nlink", &mark));
        }
        self.copy_times(src.stat, &spot)?;
        if let (Some(f), true) = (staged.file(), self.syncs()) {
            file::sync(f.as_fd(), false)?;
        }
        Ok((staged, ObjectId::of(&fresh)))
    }
}

/// A symlink's target; of a disguised one (a plain file) its content.
pub fn link_target(spot: &Spot) -> Result<Vec<u8>> {
    if spot.stat()?.kind() == Kind::Symlink {
        return spot.read_link();
    }
    let fd = spot.open(rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK)?;
    let mut buf = vec![0; 4096];
    let n = file::read_at(fd.as_fd(), &mut buf, 0)?;
    buf.truncate(n);
    Ok(buf)
}
