//! The layers of a mount and what was asked of it; fixed while it lives.

use std::time::Duration;

use super::inode::identity::Numbers;
use super::options::RedirectDir;
use super::upper::Upper;
use crate::idmap::IdMap;
use crate::layer::{Layer, LayerId, UPPER};
use crate::sys::{Errno, ObjectId, Result};

/// The layers.
#[derive(Debug)]
pub struct Stack {
    /// The writable one.
    pub upper: Option<Upper>,
    /// The others, uppermost first; ids count from 1.
    pub lowers: Vec<Layer>,
}

impl Stack {
    /// The layer with this id.
    pub fn layer(&self, id: LayerId) -> Result<&Layer> {
        if id == UPPER {
            return self.upper.as_ref().map(|u| &u.layer).ok_or(Errno::EIO);
        }
        self.lowers.get(usize::from(id) - 1).ok_or(Errno::EIO)
    }

    /// The upper, for a change.
    ///
    /// # Errors
    /// EROFS without one.
    pub fn writable(&self) -> Result<&Upper> {
        self.upper.as_ref().ok_or(Errno::EROFS)
    }

    /// Whether a merged layer lies below this one.
    pub fn has_below(&self, id: LayerId) -> bool {
        self.lowers
            .iter()
            .skip(usize::from(id))
            .any(|l| !l.data_only)
    }
}

/// What was asked, decided against what this host can do.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Settings {
    pub users: IdMap,
    pub groups: IdMap,
    pub numbers: Numbers,
    pub static_nlink: bool,
    pub acls: bool,
    pub redirect_dir: RedirectDir,
    pub metacopy: bool,
    pub read_only: bool,
    pub timeout: Option<Duration>,
    pub writeback: bool,
    pub xattr_search: bool,
    /// Whether a read-only mount hands the kernel files before they are asked for.
    pub push_ahead: bool,
    /// Whether the kernel may read and write files by itself.
    pub passthrough: bool,
    /// `security.X` is kept as `user.containers.override_security.X` (`xattr_permissions=2`).
    pub disguised_security: bool,
    /// Upper and work, should a lower contain them: shown as empty directories.
    pub traps: Vec<ObjectId>,
    /// Told once at the mount.
    pub warnings: Vec<String>,
}
