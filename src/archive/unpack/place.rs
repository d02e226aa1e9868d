//! Where an entry goes: the way to its directory, parents made, whiteouts set.

use std::os::fd::{AsFd, OwnedFd};

use super::keep::{Handle, State, Subject};
use super::{Here, Unpacker, made_parent};
use crate::archive::error::{For, Result};
use crate::archive::limits::{SYMLINKS_FOLLOWED_MAX, WHITEOUT_DIRS_MAX};
use crate::archive::{Shown, remove};
use crate::layer::acl;
use crate::layer::mark::{self, OPAQUE_FILES, Opaque};
use crate::sys::probe::WhiteoutKind;
use crate::sys::stat::SetTime;
use crate::sys::{Errno, Kind, Name, Spot, Stat, dir, opened, xattr};

/// What a directory is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// It is to hold something.
    Object,
    /// It is to hold a whiteout, or to be opaque: neither says that it is there.
    Whiteout,
}

/// Whether the directory is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    /// A whiteout or a file stands there or above it, and hides what is below anyway.
    Hidden,
}

impl Unpacker {
    /// Goes to the directory of an object; what is missing on the way is made.
    pub(super) fn go_for_object(&mut self, dirs: &[&[u8]]) -> Result<()> {
        self.go(dirs, Purpose::Object).map(|_| ())
    }

