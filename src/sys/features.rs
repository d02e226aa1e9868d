//! What the kernel is asked for: every call, flag and message that Linux 4.18,
//! the oldest kernel we serve on, may lack, and whether this process uses it.
//!
//! A feature is missing because the kernel said so once (ENOSYS, or a seccomp
//! filter's EPERM), or because it was hidden: by `--kernel-features`,
//! `-o kernel_features=` or `ACETATE_KERNEL_FEATURES`. Hiding is for tests of the
//! ways around, and for a kernel whose implementation is broken. Whoever makes
//! the call asks [`allowed`] first: one relaxed load.
//!
//! The ways around need these system calls more than the straight ways do:
//! openat, newfstatat, name_to_handle_at, read (of /proc/self/fdinfo), fchmodat
//! and chmod, utimensat, {get,set,list,remove}xattr and their l-forms, linkat
//! (through /proc/self/fd), getdents64 and close (of /proc/self/fd), pread64 and
//! pwrite64.
//!
//! Never asked for, so not listed: FUSE_EXPLICIT_INVAL_DATA, FUSE_SUBMOUNTS,
//! FUSE_INIT_EXT's own flags, FUSE_TMPFILE; FUSE_PASSTHROUGH only where a person asks
//! for it, who then misses nothing that a test could show. FUSE mounts in user
//! namespaces came with 4.18 itself; user.overlay.* on kernel overlayfs (5.11)
//! concerns only the kernel's reading of our uppers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Something that a kernel may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Feature {
    ZeroOpen,
    ZeroOpendir,
    KillprivV2,
    CacheSymlinks,
    CacheDir,
    MaxPages,
    FuseCopyRange,
    ParallelDirops,
    Readdirplus,
    Openat2,
    Statx,
    StatxMountId,
    Fchmodat2,
    XattrAt,
    OpenTree,
    MountSetattr,
    CloseRange,
    CopyRange,
    CopyAcross,
    Reflink,
    UtimensatEmpty,
    LinkOwnFile,
    FsUuid,
    Ext4Uuid,
    DiskByUuid,
    UserWhiteout,
    RenameWhiteout,
    RenameExchange,
    UnnamedFile,
    TmpfsUserXattr,
}

