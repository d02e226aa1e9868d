//! Data: read, write, fallocate, seek, copy, sync, flags.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::attr::Order;
use super::hold::Access;
use crate::layer::UPPER;
use crate::overlay::inode::locate;
use crate::overlay::inode::node::Node;
use crate::overlay::ops::ensure_upper::Need;
use crate::overlay::{Caller, Overlay};
use crate::sys::stat::SetTime;
use crate::sys::{Errno, Kind, Result, Spot, best_effort, copy, dir, file};

/// lseek(2) on a file with holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE.
    Hole,
}

/// Where written data comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// From a write(2) that waits for the answer.
    Direct,
    /// From the kernel's page cache.
    Cached,
}

/// With the writeback cache the kernel keeps mtime and may already have told
/// it: pages that arrive later must not move it.
fn write_quietly(fd: &Arc<OwnedFd>, data: &[u8], offset: u64) -> Result<usize> {
    let spot = Spot::fd(fd.clone());
    let before = spot.stat()?;
    let n = file::write_at(fd.as_fd(), data, offset)?;
    let restored = spot.set_times(SetTime::Keep, SetTime::At(before.mtime));
    best_effort("keep mtime over a cached write", restored);
    Ok(n)
}

impl Overlay {
    /// Reads at `offset` into `buf`; the count.
    pub fn read(&self, node: &Arc<Node>, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let fd = self.data_fd(node, Access::Read)?;
        file::read_at(fd.as_fd(), buf, offset)
    }

    /// A file's data, open for reading: for whole copies, which the kernel may make
    /// by sharing blocks.
    pub fn data(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        self.data_fd(node, Access::Read)
    }

    /// Writes `data` at `offset`; the count. `kill`: a writer without CAP_FSETID,
    /// whose writing takes suid and sgid away.
    pub fn write(
        &self,
        node: &Arc<Node>,
        offset: u64,
        data: &[u8],
        kill: Option<Caller>,
        kind: WriteKind,
    ) -> Result<usize> {
        self.check_writable()?;
        let fd = match self.writable_fd(node) {
            // Of a file that could not be copied up (its owner cannot be kept)
            // EPERM is the answer.
            Err(Errno::EPERM) if node.is_upper() => return self.append(node, data, offset),
            r => r?,
        };
        if let Some(caller) = kill {
            self.kill_privilege(node, caller, Order::Change)?;
        }
        node.unmask_ctime();
        if kind == WriteKind::Cached && self.settings.writeback {
            return write_quietly(&fd, data, offset);
        }
        file::write_at(fd.as_fd(), data, offset)
    }

    /// fallocate(2).
    pub fn fallocate(
        &self,
        node: &Arc<Node>,
        mode: u32,
        range: (u64, u64),
        caller: Caller,
    ) -> Result<()> {
        self.check_writable()?;
        let (offset, len) = range;
        let fd = self.writable_fd(node)?;
        if caller.uid != 0 {
            self.kill_privilege(node, caller, Order::Change)?;
        }
        node.unmask_ctime();
        file::fallocate(fd.as_fd(), mode, offset, len)
    }

    /// The next data or hole.
    pub fn seek(&self, node: &Arc<Node>, offset: u64, what: Seek) -> Result<u64> {
        let fd = self.data_fd(node, Access::Read)?;
        match what {
            Seek::Data => file::seek_data(fd.as_fd(), offset),
            Seek::Hole => file::seek_hole(fd.as_fd(), offset),
        }
    }

    /// copy_file_range(2) between two files; the count.
    pub fn copy_range(
        &self,
        from: (&Arc<Node>, u64),
        to: (&Arc<Node>, u64),
        len: u64,
        caller: Caller,
    ) -> Result<u64> {
        self.check_writable()?;
        let dst = self.writable_fd(to.0)?;
        if caller.uid != 0 {
            self.kill_privilege(to.0, caller, Order::Change)?;
        }
        let src = self.data_fd(from.0, Access::Read)?;
        to.0.unmask_ctime();
        copy::copy_range((src.as_fd(), from.1), (dst.as_fd(), to.1), len)
    }

    /// fsync(2) or fdatasync(2) of a file or directory. For the root of the
    /// mount the upper's whole file system: FUSE never hears of syncfs.
    pub fn fsync(&self, node: &Arc<Node>, data_only: bool) -> Result<()> {
        let Some(upper) = &self.stack.upper else {
            return Ok(());
        };
        if !upper.syncs() || !node.is_upper() {
            return Ok(());
        }
        if Arc::ptr_eq(node, &self.root) {
            return file::sync_fs(upper.layer.root.as_fd());
        }
        if node.is_orphan() && node.is_dir() {
            return Ok(());
        }
        if node.is_dir() {
            let fd = {
                let _rename = self.rename.read();
                locate::upper_dir(&self.fds, &upper.layer, node)?
            };
            return dir::fsync_dir(fd.as_fd());
        }
        if node.kind != Kind::File {
            return Ok(());
        }
        let fd = self.data_fd(node, Access::Read)?;
        file::sync(fd.as_fd(), data_only)
    }

    /// FS_IOC_GETFLAGS.
    pub fn inode_flags(&self, node: &Arc<Node>) -> Result<u32> {
        let fd = self.flags_fd(node)?;
        file::inode_flags(fd.as_fd())
    }

    /// FS_IOC_SETFLAGS: only the upper can keep them.
    pub fn set_inode_flags(&self, node: &Arc<Node>, flags: u32) -> Result<()> {
        self.check_writable()?;
        self.ensure_upper(node, Need::Data)?;
        let fd = self.flags_fd(node)?;
        file::set_inode_flags(fd.as_fd(), flags)?;
        node.unmask_ctime();
        // An open for writing made before may not fit the new flags.
        self.fds.remove_node(node);
        Ok(())
    }

    /// FS_IOC_FSGETXATTR, as the backing file system answers.
    pub fn fs_xattr(&self, node: &Arc<Node>) -> Result<[u8; file::FSXATTR_LEN]> {
        file::fs_xattr(self.flags_fd(node)?.as_fd())
    }

    /// FS_IOC_FSSETXATTR.
    pub fn set_fs_xattr(&self, node: &Arc<Node>, v: &[u8; file::FSXATTR_LEN]) -> Result<()> {
        self.check_writable()?;
        self.ensure_upper(node, Need::Data)?;
        file::set_fs_xattr(self.flags_fd(node)?.as_fd(), v)?;
        node.unmask_ctime();
        self.fds.remove_node(node);
        Ok(())
    }

    fn flags_fd(&self, node: &Arc<Node>) -> Result<Arc<std::os::fd::OwnedFd>> {
        if node.is_dir() {
            let (spot, _) = self.top_spot(node)?;
            let fd = dir::open_readable(spot.dirfd())?;
            return Ok(Arc::new(fd));
        }
        if node.kind != Kind::File {
            return Err(Errno::ENOTTY);
        }
        self.data_fd(node, Access::Read)
    }

    /// Numbers of the file system that takes the writes.
    pub fn statfs(&self) -> Result<file::FsStat> {
        let layer = match self.stack.layer(UPPER) {
            Ok(l) => l,
            Err(_) => self.stack.layer(1)?,
        };
        file::fs_stat(Spot::fd(layer.root.clone()).dirfd())
    }
}
