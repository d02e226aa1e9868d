//! A mount in its place: shown, looked at, taken away.
//!
//! What looks into our own mount here does so on a thread apart (`sys::apart`):
//! the process must be able to die while it waits for itself.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::overlay::setup::SetupError;
use crate::sys::mount::{self, Errno, MountFlags, reason};
use crate::sys::{apart, mountinfo};

use super::adapter::RootShape;
use super::attach::Undo;
use super::hidden::Hidden;

/// A mount in its place.
#[derive(Debug)]
pub struct Shown {
    pub(super) path: PathBuf,
    /// Let go of once the mount is in its place: what lies under it may be
    /// unmounted after us, while this process still ends.
    pub(super) held: Option<OwnedFd>,
    pub(super) flags: MountFlags,
    pub(super) undo: Undo,
    /// st_dev of the FUSE file system, known once it is shown.
    pub(super) device: Option<(u32, u32)>,
    /// It has been seen at its path.
    pub(super) attached: bool,
    /// FUSE's own root, until the merged one is shown in its stead.
    pub(super) hidden: Option<Hidden>,
}

impl Shown {
    /// Puts the merged root in the place of FUSE's own root, where the shape
    /// asks for it, and checks that the mount there is ours and as asked for.
    ///
    /// The session's loops must run: the kernel looks the name up.
    pub fn settle(&mut self, shape: RootShape) -> Result<(), SetupError> {
        if matches!(self.undo, Undo::Giver) {
            return Ok(());
        }
        if let RootShape::Child(name) = shape {
            self.swap_root_for(name).map_err(|e| {
                SetupError::new(
                    format!(
                        "the mount at {} could not be put in its place: {}",
                        self.path.display(),
                        reason(e)
                    ),
                    "the kernel log (dmesg) may say more",
                )
            })?;
        }
        self.held = None;
        self.attached = true;
        let asked = matches!(self.undo, Undo::Kernel).then_some(self.flags);
        let path = &self.path;
        self.device = apart::work("check", || check(path, asked)).map_err(no_thread)??;
        Ok(())
    }

    fn swap_root_for(&mut self, name: &str) -> Result<(), Errno> {
        let held = self.held.as_ref().ok_or(Errno::EBADF)?;
        let hidden = self.hidden.take().ok_or(Errno::EBADF)?;
        let tree = hidden.clone_tree(&self.path.join(name))?;
        mount::attach(&tree, held)
    }

    /// Whether it was at its path, and no FUSE mount is there any more. Asks the mount
    /// table, not the mount.
    pub fn was_taken_away(&self) -> bool {
        let is_fuse = |line: &mountinfo::MountLine| line.fstype.starts_with("fuse");
        let there = mountinfo::at(&self.path);
        self.attached && there.is_ok_and(|line| !line.as_ref().is_some_and(is_fuse))
    }

    /// The mount's path, or the name of the descriptor that was given to us.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who takes it away.
    pub fn undone_by(&self) -> &Undo {
        &self.undo
    }

    /// Takes the mount away: at once where nobody uses it, else out of sight.
    pub fn undo(&mut self) {
        if self.hidden.take().is_some() {
            // Nobody has seen it: it goes with its name space.
            return;
        }
        match &mut self.undo {
            Undo::Kernel => {
                // What is not written yet may be written by the unmount, which then
                // waits for our own event loops.
                let (path, device) = (&self.path, self.device);
                if let Err(e) = apart::work("unmount", || undo_by_kernel(path, device)) {
                    tracing::warn!("no thread to unmount on: {e}");
                    undo_by_kernel(path, device);
                }
            }
            Undo::Outside(outside) => outside.unmount(),
            Undo::Giver => {}
        }
    }
}

/// The mount's device, where it can be known; an error where it is not ours,
/// or cannot be given the flags that were asked for.
///
/// Asks the mount: for a thread apart.
fn check(path: &Path, asked: Option<MountFlags>) -> Result<Option<(u32, u32)>, SetupError> {
    let not_there = |why: String| {
        SetupError::new(
            format!(
                "the mount at {} is not there although it was made: {why}",
                path.display()
            ),
            "somebody unmounted it or mounted over it meanwhile; try again",
        )
    };
    match mount::is_serving_fuse(path) {
        Ok(true) => {}
        Ok(false) => return Err(not_there("another file system is".to_owned())),
        Err(e) => return Err(not_there(reason(e))),
    }
    // Without /proc there is no mountinfo; the mount works all the same.
    let Ok(Some(line)) = mountinfo::at(path) else {
        return Ok(None);
    };
    let Some(asked) = asked else {
        return Ok(Some(line.device));
    };
    let lost = mount::lost_flags(asked, &line.options);
    if lost.is_empty() {
        return Ok(Some(line.device));
    }
    mount::set_mount_flags(path, asked).map_err(|e| {
        SetupError::new(
            format!(
                "the mount at {} lost the flags {lost:?}: {}",
                path.display(),
                reason(e)
            ),
            "leave out these words, or mount from a shell that is not restricted",
        )
    })?;
    Ok(Some(line.device))
}

/// Unmounts every mount of this file system that we see, and no other: it may
/// have been moved, and something else may be mounted at its path by now.
fn undo_by_kernel(path: &Path, device: Option<(u32, u32)>) {
    let mut paths = vec![path.to_owned()];
    if let (Some(device), Ok(lines)) = (device, mountinfo::read()) {
        paths = lines
            .into_iter()
            .rev()
            .filter(|l| l.device == device)
            .map(|l| l.mountpoint)
            .collect();
    }
    for path in paths {
        if mount::unmount(&path, mount::Detach::WhenIdle).is_err() {
            log_failure(mount::unmount(&path, mount::Detach::Now));
        }
    }
}

/// Where [`apart::work`] cannot be had.
pub(super) fn no_thread(errno: Errno) -> SetupError {
    SetupError::new(
        format!("no thread could be started: {}", reason(errno)),
        "the limit of processes (ulimit -u) may be reached",
    )
}

fn log_failure<E: std::fmt::Debug>(result: Result<(), E>) {
    if let Err(e) = result {
        tracing::warn!("unmounting failed: {e:?}");
    }
}
