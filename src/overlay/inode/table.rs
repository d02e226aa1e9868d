//! What the kernel knows: node id → [`Node`], counted by lookups.
//!
//! Only [`Table::intern`] and [`Table::get`] hand out nodes, both under the
//! shard's lock; a node leaves the table under the same lock, when the kernel
//! has forgotten it and no child holds it as a parent. A number is never given
//! to a second object while the first one is in the table.

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;

use super::identity::ALLOCATED;
use super::node::Node;
use crate::layer::LayerId;
use crate::sys::ObjectId;

/// Node ids are spread already (inode numbers): mixed by one multiplication.
#[derive(Default)]
pub struct InoHasher(u64);

impl std::hash::Hasher for InoHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
}

type InoMap<V> = DashMap<u64, V, BuildHasherDefault<InoHasher>>;

/// The object a node stands for when it is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// 0 for the upper.
    pub layer: LayerId,
    /// The object.
    pub id: ObjectId,
}

/// How often others are let go first, so that a request which is about to end ends.
const TURNS: usize = 16;

/// The table.
#[derive(Debug, Default)]
pub struct Table {
    nodes: InoMap<Arc<Node>>,
    /// Objects whose own number was taken → the number they were given.
    moved: DashMap<Claim, u64>,
    next: AtomicU64,
    /// Nodes that the kernel has forgotten while a request still held them.
    missed: Mutex<Vec<u64>>,
    /// Whether there are any, without the lock.
    any_missed: AtomicBool,
}

/// What goes with a node that leaves the table, before its number can go to another.
pub trait Leaving {
    /// What is held while it leaves.
    type Held<'a>
    where
        Self: 'a;
    /// What takes time to give up.
    type Left;
    /// Called with no lock held.
    fn hold(&self, ino: u64) -> Self::Held<'_>;
    /// Called under the shard's lock, for a node that nobody needs; what is left is
    /// dropped when no lock is held any more. `None` keeps the node for now, where
    /// `held` is not enough.
    fn leaves(&self, node: &Node, held: &Self::Held<'_>) -> Option<Self::Left>;
}

/// Whether a node found under a number is the one looked for.
pub trait Same: Fn(&Node) -> bool {}
impl<F: Fn(&Node) -> bool> Same for F {}

impl Table {
    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no node is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The node of a number.
    pub fn get(&self, ino: u64) -> Option<Arc<Node>> {
        self.nodes.get(&ino).map(|e| e.value().clone())
    }

    /// Finds the node for an object or makes one, without counting a lookup.
    /// `number` is the object's own; where another object has it, the object
    /// gets one of its own.
    pub fn intern(
        &self,
        number: u64,
        claim: Claim,
        same: impl Same,
        make: impl FnOnce(u64) -> Node,
    ) -> Arc<Node> {
        let mut make = Some(make);
        let mut ino = number;
        let mut first = true;
        loop {
            match self.nodes.entry(ino) {
                Entry::Occupied(e) if same(e.get()) => return e.get().clone(),
                Entry::Occupied(_) => {}
                Entry::Vacant(v) => {
                    if let Some(make) = make.take() {
                        let node = Arc::new(make(ino));
                        v.insert(node.clone());
                        return node;
                    }
                }
            }
            ino = self.elsewhere(claim, first);
            first = false;
        }
    }

    /// The number of an object whose own is taken: the one given before, the
    /// first time round, else a fresh one.
    fn elsewhere(&self, claim: Claim, may_reuse: bool) -> u64 {
        if may_reuse && let Some(n) = self.moved.get(&claim) {
            return *n;
        }
        let n = ALLOCATED | self.next.fetch_add(1, Ordering::Relaxed);
        self.moved.insert(claim, n);
        n
    }

    /// A number that no object has, for a node without one.
    pub fn fresh_number(&self) -> u64 {
        ALLOCATED | self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts the root in.
    pub fn insert_root(&self, root: Arc<Node>) {
        self.nodes.insert(root.ino, root);
    }

    /// The kernel has been told of `node`.
    pub fn remember(&self, node: &Node) {
        node.nlookup.fetch_add(1, Ordering::AcqRel);
    }

    /// The kernel forgets `count` lookups of a node; how many nodes left the table
    /// because of it (the node and parents that waited for it).
    pub fn forget(&self, ino: u64, count: u64, leaving: &impl Leaving) -> usize {
        let sub = |n: u64| Some(n.saturating_sub(count));
        let left = self.nodes.get(&ino).map(|node| {
            // The closure always answers, so this cannot fail.
            let before = node
                .nlookup
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, sub);
            before.unwrap_or(0).saturating_sub(count)
        });
        if left == Some(0) {
            self.settle(ino, leaving)
        } else {
            0
        }
    }

    /// Gives a node back that the kernel was not told of.
    pub fn release(&self, node: Arc<Node>, leaving: &impl Leaving) {
        let ino = node.ino;
        let unused = node.nlookup.load(Ordering::Acquire) == 0;
        drop(node);
        if unused {
            self.settle(ino, leaving);
        }
    }

    /// Drops a node from the table if nobody needs it, then its parents alike.
    fn settle(&self, ino: u64, leaving: &impl Leaving) -> usize {
        let mut gone = 0;
        let mut queue = vec![ino];
        while let Some(ino) = queue.pop() {
            let Some(node) = self.take_unused(ino, leaving) else {
                continue;
            };
            let links = node.links.lock().take();
            // Our reference to a parent goes before it is looked at.
            for link in links {
                queue.push(link.parent.ino);
            }
            gone += 1;
        }
        gone
    }

