//! Where a workspace's files are to be found: one answer for whoever works in it.

use std::path::{Path, PathBuf};

use crate::store::Store;
use crate::store::record::{WorkspaceKind, WorkspaceRecord};

use super::live;

/// A workspace's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// It is mounted there.
    Mounted(PathBuf),
    /// It is a plain tree there: nothing is mounted, and nothing need be.
    Copied(PathBuf),
    /// It would be mounted there, and is not.
    Unmounted(PathBuf),
}

impl Tree {
    /// A workspace's tree, as the mount table has it now.
    pub fn of(store: &Store, record: &WorkspaceRecord) -> Tree {
        if record.kind == WorkspaceKind::Copy {
            let (tree, link) = (store.copy_path(&record.name), &record.mountpoint);
            let leads_there = std::fs::read_link(link).is_ok_and(|to| to == tree);
            return Tree::Copied(if leads_there { link.clone() } else { tree });
        }
        match live::mounted_at(store, &record.name) {
            Some(at) => Tree::Mounted(at),
            None => Tree::Unmounted(record.mountpoint.clone()),
        }
    }

    /// Where it is, or would be.
    pub fn path(&self) -> &Path {
        match self {
            Tree::Mounted(path) | Tree::Copied(path) | Tree::Unmounted(path) => path,
        }
    }
}
