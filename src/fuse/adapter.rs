//! `impl fuser::Filesystem`: decode → engine → reply.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};

use super::control;
use super::convert::{bytes, decode_dev, errno, file_attr, file_type, set_time};
use super::counters::{Counters, Op};
use super::workers::Workers;
use crate::overlay::inode::node::Node;
use crate::overlay::ops::attr::Change;
use crate::overlay::ops::create::New;
use crate::overlay::ops::ensure_upper::Need;
use crate::overlay::ops::file::{Seek, WriteKind};
use crate::overlay::ops::remove::Target;
use crate::overlay::ops::rename::How;
use crate::overlay::{Attr, Caller, Entry, Errno, Overlay, Result};
use crate::sys::Kind;

/// What node 1, FUSE's root, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootShape {
    /// The merged root itself.
    Direct,
    /// A directory whose only child, of this name, is the merged root: the
    /// kernel never caches the ACL of node 1 (fuse.md, lever 12).
    Child(&'static str),
}

/// For ever, as the kernel counts.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);
/// The file that exists only while the mount is primed.
const PRIME_NAME: &str = ".acetate-prime";
const PRIME_INO: u64 = (1 << 62) - 1;
/// Names fetched from a listing at a time.
const CHUNK: usize = 512;
/// Largest write the kernel may send, and what it may read ahead.
const MAX_WRITE: u32 = 1 << 20;
/// Copies and syncs of at least this much are parked.
const LONG_RANGE: u64 = 1 << 20;

struct Shared {
    overlay: Overlay,
    shape: RootShape,
    priming: AtomicBool,
    counters: Counters,
    workers: Workers,
    ttl: Duration,
}

/// The file system as fuser sees it.
pub struct Adapter {
    shared: Arc<Shared>,
    no_open: bool,
    no_opendir: bool,
}

/// Ends the priming (see fuse.md, lever 1(d)).
pub struct PrimeHandle(Arc<Shared>);

impl PrimeHandle {
    /// The file is gone from now on.
    pub fn done(&self) {
        self.0.priming.store(false, Ordering::Release);
    }
}

/// Ends the mount when the event loops are over.
pub struct ShutdownHandle(Arc<Shared>);

impl ShutdownHandle {
    /// Waits for what is still at work and syncs the upper unless volatile.
    pub fn finish(&self) -> Result<()> {
        self.0.workers.drain();
        self.0.overlay.finish()
    }
}

impl Adapter {
    /// An adapter for an overlay.
    pub fn new(overlay: Overlay, shape: RootShape) -> Adapter {
        let ttl = overlay.timeout().unwrap_or(FOR_EVER);
        let shared = Shared {
            overlay,
            shape,
            priming: AtomicBool::new(true),
            counters: Counters::default(),
            workers: Workers::default(),
            ttl,
        };
        Adapter { shared: Arc::new(shared), no_open: false, no_opendir: false }
    }

    /// The name of the file to open once through the mount before it is shown.
    pub fn prime_name() -> &'static str {
        PRIME_NAME
    }

    /// To be called when that was done.
    pub fn prime_handle(&self) -> PrimeHandle {
        PrimeHandle(self.shared.clone())
    }

    /// To be called when the event loops have ended.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle(self.shared.clone())
    }

    fn run<T: Send + 'static>(
        &self,
        long: bool,
        reply: T,
        work: impl FnOnce(&Shared, T) + Send + 'static,
    ) {
        if !long {
            return work(&self.shared, reply);
        }
        let shared = self.shared.clone();
        self.shared.workers.run(move || work(&shared, reply));
    }
}

impl Shared {
    fn node(&self, ino: INodeNo) -> Result<Arc<Node>> {
        if ino.0 == 1 && self.shape == RootShape::Direct {
            return Ok(self.overlay.root().clone());
        }
        self.overlay.node(ino.0)
    }

    /// The number the kernel knows a node by.
    fn number(&self, ino: u64) -> u64 {
        let direct = self.shape == RootShape::Direct && ino == self.overlay.root().ino;
        if direct { 1 } else { ino }
    }

