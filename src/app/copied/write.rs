//! Writing a workspace out: its tree, and the manifest that says what that was.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::overlay::Entry as Shown;
use crate::store::Store;
use crate::store::failure::{Failure, Outcome};
use crate::store::layout;
use crate::store::manifest::{Entry, Identity, Manifest};
use crate::store::record::WorkspaceRecord;
use crate::sys::dir::{self, Cross};
use crate::sys::{Errno, Kind, Name, Result, Spot, Timespec, file, process, small, tree};

use super::super::copy::{self, Links, Manner, Marks, Names, Owners};
use super::super::diff::below;
use super::super::side::Beside;
use super::super::view::View;
use super::scan::{Found, Scan, joined, shown};
use super::{digest, on_disk};

/// A folder for the hard links of a tree in the making.
const POOL: &[u8] = b"links";

/// How owners are kept in the tree of this caller.
fn manner() -> Manner {
    Manner {
        owners: match process::keeps_every_owner() {
            true => Owners::Real,
            false => Owners::Own,
        },
        names: Names::Shown,
    }
}

/// Makes `copy/` in an empty folder: what the workspace shows, written out.
pub fn write(store: &Store, record: &WorkspaceRecord, folder: &Arc<OwnedFd>) -> Outcome<()> {
    let manner = manner();
    super::reach(record);
    let view = super::mapped_view(store, record)?;
    let failed = |path: PathBuf, e| Failure::system(&PathBuf::from("/").join(path), "be copied", e);
    let here = |e| Failure::system(&store.copy_path(&record.name), "be written", e);
    let made = Making::begin(folder).map_err(here)?;
    let root = view.at(std::iter::empty()).map_err(here)?;
    let root = root.ok_or_else(|| here(Errno::EIO))?;
    let mut links = made.links().map_err(here)?;
    view.write_out(&root, &made.tree, &mut links, manner)
        .map_err(|(path, e)| failed(path, e))?;
    // Names in the pool are names of the tree's objects: they go before the look that
    // counts.
    made.drop_links().map_err(here)?;
    let recording = Recording {
        view: &super::view(store, record)?,
        beside: Beside::of(store, &record.lowers, 0)?,
        tree: &made.tree,
    };
    let manifest = recording.all().map_err(|(path, e)| failed(path, e))?;
    made.finish(&manifest).map_err(here)
}

/// A copy of a copied workspace, with its changes: what is still the object that was
/// written is so in the copy too.
pub fn clone(store: &Store, from: &str, folder: &Arc<OwnedFd>) -> Outcome<()> {
    let (tree, old) = store.copy(from)?;
    let shown_as = store.copy_path(from);
    let here = |e| Failure::system(&shown_as, "be copied", e);
    let before = Scan::of(&tree, &shown_as)?;
    let made = Making::begin(folder).map_err(here)?;
    let mut links = made.links().map_err(here)?;
    copy::copy_tree(&tree, &made.tree, &mut links, Marks::All).map_err(here)?;
    made.drop_links().map_err(here)?;
    let after = Scan::of(&made.tree, &shown_as)?;
    let mut twins = std::collections::HashMap::new();
    for (path, found) in &before.0 {
        if let Some(twin) = after.0.get(path) {
            twins.insert(found.identity, (*found, *twin));
        }
    }
    let entries = old.entries().iter().map(|entry| {
        let mut entry = entry.clone();
        match twins.get(&entry.disk.identity) {
            Some((was, twin)) => follow(&mut entry, was, twin),
            None => entry.disk.identity = gone(),
        }
        entry
    });
    made.finish(&Manifest::new(entries.collect())).map_err(here)
}

/// No object: inode numbers begin at 1.
fn gone() -> Identity {
    Identity {
        ino: 0,
        birth: Timespec::default(),
    }
}

/// An entry's object is another one now, to which as much was done.
fn follow(entry: &mut Entry, was: &Found, twin: &Found) {
    let untouched = was.stat.ctime == entry.disk.ctime;
    entry.disk.identity = twin.identity;
    entry.disk.ctime = match untouched {
        true => twin.stat.ctime,
        false => Timespec::default(),
    };
}

/// A folder `copy` that is not complete.
struct Making {
    folder: Arc<OwnedFd>,
    copy: Arc<OwnedFd>,
    tree: Arc<OwnedFd>,
}

fn open(parent: &Arc<OwnedFd>, name: &[u8]) -> Result<Arc<OwnedFd>> {
    dir::open_dir_at(parent.as_fd(), name, Cross::Refuse).map(Arc::new)
}

impl Making {
    fn begin(folder: &Arc<OwnedFd>) -> Result<Making> {
        dir::mkdir(folder.as_fd(), layout::COPY, 0o755)?;
        let copy = open(folder, layout::COPY)?;
        dir::mkdir(copy.as_fd(), layout::TREE, 0o700)?;
        dir::mkdir(folder.as_fd(), POOL, 0o700)?;
        Ok(Making {
            tree: open(&copy, layout::TREE)?,
            folder: folder.clone(),
            copy,
        })
    }

