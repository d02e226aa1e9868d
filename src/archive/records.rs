//! Side records: what a layer's tree could not be given, kept beside it.
//!
//! Without root a symlink can carry no xattr and a device cannot be made. Their owner,
//! mode, type and numbers stand in records, one a line, in the order of their paths:
//! `UID:GID:MODE:TYPE PATH`, the first word as in `user.containers.override_stat`
//! (mount-program contract 2.3), the path with `%`, `=` and what is no
//! printable ASCII as `%XX`. The store keeps the lines with the layer; [`super::pack()`]
//! takes them back.

use std::collections::BTreeMap;

use crate::layer::disguise::Disguise;
use crate::layer::escape;

/// What one object of a layer really is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideRecord {
    /// Its path below the layer's root.
    pub path: Vec<u8>,
    /// Owner, mode, type and device numbers.
    pub what: Disguise,
}

/// The records of one layer, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SideRecords(BTreeMap<Vec<u8>, Disguise>);

impl SideRecords {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The record of a path.
    pub fn get(&self, path: &[u8]) -> Option<Disguise> {
        self.0.get(path).copied()
    }

    /// Adds a record, or replaces the one of its path.
    pub fn insert(&mut self, record: SideRecord) {
        self.0.insert(record.path, record.what);
    }

    /// All of them, by path.
    pub fn iter(&self) -> impl Iterator<Item = SideRecord> + '_ {
        self.0.iter().map(|(path, what)| SideRecord {
            path: path.clone(),
            what: *what,
        })
    }

    /// Forgets a path and all below it.
    pub(super) fn forget(&mut self, path: &[u8]) {
        if self.0.is_empty() {
            return;
        }
        self.0.remove(path);
        let below = [path, b"/"].concat();
        let gone: Vec<Vec<u8>> = self
            .0
            .range(below.clone()..)
            .map(|(p, _)| p)
            .take_while(|p| p.starts_with(&below))
            .cloned()
            .collect();
        for path in gone {
            self.0.remove(&path);
        }
    }

    /// The lines to be stored.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (path, what) in &self.0 {
            text.push_str(&String::from_utf8_lossy(&what.encode()));
            text.push(' ');
            text.push_str(&String::from_utf8_lossy(&escape::encoded(path)));
            text.push('\n');
        }
        text
    }

    /// Reads stored lines.
    ///
    /// # Errors
    /// The first line that is malformed.
    pub fn from_text(text: &str) -> Result<SideRecords, String> {
        let mut records = SideRecords::default();
        for line in text.lines() {
            let parsed = line.split_once(' ').and_then(|(what, path)| {
                Some(SideRecord {
                    path: escape::decoded(path.as_bytes())?,
                    what: Disguise::parse(what.as_bytes())?,
                })
            });
            let record = parsed.ok_or_else(|| format!("the side record {line:?} is malformed"))?;
            records.insert(record);
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Kind;

    fn record(path: &[u8], kind: Kind) -> SideRecord {
        SideRecord {
            path: path.to_vec(),
            what: Disguise {
                uid: 1000,
                gid: 7,
                mode: 0o640,
                kind: Some(kind),
                rdev: if kind == Kind::Char { (5, 1) } else { (0, 0) },
            },
        }
    }

    #[test]
    fn records_survive_their_text_with_any_name() {
        let mut records = SideRecords::default();
        for path in [&b"a/b"[..], b"new\nline %41", b"\xff\xfe", "ä".as_bytes()] {
            records.insert(record(path, Kind::Char));
            records.insert(record(&[path, b".l"].concat(), Kind::Symlink));
        }
        let text = records.to_text();
        assert_eq!(text.lines().count(), records.len());
        assert_eq!(SideRecords::from_text(&text), Ok(records));
        for bad in ["x", "1:2:644 %4", "1:2 a", "1:2:9 a"] {
            assert!(SideRecords::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_removed_directory_takes_its_records_with_it() {
        let mut records = SideRecords::default();
        for path in [&b"a"[..], b"a/b", b"a/b/c", b"a.b", b"ab"] {
            records.insert(record(path, Kind::Symlink));
        }
        records.forget(b"a");
        let left: Vec<Vec<u8>> = records.iter().map(|r| r.path).collect();
        assert_eq!(left, [b"a.b".to_vec(), b"ab".to_vec()]);
    }
}
