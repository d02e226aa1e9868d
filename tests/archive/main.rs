//! Layers as tar: unpacked, packed, attacked, and compared with what other tools make.
//!
//! | file | what it proves |
//! |---|---|
//! | `attacks.rs` | hostile archives: an error that names the entry, nothing outside touched |
//! | `damage.rs` | archives cut short, corrupted, padded, concatenated |
//! | `kept.rs` | owners with and without root, what only records can say |
//! | `limits.rs` | memory, a million entries, sparse files, a full disk |
//! | `measure.rs` | how fast, beside GNU tar (only when asked for) |
//! | `oracles.rs` | GNU tar, bsdtar, Python's tarfile and kernel overlayfs, both ways |
//! | `reports.rs` | what users of other tools reported |
//! | `roundtrip.rs` | the same tree, the same bytes; every form of compression |
//! | `rules.rs` | whiteouts, duplicates, type changes, parents, links, sparse forms |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod craft;
mod damage;
mod kept;
mod limits;
mod measure;
mod oracles;
mod reports;
mod roundtrip;
mod rules;

use std::io::Cursor;
use std::os::fd::AsFd;
use std::path::Path;

use acetate::archive::{
    Error, Ids, Owners, PackOptions, SideRecords, Sync, UnpackOptions, Unpacked, pack, unpack,
};
use acetate::sys::dir;
use support::{Base, Snapshot};

/// Owners as they are.
pub fn real() -> Owners {
    Owners::Real(Ids::default())
}

/// A directory for one test, on the disk of the tests' layers.
pub fn temp() -> tempfile::TempDir {
    tempfile::tempdir_in(Base::Disk.dir()).unwrap()
}

/// Unpacks into an empty directory.
pub fn unpack_into(bytes: &[u8], into: &Path, owners: Owners) -> Result<Unpacked, Error> {
    let options = UnpackOptions {
        sync: Sync::No,
        ..UnpackOptions::new(owners)
    };
    let root = dir::open_root(into).unwrap();
    unpack(
        Cursor::new(bytes.to_vec()),
        root.as_fd(),
        &options,
        &mut |_| {},
    )
}

/// Unpacks, with real owners, into a new directory.
pub fn unpacked(bytes: &[u8]) -> tempfile::TempDir {
    let into = temp();
    unpack_into(bytes, into.path(), real()).unwrap_or_else(|e| panic!("{e}"));
    into
}

/// Packs a tree.
pub fn pack_with(tree: &Path, options: &PackOptions) -> Result<Vec<u8>, Error> {
    let root = dir::open_root(tree).unwrap();
    let mut bytes = Vec::new();
    pack(root.as_fd(), &mut bytes, options, &mut |_| {})?;
    Ok(bytes)
}

/// Packs a tree with real owners.
pub fn packed(tree: &Path) -> Vec<u8> {
    pack_with(tree, &PackOptions::new(real())).unwrap_or_else(|e| panic!("{e}"))
}

/// Packs a tree whose owners are recorded.
pub fn packed_recorded(tree: &Path, records: SideRecords) -> Vec<u8> {
    let options = PackOptions {
        records,
        ..PackOptions::new(Owners::Recorded)
    };
    pack_with(tree, &options).unwrap_or_else(|e| panic!("{e}"))
}

/// Unpacks what must not be taken; what the error says.
///
/// Beside the tree stand files that an attack would like to reach; they must be as
/// before, and nothing new may stand there.
pub fn refused(bytes: &[u8]) -> String {
    let outside = temp();
    let tree = outside.path().join("store/tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::create_dir(outside.path().join("victims")).unwrap();
    for name in ["victims/secret", "passwd", "store/passwd"] {
        std::fs::write(outside.path().join(name), "old").unwrap();
    }
    let before = around(outside.path(), &tree);
    let error = match unpack_into(bytes, &tree, real()) {
        Ok(_) => panic!("the archive was taken: {:?}", Snapshot::of(&tree).names()),
        Err(e) => e.to_string(),
    };
    assert_eq!(before, around(outside.path(), &tree), "something outside");
    error
}

/// All but the tree, with contents, link counts and times.
fn around(outside: &Path, tree: &Path) -> Vec<String> {
    let moved = outside.join("aside");
    std::fs::rename(tree, &moved).unwrap();
    let mut all = Snapshot::of(outside);
    std::fs::rename(&moved, tree).unwrap();
    // The two renames themselves change these.
    all.objects
        .retain(|name, _| name != "." && name != "store" && !name.starts_with("aside"));
    all.objects
        .iter()
        .map(|(name, o)| format!("{name} {} {} {:?}", o.content, o.nlink, o.mtime))
        .collect()
}
