//! Link counts of the merged view, and the index that keeps hard links whole.
//!
//! A lower file with several names that was copied up has an anchor in
//! `work/index`; its names are some in the upper, some still in the lowers, so
//! no backing link count tells how many there are. The count is kept in
//! `overlay.nlink` relative to a backing one, as the kernel does
//! (ovl_get_nlink(), ovl_set_nlink_upper() in fs/overlayfs/inode.c).

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::found::{Found, UpperPart};
use crate::layer::mark::NlinkMark;
use crate::overlay::Overlay;
use crate::overlay::inode::node::{NO_NLINK, Node};
use crate::overlay::upper::Upper;
use crate::sys::dir::{self, Rename};
use crate::sys::{Kind, Result, Spot, Stat, best_effort};

/// The count a node starts with.
pub(super) fn initial(u: &UpperPart, found: &Found) -> i64 {
    if found.kind == Kind::Dir {
        return NO_NLINK;
    }
    let count = match u.marks.nlink {
        None => return NO_NLINK,
        Some(NlinkMark::Upper(d)) => i64::from(found.stat.nlink) + i64::from(d),
        Some(NlinkMark::Lower(d)) if found.lower_nlink > 0 => {
            i64::from(found.lower_nlink) + i64::from(d)
        }
        // A crash fell between a copy-up and its count: what the upper has, the
        // anchor apart.
        Some(NlinkMark::Lower(_)) => i64::from(found.stat.nlink) - 1,
    };
    count.max(1)
}

impl Overlay {
    /// The count to show for a node whose topmost object has these attributes.
    pub(super) fn nlink(&self, node: &Node, s: &Stat) -> u32 {
        if node.is_dir() {
            if node.is_orphan() {
                return 0;
            }
            let merged = node.is_merged();
            return if merged || self.settings.static_nlink {
                1
            } else {
                s.nlink
            };
        }
        let known = node.nlink.load(Ordering::Acquire);
        if known != NO_NLINK {
            return u32::try_from(known).unwrap_or(0);
        }
        if node.is_upper() {
            s.nlink - u32::from(s.nlink > 0 && self.orphans.is_aside(node.ino))
        } else if node.is_orphan() {
            0
        } else {
            s.nlink
        }
    }

    /// Whether a node's names are counted in `overlay.nlink`.
    pub(super) fn is_indexed(node: &Node) -> bool {
        node.nlink.load(Ordering::Acquire) != NO_NLINK
    }

    /// Writes the count relative to the upper inode's, before that one changes
    /// together with it: a crash then leaves the right sum.
    pub(super) fn pin_nlink(&self, upper: &Upper, node: &Node, spot: &Spot) -> Result<()> {
        let count = node.nlink.load(Ordering::Acquire);
        if count == NO_NLINK {
            return Ok(());
        }
        // A name aside in the work directory goes by itself, without a count.
        let aside = i64::from(self.orphans.is_aside(node.ino));
        let real = i64::from(spot.stat()?.nlink) - aside;
        let mark = NlinkMark::Upper(i32::try_from(count - real).unwrap_or(0));
        upper.set_mark(spot, "nlink", &mark.encode())
    }

    /// One merged name more or less; the anchor goes with the last.
    pub(super) fn count_links(&self, upper: &Upper, node: &Arc<Node>, by: i64) {
        let add = |n: i64| (n != NO_NLINK).then(|| n.saturating_add(by).max(0));
        let Ok(before) = node
            .nlink
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add)
        else {
            return;
        };
        if before + by > 0 {
            return;
        }
        let (Some(index), Some(name)) = (&upper.index, node.anchor()) else {
            return;
        };
        if !self.keeps_anchor(upper, node, (index.as_fd(), &name)) {
            let gone = dir::unlink(index.as_fd(), &name);
            best_effort("remove the anchor of a file without names", gone);
        }
    }

    /// Moves the anchor of a file without names aside where nothing else keeps
    /// the file: somebody may have it open.
    fn keeps_anchor(&self, upper: &Upper, node: &Node, anchor: (BorrowedFd<'_>, &[u8])) -> bool {
        if !node.is_orphan() || self.orphans.holds(node.ino) {
            return false;
        }
        let aside = upper.temp_name();
        self.orphans.moves_aside(node, aside.clone());
        let moved = dir::rename(anchor, (upper.work.as_fd(), &aside), Rename::NoReplace);
        let moved = best_effort("move an anchor aside", moved).is_some();
        if moved {
            self.orphans.keep_aside(node, aside);
        } else {
            self.orphans.remove(Some(upper), node);
        }
        moved
    }
}
