//! One object of a tree as an entry, with its data.

use std::os::fd::{AsFd, OwnedFd};

use super::{Packer, Redirects, Times};
use crate::archive::encode::Head;
use crate::archive::error::{Error, For, Result};
use crate::archive::limits::BLOCK;
use crate::archive::owners::{Ids, Owners, is_layers, undisguised_xattr};
use crate::layer::acl::{self, Acl};
use crate::layer::disguise::{Disguise, is_override};
use crate::layer::mark::{Marks, Opaque, private_suffix};
use crate::layer::reserved;
use crate::sys::{
    Errno, Kind, Name, ObjectId, Spot, Stat, Timespec, dir, file, opened, stat, xattr,
};

/// What an object's xattrs say.
#[derive(Default)]
struct Attributes {
    marks: Marks,
    /// Those of the layer, as an archive names them, in order.
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Packer<'_> {
    /// The root, which is an entry only where it says something.
    pub(super) fn root(&mut self, root: &Spot) -> Result<()> {
        let stat = root.stat().doing("stat", b"")?;
        let list = xattr::list(root).doing("list the xattrs of", b"")?;
        let attributes = self.attributes(root, &list, b"")?;
        let shown = self.shown(&stat, &attributes, b"")?;
        let mtime = self.mtime(stat.mtime);
        let says_something = shown.mode & 0o7777 != 0o755
            || (shown.uid, shown.gid) != (0, 0)
            || mtime != Timespec::default()
            || !attributes.xattrs.is_empty();
        if says_something {
            self.write(&head(b"./", b'5', &shown, mtime, &attributes.xattrs))?;
        }
        self.begin_directory(attributes.marks.opaque)
    }

    /// Writes one object of the deepest directory; a directory is then the deepest.
    pub(super) fn object(&mut self, name: &[u8]) -> Result<()> {
        let path = [&self.path[..], name].concat();
        if self.options.exclude.contains(&path) {
            return Ok(());
        }
        let at = self.trail.fd().doing("open", &self.path)?.clone();
        let found = dir::probe(at.as_fd(), name).doing("stat", &path)?;
        let stat = found.ok_or_else(|| changed(&path))?;
        let spot = Spot::at(at.clone(), Name::from(name));
        let opened = match stat.kind() {
            Kind::File => Some(open_file(at.as_fd(), name, &stat, &path)?),
            _ => None,
        };
        let list = match &opened {
            Some(fd) => opened::list_xattrs(fd.as_fd()),
            None => xattr::list(&spot),
        };
        let list = list.doing("list the xattrs of", &path)?;
        let attributes = self.attributes(&spot, &list, &path)?;
        let shown = self.shown(&stat, &attributes, &path)?;
        if shown.kind() == Kind::Dir {
            return self.directory(name, &path, &shown, attributes);
        }
        if self.written_before(&stat, &shown, &path)? {
            return Ok(());
        }
        self.content(&spot, (&stat, &shown), opened.as_ref(), &attributes, &path)
    }

    fn directory(
        &mut self,
        name: &[u8],
        path: &[u8],
        shown: &Stat,
        attributes: Attributes,
    ) -> Result<()> {
        let path = [path, b"/"].concat();
        let mtime = self.mtime(shown.mtime);
        self.write(&head(&path, b'5', shown, mtime, &attributes.xattrs))?;
        let opaque = match self.trail.here().hides(name) {
            true => Opaque::Yes,
            false => attributes.marks.opaque,
        };
        let there = self.trail.open(name).doing("open", &path)?;
        if !stat::same_object(&there.1, shown) {
            return Err(changed(&path));
        }
        let parent_path = self.path.len();
        let listing = self.trail.here().below(parent_path);
        self.trail.enter(name, there, listing);
        self.path = path;
        self.begin_directory(opaque)
    }

    /// Whether an earlier name of the same file is in the archive: then this one is a
    /// link to it.
    fn written_before(&mut self, stat: &Stat, shown: &Stat, path: &[u8]) -> Result<bool> {
        if stat.nlink < 2 {
            return Ok(false);
        }
        let id = ObjectId::of(stat);
        let Some((first, left)) = self.links.remove(&id) else {
            self.links.insert(id, (path.to_vec(), stat.nlink - 1));
            return Ok(false);
        };
        let mtime = self.mtime(shown.mtime);
        let mut head = head(path, b'1', shown, mtime, &[]);
        head.link = &first;
        head.rdev = (0, 0);
        self.write(&head)?;
        if left > 1 {
            self.links.insert(id, (first, left - 1));
        }
        Ok(true)
    }

