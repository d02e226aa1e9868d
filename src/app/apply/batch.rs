//! What was made beside its place and waits to be put there: written to disk many at a
//! time. A journal that is written once takes all of them along; one file after the
//! other it would be written for each.
//!
//! # Crash
//! Nothing has its place before it is on disk. What waits stands in the folders beside
//! the places, of which there are at most [`MOST_FOLDERS`].

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use super::select::Path;
use crate::sys::dir::{self, Rename};
use crate::sys::{Errno, Kind, Name, Result, Stat, file, tree};

/// Most files that wait to be written to disk: each is open.
const MOST_FILES: usize = 128;
/// Most bytes of them.
const MOST_BYTES: u64 = 64 << 20;
/// So many files are worth threads,
const MANY: usize = 24;
/// and so many of them.
const THREADS: usize = 8;
/// Most folders there are at a time.
const MOST_FOLDERS: usize = 32;

/// What is on its way out is called this in its folder.
const OLD: &[u8] = b"old";

/// What failed, and where.
pub(super) type Failed = (Path, Errno);

/// The folder beside the places of one directory.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) parent: Arc<OwnedFd>,
    pub(super) fd: Arc<OwnedFd>,
}

/// An object that is complete but for its place.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) beside: Rc<Beside>,
    /// What it is called in the folder.
    pub(super) made: Name,
    /// What it is to be called.
    pub(super) name: Name,
    /// Where, for an error.
    pub(super) path: Path,
    /// How the upper has it.
    pub(super) wanted: Option<Stat>,
}

/// Files that are not known to be on disk.
#[derive(Debug, Default)]
struct Unsynced {
    files: Vec<(Path, OwnedFd)>,
    bytes: u64,
}

/// All that waits.
#[derive(Debug, Default)]
pub(super) struct Batch {
    unsynced: Unsynced,
    waiting: Vec<Waiting>,
    /// By the path of their directory; that of the current one is the last.
    folders: Vec<(Path, Rc<Beside>)>,
    /// For names in the folders.
    made: u64,
}

impl Batch {
    /// Whether it is time to put all in its place.
    pub(super) fn is_full(&self) -> bool {
        self.unsynced.is_full()
            || self.waiting.len() >= MOST_FILES
            || self.folders.len() >= MOST_FOLDERS
    }

    /// Whether something has no place yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The folder of a directory, where it has been made.
    pub(super) fn folder(&self, directory: &[Name]) -> Option<Rc<Beside>> {
        let (path, beside) = self.folders.last()?;
        (path == directory).then(|| beside.clone())
    }

    /// Remembers the folder of the directory that is being worked on.
    pub(super) fn keep_folder(&mut self, directory: &[Name], beside: &Rc<Beside>) {
        self.folders.push((directory.to_vec(), beside.clone()));
    }

    /// The folders, which are to be removed.
    pub(super) fn take_folders(&mut self) -> Vec<(Path, Rc<Beside>)> {
        std::mem::take(&mut self.folders)
    }

    /// A name that is free in every folder.
    pub(super) fn new_name(&mut self) -> Name {
        self.made = self.made.wrapping_add(1);
        Name::from(format!("new-{}", self.made).into_bytes())
    }

    /// A file is to be on disk before it, or what it is in, gets its place.
    pub(super) fn sync_later(&mut self, path: &[Name], file: OwnedFd, size: u64) {
        self.unsynced.files.push((path.to_vec(), file));
        self.unsynced.bytes = self.unsynced.bytes.saturating_add(size);
    }

    /// Writes files to disk where too many wait for it: those in a directory that is
    /// being made, which has no place for long.
    pub(super) fn sync_if_full(&mut self) -> Result<()> {
        match self.unsynced.is_full() {
            true => self.unsynced.sync().map_err(|(_, e)| e),
            false => Ok(()),
        }
    }

    /// An object is to get its place.
    pub(super) fn place_later(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    /// What waits, all of it on disk, in the order in which it came.
    pub(super) fn take_synced(&mut self) -> std::result::Result<Vec<Waiting>, Failed> {
        self.unsynced.sync()?;
        Ok(std::mem::take(&mut self.waiting))
    }
}

impl Unsynced {
    fn is_full(&self) -> bool {
        self.files.len() >= MOST_FILES || self.bytes >= MOST_BYTES
    }

    /// All are begun before the first is waited for; many are waited for by several
    /// threads, whose waits the disk ends together.
    fn sync(&mut self) -> std::result::Result<(), Failed> {
        for (_, fd) in &self.files {
            file::begin_to_write(fd.as_fd());
        }
        self.bytes = 0;
        let files = std::mem::take(&mut self.files);
        if files.len() < MANY {
            return sync_each(&files);
        }
        std::thread::scope(|scope| {
            let begin = |part| {
                let thread = std::thread::Builder::new().name("acetate-sync".to_owned());
                (part, thread.spawn_scoped(scope, move || sync_each(part)))
            };
            let share = files.len().div_ceil(THREADS);
            let threads: Vec<_> = files.chunks(share).map(begin).collect();
            let ended = threads.into_iter().map(|(part, thread)| match thread {
                // A panic is told by its hook.
                Ok(thread) => thread.join().unwrap_or(Err((Path::new(), Errno::EIO))),
                // No more threads can be had.
                Err(_) => sync_each(part),
            });
            ended.fold(Ok(()), std::result::Result::and)
        })
    }
}

fn sync_each(files: &[(Path, OwnedFd)]) -> std::result::Result<(), Failed> {
    files
        .iter()
        .try_for_each(|(path, fd)| file::sync(fd.as_fd(), false).map_err(|e| (path.clone(), e)))
}

impl Beside {
    /// Renames what was made into its place.
    pub(super) fn give_place(
        &self,
        made: &[u8],
        name: &Name,
        is_there: Option<Kind>,
    ) -> Result<()> {
        let (new, place) = ((self.fd.as_fd(), made), (self.parent.as_fd(), &name[..]));
        let new_is_dir = dir::probe(self.fd.as_fd(), made)?.ok_or(Errno::EIO)?.kind() == Kind::Dir;
        let simple = match is_there {
            None => Some(Rename::NoReplace),
            Some(kind) if kind != Kind::Dir && !new_is_dir => Some(Rename::Replace),
            // One of them is a directory: neither replaces the other at once.
            Some(_) => None,
        };
        if let Some(how) = simple {
            return dir::rename(new, place, how);
        }
        match dir::rename(new, place, Rename::Exchange) {
            Ok(()) => return tree::remove(&self.fd, made),
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
        // A file system without: for a moment there is nothing.
        dir::rename(place, (self.fd.as_fd(), OLD), Rename::NoReplace)?;
        dir::rename(new, place, Rename::NoReplace)?;
        tree::remove(&self.fd, OLD)
    }

    /// Takes a directory away: its name at once.
    pub(super) fn away(&self, name: &Name) -> Result<()> {
        let place = (self.parent.as_fd(), &name[..]);
        dir::rename(place, (self.fd.as_fd(), OLD), Rename::NoReplace)?;
        tree::remove(&self.fd, OLD)
    }
}
