//! What requests share: the overlay, and how its answers become replies.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{
    Generation, INodeNo, ReplyAttr, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyWrite, ReplyXattr,
};

use super::ahead::Ahead;
use super::control;
use super::convert::{bytes, errno, file_attr, file_type};
use super::counters::{Counters, Moved};
use super::gate::Gate;
use super::notify::OldAttributes;
use super::passthrough::Passthrough;
use super::serving::{Serving, Waiting, answering};
use super::workers::Workers;
use crate::overlay::absence::Absence;
use crate::overlay::inode::node::Node;
use crate::overlay::listing::Item;
use crate::overlay::ops::create::New;
use crate::overlay::ops::file::WriteKind;
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
pub(super) const FOR_EVER: Duration = Duration::from_secs(1 << 30);
/// The file that exists only while the mount is primed.
pub(super) const PRIME_NAME: &str = ".acetate-prime";
pub(super) const PRIME_INO: u64 = (1 << 62) - 1;
/// Numbers of names that cannot be looked up; no other number has this bit.
const UNKNOWN_BIT: u64 = 1 << 63;
/// Names fetched from a listing at a time.
const CHUNK: usize = 512;
/// Largest write the kernel may send, and what it may read ahead.
pub(super) const MAX_WRITE: u32 = 1 << 20;
/// READ and WRITE of more gain from a CPU of their own: what the caller does with one
/// piece and what we do with the next goes on side by side.
pub(super) const BULK: u32 = 32 << 10;
/// Copies and syncs of at least this much are parked.
pub(super) const LONG_RANGE: u64 = 1 << 20;

pub(super) struct Shared {
    pub(super) overlay: Overlay,
    pub(super) absence: Absence,
    pub(super) shape: RootShape,
    pub(super) priming: AtomicBool,
    pub(super) counters: &'static Counters,
    /// Once something was read.
    pub(super) ahead: OnceLock<Option<Ahead>>,
    /// Once there is a connection, where they do more than sleep.
    pub(super) waiting: OnceLock<&'static Waiting>,
    /// Once the kernel has said that it can, where it was asked for.
    pub(super) passthrough: OnceLock<Passthrough>,
    pub(super) workers: Workers,
    pub(super) old: OldAttributes,
    /// What every change passes.
    pub(super) gate: Gate,
    pub(super) ttl: Duration,
    /// Nodes that went since memory was last given back.
    pub(super) forgotten: AtomicUsize,
    /// Whether a worker looks at nodes that were held when they were forgotten.
    pub(super) looking_again: AtomicBool,
}

impl Shared {
    pub(super) fn node(&self, ino: INodeNo) -> Result<Arc<Node>> {
        if ino.0 == 1 && self.shape == RootShape::Direct {
            return Ok(self.overlay.root().clone());
        }
        self.overlay.node(ino.0)
    }

    /// The number the kernel knows a node by.
    pub(super) fn number(&self, ino: u64) -> u64 {
        let direct = self.shape == RootShape::Direct && ino == self.overlay.root().ino;
        if direct { 1 } else { ino }
    }

    pub(super) fn attr(&self, a: &Attr) -> fuser::FileAttr {
        file_attr(a, self.number(a.ino))
    }

    /// Attributes of a directory or file that exists only in this adapter.
    pub(super) fn virtual_attr(&self, ino: u64, kind: Kind) -> Result<fuser::FileAttr> {
        let mut a = self.overlay.getattr(self.overlay.root())?;
        a.stat.mode = kind.mode_bits() | if kind == Kind::Dir { 0o755 } else { 0o444 };
        a.stat.size = 0;
        a.stat.nlink = 1;
        Ok(file_attr(&a, ino))
    }

    /// What a listing with attributes says of a name whose lookup fails (a broken
    /// redirect, a metacopy without its data): the name is there, as the kernel's
    /// overlayfs has it, under a number that stands for nothing. It may not be
    /// kept, so whoever uses the name asks for it, and gets the error.
    ///
    /// fuser answers no name without a number; 0 would end up as `d_ino`, which
    /// means "deleted".
    fn unknown(&self, item: &Item) -> Result<(INodeNo, fuser::FileAttr)> {
        let ino = UNKNOWN_BIT | item.cookie;
        Ok((INodeNo(ino), self.virtual_attr(ino, item.kind)?))
    }

