//! One inode of the merged view.
//!
//! Two trees are kept apart. The **merged names** ([`Links`]) move with a
//! rename. The **places** ([`Place`]) of lower objects never move: after
//! `mv a/d b/d` the lower data of d still stands at a/d.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::layer::LayerId;
use crate::sys::{Kind, Name, ObjectId, Timespec};

/// A path below a layer's root, as a counted chain: its length never matters
/// and shared parents are stored once.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// `None` for the root.
    pub up: Option<(Arc<Place>, Name)>,
}

impl Place {
    /// The layer's root.
    pub fn root() -> Arc<Place> {
        Arc::new(Place { up: None })
    }

    /// The place at a path from the layer's root.
    pub fn chain(path: &[Vec<u8>]) -> Arc<Place> {
        let step = |p: Arc<Place>, c: &Vec<u8>| Place::child(&p, &Name::from(&c[..]));
        path.iter().fold(Place::root(), step)
    }

    /// `name` below `parent`.
    pub fn child(parent: &Arc<Place>, name: &Name) -> Arc<Place> {
        Arc::new(Place {
            up: Some((parent.clone(), name.clone())),
        })
    }

    /// The components from the root.
    pub fn components(&self) -> Vec<Name> {
        let mut out = Vec::new();
        let mut at = self;
        while let Some((up, name)) = &at.up {
            out.push(name.clone());
            at = up;
        }
        out.reverse();
        out
    }

    /// The path of a name in here, as side records have it.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::new();
        for part in self.components() {
            path.extend_from_slice(&part);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }
}

impl Drop for Place {
    /// Takes long chains apart in a loop: a tree a million deep must not
    /// overflow the stack.
    fn drop(&mut self) {
        let mut next = self.up.take();
        while let Some((up, _)) = next {
            next = Arc::into_inner(up).and_then(|mut p| p.up.take());
        }
    }
}

/// Where a lower object stands and which object it is.
#[derive(Debug, Clone)]
pub struct LowerSpot {
    /// In which layer.
    pub layer: LayerId,
    /// The directory it stands in; `None` for a layer's root.
    pub parent: Option<Arc<Place>>,
    /// Its name there.
    pub name: Name,
    /// Its own place, where it is a directory.
    pub place: Option<Arc<Place>>,
    /// Its identity, checked after each open.
    pub id: ObjectId,
    /// A directory whose empty files may be whiteouts.
    pub xattr_whiteouts: bool,
    /// Something else is mounted here: shown as an empty directory.
    pub mount_point: bool,
}

/// A node's lower objects, uppermost first. Files, of which there are many,
/// have one, kept in place.
#[derive(Debug, Clone, Default)]
pub enum Lowers {
    /// Only the upper has the object.
    #[default]
    None,
    /// One lower has it.
    One(LowerSpot),
    /// Several do.
    Many(Arc<[LowerSpot]>),
}

impl std::ops::Deref for Lowers {
    type Target = [LowerSpot];
    fn deref(&self) -> &[LowerSpot] {
        match self {
            Lowers::None => &[],
            Lowers::One(l) => std::slice::from_ref(l),
            Lowers::Many(l) => l,
        }
    }
}

impl From<Vec<LowerSpot>> for Lowers {
    fn from(mut v: Vec<LowerSpot>) -> Self {
        match v.len() {
            0 => Lowers::None,
            1 => v.pop().map_or(Lowers::None, Lowers::One),
            _ => Lowers::Many(v.into()),
        }
    }
}

/// What few nodes have.
#[derive(Debug, Default)]
pub struct Rare {
    /// The name in `work/index` of a file whose names are counted.
    pub anchor: Option<Name>,
    /// A ctime that only a copy-up made, and the one to show instead: copying an
    /// object up, or a child into it, is no change that anybody asked for.
    pub ctime_mask: Option<(Timespec, Timespec)>,
}

/// One merged name: a directory and a component in it.
#[derive(Debug)]
pub struct Link {
    /// The directory.
    pub parent: Arc<Node>,
    /// The component.
    pub name: Name,
}

impl Link {
    fn new(parent: &Arc<Node>, name: &Name) -> Link {
        if let Some(d) = &parent.dir {
            d.children.fetch_add(1, Ordering::AcqRel);
        }
        Link {
            parent: parent.clone(),
            name: name.clone(),
        }
    }
}

