//! What the kernel keeps of a file against what the file system has.
//!
//! The kernel reads a file's pages once and then trusts them, because every write passes through them. So they must be
//! what a read past them (O_DIRECT) brings. They are not where one file is known by two numbers, or where a write went
//! somewhere else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::block::{self, BLOCK};
use crate::support::Snapshot;

/// Larger than any file of the stress.
const MOST: usize = 1 << 16;

/// A buffer that O_DIRECT takes.
#[repr(C, align(4096))]
struct Aligned([u8; MOST]);

fn whole(file: &File) -> io::Result<Vec<u8>> {
    let mut buffer = Box::new(Aligned([0; MOST]));
    let n = file.read_at(&mut buffer.0, 0)?;
    Ok(buffer.0[..n].to_vec())
}

/// The blocks that hold something, and whose they are.
fn blocks(bytes: &[u8]) -> String {
    let held: Vec<_> = (0u64..)
        .zip(bytes.chunks(BLOCK as usize))
        .filter(|(_, b)| b.iter().any(|&b| b != 0))
        .map(|(number, b)| match block::owner(b, number) {
            Ok(id) => format!("{number}:{id:?}"),
            Err(e) => e,
        })
        .collect();
    held.join(" ")
}

/// The files whose cached content is another than the one below.
pub fn stale(root: &Path, tree: &Snapshot) -> io::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for name in tree
        .objects
        .iter()
        .filter(|(_, o)| o.kind == 'f')
        .map(|(name, _)| name)
    {
        let path = root.join(name);
        let cached = whole(&File::open(&path)?)?;
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)?;
        let below = whole(&direct)?;
        if cached != below {
            let meta = direct.metadata()?;
            wrong.push(format!(
                "{name} (inode {}, {} bytes, {} links): kept by the kernel [{}], read past it [{}]",
                meta.ino(),
                meta.size(),
                meta.nlink(),
                blocks(&cached),
                blocks(&below)
            ));
        }
    }
    Ok(wrong)
}