    fn go(&mut self, dirs: &[&[u8]], purpose: Purpose) -> Result<Way> {
        let common = self.trail.common(dirs);
        while self.trail.depth() > common {
            self.leave()?;
        }
        let rest = dirs.get(common..).unwrap_or_default();
        let mut todo: Vec<Vec<u8>> = rest.iter().rev().map(|d| d.to_vec()).collect();
        let mut followed = 0;
        while let Some(name) = todo.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." if self.trail.depth() == 0 => {
                    return Err(self.refused("a parent is a symlink that leads out of the layer"));
                }
                b".." => self.leave()?,
                _ => match self.step(&name, purpose, followed > 0)? {
                    Step::Done => {}
                    Step::Hidden => return Ok(Way::Hidden),
                    Step::Follow(target) => {
                        followed += 1;
                        if followed > SYMLINKS_FOLLOWED_MAX {
                            return Err(self.refused("its parents are too many symlinks"));
                        }
                        let parts = target.split(|b| *b == b'/').rev();
                        todo.extend(parts.map(<[u8]>::to_vec));
                    }
                },
            }
        }
        if purpose == Purpose::Object && !self.for_whiteouts.is_empty() {
            self.hold_objects();
        }
        Ok(Way::There)
    }

    fn step(&mut self, name: &[u8], purpose: Purpose, by_symlink: bool) -> Result<Step> {
        match self.trail.open(name) {
            Ok(there) => return self.enter(name, there).map(|()| Step::Done),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(e) => return Err(e).doing("open", &self.trail.path_of(name)),
        }
        let path = self.trail.path_of(name);
        let at = self.dir()?;
        let found = dir::probe(at.as_fd(), name).doing("stat", &path)?;
        if self.is_whiteout(name, found.as_ref())? {
            if purpose == Purpose::Whiteout {
                return Ok(Step::Hidden);
            }
        } else if let Some(stat) = found {
            if stat.kind() != Kind::Symlink {
                if purpose != Purpose::Object {
                    return Ok(Step::Hidden);
                }
                let what = format!("its parent {} is no directory", Shown(&path));
                return Err(self.refused(what));
            }
            let spot = Spot::at(at.clone(), Name::from(name));
            let target = spot.read_link().doing("read the symlink", &path)?;
            if target.starts_with(b"/") {
                let what = format!(
                    "its parent {} is a symlink that leads out of the layer ({})",
                    Shown(&path),
                    Shown(&target)
                );
                return Err(self.refused(what));
            }
            return Ok(Step::Follow(target));
        } else if by_symlink {
            let what = format!(
                "a parent is a symlink to {}, which is missing",
                Shown(&path)
            );
            return Err(self.refused(what));
        }
        self.make_parent(name, &path, purpose)?;
        Ok(Step::Done)
    }

    fn make_parent(&mut self, name: &[u8], path: &[u8], purpose: Purpose) -> Result<()> {
        self.make_directory(&made_parent(), name)?;
        if purpose == Purpose::Whiteout && self.for_whiteouts.len() < WHITEOUT_DIRS_MAX {
            self.for_whiteouts.insert(path.to_vec());
        }
        let there = self.trail.open(name).doing("open", path)?;
        self.enter(name, there)
    }

    /// The directories of the trail hold objects now, not whiteouts alone.
    fn hold_objects(&mut self) {
        let path = self.trail.path();
        self.for_whiteouts.remove(path);
        for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
            self.for_whiteouts
                .remove(path.get(..at).unwrap_or_default());
        }
    }

    fn enter(&mut self, name: &[u8], there: (OwnedFd, Stat)) -> Result<()> {
        let mtime = there.1.mtime;
        let ours = self.keeper.leaves_alone(&there.1);
        let here = Here {
            mtime,
            touched: false,
            plain: ours,
        };
        self.trail.enter(name, there, here);
        if ours && self.default_acls {
            let spot = self.trail.spot().doing("open", name)?;
            self.trail.here_mut().plain = self.is_plain(&spot)?;
        }
        Ok(())
    }

    /// Whether what is made in a directory gets what it is asked for.
    pub(super) fn is_plain(&self, spot: &Spot) -> Result<bool> {
        let path = self.trail.path();
        let stat = spot.stat().doing("stat", path)?;
        let inherited = self.default_acls
            && xattr::get(spot, acl::DEFAULT)
                .doing("read the default ACL of", path)?
                .is_some();
        Ok(!inherited && self.keeper.leaves_alone(&stat))
    }

    /// Goes one directory up and gives the one that is left its time again.
    pub(super) fn leave(&mut self) -> Result<()> {
        self.restore_time()?;
        let left = self.trail.leave();
        left.doing("leave", self.trail.path()).map(|_| ())
    }

    pub(super) fn restore_time(&mut self) -> Result<()> {
        let here = *self.trail.here();
        if !here.touched {
            return Ok(());
        }
        let spot = self.trail.spot();
        let set = spot.and_then(|spot| spot.set_times(SetTime::Keep, SetTime::At(here.mtime)));
        set.doing("set the time of", self.trail.path())
    }

    pub(super) fn dir(&self) -> Result<std::sync::Arc<OwnedFd>> {
        let fd = self.trail.fd();
        Ok(fd.doing("open", self.trail.path())?.clone())
    }

    /// Hides a name of the layers below.
    pub(super) fn whiteout(&mut self, dirs: &[&[u8]], name: &[u8]) -> Result<()> {
        if self.go(dirs, Purpose::Whiteout)? == Way::Hidden {
            return Ok(());
        }
        let (at, path) = (self.dir()?, self.trail.path_of(name));
        let found = dir::probe(at.as_fd(), name).doing("stat", &path)?;
        if self.is_whiteout(name, found.as_ref())? {
            return Ok(());
        }
        match found {
            None => {}
            Some(stat) if stat.kind() != Kind::Dir => return Ok(()),
            Some(_) if !self.for_whiteouts.remove(&path) => {
                return self.set_opaque(&Spot::at(at, Name::from(name)), &path);
            }
            // Only whiteouts are in it: now all of it is hidden.
            Some(_) => {
                self.forget(&path);
                remove::tree(&at, name).doing("remove", &path)?;
            }
        }
        self.trail.here_mut().touched = true;
        let made = match self.marks.whiteouts {
            WhiteoutKind::CharDevice => dir::mknod(at.as_fd(), name, libc::S_IFCHR, (0, 0)),
            WhiteoutKind::DotWh => {
                let marker = mark::dot_wh_name(name).ok_or(Errno::ENAMETOOLONG);
                marker.and_then(|m| opened::create(at.as_fd(), &m, 0).map(drop))
            }
            WhiteoutKind::Xattr => self.xattr_whiteout(name),
        };
        made.doing("make a whiteout at", &path)
    }

    fn xattr_whiteout(&self, name: &[u8]) -> crate::sys::Result<()> {
        let here = self.trail.spot()?;
        if mark::Marks::read(&here)?.opaque == Opaque::No {
            self.marks.set(&here, "opaque", b"x")?;
        }
        drop(opened::create(self.trail.fd()?.as_fd(), name, 0o600)?);
        let spot = Spot::at(self.trail.fd()?.clone(), Name::from(name));
        self.marks.set(&spot, "whiteout", b"y")
    }

    /// Whether a whiteout stands at a name of the deepest directory. `found`: what
    /// stat says of the name.
    pub(super) fn is_whiteout(&self, name: &[u8], found: Option<&Stat>) -> Result<bool> {
        let (at, path) = (self.dir()?, || self.trail.path_of(name));
        Ok(match (self.marks.whiteouts, found) {
            (WhiteoutKind::CharDevice, found) => found.is_some_and(Stat::is_whiteout),
            (WhiteoutKind::DotWh, None) => match mark::dot_wh_name(name) {
                Some(marker) => dir::probe(at.as_fd(), &marker)
                    .doing("stat", &path())?
                    .is_some(),
                None => false,
            },
            (WhiteoutKind::Xattr, Some(stat)) if stat.kind() == Kind::File && stat.size == 0 => {
                let spot = Spot::at(at, Name::from(name));
                mark::Marks::read(&spot)
                    .doing("read the marks of", &path())?
                    .whiteout
            }
            _ => false,
        })
    }

    /// Hides all that layers below have in a directory.
    pub(super) fn opaque(&mut self, dirs: &[&[u8]]) -> Result<()> {
        if self.go(dirs, Purpose::Whiteout)? == Way::Hidden {
            return Ok(());
        }
        let path = self.trail.path().to_vec();
        let spot = self.trail.spot().doing("open", &path)?;
        self.set_opaque(&spot, &path)?;
        if self.marks.prefix.is_none() {
            self.trail.here_mut().touched = true;
        }
        Ok(())
    }

    pub(super) fn set_opaque(&mut self, spot: &Spot, path: &[u8]) -> Result<()> {
        self.any_opaque = true;
        match self.marks.set(spot, "opaque", b"y") {
            Err(Errno::EOPNOTSUPP) => {}
            // In a layer's root the attribute means nothing (`Layer::hides_below`).
            Ok(()) if path.is_empty() => {}
            r => return r.doing("mark as opaque", path),
        }
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let [marker, _] = OPAQUE_FILES;
        let made = spot
            .open(flags)
            .and_then(|fd| opened::create(fd.as_fd(), marker, 0));
        match made {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err(e).doing("mark as opaque", path),
        }
    }

    /// Removes directories that only whiteouts have brought where a directory above
    /// hides all that they could hide: they would show as empty ones.
    pub(super) fn drop_covered(&mut self) -> Result<()> {
        if !self.any_opaque {
            return Ok(());
        }
        let mut paths: Vec<Vec<u8>> = self.for_whiteouts.drain().collect();
        paths.sort_unstable();
        for path in paths {
            let mut dirs: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
            let name = dirs.pop().unwrap_or_default();
            if self.is_covered(&dirs)? {
                self.go(&dirs, Purpose::Whiteout)?;
                self.clear(name)?;
            }
        }
        Ok(())
    }

    /// Whether a directory is there, and is opaque or has one above it that is.
    fn is_covered(&mut self, dirs: &[&[u8]]) -> Result<bool> {
        let mut covered = false;
        for depth in 0..=dirs.len() {
            if !self.go_to_link_target(dirs.get(..depth).unwrap_or_default())? {
                return Ok(false);
            }
            let path = self.links.path();
            let spot = self.links.spot().doing("open", path)?;
            let marks = mark::Marks::read(&spot).doing("read the marks of", path)?;
            let [marker, _] = OPAQUE_FILES;
            let by_file = self.marks.prefix.is_none()
                && dir::probe(spot.descriptor().as_fd(), marker)
                    .doing("stat", path)?
                    .is_some();
            covered |= by_file || marks.opaque == Opaque::Yes;
        }
        Ok(covered)
    }

    /// Makes a directory in the deepest one, or gives the one that is there new
    /// attributes.
    pub(super) fn make_directory(
        &mut self,
        entry: &crate::archive::Entry,
        name: &[u8],
    ) -> Result<()> {
        let (at, path) = (self.dir()?, self.trail.path_of(name));
        let mode = self.keeper.mode(Kind::Dir, entry.mode);
        let mut state = State::New;
        let mut opaque = false;
        match dir::mkdir(at.as_fd(), name, mode) {
            Err(Errno::EEXIST) => {
                let found = dir::probe(at.as_fd(), name).doing("stat", &path)?;
                if found.is_some_and(|s| s.kind() == Kind::Dir) {
                    state = State::Old;
                } else {
                    // What stood here hid the layers below, and so must this.
                    opaque = true;
                    self.clear(name)?;
                    dir::mkdir(at.as_fd(), name, mode).doing("make the directory", &path)?;
                }
            }
            made => made.doing("make the directory", &path)?,
        }
        if self.marks.whiteouts == WhiteoutKind::DotWh {
            opaque |= self.drop_marker(name, &path)?;
        }
        let spot = Spot::at(at, Name::from(name));
        if opaque {
            self.set_opaque(&spot, &path)?;
        }
        let subject = Subject {
            path: &path,
            made: Kind::Dir,
            kind: Kind::Dir,
            state,
            plain_parent: self.trail.here().plain,
        };
        self.keeper.apply(&Handle::Spot(&spot), &subject, entry)?;
        self.note_default_acl(entry);
        if state == State::New {
            self.trail.here_mut().touched = true;
        }
        self.for_whiteouts.remove(&path);
        Ok(())
    }

    /// Removes `.wh.NAME`; whether it was there.
    fn drop_marker(&mut self, name: &[u8], path: &[u8]) -> Result<bool> {
        let Some(marker) = mark::dot_wh_name(name) else {
            return Ok(false);
        };
        match dir::unlink(self.dir()?.as_fd(), &marker) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(e).doing("remove the whiteout of", path),
        }
    }

    /// Removes whatever has a name of the deepest directory.
    pub(super) fn clear(&mut self, name: &[u8]) -> Result<()> {
        let path = self.trail.path_of(name);
        self.forget(&path);
        self.trail.here_mut().touched = true;
        match remove::tree(&self.dir()?, name) {
            Err(Errno::ENOENT) => Ok(()),
            removed => removed.doing("replace", &path),
        }
    }

    /// Forgets what is known of a path and of all below it.
    fn forget(&mut self, path: &[u8]) {
        self.keeper.forget(path);
        if !self.for_whiteouts.is_empty() {
            let below = [path, b"/"].concat();
            self.for_whiteouts
                .retain(|p| p != path && !p.starts_with(&below));
        }
        self.forget_link_targets();
    }
}

enum Step {
    Done,
    Hidden,
    Follow(Vec<u8>),
}
