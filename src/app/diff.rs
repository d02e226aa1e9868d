//! What was changed: in a workspace, by a layer, between two layers.
//!
//! Two views are compared name by name. Where an upper (or a layer) stands on the
//! lower view, only the names in it can differ, so nothing else is looked at;
//! below a directory that hides or moves what lies beneath it, everything is.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::layer::mark::{self, Marks, OPAQUE_FILES, Opaque};
use crate::overlay::Entry;
use crate::store::Store;
use crate::store::failure::{Failure, Outcome};
use crate::store::record::{Lower, WorkspaceKind};
use crate::sys::dir::{self, Cross};
use crate::sys::{Errno, Kind, Name, ObjectId, Result, Spot, file};

use super::anchors;
use super::commit;
use super::copied;
use super::copy::Owners;
use super::layer::{chain, kind_name, view};
use super::own_files;
use super::resolve;
use super::stack;
use super::view::View;
use super::workspace::{check_writable, end_commit};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It is new.
    Added,
    /// It is other than before.
    Changed,
    /// It is gone.
    Deleted,
}

/// One path that is other than before.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// From the root; bytes that are no UTF-8 replaced.
    pub path: String,
    /// The path's bytes in hexadecimal, where they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// What happened.
    pub what: What,
    /// What it is, or was where it is deleted.
    pub kind: &'static str,
    /// What differs: type, mode, owner, content, target, device, xattrs, mtime.
    pub reasons: Vec<&'static str>,
}

/// What was changed in a workspace, mounted or not.
pub fn of_workspace(store: &Store, name: &str) -> Outcome<Vec<Change>> {
    own_files::reach();
    end_commit(store, name)?;
    let record = store.workspace(name)?;
    check_writable(&record)?;
    if record.kind == WorkspaceKind::Copy {
        return copied::changes::find(store, &record);
    }
    let lowers = stack::trees(store, &record.lowers)?;
    let upper = store.workspace_path(name).join("upper");
    let kept = stack::owners(store, &record.lowers)?;
    let (before, after, top) = views(upper, lowers, kept)?;
    let comparison = Comparison {
        owners: match record.squashes() {
            true => Shown::Unknown,
            false => Shown::Known,
        },
        ..Comparison::new(Some(&before), &after, Some(top))
    };
    comparison.run_with(commit::index_of(store, name))
}

/// What a layer changes in the layers below it.
pub fn of_layer(store: &Store, asked: &str) -> Outcome<Vec<Change>> {
    own_files::reach();
    let layers: Vec<Lower> = chain(store, asked)?.into_iter().map(Lower::Layer).collect();
    let owners = stack::owners(store, &layers)?;
    let mut trees = stack::trees(store, &layers)?;
    let top = trees.remove(0);
    if trees.is_empty() {
        let after = View::keeping(&[top], owners)?;
        return Comparison::new(None, &after, None).run();
    }
    let (before, after, top) = views(top, trees, owners)?;
    Comparison::new(Some(&before), &after, Some(top)).run()
}

/// What is other in `second`, each with everything below it.
pub fn between(store: &Store, first: &str, second: &str) -> Outcome<Vec<Change>> {
    let (before, after) = (view(store, first)?, view(store, second)?);
    Comparison::new(Some(&before), &after, None).run()
}

/// The view below a layer, the one with it, and its tree.
fn views(
    top: PathBuf,
    lowers: Vec<PathBuf>,
    owners: Owners,
) -> Outcome<(View, View, Arc<OwnedFd>)> {
    let before = View::keeping(&lowers, owners)?;
    let after = View::keeping(&[vec![top.clone()], lowers].concat(), owners)?;
    let root = dir::open_root(&top).map_err(|e| Failure::system(&top, "be opened", e))?;
    Ok((before, after, Arc::new(root)))
}

/// A directory that is to be compared.
struct Pair {
    path: Vec<Name>,
    before: Option<Entry>,
    after: Option<Entry>,
    /// Only the names that the upper has here can differ.
    narrow: bool,
}

/// Whether the owners that are shown mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Known,
    /// The mount shows all files as one user's, and makes them so.
    Unknown,
}

struct Comparison<'a> {
    before: Option<&'a View>,
    after: &'a View,
    top: Option<Arc<OwnedFd>>,
    owners: Shown,
    found: Vec<(Vec<Name>, What, Kind, Vec<&'static str>)>,
    waiting: Vec<Pair>,
}

impl<'a> Comparison<'a> {
    fn new(before: Option<&'a View>, after: &'a View, top: Option<Arc<OwnedFd>>) -> Self {
        Comparison {
            before,
            after,
            top,
            owners: Shown::Known,
            found: Vec::new(),
            waiting: Vec::new(),
        }
    }

