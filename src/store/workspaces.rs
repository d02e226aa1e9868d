//! Workspaces: made, found, changed, removed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::failure::{Failure, FailureKind, Outcome};
use super::layers::{Listed, check_name, collect};
use super::lock::{Hold, Lock, Object};
use super::manifest::Manifest;
use super::record::{WorkspaceKind, WorkspaceRecord};
use super::staging::{self, Staging};
use super::{Store, encode, layout};
use crate::sys::dir::{self, Rename};
use crate::sys::{Errno, small};

/// The folder in staging that becomes a workspace.
const PREPARED: &[u8] = b"workspace";

/// Contents that nobody removes while this lives.
#[derive(Debug)]
pub struct Kept {
    _locks: Vec<Lock>,
}

/// A workspace that has no name yet.
#[derive(Debug)]
pub struct Prepared {
    staging: Staging,
    folder: Arc<OwnedFd>,
}

impl Prepared {
    /// Its folder: upper, work and so on stand in it.
    pub fn folder(&self) -> &Arc<OwnedFd> {
        &self.folder
    }
}

impl Store {
    /// All workspaces.
    pub fn workspaces(&self) -> Outcome<Listed<WorkspaceRecord>> {
        let mut names = Vec::new();
        dir::list(self.workspaces.as_fd(), |e| {
            if let Ok(name) = String::from_utf8(e.name)
                && layout::is_name(&name)
            {
                names.push(name);
            }
        })
        .map_err(|e| Failure::system(&self.path.join("workspaces"), "be listed", e))?;
        Ok(collect(names, |name| self.workspace_record(name)))
    }

    fn workspace_record(&self, name: &str) -> Outcome<Option<WorkspaceRecord>> {
        let path = self.workspace_path(name).join("workspace.json");
        let file = [name.as_bytes(), b"/", layout::WORKSPACE].concat();
        // One call for both components: the name was checked, the folder is ours.
        self.read_record(&self.workspaces, &file, path)
    }

    /// The workspace of this name.
    pub fn workspace(&self, name: &str) -> Outcome<WorkspaceRecord> {
        let found = match layout::is_name(name) {
            true => self.workspace_record(name)?,
            false => None,
        };
        found.ok_or_else(|| {
            Failure::new(
                FailureKind::NotFound,
                format!("there is no workspace {name}"),
                "`acetate ws list` shows those there are",
            )
        })
    }

    /// Where a workspace's folder is.
    pub fn workspace_path(&self, name: &str) -> PathBuf {
        self.path.join("workspaces").join(name)
    }

    /// A workspace's folder.
    pub fn workspace_folder(&self, name: &str) -> Outcome<Arc<OwnedFd>> {
        staging::open(&self.workspaces, name.as_bytes())
            .map_err(|e| Failure::system(&self.workspace_path(name), "be opened", e))
    }

    /// Fails where the name is taken or is none.
    pub fn check_workspace_free(&self, name: &str) -> Outcome<()> {
        check_name(name)?;
        let found = dir::probe(self.workspaces.as_fd(), name.as_bytes());
        match found.map_err(|e| Failure::system(&self.workspace_path(name), "be looked at", e))? {
            None => Ok(()),
            Some(_) => Err(Failure::new(
                FailureKind::Exists,
                format!("there is a workspace {name} already"),
                format!("choose another name, or remove it: acetate ws rm {name}"),
            )),
        }
    }

    /// Makes the folder of a workspace, with its record and its empty directories,
    /// where nobody sees it.
    pub fn prepare_workspace(&self, record: &WorkspaceRecord) -> Outcome<Prepared> {
        let staging = self.stage()?;
        let failed = |e| Failure::system(staging.path(), "be written", e);
        dir::mkdir(staging.dir().as_fd(), PREPARED, 0o755).map_err(failed)?;
        let folder = staging::open(staging.dir(), PREPARED).map_err(failed)?;
        let parts: &[&[u8]] = match record.kind {
            WorkspaceKind::Overlay => &[layout::UPPER, layout::WORK, layout::MERGED],
            WorkspaceKind::View => &[layout::MERGED],
            WorkspaceKind::Copy => &[],
        };
        for part in parts {
            dir::mkdir(folder.as_fd(), part, 0o755).map_err(failed)?;
        }
        let bytes = encode(record)?;
        small::write_new(folder.as_fd(), layout::WORKSPACE, &bytes).map_err(failed)?;
        Ok(Prepared { staging, folder })
    }

