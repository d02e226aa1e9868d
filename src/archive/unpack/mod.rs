//! From an archive to a layer's tree.
//!
//! The tree is the layer's own and empty at first; nothing else is ever reached: each
//! step is one component in an open directory, no symlink is followed but those of
//! the archive itself, and those only as parents and only within the tree. Any error
//! means that the tree is to be thrown away as a whole; the caller, who made it aside,
//! does that.
//!
//! # Rules
//! * **Names**: see [`classify`]. Later entries replace earlier ones of the same name,
//!   whatever their types; a directory that meets a directory keeps its content and
//!   gets the new attributes.
//! * **Parents** that are missing are made: 0755, owner 0:0, time 0, so that the same
//!   archive gives the same tree on any day. A parent that is a relative symlink
//!   within the tree is followed, as GNU tar and the container tools do; one that is
//!   absolute, leads out, or leads nowhere is refused, and so is one that is a file.
//! * **Hard links** mean an earlier entry, found without following anything.
//! * **Whiteouts** hide what layers below have, never an entry of this archive,
//!   wherever they stand in it. A whiteout of a name that the archive also has: a
//!   directory becomes opaque, anything else hides what is below by itself. For the
//!   same reason a directory that takes the place of something else is opaque. A
//!   whiteout below a whiteout or a file says nothing more, and neither a whiteout nor
//!   an opaque marker says that the directory around it is there: a parent that only
//!   they have brought goes where something above it hides the layers below anyway.
//! * **Attributes**: owner, then mode (chown takes setuid away), then xattrs
//!   (capabilities last for the same reason), then times; a directory's time once more
//!   when its content is done. Private names of overlay file systems are kept escaped
//!   ([`reserved`]); what a mount would take for its own bookkeeping in
//!   `user.containers.override_` and `user.fuseoverlayfs.` is dropped.
//! * **Files**: holes of sparse files stay holes, and so do long runs of zeros.

mod keep;
mod object;
mod place;

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::error::{Error, For, Result};
use super::input::{Digests, Input, Totals};
use super::limits::{BLOCK, ENTRIES_MAX};
use super::owners::Owners;
use super::path::{Target, classify};
use super::reader::{Entry, EntryKind, Reader};
use super::trail::Trail;
use crate::layer::acl;
use crate::layer::records::SideRecords;
#[cfg(doc)]
use crate::layer::reserved;
use crate::sys::probe::{self, WhiteoutKind};
use crate::sys::{self, Errno, Kind, Spot, Timespec, dir, file, xattr};
use keep::{Keeper, State, Subject};

/// Whether the tree is on disk when unpacking returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// The caller does it, or does not care.
    No,
    /// One syncfs(2) at the end: far cheaper than one fsync(2) a file.
    AtEnd,
}

/// How to unpack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackOptions {
    /// How owners are kept.
    pub owners: Owners,
    /// Whether the tree is synced.
    pub sync: Sync,
    /// Whether the archive's own digests are wanted.
    pub digests: Digests,
    /// The most entries that are taken.
    pub max_entries: u64,
}

impl UnpackOptions {
    /// With the usual limit and all digests, and synced.
    pub fn new(owners: Owners) -> Self {
        UnpackOptions {
            owners,
            sync: Sync::AtEnd,
            digests: Digests::Count,
            max_entries: ENTRIES_MAX,
        }
    }
}

/// How far unpacking is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Bytes read of the source, compressed as it is.
    pub source_bytes: u64,
    /// Bytes of the uncompressed archive that are done.
    pub tar_bytes: u64,
    /// Entries that are done.
    pub entries: u64,
    /// The entry at work.
    pub path: &'a [u8],
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digests, sizes and compression of the source.
    pub totals: Totals,
    /// How many entries it had.
    pub entries: u64,
    /// What the tree cannot say itself.
    pub records: SideRecords,
}

