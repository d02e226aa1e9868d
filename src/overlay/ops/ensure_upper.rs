//! Copy-up: claim → prepare → publish.
//!
//! Copy-up only ever goes one way, so it is done before any name-space lock is
//! taken and cannot become untrue afterwards. While data moves, only the node's
//! own copy-up lock is held (O7).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::hold::Access;
use super::xattr::CAPABILITY;
use crate::layer::UPPER;
use crate::layer::mark::Origin;
use crate::overlay::Overlay;
use crate::overlay::inode::locate::{self, FdKey};
use crate::overlay::inode::node::{Link, NO_NLINK, Node};
use crate::overlay::inode::table::Claim;
use crate::overlay::upper::copy_up::Source;
use crate::overlay::upper::stage::Staged;
use crate::overlay::upper::{Namespace, Upper};
use crate::sys::stat::SetTime;
use crate::sys::{
    Errno, Kind, Name, ObjectId, Result, Spot, Stat, best_effort, copy, dir, file, xattr,
};

/// How much of an object the upper must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Owner, mode, xattrs, times: the data may stay below where `metacopy=on`.
    Meta,
    /// The data too.
    Data,
    /// The data is about to be dropped (O_TRUNC): an empty file will do.
    Empty,
}

impl Overlay {
    /// Makes sure that the upper has a node, its parents first.
    ///
    /// # Locks
    /// The copy-up lock of each, one at a time; the caller holds none.
    pub fn ensure_upper(&self, node: &Arc<Node>, need: Need) -> Result<()> {
        self.check_writable()?;
        loop {
            // The topmost ancestor without an upper object: found anew each
            // round, since a rename may move the chain.
            let mut at = node.clone();
            loop {
                let parent = at.any_link().map(|l| l.parent.clone());
                match parent {
                    Some(p) if !at.is_upper() && !p.is_upper() => at = p,
                    _ => break,
                }
            }
            if Arc::ptr_eq(&at, node) {
                self.raise_other_parents(node)?;
                return self.copy_up_one(node, need);
            }
            self.copy_up_one(&at, Need::Meta)?;
        }
    }

    /// A file with several names is published under all that are known: an
    /// upper that is moved or read without its index has them together.
    fn raise_other_parents(&self, node: &Arc<Node>) -> Result<()> {
        if node.is_upper() || node.is_dir() {
            return Ok(());
        }
        let links: Vec<_> = node.links.lock().iter().skip(1).cloned().collect();
        for l in links {
            if !l.parent.is_upper() {
                self.ensure_upper(&l.parent, Need::Meta)?;
            }
        }
        Ok(())
    }

    fn copy_up_one(&self, node: &Arc<Node>, need: Need) -> Result<()> {
        let done =
            |n: &Node| n.is_upper() && (need == Need::Meta || !n.metacopy.load(Ordering::Acquire));
        if done(node) {
            return Ok(());
        }
        let _claim = node.copy_up.lock();
        if done(node) {
            return Ok(());
        }
        let begun = Instant::now();
        let bytes = self.copy_up_claimed(node, need)?;
        self.counts.copied_up(bytes, begun);
        Ok(())
    }

