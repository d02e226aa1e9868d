//! A process that stays outside our user namespace, to unmount.
//!
//! An ordinary user's daemon enters a user namespace of its own (fuse.md,
//! lever 1(c)); the setuid fusermount3 has no power in there. So before that a
//! small process is split off that does nothing but wait for one byte and then
//! run `fusermount3 -u`. It ends with the daemon: the pipe closes.

use std::path::{Path, PathBuf};

use crate::overlay::setup::SetupError;
use crate::sys::fusermount;
use crate::sys::mount::{Detach, Errno, reason};
use crate::sys::process::{self, ByteReader, ByteWriter, Fork};

/// The daemon's end of that process.
#[derive(Debug)]
pub struct Outside {
    mountpoint: PathBuf,
    order: ByteWriter,
    done: ByteReader,
}

impl Outside {
    /// Splits the process off. To be called before the FUSE descriptor exists:
    /// held by two processes, the mount would outlive its daemon.
    pub fn start(mountpoint: &Path) -> Result<Self, SetupError> {
        let failed = |what: &str, e: Errno| {
            SetupError::new(
                format!(
                    "the process that unmounts later could not be started: {what}: {}",
                    reason(e)
                ),
                "the limit of processes (ulimit -u) or of descriptors (ulimit -n) may be reached",
            )
        };
        let (mut wait_order, order) = process::byte_pipe().map_err(|e| failed("pipe", e))?;
        let (done, mut tell_done) = process::byte_pipe().map_err(|e| failed("pipe", e))?;
        match process::fork().map_err(|e| failed("fork", e))? {
            Fork::Parent(_) => Ok(Outside {
                mountpoint: mountpoint.to_owned(),
                order,
                done,
            }),
            Fork::Child => {
                process::set_name(c"acetate-unmount");
                process::keep_only(&[wait_order.number(), tell_done.number()]);
                if wait_order.wait().is_some() {
                    let idle = fusermount::unmount(mountpoint, Detach::WhenIdle);
                    let gone = idle.is_ok() || fusermount::unmount(mountpoint, Detach::Now).is_ok();
                    tell_done.tell(u8::from(gone));
                }
                process::leave(0)
            }
        }
    }

    /// Has it unmount; returns when that is done.
    pub fn unmount(&mut self) {
        if !self.order.tell(b'u') || self.done.wait() != Some(1) {
            tracing::warn!(
                "fusermount3 could not unmount {}, which is served on: it unmounts only what /etc/mtab, a link to \
                 /proc/self/mounts on most systems, lists as yours; fusermount3 -u says more, and a second signal ends this process",
                self.mountpoint.display()
            );
        }
    }
}
