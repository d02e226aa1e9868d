//! An apply under way: what `ws apply` has decided to do, written down before it
//! changes anything, so that it can be carried on after a crash.

use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::failure::{Failure, FailureKind, Outcome};
use super::lock::Lock;
use super::record::WorkspaceRecord;
use super::staging::{self, Staging};
use super::{Store, encode, layout};
use crate::sys::dir::{self, Rename};
use crate::sys::{Errno, small};

/// `workspaces/NAME/apply.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyRecord {
    /// Paths from the root, their bytes in hexadecimal; none: all.
    pub paths: Vec<String>,
    /// Directories that somebody else has changed something in: their times are
    /// left alone.
    pub later: Vec<String>,
    /// Changes of others are overwritten.
    pub forced: bool,
    /// What stays in the workspace was found not to be changed by others.
    pub rest_is_untouched: bool,
    /// What this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Store {
    /// The apply that was cut off in a workspace, if one was.
    pub fn pending_apply(&self, name: &str) -> Outcome<Option<ApplyRecord>> {
        let folder = self.workspace_folder(name)?;
        let path = self.workspace_path(name).join("apply.json");
        self.read_record(&folder, layout::APPLY, path)
    }

    /// Fails where an apply was cut off.
    pub fn check_no_apply(&self, name: &str) -> Outcome<()> {
        match self.pending_apply(name)? {
            None => Ok(()),
            Some(_) => Err(Failure::new(
                FailureKind::InUse,
                format!("an apply of the workspace {name} was cut off"),
                format!(
                    "`acetate ws apply {name}` ends it; `acetate ws rm {name}` discards what is not applied yet"
                ),
            )),
        }
    }

    /// Writes down what is going to be applied. The caller holds the workspace's lock.
    pub fn begin_apply(&self, name: &str, record: &ApplyRecord, _lock: &Lock) -> Outcome<()> {
        let folder = self.workspace_folder(name)?;
        let path = self.workspace_path(name).join("apply.json");
        let failed = |e| Failure::system(&path, "be written", e);
        let staging = self.stage()?;
        small::write_new(staging.dir().as_fd(), layout::APPLY, &encode(record)?).map_err(failed)?;
        let from = (staging.dir().as_fd(), layout::APPLY);
        dir::rename(from, (folder.as_fd(), layout::APPLY), Rename::Replace).map_err(failed)?;
        staging::settle(&folder, &path)
    }

    /// What was applied has left the upper: the workspace's new record, and no apply
    /// any more.
    pub fn end_apply(&self, workspace: &WorkspaceRecord, _lock: &Lock) -> Outcome<()> {
        self.replace_workspace(workspace)?;
        let folder = self.workspace_folder(&workspace.name)?;
        let path = self.workspace_path(&workspace.name).join("apply.json");
        match dir::unlink(folder.as_fd(), layout::APPLY) {
            Ok(()) | Err(Errno::ENOENT) => staging::settle(&folder, &path),
            Err(e) => Err(Failure::system(&path, "be removed", e)),
        }
    }

    /// Gives a workspace an upper that shows the same and stands alone, and a fresh
    /// work directory. `fresh` stands in the folder beside it.
    ///
    /// # Crash
    /// The upper comes first: with the old index beside it everything is shown as
    /// before, since each name that the index led from is in it.
    pub fn exchange_upper(&self, name: &str, fresh: &Staging) -> Outcome<()> {
        let folder = self.workspace_folder(name)?;
        let path = self.workspace_path(name).join("upper");
        let failed = |e| Failure::system(&path, "be replaced", e);
        for part in [layout::UPPER, layout::WORK] {
            let (old, new) = ((folder.as_fd(), part), (fresh.dir().as_fd(), part));
            dir::rename(old, new, Rename::Exchange).map_err(failed)?;
            staging::settle(&folder, &path)?;
        }
        Ok(())
    }
}
