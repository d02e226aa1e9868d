//! One directory's names, sorted: whiteouts apart from objects.

use std::os::fd::AsFd;

use crate::layer::mark::{DOT_WH, Marks, OPAQUE_FILES, Opaque};
use crate::sys::{Errno, Kind, Name, Result, Spot, dir};

/// The names of one directory. All in one buffer: a directory of a million names
/// costs their bytes and eight each.
#[derive(Debug, Default)]
pub(super) struct Listing {
    bytes: Vec<u8>,
    /// (start, length) in `bytes`, in the order of the names.
    objects: Vec<(u32, u32)>,
    next: usize,
    whiteouts: Vec<Vec<u8>>,
    opaque: bool,
    /// Objects that hide what layers below have under their names.
    hiding: Vec<Vec<u8>>,
    /// Nothing that layers below have in this directory is seen: it is opaque, or one
    /// above it is.
    covered: bool,
    /// How long the path of the directory above is.
    parent_path: usize,
}

impl Listing {
    /// Of a directory that is about to be entered, below this one.
    pub(super) fn below(&self, parent_path: usize) -> Listing {
        Listing {
            parent_path,
            covered: self.covered,
            ..Listing::default()
        }
    }

    /// Reads a directory. `opaque`: what its mark says.
    pub(super) fn read(spot: &Spot, opaque: Opaque) -> Result<Listing> {
        let mut listing = Listing {
            opaque: opaque == Opaque::Yes,
            ..Listing::default()
        };
        let mut unsure = Vec::new();
        let mut too_large = false;
        dir::list(spot.descriptor().as_fd(), |entry| {
            let name = entry.name;
            if OPAQUE_FILES.contains(&&name[..]) {
                listing.opaque = true;
            } else if name.starts_with(b".wh..wh.") {
                // AUFS's own.
            } else if let Some(hidden) = name.strip_prefix(DOT_WH) {
                listing.whiteouts.push(hidden.to_vec());
            } else {
                let by_xattr =
                    opaque == Opaque::MayHoldXattrWhiteouts && entry.kind == Some(Kind::File);
                if matches!(entry.kind, None | Some(Kind::Char)) || by_xattr {
                    unsure.push(name);
                } else {
                    too_large |= listing.push(&name).is_none();
                }
            }
        })?;
        for name in unsure {
            if is_whiteout(spot, &name, opaque)? {
                listing.whiteouts.push(name);
            } else {
                too_large |= listing.push(&name).is_none();
            }
        }
        if too_large {
            return Err(Errno::EFBIG);
        }
        listing.sort();
        Ok(listing)
    }

    fn push(&mut self, name: &[u8]) -> Option<()> {
        let start = u32::try_from(self.bytes.len()).ok()?;
        self.objects.push((start, u32::try_from(name.len()).ok()?));
        self.bytes.extend_from_slice(name);
        Some(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.objects
            .sort_unstable_by_key(|span| name_at(bytes, *span));
        self.whiteouts.sort_unstable();
        self.whiteouts.dedup();
        // A name that is there hides what is below by itself, unless it is a
        // directory: that must say so.
        let objects = &self.objects;
        let (hiding, whiteouts) = std::mem::take(&mut self.whiteouts)
            .into_iter()
            .partition(|w| {
                objects
                    .binary_search_by_key(&&w[..], |s| name_at(bytes, *s))
                    .is_ok()
            });
        self.hiding = hiding;
        self.whiteouts = whiteouts;
    }

    /// The next object.
    pub(super) fn next_name(&mut self) -> Option<Vec<u8>> {
        let span = *self.objects.get(self.next)?;
        self.next += 1;
        Some(name_at(&self.bytes, span).to_vec())
    }

    /// Whether a marker beside an object hides what layers below have there.
    pub(super) fn hides(&self, name: &[u8]) -> bool {
        self.hiding.iter().any(|h| h == name)
    }

    /// The names that are hidden, in order.
    pub(super) fn take_whiteouts(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.whiteouts)
    }

    pub(super) fn parent_path(&self) -> usize {
        self.parent_path
    }

    /// Takes over what was known before the directory was read; whether it says by
    /// itself, and not for one above, that layers below are hidden.
    pub(super) fn continue_from(&mut self, before: &Listing) -> bool {
        self.parent_path = before.parent_path;
        self.covered = before.covered || self.opaque;
        if self.covered {
            // There is nothing left for them to hide.
            self.whiteouts.clear();
        }
        self.opaque && !before.covered
    }
}

fn name_at(bytes: &[u8], (start, len): (u32, u32)) -> &[u8] {
    let start = start as usize;
    bytes
        .get(start..start.saturating_add(len as usize))
        .unwrap_or_default()
}

fn is_whiteout(dir: &Spot, name: &[u8], opaque: Opaque) -> Result<bool> {
    let spot = Spot::at(dir.descriptor().clone(), Name::from(name));
    let stat = spot.stat()?;
    if stat.is_whiteout() {
        return Ok(true);
    }
    let may_be =
        opaque == Opaque::MayHoldXattrWhiteouts && stat.kind() == Kind::File && stat.size == 0;
    Ok(may_be && Marks::read(&spot)?.whiteout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn whiteouts_come_apart_and_each_list_is_sorted_by_bytes() {
        let tmp = tempfile::tempdir().unwrap();
        for name in [
            "b",
            "a.txt",
            "a",
            ".wh.z",
            ".wh.b",
            ".wh.a",
            "Z",
            ".wh..wh.plnk",
        ] {
            std::fs::write(tmp.path().join(name), "").unwrap();
        }
        let fd = dir::open_root(tmp.path()).unwrap();
        let mut listing = Listing::read(&Spot::fd(Arc::new(fd)), Opaque::No).unwrap();
        assert_eq!(listing.take_whiteouts(), [b"z"]);
        assert!(listing.hides(b"a") && listing.hides(b"b") && !listing.hides(b"z"));
        let mut names = Vec::new();
        while let Some(name) = listing.next_name() {
            names.push(String::from_utf8(name).unwrap());
        }
        assert_eq!(names, ["Z", "a", "a.txt", "b"]);
    }
}
