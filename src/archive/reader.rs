//! Reading tar: entries one after another from any stream, never back.
//!
//! What the format leaves open is refused, not guessed, since readers that guess
//! differently see different archives (an archive hidden in another's data:
//! CVE-2025-62518): two extended headers for one entry, data behind a link or a
//! directory, sizes that do not fit. The end is two zero blocks and only zeros after
//! them; anything else is an archive cut short, or something appended.

use std::io::BufRead;

use super::error::{Error, Place, Result};
use super::header::{BadNumber, Block, Flag, Header, Sparse, sparse_block};
use super::limits::{BLOCK, ENTRIES_MAX, NAME_BYTES_MAX, PAX_MAX, SPARSE_MAP_MAX, SYMLINK_MAX};
use super::pax::{Bad, Pax, too_many_extents};
use super::sparse::{Map, MapLines};
use super::stream::{Stream, cut_short, padding};
use crate::sys::{Kind, Timespec};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// An object of this type (never a socket, which tar does not know).
    Object(Kind),
    /// Another name of an earlier entry, [`Entry::link`].
    HardLink,
}

/// One entry of an archive, as the archive says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, unchecked: any bytes but NUL, `..` among them.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Target of a symlink, or name of the entry that a hard link means.
    pub link: Vec<u8>,
    /// Permission bits, 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timespec,
    /// (major, minor) of a device.
    pub rdev: (u32, u32),
    /// Size of a file, holes included; 0 for all others.
    pub size: u64,
    /// Extended attributes, by name in order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A piece of a file's data. What lies between two pieces is a hole.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Where in the file.
    pub offset: u64,
    /// Never empty.
    pub bytes: &'a [u8],
}

/// Reads an archive.
#[derive(Debug)]
pub struct Reader<R> {
    stream: Stream<R>,
    globals: Pax,
    entries: u64,
    max_entries: u64,
    data: Data,
    ended: bool,
}

/// What is still to come of the current entry.
#[derive(Debug, Default)]
struct Data {
    name: Vec<u8>,
    /// Bytes of data that the archive still has.
    left: u64,
    /// Padding behind them.
    padding: u64,
    /// Where the next piece goes.
    at: u64,
    /// Bytes of the current extent.
    extent: u64,
    /// Extents after the current one, last first.
    extents: Vec<super::sparse::Extent>,
    /// Bytes of the last piece, not taken from the input yet.
    shown: usize,
}

/// Headers that belong to the entry that follows them.
#[derive(Default)]
struct Before {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    /// Why the entry cannot be taken; told with its name.
    bad: Option<Bad>,
    /// The name of the last such header.
    name: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    /// Reads from the beginning of `input`.
    pub fn new(input: R) -> Self {
        Reader {
            stream: Stream::new(input),
            globals: Pax::default(),
            entries: 0,
            max_entries: ENTRIES_MAX,
            data: Data::default(),
            ended: false,
        }
    }

    /// Ends with an error after this many entries.
    #[must_use]
    pub fn with_max_entries(mut self, max: u64) -> Self {
        self.max_entries = max;
        self
    }

    /// How many bytes of the archive were read.
    pub fn offset(&self) -> u64 {
        self.stream.offset()
    }

    /// The stream behind it.
    pub fn input(&self) -> &R {
        self.stream.input()
    }

