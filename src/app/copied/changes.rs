//! What was changed in a copied workspace: what `ws diff` of a mounted one would say.

use crate::store::Store;
use crate::store::failure::Outcome;
use crate::store::manifest::Entry;
use crate::store::record::WorkspaceRecord;
use crate::sys::{Kind, Name, Result};

use super::super::diff::{Change, What, change};
use super::scan::{Found, parts};
use super::{Copied, digest, on_disk, shown_by};

/// Compares the tree with what it was written out as.
pub fn find(store: &Store, record: &WorkspaceRecord) -> Outcome<Vec<Change>> {
    let copied = Copied::open(store, record)?;
    let mut found = copied.gone();
    for (path, object) in &copied.scan.0 {
        if copied.is_untouched(path, object) {
            continue;
        }
        let looks = copied.looks(object);
        let Some(before) = copied.before(path) else {
            found.push((path.clone(), What::Added, looks.kind, Vec::new()));
            continue;
        };
        let reasons = copied.reasons(path, before, object);
        let reasons = reasons.map_err(|e| copied.failed(path, "be compared", e))?;
        if !reasons.is_empty() {
            found.push((path.clone(), What::Changed, looks.kind, reasons));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found.into_iter().map(change).collect())
}

impl Copied {
    /// What is gone, each with all that was in it.
    fn gone(&self) -> Vec<(Vec<Name>, What, Kind, Vec<&'static str>)> {
        let mut found = Vec::new();
        for entry in self.manifest.entries() {
            let path = parts(&entry.path);
            if !self.scan.0.contains_key(&path) && self.is_directory(&path) {
                found.push((path, What::Deleted, entry.kind, Vec::new()));
            }
        }
        found
    }

    /// Whether the directory that a path is in is still there.
    pub(super) fn is_directory(&self, path: &[Name]) -> bool {
        let above = path.split_last().map(|(_, above)| above).unwrap_or(path);
        let found = self.scan.0.get(above);
        found.is_some_and(|f| f.stat.kind() == Kind::Dir)
    }

    fn reasons(&self, path: &[Name], b: &Entry, found: &Found) -> Result<Vec<&'static str>> {
        let looks = self.looks(found);
        if looks.kind != b.kind {
            return Ok(vec!["type"]);
        }
        let mut reasons = Vec::new();
        // A symlink's mode means nothing, and file systems differ in it.
        if looks.mode != b.mode && looks.kind != Kind::Symlink {
            reasons.push("mode");
        }
        if (looks.uid, looks.gid) != (b.uid, b.gid) {
            reasons.push("owner");
        }
        match looks.kind {
            Kind::File if found.stat.size != b.size || !self.same_data(path, &found.stat)? => {
                reasons.push("content");
            }
            Kind::Symlink if self.spot(path)?.read_link()? != b.target => reasons.push("target"),
            Kind::Char | Kind::Block if looks.rdev != b.rdev => reasons.push("device"),
            _ => {}
        }
        if !self.same_xattrs(path, b, found)? {
            reasons.push("xattrs");
        }
        // A directory's time follows from what happened in it.
        if looks.kind != Kind::Dir && found.stat.mtime != b.mtime {
            reasons.push("mtime");
        }
        Ok(reasons)
    }

    fn same_xattrs(&self, path: &[Name], b: &Entry, found: &Found) -> Result<bool> {
        if self.keeps_owners {
            return Ok(digest(&on_disk(&self.spot(path)?)?) == b.xattrs);
        }
        let now = self.xattrs(path, found)?;
        // What could not be written to the tree is not in the manifest's digest.
        match self.view.at(path.iter().map(|n| &n[..]))? {
            Some(entry) => Ok(shown_by(&self.view, &entry)? == now),
            None => Ok(false),
        }
    }
}
