//! mount(2) and its younger relatives, for a FUSE file system.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use super::Errno;
use super::Result;
use super::features::{self, Feature};
use rustix::fs::{CWD, Mode, OFlags};
pub use rustix::mount::MountFlags;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};

/// statfs's f_type of a FUSE mount.
const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;

/// The system's words for an error, without the number.
pub fn reason(errno: Errno) -> String {
    let text = errno.to_string();
    match text.rfind(" (os error") {
        Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
        None => text,
    }
}

/// Opens /dev/fuse.
pub fn open_fuse_device() -> Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/dev/fuse",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Major and minor number of /dev/fuse.
pub const FUSE_DEVICE: (u32, u32) = (10, 229);

/// Major and minor number of a device, of its `st_rdev`.
pub fn numbers_of_device(rdev: u64) -> (u32, u32) {
    (rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

/// Reads one request from /dev/fuse; EAGAIN where there is none.
pub fn read_request(device: &OwnedFd) -> Result<Vec<u8>> {
    rustix::fs::fcntl_setfl(device, OFlags::NONBLOCK)?;
    // FUSE_MIN_READ_BUFFER, and more than any INIT.
    let mut request = vec![0; 64 << 10];
    let n = rustix::io::read(device, &mut request)?;
    request.truncate(n);
    Ok(request)
}

/// Takes over a descriptor of /dev/fuse that the caller left open for us; `None`
/// where the number is something else's.
pub fn take_fuse_descriptor(number: i32) -> Option<OwnedFd> {
    if number < 0 {
        return None;
    }
    // SAFETY: asks what the number is; EBADF where it is nothing.
    let shown = unsafe { BorrowedFd::borrow_raw(number) };
    let stat = rustix::fs::fstat(shown).ok()?;
    let is_device = stat.st_mode & libc::S_IFMT == libc::S_IFCHR;
    if !is_device || numbers_of_device(stat.st_rdev) != FUSE_DEVICE {
        return None;
    }
    if number <= 2 {
        // std's own: a daemon has /dev/null put in its place.
        return rustix::io::fcntl_dupfd_cloexec(shown, 3).ok();
    }
    // SAFETY: it was open when this program started and is named on its command
    // line, so nothing in here owns it; it is asked for once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether a directory is of a FUSE file system.
pub fn is_fuse(directory: BorrowedFd<'_>) -> bool {
    is_of(directory, &[FUSE_SUPER_MAGIC])
}

/// Of its own sources.
const ZFS: u64 = 0x2FC1_2FC1;

fn is_of(directory: BorrowedFd<'_>, kinds: &[u64]) -> bool {
    let found = rustix::fs::fstatfs(directory).map(|s| s.f_type as u64 & 0xFFFF_FFFF);
    found.is_ok_and(|kind| kinds.contains(&kind))
}

/// Whether a directory is of a file system that this kernel keeps by itself, so
/// that what it knows of an object is always true. Of the others, and of those
/// that are not known here, somebody else is to be asked.
pub fn is_local(directory: BorrowedFd<'_>) -> bool {
    // include/uapi/linux/magic.h; bcachefs and ZFS have theirs in their own sources.
    const LOCAL: [u64; 9] = [
        0xEF53,      // ext2, ext3, ext4
        0x5846_5342, // XFS
        0x9123_683E, // btrfs
        0x0102_1994, // tmpfs
        0x8584_58F6, // ramfs
        0xF2F5_2010, // F2FS
        0xCA45_1A4E, // bcachefs
        ZFS,
        0x3153_464A, // JFS
    ];
    is_of(directory, &LOCAL)
}

/// Whether a directory is of a file system whose listings name whatever its lookups
/// find, but for other spellings of what they name: no snapshots, processes or
/// remote names that are only found when asked for.
pub fn lists_all(directory: BorrowedFd<'_>) -> bool {
    // include/uapi/linux/magic.h
    const IMAGES: [u64; 2] = [
        0x7371_7368, // squashfs
        0xE0F5_E1E2, // EROFS
    ];
    // ZFS has `.zfs`, and may find names in another normal form though it is exact about
    // case. What lies below an overlayfs may be anything.
    (is_local(directory) && !is_of(directory, &[ZFS])) || is_of(directory, &IMAGES)
}

/// Whether a directory is of a file system that lies in memory: tmpfs or ramfs.
pub fn is_memory(directory: BorrowedFd<'_>) -> bool {
    is_of(directory, &[0x0102_1994, 0x8584_58F6])
}

/// Whether a held directory is of a FUSE mount whose process has ended.
pub fn is_dead(directory: &OwnedFd) -> bool {
    matches!(
        rustix::fs::fstatfs(directory),
        Err(rustix::io::Errno::NOTCONN)
    )
}

/// Opens a directory without reading from it: its place is held from now on,
/// whatever is mounted over it.
pub fn hold_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Mounts FUSE: `fstype` such as `fuse.acetate`, `data` the kernel's words.
pub fn mount_fuse(
    target: &Path,
    fstype: &str,
    source: &OsStr,
    flags: MountFlags,
    data: &OsStr,
) -> Result<()> {
    let data = CString::new(data.as_bytes()).map_err(|_| Errno::EINVAL)?;
    Ok(rustix::mount::mount(
        source,
        target,
        fstype,
        flags,
        Some(data.as_c_str()),
    )?)
}

/// Whether a mount can be cloned and moved here (Linux 5.2, and no filter in
/// the way). `place` is any directory.
pub fn can_move_mounts(place: &OwnedFd) -> bool {
    if !features::allowed(Feature::OpenTree) {
        return false;
    }
    let clone = open_tree(place.as_fd(), OsStr::new(""));
    // EINVAL: the call is there, this one mount may not be cloned; ours may.
    if !matches!(clone, Ok(_) | Err(Errno::EINVAL)) {
        return false;
    }
    // A clone cannot be moved to a place that is not a directory of a mount:
    // the call is made with what fails last, so that nothing is moved.
    let nowhere = rustix::mount::move_mount(
        place.as_fd(),
        "acetate-no-such-name",
        place.as_fd(),
        "acetate-no-such-name",
        MoveMountFlags::empty(),
    );
    matches!(nowhere, Err(rustix::io::Errno::NOENT))
}

/// Clones the mount that shows `name` below `dir`, attached nowhere.
fn open_tree(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(dir, name, flags)?)
}

/// Clones the directory at `path` as a mount of its own, attached nowhere.
pub fn clone_tree(path: &Path) -> Result<OwnedFd> {
    open_tree(CWD, path.as_os_str())
}

/// Attaches a clone to the place held by `target`.
pub fn attach(tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", target, "", flags)?)
}

/// How hard an unmount tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detach {
    /// Refused while something is open there.
    WhenIdle,
    /// Out of sight at once, gone when the last user is.
    Now,
}

/// umount2(2) of the uppermost mount at `path`.
pub fn unmount(path: &Path, detach: Detach) -> Result<()> {
    let flags = match detach {
        Detach::WhenIdle => UnmountFlags::NOFOLLOW,
        Detach::Now => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    Ok(rustix::mount::unmount(path, flags)?)
}

/// Whether the file system at `path` is a FUSE one that answers.
pub fn is_serving_fuse(path: &Path) -> Result<bool> {
    let stat = rustix::fs::statfs(path)?;
    Ok(stat.f_type as u64 == FUSE_SUPER_MAGIC)
}

/// Mode bits of a directory, type included.
pub fn directory_mode(path: &Path) -> Result<u32> {
    Ok(rustix::fs::stat(path)?.st_mode)
}

/// Which user and group own the directory behind a held descriptor.
pub fn owner_of(fd: &OwnedFd) -> Result<(u32, u32)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_uid, stat.st_gid))
}

