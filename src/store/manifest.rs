//! The manifest of a copied workspace: what its tree held when it was written out.
//!
//! # The form
//! Text, one line an object, sorted by the bytes of their paths:
//!
//! ```text
//! acetate-manifest 1
//! PATH KIND MODE UID:GID SIZE MTIME MAJOR:MINOR XATTRS TARGET LINKS INO CTIME BIRTH MODE UID:GID
//! …
//! sha256:DIGITS
//! ```
//!
//! * PATH: below the root, which is `.`; bytes as in [`escape`].
//! * KIND: `f d l p s c b`. MODE: 0o7777 in octal. Times: SECONDS.NANOSECONDS.
//! * The first MODE and UID:GID are those of the layers, the last ones those on disk:
//!   they differ where ids are mapped, and where an ordinary user's copy cannot have
//!   what a layer records. A device that could not be made is an empty file on disk.
//! * XATTRS: sha256 of names and values as they are on disk, `-` where there are none.
//! * TARGET: `>` and a symlink's target, else `-`.
//! * LINKS: how many names the object had. Names with one INO and BIRTH are one object.
//! * INO and BIRTH say whether an object is still the same one, CTIME whether anything
//!   was done to it: what has the three it was written with need not be looked at.
//!   A user can set times of modification, but not these. An INO of 0 stands for an
//!   object that is not there any more (in a clone of the workspace).
//! * The last line is the digest of all that stands above it.
//!
//! Of the data nothing is recorded: the layers hold it, and where an object was
//! touched, its bytes are compared with theirs.

use std::collections::HashMap;
use std::fmt::Write;

use crate::digest::Digest;
use crate::layer::escape;
use crate::sys::{Kind, Timespec};

const HEAD: &str = "acetate-manifest 1";
/// The path of the root in the text.
const ROOT: &str = ".";

/// What tells an object from every other, also from one that took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Inode number.
    pub ino: u64,
    /// When it was made; 0 where the file system does not say.
    pub birth: Timespec,
}

/// What an object is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDisk {
    /// Which one it is.
    pub identity: Identity,
    /// When anything was last done to it.
    pub ctime: Timespec,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// One object as it was written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Below the root, without a slash before it; empty for the root.
    pub path: Vec<u8>,
    /// The type that the layers record.
    pub kind: Kind,
    /// The permission bits that they record.
    pub mode: u32,
    /// The owner that they record.
    pub uid: u32,
    /// The group that they record.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Timespec,
    /// (major, minor) of a device.
    pub rdev: (u32, u32),
    /// Of its xattrs; `None` where it has none.
    pub xattrs: Option<Digest>,
    /// Where a symlink leads.
    pub target: Vec<u8>,
    /// How many names it had.
    pub links: u32,
    /// What stands for it.
    pub disk: OnDisk,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// By path.
    entries: Vec<Entry>,
    /// The first entry of every object.
    origins: HashMap<Identity, usize>,
}

impl Manifest {
    /// Of entries in any order.
    pub fn new(mut entries: Vec<Entry>) -> Manifest {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|b, a| a.path == b.path);
        let mut origins = HashMap::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            if entry.disk.identity.ino != 0 {
                origins.entry(entry.disk.identity).or_insert(at);
            }
        }
        Manifest { entries, origins }
    }

    /// All entries, by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of a path.
    pub fn at(&self, path: &[u8]) -> Option<&Entry> {
        let found = self.entries.binary_search_by(|e| e.path[..].cmp(path));
        found.ok().and_then(|at| self.entries.get(at))
    }

    /// What an object was written out as, under the first of its names; `None` for
    /// one that is new.
    pub fn origin(&self, of: &Identity) -> Option<&Entry> {
        self.origins.get(of).and_then(|at| self.entries.get(*at))
    }

    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{HEAD}\n");
        for entry in &self.entries {
            line(&mut text, entry);
        }
        let sum = Digest::of(text.as_bytes());
        text.push_str(&format!("{sum}\n"));
        text.into_bytes()
    }

    /// Reads a stored one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
        let body = text
            .strip_suffix('\n')
            .and_then(|t| t.rfind('\n'))
            .ok_or("it ends in the middle")?;
        let (body, sum) = text.split_at(body.saturating_add(1));
        if sum.trim_end() != Digest::of(body.as_bytes()).to_string() {
            return Err("its checksum is another one".to_owned());
        }
        let mut lines = body.lines();
        if lines.next() != Some(HEAD) {
            return Err(format!("it is no {HEAD}"));
        }
        let read = |line: &str| entry(line).ok_or_else(|| format!("a line is malformed: {line}"));
        let entries = lines.map(read).collect::<Result<Vec<_>, _>>()?;
        let sorted = |w: &[Entry]| matches!(w, [a, b] if a.path < b.path);
        let has_root = entries.first().is_some_and(|e| e.path.is_empty());
        match has_root && entries.windows(2).all(sorted) {
            true => Ok(Manifest::new(entries)),
            false => Err("its lines are in no order".to_owned()),
        }
    }
}

