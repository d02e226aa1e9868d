//! Removes what an archive itself put into a tree and then replaced.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::trail::Trail;
use crate::sys::{Errno, Result, dir};

/// Removes `name` and all below it, however deep.
pub(super) fn tree(parent: &Arc<OwnedFd>, name: &[u8]) -> Result<()> {
    match dir::unlink(parent.as_fd(), name) {
        Err(Errno::EISDIR | Errno::EPERM) => {}
        r => return r,
    }
    let mut trail = Trail::new(parent.clone(), Vec::new())?;
    let mut next = Some(name.to_vec());
    let mut names = Vec::new();
    loop {
        match next.take() {
            Some(name) => {
                let opened = trail.open(&name)?;
                let inside = clear_files(&opened.0)?;
                trail.enter(&name, opened, inside);
                names.push(name);
            }
            None => {
                trail.leave()?;
                let Some(name) = names.pop() else {
                    return Ok(());
                };
                dir::rmdir(trail.fd()?.as_fd(), &name)?;
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        next = trail.here_mut().pop();
    }
}

/// Removes all but the directories of one directory, and names those.
fn clear_files(fd: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut inside = Vec::new();
    dir::list(fd.as_fd(), |entry| inside.push(entry.name))?;
    let mut dirs = Vec::new();
    for name in inside {
        match dir::unlink(fd.as_fd(), &name) {
            Err(Errno::EISDIR | Errno::EPERM) => dirs.push(name),
            r => r?,
        }
    }
    Ok(dirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_and_deep_trees_go_and_their_neighbours_stay() {
        let tmp = tempfile::tempdir().unwrap();
        let parent = Arc::new(dir::open_root(tmp.path()).unwrap());
        let mut deep = tmp.path().join("t");
        for _ in 0..100 {
            std::fs::create_dir_all(deep.join("side/by")).unwrap();
            std::fs::write(deep.join("file"), "x").unwrap();
            std::os::unix::fs::symlink("/", deep.join("link")).unwrap();
            deep.push("d");
        }
        std::fs::write(tmp.path().join("stays"), "x").unwrap();
        tree(&parent, b"t").unwrap();
        let left: Vec<_> = std::fs::read_dir(tmp.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
        tree(&parent, b"stays").unwrap();
        assert_eq!(tree(&parent, b"stays").unwrap_err(), Errno::ENOENT);
    }
}
