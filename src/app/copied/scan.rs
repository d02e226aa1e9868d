//! A copied workspace's tree as it is now: what stands where, and which object it is.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::store::manifest::{Identity, OnDisk};
use crate::sys::tree::{self, Enter, Visitor};
use crate::sys::{Errno, Kind, Name, Result, Stat, stat};

/// An object that was found.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Its attributes.
    pub stat: Stat,
    /// Which one it is.
    pub identity: Identity,
}

impl Found {
    /// What stands under a name; the directory itself where the name is empty.
    pub fn at(dir: &Arc<OwnedFd>, name: &[u8]) -> Result<Found> {
        let (stat, birth) = stat::with_birth(dir.as_fd(), name)?;
        let identity = Identity {
            ino: stat.ino,
            birth,
        };
        Ok(Found { stat, identity })
    }

    /// As a manifest has it.
    pub fn on_disk(&self) -> OnDisk {
        OnDisk {
            identity: self.identity,
            ctime: self.stat.ctime,
            mode: self.stat.mode & 0o7777,
            uid: self.stat.uid,
            gid: self.stat.gid,
        }
    }
}

/// Everything in a tree, the root under the empty path; a directory comes before
/// what is in it, and that comes before anything else.
#[derive(Debug)]
pub struct Scan(pub BTreeMap<Vec<Name>, Found>);

impl Scan {
    /// Looks through a tree, which is called `shown`.
    pub fn of(root: &Arc<OwnedFd>, shown_as: &Path) -> Outcome<Scan> {
        let mut walk = Walk {
            found: BTreeMap::new(),
            path: Vec::new(),
        };
        let walked = Found::at(root, b"").and_then(|found| {
            walk.found.insert(Vec::new(), found);
            tree::walk(root, &mut walk)
        });
        match walked {
            Ok(()) => Ok(Scan(walk.found)),
            Err(Errno::EXDEV) => Err(Failure::new(
                FailureKind::InUse,
                format!(
                    "something is mounted in {}",
                    shown(shown_as, &walk.path).display()
                ),
                "unmount it first",
            )),
            Err(e) => Err(Failure::system(&shown(shown_as, &walk.path), "be read", e)),
        }
    }

    /// Whether nothing was done to a tree between two scans of it.
    pub fn is_like(&self, other: &Scan) -> bool {
        let alike = |a: &Found, b: &Found| a.identity == b.identity && a.stat.ctime == b.stat.ctime;
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&other.0)
                .all(|((p, a), (q, b))| p == q && alike(a, b))
    }
}

struct Walk {
    found: BTreeMap<Vec<Name>, Found>,
    path: Vec<Name>,
}

impl Visitor for Walk {
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: &Name, _kind: Kind) -> Result<Enter> {
        match Found::at(dir, name) {
            Ok(found) => {
                let path = self.path.iter().chain([name]).cloned().collect();
                self.found.insert(path, found);
                Ok(Enter::Yes)
            }
            // Gone since the directory was listed.
            Err(Errno::ENOENT) => Ok(Enter::No),
            Err(e) => Err(e),
        }
    }

    fn enter(&mut self, name: &Name) -> Result<()> {
        self.path.push(name.clone());
        Ok(())
    }

    fn leave(&mut self, _dir: &Arc<OwnedFd>) -> Result<()> {
        self.path.pop();
        Ok(())
    }
}

/// A path as a manifest has it.
pub fn joined(path: &[Name]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.iter().map(|n| &n[..]).collect();
    parts.join(&b'/')
}

/// A manifest's path in its parts.
pub fn parts(path: &[u8]) -> Vec<Name> {
    let parts = path.split(|b| *b == b'/').filter(|c| !c.is_empty());
    parts.map(Name::from).collect()
}

/// A path below the root, for a message.
pub fn shown(root: &Path, path: &[Name]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(&joined(path)))
}
