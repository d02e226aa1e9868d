//! What somebody else has changed in the meantime.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::changes::{self, Act, CopiedUp, Entry};
use super::look::{Ownership, Wanted};
use super::select::{self, Path, Place, Selection};
use crate::layer::Layer;
use crate::store::failure::{Failure, FailureKind};
use crate::store::record::Moment;
use crate::sys::tree::{self, Enter, Visitor};
use crate::sys::{Errno, Kind, Name, Result, Spot, Stat, Timespec, dir, stat};

/// Most conflicts that are listed for a person.
const LISTED: usize = 1_000;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) path: Path,
    pub(super) how: How,
}

/// What somebody has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Taken it away.
    Removed,
    /// Changed it, or made it.
    Changed,
    /// Changed something in a directory that goes.
    Inside,
    /// Given a directory another mode, owner or attributes, as the upper does.
    Look,
}

impl How {
    fn text(self) -> &'static str {
        match self {
            How::Removed => "removed",
            How::Changed => "changed",
            How::Inside => "something in it changed",
            How::Look => "mode, owner or attributes changed",
        }
    }
}

impl Conflict {
    /// Whether it stands in the way of what was chosen.
    pub(super) fn concerns(&self, selection: &Selection) -> bool {
        match selection.place(&self.path) {
            Place::Within => true,
            // What is only gone through keeps its look.
            Place::Above => self.how != How::Look,
            Place::Outside => false,
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) conflicts: Vec<Conflict>,
    /// Directories in which others have made or removed names.
    pub(super) later: Vec<Path>,
}

/// Whether some of it may have been done already, by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// Nothing was.
    First,
    /// What is as it is to be, and what only lost a name or a mode, is ours.
    Again,
}

/// The search.
pub(super) struct Search<'a> {
    pub(super) upper: &'a Layer,
    pub(super) target: &'a Arc<OwnedFd>,
    /// None: everything may have been changed.
    pub(super) since: Option<Moment>,
    pub(super) selection: &'a Selection,
    pub(super) copied_up: &'a CopiedUp,
    pub(super) round: Round,
    /// Whether owners in the upper say something.
    pub(super) ownership: Ownership,
}

/// A directory of both, to be looked through.
struct Pair {
    path: Path,
    /// None: it is not there, and all in it is new.
    target: Option<Arc<OwnedFd>>,
    /// Somebody has made or removed names in it.
    later: bool,
}

type Failed = (Path, Errno);

impl Search<'_> {
    pub(super) fn run(&self) -> std::result::Result<Found, Failed> {
        let mut found = Found::default();
        let root = |e| (Path::new(), e);
        let stat = stat::of_descriptor(self.target.as_fd()).map_err(root)?;
        let mut waiting = vec![self.pair(Path::new(), Some((self.target.clone(), stat)))];
        self.look_of(&waiting[..], &mut found).map_err(root)?;
        while let Some(pair) = waiting.pop() {
            if pair.later {
                found.later.push(pair.path.clone());
            }
            self.one(&pair, &mut waiting, &mut found)?;
        }
        found.conflicts.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn pair(&self, path: Path, target: Option<(Arc<OwnedFd>, Stat)>) -> Pair {
        let later = target.as_ref().is_some_and(|(_, s)| self.is_later(s.mtime));
        Pair {
            path,
            target: target.map(|(fd, _)| fd),
            later,
        }
    }

    fn one(
        &self,
        pair: &Pair,
        waiting: &mut Vec<Pair>,
        found: &mut Found,
    ) -> std::result::Result<(), Failed> {
        let here = |e| (pair.path.clone(), e);
        let at = changes::below(&self.upper.root, &pair.path).map_err(here)?;
        for entry in changes::entries(self.upper, &at).map_err(here)? {
            let path: Path = pair.path.iter().chain([&entry.name]).cloned().collect();
            if self.selection.place(&path) == Place::Outside {
                continue;
            }
            let failed = |e| (path.clone(), e);
            let stat = match &pair.target {
                Some(target) => dir::probe(target.as_fd(), &entry.name).map_err(failed)?,
                None => None,
            };
            if let Some(how) = self.judge(pair, &at, &path, &entry, stat).map_err(failed)? {
                found.conflicts.push(Conflict {
                    path: path.clone(),
                    how,
                });
            }
            if entry.act == Act::Merge {
                let below = match (stat.map(|s| s.kind()), &pair.target) {
                    (Some(Kind::Dir), Some(target)) => {
                        let fd = changes::below(target, std::slice::from_ref(&entry.name));
                        let fd = fd.map_err(failed)?;
                        let stat = stat::of_descriptor(fd.as_fd()).map_err(failed)?;
                        Some((fd, stat))
                    }
                    _ => None,
                };
                waiting.push(self.pair(path, below));
            }
        }
        Ok(())
    }

    /// What stands against one entry.
    fn judge(
        &self,
        pair: &Pair,
        at: &Arc<OwnedFd>,
        path: &Path,
        entry: &Entry,
        stat: Option<Stat>,
    ) -> Result<Option<How>> {
        let Some(stat) = stat else {
            // It was there, and somebody has removed names there.
            let was_there = entry.act != Act::Delete && self.copied_up.contains(path);
            return Ok((was_there && pair.later).then_some(How::Removed));
        };
        let Some(target) = &pair.target else {
            return Ok(None);
        };
        let wanted = Spot::at(at.clone(), entry.name.clone());
        match (entry.act, stat.kind()) {
            (Act::Merge, Kind::Dir) => {
                self.look(&wanted, &Spot::at(target.clone(), entry.name.clone()))
            }
            (Act::Replace, Kind::Dir) => {
                let ours = changes::below(at, std::slice::from_ref(&entry.name))?;
                self.below(target, &entry.name, Some(ours))
            }
            (Act::Delete | Act::Put, Kind::Dir) => self.below(target, &entry.name, None),
            _ => Ok(self.is_changed(&stat, entry).then_some(How::Changed)),
        }
    }

    /// The root's own look.
    fn look_of(&self, root: &[Pair], found: &mut Found) -> Result<()> {
        let Some(Pair {
            target: Some(target),
            path,
            ..
        }) = root.first()
        else {
            return Ok(());
        };
        let wanted = Spot::fd(self.upper.root.clone());
        if let Some(how) = self.look(&wanted, &Spot::fd(target.clone()))? {
            found.conflicts.push(Conflict {
                path: path.clone(),
                how,
            });
        }
        Ok(())
    }

    /// A merged directory: the upper changes its look, and so may somebody else have.
    fn look(&self, wanted: &Spot, target: &Spot) -> Result<Option<How>> {
        let stat = target.stat()?;
        if self.round == Round::Again || !self.is_later(stat.ctime) {
            return Ok(None);
        }
        let wanted = Wanted::read(wanted, self.ownership)?;
        Ok((!wanted.is_on(target)?).then_some(How::Look))
    }

    /// A directory that goes, with everything in it.
    fn below(
        &self,
        target: &Arc<OwnedFd>,
        name: &Name,
        ours: Option<Arc<OwnedFd>>,
    ) -> Result<Option<How>> {
        let root = changes::below(target, std::slice::from_ref(name))?;
        let mut looking = Looking {
            search: self,
            ours,
            path: Vec::new(),
            any: false,
        };
        looking.meet(&stat::of_descriptor(root.as_fd())?, None);
        tree::walk(&root, &mut looking)?;
        Ok(looking.any.then_some(How::Inside))
    }

    fn is_changed(&self, stat: &Stat, entry: &Entry) -> bool {
        self.is_later(stat.ctime) && !self.is_ours(stat, entry.stat)
    }

    /// Whether we may have made, or touched, an object in a round before.
    fn is_ours(&self, stat: &Stat, wanted: Option<Stat>) -> bool {
        let same = wanted.is_some_and(|wanted| is_same(&wanted, stat));
        self.round == Round::Again && (same || !self.is_later(stat.mtime))
    }

    fn is_later(&self, time: Timespec) -> bool {
        self.since.is_none_or(|since| is_after(time, since))
    }
}

