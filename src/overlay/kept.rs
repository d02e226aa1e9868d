//! What is kept of directories between requests: one thing of each, bounded by
//! the names in all of them together, but the last few always.
//!
//! Lock order: the cache's lock is a leaf; what is dropped is dropped without it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Things kept whatever their size: somebody is using them.
const ALWAYS: usize = 8;
/// Things kept at most.
const AT_MOST: usize = 1024;

/// Something that is kept of a directory.
pub trait Counted {
    /// How many names it holds.
    fn names(&self) -> usize;
}

struct Cache<T> {
    map: HashMap<u64, (Arc<T>, u64)>,
    tick: u64,
}

/// The things by their directory's number; who was not used for longest goes first.
pub struct Kept<T> {
    cache: Mutex<Cache<T>>,
    max_names: usize,
}

impl<T> std::fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("max_names", &self.max_names)
            .finish()
    }
}

impl<T: Counted> Kept<T> {
    /// Keeps up to `max_names` names beyond the last few things.
    pub fn new(max_names: usize) -> Self {
        let cache = Cache {
            map: HashMap::new(),
            tick: 0,
        };
        Kept {
            cache: Mutex::new(cache),
            max_names,
        }
    }

    /// What is kept of a directory.
    pub fn get(&self, dir: u64) -> Option<Arc<T>> {
        let mut c = self.cache.lock();
        c.tick += 1;
        let tick = c.tick;
        let (thing, used) = c.map.get_mut(&dir)?;
        *used = tick;
        Some(thing.clone())
    }

    /// Keeps a thing. Where changes of the directory must reach it, the caller
    /// holds the directory's lock, so that none falls between its making and its
    /// keeping.
    pub fn put(&self, dir: u64, thing: Arc<T>) {
        let mut evicted = Vec::new();
        let mut c = self.cache.lock();
        c.tick += 1;
        let tick = c.tick;
        evicted.extend(c.map.insert(dir, (thing, tick)));
        let mut names: usize = c.map.values().map(|(t, _)| t.names()).sum();
        while c.map.len() > ALWAYS && (names > self.max_names || c.map.len() > AT_MOST) {
            let oldest = c
                .map
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(k, _)| *k);
            let Some(victim) = oldest.and_then(|k| c.map.remove(&k)) else {
                break;
            };
            names = names.saturating_sub(victim.0.names());
            evicted.push(victim);
        }
        drop(c);
        drop(evicted);
    }

    /// Gives up what is kept of a directory.
    pub fn remove(&self, dir: u64) {
        let gone = self.cache.lock().map.remove(&dir);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Five;

    impl Counted for Five {
        fn names(&self) -> usize {
            5
        }
    }

    #[test]
    fn things_are_bounded_but_the_last_few() {
        let c = Kept::new(10);
        for d in 0..100 {
            c.put(d, Arc::new(Five));
        }
        assert!((0..92).all(|d| c.get(d).is_none()) && c.get(99).is_some());
    }

    #[test]
    fn what_was_used_last_stays() {
        let c = Kept::new(10);
        for d in 0..100 {
            c.put(d, Arc::new(Five));
            assert!(c.get(0).is_some());
        }
        c.remove(0);
        assert!(c.get(0).is_none());
    }
}
