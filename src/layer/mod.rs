//! What a layer is: a directory tree with marks.
//!
//! Shared by the engine now and by the store later. A layer is reached only by
//! (directory descriptor, one component); symlinks in it are data. Marks
//! (whiteouts, opaque, redirects) are read in every dialect of [`mark`] and
//! never shown. This folder knows no inode numbers of the merged view and no
//! locks.

pub mod acl;
pub mod disguise;
pub mod escape;
pub mod mark;
pub mod records;
pub mod reserved;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::sys::dir::{self, Cross};
use crate::sys::{Errno, Kind, Name, ObjectId, Result, Spot, Stat};
use mark::{Marks, Opaque};

/// Position of a layer: 0 is the upper, lowers follow from 1, uppermost first.
pub type LayerId = u16;

/// The upper's [`LayerId`], also where a mount has none.
pub const UPPER: LayerId = 0;

/// One layer of a mount, held by a descriptor taken before the mount.
#[derive(Debug)]
pub struct Layer {
    /// Its position.
    pub id: LayerId,
    /// Its root.
    pub root: Arc<OwnedFd>,
    /// The root's attributes when the layer was opened.
    pub root_stat: Stat,
    /// Number of its file system among those of the mount, from 0.
    pub fs: u8,
    /// Never merged; only data of metacopy files is found in it.
    pub data_only: bool,
    /// Owner and mode may stand in an xattr (see [`disguise`]).
    pub disguised: bool,
    /// What stands beside the layer, where a mount was given it.
    pub beside: Option<records::SideTable>,
    /// Whether mounts below the root are entered.
    pub cross: Cross,
    /// Where they are, and the layer is no clone: the mounts there were when it was
    /// opened. Later ones, our own and those that show us, are not entered, or a
    /// request could wait for itself.
    pub entered: Option<HashSet<u64>>,
    /// UUID of its file system, for origin xattrs.
    pub uuid: [u8; 16],
    /// The directories above its root, as the user's path led to it.
    pub above: Vec<ObjectId>,
    /// Its file system lists whatever it finds, and no other is met below the root.
    pub lists_all: bool,
    /// A marker in its root hides the layers below altogether. What kernel overlayfs does
    /// not know, in a root: the `opaque` attribute, which means nothing there.
    pub hides_below: bool,
    /// Empty files in its root may be whiteouts.
    pub xattr_whiteouts: bool,
    /// Another layer's file system has the same UUID (cloned images), or it is a
    /// FUSE one: handles do not tell its objects apart.
    pub ambiguous: bool,
}

/// An object that a probe found.
#[derive(Debug)]
pub struct Object {
    /// Its attributes on disk (not undisguised).
    pub stat: Stat,
    /// What its private xattrs say.
    pub marks: Marks,
    /// Something else is mounted here; what lies below is not ours to show.
    pub mount_point: bool,
}

/// What a layer has under a name.
#[derive(Debug)]
pub enum Probe {
    /// Nothing: the layer below decides.
    Absent,
    /// A whiteout: nothing below is seen.
    Whiteout,
    /// An object.
    Object(Box<Object>),
}

/// How a user's directory is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// A lower: a private clone of its mount where permitted, so that nothing
    /// mounted below it is seen.
    Lower(Cross),
    /// The upper or work: as it stands, since links between both need one mount.
    Upper,
}

