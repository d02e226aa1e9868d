//! Layers: found by name or digest, added, removed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::failure::{Failure, FailureKind, Outcome};
use super::lock::{Hold, Lock, Object};
use super::record::{Content, LayerRecord};
use super::staging::{self, Staging};
use super::{Store, decode, encode, layout};
use crate::digest::Digest;
use crate::sys::dir::{self, Rename};
use crate::sys::{Errno, small};

/// Fewest digits that stand for a digest.
const SHORTEST_ID: usize = 4;

/// Records that could be read, and what is wrong with the others.
#[derive(Debug)]
pub struct Listed<T> {
    /// Sorted by name.
    pub records: Vec<T>,
    /// Of those that are damaged: the others are still of use.
    pub damaged: Vec<Failure>,
}

/// What became of a tree that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is a new content.
    New,
    /// The same content was there: it is stored once.
    Shared,
}

impl Store {
    /// All layers.
    pub fn layers(&self) -> Outcome<Listed<LayerRecord>> {
        let mut names = Vec::new();
        dir::list(self.names.as_fd(), |e| {
            if let Some(name) = layout::name_of_record(&e.name) {
                names.push(name.to_owned());
            }
        })
        .map_err(|e| Failure::system(&self.path.join("names"), "be listed", e))?;
        Ok(collect(names, |name| self.record(name)))
    }

    /// The record of a name; `None` where there is none.
    pub fn record(&self, name: &str) -> Outcome<Option<LayerRecord>> {
        let path = self.path.join("names").join(format!("{name}.json"));
        let record: Option<LayerRecord> =
            self.read_record(&self.names, &layout::record_file(name), path)?;
        Ok(record)
    }

    pub(super) fn read_record<T: DeserializeOwned>(
        &self,
        dir: &OwnedFd,
        file: &[u8],
        path: PathBuf,
    ) -> Outcome<Option<T>> {
        match small::read(dir.as_fd(), file, layout::RECORD_MAX) {
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(Failure::system(&path, "be read", e)),
            Ok(bytes) => decode(&path, &bytes).map(Some),
        }
    }

    /// The layer that is asked for: by name, or by the first digits of its digest
    /// (with `sha256:` or without) where they fit one content only.
    pub fn layer(&self, asked: &str) -> Outcome<LayerRecord> {
        if layout::is_name(asked)
            && let Some(record) = self.record(asked)?
        {
            return Ok(record);
        }
        let digits = asked.strip_prefix("sha256:").unwrap_or(asked);
        let is_id = digits.len() >= SHORTEST_ID && digits.chars().all(|c| c.is_ascii_hexdigit());
        let mut found: Vec<LayerRecord> = Vec::new();
        if is_id {
            let all = self.layers()?.records.into_iter();
            found.extend(all.filter(|r| r.diff_id.hex().starts_with(digits)));
        }
        let several = found.windows(2).any(|w| match w {
            [a, b] => a.diff_id != b.diff_id,
            _ => false,
        });
        if several {
            let names: Vec<&str> = found.iter().map(|r| r.name.as_str()).collect();
            return Err(Failure::new(
                FailureKind::Usage,
                format!("{asked} fits several layers: {}", names.join(", ")),
                "write more of the digest, or the name",
            ));
        }
        found.into_iter().next().ok_or_else(|| {
            Failure::new(
                FailureKind::NotFound,
                format!("there is no layer {asked}"),
                "`acetate layer list` shows those there are",
            )
        })
    }

    /// What is stored under a digest.
    ///
    /// # Errors
    /// Integrity where it is gone or is called by another digest than its own.
    pub fn content(&self, id: &Digest) -> Outcome<Content> {
        let path = self.content_path(id).join("layer.json");
        let gone = || {
            Failure::new(
                FailureKind::Integrity,
                format!(
                    "the content {id} is not in the store {}",
                    self.path.display()
                ),
                "`acetate fsck` names every layer and workspace that needs it",
            )
        };
        let folder = staging::open(&self.layers, id.hex().as_bytes()).map_err(|_| gone())?;
        let content: Content = self
            .read_record(&folder, layout::CONTENT, path.clone())?
            .ok_or_else(gone)?;
        if content.diff_id != *id {
            return Err(Failure::new(
                FailureKind::Integrity,
                format!(
                    "{} speaks of {}, not of its own folder",
                    path.display(),
                    content.diff_id
                ),
                "somebody changed the store by hand: import the layer again",
            ));
        }
        Ok(content)
    }

