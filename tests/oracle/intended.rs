//! The differences that are meant: the only thing the comparison may skip.
//!
//! Each has a name, a reason, and a condition as narrow as it can be stated. A difference skipped here must leave
//! both trees equal, or the trees differ at the next comparison and the run fails after all.

use super::ops::{Op, Step};
use super::world::Outcome;

/// A step that gave two outcomes.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The step.
    pub step: &'a Step,
    /// What the reference (kernel overlayfs) gave.
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
pub const INTENDED: &[Intended] = &[Intended {
    name: "no-tmpfile",
    reason: "fuser does not hand on FUSE_TMPFILE, so open(O_TMPFILE) is EOPNOTSUPP; programs fall back to a name",
    covers: |d| matches!(d.step.op, Op::Tmpfile { .. }) && d.expected.errno == 0 && d.actual.errno == libc::EOPNOTSUPP,
}];

/// The intended difference that covers this one.
pub fn intended(difference: &Difference<'_>) -> Option<&'static Intended> {
    INTENDED.iter().find(|i| (i.covers)(difference))
}
