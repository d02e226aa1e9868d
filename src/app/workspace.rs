//! Workspaces: made, mounted, looked at, emptied, copied, removed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::store::layout;
use crate::store::lock::{Hold, Lock, Object};
use crate::store::record::{Lower, WorkspaceKind, WorkspaceRecord, now};
use crate::sys::dir::{self, Cross};
use crate::sys::{Errno, Spot, process, xattr};

use super::copied;
use super::copy::{self, Links, Look, Marks};
use super::file_clock;
use super::live::{self, Insist, State};
use super::own_files;
use super::stack::{self, Asked};
use super::tree::Tree;

/// A workspace to be.
#[derive(Debug, Clone)]
pub struct NewWorkspace {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: WorkspaceKind,
    /// Its layers, uppermost first.
    pub layers: Vec<Asked>,
    /// Words for `-o`, checked already.
    pub options: Vec<String>,
    /// Where to mount it; its own folder where nothing is said.
    pub mountpoint: Option<PathBuf>,
    /// Whether to mount it at once.
    pub mount: Mounting,
}

/// Whether a workspace is mounted when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounting {
    /// At once.
    Now,
    /// When it is asked for.
    Later,
}

impl WorkspaceRecord {
    /// From now on others must leave alone what lies below: where that is in place.
    fn begun_now(mut self) -> WorkspaceRecord {
        let is_in_place = |l: &Lower| matches!(l, Lower::Directory { .. });
        if self.lowers.iter().any(is_in_place) {
            self.since = Some(file_clock::a_moment_ago());
        }
        self
    }
}

/// A workspace, and what a person should be told.
#[derive(Debug)]
pub struct Done {
    /// Its record.
    pub record: WorkspaceRecord,
    /// Warnings of the mount.
    pub warnings: Vec<String>,
}

/// Makes a workspace. Where it cannot be mounted it is not made.
pub fn create(store: &Store, new: &NewWorkspace) -> Outcome<Done> {
    store.check_workspace_free(&new.name)?;
    if new.kind == WorkspaceKind::Copy {
        copied::Maps::of(&new.options)?;
    }
    live::check_options(new.kind, &new.options)?;
    let lowers = stack::resolve(store, &new.layers)?;
    let lock = store.lock(Object::Workspace(&new.name), Hold::Alone)?;
    let record = WorkspaceRecord {
        name: new.name.clone(),
        kind: new.kind,
        mountpoint: place(store, new.kind, &new.name, new.mountpoint.as_deref())?,
        lowers,
        options: new.options.clone(),
        created: now(),
        since: None,
        rest: serde_json::Map::new(),
    }
    .begun_now();
    if let Err(e) = make(store, &record) {
        // A layer that was removed since it was found is not there, no more.
        stack::resolve(store, &new.layers)?;
        return Err(e);
    }
    match show(store, &record, new.mount) {
        Ok(warnings) => Ok(Done { record, warnings }),
        Err(e) => {
            store.remove_workspace(&record.name, lock)?;
            Err(with_copy(e, record.kind))
        }
    }
}

/// Has a new workspace's tree appear where it is wanted; what a person should be told.
fn show(store: &Store, record: &WorkspaceRecord, mount: Mounting) -> Outcome<Vec<String>> {
    match (record.kind, mount) {
        (WorkspaceKind::Copy, _) => link(store, record).map(|()| Vec::new()),
        (_, Mounting::Later) => Ok(Vec::new()),
        (_, Mounting::Now) => live::mount(store, record),
    }
}

/// The failure of a mount names the way that needs none.
fn with_copy(mut e: Failure, kind: WorkspaceKind) -> Failure {
    let way = match kind {
        WorkspaceKind::View => "--copy -m PATH writes a plain tree and needs no mount",
        _ => "with --copy the workspace is a plain tree and needs no mount",
    };
    if e.kind == FailureKind::Mount {
        let before = if e.hint.is_empty() { "" } else { "; " };
        e.hint = format!("{}{before}{way}", e.hint);
    }
    e
}

