//! Rows that run the programs people run.

use std::path::Path;
use std::process::Command;

use super::super::host::{Outcome, Trouble, run};
use super::super::systems::Way;
use super::super::trees::{Part, git};
use super::super::walk::{self, Which};
use super::{Answer, Changes, Client, Row, changes, changes as on, timed};

/// The rows.
pub const ROWS: &[Row] = &[
    changes(
        "untar",
        "a file of an archive, tar -x",
        &[Part::Work, Part::Archive],
        untar,
    ),
    changes(
        "rm-rf",
        "a file of the unpacked archive, rm -rf",
        &[Part::Work, Part::Archive],
        remove,
    ),
    changes(
        "cp-a",
        "a file of the lower tree, cp -a",
        &[Part::Work, Part::Tree],
        copy,
    ),
    on(
        "git-status",
        "git status of a repository, again",
        &[Part::Git],
        git_status,
    ),
    on(
        "git-checkout",
        "git checkout of another commit",
        &[Part::Git],
        git_checkout,
    ),
    changes(
        "npm",
        "a file of an npm-like tree of tiny files",
        &[Part::Work],
        npm,
    ),
    on("compile", "make -j2 of a C project", &[Part::C], compile),
    Row {
        changes: Changes::Parts,
        ..on(
            "dpkg",
            "dpkg -i of packages in a chroot",
            &[Part::Debian],
            dpkg,
        )
    },
    on(
        "sqlite-wal",
        "a transaction of a database with a write-ahead log",
        &[Part::Work],
        |c| sqlite(c, "wal"),
    ),
    on(
        "sqlite",
        "a transaction of a database without one",
        &[Part::Work],
        |c| sqlite(c, "delete"),
    ),
];

fn unpack(c: &Client, into: &Path) -> Outcome<()> {
    let archive = c.part(Part::Archive)?.join("tree.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(into)
        .arg("-xf")
        .arg(archive))
}

fn untar(c: &Client) -> Answer {
    let into = c.own_dir("out")?;
    // The archive itself is in the page cache then.
    std::fs::read(c.part(Part::Archive)?.join("tree.tar"))?;
    timed(c.n.tree, || unpack(c, &into))
}

fn remove(c: &Client) -> Answer {
    let into = c.own_dir("out")?;
    unpack(c, &into)?;
    timed(c.n.tree, || {
        run(Command::new("rm").arg("-rf").arg(into.join("tree")))
    })
}

fn copy(c: &Client) -> Answer {
    let (from, into) = (c.part(Part::Tree)?, c.own_dir("copy")?);
    let files = walk::paths(&from, Which::Files)?.len() as u64;
    timed(files, || {
        run(Command::new("cp").arg("-a").arg(&from).arg(&into))
    })
}

fn git_status(c: &Client) -> Answer {
    let repository = c.part(Part::Git)?;
    let status = || run(git(&repository).args(["status", "--porcelain"]));
    // The first one writes the index anew, as inode numbers and change times are not what it knew.
    for _ in 0..2 {
        status()?;
    }
    timed(1, status)
}

fn git_checkout(c: &Client) -> Answer {
    let repository = c.part(Part::Git)?;
    run(git(&repository).args(["status", "--porcelain"]))?;
    timed(1, || run(git(&repository).args(["checkout", "-q", "two"])))
}

fn npm(c: &Client) -> Answer {
    let into = c.own_dir("node_modules")?;
    timed(c.n.npm, || super::changes::npm_tree(&into, c.n.npm))
}

fn compile(c: &Client) -> Answer {
    let project = c.part(Part::C)?;
    timed(1, || {
        run(Command::new("make")
            .arg("-C")
            .arg(&project)
            .args(["-s", "-j2", "p"]))
    })
}

fn dpkg(c: &Client) -> Answer {
    let root = c.part(Part::Debian)?;
    if matches!(c.way, Way::User | Way::Other) {
        return Err(Trouble::Skipped("only root may chroot".into()));
    }
    let script = "exec dpkg --force-unsafe-io --force-depends -i /debs/*.deb";
    let packages = std::fs::read_dir(root.join("debs"))?.count() as u64;
    timed(packages, || {
        run(Command::new("chroot")
            .arg(&root)
            .args(["sh", "-c", script])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
    })
}

fn sqlite(c: &Client, journal: &str) -> Answer {
    let dir = c.own_dir("db")?;
    let insert = |i: u64| {
        format!("insert into t values({i}, 'some text that is a row of the table {i}');\n")
    };
    let script: String = (0..c.n.transactions).map(insert).collect();
    let script_file = dir.join("script.sql");
    std::fs::write(&script_file, script)?;
    let database = dir.join("a.db");
    let call = |words: &str| {
        run(Command::new("sqlite3")
            .arg("-bail")
            .arg(&database)
            .arg(words))
    };
    call(&format!(
        "pragma journal_mode={journal}; create table t(a integer, b text);"
    ))?;
    timed(c.n.transactions, || {
        call(&format!(".read {}", script_file.display()))
    })
}
