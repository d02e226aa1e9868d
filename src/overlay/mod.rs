//! The engine: merged view, copy-up, whiteouts. Knows no FUSE, no store, no tar.
//!
//! # Glossary
//! *layer, lower, upper, work*: as in overlayfs. *mark*: a whiteout, an opaque
//! flag, a redirect, an origin. *probe*: asking one layer for one name.
//! *stage*: make an object without a final name; *publish*: give it one.
//! *node*: an inode of the merged view. *place*: where a lower object stands,
//! for ever. *link*: a merged name. *disk id*, *view id*: before and after
//! `uidmapping`.
//!
//! # Invariants
//! - **O1** A lower layer is never written.
//! - **O2** An object gets its final name in the upper only when it is complete.
//! - **O3** A node's upper object is set once and never changes.
//! - **O5** After any failure the upper is as before or as after.
//! - **O6** A node's number does not change while the kernel may know it.
//! - **O7** While file data moves, the only lock held is that node's copy-up lock.
//! - **O8** View ids never reach a layer, disk ids never a reply.
//! - **O9** What is in work belongs to the holder of the work lock; the next
//!   owner removes it.
//! - **O10** Layers are reached by (directory fd, name) only; symlinks are data.
//! - **O12** A name hidden by a mark never shows.
//!
//! # Lock order
//! copy-up (one node; nothing else held) → rename (read, or write) → directory
//! (parent before child; two directories only with rename held for writing) →
//! table shard → links → descriptor cache, what is kept of directories, orphans
//! (leaves).
//! Requests on data take none of them but the leaves and, for an instant,
//! rename for reading.

pub mod absence;
pub mod decide;
pub mod figures;
pub mod inode;
pub mod kept;
pub mod listing;
pub mod lock;
pub mod open;
pub mod ops;
pub mod options;
pub mod orphan;
pub mod presence;
pub mod setup;
pub mod stack;
pub mod tally;
pub mod upper;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockWriteGuard};

use inode::locate::FdCache;
use inode::node::Node;
use inode::recent::Recent;
use inode::table::{Leaving, Table};
use listing::Listings;
use orphan::Orphans;
use stack::{Settings, Stack};

pub use crate::sys::{Errno, Result};

/// Who asks, in view ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
}

impl Caller {
    /// Whether one of its supplementary groups is this one.
    fn in_group(self, gid: u32) -> bool {
        crate::sys::cred::in_group(self.pid, (self.uid, self.gid), gid)
    }
}

/// Attributes as the view shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Node id and st_ino.
    pub ino: u64,
    /// Everything else; `ino` and `dev` in it are the backing object's.
    pub stat: crate::sys::Stat,
}

/// A name's answer.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The node.
    pub node: Arc<Node>,
    /// Its attributes.
    pub attr: Attr,
}

/// A mounted stack of layers.
#[derive(Debug)]
pub struct Overlay {
    stack: Stack,
    settings: Settings,
    table: Table,
    recent: Recent,
    fds: FdCache,
    /// Held for reading while names are resolved or changed in one directory,
    /// for writing while a name moves.
    rename: RwLock<()>,
    orphans: Orphans,
    listings: Listings,
    presences: kept::Kept<presence::Presence>,
    counts: figures::Counts,
    root: Arc<Node>,
}

impl Overlay {
    /// The root of the merged view.
    pub fn root(&self) -> &Arc<Node> {
        &self.root
    }

    /// The node of a number.
    ///
    /// # Errors
    /// ESTALE for a number the kernel was never told.
    pub fn node(&self, ino: u64) -> Result<Arc<Node>> {
        self.table.get(ino).ok_or(Errno::ESTALE)
    }

    /// Whether the mount can be written.
    pub fn writable(&self) -> bool {
        self.stack.upper.is_some() && !self.settings.read_only
    }

    /// Whether the kernel may be given files before it asks for them: never where
    /// anybody could have written to them.
    pub fn pushes_ahead(&self) -> bool {
        self.settings.push_ahead && !self.writable()
    }

    /// Whether the kernel is to read and write files by itself where it can.
    pub fn passes_through(&self) -> bool {
        self.settings.passthrough
    }