impl Layer {
    /// Opens a layer's root by the user's path (symlinks followed).
    pub fn open(id: LayerId, path: &Path, how: Hold, known: &mut Known) -> Result<Layer> {
        let mut root = Arc::new(dir::open_root(path)?);
        // Asked before a clone is taken: there is nothing above that one's root.
        let above = known.ancestors(&root);
        let mut entered = None;
        let cross = match how {
            // With `Follow` too: what is mounted later, our own mount and others
            // that show us among it, must never be met (no circle can close).
            Hold::Lower(cross) => {
                match dir::clone_mount(root.as_fd(), cross) {
                    Ok(clone) => root = Arc::new(clone),
                    Err(_) if cross == Cross::Follow => entered = Some(mounts_now()),
                    Err(_) => {}
                }
                cross
            }
            Hold::Upper => Cross::Refuse,
        };
        if how == Hold::Upper && !crate::sys::mount::is_local(root.as_fd()) {
            crate::sys::stat::ask_servers();
        }
        let root_stat = Spot::fd(root.clone()).stat()?;
        if root_stat.kind() != Kind::Dir {
            return Err(Errno::ENOTDIR);
        }
        let fs = known.file_system(root_stat.dev, &root);
        let marks = Marks::read(&Spot::fd(root.clone()))?;
        Ok(Layer {
            hides_below: opaque_by_file(root.as_fd(), b".")?,
            xattr_whiteouts: marks.opaque == Opaque::MayHoldXattrWhiteouts,
            id,
            root,
            root_stat,
            fs: 0,
            data_only: false,
            disguised: false,
            beside: None,
            cross,
            entered,
            uuid: fs.uuid,
            above,
            ambiguous: fs.ambiguous,
            lists_all: fs.lists_all && cross == Cross::Refuse,
        })
    }

    /// Looks a name up in one directory of this layer.
    ///
    /// `below`: whether any layer lies below, so that opaque marks matter.
    /// `xattr_whiteouts`: the directory says that it may hold whiteouts as xattrs.
    pub fn probe(
        &self,
        dir: &Arc<OwnedFd>,
        name: &Name,
        below: bool,
        xattr_whiteouts: bool,
    ) -> Result<Probe> {
        if mark::is_dot_wh(name) {
            return Ok(Probe::Absent);
        }
        let dot_wh = |layer_has: bool| -> Result<bool> {
            Ok(layer_has && below && has_dot_wh(dir.as_fd(), name)?)
        };
        let Some(stat) = dir::probe(dir.as_fd(), name)? else {
            return Ok(if dot_wh(true)? {
                Probe::Whiteout
            } else {
                Probe::Absent
            });
        };
        if stat.is_whiteout() {
            return Ok(Probe::Whiteout);
        }
        let mount_point = self.shut(&stat);
        let spot = Spot::at(dir.clone(), name.clone());
        let kind = stat.kind();
        let mut marks = if mount_point {
            Marks::default()
        } else {
            Marks::read(&spot)?
        };
        if marks.whiteout && kind == Kind::File && stat.size == 0 && xattr_whiteouts {
            return Ok(Probe::Whiteout);
        }
        if kind == Kind::Dir && below && !mount_point && marks.opaque != Opaque::Yes {
            let by_file = opaque_by_file(dir.as_fd(), name)? || dot_wh(true)?;
            if by_file {
                marks.opaque = Opaque::Yes;
            }
        }
        Ok(Probe::Object(Box::new(Object {
            stat,
            marks,
            mount_point,
        })))
    }

    /// Whether a stat is of another mount than this layer's root.
    pub fn foreign(&self, s: &Stat) -> bool {
        if s.mnt_id == 0 || self.root_stat.mnt_id == 0 {
            return s.dev != self.root_stat.dev;
        }
        s.mnt_id != self.root_stat.mnt_id
    }

    /// Whether a stat is of a mount that is not entered.
    pub fn shut(&self, s: &Stat) -> bool {
        match (self.cross, &self.entered) {
            (Cross::Refuse, _) => self.foreign(s),
            (Cross::Follow, Some(entered)) => self.foreign(s) && !entered.contains(&s.mnt_id),
            (Cross::Follow, None) => false,
        }
    }

    /// Opens a subdirectory as O_PATH. A mount point gives EXDEV.
    pub fn open_dir(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
        let fd = dir::open_dir_at(dir, name, self.cross)?;
        if self.entered.is_some() && self.shut(&crate::sys::stat::of_descriptor(fd.as_fd())?) {
            return Err(Errno::EXDEV);
        }
        Ok(fd)
    }
}

