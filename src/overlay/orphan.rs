//! Objects whose last known name went while somebody may have had them open.
//!
//! With zero-message opens the daemon cannot know who has a file open, so an
//! upper object that loses its name is kept until FORGET: by a descriptor while
//! the budget lasts, beyond it under a name in the work directory (which the
//! next mount sweeps).
//!
//! It may have other names that nobody knows yet (the kernel forgot them), and be
//! found by one. It stays kept all the same: the name aside is then a link that
//! is not counted, and were it removed, whoever asked for the link count just
//! before would hand on an old one.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use rustix::fs::OFlags;

use super::inode::node::Node;
use super::upper::Upper;
use crate::sys::{Name, Spot, best_effort};

/// How one is kept.
#[derive(Debug)]
enum Kept {
    /// By a descriptor (O_PATH, or open).
    Fd(Arc<OwnedFd>),
    /// Under a name in the work directory.
    Aside(Name),
    /// It is on its way there: at this name, or still where it was.
    Moving(Name),
}

/// A node's address, as long as the node is there.
type Owner = usize;

fn owner(node: &Node) -> Owner {
    std::ptr::from_ref(node).addr()
}

/// All of them.
#[derive(Debug)]
pub struct Orphans {
    /// By number, with the node that has it: when a node is forgotten, its number
    /// may have gone to a new node of the same object already.
    kept: DashMap<u64, (Owner, Kept)>,
    /// How many those are, without a lock: mostly none.
    count: AtomicUsize,
    descriptors: usize,
}

impl Orphans {
    /// Keeps at most `descriptors` by descriptor.
    pub fn new(descriptors: usize) -> Self {
        Orphans {
            kept: DashMap::new(),
            count: AtomicUsize::new(0),
            descriptors,
        }
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one more may be kept by a descriptor.
    pub fn has_room(&self) -> bool {
        self.len() < self.descriptors
    }

    fn note(&self, node: &Node, kept: Kept) {
        if self.kept.insert(node.ino, (owner(node), kept)).is_none() {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Keeps one by a descriptor.
    pub fn keep(&self, node: &Node, fd: Arc<OwnedFd>) {
        self.note(node, Kept::Fd(fd));
    }

    /// Notes where one will stand, before it is moved: whoever looks for it
    /// meanwhile must find it at the one place or the other.
    pub fn moves_aside(&self, node: &Node, name: Name) {
        self.note(node, Kept::Moving(name));
    }

    /// Notes that one stands aside in the work directory.
    pub fn keep_aside(&self, node: &Node, name: Name) {
        self.note(node, Kept::Aside(name));
    }

    /// Where one stands, or may stand by now; `None` for a lower object, which stays where it is.
    pub fn spot(&self, upper: Option<&Upper>, ino: u64) -> Option<Spot> {
        if self.is_empty() {
            return None;
        }
        match &self.kept.get(&ino)?.1 {
            Kept::Fd(fd) => Some(Spot::fd(fd.clone())),
            Kept::Aside(name) | Kept::Moving(name) => {
                Some(Spot::at(upper?.work.clone(), name.clone()))
            }
        }
    }

    /// Whether one's remaining name in the work directory counts as a link.
    pub fn is_aside(&self, ino: u64) -> bool {
        let aside = |ino| Some(matches!(self.kept.get(ino)?.1, Kept::Aside(_)));
        !self.is_empty() && aside(&ino).unwrap_or(false)
    }

    /// Whether one is kept, so that its inode number cannot come back.
    pub fn holds(&self, ino: u64) -> bool {
        !self.is_empty() && self.kept.contains_key(&ino)
    }

    /// Lets one go; with the descriptor its data may go, which takes time.
    pub fn remove(&self, upper: Option<&Upper>, node: &Node) -> Option<Arc<OwnedFd>> {
        if self.is_empty() {
            return None;
        }
        let own = |_: &u64, of: &(Owner, Kept)| of.0 == owner(node);
        self.gone(upper, self.kept.remove_if(&node.ino, own)?.1.1)
    }

    fn gone(&self, upper: Option<&Upper>, kept: Kept) -> Option<Arc<OwnedFd>> {
        self.count.fetch_sub(1, Ordering::AcqRel);
        match kept {
            Kept::Fd(fd) => Some(fd),
            Kept::Aside(name) | Kept::Moving(name) => {
                let upper = upper?;
                let spot = Spot::at(upper.work.clone(), name.clone());
                let fd = spot.open(OFlags::PATH).ok().map(Arc::new);
                best_effort("remove an orphan", upper.clear_temp(&name));
                fd
            }
        }
    }

    /// Lets all go.
    pub fn clear(&self, upper: Option<&Upper>) {
        let all: Vec<u64> = self.kept.iter().map(|e| *e.key()).collect();
        for ino in all {
            if let Some((_, (_, kept))) = self.kept.remove(&ino) {
                drop(self.gone(upper, kept));
            }
        }
    }
}