    /// `stats`: on disk, and as shown.
    fn content(
        &mut self,
        spot: &Spot,
        stats: (&Stat, &Stat),
        opened: Option<&OwnedFd>,
        attributes: &Attributes,
        path: &[u8],
    ) -> Result<()> {
        let (disk, shown) = stats;
        let mtime = self.mtime(shown.mtime);
        let mut head = head(path, b'0', shown, mtime, &attributes.xattrs);
        let target;
        match shown.kind() {
            Kind::File => {
                let fd = opened.ok_or_else(|| changed(path))?;
                head.size = disk.size;
                self.write(&head)?;
                return self.data(fd, disk, path);
            }
            Kind::Symlink if disk.kind() == Kind::Symlink => {
                target = spot.read_link().doing("read the symlink", path)?;
                head.flag = b'2';
                head.link = &target;
            }
            // Disguised by somebody else: the target is the file's content.
            Kind::Symlink => {
                let mut bytes = vec![0; 4096];
                let fd = opened.ok_or_else(|| changed(path))?;
                let n = file::read_at(fd.as_fd(), &mut bytes, 0).doing("read", path)?;
                bytes.truncate(n);
                target = bytes;
                head.flag = b'2';
                head.link = &target;
            }
            Kind::Char => head.flag = b'3',
            Kind::Block => head.flag = b'4',
            Kind::Fifo => head.flag = b'6',
            // Not a part of any archive format: every tool leaves them out.
            Kind::Socket => return Ok(()),
            Kind::Dir => return Err(changed(path)),
        }
        self.write(&head)
    }

    fn mtime(&self, mtime: Timespec) -> Timespec {
        match self.options.times {
            Times::Exact => mtime,
            Times::NotAfter(limit) => Timespec {
                sec: mtime.sec.min(limit),
                nsec: 0,
            },
        }
    }

    /// What an object really is, as far as the tree or its records know.
    fn shown(&self, disk: &Stat, attributes: &Attributes, path: &[u8]) -> Result<Stat> {
        let record = self.options.records.get(path);
        match &self.options.owners {
            Owners::Recorded => {
                let unknown = Disguise {
                    uid: 0,
                    gid: 0,
                    mode: disk.mode & 0o7777,
                    kind: None,
                    rdev: disk.rdev,
                };
                let what = record.or(attributes.marks.disguise).unwrap_or(unknown);
                Ok(what.apply(disk))
            }
            Owners::Real(_) if record.is_some() => {
                Ok(record.map_or(*disk, |record| record.apply(disk)))
            }
            Owners::Real(ids) => {
                let owner = ids.to_archive(disk.uid, disk.gid).ok_or_else(|| {
                    let what = format!(
                        "its owner {}:{} has no place in the id map",
                        disk.uid, disk.gid
                    );
                    Error::unfit(path, what)
                })?;
                Ok(Stat {
                    uid: owner.0,
                    gid: owner.1,
                    ..*disk
                })
            }
        }
    }

    /// Reads xattrs. `list`: their names.
    fn attributes(&self, spot: &Spot, list: &[u8], path: &[u8]) -> Result<Attributes> {
        let mut found = Attributes::default();
        if list.is_empty() {
            return Ok(found);
        }
        let marked = |name: &[u8]| private_suffix(name).is_some() || is_override(name).is_some();
        if xattr::names(list).any(marked) {
            found.marks = Marks::read(spot).doing("read the marks of", path)?;
        }
        let elsewhere =
            found.marks.metacopy || found.marks.redirect.is_some() || found.marks.bad_redirect;
        if elsewhere && self.options.redirects == Redirects::Refuse {
            let what = "its data or its name lies in another layer (redirect or metacopy)";
            return Err(Error::unfit(path, what));
        }
        for disk in xattr::names(list) {
            let Some(name) = self.archived_name(disk) else {
                continue;
            };
            let value = xattr::get(spot, disk).doing("read an xattr of", path)?;
            let value = value.ok_or_else(|| changed(path))?;
            let value = match &self.options.owners {
                Owners::Real(ids) if name == acl::ACCESS || name == acl::DEFAULT => {
                    archived_acl(&value, ids).ok_or_else(|| {
                        Error::unfit(path, "an id of its ACL has no place in the id map")
                    })?
                }
                _ => value,
            };
            found.xattrs.push((name, value));
        }
        found.xattrs.sort();
        Ok(found)
    }