/// Where a copy is wanted at a path of the caller's, a symlink there leads to it.
fn link(store: &Store, record: &WorkspaceRecord) -> Outcome<()> {
    let (tree, at) = (store.copy_path(&record.name), &record.mountpoint);
    if *at == tree || std::fs::read_link(at).is_ok_and(|to| to == tree) {
        return Ok(());
    }
    std::os::unix::fs::symlink(&tree, at).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(
            FailureKind::Exists,
            format!("{} exists: nothing is mounted over it, and no link can lead from it to the copy", at.display()),
            "name a path that does not exist yet, or leave -m out: `acetate ws path` prints where the tree is",
        ),
        _ => Failure::system(at, "be made a link to the copy", Errno::from_io(&e)),
    })
}

/// Removes that link.
fn unlink(tree: &Path, at: &Path) {
    if std::fs::read_link(at).is_ok_and(|to| to == tree) {
        let gone = std::fs::remove_file(at).map_err(|e| Errno::from_io(&e));
        crate::sys::best_effort("remove the link to a copy", gone);
    }
}

fn place(store: &Store, kind: WorkspaceKind, name: &str, given: Option<&Path>) -> Outcome<PathBuf> {
    let Some(path) = given else {
        return Ok(match kind {
            WorkspaceKind::Copy => store.copy_path(name),
            _ => store.workspace_path(name).join("merged"),
        });
    };
    std::path::absolute(path).map_err(|e| {
        let what = format!("{} cannot be made an absolute path: {e}", path.display());
        Failure::new(FailureKind::Usage, what, "give an absolute path")
    })
}

/// Makes the folders and gives the upper's root the look of the merged root.
fn make(store: &Store, record: &WorkspaceRecord) -> Outcome<()> {
    let kept = store.keep_contents(record)?;
    let trees = stack::trees(store, &record.lowers)?;
    let prepared = store.prepare_workspace(record)?;
    match record.kind {
        WorkspaceKind::Overlay => {
            let path = store.workspace_path(&record.name);
            let failed = |e| Failure::system(&path, "be made", e);
            let upper = open(prepared.folder(), layout::UPPER).map_err(failed)?;
            dress_like_top(&trees, &upper)?;
        }
        WorkspaceKind::Copy => copied::write::write(store, record, prepared.folder())?,
        WorkspaceKind::View => {}
    }
    store.publish_workspace(prepared, record, &kept)
}

/// The root of the view looks like that of its uppermost layer; an upper hides it.
fn dress_like_top(trees: &[PathBuf], upper: &Arc<OwnedFd>) -> Outcome<()> {
    let Some(top) = trees.first() else {
        return Ok(());
    };
    let failed = |e| Failure::system(top, "be used as a layer", e);
    let root = Arc::new(dir::open_root(top).map_err(failed)?);
    match copy::dress(&root, upper, Marks::OfLayer) {
        // A directory of somebody else's: the upper stays the caller's.
        Err(Errno::EPERM) if process::effective_ids().0 != 0 => {
            dress_as_own(&root, upper).map_err(failed)
        }
        r => r.map_err(failed),
    }
}

fn dress_as_own(from: &Arc<OwnedFd>, upper: &Arc<OwnedFd>) -> crate::sys::Result<()> {
    let (from, to) = (Spot::fd(from.clone()), Spot::fd(upper.clone()));
    let (stat, own) = (from.stat()?, to.stat()?);
    let mut look = Look::on_disk(&from, &stat, Marks::OfLayer)?;
    (look.stat.uid, look.stat.gid) = (own.uid, own.gid);
    // Of another user's directory these would say something else.
    look.stat.mode &= !0o6000;
    look.put_on(&to, copy::Owners::Real)
}