    fn links(&self) -> Result<Links> {
        Ok(Links::new(open(&self.folder, POOL)?))
    }

    fn drop_links(&self) -> Result<()> {
        tree::remove(&self.folder, POOL)
    }

    /// Everything reaches the disk. Whoever gets the tree now has a later clock than
    /// any object in it, so that what is done to one shows in its ctime.
    fn finish(&self, manifest: &Manifest) -> Result<()> {
        small::write_new(self.copy.as_fd(), layout::MANIFEST, &manifest.encode())?;
        file::sync_fs(self.tree.as_fd())?;
        dir::fsync_dir(self.copy.as_fd())?;
        let newest = manifest.entries().iter().map(|e| e.disk.ctime).max();
        wait_for_the_clock(newest.unwrap_or_default());
        Ok(())
    }
}

/// Waits until the clock that file systems use has moved on.
fn wait_for_the_clock(newest: Timespec) {
    /// Two ticks of the slowest kernel (HZ=100).
    const TICKS: Duration = Duration::from_millis(20);
    let sec = u64::try_from(newest.sec).unwrap_or(0);
    let newest = UNIX_EPOCH + Duration::new(sec, newest.nsec);
    // A disk of another machine may have another clock: then two ticks must do.
    let passed = SystemTime::now().duration_since(newest).unwrap_or_default();
    if let Some(left) = TICKS.checked_sub(passed) {
        std::thread::sleep(left);
    }
}

/// Looks at every object of the view, and at what was written for it.
struct Recording<'a> {
    view: &'a View,
    beside: Beside,
    tree: &'a Arc<OwnedFd>,
}

impl Recording<'_> {
    fn all(&self) -> std::result::Result<Manifest, (PathBuf, Errno)> {
        let root = self.view.at(std::iter::empty());
        let root = root.and_then(|r| r.ok_or(Errno::EIO));
        let root = root.map_err(|e| (PathBuf::new(), e))?;
        let mut entries = Vec::new();
        let mut waiting = vec![(Vec::<Name>::new(), root)];
        while let Some((path, dir)) = waiting.pop() {
            self.directory((&path, dir), &mut entries, &mut waiting)
                .map_err(|e| (shown(std::path::Path::new(""), &path), e))?;
        }
        Ok(Manifest::new(entries))
    }

    fn directory(
        &self,
        (path, dir): (&[Name], Shown),
        entries: &mut Vec<Entry>,
        waiting: &mut Vec<(Vec<Name>, Shown)>,
    ) -> Result<()> {
        let at = below(self.tree, path)?;
        entries.push(self.entry(&dir, path, &Spot::fd(at.clone()))?);
        for item in self.view.names(&dir.node)? {
            let Some(found) = self.view.child(&dir.node, &item.name)? else {
                continue;
            };
            let name = Name::from(&item.name[..]);
            let way: Vec<Name> = path.iter().cloned().chain([name.clone()]).collect();
            if found.node.kind == Kind::Dir {
                waiting.push((way, found));
                continue;
            }
            entries.push(self.entry(&found, &way, &Spot::at(at.clone(), name))?);
            self.view.release(found);
        }
        Ok(())
    }

    /// What the layers record of an object, and what stands for it on disk.
    fn entry(&self, of: &Shown, path: &[Name], spot: &Spot) -> Result<Entry> {
        let found = Found::at(spot.descriptor(), last_name(path, spot))?;
        let (stat, disk) = (&of.attr.stat, &found.stat);
        let mut entry = Entry {
            path: joined(path),
            kind: of.node.kind,
            mode: stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            size: disk.size,
            mtime: disk.mtime,
            rdev: stat.rdev,
            xattrs: digest(&on_disk(spot)?),
            target: match of.node.kind {
                Kind::Symlink => self.view.target(&of.node)?,
                _ => Vec::new(),
            },
            links: match of.node.kind {
                Kind::Dir => 1,
                _ => disk.nlink,
            },
            disk: found.on_disk(),
        };
        if let Some(what) = self.beside.get(of) {
            entry.uid = what.uid;
            entry.gid = what.gid;
            entry.kind = what.kind.unwrap_or(entry.kind);
            if entry.kind != Kind::Symlink {
                entry.mode = what.mode;
                entry.rdev = what.rdev;
            }
        }
        Ok(entry)
    }
}

/// The name to ask for: none where the spot is the object itself.
fn last_name<'a>(path: &'a [Name], spot: &Spot) -> &'a [u8] {
    match (path.last(), spot.is_descriptor()) {
        (Some(name), false) => name,
        _ => b"",
    }
}
