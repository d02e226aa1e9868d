//! The numbers that objects are shown under (see `inode::identity`).

use super::found::Found;
use crate::layer::mark::Origin;
use crate::layer::{LayerId, UPPER};
use crate::overlay::Overlay;
use crate::overlay::inode::table::Claim;
use crate::sys::ObjectId;

impl Overlay {
    /// The number an object is shown under, and what claims it.
    pub(super) fn number_of(&self, found: &Found) -> (u64, Claim) {
        if let Some(u) = &found.upper {
            let fs = self.stack.upper.as_ref().map_or(0, |u| u.layer.fs);
            let claim = Claim {
                layer: UPPER,
                id: u.id,
            };
            if let Some(given) = self.table.claimed(claim) {
                return (given, claim);
            }
            let own = self.settings.numbers.number(fs, u.id.ino);
            // By the index or by its own name: the same marks, so the same number.
            let number = u
                .marks
                .origin
                .as_ref()
                .and_then(|o| self.origin_number(o))
                .unwrap_or(own);
            return (number, claim);
        }
        match found.lowers.first() {
            Some(l) => (
                self.lower_number(l.layer, l.id.ino),
                Claim {
                    layer: l.layer,
                    id: l.id,
                },
            ),
            None => (
                0,
                Claim {
                    layer: UPPER,
                    id: ObjectId { dev: 0, ino: 0 },
                },
            ),
        }
    }

    pub(super) fn lower_number(&self, layer: LayerId, ino: u64) -> u64 {
        let fs = self.stack.layer(layer).map_or(0, |l| l.fs);
        self.settings.numbers.number(fs, ino)
    }

    /// The number of what an upper object was copied up from.
    pub(super) fn origin_number(&self, o: &Origin) -> Option<u64> {
        let ino = o.ino()?;
        let layers = &self.stack.lowers;
        let of_uuid = |l: &&crate::layer::Layer| l.uuid == o.uuid && !l.ambiguous;
        let fs = match layers.iter().find(of_uuid) {
            Some(l) => l.fs,
            None if self.settings.numbers.one_fs => layers.first()?.fs,
            None => return None,
        };
        Some(self.settings.numbers.number(fs, ino))
    }
}
