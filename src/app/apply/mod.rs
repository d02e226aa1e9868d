//! `acetate ws apply`: the changes of a workspace are brought back to the live
//! directory that it was made over.
//!
//! | step | what a crash after it leaves |
//! |---|---|
//! | 1 | changes that lean on what lies below (moved directories, metadata alone, names that only the index leads to) are made to stand alone | the same workspace |
//! | 2 | conflicts are looked for: any, and nothing is done | the same |
//! | 3 | what is going to be done is written down (`apply.json`) | an apply to be ended |
//! | 4 | each object is written beside its place and renamed into it (`carry.rs`), many at a time (`batch.rs`) | the same; each path is as before or as after |
//! | 5 | the directory's file system is synced | the same |
//! | 6 | what was applied leaves the upper | the same |
//! | 7 | `apply.json` goes | the workspace without those changes |
//!
//! Every step may be done again: until step 6 is done the upper says all that there
//! is to do. The workspace must not be mounted: what its programs have in memory
//! would be missing.
//!
//! **Conflicts.** A workspace knows since when its lower was to be left alone. What
//! the upper changes, deletes or hides and has a later ctime below, was changed by
//! somebody else in the meantime; no program can set that time. For a directory that
//! is merged only what the upper changes of itself counts, not what came into it.
//! The clock is this machine's: of a network file system with a clock of its own it
//! is not said that all conflicts are found.

mod batch;
mod carry;
mod changes;
mod conflict;
mod look;
mod select;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::commit;
use super::copy::{Links, Owners};
use super::diff::{self, Change};
use super::file_clock;
use super::own_files;
use super::resolve::{self, Source};
use super::stack;
use super::workspace::{self, Taken};
use crate::layer::{Hold, Known, Layer, UPPER};
use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::store::layout;
use crate::store::lock::Lock;
use crate::store::pending::ApplyRecord;
use crate::store::record::{Lower, WorkspaceKind, WorkspaceRecord};
use crate::sys::dir::{self, Cross};
use crate::sys::{Errno, file, tree};

use conflict::{Conflict, Found, Round};
use select::Selection;

/// Whether changes of others are overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dare {
    /// They are refused.
    Alone,
    /// They are overwritten.
    OverOthers,
}

/// Whether anything is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// It is.
    Carry,
    /// It is only said.
    OnlySay,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Paths as `ws diff` shows them; none: all.
    pub paths: Vec<PathBuf>,
    /// What to do about conflicts.
    pub dare: Dare,
    /// Whether to do it.
    pub extent: Extent,
}

/// What was done, or would be.
#[derive(Debug)]
pub struct Done {
    /// The changes.
    pub changes: Vec<Change>,
    /// What would be refused: only where nothing was to be done.
    pub refused: Option<Failure>,
    /// That an apply that was cut off has been ended.
    pub resumed: Option<String>,
}

/// A workspace and the directory that it is applied to.
struct Work<'a> {
    store: &'a Store,
    record: WorkspaceRecord,
    directory: PathBuf,
    target: Arc<OwnedFd>,
}

/// Applies.
///
/// # Errors
/// Conflict where others have changed what is to be changed: nothing was done.
/// Anything else once it has begun: it can be ended by the next apply.
pub fn apply(store: &Store, name: &str, request: &Request) -> Outcome<Done> {
    own_files::reach();
    let Taken { record, lock } = workspace::take_any(store, name)?;
    workspace::check_writable(&record)?;
    if record.kind == WorkspaceKind::Copy {
        return Err(Failure::new(
            FailureKind::Usage,
            format!(
                "the workspace {name} is a copy: what it was copied from is not watched, and may have changed"
            ),
            format!(
                "`acetate ws diff {name}` says what to take over from `acetate ws path {name}`, or commit it as a layer"
            ),
        ));
    }
    let _held = workspace::idle(store, &record)?;
    let directory = target_of(store, &record)?;
    let failed = |e| Failure::system(&directory, "be opened", e);
    let target = Arc::new(dir::open_root(&directory).map_err(failed)?);
    let mut work = Work {
        store,
        record,
        directory,
        target,
    };
    let mut resumed = None;
    if let Some(pending) = store.pending_apply(name)? {
        if request.extent == Extent::OnlySay {
            store.check_no_apply(name)?;
        }
        work.resume(&pending, request.dare, &lock)?;
        resumed = Some("an apply that was cut off has been ended first".to_owned());
    }
    let selection = Selection::of_paths(&request.paths)?;
    let changes = selected(diff::of_workspace(store, name)?, &selection);
    let copied_up = changes::copied_up(&work.upper()?).map_err(work.failed())?;
    // Also where it is only to be said what would be done: it shows the same.
    if work.must_be_made_alone(&selection)? {
        work.make_alone()?;
    }
    if let Some(path) = work.untouched(&selection)? {
        if resumed.is_none() {
            return Err(Failure::new(
                FailureKind::NotFound,
                format!("nothing was changed at {path}"),
                format!("`acetate ws diff {name}` shows what was"),
            ));
        }
        let done = Done {
            changes,
            refused: None,
            resumed,
        };
        return Ok(done);
    }
    let refused = work.go(&selection, &copied_up, request, &lock)?;
    Ok(Done {
        changes,
        refused,
        resumed,
    })
}