    /// Copies what the upper lacks, under the node's copy-up lock; how much data.
    fn copy_up_claimed(&self, node: &Arc<Node>, need: Need) -> Result<u64> {
        let upper = self.stack.writable()?;
        if node.is_upper() {
            return self.fill_metacopy(upper, node, need);
        }
        let lower = self.lower_top(node).ok_or(Errno::ESTALE)?;
        let (spot, raw) = self.top_spot(node)?;
        let stat = self.undisguised(node, &spot, &raw)?;
        let layer = self.stack.layer(lower.layer)?;
        let origin = upper.origin_of(&spot, layer);
        let several = node.kind != Kind::Dir
            && raw.nlink > 1
            && upper.index.is_some()
            && (node.kind == Kind::File || upper.namespace == Namespace::Trusted);
        let metacopy = need == Need::Meta && self.may_metacopy(upper, node, several);
        let data = match (node.kind, need, metacopy) {
            (Kind::File, Need::Meta | Need::Data, false) => Some(self.lower_data(node)?),
            _ => None,
        };
        let mut stat = stat;
        if need == Need::Empty && data.is_none() {
            stat.size = 0;
        }
        let bytes = data.as_ref().map_or(0, |_| stat.size);
        if node.lowers.read().len() > 1 {
            // A metacopy's: blocks and device are not its data's.
            stat.blocks = 0;
        }
        let src = Source {
            spot: &spot,
            stat: &stat,
            data,
            origin: origin.as_ref(),
            metacopy,
            several_names: several,
        };
        let (staged, id) = upper.copy_up(&src)?;
        let anchor = match several {
            true => Some(crate::overlay::upper::Upper::index_name(
                origin.as_ref(),
                layer.fs,
                lower.id.ino,
            )),
            false => None,
        };
        node.metacopy.store(metacopy, Ordering::Release);
        if !self.number_is_noted(upper, node, origin.as_ref()) {
            self.table.claim(Claim { layer: UPPER, id }, node.ino);
        }
        self.publish_copy(upper, node, Copied { staged, id }, &raw, anchor)?;
        if let Ok((_, now)) = self.upper_spot(node) {
            node.mask_ctime(raw.ctime, now.ctime);
        }
        Ok(bytes)
    }

    /// Whether a copy's marks will lead a later lookup back to its node's number.
    fn number_is_noted(&self, upper: &Upper, node: &Node, origin: Option<&Origin>) -> bool {
        let may_carry = match upper.namespace {
            Namespace::Trusted => true,
            // user.* stands on regular files and directories only.
            Namespace::User => matches!(node.kind, Kind::File | Kind::Dir),
            Namespace::None => false,
        };
        may_carry && origin.and_then(|o| self.origin_number(o)) == Some(node.ino)
    }

    /// Whether only metadata may be copied: the kernel does not for files with
    /// several names either way it can help, and the xattr must hold.
    fn may_metacopy(&self, upper: &Upper, node: &Node, several: bool) -> bool {
        self.settings.metacopy
            && node.kind == Kind::File
            && !several
            && upper.namespace != Namespace::None
    }

    /// Gives a complete copy its name: wherever the node is *now*. The
    /// directories that were changed are synced when no lock is held any more.
    fn publish_copy(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        copy: Copied<'_>,
        lower: &Stat,
        anchor: Option<Name>,
    ) -> Result<()> {
        let mut dirs = Vec::new();
        match anchor {
            Some(name) => {
                // Rare, and other names may be looked up in other directories: all
                // of them wait for an instant.
                let _rename = self.rename.write();
                let done = self.publish_indexed(upper, node, copy, lower, &name, &mut dirs);
                if done.is_err()
                    && !node.is_upper()
                    && let Some(index) = &upper.index
                {
                    // The anchor must not outlive a copy that never came.
                    best_effort("remove an anchor", dir::unlink(index.as_fd(), &name));
                }
                done?;
            }
            None if lower.nlink > 1 && !node.is_dir() => {
                // As above: no name of it may be learnt meanwhile.
                let _rename = self.rename.write();
                self.publish_known(upper, node, copy, &mut dirs)?;
            }
            None => self.publish_one(upper, node, copy, &mut dirs)?,
        }
        for dir in dirs {
            upper.sync_dir(dir.as_fd())?;
        }
        Ok(())
    }

    fn publish_one(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        copy: Copied<'_>,
        dirs: &mut Vec<Arc<OwnedFd>>,
    ) -> Result<()> {
        let _rename = self.rename.read();
        loop {
            let Some(link) = node.any_link() else {
                return self.publish_orphan(upper, node, copy.staged, copy.id);
            };
            let Some(dir_part) = &link.parent.dir else {
                return Err(Errno::EIO);
            };
            let _dir = dir_part.lock.write();
            if !node.links.lock().contains(&link.parent, &link.name) {
                continue;
            }
            return self.publish_at(upper, node, copy, &link, dirs);
        }
    }

