//! link(2).

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::hold::Access;
use super::lookup::creatable;
use crate::layer::has_dot_wh;
use crate::overlay::inode::locate;
use crate::overlay::inode::node::Node;
use crate::overlay::ops::ensure_upper::Need;
use crate::overlay::upper::Upper;
use crate::overlay::{Attr, Overlay};
use crate::sys::dir::{self, Rename};
use crate::sys::{Errno, Name, Result, Spot, best_effort};

impl Overlay {
    /// Gives `node` the name `name` in `parent`; its new attributes.
    ///
    /// # Locks
    /// copy-up of the node and the parent; rename (read), the directory (write).
    pub fn link(&self, node: &Arc<Node>, parent: &Arc<Node>, name: &[u8]) -> Result<Attr> {
        self.check_writable()?;
        let name = creatable(name)?;
        if node.is_dir() {
            return Err(Errno::EPERM);
        }
        // What cannot succeed copies nothing up. Asked again under the lock.
        let in_place =
            parent.is_upper() && node.is_upper() && !node.metacopy.load(Ordering::Acquire);
        if !in_place && self.lookup(parent, &name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        // A metacopy with two names cannot carry two redirects: its data comes up.
        self.ensure_upper(node, Need::Data)?;
        self.ensure_upper(parent, Need::Meta)?;
        let upper = self.stack.writable()?;
        let (spot, _) = self.held(node)?;
        let Some(d) = &parent.dir else {
            return Err(Errno::ENOTDIR);
        };
        {
            let _rename = self.rename.read();
            let _dir = d.lock.write();
            // It may have a name that nobody knows.
            let nameless = node.is_orphan() && self.nlink(node, &spot.stat()?) == 0;
            if d.dead.load(Ordering::Acquire) || nameless {
                return Err(Errno::ENOENT);
            }
            let there = self.resolve_all(parent, &name)?;
            if there.found.is_some() {
                return Err(Errno::EEXIST);
            }
            let at = locate::upper_dir(&self.fds, &upper.layer, parent)?;
            self.mark_impure(upper, parent)?;
            self.pin_nlink(upper, node, &spot)?;
            match there.upper_is_bare {
                true => dir::link_fd(spot.dirfd(), (at.as_fd(), &name))?,
                false => give_name(upper, &spot, &at, &name)?,
            }
            self.count_links(upper, node, 1);
            node.unmask_ctime();
            parent.unmask_ctime();
            node.gain_name(parent, &name);
            self.listings.added(parent.ino, &name, node.ino, node.kind);
        }
        self.getattr(node)
    }

    /// The data descriptor of a node for reading, or why there is none.
    pub fn readable_fd(&self, node: &Arc<Node>) -> Result<Arc<std::os::fd::OwnedFd>> {
        self.data_fd(node, Access::Read)
    }
}

/// Gives an object a name that hides what lies below.
fn give_name(
    upper: &Upper,
    spot: &Spot,
    at: &Arc<std::os::fd::OwnedFd>,
    name: &Name,
) -> Result<()> {
    let whiteout = dir::probe(at.as_fd(), name)?.is_some();
    if !whiteout {
        dir::link_fd(spot.dirfd(), (at.as_fd(), name))?;
        // It is done, and counted.
        let dropped = has_dot_wh(at.as_fd(), name).and_then(|there| match there {
            true => upper.drop_dot_wh(at.as_fd(), name),
            false => Ok(()),
        });
        best_effort("remove a marker that hides nothing", dropped);
        return Ok(());
    }
    let tmp = upper.temp_name();
    dir::link_fd(spot.dirfd(), (upper.work.as_fd(), &tmp))?;
    let r = dir::rename(
        (upper.work.as_fd(), &tmp),
        (at.as_fd(), name),
        Rename::Replace,
    );
    if r.is_err() {
        best_effort(
            "remove a staged link",
            dir::unlink(upper.work.as_fd(), &tmp),
        );
    }
    r
}