/// Unpacks an archive, plain or compressed, into the empty directory `into`.
///
/// `progress` is called for every entry.
///
/// # Errors
/// Any error leaves a part of a tree that is good for nothing.
pub fn unpack(
    source: impl Read + Send + 'static,
    into: BorrowedFd<'_>,
    options: &UnpackOptions,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<Unpacked> {
    let input = Input::new(source, options.digests).map_err(Error::Source)?;
    let mut reader = Reader::new(input).with_max_entries(options.max_entries);
    let mut unpacker = Unpacker::new(into, options)?;
    let mut entries = 0u64;
    while let Some(entry) = reader.next_entry()? {
        progress(&Progress {
            source_bytes: reader.input().source_bytes(),
            tar_bytes: reader.offset(),
            entries,
            path: &entry.path,
        });
        unpacker.take(&mut reader, &entry)?;
        entries = entries.saturating_add(1);
    }
    let records = unpacker.finish()?;
    if options.sync == Sync::AtEnd {
        file::sync_fs(into).doing("sync", b"")?;
    }
    let totals = reader.input().totals();
    let totals = totals.ok_or(Error::Bug("the end of an archive was not reached"))?;
    Ok(Unpacked {
        totals,
        entries,
        records,
    })
}

/// What is known of a directory of the trail.
#[derive(Debug, Clone, Copy)]
struct Here {
    /// The time it is to have.
    mtime: Timespec,
    /// Something was made or removed in it, which changed its time.
    touched: bool,
    /// What is made in it belongs to us, our group and has the mode asked for; no
    /// set-gid bit, other group or default ACL changes that.
    plain: bool,
}

/// How whiteouts and opaque marks are written here.
#[derive(Debug, Clone, Copy)]
struct Marks {
    whiteouts: WhiteoutKind,
    /// Prefix of the xattrs; `None` where the file system keeps none.
    prefix: Option<&'static str>,
}

struct Unpacker {
    root: Arc<OwnedFd>,
    trail: Trail<Here>,
    /// Another way down, for the targets of hard links.
    links: Trail<()>,
    marks: Marks,
    keeper: Keeper,
    /// Directories that whiteouts alone have brought, by path.
    for_whiteouts: HashSet<Vec<u8>>,
    /// Some directory is opaque.
    any_opaque: bool,
    /// Some directory has a default ACL: those that are entered are asked.
    default_acls: bool,
    /// The path of the entry at work, for errors.
    entry: Vec<u8>,
}

impl Unpacker {
    fn new(into: BorrowedFd<'_>, options: &UnpackOptions) -> Result<Unpacker> {
        let root = Arc::new(file::duplicate(into).doing("open", b"")?);
        let mut entries = 0usize;
        dir::list(root.as_fd(), |_| entries += 1).doing("list", b"")?;
        if entries > 0 {
            return Err(Error::unfit(
                b"",
                "the directory to unpack into is not empty",
            ));
        }
        drop_inherited_acls(&root)?;
        let epoch = Timespec::default();
        let here = Here {
            mtime: epoch,
            touched: true,
            plain: false,
        };
        let mut unpacker = Unpacker {
            marks: Marks::probe(&root)?,
            keeper: Keeper::new(&root, options.owners.clone()),
            trail: Trail::new(root.clone(), here).doing("open", b"")?,
            links: Trail::new(root.clone(), ()).doing("open", b"")?,
            root,
            for_whiteouts: HashSet::new(),
            any_opaque: false,
            default_acls: false,
            entry: Vec::new(),
        };
        // Whoever made the directory: an archive that does not name the root gives
        // the same layer everywhere.
        unpacker.root_entry(&made_parent())?;
        Ok(unpacker)
    }

    fn take(&mut self, reader: &mut Reader<Input>, entry: &Entry) -> Result<()> {
        self.entry.clone_from(&entry.path);
        let target = classify(&entry.path).map_err(|bad| Error::refused(&entry.path, bad))?;
        match (target, entry.kind) {
            (Target::Ignored, _) => Ok(()),
            (Target::Root, EntryKind::Object(Kind::Dir)) => self.root_entry(entry),
            (Target::Root, _) => Err(self.refused("it would replace the layer's root")),
            (Target::Whiteout { dirs, name }, _) => self.whiteout(&dirs, name),
            (Target::Opaque { dir }, _) => self.opaque(&dir),
            (Target::Object { dirs, name }, EntryKind::HardLink) => {
                self.hard_link(entry, &dirs, name)
            }
            (Target::Object { dirs, name }, EntryKind::Object(kind)) => {
                self.go_for_object(&dirs)?;
                self.object(reader, entry, kind, name)
            }
        }
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        while self.trail.depth() > 0 {
            self.leave()?;
        }
        let spot = Spot::fd(self.root.clone());
        let subject = Subject {
            path: b"",
            made: Kind::Dir,
            kind: Kind::Dir,
            state: State::Old,
            plain_parent: false,
        };
        self.keeper
            .apply(&keep::Handle::Spot(&spot), &subject, entry)?;
        self.note_default_acl(entry);
        *self.trail.here_mut() = Here {
            mtime: entry.mtime,
            touched: true,
            plain: self.is_plain(&spot)?,
        };
        Ok(())
    }

    /// All directories left with the times they are to have.
    fn finish(mut self) -> Result<SideRecords> {
        self.drop_covered()?;
        while self.trail.depth() > 0 {
            self.leave()?;
        }
        self.restore_time()?;
        Ok(self.keeper.into_records())
    }

    fn refused(&self, what: impl Into<String>) -> Error {
        Error::refused(&self.entry, what)
    }

    fn note_default_acl(&mut self, entry: &Entry) {
        self.default_acls |= entry.xattrs.iter().any(|(name, _)| name == acl::DEFAULT);
    }
}

/// What a missing parent is made like.
fn made_parent() -> Entry {
    Entry {
        path: Vec::new(),
        kind: EntryKind::Object(Kind::Dir),
        link: Vec::new(),
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timespec::default(),
        rdev: (0, 0),
        size: 0,
        xattrs: Vec::new(),
    }
}

/// A default ACL of the store's directory would be given to all that is unpacked.
fn drop_inherited_acls(root: &Arc<OwnedFd>) -> Result<()> {
    let spot = Spot::fd(root.clone());
    for name in [acl::ACCESS, acl::DEFAULT] {
        match xattr::remove(&spot, name) {
            Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
            r => r.doing("remove the inherited ACL of", b"")?,
        }
    }
    Ok(())
}

impl Marks {
    fn probe(root: &Arc<OwnedFd>) -> Result<Marks> {
        let whiteouts = probe::whiteout_kind(root.as_fd()).doing("make a whiteout in", b"")?;
        let spot = Spot::fd(root.clone());
        let works = |prefix: &&str| {
            let name = format!("{prefix}acetate-probe").into_bytes();
            xattr::set(&spot, &name, b"y", 0).is_ok() && xattr::remove(&spot, &name).is_ok()
        };
        let prefix = ["trusted.overlay.", "user.overlay."]
            .into_iter()
            .find(works);
        if whiteouts == WhiteoutKind::Xattr && prefix.is_none() {
            let what = "its file system can hold no whiteouts";
            return Err(Error::unfit(b"", what));
        }
        Ok(Marks { whiteouts, prefix })
    }

    fn set(&self, spot: &Spot, mark: &str, value: &[u8]) -> sys::Result<()> {
        let prefix = self.prefix.ok_or(Errno::EOPNOTSUPP)?;
        xattr::set(spot, format!("{prefix}{mark}").as_bytes(), value, 0)
    }
}

/// An empty archive is two blocks of zeros.
pub const EMPTY: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