/// The directory at the bottom; the only one in place.
fn target_of(store: &Store, record: &WorkspaceRecord) -> Outcome<PathBuf> {
    let refused = |why: &str| {
        let what = format!("the workspace {} {why}", record.name);
        let hint =
            "`acetate try`, or `acetate ws create -l /ABSOLUTE/DIR`, makes one that can be applied";
        Err(Failure::new(FailureKind::Usage, what, hint))
    };
    let is_directory = |l: &&Lower| matches!(l, Lower::Directory { .. });
    if record.lowers.iter().filter(is_directory).count() > 1 {
        return refused("was made over several directories: where its changes belong is not known");
    }
    if stack::is_disguised(store, &record.lowers)? {
        return refused(
            "keeps owners in attributes, for a layer of an archive: they have no place in a directory",
        );
    }
    match record.lowers.last() {
        Some(Lower::Directory { directory }) => Ok(directory.clone()),
        _ => refused("was not made over a directory"),
    }
}

fn selected(changes: Vec<Change>, selection: &Selection) -> Vec<Change> {
    let within = |c: &Change| selection.holds_text(&c.path, c.path_hex.as_deref());
    changes.into_iter().filter(within).collect()
}

impl Work<'_> {
    fn upper_path(&self) -> PathBuf {
        self.store.workspace_path(&self.record.name).join("upper")
    }

    fn failed(&self) -> impl Fn(Errno) -> Failure {
        let path = self.upper_path();
        move |e| Failure::system(&path, "be read", e)
    }

    fn upper(&self) -> Outcome<Layer> {
        Layer::open(
            UPPER,
            &self.upper_path(),
            Hold::Upper,
            &mut Known::default(),
        )
        .map_err(self.failed())
    }

    /// A path that was asked for and at which the upper has nothing.
    fn untouched(&self, selection: &Selection) -> Outcome<Option<String>> {
        let upper = self.upper()?;
        selection.first_missing(&upper).map_err(self.failed())
    }

    fn go(
        &mut self,
        selection: &Selection,
        copied_up: &changes::CopiedUp,
        request: &Request,
        lock: &Lock,
    ) -> Outcome<Option<Failure>> {
        let upper = self.upper()?;
        selection
            .check_wholes(&upper)
            .map_err(|e| e.or(self.failed()))?;
        let all = self.find(&upper, &Selection::all(), copied_up, Round::First)?;
        let (inside, outside): (Vec<Conflict>, Vec<Conflict>) = all
            .conflicts
            .into_iter()
            .partition(|c| c.concerns(selection));
        let refusal = conflict::refusal(&self.directory, &inside);
        match (request.extent, request.dare) {
            (Extent::OnlySay, Dare::Alone) => return Ok(refusal),
            (Extent::OnlySay, Dare::OverOthers) => return Ok(None),
            (Extent::Carry, Dare::OverOthers) => {}
            (Extent::Carry, Dare::Alone) => {
                if let Some(refusal) = refusal {
                    return Err(refusal);
                }
            }
        }
        let pending = ApplyRecord {
            paths: selection.to_text(),
            later: select::to_text(&all.later),
            forced: request.dare == Dare::OverOthers,
            rest_is_untouched: outside.is_empty(),
            rest: serde_json::Map::new(),
        };
        self.store.begin_apply(&self.record.name, &pending, lock)?;
        self.carry(&upper, selection, &pending, request.dare, lock)?;
        Ok(None)
    }

    /// Ends an apply that was cut off.
    fn resume(&mut self, pending: &ApplyRecord, dare: Dare, lock: &Lock) -> Outcome<()> {
        let selection = Selection::of_text(&pending.paths).ok_or_else(|| self.damaged())?;
        let upper = self.upper()?;
        let dare = match pending.forced {
            true => Dare::OverOthers,
            false => dare,
        };
        if dare == Dare::Alone {
            let found = self.find(&upper, &selection, &Default::default(), Round::Again)?;
            if let Some(refusal) = conflict::refusal(&self.directory, &found.conflicts) {
                return Err(refusal);
            }
        }
        self.carry(&upper, &selection, pending, dare, lock)
    }

    fn damaged(&self) -> Failure {
        let path = self
            .store
            .workspace_path(&self.record.name)
            .join("apply.json");
        Failure::new(
            FailureKind::Integrity,
            format!("{} is damaged", path.display()),
            "`acetate ws rm` discards the workspace; what is applied already stays",
        )
    }

    fn find(
        &self,
        upper: &Layer,
        selection: &Selection,
        copied_up: &changes::CopiedUp,
        round: Round,
    ) -> Outcome<Found> {
        let search = conflict::Search {
            upper,
            target: &self.target,
            since: self.record.since,
            selection,
            copied_up,
            round,
            ownership: look::Ownership::of(&self.record),
        };
        search
            .run()
            .map_err(|(path, e)| Failure::system(&self.shown(&path), "be looked at", e))
    }

    fn shown(&self, path: &select::Path) -> PathBuf {
        self.directory.join(select::relative(path))
    }

    /// Whether something in the upper leans on what the apply changes.
    fn must_be_made_alone(&self, selection: &Selection) -> Outcome<bool> {
        let upper = self.upper()?;
        let index = commit::index_of(self.store, &self.record.name);
        let survey = resolve::survey(&upper.root, index.as_ref()).map_err(self.failed())?;
        // Anchors of links whose names go one by one would lead to what is gone.
        Ok(survey.incomplete || (!selection.is_all() && self.has_index()?))
    }

    fn has_index(&self) -> Outcome<bool> {
        let folder = self.store.workspace_folder(&self.record.name)?;
        let open = |at: &Arc<OwnedFd>, name| {
            dir::open_dir_at(at.as_fd(), name, Cross::Refuse).map(Arc::new)
        };
        let index = open(&folder, layout::WORK).and_then(|work| open(&work, b"index"));
        let mut any = false;
        match index {
            Err(Errno::ENOENT) => Ok(false),
            r => r
                .and_then(|index| dir::list(index.as_fd(), |_| any = true))
                .map(|()| any)
                .map_err(self.failed()),
        }
    }

    /// Replaces the upper by one that shows the same and leans on nothing below.
    fn make_alone(&self) -> Outcome<()> {
        let upper = self.upper()?;
        let index = commit::index_of(self.store, &self.record.name);
        let survey = resolve::survey(&upper.root, index.as_ref()).map_err(self.failed())?;
        let lowers = stack::trees(self.store, &self.record.lowers)?;
        let staging = self.store.stage()?;
        let failed = |e| Failure::system(staging.path(), "be written", e);
        for part in [layout::UPPER, layout::WORK, b"links"] {
            dir::mkdir(staging.dir().as_fd(), part, 0o755).map_err(failed)?;
        }
        let open = |name| dir::open_dir_at(staging.dir().as_fd(), name, Cross::Refuse);
        let fresh = Arc::new(open(layout::UPPER).map_err(failed)?);
        let mut links = Links::new(Arc::new(open(b"links").map_err(failed)?));
        let source = Source {
            upper: &upper.root,
            path: self.upper_path(),
            lowers: &lowers,
            owners: Owners::Real,
            index,
        };
        resolve::copy_alone(&source, &survey, &fresh, &mut links)?;
        tree::remove(staging.dir(), b"links").map_err(failed)?;
        file::sync_fs(fresh.as_fd()).map_err(failed)?;
        self.store.exchange_upper(&self.record.name, &staging)
    }

    /// Steps 4 to 7.
    fn carry(
        &mut self,
        upper: &Layer,
        selection: &Selection,
        pending: &ApplyRecord,
        dare: Dare,
        lock: &Lock,
    ) -> Outcome<()> {
        let later = select::of_text(&pending.later).ok_or_else(|| self.damaged())?;
        let carrying =
            carry::Carrying::new(upper, &self.target, selection, &later, &self.record, dare);
        carrying.run().map_err(|(path, e)| {
            let mut failure = Failure::system(&self.shown(&path), "be brought up to date", e);
            failure.hint = format!(
                "what was done so far stays; `acetate ws apply {}` goes on",
                self.record.name
            );
            failure
        })?;
        let failed = |e| Failure::system(&self.directory, "be written to disk", e);
        file::sync_fs(self.target.as_fd()).map_err(failed)?;
        self.leave_upper(upper, selection)?;
        if pending.rest_is_untouched {
            self.record.since = Some(file_clock::a_moment_ago());
        }
        self.store.end_apply(&self.record, lock)
    }

    /// What was applied leaves the upper.
    fn leave_upper(&self, upper: &Layer, selection: &Selection) -> Outcome<()> {
        let name = &self.record.name;
        if selection.is_all() {
            let trees = stack::trees(self.store, &self.record.lowers)?;
            return workspace::empty_upper(self.store, name, &trees);
        }
        let staging = self.store.stage()?;
        select::take_out(upper, selection, staging.dir()).map_err(self.failed())?;
        file::sync_fs(upper.root.as_fd()).map_err(self.failed())
    }
}
