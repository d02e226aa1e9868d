//! One side of the comparison: a mounted tree, its open descriptors, and how each operation is done there.
//!
//! Everything runs in the calling thread by plain system calls; the thread has its own umask and working
//! directory (`unshare(CLONE_FS)`) and takes other users' ids by raw system calls, which change one thread only.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use std::path::Path;

use super::moved::Before;
use super::ops::{Op, Step, When, Who};
use super::stack::value_bytes;
use crate::support::Kind;
use crate::support::raw::{self, Ret, c, ret};

/// Slots per world.
pub const SLOTS: usize = 3;

/// What an operation gave: an errno (0 for none) and what could be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The errno, 0 for success.
    pub errno: i32,
    /// The result as text.
    pub text: String,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.errno {
            0 => write!(f, "ok {}", self.text),
            e => write!(f, "{} {}", raw::errno_name(e), self.text),
        }
    }
}

type Seen = Result<String, i32>;

/// A descriptor kept open.
#[derive(Clone, Copy, Debug)]
struct Slot {
    fd: RawFd,
    ino: u64,
    dir: bool,
    file: bool,
    read_only: bool,
}

/// A mounted tree and what is open in it.
#[derive(Debug)]
pub struct World {
    root: RawFd,
    dev: u64,
    slots: [Option<Slot>; SLOTS],
    kind: Kind,
    shown: Shown,
}

/// What outcomes show beside the result itself.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Which times moved.
    pub moved: bool,
    /// The mtimes of files (see `METACOPY` in `main.rs`).
    pub file_times: bool,
    /// Link counts (see `USERXATTR` in `main.rs`).
    pub links: bool,
}

/// Gives this thread an umask, a working directory and mounts of its own.
pub fn own_thread_state() {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
    crate::support::host::own_mounts();
}

impl World {
    /// Opens the tree at `path`; `shown`: what its outcomes show.
    pub fn new(path: &Path, kind: Kind, shown: Shown) -> Self {
        let name = c(path.as_os_str().as_encoded_bytes());
        // SAFETY: a NUL-terminated path.
        let root = unsafe {
            libc::open(
                name.as_ptr(),
                libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
            )
        };
        let dev = fstat(root).unwrap().st_dev;
        Self {
            root,
            dev,
            slots: [None; SLOTS],
            kind,
            shown,
        }
    }

    /// Does one step.
    pub fn run(&mut self, step: &Step) -> Outcome {
        let at = step
            .at
            .and_then(|s| self.slots[s])
            .filter(|s| s.dir)
            .map_or(self.root, |s| s.fd);
        if let Err(errno) = self.enter(at) {
            return Outcome {
                errno,
                text: String::new(),
            };
        }
        let slot = |slot: usize| self.slots[slot].map(|s| s.fd);
        let before = self
            .shown
            .moved
            .then(|| Before::look(&step.op, self.root, slot));
        let seen = become_user(step.who, || {
            // SAFETY: plain numbers.
            unsafe { libc::umask(step.umask) };
            let seen = self.operate(&step.op);
            // SAFETY: as above.
            unsafe { libc::umask(0o022) };
            seen
        });
        let moved = before.map(Before::moved).unwrap_or_default();
        // SAFETY: a NUL-terminated path. Not to stay inside the mount.
        unsafe { libc::chdir(c"/".as_ptr()) };
        match seen {
            Ok(text) => Outcome {
                errno: 0,
                text: self.without_what_is_not_shown(text) + &moved,
            },
            Err(errno) => Outcome { errno, text: moved },
        }
    }

