//! A commit without a copy: the upper itself becomes the layer.
//!
//! The steps and what a crash leaves at each are in [`layout`]. Every function
//! here needs the workspace's lock held alone.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::failure::{Failure, FailureKind, Outcome};
use super::layers::Added;
use super::lock::{Hold, Object};
use super::record::{Content, LayerRecord, WorkspaceRecord};
use super::tidy::{self, MANY, Sync};
use super::{Store, encode, layout, staging};
use crate::sys::dir::{self, Rename};
use crate::sys::{Errno, Result, small, tree};

/// What a commit is to end in.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What the upper holds.
    pub content: &'a Content,
    /// The layer to be.
    pub layer: &'a LayerRecord,
    /// The workspace as it will be: upon the new layer.
    pub workspace: &'a WorkspaceRecord,
}

/// What was found where a commit had been under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// Nothing.
    Nothing,
    /// It had not begun to move: the old state.
    Dropped,
    /// It was carried out: the new state.
    Finished,
}

impl Store {
    /// Makes a workspace's upper a layer, and gives the workspace the fresh upper
    /// that `dress` has given the root's attributes.
    ///
    /// # Locks
    /// The layer's name alone, its content shared; the caller holds the workspace's.
    pub fn commit_by_moving(
        &self,
        plan: &Plan<'_>,
        dress: impl FnOnce(&Arc<OwnedFd>) -> Result<()>,
    ) -> Outcome<()> {
        let _name = self.lock(Object::Name(&plan.layer.name), Hold::Alone)?;
        self.check_free(&plan.layer.name)?;
        let _content = self.lock(Object::Content(&plan.content.diff_id.hex()), Hold::Shared)?;
        let name = &plan.workspace.name;
        let folder = self.workspace_folder(name)?;
        let failed = |e| Failure::system(&self.workspace_path(name), "be committed", e);
        write_plan(&folder, plan, dress).map_err(|e| e.or(failed))?;
        let next = folder_at(&folder, layout::COMMIT).map_err(failed)?;
        let layer = folder_at(&next, layout::COMMIT_LAYER).map_err(failed)?;
        let from = (folder.as_fd(), layout::UPPER);
        let to = (layer.as_fd(), layout::TREE);
        if let Err(e) = dir::rename(from, to, Rename::NoReplace) {
            tree::remove(&folder, layout::COMMIT).map_err(failed)?;
            return Err(failed(e));
        }
        for at in [&folder, &layer] {
            dir::fsync_dir(at.as_fd()).map_err(failed)?;
        }
        self.carry_out(&folder, name)
    }

    /// Ends what a crash cut off. The caller holds the workspace's lock alone.
    pub fn recover_commit(&self, name: &str) -> Outcome<Recovered> {
        let folder = self.workspace_folder(name)?;
        let failed = |e| Failure::system(&self.workspace_path(name), "be recovered", e);
        tree::remove(&folder, layout::COMMIT_NEW).map_err(failed)?;
        let next = match folder_at(&folder, layout::COMMIT) {
            Err(Errno::ENOENT) => return Ok(Recovered::Nothing),
            r => r.map_err(failed)?,
        };
        let begun = match folder_at(&next, layout::COMMIT_LAYER) {
            // It has its place in the store already.
            Err(Errno::ENOENT) => true,
            r => {
                let layer = r.map_err(failed)?;
                dir::probe(layer.as_fd(), layout::TREE)
                    .map_err(failed)?
                    .is_some()
            }
        };
        if !begun {
            tree::remove(&folder, layout::COMMIT).map_err(failed)?;
            return Ok(Recovered::Dropped);
        }
        self.carry_out(&folder, name)?;
        Ok(Recovered::Finished)
    }

    /// Whether a commit was cut off in a workspace.
    pub fn commit_is_pending(&self, name: &str) -> Outcome<bool> {
        let folder = self.workspace_folder(name)?;
        let found = dir::probe(folder.as_fd(), layout::COMMIT);
        let failed = |e| Failure::system(&self.workspace_path(name), "be looked at", e);
        Ok(found.map_err(failed)?.is_some())
    }

    /// Steps 3 to 8, each of which may have been done.
    fn carry_out(&self, folder: &Arc<OwnedFd>, name: &str) -> Outcome<()> {
        let failed = |e| Failure::system(&self.workspace_path(name), "be committed", e);
        let next = folder_at(folder, layout::COMMIT).map_err(failed)?;
        self.place_layer(&next, name)?;
        self.place_name(&next, name)?;
        if exists(&next, layout::UPPER).map_err(failed)? {
            tree::remove(folder, layout::WORK).map_err(failed)?;
            move_part(&next, folder, layout::WORK).map_err(failed)?;
            move_part(&next, folder, layout::UPPER).map_err(failed)?;
        }
        dir::fsync_dir(folder.as_fd()).map_err(failed)?;
        move_part(&next, folder, layout::WORKSPACE).map_err(failed)?;
        dir::fsync_dir(folder.as_fd()).map_err(failed)?;
        tree::remove(folder, layout::COMMIT).map_err(failed)
    }

