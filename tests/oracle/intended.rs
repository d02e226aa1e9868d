//! The differences that are meant: the only thing the comparison may skip.
//!
//! Each has a name, a reason, and a condition as narrow as it can be stated. A difference skipped here must leave
//! both trees equal, or the trees differ at the next comparison and the run fails after all.
//!
//! What is not generated at all, and why:
//! * O_TMPFILE, which FUSE does not have (a test of its own in `main.rs`): it copies the directory up on the kernel;
//! * names beginning with `.wh.`: acetate reads them as whiteouts, as container clients write them into layers;
//! * attributes `user.overlay.*` in root's modes: both prefixes are reserved by acetate in all modes, by the kernel
//!   only the one in use;
//! * chown(-1, -1): it reaches a FUSE daemon as the order to clear suid that also comes before a write, with the
//!   question unasked whether the caller owns the file;
//! * FALLOC_FL_ZERO_RANGE, which tmpfs refuses: the kernel's FUSE client has then cleared the privileges already;
//! * the removal of an access ACL by an owner outside the file's group: the kernel takes sgid away with it, even if
//!   there is no ACL (ovl_set_or_remove_acl()); no plain file system does, nor does ours;
//! * an opaque mark on the root of a layer: the kernel ignores it there, image builders mean it;
//! * an upper that becomes a lower of its own mount (`PushOwn`) where hard links are about: which one of the names
//!   was copied up is chance with FUSE, which names no path, and the index does not move with the upper.

use super::ops::{Op, Step, Value};
use super::world::Outcome;
use crate::support::Kind;

/// A step that gave two outcomes.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The step.
    pub step: &'a Step,
    /// Who the reference is.
    pub reference: Kind,
    /// The step changes, through a descriptor, an object that has no name any more.
    pub orphan: bool,
    /// The step is about a descriptor of a directory.
    pub directory: bool,
    /// The step is about a descriptor opened for reading only.
    pub read_only: bool,
    /// What the reference gave.
    pub expected: &'a Outcome,
    /// What the subject gave.
    pub actual: &'a Outcome,
}

/// One intended difference.
#[derive(Debug)]
pub struct Intended {
    /// Its name.
    pub name: &'static str,
    /// Why it is so.
    pub reason: &'static str,
    /// Exactly which outcomes it covers.
    pub covers: fn(&Difference<'_>) -> bool,
}

/// All of them.
pub const INTENDED: &[Intended] = &[
    Intended {
        name: "absent-acls-removed",
        reason: "the removal of an ACL that is not there is 0 on tmpfs, ENODATA on ext4, and on overlays the one or the \
                 other, as the object has been copied up or not",
        covers: |d| {
            let acl = match &d.step.op {
                Op::Removexattr { name, .. } => name,
                // An empty ACL is a removal.
                Op::Setxattr {
                    name,
                    value: Value::Bytes(bytes),
                    ..
                }
                | Op::Fsetxattr {
                    name,
                    value: Value::Bytes(bytes),
                    ..
                } if bytes.is_empty() => name,
                _ => return false,
            };
            acl.starts_with("system.posix_acl")
                && [(0, libc::ENODATA), (libc::ENODATA, 0)]
                    .contains(&(d.expected.errno, d.actual.errno))
        },
    },
    Intended {
        name: "flags-of-devices",
        reason: "FS_IOC_GETFLAGS of a device node without a device: overlayfs and tmpfs say EINVAL, FUSE's client ENOTTY",
        covers: |d| {
            matches!(d.step.op, Op::GetFlags { .. })
                && (d.expected.errno, d.actual.errno) == (libc::EINVAL, libc::ENOTTY)
        },
    },
    Intended {
        name: "kernel-maps-stale-data",
        reason: "a mapping of a descriptor that was opened for reading before the copy-up shows the lower's data for ever \
                 on the kernel (Documentation/filesystems/overlayfs.rst, non-standard behavior), the file's on ours",
        covers: |d| {
            matches!(d.step.op, Op::MmapRead { .. })
                && d.reference == Kind::Kernel
                && d.read_only
                && [0, libc::EFAULT].contains(&d.expected.errno)
                && d.actual.errno == 0
        },
    },
    Intended {
        name: "directories-seek",
        reason: "lseek on a directory is answered by the kernel's FUSE client, by generic_file_llseek: no message is sent",
        covers: |d| {
            let Op::Seek { whence, .. } = d.step.op else {
                return false;
            };
            d.directory && [libc::SEEK_DATA, libc::SEEK_HOLE, libc::SEEK_END].contains(&whence)
        },
    },
    Intended {
        name: "kernel-copies-up-too-early",
        reason: "an open for writing, or an operation that then fails, copies up on the kernel and moves the ctime; ours \
                 copies up with the first change",
        covers: |d| {
            (d.expected.errno != 0
                || matches!(
                    d.step.op,
                    Op::Open { .. } | Op::WriteFile { .. } | Op::Write { .. }
                ))
                && differ_in_ctime_only(d)
        },
    },
    Intended {
        name: "kernel-moves-mtimes-for-nothing",
        reason: "see `moves_mtimes_for_nothing`",
        covers: |d| {
            let quiet = |text: &str| {
                text.replace(" [source parent mtime moved]", "")
                    .replace(" [target parent mtime moved]", "")
            };
            moves_mtimes_for_nothing(d.step, d.expected, d.reference)
                && d.expected.errno == d.actual.errno
                && quiet(&d.actual.text) == d.actual.text
                && quiet(&d.expected.text) == d.actual.text
        },
    },
    Intended {
        name: "same-attribute-again",
        reason: "ext4 leaves ctime alone where an attribute is set to the very value it has; ours has copied the file up",
        covers: |d| {
            matches!(d.step.op, Op::Setxattr { .. } | Op::Fsetxattr { .. })
                && d.reference == Kind::Plain
                && (d.expected.errno, d.actual.errno) == (0, 0)
                && !d.expected.text.contains("[object ctime moved]")
                && d.actual.text.replace(" [object ctime moved]", "") == d.expected.text
        },
    },
    Intended {
        name: "kernel-fills-holes",
        reason: "where data and holes are found after a copy-up depends on how it was copied; ours keeps all holes",
        covers: |d| {
            let Op::Seek { whence, .. } = d.step.op else {
                return false;
            };
            [libc::SEEK_DATA, libc::SEEK_HOLE].contains(&whence)
                && [d.expected.errno, d.actual.errno]
                    .iter()
                    .all(|e| [0, libc::ENXIO].contains(e))
        },
    },
    Intended {
        name: "userns-absent-before-forbidden",
        reason: "in a user namespace the kernel forbids security.* before it looks whether there is one to remove or \
                 replace; ours says that there is none",
        covers: |d| {
            let name = match &d.step.op {
                Op::Removexattr { name, .. } => name,
                Op::Setxattr {
                    name,
                    flags: libc::XATTR_REPLACE,
                    ..
                }
                | Op::Fsetxattr {
                    name,
                    flags: libc::XATTR_REPLACE,
                    ..
                } => name,
                _ => return false,
            };
            name.starts_with("security.")
                && (d.expected.errno, d.actual.errno) == (libc::EPERM, libc::ENODATA)
        },
    },
    Intended {
        name: "kernel-cannot-copy-up-orphans",
        reason: "a removed file of a lower whose directory is gone, or whose name is used again, cannot be changed on the \
                 kernel (ENOENT, EIO, EEXIST); on ours it works, as on any plain file system",
        covers: |d| {
            d.reference == Kind::Kernel
                && d.orphan
                && [libc::ENOENT, libc::EIO, libc::EEXIST].contains(&d.expected.errno)
                && [0, libc::ENODATA].contains(&d.actual.errno)
        },
    },
    Intended {
        name: "kernel-counts-removed-lowers",
        reason: "fstat of a removed object of a lower shows 1 link on the kernel, 0 on ours (and on any plain file system)",
        covers: |d| {
            matches!(d.step.op, Op::Fstat { .. })
                && d.expected.text.replacen(" nlink 1", " nlink 0", 1) == d.actual.text
        },
    },
];

/// Steps that the reference just refused and the subject would do; they are then not run on the subject.
///
/// * `directory-rename-in-userns`: kernel overlayfs refuses (EXDEV) what would need a redirect it does not follow;
///   acetate copies the subtree up and renames. That acetate does it right is compared with a plain directory.
/// * `redirect-too-long`: a redirect of the kernel's holds at most 256 bytes (OVL_REDIRECT_MAX), a rename or link
///   that needs a longer one is EXDEV; ours has no such limit.
pub fn refused_by_the_kernel(
    step: &Step,
    expected: &Outcome,
    reference: Kind,
) -> Option<&'static str> {
    if reference != Kind::Kernel || expected.errno != libc::EXDEV {
        return None;
    }
    match &step.op {
        Op::Rename { from, to, .. } | Op::Link { from, to, .. } => {
            let long = from.bytes().len().max(to.bytes().len()) > 200;
            Some(if long {
                "redirect-too-long"
            } else {
                "directory-rename-in-userns"
            })
        }
        _ => None,
    }
}