    fn content_path(&self, id: &Digest) -> PathBuf {
        self.path.join("layers").join(id.hex())
    }

    /// Where a content's tree is.
    pub fn tree_path(&self, id: &Digest) -> PathBuf {
        self.content_path(id).join("tree")
    }

    /// A content's tree.
    pub fn tree(&self, id: &Digest) -> Outcome<Arc<OwnedFd>> {
        self.content(id)?;
        let folder = staging::open(&self.layers, id.hex().as_bytes());
        let tree = folder.and_then(|f| staging::open(&f, layout::TREE));
        tree.map_err(|e| Failure::system(&self.tree_path(id), "be opened", e))
    }

    /// What a content's tree could not be given; empty where that is nothing.
    pub fn side_records(&self, id: &Digest) -> Outcome<String> {
        let path = self.side_records_path(id);
        let failed = |e| Failure::system(&path, "be read", e);
        let folder = staging::open(&self.layers, id.hex().as_bytes()).map_err(failed)?;
        match small::read(
            folder.as_fd(),
            layout::SIDE_RECORDS,
            layout::SIDE_RECORDS_MAX,
        ) {
            Err(Errno::ENOENT) => Ok(String::new()),
            r => String::from_utf8(r.map_err(failed)?).map_err(|_| failed(Errno::EINVAL)),
        }
    }

    /// The file with them; where there are none it is not there.
    pub fn side_records_path(&self, id: &Digest) -> PathBuf {
        self.content_path(id).join("side-records")
    }

    /// Fails where the name is taken or is none.
    pub fn check_free(&self, name: &str) -> Outcome<()> {
        check_name(name)?;
        match self.record(name) {
            Ok(None) => Ok(()),
            _ => Err(Failure::new(
                FailureKind::Exists,
                format!("there is a layer {name} already"),
                format!("choose another name, or remove it: acetate layer rm {name}"),
            )),
        }
    }

    /// Adds the tree `staging/FOLDER/tree` as a layer.
    ///
    /// # Locks
    /// The name alone, the content shared, until both are on disk.
    pub fn add(
        &self,
        staging: &Staging,
        folder: &[u8],
        content: &Content,
        record: &LayerRecord,
    ) -> Outcome<Added> {
        let _name = self.lock(Object::Name(&record.name), Hold::Alone)?;
        self.check_free(&record.name)?;
        let _content = self.lock(Object::Content(&content.diff_id.hex()), Hold::Shared)?;
        let added = self.place_content(staging.dir(), folder, content)?;
        self.place_record(staging, record)?;
        Ok(added)
    }

    /// Gives a prepared folder its place in `layers/`. The content is locked.
    fn place_content(
        &self,
        from: &Arc<OwnedFd>,
        folder: &[u8],
        content: &Content,
    ) -> Outcome<Added> {
        let path = self.content_path(&content.diff_id);
        let failed = |e| Failure::system(&path, "be written", e);
        let inner = staging::open(from, folder).map_err(failed)?;
        small::write_new(inner.as_fd(), layout::CONTENT, &encode(content)?).map_err(failed)?;
        dir::fsync_dir(inner.as_fd()).map_err(failed)?;
        self.move_content(from, folder, &content.diff_id)
    }

