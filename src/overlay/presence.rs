//! Which lowers of a merged directory have a name at all.
//!
//! A lookup asks the layers one by one, twice each (`NAME` and `.wh.NAME`): with
//! 500 lowers a first lookup took 2 ms, nearly all of it for answers of "no". One
//! listing of a layer's directory costs as much as two or three such answers. So
//! directories of [`FEWEST`] or more lowers are listed once it has cost more to
//! ask (or when somebody lists them anyway), and from then on only layers that
//! have the name or a whiteout of it are asked, everything else as before: a
//! [`Presence`] says who need not be asked, never what a name is. What a directory's
//! lowers hold is known when they have been listed; so a listing of more names than
//! were paid for is given up, and twice that is paid before the next.
//!
//! # Invariants
//! - What it leaves out must not exist. It holds hashes of names; two names of one
//!   hash make a needless question, nothing else.
//! - A layer whose lookups may find what its listings do not name is always asked:
//!   file systems that are not known to list all, mounts entered by
//!   `follow_submounts`, directories whose file system (or whose `+F` flag) finds
//!   names by another spelling, unreadable and very large ones.
//! - Only what is shown goes by it. Whether a whiteout or an opaque mark must be
//!   written is asked of every lower.
//! - Lowers do not change under a mount; with `timeout=` somebody expects that they
//!   do, and nothing is left out.
//! - It belongs to one list of lowers, by its address: a directory that was cut off
//!   from its lowers, or another of that number, is not answered by it.
//!
//! Lock order: made with the directory's lock held; kept by a leaf.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Overlay;
use super::inode::locate;
use super::inode::node::{LowerSpot, Lowers, Node};
use super::kept::Counted;
use super::listing::cookie;
use crate::layer::{Layer, mark};
use crate::sys::dir::{self, Dirent, Reader};
use crate::sys::{Errno, Result};

/// Directories of fewer lowers are always asked.
pub const FEWEST: usize = 3;
/// Vain questions, for each lower, that a directory pays before it is listed.
const PAID: usize = 2;
/// Names that are read for the price of one vain question.
const NAMES_A_QUESTION: usize = 8;
/// Names that are read in any case, in some milliseconds.
const NAMES_AT_ONCE: usize = 8 * 1024;
/// A layer's directory of more names is always asked.
const NAMES_OF_A_LAYER: usize = 16 * 1024;
/// As are all further layers of a directory that has more in all.
const NAMES: usize = 256 * 1024;

/// The place in a list of lowers, in the low bits of an entry.
const PLACE: u64 = 0xFFFF;

/// Which of a directory's lowers are to be asked for a name.
#[derive(Debug)]
pub struct Presence {
    of: Arc<[LowerSpot]>,
    /// A name's hash, and the place in `of` of a lower that has it; sorted.
    found: Box<[u64]>,
    /// Places of those that are always asked, in order.
    always: Box<[u16]>,
}

impl Counted for Presence {
    fn names(&self) -> usize {
        self.found.len() + self.of.len()
    }
}

fn hash(name: &[u8]) -> u64 {
    cookie(name) << 2 & !PLACE
}

