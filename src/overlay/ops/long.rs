//! What may take long: asked before a request runs, so that an event loop can
//! hand it to a worker. A wrong "no" costs time, never correctness.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ensure_upper::Need;
use super::remove::stands_alone;
use crate::overlay::Overlay;
use crate::overlay::inode::node::Node;
use crate::overlay::upper::Upper;
use crate::sys::Kind;

/// Files above this are copied by a worker, never by an event loop.
const LONG_COPY: u64 = 256 * 1024;

impl Overlay {
    /// Whether bringing a node into the upper may take long: a large copy, or
    /// waiting for somebody else's.
    pub fn copy_is_long(&self, node: &Arc<Node>, need: Need) -> bool {
        if node.is_upper() && !node.metacopy.load(Ordering::Acquire) {
            return false;
        }
        if node.copy_up.is_locked() {
            return true;
        }
        if need == Need::Empty || node.kind != Kind::File {
            return false;
        }
        let meta_only = need == Need::Meta && self.settings.metacopy;
        self.top_spot(node)
            .is_ok_and(|(_, s)| s.size > LONG_COPY && !(meta_only && s.nlink == 1))
    }

    /// Whether renaming what stands at a name may take long: a file to be copied
    /// up, or a directory whose whole subtree would be.
    pub fn rename_is_long(&self, parent: &Arc<Node>, name: &[u8]) -> bool {
        // Only a directory that was moved here with its lowers could be.
        if stands_alone(parent) {
            return false;
        }
        let is_long = |node: &Arc<Node>| match node.is_dir() {
            true => !node.lowers.read().is_empty(),
            false => self.copy_is_long(node, Need::Data),
        };
        if let Some(known) = self.known(parent, name) {
            return known.is_some_and(|node| is_long(&node));
        }
        let Ok(Some(e)) = self.lookup(parent, name) else {
            return false;
        };
        let long = is_long(&e.node);
        self.release(e.node);
        long
    }

    /// Whether removing a name may take long: a lower file with several names
    /// is copied up first.
    pub fn remove_is_long(&self, parent: &Arc<Node>, name: &[u8]) -> bool {
        if parent.lowers.read().is_empty() {
            return false;
        }
        let known = self.known(parent, name);
        if known.is_some_and(|node| node.is_none_or(|n| !self.copy_is_long(&n, Need::Data))) {
            return false;
        }
        let Ok(Some(e)) = self.lookup(parent, name) else {
            return false;
        };
        let long = e.attr.stat.nlink > 1 && self.copy_is_long(&e.node, Need::Data);
        self.release(e.node);
        long
    }

    /// The node of a name that was asked for lately, or that there was none; `None`
    /// where that is not known.
    fn known(&self, parent: &Arc<Node>, name: &[u8]) -> Option<Option<Arc<Node>>> {
        match self.recent.node(&self.table, parent, name) {
            Some(node) => Some(Some(node)),
            None => self.recent.was_missing(parent.ino, name).then_some(None),
        }
    }

    /// Whether a sync has anything to wait for.
    pub fn sync_is_long(&self, node: &Arc<Node>) -> bool {
        let waits = |u: &Upper| u.syncs() && !u.in_memory;
        node.is_upper() && self.stack.upper.as_ref().is_some_and(waits)
    }
}
