//! Workspaces where nothing can be mounted: a plain tree, and a manifest of what it
//! was written out as.
//!
//! The tree is what a mounted workspace would show, each file a copy of its own
//! (blocks are shared where the disk can; never a hard link, since it is written to).
//! What was changed is found by comparing the tree with the manifest
//! ([`crate::store::manifest`]), and is what a mounted workspace would have in its upper:
//!
//! * an object is *the same* where inode number and time of birth are, and *untouched*
//!   where its ctime is too. Untouched ones are not read. A touched one is to a copied
//!   workspace what a copied-up one is to a mounted one: it is in a commit, and it is
//!   in a diff where it differs;
//! * a directory of the layers that is still the same one is merged: what it lacks is
//!   whited out. Another one under its name hides all below it: it is opaque;
//! * everything in a directory that is new, or was moved, is taken along.
//!
//! Without the rights to keep owners (an ordinary user) everything in the tree is the
//! caller's own, and the manifest knows what the layers record: an object keeps that
//! for as long as its owner and mode on disk stay as they were written, under whatever
//! name. What is made new is the caller's.
//!
//! What is not the same as in a mounted workspace:
//!
//! * a mount copies up what was only tried (a `mkdir` of a name that is there), and has
//!   the directory in its commit; here nothing was done;
//! * a name that begins with `.wh.` and a device 0:0 can be made here, and are refused
//!   by the commit; a mount refuses to make them;
//! * an ordinary user's mount keeps no owner of a symlink: a new one is root's in the
//!   layer, here it is its maker's;
//! * where a file system gives no time of birth, a directory that was made anew with
//!   the inode number of the old one is taken for that: it hides names one by one;
//! * nothing holds a tree still: see `layer`.
//!
//! | file | what it does |
//! |---|---|
//! | `write` | layers → tree and manifest |
//! | `scan` | the tree as it is now |
//! | `changes` | what differs, for people |
//! | `layer` | what differs, as a layer |

pub mod changes;
pub mod layer;
pub mod scan;
pub mod write;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::archive::is_layers;
use crate::digest::{Digest, Hasher};
use crate::idmap::{IdExtent, IdMap, OVERFLOW_ID};
use crate::layer::acl::{self, Acl};
use crate::overlay::Entry as Shown;
use crate::overlay::options::{Options, XattrPermissions};
use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::store::manifest::{Entry, Manifest};
use crate::store::record::{Lower, WorkspaceRecord};
use crate::sys::{Errno, Kind, Name, Result, Spot, Stat, process, xattr};

use super::diff;
use super::own_files;
use super::stack;
use super::view::View;
use scan::{Found, Scan};

/// What the options of a workspace mean for a copy: only maps of ids do.
#[derive(Debug, Clone, Default)]
pub struct Maps {
    users: Vec<IdExtent>,
    groups: Vec<IdExtent>,
}

impl Maps {
    /// Reads the words for `-o`.
    ///
    /// # Errors
    /// Usage for any other option.
    pub fn of(options: &[String]) -> Outcome<Maps> {
        let mut maps = Maps::default();
        let words = options.iter().flat_map(|o| o.split(','));
        for word in words.filter(|w| !w.is_empty()) {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let map = match key {
                "uidmapping" => &mut maps.users,
                "gidmapping" => &mut maps.groups,
                _ => return Err(no_mount(key)),
            };
            *map = IdExtent::parse_list(value.as_bytes()).ok_or_else(|| no_mount(word))?;
        }
        Ok(maps)
    }

    fn ids(&self) -> (IdMap, IdMap) {
        (
            IdMap::new(self.users.clone(), None),
            IdMap::new(self.groups.clone(), None),
        )
    }
}

fn no_mount(word: &str) -> Failure {
    Failure::new(
        FailureKind::Usage,
        format!("the option {word} is for a mount, and a copy has none"),
        "leave -o out; --uidmap and --gidmap work for copies too",
    )
}

