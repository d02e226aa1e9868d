//! The directories from a tree's root to where work is done, held open.
//!
//! Entries come directory by directory, so the next one is nearly always in the one
//! that is open already. Only the deepest [`OPEN_DIRS_MAX`] are held: one that was
//! let go is found again through `..` of its child and must be the same object.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::sys::dir::{self, Cross};
use crate::sys::{Errno, Name, ObjectId, Result, Spot, Stat, stat};

use super::limits::OPEN_DIRS_MAX;

/// A chain of directories; the deepest and the root are always open.
#[derive(Debug)]
pub(super) struct Trail<T> {
    root: Level<T>,
    below: Vec<Level<T>>,
    /// The names of `below`, joined.
    path: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Level<T> {
    name: Name,
    id: ObjectId,
    fd: Option<Arc<OwnedFd>>,
    /// What the user of the trail knows of it.
    pub(super) data: T,
}

impl<T> Trail<T> {
    /// Begins at a root.
    pub(super) fn new(root: Arc<OwnedFd>, data: T) -> Result<Trail<T>> {
        let id = ObjectId::of(&stat::of_descriptor(root.as_fd())?);
        Ok(Trail {
            root: Level {
                name: Name::from(&b""[..]),
                id,
                fd: Some(root),
                data,
            },
            below: Vec::new(),
            path: Vec::new(),
        })
    }

    /// How many directories below the root.
    pub(super) fn depth(&self) -> usize {
        self.below.len()
    }

    /// How many of these names lead along the trail.
    pub(super) fn common(&self, names: &[&[u8]]) -> usize {
        let pairs = self.below.iter().zip(names);
        pairs
            .take_while(|(level, name)| level.name[..] == ***name)
            .count()
    }

    /// What is known of the deepest directory.
    pub(super) fn here(&self) -> &T {
        &self.below.last().unwrap_or(&self.root).data
    }

    /// The same, to be changed.
    pub(super) fn here_mut(&mut self) -> &mut T {
        &mut self.below.last_mut().unwrap_or(&mut self.root).data
    }

    /// The deepest directory.
    pub(super) fn fd(&self) -> Result<&Arc<OwnedFd>> {
        let level = self.below.last().unwrap_or(&self.root);
        level.fd.as_ref().ok_or(Errno::EBADF)
    }

    /// The deepest directory as an object.
    pub(super) fn spot(&self) -> Result<Spot> {
        Ok(Spot::fd(self.fd()?.clone()))
    }

    /// The path of the deepest directory.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The path of `name` in it.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        if !path.is_empty() && !name.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// Opens the subdirectory `name`, which is no symlink and no mount point, and what
    /// stat says of it.
    pub(super) fn open(&self, name: &[u8]) -> Result<(OwnedFd, Stat)> {
        let fd = dir::open_dir_at(self.fd()?.as_fd(), name, Cross::Refuse)?;
        let stat = stat::of_descriptor(fd.as_fd())?;
        Ok((fd, stat))
    }

    /// Goes one directory down, into what [`Trail::open`] gave.
    pub(super) fn enter(&mut self, name: &[u8], opened: (OwnedFd, Stat), data: T) {
        let (fd, stat) = opened;
        self.path = self.path_of(name);
        self.below.push(Level {
            name: Name::from(name),
            id: ObjectId::of(&stat),
            fd: Some(Arc::new(fd)),
            data,
        });
        let far = self.below.len().checked_sub(OPEN_DIRS_MAX + 1);
        if let Some(level) = far.and_then(|at| self.below.get_mut(at)) {
            level.fd = None;
        }
    }

    /// Back to the root at once.
    pub(super) fn reset(&mut self) {
        self.below.clear();
        self.path.clear();
    }

    /// Goes one directory up; what was left, or `None` at the root.
    ///
    /// # Errors
    /// ESTALE where the directory above is another one now.
    pub(super) fn leave(&mut self) -> Result<Option<(Arc<OwnedFd>, T)>> {
        let Some(left) = self.below.pop() else {
            return Ok(None);
        };
        let slash = usize::from(!self.below.is_empty());
        let rest = self.path.len().saturating_sub(left.name.len() + slash);
        self.path.truncate(rest);
        let child = left.fd.ok_or(Errno::EBADF)?;
        if let Some(parent) = self.below.last_mut().filter(|level| level.fd.is_none()) {
            let up = dir::open_dir_at(child.as_fd(), b"..", Cross::Follow)?;
            let found = stat::of_descriptor(up.as_fd())?;
            stat::expect_object(&found, parent.id.dev, parent.id.ino)?;
            parent.fd = Some(Arc::new(up));
        }
        Ok(Some((child, left.data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twice as deep as directories are held open.
    #[test]
    fn directories_that_were_let_go_are_found_again() {
        let tmp = tempfile::tempdir().unwrap();
        let root = Arc::new(dir::open_root(tmp.path()).unwrap());
        let root_id = ObjectId::of(&stat::of_descriptor(root.as_fd()).unwrap());
        let mut trail = Trail::new(root, 0).unwrap();
        let mut ids = vec![root_id];
        for depth in 1..=2 * OPEN_DIRS_MAX {
            dir::mkdir(trail.fd().unwrap().as_fd(), b"d", 0o755).unwrap();
            let opened = trail.open(b"d").unwrap();
            ids.push(ObjectId::of(&opened.1));
            trail.enter(b"d", opened, depth);
        }
        while trail.depth() > 0 {
            assert_eq!(*trail.here(), trail.depth());
            let here = stat::of_descriptor(trail.fd().unwrap().as_fd()).unwrap();
            assert_eq!(Some(ObjectId::of(&here)), ids.pop());
            trail.leave().unwrap();
        }
        assert!(trail.leave().unwrap().is_none());
        assert_eq!(ids, [root_id]);
    }

    #[test]
    fn a_directory_that_was_moved_meanwhile_is_not_mistaken_for_its_parent() {
        let tmp = tempfile::tempdir().unwrap();
        let root = Arc::new(dir::open_root(tmp.path()).unwrap());
        let mut trail = Trail::new(root.clone(), ()).unwrap();
        for _ in 0..=OPEN_DIRS_MAX + 1 {
            dir::mkdir(trail.fd().unwrap().as_fd(), b"d", 0o755).unwrap();
            let opened = trail.open(b"d").unwrap();
            trail.enter(b"d", opened, ());
        }
        let moved = tmp.path().join("d/d");
        std::fs::rename(moved, tmp.path().join("elsewhere")).unwrap();
        let mut last = Ok(None);
        while trail.depth() > 0 && last.is_ok() {
            last = trail.leave().map(|left| left.map(|_| ()));
        }
        assert_eq!(last.unwrap_err(), Errno::ESTALE);
    }
}
