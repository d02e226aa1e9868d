//! Rows that make, change and remove names of the upper.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, linkat, mkdirat, openat, renameat, symlinkat, unlinkat};

use super::super::host::Outcome;
use super::super::trees::Part;
use super::super::walk;
use super::{Answer, Client, Row, changes, numbered, timed_names};

const WORK: &[Part] = &[Part::Work];

/// The rows.
pub const ROWS: &[Row] = &[
    changes(
        "create",
        "a new file of 4 KiB: create, write, close",
        WORK,
        create,
    ),
    changes(
        "append",
        "100 bytes more for a new file: open, write, close",
        WORK,
        append,
    ),
    changes("rename", "rename of a new file", WORK, rename),
    changes("unlink", "unlink of a new file", WORK, unlink),
    changes("mkdir", "mkdir", WORK, mkdir),
    changes("rmdir", "rmdir of a new directory", WORK, rmdir),
    changes("symlink", "symlink", WORK, symlink),
    changes("link", "a hard link of a new file", WORK, link),
    changes("fsync", "a new file of 4 KiB and fsync", WORK, fsync),
];

/// A fresh directory, and the names that are used in it.
struct Scene {
    dir: OwnedFd,
    names: Vec<std::ffi::CString>,
}

/// What is warmed up in the directory is removed from it again.
fn scene(c: &Client, warm_up: impl Fn(&Scene) -> Outcome<()>) -> Outcome<Scene> {
    let dir = walk::open_path(&c.own_dir("own")?)?;
    let warm = Scene {
        dir,
        names: numbered("warm", 16),
    };
    warm_up(&warm)?;
    Ok(Scene {
        dir: warm.dir,
        names: numbered("n", c.n.names),
    })
}

/// A new file of some bytes.
pub fn new_file(dir: impl AsFd, name: &CStr, bytes: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    rustix::io::write(&file, bytes)?;
    Ok(file)
}

const PAGE: [u8; 4096] = [7; 4096];

fn fill(s: &Scene) -> Outcome<()> {
    for name in &s.names {
        new_file(&s.dir, name, &PAGE)?;
    }
    Ok(())
}

fn empty(s: &Scene, flags: AtFlags) -> Outcome<()> {
    for name in &s.names {
        unlinkat(&s.dir, name, flags)?;
    }
    Ok(())
}

/// Warms up with files that are made and removed.
fn with_files_tried(c: &Client) -> Outcome<Scene> {
    scene(c, |s| {
        fill(s)?;
        empty(s, AtFlags::empty())
    })
}

/// The files are there.
fn with_files(c: &Client) -> Outcome<Scene> {
    let s = with_files_tried(c)?;
    fill(&s)?;
    Ok(s)
}

fn create(c: &Client) -> Answer {
    let s = with_files_tried(c)?;
    timed_names(&s.names, |name| new_file(&s.dir, name, &PAGE).map(drop))
}

fn append(c: &Client) -> Answer {
    let s = with_files(c)?;
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
    timed_names(&s.names, |name| {
        let file = openat(&s.dir, name, flags, Mode::empty())?;
        rustix::io::write(&file, &PAGE[..100]).map(drop)
    })
}

fn rename(c: &Client) -> Answer {
    let s = with_files(c)?;
    let targets = numbered("moved", c.n.names);
    let mut target = targets.iter();
    timed_names(&s.names, |name| {
        let to = target.next().ok_or(rustix::io::Errno::RANGE)?;
        renameat(&s.dir, name, &s.dir, to)
    })
}

fn unlink(c: &Client) -> Answer {
    let s = with_files(c)?;
    timed_names(&s.names, |name| unlinkat(&s.dir, name, AtFlags::empty()))
}

fn make_dirs(s: &Scene) -> Outcome<()> {
    for name in &s.names {
        mkdirat(&s.dir, name, Mode::RWXU)?;
    }
    Ok(())
}

fn with_dirs_tried(c: &Client) -> Outcome<Scene> {
    scene(c, |s| {
        make_dirs(s)?;
        empty(s, AtFlags::REMOVEDIR)
    })
}

fn mkdir(c: &Client) -> Answer {
    let s = with_dirs_tried(c)?;
    timed_names(&s.names, |name| mkdirat(&s.dir, name, Mode::RWXU))
}

fn rmdir(c: &Client) -> Answer {
    let s = with_dirs_tried(c)?;
    make_dirs(&s)?;
    timed_names(&s.names, |name| unlinkat(&s.dir, name, AtFlags::REMOVEDIR))
}

fn symlink(c: &Client) -> Answer {
    let s = scene(c, |s| {
        for name in &s.names {
            symlinkat(c"target", &s.dir, name)?;
        }
        empty(s, AtFlags::empty())
    })?;
    timed_names(&s.names, |name| symlinkat(c"target", &s.dir, name))
}

fn link(c: &Client) -> Answer {
    let s = with_files(c)?;
    let targets = numbered("link", c.n.names);
    let mut target = targets.iter();
    timed_names(&s.names, |name| {
        let to = target.next().ok_or(rustix::io::Errno::RANGE)?;
        linkat(&s.dir, name, &s.dir, to, AtFlags::empty())
    })
}

fn fsync(c: &Client) -> Answer {
    let mut s = with_files_tried(c)?;
    s.names
        .truncate(usize::try_from(c.n.names / 10).unwrap_or(1));
    timed_names(&s.names, |name| {
        rustix::fs::fsync(new_file(&s.dir, name, &PAGE)?)
    })
}

/// Makes as many small files as an installed npm package tree has, `count` of them, ten in a directory.
pub fn npm_tree(at: &Path, count: u64) -> Outcome<()> {
    let mut dir = walk::open_path(at)?;
    for i in 0..count {
        if i % 10 == 0 {
            let path = at.join(format!("p{}/lib{}", i / 100, i / 10));
            std::fs::create_dir_all(&path)?;
            dir = walk::open_path(&path)?;
        }
        let name = std::ffi::CString::new(format!("index{i}.js")).map_err(std::io::Error::other)?;
        new_file(&dir, &name, &PAGE[..300])?;
    }
    Ok(())
}
