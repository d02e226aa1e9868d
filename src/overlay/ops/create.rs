//! create, mkdir, mknod, symlink.
//!
//! Where nothing hides under the name, the object is made at its final place by
//! one call, as the caller: the backing file system then does umask, set-gid
//! directories, default ACLs and quotas exactly as it always does. Over a
//! whiteout it is staged and takes the whiteout's place in one step.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::found::Found;
use super::lookup::creatable;
use super::resolve::From;
use crate::layer::acl::{self, Acl};
use crate::layer::disguise::Disguise;
use crate::layer::{Probe, has_dot_wh};
use crate::overlay::decide::mode::inherit_group;
use crate::overlay::inode::locate::{self, FdKey};
use crate::overlay::inode::node::Node;
use crate::overlay::ops::ensure_upper::Need;
use crate::overlay::upper::Upper;
use crate::overlay::upper::stage::Blank;
use crate::overlay::{Caller, Entry, Overlay};
use crate::sys::{Errno, Kind, Name, Result, Spot, Stat, best_effort, cred, dir, stat, xattr};

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// Its type.
    pub kind: Kind,
    /// Permission bits as asked, before the umask.
    pub mode: u32,
    /// The caller's umask.
    pub umask: u32,
    /// A device's numbers.
    pub rdev: (u32, u32),
    /// A symlink's target.
    pub target: &'a [u8],
}

/// What the upper has under the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Under {
    Nothing,
    /// A whiteout that is an object of that name.
    Whiteout,
    /// A `.wh.NAME` file.
    DotWh,
}

impl Overlay {
    /// Makes an object. Its node is not yet counted (see [`Overlay::lookup`]).
    ///
    /// # Locks
    /// copy-up of the parent; rename (read), the directory (write).
    ///
    /// # Errors
    /// EEXIST; EINVAL for a marker's name; EPERM for a device 0:0, which would
    /// be a whiteout (the kernel refuses it too).
    pub fn make(
        &self,
        parent: &Arc<Node>,
        name: &[u8],
        new: &New<'_>,
        caller: Caller,
    ) -> Result<Entry> {
        self.check_writable()?;
        let name = creatable(name)?;
        if new.kind == Kind::Char && new.rdev == (0, 0) {
            return Err(Errno::EPERM);
        }
        self.ensure_upper(parent, Need::Meta)?;
        let upper = self.stack.writable()?;
        let Some(d) = &parent.dir else {
            return Err(Errno::ENOTDIR);
        };
        let _rename = self.rename.read();
        let _dir = d.lock.write();
        if d.dead.load(std::sync::atomic::Ordering::Acquire) {
            return Err(Errno::ENOENT);
        }
        let at = locate::upper_dir(&self.fds, &upper.layer, parent)?;
        let ids = self.owner_for(caller);
        let under = self.under(upper, parent, &at, &name)?;
        let maybe_nothing = matches!(under, None | Some(Under::Nothing));
        if maybe_nothing && !upper.layer.disguised {
            match make_directly(at.as_fd(), &name, new, ids) {
                // Only here is it worth a look what stands there.
                Err(Errno::EEXIST) if under.is_none() => {}
                r => return self.made_directly(parent, &name, &at, r?),
            }
        }
        let under = match under {
            Some(known) => known,
            None => what_hides(at.as_fd(), &name)?,
        };
        self.make_staged(upper, &at, &name, new, ids, under)?;
        parent.unmask_ctime();
        let entry = self.lookup_locked(parent, &name)?.ok_or(Errno::EIO)?;
        Ok(self.listed(parent, &name, entry))
    }

    /// What the upper has under a name that the view does not have; `None` where
    /// nothing is to be expected and the attempt to make something says it.
    ///
    /// # Errors
    /// EEXIST where the view has something there.
    fn under(
        &self,
        upper: &Upper,
        parent: &Arc<Node>,
        at: &Arc<OwnedFd>,
        name: &Name,
    ) -> Result<Option<Under>> {
        if parent.lowers.read().is_empty() {
            return Ok(None);
        }
        let xattr_whiteouts = self.xattr_whiteouts(parent);
        match upper.layer.probe(at, name, true, xattr_whiteouts)? {
            Probe::Object(_) => Err(Errno::EEXIST),
            Probe::Whiteout => what_hides(at.as_fd(), name).map(Some),
            Probe::Absent if self.resolve(parent, name, From::Lowers)?.is_some() => {
                Err(Errno::EEXIST)
            }
            Probe::Absent => Ok(Some(Under::Nothing)),
        }
    }

    /// The entry of an object that was just made where nothing was: it has no
    /// marks and nothing lies below it, so that its attributes are all to be asked.
    fn made_directly(
        &self,
        parent: &Arc<Node>,
        name: &Name,
        at: &Arc<OwnedFd>,
        file: Option<OwnedFd>,
    ) -> Result<Entry> {
        parent.unmask_ctime();
        let stat = match &file {
            Some(file) => stat::of_descriptor(file.as_fd())?,
            None => dir::probe(at.as_fd(), name)?.ok_or(Errno::EIO)?,
        };
        let found = Found::in_upper(stat);
        let node = self.intern(parent, name, &found);
        if let Some(file) = file {
            self.fds.put(FdKey::Upper(node.ino), &Arc::new(file), None);
        }
        let attr = self.attr_from(&node, &found.stat)?;
        Ok(self.listed(parent, name, Entry { node, attr }))
    }