    /// A file with several names and no index: it gets all that are known, since a
    /// write by any of them goes to it.
    fn publish_known(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        copy: Copied<'_>,
        dirs: &mut Vec<Arc<OwnedFd>>,
    ) -> Result<()> {
        let links: Vec<_> = node.links.lock().iter().cloned().collect();
        let Some((first, others)) = links.split_first() else {
            return self.publish_orphan(upper, node, copy.staged, copy.id);
        };
        self.publish_at(upper, node, copy, first, dirs)?;
        let at = locate::upper_dir(&self.fds, &upper.layer, &first.parent)?;
        for other in others {
            let more = self.publish_more(upper, (&at, &first.name), other, dirs);
            best_effort("publish a further name", more);
        }
        Ok(())
    }

    fn publish_at(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        copy: Copied<'_>,
        link: &Link,
        dirs: &mut Vec<Arc<OwnedFd>>,
    ) -> Result<()> {
        let (parent, name) = (&link.parent, &link.name);
        let at = locate::upper_dir(&self.fds, &upper.layer, parent)?;
        let times = Spot::fd(at.clone()).stat()?;
        self.mark_impure(upper, parent)?;
        let fd = copy.staged.publish(at.as_fd(), name)?;
        restore_times(parent, &at, &times);
        dirs.push(at);
        self.set_upper(node, copy.id)?;
        if let Some(fd) = fd {
            self.fds.put(FdKey::Upper(node.ino), &fd, None);
        }
        Ok(())
    }

    fn publish_indexed(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        copy: Copied<'_>,
        lower: &Stat,
        anchor: &Name,
        dirs: &mut Vec<Arc<OwnedFd>>,
    ) -> Result<()> {
        let index = upper.index.as_ref().ok_or(Errno::EIO)?;
        clear_stale_anchor(index, anchor)?;
        copy.staged.link_also(index.as_fd(), anchor)?;
        dirs.push(index.clone());
        if node.nlink.load(Ordering::Acquire) == NO_NLINK {
            node.nlink.store(i64::from(lower.nlink), Ordering::Release);
        }
        node.set_anchor(anchor);
        let links: Vec<_> = node.links.lock().iter().cloned().collect();
        let mut ready = links.iter().filter(|l| l.parent.is_upper());
        match ready.next() {
            Some(l) => {
                self.publish_at(upper, node, copy, l, dirs)?;
                for other in ready {
                    let more = self.publish_more(upper, (index, anchor), other, dirs);
                    best_effort("publish a further name", more);
                }
            }
            // The anchor alone leads to it; a name in the upper is not needed.
            _ => {
                drop(copy.staged);
                self.set_upper(node, copy.id)?;
            }
        }
        self.pin_nlink(upper, node, &Spot::at(index.clone(), anchor.clone()))
    }

    fn publish_more(
        &self,
        upper: &Upper,
        anchor: (&Arc<OwnedFd>, &Name),
        link: &Link,
        dirs: &mut Vec<Arc<OwnedFd>>,
    ) -> Result<()> {
        let at = locate::upper_dir(&self.fds, &upper.layer, &link.parent)?;
        let times = Spot::fd(at.clone()).stat()?;
        self.mark_impure(upper, &link.parent)?;
        dir::link((anchor.0.as_fd(), anchor.1), (at.as_fd(), &link.name))?;
        restore_times(&link.parent, &at, &times);
        dirs.push(at);
        Ok(())
    }

    /// Unlinked while it was copied, or before: it never gets a name that shows.
    fn publish_orphan(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        staged: Staged<'_>,
        id: ObjectId,
    ) -> Result<()> {
        if self.orphans.has_room() {
            self.orphans.keep(node, staged.keep_unnamed()?);
        } else {
            let aside = upper.temp_name();
            drop(staged.publish(upper.work.as_fd(), &aside)?);
            self.orphans.keep_aside(node, aside);
        }
        self.set_upper(node, id)
    }

    fn set_upper(&self, node: &Arc<Node>, id: ObjectId) -> Result<()> {
        if node.upper.set(id).is_err() {
            tracing::error!(ino = node.ino, "a node was copied up twice");
            return Err(Errno::EIO);
        }
        // Readers go to the upper from now on.
        drop(self.fds.remove(FdKey::LowerFile(node.ino)));
        Ok(())
    }

