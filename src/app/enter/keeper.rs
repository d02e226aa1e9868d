//! The process that mounts the tree where only the command will see it, and takes
//! it away again.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tell::Tell;
use super::{CANNOT, Entry, Plan, Tree, init};
use crate::app::live::{self, Insist};
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::sys::namespace::{self, Own};
use crate::sys::places::{self, Made, Want};
use crate::sys::process::{self, ByteReader, Fork};
use crate::sys::{Errno, dir, relay};

/// How long the daemon may take to write what it has and end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Directories of a root that something is mounted on.
pub(super) const ROOMS: [&str; 4] = ["/proc", "/dev", "/tmp", "/sys"];

/// All of this process's life.
pub(super) fn keep(plan: Plan<'_>, mut tell: Tell, mut go: ByteReader) -> ! {
    let bound = namespace::die_with_parent();
    // The parent tells when our ids are known; where it is gone nobody does.
    if go.wait().is_none() {
        process::leave(i32::from(CANNOT));
    }
    drop(go);
    let ended = bound
        .map_err(|e| Failure::system(Path::new("this process"), "be bound to its parent", e))
        .and_then(|()| work(plan, &mut tell));
    let code = ended.unwrap_or_else(|failure| {
        tell.failed(failure);
        CANNOT
    });
    process::leave(i32::from(code))
}

fn work(plan: Plan<'_>, tell: &mut Tell) -> Outcome<u8> {
    let Plan {
        store,
        tree,
        entry,
        job,
    } = plan;
    places::make_own().map_err(|e| {
        tell.no_namespaces();
        let why = crate::store::failure::reason(e);
        Failure::new(
            FailureKind::Mount,
            format!("in the new namespace nothing can be mounted: {why}"),
            "AppArmor may give programs namespaces without rights in them: see `acetate doctor`",
        )
    })?;
    // The daemon looks its callers up by their numbers in this PID namespace.
    let own_proc = dir::open_root(Path::new("/proc")).and_then(|at| places::proc(&at));
    crate::sys::best_effort("mount /proc for the daemon", own_proc);
    let (at, hidden) = match tree {
        Tree::There(path) | Tree::Plain(path) => (path, false),
        Tree::Hidden(mut record, lock) => {
            record.mountpoint = store.workspace_path(&record.name).join("merged");
            for warning in live::mount(store, &record)? {
                // Of a view over a directory that holds the store: it is hidden.
                if !warning.contains("lies inside a lowerdir") {
                    tell.warn(warning);
                }
            }
            drop(lock);
            (record.mountpoint, true)
        }
    };
    let ended = within(&at, &entry, &job, tell);
    let unmounted = match hidden {
        true => live::unmount(&at, Insist::Yes),
        false => Ok(()),
    };
    relay::until_none(PATIENCE);
    // What went wrong first is told.
    let code = ended?;
    unmounted.map(|()| code)
}

/// The command's whole life, in a tree that is there.
fn within(at: &Path, entry: &Entry, job: &super::Job, tell: &mut Tell) -> Outcome<u8> {
    let failed = |e| Failure::system(at, "be entered", e);
    let root = dir::open_root(at).map_err(failed)?;
    let made = match entry {
        Entry::AsRoot(binds) => make_rooms(&root, binds, tell)?,
        Entry::Over { .. } => Vec::new(),
    };
    let ended = match namespace::fork_into(Own::MountsAndProcesses) {
        Ok(Fork::Child) => init::begin(at, entry, job, tell),
        Ok(Fork::Parent(init)) => {
            places::forget_others(at);
            Ok(relay::until_end(init))
        }
        Err(e) => {
            tell.no_namespaces();
            Err(failed(e))
        }
    };
    places::take_away(made);
    ended
}

/// Makes what has to be there to be mounted on.
fn make_rooms(root: &OwnedFd, binds: &[super::Bind], tell: &mut Tell) -> Outcome<Vec<Made>> {
    let mut made = Vec::new();
    for room in ROOMS {
        match places::ensure(root.as_fd(), Path::new(room), Want::Directory) {
            Ok(new) => made.extend(new),
            Err(Errno::EROFS) => tell.warn(format!(
                "the tree has no {room} and is read only: there will be none"
            )),
            Err(e) => return Err(undone(made, room.into(), e)),
        }
    }
    for bind in binds {
        let want = match bind.source.is_dir() {
            true => Want::Directory,
            false => Want::File,
        };
        match places::ensure(root.as_fd(), &bind.target, want) {
            Ok(new) => made.extend(new),
            Err(e) => return Err(undone(made, bind.target.clone(), e)),
        }
    }
    Ok(made)
}

fn undone(made: Vec<Made>, path: PathBuf, e: Errno) -> Failure {
    places::take_away(made);
    Failure::system(&path, "be made in the tree", e)
}
