//! Operations on an open descriptor.

use std::os::fd::RawFd;

use super::ops::{Op, When};
use super::world::{describe, fstat, timespec, value, xattr_args};
use crate::support::Kind;
use crate::support::raw::{c, ret};

type Seen = Result<String, i32>;

const KEEP: u32 = u32::MAX;

/// Does `op` on `fd`, whose inode number at open was `ino`.
pub fn run(fd: RawFd, op: &Op, ino: u64, kind: Kind) -> Seen {
    match op {
        Op::Write { at, data, .. } => {
            let bytes = data.bytes();
            // SAFETY: the buffer is as long as we say.
            value(ret(unsafe {
                match at {
                    Some(at) => {
                        libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), i64::from(*at))
                    }
                    None => libc::write(fd, bytes.as_ptr().cast(), bytes.len()),
                }
            } as i64))
        }
        Op::Read { at, len, .. } => read(fd, *at, *len),
        Op::Ftruncate { len, .. } => {
            // SAFETY: plain numbers.
            ret(unsafe { libc::ftruncate(fd, i64::from(*len)) })?;
            // See Op::Truncate.
            let times = [timespec(When::Now), timespec(When::Now)];
            // SAFETY: two timespecs.
            let _refused_alike = unsafe { libc::futimens(fd, times.as_ptr()) };
            Ok(String::new())
        }
        Op::Fstat { .. } => {
            let stat = fstat(fd)?;
            let same = if stat.st_ino == ino {
                ""
            } else {
                " with another st_ino than at open"
            };
            Ok(describe(&stat) + same)
        }
        // SAFETY: plain numbers.
        Op::Fsync { data, .. } => value(ret(unsafe {
            if *data {
                libc::fdatasync(fd)
            } else {
                libc::fsync(fd)
            }
        })),
        Op::Fallocate { mode, at, len, .. } => {
            // SAFETY: plain numbers.
            value(ret(unsafe {
                libc::fallocate(fd, *mode, i64::from(*at), i64::from(*len))
            }))
        }
        Op::Seek { whence, at, .. } => {
            // SAFETY: plain numbers.
            let found = ret(unsafe { libc::lseek(fd, i64::from(*at), *whence) })?;
            if *whence != libc::SEEK_END {
                // Holes may differ, what is written next may not.
                // SAFETY: plain numbers.
                ret(unsafe { libc::lseek(fd, 0, libc::SEEK_SET) })?;
            }
            value(Ok(found))
        }
        Op::MmapWrite { at, byte, .. } => mmap_write(fd, *at, *byte),
        Op::MmapRead { .. } => mmap_read(fd),
        // SAFETY: plain numbers.
        Op::Fchmod { mode, .. } => value(ret(unsafe { libc::fchmod(fd, *mode) })),
        Op::Fchown { uid, gid, .. } => {
            // SAFETY: plain numbers.
            value(ret(unsafe {
                libc::fchown(fd, uid.unwrap_or(KEEP), gid.unwrap_or(KEEP))
            }))
        }
        Op::Futimens { atime, mtime, .. } => {
            let times = [timespec(*atime), timespec(*mtime)];
            // SAFETY: two timespecs.
            value(ret(unsafe { libc::futimens(fd, times.as_ptr()) }))
        }
        Op::Fsetxattr {
            name,
            value: bytes,
            flags,
            ..
        } => {
            let (name, bytes) = xattr_args(name, bytes);
            // SAFETY: a NUL-terminated name, a value as long as we say.
            value(ret(unsafe {
                libc::fsetxattr(
                    fd,
                    name.as_ptr(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    *flags,
                )
            }))
        }
        Op::Flistxattr { .. } => {
            let mut names = vec![0u8; 8192];
            // SAFETY: the buffer is as long as we say.
            let got = ret(
                unsafe { libc::flistxattr(fd, names.as_mut_ptr().cast(), names.len()) } as i64,
            )?;
            names.truncate(got as usize);
            let mut names: Vec<_> = names
                .split(|&b| b == 0)
                .map(|n| n.escape_ascii().to_string())
                .collect();
            names.sort();
            Ok(names.join(" "))
        }
        Op::Getdents { .. } => {
            // SAFETY: plain numbers.
            ret(unsafe { libc::lseek(fd, 0, libc::SEEK_SET) })?;
            getdents(fd, kind).map(|names| names.join(" "))
        }
        op => unreachable!("{op:?} is not done on a descriptor"),
    }
}

