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
//! One that is opened for appending is not passed through either, unless it is open so
//! already: the kernel keeps the flags of its own open, so that a later F_SETFL without
//! O_APPEND would go on appending (overlayfs has ovl_change_flags(), FUSE nothing).
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
//! it is mounted. Size and times change on disk: while a file is open for writing the
//! kernel may keep none of its attributes, and when it is closed it is told that they
//! are old. (A mapping that is written after the file was closed moves mtime unseen.)
//! Before a write that takes suid away the kernel orders that by a SETATTR of nothing,
//! and no WRITE follows that would say it again.
//!
//! **After a SIGKILL** of this process who has such a file open can still write it: the
//! kernel needs us no more. So the store's workspaces, whose upper becomes an immutable
//! layer, are never mounted so (`app::live`); whoever mounts such an upper again by hand
//! ends those processes first.
//!
//! **The fence** lets programs be opened for running (`sys::fence::paths`): the kernel
//! opens the backing file with our rights.
//!
//! # Locks
//! One entry's of `open`, for as long as a backing file is opened or closed; below it
//! only those that finding a descriptor takes.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use fuser::{
    BackingId, FileHandle, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, OpenAccMode,
    OpenFlags, ReplyCreate, ReplyOpen,
};

use super::answers::Shared;
use super::serving::answering;
use crate::overlay::inode::node::Node;
use crate::overlay::{Entry, Overlay};

/// How a file that is open now was opened, and how often.
#[derive(Debug)]
struct Open {
    /// `None`: through the page cache.
    backing: Option<Arc<BackingId>>,
    count: u64,
    /// So many of them may write.
    writers: u64,
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted(OpenFlags);

impl Wanted {
    /// What the flags of an OPEN, CREATE or RELEASE say.
    pub(super) fn of(flags: OpenFlags) -> Wanted {
        Wanted(flags)
    }

    /// Writing, or both.
    pub(super) fn writes(self) -> bool {
        self.0.acc_mode() != OpenAccMode::O_RDONLY
    }

    /// What it holds is to go, be it opened for reading only.
    pub(super) fn empties(self) -> bool {
        self.has(libc::O_TRUNC)
    }

    fn has(self, flag: i32) -> bool {
        self.0.0 & flag != 0
    }

    fn writers(self) -> u64 {
        u64::from(self.writes())
    }

