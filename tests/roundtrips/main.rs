//! How many FUSE requests each user operation costs, as the daemon counts them: pinned, so that a change that costs a
//! round trip fails here and is meant.
//!
//! Four ways: the caller owns the directories or not, ACLs on or `noacl`. The caller is always uid 1000. `scripts/roundtrips`
//! prints the table. FORGETs are not counted (nobody waits for them), nor is the request that asks for the counters.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;
mod syscalls;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use support::story::{as_uid, require_real_root, sh};
use support::{Base, Layers, Mount};

type Counts = BTreeMap<String, u64>;

fn counters(root: &File) -> Counts {
    let mut counts = support::counters::all(root);
    counts.retain(|name, _| name != "ioctl" && name != "forget");
    counts
}

fn difference(before: &Counts, after: &Counts) -> String {
    let more = after
        .iter()
        .map(|(name, n)| (name, n - before.get(name).copied().unwrap_or(0)));
    more.filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("{name} {n}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Who asks, and with which mount words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    owner: bool,
    acl: bool,
}

const WAYS: [Way; 4] = [
    Way {
        owner: true,
        acl: true,
    },
    Way {
        owner: true,
        acl: false,
    },
    Way {
        owner: false,
        acl: true,
    },
    Way {
        owner: false,
        acl: false,
    },
];

/// An operation of a user; what it costs is asked after `before` has been done.
struct Operation {
    name: &'static str,
    before: fn(&Path),
    act: fn(&Path),
    /// The cost in each of [`WAYS`].
    cost: [&'static str; 4],
}

fn nothing(_: &Path) {}

fn stat(path: &Path) {
    assert!(path.metadata().is_ok());
}

fn list(path: &Path) {
    assert!(fs::read_dir(path).unwrap().all(|entry| entry.is_ok()));
}

fn new_file(path: &Path) {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    file.write_all(&[7; 4096]).unwrap();
}

fn append(path: &Path) {
    File::options()
        .append(true)
        .open(path)
        .unwrap()
        .write_all(b"more")
        .unwrap();
}

/// Opens, reads and closes, and nothing else: `fs::read` asks for the size too, which is a stat.
fn read(path: &Path) {
    let mut buffer = [0; 64];
    assert!(File::open(path).unwrap().read(&mut buffer).unwrap() > 0);
}

/// The same in all four ways.
fn always(cost: &'static str) -> [&'static str; 4] {
    [cost; 4]
}

/// A change of a directory made its attributes stale, so the permission check asks for them (GETATTR); with ACLs on, one who
/// does not own the directory has its ACL asked for too, as that went stale with them (GETXATTR).
fn after_a_change(cost: &'static str, other_with_acls: &'static str) -> [&'static str; 4] {
    [cost, cost, other_with_acls, cost]
}

/// The operations, in the order in which they are done: what one costs depends on what was seen and changed before it.
fn operations() -> Vec<Operation> {
    let op = |name, before, act, cost| Operation {
        name,
        before,
        act,
        cost,
    };
    vec![
        op(
            "stat, again",
            |d| stat(&d.join("f0")),
            |d| stat(&d.join("f0")),
            always(""),
        ),
        op(
            "open, read, close, again",
            |d| read(&d.join("f0")),
            |d| read(&d.join("f0")),
            always(""),
        ),
        op(
            "stat of a missing name, again",
            |d| drop(d.join("no").metadata().unwrap_err()),
            |d| drop(d.join("no").metadata().unwrap_err()),
            always(""),
        ),
        // After a READ the kernel forgets the access time.
        op(
            "stat after the first read",
            |d| read(&d.join("f5")),
            |d| stat(&d.join("f5")),
            always("getattr 1"),
        ),
        // The first buffer of a listing is asked for with attributes, the rest without where nobody stats.
        op(
            "list a directory, first time",
            nothing,
            |d| list(&d.join("first")),
            after_a_change(
                "lookup 1, readdir 1, readdirplus 1",
                "getxattr 1, lookup 1, readdir 1, readdirplus 1",
            ),
        ),
        // FOPEN_CACHE_DIR: the kernel has the listing, and asks whether the directory is the same.
        op(
            "list a directory, second time",
            |d| list(&d.join("second")),
            |d| list(&d.join("second")),
            always("getattr 1"),
        ),
        // The parent's attributes are fresh here, which saves the GETATTR of the next row.
        op(
            "new file of 4 KiB, after a listing",
            list,
            |d| new_file(&d.join("new")),
            always("create 1, getxattr 1, lookup 1, write 1"),
        ),
        op(
            "new file of 4 KiB",
            nothing,
            |d| new_file(&d.join("new2")),
            after_a_change(
                "create 1, getattr 1, getxattr 1, lookup 1, write 1",
                "create 1, getattr 1, getxattr 2, lookup 1, write 1",
            ),
        ),
        // GETXATTR(security.capability) before the first write to an inode.
        op(
            "append to a lower file (copy-up)",
            |d| read(&d.join("f1")),
            |d| append(&d.join("f1")),
            always("getxattr 1, write 1"),
        ),
        op(
            "append to an upper file",
            nothing,
            |d| append(&d.join("new")),
            always("write 1"),
        ),
        // O_TRUNC is a SETATTR, after which the capability is asked for again.
        op(
            "overwrite with O_TRUNC",
            nothing,
            |d| fs::write(d.join("new"), b"short").unwrap(),
            always("getxattr 1, setattr 1, write 1"),
        ),
        op(
            "chmod of a lower file",
            |d| stat(&d.join("f2")),
            |d| chmod(&d.join("f2")),
            always("setattr 1"),
        ),
        op(
            "chmod of a new file",
            nothing,
            |d| chmod(&d.join("new2")),
            always("setattr 1"),
        ),
        op(
            "mkdir",
            stat,
            |d| fs::create_dir(d.join("made")).unwrap(),
            always("lookup 1, mkdir 1"),
        ),
        op(
            "rmdir",
            nothing,
            |d| fs::remove_dir(d.join("made")).unwrap(),
            after_a_change("getattr 1, rmdir 1", "getattr 1, getxattr 1, rmdir 1"),
        ),
        op(
            "symlink",
            nothing,
            |d| std::os::unix::fs::symlink("f0", d.join("link")).unwrap(),
            after_a_change(
                "getattr 1, lookup 1, symlink 1",
                "getattr 1, getxattr 1, lookup 1, symlink 1",
            ),
        ),
        op(
            "readlink, again",
            |d| drop(fs::read_link(d.join("link")).unwrap()),
            |d| drop(fs::read_link(d.join("link")).unwrap()),
            always(""),
        ),
        op(
            "hard link",
            stat,
            |d| fs::hard_link(d.join("new"), d.join("hard")).unwrap(),
            always("link 1, lookup 1"),
        ),
        op(
            "unlink of a new file",
            nothing,
            |d| fs::remove_file(d.join("new2")).unwrap(),
            after_a_change("getattr 1, unlink 1", "getattr 1, getxattr 1, unlink 1"),
        ),
        op(
            "unlink of a lower file",
            |d| stat(&d.join("f3")),
            |d| fs::remove_file(d.join("f3")).unwrap(),
            always("unlink 1"),
        ),
        op(
            "rename of a new file",
            nothing,
            |d| fs::rename(d.join("hard"), d.join("hard2")).unwrap(),
            after_a_change(
                "getattr 1, lookup 1, rename 1",
                "getattr 1, getxattr 1, lookup 1, rename 1",
            ),
        ),
        op(
            "rename of a lower file (copy-up)",
            |d| stat(&d.join("f4")),
            |d| fs::rename(d.join("f4"), d.join("f4b")).unwrap(),
            always("lookup 1, rename 1"),
        ),
        op(
            "list after changes",
            nothing,
            list,
            after_a_change(
                "getattr 1, readdir 1, readdirplus 1",
                "getattr 1, getxattr 1, readdir 1, readdirplus 1",
            ),
        ),
        op(
            "stat of an unchanged file after all that",
            nothing,
            |d| stat(&d.join("f0")),
            always(""),
        ),
    ]
}

fn chmod(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
}

fn layers_for(way: Way) -> Layers {
    let layers = Layers::new(Base::Shm, 1);
    let files: String = (0..10)
        .map(|i| {
            format!(
                "echo {i} > l0/d/f{i}; echo {i} > l0/d/first/s{i}; echo {i} > l0/d/second/s{i};"
            )
        })
        .collect();
    let owner = if way.owner {
        "chown -R 1000:1000 l0 upper;"
    } else {
        ""
    };
    sh(&layers.root, &format!("mkdir -p l0/d/first l0/d/second; {files} chmod 777 upper l0 l0/d l0/d/first l0/d/second; chmod 666 l0/d/f*; {owner}")).unwrap();
    layers
}

/// The cost of every operation in one way.
fn measure(way: Way) -> Vec<(&'static str, String)> {
    let layers = layers_for(way);
    let mount = Mount::acetate(&layers, if way.acl { "" } else { "noacl" });
    let root = File::open(&layers.merged).unwrap();
    let dir = layers.at("d");
    let costs = operations()
        .into_iter()
        .map(|operation| {
            // Only an owner may chmod; the others' attempt is no operation of theirs.
            if !way.owner && operation.name.starts_with("chmod") {
                return (operation.name, "EPERM".to_owned());
            }
            as_uid(1000, || (operation.before)(&dir));
            let before = counters(&root);
            as_uid(1000, || (operation.act)(&dir));
            (operation.name, difference(&before, &counters(&root)))
        })
        .collect();
    drop(root);
    mount.unmount();
    costs
}

#[test]
fn each_operation_costs_what_the_design_says() {
    if !(require_real_root()) {
        return;
    }
    let measured: Vec<_> = WAYS.into_iter().map(measure).collect();
    let heads = ["owner", "owner, noacl", "other", "other, noacl"];
    println!("{:<42} | {}", "operation", heads.join(" | "));
    let mut wrong = Vec::new();
    for (i, operation) in operations().into_iter().enumerate() {
        let costs: Vec<_> = measured.iter().map(|m| m[i].1.as_str()).collect();
        let short: Vec<_> = costs
            .iter()
            .map(|c| format!("{} ({c})", total(c)))
            .collect();
        println!("{:<42} | {}", operation.name, short.join(" | "));
        for (way, (cost, wanted)) in costs.iter().zip(operation.cost).enumerate() {
            if cost != &wanted && *cost != "EPERM" {
                wrong.push(format!(
                    "{}, {:?}: {cost:?}, expected {wanted:?}",
                    operation.name, WAYS[way]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn total(cost: &str) -> u64 {
    cost.split_whitespace()
        .filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok())
        .sum()
}
