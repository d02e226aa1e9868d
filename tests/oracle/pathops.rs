//! Operations on a name, relative to the working directory.

use std::ffi::CStr;
use std::os::fd::RawFd;

use super::fdops::{getdents, summary};
use super::ops::{Op, When};
use super::world::{describe, rename, timespec, value, xattr_args};
use crate::support::Kind;
use crate::support::raw::{self, Ret, c, ret};

type Seen = Result<String, i32>;

const HERE: RawFd = libc::AT_FDCWD;
const KEEP: u32 = u32::MAX;

fn nofollow(follow: bool) -> i32 {
    if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW }
}

/// Does `op`.
pub fn run(op: &Op, kind: Kind) -> Seen {
    match op {
        Op::WriteFile { path, flags, data } => write_file(&c(path.bytes()), *flags, &data.bytes()),
        Op::ReadFile { path } => read_file(&c(path.bytes())),
        Op::Replace { path, data } => replace(&path.bytes(), &data.bytes()),
        Op::Truncate { path, len } => {
            let path = c(path.bytes());
            // SAFETY: a NUL-terminated path.
            ret(unsafe { libc::truncate(path.as_ptr(), i64::from(*len)) })?;
            // With the size unchanged truncate(2) moves no mtime and O_TRUNC does, which is one request to a FUSE
            // daemon. So it is moved here.
            let times = [timespec(When::Now), timespec(When::Now)];
            // SAFETY: a NUL-terminated path and two timespecs.
            let _refused_alike = unsafe { libc::utimensat(HERE, path.as_ptr(), times.as_ptr(), 0) };
            Ok(String::new())
        }
        // SAFETY: a NUL-terminated path.
        Op::Mkdir { path, mode } => {
            value(ret(unsafe { libc::mkdir(c(path.bytes()).as_ptr(), *mode) }))
        }
        Op::Mknod { path, mode, rdev } => value(raw::mknod(&c(path.bytes()), *mode, *rdev)),
        Op::Symlink { path, target } => {
            // SAFETY: NUL-terminated paths.
            value(ret(unsafe {
                libc::symlink(c(target.bytes()).as_ptr(), c(path.bytes()).as_ptr())
            }))
        }
        // SAFETY: a NUL-terminated path.
        Op::Unlink { path } => value(ret(unsafe { libc::unlink(c(path.bytes()).as_ptr()) })),
        // SAFETY: a NUL-terminated path.
        Op::Rmdir { path } => value(ret(unsafe { libc::rmdir(c(path.bytes()).as_ptr()) })),
        Op::RemoveTree { path } => remove_tree(&path.bytes()),
        // SAFETY: a NUL-terminated path.
        Op::Chmod { path, mode } => {
            value(ret(unsafe { libc::chmod(c(path.bytes()).as_ptr(), *mode) }))
        }
        Op::Chown {
            path,
            uid,
            gid,
            follow,
        } => {
            let (uid, gid) = (uid.unwrap_or(KEEP), gid.unwrap_or(KEEP));
            // SAFETY: a NUL-terminated path.
            value(ret(unsafe {
                libc::fchownat(HERE, c(path.bytes()).as_ptr(), uid, gid, nofollow(*follow))
            }))
        }
        Op::Utimens {
            path,
            atime,
            mtime,
            follow,
        } => {
            let times = [timespec(*atime), timespec(*mtime)];
            // SAFETY: a NUL-terminated path and two timespecs.
            value(ret(unsafe {
                libc::utimensat(
                    HERE,
                    c(path.bytes()).as_ptr(),
                    times.as_ptr(),
                    nofollow(*follow),
                )
            }))
        }
        Op::Readdir { path } => {
            with_open(&c(path.bytes()), libc::O_RDONLY | libc::O_DIRECTORY, |fd| {
                getdents(fd, kind).map(|names| names.join(" "))
            })
        }
        Op::Stat { path, follow } => stat(&c(path.bytes()), *follow),
        Op::Readlink { path } => readlink(&c(path.bytes())),
        Op::Access { path, mode } => {
            // SAFETY: a NUL-terminated path.
            value(ret(unsafe {
                libc::syscall(
                    libc::SYS_faccessat2,
                    HERE,
                    c(path.bytes()).as_ptr(),
                    *mode,
                    libc::AT_EACCESS,
                )
            }))
        }
        Op::GetFlags { path } => get_flags(&c(path.bytes())),
        op => xattr_op(op),
    }
}

fn xattr_op(op: &Op) -> Seen {
    match op {
        Op::Setxattr {
            path,
            name,
            value: bytes,
            flags,
        } => {
            let (name, bytes) = xattr_args(name, bytes);
            value(raw::set_xattr(&c(path.bytes()), &name, &bytes, *flags))
        }
        Op::Getxattr { path, name } => {
            raw::get_xattr(&c(path.bytes()), &c(name)).map(|v| v.escape_ascii().to_string())
        }
        Op::Listxattr { path } => raw::list_xattrs(&c(path.bytes())).map(|names| {
            names
                .iter()
                .map(|n| n.escape_ascii().to_string())
                .collect::<Vec<_>>()
                .join(" ")
        }),
        Op::Removexattr { path, name } => value(raw::remove_xattr(&c(path.bytes()), &c(name))),
        op => unreachable!("{op:?} is not done on a path"),
    }
}