    /// Makes `dir` the working directory. Where that fails (a dead daemon) nothing may run: it would run in the
    /// host's tree.
    fn enter(&self, dir: RawFd) -> Result<(), i32> {
        // SAFETY: plain numbers.
        ret(unsafe { libc::fchdir(dir) })?;
        // SAFETY: stat is plain numbers, valid as zeroes; a NUL-terminated path.
        let here = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            ret(libc::stat(c".".as_ptr(), &mut stat))?;
            stat.st_dev
        };
        assert_eq!(here, self.dev, "the working directory is not in the mount");
        Ok(())
    }

    fn without_what_is_not_shown(&self, text: String) -> String {
        let mut words: Vec<_> = text.split(' ').collect();
        if !self.shown.file_times && text.starts_with("file ") {
            words.pop();
        }
        if !self.shown.links
            && let Some(at) = words.iter().position(|word| *word == "nlink")
        {
            words.drain(at..at + 2);
        }
        words.join(" ")
    }

    /// True if the step is about a descriptor opened for reading only.
    pub fn is_read_only(&self, step: &Step) -> bool {
        slot_of(&step.op)
            .and_then(|slot| self.slots[slot])
            .is_some_and(|slot| slot.read_only)
    }

    /// True if the step is about a descriptor of a directory.
    pub fn is_directory(&self, step: &Step) -> bool {
        slot_of(&step.op)
            .and_then(|slot| self.slots[slot])
            .is_some_and(|slot| slot.dir)
    }

    /// True if the step changes an object without a name that is not a file: kernel overlayfs (6.18) then copies
    /// up over whatever has its name now, see `intended.rs`.
    pub fn would_hit_the_orphan_bug(&self, step: &Step) -> bool {
        self.orphan_changed(step).is_some_and(|slot| !slot.file)
    }

    /// True if the step changes an object without a name.
    pub fn changes_an_orphan(&self, step: &Step) -> bool {
        self.orphan_changed(step).is_some()
    }

    fn orphan_changed(&self, step: &Step) -> Option<Slot> {
        let changed = match &step.op {
            Op::Fchmod { slot, .. } | Op::Fchown { slot, .. } | Op::Futimens { slot, .. } => {
                Some(*slot)
            }
            Op::Fsetxattr { slot, .. } | Op::Linkfd { slot, .. } | Op::Write { slot, .. } => {
                Some(*slot)
            }
            Op::Ftruncate { slot, .. }
            | Op::Fallocate { slot, .. }
            | Op::MmapWrite { slot, .. } => Some(*slot),
            Op::CopyRange { to, .. } => Some(*to),
            // A name relative to a removed directory: there is only the directory itself.
            _ => step.at,
        };
        changed.and_then(|slot| self.slots[slot]).filter(|slot| {
            let link = std::fs::read_link(format!("/proc/self/fd/{}", slot.fd)).unwrap_or_default();
            link.as_os_str().as_encoded_bytes().ends_with(b" (deleted)")
        })
    }

    /// Closes every slot.
    pub fn close_all(&mut self) {
        for slot in self.slots.iter_mut().filter_map(Option::take) {
            // SAFETY: we own it.
            unsafe { libc::close(slot.fd) };
        }
    }

    fn operate(&mut self, op: &Op) -> Seen {
        match op {
            Op::Open {
                path,
                flags,
                mode,
                slot,
            } => self.open(&c(path.bytes()), *flags, *mode, *slot),
            Op::Close { slot } => match self.slots[*slot].take() {
                // SAFETY: we own it.
                Some(s) => value(ret(unsafe { libc::close(s.fd) })),
                None => Err(libc::EBADF),
            },
            Op::Linkfd { slot, to } => {
                let from = c(format!("/proc/self/fd/{}", self.fd(*slot)?));
                // SAFETY: NUL-terminated paths.
                value(ret(unsafe {
                    libc::linkat(
                        libc::AT_FDCWD,
                        from.as_ptr(),
                        self.root,
                        c(to.bytes()).as_ptr(),
                        libc::AT_SYMLINK_FOLLOW,
                    )
                }))
            }
            Op::Link { from, to, follow } => {
                let flags = if *follow { libc::AT_SYMLINK_FOLLOW } else { 0 };
                // SAFETY: NUL-terminated paths.
                value(ret(unsafe {
                    libc::linkat(
                        libc::AT_FDCWD,
                        c(from.bytes()).as_ptr(),
                        self.root,
                        c(to.bytes()).as_ptr(),
                        flags,
                    )
                }))
            }
            Op::Rename { from, to, flags } => value(rename(
                libc::AT_FDCWD,
                &c(from.bytes()),
                self.root,
                &c(to.bytes()),
                *flags,
            )),
            Op::CopyRange {
                from,
                to,
                from_at,
                to_at,
                len,
            } => {
                let (mut a, mut b) = (i64::from(*from_at), i64::from(*to_at));
                // SAFETY: two offsets that live until the call returns.
                value(ret(unsafe {
                    libc::copy_file_range(
                        self.fd(*from)?,
                        &mut a,
                        self.fd(*to)?,
                        &mut b,
                        *len as usize,
                        0,
                    )
                } as i64))
            }
            op => match slot_of(op) {
                Some(slot) => {
                    let fd = self.fd(slot)?;
                    super::fdops::run(fd, op, self.slots[slot].map_or(0, |s| s.ino), self.kind)
                }
                None => super::pathops::run(op, self.kind),
            },
        }
    }

    fn fd(&self, slot: usize) -> Result<RawFd, i32> {
        self.slots[slot].map(|s| s.fd).ok_or(libc::EBADF)
    }

    fn open(&mut self, path: &CStr, flags: i32, mode: u32, slot: usize) -> Seen {
        // O_NONBLOCK: a fifo must not stop the run.
        let flags = flags | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: a NUL-terminated path.
        let fd = ret(unsafe { libc::open(path.as_ptr(), flags, mode) })? as RawFd;
        let stat = fstat(fd)?;
        let dir = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let file = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
        let read_only = flags & libc::O_ACCMODE == libc::O_RDONLY;
        if let Some(old) = self.slots[slot].replace(Slot {
            fd,
            ino: stat.st_ino,
            dir,
            file,
            read_only,
        }) {
            // SAFETY: we own it.
            unsafe { libc::close(old.fd) };
        }
        Ok(describe(&stat))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for fd in self.slots.iter().flatten().map(|s| s.fd).chain([self.root]) {
            // SAFETY: we own them.
            unsafe { libc::close(fd) };
        }
    }
}

