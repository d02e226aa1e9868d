//! What was changed in a copied workspace, as a layer.
//!
//! The tree is looked through, what is to be in the layer is decided, copied, and the
//! tree looked through again: had something been done to it meanwhile, the copy would
//! be of no one moment, and the commit is refused. (A mount can hold changes; a plain
//! tree cannot.)

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::archive::{SideRecord, SideRecords};
use crate::layer::disguise::Disguise;
use crate::layer::mark::{dot_wh_name, is_dot_wh};
use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::sys::dir::{self, Cross};
use crate::sys::tree::Trail;
use crate::sys::{Errno, Kind, Name, Result, Spot, Stat, copy, process};

use super::super::commit::{How, finish};
use super::super::copy::{Links, Look, Owners, layer_name};
use super::super::layer::{Growing, Made, NewLayer};
use super::super::resolve::set_opaque;
use super::super::side;
use super::super::stack;
use super::super::workspace::Taken;
use super::Copied;
use super::scan::{Found, Scan, joined, parts};

/// Makes the layer. The workspace stays as it is.
pub fn commit(store: &Store, taken: &Taken, new: &NewLayer, how: How) -> Outcome<Made> {
    let copied = Copied::open(store, &taken.record)?;
    let plan = match how {
        How::Changes => copied.plan(),
        How::Squash => Plan::everything(&copied.scan),
    };
    copied.check(&plan)?;
    let owners = copied.owners_of(&plan, stack::is_disguised(store, &taken.record.lowers)?);
    let growing = Growing::new(store)?;
    let mut writing = Writing {
        copied: &copied,
        plan: &plan,
        owners,
        to: Trail::new(growing.tree()).map_err(|e| copied.failed(&[], "be copied", e))?,
        open: vec![Vec::new()],
        links: growing.links()?,
        records: SideRecords::default(),
    };
    writing.all()?;
    let records = writing.records;
    let now = Scan::of(&copied.tree, &copied.shown)?;
    if !copied.scan.is_like(&now) {
        return Err(Failure::new(
            FailureKind::InUse,
            format!(
                "something was done in {} while it was copied: the layer would be of no one moment",
                copied.shown.display()
            ),
            "wait until what works in it is done, then try again",
        ));
    }
    let lowers = &taken.record.lowers;
    finish(store, growing, lowers, (&records, owners), new, how)
}

/// What a layer is to hold.
#[derive(Debug, Default)]
struct Plan {
    /// Objects, by their paths.
    objects: BTreeSet<Vec<Name>>,
    /// Names that are to be hidden, by the directory that they are in.
    whiteouts: BTreeMap<Vec<Name>, Vec<Name>>,
    /// Directories that hide all that lies below them.
    opaque: BTreeSet<Vec<Name>>,
}

impl Plan {
    fn everything(scan: &Scan) -> Plan {
        Plan {
            objects: scan.0.keys().cloned().collect(),
            ..Plan::default()
        }
    }

    /// Adds an object, and the way to it.
    fn add(&mut self, path: &[Name]) {
        let mut way = path;
        while self.objects.insert(way.to_vec()) {
            let Some((_, above)) = way.split_last() else {
                return;
            };
            way = above;
        }
    }
}

impl Copied {
    /// What a mounted workspace would have in its upper.
    fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        plan.add(&[]);
        // Directories in which layers show through.
        let mut merged: BTreeSet<&[Name]> = BTreeSet::new();
        for (path, found) in &self.scan.0 {
            let above = path.split_last().map(|(_, above)| above);
            let shows_through = above.is_none_or(|a| merged.contains(a));
            let is_dir = found.stat.kind() == Kind::Dir;
            if shows_through && is_dir {
                let root = path.is_empty();
                if root || self.is_same(path, found) {
                    merged.insert(path);
                } else if self.before(path).is_some_and(|b| b.kind == Kind::Dir) {
                    plan.opaque.insert(path.clone());
                }
            }
            if !shows_through || !self.is_untouched(path, found) {
                plan.add(path);
            }
        }
        for entry in self.manifest.entries() {
            let path = parts(&entry.path);
            let Some((name, above)) = path.split_last() else {
                continue;
            };
            if merged.contains(above) && !self.scan.0.contains_key(&path) {
                plan.add(above);
                let hidden = plan.whiteouts.entry(above.to_vec()).or_default();
                hidden.push(name.clone());
            }
        }
        plan
    }

    /// What no layer can hold.
    fn check(&self, plan: &Plan) -> Outcome<()> {
        for path in &plan.objects {
            let whiteout = |f: &Found| f.stat.is_whiteout();
            let what = match path.last() {
                Some(name) if is_dot_wh(name) => "a name that begins with .wh. is a whiteout there",
                _ if self.scan.0.get(path).is_some_and(whiteout) => {
                    "a character device 0:0 is a whiteout there"
                }
                _ => continue,
            };
            return Err(Failure::new(
                FailureKind::General,
                format!(
                    "{} cannot be in a layer: {what}",
                    super::scan::shown(&self.shown, path).display()
                ),
                "remove or rename it",
            ));
        }
        Ok(())
    }

    /// How the layer keeps owners: as those below it; in xattrs too where this caller
    /// cannot give a file away.
    fn owners_of(&self, plan: &Plan, disguised: bool) -> Owners {
        let own = process::effective_ids();
        let keeps = |path: &Vec<Name>| {
            let looks = self.scan.0.get(path).map(|f| self.looks(f));
            looks.is_none_or(|l| {
                (l.uid, l.gid) == own && !matches!(l.kind, Kind::Char | Kind::Block)
            })
        };
        match disguised || !(self.keeps_owners || plan.objects.iter().all(keeps)) {
            true => Owners::Disguised,
            false => Owners::Real,
        }
    }
}