/// The view that a copy is compared with: owners are those of the layers.
fn view(store: &Store, record: &WorkspaceRecord) -> Outcome<View> {
    let owners = stack::owners(store, &record.lowers)?;
    View::keeping(&stack::trees(store, &record.lowers)?, owners)
}

/// The view that a copy is written from: owners are those that it shows.
fn mapped_view(store: &Store, record: &WorkspaceRecord) -> Outcome<View> {
    let maps = Maps::of(&record.options)?;
    let disguised = stack::is_disguised(store, &record.lowers)?;
    View::with(
        &stack::trees(store, &record.lowers)?,
        Options {
            uid_map: maps.users,
            gid_map: maps.groups,
            xattr_permissions: disguised.then_some(XattrPermissions::User),
            ..Options::default()
        },
    )
}

/// Gets at files of one's own that shut out their owner. With a live directory among
/// the layers not: in the namespace where that is possible other users have no names.
fn reach(record: &WorkspaceRecord) {
    let in_place = |l: &Lower| matches!(l, Lower::Directory { .. });
    if !record.lowers.iter().any(in_place) {
        own_files::reach();
    }
}

/// A copied workspace, looked through.
pub(super) struct Copied {
    tree: Arc<OwnedFd>,
    manifest: Manifest,
    scan: Scan,
    view: View,
    ids: (IdMap, IdMap),
    /// Whether files may have any owner here.
    keeps_owners: bool,
    shown: PathBuf,
}

/// What an object counts as, in the numbers of the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Looks {
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: (u32, u32),
}

impl Copied {
    /// Opens a workspace and looks through its tree.
    fn open(store: &Store, record: &WorkspaceRecord) -> Outcome<Copied> {
        let keeps_owners = process::keeps_every_owner();
        reach(record);
        let (tree, manifest) = store.copy(&record.name)?;
        let shown = store.copy_path(&record.name);
        let view = view(store, record)?;
        let scan = Scan::of(&tree, &shown)?;
        Ok(Copied {
            tree,
            manifest,
            scan,
            view,
            ids: Maps::of(&record.options)?.ids(),
            keeps_owners,
            shown,
        })
    }

    fn failed(&self, path: &[Name], doing: &str, e: Errno) -> Failure {
        Failure::system(&scan::shown(&self.shown, path), doing, e)
    }

    /// What the layers have at a path.
    fn before(&self, path: &[Name]) -> Option<&Entry> {
        self.manifest.at(&scan::joined(path))
    }

    /// What an object was written out as, under whatever name.
    fn origin(&self, found: &Found) -> Option<&Entry> {
        self.manifest.origin(&found.identity)
    }

    /// Whether what stands at a path is the object that was written there.
    fn is_same(&self, path: &[Name], found: &Found) -> bool {
        let before = self.before(path);
        before.is_some_and(|b| b.disk.identity == found.identity)
    }

    /// Whether nothing was done to the object that was written at a path.
    fn is_untouched(&self, path: &[Name], found: &Found) -> bool {
        let before = self.before(path);
        before
            .is_some_and(|b| b.disk.identity == found.identity && b.disk.ctime == found.stat.ctime)
    }

    /// What an object counts as: what the layers record of it as long as nobody has
    /// changed that on disk.
    fn looks(&self, found: &Found) -> Looks {
        let stat = &found.stat;
        // As a mount does where it makes something for somebody outside of its map.
        let of_layer = |map: &IdMap, id: u32| map.to_disk(id).unwrap_or(OVERFLOW_ID);
        let mut looks = Looks {
            kind: stat.kind(),
            mode: stat.mode & 0o7777,
            uid: of_layer(&self.ids.0, stat.uid),
            gid: of_layer(&self.ids.1, stat.gid),
            rdev: stat.rdev,
        };
        let Some(origin) = self.origin(found) else {
            return looks;
        };
        let disk = &origin.disk;
        let stands_in = matches!(origin.kind, Kind::Char | Kind::Block)
            && looks.kind == Kind::File
            && stat.size == 0;
        if stands_in {
            looks.kind = origin.kind;
            looks.rdev = origin.rdev;
        }
        if looks.mode == disk.mode {
            looks.mode = origin.mode;
            // The set-ID bits could not be on disk, where a write would have taken
            // them away (setattr_should_drop_suidgid() in fs/attr.c).
            if disk.mode != origin.mode && looks.kind == Kind::File && was_written(origin, found) {
                looks.mode &= match looks.mode & 0o010 {
                    0 => !0o4000,
                    _ => !0o6000,
                };
            }
        }
        if stat.uid == disk.uid {
            looks.uid = origin.uid;
        }
        if stat.gid == disk.gid {
            looks.gid = origin.gid;
        }
        looks
    }

