//! Extended attributes and POSIX ACLs.
//!
//! ACLs that a layer records under a disguised name
//! (`user.containers.override_system.posix_acl_access`) are not shown: the kernel asks for
//! an ACL to decide with it, so what is shown must also be kept up to date by chmod and
//! handed on by a default ACL to what is made, under that name, where the disk does
//! neither. Exports, commits and written-out trees have them.

use std::borrow::Cow;
use std::sync::Arc;

use crate::layer::acl::{self, Acl};
use crate::layer::disguise::{DISGUISED, SECURITY_DISGUISED};
use crate::layer::reserved;
use crate::overlay::figures::Count;
use crate::overlay::inode::node::Node;
use crate::overlay::ops::ensure_upper::Need;
use crate::overlay::{Caller, Overlay};
use crate::sys::{Errno, Kind, Result, Spot, xattr};

pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// Whether `disk` stands for `name` and is not the name itself.
fn is_disguised(disk: &[u8], name: &[u8]) -> bool {
    disk.starts_with(SECURITY_DISGUISED) && disk != name
}

/// The value under the name on disk; of a disguised name that is not there, under
/// the name itself: containers/storage unpacks capabilities as they are.
fn get_either(spot: &Spot, disk: &[u8], name: &[u8]) -> Result<Vec<u8>> {
    match xattr::get_strict(spot, disk) {
        Err(Errno::ENODATA) if is_disguised(disk, name) => xattr::get_strict(spot, name),
        r => r,
    }
}

fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

