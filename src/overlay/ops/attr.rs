//! getattr and setattr.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::hold::Access;
use crate::layer::{UPPER, disguise};
use crate::overlay::decide::mode;
use crate::overlay::figures::Count;
use crate::overlay::inode::node::Node;
use crate::overlay::ops::ensure_upper::Need;
use crate::overlay::upper::copy_up::link_target;
use crate::overlay::{Attr, Caller, Overlay};
use crate::sys::stat::SetTime;
use crate::sys::{Errno, Kind, Result, Spot, Stat, best_effort, file, xattr};

/// What a setattr changes; `None` and `Keep` leave a thing as it is.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Change {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    /// Through an open file: ftruncate(2) and O_TRUNC move mtime even where the
    /// size stays, truncate(2) does not.
    pub by_handle: bool,
    /// Somebody has it open to write it without us: a change of nothing is the order
    /// before such a write, and nothing else says so.
    pub written_past_us: bool,
    pub atime: SetTime,
    pub mtime: SetTime,
}

/// What takes suid, sgid and capabilities away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A SETATTR of nothing: the kernel's own order, or a chown of nothing.
    Bare,
    /// A write, truncate or the like by somebody without CAP_FSETID.
    Change,
}

impl Change {
    /// What O_TRUNC of an open does.
    pub const EMPTY: Change = Change {
        mode: None,
        uid: None,
        gid: None,
        size: Some(0),
        by_handle: true,
        written_past_us: false,
        atime: SetTime::Keep,
        mtime: SetTime::Keep,
    };

    /// A change of nothing: the kernel's order to clear suid, sgid and
    /// capabilities (`FUSE_HANDLE_KILLPRIV_V2`).
    fn is_nothing(&self) -> bool {
        self.mode.is_none()
            && self.uid.is_none()
            && self.gid.is_none()
            && self.size.is_none()
            && self.atime == SetTime::Keep
            && self.mtime == SetTime::Keep
    }
}

impl Overlay {
    /// A node's attributes.
    pub fn getattr(&self, node: &Arc<Node>) -> Result<Attr> {
        self.counts.count(Count::AttributeMiss);
        let s = self.disk_stat(node)?;
        self.attr_from(node, &s)
    }

    /// The attributes to show for an undisguised stat of the topmost object.
    pub(super) fn attr_from(&self, node: &Arc<Node>, s: &Stat) -> Result<Attr> {
        let mut stat = *s;
        stat.nlink = self.nlink(node, s);
        stat.ctime = node.shown_ctime(s.ctime);
        stat.uid = self.settings.users.to_view(s.uid);
        stat.gid = self.settings.groups.to_view(s.gid);
        if node.metacopy.load(Ordering::Acquire)
            && let Ok(fd) = self.lower_data(node)
            && let Ok(data) = Spot::fd(fd).stat()
        {
            stat.blocks = data.blocks;
        }
        Ok(Attr {
            ino: node.ino,
            stat,
        })
    }

    /// The undisguised attributes of a node's topmost object, in disk ids.
    pub(super) fn disk_stat(&self, node: &Arc<Node>) -> Result<Stat> {
        if !self.layer_disguised(node) {
            return Ok(self.top_spot(node)?.1);
        }
        self.ask(node, |spot, s| self.undisguised(node, spot, s))
    }

    pub(super) fn undisguised(&self, node: &Node, spot: &Spot, s: &Stat) -> Result<Stat> {
        if !self.layer_disguised(node) {
            return Ok(*s);
        }
        for name in [
            disguise::SECURITY_OVERRIDE,
            disguise::USER_OVERRIDE,
            disguise::OLD_OVERRIDE,
        ] {
            if let Some(v) = xattr::get(spot, name)?
                && let Some(d) = disguise::Disguise::parse(&v)
            {
                return Ok(d.apply(s));
            }
        }
        Ok(self.beside(node, s).map_or(*s, |d| d.apply(s)))
    }

    /// What a side record says of a lower object.
    fn beside(&self, node: &Node, disk: &Stat) -> Option<disguise::Disguise> {
        if node.is_upper() {
            return None;
        }
        let lowers = node.lowers.read();
        let top = lowers.first()?;
        let table = self.stack.layer(top.layer).ok()?.beside.as_ref()?;
        table.what(&top.parent.as_ref()?.path_of(&top.name), disk)
    }

    /// Changes attributes; the new ones.
    ///
    /// # Locks
    /// copy-up of the node, if it is not in the upper yet.
    ///
    /// # Errors
    /// EROFS on a read-only mount, EOVERFLOW for an id without a mapping.
    pub fn setattr(&self, node: &Arc<Node>, change: &Change, caller: Caller) -> Result<Attr> {
        self.check_writable()?;
        let uid = self.disk_id(change.uid, |u| self.settings.users.to_disk(u))?;
        let gid = self.disk_id(change.gid, |g| self.settings.groups.to_disk(g))?;
        if change.is_nothing() {
            if change.written_past_us || self.may_kill(node, caller)? {
                self.kill_privilege(node, caller, Order::Bare)?;
            }
            return self.getattr(node);
        }
        let need = match change.size {
            Some(0) => Need::Empty,
            Some(_) => Need::Data,
            None => Need::Meta,
        };
        if let Some(size) = change.size {
            if node.kind != Kind::File {
                return Err(if node.is_dir() {
                    Errno::EISDIR
                } else {
                    Errno::EINVAL
                });
            }
            // Without a handle comes truncate(2), but O_TRUNC too: the latter moves
            // mtime even of an empty file, and counts more.
            let stays = size > 0 && !change.by_handle && self.disk_stat(node)?.size == size;
            self.ensure_upper(node, if stays { Need::Data } else { need })?;
            let fd = self.data_fd(node, Access::Write)?;
            if !stays {
                file::truncate(fd.as_fd(), size)?;
            }
            if caller.uid != 0 {
                self.kill_privilege(node, caller, Order::Change)?;
            }
        }
        self.ensure_upper(node, need)?;
        let upper = self.stack.writable()?;
        let (spot, raw) = self.held(node)?;
        let now = self.undisguised(node, &spot, &raw)?;
        if uid.is_some() || gid.is_some() || change.mode.is_some() {
            let mode = change.mode.or_else(|| self.chown_bare(&now, caller));
            upper.change(&spot, &now, uid, gid, mode)?;
        }
        if change.atime != SetTime::Keep || change.mtime != SetTime::Keep {
            spot.set_times(change.atime, change.mtime)?;
        }
        node.unmask_ctime();
        let s = spot.stat()?;
        let s = self.undisguised(node, &spot, &s)?;
        self.attr_from(node, &s)
    }

