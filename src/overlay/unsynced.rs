//! Directories of the upper in which a copy got its name and that were not synced since.
//!
//! A copy's data is synced before it has a name; the name is not, as on kernel overlayfs: after
//! a power cut the lower shows again, as before. Whoever asks for a sync of the copy, or of
//! something below it, means the name as well: it had it all the time. What syncs files syncs
//! their names on most file systems, but none promises it; so the directories on the way are
//! synced then, once.
//!
//! Kept by the object and not in its node, which may be forgotten and come back.
//!
//! Lock order: a leaf.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::sys::ObjectId;

/// So many are remembered.
const AT_MOST: usize = 4096;

/// Which copy got its name last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last(u64);

#[derive(Debug, Default)]
struct Dirs {
    last: HashMap<ObjectId, Last>,
    count: u64,
}

/// The directories.
#[derive(Debug, Default)]
pub struct Unsynced(Mutex<Dirs>);

impl Unsynced {
    /// A copy has just got its name in a directory; false where too many are remembered:
    /// it is to be synced at once.
    pub fn note(&self, dir: ObjectId) -> bool {
        let mut dirs = self.0.lock();
        if dirs.last.len() >= AT_MOST && !dirs.last.contains_key(&dir) {
            return false;
        }
        dirs.count += 1;
        let last = Last(dirs.count);
        dirs.last.insert(dir, last);
        true
    }

    /// A name moved from one directory to another: if it was a copy's, it still has none
    /// that is synced. As [`Self::note`].
    pub fn moved(&self, from: ObjectId, to: ObjectId) -> bool {
        from == to || self.last(from).is_none() || self.note(to)
    }

    /// The last copy in a directory, if it was not synced since.
    pub fn last(&self, dir: ObjectId) -> Option<Last> {
        self.0.lock().last.get(&dir).copied()
    }

    /// A directory was synced, `last` having been asked for before.
    pub fn synced(&self, dir: ObjectId, last: Last) {
        let mut dirs = self.0.lock();
        if dirs.last.get(&dir) == Some(&last) {
            dirs.last.remove(&dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(ino: u64) -> ObjectId {
        ObjectId { dev: 1, ino }
    }

    #[test]
    fn a_copy_that_comes_during_a_sync_waits_for_the_next() {
        let unsynced = Unsynced::default();
        assert!(unsynced.last(dir(1)).is_none() && unsynced.note(dir(1)));
        let first = unsynced.last(dir(1)).unwrap();
        assert!(unsynced.note(dir(1)));
        unsynced.synced(dir(1), first);
        let second = unsynced.last(dir(1)).unwrap();
        unsynced.synced(dir(1), second);
        assert!(unsynced.last(dir(1)).is_none());
    }

    #[test]
    fn a_copy_that_moves_is_not_forgotten() {
        let unsynced = Unsynced::default();
        assert!(unsynced.moved(dir(1), dir(2)) && unsynced.last(dir(2)).is_none());
        assert!(unsynced.note(dir(1)) && unsynced.moved(dir(1), dir(2)));
        assert!(unsynced.last(dir(2)).is_some());
    }

    #[test]
    fn no_more_are_kept_than_may_be() {
        let unsynced = Unsynced::default();
        assert!((0..AT_MOST as u64).all(|ino| unsynced.note(dir(ino))));
        assert!(!unsynced.note(dir(1 << 40)) && unsynced.note(dir(5)));
    }
}
