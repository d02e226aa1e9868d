//! What a name stands for, over all layers: I/O around [`Resolver`].

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::data_only;
use super::found::{Found, LowerPlace, UpperPart};
use crate::layer::disguise::Disguise;
use crate::layer::mark::{Marks, Opaque, Redirect};
use crate::layer::{Layer, LayerId, Object, Probe, UPPER};
use crate::overlay::Overlay;
use crate::overlay::decide::resolve::{Refusal, Resolver, Step, Verdict, Where};
use crate::overlay::inode::locate;
use crate::overlay::inode::node::{LowerSpot, Node, Place};
use crate::overlay::options::RedirectDir;
use crate::sys::{Errno, Kind, Name, ObjectId, Result, Spot, Stat};

/// Which layers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// All.
    Top,
    /// Only the lowers: what would show if the upper had nothing.
    Lowers,
}

/// What a name stands for, and what was learnt on the way.
pub(super) struct Resolved {
    /// The object.
    pub(super) found: Option<Found>,
    /// Whether the lowers would show something if the upper had nothing; `None`
    /// where they were not all asked.
    pub(super) lowers_show: Option<bool>,
    /// The upper has nothing under the name, no marker either.
    pub(super) upper_is_bare: bool,
}

/// The walk over the layers for one name.
struct Walk<'a> {
    overlay: &'a Overlay,
    parent: &'a Arc<Node>,
    name: &'a Name,
    found: Option<Found>,
    resolver: Resolver,
    /// Where the lowers' merged view has what is asked for now.
    view: Option<Arc<Place>>,
    /// Below what is asked now lies a layer in which a directory could go on.
    leads_on: bool,
    /// The upper is opaque in an ancestor of a redirect's path.
    stop_after: bool,
    /// How many lowers of the parent did not have the name.
    vain: u32,
    /// All lowers were asked under the name itself, and none has it.
    none_below: bool,
    upper_is_bare: bool,
}

impl Overlay {
    /// Resolves `name` in `parent`. The caller holds the rename lock and the
    /// directory's.
    pub(super) fn resolve(
        &self,
        parent: &Arc<Node>,
        name: &Name,
        from: From,
    ) -> Result<Option<Found>> {
        Ok(self.walk(parent, name, from)?.found)
    }

    /// The same over all layers, with what was learnt on the way.
    pub(super) fn resolve_all(&self, parent: &Arc<Node>, name: &Name) -> Result<Resolved> {
        self.walk(parent, name, From::Top)
    }

    fn walk(&self, parent: &Arc<Node>, name: &Name, from: From) -> Result<Resolved> {
        let Some(dir) = &parent.dir else {
            return Err(Errno::ENOTDIR);
        };
        let mut walk = Walk {
            overlay: self,
            parent,
            name,
            found: None,
            resolver: Resolver::new(name, self.follows_redirects()),
            view: dir.lower_view.as_ref().map(|v| Place::child(v, name)),
            leads_on: false,
            stop_after: false,
            vain: 0,
            none_below: false,
            upper_is_bare: false,
        };
        if from == From::Top && parent.is_upper() && walk.upper()? == Step::Done {
            return walk.finish();
        }
        let asked = walk.lowers(from).and_then(|()| walk.data_layers());
        self.asked_in_vain(parent, walk.vain);
        asked?;
        walk.finish()
    }
}

