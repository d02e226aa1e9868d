//! An upper as a tree that stands alone.
//!
//! Redirects lead to lowers under other names, metacopies have their data there,
//! and further names of a hard link may be known to the index only. In a layer all
//! of that must be in the tree itself.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::layer::mark::{Marks as LayerMarks, NlinkMark, OPAQUE_FILES};
use crate::overlay::Entry;
use crate::store::failure::{Failure, Outcome};
use crate::sys::stat::SetTime;
use crate::sys::tree::{Enter, Trail, Visitor};
use crate::sys::{Errno, Kind, Name, ObjectId, Result, Spot, Stat, dir, xattr};

use super::copy::{self, Data, Links, Look, Marks, Owners};
use super::view::View;

/// What was found in an upper before it becomes a layer.
#[derive(Debug, Default)]
pub struct Survey {
    /// Something stands elsewhere: the tree cannot be taken as it is.
    pub incomplete: bool,
    /// Files that have names which the upper lacks: the lower's inode number → the
    /// upper's object.
    lost_names: HashMap<u64, ObjectId>,
}

/// Looks through an upper.
pub fn survey(upper: &Arc<OwnedFd>) -> Result<Survey> {
    let mut survey = Surveying::default();
    crate::sys::tree::walk(upper, &mut survey)?;
    let mut found = Survey {
        incomplete: survey.incomplete,
        lost_names: HashMap::new(),
    };
    for (id, file) in survey.files {
        if file.wanted > file.seen {
            found.incomplete = true;
            found.lost_names.extend(file.origin.map(|ino| (ino, id)));
        }
    }
    Ok(found)
}

#[derive(Debug, Default)]
struct Surveying {
    incomplete: bool,
    files: HashMap<ObjectId, LinkedFile>,
}

/// A copied-up file with several names.
#[derive(Debug)]
struct LinkedFile {
    seen: i64,
    wanted: i64,
    origin: Option<u64>,
}

impl Visitor for Surveying {
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: &Name, kind: Kind) -> Result<Enter> {
        if !matches!(kind, Kind::Dir | Kind::File) {
            return Ok(Enter::Yes);
        }
        let spot = Spot::at(dir.clone(), name.clone());
        let marks = LayerMarks::read(&spot)?;
        self.incomplete |= marks.redirect.is_some() || marks.bad_redirect || marks.metacopy;
        if let (Kind::File, Some(nlink)) = (kind, marks.nlink) {
            let stat = spot.stat()?;
            let file = self
                .files
                .entry(ObjectId::of(&stat))
                .or_insert_with(|| LinkedFile {
                    seen: 0,
                    wanted: merged_links(nlink, &stat),
                    origin: marks.origin.as_ref().and_then(|o| o.ino()),
                });
            file.seen += 1;
        }
        Ok(Enter::Yes)
    }

    fn leave(&mut self, _dir: &Arc<OwnedFd>) -> Result<()> {
        Ok(())
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

/// An upper, and what it lies on.
#[derive(Debug)]
pub struct Source<'a> {
    /// Its tree.
    pub upper: &'a Arc<OwnedFd>,
    /// Where it is.
    pub path: PathBuf,
    /// The lowers' trees, uppermost first.
    pub lowers: &'a [PathBuf],
    /// How owners are kept.
    pub owners: Owners,
}

impl Source<'_> {
    /// The merged view, made when something has to be looked up in it.
    pub fn view(&self) -> Outcome<View> {
        View::open(&[std::slice::from_ref(&self.path), self.lowers].concat())
    }
}

/// Copies an upper so that it stands alone.
pub fn copy_alone(
    source: &Source<'_>,
    survey: &Survey,
    to: &Arc<OwnedFd>,
    links: &mut Links,
) -> Outcome<()> {
    let failed = |e| Failure::system(&source.path, "be copied", e);
    if !survey.incomplete {
        return copy::copy_tree(source.upper, to, links, Marks::OfLayer).map_err(failed);
    }
    let view = source.view()?;
    let mut resolving = Resolving {
        view: &view,
        owners: source.owners,
        to: Trail::new(to).map_err(failed)?,
        links,
        path: Vec::new(),
    };
    crate::sys::tree::walk(source.upper, &mut resolving).map_err(failed)?;
    find_lost_names(source, survey, &view, to, links)
}

/// Gives copied-up files in a copy the names that only the index leads from.
pub fn find_lost_names(
    source: &Source<'_>,
    survey: &Survey,
    view: &View,
    to: &Arc<OwnedFd>,
    links: &Links,
) -> Outcome<()> {
    if survey.lost_names.is_empty() {
        return Ok(());
    }
    let search = Search {
        view,
        owners: source.owners,
        wanted: &survey.lost_names,
        to,
        links,
    };
    search
        .run()
        .map_err(|e| Failure::system(&source.path, "be copied", e))
}

struct Resolving<'a> {
    view: &'a View,
    owners: Owners,
    to: Trail,
    links: &'a mut Links,
    path: Vec<Name>,
}

