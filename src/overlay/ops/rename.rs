//! rename(2): files and directories, merged and lower ones too.
//!
//! First everything that moves is brought into the upper, with no lock held.
//! Then, with the rename lock held for writing, one renameat2(2) does it. A
//! directory that has lowers either says in a redirect where they are, or has
//! been copied up whole before (architecture.md, "Directory rename").

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::displace::{displace, put_back};
use super::found::Found;
use super::lookup::{checked, creatable};
use super::remove::{Last, stands_alone};
use crate::overlay::Overlay;
use crate::overlay::inode::locate;
use crate::overlay::inode::node::Node;
use crate::overlay::ops::ensure_upper::Need;
use crate::overlay::options::RedirectDir;
use crate::overlay::upper::{Namespace, Present, Upper};
use crate::sys::dir::{self, Rename};
use crate::sys::probe::WhiteoutKind;
use crate::sys::{Errno, Kind, Name, ObjectId, Result, Spot, best_effort};

/// What happens to a target that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is replaced.
    Replace,
    /// EEXIST.
    NoReplace,
    /// Both change places.
    Exchange,
}

/// The nodes whose names a rename changed: none, one, or two that changed places.
pub type Moved = Vec<Arc<Node>>;

/// One end of a rename.
pub(super) struct End<'a> {
    pub(super) parent: &'a Arc<Node>,
    pub(super) name: Name,
    pub(super) at: Arc<OwnedFd>,
    /// What the view has there.
    here: Option<(Arc<Node>, Found)>,
    /// The lowers would show something if the upper had nothing.
    pub(super) lowers_show: bool,
    /// The upper has nothing there, no marker either.
    bare: bool,
}

impl End<'_> {
    /// Whether what stands here is the upper's alone, whole and under this very name:
    /// to be moved it needs no preparation.
    fn may_move(&self) -> bool {
        self.here.as_ref().is_none_or(|(node, found)| {
            let whole = !node.metacopy.load(Ordering::Acquire);
            stands_alone(node)
                && whole
                && found.lowers.is_empty()
                && found.present() != Present::Nothing
        })
    }

    /// Whether what stands here needs no preparation to be replaced: only names of a
    /// lower file are counted before one of them goes.
    fn may_be_replaced(&self) -> bool {
        let counted = |found: &Found| found.upper.is_none() && found.lower_nlink > 1;
        self.here
            .as_ref()
            .is_none_or(|(node, found)| !node.is_dir() && !counted(found))
    }
}

/// How often a rename that was overtaken is tried again.
const OVERTAKEN: usize = 8;

/// Longest redirect that is written: beyond it the subtree is copied instead
/// (an xattr of ext4 holds less than a block).
const REDIRECT_WRITE_MAX: usize = 2048;

impl Overlay {
    /// Renames `from` to `to`, each a directory and a name; what moved.
    ///
    /// # Locks
    /// copy-up of both parents and of what moves; then rename (write).
    ///
    /// # Errors
    /// EXDEV for a directory with lowers under `redirect_dir=off` only.
    pub fn rename(
        &self,
        from: (&Arc<Node>, &[u8]),
        to: (&Arc<Node>, &[u8]),
        how: How,
    ) -> Result<Moved> {
        self.check_writable()?;
        let (old, new) = (checked(from.1)?, creatable(to.1)?);
        if how == How::Exchange {
            creatable(from.1)?;
        }
        // Of what is in the upper there is mostly nothing to prepare, and what there is
        // shows under the locks.
        let mut prepared = !(from.0.is_upper() && to.0.is_upper());
        // What was prepared without locks may be overtaken before they are held.
        for _ in 0..=OVERTAKEN {
            if prepared {
                self.prepare((from.0, &old), (to.0, &new), how)?;
            }
            let upper = self.stack.writable()?;
            let _rename = self.rename.write();
            let a = self.end(upper, from.0, old.clone())?;
            let b = self.end(upper, to.0, new.clone())?;
            let b_stays = how != How::Exchange && b.may_be_replaced();
            if prepared || a.may_move() && (b_stays || b.may_move()) {
                match self.move_now(upper, &a, &b, how) {
                    Err(Errno::EBUSY) => {}
                    r => return r,
                }
            }
            prepared = true;
        }
        Err(Errno::EBUSY)
    }