    fn attr(&self, a: &Attr) -> fuser::FileAttr {
        file_attr(a, self.number(a.ino))
    }

    /// Attributes of a directory or file that exists only in this adapter.
    fn virtual_attr(&self, ino: u64, kind: Kind) -> Result<fuser::FileAttr> {
        let mut a = self.overlay.getattr(self.overlay.root())?;
        a.stat.mode = kind.mode_bits() | if kind == Kind::Dir { 0o755 } else { 0o444 };
        a.stat.size = 0;
        a.stat.nlink = 1;
        Ok(file_attr(&a, ino))
    }

    fn is_shell(&self, ino: INodeNo) -> bool {
        ino.0 == 1 && self.shape != RootShape::Direct
    }

    fn primes(&self, parent: &Node, name: &OsStr) -> bool {
        name == PRIME_NAME
            && parent.ino == self.overlay.root().ino
            && self.priming.load(Ordering::Acquire)
    }

    fn lookup(&self, parent: INodeNo, name: &OsStr) -> Result<Option<Entry>> {
        let parent = self.node(parent)?;
        self.overlay.lookup(&parent, bytes(name))
    }

    fn reply_entry(&self, entry: Result<Option<Entry>>, reply: ReplyEntry) {
        match entry {
            Ok(Some(e)) => {
                self.overlay.remember(&e.node);
                reply.entry(&self.ttl, &self.attr(&e.attr), Generation(0));
            }
            Ok(None) => self.reply_negative(reply),
            Err(e) => reply.error(errno(e)),
        }
    }

    /// Node id 0 with a time: the kernel remembers that nothing is there.
    fn reply_negative(&self, reply: ReplyEntry) {
        reply.entry(&self.ttl, &negative_attr(), Generation(0));
    }