    /// What a person should be told once, at the mount.
    pub fn warnings(&self) -> Vec<String> {
        self.settings.warnings.clone()
    }

    /// The directories below which requests reach; true where they also write.
    pub fn places(&self) -> impl Iterator<Item = (Arc<OwnedFd>, bool)> + '_ {
        let lowers = self.stack.lowers.iter().map(|l| (l.root.clone(), false));
        let upper = self.stack.upper.iter().flat_map(|u| {
            let own = [&u.layer.root, &u.work].into_iter().chain(&u.index);
            own.map(|fd| (Arc::clone(fd), true))
        });
        lowers.chain(upper)
    }

    /// Whether POSIX ACLs are enforced.
    pub fn acls(&self) -> bool {
        self.settings.acls
    }

    /// How long the kernel may keep names and attributes; `None` for ever.
    pub fn timeout(&self) -> Option<std::time::Duration> {
        self.settings.timeout
    }

    /// Whether the kernel is to collect writes.
    pub fn writeback(&self) -> bool {
        self.settings.writeback && self.writable()
    }

    /// The kernel has been told of a node once more.
    pub fn remember(&self, node: &Node) {
        self.table.remember(node);
    }

    /// The kernel forgets `count` lookups of a node; how many nodes went.
    pub fn forget(&self, ino: u64, count: u64) -> usize {
        self.table.forget(ino, count, self)
    }

    /// Whether nodes are left that the kernel forgot while a request still held them.
    pub fn has_missed(&self) -> bool {
        self.table.has_missed()
    }

    /// Looks again at those; how many nodes went.
    pub fn retry_missed(&self) -> usize {
        self.table.retry_missed(self)
    }

    /// Gives memory back to the system after many nodes went.
    pub fn trim(&self) {
        self.table.sweep(self);
        crate::sys::process::trim_memory();
    }

    /// Gives a node back that the kernel was not told of after all.
    pub fn release(&self, node: Arc<Node>) {
        self.table.release(node, self);
    }

    /// Ends the mount: what fsync never asked for is synced too, unless volatile.
    ///
    /// # Errors
    /// What syncfs(2) said: data may be lost.
    pub fn finish(&self) -> Result<()> {
        use std::os::fd::AsFd;
        self.orphans.clear(self.stack.upper.as_ref());
        if let Some(u) = self.stack.upper.as_ref().filter(|u| !u.syncs()) {
            upper::work::unmark_volatile(&u.work);
        }
        match &self.stack.upper {
            Some(u) if u.syncs() && !self.settings.read_only => {
                crate::sys::file::sync_fs(u.layer.root.as_fd())
            }
            _ => Ok(()),
        }
    }
}

/// What a node leaves behind goes while its number cannot go to another node yet,
/// of the same object found by another name: that one would count on what keeps
/// the old one, or be given its descriptors.
impl Leaving for Overlay {
    /// A name aside is a link on the disk that is not counted in the view. Whoever
    /// looks a name up holds the rename lock from the first look at the disk to the
    /// answer, and must not see half of its going.
    type Held<'a> = Option<RwLockWriteGuard<'a, ()>>;

    /// Descriptors: with the last one of a large file its data goes.
    type Left = [Option<Arc<OwnedFd>>; 4];

    fn hold(&self, ino: u64) -> Self::Held<'_> {
        self.orphans.is_aside(ino).then(|| self.rename.write())
    }

    fn leaves(&self, node: &Node, held: &Self::Held<'_>) -> Option<Self::Left> {
        if held.is_none() && self.orphans.is_aside(node.ino) {
            return None;
        }
        let [a, b, c] = self.fds.remove_node(node);
        self.listings.remove(node.ino);
        if node.is_dir() {
            self.presences.remove(node.ino);
        }
        let gone = node.is_orphan() && !node.has_other_names();
        if let (Some(id), true) = (node.upper.get(), gone) {
            let layer = crate::layer::UPPER;
            self.table
                .drop_claim(inode::table::Claim { layer, id: *id }, node.ino);
        }
        let kept = self.orphans.remove(self.stack.upper.as_ref(), node);
        Some([a, b, c, kept])
    }
}
