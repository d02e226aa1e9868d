//! Owner, mode, xattrs and times of upper objects: the order that survives.
//!
//! Owner before mode (chown drops suid), both before xattrs (chown drops
//! capabilities), times last (every other step moves ctime, some mtime).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Upper;
use crate::layer::disguise::{self, Disguise, SECURITY_OVERRIDE, USER_OVERRIDE};
use crate::layer::{acl, reserved};
use crate::overlay::options::XattrPermissions;
use crate::sys::stat::SetTime;
use crate::sys::{Errno, Kind, Result, Spot, Stat, best_effort, xattr};

impl Upper {
    /// The xattr that owner and mode are written to; `None` where they are real.
    pub fn override_name(&self) -> Option<&'static [u8]> {
        self.disguise.map(|d| match d {
            XattrPermissions::Security => SECURITY_OVERRIDE,
            XattrPermissions::User => USER_OVERRIDE,
        })
    }

    /// Makes a fresh object, which has these attributes now, belong to `uid`:`gid` with
    /// `mode` (0o7777).
    pub fn set_owner_and_mode(&self, spot: &Spot, now: &Stat, want: &Disguise) -> Result<()> {
        let kind = want.kind.unwrap_or(Kind::File);
        if let Some(name) = self.override_name() {
            if kind == Kind::Symlink && self.disguise == Some(XattrPermissions::User) {
                // user.* cannot stand on a symlink; its owner is the mounter's.
                return Ok(());
            }
            xattr::set(spot, name, &want.encode(), 0)?;
            if kind != Kind::Symlink {
                spot.chmod(real_mode(kind, want.mode))?;
            }
            return Ok(());
        }
        if (now.uid, now.gid) != (want.uid, want.gid) {
            match spot.chown(Some(want.uid), Some(want.gid)) {
                // Not permitted, or an id that this user namespace does not have.
                Err(Errno::EPERM | Errno::EINVAL) if self.squashed => {}
                r => r.map_err(owner_error)?,
            }
        }
        if kind != Kind::Symlink && (now.mode & 0o7777 != want.mode || want.mode & 0o6000 != 0) {
            spot.chmod(want.mode)?;
        }
        Ok(())
    }

    /// A symlink can carry no `user.` xattr: its owner is the real one, where this
    /// process may give it away, and else stays the mounter's. Does nothing where
    /// owners are not kept in that xattr.
    pub fn give_symlink(&self, spot: &Spot, uid: Option<u32>, gid: Option<u32>) {
        if self.disguise == Some(XattrPermissions::User) && (uid.is_some() || gid.is_some()) {
            best_effort("give a symlink away", spot.chown(uid, gid));
        }
    }

    /// Changes owner, group or mode of an object; `now` is how the view's disk
    /// side has it (undisguised).
    pub fn change(
        &self,
        spot: &Spot,
        now: &Stat,
        uid: Option<u32>,
        gid: Option<u32>,
        mode: Option<u32>,
    ) -> Result<()> {
        if let Some(name) = self.override_name() {
            if now.kind() == Kind::Symlink && self.disguise == Some(XattrPermissions::User) {
                self.give_symlink(spot, uid, gid);
                return Ok(());
            }
            let mut d = Disguise::of(now);
            d.uid = uid.unwrap_or(d.uid);
            d.gid = gid.unwrap_or(d.gid);
            if uid.is_some() || gid.is_some() {
                d.mode = crate::overlay::decide::mode::after_chown(now.mode) & 0o7777;
            }
            d.mode = mode.map_or(d.mode, |m| m & 0o7777);
            xattr::set(spot, name, &d.encode(), 0)?;
            if now.kind() != Kind::Symlink && mode.is_some() {
                spot.chmod(real_mode(now.kind(), d.mode))?;
            }
            return Ok(());
        }
        if uid.is_some() || gid.is_some() {
            spot.chown(uid, gid)?;
        }
        if let Some(m) = mode
            && now.kind() != Kind::Symlink
        {
            spot.chmod(m & 0o7777)?;
        }
        Ok(())
    }

    /// Copies a lower object's xattrs (private ones apart) to its copy.
    pub fn copy_xattrs(&self, from: &Spot, to: &Spot) -> Result<()> {
        let list = match xattr::list(from) {
            // No call can name them all. What decides access is taken along; the
            // rest stays below, as it does where an upper keeps no xattrs.
            Err(Errno::E2BIG | Errno::ERANGE) => {
                tracing::warn!(
                    "an object has more xattrs than can be listed: not all are copied up"
                );
                [
                    acl::ACCESS,
                    acl::DEFAULT,
                    b"security.capability",
                    b"security.selinux",
                ]
                .join(&0)
            }
            r => r?,
        };
        for name in xattr::names(&list) {
            let disguised = self.disguise == Some(XattrPermissions::User)
                && name.starts_with(disguise::SECURITY_DISGUISED);
            if !reserved::copied_up(name) && !disguised {
                continue;
            }
            let Some(value) = xattr::get(from, name)? else {
                continue;
            };
            match xattr::set(to, name, &value, 0) {
                Ok(()) => {}
                Err(e) if may_lose(name, e) => {
                    tracing::debug!(error = %e, "an xattr is not taken along");
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Sets a copy's times to those of what it was copied from.
    pub fn copy_times(&self, s: &Stat, to: &Spot) -> Result<()> {
        to.set_times(SetTime::At(s.atime), SetTime::At(s.mtime))
    }

    /// An O_PATH descriptor that may be given to [`Spot::fd`].
    pub fn hold(&self, spot: &Spot) -> Result<Arc<OwnedFd>> {
        Ok(Arc::new(spot.open(rustix::fs::OFlags::PATH)?))
    }
}

/// The real mode of a disguised object: always usable by its real owner, and no
/// more open to others than what it stands for.
fn real_mode(kind: Kind, mode: u32) -> u32 {
    let own = if kind == Kind::Dir { 0o700 } else { 0o600 };
    (mode & 0o777) | own
}

/// Owner cannot be kept: the kernel's copy-up fails with EOVERFLOW for ids that
/// the user namespace does not have, and so does ours.
fn owner_error(e: Errno) -> Errno {
    if e == Errno::EINVAL {
        Errno::EOVERFLOW
    } else {
        e
    }
}

/// Whether an xattr may stay behind: kinds that the upper's file system, or an
/// unprivileged daemon, cannot hold (see ovl_copy_xattr() and
/// ovl_must_copy_xattr() in fs/overlayfs/copy_up.c: ACLs and security.* must).
fn may_lose(name: &[u8], e: Errno) -> bool {
    let unsupported = e == Errno::EOPNOTSUPP || e == Errno::EPERM;
    let must = name == acl::ACCESS || name == acl::DEFAULT || name.starts_with(b"security.");
    unsupported && (!must || name == b"security.selinux")
}