impl Clone for Link {
    fn clone(&self) -> Link {
        Link::new(&self.parent, &self.name)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(d) = &self.parent.dir {
            d.children.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The merged names that are known; files with several names may have more
/// that nobody asked for yet.
#[derive(Debug, Default)]
pub struct Links {
    first: Option<Link>,
    // Boxed on purpose: a Vec would cost every node 16 bytes more.
    #[allow(clippy::box_collection)]
    more: Option<Box<Vec<Link>>>,
}

impl Links {
    /// All known names.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.first
            .iter()
            .chain(self.more.iter().flat_map(|m| m.iter()))
    }

    /// One of them.
    pub fn first(&self) -> Option<&Link> {
        self.first.as_ref()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether `name` in `parent` is known.
    pub fn contains(&self, parent: &Arc<Node>, name: &[u8]) -> bool {
        self.iter()
            .any(|l| Arc::ptr_eq(&l.parent, parent) && *l.name == *name)
    }

    /// Whether no other name than this is known.
    pub fn only(&self, parent: &Arc<Node>, name: &[u8]) -> bool {
        self.iter()
            .all(|l| Arc::ptr_eq(&l.parent, parent) && *l.name == *name)
    }

    /// Adds a name unless it is known.
    pub fn add(&mut self, parent: &Arc<Node>, name: &Name) {
        if self.contains(parent, name) {
            return;
        }
        let link = Link::new(parent, name);
        if self.first.is_none() {
            self.first = Some(link);
        } else {
            self.more.get_or_insert_default().push(link);
        }
    }

    /// Forgets a name.
    pub fn remove(&mut self, parent: &Arc<Node>, name: &[u8]) {
        let is = |l: &Link| Arc::ptr_eq(&l.parent, parent) && *l.name == *name;
        if self.first.as_ref().is_some_and(is) {
            self.first = self.more.as_mut().and_then(|m| m.pop());
        } else if let Some(m) = &mut self.more {
            m.retain(|l| !is(l));
        }
    }

    /// Takes all names away (the caller drops them without a lock held).
    pub fn take(&mut self) -> Vec<Link> {
        let mut all: Vec<Link> = self.first.take().into_iter().collect();
        all.extend(self.more.take().into_iter().flat_map(|m| *m));
        all
    }
}

/// What only directories have.
#[derive(Debug)]
pub struct DirPart {
    /// Written by name-space changes in this directory, read by lookups.
    pub lock: RwLock<()>,
    /// Where the layers below the upper have it, in *their* merged view: what a
    /// redirect has to say. `None` where only the upper has it.
    pub lower_view: Option<Arc<Place>>,
    /// The upper directory's xattr says that its entries may have origins.
    pub impure: AtomicBool,
    /// The upper directory's empty files may be whiteouts.
    pub xattr_whiteouts: AtomicBool,
    /// How many links name this directory as their parent.
    pub children: AtomicUsize,
    /// Removed: nothing can be looked up or made here any more.
    pub dead: AtomicBool,
    /// How often lowers were asked in vain for a name in here (see `presence`).
    pub vain: AtomicU32,
    /// See [`Self::names_below`].
    pub names_below: AtomicU32,
}

impl DirPart {
    /// How many names a listing of the lowers is expected to read; 0: nobody knows.
    pub fn names_below(&self) -> usize {
        self.names_below.load(Ordering::Relaxed) as usize
    }

    /// See [`Self::names_below`].
    pub fn expect_names_below(&self, names: usize) {
        let names = u32::try_from(names).unwrap_or(u32::MAX);
        self.names_below.store(names, Ordering::Relaxed);
    }
}

/// Several names of one lower file, copied up: how many the merged view has.
pub const NO_NLINK: i64 = i64::MIN;

/// Whether the view shows any attribute of an object. Only setxattr adds one,
/// and every one of them passes through us.
///
/// The two lowest bits are the answer; the others count the changes, so that
/// what was read before a change is not kept after it.
#[derive(Debug, Default)]
pub struct XattrMemo(AtomicU32);

impl XattrMemo {
    const NONE: u32 = 1;
    const SOME: u32 = 2;
    const ANSWER: u32 = Self::NONE | Self::SOME;

    /// Whether it has some; `None` where nobody asked yet.
    pub fn known(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) & Self::ANSWER {
            0 => None,
            answer => Some(answer & Self::SOME != 0),
        }
    }

    /// To be taken before the object is asked, for [`XattrMemo::found`].
    pub fn before(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Keeps an answer, unless the object was changed since `before`; whether it
    /// was kept.
    pub fn found(&self, before: u32, some: bool) -> bool {
        let answer = if some { Self::SOME } else { Self::NONE };
        let kept = (before & !Self::ANSWER) | answer;
        (self.0)
            .compare_exchange(before, kept, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// To be called before and after an attribute is set.
    pub fn changes(&self) {
        self.0.fetch_add(Self::ANSWER + 1, Ordering::AcqRel);
        self.0.fetch_and(!Self::ANSWER, Ordering::AcqRel);
    }
}

/// One inode.
#[derive(Debug)]
pub struct Node {
    /// Node id and st_ino: one number (fuser answers entries with it).
    pub ino: u64,
    /// Its type in the merged view; never changes.
    pub kind: Kind,
    /// How often the kernel has been told of it and not yet forgotten.
    pub nlookup: AtomicU64,
    /// The upper object, once there is one. Set once: copied up for ever.
    pub upper: OnceLock<ObjectId>,
    /// The upper object's data still lies below (metacopy).
    pub metacopy: AtomicBool,
    /// The link count of the merged view where the upper's cannot tell
    /// (indexed hard links), else [`NO_NLINK`].
    pub nlink: AtomicI64,
    /// Whether the view shows an attribute of it.
    pub xattrs: XattrMemo,
    /// What few nodes have.
    pub rare: Mutex<Option<Box<Rare>>>,
    /// The lower objects, uppermost first: all merged directories, or the file
    /// (and, for metacopy, the one that has the data last).
    pub lowers: RwLock<Lowers>,
    /// Merged names.
    pub links: Mutex<Links>,
    /// Held while this node's data is copied; by nobody who holds another lock.
    pub copy_up: Mutex<()>,
    /// Its last known name is gone. Changes under the lock of `links`.
    pub orphan: AtomicBool,
    /// Directories only.
    pub dir: Option<Box<DirPart>>,
}

impl Node {
    /// Whether the upper has it.
    pub fn is_upper(&self) -> bool {
        self.upper.get().is_some()
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.dir.is_some()
    }

    /// Whether any link names it as parent.
    pub fn has_children(&self) -> bool {
        let d = self.dir.as_ref();
        d.is_some_and(|d| d.children.load(Ordering::Acquire) > 0)
    }

    /// Its lower objects.
    pub fn lower_spots(&self) -> Lowers {
        self.lowers.read().clone()
    }

    /// Whether a directory shows more than one layer.
    pub fn is_merged(&self) -> bool {
        let lowers = self.lowers.read().len();
        lowers > 1 || (lowers == 1 && self.is_upper())
    }

    /// The ctime to show for one on disk.
    pub fn shown_ctime(&self, disk: Timespec) -> Timespec {
        match self.rare.lock().as_ref().and_then(|r| r.ctime_mask) {
            Some((made, shown)) if made == disk => shown,
            _ => disk,
        }
    }

    /// A copy-up turned the ctime on disk from `before` to `after`.
    pub fn mask_ctime(&self, before: Timespec, after: Timespec) {
        let shown = self.shown_ctime(before);
        let mut rare = self.rare.lock();
        rare.get_or_insert_default().ctime_mask = (after != shown).then_some((after, shown));
    }

    /// Somebody changed the object: its ctime is its own again, even where the
    /// clock has not ticked since the copy-up.
    pub fn unmask_ctime(&self) {
        if let Some(r) = self.rare.lock().as_mut() {
            r.ctime_mask = None;
        }
    }

    /// The name of its anchor in `work/index`.
    pub fn anchor(&self) -> Option<Name> {
        self.rare.lock().as_ref().and_then(|r| r.anchor.clone())
    }

    /// It has this anchor from now on.
    pub fn set_anchor(&self, name: &Name) {
        self.rare.lock().get_or_insert_default().anchor = Some(name.clone());
    }

    /// One known name.
    pub fn any_link(&self) -> Option<Link> {
        self.links.lock().first().cloned()
    }

    /// It has this name, from now on or as was just learnt.
    pub fn gain_name(&self, parent: &Arc<Node>, name: &Name) {
        let mut links = self.links.lock();
        links.add(parent, name);
        self.orphan.store(false, Ordering::Release);
    }

    /// It has this name no longer; whether that was the last known one.
    pub fn lose_name(&self, parent: &Arc<Node>, name: &[u8]) -> bool {
        let mut links = self.links.lock();
        links.remove(parent, name);
        let none = links.is_empty();
        if none {
            self.orphan.store(true, Ordering::Release);
        }
        none
    }

    /// Whether the merged view counts names of it, known or not: its anchor stays
    /// as long as it does.
    pub fn has_other_names(&self) -> bool {
        self.nlink.load(Ordering::Acquire) > 0
    }

    /// Whether its last known name is gone.
    pub fn is_orphan(&self) -> bool {
        self.orphan.load(Ordering::Acquire)
    }
}

impl Drop for Node {
    /// Parents are dropped in a loop, for the same reason as [`Place`].
    fn drop(&mut self) {
        let mut stack = self.links.get_mut().take();
        while let Some(link) = stack.pop() {
            let parent = link.parent.clone();
            drop(link);
            if let Some(mut parent) = Arc::into_inner(parent) {
                stack.extend(parent.links.get_mut().take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_from_before_a_change_is_not_kept() {
        let memo = XattrMemo::default();
        let before = memo.before();
        assert!(memo.found(before, false) && memo.known() == Some(false));
        let stale = memo.before();
        memo.changes();
        assert_eq!(memo.known(), None);
        assert!(!memo.found(stale, false) && memo.known().is_none());
        assert!(memo.found(memo.before(), true) && memo.known() == Some(true));
    }

    #[test]
    fn a_node_stays_small_because_a_million_of_them_are_kept() {
        assert!(size_of::<Node>() <= 192, "{} bytes", size_of::<Node>());
    }
}
