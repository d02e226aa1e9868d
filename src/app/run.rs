//! `acetate run`: a command with a workspace as its root directory.

use std::path::Path;

use super::commit::{self, How};
use super::enter::{self, Bind, Entry, Ids, Job, NotRun, Tree};
use super::layer::{Made, NewLayer};
use super::live::{self, State};
use super::stack;
use super::workspace::{self, Mounting, NewWorkspace, Taken};
use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::store::record::{WorkspaceKind, WorkspaceRecord, now};

/// Which workspace.
#[derive(Debug, Clone)]
pub enum Which {
    /// One that is there, mounted or not.
    There(String),
    /// A new one; without a name one is found.
    New(NewWorkspace),
}

/// What becomes of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It stays.
    Keep,
    /// It is removed, with its changes.
    Remove,
}

/// All that was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The workspace.
    pub which: Which,
    /// What to run.
    pub job: Job,
    /// What of the host is seen inside.
    pub binds: Vec<Bind>,
    /// The layer that the changes become where the command succeeds.
    pub commit: Option<NewLayer>,
    /// What becomes of the workspace.
    pub after: After,
}

/// What a run came to.
#[derive(Debug)]
pub struct Done {
    /// The command's exit code.
    pub code: u8,
    /// Warnings of the mount.
    pub warnings: Vec<String>,
    /// The workspace that was made and stays.
    pub kept: Option<String>,
    /// The layer that was made.
    pub layer: Option<Made>,
}

/// Runs it.
///
/// # Errors
/// The command was not run; or it was, and what was to follow failed: the exit code
/// is 125 all the same. A workspace that was made and not used is removed.
pub fn run(store: &Store, request: Request) -> Result<Done, NotRun> {
    if let Some(layer) = &request.commit {
        store.check_free(&layer.name)?;
    }
    let made = matches!(request.which, Which::New(_));
    let record = match request.which {
        Which::There(name) => store.workspace(&name)?,
        Which::New(new) => create(store, new, "run")?,
    };
    let name = record.name.clone();
    let mut job = request.job;
    job.ids = ids(store, &record)?;
    let entry = Entry::AsRoot(request.binds);
    let ended = check(store, &record, request.commit.is_some(), request.after)
        .and_then(|()| tree_of(store, &name))
        .map_err(NotRun::from)
        .and_then(|tree| enter::run(store, tree, entry, job));
    let ended = match ended {
        Ok(ended) => ended,
        Err(why) => {
            if made {
                drop_new(store, &name);
            }
            return Err(why_not(why, record.kind));
        }
    };
    let layer = match request.commit {
        Some(layer) if ended.code == 0 => Some(commit::commit(store, &name, &layer, How::Changes)?),
        _ => None,
    };
    if request.after == After::Remove {
        workspace::remove(store, &name, live::Insist::No)?;
    }
    Ok(Done {
        code: ended.code,
        warnings: ended.warnings,
        kept: (made && request.after == After::Keep).then_some(name),
        layer,
    })
}

/// Makes a workspace that is not mounted; one without a name gets one.
pub(super) fn create(store: &Store, mut new: NewWorkspace, kind: &str) -> Outcome<WorkspaceRecord> {
    new.mount = Mounting::Later;
    if !new.name.is_empty() {
        return Ok(workspace::create(store, &new)?.record);
    }
    let stamp: String = now().chars().filter(char::is_ascii_digit).collect();
    for count in 0..1_000_u32 {
        new.name = match count {
            0 => format!("{kind}-{stamp}-{}", std::process::id()),
            _ => format!("{kind}-{stamp}-{}-{count}", std::process::id()),
        };
        match workspace::create(store, &new) {
            Err(e) if e.kind == FailureKind::Exists => {}
            r => return Ok(r?.record),
        }
    }
    Err(Failure::new(
        FailureKind::Exists,
        "no name was found for the new workspace",
        "give it one with --name",
    ))
}

