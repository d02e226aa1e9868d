//! Attributes, times and errors between fuser's types and the engine's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::overlay::Attr;
use crate::sys::stat::SetTime;
use crate::sys::{Errno, Kind, Timespec};

/// fuser's error for ours.
pub fn errno(e: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(e.raw())
}

/// A name's bytes.
pub fn bytes(name: &OsStr) -> &[u8] {
    name.as_bytes()
}

/// fuser's type for ours.
pub fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::Char => FileType::CharDevice,
        Kind::Block => FileType::BlockDevice,
    }
}

/// A time as fuser takes it (its way out handles times before 1970).
pub fn system_time(t: Timespec) -> SystemTime {
    let nsec = Duration::from_nanos(u64::from(t.nsec));
    let base = if t.sec >= 0 {
        UNIX_EPOCH.checked_add(Duration::from_secs(t.sec.unsigned_abs()))
    } else {
        UNIX_EPOCH.checked_sub(Duration::from_secs(t.sec.unsigned_abs()))
    };
    base.and_then(|b| b.checked_add(nsec)).unwrap_or(UNIX_EPOCH)
}

/// A time as fuser gives it: before 1970 it subtracts the nanoseconds that the
/// kernel counts upwards (fuser 0.18, time.rs), which is undone here.
pub fn timespec(t: SystemTime) -> Timespec {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Timespec {
            sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            nsec: d.subsec_nanos(),
        },
        Err(e) => Timespec {
            sec: i64::try_from(e.duration().as_secs()).map_or(i64::MIN, |s| -s),
            nsec: e.duration().subsec_nanos(),
        },
    }
}

/// A time of setattr.
pub fn set_time(t: Option<TimeOrNow>) -> SetTime {
    match t {
        None => SetTime::Keep,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(t)) => SetTime::At(timespec(t)),
    }
}

/// Attributes as fuser takes them, under the number the kernel knows.
pub fn file_attr(a: &Attr, ino: u64) -> FileAttr {
    let s = &a.stat;
    FileAttr {
        ino: INodeNo(ino),
        size: s.size,
        blocks: s.blocks,
        atime: system_time(s.atime),
        mtime: system_time(s.mtime),
        ctime: system_time(s.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(s.kind()),
        perm: u16::try_from(s.mode & 0o7777).unwrap_or(0),
        nlink: s.nlink,
        uid: s.uid,
        gid: s.gid,
        rdev: encode_dev(s.rdev),
        blksize: s.blksize,
        flags: 0,
    }
}

/// new_encode_dev() of the kernel: FUSE carries 32 bits.
pub fn encode_dev((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// new_decode_dev().
pub fn decode_dev(dev: u32) -> (u32, u32) {
    ((dev & 0xfff00) >> 8, (dev & 0xff) | ((dev >> 12) & 0xfff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_come_back_from_fusers_conversion() {
        // -1.2 s is (-2, 800,000,000) in the kernel and arrives as epoch - 2.8 s.
        let arrived = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(
            timespec(arrived),
            Timespec {
                sec: -2,
                nsec: 800_000_000
            }
        );
        let out = system_time(Timespec {
            sec: -2,
            nsec: 800_000_000,
        });
        assert_eq!(
            UNIX_EPOCH.duration_since(out).unwrap(),
            Duration::from_millis(1200)
        );
    }

    #[test]
    fn device_numbers_survive() {
        for d in [(1, 3), (4095, 255), (8, 1_048_575), (0, 0)] {
            assert_eq!(decode_dev(encode_dev(d)), d);
        }
    }
}
