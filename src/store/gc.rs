//! Removing what nobody needs: rubbish of crashes, contents without a name, locks
//! of things that are gone. Layers with a name are never removed here.

use std::collections::HashSet;
use std::os::fd::AsFd;

use super::failure::{Failure, Outcome};
use super::lock::{Hold, Object};
use super::{Store, layout};
use crate::digest::Digest;
use crate::sys::dir;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Folders of `staging/`.
    pub staging: usize,
    /// Contents that no layer and no workspace speaks of.
    pub contents: usize,
    /// Commits that a crash had cut off, ended.
    pub commits: usize,
    /// Locks of what is gone.
    pub locks: usize,
}

impl Store {
    /// Removes what nobody needs; what others work on at the moment stays.
    pub fn collect_garbage(&self) -> Outcome<Collected> {
        let mut done = Collected {
            commits: self.end_commits()?,
            staging: self.sweep(),
            ..Collected::default()
        };
        for hex in self.content_folders()? {
            done.contents += usize::from(self.collect_content(&hex)?);
        }
        done.locks = self.collect_locks()?;
        Ok(done)
    }

    /// Ends every commit that was cut off.
    pub(super) fn end_commits(&self) -> Outcome<usize> {
        let mut ended = 0;
        for workspace in self.workspaces()?.records {
            if !self.commit_is_pending(&workspace.name).unwrap_or(false) {
                continue;
            }
            let name = workspace.name.as_str();
            if let Some(_lock) = self.try_lock(Object::Workspace(name), Hold::Alone)? {
                self.recover_commit(name)?;
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// The folders of `layers/`.
    pub(super) fn content_folders(&self) -> Outcome<Vec<String>> {
        let mut found = Vec::new();
        dir::list(self.layers.as_fd(), |e| {
            if let Ok(name) = String::from_utf8(e.name)
                && layout::is_hex(&name)
            {
                found.push(name);
            }
        })
        .map_err(|e| Failure::system(&self.path().join("layers"), "be listed", e))?;
        found.sort_unstable();
        Ok(found)
    }

    fn collect_content(&self, hex: &str) -> Outcome<bool> {
        let Some(id) = format!("sha256:{hex}").parse::<Digest>().ok() else {
            return Ok(false);
        };
        if self.is_needed(&id)? {
            return Ok(false);
        }
        // Looked at again with the lock: a record may have come meanwhile (S3).
        let Some(lock) = self.try_lock(Object::Content(hex), Hold::Alone)? else {
            return Ok(false);
        };
        if self.is_needed(&id)? {
            return Ok(false);
        }
        self.remove_content(&id, lock)?;
        Ok(true)
    }

    /// Whether any record speaks of a content, or one cannot be read that might.
    fn is_needed(&self, id: &Digest) -> Outcome<bool> {
        let (layers, workspaces) = (self.layers()?, self.workspaces()?);
        if !layers.damaged.is_empty() || !workspaces.damaged.is_empty() {
            return Ok(true);
        }
        let by_layer = layers
            .records
            .iter()
            .any(|r| r.diff_id == *id || r.parents.iter().any(|p| p.diff_id == *id));
        let by_workspace =
            |w: &super::record::WorkspaceRecord| w.layers().any(|l| l.diff_id == *id);
        Ok(by_layer || workspaces.records.iter().any(by_workspace))
    }

    fn collect_locks(&self) -> Outcome<usize> {
        let mut files = Vec::new();
        dir::list(self.locks.as_fd(), |e| files.push(e.name))
            .map_err(|e| Failure::system(&self.path().join("locks"), "be listed", e))?;
        let names: HashSet<String> = self.layers()?.records.into_iter().map(|r| r.name).collect();
        let spaces = self.workspaces()?.records.into_iter().map(|w| w.name);
        let spaces: HashSet<String> = spaces.collect();
        let contents: HashSet<String> = self.content_folders()?.into_iter().collect();
        let mut gone = 0;
        for file in files {
            let Some((kind, name)) = std::str::from_utf8(&file)
                .ok()
                .and_then(|f| f.split_once('.'))
            else {
                continue;
            };
            let (needed, object) = match kind {
                "name" => (names.contains(name), Object::Name(name)),
                "workspace" => (spaces.contains(name), Object::Workspace(name)),
                "layer" => (contents.contains(name), Object::Content(name)),
                "staging" => (false, Object::Staging(name)),
                _ => continue,
            };
            if needed {
                continue;
            }
            if let Some(lock) = self.try_lock(object, Hold::Alone)? {
                lock.retire();
                gone += 1;
            }
        }
        Ok(gone)
    }
}