fn line(text: &mut String, e: &Entry) {
    let path = match e.path.is_empty() {
        true => ROOT.to_owned(),
        false => shown(&e.path),
    };
    let xattrs = e.xattrs.map_or_else(|| "-".to_owned(), |d| d.to_string());
    let target = match e.kind {
        Kind::Symlink => format!(">{}", shown(&e.target)),
        _ => "-".to_owned(),
    };
    let (disk, id) = (&e.disk, &e.disk.identity);
    let written = writeln!(
        text,
        "{path} {} {:o} {}:{} {} {} {}:{} {xattrs} {target} {} {} {} {} {:o} {}:{}",
        letter(e.kind),
        e.mode,
        e.uid,
        e.gid,
        e.size,
        time(e.mtime),
        e.rdev.0,
        e.rdev.1,
        e.links,
        id.ino,
        time(disk.ctime),
        time(id.birth),
        disk.mode,
        disk.uid,
        disk.gid,
    );
    // Writing to a String cannot fail; were it cut off, the reader would refuse it.
    if written.is_err() {
        text.push('\n');
    }
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let mut word = || words.next();
    let path = match word()? {
        ROOT => Vec::new(),
        path => escape::decoded(path.as_bytes())?,
    };
    let kind = kind(word()?)?;
    let mode = octal(word()?)?;
    let (uid, gid) = pair(word()?)?;
    let size = word()?.parse().ok()?;
    let mtime = parse_time(word()?)?;
    let rdev = pair(word()?)?;
    let xattrs = match word()? {
        "-" => None,
        digest => Some(digest.parse().ok()?),
    };
    let target = match word()?.strip_prefix('>') {
        Some(target) => escape::decoded(target.as_bytes())?,
        None => Vec::new(),
    };
    let links = word()?.parse().ok()?;
    let ino = word()?.parse().ok()?;
    let ctime = parse_time(word()?)?;
    let birth = parse_time(word()?)?;
    let on_disk = octal(word()?)?;
    let owner = pair(word()?)?;
    word().is_none().then_some(())?;
    Some(Entry {
        path,
        kind,
        mode,
        uid,
        gid,
        size,
        mtime,
        rdev,
        xattrs,
        target,
        links,
        disk: OnDisk {
            identity: Identity { ino, birth },
            ctime,
            mode: on_disk,
            uid: owner.0,
            gid: owner.1,
        },
    })
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&escape::encoded(bytes)).into_owned()
}

fn octal(word: &str) -> Option<u32> {
    u32::from_str_radix(word, 8).ok().filter(|m| *m <= 0o7777)
}

fn pair(word: &str) -> Option<(u32, u32)> {
    let (a, b) = word.split_once(':')?;
    Some((a.parse().ok()?, b.parse().ok()?))
}

fn time(t: Timespec) -> String {
    format!("{}.{:09}", t.sec, t.nsec)
}

fn parse_time(word: &str) -> Option<Timespec> {
    let (sec, nsec) = word.split_once('.')?;
    let nsec: u32 = nsec.parse().ok()?;
    let sec = sec.parse().ok()?;
    (nsec < 1_000_000_000).then_some(Timespec { sec, nsec })
}

/// Types and their letters.
const KINDS: [(Kind, &str); 7] = [
    (Kind::File, "f"),
    (Kind::Dir, "d"),
    (Kind::Symlink, "l"),
    (Kind::Fifo, "p"),
    (Kind::Socket, "s"),
    (Kind::Char, "c"),
    (Kind::Block, "b"),
];

fn letter(kind: Kind) -> &'static str {
    let of = |(k, letter): &(Kind, &'static str)| (*k == kind).then_some(*letter);
    KINDS.iter().find_map(of).unwrap_or("f")
}

fn kind(word: &str) -> Option<Kind> {
    KINDS
        .iter()
        .find(|(_, l)| *l == word)
        .map(|(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(path: &[u8], kind: Kind) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            mode: 0o4755,
            uid: 1,
            gid: 4_000_000_000,
            size: u64::MAX,
            mtime: Timespec { sec: -5, nsec: 7 },
            rdev: (5, 1),
            xattrs: (kind == Kind::File).then(|| Digest::of(b"x")),
            target: match kind {
                Kind::Symlink => b"-\n a>".to_vec(),
                _ => Vec::new(),
            },
            links: 2,
            disk: OnDisk {
                identity: Identity {
                    ino: 12,
                    birth: Timespec { sec: 1, nsec: 2 },
                },
                ctime: Timespec { sec: 3, nsec: 4 },
                mode: 0o644,
                uid: 1000,
                gid: 1000,
            },
        }
    }

    #[test]
    fn every_kind_and_every_name_survives_the_text() {
        let mut entries = vec![some(b"", Kind::Dir)];
        for (at, (kind, _)) in KINDS.iter().enumerate() {
            let name = [&b"n\n %\xff"[..], &[b'a' + at as u8]].concat();
            entries.push(some(&name, *kind));
        }
        entries.push(some(b".", Kind::File).with_path(b"..."));
        let manifest = Manifest::new(entries);
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
        assert_eq!(manifest.at(b"").map(|e| e.kind), Some(Kind::Dir));
        assert!(manifest.at(b"nobody").is_none());
        let id = manifest.entries()[0].disk.identity;
        assert_eq!(manifest.origin(&id).map(|e| e.kind), Some(Kind::Dir));
    }

    impl Entry {
        fn with_path(mut self, path: &[u8]) -> Entry {
            self.path = path.to_vec();
            self
        }
    }

    #[test]
    fn what_was_cut_off_or_changed_is_refused() {
        let manifest = Manifest::new(vec![some(b"", Kind::Dir), some(b"a", Kind::File)]);
        let good = manifest.encode();
        for cut in 0..good.len() {
            assert!(Manifest::decode(&good[..cut]).is_err(), "{cut}");
            let mut other = good.clone();
            other[cut] ^= 1;
            assert!(Manifest::decode(&other).is_err(), "{cut}");
        }
        let again = |body: String| {
            let sum = Digest::of(body.as_bytes());
            Manifest::decode(format!("{body}{sum}\n").as_bytes())
        };
        assert!(again(format!("{HEAD}\n")).is_err(), "no root");
        assert!(again(format!("{HEAD}\nx\n")).is_err());
        assert!(again("acetate-manifest 2\n".to_owned()).is_err());
    }
}