    /// Whether the kernel's own open of the backing file would do. It has the flags of
    /// this one for good: O_APPEND stays although fcntl(2) takes it away later, and
    /// O_DIRECT is refused where the file system has none.
    fn fits(self, file: BorrowedFd<'_>) -> bool {
        let direct = self.has(libc::O_DIRECT);
        !self.has(libc::O_APPEND) && (!direct || crate::sys::file::takes_direct_io(file))
    }
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
enum How {
    /// With this backing file.
    Through(Arc<BackingId>),
    /// With these flags.
    Cached(FopenFlags),
}

impl Passthrough {
    /// Notes that a node is opened once more, and says how. A node that was to be
    /// opened for writing is in the upper already. `register` gives the kernel a file.
    fn opened(
        &self,
        overlay: &Overlay,
        node: &Arc<Node>,
        wanted: Wanted,
        register: impl FnOnce(BorrowedFd<'_>) -> std::io::Result<BackingId>,
    ) -> How {
        let how = |backing: &Option<Arc<BackingId>>| match backing {
            Some(id) => How::Through(id.clone()),
            None => How::Cached(cached(node)),
        };
        match self.open.entry(node.ino) {
            Slot::Occupied(mut slot) => {
                let open = slot.get_mut();
                open.count += 1;
                open.writers += wanted.writers();
                how(&open.backing)
            }
            Slot::Vacant(slot) => {
                let backing = self.register(overlay, node, wanted, register);
                let open = slot.insert(Open {
                    backing,
                    count: 1,
                    writers: wanted.writers(),
                });
                how(&open.backing)
            }
        }
    }

    fn register(
        &self,
        overlay: &Overlay,
        node: &Arc<Node>,
        wanted: Wanted,
        register: impl FnOnce(BorrowedFd<'_>) -> std::io::Result<BackingId>,
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
        if !wanted.fits(file.as_fd()) {
            return None;
        }
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
    fn closed(&self, ino: u64, wanted: Wanted) {
        if let Slot::Occupied(mut slot) = self.open.entry(ino) {
            let open = slot.get_mut();
            open.count = open.count.saturating_sub(1);
            open.writers = open.writers.saturating_sub(wanted.writers());
            if open.count == 0 {
                slot.remove();
            }
        }
    }

    /// Whether somebody has a file open to write it without us.
    fn is_written(&self, ino: u64) -> bool {
        let open = self.open.get(&ino);
        open.is_some_and(|o| o.backing.is_some() && o.writers > 0)
    }
}

/// How an open is answered that goes through the page cache.
fn cached(node: &Node) -> FopenFlags {
    match node.is_upper() {
        true => FopenFlags::empty(),
        false => FopenFlags::FOPEN_KEEP_CACHE,
    }
}

impl Shared {
    /// Prepares for it where it is asked for; the flags that the kernel is to be asked for.
    pub(super) fn prepare_passthrough(
        &self,
        config: &mut KernelConfig,
        offered: InitFlags,
    ) -> InitFlags {
        if !self.overlay.passes_through() {
            return InitFlags::empty();
        }
        // Layers on a file system that is stacked itself are served as usual, and this
        // mount may be a layer of another overlay: depth 1 of 2.
        let able =
            offered.contains(InitFlags::FUSE_PASSTHROUGH) && config.set_max_stack_depth(1).is_ok();
        if !able {
            tracing::warn!("passthrough=on is ignored: this kernel lacks it (Linux 6.9)");
            return InitFlags::empty();
        }
        self.passthrough.get_or_init(Passthrough::default);
        // An open that empties a lower file says so: nothing of it is copied up.
        InitFlags::FUSE_PASSTHROUGH | (InitFlags::FUSE_ATOMIC_O_TRUNC & offered)
    }

    /// Notes that a node is opened, and says how that is to be answered.
    fn opened(
        &self,
        node: &Arc<Node>,
        wanted: Wanted,
        register: impl FnOnce(BorrowedFd<'_>) -> std::io::Result<BackingId>,
    ) -> How {
        match self.passthrough.get() {
            Some(files) => files.opened(&self.overlay, node, wanted, register),
            None => How::Cached(FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    /// Answers an OPEN of a node that may be passed through.
    pub(super) fn open_through(&self, node: &Arc<Node>, wanted: Wanted, reply: ReplyOpen) {
        let handle = FileHandle(0);
        match self.opened(node, wanted, |file| reply.open_backing(file)) {
            How::Through(id) => {
                if wanted.writes() {
                    // What the kernel knows of it may be kept for ever, and soon be wrong.
                    self.old.of(INodeNo(node.ino));
                }
                reply.opened_passthrough(handle, FopenFlags::empty(), &id);
            }
            How::Cached(flags) => reply.opened(handle, flags),
        }
    }

    /// An open file was closed.
    pub(super) fn closed(&self, ino: INodeNo, wanted: Wanted) {
        let Some(files) = self.passthrough.get() else {
            return;
        };
        files.closed(ino.0, wanted);
        if wanted.writes() {
            self.old.of(ino);
        }
    }

    /// Whether somebody has a file open to write it without us.
    pub(super) fn is_written_past_us(&self, ino: u64) -> bool {
        self.passthrough.get().is_some_and(|f| f.is_written(ino))
    }

    /// How long the kernel may keep what it is told of an inode: not while its size and
    /// times change without us.
    pub(super) fn ttl_of(&self, ino: u64) -> &Duration {
        match self.is_written_past_us(ino) {
            true => &Duration::ZERO,
            false => &self.ttl,
        }
    }

    /// Answers a CREATE: the file is open.
    pub(super) fn created(&self, entry: &Entry, wanted: Wanted, reply: ReplyCreate) {
        let attr = self.attr(&entry.attr);
        let (generation, handle) = (Generation(0), FileHandle(0));
        match self.opened(&entry.node, wanted, |file| reply.open_backing(file)) {
            How::Through(id) => {
                let flags = FopenFlags::empty();
                let ttl = self.ttl_of(entry.node.ino);
                reply.created_passthrough(ttl, &attr, generation, handle, flags, &id);
            }
            How::Cached(flags) => {
                answering();
                reply.created(&self.ttl, &attr, generation, handle, flags);
            }
        }
    }
}
