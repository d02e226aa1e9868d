//! What an upper that stands alone says is to be done in a directory.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::select::Path;
use crate::layer::mark::{self, Marks, OPAQUE_FILES, Opaque};
use crate::layer::{Layer, Probe};
use crate::sys::dir::{self, Cross};
use crate::sys::tree::{self, Enter, Visitor};
use crate::sys::{Errno, Kind, Name, Result, Spot, Stat};

/// What is to be done about one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Whatever is there goes.
    Delete,
    /// This object, no directory, takes its place.
    Put,
    /// This directory takes its place, with all that is in it and nothing else.
    Replace,
    /// A directory, of which some names are to be changed.
    Merge,
}

/// One name in a directory of the upper.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) act: Act,
    /// Attributes, but of a deletion.
    pub(super) stat: Option<Stat>,
}

/// The directory at a path below a root, no symlink followed, no mount entered.
pub(super) fn below(root: &Arc<OwnedFd>, path: &[Name]) -> Result<Arc<OwnedFd>> {
    let mut at = root.clone();
    for name in path {
        at = match dir::open_dir_at(at.as_fd(), name, Cross::Refuse) {
            Err(Errno::ELOOP) => return Err(Errno::ENOTDIR),
            r => Arc::new(r?),
        };
    }
    Ok(at)
}

/// What the upper says of the names in one of its directories, in their order.
pub(super) fn entries(upper: &Layer, at: &Arc<OwnedFd>) -> Result<Vec<Entry>> {
    let mut names = BTreeSet::new();
    dir::list(at.as_fd(), |e| {
        let name = match e.name.strip_prefix(mark::DOT_WH) {
            Some(_) if OPAQUE_FILES.contains(&&e.name[..]) => return,
            Some(hidden) => hidden,
            None => &e.name[..],
        };
        // A mark for `.` or `..` says nothing.
        if crate::sys::valid_name(name).is_ok() {
            names.insert(Name::from(name));
        }
    })?;
    let marks = Marks::read(&Spot::fd(at.clone()))?;
    let by_xattr = marks.opaque == Opaque::MayHoldXattrWhiteouts;
    let mut found = Vec::new();
    for name in names {
        let (act, stat) = match upper.probe(at, &name, true, by_xattr)? {
            Probe::Absent => continue,
            Probe::Whiteout => (Act::Delete, None),
            Probe::Object(object) => {
                let marks = &object.marks;
                if marks.redirect.is_some() || marks.bad_redirect || marks.metacopy {
                    // It was made to stand alone.
                    return Err(Errno::ESTALE);
                }
                let act = match (object.stat.kind(), marks.opaque) {
                    (Kind::Dir, Opaque::Yes) => Act::Replace,
                    (Kind::Dir, _) => Act::Merge,
                    _ => Act::Put,
                };
                (act, Some(object.stat))
            }
        };
        found.push(Entry { name, act, stat });
    }
    Ok(found)
}

/// What the upper says of one name.
pub(super) fn entry(upper: &Layer, at: &Arc<OwnedFd>, name: &Name) -> Result<Option<Entry>> {
    Ok(entries(upper, at)?.into_iter().find(|e| e.name == *name))
}

/// Paths of objects that were copied up from a lower: it had them.
pub(super) type CopiedUp = HashSet<Path>;

/// Finds them. Asked before the upper is made to stand alone, which forgets it.
pub(super) fn copied_up(upper: &Layer) -> Result<CopiedUp> {
    let mut finding = Finding {
        path: Vec::new(),
        found: HashSet::new(),
    };
    tree::walk(&upper.root, &mut finding)?;
    Ok(finding.found)
}

struct Finding {
    path: Path,
    found: CopiedUp,
}

impl Visitor for Finding {
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: &Name, _kind: Kind) -> Result<Enter> {
        let marks = Marks::read(&Spot::at(dir.clone(), name.clone()))?;
        if marks.redirect.is_some() || marks.bad_redirect {
            // It was moved here: below, nothing had these names.
            return Ok(Enter::No);
        }
        if marks.origin.is_some() {
            self.found
                .insert(self.path.iter().chain([name]).cloned().collect());
        }
        Ok(Enter::Yes)
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
