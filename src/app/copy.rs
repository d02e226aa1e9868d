//! Copies of objects from one tree into another, as they are on disk: data by
//! sharing blocks where the file system can, holes, hard links, owner, mode,
//! xattrs, ACLs, capabilities, times.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::layer::disguise::{DISGUISED, Disguise, USER_OVERRIDE};
use crate::layer::reserved;
use crate::store::tidy::is_upper_only;
use crate::sys::stat::SetTime;
use crate::sys::tree::{Enter, Trail, Visitor};
use crate::sys::{Errno, Kind, Name, ObjectId, Result, Spot, Stat, copy, dir, stat, xattr};

/// Objects with several names that were copied: each has a further name in a
/// folder of its own, from which the next one is linked.
#[derive(Debug)]
pub struct Links {
    folder: Arc<OwnedFd>,
    known: HashSet<ObjectId>,
}

impl Links {
    /// Kept in an empty folder on the file system of the copies.
    pub fn new(folder: Arc<OwnedFd>) -> Links {
        Links {
            folder,
            known: HashSet::new(),
        }
    }

    fn name(id: ObjectId) -> Vec<u8> {
        format!("{:x}-{:x}", id.dev, id.ino).into_bytes()
    }

    /// Gives a copy that was made before this name too; false where there is none.
    pub fn link(&self, of: &Stat, to: &Arc<OwnedFd>, name: &[u8]) -> Result<bool> {
        let id = ObjectId::of(of);
        if of.nlink < 2 || !self.known.contains(&id) {
            return Ok(false);
        }
        dir::link((self.folder.as_fd(), &Self::name(id)), (to.as_fd(), name))?;
        Ok(true)
    }

    /// Remembers a copy for its further names.
    pub fn note(&mut self, of: &Stat, at: &Arc<OwnedFd>, name: &[u8]) -> Result<()> {
        let id = ObjectId::of(of);
        if of.nlink > 1 && self.known.insert(id) {
            dir::link((at.as_fd(), name), (self.folder.as_fd(), &Self::name(id)))?;
        }
        Ok(())
    }
}

/// How owners are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// As they are on disk.
    Real,
    /// In `user.containers.override_stat`, as the layers of ordinary users have it.
    Disguised,
    /// Not at all: everything is the caller's own, who can read and write it. Xattrs
    /// that only root may set are left out.
    Own,
}

/// Under which names xattrs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// As in a layer: what could be taken for a mark is escaped.
    OfLayer,
    /// As the view shows them.
    Shown,
}

/// How a view is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Owners.
    pub owners: Owners,
    /// Xattrs.
    pub names: Names,
}

impl From<Owners> for Manner {
    /// As a layer keeps it.
    fn from(owners: Owners) -> Self {
        Manner {
            owners,
            names: Names::OfLayer,
        }
    }
}

/// The name of an xattr in a layer's tree; `None` where a layer keeps none of that
/// name. What only root may set has a name of its own where owners are disguised.
pub fn layer_name(shown: &[u8], owners: Owners) -> Option<Vec<u8>> {
    if owners == Owners::Disguised && !shown.starts_with(b"user.") {
        return Some([DISGUISED, shown].concat());
    }
    reserved::to_disk(shown).map(std::borrow::Cow::into_owned)
}

/// Which private xattrs are taken along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// Those that a layer keeps.
    OfLayer,
    /// All: the copy is an upper too.
    All,
}

/// What an object is to be like.
#[derive(Debug)]
pub struct Look {
    /// Owner, mode, times, type, device numbers.
    pub stat: Stat,
    /// Xattrs by their names on disk.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Look {
    /// As an object is on disk.
    pub fn on_disk(spot: &Spot, stat: &Stat, marks: Marks) -> Result<Look> {
        let list = xattr::list(spot)?;
        let mut xattrs = Vec::new();
        let taken = |n: &&[u8]| marks == Marks::All || !is_upper_only(n);
        for name in xattr::names(&list).filter(taken) {
            if let Some(value) = xattr::get(spot, name)? {
                xattrs.push((name.to_vec(), value));
            }
        }
        Ok(Look {
            stat: *stat,
            xattrs,
        })
    }