impl Overlay {
    /// The name on disk; `None` for what is private, disguised or not: not every
    /// kernel keeps ordinary users from `security.*` (hostile finding 9).
    fn name_to_disk<'a>(&self, name: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let disk = reserved::to_disk(name)?;
        if self.settings.disguised_security && name.starts_with(b"security.") {
            return Some(Cow::Owned([DISGUISED, name].concat()));
        }
        Some(disk)
    }

    fn name_to_view<'a>(&self, disk: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if self.settings.disguised_security
            && let Some(rest) = disk.strip_prefix(DISGUISED)
        {
            let shown = reserved::to_view(rest)?;
            return shown.starts_with(b"security.").then_some(shown);
        }
        reserved::to_view(disk)
    }

    /// The name that the view shows for one on disk, if it shows it at all (to root;
    /// others do not see `trusted.*`).
    pub(crate) fn shows_xattr<'a>(&self, disk: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if is_acl(disk) && !self.settings.acls {
            return None;
        }
        self.name_to_view(disk)
    }

    /// An attribute's value.
    ///
    /// # Errors
    /// ENODATA where there is none; EOPNOTSUPP where the file system knows none.
    pub fn getxattr(&self, node: &Arc<Node>, name: &[u8]) -> Result<Vec<u8>> {
        if is_acl(name) && !self.settings.acls {
            return Err(Errno::EOPNOTSUPP);
        }
        let disk = self.name_to_disk(name).ok_or(Errno::ENODATA)?;
        if name == CAPABILITY && node.xattrs.known() == Some(false) {
            self.counts.count(Count::XattrHit);
            return Err(Errno::ENODATA);
        }
        self.counts.count(Count::XattrMiss);
        if name == CAPABILITY && !self.has_xattrs(node)? {
            return Err(Errno::ENODATA);
        }
        let v = match self.ask(node, |spot, _| get_either(spot, &disk, name)) {
            // One layer's file system without ACLs: the kernel would refuse the
            // object altogether.
            Err(Errno::EOPNOTSUPP) if is_acl(name) => return Err(Errno::ENODATA),
            r => r?,
        };
        if is_acl(name) && !self.ids_are_plain() {
            let shown = Acl::to_view(&v, &self.settings.users, &self.settings.groups);
            return shown.ok_or(Errno::EIO);
        }
        Ok(v)
    }

    /// Whether the view shows an attribute of the object.
    ///
    /// Most requests ask for a capability, often before LISTXATTR: asked for all
    /// names instead, the object is asked once.
    fn has_xattrs(&self, node: &Arc<Node>) -> Result<bool> {
        if node.xattrs.known().is_none() {
            drop(self.names_on_disk(node)?);
        }
        Ok(node.xattrs.known() != Some(false))
    }

    /// All names on disk; remembers whether any of them is shown.
    fn names_on_disk(&self, node: &Arc<Node>) -> Result<Vec<u8>> {
        let before = node.xattrs.before();
        let list = match self.ask(node, |spot, _| xattr::list_strict(spot)) {
            // Nothing to list, and no word on what a question for one name gets.
            Err(Errno::EOPNOTSUPP | Errno::EACCES) => return Ok(Vec::new()),
            r => r?,
        };
        let some = xattr::names(&list).any(|n| self.shows_xattr(n).is_some());
        node.xattrs.found(before, some);
        Ok(list)
    }

    /// The names of all attributes, each ended by NUL.
    /// `trusted.*` is shown to root alone, as ovl_can_list() does.
    pub fn listxattr(&self, node: &Arc<Node>, caller: Caller) -> Result<Vec<u8>> {
        if node.xattrs.known() == Some(false) {
            self.counts.count(Count::XattrHit);
            return Ok(Vec::new());
        }
        self.counts.count(Count::XattrMiss);
        let list = self.names_on_disk(node)?;
        let mut out = Vec::with_capacity(list.len());
        for name in xattr::names(&list) {
            if caller.uid != 0 && name.starts_with(b"trusted.") {
                continue;
            }
            if let Some(shown) = self.shows_xattr(name) {
                if shown.starts_with(b"security.") && xattr::names(&out).any(|n| n == &*shown) {
                    // Under its own name and under the disguised one.
                    continue;
                }
                out.extend_from_slice(&shown);
                out.push(0);
            }
        }
        Ok(out)
    }

    /// Sets an attribute; `flags` are XATTR_CREATE and XATTR_REPLACE.
    pub fn setxattr(
        &self,
        node: &Arc<Node>,
        name: &[u8],
        value: &[u8],
        flags: i32,
        caller: Caller,
    ) -> Result<()> {
        self.check_writable()?;
        if is_acl(name) && !self.settings.acls {
            return Err(Errno::EOPNOTSUPP);
        }
        let disk = self.name_to_disk(name).ok_or(Errno::EPERM)?;
        let value = match is_acl(name) && !self.ids_are_plain() {
            true => Cow::Owned(
                Acl::to_disk(value, &self.settings.users, &self.settings.groups)
                    .ok_or(Errno::EINVAL)?,
            ),
            false => Cow::Borrowed(value),
        };
        let disguised = is_disguised(&disk, name);
        if flags != 0 && (disguised || !node.is_upper()) {
            // Nothing is copied up for a call that cannot succeed.
            self.check_set_flags(node, name, &disk, flags)?;
        }
        let flags = if disguised { 0 } else { flags };
        self.ensure_upper(node, Need::Meta)?;
        let (spot, _) = self.held(node)?;
        node.xattrs.changes();
        let set = xattr::set(&spot, &disk, &value, flags);
        node.xattrs.changes();
        set?;
        node.unmask_ctime();
        if name == acl::ACCESS && node.kind != Kind::Symlink {
            self.mode_after_acl(node, &spot, &value, caller)?;
        }
        Ok(())
    }

    /// What posix_acl_update_mode() does to the mode and the disk has not done:
    /// a mode in an xattr is not the disk's, and our own CAP_FSETID keeps sgid.
    fn mode_after_acl(
        &self,
        node: &Arc<Node>,
        spot: &Spot,
        value: &[u8],
        caller: Caller,
    ) -> Result<()> {
        let upper = self.stack.writable()?;
        let now = self.undisguised(node, spot, &spot.stat()?)?;
        let mut mode = now.mode & 0o7777;
        if upper.disguise.is_some()
            && let Some(acl) = Acl::parse(value)
        {
            mode = mode & !0o777 | acl.permissions();
        }
        if caller.uid != 0 && !self.in_group(&now, caller) {
            mode &= !libc::S_ISGID;
        }
        if mode != now.mode & 0o7777 {
            upper.change(spot, &now, None, None, Some(mode))?;
        }
        Ok(())
    }

    fn check_set_flags(
        &self,
        node: &Arc<Node>,
        name: &[u8],
        disk: &[u8],
        flags: i32,
    ) -> Result<()> {
        let (spot, _) = self.top_spot(node)?;
        let has = match get_either(&spot, disk, name) {
            Err(Errno::ENODATA) => false,
            r => r.map(|_| true)?,
        };
        match has {
            true if flags & libc::XATTR_CREATE != 0 => Err(Errno::EEXIST),
            false if flags & libc::XATTR_REPLACE != 0 => Err(Errno::ENODATA),
            _ => Ok(()),
        }
    }

    /// Removes an attribute.
    pub fn removexattr(&self, node: &Arc<Node>, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        if is_acl(name) && !self.settings.acls {
            return Err(Errno::EOPNOTSUPP);
        }
        let disk = self.name_to_disk(name).ok_or(Errno::ENODATA)?;
        if !node.is_upper() {
            // Nothing is copied up for an attribute that is not there.
            let (spot, _) = self.top_spot(node)?;
            drop(get_either(&spot, &disk, name)?);
        }
        self.ensure_upper(node, Need::Meta)?;
        let (spot, _) = self.held(node)?;
        node.unmask_ctime();
        let removed = match xattr::remove(&spot, &disk) {
            Err(Errno::ENODATA) if is_acl(name) => Ok(()),
            r => r,
        };
        if is_disguised(&disk, name) {
            // What the layer has under the name itself would show again.
            return match (removed, xattr::remove(&spot, name)) {
                (Ok(()), Err(Errno::ENODATA)) => Ok(()),
                (Ok(()) | Err(Errno::ENODATA), plain) => plain,
                (failed, _) => failed,
            };
        }
        removed
    }

    fn ids_are_plain(&self) -> bool {
        self.settings.users.is_identity() && self.settings.groups.is_identity()
    }
}
