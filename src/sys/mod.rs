//! The kernel: the only `unsafe`, the only raw system calls.
//!
//! Everything above this folder names objects by a [`Spot`] (a directory
//! descriptor and one component, or a descriptor alone) and gets an [`Errno`]
//! back. No path of more than one component is ever built from a layer's names.
//!
//! How SAFETY comments are written here: which pointer is handed over, how long
//! it lives, and who says how many bytes stand behind it.

pub mod apart;
pub mod ask;
pub mod brood;
pub mod chroot;
pub mod copy;
pub mod cpu;
pub mod cred;
pub mod dir;
pub mod features;
pub mod fence;
pub mod file;
pub mod fusermount;
pub mod handle;
pub mod holder;
pub mod mount;
pub mod mountinfo;
pub mod name;
pub mod namespace;
pub mod opened;
mod pass;
pub mod places;
pub mod poll;
pub mod probe;
pub mod process;
pub mod relay;
pub mod signal;
pub mod small;
pub mod spot;
pub mod stat;
pub mod tree;
pub mod uuid;
pub mod xattr;

pub use name::{Name, valid_name};
pub use spot::{ObjectId, Spot};
pub use stat::{Kind, Stat, Timespec};

/// An error number of the kernel; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

/// What a system call answers.
pub type Result<T> = std::result::Result<T, Errno>;

macro_rules! errnos {
    ($($name:ident),* $(,)?) => {
        #[allow(missing_docs)]
        impl Errno {
            $(pub const $name: Errno = Errno(libc::$name);)*
        }
    };
}

errnos!(
    E2BIG,
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    ECONNABORTED,
    EDQUOT,
    EEXIST,
    EFBIG,
    EINTR,
    EINVAL,
    EIO,
    EISDIR,
    ELOOP,
    EMFILE,
    EMLINK,
    ENAMETOOLONG,
    ENFILE,
    ENODATA,
    ENODEV,
    ENOENT,
    ENOSPC,
    ENOSYS,
    ENOTCONN,
    ENOTDIR,
    ENOTEMPTY,
    ENOTSUP,
    ENOTTY,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    ERANGE,
    EROFS,
    ESTALE,
    ETXTBSY,
    EXDEV,
    ENXIO,
);

impl Errno {
    /// The number as the kernel writes it.
    pub fn raw(self) -> i32 {
        self.0
    }

    /// From a raw number; zero and negative numbers become EIO.
    pub fn from_raw(n: i32) -> Self {
        if n > 0 { Errno(n) } else { Errno(libc::EIO) }
    }

    /// The calling thread's `errno`.
    pub(crate) fn last() -> Self {
        Self::from_io(&std::io::Error::last_os_error())
    }

    /// From an I/O error of the standard library.
    pub fn from_io(e: &std::io::Error) -> Self {
        Self::from_raw(e.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(e: rustix::io::Errno) -> Self {
        Errno::from_raw(e.raw_os_error())
    }
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&std::io::Error::from_raw_os_error(self.0), f)
    }
}

impl std::error::Error for Errno {}

/// Names a liberty: the step is wished for, its failure is told to the log and
/// nothing else depends on it.
pub fn best_effort<T>(what: &'static str, r: Result<T>) -> Option<T> {
    match r {
        Ok(v) => Some(v),
        Err(e) => {
            tracing::debug!(what, error = %e, "best effort failed");
            None
        }
    }
}
