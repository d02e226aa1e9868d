//! Locks: one file per object, flock(2), given up by the kernel when a process ends.
//!
//! # Order
//! [`Object::Workspace`] → [`Object::Name`] → [`Object::Content`] →
//! [`Object::Staging`]; of one kind by name. Nobody waits for a lock while it
//! holds one that comes later.
//!
//! A lock file may be removed by whoever holds it exclusively; who has opened it
//! meanwhile sees that the name is another file's, or none's, and begins again.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Store;
use super::failure::{Failure, FailureKind, Outcome};
use crate::sys::{Errno, ObjectId, best_effort, dir, file, holder, small, stat};

/// How long a lock is waited for: most are held for an instant.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is asked for meanwhile.
const AGAIN: Duration = Duration::from_millis(5);

/// What can be locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object<'a> {
    /// A workspace, by name.
    Workspace(&'a str),
    /// The name of a layer.
    Name(&'a str),
    /// The content of a layer, by its digits. Shared: it is to stay.
    Content(&'a str),
    /// A folder of `staging/`.
    Staging(&'a str),
}

impl Object<'_> {
    fn file(self) -> String {
        match self {
            Object::Workspace(name) => format!("workspace.{name}"),
            Object::Name(name) => format!("name.{name}"),
            Object::Content(hex) => format!("layer.{hex}"),
            Object::Staging(id) => format!("staging.{id}"),
        }
    }

    fn shown(self) -> String {
        match self {
            Object::Workspace(name) => format!("the workspace {name}"),
            Object::Name(name) => format!("the layer {name}"),
            Object::Content(hex) => format!("the layer sha256:{hex}"),
            Object::Staging(id) => format!("staging/{id}"),
        }
    }
}

/// With whom a lock is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// With others who only need it to stay as it is.
    Shared,
    /// With nobody.
    Alone,
}

/// A lock; given up when dropped.
#[derive(Debug)]
pub struct Lock {
    locks: Arc<OwnedFd>,
    file: String,
    _fd: OwnedFd,
}

impl Lock {
    /// Removes the lock's file too: the object is gone. For locks held alone.
    pub fn retire(self) {
        let gone = dir::unlink(self.locks.as_fd(), self.file.as_bytes());
        best_effort("remove a lock's file", gone);
    }
}

impl Store {
    /// Takes a lock, waiting a while for others.
    ///
    /// # Errors
    /// [`FailureKind::InUse`] where it stays taken.
    pub fn lock(&self, what: Object<'_>, hold: Hold) -> Outcome<Lock> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(lock) = self.try_lock(what, hold)? {
                return Ok(lock);
            }
            if Instant::now() > until {
                return Err(self.in_use(what));
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Takes a lock at once, or not.
    pub fn try_lock(&self, what: Object<'_>, hold: Hold) -> Outcome<Option<Lock>> {
        let file = what.file();
        let failed = |e| Failure::system(&self.path().join("locks").join(&file), "be locked", e);
        loop {
            let fd = small::open_to_lock(self.locks.as_fd(), file.as_bytes()).map_err(failed)?;
            let taken = match hold {
                Hold::Shared => file::try_lock_shared(fd.as_fd()),
                Hold::Alone => file::try_lock(fd.as_fd()),
            };
            match taken {
                Err(Errno::EBUSY) => return Ok(None),
                r => r.map_err(failed)?,
            }
            let held = ObjectId::of(&stat::of_descriptor(fd.as_fd()).map_err(failed)?);
            let named = dir::probe(self.locks.as_fd(), file.as_bytes()).map_err(failed)?;
            if named.is_some_and(|s| ObjectId::of(&s) == held) {
                return Ok(Some(Lock {
                    locks: self.locks.clone(),
                    file,
                    _fd: fd,
                }));
            }
        }
    }

    fn in_use(&self, what: Object<'_>) -> Failure {
        let found = dir::probe(self.locks.as_fd(), what.file().as_bytes());
        let holder = found
            .ok()
            .flatten()
            .and_then(|s| holder::of_lock(s.dev, s.ino));
        let who = holder.map_or_else(String::new, |pid| format!(" by process {pid}"));
        Failure::new(
            FailureKind::InUse,
            format!("{} is being worked on{who}", what.shown()),
            "try again when that is done",
        )
    }
}
