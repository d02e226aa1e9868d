//! Mounts of workspaces: made by a process of their own, found in the mount table.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::overlay::setup::SetupError;
use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::store::record::{Lower, WorkspaceKind, WorkspaceRecord};
use crate::sys::{Errno, dir, file, holder, mountinfo, stat};

use super::stack;
use super::unmount::{self, How, Trouble};

/// The program, as its own processes start it again.
const SELF: &str = "/proc/self/exe";

/// Where a workspace is mounted.
#[derive(Debug)]
pub enum State {
    /// Nowhere. While this is held nobody can mount it.
    Unmounted(Option<OwnedFd>),
    /// There.
    Mounted(PathBuf),
    /// Where this process cannot see it: in another namespace.
    Elsewhere(String),
}

/// The source that a workspace's mount shows in the mount table.
fn source_of(store: &Store, name: &str) -> PathBuf {
    store.workspace_path(name)
}

/// Where a workspace is mounted, as the mount table has it.
pub fn mounted_at(store: &Store, name: &str) -> Option<PathBuf> {
    mounts().find(source_of(store, name).as_os_str())
}

/// The mount table, read once.
#[derive(Debug)]
pub struct Mounts(Vec<mountinfo::MountLine>);

/// Reads it; empty where there is no /proc.
pub fn mounts() -> Mounts {
    let mut lines = mountinfo::read().unwrap_or_default();
    lines.retain(|line| line.fstype.starts_with("fuse"));
    Mounts(lines)
}

impl Mounts {
    fn find(&self, source: &OsStr) -> Option<PathBuf> {
        let line = self.0.iter().rev().find(|line| line.source == source);
        line.map(|line| line.mountpoint.clone())
    }

    /// Where a workspace is mounted.
    pub fn of(&self, store: &Store, name: &str) -> Option<PathBuf> {
        self.find(source_of(store, name).as_os_str())
    }
}

/// Finds out where a workspace is mounted. The caller holds its lock, so that
/// nobody mounts it through us meanwhile; the upper's own lock keeps others away.
pub fn state(store: &Store, record: &WorkspaceRecord) -> Outcome<State> {
    if let Some(at) = mounted_at(store, &record.name) {
        return Ok(State::Mounted(at));
    }
    if record.kind != WorkspaceKind::Overlay {
        return Ok(State::Unmounted(None));
    }
    let path = store.workspace_path(&record.name).join("upper");
    let failed = |e| Failure::system(&path, "be opened", e);
    let upper = dir::open_root(&path).and_then(|fd| dir::open_readable(fd.as_fd()));
    let upper = upper.map_err(failed)?;
    // A daemon whose mount was just taken away may be ending.
    for _ in 0..100 {
        match file::try_lock(upper.as_fd()) {
            Ok(()) => return Ok(State::Unmounted(Some(upper))),
            Err(Errno::EBUSY) => std::thread::sleep(std::time::Duration::from_millis(10)),
            Err(_) => return Ok(State::Unmounted(None)),
        }
    }
    let found = stat::of_descriptor(upper.as_fd()).map_err(failed)?;
    let holder = holder::of_lock(found.dev, found.ino);
    Ok(State::Elsewhere(holder.map_or_else(
        || "by another process".to_owned(),
        |pid| format!("by process {pid}"),
    )))
}

/// The failure for a workspace that is in use.
pub fn busy(record: &WorkspaceRecord, how: &str, hint: String) -> Failure {
    let what = format!("the workspace {} is {how}", record.name);
    Failure::new(FailureKind::InUse, what, hint)
}

