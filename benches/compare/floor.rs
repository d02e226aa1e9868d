//! What FUSE itself costs: a file system in memory that answers every request at once, without a system call.
//!
//! It asks the kernel for what acetate asks for, so the same requests come (`scripts/profile` counts acetate's), and
//! the lower layers' names and contents are in memory before the mount. What a row costs here is the price of the
//! round trips, whatever a daemon then does for them: no overlay over FUSE gets below it, and what acetate costs
//! above it is acetate's own. It is a yardstick for `--systems floor`, not a file system: rights are not kept, nor
//! attributes, and nothing is ever forgotten.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, SessionACL, TimeOrNow,
    WriteFlags,
};
use parking_lot::Mutex;

use super::args::FloorWords;
use super::host::{Outcome, Trouble, doing};

const FOR_EVER: Duration = Duration::from_secs(1 << 30);
const ROOT: u64 = 1;
/// Opened once, so that the kernel learns that OPEN is not needed.
const FIRST: &str = ".opened first";
/// Larger files are read from where they lie.
const IN_MEMORY: u64 = 1 << 20;

enum Body {
    Dir(BTreeMap<OsString, u64>),
    File(Vec<u8>),
    /// A large file of a lower, and how long it is.
    Far(PathBuf),
    Link(PathBuf),
    Other,
}

struct Inode {
    attr: FileAttr,
    body: Body,
}

#[derive(Default)]
struct Memory {
    inodes: HashMap<u64, Inode>,
    next: u64,
}

type Done<T> = Result<T, Errno>;

/// The file system.
#[derive(Clone)]
struct Floor(Arc<Mutex<Memory>>);

