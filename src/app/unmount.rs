//! Unmounting: what was written is on disk when it returns.

use std::path::Path;

use crate::overlay::setup::SetupError;
use crate::sys::fusermount;
use crate::sys::mount::{self, Detach, Errno, reason};
use crate::sys::mountinfo;

/// Why a mount is still there.
#[derive(Debug)]
pub enum Trouble {
    /// There is no mount of ours at that path.
    NotMounted(SetupError),
    /// Somebody uses it.
    Busy(SetupError),
    /// Anything else.
    Other(SetupError),
}

/// Whether to insist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Refused while something is open in it.
    WhenIdle,
    /// Out of sight at once; it ends with its last user.
    Lazy,
}

/// Unmounts the uppermost mount at `path`, if it is a FUSE one.
pub fn unmount(path: &Path, how: How) -> Result<(), Trouble> {
    let place = mountinfo::real_mountpoint(path).map_err(|e| {
        Trouble::NotMounted(SetupError::new(
            format!("{} cannot be found: {e}", path.display()),
            "findmnt -t fuse.acetate,fuse.fuse-overlayfs lists what is mounted",
        ))
    })?;
    check_is_ours(&place)?;
    if how == How::WhenIdle {
        sync(&place);
    }
    let detach = match how {
        How::WhenIdle => Detach::WhenIdle,
        How::Lazy => Detach::Now,
    };
    match mount::unmount(&place, detach) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(busy(&place)),
        Err(Errno::EPERM | Errno::EACCES) => by_program(&place, detach),
        // Gone between the look and the call: that is what was wanted.
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(e) => Err(Trouble::Other(SetupError::new(
            format!("{} cannot be unmounted: {}", place.display(), reason(e)),
            "",
        ))),
    }
}

fn check_is_ours(place: &Path) -> Result<(), Trouble> {
    match mountinfo::at(place) {
        Ok(Some(line)) if line.fstype == "fuse" || line.fstype.starts_with("fuse.") => Ok(()),
        Ok(Some(line)) => Err(Trouble::NotMounted(SetupError::new(
            format!(
                "{} is a mount of type {}, not one of ours",
                place.display(),
                line.fstype
            ),
            "umount takes away mounts of any type",
        ))),
        Ok(None) => Err(Trouble::NotMounted(SetupError::new(
            format!("{} is not mounted", place.display()),
            "findmnt -t fuse.acetate,fuse.fuse-overlayfs lists what is mounted",
        ))),
        // Without /proc nothing can be checked; umount2 knows what is mounted.
        Err(_) => Ok(()),
    }
}

/// fsync(2) of the mount's root writes the whole upper layer to disk; umount
/// would not wait for that.
fn sync(place: &Path) {
    let synced = std::fs::File::open(place).and_then(|root| root.sync_all());
    if let Err(e) = synced {
        // A daemon that is gone has nothing to sync.
        tracing::debug!("fsync of {}: {e}", place.display());
    }
}

fn by_program(place: &Path, detach: Detach) -> Result<(), Trouble> {
    match fusermount::unmount(place, detach) {
        Ok(()) => Ok(()),
        Err(fusermount::Error::Missing) => Err(Trouble::Other(SetupError::new(
            format!(
                "you may not unmount {} yourself, and there is no fusermount3 to do it for you",
                place.display()
            ),
            "install it (package fuse3), or work as root",
        ))),
        Err(fusermount::Error::Refused(why)) if why.contains("busy") => Err(busy(place)),
        Err(fusermount::Error::Refused(why) | fusermount::Error::Broken(why)) => {
            Err(Trouble::Other(SetupError::new(
                format!("fusermount3 did not unmount {}: {why}", place.display()),
                "only the user who mounted it, or root, can unmount it",
            )))
        }
    }
}

fn busy(place: &Path) -> Trouble {
    Trouble::Busy(SetupError::new(
        format!(
            "{} is in use: something is open in it, or is mounted below it",
            place.display()
        ),
        format!(
            "`fuser -vm {0}` shows by whom; `acetate unmount --lazy {0}` does not wait for them",
            place.display()
        ),
    ))
}