/// A rename over a directory that is not empty moves the mtimes of its parents on the kernel where the upper is on ext4,
/// although nothing was renamed; ours refuses it before anything is tried. In such a case mtimes of directories say
/// nothing from then on.
pub fn moves_mtimes_for_nothing(step: &Step, expected: &Outcome, reference: Kind) -> bool {
    matches!(step.op, Op::Rename { .. })
        && reference == Kind::Kernel
        && expected.errno == libc::ENOTEMPTY
}

/// True if the reference moved a ctime that the subject left alone, and that is all.
fn differ_in_ctime_only(d: &Difference<'_>) -> bool {
    let without = |text: &str| {
        text.replace(" [object ctime moved]", "")
            .replace(" [source ctime moved]", "")
    };
    d.expected.errno == d.actual.errno
        && d.expected.text.len() > d.actual.text.len()
        && without(&d.expected.text) == without(&d.actual.text)
}

/// Steps that are not run on the subject (nor, for [`Kind::Plain`], on the reference), by name.
///
/// * `kernel-orphans` (decided by `World::would_hit_the_orphan_bug`): on 6.18 a change, through an open descriptor,
///   of a removed directory, device or fifo of a lower is copied up over whatever has the name now. That acetate
///   does it right is compared with a plain directory.
/// * `whiteouts-are-for-overlays`: RENAME_WHITEOUT and mknod of a whiteout work on a plain directory and must not
///   on an overlay.
pub fn left_out(step: &Step, reference: Kind) -> Option<&'static str> {
    match (&step.op, reference) {
        (Op::Rename { flags, .. }, Kind::Plain) if flags & libc::RENAME_WHITEOUT != 0 => {
            Some("whiteouts-are-for-overlays")
        }
        (
            Op::Mknod {
                mode, rdev: (0, 0), ..
            },
            Kind::Plain,
        ) if mode & libc::S_IFMT == libc::S_IFCHR => Some("whiteouts-are-for-overlays"),
        _ => None,
    }
}

/// The intended difference that covers this one.
pub fn intended(difference: &Difference<'_>) -> Option<&'static Intended> {
    INTENDED.iter().find(|i| (i.covers)(difference))
}
