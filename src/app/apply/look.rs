//! What an object of the upper is to look like in the directory: owner, mode,
//! xattrs and ACLs under the names that programs gave them, times.

use crate::layer::reserved;
use crate::store::record::WorkspaceRecord;
use crate::sys::stat::SetTime;
use crate::sys::{Errno, Kind, Result, Spot, Stat, xattr};

/// ACLs that a directory's default gives to what is made in it.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// A label that the policy gives, not we.
const LABEL: &[u8] = b"security.selinux";

/// Whether the owners of an upper's objects say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// They do.
    Told,
    /// Its mount shows, and makes, everything as one user's.
    Untold,
}

impl Ownership {
    pub(super) fn of(record: &WorkspaceRecord) -> Ownership {
        match record.squashes() {
            true => Ownership::Untold,
            false => Ownership::Told,
        }
    }
}

/// A look to be given.
#[derive(Debug)]
pub(super) struct Wanted {
    stat: Stat,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    ownership: Ownership,
}

impl Wanted {
    /// As an object of the upper has it.
    pub(super) fn read(spot: &Spot, ownership: Ownership) -> Result<Wanted> {
        Ok(Wanted {
            stat: spot.stat()?,
            xattrs: xattrs_of(spot)?
                .into_iter()
                .filter_map(|(name, value)| {
                    reserved::to_view(&name).map(|name| (name.into_owned(), value))
                })
                .collect(),
            ownership,
        })
    }

    /// Whether an object looks like that, times apart.
    pub(super) fn is_on(&self, target: &Spot) -> Result<bool> {
        let found = target.stat()?;
        let owner = self.ownership == Ownership::Untold
            || (found.uid, found.gid) == (self.stat.uid, self.stat.gid);
        if !owner || found.mode != self.stat.mode {
            return Ok(false);
        }
        Ok(sorted(xattrs_of(target)?) == sorted(self.xattrs.clone()))
    }

    /// Gives it to an object, in the order that survives: chown drops set-ID bits
    /// and capabilities, and everything moves times.
    pub(super) fn put_on(&self, target: &Spot) -> Result<()> {
        let found = target.stat()?;
        let owner = (self.stat.uid, self.stat.gid);
        if self.ownership == Ownership::Told && (found.uid, found.gid) != owner {
            target.chown(Some(owner.0), Some(owner.1))?;
        }
        for (name, _) in xattrs_of(target)? {
            let stays = name == LABEL || self.xattrs.iter().any(|(n, _)| *n == name);
            if !stays {
                ignore_missing(xattr::remove(target, &name))?;
            }
        }
        if self.stat.kind() != Kind::Symlink {
            target.chmod(self.stat.mode & 0o7777)?;
        }
        for (name, value) in &self.xattrs {
            match xattr::set(target, name, value, 0) {
                Err(Errno::EPERM | Errno::EOPNOTSUPP) if name == LABEL => {}
                r => r?,
            }
        }
        self.put_times_on(target)
    }

    /// Gives it the times alone.
    pub(super) fn put_times_on(&self, target: &Spot) -> Result<()> {
        let (atime, mtime) = (self.stat.atime, self.stat.mtime);
        if target.stat()?.mtime == mtime {
            return Ok(());
        }
        target.set_times(SetTime::At(atime), SetTime::At(mtime))
    }
}

fn xattrs_of(spot: &Spot) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let list = xattr::list(spot)?;
    let mut found = Vec::new();
    for name in xattr::names(&list) {
        if let Some(value) = xattr::get(spot, name)? {
            found.push((name.to_vec(), value));
        }
    }
    Ok(found)
}

/// As they are compared: without the label, and without marks that the directory
/// itself may carry as somebody's lower.
fn sorted(xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut xattrs: Vec<_> = xattrs
        .into_iter()
        .filter(|(name, _)| name != LABEL && reserved::to_view(name).is_some())
        .collect();
    xattrs.sort_unstable();
    xattrs
}

fn ignore_missing(r: Result<()>) -> Result<()> {
    match r {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
        r => r,
    }
}

/// What is made in a directory is not to inherit anything from it.
pub(super) fn without_default_acl(directory: &Spot) -> Result<()> {
    ACLS.iter()
        .try_for_each(|acl| ignore_missing(xattr::remove(directory, acl)))
}
