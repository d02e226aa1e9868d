//! A directory cut off from its lowers: everything below it copied up, for
//! renames where no redirect may be written.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ensure_upper::{Need, restore_times};
use crate::overlay::Overlay;
use crate::overlay::inode::locate;
use crate::overlay::inode::node::{Lowers, Node};
use crate::sys::{Kind, Result, Spot, dir};

impl Overlay {
    /// Copies everything below a directory that only lowers have, and detaches
    /// it from them: for renames where no redirect may be written.
    ///
    /// Idempotent and invisible: after each step the merged view is the same.
    pub(super) fn copy_up_tree(&self, node: &Arc<Node>) -> Result<()> {
        self.ensure_upper(node, Need::Meta)?;
        let mut stack = vec![(node.clone(), false)];
        while let Some((dir_node, children_done)) = stack.pop() {
            if dir_node.lowers.read().is_empty() {
                continue;
            }
            if children_done {
                self.detach(&dir_node)?;
                continue;
            }
            stack.push((dir_node.clone(), true));
            for item in self.all_items(&dir_node)? {
                let Some(entry) = self.lookup(&dir_node, &item.name)? else {
                    continue;
                };
                let child = entry.node;
                let need = if child.kind == Kind::File {
                    Need::Data
                } else {
                    Need::Meta
                };
                self.ensure_upper(&child, need)?;
                self.link_name_up(&child, &dir_node, &item.name)?;
                if child.is_dir() {
                    stack.push((child, false));
                } else {
                    self.release(child);
                }
            }
        }
        Ok(())
    }

    /// Makes a fully copied directory opaque, on disk and in memory.
    fn detach(&self, node: &Arc<Node>) -> Result<()> {
        let upper = self.stack.writable()?;
        let Some(d) = &node.dir else { return Ok(()) };
        let _rename = self.rename.read();
        let _dir = d.lock.write();
        let fd = locate::upper_dir(&self.fds, &upper.layer, node)?;
        let times = Spot::fd(fd.clone()).stat()?;
        upper.set_opaque(&Spot::fd(fd.clone()))?;
        // Its whiteouts hide nothing now, and the kernel would list them.
        crate::overlay::upper::work::drop_whiteouts(&fd, self.xattr_whiteouts(node))?;
        restore_times(node, &fd, &times);
        *node.lowers.write() = Lowers::None;
        Ok(())
    }

    /// Gives an indexed file the name under which it was looked up: a directory
    /// that is to stand alone must have it in the upper.
    pub(super) fn link_name_up(
        &self,
        node: &Arc<Node>,
        parent: &Arc<Node>,
        name: &[u8],
    ) -> Result<()> {
        if !Self::is_indexed(node) {
            return Ok(());
        }
        let upper = self.stack.writable()?;
        let (spot, _) = self.held(node)?;
        let _rename = self.rename.write();
        let at = locate::upper_dir(&self.fds, &upper.layer, parent)?;
        if dir::probe(at.as_fd(), name)?.is_some() {
            return Ok(());
        }
        let count = node.nlink.load(Ordering::Acquire);
        if let Some(l) = self.lower_top(node) {
            // Relative to the lower's count while the upper's changes.
            let layer = self.stack.layer(l.layer)?;
            let lower = locate::lower_spot(&self.fds, layer, &l)?.stat()?;
            let d = i32::try_from(count - i64::from(lower.nlink)).unwrap_or(0);
            let mark = crate::layer::mark::NlinkMark::Lower(d);
            upper.set_mark(&spot, "nlink", &mark.encode())?;
        }
        let times = Spot::fd(at.clone()).stat()?;
        self.mark_impure(upper, parent)?;
        dir::link_fd(spot.dirfd(), (at.as_fd(), name))?;
        restore_times(parent, &at, &times);
        self.pin_nlink(upper, node, &spot)
    }
}