    fn run(self) -> Outcome<Vec<Change>> {
        self.run_with(None)
    }

    /// The same, of an upper with this index beside it.
    fn run_with(mut self, index: Option<Arc<OwnedFd>>) -> Outcome<Vec<Change>> {
        let compared = self.all().and_then(|()| self.further_names(index));
        let at = self
            .waiting
            .last()
            .map(|p| shown(&p.path))
            .unwrap_or_default();
        compared.map_err(|e| Failure::system(&PathBuf::from(at), "be compared", e))?;
        self.found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(self.found.into_iter().map(change).collect())
    }

    fn all(&mut self) -> Result<()> {
        let root = |view: &View| view.at(std::iter::empty());
        let before = self.before.map_or(Ok(None), root)?;
        let after = root(self.after)?;
        if let (Some(b), Some(a)) = (&before, &after) {
            self.note_difference(&[], b, a)?;
        }
        self.waiting.push(Pair {
            path: Vec::new(),
            before,
            after,
            narrow: self.is_plain(&[])?,
        });
        while let Some(pair) = self.waiting.pop() {
            for name in self.names(&pair)? {
                self.one(&pair, name)?;
            }
        }
        Ok(())
    }

    /// Names that only an index leads to the upper's files from.
    fn further_names(&mut self, index: Option<Arc<OwnedFd>>) -> Result<()> {
        let (Some(top), Some(before), Some(index)) = (&self.top, self.before, index) else {
            return Ok(());
        };
        let lost = resolve::survey(top, Some(&index))?.lost;
        let mut found = Vec::new();
        anchors::each(self.after, &lost, |path, name, _, file| {
            let path: Vec<Name> = path.iter().chain([name]).cloned().collect();
            if let Some(entry) = before.at(path.iter().map(|n| &n[..]))? {
                let reasons = anchors::reasons(before, &entry, file)?;
                if !reasons.is_empty() {
                    found.push((path, What::Changed, Kind::File, reasons));
                }
            }
            Ok(())
        })?;
        self.found.extend(found);
        Ok(())
    }

    /// The names that may differ in a directory.
    fn names(&self, pair: &Pair) -> Result<BTreeSet<Name>> {
        let mut names = BTreeSet::new();
        if let (true, Some(top)) = (pair.narrow, &self.top) {
            let at = below(top, &pair.path)?;
            dir::list(at.as_fd(), |e| {
                let name = match e.name.strip_prefix(mark::DOT_WH) {
                    Some(_) if OPAQUE_FILES.contains(&&e.name[..]) => return,
                    Some(hidden) => hidden,
                    None => &e.name[..],
                };
                names.insert(Name::from(name));
            })?;
            return Ok(names);
        }
        for (view, dir) in [(self.before, &pair.before), (Some(self.after), &pair.after)] {
            if let (Some(view), Some(entry)) = (view, dir) {
                let items = view.names(&entry.node)?;
                names.extend(items.into_iter().map(|i| Name::from(&i.name[..])));
            }
        }
        Ok(names)
    }

    fn one(&mut self, pair: &Pair, name: Name) -> Result<()> {
        let find = |view: Option<&View>, dir: &Option<Entry>| match (view, dir) {
            (Some(view), Some(dir)) => view.child(&dir.node, &name),
            _ => Ok(None),
        };
        let before = find(self.before, &pair.before)?;
        let after = find(Some(self.after), &pair.after)?;
        let path: Vec<Name> = pair.path.iter().cloned().chain([name]).collect();
        let is_dir = |e: &Option<Entry>| e.as_ref().is_some_and(|e| e.node.kind == Kind::Dir);
        match (&before, &after) {
            (None, None) => return Ok(()),
            (Some(b), None) => self.note(&path, What::Deleted, b.node.kind, Vec::new()),
            (None, Some(a)) => self.note(&path, What::Added, a.node.kind, Vec::new()),
            (Some(b), Some(a)) if b.node.kind != a.node.kind => {
                self.note(&path, What::Changed, a.node.kind, vec!["type"]);
            }
            (Some(b), Some(a)) => self.note_difference(&path, b, a)?,
        }
        if !is_dir(&after) {
            if let (Some(view), Some(e)) = (self.before, before) {
                view.release(e);
            }
            if let Some(e) = after {
                self.after.release(e);
            }
            return Ok(());
        }
        let both = is_dir(&before);
        let narrow = both && pair.narrow && self.is_plain(&path)?;
        self.waiting.push(Pair {
            path,
            before: before.filter(|_| both),
            after,
            narrow,
        });
        Ok(())
    }

