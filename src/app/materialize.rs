//! Writing a merged view out as a plain tree.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::sys::dir::{self, Rename};
use crate::sys::{Errno, file};

use super::copy::{Links, Owners};
use super::own_files;
use super::stack;
use super::view::View;
use super::workspace::NewWorkspace;

/// Writes the view at its mount point, which must not exist or be empty.
///
/// # Crash
/// The tree is made beside its place and renamed when it is complete; what a crash
/// leaves is called `.NAME.acetate-PID`.
pub fn copy(store: &Store, new: &NewWorkspace) -> Outcome<PathBuf> {
    own_files::reach();
    crate::store::layers::check_name(&new.name)?;
    let target = new.mountpoint.as_deref().ok_or_else(|| {
        let what = "--copy needs the path to write to";
        Failure::new(FailureKind::Usage, what, "give it with -m PATH")
    })?;
    let target = std::path::absolute(target)
        .map_err(|e| Failure::system(target, "be found", Errno::from_io(&e)))?;
    let lowers = stack::resolve(store, &new.layers)?;
    let owners = stack::owners(store, &lowers)?;
    let view = View::keeping(&stack::trees(store, &lowers)?, owners)?;
    let (above, name) = target.parent().zip(target.file_name()).ok_or_else(|| {
        Failure::new(
            FailureKind::Usage,
            "a tree cannot be written at /",
            "name a directory",
        )
    })?;
    let failed = |e| Failure::system(&target, "be written", e);
    let parent = Arc::new(dir::open_root(above).map_err(failed)?);
    let aside = format!(".{}.acetate-{}", name.to_string_lossy(), std::process::id());
    let aside = aside.as_bytes();
    dir::mkdir(parent.as_fd(), aside, 0o700).map_err(failed)?;
    let written = write(&view, &parent, aside, owners).and_then(|()| {
        let to = (parent.as_fd(), std::os::unix::ffi::OsStrExt::as_bytes(name));
        let tree = [aside, b"/tree"].concat();
        match dir::rename((parent.as_fd(), &tree), to, Rename::Replace) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => Err(Failure::new(
                FailureKind::Exists,
                format!("{} exists and is no empty directory", target.display()),
                "name a path that does not exist yet",
            )),
            r => r
                .and_then(|()| dir::fsync_dir(parent.as_fd()))
                .map_err(failed),
        }
    });
    let removed = crate::sys::tree::remove(&parent, aside);
    crate::sys::best_effort("remove what was written aside", removed);
    written.map(|()| target.clone())
}

fn write(
    view: &View,
    parent: &Arc<std::os::fd::OwnedFd>,
    aside: &[u8],
    owners: Owners,
) -> Outcome<()> {
    let failed =
        |path: PathBuf, e| Failure::system(&PathBuf::from("/").join(path), "be written out", e);
    let here = |e| failed(PathBuf::new(), e);
    let open = |dir: &Arc<std::os::fd::OwnedFd>, name: &[u8]| {
        dir::open_dir_at(dir.as_fd(), name, dir::Cross::Refuse).map(Arc::new)
    };
    let folder = open(parent, aside).map_err(here)?;
    for part in [&b"tree"[..], b"links"] {
        dir::mkdir(folder.as_fd(), part, 0o700).map_err(here)?;
    }
    let tree = open(&folder, b"tree").map_err(here)?;
    let mut links = Links::new(open(&folder, b"links").map_err(here)?);
    let root = view
        .at(std::iter::empty())
        .map_err(here)?
        .ok_or_else(|| here(Errno::ENOENT))?;
    view.write_out(&root, &tree, &mut links, owners.into())
        .map_err(|(path, e)| failed(path, e))?;
    file::sync_fs(tree.as_fd()).map_err(here)
}
