//! What statx(2) says of an object.

use rustix::fs::{AtFlags, StatxFlags};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use super::features::{self, Feature};
use super::{Errno, Result};

/// The type of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    Char,
    Block,
}

impl Kind {
    /// From the type bits of a mode; anything unknown reads as a file.
    pub fn from_mode(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFDIR => Kind::Dir,
            libc::S_IFLNK => Kind::Symlink,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            libc::S_IFCHR => Kind::Char,
            libc::S_IFBLK => Kind::Block,
            _ => Kind::File,
        }
    }

    /// The type bits of a mode.
    pub fn mode_bits(self) -> u32 {
        match self {
            Kind::File => libc::S_IFREG,
            Kind::Dir => libc::S_IFDIR,
            Kind::Symlink => libc::S_IFLNK,
            Kind::Fifo => libc::S_IFIFO,
            Kind::Socket => libc::S_IFSOCK,
            Kind::Char => libc::S_IFCHR,
            Kind::Block => libc::S_IFBLK,
        }
    }
}

/// Seconds and nanoseconds since the epoch; seconds may be negative,
/// nanoseconds count upwards from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timespec {
    /// Whole seconds.
    pub sec: i64,
    /// 0 to 999,999,999.
    pub nsec: u32,
}

/// The attributes of one object, as they stand on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// (major, minor)
    pub rdev: (u32, u32),
    pub size: u64,
    pub blocks: u64,
    pub blksize: u32,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    /// Mount id; 0 where nothing tells it.
    pub mnt_id: u64,
}

impl Stat {
    /// The object's type.
    pub fn kind(&self) -> Kind {
        Kind::from_mode(self.mode)
    }

    /// Whether this is the kernel's whiteout: a character device 0:0.
    pub fn is_whiteout(&self) -> bool {
        self.kind() == Kind::Char && self.rdev == (0, 0)
    }
}

/// Stats `name` in `dir` without following a symlink; an empty name means `dir` itself.
///
/// What the kernel knows is enough, but see [`ask_servers`].
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat> {
    let mut s = ask(dir, name)?;
    if s.mnt_id == 0 {
        // Before Linux 5.8, or without statx(2). Where this fails too, devices
        // are all there is to tell mounts apart by.
        s.mnt_id = super::handle::mount_id(dir, name).unwrap_or(0);
    }
    Ok(s)
}

/// Set once something that we write to is another server's.
static ASK_SERVERS: AtomicBool = AtomicBool::new(false);

/// The upper is of a FUSE or network file system: from now on such ones are asked
/// as by stat(2), for what the kernel knows of an object we have just changed is
/// old.
///
/// Not asked without need: `name` may be where our own mount is, and the kernel
/// goes into that before we see that it is another mount. The question would then
/// wait for us, who wait for its answer.
pub fn ask_servers() {
    ASK_SERVERS.store(true, Ordering::Relaxed);
}

/// Stats the object that a descriptor holds.
pub fn of_descriptor(fd: BorrowedFd<'_>) -> Result<Stat> {
    stat_at(fd, b"")
}

fn ask(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let sync = match ASK_SERVERS.load(Ordering::Relaxed) {
        true => AtFlags::empty(),
        false => AtFlags::STATX_DONT_SYNC,
    };
    if features::allowed(Feature::Statx) {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        match rustix::fs::statx(dir, name, flags | sync, mask) {
            Ok(x) => return Ok(from_statx(&x)),
            // Some seccomp filters: fstatat(2) serves from then on.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                features::is_missing(Feature::Statx);
            }
            Err(e) => return Err(e.into()),
        }
    }
    let s = rustix::fs::statat(dir, name, flags)?;
    Ok(from_stat(&s))
}

