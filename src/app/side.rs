//! What stands beside the trees of layers: owners of symlinks, numbers of devices that
//! could not be made. A mount is given them and shows them; views that are read in this
//! process show what is on disk, and who reads one can ask here.

use crate::archive::{SideRecord, SideRecords};
use crate::layer::disguise::Disguise;
use crate::overlay::Entry;
use crate::store::Store;
use crate::store::failure::Outcome;
use crate::store::record::Lower;
use crate::sys::{Errno, Kind, Result};

use super::content;
use super::view::View;

/// The side records of a stack.
#[derive(Debug)]
pub struct Beside {
    /// Of each lower, uppermost first.
    lowers: Vec<SideRecords>,
    /// How many layers of the view lie above the lowers.
    above: usize,
}

impl Beside {
    /// Reads those of a view of these lowers with `above` other layers on it.
    pub fn of(store: &Store, lowers: &[Lower], above: usize) -> Outcome<Beside> {
        let read = |lower: &Lower| match lower {
            Lower::Layer(layer) => content::side_records(store, &store.content(&layer.diff_id)?),
            Lower::Directory { .. } => Ok(SideRecords::default()),
        };
        let lowers = lowers.iter().map(read).collect::<Outcome<_>>()?;
        Ok(Beside { lowers, above })
    }

    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        self.lowers.iter().all(SideRecords::is_empty)
    }

    /// What an object of the view really is, in the numbers of the layer.
    pub fn get(&self, entry: &Entry) -> Option<Disguise> {
        if entry.node.kind == Kind::Dir || self.is_empty() {
            return None;
        }
        let lowers = entry.node.lowers.read();
        let top = lowers.first()?;
        // Layers of a view are numbered from 1.
        let at = usize::from(top.layer).checked_sub(1 + self.above)?;
        self.lowers
            .get(at)?
            .get(&top.parent.as_ref()?.path_of(&top.name))
    }
}

impl Beside {
    /// Adds what a whole view shows of it: a layer of all of it needs the same records.
    pub fn all(&self, view: &View, records: &mut SideRecords) -> Result<()> {
        let root = view.at(std::iter::empty())?.ok_or(Errno::ENOENT)?;
        let mut waiting = vec![(Vec::new(), root)];
        while let Some((path, dir)) = waiting.pop() {
            for item in view.names(&dir.node)? {
                let Some(entry) = view.child(&dir.node, &item.name)? else {
                    continue;
                };
                let path = [&path[..], &item.name].concat();
                if entry.node.kind == Kind::Dir {
                    waiting.push(([&path[..], b"/"].concat(), entry));
                    continue;
                }
                if let Some(what) = self.get(&entry) {
                    records.insert(SideRecord { path, what });
                }
                view.release(entry);
            }
        }
        Ok(())
    }
}

/// The record that a symlink of a layer needs, where owners are not kept on files: one
/// that is not root's.
pub fn of_symlink(path: Vec<u8>, uid: u32, gid: u32) -> Option<SideRecord> {
    ((uid, gid) != (0, 0)).then_some(SideRecord {
        path,
        what: Disguise {
            uid,
            gid,
            mode: 0o777,
            kind: Some(Kind::Symlink),
            rdev: (0, 0),
        },
    })
}