impl Walk<'_> {
    fn upper(&mut self) -> Result<Step> {
        let Some(upper) = &self.overlay.stack.upper else {
            return Ok(Step::Ask);
        };
        let dir = locate::upper_dir(&self.overlay.fds, &upper.layer, self.parent)?;
        let below = !self.parent.lowers.read().is_empty();
        let xwh = self.overlay.xattr_whiteouts(self.parent);
        self.leads_on = self.overlay.leads_on(UPPER, below);
        match upper.layer.probe(&dir, self.name, below, xwh)? {
            Probe::Absent => {
                self.upper_is_bare = true;
                Ok(Step::Ask)
            }
            Probe::Whiteout => Ok(self.resolver.whiteout()),
            Probe::Object(o) => Ok(self.take(UPPER, *o, None)),
        }
    }

    /// Accepts an object of a layer or leaves it.
    fn take(&mut self, layer: LayerId, mut o: Object, place: Option<LowerPlace>) -> Step {
        if place.is_some() && self.overlay.settings.traps.contains(&ObjectId::of(&o.stat)) {
            o.mount_point = true;
            o.marks = Marks::default();
        }
        if let (None, Some(p)) = (&o.marks.disguise, &place) {
            o.marks.disguise = self.beside(layer, p, &o);
        }
        let stat = self.overlay.undisguise(layer, &o.stat, &o.marks);
        let kind = stat.kind();
        let (verdict, step) = self.resolver.object(kind, &o.marks, self.leads_on);
        if verdict == Verdict::Leave {
            return step;
        }
        let goes_elsewhere = leads_to_path(&o.marks);
        let found = self.found.get_or_insert_with(|| Found {
            kind,
            stat,
            upper: None,
            lowers: Vec::new(),
            lower_nlink: 0,
            lower_view: None,
        });
        match place {
            None => {
                found.upper = Some(UpperPart {
                    id: ObjectId::of(&o.stat),
                    marks: o.marks,
                    by_index: None,
                });
            }
            Some(p) => {
                if found.lowers.is_empty() {
                    found.lower_nlink = o.stat.nlink;
                    found.lower_view = self.view.clone();
                }
                found.lowers.push(LowerSpot {
                    layer,
                    place: (kind == Kind::Dir).then_some(p.own),
                    parent: Some(p.parent),
                    name: p.name,
                    id: ObjectId::of(&o.stat),
                    xattr_whiteouts: o.marks.opaque == Opaque::MayHoldXattrWhiteouts,
                    mount_point: o.mount_point,
                });
            }
        }
        // What hides the way to it hides nothing of the place it names itself.
        self.stop_after &= step == Step::Done || !goes_elsewhere;
        if o.mount_point || self.stop_after {
            Step::Done
        } else {
            step
        }
    }

    /// What a side record of the layer says of an object in it.
    fn beside(&self, layer: LayerId, place: &LowerPlace, o: &Object) -> Option<Disguise> {
        let layer = self.overlay.stack.layer(layer).ok()?;
        let table = layer.beside.as_ref()?;
        table.what(&place.parent.path_of(&place.name), &o.stat)
    }

    fn lowers(&mut self, from: From) -> Result<()> {
        let spots = self.parent.lower_spots();
        // Layers of the parent are walked until a redirect leads to a path;
        // then every layer below is walked from its root.
        let mut last = UPPER;
        // Whether a whiteout must be written is asked of every lower: a name that one got
        // since it was listed must not come back when the name above it goes.
        let presence = match from {
            From::Top => self.overlay.presence(self.parent, &spots),
            From::Lowers => None,
        };
        let mut place = 0;
        while let Where::Name(name) = &self.resolver.at {
            let worth_asking = match &presence {
                Some(p) => p.next(name, place),
                None => Some(place),
            };
            let Some((at, spot)) = worth_asking.and_then(|at| Some((at, spots.get(at)?))) else {
                break;
            };
            place = at + 1;
            last = spot.layer;
            self.leads_on = self.overlay.leads_on(spot.layer, place < spots.len());
            if self.in_parent(spot)? == Step::Done {
                return Ok(());
            }
        }
        if let Where::Name(name) = &self.resolver.at {
            let taken = self.found.as_ref().is_some_and(|f| !f.lowers.is_empty());
            self.none_below = presence.is_none() && !taken && name[..] == **self.name;
            return Ok(());
        }
        for layer in self.overlay.stack.merged_below(last) {
            if self.at_path(layer)? == Step::Done {
                break;
            }
        }
        Ok(())
    }

    /// The data of a metacopy file with a redirect to a path may lie in a layer that holds
    /// nothing else, whatever hides the path in the layers that are merged; marks mean
    /// nothing there (ovl_lookup_data_layers()).
    fn data_layers(&mut self) -> Result<()> {
        let Where::Path(path) = self.resolver.at.clone() else {
            return Ok(());
        };
        for layer in self.overlay.stack.lowers.iter().filter(|l| l.data_only) {
            if !self.resolver.lacks_data() || self.resolver.refusal.is_some() {
                break;
            }
            let found = match data_only::at_path(layer, &path) {
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => None,
                r => r?,
            };
            if let Some((object, place)) = found {
                self.take(layer.id, object, Some(place));
            }
        }
        Ok(())
    }

    fn in_parent(&mut self, spot: &LowerSpot) -> Result<Step> {
        let Where::Name(n) = &self.resolver.at else {
            return Ok(Step::Ask);
        };
        let Some(place) = &spot.place else {
            return Ok(Step::Ask);
        };
        if spot.mount_point {
            return Ok(Step::Ask);
        }
        let name = if **self.name == **n {
            self.name.clone()
        } else {
            Name::from(&n[..])
        };
        let layer = self.overlay.stack.layer(spot.layer)?;
        let dir = locate::lower_dir(&self.overlay.fds, layer, place)?;
        self.sync_view(&name);
        let below = self.overlay.stack.has_below(spot.layer);
        let place = place.clone();
        match layer.probe(&dir, &name, below, spot.xattr_whiteouts)? {
            Probe::Absent => {
                self.vain += 1;
                Ok(Step::Ask)
            }
            Probe::Whiteout => Ok(self.resolver.whiteout()),
            Probe::Object(o) => {
                let own = self.own_place(&place, &name);
                Ok(self.take(
                    spot.layer,
                    *o,
                    Some(LowerPlace {
                        parent: place,
                        name,
                        own,
                    }),
                ))
            }
        }
    }

    /// The place of `name` below `parent`: the view's own chain where both are
    /// one, so that layers share it.
    fn own_place(&self, parent: &Arc<Place>, name: &Name) -> Arc<Place> {
        if let Some(v) = &self.view
            && let Some((up, n)) = &v.up
            && Arc::ptr_eq(up, parent)
            && n == name
        {
            return v.clone();
        }
        Place::child(parent, name)
    }

    /// Keeps the view's chain in step with a relative redirect found in the upper.
    fn sync_view(&mut self, name: &Name) {
        if self.found.as_ref().is_some_and(|f| !f.lowers.is_empty()) {
            return;
        }
        let base = self.parent.dir.as_ref().and_then(|d| d.lower_view.as_ref());
        if let Some(base) = base
            && self
                .view
                .as_ref()
                .and_then(|v| v.up.as_ref())
                .is_some_and(|(_, n)| n != name)
        {
            self.view = Some(Place::child(base, name));
        }
    }

    fn at_path(&mut self, layer: &Layer) -> Result<Step> {
        let Where::Path(path) = self.resolver.at.clone() else {
            return Ok(Step::Done);
        };
        let id = layer.id;
        if self.found.as_ref().is_none_or(|f| f.lowers.is_empty()) {
            self.view = Some(Place::chain(&path));
        }
        let below = self.overlay.stack.has_below(id);
        self.leads_on = below;
        let mut place = Place::root();
        let mut dir: Arc<OwnedFd> = layer.root.clone();
        let mut xwh = layer.xattr_whiteouts;
        let Some((last, ancestors)) = path.split_last() else {
            return Ok(Step::Done);
        };
        for (depth, comp) in ancestors.iter().enumerate() {
            let name = Name::from(&comp[..]);
            let o = match layer.probe(&dir, &name, below, xwh)? {
                Probe::Absent if self.stop_after => return Ok(Step::Done),
                Probe::Absent => return Ok(Step::Ask),
                Probe::Whiteout => return Ok(self.resolver.whiteout()),
                Probe::Object(o) => *o,
            };
            if o.stat.kind() != Kind::Dir || o.mount_point {
                return Ok(Step::Done);
            }
            xwh = o.marks.opaque == Opaque::MayHoldXattrWhiteouts;
            self.stop_after |= o.marks.opaque == Opaque::Yes;
            self.stop_after &= !leads_to_path(&o.marks);
            if below || self.resolver.lacks_data() {
                self.resolver.ancestor(&o.marks, &path, depth);
            }
            if self.resolver.refusal.is_some() {
                return Ok(Step::Done);
            }
            place = Place::child(&place, &name);
            dir = Arc::new(layer.open_dir(dir.as_fd(), &name)?);
        }
        let name = Name::from(&last[..]);
        let step = match layer.probe(&dir, &name, below, xwh)? {
            Probe::Absent => Step::Ask,
            Probe::Whiteout => self.resolver.whiteout(),
            Probe::Object(o) => {
                let own = Place::child(&place, &name);
                self.take(
                    id,
                    *o,
                    Some(LowerPlace {
                        parent: place,
                        name,
                        own,
                    }),
                )
            }
        };
        Ok(if self.stop_after { Step::Done } else { step })
    }

    fn finish(self) -> Result<Resolved> {
        let lacks = self.resolver.lacks_data();
        let mut resolved = Resolved {
            found: None,
            lowers_show: self.none_below.then_some(false),
            upper_is_bare: self.upper_is_bare,
        };
        match self.resolver.refusal {
            Some(Refusal::Malformed) => return Err(Errno::EINVAL),
            Some(Refusal::NotFollowed) => return Err(Errno::EPERM),
            None => {}
        }
        let Some(mut found) = self.found else {
            return Ok(resolved);
        };
        if lacks {
            // Its data is nowhere: zeros would be a lie, copied up even a lasting one.
            return Err(Errno::EIO);
        }
        if found.kind != Kind::Dir {
            found.lower_view = None;
        }
        self.overlay.apply_index(&mut found)?;
        resolved.found = Some(found);
        Ok(resolved)
    }
}

