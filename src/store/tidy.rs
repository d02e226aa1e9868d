//! Taking off a tree the marks that only an upper needs.
//!
//! Whiteouts and opaque marks say what a layer takes away, and stay. Origins,
//! link counts, `impure` and the like speak of the lowers and of the index that
//! the upper was mounted with: in a layer they mean nothing, or the wrong thing.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::layer::mark;
use crate::sys::tree::{self, Enter, Visitor};
use crate::sys::{Errno, Kind, Name, Result, Spot, dir, file, xattr};

/// Marks that a layer keeps.
const KEPT: [&[u8]; 2] = [b"opaque", b"whiteout"];

/// More names than these are not synced one by one, but with their file system.
pub const MANY: u64 = 2_000;

/// What is to reach the disk on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Every file and directory, one by one.
    Each,
    /// Nothing: the caller syncs the file system.
    Later,
}

/// Whether a mark is for uppers only. Escaped ones of an overlay inside the
/// overlay (`overlay.overlay.X`) are a user's data.
pub fn is_upper_only(name: &[u8]) -> bool {
    mark::private_suffix(name).is_some_and(|m| !KEPT.contains(&m) && !m.starts_with(b"overlay."))
}

/// Takes the marks off everything in a tree, the root included.
pub fn tidy(root: &Arc<OwnedFd>, sync: Sync) -> Result<()> {
    strip(&Spot::fd(root.clone()))?;
    tree::walk(root, &mut Tidying { sync })
}

struct Tidying {
    sync: Sync,
}

impl Visitor for Tidying {
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: &Name, kind: Kind) -> Result<Enter> {
        let spot = Spot::at(dir.clone(), name.clone());
        strip(&spot)?;
        if kind == Kind::File && self.sync == Sync::Each {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
            file::sync(spot.open(flags)?.as_fd(), false)?;
        }
        Ok(Enter::Yes)
    }

    fn leave(&mut self, dir: &Arc<OwnedFd>) -> Result<()> {
        match self.sync {
            Sync::Each => dir::fsync_dir(dir.as_fd()),
            Sync::Later => Ok(()),
        }
    }
}

fn strip(spot: &Spot) -> Result<()> {
    let list = match xattr::list(spot) {
        // More names than can be listed: none of ours were put there by a mount,
        // which could not have listed them either.
        Err(Errno::E2BIG | Errno::ERANGE) => return Ok(()),
        r => r?,
    };
    for name in xattr::names(&list).filter(|n| is_upper_only(n)) {
        match xattr::remove(spot, name) {
            Ok(()) | Err(Errno::ENODATA) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_opaque_marks_and_users_data_stay() {
        for goes in [
            "trusted.overlay.origin",
            "user.overlay.impure",
            "user.fuseoverlayfs.origin",
        ] {
            assert!(is_upper_only(goes.as_bytes()), "{goes}");
        }
        for stays in [
            "trusted.overlay.opaque",
            "user.overlay.whiteout",
            "trusted.overlay.overlay.origin",
            "user.containers.override_stat",
            "security.capability",
        ] {
            assert!(!is_upper_only(stays.as_bytes()), "{stays}");
        }
    }
}