fn slot_of(op: &Op) -> Option<usize> {
    match op {
        Op::Write { slot, .. }
        | Op::Read { slot, .. }
        | Op::Ftruncate { slot, .. }
        | Op::Fstat { slot }
        | Op::Fsync { slot, .. }
        | Op::Fallocate { slot, .. }
        | Op::Seek { slot, .. }
        | Op::MmapWrite { slot, .. }
        | Op::MmapRead { slot }
        | Op::Fchmod { slot, .. }
        | Op::Fchown { slot, .. }
        | Op::Futimens { slot, .. }
        | Op::Fsetxattr { slot, .. }
        | Op::Flistxattr { slot }
        | Op::Getdents { slot } => Some(*slot),
        _ => None,
    }
}

/// Runs `body` with the ids of `who` in this thread. The saved uid stays 0, so the way back is open.
fn become_user<T>(who: Who, body: impl FnOnce() -> T) -> T {
    let (id, groups): (u32, &[u32]) = match who {
        Who::Root => return body(),
        Who::User(id) => (id, &[]),
        Who::Grouped => (1000, &[1001, 0]),
    };
    const KEEP: i64 = -1;
    // The raw calls: libc's wrappers would change every thread of the process.
    // SAFETY: plain numbers, and a list that lives until the call returns.
    unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
        libc::syscall(libc::SYS_setresgid, KEEP, i64::from(id), KEEP);
        assert_eq!(
            libc::syscall(libc::SYS_setresuid, KEEP, i64::from(id), KEEP),
            0
        );
    }
    let result = body();
    // SAFETY: plain numbers.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_setresuid, KEEP, 0i64, KEEP), 0);
        libc::syscall(libc::SYS_setresgid, KEEP, 0i64, KEEP);
        libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<u32>());
    }
    result
}

/// A value nobody needs to see, or the errno.
pub fn value(ret: Ret) -> Seen {
    ret.map(|n| if n == 0 { String::new() } else { n.to_string() })
}

/// `renameat2(2)`.
pub fn rename(from_dir: RawFd, from: &CStr, to_dir: RawFd, to: &CStr, flags: u32) -> Ret {
    // SAFETY: NUL-terminated paths.
    ret(unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            from_dir,
            from.as_ptr(),
            to_dir,
            to.as_ptr(),
            flags,
        )
    })
}

/// `fstat(2)`.
pub fn fstat(fd: RawFd) -> Result<libc::stat, i32> {
    // SAFETY: stat is plain numbers, valid as zeroes.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer lives until the call returns.
    ret(unsafe { libc::fstat(fd, &mut stat) })?;
    Ok(stat)
}

/// What two mounts must agree on of a stat. A directory's size and link count are left out: kernel overlayfs
/// itself shows 1 link for a merged directory and the real count for others.
pub fn describe(stat: &libc::stat) -> String {
    let (kind, mode) = (stat.st_mode & libc::S_IFMT, stat.st_mode & 0o7777);
    let ids = format!("{}:{}", stat.st_uid, stat.st_gid);
    let time = when_seen(stat.st_mtime, stat.st_mtime_nsec);
    match kind {
        libc::S_IFDIR => format!("dir {mode:o} {ids} {time}"),
        libc::S_IFREG => format!(
            "file {mode:o} {ids} size {} nlink {} {time}",
            stat.st_size, stat.st_nlink
        ),
        libc::S_IFLNK => format!(
            "symlink {ids} size {} nlink {} {time}",
            stat.st_size, stat.st_nlink
        ),
        // A write moves a fifo's mtime on a plain file system, and is seen by no overlay.
        libc::S_IFIFO => format!("fifo {mode:o} {ids} nlink {}", stat.st_nlink),
        _ => format!(
            "type {kind:o} {mode:o} {ids} dev {:x} nlink {} {time}",
            stat.st_rdev, stat.st_nlink
        ),
    }
}

/// A time that was set is shown exactly, one of this run as `now`.
pub fn when_seen(sec: i64, nsec: i64) -> String {
    match sec {
        1_600_000_000..4_000_000_000 => "now".to_owned(),
        _ => format!("{sec}.{nsec:09}"),
    }
}

/// The timespec of a [`When`].
pub fn timespec(when: When) -> libc::timespec {
    let (tv_sec, tv_nsec) = match when {
        When::Omit => (0, libc::UTIME_OMIT),
        When::Now => (0, libc::UTIME_NOW),
        When::At(sec, nsec) => (sec, nsec),
    };
    libc::timespec { tv_sec, tv_nsec }
}

/// An attribute's value and name for a system call.
pub fn xattr_args(name: &str, value: &super::ops::Value) -> (CString, Vec<u8>) {
    (c(name), value_bytes(value))
}
