//! Objects whose last known name is gone and that somebody may still have open.
//!
//! With zero-message opens the daemon cannot know who has a file open, so an
//! upper object that loses its name is kept until FORGET: by a descriptor while
//! the budget lasts, beyond it under a name in the work directory (which the
//! next mount sweeps).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use dashmap::DashMap;

use super::upper::Upper;
use crate::sys::{Name, Result, Spot, best_effort};

/// How one is kept.
#[derive(Debug)]
enum Kept {
    /// By a descriptor (O_PATH, or open).
    Fd(Arc<OwnedFd>),
    /// Under a name in the work directory.
    Aside(Name),
    /// It is on its way there: at this name, or still where it was.
    Moving(Name),
}

/// All of them.
#[derive(Debug)]
pub struct Orphans {
    kept: DashMap<u64, Kept>,
    descriptors: usize,
}

impl Orphans {
    /// Keeps at most `descriptors` by descriptor.
    pub fn new(descriptors: usize) -> Self {
        Orphans {
            kept: DashMap::new(),
            descriptors,
        }
    }

    /// Whether one more may be kept by a descriptor.
    pub fn has_room(&self) -> bool {
        self.kept.len() < self.descriptors
    }

    /// Keeps one by a descriptor.
    pub fn keep(&self, ino: u64, fd: Arc<OwnedFd>) {
        self.kept.insert(ino, Kept::Fd(fd));
    }

    /// Notes where one will stand, before it is moved: whoever looks for it
    /// meanwhile must find it at the one place or the other.
    pub fn moves_aside(&self, ino: u64, name: Name) {
        self.kept.insert(ino, Kept::Moving(name));
    }

    /// Notes that one stands aside in the work directory.
    pub fn keep_aside(&self, ino: u64, name: Name) {
        self.kept.insert(ino, Kept::Aside(name));
    }

    /// Where one stands, or may stand by now; `None` for a lower object, which stays where it is.
    pub fn spot(&self, upper: Option<&Upper>, ino: u64) -> Option<Spot> {
        match self.kept.get(&ino)?.value() {
            Kept::Fd(fd) => Some(Spot::fd(fd.clone())),
            Kept::Aside(name) | Kept::Moving(name) => {
                Some(Spot::at(upper?.work.clone(), name.clone()))
            }
        }
    }

    /// Whether one's remaining name in the work directory counts as a link.
    pub fn is_aside(&self, ino: u64) -> bool {
        self.kept
            .get(&ino)
            .is_some_and(|k| matches!(k.value(), Kept::Aside(_)))
    }

    /// Whether one is kept, so that its inode number cannot come back.
    pub fn holds(&self, ino: u64) -> bool {
        self.kept.contains_key(&ino)
    }

    /// Lets one go.
    pub fn remove(&self, upper: Option<&Upper>, ino: u64) {
        if let Some((_, Kept::Aside(name) | Kept::Moving(name))) = self.kept.remove(&ino) {
            best_effort("remove an orphan", remove_aside(upper, &name));
        }
    }

    /// Lets all go.
    pub fn clear(&self, upper: Option<&Upper>) {
        let all: Vec<u64> = self.kept.iter().map(|e| *e.key()).collect();
        for ino in all {
            self.remove(upper, ino);
        }
    }
}

fn remove_aside(upper: Option<&Upper>, name: &Name) -> Result<()> {
    match upper {
        Some(u) => u.clear_temp(name),
        None => Ok(()),
    }
}
