//! Files that the kernel reads and writes by itself (`passthrough=on`, Linux 6.9).
//!
//! An OPEN is answered with the backing file, and from then on read(2), write(2) and
//! mmap(2) go to it without us. The price: each open and close is a request, where
//! without it neither is (fuse.md, levers 1 and 11). It is for mounts that move much
//! data, and for root alone: the kernel asks for CAP_SYS_ADMIN in the first user
//! namespace (fuse_backing_open() in fs/fuse/backing.c).
//!
//! **Which files.** While a file is open this way the kernel wants every further open
//! of it to be answered with the same backing file, and refuses others with EIO
//! (fuse_file_io_open() in fs/fuse/iomode.c). A lower file that somebody reads may be
//! opened for writing by somebody else, who needs the upper's copy: two backing files
//! of one inode. So a lower file of a mount that can be written is never passed
//! through. (fuse-overlayfs 2.0.0 does so, and hands the writer the lower file: its
//! layer is changed. `tests/limits/passthrough.rs` has that script.) What remains is
//! - any file of a read-only mount, which nobody can open for writing;
//! - a file of the upper, which is always opened for both: what reads it now and what
//!   writes it later share one backing file.
//!
//! A file that is open in the usual way, through the kernel's page cache, stays so
//! until nobody has it open: the kernel does not mix the two.
//!
//! **Pages.** What was cached of a file before it was written this way is old. The
//! kernel drops a file's pages at each open that is not answered with KEEP_CACHE, and
//! no open of an upper file is.
//!
//! **What it does not see.** Changes by such files pass no gate ([`super::gate`]), so
//! that changes of the mount cannot be held and its workspace not be committed while
//! it is mounted. A change through a mapping changes mtime on disk only: the kernel is
//! told that its attributes are old when the file is closed.
//!
//! # Locks
//! One entry's of `open`, for as long as a backing file is opened or closed; below it
//! only those that finding a descriptor takes.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};

use crate::overlay::Overlay;
use crate::overlay::inode::node::Node;

/// How a file that is open now was opened, and how often.
#[derive(Debug)]
struct Open {
    /// `None`: through the page cache.
    backing: Option<Arc<BackingId>>,
    count: u64,
}

/// One mount's open files.
#[derive(Debug, Default)]
pub(super) struct Passthrough {
    open: DashMap<u64, Open>,
    /// The kernel has refused once: it is not asked again.
    refused: AtomicBool,
}

/// How an open is to be answered.
#[derive(Debug)]
pub(super) enum How {
    /// With this backing file.
    Through(Arc<BackingId>),
    /// With these flags.
    Cached(FopenFlags),
}

impl Passthrough {
    /// Notes that a node is opened once more, and says how. A node that was to be
    /// opened for writing is in the upper already. `register` gives the kernel a file.
    pub(super) fn opened(
        &self,
        overlay: &Overlay,
        node: &Arc<Node>,
        register: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> std::io::Result<BackingId>,
    ) -> How {
        let how = |backing: &Option<Arc<BackingId>>| match backing {
            Some(id) => How::Through(id.clone()),
            None => How::Cached(cached(node)),
        };
        match self.open.entry(node.ino) {
            Slot::Occupied(mut slot) => {
                let open = slot.get_mut();
                open.count += 1;
                how(&open.backing)
            }
            Slot::Vacant(slot) => {
                let backing = self.register(overlay, node, register);
                how(&slot.insert(Open { backing, count: 1 }).backing)
            }
        }
    }

    fn register(
        &self,
        overlay: &Overlay,
        node: &Arc<Node>,
        register: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> std::io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let file = match overlay.backing(node) {
            Ok(file) => file?,
            Err(e) => {
                tracing::debug!(ino = node.ino, "no backing file: {e}");
                return None;
            }
        };
        match register(file.as_fd()) {
            Ok(id) => Some(Arc::new(id)),
            Err(e) => {
                if e.raw_os_error() == Some(libc::EPERM) {
                    tracing::warn!("the kernel does not allow passthrough=on here: {e}");
                    self.refused.store(true, Ordering::Relaxed);
                } else {
                    // ELOOP: the layer lies on a stacked file system.
                    tracing::debug!(ino = node.ino, "not passed through: {e}");
                }
                None
            }
        }
    }

    /// Notes that an open file was closed.
    pub(super) fn closed(&self, ino: u64) {
        if let Slot::Occupied(mut slot) = self.open.entry(ino) {
            let open = slot.get_mut();
            open.count = open.count.saturating_sub(1);
            if open.count == 0 {
                slot.remove();
            }
        }
    }

    /// The kernel knows the node no more: it has no open file of it either, whatever
    /// became of the replies.
    pub(super) fn forgotten(&self, ino: u64) {
        self.open.remove(&ino);
    }
}

/// How an open is answered that goes through the page cache.
fn cached(node: &Node) -> FopenFlags {
    match node.is_upper() {
        true => FopenFlags::empty(),
        false => FopenFlags::FOPEN_KEEP_CACHE,
    }
}

/// Answers an OPEN.
pub(super) fn reply(how: &How, reply: ReplyOpen) {
    match how {
        How::Through(id) => reply.opened_passthrough(FileHandle(0), FopenFlags::empty(), id),
        How::Cached(flags) => reply.opened(FileHandle(0), *flags),
    }
}
