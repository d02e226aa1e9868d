//! unlink and rmdir.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::OFlags;

use super::lookup::checked;
use super::resolve::From;
use crate::overlay::Overlay;
use crate::overlay::inode::locate::{self, FdKey};
use crate::overlay::inode::node::Node;
use crate::overlay::ops::ensure_upper::Need;
use crate::overlay::upper::{Present, Upper};
use crate::sys::dir::{self, Rename};
use crate::sys::probe::WhiteoutKind;
use crate::sys::{Errno, Kind, Name, Result, Spot, best_effort};

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// unlink(2): anything but a directory.
    NonDir,
    /// rmdir(2).
    Dir,
}

impl Overlay {
    /// Removes a name.
    ///
    /// # Locks
    /// copy-up of the parent (and of a lower file with several names, whose
    /// count must outlive the mount); rename (read), the directory (write).
    pub fn remove(&self, parent: &Arc<Node>, name: &[u8], target: Target) -> Result<()> {
        self.check_writable()?;
        let name = checked(name)?;
        self.ensure_upper(parent, Need::Meta)?;
        if target == Target::NonDir {
            self.copy_up_if_counted(parent, &name)?;
        }
        let upper = self.stack.writable()?;
        let Some(d) = &parent.dir else {
            return Err(Errno::ENOTDIR);
        };
        let _rename = self.rename.read();
        let _dir = d.lock.write();
        let here = self.resolve_all(parent, &name)?;
        let found = here.found.ok_or(Errno::ENOENT)?;
        match (target, found.kind == Kind::Dir) {
            (Target::NonDir, true) => return Err(Errno::EISDIR),
            (Target::Dir, false) => return Err(Errno::ENOTDIR),
            _ => {}
        }
        let node = self.intern(parent, &name, &found);
        let at = locate::upper_dir(&self.fds, &upper.layer, parent)?;
        let hide = self.lowers_show(here.lowers_show, parent, &name)?;
        // A victim directory's own lock, child after parent: nothing may be
        // made in it once it was seen empty.
        let _victim = match &node.dir {
            Some(v) => {
                let guard = v.lock.write();
                if !hide && self.remove_if_bare(upper, &at, (parent, &name), &node)? {
                    return Ok(());
                }
                if !self.is_empty_dir(&node)? {
                    return Err(Errno::ENOTEMPTY);
                }
                Some(guard)
            }
            None => None,
        };
        self.retire_name(upper, &at, (parent, &name), &node, (found.present(), hide))?;
        self.listings.removed(parent.ino, &name);
        Ok(())
    }

    /// Removes a directory that only the upper has and nothing lies below, with rmdir(2) as the judge of
    /// whether it is empty; false where it holds something, which may be markers
    /// alone, or where it is not that simple. The caller holds both locks.
    fn remove_if_bare(
        &self,
        upper: &Upper,
        at: &Arc<OwnedFd>,
        (parent, name): (&Arc<Node>, &Name),
        node: &Arc<Node>,
    ) -> Result<bool> {
        // With a listing at hand the question costs nothing; beyond the budget a
        // directory is moved aside, for which it must be known to be empty.
        let simple =
            stands_alone(node) && self.listings.get(node.ino).is_none() && self.orphans.has_room();
        if !simple {
            return Ok(false);
        }
        let key = FdKey::Upper(node.ino);
        let fd = match self.fds.get(key) {
            Some(fd) => fd,
            None => Arc::new(Spot::at(at.clone(), name.clone()).open(OFlags::PATH)?),
        };
        // Before its name goes, as everywhere.
        self.orphans.keep(node, fd);
        if let Err(e) = dir::rmdir(at.as_fd(), name) {
            drop(self.orphans.remove(Some(upper), node));
            return match e {
                Errno::ENOTEMPTY | Errno::EEXIST => Ok(false),
                e => Err(e),
            };
        }
        drop(self.fds.remove(key));
        self.forget_name(upper, parent, name, node);
        self.listings.removed(parent.ino, name);
        Ok(true)
    }

