//! What the engine counts of itself.
//!
//! Hits are answers from memory; a miss had to ask a layer, by system calls.

use std::time::{Duration, Instant};

use super::Overlay;
use super::tally::Tally;

/// What is counted where it happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    /// Attributes of a node, from memory.
    AttributeHit,
    /// The same, asked of a layer.
    AttributeMiss,
    /// A question for extended attributes that the node's memo answered.
    XattrHit,
    /// The same, asked of a layer.
    XattrMiss,
    /// A listing at hand.
    ListingHit,
    /// A listing that had to be merged.
    ListingMiss,
    CopyUps,
    CopyUpBytes,
    CopyUpTime,
    CopyUpLongest,
}

/// Room for every [`Count`].
const COUNTS: usize = Count::CopyUpLongest as usize + 1;

/// The counts of one mount.
#[derive(Debug, Default)]
pub(super) struct Counts(Tally<COUNTS>);

impl Counts {
    /// One more.
    pub(super) fn count(&self, what: Count) {
        self.0.add(what as usize, 1);
    }

    /// An object was brought up, with so much data, since `begun`.
    pub(super) fn copied_up(&self, bytes: u64, begun: Instant) {
        let took = nanoseconds(begun.elapsed());
        self.count(Count::CopyUps);
        self.0.add(Count::CopyUpBytes as usize, bytes);
        self.0.add(Count::CopyUpTime as usize, took);
        self.0.raise(Count::CopyUpLongest as usize, took);
    }

    fn hits(&self, hit: Count, miss: Count) -> Cache {
        Cache {
            hits: self.0.sum(hit as usize),
            misses: self.0.sum(miss as usize),
        }
    }
}

/// Nanoseconds; 584 years are the most.
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How often something was at hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cache {
    /// It was.
    pub hits: u64,
    /// It was not.
    pub misses: u64,
}

/// Figures of a mount since it was made, and how things stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Attributes of nodes.
    pub attributes: Cache,
    /// Extended attributes.
    pub xattrs: Cache,
    /// Merged listings.
    pub listings: Cache,
    /// Descriptors of backing objects; a miss is one that was opened and is kept.
    pub descriptors: Cache,
    /// Descriptors that made room for others.
    pub evicted: u64,
    /// Descriptors kept now.
    pub open: u64,
    /// How many may be kept.
    pub budget: u64,
    /// Objects copied to the upper, directories among them.
    pub copy_ups: u64,
    /// The length of the files among them whose data was copied.
    pub copy_up_bytes: u64,
    /// How long all of that took, in nanoseconds.
    pub copy_up_ns: u64,
    /// The longest.
    pub copy_up_longest_ns: u64,
    /// Nodes in memory.
    pub nodes: u64,
    /// Objects without a name that are kept because somebody may have them open.
    pub orphans: u64,
}

impl Overlay {
    /// What was counted so far.
    pub fn figures(&self) -> Figures {
        let c = &self.counts;
        let fds = self.fds.figures();
        Figures {
            attributes: c.hits(Count::AttributeHit, Count::AttributeMiss),
            xattrs: c.hits(Count::XattrHit, Count::XattrMiss),
            listings: c.hits(Count::ListingHit, Count::ListingMiss),
            descriptors: fds.cache,
            evicted: fds.evicted,
            open: fds.open,
            budget: fds.budget,
            copy_ups: c.0.sum(Count::CopyUps as usize),
            copy_up_bytes: c.0.sum(Count::CopyUpBytes as usize),
            copy_up_ns: c.0.sum(Count::CopyUpTime as usize),
            copy_up_longest_ns: c.0.highest(Count::CopyUpLongest as usize),
            nodes: self.table.len() as u64,
            orphans: self.orphans.len() as u64,
        }
    }
}
