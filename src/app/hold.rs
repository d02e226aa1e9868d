//! Holding the changes of a mounted workspace while its upper is copied.
//!
//! What programs have written is in the upper first: syncfs(2) on the mount has
//! the kernel send what it keeps in its page cache. (The copy is what has to reach
//! the disk, not the upper.) Then the daemon is asked to hold changes
//! (`fuse::control`), and asked again and again for as long as this value lives.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fuse::control::{HOLD, Lease, RELEASE, RENEW};
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::sys::{Errno, ask, file};

/// How long the daemon waits for a sign of life.
const LEASE: u32 = 5_000;
/// How often it gets one.
const RENEWAL: Duration = Duration::from_millis(1_000);

/// Changes are held. Dropped, they go on.
#[derive(Debug)]
pub struct Held {
    root: Arc<File>,
    at: PathBuf,
    token: u64,
    renewing: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Held {
    /// Syncs the mount at a path and holds its changes.
    pub fn take(at: &Path) -> Outcome<Held> {
        let failed = |e: Errno| match e {
            Errno::ENOTTY | Errno::ENOSYS => Failure::new(
                FailureKind::General,
                format!("the mount at {} cannot hold changes", at.display()),
                "an older version serves it: unmount the workspace, then commit it",
            ),
            Errno::EOPNOTSUPP => Failure::new(
                FailureKind::General,
                format!(
                    "the mount at {} cannot hold changes: with passthrough=on the kernel writes files by itself",
                    at.display()
                ),
                "unmount the workspace, then commit it",
            ),
            Errno::EPERM => Failure::new(
                FailureKind::General,
                format!("the mount at {} is another user's", at.display()),
                "only its user and root may commit it while it is mounted",
            ),
            Errno::EBUSY => Failure::new(
                FailureKind::InUse,
                format!(
                    "the changes of the mount at {} are held by somebody else, or one of them takes long",
                    at.display()
                ),
                "try again",
            ),
            e => Failure::system(at, "be held still", e),
        };
        let root = File::open(at).map_err(|e| failed(Errno::from_io(&e)))?;
        file::sync_fs(root.as_fd()).map_err(failed)?;
        let mut data = lease(0).encode();
        ask::ioctl(root.as_fd(), HOLD, &mut data).map_err(failed)?;
        let token = Lease::decode(&data)
            .ok_or_else(|| failed(Errno::EIO))?
            .token;
        let mut held = Held {
            root: Arc::new(root),
            at: at.to_owned(),
            token,
            renewing: None,
        };
        held.renewing = Some(renew(held.root.clone(), token).map_err(failed)?);
        Ok(held)
    }

    /// Lets changes go on.
    ///
    /// # Errors
    /// InUse where the hold had ended before: what was copied is of no one moment.
    pub fn release(mut self) -> Outcome<()> {
        self.end().map_err(|e| {
            Failure::new(
                FailureKind::InUse,
                format!(
                    "the changes of the mount at {} could not be held long enough: {}",
                    self.at.display(),
                    crate::store::failure::reason(e)
                ),
                "unmount the workspace, then commit it; nothing was changed",
            )
        })
    }

    fn end(&mut self) -> Result<(), Errno> {
        let Some((stop, thread)) = self.renewing.take() else {
            return Ok(());
        };
        drop(stop);
        if thread.join().is_err() {
            tracing::warn!("the thread that renewed a hold ended unexpectedly");
        }
        ask::ioctl(self.root.as_fd(), RELEASE, &mut lease(self.token).encode())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        crate::sys::best_effort("let changes go on", self.end());
    }
}

fn lease(token: u64) -> Lease {
    Lease {
        milliseconds: LEASE,
        token,
    }
}

fn renew(root: Arc<File>, token: u64) -> Result<(Sender<()>, JoinHandle<()>), Errno> {
    let (stop, stopped) = channel();
    let work = move || {
        while stopped.recv_timeout(RENEWAL) == Err(RecvTimeoutError::Timeout) {
            let renewed = ask::ioctl(root.as_fd(), RENEW, &mut lease(token).encode());
            // That it has ended is told at the release.
            if crate::sys::best_effort("renew a hold", renewed).is_none() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name("renew".to_owned())
        .spawn(work);
    thread.map(|t| (stop, t)).map_err(|e| Errno::from_io(&e))
}