struct Writing<'a> {
    copied: &'a Copied,
    plan: &'a Plan,
    owners: Owners,
    to: Trail,
    /// The directories that are open in the layer's tree.
    open: Vec<Vec<Name>>,
    links: Links,
    records: SideRecords,
}

impl Writing<'_> {
    fn all(&mut self) -> Outcome<()> {
        for path in self.plan.objects.iter().filter(|p| !p.is_empty()) {
            let above = path.split_last().map(|(_, above)| above);
            while self.open.last().map(|p| &p[..]) != above && self.open.len() > 1 {
                self.close()?;
            }
            self.object(path)
                .map_err(|e| self.copied.failed(path, "be copied", e))?;
        }
        while !self.open.is_empty() {
            self.close()?;
        }
        Ok(())
    }

    /// Everything is in the deepest directory: its marks, and its own look.
    fn close(&mut self) -> Outcome<()> {
        let Some(path) = self.open.pop() else {
            return Ok(());
        };
        let closed = self.finish_directory(&path);
        closed.map_err(|e| self.copied.failed(&path, "be copied", e))
    }

    fn finish_directory(&mut self, path: &[Name]) -> Result<()> {
        let at = self.to.top()?.clone();
        for hidden in self.plan.whiteouts.get(path).into_iter().flatten() {
            add_whiteout(&at, hidden)?;
        }
        let spot = Spot::fd(at);
        if self.plan.opaque.contains(path) {
            set_opaque(&spot)?;
        }
        let found = self.copied.scan.0.get(path).ok_or(Errno::ESTALE)?;
        self.look(path, found)?.put_on(&spot, self.owners)?;
        self.to.pop()?;
        Ok(())
    }

    fn object(&mut self, path: &[Name]) -> Result<()> {
        let found = *self.copied.scan.0.get(path).ok_or(Errno::ESTALE)?;
        let name = path.last().ok_or(Errno::EIO)?;
        let to = self.to.top()?.clone();
        if found.stat.kind() == Kind::Dir {
            dir::mkdir(to.as_fd(), name, 0o700)?;
            let below = dir::open_dir_at(to.as_fd(), name, Cross::Refuse)?;
            self.to.push(Arc::new(below))?;
            self.open.push(path.to_vec());
            return Ok(());
        }
        let look = self.look(path, &found)?;
        self.record(path, &look.stat);
        if self.links.link(&found.stat, &to, name)? {
            return Ok(());
        }
        self.make(path, &look.stat, &to, name)?;
        look.put_on(&Spot::at(to.clone(), name.clone()), self.owners)?;
        self.links.note(&found.stat, &to, name)
    }

    /// A symlink can carry no xattr, and a device may not be made: what they are is
    /// recorded beside the tree.
    fn record(&mut self, path: &[Name], shown: &Stat) {
        let record = match (self.owners, shown.kind()) {
            (Owners::Disguised, Kind::Symlink) => {
                side::of_symlink(joined(path), shown.uid, shown.gid)
            }
            (Owners::Real, Kind::Char | Kind::Block) if !process::may_make_devices() => {
                Some(SideRecord {
                    path: joined(path),
                    what: Disguise::of(shown),
                })
            }
            _ => None,
        };
        record.into_iter().for_each(|r| self.records.insert(r));
    }

    /// Whether an empty file stands for an object.
    fn stands_in(&self, kind: Kind) -> bool {
        let device = matches!(kind, Kind::Char | Kind::Block);
        self.owners == Owners::Disguised || device && !process::may_make_devices()
    }

    fn make(&self, path: &[Name], shown: &Stat, to: &Arc<OwnedFd>, name: &Name) -> Result<()> {
        let from = self.copied.spot(path)?;
        match shown.kind() {
            Kind::Dir => Err(Errno::EISDIR),
            Kind::File => {
                let data = from.open(OFlags::RDONLY | OFlags::NONBLOCK)?;
                let file = dir::create_file(to.as_fd(), name, 0o600)?;
                copy::clone_data(data.as_fd(), file.as_fd(), shown.size)
            }
            Kind::Symlink => dir::symlink(&from.read_link()?, to.as_fd(), name),
            kind if self.stands_in(kind) => dir::create_file(to.as_fd(), name, 0o600).map(drop),
            kind => dir::mknod(to.as_fd(), name, kind.mode_bits() | 0o600, shown.rdev),
        }
    }

    /// What an object is to be like in the layer.
    fn look(&self, path: &[Name], found: &Found) -> Result<Look> {
        let looks = self.copied.looks(found);
        let mut xattrs = Vec::new();
        for (name, value) in self.copied.xattrs(path, found)? {
            xattrs.extend(layer_name(&name, self.owners).map(|name| (name, value)));
        }
        Ok(Look {
            stat: Stat {
                mode: looks.kind.mode_bits() | looks.mode,
                uid: looks.uid,
                gid: looks.gid,
                rdev: looks.rdev,
                ..found.stat
            },
            xattrs,
        })
    }
}

/// Hides a name: a character device 0:0, else a file `.wh.NAME`.
fn add_whiteout(at: &Arc<OwnedFd>, name: &Name) -> Result<()> {
    match dir::mknod(at.as_fd(), name, Kind::Char.mode_bits(), (0, 0)) {
        Err(Errno::EPERM) => {
            let marker = dot_wh_name(name).ok_or(Errno::ENAMETOOLONG)?;
            dir::create_file(at.as_fd(), &marker, 0o600).map(drop)
        }
        r => r,
    }
}
