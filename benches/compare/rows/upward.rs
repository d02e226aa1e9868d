//! Rows that bring lower files up.

use std::process::Command;

use rustix::fs::{Mode, OFlags, openat};

use super::super::host::{Outcome, Trouble, doing, run};
use super::super::systems::{System, Way};
use super::super::trees::Part;
use super::super::walk::{self, Which};
use super::{Answer, Client, Row, changes, timed, timed_names};

const OWNED: &[Part] = &[Part::Owned];

/// The rows.
pub const ROWS: &[Row] = &[
    changes(
        "copyup-big",
        "copy-up of a large file by one byte (plain directory: cp --reflink=auto)",
        &[Part::Big],
        big,
    ),
    changes(
        "copyup-many",
        "copy-up of a small file by an append",
        &[Part::Many],
        many,
    ),
    with(
        "metacopy=off",
        changes(
            "chown-r",
            "a lower file of a chown -R, data copied",
            OWNED,
            chown,
        ),
    ),
    with(
        "metacopy=on",
        changes(
            "chown-r-meta",
            "a lower file of a chown -R, metacopy=on",
            OWNED,
            chown,
        ),
    ),
];

const fn with(options: &'static str, row: Row) -> Row {
    Row { options, ..row }
}

fn big(c: &Client) -> Answer {
    let file = c.part(Part::Big)?.join("file");
    if c.system == System::Native {
        let copy = file.with_extension("copy");
        return timed(1, || {
            run(Command::new("cp")
                .arg("--reflink=auto")
                .arg(&file)
                .arg(&copy))
        });
    }
    timed(1, || {
        let file = doing("open", std::fs::File::options().write(true).open(&file))?;
        doing("write", rustix::io::pwrite(&file, b"x", 0)).map(drop)
    })
}

fn many(c: &Client) -> Answer {
    let root = c.part(Part::Many)?;
    let names = walk::paths(&root, Which::Files)?;
    let dir = walk::open_path(&root)?;
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
    timed_names(&names, |name| {
        let file = openat(&dir, name, flags, Mode::empty())?;
        rustix::io::write(&file, b"x").map(drop)
    })
}

/// To another owner where there is one: a namespace of one user has none, and a user may only chown to itself.
fn new_owner(way: Way) -> Outcome<&'static str> {
    match way {
        Way::Root => Ok("1:1"),
        Way::Userns => Ok("0:0"),
        Way::User => Ok("1000:1000"),
        Way::Other => Err(Trouble::Skipped("only the owner may".into())),
    }
}

fn chown(c: &Client) -> Answer {
    let root = c.part(Part::Owned)?;
    // Kernel overlayfs is mounted by root of a namespace there, which sees its own files as 0:0.
    let owner = match c.system {
        System::Kernel if c.way == Way::User => "0:0",
        _ => new_owner(c.way)?,
    };
    let files = walk::paths(&root, Which::All)?.len() as u64;
    timed(files, || {
        run(Command::new("chown").args(["-R", owner]).arg(&root))
    })
}