/// Mounts a workspace; what a person should be told.
///
/// A process of its own becomes the daemon, started as `acetate mount` is: it
/// takes over none of our descriptors, locks among them.
pub fn mount(store: &Store, record: &WorkspaceRecord) -> Outcome<Vec<String>> {
    let lowers = stack::trees(store, &record.lowers)?;
    make_mountpoint(&record.mountpoint)?;
    let mut command = Command::new(SELF);
    command.arg("mount");
    for option in options(store, record)? {
        command.arg("-o").arg(option);
    }
    for lower in lowers {
        command.arg("--lower").arg(lower);
    }
    for (at, lower) in record.lowers.iter().enumerate() {
        let Lower::Layer(layer) = lower else { continue };
        let path = store.side_records_path(&layer.diff_id);
        // Of a disguised layer it says something that there are none.
        if store.content(&layer.diff_id)?.disguised || path.exists() {
            let mut word = OsString::from(format!("{}=", at + 1));
            word.push(path);
            command.arg("--side-records").arg(word);
        }
    }
    if record.kind == WorkspaceKind::Overlay {
        let folder = store.workspace_path(&record.name);
        command.arg("--upper").arg(folder.join("upper"));
        command.arg("--work").arg(folder.join("work"));
    }
    command.arg("--").arg(&record.mountpoint);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let said = command.output().map_err(|e| {
        let what = format!("the serving process cannot be started: {e}");
        Failure::new(
            FailureKind::Mount,
            what,
            "the limit of processes may be reached",
        )
    })?;
    let lines = String::from_utf8_lossy(&said.stderr).into_owned();
    match said.status.success() {
        true => Ok(told(&lines, "warning: ")),
        false => Err(why_not(record, &lines)),
    }
}

/// Refuses what a workspace that is to become a layer cannot have.
pub fn check_options(kind: WorkspaceKind, options: &[String]) -> Outcome<()> {
    let mut words = options.iter().flat_map(|o| o.split(','));
    match kind == WorkspaceKind::Overlay && words.any(|w| w.trim() == "passthrough=on") {
        false => Ok(()),
        true => Err(Failure::new(
            FailureKind::Usage,
            "passthrough=on is not for workspaces: what is open so could be written after it has become a layer",
            "leave it out; a read-only view (materialize) and a mount by hand may have it",
        )),
    }
}

fn options(store: &Store, record: &WorkspaceRecord) -> Outcome<Vec<OsString>> {
    let mut options: Vec<OsString> = Vec::new();
    if record.kind == WorkspaceKind::Overlay && stack::is_disguised(store, &record.lowers)? {
        options.push("xattr_permissions=2".into());
    }
    options.extend(record.options.iter().map(OsString::from));
    if record.kind == WorkspaceKind::Overlay {
        // Whatever was asked for: after a SIGKILL of the daemon, files that are open so
        // could still be written in what has become a layer.
        options.push("passthrough=off".into());
    }
    // Last, so that it counts: it is how the mount is found again.
    let mut source = b"fsname=".to_vec();
    for byte in source_of(store, &record.name).as_os_str().as_bytes() {
        if matches!(byte, b',' | b'\\') {
            source.push(b'\\');
        }
        source.push(*byte);
    }
    options.push(OsString::from_vec(source));
    Ok(options)
}

fn make_mountpoint(path: &Path) -> Outcome<()> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Failure::system(
            path,
            "be made a mount point",
            Errno::from_io(&e),
        )),
    }
}

/// The sentences of one kind in what `acetate mount` said.
fn told(lines: &str, kind: &str) -> Vec<String> {
    let prefix = format!("acetate: {kind}");
    lines
        .lines()
        .filter_map(|l| l.strip_prefix(&prefix))
        .map(str::to_owned)
        .collect()
}

fn why_not(record: &WorkspaceRecord, lines: &str) -> Failure {
    let why = told(lines, "error: ").join("; ");
    let why = if why.is_empty() { lines.trim() } else { &why };
    let hint = told(lines, "hint: ").join("; ");
    Failure::new(
        FailureKind::Mount,
        format!("the workspace {} cannot be mounted: {why}", record.name),
        hint,
    )
}

/// Whether to insist on an unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insist {
    /// Refused while it is in use.
    No,
    /// Taken out of sight at once.
    Yes,
}

/// Takes a workspace's mount away.
pub fn unmount(at: &Path, insist: Insist) -> Outcome<()> {
    let how = match insist {
        Insist::No => How::WhenIdle,
        Insist::Yes => How::Lazy,
    };
    unmount::unmount(at, how).map_err(|trouble| {
        let (kind, error): (FailureKind, SetupError) = match trouble {
            Trouble::NotMounted(e) => (FailureKind::NotFound, e),
            Trouble::Busy(e) => (FailureKind::InUse, e),
            Trouble::Other(e) => (FailureKind::General, e),
        };
        Failure::new(kind, error.what, error.hint)
    })
}
