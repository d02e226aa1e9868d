//! Bringing a directory up to date: each object is made in a folder beside its
//! place, written to disk with others (`batch.rs`), and renamed into it.
//!
//! The directory is live and may be hostile: it is gone through by descriptor, one
//! component at a time, no symlink followed and no mount entered. A name that has
//! become something else meanwhile ends it with an error.
//!
//! # Crash
//! Each name is as before or as after; in some directories the folder
//! `.acetate-apply.WORKSPACE` is left, which the next round removes: it goes through all
//! of them. All of it may be done again. The directories that names were changed in are
//! written to disk when all is done, with the whole file system: until then the upper
//! says what there is to do.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::Dare;
use super::batch::{Batch, Beside, Failed, Waiting};
use super::changes::{self, Act, Entry};
use super::conflict::{is_after, is_same};
use super::look::{Ownership, Wanted};
use super::select::{Path, Place, Selection};
use crate::app::copy::{self, Data, Look, Owners};
use crate::layer::Layer;
use crate::store::record::{Moment, WorkspaceRecord};
use crate::sys::dir::{self, Cross};
use crate::sys::{
    Errno, Kind, Name, ObjectId, Result, Spot, Stat, best_effort, process, stat, tree,
};

/// All that is to be done.
pub(super) struct Carrying<'a> {
    upper: &'a Layer,
    target: &'a Arc<OwnedFd>,
    selection: &'a Selection,
    later: HashSet<&'a Path>,
    ownership: Ownership,
    /// What was written to later than this, and is not what it is to be, is somebody
    /// else's work of this very moment. None: it is overwritten.
    since: Option<Moment>,
    folder: Name,
    /// Files with several names, and where the first of them is now.
    placed: HashMap<ObjectId, Placed>,
    /// What has no place yet.
    batch: Batch,
    /// Merged directories, each before those in it.
    merged: Vec<Path>,
}

struct Placed {
    path: Path,
    id: ObjectId,
}

/// A directory that is being made in its folder, to replace the one at a path.
struct Growing<'a> {
    path: &'a [Name],
    root: Arc<OwnedFd>,
}

