//! `impl fuser::Filesystem`: decode → engine → reply.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::adapter::Adapter;
use super::answers::{
    BULK, LONG_RANGE, PRIME_INO, RootShape, Shared, reply_empty, reply_written, reply_xattr,
    with_buffer,
};
use super::control;
use super::convert::{bytes, decode_dev, errno, set_time};
use super::counters::{Moved, Op};
use super::negotiate;
use super::passthrough::Wanted;
use super::serving::{Serving, answering};
use crate::overlay::ops::attr::Change;
use crate::overlay::ops::create::New;
use crate::overlay::ops::ensure_upper::Need;
use crate::overlay::ops::file::{Seek, WriteKind};
use crate::overlay::ops::remove::Target;
use crate::overlay::ops::rename::How;
use crate::overlay::{Caller, Entry, Errno, Result};
use crate::sys::Kind;
use crate::sys::features::{self, Feature};

fn caller(req: &Request) -> Caller {
    Caller {
        uid: req.uid(),
        gid: req.gid(),
        pid: req.pid(),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let agreed = negotiate::agree(&self.shared, config);
        self.no_open = agreed.no_open;
        self.no_opendir = agreed.no_opendir;
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let s = &self.shared;
        let _serving = s.serving(Op::Lookup, req);
        if s.is_shell(parent) {
            if !matches!(s.shape, RootShape::Child(child) if name == child) {
                return reply.error(errno(Errno::ENOENT));
            }
            let root = s.overlay.root().clone();
            let entry = s
                .overlay
                .getattr(&root)
                .map(|attr| Some(Entry { node: root, attr }));
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

    fn forget(&self, req: &Request, ino: INodeNo, nlookup: u64) {
        let _serving = self.shared.serving(Op::Forget, req);
        self.shared.forget(ino, nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let s = &self.shared;
        let _serving = s.serving(Op::Getattr, req);
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
        let serving = self.shared.serving(Op::Setattr, req);
        let node = match self.shared.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let (atime, mtime) = (set_time(atime), set_time(mtime));
        let by_handle = fh.is_some();
        let change = Change {
            mode,
            uid,
            gid,
            size,
            by_handle,
            written_past_us: self.shared.is_written_past_us(ino.0),
            atime,
            mtime,
        };
        let need = match size {
            Some(0) => Need::Empty,
            Some(_) => Need::Data,
            None => Need::Meta,
        };
        let long = self.shared.overlay.copy_is_long(&node, need);
        let who = caller(req);
        self.change(serving, long, reply, move |s, reply| {
            s.reply_attr(s.overlay.setattr(&node, &change, who), reply);
        });
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        let s = &self.shared;
        let _serving = s.serving(Op::Readlink, req);
        match s.node(ino).and_then(|n| s.overlay.readlink(&n)) {
            Ok(t) => {
                answering();
                reply.data(&t);
            }
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
        let serving = self.shared.serving(Op::Mknod, req);
        let kind = Kind::from_mode(mode);
        let new = New {
            kind,
            mode,
            umask,
            rdev: decode_dev(rdev),
            target: b"",
        };
        let (who, name) = (caller(req), name.to_owned());
        self.change(serving, false, reply, move |s, reply| {
            s.reply_entry(s.make(who, parent, &name, &new).map(Some), reply);
        });
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
        let serving = self.shared.serving(Op::Mkdir, req);
        let new = New {
            kind: Kind::Dir,
            mode,
            umask,
            rdev: (0, 0),
            target: b"",
        };
        let (who, name) = (caller(req), name.to_owned());
        self.change(serving, false, reply, move |s, reply| {
            s.reply_entry(s.make(who, parent, &name, &new).map(Some), reply);
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let serving = self.shared.serving(Op::Symlink, req);
        let target = bytes(target.as_os_str()).to_vec();
        let (who, name) = (caller(req), name.to_owned());
        self.change(serving, false, reply, move |s, reply| {
            let new = New {
                kind: Kind::Symlink,
                mode: 0o777,
                umask: 0,
                rdev: (0, 0),
                target: &target,
            };
            s.reply_entry(s.make(who, parent, &name, &new).map(Some), reply);
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let serving = self.shared.serving(Op::Create, req);
        let new = New {
            kind: Kind::File,
            mode,
            umask,
            rdev: (0, 0),
            target: b"",
        };
        let (who, name) = (caller(req), name.to_owned());
        let wanted = Wanted::of(OpenFlags(flags));
        self.change(serving, false, reply, move |s, reply| {
            match s.make(who, parent, &name, &new) {
                Ok(e) => {
                    s.overlay.remember(&e.node);
                    s.created(&e, wanted, reply);
                }
                Err(e) => reply.error(errno(e)),
            }
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let serving = self.shared.serving(Op::Unlink, req);
        self.remove(serving, parent, (name, Target::NonDir), reply);
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let serving = self.shared.serving(Op::Rmdir, req);
        self.remove(serving, parent, (name, Target::Dir), reply);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let serving = self.shared.serving(Op::Rename, req);
        let how = match flags {
            f if f.is_empty() => How::Replace,
            RenameFlags::RENAME_NOREPLACE => How::NoReplace,
            RenameFlags::RENAME_EXCHANGE => How::Exchange,
            _ => return reply.error(errno(Errno::EINVAL)),
        };
        let ends = self
            .shared
            .node(parent)
            .and_then(|a| Ok((a, self.shared.node(newparent)?)));
        let (a, b) = match ends {
            Ok(e) => e,
            Err(e) => return reply.error(errno(e)),
        };
        let (old, new) = (bytes(name).to_vec(), bytes(newname).to_vec());
        // What moves may have to be copied first: known only on the way.
        let long = self.shared.overlay.rename_is_long(&a, &old)
            || self.shared.overlay.remove_is_long(&b, &new)
            || how == How::Exchange && self.shared.overlay.rename_is_long(&b, &new);
        self.change(serving, long, reply, move |s, reply| {
            let moved = s.overlay.rename((&a, &old), (&b, &new), how);
            let objects = moved.iter().flatten().map(|n| INodeNo(s.number(n.ino)));
            let other = (newparent != parent).then_some(newparent);
            let whose: Vec<_> = objects.chain([parent]).chain(other).collect();
            reply_empty(s.changed(moved, &whose).map(drop), reply);
        });
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let serving = self.shared.serving(Op::Link, req);
        let ends = self
            .shared
            .node(ino)
            .and_then(|a| Ok((a, self.shared.node(newparent)?)));
        let (node, parent) = match ends {
            Ok(e) => e,
            Err(e) => return reply.error(errno(e)),
        };
        let name = bytes(newname).to_vec();
        let long = self.shared.overlay.copy_is_long(&node, Need::Data);
        self.change(serving, long, reply, move |s, reply| {
            let attr = s.changed(s.overlay.link(&node, &parent, &name), &[newparent]);
            s.reply_entry(attr.map(|attr| Some(Entry { node, attr })), reply);
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let serving = self.shared.serving(Op::Open, req);
        if self.no_open {
            return reply.error(errno(Errno::ENOSYS));
        }
        let node = self.shared.node(ino);
        let (Some(_), Ok(node)) = (self.shared.passthrough.get(), node) else {
            return reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        };
        let wanted = Wanted::of(flags);
        if !wanted.writes() && !wanted.empties() {
            return self.shared.open_through(&node, wanted, reply);
        }
        let need = match wanted.empties() {
            true => Need::Empty,
            false => Need::Data,
        };
        let long = self.shared.overlay.copy_is_long(&node, need);
        let who = caller(req);
        self.change(serving, long, reply, move |s, reply| {
            let ready = match need {
                Need::Empty => s.overlay.setattr(&node, &Change::EMPTY, who).map(drop),
                _ => s.overlay.ensure_upper(&node, need),
            };
            match ready {
                Ok(()) => s.open_through(&node, wanted, reply),
                Err(e) => reply.error(errno(e)),
            }
        });
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let s = &self.shared;
        let serving = s.serving(Op::Read, req);
        if size > BULK {
            serving.is_bulk();
        }
        let node = match s.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let fill = |buf: &mut [u8]| s.overlay.read(&node, offset, buf);
        with_buffer(size as usize, fill, |r| match r {
            Ok(data) => {
                s.counters.moved(Moved::Read, data.len());
                answering();
                reply.data(data);
            }
            Err(e) => reply.error(errno(e)),
        });
        if offset == 0 {
            s.is_read(&node);
        }
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
        let serving = s.serving(Op::Write, req);
        if data.len() > BULK as usize {
            serving.is_bulk();
        }
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
            let mut job = Some((serving, reply));
            // The data is copied only where it has to wait.
            let park = || {
                let what = (node.clone(), offset, data.to_vec());
                s.parked_write(ino, what, (kill, kind), job.take())
            };
            let answered = match (s.gate.enter_or(park), job) {
                (Some(pass), Some((serving, reply))) => {
                    s.answer_write(ino, (&node, offset, data), (kill, kind), reply);
                    drop(pass);
                    Some(serving)
                }
                _ => None,
            };
            // The loop may wait in here for its next request: it holds nothing then.
            drop(node);
            match answered {
                Some(serving) => drop(serving),
                None => s.handed_over(),
            }
            return;
        }
        let data = data.to_vec();
        let shared = s.clone();
        self.change(serving, true, reply, move |_, reply| {
            shared.answer_write(ino, (&node, offset, &data), (kill, kind), reply);
        });
    }

    fn flush(
        &self,
        req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let _serving = self.shared.serving(Op::Flush, req);
        // Nothing is held back here and locks are the kernel's.
        reply.error(errno(Errno::ENOSYS));
    }

    fn release(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _serving = self.shared.serving(Op::Release, req);
        self.shared.closed(ino, Wanted::of(flags));
        reply.ok();
    }

    fn fsync(&self, req: &Request, ino: INodeNo, _fh: FileHandle, data: bool, reply: ReplyEmpty) {
        let serving = self.shared.serving(Op::Fsync, req);
        self.sync(serving, ino, data, reply);
    }

    fn fsyncdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        data: bool,
        reply: ReplyEmpty,
    ) {
        let serving = self.shared.serving(Op::Fsyncdir, req);
        self.sync(serving, ino, data, reply);
    }

    fn opendir(&self, req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _serving = self.shared.serving(Op::Opendir, req);
        if self.no_opendir {
            return reply.error(errno(Errno::ENOSYS));
        }
        let mut flags = FopenFlags::FOPEN_KEEP_CACHE;
        flags.set(
            FopenFlags::FOPEN_CACHE_DIR,
            features::allowed(Feature::CacheDir),
        );
        reply.opened(FileHandle(0), flags);
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let s = &self.shared;
        let _serving = s.serving(Op::Readdir, req);
        if s.is_shell(ino) {
            return s.shell_listing(offset, reply);
        }
        let listed = s.readdir(ino, offset, &mut reply);
        answering();
        match listed {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let s = &self.shared;
        let _serving = s.serving(Op::Readdirplus, req);
        if s.is_shell(ino) {
            // Nobody lists it but the mount command's own check.
            return reply.error(errno(Errno::ENOSYS));
        }
        let listed = s.readdirplus(ino, offset, &mut reply);
        answering();
        match listed {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn releasedir(
        &self,
        req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _serving = self.shared.serving(Op::Releasedir, req);
        reply.ok();
    }

    fn statfs(&self, req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let _serving = self.shared.serving(Op::Statfs, req);
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
        let serving = self.shared.serving(Op::Setxattr, req);
        let node = match self.shared.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let (name, value, who) = (bytes(name).to_vec(), value.to_vec(), caller(req));
        let long = self.shared.overlay.copy_is_long(&node, Need::Meta);
        self.change(serving, long, reply, move |s, reply| {
            let set = s.overlay.setxattr(&node, &name, &value, flags, who);
            reply_empty(s.changed(set, &[ino]), reply);
        });
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let s = &self.shared;
        let _serving = s.serving(Op::Getxattr, req);
        if s.is_shell(ino) || ino.0 == PRIME_INO {
            return reply.error(errno(Errno::ENODATA));
        }
        if s.absence.certain(&s.overlay) {
            return reply.error(errno(Errno::ENOSYS));
        }
        let value = s
            .node(ino)
            .and_then(|n| s.overlay.getxattr(&n, bytes(name)));
        reply_xattr(value, size, reply);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let s = &self.shared;
        let _serving = s.serving(Op::Listxattr, req);
        if s.is_shell(ino) || ino.0 == PRIME_INO {
            return reply_xattr(Ok(Vec::new()), size, reply);
        }
        if s.absence.certain(&s.overlay) {
            return reply.error(errno(Errno::ENOSYS));
        }
        reply_xattr(
            s.node(ino)
                .and_then(|n| s.overlay.listxattr(&n, caller(req))),
            size,
            reply,
        );
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let serving = self.shared.serving(Op::Removexattr, req);
        let node = match self.shared.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let name = bytes(name).to_vec();
        let long = self.shared.overlay.copy_is_long(&node, Need::Meta);
        self.change(serving, long, reply, move |s, reply| {
            let removed = s.overlay.removexattr(&node, &name);
            reply_empty(s.changed(removed, &[ino]), reply);
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
        let serving = self.shared.serving(Op::Ioctl, req);
        let sets = control::SETFLAGS.contains(&cmd) || cmd == control::FSSETXATTR;
        let node = self.shared.node(ino);
        let long = sets && node.is_ok_and(|n| self.shared.overlay.copy_is_long(&n, Need::Data));
        let (who, data) = (caller(req), in_data.to_vec());
        let finish = move |answer: Result<Vec<u8>>, reply: ReplyIoctl| match answer {
            Ok(mut v) => {
                v.truncate(out_size as usize);
                reply.ioctl(0, &v);
            }
            Err(e) => reply.error(errno(e)),
        };
        if self.shared.is_about_holds(ino, cmd) {
            // Only the hold itself waits, for changes that had begun.
            let waits = cmd == control::HOLD;
            return self.run(serving, waits, reply, move |s, reply| {
                finish(s.about_holds(who, cmd, &data), reply);
            });
        }
        let answer = move |s: &Shared, reply| finish(s.ioctl(who, ino, cmd, &data), reply);
        match sets {
            true => self.change(serving, long, reply, answer),
            false => self.run(serving, false, reply, answer),
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
        let serving = self.shared.serving(Op::Fallocate, req);
        let node = match self.shared.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let long = self.shared.overlay.copy_is_long(&node, Need::Data);
        let (who, range) = (caller(req), (offset, length));
        self.change(serving, long, reply, move |s, reply| {
            let done = s.overlay.fallocate(&node, mode as u32, range, who);
            reply_empty(s.changed(done, &[ino]), reply);
        });
    }

    fn lseek(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _serving = self.shared.serving(Op::Lseek, req);
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
        let serving = self.shared.serving(Op::CopyFileRange, req);
        if !features::allowed(Feature::FuseCopyRange) {
            // The kernel copies through its page cache from then on.
            return reply.error(errno(Errno::ENOSYS));
        }
        let ends = self
            .shared
            .node(ino_in)
            .and_then(|a| Ok((a, self.shared.node(ino_out)?)));
        let (src, dst) = match ends {
            Ok(e) => e,
            Err(e) => return reply.error(errno(e)),
        };
        let long = len >= LONG_RANGE || self.shared.overlay.copy_is_long(&dst, Need::Data);
        let who = caller(req);
        self.change(serving, long, reply, move |s, reply| {
            let n = s
                .overlay
                .copy_range((&src, offset_in), (&dst, offset_out), len, who);
            let n = n.map(|n| usize::try_from(n).unwrap_or(0));
            s.counters.moved(Moved::Copied, n.unwrap_or(0));
            reply_written(n, reply);
        });
    }
}

impl Adapter {
    fn remove(
        &self,
        serving: Serving,
        ino: INodeNo,
        (name, what): (&OsStr, Target),
        reply: ReplyEmpty,
    ) {
        let parent = match self.shared.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let name = bytes(name).to_vec();
        let long = what == Target::NonDir && self.shared.overlay.remove_is_long(&parent, &name);
        self.change(serving, long, reply, move |s, reply| {
            let removed = s.overlay.remove(&parent, &name, what);
            reply_empty(s.changed(removed, &[ino]), reply);
        });
    }

    fn sync(&self, serving: Serving, ino: INodeNo, data_only: bool, reply: ReplyEmpty) {
        if self.shared.is_shell(ino) {
            return reply.ok();
        }
        let node = match self.shared.node(ino) {
            Ok(n) => n,
            Err(e) => return reply.error(errno(e)),
        };
        let long = self.shared.overlay.sync_is_long(&node);
        self.run(serving, long, reply, move |s, reply| {
            reply_empty(s.overlay.fsync(&node, data_only), reply);
        });
    }
}