/// Whether a file's time is later than a moment.
pub(super) fn is_after(time: Timespec, since: Moment) -> bool {
    let moment = Moment {
        sec: time.sec,
        nsec: time.nsec,
    };
    moment > since
}

/// Whether a file is the copy of another that we made.
pub(super) fn is_same(a: &Stat, b: &Stat) -> bool {
    let kind = a.kind() == b.kind();
    kind && a.size == b.size && a.mtime == b.mtime && a.mode == b.mode
}

struct Looking<'a> {
    search: &'a Search<'a>,
    /// What takes the place of the directory, and may have done so already.
    ours: Option<Arc<OwnedFd>>,
    path: Path,
    any: bool,
}

impl Looking<'_> {
    fn meet(&mut self, stat: &Stat, wanted: Option<Stat>) {
        let directory = self.search.round == Round::Again && stat.kind() == Kind::Dir;
        let ours = directory || self.search.is_ours(stat, wanted);
        self.any |= self.search.is_later(stat.ctime) && !ours;
    }

    fn wanted(&self, name: &Name) -> Result<Option<Stat>> {
        let Some(ours) = &self.ours else {
            return Ok(None);
        };
        match changes::below(ours, &self.path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            r => dir::probe(r?.as_fd(), name),
        }
    }
}

impl Visitor for Looking<'_> {
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: &Name, _kind: Kind) -> Result<Enter> {
        let stat = Spot::at(dir.clone(), name.clone()).stat()?;
        let wanted = match self.search.round {
            Round::First => None,
            Round::Again => self.wanted(name)?,
        };
        self.meet(&stat, wanted);
        Ok(match self.any {
            true => Enter::No,
            false => Enter::Yes,
        })
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

/// The sentence for a person; none where there is no conflict.
pub(super) fn refusal(directory: &std::path::Path, conflicts: &[Conflict]) -> Option<Failure> {
    if conflicts.is_empty() {
        return None;
    }
    let mut what = format!(
        "{} was changed by somebody else since the workspace was made, nothing is applied:",
        directory.display()
    );
    for conflict in conflicts.iter().take(LISTED) {
        what.push_str(&format!(
            "\n  {}: {}",
            select::shown(&conflict.path),
            conflict.how.text()
        ));
    }
    if let Some(more) = conflicts.len().checked_sub(LISTED).filter(|n| *n > 0) {
        what.push_str(&format!("\n  and {more} more"));
    }
    Some(Failure::new(
        FailureKind::Conflict,
        what,
        "look at both; --force overwrites what lies there, naming other paths leaves these out",
    ))
}
