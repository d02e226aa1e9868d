//! The locks on upper and work: one live mount per upper.
//!
//! Two daemons that write one upper lose data: each holds for true what it once
//! saw there, and the kernel keeps pages and attributes for each mount apart. (C
//! fuse-overlayfs takes no lock. After `umount -l` with a file open for
//! appending, and a second mount, what the second appends is overwritten by the
//! next write of the first: `remount_at_once` in scripts/clients.)
//!
//! # Why nothing is handed over
//!
//! An upper is often wanted again while its last mount still ends, or is out of
//! sight with something open in it (podman unmounts by MNT_DETACH where it must).
//! The next mount waits for it, `WAIT` long, and is then refused. It does not
//! take the upper over, for the old daemon would have to know that nobody lives
//! in its mount, and nobody can tell it:
//!
//! - A container's root is a copy of the mount in the container's own mount
//!   namespace. It looks, from the namespace in which podman has unmounted it,
//!   just as a mount that has been left by all.
//! - Namespaces cannot all be looked at: those of processes outside the daemon's
//!   process or user namespace are hidden from it (rootless: all of root's), and
//!   some have no process at all. listmount(2) and NS_MNT_GET_NEXT are new (6.8,
//!   6.12) and leave out what the caller has no power over.
//! - Even a mount that is in no namespace can come back: open_tree(2) holds it by
//!   a descriptor, which is how runtimes carry a container's root into place.
//! - What is open in it may be written at any time, without an OPEN that we would
//!   see (zero-message opens), and so may pages that are mapped.
//!
//! So whoever uses the old mount keeps the upper until they end, and none of
//! their writes fails or is lost. `tests/cli/remount.rs` shows each of these.
//!
//! podman meets this seldom. The copies of a mount that other namespaces have at
//! the mount point itself (a service that was started meanwhile) keep nothing: it
//! renames a new directory over the mount point, and the kernel detaches what is
//! mounted there, everywhere (vfs_rename(); the step `held_elsewhere`). What
//! is left are people and processes that have something open inside.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::setup::SetupError;
use crate::layer::Layer;
use crate::sys::holder::{self, Holder, How};
use crate::sys::{Errno, dir, file};

/// How long an upper that is still in use is waited for: the daemon before us
/// may just be ending.
const WAIT: Duration = Duration::from_secs(5);

/// Takes the lock that keeps a second live mount away. `what` is `upperdir` or
/// `workdir`, given as `path`.
///
/// # Errors
/// Still in use after `WAIT`: the sentence says by whom.
pub fn take(layer: &Layer, path: &Path, what: &str) -> Result<OwnedFd, SetupError> {
    let fd = dir::open_readable(layer.root.as_fd()).map_err(|e| {
        SetupError::new(
            format!("{what} {} cannot be read: {e}", path.display()),
            "check its owner and mode",
        )
    })?;
    let until = Instant::now() + WAIT;
    loop {
        match file::try_lock(fd.as_fd()) {
            Ok(()) => return Ok(fd),
            Err(Errno::EBUSY) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::EBUSY) => {
                let s = &layer.root_stat;
                let (who, hint) = explain(holder::of_lock(s.dev, s.ino));
                return Err(SetupError::new(
                    format!("{what} {} is in use{who}", path.display()),
                    format!("two mounts on one upper would lose data: {hint}"),
                ));
            }
            // A file system without flock (some network ones): go on without.
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e, "cannot lock");
                return Ok(fd);
            }
        }
    }
}

/// Who uses it, and what to do about that.
fn explain(server: Option<u32>) -> (String, String) {
    let first = || "unmount the other one first".to_owned();
    let Some(server) = server else {
        return (String::new(), first());
    };
    let by = format!(" by process {server}");
    let Some(device) = holder::served_by(server) else {
        return (by, first());
    };
    if let Some(at) = holder::seen_at(device) {
        let at = at.display();
        return (
            format!("{by}, mounted at {at}"),
            format!("unmount it first: acetate unmount {at}"),
        );
    }
    let (found, hint) = match holder::of_file_system(device, server) {
        Some(h) => describe(&h),
        None => (
            "something that cannot be seen from here still uses it".to_owned(),
            "look, as root of the host, for the processes that do, and end them".to_owned(),
        ),
    };
    (format!("{by}, whose mount is out of sight: {found}"), hint)
}

fn describe(holder: &Holder) -> (String, String) {
    let Holder { pid, name, how } = holder;
    let (has, path) = match how {
        How::Mount(path) => {
            let at = path.display();
            return (
                format!("process {pid} ({name}) has it at {at} in another mount namespace"),
                format!("end that process, or take it away there: nsenter -t {pid} -m umount {at}"),
            );
        }
        How::Open(path) => ("has open", path),
        How::Mapped(path) => ("runs or maps", path),
    };
    (
        format!("process {pid} ({name}) {has} {} in it", path.display()),
        "end that process first".to_owned(),
    )
}
