//! Node → descriptor, through a bounded cache of descriptors.
//!
//! Nothing stores absolute paths: a directory is opened from its nearest
//! ancestor whose descriptor is at hand, one component at a time. What was
//! reopened by name is compared with the node's identity, because a rename or a
//! replacement may have run at the same moment.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;

use super::node::{LowerSpot, Node, Place};
use crate::layer::{Layer, LayerId};
use crate::overlay::figures::Cache;
use crate::sys::{Errno, Name, ObjectId, Result, Spot};

/// What a cached descriptor is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FdKey {
    /// The upper object of a node: O_PATH of a directory, read-write of a file.
    Upper(u64),
    /// The upper file of a node, where it could only be opened for reading.
    UpperReadOnly(u64),
    /// The data of a lower file of a node.
    LowerFile(u64),
    /// A directory of a lower layer: the place's address (kept alive by the entry).
    LowerDir(usize, LayerId),
}

struct Slot {
    fd: Arc<OwnedFd>,
    _place: Option<Arc<Place>>,
    used: bool,
}

#[derive(Default)]
struct Shard {
    map: HashMap<FdKey, Slot>,
    clock: VecDeque<FdKey>,
    /// Counted under the shard's lock.
    hits: u64,
    kept: u64,
    evicted: u64,
}

/// How the cache does.
#[derive(Debug, Clone, Copy, Default)]
pub struct FdFigures {
    /// A miss is a descriptor that was opened and kept.
    pub cache: Cache,
    /// Descriptors that made room for others.
    pub evicted: u64,
    /// Descriptors kept now.
    pub open: u64,
    /// How many may be kept.
    pub budget: u64,
}

/// A bounded cache of descriptors: second chance, sharded.
pub struct FdCache {
    shards: Vec<Mutex<Shard>>,
    per_shard: usize,
}

impl std::fmt::Debug for FdCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FdCache")
            .field("per_shard", &self.per_shard)
            .finish()
    }
}

impl FdCache {
    /// A cache of at most `capacity` descriptors (at least 2).
    pub fn new(capacity: usize) -> Self {
        let shards = if capacity >= 256 { 16 } else { 1 };
        FdCache {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            per_shard: (capacity / shards).max(2),
        }
    }

    fn shard(&self, key: FdKey) -> Option<&Mutex<Shard>> {
        let n = match key {
            FdKey::Upper(i) | FdKey::UpperReadOnly(i) | FdKey::LowerFile(i) => i as usize,
            FdKey::LowerDir(p, l) => (p >> 4) ^ usize::from(l),
        };
        self.shards
            .get(n.wrapping_mul(0x9e37_79b9) >> 7 & (self.shards.len() - 1))
    }

    /// The descriptor, if it is at hand.
    pub fn get(&self, key: FdKey) -> Option<Arc<OwnedFd>> {
        let mut s = self.shard(key)?.lock();
        let slot = s.map.get_mut(&key)?;
        slot.used = true;
        let fd = slot.fd.clone();
        s.hits += 1;
        Some(fd)
    }

