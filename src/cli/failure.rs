//! Where an error becomes a sentence on stderr and an exit code.
//!
//! | code | own commands | as `fuse-overlayfs`, `mount.acetate` (mount(8)) |
//! |---|---|---|
//! | 0 | done | done |
//! | 1 | something failed | the command line is wrong |
//! | 2 | the command line is wrong | - |
//! | 3 | there is no such mount, layer, workspace, store, path | - |
//! | 4 | it is in use | - |
//! | 5 | it exists already | - |
//! | 6 | data is not what its digest or record says | - |
//! | 32 | the mount failed | the mount failed |
//!
//! Numbers are only ever added.

use crate::app::{FailureKind, SetupError, Trouble};

/// A command line that cannot be understood, and how to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// What is wrong.
    pub what: String,
    /// How to call it right.
    pub hint: String,
}

impl Usage {
    /// A mistake and its remedy.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Usage {
            what: what.into(),
            hint: hint.into(),
        }
    }
}

/// Whose exit codes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// Our own commands.
    Own,
    /// mount(8)'s, for the helpers.
    Mount,
}

impl Codes {
    /// The code for a wrong command line.
    pub fn usage(self) -> u8 {
        match self {
            Codes::Own => 2,
            Codes::Mount => 1,
        }
    }

    /// The code for a mount that could not be made.
    pub fn mount_failed(self) -> u8 {
        32
    }
}

/// The code of a failed `unmount`.
pub fn trouble_code(trouble: &Trouble) -> u8 {
    match trouble {
        Trouble::NotMounted(_) => 3,
        Trouble::Busy(_) => 4,
        Trouble::Other(_) => 1,
    }
}

/// The code of a failure of the store's commands.
pub fn failure_code(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::General => 1,
        FailureKind::Usage => 2,
        FailureKind::NotFound => 3,
        FailureKind::InUse => 4,
        FailureKind::Exists => 5,
        FailureKind::Integrity => 6,
        FailureKind::Conflict => 7,
        FailureKind::Mount => 32,
    }
}

/// The sentence of a failed `unmount`.
pub fn trouble_error(trouble: &Trouble) -> &SetupError {
    match trouble {
        Trouble::NotMounted(e) | Trouble::Busy(e) | Trouble::Other(e) => e,
    }
}

/// Prints an error and, under it, what to do about it.
pub fn print(program: &str, what: &str, hint: &str) {
    if hint.is_empty() {
        eprintln!("{program}: error: {what}");
    } else {
        eprintln!("{program}: error: {what}\n{program}: hint: {hint}");
    }
}
