//! Side records: what a layer's tree could not be given, kept beside it.
//!
//! Without root a symlink can carry no xattr and a device cannot be made. Their owner,
//! mode, type and numbers stand in records, one a line, in the order of their paths:
//! `UID:GID:MODE:TYPE PATH`, the first word as in `user.containers.override_stat`
//! (mount-program contract 2.3), the path with `%`, `=` and what is no
//! printable ASCII as `%XX`. The store keeps the lines with the layer; `archive::pack`
//! takes them back, and a mount that is given them shows them ([`SideTable`]).
//!
//! What an upper cannot hold: copied up (chown, rename, link, …) a symlink keeps the shown
//! owner where the daemon may give it away; an ordinary user's becomes the user's own,
//! as no `user.` xattr can stand on it and the upper has no records. A device becomes an
//! empty file with an xattr, and keeps all.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::layer::disguise::Disguise;
use crate::layer::escape;
use crate::sys::{Kind, Stat};

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
    pub(crate) fn forget(&mut self, path: &[u8]) {
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

/// What a mount shows of one lower's objects that its files cannot say.
///
/// Asked by the object's path in its own layer, which no rename in the view changes.
/// Directories have no records there: they carry xattrs.
#[derive(Debug, Clone)]
pub struct SideTable {
    records: Arc<SideRecords>,
    /// Owners of the layer stand in xattrs: a symlink without a record is root's.
    rest_is_roots: bool,
}

impl SideTable {
    /// Of a layer whose root says in an xattr that owners stand there, or does not.
    pub fn new(records: Arc<SideRecords>, owners_in_xattrs: bool) -> SideTable {
        SideTable {
            records,
            rest_is_roots: owners_in_xattrs,
        }
    }

    /// What an object without an override xattr really is; `disk` is how it is on disk.
    /// A record of something else than stands there counts for nothing.
    pub fn what(&self, path: &[u8], disk: &Stat) -> Option<Disguise> {
        let found = self.records.get(path).filter(|what| match disk.kind() {
            Kind::Dir => false,
            // An empty file stands for a device that could not be made.
            Kind::File => !matches!(what.kind, Some(Kind::Dir | Kind::Symlink)),
            kind => what.kind == Some(kind),
        });
        let roots = || {
            (self.rest_is_roots && disk.kind() == Kind::Symlink).then_some(Disguise {
                uid: 0,
                gid: 0,
                mode: 0o777,
                kind: Some(Kind::Symlink),
                rdev: (0, 0),
            })
        };
        found.or_else(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
