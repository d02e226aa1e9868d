//! `acetate try`: a command over a view of a live directory, which stays as it is.
//!
//! The view lies over the directory itself, in a mount namespace of the command's
//! own: every path leads to where it did. What is mounted below the directory is no
//! part of the view, as with kernel overlayfs: the mount points are there, without.
//! For `/` the host's /dev and /sys are put in, and a /proc and a /dev/shm of the
//! command's own.
//!
//! The store is an empty directory in there, wherever it is seen: the command cannot
//! get at the upper.

use std::path::{Path, PathBuf};

use super::diff::{self, Change};
use super::enter::{self, Entry, Ids, Job, NotRun, Tree, User};
use super::run::{create, drop_new, tree_of};
use super::stack::Asked;
use super::workspace::{Mounting, NewWorkspace};
use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::store::record::WorkspaceKind;
use crate::sys::mountinfo::{self, MountLine};
use crate::sys::{Errno, process};

/// All that was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The directory; the current one where none is named.
    pub directory: Option<PathBuf>,
    /// The workspace's name; empty: one is found.
    pub name: String,
    /// Words for `-o`, checked already.
    pub options: Vec<String>,
    /// What to run; where and as whom is for [`attempt`] to say.
    pub job: Job,
}

/// What it came to.
#[derive(Debug)]
pub struct Done {
    /// The command's exit code.
    pub code: u8,
    /// Warnings of the mount.
    pub warnings: Vec<String>,
    /// What is other in the view than in the directory.
    pub changes: Vec<Change>,
    /// The workspace that holds the changes; none where there are none and nobody
    /// gave it a name.
    pub kept: Option<String>,
    /// The directory.
    pub directory: PathBuf,
}

/// Runs it.
///
/// # Errors
/// The command was not run, above all where the view could not be had; or what it
/// changed cannot be read.
pub fn attempt(store: &Store, request: Request) -> Result<Done, NotRun> {
    let here = std::env::current_dir()
        .map_err(|e| Failure::system(Path::new("."), "be found", Errno::from_io(&e)))?;
    let directory = real(request.directory.as_deref().unwrap_or(&here))?;
    let root = real(store.path())?;
    if directory.starts_with(&root) {
        return Err(Failure::new(
            FailureKind::Usage,
            format!("{} is in the store itself", directory.display()),
            "the store is hidden from the command: name another directory, or another store (--root)",
        )
        .into());
    }
    let named = !request.name.is_empty();
    let new = NewWorkspace {
        name: request.name,
        kind: WorkspaceKind::Overlay,
        layers: vec![Asked::Layer(directory.clone())],
        options: options(&directory, request.options),
        mountpoint: None,
        mount: Mounting::Later,
    };
    let name = create(store, new, "try")?.name;
    let (uid, gid) = process::effective_ids();
    let job = Job {
        directory: here,
        user: User::Ids(uid, gid),
        // What the command makes must be the caller's, who is to remove or apply it.
        ids: Ids::CallersOnly,
        ..request.job
    };
    let entry = Entry::Over {
        directory: directory.clone(),
        hidden: places_of(&root, &mountinfo::read().unwrap_or_default()),
    };
    let ended = tree_of(store, &name)
        .map(squashed_inside)
        .map_err(NotRun::from)
        .and_then(|tree| enter::run(store, tree, entry, job));
    let ended = match ended {
        Ok(ended) => ended,
        Err(why) => {
            drop_new(store, &name);
            return Err(why);
        }
    };
    let changes = diff::of_workspace(store, &name)?;
    let kept = named || !changes.is_empty();
    if !kept {
        drop_new(store, &name);
    }
    Ok(Done {
        code: ended.code,
        warnings: ended.warnings,
        changes,
        kept: kept.then_some(name),
        directory,
    })
}

/// Hard links come apart when they are written to, as with kernel overlayfs without an
/// index: where the other names are would have to be searched for in all of the
/// directory when the changes are applied.
fn options(directory: &Path, given: Vec<String>) -> Vec<String> {
    let own = std::iter::once("index=off".to_owned()).chain(squashed(directory));
    // What was asked for comes later, and counts.
    own.chain(given).collect()
}

/// In a directory of somebody else's an ordinary user's view shows everything as the
/// caller's: else nothing could be copied up, as the caller cannot give files to others.
fn squashed(directory: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let (uid, gid) = process::effective_ids();
    let found = directory.metadata().ok()?;
    let own = (found.uid(), found.gid()) == (uid, gid);
    (!own && !process::may_mount()).then(|| format!("squash_to_uid={uid},squash_to_gid={gid}"))
}

/// The same for the user namespace that is made: the caller is its root.
fn squashed_inside(mut tree: Tree) -> Tree {
    if let Tree::Hidden(record, _) = &mut tree
        && record.squashes()
        && !process::may_mount()
    {
        record.options.push("squash_to_root".to_owned());
    }
    tree
}

fn real(path: &Path) -> Outcome<PathBuf> {
    path.canonicalize()
        .map_err(|e| Failure::system(path, "be found", Errno::from_io(&e)))
}

/// Every path that leads to a directory or into it, by the mounts there are: itself,
/// and where its file system is mounted a second time.
fn places_of(directory: &Path, mounts: &[MountLine]) -> Vec<PathBuf> {
    let mut places = vec![directory.to_owned()];
    // Of two mounts at one place the later one is seen.
    let holding = mounts
        .iter()
        .filter(|line| directory.starts_with(&line.mountpoint))
        .max_by_key(|line| line.mountpoint.components().count());
    let Some(holding) = holding else {
        return places;
    };
    let Ok(below) = directory.strip_prefix(&holding.mountpoint) else {
        return places;
    };
    let inner = holding.root.join(below);
    for line in mounts.iter().filter(|l| l.device == holding.device) {
        let place = match inner.strip_prefix(&line.root) {
            Ok(rest) => line.mountpoint.join(rest),
            Err(_) if line.root.starts_with(&inner) => line.mountpoint.clone(),
            Err(_) => continue,
        };
        // As it is without a slash at its end.
        let place: PathBuf = place.components().collect();
        if !places.contains(&place) && is_the_same(directory, &place, &line.root, &inner) {
            places.push(place);
        }
    }
    places
}

/// Whether a mount shows that directory there, and nothing lies over it. A mount of
/// a part of it is taken at its word.
fn is_the_same(directory: &Path, place: &Path, root: &Path, inner: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    if root != inner && root.starts_with(inner) {
        return true;
    }
    match (directory.metadata(), place.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_seen_at_two_places_is_hidden_at_both() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().canonicalize().unwrap();
        std::fs::create_dir(store.join("workspaces")).unwrap();
        let line = |root: &Path, mountpoint: &Path, device: u32| {
            let text = format!(
                "30 1 0:{device} {} {} rw - ext4 /dev/x rw\n",
                root.display(),
                mountpoint.display()
            );
            mountinfo::parse(text.as_bytes()).remove(0)
        };
        let mounts = [
            line(Path::new("/"), Path::new("/"), 1),
            // Another file system with the same path in it.
            line(Path::new("/"), Path::new("/other"), 2),
            // The same, seen by a path that leads to the same object here.
            line(&store, &store.join("."), 1),
            line(&store.join("workspaces"), Path::new("/part"), 1),
        ];
        let places = places_of(&store, &mounts);
        assert_eq!(places, [store.clone(), PathBuf::from("/part")]);
    }
}
