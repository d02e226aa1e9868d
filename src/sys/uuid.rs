//! UUIDs of file systems, which name the origins of copied files as the kernel's
//! overlayfs does.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use super::features::{self, Feature};
use super::stat::of_descriptor;

/// 16 bytes; all zero where a file system has none, or does not tell it.
pub type Uuid = [u8; 16];

/// None, or not told.
pub const UNKNOWN: Uuid = [0; 16];

/// The UUID of the file system that `fd` stands on.
///
/// FS_IOC_GETFSUUID tells what overlayfs itself uses, since Linux 6.9; ext4's own
/// ioctl, since 6.0, what is in the superblock by now; before that udev's links do, for a file system on one block device. What is left
/// untold are tmpfs, which is gone at the next boot, and rarer ones.
pub fn of_file_system(fd: BorrowedFd<'_>) -> Uuid {
    by_any(fd)
        .or_else(|| by_ext4(fd))
        .or_else(|| by_udev(fd))
        .unwrap_or(UNKNOWN)
}

fn by_any(fd: BorrowedFd<'_>) -> Option<Uuid> {
    #[repr(C)]
    struct FsUuid2 {
        len: u8,
        uuid: Uuid,
    }
    // _IOR(0x15, 0, struct fsuuid2), include/uapi/linux/fs.h
    const FS_IOC_GETFSUUID: libc::Ioctl = (2 << 30) | (17 << 16) | (0x15 << 8);
    if !features::allowed(Feature::FsUuid) {
        return None;
    }
    let readable = super::dir::open_readable(fd).ok()?;
    let mut u = FsUuid2 {
        len: 0,
        uuid: UNKNOWN,
    };
    // SAFETY: the kernel writes at most sizeof(struct fsuuid2) = 17 bytes.
    let r = unsafe { libc::ioctl(readable.as_raw_fd(), FS_IOC_GETFSUUID, &mut u) };
    (r == 0 && u.len == 16).then_some(u.uuid)
}

/// EXT4_SUPER_MAGIC; ext2 and ext3 have it too.
const EXT4_MAGIC: i64 = 0xef53;

fn by_ext4(fd: BorrowedFd<'_>) -> Option<Uuid> {
    /// struct fsuuid with its bytes, fs/ext4/ext4.h
    #[repr(C)]
    struct FsUuid {
        len: u32,
        flags: u32,
        uuid: Uuid,
    }
    // _IOR('f', 44, struct fsuuid); the structure's own size is 8.
    const EXT4_IOC_GETFSUUID: libc::Ioctl = (2 << 30) | (8 << 16) | (0x66 << 8) | 44;
    let is_ext4 = || super::file::fs_stat(fd).is_ok_and(|s| s.f_type == EXT4_MAGIC);
    if !features::allowed(Feature::Ext4Uuid) || !is_ext4() {
        return None;
    }
    let readable = super::dir::open_readable(fd).ok()?;
    let mut u = FsUuid {
        len: 16,
        flags: 0,
        uuid: UNKNOWN,
    };
    // SAFETY: the kernel reads the head, finds room for 16 bytes and writes so many.
    let r = unsafe { libc::ioctl(readable.as_raw_fd(), EXT4_IOC_GETFSUUID, &mut u) };
    (r == 0 && u.len == 16).then_some(u.uuid)
}

/// The name of the link in /dev/disk/by-uuid to the device that `fd` is on.
fn by_udev(fd: BorrowedFd<'_>) -> Option<Uuid> {
    if !features::allowed(Feature::DiskByUuid) {
        return None;
    }
    let dev = of_descriptor(fd).ok()?.dev;
    let links = std::fs::read_dir("/dev/disk/by-uuid").ok()?;
    links.flatten().find_map(|link| {
        let device = std::fs::metadata(link.path()).ok()?;
        (device.rdev() == dev)
            .then(|| parse(link.file_name().to_str()?))
            .flatten()
    })
}

/// `01234567-89ab-cdef-0123-456789abcdef`; other file systems' short numbers are none.
fn parse(text: &str) -> Option<Uuid> {
    let hex: String = text.split('-').collect();
    if text.len() != 36 || hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    let mut uuid = UNKNOWN;
    for (i, byte) in uuid.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_name_of_udev_is_read() {
        let uuid = parse("01234567-89ab-cdef-0123-456789abcdeF").unwrap();
        assert_eq!(uuid[..4], [0x01, 0x23, 0x45, 0x67]);
        assert_eq!(uuid[15], 0xef);
        for other in ["", "1A2B-3C4D", "01234567-89ab-cdef-0123-456789abcdeg"] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert_eq!(parse("é1234567-89ab-cdef-0123-456789abcde"), None);
    }

    /// Where several ways tell, they tell the same. (A disk whose UUID was set after
    /// it was mounted has none as yet for the kernel itself.)
    #[test]
    fn all_ways_lead_to_one_uuid() {
        for path in ["/", "/tmp", "/dev/shm", "/proc"] {
            let Ok(dir) = super::super::dir::open_root(std::path::Path::new(path)) else {
                continue;
            };
            let ways = [
                by_any(dir.as_fd()),
                by_ext4(dir.as_fd()),
                by_udev(dir.as_fd()),
            ];
            let told: Vec<_> = ways
                .into_iter()
                .flatten()
                .filter(|u| ways[0] != Some(UNKNOWN) && *u != UNKNOWN)
                .collect();
            assert!(told.windows(2).all(|w| w[0] == w[1]), "{path}: {ways:?}");
        }
    }
}
