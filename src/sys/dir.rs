//! Names in a directory: opened beneath, listed, made, removed, renamed, linked.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};

use super::features::{self, Feature};
use super::stat::{Kind, Stat, stat_at};
use super::{Errno, Result};

/// One entry as getdents(2) gives it.
#[derive(Debug, Clone)]
pub struct Dirent {
    /// The name; never `.` or `..`.
    pub name: Vec<u8>,
    /// The backing inode number.
    pub ino: u64,
    /// The type; `None` where the file system does not say (DT_UNKNOWN).
    pub kind: Option<Kind>,
}

/// Opens a directory of the user's by its path (symlinks followed: podman's
/// layers are symlinks).
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    let fd = rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(fd)
}

/// Opens the subdirectory `name` of `dir` as O_PATH: no symlink followed, no
/// mount point crossed unless `cross` is given.
///
/// # Errors
/// EXDEV where `name` is a mount point and `cross` is not given.
pub fn open_dir_at(dir: BorrowedFd<'_>, name: &[u8], cross: Cross) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if cross == Cross::Follow {
        return Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    }
    if features::allowed(Feature::Openat2) {
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_XDEV
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            Ok(fd) => return Ok(fd),
            // Kernels before 5.6, seccomp filters: the one component is opened
            // and checked.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {
                features::is_missing(Feature::Openat2);
            }
            // EAGAIN: a rename or mount elsewhere raced with the check.
            Err(rustix::io::Errno::AGAIN) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let (a, b) = (stat_at(dir, b"")?, stat_at(fd.as_fd(), b"")?);
    if a.dev != b.dev || a.mnt_id != b.mnt_id {
        return Err(Errno::EXDEV);
    }
    Ok(fd)
}

/// Whether mounts below a layer's root are entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cross {
    /// They are shown.
    Follow,
    /// They are not (EXDEV).
    Refuse,
}

/// Stats `name` in `dir`; `None` where nothing has that name, or where the name
/// is longer than the file system allows.
pub fn probe(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>> {
    match stat_at(dir, name) {
        Ok(s) => Ok(Some(s)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Lists a directory through a fresh description of it, calling `each` per entry.
pub fn list(dir: BorrowedFd<'_>, mut each: impl FnMut(Dirent)) -> Result<()> {
    let fd = open_readable(dir)?;
    let mut buf = Vec::with_capacity(64 * 1024);
    let mut raw = rustix::fs::RawDir::new(fd, buf.spare_capacity_mut());
    while let Some(entry) = raw.next() {
        dirent(&entry?).into_iter().for_each(&mut each);
    }
    Ok(())
}

fn dirent(entry: &rustix::fs::RawDirEntry<'_>) -> Option<Dirent> {
    let name = entry.file_name().to_bytes();
    (name != b"." && name != b"..").then(|| Dirent {
        name: name.to_vec(),
        ino: entry.ino(),
        kind: kind_of(entry.file_type()),
    })
}

/// A directory that is read in portions.
#[derive(Debug)]
pub struct Reader(OwnedFd);

impl Reader {
    /// From its beginning.
    pub fn of(dir: BorrowedFd<'_>) -> Result<Reader> {
        Ok(Reader(open_readable(dir)?))
    }

    /// The next entries, a few hundred at most; none at the end.
    pub fn portion(&mut self) -> Result<Vec<Dirent>> {
        let mut buf = Vec::with_capacity(8 * 1024);
        let mut found = Vec::new();
        // A portion may be nothing but `.` and `..`.
        while found.is_empty() {
            let mut raw = rustix::fs::RawDir::new(&self.0, buf.spare_capacity_mut());
            let Some(first) = raw.next() else { break };
            found.extend(dirent(&first?));
            while !raw.is_buffer_empty() {
                let Some(entry) = raw.next() else { break };
                found.extend(dirent(&entry?));
            }
        }
        Ok(found)
    }
}

/// An open description of the directory that `dir` (O_PATH) stands for, for
/// reading; O_NOATIME where allowed.
pub fn open_readable(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, ".", flags | OFlags::NOATIME, Mode::empty()) {
        Err(rustix::io::Errno::PERM) => {}
        r => return Ok(r?),
    }
    Ok(rustix::fs::openat(dir, ".", flags, Mode::empty())?)
}

fn kind_of(t: FileType) -> Option<Kind> {
    Some(match t {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Unknown => return None,
    })
}

/// Makes a directory.
pub fn mkdir(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<()> {
    Ok(rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode))?)
}

/// Makes a file, FIFO, socket or device node. `rdev` is (major, minor).
pub fn mknod(dir: BorrowedFd<'_>, name: &[u8], mode: u32, rdev: (u32, u32)) -> Result<()> {
    let t = FileType::from_raw_mode(mode);
    if t == FileType::CharacterDevice && rdev == (0, 0) && !whiteouts_allowed() {
        return Err(Errno::EPERM);
    }
    let dev = rustix::fs::makedev(rdev.0, rdev.1);
    Ok(rustix::fs::mknodat(
        dir,
        name,
        t,
        Mode::from_raw_mode(mode & 0o7777),
        dev,
    )?)
}

/// Before Linux 5.8 a whiteout was a device like any other: for CAP_MKNOD in the
/// initial user namespace.
fn whiteouts_allowed() -> bool {
    features::allowed(Feature::UserWhiteout) || super::process::may_make_devices()
}

/// Makes a symlink.
pub fn symlink(target: &[u8], dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    Ok(rustix::fs::symlinkat(target, dir, name)?)
}

/// Makes a regular file that must not exist yet and opens it for reading and writing.
pub fn create_file(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        dir,
        name,
        flags,
        Mode::from_raw_mode(mode),
    )?)
}