    /// An archive's name of an xattr; `None` where it is not the layer's.
    fn archived_name(&self, disk: &[u8]) -> Option<Vec<u8>> {
        let disk = match &self.options.owners {
            Owners::Recorded => undisguised_xattr(disk).unwrap_or(disk),
            Owners::Real(_) => disk,
        };
        let name = reserved::to_view(disk)?;
        is_layers(&name).then(|| name.into_owned())
    }

    /// The data of a file that had this size when its header was written.
    fn data(&mut self, fd: &OwnedFd, disk: &Stat, path: &[u8]) -> Result<()> {
        let mut at = 0u64;
        // Holes are passed over where there is at least one.
        let sparse = disk.blocks.saturating_mul(BLOCK as u64) < disk.size;
        while at < disk.size {
            let (start, end) = match sparse {
                true => next_extent(fd, at, disk.size).doing("seek in", path)?,
                false => (at, disk.size),
            };
            self.output.zeros(start.saturating_sub(at))?;
            at = self.copy(fd, (start, end), disk.size, path)?;
        }
        // Holes are not read to their end: the size is asked for instead.
        if sparse {
            let now = stat::of_descriptor(fd.as_fd()).doing("stat", path)?;
            if now.size != disk.size {
                return Err(changed(path));
            }
        }
        let block = BLOCK as u64;
        self.output.zeros((block - disk.size % block) % block)
    }

    /// Copies an extent; where it ended.
    fn copy(&mut self, fd: &OwnedFd, extent: (u64, u64), size: u64, path: &[u8]) -> Result<u64> {
        let (mut at, end) = extent;
        while at < end {
            let space = self.output.space()?;
            // One byte more than there is: that it is not there is the proof that
            // the file has not grown.
            let want = end - at + u64::from(end == size);
            let room = usize::try_from(want).map_or(space.len(), |w| w.min(space.len()));
            let space = space.get_mut(..room).unwrap_or_default();
            let n = file::read_at(fd.as_fd(), space, at).doing("read", path)?;
            let next = at.saturating_add(n as u64);
            if n == 0 || next > end {
                return Err(changed(path));
            }
            self.output.filled(n);
            at = next;
            if at == end && n == room && end == size {
                let mut more = [0];
                let grown = file::read_at(fd.as_fd(), &mut more, at).doing("read", path)?;
                if grown > 0 {
                    return Err(changed(path));
                }
            }
        }
        Ok(at)
    }
}

/// The next data at or after `at`: where it begins and ends.
fn next_extent(fd: &OwnedFd, at: u64, size: u64) -> crate::sys::Result<(u64, u64)> {
    let start = match file::seek_data(fd.as_fd(), at) {
        Ok(start) => start.min(size),
        Err(Errno::ENXIO) => return Ok((size, size)),
        // No holes are known here.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok((at, size)),
        Err(e) => return Err(e),
    };
    let end = file::seek_hole(fd.as_fd(), start).unwrap_or(size).min(size);
    Ok((start, end.max(start)))
}

fn open_file(
    at: std::os::fd::BorrowedFd<'_>,
    name: &[u8],
    stat: &Stat,
    path: &[u8],
) -> Result<OwnedFd> {
    let fd = opened::open_to_read(at, name).doing("open", path)?;
    let now = stat::of_descriptor(fd.as_fd()).doing("stat", path)?;
    if !stat::same_object(&now, stat) || now.size != stat.size {
        return Err(changed(path));
    }
    Ok(fd)
}

fn changed(path: &[u8]) -> Error {
    Error::unfit(path, "it changed while it was read")
}

fn archived_acl(value: &[u8], ids: &Ids) -> Option<Vec<u8>> {
    let shown = Acl::to_view(value, &ids.users, &ids.groups)?;
    (Acl::to_disk(&shown, &ids.users, &ids.groups)? == value).then_some(shown)
}

fn head<'a>(
    path: &'a [u8],
    flag: u8,
    shown: &Stat,
    mtime: Timespec,
    xattrs: &'a [(Vec<u8>, Vec<u8>)],
) -> Head<'a> {
    let device = matches!(shown.kind(), Kind::Char | Kind::Block);
    Head {
        path,
        flag,
        link: b"",
        mode: match shown.kind() {
            Kind::Symlink => 0o777,
            _ => shown.mode & 0o7777,
        },
        uid: shown.uid,
        gid: shown.gid,
        size: 0,
        mtime,
        rdev: if device { shown.rdev } else { (0, 0) },
        xattrs,
    }
}
