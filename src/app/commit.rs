//! A workspace's changes become a layer.
//!
//! | workspace | what happens |
//! |---|---|
//! | unmounted, upper stands alone | the upper itself becomes the layer, the workspace gets an empty one upon it |
//! | unmounted, upper leans on lowers (redirects, metacopies, lost link names) | a copy that stands alone becomes the layer, the workspace stays as it is |
//! | a plain copy | what its manifest shows to be other than it was ([`super::copied`]), the workspace stays as it is |
//! | mounted | it is synced, changes are held while the upper is copied, the workspace stays as it is |

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::archive::SideRecords;
use crate::store::Store;
use crate::store::commit::Plan;
use crate::store::failure::{Failure, Outcome};
use crate::store::layers::Added;
use crate::store::layout;
use crate::store::record::{Lower, Parent, WorkspaceKind, WorkspaceRecord};
use crate::sys::dir::{self, Cross};

use super::anchors;
use super::content;
use super::copied;
use super::copy::{self, Marks, Owners};
use super::hold::Held;
use super::layer::{self, Growing, Made, NewLayer, Parents};
use super::live::{self, State};
use super::own_files;
use super::resolve::{self, Source};
use super::side::Beside;
use super::stack;
use super::workspace::{self, Taken};

/// What the layer is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The changes, upon the workspace's layers.
    Changes,
    /// All that the workspace shows, upon nothing.
    Squash,
}

/// Makes the layer.
pub fn commit(store: &Store, name: &str, new: &NewLayer, how: How) -> Outcome<Made> {
    own_files::reach();
    store.check_free(&new.name)?;
    let taken = workspace::take(store, name)?;
    workspace::check_writable(&taken.record)?;
    if taken.record.kind == WorkspaceKind::Copy {
        return copied::layer::commit(store, &taken, new, how);
    }
    let lowers = stack::trees(store, &taken.record.lowers)?;
    let path = store.workspace_path(name).join("upper");
    let upper = store.workspace_folder(name).and_then(|folder| {
        let opened = dir::open_dir_at(folder.as_fd(), layout::UPPER, Cross::Refuse);
        opened
            .map(Arc::new)
            .map_err(|e| Failure::system(&path, "be opened", e))
    })?;
    let owners = stack::owners(store, &taken.record.lowers)?;
    let source = Source {
        upper: &upper,
        index: index_of(store, name),
        path,
        lowers: &lowers,
        owners,
    };
    let (held, quiet) = match live::state(store, &taken.record)? {
        State::Mounted(at) => (Some(Held::take(&at)?), None),
        State::Elsewhere(who) => return Err(workspace::in_use(&taken.record, &who)),
        State::Unmounted(lock) => (None, lock),
    };
    let mut records = SideRecords::default();
    let growing = match how {
        How::Squash => {
            let beside = Beside::of(store, &taken.record.lowers, 1)?;
            squashed(store, &source, &beside, &mut records)?
        }
        How::Changes => {
            let failed = |e| Failure::system(&source.path, "be read", e);
            let survey = resolve::survey(&upper, source.index.as_ref()).map_err(failed)?;
            if held.is_none() && !survey.incomplete {
                if survey.opaque {
                    resolve::drop_idle_marks(&upper, &lowers)?;
                }
                return by_moving(store, &taken, &source, new);
            }
            let growing = Growing::new(store)?;
            let mut links = growing.links()?;
            resolve::copy_alone(&source, &survey, growing.tree(), &mut links)?;
            if survey.opaque || survey.incomplete {
                resolve::drop_idle_marks(growing.tree(), &lowers)?;
            }
            growing
        }
    };
    if let Some(held) = held {
        held.release()?;
    }
    drop(quiet);
    finish(
        store,
        growing,
        &taken.record.lowers,
        (&records, owners),
        new,
        how,
    )
}

/// Adds a written tree to the store, upon a workspace's lowers or upon nothing.
pub(super) fn finish(
    store: &Store,
    growing: Growing,
    lowers: &[Lower],
    (records, owners): (&SideRecords, Owners),
    new: &NewLayer,
    how: How,
) -> Outcome<Made> {
    let kept = content::kept(owners);
    let content = content::measure(growing.tree(), &growing.path(), records, &kept)?;
    let parents = match how {
        How::Changes => stack::parents(lowers),
        How::Squash => Parents::default(),
    };
    growing.finish_upon(store, &content, records, new, parents)
}

/// The index beside a workspace's upper, where there is one.
pub(super) fn index_of(store: &Store, name: &str) -> Option<Arc<OwnedFd>> {
    let at = |parent: &OwnedFd, name: &[u8]| dir::open_dir_at(parent.as_fd(), name, Cross::Refuse);
    let folder = store.workspace_folder(name).ok()?;
    let index = at(&folder, layout::WORK).and_then(|work| at(&work, b"index"));
    index.ok().map(Arc::new)
}

fn squashed(
    store: &Store,
    source: &Source<'_>,
    beside: &Beside,
    records: &mut SideRecords,
) -> Outcome<Growing> {
    let view = source.view()?;
    let growing = Growing::new(store)?;
    let mut links = growing.links()?;
    let failed = |path: PathBuf, e| Failure::system(&PathBuf::from("/").join(path), "be copied", e);
    let root = view.at(std::iter::empty()).ok().flatten();
    let root = root.ok_or_else(|| failed(PathBuf::new(), crate::sys::Errno::EIO))?;
    view.write_out(&root, growing.tree(), &mut links, source.owners.into())
        .map_err(|(path, e)| failed(path, e))?;
    if !beside.is_empty() {
        beside
            .all(&view, records)
            .map_err(|e| failed(PathBuf::new(), e))?;
    }
    let survey = resolve::survey(source.upper, source.index.as_ref());
    let survey = survey.map_err(|e| failed(PathBuf::new(), e))?;
    anchors::find_lost_names(source, &survey, &view, growing.tree(), &mut links)?;
    Ok(growing)
}

/// The upper itself becomes the layer.
fn by_moving(store: &Store, taken: &Taken, source: &Source<'_>, new: &NewLayer) -> Outcome<Made> {
    let content = content::measure(
        source.upper,
        &source.path,
        &SideRecords::default(),
        &content::kept(source.owners),
    )?;
    let record = layer::describe(&content, new, stack::parents(&taken.record.lowers));
    let workspace = upon(&taken.record, &record.name, content.diff_id);
    let plan = Plan {
        content: &content,
        layer: &record,
        workspace: &workspace,
    };
    let was_there = store.content(&content.diff_id).is_ok();
    let old: &Arc<OwnedFd> = source.upper;
    store.commit_by_moving(&plan, |fresh| copy::dress(old, fresh, Marks::OfLayer))?;
    Ok(Made {
        record,
        added: if was_there { Added::Shared } else { Added::New },
    })
}

/// The workspace with a layer more.
fn upon(record: &WorkspaceRecord, name: &str, diff_id: crate::digest::Digest) -> WorkspaceRecord {
    let top = Lower::Layer(Parent {
        name: name.to_owned(),
        diff_id,
    });
    WorkspaceRecord {
        lowers: std::iter::once(top)
            .chain(record.lowers.iter().cloned())
            .collect(),
        ..record.clone()
    }
}