/// Opens without waiting for the other end of a fifo, and closes.
fn with_open(path: &CStr, flags: i32, body: impl FnOnce(RawFd) -> Seen) -> Seen {
    // SAFETY: a NUL-terminated path.
    let fd = ret(unsafe {
        libc::open(
            path.as_ptr(),
            flags | libc::O_NONBLOCK | libc::O_CLOEXEC,
            0o666,
        )
    })? as RawFd;
    let seen = body(fd);
    // SAFETY: opened above.
    let closed = value(ret(unsafe { libc::close(fd) }));
    seen.and_then(|text| closed.map(|_| text))
}

fn write_all(fd: RawFd, bytes: &[u8]) -> Ret {
    // SAFETY: the buffer is as long as we say.
    ret(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as i64)
}

fn write_file(path: &CStr, flags: i32, bytes: &[u8]) -> Seen {
    with_open(path, flags, |fd| value(write_all(fd, bytes)))
}

fn read_file(path: &CStr) -> Seen {
    with_open(path, libc::O_RDONLY, |fd| {
        let mut bytes = vec![0u8; 2 << 20];
        // SAFETY: the buffer is as long as we say.
        let got = ret(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) } as i64)?;
        Ok(summary(&bytes[..got as usize]))
    })
}

/// The way editors and package managers write: a temporary file, fsync, rename.
fn replace(path: &[u8], bytes: &[u8]) -> Seen {
    let temporary = c([path, b"~".as_slice()].concat());
    with_open(
        &temporary,
        libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL,
        |fd| {
            write_all(fd, bytes)?;
            // SAFETY: plain numbers.
            value(ret(unsafe { libc::fsync(fd) }))
        },
    )?;
    let renamed = rename(HERE, &temporary, HERE, &c(path), 0);
    if renamed.is_err() {
        // SAFETY: a NUL-terminated path.
        unsafe { libc::unlink(temporary.as_ptr()) };
    }
    value(renamed)
}

/// `rm -rf`; the errno of every name that could not be removed.
fn remove_tree(path: &[u8]) -> Seen {
    let mut failures = Vec::new();
    remove_inside(path, &mut failures);
    // SAFETY: a NUL-terminated path.
    value(ret(unsafe { libc::rmdir(c(path).as_ptr()) })).map_err(|e| {
        failures.push(e);
        failures[0]
    })
}

fn remove_inside(path: &[u8], failures: &mut Vec<i32>) {
    let mut names = Vec::new();
    let flags =
        libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: a NUL-terminated path.
    match ret(unsafe { libc::open(c(path).as_ptr(), flags) }) {
        Err(e) => return failures.push(e),
        Ok(fd) => {
            // SAFETY: the descriptor was just opened and belongs to this value alone.
            let owned = unsafe {
                <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as RawFd)
            };
            match rustix::fs::Dir::new(owned) {
                Err(e) => failures.push(e.raw_os_error()),
                Ok(dir) => names.extend(
                    dir.filter_map(Result::ok)
                        .map(|e| e.file_name().to_bytes().to_vec()),
                ),
            }
        }
    }
    names.sort();
    for name in names.iter().filter(|n| *n != b"." && *n != b"..") {
        let full = [path, b"/", name].concat();
        // SAFETY: a NUL-terminated path.
        match ret(unsafe { libc::unlink(c(&full).as_ptr()) }) {
            Err(libc::EISDIR) => {
                remove_inside(&full, failures);
                // SAFETY: a NUL-terminated path.
                if let Err(e) = ret(unsafe { libc::rmdir(c(&full).as_ptr()) }) {
                    failures.push(e);
                }
            }
            // One of the whiteouts that the kernel lists, see `stray_whiteout`.
            Err(libc::ENOENT) => {}
            Err(e) => failures.push(e),
            Ok(_) => {}
        }
    }
}

fn stat(path: &CStr, follow: bool) -> Seen {
    // SAFETY: stat is plain numbers, valid as zeroes.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a NUL-terminated path, a buffer that lives until the call returns.
    ret(unsafe { libc::fstatat(HERE, path.as_ptr(), &mut stat, nofollow(follow)) })?;
    Ok(describe(&stat))
}

fn readlink(path: &CStr) -> Seen {
    let mut target = vec![0u8; 8192];
    // SAFETY: a NUL-terminated path, a buffer as long as we say.
    let got = ret(
        unsafe { libc::readlink(path.as_ptr(), target.as_mut_ptr().cast(), target.len()) } as i64,
    )?;
    Ok(target[..got as usize].escape_ascii().to_string())
}

fn get_flags(path: &CStr) -> Seen {
    with_open(path, libc::O_RDONLY, |fd| {
        let mut flags: libc::c_int = 0;
        // SAFETY: FS_IOC_GETFLAGS writes one int.
        ret(unsafe { libc::ioctl(fd, libc::FS_IOC_GETFLAGS, &mut flags) })?;
        // Only what a user sets: the file system adds its own (EXTENTS).
        Ok(format!("{:x}", flags & 0xff))
    })
}
