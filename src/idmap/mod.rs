//! Numbers of users: what stands on disk and what the mount shows.
//!
//! `uidmapping=C:H:S` (contract 2.2): C is the id **on disk**, in lowers and
//! upper alike; H is the id **shown** and seen in requests; S is how many.
//! Pure values: no I/O.

/// The id shown for a disk id without a mapping, and stored for a caller
/// without one (the kernel's overflow id).
pub const OVERFLOW_ID: u32 = 65534;

/// One run of a mapping: `disk..disk+count` is shown as `view..view+count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdExtent {
    /// First id on disk.
    pub disk: u32,
    /// First id shown.
    pub view: u32,
    /// How many ids.
    pub count: u32,
}

impl IdExtent {
    /// Reads `D:S:N[:D:S:N…]`, empty fields ignored; `None` where that is no mapping.
    pub fn parse_list(text: &[u8]) -> Option<Vec<IdExtent>> {
        let mut numbers: Vec<u32> = Vec::new();
        for field in text.split(|b| *b == b':').filter(|f| !f.is_empty()) {
            let digits = field.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(field).ok()?.parse().ok()?;
            numbers.push(digits.then_some(number)?);
        }
        let (triples, rest) = numbers.as_chunks::<3>();
        if triples.is_empty() || !rest.is_empty() {
            return None;
        }
        let extent = |[disk, view, count]: &[u32; 3]| {
            let fits = |start: u32| start.checked_add(count.saturating_sub(1)).is_some();
            (*count > 0 && fits(*disk) && fits(*view)).then_some(IdExtent {
                disk: *disk,
                view: *view,
                count: *count,
            })
        };
        triples.iter().map(extent).collect()
    }
}

/// A whole mapping of one kind of id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    extents: Vec<IdExtent>,
    squash: Option<u32>,
}

impl IdMap {
    /// A mapping from its runs; none means identity. `squash` shows every id as one.
    pub fn new(extents: Vec<IdExtent>, squash: Option<u32>) -> Self {
        IdMap { extents, squash }
    }

    /// Whether ids pass unchanged both ways.
    pub fn is_identity(&self) -> bool {
        self.extents.is_empty() && self.squash.is_none()
    }

    /// The id to show for an id on disk.
    pub fn to_view(&self, disk: u32) -> u32 {
        if let Some(s) = self.squash {
            return s;
        }
        if self.extents.is_empty() {
            return disk;
        }
        self.extents
            .iter()
            .find(|e| disk >= e.disk && disk - e.disk < e.count)
            .map_or(OVERFLOW_ID, |e| e.view.wrapping_add(disk - e.disk))
    }

    /// The id to store for an id of the view; `None` where there is no mapping.
    pub fn to_disk(&self, view: u32) -> Option<u32> {
        if self.extents.is_empty() {
            return Some(view);
        }
        self.extents
            .iter()
            .find(|e| view >= e.view && view - e.view < e.count)
            .map(|e| e.disk.wrapping_add(view - e.view))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_both_ways_in_the_direction_of_contract_2_2() {
        let m = IdMap::new(
            vec![IdExtent {
                disk: 0,
                view: 1000,
                count: 10,
            }],
            None,
        );
        assert_eq!(m.to_view(0), 1000);
        assert_eq!(m.to_disk(1003), Some(3));
        assert_eq!(m.to_view(10), OVERFLOW_ID);
        assert_eq!(m.to_disk(0), None);
    }

    #[test]
    fn squash_shows_one_id() {
        let m = IdMap::new(vec![], Some(7));
        assert_eq!(m.to_view(0), 7);
        assert_eq!(m.to_disk(5), Some(5));
    }
}