impl<'a> Carrying<'a> {
    pub(super) fn new(
        upper: &'a Layer,
        target: &'a Arc<OwnedFd>,
        selection: &'a Selection,
        later: &'a [Path],
        record: &WorkspaceRecord,
        dare: Dare,
    ) -> Self {
        Carrying {
            upper,
            target,
            selection,
            later: later.iter().collect(),
            ownership: Ownership::of(record),
            since: match dare {
                Dare::Alone => record.since,
                Dare::OverOthers => None,
            },
            folder: Name::from(format!(".acetate-apply.{}", record.name).into_bytes()),
            placed: HashMap::new(),
            batch: Batch::default(),
            merged: Vec::new(),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// What failed, and where.
    pub(super) fn run(mut self) -> std::result::Result<(), Failed> {
        let done = self.all();
        if done.is_err() {
            // What has no place yet will be made again.
            for (_, beside) in self.batch.take_folders() {
                best_effort("remove a folder", self.remove_folder(&beside.parent));
            }
        }
        done
    }

    fn all(&mut self) -> std::result::Result<(), Failed> {
        let mut waiting = vec![Path::new()];
        while let Some(path) = waiting.pop() {
            self.directory(&path, &mut waiting)?;
            self.merged.push(path);
        }
        self.end_batch()?;
        // From below, as each change moves the times of the directory above.
        while let Some(path) = self.merged.pop() {
            self.dress(&path).map_err(|e| (path.clone(), e))?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        path: &Path,
        waiting: &mut Vec<Path>,
    ) -> std::result::Result<(), Failed> {
        let here = |e| (path.clone(), e);
        let at = changes::below(&self.upper.root, path).map_err(here)?;
        let target = changes::below(self.target, path).map_err(here)?;
        self.remove_folder(&target).map_err(here)?;
        for entry in changes::entries(self.upper, &at).map_err(here)? {
            let of_entry: Path = path.iter().chain([&entry.name]).cloned().collect();
            match (self.selection.place(&of_entry), entry.act) {
                (Place::Outside, _) => continue,
                (Place::Above, act) if act != Act::Merge => continue,
                _ => {}
            }
            if self.leans_on_what_waits(&entry) {
                self.place_all()?;
            }
            let done = self.one(&at, &target, &of_entry, &entry);
            done.map_err(|e| (of_entry.clone(), e))?;
            if self.batch.is_full() {
                self.end_batch()?;
            }
            if entry.act == Act::Merge {
                waiting.push(of_entry);
            }
        }
        Ok(())
    }

    /// Whether another name of what is to be made may have no place yet.
    fn leans_on_what_waits(&self, entry: &Entry) -> bool {
        let seen = match entry.act {
            Act::Put => {
                let twin = entry.stat.filter(|s| s.nlink > 1);
                twin.is_some_and(|s| self.placed.contains_key(&ObjectId::of(&s)))
            }
            // What is in it is not known here.
            Act::Replace => !self.placed.is_empty(),
            Act::Delete | Act::Merge => false,
        };
        seen && self.batch.is_waiting()
    }

    /// Gives all that waits its place.
    fn place_all(&mut self) -> std::result::Result<(), Failed> {
        for waiting in self.batch.take_synced()? {
            let placed = self.place(&waiting);
            placed.map_err(|e| (waiting.path, e))?;
        }
        Ok(())
    }

    fn place(&self, waiting: &Waiting) -> Result<()> {
        let (parent, name) = (waiting.beside.parent.as_fd(), &waiting.name);
        let found = dir::probe(parent, name)?;
        // Looked at once more: it may have waited for long.
        if found.is_some_and(|found| self.is_somebody_elses(&found, waiting.wanted)) {
            return Err(Errno::EBUSY);
        }
        let is_there = found.map(|s| s.kind());
        waiting.beside.give_place(&waiting.made, name, is_there)
    }

    /// The same, and nothing is left beside any place.
    fn end_batch(&mut self) -> std::result::Result<(), Failed> {
        self.place_all()?;
        for (path, beside) in self.batch.take_folders() {
            let removed = self.remove_folder(&beside.parent);
            removed.map_err(|e| (path, e))?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        at: &Arc<OwnedFd>,
        target: &Arc<OwnedFd>,
        path: &Path,
        entry: &Entry,
    ) -> Result<()> {
        let found = dir::probe(target.as_fd(), &entry.name)?;
        let is_there = found.map(|s| s.kind());
        if found.is_some_and(|found| self.is_somebody_elses(&found, entry.stat)) {
            return Err(Errno::EBUSY);
        }
        match (entry.act, is_there) {
            (Act::Delete, None) | (Act::Merge, Some(Kind::Dir)) => return Ok(()),
            (Act::Delete, Some(kind)) if kind != Kind::Dir => {
                return match dir::unlink(target.as_fd(), &entry.name) {
                    Err(Errno::ENOENT) => Ok(()),
                    r => r,
                };
            }
            _ => {}
        }
        let beside = self.folder_beside(target, path)?;
        let made = self.batch.new_name();
        match entry.act {
            Act::Delete => return beside.away(&entry.name),
            Act::Merge => {
                dir::mkdir(beside.fd.as_fd(), &made, 0o700)?;
                let new = Spot::at(beside.fd.clone(), made.clone());
                let from = Spot::at(at.clone(), entry.name.clone());
                Wanted::read(&from, self.ownership)?.put_on(&new)?;
                // At once: what is to be in it comes next.
                return beside.give_place(&made, &entry.name, is_there);
            }
            Act::Put => {
                let stat = entry.stat.ok_or(Errno::EIO)?;
                let from = Spot::at(at.clone(), entry.name.clone());
                self.make(&from, &stat, &beside.fd, &made, path, None)?;
            }
            Act::Replace => {
                let from = changes::below(at, std::slice::from_ref(&entry.name))?;
                dir::mkdir(beside.fd.as_fd(), &made, 0o700)?;
                self.grow(&from, &open(&beside.fd, &made)?, path)?;
            }
        }
        self.batch.place_later(Waiting {
            beside,
            made,
            name: entry.name.clone(),
            path: path.clone(),
            wanted: entry.stat,
        });
        Ok(())
    }

    /// The folder of the directory that an object is in.
    fn folder_beside(&mut self, target: &Arc<OwnedFd>, path: &[Name]) -> Result<Rc<Beside>> {
        let above = path.split_last().map_or(path, |(_, above)| above);
        if let Some(beside) = self.batch.folder(above) {
            return Ok(beside);
        }
        let beside = Rc::new(self.make_folder(target)?);
        self.batch.keep_folder(above, &beside);
        Ok(beside)
    }

    /// Whether a file was changed after the conflicts were looked for. Its ctime alone
    /// does not say so: it moves when we take another name of the file away.
    fn is_somebody_elses(&self, found: &Stat, wanted: Option<Stat>) -> bool {
        let later = |since| is_after(found.mtime, since) && is_after(found.ctime, since);
        let same = wanted.is_some_and(|wanted| is_same(&wanted, found));
        found.kind() != Kind::Dir && !same && self.since.is_some_and(later)
    }

    /// Makes an object that is no directory, and sees to it that it comes to disk before
    /// anything that waits gets its place.
    fn make(
        &mut self,
        from: &Spot,
        stat: &Stat,
        to: &Arc<OwnedFd>,
        name: &Name,
        path: &Path,
        growing: Option<&Growing<'_>>,
    ) -> Result<()> {
        let id = ObjectId::of(stat);
        if stat.nlink > 1 && self.link(&id, to, name, growing)? {
            return Ok(());
        }
        // Bare first: owner, mode and so on are put on by what follows.
        let bare = Look {
            stat: Stat {
                mode: stat.kind().mode_bits() | 0o600,
                size: stat.size,
                rdev: stat.rdev,
                ..Spot::fd(to.clone()).stat()?
            },
            xattrs: Vec::new(),
        };
        copy::make(&bare, from, Data::Own, to, name, Owners::Real)?;
        let made = Spot::at(to.clone(), name.clone());
        Wanted::read(from, self.ownership)?.put_on(&made)?;
        if stat.kind() == Kind::File {
            let file = made.open(OFlags::RDONLY | OFlags::NONBLOCK)?;
            self.batch.sync_later(path, file, stat.size);
            if growing.is_some() {
                self.batch.sync_if_full()?;
            }
        }
        if stat.nlink > 1 {
            let placed = Placed {
                path: path.clone(),
                id: ObjectId::of(&made.stat()?),
            };
            self.placed.insert(id, placed);
        }
        Ok(())
    }

    /// Gives a file that was made before another name; false where there is none, or
    /// where somebody has put something else there.
    fn link(
        &self,
        id: &ObjectId,
        to: &Arc<OwnedFd>,
        name: &Name,
        growing: Option<&Growing<'_>>,
    ) -> Result<bool> {
        let Some(placed) = self.placed.get(id) else {
            return Ok(false);
        };
        let Some((last, above)) = placed.path.split_last() else {
            return Ok(false);
        };
        let parent = match growing {
            Some(g) if above.starts_with(g.path) => {
                let rest = above.get(g.path.len()..).unwrap_or_default();
                changes::below(&g.root, rest)?
            }
            _ => changes::below(self.target, above)?,
        };
        let found = dir::probe(parent.as_fd(), last)?;
        if found.is_none_or(|s| ObjectId::of(&s) != placed.id) {
            return Ok(false);
        }
        dir::link((parent.as_fd(), last), (to.as_fd(), name))?;
        let linked = dir::probe(to.as_fd(), name)?;
        if linked.is_some_and(|s| ObjectId::of(&s) == placed.id) {
            return Ok(true);
        }
        dir::unlink(to.as_fd(), name)?;
        Ok(false)
    }

    /// Fills a directory with all that one of the upper's shows; `path`: where it will be.
    fn grow(&mut self, from: &Arc<OwnedFd>, to: &Arc<OwnedFd>, path: &Path) -> Result<()> {
        let growing = Growing {
            path,
            root: to.clone(),
        };
        let mut waiting = vec![Path::new()];
        let mut made: Vec<Path> = Vec::new();
        while let Some(way) = waiting.pop() {
            let (at, to) = (changes::below(from, &way)?, changes::below(to, &way)?);
            for entry in changes::entries(self.upper, &at)? {
                let below: Path = way.iter().chain([&entry.name]).cloned().collect();
                let spot = Spot::at(at.clone(), entry.name.clone());
                match (entry.act, entry.stat) {
                    // Nothing lies below what replaces all.
                    (Act::Delete, _) | (_, None) => {}
                    (Act::Merge | Act::Replace, _) => {
                        dir::mkdir(to.as_fd(), &entry.name, 0o700)?;
                        waiting.push(below);
                    }
                    (Act::Put, Some(stat)) => {
                        let full: Path = path.iter().chain(&below).cloned().collect();
                        self.make(&spot, &stat, &to, &entry.name, &full, Some(&growing))?;
                    }
                }
            }
            made.push(way);
        }
        while let Some(way) = made.pop() {
            let (at, to) = (changes::below(from, &way)?, changes::below(to, &way)?);
            Wanted::read(&Spot::fd(at), self.ownership)?.put_on(&Spot::fd(to.clone()))?;
            dir::fsync_dir(to.as_fd())?;
        }
        Ok(())
    }

    /// Gives a merged directory its own look, at last.
    fn dress(&self, path: &Path) -> Result<()> {
        let wanted = Spot::fd(changes::below(&self.upper.root, path)?);
        let target = Spot::fd(changes::below(self.target, path)?);
        let wanted = Wanted::read(&wanted, self.ownership)?;
        // What lies on the way to what was chosen is not chosen itself.
        let chosen = self.selection.place(path) == Place::Within;
        if chosen && !wanted.is_on(&target)? {
            wanted.put_on(&target)?;
        }
        match self.later.contains(path) || !chosen {
            true => Ok(()),
            false => wanted.put_times_on(&target),
        }
    }

    fn make_folder(&self, parent: &Arc<OwnedFd>) -> Result<Beside> {
        dir::mkdir(parent.as_fd(), &self.folder, 0o700)?;
        let fd = open(parent, &self.folder)?;
        let found = stat::of_descriptor(fd.as_fd())?;
        // Somebody who may write here might have put another one in its place.
        if found.uid != process::effective_ids().0 || found.mode & 0o077 != 0 {
            return Err(Errno::ESTALE);
        }
        super::look::without_default_acl(&Spot::fd(fd.clone()))?;
        Ok(Beside {
            parent: parent.clone(),
            fd,
        })
    }

    fn remove_folder(&self, parent: &Arc<OwnedFd>) -> Result<()> {
        if dir::probe(parent.as_fd(), &self.folder)?.is_none() {
            return Ok(());
        }
        match dir::unlink(parent.as_fd(), &self.folder) {
            Err(Errno::EISDIR | Errno::EPERM) => {}
            r => return r,
        }
        let fd = open(parent, &self.folder)?;
        let mut names = Vec::new();
        dir::list(fd.as_fd(), |e| names.push(e.name))?;
        for name in names {
            tree::remove(&fd, &name)?;
        }
        dir::rmdir(parent.as_fd(), &self.folder)
    }
}

fn open(parent: &Arc<OwnedFd>, name: &[u8]) -> Result<Arc<OwnedFd>> {
    dir::open_dir_at(parent.as_fd(), name, Cross::Refuse).map(Arc::new)
}
