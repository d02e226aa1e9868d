//! Names of copied-up hard links that only the index knows.
//!
//! A file of a lower with several names is copied up under the one that was used; the
//! others stay whiteout-free names of the lowers, and a mount finds by `work/index`
//! that they are the same file. Who reads an upper without a mount has to look for
//! them: all of the view, and only where such a file was found to lack names. Of a
//! file whose used names are all gone, the anchor in the index is the only one left.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::layer::disguise::DISGUISED;
use crate::layer::mark::{Marks as LayerMarks, NlinkMark};
use crate::layer::reserved;
use crate::overlay::Entry;
use crate::store::failure::{Failure, Outcome};
use crate::sys::stat::SetTime;
use crate::sys::{Errno, Kind, Name, ObjectId, Result, Spot, Stat, dir, xattr};

use super::copy::{self, Data, Links, Look, Marks, Owners};
use super::diff::same_bytes;
use super::resolve::{Source, Survey};
use super::view::View;

/// Files that have names which the upper lacks, by the lower's inode number.
#[derive(Debug, Default)]
pub struct Lost(HashMap<u64, LostFile>);

impl Lost {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One of them.
#[derive(Debug, Clone)]
pub struct LostFile {
    /// The upper's object.
    id: ObjectId,
    /// One of its names: in the upper, else in the index.
    spot: Spot,
}

/// The files with several names that are met in an upper.
#[derive(Debug, Default)]
pub struct LinkedFiles(HashMap<ObjectId, LinkedFile>);

#[derive(Debug)]
struct LinkedFile {
    seen: i64,
    wanted: i64,
    origin: Option<u64>,
    spot: Spot,
}

impl LinkedFiles {
    /// A name in the upper.
    pub fn see(&mut self, spot: &Spot, marks: &LayerMarks) -> Result<()> {
        if let Some(file) = self.file(spot, marks)? {
            file.seen += 1;
        }
        Ok(())
    }

    fn file(&mut self, spot: &Spot, marks: &LayerMarks) -> Result<Option<&mut LinkedFile>> {
        let Some(nlink) = marks.nlink else {
            return Ok(None);
        };
        let stat = spot.stat()?;
        let file = || LinkedFile {
            seen: 0,
            wanted: merged_links(nlink, &stat),
            origin: marks.origin.as_ref().and_then(|o| o.ino()),
            spot: spot.clone(),
        };
        let known = self.0.entry(ObjectId::of(&stat));
        Ok(Some(known.or_insert_with(file)))
    }

    /// Those that lack names. The index may hold some that no name in the upper
    /// leads to.
    pub fn lost(mut self, index: Option<&Arc<OwnedFd>>) -> Result<Lost> {
        if let Some(index) = index {
            let mut anchors = Vec::new();
            dir::list(index.as_fd(), |e| anchors.push(Name::from(&e.name[..])))?;
            for name in anchors {
                let spot = Spot::at(index.clone(), name);
                if spot.stat()?.kind() == Kind::File {
                    let marks = LayerMarks::read(&spot)?;
                    self.file(&spot, &marks)?;
                }
            }
        }
        let mut lost = HashMap::new();
        for (id, file) in self.0 {
            if let Some(ino) = file.origin.filter(|_| file.wanted > file.seen) {
                let spot = file.spot;
                lost.insert(ino, LostFile { id, spot });
            }
        }
        Ok(Lost(lost))
    }
}

/// How many names a file has in the merged view. One relative to its lower is
/// taken to have more than were seen: the search then finds whether it does.
fn merged_links(mark: NlinkMark, stat: &Stat) -> i64 {
    match mark {
        NlinkMark::Upper(more) => i64::from(stat.nlink) + i64::from(more),
        NlinkMark::Lower(_) => i64::MAX,
    }
}

/// Tells of every name in a view of upper and lowers that shows the lower's old file
/// where a mount would show the upper's.
pub fn each(
    view: &View,
    lost: &Lost,
    mut tell: impl FnMut(&[Name], &Name, &Entry, &LostFile) -> Result<()>,
) -> Result<()> {
    if lost.is_empty() {
        return Ok(());
    }
    let root = view.at(std::iter::empty())?.ok_or(Errno::ENOENT)?;
    let mut waiting = vec![(Vec::<Name>::new(), root)];
    while let Some((path, dir)) = waiting.pop() {
        for item in view.names(&dir.node)? {
            let Some(entry) = view.child(&dir.node, &item.name)? else {
                continue;
            };
            let name = Name::from(&item.name[..]);
            if entry.node.kind == Kind::Dir {
                waiting.push((path.iter().cloned().chain([name]).collect(), entry));
                continue;
            }
            let stat = &entry.attr.stat;
            let found = lost.0.get(&stat.ino).filter(|_| stat.nlink > 1);
            if let Some(file) = found.filter(|f| f.id != ObjectId::of(stat)) {
                tell(&path, &name, &entry, file)?;
            }
            view.release(entry);
        }
    }
    Ok(())
}

/// What differs between a lower's file and the upper's that a mount shows in its place.
pub fn reasons(view: &View, before: &Entry, file: &LostFile) -> Result<Vec<&'static str>> {
    let (marks, disk) = (LayerMarks::read(&file.spot)?, file.spot.stat()?);
    let after = marks.disguise.map_or(disk, |d| d.apply(&disk));
    let b = &before.attr.stat;
    let mut reasons = Vec::new();
    if b.mode != after.mode {
        reasons.push("mode");
    }
    if (b.uid, b.gid) != (after.uid, after.gid) {
        reasons.push("owner");
    }
    if !marks.metacopy {
        let data = file.spot.open(OFlags::RDONLY | OFlags::NONBLOCK)?;
        if b.size != after.size || !same_bytes(view.data(&before.node)?.as_fd(), data.as_fd())? {
            reasons.push("content");
        }
    }
    let disguised = marks.disguise.is_some();
    let undisguised = |disk: &[u8]| view_name(disk, disguised);
    if view.xattrs(&before.node)? != shown_xattrs(&file.spot, undisguised)? {
        reasons.push("xattrs");
    }
    if b.mtime != after.mtime {
        reasons.push("mtime");
    }
    Ok(reasons)
}

