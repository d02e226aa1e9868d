//! Rows whose cost may grow with something: layers, entries, depth, threads, known inodes, open files.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::fs::{AtFlags, Mode, OFlags, openat, statat, unlinkat};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::super::host::{Outcome, Trouble, doing};
use super::super::trees::Part;
use super::super::walk::{self, Which};
use super::reading::{in_threads, read_file};
use super::{
    After, Answer, Changes, Client, Kind, Row, changes, numbered, reads, timed, timed_names,
};

const NONE: &[Part] = &[];

/// The rows; `scale.rs` says what grows in each.
pub const ROWS: &[Row] = &[
    reads(
        "layers-stat-cold",
        "lstat of a file of the lowest layer, first time",
        NONE,
        |c| layers_stat(c, 1),
    ),
    reads("layers-stat-warm", "the same again", NONE, |c| {
        layers_stat(c, 2)
    }),
    reads(
        "layers-missing-cold",
        "a name that no layer has, first time",
        NONE,
        |c| layers_missing(c, 1),
    ),
    reads("layers-missing-warm", "the same again", NONE, |c| {
        layers_missing(c, 2)
    }),
    reads(
        "layers-readdir-cold",
        "a name of a directory that all layers have, first listing",
        NONE,
        |c| list(c, 1),
    ),
    reads("layers-readdir-warm", "the same again", NONE, |c| {
        list(c, 2)
    }),
    reads(
        "entries-list-cold",
        "a name of a directory, first listing",
        NONE,
        |c| list(c, 1),
    ),
    reads("entries-list-warm", "the same again", NONE, |c| list(c, 2)),
    changes(
        "entries-create",
        "a new file in the directory",
        NONE,
        create_in,
    ),
    changes(
        "entries-unlink",
        "unlink of each of its files",
        NONE,
        unlink_all,
    ),
    reads(
        "depth-stat-cold",
        "lstat of the deepest file, for each level, first time",
        NONE,
        |c| deep(c, 1),
    ),
    reads("depth-stat-warm", "the same again", NONE, |c| deep(c, 100)),
    reads(
        "threads-read-cold",
        "open, read, close by x threads, first time",
        NONE,
        |c| threads_read(c, 1),
    ),
    reads("threads-read-warm", "the same again", NONE, |c| {
        threads_read(c, 2)
    }),
    changes(
        "threads-create-own",
        "a new file, x threads, a directory each",
        NONE,
        |c| threads_create(c, Place::Own),
    ),
    changes(
        "threads-create-one",
        "a new file, x threads in one directory",
        NONE,
        |c| threads_create(c, Place::One),
    ),
    memory(
        "inodes-memory",
        "daemon's memory for each known inode",
        After::Client,
    ),
    memory(
        "inodes-dropped",
        "what is left of it after drop_caches",
        After::DropCaches,
    ),
    reads(
        "descriptors",
        "open and read, all files kept open, daemon with 8,000 descriptors",
        NONE,
        open_all,
    ),
];

const fn memory(name: &'static str, says: &'static str, when: After) -> Row {
    let kind = Kind::Memory(know_all, when);
    Row {
        name,
        says,
        unit: "bytes",
        parts: NONE,
        changes: Changes::Nothing,
        options: "",
        kind,
    }
}

fn dir_of(c: &Client) -> Outcome<OwnedFd> {
    walk::open_path(&c.root.join("d"))
}

fn passes(count: u32, mut pass: impl FnMut() -> Answer) -> Answer {
    for _ in 1..count {
        pass()?;
    }
    pass()
}

fn layers_stat(c: &Client, count: u32) -> Answer {
    let dir = dir_of(c)?;
    let names = numbered("low", 200);
    passes(count, || {
        timed_names(&names, |name| {
            statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map(drop)
        })
    })
}

fn layers_missing(c: &Client, count: u32) -> Answer {
    let dir = dir_of(c)?;
    let names = numbered("none", 200);
    passes(count, || {
        timed_names(&names, |name| {
            match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => Ok(()),
                Ok(_) => Err(rustix::io::Errno::EXIST),
                Err(e) => Err(e),
            }
        })
    })
}