    /// Brings into the upper what moves and what it moves between.
    fn prepare(&self, from: (&Arc<Node>, &Name), to: (&Arc<Node>, &Name), how: How) -> Result<()> {
        self.refuse_early(from, to, how)?;
        self.ensure_upper(from.0, Need::Meta)?;
        self.ensure_upper(to.0, Need::Meta)?;
        self.prepare_to_move(from.0, from.1)?;
        match how {
            How::Exchange => self.prepare_to_move(to.0, to.1),
            _ => self.copy_up_if_counted(to.0, to.1),
        }
    }

    /// What cannot succeed copies nothing up. Asked again under the lock.
    fn refuse_early(
        &self,
        from: (&Arc<Node>, &Name),
        to: (&Arc<Node>, &Name),
        how: How,
    ) -> Result<()> {
        let source = self.lookup(from.0, from.1)?.ok_or(Errno::ENOENT)?.node;
        let Some(target) = self.lookup(to.0, to.1)?.map(|e| e.node) else {
            return if how == How::Exchange {
                Err(Errno::ENOENT)
            } else {
                Ok(())
            };
        };
        match how {
            How::NoReplace => return Err(Errno::EEXIST),
            How::Exchange => return Ok(()),
            How::Replace => {}
        }
        let Some(d) = &target.dir else {
            return if source.is_dir() {
                Err(Errno::ENOTDIR)
            } else {
                Ok(())
            };
        };
        if !source.is_dir() {
            return Err(Errno::EISDIR);
        }
        if Arc::ptr_eq(&source, &target) {
            return Ok(());
        }
        let _rename = self.rename.read();
        let _dir = d.lock.read();
        if self.is_empty_dir(&target)? {
            Ok(())
        } else {
            Err(Errno::ENOTEMPTY)
        }
    }