    /// Gives an object owner, mode, xattrs and times, in the order that survives:
    /// chown drops set-ID bits and capabilities, and everything moves times.
    pub fn put_on(&self, to: &Spot, owners: Owners) -> Result<()> {
        let kind = self.stat.kind();
        match owners {
            Owners::Real => {
                let now = to.stat()?;
                if (now.uid, now.gid) != (self.stat.uid, self.stat.gid) {
                    to.chown(Some(self.stat.uid), Some(self.stat.gid))?;
                }
            }
            Owners::Disguised if kind != Kind::Symlink => {
                let value = Disguise::of(&self.stat).encode();
                xattr::set(to, USER_OVERRIDE, &value, 0)?;
            }
            Owners::Disguised | Owners::Own => {}
        }
        if kind != Kind::Symlink {
            let own = match (owners, kind) {
                (Owners::Real, _) => 0,
                (_, Kind::Dir) => 0o700,
                _ => 0o600,
            };
            let mode = match owners {
                Owners::Real => self.stat.mode & 0o7777,
                Owners::Disguised => self.stat.mode & 0o777,
                Owners::Own => self.stat.mode & 0o1777,
            };
            to.chmod(mode | own)?;
        }
        for (name, value) in &self.xattrs {
            match xattr::set(to, name, value, 0) {
                // A label of SELinux is the policy's to give.
                Err(Errno::EPERM | Errno::EOPNOTSUPP) if name == b"security.selinux" => {}
                // EINVAL: capabilities in a user namespace that has no root.
                Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EINVAL)
                    if owners == Owners::Own && !name.starts_with(b"user.") => {}
                r => r?,
            }
        }
        to.set_times(SetTime::At(self.stat.atime), SetTime::At(self.stat.mtime))
    }
}

/// Where the data of a file comes from.
#[derive(Debug)]
pub enum Data {
    /// The object itself.
    Own,
    /// Another file: the object is a metacopy.
    Of(Arc<OwnedFd>),
}

/// Makes the object that a look speaks of at (`to`, `name`): all but a
/// directory's content.
pub fn make(
    look: &Look,
    from: &Spot,
    data: Data,
    to: &Arc<OwnedFd>,
    name: &Name,
    owners: Owners,
) -> Result<()> {
    let stat = &look.stat;
    let kind = stat.kind();
    match kind {
        Kind::Dir => return dir::mkdir(to.as_fd(), name, 0o700),
        Kind::File => {
            let file = dir::create_file(to.as_fd(), name, 0o600)?;
            let source = match data {
                Data::Of(fd) => fd,
                Data::Own => Arc::new(open_quietly(from)?),
            };
            copy::clone_data(source.as_fd(), file.as_fd(), stat.size)?;
        }
        Kind::Symlink => dir::symlink(&from.read_link()?, to.as_fd(), name)?,
        Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => {
            dir::mknod(to.as_fd(), name, kind.mode_bits() | 0o600, stat.rdev)?;
        }
    }
    look.put_on(&Spot::at(to.clone(), name.clone()), owners)
}

/// Opens a regular file to read it, without moving its access time if allowed.
fn open_quietly(from: &Spot) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    match from.open(flags | OFlags::NOATIME) {
        Err(Errno::EPERM) => from.open(flags),
        r => r,
    }
}

/// Copies everything below one directory into another as it is on disk.
///
/// # Errors
/// What a system call said; the target is then incomplete.
pub fn copy_tree(
    from: &Arc<OwnedFd>,
    to: &Arc<OwnedFd>,
    links: &mut Links,
    marks: Marks,
) -> Result<()> {
    let mut copying = Copying {
        to: Trail::new(to)?,
        links,
        marks,
    };
    crate::sys::tree::walk(from, &mut copying)
}

struct Copying<'a> {
    to: Trail,
    links: &'a mut Links,
    marks: Marks,
}

impl Visitor for Copying<'_> {
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: &Name, _kind: Kind) -> Result<Enter> {
        let spot = Spot::at(dir.clone(), name.clone());
        let stat = spot.stat()?;
        let to = self.to.top()?;
        if self.links.link(&stat, to, name)? {
            return Ok(Enter::No);
        }
        let look = Look::on_disk(&spot, &stat, self.marks)?;
        make(&look, &spot, Data::Own, to, name, Owners::Real)?;
        if stat.kind() != Kind::Dir {
            self.links.note(&stat, to, name)?;
        }
        Ok(Enter::Yes)
    }

    fn enter(&mut self, name: &Name) -> Result<()> {
        let below = dir::open_dir_at(self.to.top()?.as_fd(), name, dir::Cross::Refuse)?;
        self.to.push(Arc::new(below))
    }

    fn leave(&mut self, dir: &Arc<OwnedFd>) -> Result<()> {
        dress(dir, self.to.top()?, self.marks)?;
        self.to.pop()?;
        Ok(())
    }
}

/// Gives one directory the look that another has on disk.
pub fn dress(from: &Arc<OwnedFd>, to: &Arc<OwnedFd>, marks: Marks) -> Result<()> {
    let stat = stat::of_descriptor(from.as_fd())?;
    let look = Look::on_disk(&Spot::fd(from.clone()), &stat, marks)?;
    look.put_on(&Spot::fd(to.clone()), Owners::Real)
}