    /// A lower file with several names is brought up before one of them goes,
    /// so that the index can keep the count (as the kernel: ovl_nlink_start()).
    pub(super) fn copy_up_if_counted(&self, parent: &Arc<Node>, name: &Name) -> Result<()> {
        // Without lowers every object of the directory is in the upper already.
        if self.stack.upper.as_ref().is_none_or(|u| u.index.is_none())
            || parent.lowers.read().is_empty()
        {
            return Ok(());
        }
        let known = self.recent.node(&self.table, parent, name);
        if known.is_some_and(|node| node.is_dir() || node.is_upper()) {
            return Ok(());
        }
        let found = {
            let Some(d) = &parent.dir else {
                return Err(Errno::ENOTDIR);
            };
            let _rename = self.rename.read();
            let _dir = d.lock.read();
            let Some(f) = self.resolve(parent, name, From::Top)? else {
                return Ok(());
            };
            if f.kind == Kind::Dir || f.upper.is_some() || f.lower_nlink < 2 {
                return Ok(());
            }
            self.intern(parent, name, &f)
        };
        self.ensure_upper(&found, Need::Data)
    }

    /// Whether the lowers would show something under `name` if the upper had nothing;
    /// `known`: where that was found out already.
    pub(super) fn lowers_show(
        &self,
        known: Option<bool>,
        parent: &Arc<Node>,
        name: &Name,
    ) -> Result<bool> {
        if let Some(known) = known {
            return Ok(known);
        }
        if parent.lowers.read().is_empty() {
            return Ok(false);
        }
        // What cannot be shown (its redirect is refused, its data missing, a layer gives
        // errors) is there all the same: ovl_lower_positive() assumes so too.
        Ok(self
            .resolve(parent, name, From::Lowers)
            .map_or(true, |found| found.is_some()))
    }

    /// Takes one name of a node away: what the upper has there, and whether the
    /// lowers would then show something. The caller holds the directory's lock.
    fn retire_name(
        &self,
        upper: &Upper,
        at: &Arc<OwnedFd>,
        (parent, name): (&Arc<Node>, &Name),
        node: &Arc<Node>,
        (present, hide): (Present, bool),
    ) -> Result<()> {
        let last = node.links.lock().only(parent, name);
        if let (Present::NonDir, true) = (present, Self::is_indexed(node)) {
            self.pin_nlink(upper, node, &Spot::at(at.clone(), name.clone()))?;
        }
        let kept = if last {
            Last::Of(present, hide)
        } else {
            Last::No
        };
        let aside = self.keep_if_last(upper, at, name, node, kept)?;
        if aside == Aside::No
            && let Err(e) = upper.remove(at.as_fd(), name, present, hide)
        {
            self.orphans.remove(Some(upper), node);
            return Err(e);
        }
        self.forget_name(upper, parent, name, node);
        if present == Present::Nothing {
            // No backing count changed with it. Written after the name went: a
            // crash between leaves a count too high and an anchor too long.
            self.repin(upper, node);
        }
        Ok(())
    }

    /// Writes an indexed file's count anew.
    pub(super) fn repin(&self, upper: &Upper, node: &Arc<Node>) {
        if !Self::is_indexed(node) {
            return;
        }
        let pinned = self.anchored(upper, node).and_then(|spot| match spot {
            Some(spot) if spot.stat().is_ok() => self.pin_nlink(upper, node, &spot),
            _ => Ok(()),
        });
        best_effort("write a link count", pinned);
    }

    /// Memory's side of a name that went: the caller has changed the disk.
    pub(super) fn forget_name(
        &self,
        upper: &Upper,
        parent: &Arc<Node>,
        name: &Name,
        node: &Arc<Node>,
    ) {
        node.unmask_ctime();
        parent.unmask_ctime();
        let none = node.lose_name(parent, name);
        if let Some(d) = node.dir.as_ref().filter(|_| none) {
            d.dead.store(true, Ordering::Release);
            self.listings.remove(node.ino);
        }
        self.count_links(upper, node, -1);
    }

