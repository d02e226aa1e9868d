//! One header block: where its fields are (package `tar` knows), what they say.
//!
//! Formats: POSIX pax "ustar Interchange Format"; GNU tar manual "Basic Tar Format";
//! star(5) for the short prefix. Numbers are octal text or, with the top bit set,
//! base-256 (GNU). A number that does not fit, or text after it, is an error and no
//! guess: two readers that guess differently see two different archives.

use super::limits::BLOCK;

/// One block of a header.
pub(super) type Block = [u8; BLOCK];

/// A header block whose checksum is right.
pub(super) struct Header(tar::Header);

/// What a header describes, by its type flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Dir,
    Fifo,
    /// GNU's sparse file (old format).
    Sparse,
    /// GNU's long name for the next entry.
    LongName,
    /// GNU's long link target for the next entry.
    LongLink,
    /// PAX records for the next entry.
    Pax,
    /// PAX records for all that follow.
    PaxGlobal,
    /// GNU's volume label: no object.
    Label,
    /// Nothing that we know.
    Unknown(u8),
}

/// GNU's sparse fields.
pub(super) struct Sparse {
    /// (offset, length) of the extents.
    pub(super) extents: Vec<(u64, u64)>,
    /// Whether a block of more follows.
    pub(super) more: bool,
    /// The file's real size.
    pub(super) size: u64,
}

/// A field that is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadNumber(pub(super) &'static str);

impl Header {
    /// The header in a block; `None` where the checksum is wrong.
    pub(super) fn parse(block: &Block) -> Option<Header> {
        let header = tar::Header::from_byte_slice(block).clone();
        let stored = number(&header.as_old().cksum)?;
        let (unsigned, signed) = sums(block);
        // Old tars summed signed bytes.
        (stored == unsigned || stored == signed).then_some(Header(header))
    }

    pub(super) fn flag(&self) -> Flag {
        let [flag] = self.0.as_old().linkflag;
        match flag {
            // POSIX: '7' is a contiguous file, for all others a file.
            b'0' | 0 | b'7' => Flag::File,
            b'1' => Flag::HardLink,
            b'2' => Flag::Symlink,
            b'3' => Flag::Char,
            b'4' => Flag::Block,
            b'5' => Flag::Dir,
            b'6' => Flag::Fifo,
            b'S' => Flag::Sparse,
            b'L' => Flag::LongName,
            b'K' => Flag::LongLink,
            // 'X': Sun's, of the same format.
            b'x' | b'X' => Flag::Pax,
            b'g' => Flag::PaxGlobal,
            b'V' => Flag::Label,
            other => Flag::Unknown(other),
        }
    }

    /// The name, the prefix of ustar's before it.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0.as_old().name);
        let prefix = self.prefix();
        match prefix.is_empty() {
            true => name.to_vec(),
            false => [prefix, b"/", name].concat(),
        }
    }

    fn prefix(&self) -> &[u8] {
        /// star(5): only 131 bytes are prefix where "tar\0" ends the block.
        const STAR_PREFIX: usize = 131;
        // GNU's magic has a blank behind "ustar": something else stands there.
        let Some(ustar) = self.0.as_ustar() else {
            return b"";
        };
        let star = self.0.as_bytes().ends_with(b"tar\0");
        let field = match star {
            true => ustar.prefix.get(..STAR_PREFIX).unwrap_or_default(),
            false => &ustar.prefix,
        };
        text(field)
    }

    pub(super) fn link(&self) -> &[u8] {
        text(&self.0.as_old().linkname)
    }

    pub(super) fn mode(&self) -> Result<u32, BadNumber> {
        // Some writers keep the type bits in it.
        let mode = self.number("mode", |h| &h.mode)?;
        u32::try_from(mode & 0o7777).map_err(|_| BadNumber("mode"))
    }

    pub(super) fn uid(&self) -> Result<i128, BadNumber> {
        self.number("uid", |h| &h.uid)
    }

    pub(super) fn gid(&self) -> Result<i128, BadNumber> {
        self.number("gid", |h| &h.gid)
    }

    pub(super) fn size(&self) -> Result<u64, BadNumber> {
        let size = self.number("size", |h| &h.size)?;
        u64::try_from(size).map_err(|_| BadNumber("size"))
    }

    pub(super) fn mtime(&self) -> Result<i64, BadNumber> {
        let mtime = self.number("mtime", |h| &h.mtime)?;
        i64::try_from(mtime).map_err(|_| BadNumber("mtime"))
    }

    /// (major, minor); zeros where the format has no such fields.
    pub(super) fn rdev(&self) -> Result<(u32, u32), BadNumber> {
        let (major, minor) = match (self.0.as_ustar(), self.0.as_gnu()) {
            (Some(u), _) => (&u.dev_major, &u.dev_minor),
            (_, Some(g)) => (&g.dev_major, &g.dev_minor),
            _ => return Ok((0, 0)),
        };
        let value = |field, name| {
            number(field)
                .and_then(|n| u32::try_from(n).ok())
                .ok_or(BadNumber(name))
        };
        Ok((value(major, "devmajor")?, value(minor, "devminor")?))
    }

    /// The map and size of GNU's sparse file, as far as they stand in this block.
    pub(super) fn sparse(&self) -> Result<Sparse, BadNumber> {
        let gnu = self.0.as_gnu().ok_or(BadNumber("sparse map"))?;
        let extents = sparse_pairs(&gnu.sparse)?;
        let real = number(&gnu.realsize).and_then(|n| u64::try_from(n).ok());
        let [more] = gnu.isextended;
        Ok(Sparse {
            extents,
            more: more != 0,
            size: real.ok_or(BadNumber("real size"))?,
        })
    }

    fn number(
        &self,
        name: &'static str,
        field: impl Fn(&tar::OldHeader) -> &[u8],
    ) -> Result<i128, BadNumber> {
        number(field(self.0.as_old())).ok_or(BadNumber(name))
    }
}