    fn end<'a>(&self, upper: &Upper, parent: &'a Arc<Node>, name: Name) -> Result<End<'a>> {
        let all = self.resolve_all(parent, &name)?;
        let here = all.found.map(|f| (self.intern(parent, &name, &f), f));
        Ok(End {
            parent,
            at: locate::upper_dir(&self.fds, &upper.layer, parent)?,
            here,
            lowers_show: self.lowers_show(all.lowers_show, parent, &name)?,
            bare: all.upper_is_bare,
            name,
        })
    }

    /// Brings what stands at a name into the upper so that it can move.
    fn prepare_to_move(&self, parent: &Arc<Node>, name: &Name) -> Result<()> {
        let entry = self.lookup(parent, name)?.ok_or(Errno::ENOENT)?;
        let node = entry.node;
        if !node.is_dir() {
            // A metacopy would need a redirect to its data under the old name;
            // its data comes up instead, which every reader understands.
            self.ensure_upper(&node, Need::Data)?;
            self.link_name_up(&node, parent, name)?;
            return Ok(());
        }
        self.ensure_upper(&node, Need::Meta)?;
        if node.lowers.read().is_empty() {
            return Ok(());
        }
        match self.settings.redirect_dir {
            RedirectDir::Follow | RedirectDir::NoFollow => Err(Errno::EXDEV),
            _ if self.may_redirect(&node) => Ok(()),
            _ => self.copy_up_tree(&node),
        }
    }

    /// Whether a directory's lowers may be left where they are.
    fn may_redirect(&self, node: &Node) -> bool {
        let Some(upper) = &self.stack.upper else {
            return false;
        };
        let wanted = match self.settings.redirect_dir {
            RedirectDir::On => upper.namespace != Namespace::None,
            RedirectDir::Auto => upper.namespace == Namespace::Trusted,
            _ => false,
        };
        wanted && redirect_of(node).is_some()
    }

    fn move_now(&self, upper: &Upper, a: &End<'_>, b: &End<'_>, how: How) -> Result<Moved> {
        let Some((node, found)) = &a.here else {
            return Err(Errno::ENOENT);
        };
        match (&b.here, how) {
            (Some(_), How::NoReplace) => return Err(Errno::EEXIST),
            (None, How::Exchange) => return Err(Errno::ENOENT),
            (Some((n, _)), _) if Arc::ptr_eq(n, node) => return Ok(Moved::new()),
            _ => {}
        }
        self.check_movable(a, node, found)?;
        if how == How::Exchange {
            return self.exchange(upper, a, b);
        }
        let mut target = None;
        if let Some((victim, vf)) = &b.here {
            match (node.is_dir(), victim.is_dir()) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ => {}
            }
            if victim.is_dir() && !self.is_empty_dir(victim)? {
                return Err(Errno::ENOTEMPTY);
            }
            target = Some((victim, vf));
        }
        self.prepare_marks(upper, node, a, b)?;
        let mut displaced = None;
        if let Some((victim, vf)) = target {
            self.keep_victim(upper, b, victim, vf)?;
            if node.is_dir() && vf.present() != Present::Nothing {
                displaced = displace(upper, b)?;
            }
        }
        if let Err(e) = self.rename_upper(upper, a, b, node.is_dir()) {
            if let Some(temp) = &displaced {
                best_effort("put a directory back", put_back(upper, b, temp));
            }
            if let Some((victim, vf)) = target {
                self.let_go(upper, b, victim, vf);
            }
            return Err(e);
        }
        if let Some(temp) = displaced {
            best_effort("clear a replaced directory", upper.clear_temp(&temp));
        }
        if let Some((victim, _)) = target {
            self.forget_name(upper, b.parent, &b.name, victim);
            self.repin(upper, victim);
        }
        self.moved(node, a, b);
        Ok(vec![node.clone()])
    }

    /// What moves stands in the upper under its name, or the preparation was
    /// overtaken by somebody else's change: then the caller may try again.
    fn check_movable(&self, end: &End<'_>, node: &Arc<Node>, found: &Found) -> Result<()> {
        let in_place = found.present() != Present::Nothing;
        let lowers_ok = !node.is_dir() || node.lowers.read().is_empty() || self.may_redirect(node);
        if in_place && lowers_ok {
            Ok(())
        } else {
            tracing::debug!(name = %String::from_utf8_lossy(&end.name), "rename overtaken");
            Err(Errno::EBUSY)
        }
    }

    /// Marks that must be on the disk before the name moves: harmless at the old
    /// place, right at the new one.
    fn prepare_marks(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        a: &End<'_>,
        b: &End<'_>,
    ) -> Result<()> {
        if !Arc::ptr_eq(a.parent, b.parent) {
            self.mark_impure(upper, b.parent)?;
        }
        if !node.is_dir() {
            return Ok(());
        }
        let spot = Spot::at(a.at.clone(), a.name.clone());
        if node.lowers.read().is_empty() {
            if !b.parent.lowers.read().is_empty() {
                upper.set_opaque(&spot)?;
            }
            return Ok(());
        }
        let redirect = redirect_of(node).ok_or(Errno::EXDEV)?;
        upper.set_mark(&spot, "redirect", &redirect)
    }

    fn keep_victim(
        &self,
        upper: &Upper,
        b: &End<'_>,
        victim: &Arc<Node>,
        vf: &Found,
    ) -> Result<()> {
        let present = vf.present();
        let last = victim.links.lock().only(b.parent, &b.name);
        // Beyond the budget it is given a second name in the work directory, so
        // that the rename over the first one stays one step.
        let kept = self.orphans.holds(victim.ino) || self.orphans.has_room();
        if last && present == Present::NonDir && victim.is_upper() && !kept {
            let aside = upper.temp_name();
            dir::link((b.at.as_fd(), &b.name), (upper.work.as_fd(), &aside))?;
            drop(self.fds.remove(locate::FdKey::Upper(victim.ino)));
            self.orphans.keep_aside(victim, aside);
        } else if present != Present::Dir || self.orphans.has_room() {
            // A directory beyond the budget is not kept: moving it aside first
            // would make two steps of the rename.
            let last = if last {
                Last::Of(present, false)
            } else {
                Last::No
            };
            self.keep_if_last(upper, &b.at, &b.name, victim, last)?;
        }
        if present == Present::NonDir && Self::is_indexed(victim) {
            self.pin_nlink(upper, victim, &Spot::at(b.at.clone(), b.name.clone()))?;
        }
        Ok(())
    }

    /// Undoes [`Self::keep_victim`] after a rename that failed; not where it failed
    /// after the victim's name had gone: that one is without a name now.
    fn let_go(&self, upper: &Upper, b: &End<'_>, victim: &Node, found: &Found) {
        let at = Spot::at(b.at.clone(), b.name.clone()).stat();
        let stands = |id| at.is_ok_and(|s| ObjectId::of(&s) == id);
        if found.upper.as_ref().is_some_and(|u| stands(u.id)) {
            self.orphans.remove(Some(upper), victim);
        }
    }

    fn rename_upper(&self, upper: &Upper, a: &End<'_>, b: &End<'_>, is_dir: bool) -> Result<()> {
        let (from, to) = ((a.at.as_fd(), &a.name[..]), (b.at.as_fd(), &b.name[..]));
        // A file replaces a whiteout as it does any other file.
        let over_whiteout =
            is_dir && !b.bare && dir::probe(to.0, to.1)?.is_some_and(|s| s.kind() != Kind::Dir);
        if a.lowers_show {
            upper.expect_whiteouts(from.0)?;
        }
        if over_whiteout {
            // The whiteout comes to stand at the old name: needed there, or
            // removed.
            match dir::rename(from, to, Rename::Exchange) {
                // See Upper::swap().
                Err(Errno::EINVAL) => {
                    dir::unlink(to.0, to.1)?;
                    dir::rename(from, to, Rename::NoReplace)?;
                    if a.lowers_show {
                        upper.add_whiteout(from.0, from.1)?;
                    }
                }
                Ok(()) if !a.lowers_show => {
                    best_effort(
                        "remove a whiteout that hides nothing",
                        dir::unlink(from.0, from.1),
                    );
                }
                r => r?,
            }
        } else if !a.lowers_show {
            dir::rename(from, to, Rename::Replace)?;
        } else if upper.whiteouts == WhiteoutKind::CharDevice && upper.rename_whiteout {
            dir::rename(from, to, Rename::Whiteout)?;
        } else if upper.whiteouts != WhiteoutKind::DotWh {
            // Two steps: a crash between them shows the old name again, as the
            // lowers have it. Nothing is lost.
            dir::rename(from, to, Rename::Replace)?;
            upper.add_whiteout(from.0, from.1)?;
        } else {
            upper.add_whiteout(from.0, from.1)?;
            dir::rename(from, to, Rename::Replace)?;
        }
        // Where nothing lies below a marker hides nothing.
        if b.bare || b.parent.lowers.read().is_empty() {
            return Ok(());
        }
        // It is done: the kernel keeps the names it has where it is told otherwise.
        let dropped = upper.drop_dot_wh(to.0, to.1);
        best_effort("remove a marker that hides nothing", dropped);
        Ok(())
    }

    fn exchange(&self, upper: &Upper, a: &End<'_>, b: &End<'_>) -> Result<Moved> {
        let (Some((x, _)), Some((y, yf))) = (&a.here, &b.here) else {
            return Err(Errno::ENOENT);
        };
        self.check_movable(b, y, yf)?;
        self.prepare_marks(upper, x, a, b)?;
        self.prepare_marks(upper, y, b, a)?;
        let (from, to) = ((a.at.as_fd(), &a.name[..]), (b.at.as_fd(), &b.name[..]));
        dir::rename(from, to, Rename::Exchange)?;
        for n in [x, y, a.parent, b.parent] {
            n.unmask_ctime();
        }
        x.links.lock().remove(a.parent, &a.name);
        y.links.lock().remove(b.parent, &b.name);
        x.links.lock().add(b.parent, &b.name);
        y.links.lock().add(a.parent, &a.name);
        self.listings.added(b.parent.ino, &b.name, x.ino, x.kind);
        self.listings.added(a.parent.ino, &a.name, y.ino, y.kind);
        Ok(vec![x.clone(), y.clone()])
    }

    fn moved(&self, node: &Arc<Node>, a: &End<'_>, b: &End<'_>) {
        for n in [node, a.parent, b.parent] {
            n.unmask_ctime();
        }
        let mut links = node.links.lock();
        links.remove(a.parent, &a.name);
        links.add(b.parent, &b.name);
        drop(links);
        self.recent.is(b.parent.ino, &b.name, node.ino);
        self.listings.removed(a.parent.ino, &a.name);
        self.listings
            .added(b.parent.ino, &b.name, node.ino, node.kind);
    }
}

/// The redirect that leads a directory's lowers to it from anywhere: their path
/// in the lowers' own merged view. `None` where it is too long to be kept.
fn redirect_of(node: &Node) -> Option<Vec<u8>> {
    let view = node.dir.as_ref()?.lower_view.as_ref()?;
    let mut path = Vec::new();
    for c in view.components() {
        path.push(b'/');
        path.extend_from_slice(&c);
    }
    (!path.is_empty() && path.len() <= REDIRECT_WRITE_MAX).then_some(path)
}
