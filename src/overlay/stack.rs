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
    /// How many of them can show anything: a marker in the root of one hides those below.
    shown: usize,
}

impl Stack {
    /// These layers, opened.
    pub fn new(upper: Option<Upper>, lowers: Vec<Layer>) -> Stack {
        let hidden_by_upper = upper.as_ref().is_some_and(|u| u.layer.hides_below);
        let lowest = lowers.iter().position(|l| !l.data_only && l.hides_below);
        let shown = match lowest {
            _ if hidden_by_upper => 0,
            Some(at) => at + 1,
            None => lowers.len(),
        };
        Stack {
            upper,
            lowers,
            shown,
        }
    }

    /// The lowers that are merged, wherever a redirect leads: uppermost first.
    pub fn merged(&self) -> impl Iterator<Item = &Layer> {
        self.merged_below(UPPER)
    }

    /// Those of them below this layer.
    pub fn merged_below(&self, id: LayerId) -> impl Iterator<Item = &Layer> {
        let shown = self.lowers.iter().take(self.shown);
        shown.skip(usize::from(id)).filter(|l| !l.data_only)
    }

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
        self.merged_below(id).next().is_some()
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
