//! Merged listings with cookies that do not move.
//!
//! A READDIR carries some 900 names and no handle, so a large directory is read
//! in many requests between which anything may change. Each name's cookie is a
//! keyed hash of the name, and a listing is sorted by it: resuming after a
//! cookie needs no state, a name that stays is seen exactly once, and a listing
//! that was evicted is simply made again. While a listing is kept, changes of
//! the directory are applied to it.

use std::collections::BTreeMap;
use std::hash::Hasher;

use parking_lot::RwLock;
use siphasher::sip::SipHasher13;

use super::kept::{Counted, Kept};
use crate::sys::Kind;

/// Cookies 0 to 2 are the start, `.` and `..`.
pub const FIRST_COOKIE: u64 = 3;

/// The cookie of a name: positive as an off_t.
pub fn cookie(name: &[u8]) -> u64 {
    let mut h = SipHasher13::new_with_keys(0x6163_6574_6174_6520, 0x7265_6164_6469_7221);
    h.write(name);
    (h.finish() >> 2).max(FIRST_COOKIE)
}

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Item {
    pub cookie: u64,
    pub ino: u64,
    pub kind: Kind,
    pub name: Box<[u8]>,
}

/// (cookie, name) → (number, type).
type ByCookie = BTreeMap<(u64, Box<[u8]>), (u64, Kind)>;

/// All names of one directory by (cookie, name). A tree, since a directory of a
/// million names is emptied name by name.
#[derive(Debug, Default)]
pub struct Listing {
    items: RwLock<ByCookie>,
}

impl Listing {
    /// A listing of these names.
    pub fn new(items: Vec<Item>) -> Self {
        let map = items
            .into_iter()
            .map(|i| ((i.cookie, i.name), (i.ino, i.kind)))
            .collect();
        Listing {
            items: RwLock::new(map),
        }
    }

    /// How many names.
    pub fn len(&self) -> usize {
        self.items.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `count` names after a cookie.
    pub fn after(&self, cookie: u64, count: usize) -> Vec<Item> {
        let items = self.items.read();
        let from = (cookie.saturating_add(1), Box::default());
        let mut rest = items
            .range(from..)
            .map(|((cookie, name), (ino, kind))| Item {
                cookie: *cookie,
                ino: *ino,
                kind: *kind,
                name: name.clone(),
            });
        let mut out: Vec<Item> = rest.by_ref().take(count).collect();
        // Names of one cookie are told together: all but the last of them carry
        // the cookie before, so that a reader that stops there sees them again
        // rather than never.
        let next = rest.next().map(|i| i.cookie);
        let cookies: Vec<u64> = out.iter().map(|i| i.cookie).collect();
        let mut before = cookie;
        for (k, item) in out.iter_mut().enumerate() {
            if cookies.get(k + 1).copied().or(next) == Some(item.cookie) {
                item.cookie = before;
            } else {
                before = item.cookie;
            }
        }
        out
    }

    fn insert(&self, item: Item) {
        self.items
            .write()
            .insert((item.cookie, item.name), (item.ino, item.kind));
    }

    fn remove(&self, name: &[u8]) {
        self.items.write().remove(&(cookie(name), name.into()));
    }
}

impl Counted for Listing {
    fn names(&self) -> usize {
        self.len()
    }
}

/// The listings that are kept.
pub type Listings = Kept<Listing>;

impl Listings {
    /// A name appeared (or changed what it stands for).
    pub fn added(&self, dir: u64, name: &[u8], ino: u64, kind: Kind) {
        if let Some(l) = self.get(dir) {
            l.insert(Item {
                cookie: cookie(name),
                ino,
                kind,
                name: name.into(),
            });
        }
    }

    /// A name went away.
    pub fn removed(&self, dir: u64, name: &[u8]) {
        if let Some(l) = self.get(dir) {
            l.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str) -> Item {
        let n = name.as_bytes();
        Item {
            cookie: cookie(n),
            ino: 9,
            kind: Kind::File,
            name: n.into(),
        }
    }

    #[test]
    fn a_reader_sees_each_lasting_name_once_whatever_happens_between() {
        let l = Listing::new((0..1000).map(|i| item(&format!("f{i}"))).collect());
        let mut seen = std::collections::HashSet::new();
        let mut at = 0;
        let mut round = 0;
        loop {
            let got = l.after(at, 7);
            let Some(last) = got.last() else { break };
            at = last.cookie;
            for i in &got {
                assert!(seen.insert(i.name.clone()), "twice: {:?}", i.name);
            }
            l.insert(item(&format!("new{round}")));
            l.remove(format!("new{}", round / 2).as_bytes());
            round += 1;
        }
        for i in 0..1000 {
            assert!(seen.contains(format!("f{i}").as_bytes()));
        }
    }

    #[test]
    fn names_of_one_cookie_are_never_lost() {
        let mut a = item("a");
        let mut b = item("b");
        (a.cookie, b.cookie) = (50, 50);
        let l = Listing::new(vec![a, b]);
        let first = l.after(0, 1);
        assert_eq!(first[0].cookie, 0, "resuming after it shows the pair again");
        assert_eq!(l.after(0, 2)[1].cookie, 50);
    }
}