fn open(parent: &Arc<OwnedFd>, name: &[u8]) -> crate::sys::Result<Arc<OwnedFd>> {
    dir::open_dir_at(parent.as_fd(), name, Cross::Refuse).map(Arc::new)
}

/// A workspace that is worked on: locked, and no commit in it cut off.
#[derive(Debug)]
pub struct Taken {
    /// Its record.
    pub record: WorkspaceRecord,
    /// Its lock.
    pub lock: Lock,
}

/// Takes hold of a workspace, ending a commit that a crash had cut off.
///
/// # Errors
/// InUse also where an apply was cut off: the upper must stay as it is until that
/// is ended.
pub fn take(store: &Store, name: &str) -> Outcome<Taken> {
    let taken = take_any(store, name)?;
    store.check_no_apply(name)?;
    Ok(taken)
}

/// The same for who ends such an apply, or does away with it.
pub fn take_any(store: &Store, name: &str) -> Outcome<Taken> {
    // Before the lock, which would make a file for any word.
    store.workspace(name)?;
    let lock = store.lock(Object::Workspace(name), Hold::Alone)?;
    store.recover_commit(name)?;
    let record = store.workspace(name)?;
    Ok(Taken { record, lock })
}

/// Ends a commit that a crash had cut off, for who only looks: its upper may be on
/// the way into the layer.
pub fn end_commit(store: &Store, name: &str) -> Outcome<()> {
    store.workspace(name)?;
    match store.commit_is_pending(name)? {
        true => take_any(store, name).map(drop),
        false => Ok(()),
    }
}

/// Mounts a workspace that is not; at another place than before where one is given.
pub fn mount(store: &Store, name: &str, at: Option<&Path>) -> Outcome<Done> {
    let Taken { mut record, lock } = take(store, name)?;
    if record.kind == WorkspaceKind::Copy {
        let what = format!("the workspace {name} is a plain copy: there is nothing to mount");
        let hint = format!("`acetate ws path {name}` prints where its tree is");
        return Err(Failure::new(FailureKind::Usage, what, hint));
    }
    match live::state(store, &record)? {
        State::Mounted(at) => {
            return Err(live::busy(
                &record,
                &format!("mounted at {} already", at.display()),
                String::new(),
            ));
        }
        State::Elsewhere(who) => return Err(in_use(&record, &who)),
        // Its hold on the upper ends here: the daemon needs it.
        State::Unmounted(held) => drop(held),
    }
    if at.is_some() {
        record.mountpoint = place(store, record.kind, name, at)?;
        store.replace_workspace(&record)?;
    }
    let warnings = live::mount(store, &record).map_err(|e| without_mount(e, &record))?;
    drop(lock);
    Ok(Done { record, warnings })
}

/// The failure of a mount of a workspace that is there: its changes can be had all
/// the same.
fn without_mount(mut e: Failure, record: &WorkspaceRecord) -> Failure {
    let way = match record.kind {
        WorkspaceKind::Overlay => format!(
            "where nothing can be mounted: `acetate layer commit {} LAYER` works without, and \
             `acetate ws create NAME --copy --chain LAYER` makes a plain tree of it",
            record.name
        ),
        _ => "`acetate materialize NAME -l LAYER --copy -m PATH` needs no mount".to_owned(),
    };
    if e.kind == FailureKind::Mount {
        let before = if e.hint.is_empty() { "" } else { "; " };
        e.hint = format!("{}{before}{way}", e.hint);
    }
    e
}

/// The failure for a workspace that is mounted out of sight.
pub fn in_use(record: &WorkspaceRecord, who: &str) -> Failure {
    let hint = "it is mounted where this process cannot see it: unmount it there";
    live::busy(record, &format!("in use {who}"), hint.to_owned())
}