    /// The kernel has checked this for its own call; an ioctl number that it does
    /// not know comes through unchecked.
    fn may_set_flags(&self, node: &Arc<Node>, who: Caller) -> Result<()> {
        let owner = self.overlay.getattr(node)?.stat.uid;
        if who.uid == 0 || who.uid == owner {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    pub(super) fn is_shell(&self, ino: INodeNo) -> bool {
        ino.0 == 1 && self.shape != RootShape::Direct
    }

    pub(super) fn primes(&self, parent: &Node, name: &OsStr) -> bool {
        name == PRIME_NAME
            && parent.ino == self.overlay.root().ino
            && self.priming.load(Ordering::Acquire)
    }

    pub(super) fn lookup(&self, parent: INodeNo, name: &OsStr) -> Result<Option<Entry>> {
        let parent = self.node(parent)?;
        self.overlay.lookup(&parent, bytes(name))
    }

    pub(super) fn reply_entry(&self, entry: Result<Option<Entry>>, reply: ReplyEntry) {
        match entry {
            Ok(Some(e)) => {
                self.overlay.remember(&e.node);
                answering();
                reply.entry(self.ttl_of(e.node.ino), &self.attr(&e.attr), Generation(0));
            }
            Ok(None) => self.reply_negative(reply),
            Err(e) => reply.error(errno(e)),
        }
    }

    /// Node id 0 with a time: the kernel remembers that nothing is there.
    pub(super) fn reply_negative(&self, reply: ReplyEntry) {
        answering();
        reply.entry(&self.ttl, &negative_attr(), Generation(0));
    }

    pub(super) fn reply_attr(&self, attr: Result<Attr>, reply: ReplyAttr) {
        answering();
        match attr {
            Ok(a) => reply.attr(self.ttl_of(a.ino), &self.attr(&a)),
            Err(e) => reply.error(errno(e)),
        }
    }

    pub(super) fn make(
        &self,
        req: Caller,
        parent: INodeNo,
        name: &OsStr,
        new: &New<'_>,
    ) -> Result<Entry> {
        let dir = self.node(parent)?;
        let made = self.overlay.make(&dir, bytes(name), new, req);
        self.changed(made, &[parent])
    }

    /// A change that was made, once the kernel knows whose attributes moved with it.
    pub(super) fn changed<T>(&self, done: Result<T>, whose: &[INodeNo]) -> Result<T> {
        if done.is_ok() {
            whose.iter().for_each(|ino| self.old.of(*ino));
        }
        done
    }

    /// The first two names of every listing.
    pub(super) fn dots(&self, node: &Node) -> [(u64, &'static str); 2] {
        let up = self.overlay.parent_ino(node);
        [(self.number(node.ino), "."), (self.number(up), "..")]
    }

    pub(super) fn shell_listing(&self, offset: u64, mut reply: ReplyDirectory) {
        let RootShape::Child(name) = self.shape else {
            return reply.ok();
        };
        let root = self.overlay.root().ino;
        let names = [(1, "."), (1, ".."), (root, name)];
        for (i, (ino, n)) in (1u64..)
            .zip(names)
            .skip(usize::try_from(offset).unwrap_or(3))
        {
            if reply.add(INodeNo(ino), i, fuser::FileType::Directory, n) {
                break;
            }
        }
        reply.ok();
    }

    pub(super) fn readdir(
        &self,
        ino: INodeNo,
        offset: u64,
        reply: &mut ReplyDirectory,
    ) -> Result<()> {
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

    pub(super) fn readdirplus(
        &self,
        ino: INodeNo,
        offset: u64,
        reply: &mut ReplyDirectoryPlus,
    ) -> Result<()> {
        let node = self.node(ino)?;
        let listing = self.overlay.listing(&node)?;
        let own = self.overlay.getattr(&node)?;
        for (i, (ino, name)) in (1u64..).zip(self.dots(&node)) {
            let attr = file_attr(&own, ino);
            if offset < i && reply.add(INodeNo(ino), i, name, &Duration::ZERO, &attr, Generation(0))
            {
                return Ok(());
            }
        }
        let mut at = offset.max(2);
        loop {
            let items = listing.after(at, CHUNK);
            for i in &items {
                let name = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&i.name);
                let e = match self.overlay.lookup(&node, &i.name) {
                    Ok(Some(e)) => e,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::warn!(name = ?name, %error, "a name cannot be looked up");
                        let (ino, attr) = self.unknown(i)?;
                        let ttl = Duration::ZERO;
                        if reply.add(ino, i.cookie, name, &ttl, &attr, Generation(0)) {
                            return Ok(());
                        }
                        continue;
                    }
                };
                let attr = self.attr(&e.attr);
                let ttl = self.ttl_of(attr.ino.0);
                if reply.add(attr.ino, i.cookie, name, ttl, &attr, Generation(0)) {
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

    pub(super) fn ioctl(
        &self,
        req: Caller,
        ino: INodeNo,
        cmd: u32,
        data: &[u8],
    ) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        let is_root = node.ino == self.overlay.root().ino;
        if cmd == control::STATS && is_root {
            check_master(req)?;
            let mut text = self.counters.text().into_bytes();
            text.resize(control::STATS_LEN, 0);
            return Ok(text);
        }
        // Of any directory: who sees but a part of the mount may ask as well.
        if cmd == control::FIGURES && node.is_dir() {
            check_master(req)?;
            return self.figures().part(data);
        }
        if control::GETFLAGS.contains(&cmd) {
            return Ok(self.overlay.inode_flags(&node)?.to_ne_bytes().to_vec());
        }
        if cmd == control::FSGETXATTR {
            return Ok(self.overlay.fs_xattr(&node)?.to_vec());
        }
        if cmd == control::FSSETXATTR {
            let raw = data.first_chunk().ok_or(Errno::EINVAL)?;
            self.may_set_flags(&node, req)?;
            // FS_XFLAG_IMMUTABLE and FS_XFLAG_APPEND, in the first byte.
            let now = self.overlay.fs_xattr(&node)?;
            let changed = now.first().unwrap_or(&0) ^ raw.first().unwrap_or(&0);
            if changed & 0x18 != 0 && req.uid != 0 {
                return Err(Errno::EPERM);
            }
            self.changed(self.overlay.set_fs_xattr(&node, raw), &[ino])?;
            return Ok(Vec::new());
        }
        if control::SETFLAGS.contains(&cmd) {
            let raw = data.first_chunk::<4>().ok_or(Errno::EINVAL)?;
            self.may_set_flags(&node, req)?;
            let flags = u32::from_ne_bytes(*raw);
            let changed = flags ^ self.overlay.inode_flags(&node)?;
            if changed & control::ROOT_FLAGS != 0 && req.uid != 0 {
                return Err(Errno::EPERM);
            }
            self.changed(self.overlay.set_inode_flags(&node, flags), &[ino])?;
            return Ok(Vec::new());
        }
        Err(Errno::ENOTTY)
    }
}

impl Shared {
    /// A file was read from its beginning: where that can be, the kernel gets the
    /// next ones unasked.
    pub(super) fn is_read(self: &Arc<Self>, node: &Arc<Node>) {
        let ahead = self.ahead.get_or_init(|| {
            let notifier = self.old.notifier().cloned();
            notifier.and_then(|n| Ahead::of(self, n))
        });
        if let Some(ahead) = ahead {
            ahead.is_read(node);
        }
    }

    /// A write for later, with its data.
    pub(super) fn parked_write(
        self: &Arc<Self>,
        ino: INodeNo,
        (node, offset, data): (Arc<Node>, u64, Vec<u8>),
        how: (Option<Caller>, WriteKind),
        job: Option<(Serving, ReplyWrite)>,
    ) -> Box<dyn FnOnce(super::gate::Pass) + Send> {
        let shared = self.clone();
        Box::new(move |_pass| {
            if let Some((_serving, reply)) = job {
                shared.answer_write(ino, (&node, offset, &data), how, reply);
            }
        })
    }

    /// Writes and answers. Of a write through a mapping the kernel is told that
    /// attributes are old after the reply, on another thread: see `notify`.
    pub(super) fn answer_write(
        self: &Arc<Self>,
        ino: INodeNo,
        (node, offset, data): (&Arc<Node>, u64, &[u8]),
        (kill, kind): (Option<Caller>, WriteKind),
        reply: ReplyWrite,
    ) {
        let written = self.overlay.write(node, offset, data, kill, kind);
        self.counters.moved(Moved::Written, written.unwrap_or(0));
        reply_written(written, reply);
        // Where the kernel keeps the times itself it believes nobody else's.
        if kind == WriteKind::Cached && !self.overlay.writeback() {
            let shared = self.clone();
            self.workers.run(move || shared.old.of(ino));
        }
    }

    /// Whether an ioctl is about holding changes: it never waits for the gate.
    pub(super) fn is_about_holds(&self, ino: INodeNo, cmd: u32) -> bool {
        let known = [control::HOLD, control::RENEW, control::RELEASE].contains(&cmd);
        known && self.number(self.overlay.root().ino) == ino.0
    }

    /// Holds changes, prolongs that, or lets them go on.
    pub(super) fn about_holds(&self, req: Caller, cmd: u32, data: &[u8]) -> Result<Vec<u8>> {
        check_master(req)?;
        let lease = control::Lease::decode(data).ok_or(Errno::EINVAL)?;
        let time = Duration::from_millis(u64::from(lease.milliseconds));
        match cmd {
            // Files are changed without passing the gate.
            control::HOLD if self.passthrough.get().is_some() => Err(Errno::EOPNOTSUPP),
            control::HOLD => {
                let token = self.gate.hold(time)?;
                Ok(control::Lease { token, ..lease }.encode().to_vec())
            }
            control::RENEW => self.gate.renew(lease.token, time).map(|()| Vec::new()),
            control::RELEASE => self.gate.release(lease.token).map(|()| Vec::new()),
            _ => Err(Errno::ENOTTY),
        }
    }
}

/// Only root and the user of this process may speak to the mount itself.
fn check_master(req: Caller) -> Result<()> {
    let own = crate::sys::cred::own_ids().0;
    match req.uid == 0 || req.uid == own {
        true => Ok(()),
        false => Err(Errno::EPERM),
    }
}

/// Attributes that nobody reads: of a name that stands for nothing.
pub(super) fn negative_attr() -> fuser::FileAttr {
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

pub(super) fn reply_empty(r: Result<()>, reply: ReplyEmpty) {
    answering();
    match r {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

pub(super) fn reply_xattr(value: Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    answering();
    match value {
        Err(e) => reply.error(errno(e)),
        Ok(v) if size == 0 => reply.size(u32::try_from(v.len()).unwrap_or(u32::MAX)),
        Ok(v) if v.len() > size as usize => reply.error(errno(Errno::ERANGE)),
        Ok(v) => reply.data(&v),
    }
}

pub(super) fn reply_written(n: Result<usize>, reply: ReplyWrite) {
    answering();
    match n {
        Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
        Err(e) => reply.error(errno(e)),
    }
}

std::thread_local! {
    /// One read buffer per event loop.
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Fills the thread's buffer by `fill` (which says how much) and hands the
/// filled part to `answer`.
pub(super) fn with_buffer(
    size: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<usize>,
    answer: impl FnOnce(Result<&[u8]>),
) {
    BUFFER.with_borrow_mut(|b| {
        if b.len() < size {
            b.resize(size, 0);
        }
        let Some(part) = b.get_mut(..size) else {
            return answer(Err(Errno::EIO));
        };
        match fill(part) {
            Ok(n) => answer(Ok(part.get(..n).unwrap_or_default())),
            Err(e) => answer(Err(e)),
        }
    });
}