/// Stats `name` in `dir`, and says when the object was made (0 where nothing tells it).
///
/// A question of its own: asked for that time, a FUSE file system goes to its server
/// ([`ask_servers`] says why no other question may).
pub fn with_birth(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(Stat, Timespec)> {
    let unknown = |stat| (stat, Timespec::default());
    if !features::allowed(Feature::Statx) {
        return stat_at(dir, name).map(unknown);
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | StatxFlags::BTIME;
    match rustix::fs::statx(dir, name, flags, mask) {
        Ok(x) if x.stx_mask & StatxFlags::BTIME.bits() != 0 => {
            let made = Timespec {
                sec: x.stx_btime.tv_sec,
                nsec: x.stx_btime.tv_nsec,
            };
            Ok((from_statx(&x), made))
        }
        Ok(x) => Ok(unknown(from_statx(&x))),
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => stat_at(dir, name).map(unknown),
        Err(e) => Err(e.into()),
    }
}

fn from_statx(x: &rustix::fs::Statx) -> Stat {
    let t = |t: &rustix::fs::StatxTimestamp| Timespec {
        sec: t.tv_sec,
        nsec: t.tv_nsec,
    };
    let has_mount_id =
        x.stx_mask & StatxFlags::MNT_ID.bits() != 0 && features::allowed(Feature::StatxMountId);
    Stat {
        dev: rustix::fs::makedev(x.stx_dev_major, x.stx_dev_minor),
        ino: x.stx_ino,
        mode: u32::from(x.stx_mode),
        nlink: x.stx_nlink,
        uid: x.stx_uid,
        gid: x.stx_gid,
        rdev: (x.stx_rdev_major, x.stx_rdev_minor),
        size: x.stx_size,
        blocks: x.stx_blocks,
        blksize: x.stx_blksize,
        atime: t(&x.stx_atime),
        mtime: t(&x.stx_mtime),
        ctime: t(&x.stx_ctime),
        mnt_id: if has_mount_id { x.stx_mnt_id } else { 0 },
    }
}

fn from_stat(s: &rustix::fs::Stat) -> Stat {
    let t = |sec: i64, nsec: u64| Timespec {
        sec,
        nsec: u32::try_from(nsec).unwrap_or(0),
    };
    Stat {
        dev: s.st_dev,
        ino: s.st_ino,
        mode: s.st_mode,
        nlink: u32::try_from(s.st_nlink).unwrap_or(u32::MAX),
        uid: s.st_uid,
        gid: s.st_gid,
        rdev: (rustix::fs::major(s.st_rdev), rustix::fs::minor(s.st_rdev)),
        size: u64::try_from(s.st_size).unwrap_or(0),
        blocks: u64::try_from(s.st_blocks).unwrap_or(0),
        blksize: u32::try_from(s.st_blksize).unwrap_or(4096),
        atime: t(s.st_atime, s.st_atime_nsec),
        mtime: t(s.st_mtime, s.st_mtime_nsec),
        ctime: t(s.st_ctime, s.st_ctime_nsec),
        mnt_id: 0,
    }
}

/// One time of utimensat(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// Left as it is.
    Keep,
    /// The clock of the moment.
    Now,
    /// This time.
    At(Timespec),
}

impl SetTime {
    pub(crate) fn to_rustix(self) -> rustix::fs::Timespec {
        match self {
            SetTime::Keep => rustix::fs::Timespec {
                tv_sec: 0,
                tv_nsec: libc::UTIME_OMIT,
            },
            SetTime::Now => rustix::fs::Timespec {
                tv_sec: 0,
                tv_nsec: libc::UTIME_NOW,
            },
            SetTime::At(t) => rustix::fs::Timespec {
                tv_sec: t.sec,
                tv_nsec: i64::from(t.nsec),
            },
        }
    }
}

/// Whether two stats are of one object.
pub fn same_object(a: &Stat, b: &Stat) -> bool {
    a.dev == b.dev && a.ino == b.ino
}

/// ESTALE unless `s` is the object with this device and inode number.
pub fn expect_object(s: &Stat, dev: u64, ino: u64) -> Result<()> {
    if s.dev == dev && s.ino == ino {
        Ok(())
    } else {
        Err(Errno::ESTALE)
    }
}

/// `st_dev` as mountinfo writes it: major and minor number.
pub fn device_numbers(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}