/// Unmounts a workspace.
pub fn unmount(store: &Store, name: &str, insist: Insist) -> Outcome<()> {
    let taken = take(store, name)?;
    match live::mounted_at(store, name) {
        Some(at) => live::unmount(&at, insist),
        None if taken.record.kind == WorkspaceKind::Copy => Err(Failure::new(
            FailureKind::NotFound,
            format!("the workspace {name} is a plain copy: there is nothing to unmount"),
            format!("`acetate ws rm {name}` removes it"),
        )),
        None => Err(Failure::new(
            FailureKind::NotFound,
            format!("the workspace {} is not mounted", taken.record.name),
            format!("`acetate ws mount {name}` mounts it"),
        )),
    }
}

/// Removes a workspace, with its changes.
///
/// # Errors
/// InUse where it is mounted and `insist` does not say to unmount it.
pub fn remove(store: &Store, name: &str, insist: Insist) -> Outcome<()> {
    let Taken { record, lock } = take_any(store, name)?;
    if let (Some(at), Insist::Yes) = (live::mounted_at(store, name), insist) {
        live::unmount(&at, insist)?;
    }
    let held = idle(store, &record)?;
    own_files::reach();
    store.remove_workspace(name, lock)?;
    if record.kind == WorkspaceKind::Copy {
        unlink(&store.copy_path(name), &record.mountpoint);
    }
    drop(held);
    Ok(())
}

/// Fails where a workspace is mounted. While the value lives nobody mounts it.
pub fn idle(store: &Store, record: &WorkspaceRecord) -> Outcome<Option<OwnedFd>> {
    match live::state(store, record)? {
        State::Unmounted(held) => Ok(held),
        State::Mounted(at) => Err(live::busy(
            record,
            &format!("mounted at {}", at.display()),
            format!("`acetate ws unmount {}` first", record.name),
        )),
        State::Elsewhere(who) => Err(in_use(record, &who)),
    }
}

/// Throws a workspace's changes away.
pub fn reset(store: &Store, name: &str) -> Outcome<()> {
    own_files::reach();
    let taken = take(store, name)?;
    check_writable(&taken.record)?;
    let _held = idle(store, &taken.record)?;
    if taken.record.kind == WorkspaceKind::Copy {
        let staging = store.stage()?;
        copied::write::write(store, &taken.record, staging.dir())?;
        return store.replace_copy(name, &staging);
    }
    let trees = stack::trees(store, &taken.record.lowers)?;
    empty_upper(store, name, &trees)?;
    store.replace_workspace(&taken.record.begun_now())
}

/// Gives a workspace an upper without changes in the place of the one it has.
pub fn empty_upper(store: &Store, name: &str, trees: &[PathBuf]) -> Outcome<()> {
    let staging = store.stage()?;
    let failed = |e| Failure::system(staging.path(), "be written", e);
    for part in [layout::UPPER, layout::WORK] {
        dir::mkdir(staging.dir().as_fd(), part, 0o755).map_err(failed)?;
    }
    let upper = open(staging.dir(), layout::UPPER).map_err(failed)?;
    dress_like_top(trees, &upper)?;
    store.replace_upper(name, &staging)
}

/// Fails for a view, which has no changes.
pub fn check_writable(record: &WorkspaceRecord) -> Outcome<()> {
    match record.kind {
        WorkspaceKind::Overlay | WorkspaceKind::Copy => Ok(()),
        WorkspaceKind::View => Err(Failure::new(
            FailureKind::Usage,
            format!("{} is a read-only view: it has no changes", record.name),
            "`acetate ws create` makes a workspace that can be written to",
        )),
    }
}

