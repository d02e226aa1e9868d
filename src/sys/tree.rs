//! Whole trees: removed without recursion, without following a symlink.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::dir::{self, Cross};
use super::{Errno, Kind, Name, ObjectId, Result, Spot};

/// Most directories that wait to be removed at a time.
const MAX_WAITING: usize = 1 << 20;

/// Removes one name and everything below it, never following a symlink and
/// never recursing on the stack.
pub fn remove(parent: &Arc<OwnedFd>, name: &[u8]) -> Result<()> {
    match dir::unlink(parent.as_fd(), name) {
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(Errno::ENOENT) => return Ok(()),
        r => return r,
    }
    // Deep trees: subdirectories are moved up into `parent` before they are
    // emptied, so that no more than one descriptor is open at a time.
    let mut queue: Vec<Name> = vec![Name::from(name)];
    let mut fresh = 0usize;
    while let Some(n) = queue.pop() {
        if queue.len() > MAX_WAITING {
            return Err(Errno::ELOOP);
        }
        empty_one(parent, &n, &mut queue, &mut fresh)?;
        dir::rmdir(parent.as_fd(), &n)?;
    }
    Ok(())
}

fn empty_one(
    parent: &Arc<OwnedFd>,
    name: &Name,
    queue: &mut Vec<Name>,
    fresh: &mut usize,
) -> Result<()> {
    let spot = Spot::at(parent.clone(), name.clone());
    let fd = dir::open_dir_at(parent.as_fd(), name, Cross::Refuse)?;
    let mut entries = Vec::new();
    if let Err(Errno::EACCES) = dir::list(fd.as_fd(), |e| entries.push(e)) {
        spot.chmod(0o700)?;
        dir::list(fd.as_fd(), |e| entries.push(e))?;
    }
    for e in entries {
        let mut unlinked = dir::unlink(fd.as_fd(), &e.name);
        if unlinked == Err(Errno::EACCES) {
            // One's own directory that may not be written to.
            spot.chmod(0o700)?;
            unlinked = dir::unlink(fd.as_fd(), &e.name);
        }
        match unlinked {
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(Errno::ENOENT) => continue,
            r => {
                r?;
                continue;
            }
        }
        match dir::rmdir(fd.as_fd(), &e.name) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            r => {
                r?;
                continue;
            }
        }
        loop {
            *fresh += 1;
            let up = Name::from(format!("#gone-{fresh:x}").into_bytes());
            let how = dir::Rename::NoReplace;
            match dir::rename((fd.as_fd(), &e.name), (parent.as_fd(), &up), how) {
                Err(Errno::EEXIST) => {}
                r => {
                    r?;
                    queue.push(up);
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Most directories of a trail that are held open.
const OPEN: usize = 64;

/// The way from a root down to a directory, of any depth with few descriptors.
#[derive(Debug)]
pub struct Trail {
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    fd: Option<Arc<OwnedFd>>,
    id: ObjectId,
}

impl Trail {
    /// At the root.
    pub fn new(root: &Arc<OwnedFd>) -> Result<Trail> {
        let mut trail = Trail { steps: Vec::new() };
        trail.push(root.clone())?;
        Ok(trail)
    }

    /// The directory that the trail ends at.
    pub fn top(&self) -> Result<&Arc<OwnedFd>> {
        self.steps
            .last()
            .and_then(|s| s.fd.as_ref())
            .ok_or(Errno::EIO)
    }

    /// How far below the root.
    pub fn depth(&self) -> usize {
        self.steps.len().saturating_sub(1)
    }

    /// Goes down.
    pub fn push(&mut self, fd: Arc<OwnedFd>) -> Result<()> {
        let id = ObjectId::of(&super::stat::of_descriptor(fd.as_fd())?);
        self.steps.push(Step { fd: Some(fd), id });
        // The root's own descriptor is the caller's and stays.
        if let Some(far) = self.steps.len().checked_sub(OPEN).filter(|at| *at > 0)
            && let Some(step) = self.steps.get_mut(far)
        {
            step.fd = None;
        }
        Ok(())
    }

    /// Goes up; false at the root.
    ///
    /// # Errors
    /// ESTALE where the directory was moved elsewhere meanwhile.
    pub fn pop(&mut self) -> Result<bool> {
        if self.steps.len() < 2 {
            return Ok(false);
        }
        let left = self.steps.pop().and_then(|s| s.fd).ok_or(Errno::EIO)?;
        let step = self.steps.last_mut().ok_or(Errno::EIO)?;
        if step.fd.is_none() {
            let up = Spot::at(left, Name::from(&b".."[..]))
                .open(rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY)?;
            let found = super::stat::of_descriptor(up.as_fd())?;
            super::stat::expect_object(&found, step.id.dev, step.id.ino)?;
            step.fd = Some(Arc::new(up));
        }
        Ok(true)
    }
}

/// Who is told of everything in a tree.
pub trait Visitor {
    /// Something in `dir`; a directory is told of before what is in it. Whether it
    /// is to be entered.
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: &Name, kind: Kind) -> Result<Enter>;
    /// The directory that was told of as `name` is entered.
    fn enter(&mut self, _name: &Name) -> Result<()> {
        Ok(())
    }
    /// Everything in `dir` was told of; the root comes last.
    fn leave(&mut self, dir: &Arc<OwnedFd>) -> Result<()>;
}

/// What to do with a directory that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enter {
    /// Tell of what is in it.
    Yes,
    /// Go on beside it.
    No,
}

/// Tells of everything below `root`, in the order of names; no mount is entered,
/// no symlink followed.
pub fn walk(root: &Arc<OwnedFd>, visitor: &mut dyn Visitor) -> Result<()> {
    let mut trail = Trail::new(root)?;
    let mut waiting = vec![list_for(trail.top()?, visitor)?];
    loop {
        let Some(names) = waiting.last_mut() else {
            return Ok(());
        };
        if let Some(name) = names.pop() {
            let below = dir::open_dir_at(trail.top()?.as_fd(), &name, Cross::Refuse)?;
            trail.push(Arc::new(below))?;
            visitor.enter(&name)?;
            waiting.push(list_for(trail.top()?, visitor)?);
            continue;
        }
        waiting.pop();
        visitor.leave(trail.top()?)?;
        trail.pop()?;
    }
}

/// Tells of the names in one directory; its subdirectories, last first.
fn list_for(at: &Arc<OwnedFd>, visitor: &mut dyn Visitor) -> Result<Vec<Name>> {
    let mut entries = Vec::new();
    dir::list(at.as_fd(), |e| entries.push(e))?;
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut dirs = Vec::new();
    for entry in entries {
        let name = Name::from(&entry.name[..]);
        let kind = match entry.kind {
            Some(kind) => kind,
            None => Spot::at(at.clone(), name.clone()).stat()?.kind(),
        };
        let enter = visitor.entry(at, &name, kind)?;
        if kind == Kind::Dir && enter == Enter::Yes {
            dirs.push(name);
        }
    }
    dirs.reverse();
    Ok(dirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(usize, usize);

    impl Visitor for Count {
        fn entry(&mut self, _dir: &Arc<OwnedFd>, _name: &Name, _kind: Kind) -> Result<Enter> {
            self.0 += 1;
            Ok(Enter::Yes)
        }
        fn leave(&mut self, _dir: &Arc<OwnedFd>) -> Result<()> {
            self.1 += 1;
            Ok(())
        }
    }

    #[test]
    fn a_tree_deeper_than_the_descriptors_it_may_hold_is_walked_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = Arc::new(dir::open_root(folder.path()).unwrap());
        let mut at = root.clone();
        for _ in 0..3 * OPEN {
            dir::mkdir(at.as_fd(), b"d", 0o700).unwrap();
            dir::mknod(at.as_fd(), b"f", 0o100_600, (0, 0)).unwrap();
            at = Arc::new(dir::open_dir_at(at.as_fd(), b"d", Cross::Refuse).unwrap());
        }
        let mut count = Count(0, 0);
        walk(&root, &mut count).unwrap();
        assert_eq!((count.0, count.1), (6 * OPEN, 3 * OPEN + 1));
        remove(&root, b"d").unwrap();
        assert!(!folder.path().join("d").exists());
    }
}