/// Makes a regular file without a name in `dir`'s file system (O_TMPFILE).
pub fn create_unnamed(dir: BorrowedFd<'_>, mode: u32) -> Result<OwnedFd> {
    if !features::allowed(Feature::UnnamedFile) {
        return Err(Errno::EOPNOTSUPP);
    }
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        dir,
        ".",
        flags,
        Mode::from_raw_mode(mode),
    )?)
}

/// Removes a name that is not a directory.
pub fn unlink(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Removes an empty directory.
pub fn rmdir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// How a rename treats the two names; see renameat2(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rename {
    /// The target is replaced.
    Replace,
    /// EEXIST where the target exists.
    NoReplace,
    /// Both change places.
    Exchange,
    /// The target is replaced and a whiteout stays at the old name.
    Whiteout,
}

/// Renames.
pub fn rename(
    from: (BorrowedFd<'_>, &[u8]),
    to: (BorrowedFd<'_>, &[u8]),
    how: Rename,
) -> Result<()> {
    let flags = match how {
        Rename::Replace => {
            return Ok(rustix::fs::renameat(from.0, from.1, to.0, to.1)?);
        }
        Rename::NoReplace => RenameFlags::NOREPLACE,
        Rename::Exchange => {
            if !features::allowed(Feature::RenameExchange) {
                return Err(Errno::EINVAL);
            }
            RenameFlags::EXCHANGE
        }
        Rename::Whiteout => {
            if !features::allowed(Feature::RenameWhiteout) {
                return Err(Errno::EINVAL);
            }
            if !whiteouts_allowed() {
                return Err(Errno::EPERM);
            }
            RenameFlags::WHITEOUT
        }
    };
    Ok(rustix::fs::renameat_with(
        from.0, from.1, to.0, to.1, flags,
    )?)
}

/// Gives the object at (`dir`, `name`) another name. EEXIST where it is taken.
pub fn link(from: (BorrowedFd<'_>, &[u8]), to: (BorrowedFd<'_>, &[u8])) -> Result<()> {
    Ok(rustix::fs::linkat(
        from.0,
        from.1,
        to.0,
        to.1,
        AtFlags::empty(),
    )?)
}

/// Gives an open object (O_TMPFILE or a name that was lost) a name.
pub fn link_fd(fd: BorrowedFd<'_>, to: (BorrowedFd<'_>, &[u8])) -> Result<()> {
    // AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH (or, since 6.10, the opener's own
    // credentials); the way through /proc needs neither.
    if features::allowed(Feature::LinkOwnFile) {
        match rustix::fs::linkat(fd, "", to.0, to.1, AtFlags::EMPTY_PATH) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {}
            r => return Ok(r?),
        }
    }
    let path =
        CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    Ok(rustix::fs::linkat(
        rustix::fs::CWD,
        path,
        to.0,
        to.1,
        AtFlags::SYMLINK_FOLLOW,
    )?)
}

/// Writes the directory itself to disk.
pub fn fsync_dir(dir: BorrowedFd<'_>) -> Result<()> {
    let fd = open_readable(dir)?;
    Ok(rustix::fs::fsync(fd)?)
}

/// A private clone of the mount that `dir` stands on, rooted at `dir`
/// (open_tree(2), Linux 5.2; needs CAP_SYS_ADMIN over the mount namespace): with
/// what is mounted below it *now*, or without. Read-only and without access
/// times where the kernel lets us (mount_setattr(2), Linux 5.12).
pub fn clone_mount(dir: BorrowedFd<'_>, cross: Cross) -> Result<OwnedFd> {
    use rustix::mount::OpenTreeFlags;
    if !features::allowed(Feature::OpenTree) {
        return Err(Errno::ENOSYS);
    }
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if cross == Cross::Follow {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let fd = rustix::mount::open_tree(dir, "", flags)?;
    let (read_only, no_atime) = (libc::MOUNT_ATTR_RDONLY, libc::MOUNT_ATTR_NOATIME);
    // One may be refused where the other is not (a mount whose times are locked).
    if set_mount_attr(&fd, read_only | no_atime).is_err() {
        for attrs in [read_only, no_atime] {
            super::best_effort("quieten a lower's mount", set_mount_attr(&fd, attrs));
        }
    }
    Ok(fd)
}

/// mount_setattr(2) on a mount and all below it.
pub(super) fn set_mount_attr(mount: &OwnedFd, set: u64) -> Result<()> {
    if !features::allowed(Feature::MountSetattr) {
        return Err(Errno::ENOSYS);
    }
    let atime = if set & libc::MOUNT_ATTR_NOATIME != 0 {
        libc::MOUNT_ATTR__ATIME
    } else {
        0
    };
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: atime,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: an empty NUL-terminated path and a struct of the size given, both
    // alive during the call.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &attr,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    if r == 0 { Ok(()) } else { Err(Errno::last()) }
}