/// Takes a workspace away that was made for nothing.
pub(super) fn drop_new(store: &Store, name: &str) {
    if let Err(e) = workspace::remove(store, name, live::Insist::Yes) {
        tracing::warn!("the workspace {name} is left: {e}");
    }
}

/// What can be seen beforehand to fail.
fn check(store: &Store, record: &WorkspaceRecord, commits: bool, after: After) -> Outcome<()> {
    if commits {
        workspace::check_writable(record)?;
    }
    if after == After::Remove && live::mounted_at(store, &record.name).is_some() {
        let how = "mounted, and could not be removed afterwards";
        let hint = format!("`acetate ws unmount {}` first", record.name);
        return Err(live::busy(record, how, hint));
    }
    Ok(())
}

/// Where a workspace's tree is: mounted, or to be mounted.
pub(super) fn tree_of(store: &Store, name: &str) -> Outcome<Tree> {
    let Taken { record, lock } = workspace::take(store, name)?;
    if record.kind == WorkspaceKind::Copy {
        return Ok(Tree::Plain(store.copy_path(&record.name)));
    }
    match live::state(store, &record)? {
        State::Mounted(at) => Ok(Tree::There(at)),
        State::Elsewhere(who) => Err(workspace::in_use(&record, &who)),
        State::Unmounted(held) => {
            // The daemon needs the upper's own lock.
            drop(held);
            Ok(Tree::Hidden(Box::new(record), lock))
        }
    }
}

/// Subordinate ids are of use where the owners of files stand in xattrs: on disk
/// everything stays the caller's. Else the caller could not remove what such a user
/// leaves behind.
fn ids(store: &Store, record: &WorkspaceRecord) -> Outcome<Ids> {
    let mounted = live::mounted_at(store, &record.name).is_some();
    let disguised =
        record.kind == WorkspaceKind::Overlay && stack::is_disguised(store, &record.lowers)?;
    // A mount of fusermount3 lets nobody in but its owner.
    match disguised && !mounted {
        true => Ok(Ids::Subordinate),
        false => Ok(Ids::CallersOnly),
    }
}

/// Adds what there is to do where a tree cannot be mounted.
fn why_not(mut why: NotRun, kind: WorkspaceKind) -> NotRun {
    if why.failure.kind == FailureKind::Mount && kind != WorkspaceKind::Copy {
        let instead = "`--copy` runs it in a plain copy of the tree, where namespaces or chroot(2) can be had";
        why.failure.hint = match why.failure.hint.is_empty() {
            true => instead.to_owned(),
            false => format!("{}; {instead}", why.failure.hint),
        };
    }
    why
}

/// A path on the host and one in the tree, as `SRC[:DST][:ro]` has them.
pub fn bind_of(word: &Path) -> Outcome<Bind> {
    use std::os::unix::ffi::OsStrExt;
    let wrong = |why: &str| {
        let what = format!("--bind {}: {why}", word.display());
        Failure::new(FailureKind::Usage, what, "write --bind SRC[:DST][:ro]")
    };
    let bytes = word.as_os_str().as_bytes();
    let (bytes, access) = match bytes.strip_suffix(b":ro") {
        Some(rest) => (rest, enter::Access::Read),
        None => (bytes, enter::Access::Write),
    };
    let path = |bytes: &[u8]| Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned();
    let mut parts = bytes.split(|b| *b == b':').map(path);
    let source = parts.next().unwrap_or_default();
    let source = std::path::absolute(&source)
        .ok()
        .filter(|p| p.exists())
        .ok_or_else(|| wrong("there is no such file or directory"))?;
    let target = parts.next().unwrap_or_else(|| source.clone());
    if parts.next().is_some() {
        return Err(wrong("there are too many colons"));
    }
    let goes_up = target
        .components()
        .any(|c| c == std::path::Component::ParentDir);
    if !target.is_absolute() || target == Path::new("/") || goes_up {
        return Err(wrong(
            "the place in the tree is an absolute path below /, without `..`",
        ));
    }
    Ok(Bind {
        source,
        target,
        access,
    })
}
