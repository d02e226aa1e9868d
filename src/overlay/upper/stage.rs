//! An object without a final name: complete before anyone sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Upper;
use crate::sys::dir::{self, Rename};
use crate::sys::{Errno, Kind, Name, Result, Spot, best_effort};

/// What to stage.
#[derive(Debug, Clone, Copy)]
pub struct Blank<'a> {
    /// The type as the merged view has it.
    pub kind: Kind,
    /// A symlink's target.
    pub target: &'a [u8],
    /// A device's numbers.
    pub rdev: (u32, u32),
}

/// An object in the work directory; dropped, it is removed.
#[derive(Debug)]
pub struct Staged<'a> {
    upper: &'a Upper,
    /// `None` for an O_TMPFILE file.
    temp: Option<Name>,
    /// Open, for a regular file.
    file: Option<Arc<OwnedFd>>,
}

impl Upper {
    /// A fresh name for the work directory.
    pub fn temp_name(&self) -> Name {
        let n = self.counter.fetch_add(1, Ordering::Relaxed);
        Name::from(format!("#{n:x}").into_bytes())
    }

    /// Stages an object; owner, mode, xattrs and data come later.
    pub fn stage(&self, blank: Blank<'_>) -> Result<Staged<'_>> {
        self.as_self()?;
        let work = self.work.as_fd();
        // A disguised device, FIFO or socket is a plain file on disk.
        let plain = self.disguise.is_some() && !matches!(blank.kind, Kind::Dir | Kind::Symlink);
        let kind = if plain { Kind::File } else { blank.kind };
        if kind == Kind::File && self.unnamed_files {
            let fd = Arc::new(dir::create_unnamed(work, 0o600)?);
            return Ok(Staged {
                upper: self,
                temp: None,
                file: Some(fd),
            });
        }
        loop {
            let name = self.temp_name();
            let mut file = None;
            let made = match kind {
                Kind::File => dir::create_file(work, &name, 0o600).map(|f| {
                    file = Some(Arc::new(f));
                }),
                Kind::Dir => dir::mkdir(work, &name, 0o700),
                Kind::Symlink => dir::symlink(blank.target, work, &name),
                k => dir::mknod(work, &name, k.mode_bits() | 0o600, blank.rdev),
            };
            match made {
                Err(Errno::EEXIST) => {}
                Err(e) => return Err(e),
                Ok(()) => {
                    return Ok(Staged {
                        upper: self,
                        temp: Some(name),
                        file,
                    });
                }
            }
        }
    }
}

impl Staged<'_> {
    /// Where it stands for now.
    pub fn spot(&self) -> Spot {
        match (&self.temp, &self.file) {
            (_, Some(f)) => Spot::fd(f.clone()),
            (Some(n), None) => Spot::at(self.upper.work.clone(), n.clone()),
            // Not constructed: a staged object has one or the other.
            (None, None) => Spot::fd(self.upper.work.clone()),
        }
    }

    /// The open file, for a regular one.
    pub fn file(&self) -> Option<&Arc<OwnedFd>> {
        self.file.as_ref()
    }

    /// Gives it `name` in `to`, which must be free.
    pub fn publish(mut self, to: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Arc<OwnedFd>>> {
        self.give_name(to, name)?;
        Ok(self.file.take())
    }

    fn give_name(&mut self, to: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        match (&self.temp, &self.file) {
            (None, Some(f)) => dir::link_fd(f.as_fd(), (to, name)),
            (Some(t), _) => {
                let work = self.upper.work.as_fd();
                match dir::rename((work, t), (to, name), Rename::NoReplace) {
                    // A file system without RENAME_NOREPLACE: the name was
                    // checked to be free under the directory's lock.
                    Err(Errno::EINVAL | Errno::ENOSYS) => {
                        if dir::probe(to, name)?.is_some() {
                            return Err(Errno::EEXIST);
                        }
                        dir::rename((work, t), (to, name), Rename::Replace)?;
                    }
                    r => r?,
                }
                self.temp = None;
                Ok(())
            }
            (None, None) => Err(Errno::EIO),
        }
    }

    /// Gives it one more name and keeps it staged (hard links into the index).
    pub fn link_also(&self, to: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        match (&self.temp, &self.file) {
            (_, Some(f)) => dir::link_fd(f.as_fd(), (to, name)),
            (Some(t), None) => dir::link((self.upper.work.as_fd(), t), (to, name)),
            (None, None) => Err(Errno::EIO),
        }
    }

    /// Takes the place of a whiteout (or of an old file) at `name`.
    pub fn publish_over(
        mut self,
        to: BorrowedFd<'_>,
        name: &[u8],
        is_dir: bool,
    ) -> Result<Option<Arc<OwnedFd>>> {
        let work = self.upper.work.as_fd();
        let temp = match &self.temp {
            Some(t) => t.clone(),
            None => {
                let t = self.upper.temp_name();
                self.link_also(work, &t)?;
                self.temp = Some(t.clone());
                t
            }
        };
        if is_dir {
            self.upper.swap(&temp, to, name)?;
            // The whiteout now stands in the work directory; drop removes it.
            return Ok(self.file.clone());
        }
        dir::rename((work, &temp), (to, name), Rename::Replace)?;
        self.temp = None;
        Ok(self.file.take())
    }

    /// Keeps it without any name: an orphan from birth, by a descriptor (O_PATH
    /// for anything but a regular file).
    pub fn keep_unnamed(mut self) -> Result<Arc<OwnedFd>> {
        match (self.temp.take(), self.file.take()) {
            (None, Some(f)) => Ok(f),
            (Some(t), Some(f)) => {
                best_effort(
                    "unlink a staged orphan",
                    dir::unlink(self.upper.work.as_fd(), &t),
                );
                Ok(f)
            }
            (Some(t), None) => {
                let spot = Spot::at(self.upper.work.clone(), t.clone());
                let fd = spot.open(rustix::fs::OFlags::PATH)?;
                best_effort("unlink a staged orphan", self.upper.clear_temp(&t));
                Ok(Arc::new(fd))
            }
            (None, None) => Err(Errno::EIO),
        }
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(t) = self.temp.take() {
            best_effort("remove a staged object", self.upper.clear_temp(&t));
        }
    }
}