    /// Keeps the contents of a workspace-to-be where they are (S3).
    pub fn keep_contents(&self, record: &WorkspaceRecord) -> Outcome<Kept> {
        let mut ids: Vec<_> = record.layers().map(|l| l.diff_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut locks = Vec::new();
        for id in ids {
            locks.push(self.lock(Object::Content(&id.hex()), Hold::Shared)?);
            self.content(&id)?;
        }
        Ok(Kept { _locks: locks })
    }

    /// Gives a prepared workspace its name.
    ///
    /// # Locks
    /// The caller holds the workspace's, and has kept its contents.
    pub fn publish_workspace(
        &self,
        prepared: Prepared,
        record: &WorkspaceRecord,
        _kept: &Kept,
    ) -> Outcome<()> {
        self.check_workspace_free(&record.name)?;
        let path = self.workspace_path(&record.name);
        let failed = |e| Failure::system(&path, "be made", e);
        dir::fsync_dir(prepared.folder.as_fd()).map_err(failed)?;
        let from = (prepared.staging.dir().as_fd(), PREPARED);
        let to = (self.workspaces.as_fd(), record.name.as_bytes());
        dir::rename(from, to, Rename::NoReplace).map_err(failed)?;
        staging::settle(&self.workspaces, &path)
    }

    /// Replaces a workspace's record. The caller holds the workspace's lock.
    pub fn replace_workspace(&self, record: &WorkspaceRecord) -> Outcome<()> {
        let folder = self.workspace_folder(&record.name)?;
        let path = self.workspace_path(&record.name).join("workspace.json");
        let failed = |e| Failure::system(&path, "be written", e);
        let staging = self.stage()?;
        let bytes = encode(record)?;
        small::write_new(staging.dir().as_fd(), layout::WORKSPACE, &bytes).map_err(failed)?;
        let (from, to) = (staging.dir().as_fd(), folder.as_fd());
        let file = layout::WORKSPACE;
        dir::rename((from, file), (to, file), Rename::Replace).map_err(failed)?;
        staging::settle(&folder, &path)
    }

    /// Takes a workspace away, with everything in it.
    pub fn remove_workspace(&self, name: &str, lock: Lock) -> Outcome<()> {
        let path = self.workspace_path(name);
        let staging = self.stage()?;
        let from = (self.workspaces.as_fd(), name.as_bytes());
        let to = (staging.dir().as_fd(), name.as_bytes());
        match dir::rename(from, to, Rename::NoReplace) {
            Ok(()) => {}
            Err(Errno::EBUSY) => return Err(mounted_inside(&path)),
            Err(e) => return Err(Failure::system(&path, "be removed", e)),
        }
        staging::settle(&self.workspaces, &path)?;
        lock.retire();
        Ok(())
    }

    /// Gives a workspace an empty upper in the place of the one it has, which is
    /// removed. `fresh` stands in the folder beside it.
    pub fn replace_upper(&self, name: &str, fresh: &Staging) -> Outcome<()> {
        let folder = self.workspace_folder(name)?;
        let path = self.workspace_path(name).join("upper");
        let failed = |e| Failure::system(&path, "be replaced", e);
        // The work directory's index speaks of the old upper, which it must not
        // outlive: it goes first, and a mount makes it anew.
        let (work, aside) = (
            (folder.as_fd(), layout::WORK),
            (fresh.dir().as_fd(), layout::WORK),
        );
        dir::rename(work, aside, Rename::Exchange).map_err(failed)?;
        let (upper, aside) = (
            (folder.as_fd(), layout::UPPER),
            (fresh.dir().as_fd(), layout::UPPER),
        );
        dir::rename(upper, aside, Rename::Exchange).map_err(failed)?;
        staging::settle(&folder, &path)
    }
}

impl Store {
    /// Where a copied workspace's tree is.
    pub fn copy_path(&self, name: &str) -> PathBuf {
        self.workspace_path(name).join("copy/tree")
    }

    /// A copied workspace's tree, and what it was written out as.
    ///
    /// # Errors
    /// Integrity where either is damaged.
    pub fn copy(&self, name: &str) -> Outcome<(Arc<OwnedFd>, Manifest)> {
        let path = self.workspace_path(name).join("copy");
        let damaged = |what: String| {
            Failure::new(
                FailureKind::Integrity,
                what,
                format!(
                    "save what you need of the tree, then `acetate ws reset {name}` makes it anew"
                ),
            )
        };
        let folder = self.workspace_folder(name)?;
        let copy = staging::open(&folder, layout::COPY)
            .map_err(|e| damaged(Failure::system(&path, "be opened", e).what))?;
        let tree = staging::open(&copy, layout::TREE)
            .map_err(|e| damaged(Failure::system(&path.join("tree"), "be opened", e).what))?;
        let path = path.join("manifest");
        let bytes = small::read(copy.as_fd(), layout::MANIFEST, layout::MANIFEST_MAX)
            .map_err(|e| damaged(Failure::system(&path, "be read", e).what))?;
        let manifest = Manifest::decode(&bytes)
            .map_err(|why| damaged(format!("{} is damaged: {why}", path.display())))?;
        Ok((tree, manifest))
    }

    /// Puts a folder of `fresh` in the place of a copied workspace's, which is removed
    /// with it.
    ///
    /// # Locks
    /// The caller holds the workspace's.
    pub fn replace_copy(&self, name: &str, fresh: &Staging) -> Outcome<()> {
        let folder = self.workspace_folder(name)?;
        let path = self.workspace_path(name).join("copy");
        let failed = |e| Failure::system(&path, "be replaced", e);
        let new = (fresh.dir().as_fd(), layout::COPY);
        let old = (folder.as_fd(), layout::COPY);
        match dir::rename(new, old, Rename::Exchange) {
            // It was lost: nothing is there to be exchanged.
            Err(Errno::ENOENT) => dir::rename(new, old, Rename::NoReplace).map_err(failed)?,
            r => r.map_err(failed)?,
        }
        staging::settle(&folder, &path)
    }
}

fn mounted_inside(path: &std::path::Path) -> Failure {
    Failure::new(
        FailureKind::InUse,
        format!("something is mounted below {}", path.display()),
        "unmount it first",
    )
}