/// A second workspace with the same layers and a copy of the changes.
pub fn clone(store: &Store, name: &str, new: &NewWorkspace) -> Outcome<Done> {
    store.check_workspace_free(&new.name)?;
    // Of two workspaces the one that comes first by name is locked first.
    let (taken, lock) = if *name < *new.name {
        let taken = take(store, name)?;
        (
            taken,
            store.lock(Object::Workspace(&new.name), Hold::Alone)?,
        )
    } else {
        let lock = store.lock(Object::Workspace(&new.name), Hold::Alone)?;
        (take(store, name)?, lock)
    };
    let held = idle(store, &taken.record)?;
    let mut record = taken.record.clone();
    record.name.clone_from(&new.name);
    record.mountpoint = place(store, record.kind, &new.name, new.mountpoint.as_deref())?;
    record.created = now();
    let prepared = store.prepare_workspace(&record)?;
    match record.kind {
        WorkspaceKind::Overlay => copy_changes(store, name, prepared.folder())?,
        WorkspaceKind::Copy => copied::write::clone(store, name, prepared.folder())?,
        WorkspaceKind::View => {}
    }
    let kept = store.keep_contents(&record)?;
    store.publish_workspace(prepared, &record, &kept)?;
    drop(held);
    let warnings = match show(store, &record, new.mount) {
        Err(e) if record.kind == WorkspaceKind::Copy => {
            store.remove_workspace(&record.name, lock)?;
            return Err(e);
        }
        r => r?,
    };
    drop(lock);
    Ok(Done { record, warnings })
}

/// Copies upper and index: the anchors in the index are further names of the
/// upper's files, and lead their other names to them.
fn copy_changes(store: &Store, name: &str, to: &Arc<OwnedFd>) -> Outcome<()> {
    let path = store.workspace_path(name).join("upper");
    let failed = |e| Failure::system(&path, "be copied", e);
    let from = store.workspace_folder(name)?;
    copy_parts(&from, to).map_err(failed)
}

fn copy_parts(from: &Arc<OwnedFd>, to: &Arc<OwnedFd>) -> crate::sys::Result<()> {
    let (upper, new_upper) = (open(from, layout::UPPER)?, open(to, layout::UPPER)?);
    dir::mkdir(to.as_fd(), b"links", 0o700)?;
    let mut links = Links::new(open(to, b"links")?);
    copy::copy_tree(&upper, &new_upper, &mut links, Marks::All)?;
    if let Ok(index) = open(&open(from, layout::WORK)?, b"index") {
        let work = open(to, layout::WORK)?;
        dir::mkdir(work.as_fd(), b"index", 0o700)?;
        let new_index = open(&work, b"index")?;
        copy::copy_tree(&index, &new_index, &mut links, Marks::All)?;
        // It names the upper that it belonged to; the next mount claims it.
        for mark in ["trusted.overlay.upper", "user.overlay.upper"] {
            match xattr::remove(&Spot::fd(new_index.clone()), mark.as_bytes()) {
                Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
                Err(e) => return Err(e),
            }
        }
    }
    crate::sys::tree::remove(to, b"links")?;
    crate::sys::file::sync_fs(new_upper.as_fd())
}

/// The paths of a workspace that other tools are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Where it is mounted.
    Merged,
    /// Where its changes are.
    Upper,
}

/// A path, and what the workspace is now.
pub fn path(store: &Store, name: &str, which: Which) -> Outcome<Tree> {
    let record = store.workspace(name)?;
    if which == Which::Merged {
        return Ok(Tree::of(store, &record));
    }
    check_writable(&record)?;
    if record.kind == WorkspaceKind::Copy {
        let what = format!("the workspace {name} is a plain copy: its changes are in its tree");
        let hint = format!("`acetate ws diff {name}` says what they are");
        return Err(Failure::new(FailureKind::Usage, what, hint));
    }
    end_commit(store, name)?;
    Ok(match live::mounted_at(store, name) {
        Some(_) => Tree::Mounted(store.workspace_path(name).join("upper")),
        None => Tree::Unmounted(store.workspace_path(name).join("upper")),
    })
}

/// How a lower is called.
pub fn shown(lower: &Lower) -> String {
    match lower {
        Lower::Layer(layer) => layer.name.clone(),
        Lower::Directory { directory } => directory.display().to_string(),
    }
}