    /// Whether the upper's directory neither hides nor moves what lies below it.
    fn is_plain(&self, path: &[Name]) -> Result<bool> {
        let Some(top) = &self.top else {
            return Ok(false);
        };
        let at = below(top, path)?;
        let marks = Marks::read(&Spot::fd(at.clone()))?;
        let by_file = OPAQUE_FILES
            .iter()
            .any(|f| matches!(dir::probe(at.as_fd(), f), Ok(Some(_))));
        let moved = marks.redirect.is_some() || marks.bad_redirect;
        Ok(marks.opaque != Opaque::Yes && !moved && !by_file)
    }

    fn note_difference(&mut self, path: &[Name], before: &Entry, after: &Entry) -> Result<()> {
        let reasons = match self.before {
            Some(view) => self.reasons(view, before, after)?,
            None => Vec::new(),
        };
        if !reasons.is_empty() {
            self.note(path, What::Changed, after.node.kind, reasons);
        }
        Ok(())
    }

    fn note(&mut self, path: &[Name], what: What, kind: Kind, reasons: Vec<&'static str>) {
        self.found.push((path.to_vec(), what, kind, reasons));
    }

    fn reasons(&self, view: &View, before: &Entry, after: &Entry) -> Result<Vec<&'static str>> {
        let (b, a) = (&before.attr.stat, &after.attr.stat);
        let mut reasons = Vec::new();
        if ObjectId::of(b) == ObjectId::of(a) {
            return Ok(reasons);
        }
        if b.mode != a.mode {
            reasons.push("mode");
        }
        if self.owners == Shown::Known && (b.uid, b.gid) != (a.uid, a.gid) {
            reasons.push("owner");
        }
        match after.node.kind {
            Kind::File if b.size != a.size || !self.same_data(view, before, after)? => {
                reasons.push("content")
            }
            Kind::Symlink if view.target(&before.node)? != self.after.target(&after.node)? => {
                reasons.push("target");
            }
            Kind::Char | Kind::Block if b.rdev != a.rdev => reasons.push("device"),
            _ => {}
        }
        if view.xattrs(&before.node)? != self.after.xattrs(&after.node)? {
            reasons.push("xattrs");
        }
        // A directory's time follows from what happened in it.
        if after.node.kind != Kind::Dir && b.mtime != a.mtime {
            reasons.push("mtime");
        }
        Ok(reasons)
    }

    fn same_data(&self, view: &View, before: &Entry, after: &Entry) -> Result<bool> {
        let (b, a) = (view.data(&before.node)?, self.after.data(&after.node)?);
        same_bytes(b.as_fd(), a.as_fd())
    }
}

/// Whether two files hold the same.
pub(super) fn same_bytes(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> Result<bool> {
    let (mut left, mut right) = (vec![0u8; 1 << 16], vec![0u8; 1 << 16]);
    let mut at = 0u64;
    loop {
        let n = file::read_at(a, &mut left, at)?;
        let m = file::read_at(b, &mut right, at)?;
        if n != m || left.get(..n) != right.get(..m) {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
        at = at.saturating_add(n as u64);
    }
}

/// The directory at a path below the root, no symlink followed.
pub(super) fn below(root: &Arc<OwnedFd>, path: &[Name]) -> Result<Arc<OwnedFd>> {
    let mut at = root.clone();
    for name in path {
        at = match dir::open_dir_at(at.as_fd(), name, Cross::Refuse) {
            Err(Errno::ELOOP) => return Err(Errno::ENOTDIR),
            r => Arc::new(r?),
        };
    }
    Ok(at)
}

pub(super) fn bytes_of(path: &[Name]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in path {
        bytes.push(b'/');
        bytes.extend_from_slice(name);
    }
    if bytes.is_empty() {
        bytes.push(b'/');
    }
    bytes
}

fn shown(path: &[Name]) -> String {
    String::from_utf8_lossy(&bytes_of(path)).into_owned()
}

/// One line of the answer.
pub(super) fn change(
    (path, what, kind, reasons): (Vec<Name>, What, Kind, Vec<&'static str>),
) -> Change {
    let bytes = bytes_of(&path);
    let hex = |b: &Vec<u8>| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
    Change {
        path_hex: std::str::from_utf8(&bytes).is_err().then(|| hex(&bytes)),
        path: String::from_utf8_lossy(&bytes).into_owned(),
        what,
        kind: kind_name(kind),
        reasons,
    }
}