fn list(c: &Client, count: u32) -> Answer {
    passes(count, || {
        let dir = dir_of(c)?;
        let mut names = 0;
        let mut sample = timed(1, || {
            names = walk::list(&dir)?;
            Ok(())
        })?;
        sample.ops = names;
        Ok(sample)
    })
}

fn create_in(c: &Client) -> Answer {
    let dir = dir_of(c)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    timed_names(&numbered("new", 300), |name| {
        openat(&dir, name, flags, Mode::RWXU).map(drop)
    })
}

fn unlink_all(c: &Client) -> Answer {
    let dir = dir_of(c)?;
    timed_names(&numbered("f", c.x), |name| {
        unlinkat(&dir, name, AtFlags::empty())
    })
}

fn deep(c: &Client, count: u32) -> Answer {
    let depth = usize::try_from(c.x).unwrap_or(usize::MAX);
    let path =
        CString::new(format!("{}file", "n/".repeat(depth))).map_err(std::io::Error::other)?;
    let root = dir_of(c)?;
    passes(count, || {
        timed(c.x, || {
            Ok(statat(&root, &path, AtFlags::SYMLINK_NOFOLLOW).map(drop)?)
        })
    })
}

fn threads_read(c: &Client, count: u32) -> Answer {
    let root = c.root.join("d");
    let names = walk::paths(&root, Which::Files)?;
    let dir = dir_of(c)?;
    let threads = usize::try_from(c.x).unwrap_or(1);
    passes(count, || {
        in_threads(&names, threads, |name, buffer| {
            read_file(dir.as_fd(), name, buffer)
        })
    })
}

/// Where threads make their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Own,
    One,
}

fn threads_create(c: &Client, place: Place) -> Answer {
    let dir = dir_of(c)?;
    let threads = c.x.max(1);
    let each = 2_000 / threads;
    for t in 0..threads {
        std::fs::create_dir(c.root.join(format!("d/t{t}")))?;
    }
    let name = |t: u64, i: u64| match place {
        Place::Own => format!("t{t}/n{i}"),
        Place::One => format!("n{t}-{i}"),
    };
    let names: Vec<_> = (0..threads)
        .flat_map(|t| (0..each).filter_map(move |i| CString::new(name(t, i)).ok()))
        .collect();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let threads = usize::try_from(threads).unwrap_or(1);
    in_threads(&names, threads, |name, _| {
        openat(&dir, name, flags, Mode::RWXU).map(drop)
    })
}

/// Makes the kernel know every inode of the tree.
fn know_all(c: &Client) -> Answer {
    let root = c.root.join("d");
    let names = walk::paths(&root, Which::All)?;
    let dir = dir_of(c)?;
    timed_names(&names, |name| {
        statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map(drop)
    })
}

/// Files that one process keeps open: fewer than any limit of descriptors allows.
const A_PROCESS: usize = 8_000;

fn open_all(c: &Client) -> Answer {
    let wanted = Some(A_PROCESS as u64 + 1_000);
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: wanted,
            maximum: wanted,
        },
    );
    doing("a higher limit of descriptors for the client", raised)
        .map_err(|e| Trouble::Skipped(e.to_string()))?;
    let names = walk::paths(&c.root.join("d"), Which::Files)?;
    let dir = dir_of(c)?;
    let mut open: Vec<OwnedFd> = Vec::with_capacity(A_PROCESS);
    let mut holders = Vec::new();
    let mut buffer = [0_u8; 256];
    let sample = timed_names(&names, |name| {
        if open.len() == A_PROCESS {
            holders.push(Holder::of(&mut open).map_err(|_| rustix::io::Errno::NFILE)?);
        }
        // Inherited: see `Holder`.
        let file = openat(&dir, name, OFlags::RDONLY, Mode::empty())?;
        rustix::io::read(&file, &mut buffer)?;
        open.push(file);
        Ok(())
    });
    holders.into_iter().try_for_each(Holder::end)?;
    sample
}

/// A process that keeps the files that it inherited.
struct Holder(Child);

impl Holder {
    /// Hands all of them on.
    fn of(files: &mut Vec<OwnedFd>) -> std::io::Result<Holder> {
        let waits = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        files.clear();
        Ok(Holder(waits))
    }

    fn end(mut self) -> std::io::Result<()> {
        drop(self.0.stdin.take());
        self.0.wait().map(drop)
    }
}
