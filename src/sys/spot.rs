//! Where an object stands: a directory descriptor and one component, or a
//! descriptor of the object itself.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timestamps, Uid};

use super::features::{self, Feature};
use super::stat::{Kind, SetTime, Stat, stat_at};
use super::{Errno, Name, Result};

/// What makes an object itself: its device and inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct ObjectId {
    pub dev: u64,
    pub ino: u64,
}

impl ObjectId {
    /// The identity a stat speaks of.
    pub fn of(s: &Stat) -> Self {
        ObjectId {
            dev: s.dev,
            ino: s.ino,
        }
    }
}

/// A place to reach an object by: never followed when it is a symlink.
#[derive(Debug, Clone)]
pub struct Spot {
    dir: Arc<OwnedFd>,
    /// `None`: the descriptor is the object (O_PATH or open).
    name: Option<Name>,
}

impl Spot {
    /// `name` in `dir`.
    pub fn at(dir: Arc<OwnedFd>, name: Name) -> Self {
        Spot {
            dir,
            name: Some(name),
        }
    }

    /// The object that `fd` holds.
    pub fn fd(fd: Arc<OwnedFd>) -> Self {
        Spot {
            dir: fd,
            name: None,
        }
    }

    /// The descriptor: the directory, or the object itself.
    pub fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.dir
    }

    pub(crate) fn dirfd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(crate) fn component(&self) -> &[u8] {
        self.name.as_deref().unwrap_or(b"")
    }

    /// The object as a path through /proc, for calls that take no descriptor.
    pub(crate) fn proc_path(&self) -> Vec<u8> {
        let mut p = format!("/proc/self/fd/{}", self.dir.as_raw_fd()).into_bytes();
        if let Some(n) = &self.name {
            p.push(b'/');
            p.extend_from_slice(n);
        }
        p
    }

    /// Whether the object is held itself (and calls by path follow the magic link).
    pub(crate) fn is_descriptor(&self) -> bool {
        self.name.is_none()
    }

    /// Its attributes.
    pub fn stat(&self) -> Result<Stat> {
        stat_at(self.dirfd(), self.component())
    }

    /// Opens it; `O_NOFOLLOW`, `O_CLOEXEC` and `O_NOCTTY` are added. Callers
    /// have made sure that it is no FIFO, socket or device unless `O_PATH` is given.
    pub fn open(&self, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        loop {
            let r = match &self.name {
                Some(n) => rustix::fs::openat(
                    self.dirfd(),
                    &n[..],
                    flags | OFlags::NOFOLLOW,
                    Mode::empty(),
                ),
                None => rustix::fs::open(self.proc_path(), flags, Mode::empty()),
            };
            match r {
                Err(rustix::io::Errno::INTR) => {}
                r => return Ok(r?),
            }
        }
    }

    /// A symlink's target.
    pub fn read_link(&self) -> Result<Vec<u8>> {
        let t = rustix::fs::readlinkat(self.dirfd(), self.component(), Vec::new())?;
        Ok(t.into_bytes())
    }

    /// Changes owner and group; `None` leaves one as it is.
    pub fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        Ok(rustix::fs::chownat(
            self.dirfd(),
            self.component(),
            uid.map(Uid::from_raw),
            gid.map(Gid::from_raw),
            AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH,
        )?)
    }

    /// Changes the permission bits (0o7777). The object is not a symlink.
    pub fn chmod(&self, mode: u32) -> Result<()> {
        if features::allowed(Feature::Fchmodat2) {
            match self.fchmodat2(mode) {
                Err(Errno::ENOSYS | Errno::EPERM) => {
                    // EPERM is also the honest answer; ask again in the old way.
                }
                r => return r,
            }
        }
        if self.name.is_some() {
            // fchmodat(2) follows a symlink that somebody put there meanwhile: the
            // object is held first.
            let held = Spot::fd(Arc::new(self.open(OFlags::PATH)?));
            if held.stat()?.kind() == Kind::Symlink {
                return Err(Errno::EOPNOTSUPP);
            }
            return held.chmod_by_proc(mode);
        }
        self.chmod_by_proc(mode)
    }

    fn chmod_by_proc(&self, mode: u32) -> Result<()> {
        Ok(rustix::fs::chmod(
            self.proc_path(),
            Mode::from_raw_mode(mode),
        )?)
    }

    fn fchmodat2(&self, mode: u32) -> Result<()> {
        let name = std::ffi::CString::new(self.component()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: `name` is a NUL-terminated string that outlives the call; the
        // descriptor is open while `self` lives.
        let r = unsafe {
            libc::syscall(
                libc::SYS_fchmodat2,
                self.dir.as_raw_fd(),
                name.as_ptr(),
                mode,
                libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH,
            )
        };
        if r == 0 {
            return Ok(());
        }
        let e = Errno::last();
        if e == Errno::ENOSYS {
            features::is_missing(Feature::Fchmodat2);
        }
        Err(e)
    }

    /// Sets access and modification time.
    pub fn set_times(&self, atime: SetTime, mtime: SetTime) -> Result<()> {
        let t = Timestamps {
            last_access: atime.to_rustix(),
            last_modification: mtime.to_rustix(),
        };
        if let Some(n) = &self.name {
            rustix::fs::utimensat(self.dirfd(), &n[..], &t, AtFlags::SYMLINK_NOFOLLOW)?;
            return Ok(());
        }
        if features::allowed(Feature::UtimensatEmpty) {
            let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
            match rustix::fs::utimensat(self.dirfd(), "", &t, flags) {
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
                r => return Ok(r?),
            }
        }
        rustix::fs::utimensat(rustix::fs::CWD, self.proc_path(), &t, AtFlags::empty())?;
        Ok(())
    }
}