/// Whether the layers below are asked at a path from their roots (ovl_check_redirect()
/// then takes back that an ancestor was opaque).
fn leads_to_path(marks: &Marks) -> bool {
    marks.opaque != Opaque::Yes && matches!(marks.redirect, Some(Redirect::Path(_)))
}

impl Overlay {
    fn follows_redirects(&self) -> bool {
        self.settings.redirect_dir != RedirectDir::NoFollow
    }

    /// Whether a directory found in a layer could go on below. `parent_does`: its parent
    /// does; a redirect leads to any layer (`d.last` in ovl_lookup()).
    fn leads_on(&self, layer: LayerId, parent_does: bool) -> bool {
        parent_does || self.follows_redirects() && self.stack.has_below(layer)
    }

    /// A stat as its disguise has it.
    pub(super) fn undisguise(&self, layer: LayerId, s: &Stat, marks: &Marks) -> Stat {
        match (&marks.disguise, self.stack.layer(layer)) {
            (Some(d), Ok(l)) if l.disguised => d.apply(s),
            _ => *s,
        }
    }

    /// A lower file with several names may have been copied up under another
    /// one: the index knows (see architecture.md, "Hard links survive").
    fn apply_index(&self, found: &mut Found) -> Result<()> {
        if found.upper.is_some() || found.lower_nlink < 2 || found.kind == Kind::Dir {
            return Ok(());
        }
        let Some(upper) = &self.stack.upper else {
            return Ok(());
        };
        let Some(index) = &upper.index else {
            return Ok(());
        };
        let Some(spot) = found.lowers.first() else {
            return Ok(());
        };
        let name = self.anchor_name(spot)?;
        let at = Spot::at(index.clone(), name.clone());
        let s = match at.stat() {
            Ok(s) if !s.is_whiteout() => s,
            _ => return Ok(()),
        };
        let marks = Marks::read(&at)?;
        found.stat = self.undisguise(UPPER, &s, &marks);
        found.upper = Some(UpperPart {
            id: ObjectId::of(&s),
            marks,
            by_index: Some(name),
        });
        Ok(())
    }

    /// The anchor's name in `work/index` for a lower object.
    pub(super) fn anchor_name(&self, spot: &LowerSpot) -> Result<Name> {
        let layer = self.stack.layer(spot.layer)?;
        let at = locate::lower_spot(&self.fds, layer, spot)?;
        let origin = self
            .stack
            .upper
            .as_ref()
            .and_then(|u| u.origin_of(&at, layer));
        Ok(crate::overlay::upper::Upper::index_name(
            origin.as_ref(),
            layer.fs,
            spot.id.ino,
        ))
    }
}
