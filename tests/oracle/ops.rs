//! What a client can do to a mount, as values: generated, shrunk, printed, run.

use std::fmt;

/// A relative path; `.` is the root of the mount.
#[derive(Clone, PartialEq, Eq)]
pub struct Path(pub Vec<&'static [u8]>);

impl Path {
    /// As bytes for a system call.
    pub fn bytes(&self) -> Vec<u8> {
        if self.0.is_empty() {
            b".".to_vec()
        } else {
            self.0.join(&b'/')
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.bytes();
        match text.len() {
            0..=100 => write!(f, "{}", text.escape_ascii()),
            n => write!(f, "{}…({n} bytes)", text[..60].escape_ascii()),
        }
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes that can be told from others: `len` bytes derived from `seed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Which.
    pub seed: u8,
    /// How many.
    pub len: u32,
}

impl Data {
    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        (0..self.len)
            .map(|i| self.seed.wrapping_add((i % 251) as u8).wrapping_mul(37))
            .collect()
    }
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The mounter.
    Root,
    /// Ordinary user: uid and gid, no other groups.
    User(u32),
    /// Uid 1000 with gid 1000 and the extra groups 1001 and 0.
    Grouped,
}

/// A time to set: omit, now, or this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// `UTIME_OMIT`.
    Omit,
    /// `UTIME_NOW`.
    Now,
    /// Seconds and nanoseconds.
    At(i64, i64),
}

/// An extended attribute's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Plain bytes.
    Bytes(Vec<u8>),
    /// A POSIX ACL: user::, user:1000:, group::, mask::, other:: (3 bits each); None without the named user.
    Acl {
        user: u16,
        named: Option<u16>,
        group: u16,
        mask: u16,
        other: u16,
    },
    /// A `security.capability` of revision 2.
    Capability,
}

/// One action. Slots are descriptors kept open across steps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Open {
        path: Path,
        flags: i32,
        mode: u32,
        slot: usize,
    },
    Close {
        slot: usize,
    },
    Write {
        slot: usize,
        at: Option<u32>,
        data: Data,
    },
    Read {
        slot: usize,
        at: u32,
        len: u32,
    },
    Ftruncate {
        slot: usize,
        len: u32,
    },
    Fstat {
        slot: usize,
    },
    Fsync {
        slot: usize,
        data: bool,
    },
    Fallocate {
        slot: usize,
        mode: i32,
        at: u32,
        len: u32,
    },
    Seek {
        slot: usize,
        whence: i32,
        at: u32,
    },
    CopyRange {
        from: usize,
        to: usize,
        from_at: u32,
        to_at: u32,
        len: u32,
    },
    MmapWrite {
        slot: usize,
        at: u32,
        byte: u8,
    },
    MmapRead {
        slot: usize,
    },
    Fchmod {
        slot: usize,
        mode: u32,
    },
    Fchown {
        slot: usize,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    Futimens {
        slot: usize,
        atime: When,
        mtime: When,
    },
    Fsetxattr {
        slot: usize,
        name: &'static str,
        value: Value,
        flags: i32,
    },
    Flistxattr {
        slot: usize,
    },
    Getdents {
        slot: usize,
    },
    Linkfd {
        slot: usize,
        to: Path,
    },
    WriteFile {
        path: Path,
        flags: i32,
        data: Data,
    },
    ReadFile {
        path: Path,
    },
    Replace {
        path: Path,
        data: Data,
    },
    Truncate {
        path: Path,
        len: u32,
    },
    Mkdir {
        path: Path,
        mode: u32,
    },
    Mknod {
        path: Path,
        mode: u32,
        rdev: (u32, u32),
    },
    Symlink {
        path: Path,
        target: Path,
    },
    Link {
        from: Path,
        to: Path,
        follow: bool,
    },
    Unlink {
        path: Path,
    },
    Rmdir {
        path: Path,
    },
    RemoveTree {
        path: Path,
    },
    Rename {
        from: Path,
        to: Path,
        flags: u32,
    },
    Chmod {
        path: Path,
        mode: u32,
    },
    Chown {
        path: Path,
        uid: Option<u32>,
        gid: Option<u32>,
        follow: bool,
    },
    Utimens {
        path: Path,
        atime: When,
        mtime: When,
        follow: bool,
    },
    Setxattr {
        path: Path,
        name: &'static str,
        value: Value,
        flags: i32,
    },
    Getxattr {
        path: Path,
        name: &'static str,
    },
    Listxattr {
        path: Path,
    },
    Removexattr {
        path: Path,
        name: &'static str,
    },
    Readdir {
        path: Path,
    },
    Stat {
        path: Path,
        follow: bool,
    },
    Readlink {
        path: Path,
    },
    Access {
        path: Path,
        mode: i32,
    },
    GetFlags {
        path: Path,
    },
}

/// An operation with its circumstances.
#[derive(Clone, PartialEq, Eq)]
pub struct Step {
    /// Who.
    pub who: Who,
    /// With which umask.
    pub umask: u32,
    /// The first path is relative to this slot, if it holds a directory.
    pub at: Option<usize>,
    /// What.
    pub op: Op,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.who {
            Who::Root => write!(f, "root ")?,
            Who::User(uid) => write!(f, "{uid} ")?,
            Who::Grouped => write!(f, "1000+groups ")?,
        }
        if self.umask != 0o022 {
            write!(f, "umask={:03o} ", self.umask)?;
        }
        if let Some(slot) = self.at {
            write!(f, "at=slot{slot} ")?;
        }
        match &self.op {
            Op::Open {
                path,
                flags,
                mode,
                slot,
            } => {
                write!(
                    f,
                    "slot{slot} = open({path}, {}, {mode:04o})",
                    open_flags(*flags)
                )
            }
            Op::WriteFile { path, flags, data } => {
                write!(f, "write_file({path}, {}, {data:?})", open_flags(*flags))
            }
            Op::Mkdir { path, mode } => write!(f, "mkdir({path}, {mode:04o})"),
            Op::Chmod { path, mode } => write!(f, "chmod({path}, {mode:04o})"),
            Op::Fchmod { slot, mode } => write!(f, "fchmod(slot{slot}, {mode:04o})"),
            Op::Mknod { path, mode, rdev } => write!(f, "mknod({path}, {mode:06o}, {rdev:?})"),
            op => write!(f, "{op:?}"),
        }
    }
}

fn open_flags(flags: i32) -> String {
    let mut text = match flags & libc::O_ACCMODE {
        libc::O_WRONLY => "O_WRONLY".to_owned(),
        libc::O_RDWR => "O_RDWR".to_owned(),
        _ => "O_RDONLY".to_owned(),
    };
    for (bit, name) in [
        (libc::O_CREAT, "O_CREAT"),
        (libc::O_EXCL, "O_EXCL"),
        (libc::O_TRUNC, "O_TRUNC"),
        (libc::O_APPEND, "O_APPEND"),
        (libc::O_DIRECTORY, "O_DIRECTORY"),
        (libc::O_NOFOLLOW, "O_NOFOLLOW"),
        (libc::O_PATH, "O_PATH"),
    ] {
        if flags & bit != 0 {
            text = format!("{text}|{name}");
        }
    }
    text
}

/// What stands in a lower layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A file; `hole` puts a megabyte-aligned hole before the data.
    File { data: Data, hole: bool },
    /// A directory.
    Dir,
    /// A directory with the opaque mark.
    Opaque,
    /// A symlink.
    Symlink(Path),
    /// A fifo.
    Fifo,
    /// A device 1:3.
    Device,
    /// A hard link to an earlier path of the same layer.
    Link(Path),
    /// A character device 0:0.
    Whiteout,
}

/// One object of a lower layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where.
    pub path: Path,
    /// What.
    pub thing: Thing,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: u32,
    /// An extended attribute to set.
    pub xattr: Option<(&'static str, Value)>,
}

/// What happens after a batch of steps, always after comparing the trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: go on with the open descriptors.
    GoOn,
    /// Unmount, mount again, compare.
    Remount,
    /// Each upper becomes the topmost lower of its own mount, under a new empty upper.
    PushOwn,
    /// The reference's upper becomes the topmost lower of both mounts.
    PushReference,
}

/// A whole test: lowers, topmost first, then batches of steps.
#[derive(Clone, Debug)]
pub struct Case {
    /// The layers' content.
    pub layers: Vec<Vec<Item>>,
    /// The steps.
    pub batches: Vec<(Vec<Step>, Then)>,
    /// Which times each step moves is compared too.
    pub timed: bool,
}