    /// Notes in a directory that its entries may have origins, so that a
    /// listing reads them. Once per directory.
    pub(super) fn mark_impure(&self, upper: &Upper, dir_node: &Arc<Node>) -> Result<()> {
        let Some(d) = &dir_node.dir else {
            return Ok(());
        };
        if d.impure.load(Ordering::Acquire) {
            return Ok(());
        }
        let fd = locate::upper_dir(&self.fds, &upper.layer, dir_node)?;
        best_effort(
            "mark a directory impure",
            upper.set_mark(&Spot::fd(fd), "impure", b"y"),
        );
        d.impure.store(true, Ordering::Release);
        Ok(())
    }

    /// Brings the data of a metacopy up (ovl_copy_up_meta_inode_data()); how much.
    fn fill_metacopy(&self, upper: &Upper, node: &Arc<Node>, need: Need) -> Result<u64> {
        let (spot, stat) = self.held(node)?;
        let mut bytes = 0;
        let to = if need != Need::Empty {
            let from = self.lower_data(node)?;
            let to = spot.open(rustix::fs::OFlags::RDWR)?;
            // Writing takes capabilities away, and nobody has written yet
            // (ovl_copy_up_meta_inode_data() in fs/overlayfs/copy_up.c).
            let capability = xattr::get(&spot, CAPABILITY)?;
            copy::clone_data(from.as_fd(), to.as_fd(), stat.size)?;
            if let Some(value) = capability {
                xattr::set(&spot, CAPABILITY, &value, 0)?;
            }
            bytes = stat.size;
            spot.set_times(SetTime::At(stat.atime), SetTime::At(stat.mtime))?;
            if upper.syncs() {
                file::sync(to.as_fd(), false)?;
            }
            to
        } else {
            // The size goes before the mark: a crash between leaves an empty file,
            // never the old length of zeros.
            let to = spot.open(rustix::fs::OFlags::WRONLY)?;
            file::truncate(to.as_fd(), 0)?;
            to
        };
        upper.remove_mark(&spot, "metacopy")?;
        best_effort(
            "drop a metacopy's redirect",
            upper.remove_mark(&spot, "redirect"),
        );
        node.metacopy.store(false, Ordering::Release);
        drop(self.fds.remove(FdKey::LowerFile(node.ino)));
        if upper.syncs() {
            // An fdatasync of what is written next need not write xattrs (ext4): the mark
            // would be back after a power cut, and the lower's data with it.
            file::sync(to.as_fd(), false)?;
        }
        Ok(bytes)
    }

    /// A write descriptor of a node, brought into the upper first.
    pub(super) fn writable_fd(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        if !node.is_upper() || node.metacopy.load(Ordering::Acquire) {
            self.ensure_upper(node, Need::Data)?;
        }
        self.data_fd(node, Access::Write)
    }
}

/// A complete copy on its way to a name.
struct Copied<'a> {
    staged: Staged<'a>,
    id: ObjectId,
}

/// An anchor that the resolver did not take for one: left by a copy-up that a
/// crash or a full disk cut off, when nothing else holds the object.
fn clear_stale_anchor(index: &Arc<OwnedFd>, anchor: &Name) -> Result<()> {
    match dir::probe(index.as_fd(), anchor)? {
        Some(s) if s.nlink < 2 || s.is_whiteout() => dir::unlink(index.as_fd(), anchor),
        _ => Ok(()),
    }
}

/// A copy-up must not show in the parent's times (user reports F#384, P#16897).
pub(super) fn restore_times(node: &Node, dir: &Arc<OwnedFd>, s: &Stat) {
    let spot = Spot::fd(dir.clone());
    let r = spot.set_times(SetTime::At(s.atime), SetTime::At(s.mtime));
    best_effort("restore a directory's times", r);
    if let Ok(now) = spot.stat() {
        node.mask_ctime(s.ctime, now.ctime);
    }
}