/// A block of more sparse extents, and whether another follows.
pub(super) fn sparse_block(block: &Block) -> Result<(Vec<(u64, u64)>, bool), BadNumber> {
    let mut ext = tar::GnuExtSparseHeader::new();
    ext.as_mut_bytes().copy_from_slice(block);
    let [more] = ext.isextended;
    Ok((sparse_pairs(&ext.sparse)?, more != 0))
}

fn sparse_pairs(pairs: &[tar::GnuSparseHeader]) -> Result<Vec<(u64, u64)>, BadNumber> {
    let bad = BadNumber("sparse map");
    let value = |field: &[u8]| number(field).and_then(|n| u64::try_from(n).ok()).ok_or(bad);
    pairs
        .iter()
        // An unused pair is all NULs; a used one has digits in both.
        .take_while(|p| p.offset.first() != Some(&0) || p.numbytes.first() != Some(&0))
        .map(|p| Ok((value(&p.offset)?, value(&p.numbytes)?)))
        .collect()
}

/// The text of a field: up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// A numeric field; an empty one is zero.
fn number(field: &[u8]) -> Option<i128> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Base-256, two's complement: bit 6 of the first byte is the sign. At most
        // 12 bytes, so that 95 bits always fit.
        let sign = i128::from(*first & 0x7f) - i128::from(*first & 0x40) * 2;
        return Some(rest.iter().fold(sign, |n, b| n << 8 | i128::from(*b)));
    }
    let digits = field.trim_ascii_start();
    let blank = |b: &u8| *b == 0 || *b == b' ';
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    let (digits, tail) = digits.split_at_checked(end)?;
    if !tail.iter().all(blank) {
        return None;
    }
    digits.iter().try_fold(0i128, |n, b| match b {
        b'0'..=b'7' => Some(n * 8 + i128::from(b - b'0')),
        _ => None,
    })
}

/// The checksum over a block, its own field read as blanks, with bytes as unsigned
/// and as signed numbers.
pub(super) fn sums(block: &Block) -> (i128, i128) {
    let (mut unsigned, mut signed) = (0i128, 0i128);
    for (at, b) in block.iter().enumerate() {
        let b = if (148..156).contains(&at) { b' ' } else { *b };
        unsigned += i128::from(b);
        signed += i128::from(b.cast_signed());
    }
    (unsigned, signed)
}

/// Whether a block could begin a tar archive (or is the end marker of an empty one).
pub(super) fn begins_archive(block: &Block) -> bool {
    block.iter().all(|b| *b == 0) || Header::parse(block).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256_and_nothing_else() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777 "), Some(0o77777777777));
        assert_eq!(
            number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"),
            Some(8 << 30),
            "8 GiB"
        );
        assert_eq!(number(&[0xff; 12]), Some(-1));
        // More than any u64, and not cut down to one that fits.
        let huge = number(b"\x80\xff\0\0\0\0\0\0\0\0\0\0").unwrap();
        assert!(u64::try_from(huge).is_err());
        for bad in [&b"12x45\0"[..], b"8\0", b"-1\0", b"644\0junk"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_no_header() {
        let mut header = tar::Header::new_gnu();
        header.set_path("a").unwrap();
        header.set_size(0);
        header.set_cksum();
        let mut block: Block = *header.as_bytes();
        assert!(Header::parse(&block).is_some());
        block[0] ^= 1;
        assert!(Header::parse(&block).is_none());
    }
}
