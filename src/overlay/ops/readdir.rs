//! Merged listings.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::layer::mark::{self, Marks};
use crate::layer::{Layer, UPPER, disguise};
use crate::overlay::Overlay;
use crate::overlay::figures::Count;
use crate::overlay::inode::locate;
use crate::overlay::inode::node::{Node, Place};
use crate::overlay::inode::table::Claim;
use crate::overlay::listing::{Item, Listing, cookie};
use crate::overlay::presence::Gathering;
use crate::sys::dir::{self, Dirent};
use crate::sys::{Errno, Kind, Name, ObjectId, Result, Spot, xattr};

/// What is known of a name while layers are merged.
struct Merge<'a> {
    overlay: &'a Overlay,
    items: HashMap<Box<[u8]>, (u64, Kind)>,
    /// Which lowers have which names, where that is worth keeping.
    presence: Option<Gathering>,
    hidden: HashSet<Vec<u8>>,
}

/// One directory of one layer, being merged.
struct Part<'a> {
    layer: &'a Layer,
    dir: Arc<std::os::fd::OwnedFd>,
    /// Of a lower: its place among the directory's, and where it is.
    lower: Option<(usize, &'a Place)>,
    xattr_whiteouts: bool,
    /// Entries may show the number of what they were copied up from.
    origins: bool,
    /// A layer lies below that whiteouts may hide.
    below: bool,
}

impl Overlay {
    /// The merged names of a directory.
    ///
    /// # Locks
    /// rename (read), the directory (read), when the listing is not at hand.
    pub fn listing(&self, node: &Arc<Node>) -> Result<Arc<Listing>> {
        if let Some(l) = self.listings.get(node.ino) {
            self.counts.count(Count::ListingHit);
            return Ok(l);
        }
        self.counts.count(Count::ListingMiss);
        let Some(d) = &node.dir else {
            return Err(Errno::ENOTDIR);
        };
        let _rename = self.rename.read();
        let _dir = d.lock.read();
        let listing = Arc::new(Listing::new(self.merge(node)?));
        self.listings.put(node.ino, listing.clone());
        Ok(listing)
    }

    /// The same, only if it has been made and is kept.
    pub fn listing_at_hand(&self, node: &Node) -> Option<Arc<Listing>> {
        self.listings.get(node.ino)
    }

    /// The number that `..` of a directory shows.
    pub fn parent_ino(&self, node: &Node) -> u64 {
        node.any_link().map_or(node.ino, |l| l.parent.ino)
    }

    /// All names, for the engine's own walks.
    pub(super) fn all_items(&self, node: &Arc<Node>) -> Result<Vec<Item>> {
        Ok(self.listing(node)?.after(0, usize::MAX))
    }

    /// Whether a directory shows no names. The caller holds its lock.
    pub(super) fn is_empty_dir(&self, node: &Arc<Node>) -> Result<bool> {
        match self.listings.get(node.ino) {
            Some(l) => Ok(l.is_empty()),
            None => Ok(self.merge(node)?.is_empty()),
        }
    }

    fn merge(&self, node: &Arc<Node>) -> Result<Vec<Item>> {
        let Some(d) = &node.dir else {
            return Err(Errno::ENOTDIR);
        };
        if d.dead.load(Ordering::Acquire) || node.is_orphan() {
            return Ok(Vec::new());
        }
        let lowers = node.lower_spots();
        let mut m = Merge {
            overlay: self,
            items: HashMap::new(),
            hidden: HashSet::new(),
            presence: self.gathering(node, &lowers),
        };
        if let (Some(upper), true) = (&self.stack.upper, node.is_upper()) {
            m.part(&Part {
                layer: &upper.layer,
                dir: locate::upper_dir(&self.fds, &upper.layer, node)?,
                lower: None,
                xattr_whiteouts: self.xattr_whiteouts(node),
                origins: d.impure.load(Ordering::Acquire),
                below: !lowers.is_empty(),
            })?;
        }
        for (i, spot) in lowers.iter().enumerate() {
            let (Some(place), false) = (&spot.place, spot.mount_point) else {
                continue;
            };
            let layer = self.stack.layer(spot.layer)?;
            m.part(&Part {
                layer,
                dir: locate::lower_dir(&self.fds, layer, place)?,
                lower: Some((i, &**place)),
                xattr_whiteouts: spot.xattr_whiteouts,
                origins: false,
                below: i + 1 < lowers.len(),
            })?;
        }
        if let Some(all) = m.presence {
            self.keep_presence(node, all);
        }
        let items = m.items.into_iter();
        Ok(items
            .map(|(name, (ino, kind))| Item {
                cookie: cookie(&name),
                ino,
                kind,
                name,
            })
            .collect())
    }
}

