//! Staging: a folder for what is not complete. Dropped, it is removed; after a
//! crash whoever opens the store next removes it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::failure::{Failure, Outcome};
use super::lock::{Hold, Lock, Object};
use super::{Store, layout};
use crate::sys::dir::{self, Cross};
use crate::sys::{best_effort, tree};

/// A folder of our own below `staging/`.
#[derive(Debug)]
pub struct Staging {
    parent: Arc<OwnedFd>,
    dir: Arc<OwnedFd>,
    path: PathBuf,
    id: String,
    lock: Option<Lock>,
}

impl Staging {
    /// The folder.
    pub fn dir(&self) -> &Arc<OwnedFd> {
        &self.dir
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let removed = tree::remove(&self.parent, self.id.as_bytes());
        // What could not be removed keeps its lock's file: somebody will see it.
        if best_effort("remove a staging folder", removed).is_some()
            && let Some(lock) = self.lock.take()
        {
            lock.retire();
        }
    }
}

impl Store {
    /// Makes a folder to prepare something in.
    pub fn stage(&self) -> Outcome<Staging> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH);
        let id = format!(
            "{}-{}-{:x}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed),
            nanos.map_or(0, |d| d.as_nanos())
        );
        let path = self.path().join("staging").join(&id);
        let failed = |e| Failure::system(&path, "be made", e);
        // The lock first: a folder that nobody locks is rubbish.
        let lock = self.lock(Object::Staging(&id), Hold::Alone)?;
        dir::mkdir(self.staging.as_fd(), id.as_bytes(), 0o700).map_err(failed)?;
        let opened = dir::open_dir_at(self.staging.as_fd(), id.as_bytes(), Cross::Refuse);
        Ok(Staging {
            parent: self.staging.clone(),
            dir: Arc::new(opened.map_err(failed)?),
            path: path.clone(),
            id,
            lock: Some(lock),
        })
    }

    /// Removes what processes that are gone have left in `staging/`; how many
    /// folders that were. What cannot be removed stays.
    pub fn sweep(&self) -> usize {
        let mut ids = Vec::new();
        let listed = dir::list(self.staging.as_fd(), |e| ids.push(e.name));
        best_effort("list the staging folder", listed);
        let mut gone = 0;
        for id in ids {
            let Ok(text) = std::str::from_utf8(&id) else {
                continue;
            };
            let Ok(Some(lock)) = self.try_lock(Object::Staging(text), Hold::Alone) else {
                continue;
            };
            let removed = tree::remove(&self.staging, &id);
            if best_effort("remove an old staging folder", removed).is_some() {
                gone += 1;
                lock.retire();
            }
        }
        gone
    }
}

/// Syncs a directory that a name was given in or taken from.
pub(super) fn settle(dir: &Arc<OwnedFd>, path: &std::path::Path) -> Outcome<()> {
    dir::fsync_dir(dir.as_fd()).map_err(|e| Failure::system(path, "be written to disk", e))
}

/// A subdirectory of the store's own.
pub(super) fn open(parent: &OwnedFd, name: &[u8]) -> crate::sys::Result<Arc<OwnedFd>> {
    dir::open_dir_at(parent.as_fd(), name, Cross::Refuse).map(Arc::new)
}

/// Makes the directories of a store that are missing.
pub(super) fn make_directories(root: &OwnedFd) -> crate::sys::Result<()> {
    for name in layout::DIRECTORIES {
        match dir::mkdir(root.as_fd(), name, 0o755) {
            Ok(()) | Err(crate::sys::Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
