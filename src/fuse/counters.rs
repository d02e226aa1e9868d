//! How many requests of each kind were served.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! ops {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// A kind of request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Op { $($variant),* }
        const NAMES: &[&str] = &[$($name),*];
    };
}

ops! {
    Lookup "lookup", Getattr "getattr", Setattr "setattr", Readlink "readlink", Mknod "mknod",
    Mkdir "mkdir", Unlink "unlink", Rmdir "rmdir", Symlink "symlink", Rename "rename",
    Link "link", Open "open", Read "read", Write "write", Flush "flush", Release "release",
    Fsync "fsync", Opendir "opendir", Readdir "readdir", Readdirplus "readdirplus",
    Releasedir "releasedir", Fsyncdir "fsyncdir", Statfs "statfs", Setxattr "setxattr",
    Getxattr "getxattr", Listxattr "listxattr", Removexattr "removexattr", Create "create",
    Ioctl "ioctl", Fallocate "fallocate", Lseek "lseek", CopyFileRange "copy_file_range",
    Forget "forget", Access "access",
}

/// The counts.
#[derive(Debug)]
pub struct Counters([AtomicU64; NAMES.len()]);

impl Default for Counters {
    fn default() -> Self {
        Counters(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counters {
    /// One more.
    pub fn count(&self, op: Op) {
        if let Some(c) = self.0.get(op as usize) {
            c.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `name count` lines.
    pub fn text(&self) -> String {
        NAMES
            .iter()
            .zip(&self.0)
            .map(|(n, c)| format!("{n} {}\n", c.load(Ordering::Relaxed)))
            .collect()
    }
}
