//! From a layer's tree to the canonical archive: the same tree, the same bytes.
//!
//! # The form (formats 3.5)
//! * A directory comes before what is in it; within one directory first
//!   `.wh..wh..opq`, then the whiteouts, then the objects, each by the bytes of their
//!   names. The root has an entry (`./`) only where it is not 0755 of 0:0 with time 0
//!   and no xattrs: an empty layer is an empty archive.
//! * ustar headers, with a PAX header before one only where it says something that
//!   ustar cannot: long names, large numbers, times with fractions (kept, since they
//!   are a part of the layer; [`Times`] can cap them), xattrs as `SCHILY.xattr.`, ACLs
//!   also as `SCHILY.acl.` (which counts is the same: both say one thing).
//! * No names of users, no access times, no sparse entries: holes are zeros, and
//!   become holes again when unpacked.
//! * Names of one file are hard links to the first of them in this order, if they are
//!   in the tree.
//! * A whiteout is an empty file of mode 0, owner 0:0 and time 0. In an opaque directory
//!   and below it there are none: there is nothing left for them to hide.
//! * Two blocks of zeros at the end and nothing else.
//!
//! Marks of overlay file systems are turned into whiteouts or left out; escaped names
//! get their own back. A tree with redirects or metacopy files cannot stand alone and
//! is refused, unless the caller says that it does.
//!
//! The tree is read by (directory, name) only, without following anything; it must not
//! change meanwhile, and where it is seen to, that is an error.

mod listing;
mod object;

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::encode::{self, Head};
use super::error::{For, Result};
use super::output::{Compress, Output, with_output};
use super::owners::Owners;
use super::trail::Trail;
use super::unpack::EMPTY;
use crate::digest::Digest;
use crate::layer::records::SideRecords;
use crate::sys::{ObjectId, Spot, Timespec, file};
use listing::Listing;

/// What is done about redirects and metacopy files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Redirects {
    /// They are an error: what they mean lies in other layers.
    #[default]
    Refuse,
    /// The caller has resolved them: the marks that are left mean nothing.
    Resolved,
}

/// Which times an archive gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Times {
    /// Those of the tree, to the nanosecond.
    #[default]
    Exact,
    /// None later than this many seconds after the epoch (SOURCE_DATE_EPOCH), and
    /// whole seconds.
    NotAfter(i64),
}

/// How to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackOptions {
    /// How the tree keeps owners. What has no record in a tree of
    /// [`Owners::Recorded`] is root's.
    pub owners: Owners,
    /// The tree's side records.
    pub records: SideRecords,
    /// What is done about redirects and metacopy files.
    pub redirects: Redirects,
    /// Which times the archive gets.
    pub times: Times,
    /// Compression of what is written.
    pub compress: Compress,
    /// Paths that are left out with all below them (stubs of mount points).
    pub exclude: BTreeSet<Vec<u8>>,
}

impl PackOptions {
    /// The canonical archive, uncompressed, of a tree without side records.
    pub fn new(owners: Owners) -> Self {
        PackOptions {
            owners,
            records: SideRecords::default(),
            redirects: Redirects::default(),
            times: Times::default(),
            compress: Compress::default(),
            exclude: BTreeSet::new(),
        }
    }
}

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Its size.
    pub size: u64,
    /// Digest of what was written, compressed or not.
    pub blob: Digest,
    /// Its size.
    pub blob_size: u64,
    /// How many entries the archive has.
    pub entries: u64,
}

/// Writes the canonical archive of a layer's tree.
///
/// # Errors
/// What was written is then no archive: it lacks its end.
pub fn pack(
    tree: BorrowedFd<'_>,
    out: impl Write + Send,
    options: &PackOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Packed> {
    let (entries, written) = with_output(out, options.compress, |output| {
        let root = Arc::new(file::duplicate(tree).doing("open", b"")?);
        let mut packer = Packer {
            trail: Trail::new(root.clone(), Listing::default()).doing("open", b"")?,
            output,
            options,
            path: Vec::new(),
            links: HashMap::new(),
            header: Vec::new(),
            entries: 0,
        };
        packer.root(&Spot::fd(root))?;
        while packer.step()? {
            progress(packer.entries);
        }
        packer.output.bytes(&EMPTY)?;
        Ok(packer.entries)
    })?;
    let ((diff_id, size), (blob, blob_size)) = (written.tar, written.blob);
    Ok(Packed {
        diff_id,
        size,
        blob,
        blob_size,
        entries,
    })
}

struct Packer<'a> {
    trail: Trail<Listing>,
    output: &'a mut Output,
    options: &'a PackOptions,
    /// Of the deepest directory; empty for the root, else ends with `/`.
    path: Vec<u8>,
    /// Files with names still to come: the first name, and how many are missing.
    links: HashMap<ObjectId, (Vec<u8>, u32)>,
    /// A header that is being written.
    header: Vec<u8>,
    entries: u64,
}

impl Packer<'_> {
    /// The next object, or one directory up; whether there is more.
    fn step(&mut self) -> Result<bool> {
        if let Some(name) = self.trail.here_mut().next_name() {
            self.object(&name)?;
            return Ok(true);
        }
        let left = self.trail.leave().doing("leave", &self.path)?;
        let Some((_, listing)) = left else {
            return Ok(false);
        };
        self.path.truncate(listing.parent_path());
        Ok(true)
    }

    /// Lists the directory that was just entered, and writes its whiteouts.
    fn begin_directory(&mut self, opaque: crate::layer::mark::Opaque) -> Result<()> {
        let dir = self.trail.spot().doing("open", &self.path)?;
        let mut listing = Listing::read(&dir, opaque).doing("list", &self.path)?;
        if listing.continue_from(self.trail.here()) {
            self.whiteout(b".wh..opq")?;
        }
        for name in listing.take_whiteouts() {
            self.whiteout(&name)?;
        }
        *self.trail.here_mut() = listing;
        Ok(())
    }

    /// Writes the marker of a whiteout.
    fn whiteout(&mut self, name: &[u8]) -> Result<()> {
        let path = [&self.path[..], b".wh.", name].concat();
        if self.options.exclude.contains(&path) {
            return Ok(());
        }
        self.write(&Head {
            path: &path,
            flag: b'0',
            link: b"",
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timespec::default(),
            rdev: (0, 0),
            xattrs: &[],
        })
    }

    fn write(&mut self, head: &Head<'_>) -> Result<()> {
        self.header.clear();
        encode::header(&mut self.header, head)?;
        self.entries = self.entries.saturating_add(1);
        self.output.bytes(&self.header)
    }
}
