//! Names → nodes.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use super::found::Found;
use super::resolve::From;
use crate::layer::mark::Opaque;
use crate::overlay::inode::node::{DirPart, Links, NO_NLINK, Node, Rare};
use crate::overlay::inode::table::Claim;
use crate::overlay::upper::Upper;
use crate::overlay::{Entry, Overlay};
use crate::sys::{Errno, Kind, Name, Result, valid_name};

/// A component to look up or make; names of markers are never seen.
pub(super) fn checked(name: &[u8]) -> Result<Name> {
    Ok(Name::from(valid_name(name)?))
}

/// Like [`checked`], for a name that is to be made.
pub(super) fn creatable(name: &[u8]) -> Result<Name> {
    // Such a name would be a whiteout in the upper: it cannot be kept.
    if crate::layer::mark::is_dot_wh(name) {
        return Err(Errno::EINVAL);
    }
    checked(name)
}

impl Overlay {
    /// Looks `name` up in `parent`; `None` where nothing has that name.
    ///
    /// The node is not yet counted: hand it to the kernel with
    /// [`Overlay::remember`], or give it back with [`Overlay::release`].
    ///
    /// # Locks
    /// rename (read), the directory (read).
    pub fn lookup(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Option<Entry>> {
        let name = checked(name)?;
        let Some(dir) = &parent.dir else {
            return Err(Errno::ENOTDIR);
        };
        if dir.dead.load(Ordering::Acquire) {
            return Ok(None);
        }
        let _rename = self.rename.read();
        let _dir = dir.lock.read();
        self.lookup_locked(parent, &name)
    }

    /// [`Overlay::lookup`] for callers that hold the locks.
    pub(super) fn lookup_locked(&self, parent: &Arc<Node>, name: &Name) -> Result<Option<Entry>> {
        let Some(found) = self.resolve(parent, name, From::Top)? else {
            self.recent.is_missing(parent.ino, name);
            return Ok(None);
        };
        let node = self.intern(parent, name, &found);
        let attr = self.attr_from(&node, &found.stat)?;
        Ok(Some(Entry { node, attr }))
    }

    /// The node of an object that was found under a name.
    pub(super) fn intern(&self, parent: &Arc<Node>, name: &Name, found: &Found) -> Arc<Node> {
        let (number, claim) = self.number_of(found);
        let node = self.table.intern(
            number,
            claim,
            |n| self.same(n, parent, name, found, claim),
            |ino| new_node(ino, found),
        );
        node.gain_name(parent, name);
        self.recent.is(parent.ino, name, node.ino);
        node
    }

    /// Whether the upper object of a node cannot have been replaced by another with
    /// its inode number: it has a name, or something keeps it without one.
    fn is_kept(&self, n: &Node) -> bool {
        // Under this lock a node gets and loses its names: who finds it without
        // one finds also what keeps it.
        let _links = n.links.lock();
        !n.is_orphan() || (!n.is_dir() && (self.orphans.holds(n.ino) || n.has_other_names()))
    }

    /// Whether a node that has the number is the object that was found.
    fn same(&self, n: &Node, parent: &Arc<Node>, name: &Name, found: &Found, claim: Claim) -> bool {
        if n.kind != found.kind {
            return false;
        }
        if let Some(u) = &found.upper {
            // A number that was given up may be used again while the old object's
            // node is still known: only what is kept is certainly the same.
            return self.is_kept(n) && n.upper.get() == Some(&u.id);
        }
        if n.is_upper() || n.is_orphan() && found.lower_nlink < 2 {
            return false;
        }
        let several = found.kind != Kind::Dir && found.lower_nlink > 1;
        // One inode under several names is one node, also where two layers show
        // it (a lower inside another): its anchor is one too.
        let same_object = n
            .lowers
            .read()
            .first()
            .is_some_and(|l| l.id == claim.id && (several || l.layer == claim.layer));
        same_object && (several || n.links.lock().contains(parent, name))
    }
}

/// The anchor of a file whose names are counted.
fn anchor_of(found: &Found) -> Option<Box<Rare>> {
    let u = found.upper.as_ref()?;
    let anchor = match &u.by_index {
        Some(name) => Some(name.clone()),
        None if u.marks.nlink.is_some() => u
            .marks
            .origin
            .as_ref()
            .map(|o| Upper::index_name(Some(o), 0, 0)),
        None => None,
    };
    anchor.is_some().then(|| {
        Box::new(Rare {
            anchor,
            ..Rare::default()
        })
    })
}

fn new_node(ino: u64, found: &Found) -> Node {
    let upper = OnceLock::new();
    let mut metacopy = false;
    let mut nlink = NO_NLINK;
    let mut dir = None;
    if let Some(u) = &found.upper {
        // A fresh cell takes the value.
        upper.get_or_init(|| u.id);
        metacopy = u.marks.metacopy && found.kind == Kind::File;
        nlink = super::nlink::initial(u, found);
    }
    if found.kind == Kind::Dir {
        let marks = found.upper.as_ref().map(|u| &u.marks);
        let impure = marks.is_some_and(|m| m.impure);
        dir = Some(Box::new(DirPart {
            lock: RwLock::new(()),
            lower_view: if found.lowers.is_empty() {
                None
            } else {
                found.lower_view.clone()
            },
            impure: AtomicBool::new(impure),
            xattr_whiteouts: AtomicBool::new(
                marks.is_some_and(|m| m.opaque == Opaque::MayHoldXattrWhiteouts),
            ),
            children: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            vain: AtomicU32::new(0),
            names_below: AtomicU32::new(0),
        }));
    }
    Node {
        ino,
        kind: found.kind,
        nlookup: AtomicU64::new(0),
        upper,
        metacopy: AtomicBool::new(metacopy),
        xattrs: Default::default(),
        nlink: AtomicI64::new(nlink),
        rare: Mutex::new(anchor_of(found)),
        lowers: RwLock::new(found.lowers.clone().into()),
        links: Mutex::new(Links::default()),
        copy_up: Mutex::new(()),
        orphan: AtomicBool::new(false),
        dir,
    }
}