    /// The next entry; `None` once at the end, which is reached only where the end
    /// marker stands and nothing but zeros follows it.
    ///
    /// What was not read of the entry before is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.ended {
            return Ok(None);
        }
        self.skip_data()?;
        let mut before = Before::default();
        loop {
            let Some(block) = self.header_block(&before)? else {
                self.ended = true;
                return Ok(None);
            };
            let header = Header::parse(&block).ok_or_else(|| {
                let at = Place::At(self.offset().saturating_sub(BLOCK as u64));
                Error::format(at, "this is no tar header (its checksum is wrong)")
            })?;
            match header.flag() {
                Flag::Pax => self.take_pax(&header, &mut before)?,
                Flag::PaxGlobal => self.take_global(&header)?,
                Flag::LongName => {
                    if let Some(name) = self.long_text(&header, &mut before)? {
                        take_once(&mut before.long_name, name, &header)?;
                    }
                }
                Flag::LongLink => {
                    if let Some(link) = self.long_text(&header, &mut before)? {
                        take_once(&mut before.long_link, link, &header)?;
                    }
                }
                Flag::Label => self.skip(&header.name(), size_of(&header)?)?,
                _ => return self.entry(&header, before).map(Some),
            }
        }
    }

    /// The next piece of the current entry's data; `None` at its end.
    pub fn piece(&mut self) -> Result<Option<Piece<'_>>> {
        self.take_shown();
        let data = &mut self.data;
        while data.extent == 0 {
            let Some(next) = data.extents.pop() else {
                return Ok(None);
            };
            (data.at, data.extent) = (next.offset, next.len);
        }
        if data.left == 0 {
            return Err(Error::Bug("an extent is longer than its data"));
        }
        let bytes = self.stream.there()?;
        if bytes.is_empty() {
            return Err(cut_short(&data.name, data.left));
        }
        let want = usize::try_from(data.extent.min(data.left)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..want).unwrap_or(bytes);
        data.shown = bytes.len();
        Ok(Some(Piece {
            offset: data.at,
            bytes,
        }))
    }

    fn take_shown(&mut self) {
        let shown = std::mem::take(&mut self.data.shown);
        self.stream.consume(shown);
        let count = shown as u64;
        self.data.at = self.data.at.saturating_add(count);
        self.data.left = self.data.left.saturating_sub(count);
        self.data.extent = self.data.extent.saturating_sub(count);
    }

    fn skip_data(&mut self) -> Result<()> {
        self.take_shown();
        let data = std::mem::take(&mut self.data);
        self.stream
            .skip(&data.name, data.left.saturating_add(data.padding))
    }

    /// Skips data of `size` bytes and its padding.
    fn skip(&mut self, name: &[u8], size: u64) -> Result<()> {
        self.stream.skip(name, size.saturating_add(padding(size)))
    }

    /// The next block that is a header; `None` after the end marker.
    fn header_block(&mut self, before: &Before) -> Result<Option<Block>> {
        let mut block: Block = [0; BLOCK];
        let short = |reader: &Self| {
            let what =
                "the archive ends without its end marker (two blocks of zeros): it was cut short";
            match before.name.is_empty() {
                true => Error::format(Place::At(reader.offset()), what),
                false => Error::format(Place::Entry(before.name.clone()), what),
            }
        };
        if self.stream.read(&mut block)? < BLOCK {
            return Err(short(self));
        }
        if block.iter().any(|b| *b != 0) {
            return Ok(Some(block));
        }
        if !before.name.is_empty() {
            let place = Place::Entry(before.name.clone());
            return Err(Error::format(place, "an extended header without an entry"));
        }
        if self.stream.read(&mut block)? < BLOCK {
            return Err(short(self));
        }
        if block.iter().any(|b| *b != 0) {
            let at = Place::At(self.offset().saturating_sub(BLOCK as u64));
            return Err(Error::format(at, "something follows half an end marker"));
        }
        self.stream.expect_zeros().map(|()| None)
    }

    /// The bytes of an extended header: its own size counts, never one that a record
    /// before it gave.
    fn extended(&mut self, header: &Header, max: u64) -> Result<std::result::Result<Vec<u8>, Bad>> {
        let (name, size) = (header.name(), size_of(header)?);
        if size > max {
            self.skip(&name, size)?;
            return Ok(Err(format!(
                "its extended header has {size} bytes; {max} are the most"
            )));
        }
        let bytes = self.stream.take(&name, size)?;
        self.stream.skip(&name, padding(size))?;
        Ok(Ok(bytes))
    }

    fn take_pax(&mut self, header: &Header, before: &mut Before) -> Result<()> {
        let parsed = self
            .extended(header, PAX_MAX)?
            .and_then(|bytes| Pax::parse(&bytes));
        before.name = header.name();
        match parsed {
            Ok(pax) => take_once(&mut before.pax, pax, header)?,
            Err(bad) => before.bad = before.bad.take().or(Some(bad)),
        }
        Ok(())
    }

    fn take_global(&mut self, header: &Header) -> Result<()> {
        let parsed = self
            .extended(header, PAX_MAX)?
            .and_then(|bytes| Pax::parse(&bytes))
            .and_then(|pax| pax.check_global().map(|()| pax));
        let pax = parsed.map_err(|bad| Error::format(Place::Entry(header.name()), bad))?;
        let globals = &mut self.globals;
        globals.uid = pax.uid.or(globals.uid);
        globals.gid = pax.gid.or(globals.gid);
        globals.mtime = pax.mtime.or(globals.mtime);
        Ok(())
    }

    fn long_text(&mut self, header: &Header, before: &mut Before) -> Result<Option<Vec<u8>>> {
        before.name = header.name();
        match self.extended(header, NAME_BYTES_MAX as u64)? {
            Ok(mut bytes) => {
                let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
                bytes.truncate(end);
                Ok(Some(bytes))
            }
            Err(bad) => {
                before.bad = Some(bad);
                Ok(None)
            }
        }
    }

    /// Joins a plain header with what came before it.
    fn entry(&mut self, header: &Header, before: Before) -> Result<Entry> {
        let mut pax = before.pax.unwrap_or_default();
        let sparse_name = pax.sparse.name.take();
        let path = [sparse_name, pax.path.take(), before.long_name]
            .into_iter()
            .flatten()
            .next()
            .unwrap_or_else(|| header.name());
        let place = || Place::Entry(path.clone());
        if let Some(bad) = before.bad {
            return Err(Error::format(place(), bad));
        }
        self.entries = self.entries.saturating_add(1);
        if self.entries > self.max_entries {
            let what = format!("there are more than {} entries", self.max_entries);
            return Err(Error::refused(&path, what));
        }
        let number = |bad: BadNumber| Error::format(place(), format!("its {} is no number", bad.0));
        let link = pax.link.take().or(before.long_link);
        let uid = pax
            .uid
            .or(self.globals.uid)
            .map_or_else(|| header.uid(), Ok);
        let gid = pax
            .gid
            .or(self.globals.gid)
            .map_or_else(|| header.gid(), Ok);
        let mtime = pax
            .mtime
            .or(self.globals.mtime)
            .map_or_else(|| header.mtime().map(|sec| Timespec { sec, nsec: 0 }), Ok);
        let mut entry = Entry {
            kind: kind_of(header.flag(), &path)
                .ok_or_else(|| unknown_type(place(), header.flag()))?,
            link: link.unwrap_or_else(|| header.link().to_vec()),
            mode: header.mode().map_err(number)?,
            uid: user(uid.map_err(number)?, "uid").map_err(|bad| Error::refused(&path, bad))?,
            gid: user(gid.map_err(number)?, "gid").map_err(|bad| Error::refused(&path, bad))?,
            mtime: mtime.map_err(number)?,
            rdev: (0, 0),
            size: 0,
            xattrs: std::mem::take(&mut pax.xattrs).into_iter().collect(),
            path: path.clone(),
        };
        if matches!(entry.kind, EntryKind::Object(Kind::Char | Kind::Block)) {
            entry.rdev = header.rdev().map_err(number)?;
        }
        if entry.kind == EntryKind::Object(Kind::Symlink) && entry.link.len() > SYMLINK_MAX {
            return Err(Error::refused(&path, "its target is longer than any path"));
        }
        let stored = pax.size.map_or_else(|| header.size(), Ok).map_err(number)?;
        let named = |bad: Bad| Error::format(place(), bad);
        if entry.kind == EntryKind::Object(Kind::File) {
            self.data.name = entry.path.clone();
            entry.size = self.begin_file(header, &pax, stored, &named)?;
        } else if stored != 0 {
            let what = "it is no file and has data: where the next entry begins cannot be known";
            return Err(named(what.into()));
        }
        Ok(entry)
    }

    /// Finds out where a file's data goes; its size.
    fn begin_file(
        &mut self,
        header: &Header,
        pax: &Pax,
        stored: u64,
        named: &impl Fn(Bad) -> Error,
    ) -> Result<u64> {
        let number = |bad: BadNumber| named(format!("its {} is no number", bad.0));
        let mut left = stored;
        let map = if header.flag() == Flag::Sparse {
            let Sparse {
                extents: mut pairs,
                mut more,
                size,
            } = header.sparse().map_err(number)?;
            while more {
                let mut block: Block = [0; BLOCK];
                if self.stream.read(&mut block)? < BLOCK {
                    return Err(cut_short(&self.data.name, stored));
                }
                let (next, last) = sparse_block(&block).map_err(number)?;
                pairs.extend(next);
                more = last;
                if pairs.len() > super::limits::SPARSE_EXTENTS_MAX {
                    return Err(named(too_many_extents()));
                }
            }
            Map::checked(&pairs, size, stored)
        } else if pax.sparse.any {
            let size = pax
                .sparse
                .size
                .ok_or_else(|| named("its sparse map has no size".into()))?;
            match pax.sparse.version {
                (0, _) => Map::checked(&pax.sparse.extents, size, stored),
                (1, 0) => {
                    let pairs = self.map_before_data(&mut left, named)?;
                    Map::checked(&pairs, size, left)
                }
                (major, minor) => Err(format!("sparse format {major}.{minor} is not known")),
            }
        } else {
            Map::checked(&[(0, stored)], stored, stored)
        };
        let map = map.map_err(named)?;
        self.data.left = left;
        self.data.padding = padding(stored);
        self.data.extents = map.extents;
        self.data.extents.reverse();
        Ok(map.size)
    }

    /// Sparse format 1.0: the map stands in whole blocks before the data.
    fn map_before_data(
        &mut self,
        left: &mut u64,
        named: &impl Fn(Bad) -> Error,
    ) -> Result<Vec<(u64, u64)>> {
        let (mut lines, mut taken) = (MapLines::default(), 0u64);
        loop {
            let mut block: Block = [0; BLOCK];
            *left = left
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| named("its sparse map is longer than its data".into()))?;
            taken += BLOCK as u64;
            if taken > SPARSE_MAP_MAX {
                return Err(named(too_many_extents()));
            }
            if self.stream.read(&mut block)? < BLOCK {
                return Err(cut_short(&self.data.name, *left));
            }
            if lines.take(&block).map_err(named)? {
                return Ok(lines.pairs());
            }
        }
    }
}

