//! Layers at rest: records and content on disk. Knows no tar, no mount, no terminal.
//!
//! The directory tree and the format are drawn in [`layout`], the records in
//! [`record`], the order of locks stands in [`lock`].
//!
//! # Invariants
//! - **S1** A tree in `layers/` is never changed, and its folder is named by what
//!   it holds.
//! - **S2** A record in `names/` or `workspaces/` is complete, and every content it
//!   speaks of was there when it was written.
//! - **S3** A content that a record speaks of is removed by nobody: whoever writes
//!   such a record holds the content's lock shared until it is written, whoever
//!   removes a content holds it alone and looks for such records first.
//! - **S4** What is in `staging/` and not locked is rubbish.
//! - **S5** One rename makes a change; after a crash there is the old state or the
//!   new one (a commit by moving: see [`layout`]).
//! - **S6** Reading takes no lock: a record is replaced, never written over.

pub mod check;
pub mod commit;
pub mod failure;
pub mod gc;
pub mod layers;
pub mod layout;
pub mod lock;
pub mod manifest;
pub mod pending;
pub mod record;
pub mod staging;
pub mod tidy;
pub mod workspaces;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::dir;
use crate::sys::{Errno, small};
use failure::{Failure, FailureKind, Outcome};
use record::StoreRecord;

/// An open store: its directories are held, so that nothing that is mounted or
/// moved over them meanwhile comes between.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    root: Arc<OwnedFd>,
    names: Arc<OwnedFd>,
    layers: Arc<OwnedFd>,
    workspaces: Arc<OwnedFd>,
    staging: Arc<OwnedFd>,
    locks: Arc<OwnedFd>,
}

impl Store {
    /// Opens the store at `path`.
    ///
    /// # Errors
    /// NotFound where there is none, Integrity for one of a newer format.
    pub fn open(path: &Path) -> Outcome<Store> {
        let path = std::path::absolute(path)
            .map_err(|e| Failure::system(path, "be found", Errno::from_io(&e)))?;
        let root = match dir::open_root(&path) {
            Err(Errno::ENOENT) => return Err(missing(&path)),
            r => Arc::new(r.map_err(|e| Failure::system(&path, "be opened", e))?),
        };
        let of_store = path.join("store.json");
        let bytes = match small::read(root.as_fd(), layout::STORE, layout::RECORD_MAX) {
            Err(Errno::ENOENT) => return Err(missing(&path)),
            r => r.map_err(|e| Failure::system(&of_store, "be read", e))?,
        };
        let record: StoreRecord = decode(&of_store, &bytes)?;
        if record.format > layout::FORMAT {
            return Err(Failure::new(
                FailureKind::Integrity,
                format!(
                    "the store {} has format {}, this program knows formats up to {}",
                    path.display(),
                    record.format,
                    layout::FORMAT
                ),
                "use the version of acetate that made it, or a newer one",
            ));
        }
        let open = |name: &[u8]| {
            staging::open(&root, name).map_err(|e| {
                let part = path.join(String::from_utf8_lossy(name).as_ref());
                Failure::system(&part, "be opened", e)
            })
        };
        Ok(Store {
            names: open(layout::NAMES)?,
            layers: open(layout::LAYERS)?,
            workspaces: open(layout::WORKSPACES)?,
            staging: open(layout::STAGING)?,
            locks: open(layout::LOCKS)?,
            root,
            path,
        })
    }

    /// Makes a store in `path`, which is made too where it is not there; a store
    /// that is there already is opened.
    ///
    /// # Errors
    /// Exists where the directory holds other things.
    ///
    /// # Crash
    /// `store.json` comes last: without it the next `init` goes on.
    pub fn init(path: &Path) -> Outcome<Store> {
        let failed = |e| Failure::system(path, "be made a store", e);
        make_path(path).map_err(|e| failed(Errno::from_io(&e)))?;
        let root = dir::open_root(path).map_err(failed)?;
        if dir::probe(root.as_fd(), layout::STORE)
            .map_err(failed)?
            .is_some()
        {
            return Self::open(path);
        }
        let mut foreign = None;
        let note = |e: dir::Dirent| {
            if !layout::DIRECTORIES.contains(&&e.name[..]) {
                foreign = Some(e.name);
            }
        };
        dir::list(root.as_fd(), note).map_err(failed)?;
        if let Some(name) = foreign {
            return Err(Failure::new(
                FailureKind::Exists,
                format!(
                    "{} is no store and not empty: it holds {}",
                    path.display(),
                    String::from_utf8_lossy(&name)
                ),
                "name a directory that is empty or does not exist",
            ));
        }
        staging::make_directories(&root).map_err(failed)?;
        let record = StoreRecord {
            format: layout::FORMAT,
            rest: serde_json::Map::new(),
        };
        let staging = staging::open(&root, layout::STAGING).map_err(failed)?;
        let own = format!("store.{}", std::process::id());
        small::write_new(staging.as_fd(), own.as_bytes(), &encode(&record)?).map_err(failed)?;
        let how = dir::Rename::Replace;
        let named = dir::rename(
            (staging.as_fd(), own.as_bytes()),
            (root.as_fd(), layout::STORE),
            how,
        );
        named.map_err(failed)?;
        dir::fsync_dir(root.as_fd()).map_err(failed)?;
        Self::open(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its root directory.
    pub fn root(&self) -> &Arc<OwnedFd> {
        &self.root
    }
}

/// The directories above are made as mkdir(1) would, the store for its owner alone.
fn make_path(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(above)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        r => r,
    }
}

fn missing(path: &Path) -> Failure {
    Failure::new(
        FailureKind::NotFound,
        format!("there is no store at {}", path.display()),
        format!(
            "`acetate init {}` makes one; --root and ACETATE_ROOT name another",
            path.display()
        ),
    )
}

/// A record as it is written.
fn encode<T: Serialize>(record: &T) -> Outcome<Vec<u8>> {
    record::encode(record).map_err(|e| {
        let what = format!("a record cannot be written: {e}");
        Failure::new(FailureKind::General, what, "")
    })
}

/// A record as it was read from `path`.
fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Outcome<T> {
    serde_json::from_slice(bytes).map_err(|e| {
        Failure::new(
            FailureKind::Integrity,
            format!("{} is damaged: {e}", path.display()),
            "`acetate fsck` says what else is; `acetate fsck --repair` takes it out of the way",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_other_things_does_not_become_a_store() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("letter"), "").unwrap();
        let refused = Store::init(folder.path()).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Exists);
        assert!(refused.what.contains("letter"), "{refused}");
        assert_eq!(
            Store::open(folder.path()).unwrap_err().kind,
            FailureKind::NotFound
        );
    }

    #[test]
    fn init_goes_on_where_it_was_killed_and_may_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("names")).unwrap();
        Store::init(folder.path()).unwrap();
        Store::init(folder.path()).unwrap();
    }

    #[test]
    fn a_store_of_a_newer_format_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        Store::init(folder.path()).unwrap();
        std::fs::write(folder.path().join("store.json"), r#"{"format":2}"#).unwrap();
        let refused = Store::open(folder.path()).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Integrity);
    }
}