    fn reply_attr(&self, attr: Result<Attr>, reply: ReplyAttr) {
        match attr {
            Ok(a) => reply.attr(&self.ttl, &self.attr(&a)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn make(&self, req: Caller, parent: INodeNo, name: &OsStr, new: &New<'_>) -> Result<Entry> {
        let parent = self.node(parent)?;
        self.overlay.make(&parent, bytes(name), new, req)
    }

    /// The first two names of every listing.
    fn dots(&self, node: &Node) -> [(u64, &'static str); 2] {
        let up = self.overlay.parent_ino(node);
        [(self.number(node.ino), "."), (self.number(up), "..")]
    }

    fn shell_listing(&self, offset: u64, mut reply: ReplyDirectory) {
        let RootShape::Child(name) = self.shape else { return reply.ok() };
        let root = self.overlay.root().ino;
        let names = [(1, "."), (1, ".."), (root, name)];
        for (i, (ino, n)) in (1u64..).zip(names).skip(usize::try_from(offset).unwrap_or(3)) {
            if reply.add(INodeNo(ino), i, fuser::FileType::Directory, n) {
                break;
            }
        }
        reply.ok();
    }

    fn readdir(&self, ino: INodeNo, offset: u64, reply: &mut ReplyDirectory) -> Result<()> {
        let node = self.node(ino)?;
        let listing = self.overlay.listing(&node)?;
        for (i, (ino, name)) in (1u64..).zip(self.dots(&node)) {
            if offset < i && reply.add(INodeNo(ino), i, fuser::FileType::Directory, name) {
                return Ok(());
            }
        }
        let mut at = offset.max(2);
        loop {
            let items = listing.after(at, CHUNK);
            for i in &items {
                let name = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&i.name);
                if reply.add(INodeNo(i.ino), i.cookie, file_type(i.kind), name) {
                    return Ok(());
                }
            }
            match items.last() {
                Some(last) if last.cookie > at => at = last.cookie,
                _ => return Ok(()),
            }
        }
    }

    fn readdirplus(&self, ino: INodeNo, offset: u64, reply: &mut ReplyDirectoryPlus) -> Result<()> {
        let node = self.node(ino)?;
        let listing = self.overlay.listing(&node)?;
        let own = self.overlay.getattr(&node)?;
        for (i, (ino, name)) in (1u64..).zip(self.dots(&node)) {
            let attr = file_attr(&own, ino);
            if offset < i
                && reply.add(INodeNo(ino), i, name, &Duration::ZERO, &attr, Generation(0))
            {
                return Ok(());
            }
        }
        let mut at = offset.max(2);
        loop {
            let items = listing.after(at, CHUNK);
            for i in &items {
                let name = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&i.name);
                let Some(e) = self.overlay.lookup(&node, &i.name)? else { continue };
                let attr = self.attr(&e.attr);
                if reply.add(attr.ino, i.cookie, name, &self.ttl, &attr, Generation(0)) {
                    self.overlay.release(e.node);
                    return Ok(());
                }
                self.overlay.remember(&e.node);
            }
            match items.last() {
                Some(last) if last.cookie > at => at = last.cookie,
                _ => return Ok(()),
            }
        }
    }

    fn ioctl(&self, req: Caller, ino: INodeNo, cmd: u32, data: &[u8]) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        let is_root = node.ino == self.overlay.root().ino;
        if cmd == control::STATS && is_root {
            let own = crate::sys::cred::own_ids().0;
            if req.uid != 0 && req.uid != own {
                return Err(Errno::EPERM);
            }
            let mut text = self.counters.text().into_bytes();
            text.resize(control::STATS_LEN, 0);
            return Ok(text);
        }
        if control::GETFLAGS.contains(&cmd) {
            return Ok(self.overlay.inode_flags(&node)?.to_ne_bytes().to_vec());
        }
        if cmd == control::FSGETXATTR {
            return Ok(self.overlay.fs_xattr(&node)?.to_vec());
        }
        if cmd == control::FSSETXATTR {
            let raw = data.first_chunk().ok_or(Errno::EINVAL)?;
            self.overlay.set_fs_xattr(&node, raw)?;
            return Ok(Vec::new());
        }
        if control::SETFLAGS.contains(&cmd) {
            let raw = data.first_chunk::<4>().ok_or(Errno::EINVAL)?;
            self.overlay.set_inode_flags(&node, u32::from_ne_bytes(*raw))?;
            return Ok(Vec::new());
        }
        Err(Errno::ENOTTY)
    }
}

/// Attributes that nobody reads: of a name that stands for nothing.
fn negative_attr() -> fuser::FileAttr {
    let t = std::time::UNIX_EPOCH;
    fuser::FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: t,
        mtime: t,
        ctime: t,
        crtime: t,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

fn reply_empty(r: Result<()>, reply: ReplyEmpty) {
    match r {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

fn reply_xattr(value: Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match value {
        Err(e) => reply.error(errno(e)),
        Ok(v) if size == 0 => reply.size(u32::try_from(v.len()).unwrap_or(u32::MAX)),
        Ok(v) if v.len() > size as usize => reply.error(errno(Errno::ERANGE)),
        Ok(v) => reply.data(&v),
    }
}

fn reply_written(n: Result<usize>, reply: ReplyWrite) {
    match n {
        Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
        Err(e) => reply.error(errno(e)),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let offered = config.capabilities();
        let mut want = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_NO_OPEN_SUPPORT
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_HAS_IOCTL_DIR;
        if self.shared.overlay.acls() {
            want |= InitFlags::FUSE_POSIX_ACL;
        }
        if self.shared.overlay.writeback() {
            want |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        self.no_open = offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.no_opendir = offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        // Only what is offered is asked for, so this cannot be refused.
        if let Err(refused) = config.add_capabilities(want & offered) {
            tracing::warn!(?refused, "the kernel refused capabilities");
        }
        if let Err(most) = config.set_max_write(MAX_WRITE) {
            tracing::debug!(most, "max_write");
        }
        if let Err(most) = config.set_max_background(64) {
            tracing::debug!(most, "max_background");
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let s = &self.shared;
        s.counters.count(Op::Lookup);
        if s.is_shell(parent) {
            if !matches!(s.shape, RootShape::Child(child) if name == child) {
                return reply.error(errno(Errno::ENOENT));
            }
            let root = s.overlay.root().clone();
            let entry = s.overlay.getattr(&root).map(|attr| Some(Entry { node: root, attr }));
            return s.reply_entry(entry, reply);
        }
        if s.node(parent).is_ok_and(|p| s.primes(&p, name)) {
            return match s.virtual_attr(PRIME_INO, Kind::File) {
                Ok(a) => reply.entry(&Duration::ZERO, &a, Generation(0)),
                Err(e) => reply.error(errno(e)),
            };
        }
        s.reply_entry(s.lookup(parent, name), reply);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.shared.counters.count(Op::Forget);
        self.shared.overlay.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let s = &self.shared;
        s.counters.count(Op::Getattr);
        if s.is_shell(ino) || ino.0 == PRIME_INO {
            let kind = if ino.0 == 1 { Kind::Dir } else { Kind::File };
            return match s.virtual_attr(ino.0, kind) {
                Ok(a) => reply.attr(&s.ttl, &a),
                Err(e) => reply.error(errno(e)),
            };
        }
        s.reply_attr(s.node(ino).and_then(|n| s.overlay.getattr(&n)), reply);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.shared.counters.count(Op::Setattr);
        let node = match self.shared.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let (atime, mtime) = (set_time(atime), set_time(mtime));
        let by_handle = fh.is_some();
        let change = Change { mode, uid, gid, size, by_handle, atime, mtime };
        let need = match size {
            Some(0) => Need::Empty,
            Some(_) => Need::Data,
            None => Need::Meta,
        };
        let long = self.shared.overlay.copy_is_long(&node, need);
        let who = caller(req);
        self.run(long, reply, move |s, reply| {
            s.reply_attr(s.overlay.setattr(&node, &change, who), reply);
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let s = &self.shared;
        s.counters.count(Op::Readlink);
        match s.node(ino).and_then(|n| s.overlay.readlink(&n)) {
            Ok(t) => reply.data(&t),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.shared.counters.count(Op::Mknod);
        let kind = Kind::from_mode(mode);
        let new = New { kind, mode, umask, rdev: decode_dev(rdev), target: b"" };
        self.shared.reply_entry(
            self.shared.make(caller(req), parent, name, &new).map(Some),
            reply,
        );
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.shared.counters.count(Op::Mkdir);
        let new = New { kind: Kind::Dir, mode, umask, rdev: (0, 0), target: b"" };
        self.shared.reply_entry(
            self.shared.make(caller(req), parent, name, &new).map(Some),
            reply,
        );
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.shared.counters.count(Op::Symlink);
        let target = bytes(target.as_os_str());
        let new = New { kind: Kind::Symlink, mode: 0o777, umask: 0, rdev: (0, 0), target };
        self.shared.reply_entry(
            self.shared.make(caller(req), parent, name, &new).map(Some),
            reply,
        );
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let s = &self.shared;
        s.counters.count(Op::Create);
        let new = New { kind: Kind::File, mode, umask, rdev: (0, 0), target: b"" };
        match s.make(caller(req), parent, name, &new) {
            Ok(e) => {
                s.overlay.remember(&e.node);
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&s.ttl, &s.attr(&e.attr), Generation(0), FileHandle(0), flags);
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.shared.counters.count(Op::Unlink);
        self.remove(parent, name, Target::NonDir, reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.shared.counters.count(Op::Rmdir);
        self.remove(parent, name, Target::Dir, reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.shared.counters.count(Op::Rename);
        let how = match flags {
            f if f.is_empty() => How::Replace,
            RenameFlags::RENAME_NOREPLACE => How::NoReplace,
            RenameFlags::RENAME_EXCHANGE => How::Exchange,
            _ => return reply.error(errno(Errno::EINVAL)),
        };
        let ends = self.shared.node(parent).and_then(|a| Ok((a, self.shared.node(newparent)?)));
        let (a, b) = match ends {
            Ok(e) => e,
            Err(e) => return reply.error(errno(e)),
        };
        let (old, new) = (bytes(name).to_vec(), bytes(newname).to_vec());
        // What moves may have to be copied first: known only on the way.
        let long = self.shared.overlay.rename_is_long(&a, &old)
            || how == How::Exchange && self.shared.overlay.rename_is_long(&b, &new);
        self.run(long, reply, move |s, reply| {
            reply_empty(s.overlay.rename((&a, &old), (&b, &new), how), reply);
        });
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        self.shared.counters.count(Op::Link);
        let ends = self.shared.node(ino).and_then(|a| Ok((a, self.shared.node(newparent)?)));
        let (node, parent) = match ends {
            Ok(e) => e,
            Err(e) => return reply.error(errno(e)),
        };
        let name = bytes(newname).to_vec();
        let long = self.shared.overlay.copy_is_long(&node, Need::Data);
        self.run(long, reply, move |s, reply| {
            let attr = s.overlay.link(&node, &parent, &name);
            s.reply_entry(attr.map(|attr| Some(Entry { node, attr })), reply);
        });
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.shared.counters.count(Op::Open);
        if self.no_open {
            return reply.error(errno(Errno::ENOSYS));
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let s = &self.shared;
        s.counters.count(Op::Read);
        let fill = |buf: &mut [u8]| s.overlay.read(&s.node(ino)?, offset, buf);
        with_buffer(size as usize, fill, |r| match r {
            Ok(data) => reply.data(data),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let s = &self.shared;
        s.counters.count(Op::Write);
        let node = match s.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let kills = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let kill = kills.then(|| caller(req));
        let kind = match write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            true => WriteKind::Cached,
            false => WriteKind::Direct,
        };
        if !s.overlay.copy_is_long(&node, Need::Data) {
            return reply_written(s.overlay.write(&node, offset, data, kill, kind), reply);
        }
        let data = data.to_vec();
        self.run(true, reply, move |s, reply| {
            reply_written(s.overlay.write(&node, offset, &data, kill, kind), reply);
        });
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.shared.counters.count(Op::Flush);
        // Nothing is held back here and locks are the kernel's.
        reply.error(errno(Errno::ENOSYS));
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.counters.count(Op::Release);
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, data: bool, reply: ReplyEmpty) {
        self.shared.counters.count(Op::Fsync);
        self.sync(ino, data, reply);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        data: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.counters.count(Op::Fsyncdir);
        self.sync(ino, data, reply);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.shared.counters.count(Op::Opendir);
        if self.no_opendir {
            return reply.error(errno(Errno::ENOSYS));
        }
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        reply.opened(FileHandle(0), flags);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let s = &self.shared;
        s.counters.count(Op::Readdir);
        if s.is_shell(ino) {
            return s.shell_listing(offset, reply);
        }
        match s.readdir(ino, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let s = &self.shared;
        s.counters.count(Op::Readdirplus);
        if s.is_shell(ino) {
            // Nobody lists it but the mount command's own check.
            return reply.error(errno(Errno::ENOSYS));
        }
        match s.readdirplus(ino, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.shared.counters.count(Op::Releasedir);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.shared.counters.count(Op::Statfs);
        match self.shared.overlay.statfs() {
            Ok(f) => reply.statfs(
                f.blocks, f.bfree, f.bavail, f.files, f.ffree, f.bsize, f.namelen, f.frsize,
            ),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.shared.counters.count(Op::Setxattr);
        let node = match self.shared.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let (name, value, who) = (bytes(name).to_vec(), value.to_vec(), caller(req));
        let long = self.shared.overlay.copy_is_long(&node, Need::Meta);
        self.run(long, reply, move |s, reply| {
            reply_empty(s.overlay.setxattr(&node, &name, &value, flags, who), reply);
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let s = &self.shared;
        s.counters.count(Op::Getxattr);
        if s.is_shell(ino) || ino.0 == PRIME_INO {
            return reply.error(errno(Errno::ENODATA));
        }
        let value = s.node(ino).and_then(|n| s.overlay.getxattr(&n, bytes(name)));
        reply_xattr(value, size, reply);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let s = &self.shared;
        s.counters.count(Op::Listxattr);
        if s.is_shell(ino) || ino.0 == PRIME_INO {
            return reply_xattr(Ok(Vec::new()), size, reply);
        }
        reply_xattr(s.node(ino).and_then(|n| s.overlay.listxattr(&n, caller(req))), size, reply);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.shared.counters.count(Op::Removexattr);
        let node = match self.shared.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let name = bytes(name).to_vec();
        let long = self.shared.overlay.copy_is_long(&node, Need::Meta);
        self.run(long, reply, move |s, reply| {
            reply_empty(s.overlay.removexattr(&node, &name), reply);
        });
    }

    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        self.shared.counters.count(Op::Ioctl);
        match self.shared.ioctl(caller(req), ino, cmd, in_data) {
            Ok(mut v) => {
                v.truncate(out_size as usize);
                reply.ioctl(0, &v);
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.shared.counters.count(Op::Fallocate);
        let node = match self.shared.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let long = self.shared.overlay.copy_is_long(&node, Need::Data);
        let (who, range) = (caller(req), (offset, length));
        self.run(long, reply, move |s, reply| {
            reply_empty(s.overlay.fallocate(&node, mode as u32, range, who), reply);
        });
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.shared.counters.count(Op::Lseek);
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(errno(Errno::EINVAL)),
        };
        let from = u64::try_from(offset).map_err(|_| Errno::ENXIO);
        let s = &self.shared;
        match from.and_then(|o| s.overlay.seek(&s.node(ino)?, o, what)) {
            Ok(o) => reply.offset(i64::try_from(o).unwrap_or(i64::MAX)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.shared.counters.count(Op::CopyFileRange);
        let ends = self.shared.node(ino_in).and_then(|a| Ok((a, self.shared.node(ino_out)?)));
        let (src, dst) = match ends {
            Ok(e) => e,
            Err(e) => return reply.error(errno(e)),
        };
        let long = len >= LONG_RANGE || self.shared.overlay.copy_is_long(&dst, Need::Data);
        let who = caller(req);
        self.run(long, reply, move |s, reply| {
            let n = s.overlay.copy_range((&src, offset_in), (&dst, offset_out), len, who);
            reply_written(n.map(|n| usize::try_from(n).unwrap_or(0)), reply);
        });
    }
}

impl Adapter {
    fn remove(&self, parent: INodeNo, name: &OsStr, what: Target, reply: ReplyEmpty) {
        let parent = match self.shared.node(parent) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let name = bytes(name).to_vec();
        let long = what == Target::NonDir && self.shared.overlay.remove_is_long(&parent, &name);
        self.run(long, reply, move |s, reply| {
            reply_empty(s.overlay.remove(&parent, &name, what), reply);
        });
    }

    fn sync(&self, ino: INodeNo, data_only: bool, reply: ReplyEmpty) {
        if self.shared.is_shell(ino) {
            return reply.ok();
        }
        let node = match self.shared.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let long = self.shared.overlay.sync_is_long(&node);
        self.run(long, reply, move |s, reply| {
            reply_empty(s.overlay.fsync(&node, data_only), reply);
        });
    }
}

std::thread_local! {
    /// One read buffer per event loop.
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Fills the thread's buffer by `fill` (which says how much) and hands the
/// filled part to `answer`.
fn with_buffer(
    size: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<usize>,
    answer: impl FnOnce(Result<&[u8]>),
) {
    BUFFER.with_borrow_mut(|b| {
        if b.len() < size {
            b.resize(size, 0);
        }
        let Some(part) = b.get_mut(..size) else { return answer(Err(Errno::EIO)) };
        match fill(part) {
            Ok(n) => answer(Ok(part.get(..n).unwrap_or_default())),
            Err(e) => answer(Err(e)),
        }
    });
}