/// What remains of the flags a mount was asked for, from its own flags in
/// mountinfo (`rw,nosuid,…`): those that got lost.
pub fn lost_flags(asked: MountFlags, shown: &str) -> MountFlags {
    let has = |word: &str| shown.split(',').any(|w| w == word);
    let mut lost = MountFlags::empty();
    for (flag, word) in [
        (MountFlags::RDONLY, "ro"),
        (MountFlags::NOSUID, "nosuid"),
        (MountFlags::NODEV, "nodev"),
        (MountFlags::NOEXEC, "noexec"),
        (MountFlags::NOATIME, "noatime"),
        (MountFlags::NODIRATIME, "nodiratime"),
        (MountFlags::NOSYMFOLLOW, "nosymfollow"),
    ] {
        if asked.contains(flag) && !has(word) {
            lost |= flag;
        }
    }
    lost
}

/// Gives the mount at `path` these flags again.
pub fn set_mount_flags(path: &Path, flags: MountFlags) -> Result<()> {
    Ok(rustix::mount::mount_remount(
        path,
        MountFlags::BIND | flags,
        "",
    )?)
}

/// The number of a descriptor, for the `fd=` word of FUSE's mount data.
pub fn number_of(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_the_mount_does_not_show_is_lost() {
        let asked = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::LAZYTIME;
        assert_eq!(lost_flags(asked, "ro,nodev,relatime"), MountFlags::empty());
        assert_eq!(lost_flags(asked, "rw,nodev"), MountFlags::RDONLY);
    }
}