/// A feature's name and the kernel that brought it; `None` where that depends on
/// the file system, so that no kernel's name hides it.
struct Row(Feature, &'static str, Option<(u32, u32)>);

/// Where each number is from: the man page of the call (man-pages 6.03), or the
/// kernel's commit.
const TABLE: &[Row] = &[
    // d7afaec0b564 "fuse: add FUSE_NO_OPEN_SUPPORT flag to INIT", v3.16
    Row(Feature::ZeroOpen, "zero-open", Some((3, 16))),
    // d9a9ea94f748 "fuse: support clients that don't implement 'opendir'", v5.1
    Row(Feature::ZeroOpendir, "zero-opendir", Some((5, 1))),
    // 63f9909ff602 "fuse: introduce the notion of FUSE_HANDLE_KILLPRIV_V2", v5.11
    Row(Feature::KillprivV2, "killpriv-v2", Some((5, 11))),
    // 5571f1e65486 "fuse: enable caching of symlinks", v4.20; the next three are of
    // the same protocol version, 7.28
    Row(Feature::CacheSymlinks, "cache-symlinks", Some((4, 20))),
    Row(Feature::CacheDir, "cache-dir", Some((4, 20))),
    Row(Feature::MaxPages, "max-pages", Some((4, 20))),
    Row(Feature::FuseCopyRange, "fuse-copy-range", Some((4, 20))),
    // protocol 7.25, v4.7
    Row(Feature::ParallelDirops, "parallel-dirops", Some((4, 7))),
    // protocol 7.21, v3.9
    Row(Feature::Readdirplus, "readdirplus", Some((3, 9))),
    // openat2(2)
    Row(Feature::Openat2, "openat2", Some((5, 6))),
    // statx(2)
    Row(Feature::Statx, "statx", Some((4, 11))),
    // statx(2), STATX_MNT_ID
    Row(Feature::StatxMountId, "statx-mount-id", Some((5, 8))),
    // "fs: Add fchmodat2()", v6.6
    Row(Feature::Fchmodat2, "fchmodat2", Some((6, 6))),
    // 6140be90ec70 "fs/xattr: add *at family syscalls", v6.13
    Row(Feature::XattrAt, "xattrat", Some((6, 13))),
    // open_tree(2) and move_mount(2), "vfs: syscall: Add open_tree(2)", v5.2
    Row(Feature::OpenTree, "open-tree", Some((5, 2))),
    // mount_setattr(2)
    Row(Feature::MountSetattr, "mount-setattr", Some((5, 12))),
    // close_range(2)
    Row(Feature::CloseRange, "close-range", Some((5, 9))),
    // copy_file_range(2): the call, and between file systems
    Row(Feature::CopyRange, "copy-range", Some((4, 5))),
    Row(Feature::CopyAcross, "copy-across", Some((5, 3))),
    Row(Feature::Reflink, "reflink", None),
    // "utimensat: AT_EMPTY_PATH support", v5.8
    Row(Feature::UtimensatEmpty, "utimensat-empty", Some((5, 8))),
    // "vfs: relax linkat() AT_EMPTY_PATH - aka flink() - requirements", v6.10
    Row(Feature::LinkOwnFile, "link-own-file", Some((6, 10))),
    // "fs: FS_IOC_GETUUID", v6.9
    Row(Feature::FsUuid, "fs-uuid", Some((6, 9))),
    // "ext4: add ioctls to get/set the ext4 superblock uuid", v6.0
    Row(Feature::Ext4Uuid, "ext4-uuid", Some((6, 0))),
    // udev's doing
    Row(Feature::DiskByUuid, "disk-by-uuid", None),
    // "vfs: allow unprivileged whiteout creation", v5.8 (systemd issue 16721)
    Row(Feature::UserWhiteout, "user-whiteout", Some((5, 8))),
    Row(Feature::RenameWhiteout, "rename-whiteout", None),
    Row(Feature::RenameExchange, "rename-exchange", None),
    Row(Feature::UnnamedFile, "unnamed-file", None),
    Row(Feature::TmpfsUserXattr, "tmpfs-user-xattr", None),
];

/// The features known to be missing, one bit each.
static MISSING: AtomicU64 = AtomicU64::new(0);

const fn bit(f: Feature) -> u64 {
    1 << f as u64
}

/// Whether a feature is to be tried.
#[inline]
pub fn allowed(f: Feature) -> bool {
    MISSING.load(Ordering::Relaxed) & bit(f) == 0
}

/// The kernel said that it lacks a feature: it is not asked again.
pub fn is_missing(f: Feature) {
    MISSING.fetch_or(bit(f), Ordering::Relaxed);
}

/// Features to be hidden from this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hidden(u64);

impl Hidden {
    /// Reads `-NAME`, `+NAME` and kernels as `4.18`, separated by commas or
    /// colons, from left to right: a kernel hides all that came after it.
    ///
    /// # Errors
    /// A word that is none of these, with the words that are.
    pub fn parse(text: &str) -> Result<Hidden, String> {
        let mut hidden = Hidden::default();
        for word in text.split([',', ':']).map(str::trim) {
            hidden.take(word)?;
        }
        Ok(hidden)
    }

    fn take(&mut self, word: &str) -> Result<(), String> {
        if word.is_empty() {
            return Ok(());
        }
        if let Some(kernel) = kernel(word) {
            for Row(f, _, since) in TABLE {
                if since.is_some_and(|s| s > kernel) {
                    self.0 |= bit(*f);
                }
            }
            return Ok(());
        }
        let find = |name: &str| TABLE.iter().find(|r| r.1 == name).map(|r| bit(r.0));
        if let Some(b) = word.strip_prefix('-').and_then(find) {
            self.0 |= b;
        } else if let Some(b) = word.strip_prefix('+').and_then(find) {
            self.0 &= !b;
        } else {
            return Err(format!(
                "{word} is neither a kernel (4.18) nor one of -{}",
                TABLE.iter().map(|r| r.1).collect::<Vec<_>>().join(", -")
            ));
        }
        Ok(())
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Hidden) -> Hidden {
        Hidden(self.0 | other.0)
    }

    /// Hides them, for the life of this process.
    pub fn hide(self) {
        MISSING.fetch_or(self.0, Ordering::Relaxed);
    }
}

/// `4.18` → (4, 18).
fn kernel(word: &str) -> Option<(u32, u32)> {
    let (major, minor) = word.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_one_row_and_a_bit_of_its_own() {
        let mut seen = 0u64;
        for Row(f, name, _) in TABLE {
            assert_eq!(seen & bit(*f), 0, "{name}");
            seen |= bit(*f);
        }
        // The last one in the enum: none is left out of the table.
        assert_eq!(seen, (bit(Feature::TmpfsUserXattr) << 1) - 1);
    }

    #[test]
    fn a_kernel_hides_what_came_after_it() {
        let old = Hidden::parse("4.18").unwrap();
        assert_ne!(old.0 & bit(Feature::Openat2), 0);
        assert_eq!(old.0 & bit(Feature::ZeroOpen), 0);
        assert_eq!(old.0 & bit(Feature::Statx), 0);
        assert_eq!(old.0 & bit(Feature::UnnamedFile), 0);
        assert_eq!(Hidden::parse("6.13"), Ok(Hidden::default()));
        // Not by the text's order: 5.10 is after 5.9.
        let newer = Hidden::parse("5.10").unwrap();
        assert_eq!(newer.0 & bit(Feature::CloseRange), 0);
        assert_ne!(newer.0 & bit(Feature::KillprivV2), 0);
    }

    #[test]
    fn words_add_up_from_left_to_right() {
        let h = Hidden::parse("-openat2:-statx, +openat2").unwrap();
        assert_eq!(h, Hidden(bit(Feature::Statx)));
        assert_eq!(Hidden::parse(""), Ok(Hidden::default()));
        let none = Hidden::parse("-openat3").unwrap_err();
        assert!(
            none.contains("-openat3") && none.contains("-openat2"),
            "{none}"
        );
        assert!(Hidden::parse("statx").is_err());
        assert!(Hidden::parse("4.x").is_err());
    }
}