/// The mounts there are, FUSE's apart: an ordinary user's own is made before the
/// layers are opened.
fn mounts_now() -> HashSet<u64> {
    crate::sys::mountinfo::read()
        .unwrap_or_default()
        .into_iter()
        .filter(|line| !line.fstype.starts_with("fuse"))
        .map(|line| line.id)
        .collect()
}

/// Whether `dir` holds `.wh.NAME`. A name too long for the prefix has none.
pub fn has_dot_wh(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    let Some(wh) = mark::dot_wh_name(name) else {
        return Ok(false);
    };
    Ok(dir::probe(dir, &wh)?.is_some())
}

/// Whether the directory `name`, or `dir` itself (`.`), holds one of the AUFS opaque markers.
fn opaque_by_file(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    for marker in mark::OPAQUE_FILES {
        let mut path = name.to_vec();
        path.push(b'/');
        path.extend_from_slice(marker);
        // The one path of two components: `name` was just seen to be a
        // directory, and only existence is asked for.
        if dir::probe(dir, &path)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What layers of one mount have in common, asked once: hundreds of them mostly stand
/// side by side. Kept only while they are opened.
#[derive(Debug, Default)]
pub struct Known {
    /// What lies above a directory, by it and its mount's id.
    above: HashMap<(ObjectId, u64), Vec<ObjectId>>,
    /// By st_dev.
    file_systems: HashMap<u64, FileSystem>,
}

/// What is the same for all layers of one file system.
#[derive(Debug, Clone, Copy)]
struct FileSystem {
    uuid: [u8; 16],
    /// Handles tell nothing.
    ambiguous: bool,
    lists_all: bool,
}

impl Known {
    fn ancestors(&mut self, dir: &Arc<OwnedFd>) -> Vec<ObjectId> {
        let Some((parent, s)) = Spot::fd(dir.clone())
            .stat()
            .ok()
            .and_then(|s| directory_above(dir, &s))
        else {
            return Vec::new();
        };
        let id = ObjectId::of(&s);
        let above = self.above.entry((id, s.mnt_id));
        let above = above.or_insert_with(|| all_above(parent, s));
        std::iter::once(id).chain(above.iter().copied()).collect()
    }

    fn file_system(&mut self, device: u64, root: &Arc<OwnedFd>) -> FileSystem {
        let ask = || FileSystem {
            uuid: crate::sys::uuid::of_file_system(root.as_fd()),
            // A FUSE handle is the number that the server gave for this mount's life:
            // another file may have it in the next.
            ambiguous: crate::sys::mount::is_fuse(root.as_fd()),
            lists_all: crate::sys::mount::lists_all(root.as_fd()),
        };
        *self.file_systems.entry(device).or_insert_with(ask)
    }
}

/// The directory above one and its attributes; `None` at the root of the mount tree.
fn directory_above(dir: &Arc<OwnedFd>, s: &Stat) -> Option<(Arc<OwnedFd>, Stat)> {
    let up = Spot::at(dir.clone(), Name::from(&b".."[..]))
        .open(rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY);
    let up = Arc::new(up.ok()?);
    let above = Spot::fd(up.clone()).stat().ok()?;
    let same = crate::sys::stat::same_object(&above, s) && above.mnt_id == s.mnt_id;
    (!same).then_some((up, above))
}

/// The directories above `dir`, itself apart.
fn all_above(dir: Arc<OwnedFd>, s: Stat) -> Vec<ObjectId> {
    let (mut out, mut at, mut last) = (Vec::new(), dir, s);
    for _ in 0..4096 {
        let Some((up, s)) = directory_above(&at, &last) else {
            break;
        };
        out.push(ObjectId::of(&s));
        (at, last) = (up, s);
    }
    out
}