    fn place_layer(&self, next: &Arc<OwnedFd>, name: &str) -> Outcome<()> {
        let path = self.workspace_path(name).join("commit/layer/layer.json");
        let failed = |e| Failure::system(&path, "be committed", e);
        let layer = match folder_at(next, layout::COMMIT_LAYER) {
            Err(Errno::ENOENT) => return Ok(()),
            r => r.map_err(failed)?,
        };
        let content: Option<Content> = self.read_record(&layer, layout::CONTENT, path.clone())?;
        let content = content.ok_or_else(|| failed(Errno::ENOENT))?;
        let upper = folder_at(&layer, layout::TREE).map_err(failed)?;
        let how = match content.entries > MANY {
            true => Sync::Later,
            false => Sync::Each,
        };
        tidy::tidy(&upper, how).map_err(failed)?;
        if how == Sync::Later {
            crate::sys::file::sync_fs(upper.as_fd()).map_err(failed)?;
        }
        if self.move_content(next, layout::COMMIT_LAYER, &content.diff_id)? == Added::Shared {
            tree::remove(next, layout::COMMIT_LAYER).map_err(failed)?;
        }
        Ok(())
    }

    /// Publishes the layer's record; where somebody has taken the name since the
    /// crash, under the next free one of its kind.
    fn place_name(&self, next: &Arc<OwnedFd>, name: &str) -> Outcome<()> {
        let path = self.workspace_path(name).join("commit/name.json");
        let failed = |e| Failure::system(&path, "be committed", e);
        let found: Option<LayerRecord> =
            self.read_record(next, layout::COMMIT_NAME, path.clone())?;
        let Some(mut record) = found else {
            return Ok(());
        };
        let wanted = record.name.clone();
        for count in 1..1_000 {
            let from = (next.as_fd(), layout::COMMIT_NAME);
            let to = layout::record_file(&record.name);
            match dir::rename(from, (self.names.as_fd(), &to), Rename::NoReplace) {
                Err(Errno::EEXIST) => {}
                r => {
                    r.map_err(failed)?;
                    return staging::settle(&self.names, &path);
                }
            }
            record.name = format!("{wanted}.recovered-{count}");
            tree::remove(next, b"renamed.json").map_err(failed)?;
            let bytes = encode(&record)?;
            small::write_new(next.as_fd(), b"renamed.json", &bytes).map_err(failed)?;
            let renamed = (next.as_fd(), &b"renamed.json"[..]);
            dir::rename(renamed, from, Rename::Replace).map_err(failed)?;
        }
        Err(Failure::new(
            FailureKind::Exists,
            format!(
                "no name could be found for the layer that {} holds",
                path.display()
            ),
            "remove layers called NAME.recovered-N and run `acetate fsck --repair` again",
        ))
    }
}

/// A system call's failure, or one that has its sentence already.
enum Trouble {
    System(Errno),
    Told(Failure),
}

impl Trouble {
    fn or(self, tell: impl FnOnce(Errno) -> Failure) -> Failure {
        match self {
            Trouble::System(e) => tell(e),
            Trouble::Told(f) => f,
        }
    }
}

impl From<Errno> for Trouble {
    fn from(e: Errno) -> Self {
        Trouble::System(e)
    }
}

impl From<Failure> for Trouble {
    fn from(f: Failure) -> Self {
        Trouble::Told(f)
    }
}

/// Step 1: everything that will be needed, then the name that makes it count.
fn write_plan(
    folder: &Arc<OwnedFd>,
    plan: &Plan<'_>,
    dress: impl FnOnce(&Arc<OwnedFd>) -> Result<()>,
) -> std::result::Result<(), Trouble> {
    tree::remove(folder, layout::COMMIT_NEW)?;
    dir::mkdir(folder.as_fd(), layout::COMMIT_NEW, 0o700)?;
    let next = folder_at(folder, layout::COMMIT_NEW)?;
    for part in [layout::COMMIT_LAYER, layout::UPPER, layout::WORK] {
        dir::mkdir(next.as_fd(), part, 0o755)?;
    }
    dress(&folder_at(&next, layout::UPPER)?)?;
    let layer = folder_at(&next, layout::COMMIT_LAYER)?;
    small::write_new(layer.as_fd(), layout::CONTENT, &encode(plan.content)?)?;
    small::write_new(next.as_fd(), layout::COMMIT_NAME, &encode(plan.layer)?)?;
    small::write_new(next.as_fd(), layout::WORKSPACE, &encode(plan.workspace)?)?;
    for at in [&layer, &next] {
        dir::fsync_dir(at.as_fd())?;
    }
    let from = (folder.as_fd(), layout::COMMIT_NEW);
    dir::rename(from, (folder.as_fd(), layout::COMMIT), Rename::NoReplace)?;
    dir::fsync_dir(folder.as_fd())?;
    Ok(())
}

fn folder_at(parent: &Arc<OwnedFd>, name: &[u8]) -> Result<Arc<OwnedFd>> {
    staging::open(parent, name)
}

fn exists(parent: &Arc<OwnedFd>, name: &[u8]) -> Result<bool> {
    Ok(dir::probe(parent.as_fd(), name)?.is_some())
}

/// Moves a part from the plan into the workspace; that it was moved is fine.
fn move_part(next: &Arc<OwnedFd>, folder: &Arc<OwnedFd>, name: &[u8]) -> Result<()> {
    if !exists(next, name)? {
        return Ok(());
    }
    dir::rename(
        (next.as_fd(), name),
        (folder.as_fd(), name),
        Rename::Replace,
    )
}