    pub(super) fn move_content(
        &self,
        from: &Arc<OwnedFd>,
        folder: &[u8],
        id: &Digest,
    ) -> Outcome<Added> {
        let path = self.content_path(id);
        let hex = id.hex();
        let to = (self.layers.as_fd(), hex.as_bytes());
        match dir::rename((from.as_fd(), folder), to, Rename::NoReplace) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                self.content(id)?;
                return Ok(Added::Shared);
            }
            Err(e) => return Err(Failure::system(&path, "be written", e)),
        }
        staging::settle(&self.layers, &path)?;
        Ok(Added::New)
    }

    fn place_record(&self, staging: &Staging, record: &LayerRecord) -> Outcome<()> {
        let file = layout::record_file(&record.name);
        let path = self
            .path
            .join("names")
            .join(format!("{}.json", record.name));
        let failed = |e| Failure::system(&path, "be written", e);
        small::write_new(staging.dir().as_fd(), &file, &encode(record)?).map_err(failed)?;
        let (from, to) = (staging.dir().as_fd(), self.names.as_fd());
        dir::rename((from, &file), (to, &file), Rename::NoReplace).map_err(failed)?;
        staging::settle(&self.names, &path)
    }

    /// Gives a content that is stored a further name.
    pub fn add_name(&self, record: &LayerRecord) -> Outcome<()> {
        let _name = self.lock(Object::Name(&record.name), Hold::Alone)?;
        self.check_free(&record.name)?;
        let _content = self.lock(Object::Content(&record.diff_id.hex()), Hold::Shared)?;
        self.content(&record.diff_id)?;
        let staging = self.stage()?;
        self.place_record(&staging, record)
    }

    /// Removes a layer; its content too where no other layer has it.
    ///
    /// # Errors
    /// InUse, with the users' names, where something stands on it.
    pub fn remove_layer(&self, asked: &str) -> Outcome<LayerRecord> {
        let record = self.layer(asked)?;
        let name_lock = self.lock(Object::Name(&record.name), Hold::Alone)?;
        let content_lock = self.lock(Object::Content(&record.diff_id.hex()), Hold::Alone)?;
        // Again, now that nobody else can remove it.
        let record = self.layer(&record.name)?;
        let others: Vec<LayerRecord> = self
            .layers()?
            .records
            .into_iter()
            .filter(|r| r.name != record.name)
            .collect();
        let mut same = others.iter().filter(|r| r.diff_id == record.diff_id);
        let other_name = same.next().map(|r| r.name.clone());
        if let (Some(other), true) = (&other_name, asked != record.name) {
            return Err(Failure::new(
                FailureKind::Usage,
                format!("{asked} has several names: {}, {other}", record.name),
                "write the name of the one to remove",
            ));
        }
        if other_name.is_none() {
            self.check_unused(&record, &others)?;
        }
        let path = self
            .path
            .join("names")
            .join(format!("{}.json", record.name));
        let file = layout::record_file(&record.name);
        dir::unlink(self.names.as_fd(), &file)
            .map_err(|e| Failure::system(&path, "be removed", e))?;
        staging::settle(&self.names, &path)?;
        if other_name.is_none() {
            self.remove_content(&record.diff_id, content_lock)?;
        }
        name_lock.retire();
        Ok(record)
    }

    /// Takes a content out of `layers/` and removes it. Nothing speaks of it.
    pub(super) fn remove_content(&self, id: &Digest, lock: Lock) -> Outcome<()> {
        let path = self.content_path(id);
        let staging = self.stage()?;
        let hex = id.hex();
        let from = (self.layers.as_fd(), hex.as_bytes());
        let to = (staging.dir().as_fd(), hex.as_bytes());
        match dir::rename(from, to, Rename::NoReplace) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(Failure::system(&path, "be removed", e)),
        }
        staging::settle(&self.layers, &path)?;
        lock.retire();
        Ok(())
    }

    fn check_unused(&self, record: &LayerRecord, others: &[LayerRecord]) -> Outcome<()> {
        let users = self.users_of(&record.diff_id, others)?;
        if users.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            FailureKind::InUse,
            format!(
                "the layer {} is in use by {}",
                record.name,
                users.join(", ")
            ),
            "remove those first: acetate ws rm, acetate layer rm",
        ))
    }

    /// Who needs a content, in words: workspaces, and layers that stand on it.
    pub(super) fn users_of(&self, id: &Digest, layers: &[LayerRecord]) -> Outcome<Vec<String>> {
        let workspaces = self.workspaces()?.records.into_iter();
        let mut users: Vec<String> = workspaces
            .filter(|w| w.layers().any(|l| l.diff_id == *id))
            .map(|w| format!("the workspace {}", w.name))
            .collect();
        let children = layers
            .iter()
            .filter(|r| r.parents.iter().any(|p| p.diff_id == *id));
        users.extend(children.map(|r| format!("the layer {}", r.name)));
        Ok(users)
    }
}

/// Fails where this is no name for a layer or workspace.
pub fn check_name(name: &str) -> Outcome<()> {
    if layout::is_name(name) {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Usage,
        format!("{name:?} cannot be a name"),
        "letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 128 of them",
    ))
}

/// Reads the records of these names; what vanished meanwhile is left out.
pub(super) fn collect<T>(
    mut names: Vec<String>,
    read: impl Fn(&str) -> Outcome<Option<T>>,
) -> Listed<T> {
    names.sort_unstable();
    let mut listed = Listed {
        records: Vec::with_capacity(names.len()),
        damaged: Vec::new(),
    };
    for name in names {
        match read(&name) {
            Ok(found) => listed.records.extend(found),
            Err(e) => listed.damaged.push(e),
        }
    }
    listed
}
