//! The differences that are meant: the only thing the comparison may skip.
//!
//! Each has a name, a reason, and a condition as narrow as it can be stated. A difference skipped here must leave
//! both trees equal, or the trees differ at the next comparison and the run fails after all.

use super::ops::{Op, Step};
use super::world::Outcome;
use crate::support::Kind;

/// A step that gave two outcomes.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The step.
    pub step: &'a Step,
    /// Who the reference is.
    pub reference: Kind,
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
        name: "no-tmpfile",
        reason: "fuser does not hand on FUSE_TMPFILE, so open(O_TMPFILE) is EOPNOTSUPP; programs fall back to a name",
        covers: |d| {
            matches!(d.step.op, Op::Tmpfile { .. }) && d.expected.errno == 0 && d.actual.errno == libc::EOPNOTSUPP
        },
    },
    Intended {
        name: "plain-tmpfs-removes-absent-acls",
        reason: "tmpfs says 0 to the removal of an ACL that is not there, overlayfs and ext4 say ENODATA",
        covers: |d| {
            d.reference == Kind::Plain
                && matches!(d.step.op, Op::Removexattr { name, .. } if name.starts_with("system.posix_acl"))
                && d.expected.errno == 0
                && d.actual.errno == libc::ENODATA
        },
    },
    Intended {
        name: "plain-directories-seek",
        reason: "SEEK_DATA, SEEK_HOLE and SEEK_END on a directory are the file system's own affair; overlayfs and FUSE refuse",
        covers: |d| {
            d.reference == Kind::Plain
                && matches!(d.step.op, Op::Seek { .. })
                && d.expected.errno == 0
                && d.actual.errno == libc::EINVAL
        },
    },
];

/// Steps that are not run on the subject (nor, for [`Kind::Plain`], on the reference), by name.
///
/// * `directory-rename-in-userns`: kernel overlayfs refuses (EXDEV) what would need a redirect it does not follow;
///   acetate copies the subtree up and renames. That acetate does it right is compared with a plain directory.
/// * `kernel-orphans` (decided by `World::would_hit_the_orphan_bug`): on 6.18 a change, through an open descriptor,
///   of a removed directory, device or fifo of a lower is copied up over whatever has the name now. That acetate
///   does it right is compared with a plain directory.
/// * `whiteouts-are-for-overlays`: RENAME_WHITEOUT and mknod of a whiteout work on a plain directory and must not
///   on an overlay.
pub fn left_out(step: &Step, reference: Kind) -> Option<&'static str> {
    match (&step.op, reference) {
        (Op::Rename { flags, .. }, Kind::Plain) if flags & libc::RENAME_WHITEOUT != 0 => Some("whiteouts-are-for-overlays"),
        (Op::Mknod { mode, rdev: (0, 0), .. }, Kind::Plain) if mode & libc::S_IFMT == libc::S_IFCHR => {
            Some("whiteouts-are-for-overlays")
        }
        _ => None,
    }
}

/// The intended difference that covers this one.
pub fn intended(difference: &Difference<'_>) -> Option<&'static Intended> {
    INTENDED.iter().find(|i| (i.covers)(difference))
}