fn size_of(header: &Header) -> Result<u64> {
    let place = || Place::Entry(header.name());
    header
        .size()
        .map_err(|_| Error::format(place(), "its size is no number"))
}

/// A second extended header for one entry: readers do not agree which one counts.
fn take_once<T>(slot: &mut Option<T>, value: T, header: &Header) -> Result<()> {
    if slot.is_some() {
        let what = "a second extended header for one entry";
        return Err(Error::format(Place::Entry(header.name()), what));
    }
    *slot = Some(value);
    Ok(())
}

fn kind_of(flag: Flag, path: &[u8]) -> Option<EntryKind> {
    let object = EntryKind::Object;
    Some(match flag {
        // Before ustar a directory was a file whose name ends so.
        Flag::File if path.ends_with(b"/") => object(Kind::Dir),
        Flag::File | Flag::Sparse => object(Kind::File),
        Flag::HardLink => EntryKind::HardLink,
        Flag::Symlink => object(Kind::Symlink),
        Flag::Char => object(Kind::Char),
        Flag::Block => object(Kind::Block),
        Flag::Dir => object(Kind::Dir),
        Flag::Fifo => object(Kind::Fifo),
        _ => return None,
    })
}

fn unknown_type(place: Place, flag: Flag) -> Error {
    let what = match flag {
        Flag::Unknown(b) => format!("its type {:?} is not known", char::from(b)),
        _ => "its type is not known".to_owned(),
    };
    Error::format(place, what)
}

/// Linux has 32-bit ids, and the largest stands for none.
fn user(id: i128, what: &str) -> std::result::Result<u32, Bad> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| format!("its {what} {id} is none that Linux has"))
}