impl Presence {
    /// The first lower at `from` or after it that may have `name` or its whiteout.
    pub fn next(&self, name: &[u8], from: usize) -> Option<usize> {
        let from = u16::try_from(from).ok()?;
        let hash = hash(name);
        let first = hash | u64::from(from);
        let found = self.found.partition_point(|e| *e < first);
        let found = self.found.get(found).filter(|e| **e & !PLACE == hash);
        let always = self.always.partition_point(|p| *p < from);
        let always = self.always.get(always).map(|p| usize::from(*p));
        let found = found.and_then(|e| usize::try_from(*e & PLACE).ok());
        match (found, always) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// A [`Presence`] in the making: fed with the directory's lowers in order.
#[derive(Debug)]
pub struct Gathering {
    of: Arc<[LowerSpot]>,
    found: Vec<u64>,
    always: Vec<u16>,
    /// Names read, those of lowers with too many among them.
    read: usize,
    /// Names that may be read.
    allowed: usize,
}

impl Gathering {
    /// Of these lowers, if they are many and nobody expects them to change.
    pub fn of(overlay: &Overlay, lowers: &Lowers) -> Option<Gathering> {
        let Lowers::Many(of) = lowers else {
            return None;
        };
        let wanted = of.len() >= FEWEST && overlay.settings.timeout.is_none();
        wanted.then(|| Gathering {
            of: of.clone(),
            found: Vec::new(),
            always: Vec::new(),
            read: 0,
            allowed: NAMES,
        })
    }

    /// The lower at `place` has these names in its directory.
    pub fn names(&mut self, place: usize, layer: &Layer, dir: &Arc<OwnedFd>, names: &[Dirent]) {
        let Ok(place) = u16::try_from(place) else {
            return;
        };
        let few = names.len() <= NAMES_OF_A_LAYER && self.found.len() + names.len() <= NAMES;
        if !(few && layer.lists_all && one_spelling(dir, names)) {
            self.always.push(place);
            return;
        }
        for entry in names {
            let name = entry.name.strip_prefix(mark::DOT_WH);
            let hash = hash(name.unwrap_or(&entry.name));
            self.found.push(hash | u64::from(place));
        }
    }

    /// The lower at `place` could not be listed, or need not be.
    fn unknown(&mut self, place: usize) {
        self.always.extend(u16::try_from(place));
    }

    /// All lowers have been told.
    pub fn done(mut self) -> Presence {
        self.found.sort_unstable();
        self.found.dedup();
        Presence {
            of: self.of,
            found: self.found.into(),
            always: self.always.into(),
        }
    }
}

/// Whether a directory finds these names by no other spelling: not in upper case,
/// not decomposed, not without a trailing dot. File systems that are not exact in
/// one of these ways are not exact about case. So one name is asked for in the
/// other case; where there is none to ask for, the answer is no.
fn one_spelling(dir: &Arc<OwnedFd>, names: &[Dirent]) -> bool {
    if names.is_empty() {
        return true;
    }
    if !names.iter().all(|e| e.name.is_ascii()) {
        return false;
    }
    let has_letter = |e: &&Dirent| e.name.iter().any(u8::is_ascii_alphabetic);
    let Some(lettered) = names.iter().find(has_letter) else {
        return false;
    };
    let mut other = lettered.name.clone();
    for b in other.iter_mut().filter(|b| b.is_ascii_alphabetic()) {
        *b ^= 0x20;
    }
    match dir::probe(dir.as_fd(), &other) {
        Ok(None) => true,
        Ok(Some(_)) => names.iter().any(|e| e.name == other),
        Err(_) => false,
    }
}

impl Overlay {
    /// Who is to be asked in a directory; `None`: everybody. The caller holds its
    /// lock.
    pub(super) fn presence(&self, node: &Node, lowers: &Lowers) -> Option<Arc<Presence>> {
        let Lowers::Many(of) = lowers else {
            return None;
        };
        if of.len() < FEWEST {
            return None;
        }
        if let Some(p) = self.presence_kept(node, of) {
            return Some(p);
        }
        let dir = node.dir.as_ref()?;
        let seen = dir.vain.load(Ordering::Relaxed);
        let paid = (seen as usize).saturating_mul(NAMES_A_QUESTION);
        if (seen as usize) < of.len() * PAID || paid < dir.names_below() {
            return None;
        }
        // One of those who come at once lists; the others ask as before.
        let claimed = dir
            .vain
            .compare_exchange(seen, 0, Ordering::Relaxed, Ordering::Relaxed);
        claimed.ok()?;
        let mut all = Gathering::of(self, lowers)?;
        all.allowed = paid.clamp(NAMES_AT_ONCE, NAMES);
        if !self.gather(&mut all) {
            // Twice as much is to be paid before it is tried again.
            dir.expect_names_below(all.read * 2);
            return None;
        }
        Some(self.keep_presence(node, all))
    }

    /// Keeps what was learnt of all lowers of a directory.
    pub(super) fn keep_presence(&self, node: &Node, all: Gathering) -> Arc<Presence> {
        if let Some(dir) = &node.dir {
            dir.expect_names_below(all.read.max(all.found.len()));
        }
        let presence = Arc::new(all.done());
        self.presences.put(node.ino, presence.clone());
        presence
    }

    /// What a listing of all lowers is to be told to; `None` where it is known.
    pub(super) fn gathering(&self, node: &Node, lowers: &Lowers) -> Option<Gathering> {
        let all = Gathering::of(self, lowers)?;
        self.presence_kept(node, &all.of).is_none().then_some(all)
    }

    fn presence_kept(&self, node: &Node, of: &Arc<[LowerSpot]>) -> Option<Arc<Presence>> {
        let kept = self.presences.get(node.ino)?;
        Arc::ptr_eq(&kept.of, of).then_some(kept)
    }

    /// Lowers of a directory were asked for a name that they do not have.
    pub(super) fn asked_in_vain(&self, node: &Node, count: u32) {
        if let (Some(d), true) = (&node.dir, count > 0) {
            d.vain.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Lists all lowers; whether that was allowed to the end.
    fn gather(&self, all: &mut Gathering) -> bool {
        let of = all.of.clone();
        for (place, spot) in of.iter().enumerate() {
            match self.gather_one(all, place, spot) {
                Ok(()) => {}
                Err(_) if all.read > all.allowed && all.allowed < NAMES => return false,
                Err(_) => all.unknown(place),
            }
        }
        true
    }

    fn gather_one(&self, all: &mut Gathering, place: usize, spot: &LowerSpot) -> Result<()> {
        let (Some(at), false) = (&spot.place, spot.mount_point) else {
            // Shows nothing; is not asked.
            return Ok(());
        };
        if all.read > NAMES {
            all.unknown(place);
            return Ok(());
        }
        let layer = self.stack.layer(spot.layer)?;
        let dir = locate::lower_dir(&self.fds, layer, at)?;
        let mut reader = Reader::of(dir.as_fd())?;
        let mut names = Vec::new();
        while names.len() <= NAMES_OF_A_LAYER {
            let portion = reader.portion()?;
            if portion.is_empty() {
                break;
            }
            all.read += portion.len();
            if all.read > all.allowed {
                return Err(Errno::E2BIG);
            }
            names.extend(portion);
        }
        all.names(place, layer, &dir, &names);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::inode::node::Place;
    use crate::sys::{Kind, Name, ObjectId};

    fn gathering(lowers: u16) -> Gathering {
        let spot = |layer| LowerSpot {
            layer,
            parent: None,
            name: Name::from(&b""[..]),
            place: Some(Place::root()),
            id: ObjectId { dev: 1, ino: 1 },
            xattr_whiteouts: false,
            mount_point: false,
        };
        Gathering {
            of: (1..=lowers).map(spot).collect(),
            found: Vec::new(),
            always: Vec::new(),
            read: 0,
            allowed: NAMES,
        }
    }

    fn entry(name: &str) -> Dirent {
        Dirent {
            name: name.into(),
            ino: 1,
            kind: Some(Kind::File),
        }
    }

    #[test]
    fn only_those_are_asked_that_have_the_name_or_are_not_known() {
        let mut g = gathering(100);
        for (place, name) in [(3, "a"), (3, "b"), (40, "a"), (99, "b")] {
            g.found.push(hash(name.as_bytes()) | place);
        }
        g.unknown(7);
        g.unknown(60);
        let p = g.done();
        let asked = |name: &str| {
            let mut at = 0;
            std::iter::from_fn(|| {
                let place = p.next(name.as_bytes(), at)?;
                at = place + 1;
                Some(place)
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(asked("a"), [3, 7, 40, 60]);
        assert_eq!(asked("b"), [3, 7, 60, 99]);
        assert_eq!(asked("none"), [7, 60]);
    }

    #[test]
    fn a_directory_with_names_that_may_be_spelt_otherwise_is_always_asked() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("plain"), "").unwrap();
        let fd = Arc::new(dir::open_root(dir.path()).unwrap());
        assert!(one_spelling(&fd, &[]));
        assert!(one_spelling(&fd, &[entry("plain")]));
        assert!(!one_spelling(&fd, &[entry("123")]));
        assert!(!one_spelling(&fd, &[entry("plain"), entry("é")]));
        // As a file system answers that does not tell the two apart.
        std::fs::write(at("PLAIN"), "").unwrap();
        assert!(!one_spelling(&fd, &[entry("plain")]));
        assert!(one_spelling(&fd, &[entry("plain"), entry("PLAIN")]));
    }
}
