//! Mounting where nobody sees it: in a mount namespace of one thread's own.
//!
//! FUSE's own root must be mounted before the merged root, its child, can be
//! looked up and shown (fuse.md, lever 12). The user's mount point shows nothing
//! of that until the merged root is attached there in one step. When the thread
//! ends, its namespace goes, and the first mount with it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::sys::mount::{self, Errno};
use crate::sys::{self, apart, process};

/// What the thread is asked for, one after the other.
enum Wish {
    Mount(Box<dyn FnOnce() -> sys::Result<()> + Send>),
    Clone(PathBuf),
}

/// A thread in a mount namespace of its own.
#[derive(Debug)]
pub struct Hidden {
    wishes: Sender<Wish>,
    mounted: Receiver<sys::Result<()>>,
    cloned: Receiver<sys::Result<OwnedFd>>,
    thread: JoinHandle<()>,
}

impl Hidden {
    /// A new namespace; `None` where it cannot be had (a seccomp filter, a root
    /// directory that is no mount).
    pub fn new() -> Option<Hidden> {
        let (wishes, to_do) = channel();
        let (tell_mounted, mounted) = channel();
        let (give, cloned) = channel();
        let (tell_ready, ready) = channel();
        let thread = move || {
            let private = process::own_mount_namespace();
            let go_on = private.is_ok();
            if tell_ready.send(private).is_err() || !go_on {
                return;
            }
            for wish in to_do {
                let heard = match wish {
                    Wish::Mount(make) => tell_mounted.send(make()).is_ok(),
                    Wish::Clone(path) => {
                        // The name is looked up in the mount: see there.
                        let clone = apart::open("look up", || mount::clone_tree(&path));
                        give.send(clone).is_ok()
                    }
                };
                if !heard {
                    return;
                }
            }
        };
        let spawned = std::thread::Builder::new()
            .name("mounter".to_owned())
            .spawn(thread);
        let made = spawned
            .map_err(|e| Errno::from_io(&e))
            .and_then(|thread| ready.recv().unwrap_or(Err(Errno::EIO)).map(|()| thread));
        match made {
            Ok(thread) => Some(Hidden {
                wishes,
                mounted,
                cloned,
                thread,
            }),
            Err(e) => {
                tracing::debug!("no mount namespace for the hidden root: {e}");
                None
            }
        }
    }

    /// Mounts in the namespace.
    pub fn mount(
        self,
        make: impl FnOnce() -> sys::Result<()> + Send + 'static,
    ) -> sys::Result<Hidden> {
        self.wishes
            .send(Wish::Mount(Box::new(make)))
            .map_err(|_| Errno::EIO)?;
        self.mounted.recv().unwrap_or(Err(Errno::EIO))?;
        Ok(self)
    }

    /// A clone of what `path` shows in the namespace, which then ends; so does
    /// the thread, which has every right that the process was given.
    pub fn clone_tree(self, path: &Path) -> sys::Result<OwnedFd> {
        self.wishes
            .send(Wish::Clone(path.to_owned()))
            .map_err(|_| Errno::EIO)?;
        let tree = self.cloned.recv().unwrap_or(Err(Errno::EIO));
        drop(self.wishes);
        if self.thread.join().is_err() {
            tracing::warn!("the mounting thread ended unexpectedly");
        }
        tree
    }
}
