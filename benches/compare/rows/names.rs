//! Rows that ask for names and attributes and read no data.

use std::process::Command;

use rustix::fs::{AtFlags, getxattr, listxattr, statat};

use super::super::host::{Trouble, run};
use super::super::trees::Part;
use super::super::walk::{self, Which};
use super::{Answer, Client, Row, numbered, reads, timed, timed_names};

const TREE: &[Part] = &[Part::Tree];

/// The rows.
pub const ROWS: &[Row] = &[
    reads(
        "walk-cold",
        "a name of a tree, names and types, first time",
        TREE,
        walk_cold,
    ),
    reads("walk-warm", "the same again", TREE, walk_warm),
    reads("stat-cold", "lstat of a file, first time", TREE, stat_cold),
    reads("stat", "lstat of a file, again", TREE, stat_warm),
    reads(
        "find-newer",
        "a file looked at by find -newer, again",
        TREE,
        find_newer,
    ),
    reads(
        "missing",
        "lstat of a name that is not there, again",
        TREE,
        missing,
    ),
    reads(
        "getxattr",
        "getxattr of a file without any, again",
        TREE,
        get_xattr,
    ),
    reads(
        "listxattr",
        "listxattr of a file without any, again",
        TREE,
        list_xattr,
    ),
];

fn walk_once(c: &Client) -> Answer {
    let dir = walk::open_path(&c.part(Part::Tree)?)?;
    let mut names = 0;
    let mut sample = timed(1, || {
        names = walk::walk(&dir)?;
        Ok(())
    })?;
    sample.ops = names;
    Ok(sample)
}

fn walk_cold(c: &Client) -> Answer {
    walk_once(c)
}

fn walk_warm(c: &Client) -> Answer {
    for _ in 0..2 {
        walk_once(c)?;
    }
    walk_once(c)
}

/// One pass of lstat(2) over the tree, by names relative to it.
fn stat_pass(c: &Client, passes: u32) -> Answer {
    let root = c.part(Part::Tree)?;
    let names = walk::paths(&root, Which::Files)?;
    let dir = walk::open_path(&root)?;
    let mut sample = Err(Trouble::Failed("no pass".into()));
    for _ in 0..passes {
        sample = timed_names(&names, |name| {
            statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map(drop)
        });
        sample.as_ref().map_err(Clone::clone)?;
    }
    sample
}

fn stat_cold(c: &Client) -> Answer {
    stat_pass(c, 1)
}

fn stat_warm(c: &Client) -> Answer {
    stat_pass(c, 3)
}

fn find_newer(c: &Client) -> Answer {
    let root = c.part(Part::Tree)?;
    let files = walk::paths(&root, Which::All)?.len() as u64;
    let find = || {
        run(Command::new("find")
            .arg(&root)
            .args(["-newer", "/proc/self/exe"]))
    };
    find()?;
    timed(files, find)
}

fn missing(c: &Client) -> Answer {
    let dir = walk::open_path(&c.part(Part::Tree)?)?;
    let names = numbered("not-there-", c.n.names);
    let pass = || {
        timed_names(&names, |name| {
            match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => Ok(()),
                Ok(_) => Err(rustix::io::Errno::EXIST),
                Err(e) => Err(e),
            }
        })
    };
    for _ in 0..2 {
        pass()?;
    }
    pass()
}

/// The calls take no directory, so the client's own is the tree.
fn from_the_tree(
    c: &Client,
    mut ask: impl FnMut(&std::ffi::CStr) -> rustix::io::Result<()>,
) -> Answer {
    let root = c.part(Part::Tree)?;
    let mut names = walk::paths(&root, Which::Files)?;
    names.truncate(usize::try_from(c.n.hot).unwrap_or(usize::MAX));
    std::env::set_current_dir(&root)?;
    timed_names(&names, &mut ask)?;
    timed_names(&names, &mut ask)
}

fn get_xattr(c: &Client) -> Answer {
    let mut value = [0_u8; 256];
    from_the_tree(c, |name| {
        match getxattr(name, c"user.none", &mut value[..]) {
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => other.map(drop),
        }
    })
}

fn list_xattr(c: &Client) -> Answer {
    let mut list = [0_u8; 1024];
    from_the_tree(c, |name| match listxattr(name, &mut list[..]) {
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        other => other.map(drop),
    })
}