impl Merge<'_> {
    fn part(&mut self, part: &Part<'_>) -> Result<()> {
        let mut entries = Vec::new();
        dir::list(part.dir.as_fd(), |e| entries.push(e))?;
        if let (Some(all), Some((place, _))) = (&mut self.presence, part.lower) {
            all.names(place, part.layer, &part.dir, &entries);
        }
        // A layer's marks hide what lies below it, never its own names: they
        // are collected first and applied after.
        let mut hides = Vec::new();
        for e in entries {
            if let Some(name) = e.name.strip_prefix(mark::DOT_WH) {
                if part.below {
                    hides.push(name.to_vec());
                }
                continue;
            }
            if self.hidden.contains(&e.name) || self.items.contains_key(&e.name[..]) {
                continue;
            }
            match self.examine(part, &e)? {
                Seen::Whiteout => hides.push(e.name),
                Seen::Gone => {}
                Seen::Object(ino, kind) => {
                    self.items.insert(e.name.into(), (ino, kind));
                }
            }
        }
        self.hidden.extend(hides);
        Ok(())
    }

    fn examine(&self, part: &Part<'_>, e: &Dirent) -> Result<Seen> {
        let mut kind = e.kind;
        let mut ino = e.ino;
        let mut size = 1;
        let xwh = part.xattr_whiteouts && matches!(kind, None | Some(Kind::File));
        if xwh || matches!(kind, None | Some(Kind::Char)) {
            let Some(s) = dir::probe(part.dir.as_fd(), &e.name)? else {
                return Ok(Seen::Gone);
            };
            if s.is_whiteout() {
                return Ok(Seen::Whiteout);
            }
            (kind, size) = (Some(s.kind()), s.size);
            if !part.layer.foreign(&s) {
                ino = s.ino;
            }
        }
        let kind = kind.unwrap_or(Kind::File);
        let dev = part.layer.root_stat.dev;
        let claim = Claim {
            layer: part.layer.id,
            id: ObjectId { dev, ino },
        };
        if let Some(given) = self.overlay.table.claimed(claim) {
            return Ok(Seen::Object(given, kind));
        }
        let own = self.overlay.settings.numbers.number(part.layer.fs, ino);
        let hinted = part.layer.disguised && kind == Kind::File;
        if !(part.origins || hinted || xwh && size == 0) {
            return Ok(Seen::Object(own, kind));
        }
        let spot = Spot::at(part.dir.clone(), Name::from(&e.name[..]));
        let marks = match Marks::read(&spot) {
            Err(Errno::ENOENT) => return Ok(Seen::Gone),
            r => r?,
        };
        if marks.whiteout && xwh && size == 0 {
            return Ok(Seen::Whiteout);
        }
        let kind = marks
            .disguise
            .or_else(|| part.beside(&e.name))
            .filter(|_| hinted)
            .and_then(|d| d.kind)
            .filter(|k| *k != Kind::Dir)
            .unwrap_or(kind);
        let from = marks.origin.filter(|_| part.layer.id == UPPER);
        let number = from
            .and_then(|o| self.overlay.origin_number(&o))
            .unwrap_or(own);
        Ok(Seen::Object(number, kind))
    }
}

impl Part<'_> {
    /// What a side record says of a file in here.
    fn beside(&self, name: &[u8]) -> Option<disguise::Disguise> {
        let table = self.layer.beside.as_ref()?;
        let path = self.lower?.1.path_of(name);
        let disk = dir::probe(self.dir.as_fd(), name).ok().flatten()?;
        table.what(&path, &disk)
    }
}

enum Seen {
    Whiteout,
    /// Removed while we looked.
    Gone,
    Object(u64, Kind),
}

/// Whether a layer's root says that its owners and modes are disguised.
pub(crate) fn root_is_disguised(root: &Spot) -> Result<bool> {
    let list = xattr::list(root)?;
    Ok(xattr::names(&list).any(|n| disguise::is_override(n).is_some()))
}
