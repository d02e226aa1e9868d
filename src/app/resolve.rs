//! An upper as a tree that stands alone.
//!
//! Redirects lead to lowers under other names, metacopies have their data there,
//! and further names of a hard link may be known to the index only. In a layer all
//! of that must be in the tree itself.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::layer::mark::{Marks as LayerMarks, OPAQUE_FILES, Opaque, Redirect};
use crate::overlay::Entry;
use crate::store::failure::{Failure, Outcome};
use crate::sys::stat::SetTime;
use crate::sys::tree::{Enter, Trail, Visitor};
use crate::sys::{Errno, Kind, Name, Result, Spot, dir, xattr};

use super::anchors::{self, LinkedFiles, Lost};
use super::copy::{self, Data, Links, Look, Marks, Owners};
use super::view::View;

/// What was found in an upper before it becomes a layer.
#[derive(Debug, Default)]
pub struct Survey {
    /// Something stands elsewhere: the tree cannot be taken as it is.
    pub incomplete: bool,
    /// A directory in it hides what lies below it.
    pub opaque: bool,
    /// Files that have names which the upper lacks.
    pub lost: Lost,
}

/// Looks through an upper and the index beside it.
pub fn survey(upper: &Arc<OwnedFd>, index: Option<&Arc<OwnedFd>>) -> Result<Survey> {
    let mut survey = Surveying::default();
    crate::sys::tree::walk(upper, &mut survey)?;
    let lost = survey.files.lost(index)?;
    Ok(Survey {
        incomplete: survey.incomplete || !lost.is_empty(),
        opaque: survey.opaque,
        lost,
    })
}

#[derive(Debug, Default)]
struct Surveying {
    incomplete: bool,
    opaque: bool,
    files: LinkedFiles,
}

impl Visitor for Surveying {
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: &Name, kind: Kind) -> Result<Enter> {
        if OPAQUE_FILES.contains(&&name[..]) {
            self.opaque = true;
        }
        if !matches!(kind, Kind::Dir | Kind::File) {
            return Ok(Enter::Yes);
        }
        let spot = Spot::at(dir.clone(), name.clone());
        let marks = LayerMarks::read(&spot)?;
        self.incomplete |= marks.redirect.is_some() || marks.bad_redirect || marks.metacopy;
        self.opaque |= marks.opaque == Opaque::Yes;
        if kind == Kind::File {
            self.files.see(&spot, &marks)?;
        }
        Ok(Enter::Yes)
    }

    fn leave(&mut self, _dir: &Arc<OwnedFd>) -> Result<()> {
        Ok(())
    }
}

/// An upper, and what it lies on.
#[derive(Debug)]
pub struct Source<'a> {
    /// Its tree.
    pub upper: &'a Arc<OwnedFd>,
    /// Where it is.
    pub path: PathBuf,
    /// The index beside it, where there is one.
    pub index: Option<Arc<OwnedFd>>,
    /// The lowers' trees, uppermost first.
    pub lowers: &'a [PathBuf],
    /// How owners are kept.
    pub owners: Owners,
}

impl Source<'_> {
    /// The merged view, made when something has to be looked up in it.
    pub fn view(&self) -> Outcome<View> {
        let trees = [std::slice::from_ref(&self.path), self.lowers].concat();
        View::keeping(&trees, self.owners)
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
        opaque: HashSet::new(),
    };
    crate::sys::tree::walk(source.upper, &mut resolving).map_err(failed)?;
    anchors::find_lost_names(source, survey, &view, to, links)
}

/// Takes the mark off directories that hide nothing, since the lowers have no
/// directory there: whether an upper marks them depends on how they came to be.
pub fn drop_idle_marks(tree: &Arc<OwnedFd>, lowers: &[PathBuf]) -> Outcome<()> {
    let view = View::open(lowers)?;
    let mut dropping = Dropping {
        view: &view,
        path: Vec::new(),
    };
    let failed = |e| Failure::system(Path::new("/"), "be looked through", e);
    crate::sys::tree::walk(tree, &mut dropping).map_err(failed)
}

struct Dropping<'a> {
    view: &'a View,
    path: Vec<Name>,
}

impl Visitor for Dropping<'_> {
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: &Name, kind: Kind) -> Result<Enter> {
        if kind != Kind::Dir {
            return Ok(Enter::No);
        }
        let spot = Spot::at(dir.clone(), name.clone());
        let below = dir::open_dir_at(dir.as_fd(), name, dir::Cross::Refuse)?;
        let by_file = |f: &&[u8]| matches!(dir::probe(below.as_fd(), f), Ok(Some(_)));
        let opaque = LayerMarks::read(&spot)?.opaque == Opaque::Yes;
        if opaque || OPAQUE_FILES.iter().any(by_file) {
            let path = self.path.iter().chain([name]).map(|n| &n[..]);
            let entry = self.view.at(path)?;
            if entry.is_none_or(|e| e.node.kind != Kind::Dir) {
                unset_opaque(&spot, below.as_fd())?;
            }
        }
        Ok(Enter::Yes)
    }

    fn enter(&mut self, name: &Name) -> Result<()> {
        self.path.push(name.clone());
        Ok(())
    }

    fn leave(&mut self, _dir: &Arc<OwnedFd>) -> Result<()> {
        self.path.pop();
        Ok(())
    }
}

/// Takes every form of the mark off; the directory's times stay.
fn unset_opaque(spot: &Spot, dir: BorrowedFd<'_>) -> Result<()> {
    let before = spot.stat()?;
    for name in [
        "trusted.overlay.opaque",
        "user.overlay.opaque",
        "user.fuseoverlayfs.opaque",
    ] {
        match xattr::get(spot, name.as_bytes())? {
            Some(value) if value == b"y" => xattr::remove(spot, name.as_bytes())?,
            _ => {}
        }
    }
    for file in OPAQUE_FILES {
        match dir::unlink(dir, file) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    spot.set_times(SetTime::At(before.atime), SetTime::At(before.mtime))
}

struct Resolving<'a> {
    view: &'a View,
    owners: Owners,
    to: Trail,
    links: &'a mut Links,
    path: Vec<Name>,
    /// Directories that hide what lies below them.
    opaque: HashSet<Vec<Name>>,
}

impl Resolving<'_> {
    /// Whether a directory was moved away and back: its redirect leads to its own
    /// place, where it is merged without one.
    fn is_back(&self, name: &Name, redirect: Option<&Redirect>) -> bool {
        let own: Vec<&Name> = self.path.iter().chain([name]).collect();
        let leads_here = match redirect {
            None => false,
            Some(Redirect::Name(to)) => name[..] == to[..],
            Some(Redirect::Path(to)) => {
                to.len() == own.len() && to.iter().zip(&own).all(|(a, b)| a[..] == b[..])
            }
        };
        let hidden = (1..=self.path.len())
            .any(|n| self.path.get(..n).is_some_and(|p| self.opaque.contains(p)));
        leads_here && !hidden
    }

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
            if kind == Kind::Dir && marks.opaque == Opaque::Yes {
                let path = self.path.iter().chain([name]).cloned().collect();
                self.opaque.insert(path);
            }
            if kind == Kind::Dir && moved && !self.is_back(name, marks.redirect.as_ref()) {
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