impl Resolving<'_> {
    fn in_view(&self, name: &Name) -> Result<Entry> {
        let path = self.path.iter().chain([name]).map(|n| &n[..]);
        self.view.at(path)?.ok_or(Errno::ENOENT)
    }

    /// A directory that was moved here: all that the view shows in it, opaque.
    fn moved_directory(&mut self, name: &Name) -> Result<()> {
        let entry = self.in_view(name)?;
        let to = self.to.top()?;
        dir::mkdir(to.as_fd(), name, 0o700)?;
        let made = Arc::new(dir::open_dir_at(to.as_fd(), name, dir::Cross::Refuse)?);
        self.view
            .write_out(&entry, &made, self.links, self.owners.into())
            .map_err(|(_, e)| e)?;
        set_opaque(&Spot::fd(made))
    }
}

/// Makes a directory of a layer hide what lies below it.
pub(super) fn set_opaque(spot: &Spot) -> Result<()> {
    let set = match xattr::set(spot, b"trusted.overlay.opaque", b"y", 0) {
        Err(Errno::EPERM) => xattr::set(spot, b"user.overlay.opaque", b"y", 0),
        r => r,
    };
    match set {
        Err(Errno::EOPNOTSUPP) => {
            dir::create_file(spot.descriptor().as_fd(), OPAQUE_FILES[0], 0o600).map(drop)
        }
        r => r,
    }
}

impl Visitor for Resolving<'_> {
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: &Name, kind: Kind) -> Result<Enter> {
        let spot = Spot::at(dir.clone(), name.clone());
        let stat = spot.stat()?;
        if self.links.link(&stat, self.to.top()?, name)? {
            return Ok(Enter::No);
        }
        let mut data = Data::Own;
        if matches!(kind, Kind::Dir | Kind::File) {
            let marks = LayerMarks::read(&spot)?;
            let moved = marks.redirect.is_some() || marks.bad_redirect;
            if kind == Kind::Dir && moved {
                self.moved_directory(name)?;
                return Ok(Enter::No);
            }
            if marks.metacopy {
                data = Data::Of(self.view.data(&self.in_view(name)?.node)?);
            }
        }
        let look = Look::on_disk(&spot, &stat, Marks::OfLayer)?;
        copy::make(&look, &spot, data, self.to.top()?, name, Owners::Real)?;
        if kind != Kind::Dir {
            self.links.note(&stat, self.to.top()?, name)?;
        }
        Ok(Enter::Yes)
    }

    fn enter(&mut self, name: &Name) -> Result<()> {
        let below = dir::open_dir_at(self.to.top()?.as_fd(), name, dir::Cross::Refuse)?;
        self.path.push(name.clone());
        self.to.push(Arc::new(below))
    }

    fn leave(&mut self, dir: &Arc<OwnedFd>) -> Result<()> {
        copy::dress(dir, self.to.top()?, Marks::OfLayer)?;
        self.path.pop();
        self.to.pop()?;
        Ok(())
    }
}

/// The search for further names of copied-up hard links: all of the view is looked
/// through, and only where such a file was found to lack names.
struct Search<'a> {
    view: &'a View,
    owners: Owners,
    wanted: &'a HashMap<u64, ObjectId>,
    to: &'a Arc<OwnedFd>,
    links: &'a Links,
}

impl Search<'_> {
    fn run(&self) -> Result<()> {
        let root = self.view.at(std::iter::empty())?.ok_or(Errno::ENOENT)?;
        let mut waiting = vec![(Vec::<Name>::new(), root)];
        while let Some((path, dir)) = waiting.pop() {
            for item in self.view.names(&dir.node)? {
                let Some(entry) = self.view.child(&dir.node, &item.name)? else {
                    continue;
                };
                let name = Name::from(&item.name[..]);
                if entry.node.kind == Kind::Dir {
                    waiting.push((path.iter().cloned().chain([name]).collect(), entry));
                    continue;
                }
                self.one(&path, &name, &entry)?;
                self.view.release(entry);
            }
        }
        Ok(())
    }

    fn one(&self, path: &[Name], name: &Name, entry: &Entry) -> Result<()> {
        let stat = &entry.attr.stat;
        let found = self.wanted.get(&stat.ino).filter(|_| stat.nlink > 1);
        let Some(id) = found.filter(|id| **id != ObjectId::of(stat)) else {
            return Ok(());
        };
        let parent = Spot::fd(self.directory(path)?);
        let before = parent.stat()?;
        self.give_name(parent.descriptor(), name, id, stat)?;
        // Nothing happened in that directory as far as the view goes.
        parent.set_times(SetTime::At(before.atime), SetTime::At(before.mtime))
    }

    fn give_name(
        &self,
        parent: &Arc<OwnedFd>,
        name: &Name,
        id: &ObjectId,
        stat: &Stat,
    ) -> Result<()> {
        // What a view without the index wrote there is the lower's old file.
        match dir::unlink(parent.as_fd(), name) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        let of = Stat {
            dev: id.dev,
            ino: id.ino,
            nlink: 2,
            ..*stat
        };
        match self.links.link(&of, parent, name)? {
            true => Ok(()),
            false => Err(Errno::ESTALE),
        }
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
