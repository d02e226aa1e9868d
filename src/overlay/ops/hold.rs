//! Nodes → spots and open files.
//!
//! A spot by name is good for a stat, which says which object it met. A change
//! goes through a descriptor that was compared with the node first.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::layer::UPPER;
use crate::overlay::Overlay;
use crate::overlay::inode::locate::{self, FdKey};
use crate::overlay::inode::node::{LowerSpot, Node};
use crate::overlay::upper::Upper;
use crate::sys::{Errno, Kind, ObjectId, Result, Spot, Stat};

/// How often an object is looked for again when renames race with us.
const RETRIES: usize = 16;

/// What an open descriptor of a node's data may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing; the node is in the upper.
    Write,
}

impl Overlay {
    /// Finds the upper object of a node and its attributes.
    pub(super) fn upper_spot(&self, node: &Arc<Node>) -> Result<(Spot, Stat)> {
        let upper = self.stack.upper.as_ref().ok_or(Errno::EIO)?;
        let id = *node.upper.get().ok_or(Errno::EIO)?;
        for _ in 0..RETRIES {
            if let Some(found) = self.try_upper_spot(upper, node, id)? {
                return Ok(found);
            }
        }
        Err(Errno::ESTALE)
    }

    fn try_upper_spot(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        id: ObjectId,
    ) -> Result<Option<(Spot, Stat)>> {
        if let Some(spot) = self.orphans.spot(Some(upper), node.ino) {
            match spot.stat() {
                Ok(s) if ObjectId::of(&s) == id => return Ok(Some((spot, s))),
                // It is being moved there, and still has its name.
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
        // Taken, not only looked for: it may be out of the cache at once.
        let kept = self.fds.get(FdKey::Upper(node.ino));
        let _rename = self.rename.read_recursive();
        let fd = match kept {
            None if node.is_dir() => Some(locate::upper_dir(&self.fds, &upper.layer, node)?),
            kept => kept,
        };
        if let Some(fd) = fd {
            let spot = Spot::fd(fd);
            let s = spot.stat()?;
            return Ok((ObjectId::of(&s) == id).then_some((spot, s)));
        }
        let links: Vec<_> = node.links.lock().iter().cloned().collect();
        for link in links {
            if !link.parent.is_upper() {
                continue;
            }
            let dir = match locate::upper_dir(&self.fds, &upper.layer, &link.parent) {
                // The name went, and its directory after it, since we listed the names.
                Err(Errno::ENOENT | Errno::ESTALE) => continue,
                found => found?,
            };
            let spot = Spot::at(dir, link.name.clone());
            match spot.stat() {
                Ok(s) if ObjectId::of(&s) == id => return Ok(Some((spot, s))),
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
        self.by_anchor(upper, node, id)
    }

    /// An indexed file of which no known name stands in the upper's tree.
    fn by_anchor(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        id: ObjectId,
    ) -> Result<Option<(Spot, Stat)>> {
        let (Some(index), Some(name)) = (&upper.index, node.anchor()) else {
            return Ok(None);
        };
        let spot = Spot::at(index.clone(), name);
        match spot.stat() {
            Ok(s) if ObjectId::of(&s) == id => Ok(Some((spot, s))),
            Ok(_) | Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn lower_top(&self, node: &Node) -> Option<LowerSpot> {
        node.lowers.read().first().cloned()
    }

    /// The spot of a node's topmost object and its attributes on disk. Good for
    /// reading; a change takes [`Overlay::held`].
    pub(super) fn top_spot(&self, node: &Arc<Node>) -> Result<(Spot, Stat)> {
        if node.is_upper() {
            return self.upper_spot(node);
        }
        let lower = self.lower_top(node).ok_or(Errno::ESTALE)?;
        let layer = self.stack.layer(lower.layer)?;
        if let (Kind::Dir, Some(place), false) = (node.kind, &lower.place, lower.mount_point) {
            let spot = Spot::fd(locate::lower_dir(&self.fds, layer, place)?);
            let s = spot.stat()?;
            return Ok((spot, s));
        }
        let spot = locate::lower_spot(&self.fds, layer, &lower)?;
        let s = spot.stat()?;
        crate::sys::stat::expect_object(&s, lower.id.dev, lower.id.ino)?;
        Ok((spot, s))
    }

    /// Asks a node's topmost object something by its spot, again if a rename
    /// put another object there meanwhile.
    pub(super) fn ask<T>(
        &self,
        node: &Arc<Node>,
        question: impl Fn(&Spot, &Stat) -> Result<T>,
    ) -> Result<T> {
        for _ in 0..RETRIES {
            let (spot, s) = self.top_spot(node)?;
            let answer = question(&spot, &s);
            if !node.is_upper() || spot.is_descriptor() {
                return answer;
            }
            if spot
                .stat()
                .is_ok_and(|now| ObjectId::of(&now) == ObjectId::of(&s))
            {
                return answer;
            }
        }
        Err(Errno::ESTALE)
    }

    /// A descriptor of a node's upper object that is certainly it.
    pub(super) fn held(&self, node: &Arc<Node>) -> Result<(Spot, Stat)> {
        let id = *node.upper.get().ok_or(Errno::EIO)?;
        for _ in 0..RETRIES {
            let (spot, s) = self.upper_spot(node)?;
            if spot.is_descriptor() {
                return Ok((spot, s));
            }
            let fd = match spot.open(OFlags::PATH) {
                Err(Errno::ENOENT) => continue,
                r => Arc::new(r?),
            };
            let spot = Spot::fd(fd);
            let s = spot.stat()?;
            if ObjectId::of(&s) == id {
                return Ok((spot, s));
            }
        }
        Err(Errno::ESTALE)
    }

    /// An open file with a node's data.
    ///
    /// # Errors
    /// EIO for a metacopy whose data is nowhere; EROFS for writing a lower file.
    pub(super) fn data_fd(&self, node: &Arc<Node>, access: Access) -> Result<Arc<OwnedFd>> {
        match self.try_data_fd(node, access) {
            // The limit of descriptors is ours to keep: a client never sees it.
            Err(Errno::EMFILE | Errno::ENFILE) => {
                self.fds.clear();
                self.try_data_fd(node, access)
            }
            r => r,
        }
    }

    fn try_data_fd(&self, node: &Arc<Node>, access: Access) -> Result<Arc<OwnedFd>> {
        if node.kind != Kind::File {
            return Err(Errno::EINVAL);
        }
        if node.is_upper() && !node.metacopy.load(std::sync::atomic::Ordering::Acquire) {
            return self.upper_data(node, access);
        }
        if access == Access::Write {
            return Err(Errno::EROFS);
        }
        self.lower_data(node)
    }

    /// The file that serves every open of a node, whatever it is opened for; `None`
    /// where there is none: a lower file that may yet be written (`fuse::passthrough`).
    pub fn backing(&self, node: &Arc<Node>) -> Result<Option<Arc<OwnedFd>>> {
        if node.kind != Kind::File {
            return Ok(None);
        }
        if !self.writable() {
            return self.data_fd(node, Access::Read).map(Some);
        }
        if !node.is_upper() || node.metacopy.load(std::sync::atomic::Ordering::Acquire) {
            return Ok(None);
        }
        let file = self.data_fd(node, Access::Read)?;
        let both = crate::sys::file::reads_and_writes(std::os::fd::AsFd::as_fd(&file))?;
        Ok(both.then_some(file))
    }

    /// Writes to a file that takes writes at its end only (chattr +a).
    pub(super) fn append(&self, node: &Arc<Node>, data: &[u8], offset: u64) -> Result<usize> {
        let (spot, s) = self.held(node)?;
        if offset != s.size {
            return Err(Errno::EPERM);
        }
        let fd = spot.open(OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK)?;
        crate::sys::file::write_at(std::os::fd::AsFd::as_fd(&fd), data, offset)
    }

    fn upper_data(&self, node: &Arc<Node>, access: Access) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.fds.get(FdKey::Upper(node.ino)) {
            return Ok(fd);
        }
        if access == Access::Read
            && let Some(fd) = self.fds.get(FdKey::UpperReadOnly(node.ino))
        {
            return Ok(fd);
        }
        let id = *node.upper.get().ok_or(Errno::EIO)?;
        for _ in 0..RETRIES {
            let (spot, _) = self.upper_spot(node)?;
            let (fd, key) = match open_data(&spot, access) {
                Err(Errno::ENOENT) => continue,
                r => r?,
            };
            let fd = Arc::new(fd);
            let s = Spot::fd(fd.clone()).stat()?;
            if ObjectId::of(&s) != id {
                continue;
            }
            let key = match key {
                Opened::ReadWrite => FdKey::Upper(node.ino),
                Opened::ReadOnly => FdKey::UpperReadOnly(node.ino),
                Opened::Once => return Ok(fd),
            };
            self.fds.put(key, &fd, None);
            return Ok(fd);
        }
        Err(Errno::ESTALE)
    }

    /// The data of a lower file (for a metacopy: of the lowest one).
    pub(super) fn lower_data(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.fds.get(FdKey::LowerFile(node.ino)) {
            return Ok(fd);
        }
        let spot = node.lowers.read().last().cloned().ok_or(Errno::EIO)?;
        let layer = self.stack.layer(spot.layer)?;
        let at = locate::lower_spot(&self.fds, layer, &spot)?;
        // It was a regular file when its name was looked up, and layers do not
        // change. Were it a FIFO by now, O_NONBLOCK keeps us from waiting.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = match at.open(flags | OFlags::NOATIME) {
            Err(Errno::EPERM) => at.open(flags)?,
            r => r?,
        };
        let fd = Arc::new(fd);
        let s = Spot::fd(fd.clone()).stat()?;
        crate::sys::stat::expect_object(&s, spot.id.dev, spot.id.ino)?;
        self.fds.put(FdKey::LowerFile(node.ino), &fd, None);
        Ok(fd)
    }

    /// Whether the objects of a layer may be disguised.
    pub(super) fn layer_disguised(&self, node: &Node) -> bool {
        let id = if node.is_upper() {
            UPPER
        } else {
            node.lowers.read().first().map_or(UPPER, |l| l.layer)
        };
        self.stack.layer(id).is_ok_and(|l| l.disguised)
    }
}

enum Opened {
    ReadWrite,
    ReadOnly,
    /// Not to be kept: its flags suit one caller.
    Once,
}

fn open_data(spot: &Spot, access: Access) -> Result<(OwnedFd, Opened)> {
    let base = OFlags::NONBLOCK;
    match spot.open(base | OFlags::RDWR) {
        Ok(fd) => return Ok((fd, Opened::ReadWrite)),
        // An ordinary user's daemon without capabilities: who opened the file
        // here was allowed to, whatever its mode says by now.
        Err(Errno::EACCES) => {
            if let Some(fd) = open_own(spot, base | OFlags::RDWR)? {
                return Ok((fd, Opened::ReadWrite));
            }
        }
        // Append-only and immutable files (chattr), a read-only remount.
        Err(Errno::EPERM | Errno::EROFS | Errno::ETXTBSY) => {}
        Err(e) => return Err(e),
    }
    if access == Access::Write {
        return Ok((spot.open(base | OFlags::WRONLY)?, Opened::Once));
    }
    Ok((spot.open(base | OFlags::RDONLY)?, Opened::ReadOnly))
}

/// Opens a file of our own whose mode does not let us, by changing the mode for
/// a moment; `None` where it is not ours.
fn open_own(spot: &Spot, flags: OFlags) -> Result<Option<OwnedFd>> {
    let s = spot.stat()?;
    if s.uid != crate::sys::cred::own_ids().0 || s.kind() != Kind::File {
        return Ok(None);
    }
    spot.chmod((s.mode & 0o7777) | 0o600)?;
    let opened = spot.open(flags);
    spot.chmod(s.mode & 0o7777)?;
    opened.map(Some)
}