fn read(fd: RawFd, at: u32, len: u32) -> Seen {
    let mut bytes = vec![0u8; len as usize];
    // SAFETY: the buffer is as long as we say.
    let got = ret(
        unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), bytes.len(), i64::from(at)) } as i64,
    )?;
    bytes.truncate(got as usize);
    Ok(summary(&bytes))
}

/// Bytes as a length, a hash and a beginning.
pub fn summary(bytes: &[u8]) -> String {
    use std::hash::Hasher;
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    hasher.write(bytes);
    format!(
        "{} bytes {:016x} {}",
        bytes.len(),
        hasher.finish(),
        bytes[..bytes.len().min(12)].escape_ascii()
    )
}

/// The entries from the descriptor's position on, sorted, each with its type; `.` and `..` must come once.
pub fn getdents(fd: RawFd, kind: Kind) -> Result<Vec<String>, i32> {
    let mut names = Vec::new();
    let mut buffer = vec![0u8; 32768];
    loop {
        // SAFETY: the buffer is as long as we say.
        let got = ret(unsafe {
            libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len())
        })? as usize;
        if got == 0 {
            break;
        }
        let mut rest = &buffer[..got];
        // struct linux_dirent64: ino u64, off i64, reclen u16, type u8, name.
        while rest.len() > 19 {
            let length = u16::from_le_bytes([rest[16], rest[17]]) as usize;
            let name = rest[19..length]
                .split(|&b| b == 0)
                .next()
                .unwrap_or_default();
            if !stray_whiteout(fd, name, rest[18], kind) {
                names.push(format!("{}:{}", name.escape_ascii(), rest[18]));
            }
            rest = &rest[length..];
        }
    }
    names.sort();
    Ok(names)
}

/// True for a whiteout that the kernel lists: it does, in a directory that only one lower has, and then denies it.
/// A caller who may list but not search cannot tell, so there devices are left out on both sides.
fn stray_whiteout(dir: RawFd, name: &[u8], d_type: u8, kind: Kind) -> bool {
    if d_type != libc::DT_CHR {
        return false;
    }
    // SAFETY: stat is plain numbers, valid as zeroes; a NUL-terminated name.
    let found = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        ret(libc::fstatat(
            dir,
            c(name).as_ptr(),
            &mut stat,
            libc::AT_SYMLINK_NOFOLLOW,
        ))
    };
    found == Err(libc::EACCES) || (found == Err(libc::ENOENT) && kind == Kind::Kernel)
}

/// A mapping read and written through `process_vm_*`: a failed page is then EFAULT, not a SIGBUS that ends the run.
fn mmap_write(fd: RawFd, at: u32, byte: u8) -> Seen {
    let stat = fstat(fd)?;
    let (size, mode) = (stat.st_size, stat.st_mode & 0o7777);
    let page = i64::from(at) & !4095;
    // SAFETY: a new mapping, unmapped below, touched only by the kernel on our behalf.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd,
            page,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(crate::support::raw::errno());
    }
    let result = if i64::from(at) < size {
        let local = libc::iovec {
            iov_base: std::ptr::from_ref(&byte).cast_mut().cast(),
            iov_len: 1,
        };
        let remote = libc::iovec {
            iov_base: map.wrapping_byte_add((at & 4095) as usize),
            iov_len: 1,
        };
        // SAFETY: one byte from our stack into our own mapping.
        unsafe {
            // A write through a mapping is a write to a FUSE daemon, and takes the privileges along.
            libc::fremovexattr(fd, c"security.capability".as_ptr());
            if mode & 0o6000 != 0 {
                libc::fchmod(fd, mode & 0o1777);
            }
            ret(libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) as i64)
                .and_then(|_| ret(libc::msync(map, 4096, libc::MS_SYNC)))
        }
    } else {
        Ok(0)
    };
    // SAFETY: mapped above.
    unsafe { libc::munmap(map, 4096) };
    value(result)
}

fn mmap_read(fd: RawFd) -> Seen {
    let stat = fstat(fd)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(libc::ENODEV);
    }
    let size = stat.st_size.min(1 << 17) as usize;
    if size == 0 {
        return Ok("empty".to_owned());
    }
    // SAFETY: a new mapping, unmapped below.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            fd,
            0,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(crate::support::raw::errno());
    }
    let mut bytes = vec![0u8; size];
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: size,
    };
    let remote = libc::iovec {
        iov_base: map,
        iov_len: size,
    };
    // SAFETY: `size` bytes of our own mapping into our own buffer.
    let got =
        unsafe { ret(libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) as i64) };
    // SAFETY: mapped above.
    unsafe { libc::munmap(map, size) };
    bytes.truncate(got? as usize);
    Ok(summary(&bytes))
}
