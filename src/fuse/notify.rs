//! What is sent to the kernel beside replies: that attributes it has are old.
//!
//! The kernel may keep attributes for ever, so an answer from before a change
//! must not be kept after it. For most changes of an inode the kernel sees to
//! that itself: it counts them, and drops attributes that were asked for before
//! the last one (`attr_version`; fuse_change_attributes() in fs/fuse/inode.c). It
//! does not count what a change of a *name* does to a directory, what a rename
//! does to the object that moves, and what an extended attribute or a flag does
//! to mode and ctime: there it only notes that the attributes are old
//! (fuse_dir_changed(), fuse_update_ctime() in fs/fuse/dir.c), and an answer that
//! was on its way takes the note away again. A notification counts
//! (fuse_reverse_inval_inode()). It is sent after the change and before its reply,
//! so that whoever asks later sees the change and whoever asked earlier is not
//! believed.
//!
//! It is one more write(2) to /dev/fuse, no round trip, and costs none: the
//! attributes are asked for anew after such a change in any case.
//!
//! Pages that were changed through a mapping are one case more: the kernel notes
//! that mtime is old when they are written (fuse_writepage_end() in
//! fs/fuse/file.c) and does not count it. No client waits in that request with the
//! inode held, and one that is given up waits for its pages, as would a
//! notification for the inode. So here it comes after the reply and from a thread
//! that answers nothing.
//!
//! A kernel before 5.8 does not count a notification either: there an answer may
//! be kept that was overtaken, as without it.
//!
//! Only attributes may be invalidated here: to invalidate a name or data from a
//! request would wait for locks that the request's client holds (fuse.md, lever 7).

use std::sync::OnceLock;

use fuser::{INodeNo, Notifier};

/// Tells the kernel of old attributes, once there is a connection.
#[derive(Debug, Default)]
pub(super) struct OldAttributes(OnceLock<Notifier>);

impl OldAttributes {
    /// From now on through this connection.
    pub(super) fn connect(&self, notifier: Notifier) {
        // A second connection cannot be: an adapter serves one mount.
        self.0.get_or_init(|| notifier);
    }

    /// The connection, once there is one.
    pub(super) fn notifier(&self) -> Option<&Notifier> {
        self.0.get()
    }

    /// What the kernel knows of an inode, or is about to be told by an answer on
    /// its way, is old.
    pub(super) fn of(&self, ino: INodeNo) {
        let Some(notifier) = self.0.get() else {
            return;
        };
        // A negative offset: the pages stay.
        if let Err(e) = notifier.inval_inode(ino, -1, 0) {
            tracing::debug!(ino = ino.0, "old attributes: {e}");
        }
    }
}
