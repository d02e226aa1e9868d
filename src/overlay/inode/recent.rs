//! Names that were asked for lately: a guess at the node that a name stands for,
//! which costs no system call.
//!
//! Whoever is to remove or rename a name has mostly looked it up before, and what
//! must be known first (is it in the upper already, is it a long copy) is known of
//! the node. A guess of a node is proved by the node's own names, which every change
//! keeps right; that a name is missing is not proved and only ever saves time.
//! Bounded: newer names take the place of older ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::node::Node;
use super::table::Table;
use crate::overlay::listing::cookie;

/// How many names, a power of two: 64 KiB.
const NAMES: usize = 4096;

#[derive(Debug, Default)]
struct Slot {
    /// A node's number, or 0.
    known: AtomicU64,
    /// The hash of a name that was not there, or 0.
    missing: AtomicU64,
}

/// The names.
#[derive(Debug)]
pub struct Recent(Box<[Slot]>);

impl Default for Recent {
    fn default() -> Self {
        Recent((0..NAMES).map(|_| Slot::default()).collect())
    }
}

impl Recent {
    fn slot(&self, dir: u64, name: &[u8]) -> Option<(&Slot, u64)> {
        let hash = cookie(name) ^ dir.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let slot = self.0.get(hash as usize % NAMES)?;
        Some((slot, hash.max(1)))
    }

    /// A name stands for this node.
    pub fn is(&self, dir: u64, name: &[u8], ino: u64) {
        if let Some((slot, _)) = self.slot(dir, name) {
            slot.known.store(ino, Ordering::Relaxed);
            slot.missing.store(0, Ordering::Relaxed);
        }
    }

    /// A name stands for nothing.
    pub fn is_missing(&self, dir: u64, name: &[u8]) {
        if let Some((slot, hash)) = self.slot(dir, name) {
            slot.missing.store(hash, Ordering::Relaxed);
        }
    }

    /// The node that a name stands for, if that is known.
    pub fn node(&self, table: &Table, parent: &Arc<Node>, name: &[u8]) -> Option<Arc<Node>> {
        let (slot, _) = self.slot(parent.ino, name)?;
        let node = table.get(slot.known.load(Ordering::Relaxed))?;
        let proved = node.links.lock().contains(parent, name);
        proved.then_some(node)
    }

    /// Whether a name was missing when it was last asked for, as far as is known.
    pub fn was_missing(&self, dir: u64, name: &[u8]) -> bool {
        let slot = self.slot(dir, name);
        slot.is_some_and(|(slot, hash)| slot.missing.load(Ordering::Relaxed) == hash)
    }
}
