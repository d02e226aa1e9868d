//! Why something could not be done: a kind for the exit code, a sentence, a hint.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys::Errno;

/// What kind of failure it is; the command line gives each an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// None of the others: the disk, permissions, limits.
    General,
    /// The request makes no sense.
    Usage,
    /// There is no such layer, workspace, store or path.
    NotFound,
    /// Somebody uses it.
    InUse,
    /// It is there already.
    Exists,
    /// Data is not what its record says.
    Integrity,
    /// A mount could not be made.
    Mount,
    /// What lies below was changed by somebody else in the meantime.
    Conflict,
}

/// A failure, as a person is to read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For the exit code.
    pub kind: FailureKind,
    /// What failed, on what, and why.
    pub what: String,
    /// What to do about it; empty where nothing useful can be said.
    pub hint: String,
}

/// What a command of the store answers.
pub type Outcome<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with a hint.
    pub fn new(kind: FailureKind, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure {
            kind,
            what: what.into(),
            hint: hint.into(),
        }
    }

    /// A system call failed: `doing` is half a sentence ("be read").
    pub fn system(path: &Path, doing: &str, errno: Errno) -> Self {
        let what = format!("{} cannot {doing}: {}", path.display(), reason(errno));
        Failure::new(FailureKind::General, what, advice(errno))
    }
}

/// The system's words for an error, without the number.
pub fn reason(errno: Errno) -> String {
    crate::sys::mount::reason(errno)
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => {
            "make room (`acetate gc` removes what nobody needs) and try again; nothing was changed"
        }
        Errno::EACCES | Errno::EPERM => "it belongs to another user, or a mode shuts you out",
        Errno::EROFS => "the file system is mounted read only",
        Errno::EMFILE | Errno::ENFILE => "raise the limit of open files (ulimit -n)",
        _ => "",
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}
