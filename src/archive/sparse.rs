//! Sparse files: where their data lies, checked before it is believed.

use super::limits::SPARSE_EXTENTS_MAX;
use super::pax::{Bad, decimal, too_many_extents};

/// Data of a sparse file: `len` bytes at `offset`; what no extent covers is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// A checked map: extents in order, not touching each other's bytes, within the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) extents: Vec<Extent>,
    /// The size of the file.
    pub(super) size: u64,
}

impl Map {
    /// Checks a map against the file's size and the bytes that the archive has for it.
    pub(super) fn checked(pairs: &[(u64, u64)], size: u64, stored: u64) -> Result<Map, Bad> {
        if pairs.len() > SPARSE_EXTENTS_MAX {
            return Err(too_many_extents());
        }
        let (mut end, mut total) = (0u64, 0u64);
        let mut extents = Vec::with_capacity(pairs.len());
        for &(offset, len) in pairs {
            let next = offset.checked_add(len).filter(|next| *next <= size);
            let (Some(next), true) = (next, offset >= end) else {
                return Err("its sparse map has extents out of order or out of the file".into());
            };
            // Cannot overflow: extents lie apart, within one u64.
            total += len;
            end = next;
            // GNU tar marks the file's end with an extent of no bytes.
            if len > 0 {
                extents.push(Extent { offset, len });
            }
        }
        if total != stored {
            return Err(format!(
                "its sparse map tells of {total} bytes, the archive has {stored}"
            ));
        }
        Ok(Map { extents, size })
    }
}

/// Reads the map that format 1.0 keeps before the data: decimal lines, first how many
/// extents, then offset and length of each. Lines may cross blocks.
#[derive(Debug, Default)]
pub(super) struct MapLines {
    count: Option<u64>,
    numbers: Vec<u64>,
    line: Vec<u8>,
}

impl MapLines {
    /// Takes a block; whether the map is complete with it.
    pub(super) fn take(&mut self, block: &[u8]) -> Result<bool, Bad> {
        /// Digits of the largest u64.
        const DIGITS: usize = 20;
        for b in block {
            if self.complete() {
                // The rest of the last block is padding.
                return Ok(true);
            }
            if *b != b'\n' {
                self.line.push(*b);
                if self.line.len() > DIGITS {
                    return Err("its sparse map holds a line that is no number".into());
                }
                continue;
            }
            let number =
                decimal(&self.line).ok_or("its sparse map holds a line that is no number")?;
            self.line.clear();
            match self.count {
                None if number > SPARSE_EXTENTS_MAX as u64 => return Err(too_many_extents()),
                None => self.count = Some(number),
                Some(_) => self.numbers.push(number),
            }
        }
        Ok(self.complete())
    }

    fn complete(&self) -> bool {
        self.count
            .is_some_and(|count| self.numbers.len() as u64 >= count.saturating_mul(2))
    }

    /// The (offset, length) pairs.
    pub(super) fn pairs(&self) -> Vec<(u64, u64)> {
        let mut numbers = self.numbers.iter();
        let mut pairs = Vec::with_capacity(self.numbers.len() / 2);
        while let (Some(offset), Some(len)) = (numbers.next(), numbers.next()) {
            pairs.push((*offset, *len));
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_that_lie_are_refused() {
        let ok = Map::checked(&[(0, 2), (5, 3), (9, 0)], 9, 5).unwrap();
        assert_eq!(ok.extents.len(), 2);
        for (pairs, size, stored) in [
            (&[(5, 2), (0, 2)][..], 9, 4),
            (&[(0, 3), (2, 2)], 9, 5),
            (&[(0, 10)], 9, 10),
            (&[(u64::MAX, 2)], 9, 2),
            (&[(0, 2)], 9, 3),
        ] {
            assert!(Map::checked(pairs, size, stored).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn map_lines_may_cross_blocks() {
        let mut lines = MapLines::default();
        assert_eq!(lines.take(b"2\n1"), Ok(false));
        assert_eq!(lines.take(b"0\n5\n20\n"), Ok(false));
        assert_eq!(lines.take(b"6\n\0\0\0"), Ok(true));
        assert_eq!(lines.pairs(), [(10, 5), (20, 6)]);
        assert!(MapLines::default().take(b"x\n").is_err());
        assert!(MapLines::default().take(&[b'1'; 64]).is_err());
        assert!(MapLines::default().take(b"9999999\n").is_err());
        assert_eq!(MapLines::default().take(b"0\n"), Ok(true));
    }
}