fn attr(ino: u64, kind: FileType, perm: u16, (uid, gid): (u32, u32)) -> FileAttr {
    let now = SystemTime::now();
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind,
        perm,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn kind_of(t: fs::FileType) -> FileType {
    match t {
        t if t.is_dir() => FileType::Directory,
        t if t.is_symlink() => FileType::Symlink,
        t if t.is_fifo() => FileType::NamedPipe,
        t if t.is_char_device() => FileType::CharDevice,
        t if t.is_block_device() => FileType::BlockDevice,
        t if t.is_socket() => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

impl Memory {
    fn fresh(&mut self) -> u64 {
        self.next += 1;
        ROOT + self.next
    }

    fn inode(&mut self, ino: INodeNo) -> Done<&mut Inode> {
        self.inodes.get_mut(&ino.0).ok_or(Errno::ESTALE)
    }

    fn names(&mut self, ino: INodeNo) -> Done<&mut BTreeMap<OsString, u64>> {
        match &mut self.inode(ino)?.body {
            Body::Dir(names) => Ok(names),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn child(&mut self, parent: INodeNo, name: &OsStr) -> Done<u64> {
        self.names(parent)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn attr(&mut self, ino: u64) -> Done<FileAttr> {
        Ok(self.inode(INodeNo(ino))?.attr)
    }

    /// Puts what a lower directory has into `ino`; what stands there already lies above it.
    fn load(&mut self, ino: u64, from: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(from)? {
            let (entry, mut merged) = (entry?, false);
            let (name, meta) = (entry.file_name(), entry.metadata()?);
            let own = match self.child(INodeNo(ino), &name) {
                Ok(there) => {
                    merged = true;
                    there
                }
                Err(_) => self.fresh(),
            };
            if !merged {
                let body = body_of(&entry.path(), &meta)?;
                let mut attr = attr(own, kind_of(meta.file_type()), 0, (meta.uid(), meta.gid()));
                attr.perm = u16::try_from(meta.mode() & 0o7777).unwrap_or(0o755);
                (attr.size, attr.blocks) = (meta.len(), meta.blocks());
                if let Ok(names) = self.names(INodeNo(ino)) {
                    names.insert(name, own);
                }
                self.inodes.insert(own, Inode { attr, body });
            }
            if meta.is_dir() && self.names(INodeNo(own)).is_ok() {
                self.load(own, &entry.path())?;
            }
        }
        Ok(())
    }

    fn make(
        &mut self,
        req: &Request,
        at: (INodeNo, &OsStr),
        mode: u32,
        body: Body,
    ) -> Done<FileAttr> {
        let kind = match (&body, mode & libc::S_IFMT) {
            (Body::Dir(_), _) => FileType::Directory,
            (Body::Link(_), _) => FileType::Symlink,
            (Body::File(_) | Body::Far(_), _) => FileType::RegularFile,
            (Body::Other, libc::S_IFIFO) => FileType::NamedPipe,
            (Body::Other, libc::S_IFSOCK) => FileType::Socket,
            (Body::Other, _) => FileType::CharDevice,
        };
        let ino = self.fresh();
        let perm = u16::try_from(mode & 0o7777).unwrap_or(0o755);
        let attr = attr(ino, kind, perm, (req.uid(), req.gid()));
        if self.names(at.0)?.insert(at.1.to_owned(), ino).is_some() {
            return Err(Errno::EEXIST);
        }
        self.inodes.insert(ino, Inode { attr, body });
        Ok(attr)
    }

    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Done<()> {
        let gone = self.child(parent, name)?;
        if self
            .names(INodeNo(gone))
            .is_ok_and(|names| !names.is_empty())
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.names(parent)?.remove(name);
        self.inode(INodeNo(gone))?.attr.nlink -= 1;
        Ok(())
    }

    fn rename(&mut self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr)) -> Done<()> {
        let moved = self.child(from.0, from.1)?;
        self.names(from.0)?.remove(from.1);
        self.names(to.0)?.insert(to.1.to_owned(), moved);
        Ok(())
    }

    fn read(&mut self, ino: INodeNo, offset: u64, size: u32) -> Done<&[u8]> {
        self.near(ino)?;
        let Body::File(data) = &self.inode(ino)?.body else {
            return Err(Errno::EISDIR);
        };
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let to = from.saturating_add(size as usize).min(data.len());
        Ok(data.get(from..to).unwrap_or_default())
    }

    fn write(&mut self, ino: INodeNo, offset: u64, new: &[u8]) -> Done<()> {
        self.near(ino)?;
        let inode = self.inode(ino)?;
        let Body::File(data) = &mut inode.body else {
            return Err(Errno::EISDIR);
        };
        let from = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let to = from + new.len();
        if data.len() < to {
            data.resize(to, 0);
        }
        if let Some(part) = data.get_mut(from..to) {
            part.copy_from_slice(new);
        }
        inode.attr.size = data.len() as u64;
        inode.attr.blocks = inode.attr.size.div_ceil(512);
        inode.attr.mtime = SystemTime::now();
        Ok(())
    }

    /// A large file comes into memory when it is first asked for.
    fn near(&mut self, ino: INodeNo) -> Done<()> {
        let inode = self.inode(ino)?;
        if let Body::Far(path) = &inode.body {
            inode.body = Body::File(fs::read(path).map_err(|_| Errno::EIO)?);
        }
        Ok(())
    }
}

fn body_of(path: &Path, meta: &fs::Metadata) -> std::io::Result<Body> {
    Ok(match meta.file_type() {
        t if t.is_dir() => Body::Dir(BTreeMap::new()),
        t if t.is_symlink() => Body::Link(fs::read_link(path)?),
        t if t.is_file() && meta.len() > IN_MEMORY => Body::Far(path.to_owned()),
        t if t.is_file() => Body::File(fs::read(path)?),
        _ => Body::Other,
    })
}

fn entry(found: Done<FileAttr>, reply: ReplyEntry) {
    match found {
        Ok(attr) => reply.entry(&FOR_EVER, &attr, Generation(0)),
        Err(e) => reply.error(e),
    }
}

fn attributes(found: Done<FileAttr>, reply: ReplyAttr) {
    match found {
        Ok(attr) => reply.attr(&FOR_EVER, &attr),
        Err(e) => reply.error(e),
    }
}

fn empty(done: Done<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

impl Filesystem for Floor {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // As `fuse::adapter` asks, without ACLs.
        let want = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_NO_OPEN_SUPPORT
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_ASYNC_DIO;
        // What is not offered is then not used.
        let offered = config.capabilities();
        config
            .add_capabilities(want & offered)
            .and_then(|()| config.set_max_write(1 << 20).map(drop).map_err(|_| want))
            .map_err(|_| std::io::Error::other("the kernel refuses what it offers"))
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut m = self.0.lock();
        if parent.0 == ROOT && name == FIRST {
            let attr = attr(u64::MAX, FileType::RegularFile, 0o600, (0, 0));
            return reply.entry(&Duration::ZERO, &attr, Generation(0));
        }
        match m.child(parent, name).and_then(|ino| m.attr(ino)) {
            Err(e) if i32::from(e) == libc::ENOENT => {
                let nothing = attr(0, FileType::RegularFile, 0, (0, 0));
                reply.entry(&FOR_EVER, &nothing, Generation(0));
            }
            found => entry(found, reply),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        attributes(self.0.lock().attr(ino.0), reply);
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut m = self.0.lock();
        let set = m.inode(ino).map(|inode| {
            let a = &mut inode.attr;
            a.perm = mode.map_or(a.perm, |m| u16::try_from(m & 0o7777).unwrap_or(a.perm));
            (a.uid, a.gid) = (uid.unwrap_or(a.uid), gid.unwrap_or(a.gid));
            match mtime {
                Some(TimeOrNow::SpecificTime(t)) => a.mtime = t,
                Some(TimeOrNow::Now) => a.mtime = SystemTime::now(),
                None => {}
            }
            if let (Some(size), Body::File(data)) = (size, &mut inode.body) {
                data.resize(usize::try_from(size).unwrap_or(0), 0);
                a.size = size;
            }
            *a
        });
        attributes(set, reply);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.0.lock().inode(ino).map(|i| &i.body) {
            Ok(Body::Link(target)) => reply.data(target.as_os_str().as_encoded_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(e) => reply.error(e),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let made = self.0.lock().make(req, (parent, name), mode, Body::Other);
        entry(made, reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let body = Body::Dir(BTreeMap::new());
        entry(self.0.lock().make(req, (parent, name), mode, body), reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let body = Body::Link(target.to_owned());
        entry(self.0.lock().make(req, (parent, name), 0o777, body), reply);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let body = Body::File(Vec::new());
        match self.0.lock().make(req, (parent, name), mode, body) {
            Ok(attr) => reply.created(
                &FOR_EVER,
                &attr,
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(e) => reply.error(e),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.lock().remove(parent, name), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.lock().remove(parent, name), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        empty(
            self.0.lock().rename((parent, name), (newparent, newname)),
            reply,
        );
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let mut m = self.0.lock();
        let linked = m
            .names(newparent)
            .map(|names| names.insert(newname.to_owned(), ino.0));
        let linked = linked.and_then(|_| {
            let inode = m.inode(ino)?;
            inode.attr.nlink += 1;
            Ok(inode.attr)
        });
        entry(linked, reply);
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
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
        match self.0.lock().read(ino, offset, size) {
            Ok(data) => reply.data(data),
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.lock().write(ino, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(0)),
            Err(e) => reply.error(e),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _data: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _data: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut m = self.0.lock();
        for (place, (name, attr)) in m.listed(ino, offset) {
            if reply.add(attr.ino, place, attr.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut m = self.0.lock();
        for (place, (name, attr)) in m.listed(ino, offset) {
            if reply.add(attr.ino, place, name, &FOR_EVER, &attr, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 30, 1 << 29, 1 << 29, 1 << 30, 1 << 29, 4096, 255, 4096);
    }

    fn getxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        reply.error(Errno::ENODATA);
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, size: u32, reply: ReplyXattr) {
        match size {
            0 => reply.size(0),
            _ => reply.data(&[]),
        }
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }
}

impl Memory {
    /// The names after a place, with the place of each.
    fn listed(&mut self, ino: INodeNo, offset: u64) -> Vec<(u64, (OsString, FileAttr))> {
        let names: Vec<_> = match self.names(ino) {
            Ok(names) => names.iter().map(|(n, i)| (n.clone(), *i)).collect(),
            Err(_) => return Vec::new(),
        };
        let attributes = names.into_iter().filter_map(|(name, ino)| {
            let attr = self.attr(ino).ok()?;
            Some((name, attr))
        });
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        (1..).zip(attributes).skip(from).collect()
    }
}

/// Serves until it is unmounted: takes the words that overlays take, of which it needs `lowerdir=`.
pub fn run(words: &FloorWords) -> ExitCode {
    match serve(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("floor: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn serve(words: &FloorWords) -> Outcome<()> {
    let lowers = words
        .options
        .split(',')
        .find_map(|w| w.strip_prefix("lowerdir="));
    let Some(lowers) = lowers else {
        return Err(Trouble::Failed("no lowerdir=".into()));
    };
    let mut memory = Memory::default();
    let mut root = attr(ROOT, FileType::Directory, 0o755, (0, 0));
    for (i, lower) in lowers.split(':').enumerate() {
        if i == 0 {
            let meta = doing(lower, fs::metadata(lower))?;
            root.perm = u16::try_from(meta.mode() & 0o7777).unwrap_or(0o755);
            let body = Body::Dir(BTreeMap::new());
            memory.inodes.insert(ROOT, Inode { attr: root, body });
        }
        doing(lower, memory.load(ROOT, Path::new(lower)))?;
    }
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("floor".into()),
        MountOption::DefaultPermissions,
    ];
    config.acl = SessionACL::All;
    config.n_threads = Some(2);
    let floor = Floor(Arc::new(Mutex::new(memory)));
    let session = doing("mount", fuser::Session::new(floor, &words.point, &config))?;
    let session = doing("serve", session.spawn())?;
    // Neither is there, or said to be: what counts is that the kernel has asked.
    let _asked = fs::File::open(words.point.join(FIRST));
    let _listed = fs::read_dir(&words.point).map(Iterator::count);
    doing("serve", session.join())
}