    /// The disk ids of a caller: without a mapping the overflow ids, since a
    /// container engine makes mount points as somebody outside (contract 2.2).
    fn owner_for(&self, caller: Caller) -> (u32, u32) {
        let overflow = crate::idmap::OVERFLOW_ID;
        (
            self.settings.users.to_disk(caller.uid).unwrap_or(overflow),
            self.settings.groups.to_disk(caller.gid).unwrap_or(overflow),
        )
    }

    fn listed(&self, parent: &Arc<Node>, name: &Name, entry: Entry) -> Entry {
        self.listings
            .added(parent.ino, name, entry.node.ino, entry.node.kind);
        entry
    }

    fn make_staged(
        &self,
        upper: &Upper,
        at: &Arc<OwnedFd>,
        name: &Name,
        new: &New<'_>,
        ids: (u32, u32),
        under: Under,
    ) -> Result<()> {
        cred::set_umask(0)?;
        let staged = upper.stage(Blank {
            kind: new.kind,
            target: new.target,
            rdev: new.rdev,
        })?;
        let spot = staged.spot();
        let parent_spot = Spot::fd(at.clone());
        let parent_stat = self.upper_dir_stat(&parent_spot)?;
        dress(upper, &spot, &parent_spot, &parent_stat, new, ids)?;
        let is_dir = new.kind == Kind::Dir;
        if is_dir && under != Under::Nothing {
            upper.set_opaque(&spot)?;
        }
        match under {
            Under::Whiteout => staged.publish_over(at.as_fd(), name, is_dir).map(drop)?,
            Under::Nothing => staged.publish(at.as_fd(), name).map(drop)?,
            Under::DotWh => {
                staged.publish(at.as_fd(), name).map(drop)?;
                // Beside the new object the marker hides nothing new, and it is made.
                let dropped = upper.drop_dot_wh(at.as_fd(), name);
                best_effort("remove a marker that hides nothing", dropped);
            }
        }
        Ok(())
    }

    fn upper_dir_stat(&self, spot: &Spot) -> Result<Stat> {
        let s = spot.stat()?;
        if !self.upper_disguised() {
            return Ok(s);
        }
        let marks = crate::layer::mark::Marks::read(spot)?;
        Ok(self.undisguise(crate::layer::UPPER, &s, &marks))
    }
}

/// What hides a name in an upper directory.
///
/// # Errors
/// EEXIST where what stands there hides nothing: it is seen.
fn what_hides(at: BorrowedFd<'_>, name: &Name) -> Result<Under> {
    match dir::probe(at, name)? {
        Some(s) if s.is_whiteout() => return Ok(Under::Whiteout),
        // An empty file may be a whiteout by its xattr; the resolver has said
        // that nothing is visible, so whatever stands here hides.
        Some(s) if s.kind() == Kind::File && s.size == 0 => {
            let spot_is_whiteout = has_whiteout_xattr(at, name)?;
            return if spot_is_whiteout {
                Ok(Under::Whiteout)
            } else {
                Err(Errno::EEXIST)
            };
        }
        Some(_) => return Err(Errno::EEXIST),
        None => {}
    }
    Ok(if has_dot_wh(at, name)? {
        Under::DotWh
    } else {
        Under::Nothing
    })
}

fn has_whiteout_xattr(at: BorrowedFd<'_>, name: &Name) -> Result<bool> {
    let fd = Arc::new(crate::sys::file::duplicate(at)?);
    Ok(crate::layer::mark::Marks::read(&Spot::at(fd, name.clone()))?.whiteout)
}

fn make_directly(
    at: BorrowedFd<'_>,
    name: &Name,
    new: &New<'_>,
    ids: (u32, u32),
) -> Result<Option<OwnedFd>> {
    cred::create_as(ids.0, ids.1)?;
    cred::set_umask(new.umask & 0o777)?;
    match new.kind {
        Kind::File => return dir::create_file(at, name, new.mode & 0o7777).map(Some),
        Kind::Dir => dir::mkdir(at, name, new.mode & 0o7777)?,
        Kind::Symlink => dir::symlink(new.target, at, name)?,
        k => dir::mknod(at, name, k.mode_bits() | (new.mode & 0o7777), new.rdev)?,
    }
    Ok(None)
}

/// Owner, mode and ACLs of a staged object, as its directory hands them on.
fn dress(
    upper: &Upper,
    spot: &Spot,
    parent: &Spot,
    parent_stat: &Stat,
    new: &New<'_>,
    ids: (u32, u32),
) -> Result<()> {
    let full = new.kind.mode_bits() | (new.mode & 0o7777);
    let (gid, mut mode) = inherit_group(parent_stat.mode, parent_stat.gid, ids.1, full);
    let mut access = None;
    let mut default = None;
    if new.kind != Kind::Symlink {
        match xattr::get(parent, acl::DEFAULT)?
            .as_deref()
            .and_then(Acl::parse)
        {
            Some(d) => {
                (access, mode) = d.inherit(mode);
                default = (new.kind == Kind::Dir).then_some(d);
            }
            None => mode &= !(new.umask & 0o777),
        }
    }
    let want = Disguise {
        uid: ids.0,
        gid,
        mode: mode & 0o7777,
        kind: Some(new.kind),
        rdev: new.rdev,
    };
    upper.set_owner_and_mode(spot, &spot.stat()?, &want)?;
    if let Some(a) = access {
        xattr::set(spot, acl::ACCESS, &a.encode(), 0)?;
    }
    if let Some(d) = default {
        xattr::set(spot, acl::DEFAULT, &d.encode(), 0)?;
    }
    Ok(())
}