    /// Takes a node out that the kernel forgot, that no child names as parent
    /// and that no request holds. A request that has answered, and so let the
    /// kernel forget, may still be about to give its reference up: it is given a few
    /// turns. On a busy machine its thread may not run for longer, since the client
    /// that it has woken does; then [`Table::retry_missed`] takes the node.
    fn take_unused(&self, ino: u64, leaving: &impl Leaving) -> Option<Arc<Node>> {
        for _ in 0..TURNS {
            let unused = |node: &Arc<Node>| {
                node.nlookup.load(Ordering::Acquire) == 0 && Arc::strong_count(node) == 1
            };
            let held = leaving.hold(ino);
            let mut left = None;
            let gone = self.nodes.remove_if(&ino, |_, node| {
                left = unused(node).then(|| leaving.leaves(node, &held)).flatten();
                left.is_some()
            });
            drop(held);
            drop(left);
            if let Some((_, node)) = gone {
                return Some(node);
            }
            let held = self.nodes.get(&ino).is_some_and(|node| {
                node.nlookup.load(Ordering::Acquire) == 0 && !node.has_children()
            });
            if !held {
                return None;
            }
            std::thread::yield_now();
        }
        self.missed.lock().push(ino);
        self.any_missed.store(true, Ordering::Release);
        None
    }

    /// Whether nodes are left that the kernel has forgotten.
    pub fn has_missed(&self) -> bool {
        self.any_missed.load(Ordering::Acquire)
    }

    /// Looks again at the nodes that a request held when the kernel forgot them; how
    /// many nodes left the table. Those that are still held stay missed.
    pub fn retry_missed(&self, leaving: &impl Leaving) -> usize {
        let missed = {
            let mut list = self.missed.lock();
            self.any_missed.store(false, Ordering::Release);
            std::mem::take(&mut *list)
        };
        missed
            .into_iter()
            .map(|ino| self.settle(ino, leaving))
            .sum()
    }

    /// Drops every node that nobody needs and gives memory back: for now and
    /// then, since it looks at all of them.
    pub fn sweep(&self, leaving: &impl Leaving) {
        let idle: Vec<u64> = self
            .nodes
            .iter()
            .filter(|n| n.nlookup.load(Ordering::Acquire) == 0 && Arc::strong_count(n.value()) == 1)
            .map(|n| *n.key())
            .collect();
        for ino in idle {
            self.settle(ino, leaving);
        }
        self.nodes.shrink_to_fit();
    }

    /// From now on an object goes by this number: nothing that stands with it on
    /// the disk says so.
    pub fn claim(&self, claim: Claim, ino: u64) {
        self.moved.insert(claim, ino);
    }

    /// The number an object was given, if it is not its own.
    pub fn claimed(&self, claim: Claim) -> Option<u64> {
        if self.moved.is_empty() {
            return None;
        }
        self.moved.get(&claim).map(|n| *n)
    }

    /// Forgets the number a vanished object was given; not one that a newer
    /// object with the same inode number goes by.
    pub fn drop_claim(&self, claim: Claim, ino: u64) {
        self.moved.remove_if(&claim, |_, given| *given == ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Kind;

    /// Nothing stays behind.
    struct Nothing;

    impl Leaving for Nothing {
        type Held<'a> = ();
        type Left = ();
        fn hold(&self, _ino: u64) -> Self::Held<'_> {}
        fn leaves(&self, _node: &Node, _held: &Self::Held<'_>) -> Option<Self::Left> {
            Some(())
        }
    }

    fn file(ino: u64) -> Node {
        Node {
            ino,
            kind: Kind::File,
            nlookup: AtomicU64::new(0),
            upper: Default::default(),
            metacopy: Default::default(),
            xattrs: Default::default(),
            nlink: Default::default(),
            rare: Default::default(),
            lowers: Default::default(),
            links: Default::default(),
            copy_up: Default::default(),
            orphan: Default::default(),
            dir: None,
        }
    }

    fn forgotten_while_held() -> (Table, Arc<Node>) {
        let table = Table::default();
        let claim = Claim {
            layer: 0,
            id: ObjectId { dev: 1, ino: 7 },
        };
        let held = table.intern(7, claim, |_: &Node| true, file);
        table.remember(&held);
        assert_eq!(table.forget(7, 1, &Nothing), 0);
        (table, held)
    }

    #[test]
    fn a_node_that_a_request_held_when_it_was_forgotten_goes_later() {
        let (table, held) = forgotten_while_held();
        assert!(table.has_missed());
        assert_eq!(table.retry_missed(&Nothing), 0, "it is still held");
        assert!(table.has_missed());
        drop(held);
        assert_eq!(table.retry_missed(&Nothing), 1);
        assert!(!table.has_missed());
        assert!(table.is_empty());
    }

    #[test]
    fn a_node_that_was_looked_up_again_stays() {
        let (table, held) = forgotten_while_held();
        table.remember(&held);
        drop(held);
        assert_eq!(table.retry_missed(&Nothing), 0);
        assert!(!table.has_missed());
        assert_eq!(table.forget(7, 1, &Nothing), 1);
    }
}