/// The name that a mount shows for one on disk.
fn view_name(disk: &[u8], disguised: bool) -> Option<Vec<u8>> {
    let kept = disk.strip_prefix(DISGUISED);
    match kept.filter(|name| disguised && name.starts_with(b"security.")) {
        Some(name) => Some(name.to_vec()),
        None => reserved::to_view(disk).map(std::borrow::Cow::into_owned),
    }
}

fn shown_xattrs(
    spot: &Spot,
    shown: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let list = xattr::list(spot)?;
    let mut found = Vec::new();
    for disk in xattr::names(&list) {
        if let (Some(name), Some(value)) = (shown(disk), xattr::get(spot, disk)?) {
            found.push((name, value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Gives copied-up files in a copy the names that only the index leads from.
pub fn find_lost_names(
    source: &Source<'_>,
    survey: &Survey,
    view: &View,
    to: &Arc<OwnedFd>,
    links: &mut Links,
) -> Outcome<()> {
    let mut naming = Naming {
        view,
        owners: source.owners,
        to,
        links,
    };
    each(view, &survey.lost, |path, name, entry, file| {
        naming.one(path, name, &entry.attr.stat, file)
    })
    .map_err(|e| Failure::system(&source.path, "be copied", e))
}

struct Naming<'a> {
    view: &'a View,
    owners: Owners,
    to: &'a Arc<OwnedFd>,
    links: &'a mut Links,
}

impl Naming<'_> {
    fn one(&mut self, path: &[Name], name: &Name, stat: &Stat, file: &LostFile) -> Result<()> {
        let parent = Spot::fd(self.directory(path)?);
        let before = parent.stat()?;
        self.give_name(parent.descriptor(), name, file, stat)?;
        // Nothing happened in that directory as far as the view goes.
        parent.set_times(SetTime::At(before.atime), SetTime::At(before.mtime))
    }

    fn give_name(
        &mut self,
        parent: &Arc<OwnedFd>,
        name: &Name,
        file: &LostFile,
        stat: &Stat,
    ) -> Result<()> {
        // What a view without the index wrote there is the lower's old file.
        match dir::unlink(parent.as_fd(), name) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        let of = Stat {
            dev: file.id.dev,
            ino: file.id.ino,
            nlink: 2,
            ..*stat
        };
        if self.links.link(&of, parent, name)? {
            return Ok(());
        }
        // None of its names is in the upper: the anchor is all there is of it.
        let disk = file.spot.stat()?;
        if LayerMarks::read(&file.spot)?.metacopy || ObjectId::of(&disk) != file.id {
            return Err(Errno::ESTALE);
        }
        let look = Look::on_disk(&file.spot, &disk, Marks::OfLayer)?;
        copy::make(&look, &file.spot, Data::Own, parent, name, Owners::Real)?;
        self.links.note(&of, parent, name)
    }

    /// The directory of the copy at a path; what is missing on the way looks as it
    /// does in the view.
    fn directory(&self, path: &[Name]) -> Result<Arc<OwnedFd>> {
        let mut at = self.to.clone();
        for (depth, name) in path.iter().enumerate() {
            if dir::probe(at.as_fd(), name)?.is_none() {
                dir::mkdir(at.as_fd(), name, 0o700)?;
                let way = path.iter().take(depth + 1).map(|n| &n[..]);
                let entry = self.view.at(way)?.ok_or(Errno::ENOENT)?;
                let spot = Spot::at(at.clone(), name.clone());
                let look = self.view.look(&entry, self.owners.into())?;
                look.put_on(&spot, self.owners)?;
            }
            at = Arc::new(dir::open_dir_at(at.as_fd(), name, dir::Cross::Refuse)?);
        }
        Ok(at)
    }
}