    /// Keeps a descriptor; what was evicted is closed after the lock is given up.
    pub fn put(&self, key: FdKey, fd: &Arc<OwnedFd>, place: Option<Arc<Place>>) {
        let Some(shard) = self.shard(key) else { return };
        let mut evicted = Vec::new();
        let mut s = shard.lock();
        s.kept += 1;
        while s.map.len() >= self.per_shard {
            let Some(victim) = s.clock.pop_front() else {
                break;
            };
            match s.map.get_mut(&victim) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    s.clock.push_back(victim);
                }
                Some(_) => {
                    evicted.extend(s.map.remove(&victim));
                    s.evicted += 1;
                }
                None => {}
            }
        }
        let slot = Slot {
            fd: fd.clone(),
            _place: place,
            used: false,
        };
        match s.map.insert(key, slot) {
            Some(old) => evicted.push(old),
            None => s.clock.push_back(key),
        }
        drop(s);
        drop(evicted);
    }

    /// Gives a descriptor up.
    pub fn remove(&self, key: FdKey) -> Option<Arc<OwnedFd>> {
        let mut s = self.shard(key)?.lock();
        let slot = s.map.remove(&key);
        // The clock may hold the key until it comes round; keep it from growing.
        if s.clock.len() > s.map.len() * 2 + 16 {
            let Shard { map, clock, .. } = &mut *s;
            clock.retain(|k| map.contains_key(k));
        }
        drop(s);
        slot.map(|s| s.fd)
    }

    /// Gives up all that belongs to a node.
    pub fn remove_node(&self, node: &Node) -> [Option<Arc<OwnedFd>>; 3] {
        [
            FdKey::Upper(node.ino),
            FdKey::UpperReadOnly(node.ino),
            FdKey::LowerFile(node.ino),
        ]
        .map(|key| self.remove(key))
    }

    /// Gives all up.
    pub fn clear(&self) {
        for shard in &self.shards {
            let all = std::mem::take(&mut *shard.lock());
            drop(all);
        }
    }

    /// How it does.
    pub fn figures(&self) -> FdFigures {
        let mut sum = FdFigures {
            budget: (self.per_shard * self.shards.len()) as u64,
            ..FdFigures::default()
        };
        for shard in &self.shards {
            let s = shard.lock();
            sum.cache.hits += s.hits;
            sum.cache.misses += s.kept;
            sum.evicted += s.evicted;
            sum.open += s.map.len() as u64;
        }
        sum
    }

    /// How many descriptors are kept.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().map.len()).sum()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Opens the upper directory of `node` (O_PATH). The caller holds the rename
/// lock, so the chain of names does not move.
pub fn upper_dir(cache: &FdCache, upper: &Layer, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
    let mut chain: Vec<(Arc<Node>, Name)> = Vec::new();
    let mut at = node.clone();
    let mut fd = loop {
        if let Some(fd) = cache.get(FdKey::Upper(at.ino)) {
            break fd;
        }
        if !at.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        match at.any_link() {
            Some(link) => {
                chain.push((at, link.name.clone()));
                at = link.parent.clone();
            }
            None if at.is_orphan() => return Err(Errno::ENOENT),
            None => break upper.root.clone(),
        }
    };
    for (node, name) in chain.iter().rev() {
        let next = Arc::new(upper.open_dir(fd.as_fd(), name)?);
        check(&next, node.upper.get())?;
        cache.put(FdKey::Upper(node.ino), &next, None);
        fd = next;
    }
    Ok(fd)
}

fn check(fd: &Arc<OwnedFd>, want: Option<&ObjectId>) -> Result<()> {
    let s = Spot::fd(fd.clone()).stat()?;
    match want {
        Some(id) => crate::sys::stat::expect_object(&s, id.dev, id.ino),
        None => Err(Errno::ESTALE),
    }
}

/// Opens a directory of a lower layer (O_PATH).
pub fn lower_dir(cache: &FdCache, layer: &Layer, place: &Arc<Place>) -> Result<Arc<OwnedFd>> {
    let mut chain: Vec<(Arc<Place>, Name)> = Vec::new();
    let mut at = place.clone();
    let key = |p: &Arc<Place>| FdKey::LowerDir(Arc::as_ptr(p) as usize, layer.id);
    let mut fd = loop {
        let Some((up, name)) = &at.up else {
            break layer.root.clone();
        };
        if let Some(fd) = cache.get(key(&at)) {
            break fd;
        }
        chain.push((at.clone(), name.clone()));
        let up = up.clone();
        at = up;
    };
    for (place, name) in chain.iter().rev() {
        let next = Arc::new(layer.open_dir(fd.as_fd(), name)?);
        cache.put(key(place), &next, Some(place.clone()));
        fd = next;
    }
    Ok(fd)
}

/// The spot of a lower object.
pub fn lower_spot(cache: &FdCache, layer: &Layer, spot: &LowerSpot) -> Result<Spot> {
    match &spot.parent {
        Some(place) => Ok(Spot::at(lower_dir(cache, layer, place)?, spot.name.clone())),
        None => Ok(Spot::fd(layer.root.clone())),
    }
}
