//! Attributes of an object that was just made: owner, mode, xattrs, times.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::archive::error::{Error, For, Result, Shown};
use crate::archive::owners::{Owners, disguised_xattr, is_layers, undisguised_xattr};
use crate::archive::reader::Entry;
use crate::layer::acl::{self, Acl};
use crate::layer::disguise::{Disguise, USER_OVERRIDE};
use crate::layer::records::{SideRecord, SideRecords};
use crate::layer::reserved;
use crate::sys::stat::SetTime;
use crate::sys::{self, Errno, Kind, Spot, Stat, opened, process, xattr};

/// An object to be given attributes.
pub(super) enum Handle<'a> {
    /// An open file.
    Open(BorrowedFd<'a>),
    /// Anything else.
    Spot(&'a Spot),
}

impl Handle<'_> {
    fn chown(&self, uid: u32, gid: u32) -> sys::Result<()> {
        match self {
            Handle::Open(fd) => opened::chown(*fd, uid, gid),
            Handle::Spot(spot) => spot.chown(Some(uid), Some(gid)),
        }
    }

    fn chmod(&self, mode: u32) -> sys::Result<()> {
        match self {
            Handle::Open(fd) => opened::chmod(*fd, mode),
            Handle::Spot(spot) => spot.chmod(mode),
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> sys::Result<()> {
        match self {
            Handle::Open(fd) => opened::set_xattr(*fd, name, value),
            Handle::Spot(spot) => xattr::set(spot, name, value, 0),
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> sys::Result<()> {
        let removed = match self {
            Handle::Open(fd) => opened::remove_xattr(*fd, name),
            Handle::Spot(spot) => xattr::remove(spot, name),
        };
        match removed {
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
            r => r,
        }
    }

    fn list_xattrs(&self) -> sys::Result<Vec<u8>> {
        match self {
            Handle::Open(fd) => opened::list_xattrs(*fd),
            Handle::Spot(spot) => xattr::list(spot),
        }
    }

    fn set_mtime(&self, entry: &Entry) -> sys::Result<()> {
        let (atime, mtime) = (SetTime::Keep, SetTime::At(entry.mtime));
        match self {
            Handle::Open(fd) => opened::set_times(*fd, atime, mtime),
            Handle::Spot(spot) => spot.set_times(atime, mtime),
        }
    }
}

/// Whether an object was just made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// With the mode that [`Keeper::mode`] gave.
    New,
    /// It has attributes already, which are to go.
    Old,
}

/// The object, beside what its entry says.
pub(super) struct Subject<'a> {
    /// Its path in the tree.
    pub(super) path: &'a [u8],
    /// What was made.
    pub(super) made: Kind,
    /// What it stands for.
    pub(super) kind: Kind,
    /// Whether it has attributes already.
    pub(super) state: State,
    /// It was made in a directory that changes nothing of it.
    pub(super) plain_parent: bool,
}

/// Keeps attributes in the way of [`Owners`].
pub(super) struct Keeper {
    owners: Owners,
    /// Owner and group of what this process makes.
    created_as: (u32, u32),
    umask: u32,
    /// The file system keeps `user.` xattrs.
    user_xattrs: bool,
    records: SideRecords,
}

impl Keeper {
    pub(super) fn new(root: &Arc<OwnedFd>, owners: Owners) -> Keeper {
        let probe = b"user.acetate-probe";
        let spot = Spot::fd(root.clone());
        let user_xattrs =
            xattr::set(&spot, probe, b"y", 0).is_ok() && xattr::remove(&spot, probe).is_ok();
        Keeper {
            owners,
            created_as: process::effective_ids(),
            umask: opened::umask(),
            user_xattrs,
            records: SideRecords::default(),
        }
    }

    pub(super) fn into_records(self) -> SideRecords {
        self.records
    }

    /// Whether a directory with these attributes gives what is made in it our own
    /// owner and group and no other mode.
    pub(super) fn leaves_alone(&self, dir: &Stat) -> bool {
        dir.gid == self.created_as.1 && dir.mode & libc::S_ISGID == 0
    }

    /// The mode on disk for a mode of the archive.
    pub(super) fn mode(&self, kind: Kind, mode: u32) -> u32 {
        match (&self.owners, kind) {
            (Owners::Real(_), _) => mode,
            // We must be able to read and write what is ours, and nobody is to run
            // it as us or to write it.
            (Owners::Recorded, Kind::Dir) => mode & 0o755 | 0o700,
            (Owners::Recorded, _) => mode & 0o755 | 0o600,
        }
    }

    /// Whether objects that cannot be made here are to be empty files: how, for a
    /// device or FIFO, nothing else could say what it is.
    pub(super) fn disguises(&self, kind: Kind) -> bool {
        let special = matches!(kind, Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket);
        special && self.owners == Owners::Recorded
    }

    /// Gives an object its attributes.
    pub(super) fn apply(&mut self, to: &Handle<'_>, it: &Subject<'_>, entry: &Entry) -> Result<()> {
        let owner = match &self.owners {
            Owners::Recorded => self.created_as,
            Owners::Real(ids) => ids.to_disk(entry.uid, entry.gid).ok_or_else(|| {
                let what = format!(
                    "its owner {}:{} has no place in the id map",
                    entry.uid, entry.gid
                );
                Error::refused(&entry.path, what)
            })?,
        };
        let plain = it.plain_parent && it.state == State::New;
        let real = self.owners != Owners::Recorded;
        if real && (!plain || owner != self.created_as) {
            to.chown(owner.0, owner.1)
                .doing("give an owner to", it.path)?;
        }
        if !plain {
            self.clear_xattrs(to, it)?;
        }
        let mode = self.mode(it.made, entry.mode);
        let as_made = plain && mode & (0o7000 | self.umask) == 0;
        if it.made != Kind::Symlink && !as_made {
            to.chmod(mode).doing("change the mode of", it.path)?;
        }
        for (name, value) in &entry.xattrs {
            self.set_xattr(to, it, entry, (name, value))?;
        }
        self.record(to, it, entry)?;
        to.set_mtime(entry).doing("set the time of", it.path)
    }

    /// Removes xattrs that an earlier entry or the directory's default ACL gave, and
    /// no marks of ours.
    fn clear_xattrs(&self, to: &Handle<'_>, it: &Subject<'_>) -> Result<()> {
        let list = to.list_xattrs().doing("list the xattrs of", it.path)?;
        for name in xattr::names(&list) {
            let inherited = name == acl::ACCESS || name == acl::DEFAULT;
            let earlier = it.state == State::Old
                && (reserved::to_view(name).is_some() && is_layers(name)
                    || undisguised_xattr(name).is_some());
            if inherited || earlier {
                to.remove_xattr(name).doing("remove an xattr of", it.path)?;
            }
        }
        Ok(())
    }

    fn set_xattr(
        &self,
        to: &Handle<'_>,
        it: &Subject<'_>,
        entry: &Entry,
        (name, value): (&[u8], &[u8]),
    ) -> Result<()> {
        // A host's own, or bookkeeping of a mount, and no user's.
        let disk = reserved::to_disk(name).filter(|_| is_layers(name));
        let Some(disk) = disk else {
            return Ok(());
        };
        let cannot = |why: &str| {
            let what = format!("its xattr {} cannot be kept: {why}", Shown(name));
            Error::refused(&entry.path, what)
        };
        let is_acl = name == acl::ACCESS || name == acl::DEFAULT;
        let (disk, value) = match &self.owners {
            Owners::Real(ids) if is_acl => {
                let value = Acl::to_disk(value, &ids.users, &ids.groups)
                    .ok_or_else(|| cannot("it is malformed or an id has no place in the id map"))?;
                (disk.into_owned(), value)
            }
            Owners::Real(_) => (disk.into_owned(), value.to_vec()),
            Owners::Recorded if !self.user_xattrs => {
                return Err(cannot("the layer's file system keeps none"));
            }
            Owners::Recorded if !matches!(it.made, Kind::File | Kind::Dir) => {
                return Err(cannot("only root may give one to a symlink"));
            }
            Owners::Recorded if disk.starts_with(b"user.") => (disk.into_owned(), value.to_vec()),
            Owners::Recorded => (disguised_xattr(&disk), value.to_vec()),
        };
        to.set_xattr(&disk, &value)
            .doing(format!("set the xattr {} of", Shown(name)), it.path)
    }

    /// Keeps what the object itself does not show.
    fn record(&mut self, to: &Handle<'_>, it: &Subject<'_>, entry: &Entry) -> Result<()> {
        // A symlink has no mode, whatever an archive says.
        let mode = match it.kind {
            Kind::Symlink => 0o777,
            _ => entry.mode,
        };
        let what = Disguise {
            uid: entry.uid,
            gid: entry.gid,
            mode,
            kind: Some(it.kind),
            rdev: entry.rdev,
        };
        let in_xattr = self.user_xattrs && matches!(it.made, Kind::File | Kind::Dir);
        match self.owners {
            Owners::Real(_) if it.made == it.kind => return Ok(()),
            Owners::Recorded if in_xattr => {
                return to
                    .set_xattr(USER_OVERRIDE, &what.encode())
                    .doing("record the owner of", it.path);
            }
            // What has no record is root's.
            Owners::Recorded if it.made == Kind::Symlink && (what.uid, what.gid) == (0, 0) => {
                return Ok(());
            }
            _ => {}
        }
        self.records.insert(SideRecord {
            path: it.path.to_vec(),
            what,
        });
        Ok(())
    }

    /// A second name of an object has the first one's record.
    pub(super) fn link(&mut self, from: &[u8], to: &[u8]) {
        if let Some(what) = self.records.get(from) {
            self.records.insert(SideRecord {
                path: to.to_vec(),
                what,
            });
        }
    }

    pub(super) fn forget(&mut self, path: &[u8]) {
        self.records.forget(path);
    }
}

/// Lets an [`OwnedFd`] be a handle.
impl<'a> From<&'a OwnedFd> for Handle<'a> {
    fn from(fd: &'a OwnedFd) -> Self {
        Handle::Open(fd.as_fd())
    }
}