    /// An object's place.
    fn spot(&self, path: &[Name]) -> Result<Spot> {
        match path.split_last() {
            None => Ok(Spot::fd(self.tree.clone())),
            Some((name, above)) => Ok(Spot::at(diff::below(&self.tree, above)?, name.clone())),
        }
    }

    /// An object's xattrs in the numbers of the layers: those on disk, and those of its
    /// origin that an ordinary user's copy could not be given.
    fn xattrs(&self, path: &[Name], found: &Found) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut xattrs = on_disk(&self.spot(path)?)?;
        let (users, groups) = &self.ids;
        let mapped = !users.is_identity() || !groups.is_identity();
        let is_acl = |name: &[u8]| name == acl::ACCESS || name == acl::DEFAULT;
        for (_, value) in xattrs.iter_mut().filter(|(name, _)| mapped && is_acl(name)) {
            *value = Acl::to_disk(value, users, groups).ok_or(Errno::EOVERFLOW)?;
        }
        let Some(origin) = self.origin(found).filter(|_| !self.keeps_owners) else {
            return Ok(xattrs);
        };
        // The kernel takes capabilities away from a file that is written to.
        let written = was_written(origin, found);
        let way = origin.path.split(|b| *b == b'/').filter(|c| !c.is_empty());
        let Some(entry) = self.view.at(way)? else {
            return Ok(xattrs);
        };
        for (name, value) in shown_by(&self.view, &entry)? {
            let by_root_only = name.starts_with(b"trusted.") || name.starts_with(b"security.");
            let gone = name == b"security.capability" && written;
            if by_root_only && !gone && xattrs.iter().all(|(n, _)| *n != name) {
                xattrs.push((name, value));
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }

    /// Whether a file holds what the layers have at its path.
    fn same_data(&self, path: &[Name], stat: &Stat) -> Result<bool> {
        let Some(entry) = self.view.at(path.iter().map(|n| &n[..]))? else {
            return Ok(false);
        };
        if entry.node.kind != Kind::File || entry.attr.stat.size != stat.size {
            return Ok(false);
        }
        let data = self.view.data(&entry.node)?;
        let own = self.spot(path)?.open(OFlags::RDONLY | OFlags::NONBLOCK)?;
        let same = diff::same_bytes(data.as_fd(), own.as_fd())?;
        self.view.release(entry);
        Ok(same)
    }
}

/// Whether a file's data was changed since it was written out, as far as its size and
/// time tell.
fn was_written(origin: &Entry, found: &Found) -> bool {
    origin.size != found.stat.size || origin.mtime != found.stat.mtime
}

/// The xattrs of an object on disk that are a layer's business, sorted.
fn on_disk(spot: &Spot) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let list = xattr::list(spot)?;
    let mut found = Vec::new();
    for name in xattr::names(&list).filter(|n| is_layers(n)) {
        if let Some(value) = xattr::get(spot, name)? {
            found.push((name.to_vec(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The same of an object of the view.
fn shown_by(view: &View, entry: &Shown) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut xattrs = view.xattrs(&entry.node)?;
    xattrs.retain(|(name, _)| is_layers(name));
    Ok(xattrs)
}

/// One digest for a list of xattrs; `None` where there are none.
fn digest(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Option<Digest> {
    if xattrs.is_empty() {
        return None;
    }
    let mut hasher = Hasher::default();
    for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Some(hasher.finish())
}