    /// What a chown by `caller` leaves of the mode where the disk, which sees a
    /// daemon with CAP_FSETID, would leave more: an sgid bit without group
    /// execution stays only for members of the group that the file had. See
    /// setattr_should_drop_sgid().
    fn chown_bare(&self, now: &Stat, caller: Caller) -> Option<u32> {
        let kept = now.mode & libc::S_ISGID != 0 && now.mode & libc::S_IXGRP == 0;
        let applies = kept && !matches!(now.kind(), Kind::Dir | Kind::Symlink);
        (applies && caller.uid != 0 && !self.in_group(now, caller))
            .then(|| mode::after_write(now.mode, false) & 0o7777)
    }

    /// Whether the caller is in the group of an object, given in disk ids.
    pub(super) fn in_group(&self, now: &Stat, caller: Caller) -> bool {
        let gid = self.settings.groups.to_view(now.gid);
        caller.gid == gid || caller.in_group(gid)
    }

    fn disk_id(&self, id: Option<u32>, map: impl Fn(u32) -> Option<u32>) -> Result<Option<u32>> {
        match id {
            None => Ok(None),
            // Squashed ids are all shown as one: what is asked for cannot show,
            // and must not fail (tar and package managers ask for it).
            Some(i) => map(i).map(Some).ok_or(Errno::EOVERFLOW),
        }
    }

    /// EROFS on a read-only mount.
    pub(super) fn check_writable(&self) -> Result<()> {
        if self.writable() {
            Ok(())
        } else {
            Err(Errno::EROFS)
        }
    }

    /// A change of nothing is the kernel's order before a write, but a plain
    /// chown(2) of nothing arrives just so, from anybody: only who owns the file
    /// or may write it may take its suid bit away. (A write through a descriptor
    /// that somebody else opened says so again in the WRITE itself.)
    fn may_kill(&self, node: &Arc<Node>, caller: Caller) -> Result<bool> {
        let a = self.getattr(node)?.stat;
        if caller.uid == 0 || caller.uid == a.uid || !mode::has_privilege(a.mode) {
            return Ok(true);
        }
        let group = a.mode & 0o020 != 0 && (caller.gid == a.gid || caller.in_group(a.gid));
        let acl = a.mode & 0o020 != 0 && self.getxattr(node, crate::layer::acl::ACCESS).is_ok();
        Ok(a.mode & 0o002 != 0 || group || acl)
    }

    /// Takes suid, sgid (where the group may execute) and capabilities from a
    /// file that somebody without CAP_FSETID changes.
    pub fn kill_privilege(&self, node: &Arc<Node>, caller: Caller, why: Order) -> Result<()> {
        if node.is_dir() || node.kind == Kind::Symlink {
            return Ok(());
        }
        let (spot, raw) = self.top_spot(node)?;
        let now = self.undisguised(node, &spot, &raw)?;
        let capability = b"security.capability";
        let has_cap = xattr::get(&spot, capability)?.is_some();
        // Root keeps suid over a write (CAP_FSETID) but not capabilities. (Its
        // chown of nothing cannot be told from that; of a FIFO it is the only case.)
        let keeps_suid = why == Order::Bare && caller.uid == 0 && node.kind == Kind::File;
        let bare = match mode::has_privilege(now.mode) && !keeps_suid {
            true => mode::after_write(now.mode, caller.uid == 0 || self.in_group(&now, caller)),
            false => now.mode,
        };
        if bare == now.mode && !has_cap {
            return Ok(());
        }
        self.ensure_upper(node, Need::Meta)?;
        let upper = self.stack.writable()?;
        let (spot, raw) = self.held(node)?;
        let now = self.undisguised(node, &spot, &raw)?;
        if bare != now.mode {
            upper.change(&spot, &now, None, None, Some(bare & 0o7777))?;
        }
        node.unmask_ctime();
        if has_cap {
            best_effort(
                "drop a file's capabilities",
                xattr::remove(&spot, capability),
            );
        }
        Ok(())
    }

    /// A symlink's target.
    pub fn readlink(&self, node: &Arc<Node>) -> Result<Vec<u8>> {
        if node.kind != Kind::Symlink {
            return Err(Errno::EINVAL);
        }
        self.ask(node, |spot, _| link_target(spot))
    }

    /// Whether the upper keeps owners in an xattr.
    pub(super) fn upper_disguised(&self) -> bool {
        self.stack.layer(UPPER).is_ok_and(|l| l.disguised)
    }
}