    /// Before the last known name of an upper object goes, the object itself is
    /// kept: somebody may have it open.
    pub(super) fn keep_if_last(
        &self,
        upper: &Upper,
        at: &Arc<OwnedFd>,
        name: &Name,
        node: &Arc<Node>,
        last: Last,
    ) -> Result<Aside> {
        let Last::Of(present, hide) = last else {
            return Ok(Aside::No);
        };
        // One that was kept before stays so until it is forgotten.
        if !node.is_upper() || self.orphans.holds(node.ino) {
            return Ok(Aside::No);
        }
        if let Some(fd) = self.fds.get(FdKey::Upper(node.ino)) {
            if self.orphans.has_room() {
                drop(self.fds.remove(FdKey::Upper(node.ino)));
                self.orphans.keep(node, fd);
                return Ok(Aside::No);
            }
        } else if self.orphans.has_room() {
            let spot = match present {
                // Indexed, nothing in the upper's tree: the anchor is it.
                Present::Nothing => match self.anchored(upper, node)? {
                    Some(spot) => spot,
                    None => return Ok(Aside::No),
                },
                _ => Spot::at(at.clone(), name.clone()),
            };
            self.orphans.keep(node, Arc::new(spot.open(OFlags::PATH)?));
            return Ok(Aside::No);
        }
        if present == Present::Nothing {
            // The anchor stays, and is moved aside when the count is nothing.
            return Ok(Aside::No);
        }
        let aside = upper.temp_name();
        self.orphans.moves_aside(node, aside.clone());
        if let Err(e) = upper.move_aside(at, name, &aside, hide) {
            self.orphans.remove(Some(upper), node);
            return Err(e);
        }
        drop(self.fds.remove(FdKey::Upper(node.ino)));
        self.orphans.keep_aside(node, aside);
        Ok(Aside::Moved)
    }

    fn anchored(&self, upper: &Upper, node: &Arc<Node>) -> Result<Option<Spot>> {
        let (Some(index), Some(name)) = (&upper.index, node.anchor()) else {
            return Ok(None);
        };
        Ok(Some(Spot::at(index.clone(), name)))
    }
}

/// Whether a node is the upper's alone, so that nothing of it is to be copied up.
pub(super) fn stands_alone(node: &Node) -> bool {
    node.is_upper() && node.lowers.read().is_empty()
}

/// Whether an object was moved into the work directory instead of unlinked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aside {
    /// No.
    No,
    /// Its name in the upper is gone already.
    Moved,
}

/// Whether a name is a node's last known one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// It is not.
    No,
    /// It is; what stands there, and whether a whiteout must take its place.
    Of(Present, bool),
}

impl Overlay {
    /// Whether empty files of a directory of the upper may be whiteouts.
    pub(super) fn xattr_whiteouts(&self, node: &Node) -> bool {
        let all = |u: &Upper| u.whiteouts == WhiteoutKind::Xattr;
        self.stack.upper.as_ref().is_some_and(all)
            || node
                .dir
                .as_ref()
                .is_some_and(|d| d.xattr_whiteouts.load(std::sync::atomic::Ordering::Relaxed))
    }
}

impl Upper {
    /// Moves an object into the work directory; where the lowers would show
    /// something, a whiteout takes its place in the same step.
    fn move_aside(&self, at: &Arc<OwnedFd>, name: &Name, aside: &Name, hide: bool) -> Result<()> {
        let (from, to) = ((at.as_fd(), &name[..]), (self.work.as_fd(), &aside[..]));
        if !hide {
            dir::rename(from, to, Rename::NoReplace)?;
        } else if self.whiteouts != WhiteoutKind::DotWh {
            self.expect_whiteouts(at.as_fd())?;
            self.stage_whiteout(aside)?;
            self.swap(aside, from.0, from.1)?;
        } else {
            self.add_whiteout(at.as_fd(), name)?;
            dir::rename(from, to, Rename::NoReplace)?;
        }
        Ok(())
    }
}
