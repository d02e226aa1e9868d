//! PAX extended headers: the records of the next entry, or of all that follow.
//!
//! A record is `LENGTH KEY=VALUE\n`, its length in decimal and counting itself
//! (POSIX pax, "pax Extended Header"). A value may hold any byte, newlines and NUL
//! among them. An empty value takes an earlier one back.

use std::collections::BTreeMap;

use super::limits::{
    NAME_BYTES_MAX, SPARSE_EXTENTS_MAX, SPARSE_MAP_MAX, XATTR_NAME_MAX, XATTR_NAMES_MAX,
    XATTR_VALUE_MAX,
};
use crate::layer::acl::{self, Acl};
use crate::layer::escape;
use crate::sys::Timespec;

/// Why a header's records are not taken.
pub(super) type Bad = String;

/// What the records say; `None` where the plain header decides.
#[derive(Debug, Default, Clone)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i128>,
    pub(super) gid: Option<i128>,
    pub(super) mtime: Option<Timespec>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: PaxSparse,
    /// Bytes of all xattr names.
    names: usize,
}

/// The records of GNU tar's sparse formats 0.0, 0.1 and 1.0 (manual, "Storing
/// Sparse Files").
#[derive(Debug, Default, Clone)]
pub(super) struct PaxSparse {
    /// `GNU.sparse.major` and `minor`.
    pub(super) version: (u64, u64),
    /// The file's real name.
    pub(super) name: Option<Vec<u8>>,
    /// The file's real size.
    pub(super) size: Option<u64>,
    /// Extents as 0.0 and 0.1 give them.
    pub(super) extents: Vec<(u64, u64)>,
    /// An offset of 0.0 whose length has not come yet.
    open: Option<u64>,
    /// Any such record was there.
    pub(super) any: bool,
}

impl Pax {
    /// Parses a whole extended header.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Pax, Bad> {
        let mut pax = Pax::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or("an extended record is malformed")?;
            pax.take(key, value)?;
            bytes = rest;
        }
        if pax.sparse.open.is_some() {
            return Err("a sparse map ends within an extent".into());
        }
        Ok(pax)
    }

    /// What a global header may say for all entries: its owner and times. A name, a
    /// size or a map for all would be nonsense or a trap, and is no surprise here:
    /// git's comment is what global headers are used for.
    pub(super) fn check_global(&self) -> Result<(), Bad> {
        let named = self.path.is_some() || self.link.is_some();
        if named || self.size.is_some() || self.sparse.any || !self.xattrs.is_empty() {
            return Err("a global header gives one name, size, map or xattr to all entries".into());
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Bad> {
        let text = || std::str::from_utf8(value).map_err(|_| bad_value(key));
        let whole = || -> Result<Option<u64>, Bad> {
            match value.is_empty() {
                true => Ok(None),
                false => decimal(value).map(Some).ok_or_else(|| bad_value(key)),
            }
        };
        match key {
            b"path" => self.path = name(key, value)?,
            b"linkpath" => self.link = name(key, value)?,
            b"size" => self.size = whole()?,
            b"uid" => self.uid = whole()?.map(i128::from),
            b"gid" => self.gid = whole()?.map(i128::from),
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(text()?).ok_or_else(|| bad_value(key))?),
            b"SCHILY.acl.access" => self.acl(acl::ACCESS, text()?)?,
            b"SCHILY.acl.default" => self.acl(acl::DEFAULT, text()?)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name, value.to_vec())?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = escape::decoded(name).ok_or_else(|| bad_value(key))?;
                    let value = base64(value).ok_or_else(|| bad_value(key))?;
                    self.xattr(&name, value)?;
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(key, value)?;
                }
                // Others (comment, hdrcharset, atime, ctime, uname, SCHILY.fflags,
                // RHT.security.selinux, vendors') do not concern a layer.
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: Vec<u8>) -> Result<(), Bad> {
        if name.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) {
            return Err("the name of an xattr is empty, too long or holds NUL".into());
        }
        if value.len() > XATTR_VALUE_MAX {
            return Err(format!("an xattr has {} bytes", value.len()));
        }
        // Every value counts, one that is replaced too: 10^6 records end here.
        self.names = self.names.saturating_add(name.len() + 1);
        if self.names > 2 * XATTR_NAMES_MAX {
            return Err("there are more xattrs than an object can have".into());
        }
        self.xattrs.insert(name.to_vec(), value);
        Ok(())
    }

    fn acl(&mut self, name: &[u8], text: &str) -> Result<(), Bad> {
        if text.is_empty() {
            self.xattrs.remove(name);
            return Ok(());
        }
        let value = Acl::from_text(text)?.encode();
        self.xattr(name, value)
    }
}

impl PaxSparse {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Bad> {
        self.any = true;
        let number = || decimal(value).ok_or_else(|| bad_value(key));
        match key {
            b"major" => self.version.0 = number()?,
            b"minor" => self.version.1 = number()?,
            b"name" => self.name = name(key, value)?,
            b"size" | b"realsize" => self.size = Some(number()?),
            b"offset" if self.open.is_none() => self.open = Some(number()?),
            b"numbytes" => {
                let offset = self.open.take().ok_or_else(|| bad_value(key))?;
                self.push((offset, number()?))?;
            }
            b"map" => self.map(value)?,
            b"numblocks" => {}
            _ => return Err(bad_value(key)),
        }
        Ok(())
    }

    fn push(&mut self, extent: (u64, u64)) -> Result<(), Bad> {
        if self.extents.len() >= SPARSE_EXTENTS_MAX {
            return Err(too_many_extents());
        }
        self.extents.push(extent);
        Ok(())
    }

    /// Format 0.1: `offset,length,offset,length…`.
    fn map(&mut self, value: &[u8]) -> Result<(), Bad> {
        if value.len() as u64 > SPARSE_MAP_MAX {
            return Err(too_many_extents());
        }
        self.extents.clear();
        let mut numbers = value.split(|b| *b == b',').map(decimal);
        while let Some(offset) = numbers.next() {
            match (offset, numbers.next().flatten()) {
                (Some(offset), Some(len)) => self.push((offset, len))?,
                _ => return Err(bad_value(b"map")),
            }
        }
        Ok(())
    }
}

pub(super) fn too_many_extents() -> Bad {
    format!("its sparse map has more than {SPARSE_EXTENTS_MAX} extents")
}

fn bad_value(key: &[u8]) -> Bad {
    format!("the extended record {} is malformed", super::Shown(key))
}

/// The first record: key, value, what follows.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().position(|b| *b == b' ')?;
    let len = usize::try_from(decimal(bytes.get(..blank)?)?).ok()?;
    let (whole, rest) = bytes.split_at_checked(len)?;
    let body = whole.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    let (key, value) = body.split_at_checked(equals)?;
    (!key.is_empty()).then_some((key, value.get(1..)?, rest))
}

/// Digits alone, of a number that fits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, b| match b {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

/// A name; an empty one takes the record back.
fn name(key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, Bad> {
    if value.len() > NAME_BYTES_MAX {
        return Err(format!("a name has {} bytes", value.len()));
    }
    if value.contains(&0) {
        return Err(bad_value(key));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// `[-]SECONDS[.FRACTION]`; what is finer than a nanosecond is cut off towards the past.
fn time(text: &str) -> Option<Timespec> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let sec = i64::try_from(decimal(whole.as_bytes())?).ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut nsec = 0u32;
    for at in 0..9 {
        let digit = fraction.as_bytes().get(at).map_or(0, |b| b - b'0');
        nsec = nsec * 10 + u32::from(digit);
    }
    Some(match (negative, nsec) {
        (false, _) => Timespec { sec, nsec },
        (true, 0) => Timespec { sec: -sec, nsec: 0 },
        (true, _) => Timespec {
            sec: (-sec).checked_sub(1)?,
            nsec: 1_000_000_000 - nsec,
        },
    })
}

/// Base64 with or without padding: libarchive's values of xattrs.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii_end();
    let digits = text.iter().rposition(|b| *b != b'=').map_or(0, |at| at + 1);
    let mut out = Vec::with_capacity(digits / 4 * 3 + 3);
    for group in text.get(..digits)?.chunks(4) {
        let mut bits = 0u32;
        for b in group {
            bits = bits << 6 | u32::from(base64_digit(*b)?);
        }
        bits <<= 6 * (4 - group.len());
        let [_, bytes @ ..] = bits.to_be_bytes();
        out.extend_from_slice(bytes.get(..group.len().checked_sub(1).filter(|n| *n > 0)?)?);
    }
    Some(out)
}

/// Base64 as libarchive writes it: without padding.
pub(super) fn to_base64(bytes: &[u8]) -> Vec<u8> {
    let digit = |bits: u32| match u8::try_from(bits & 63).unwrap_or(0) {
        n @ 0..26 => b'A' + n,
        n @ 26..52 => b'a' + (n - 26),
        n @ 52..62 => b'0' + (n - 52),
        62 => b'+',
        _ => b'/',
    };
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits = 0u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(group.get(at).copied().unwrap_or(0));
        }
        let digits = [18, 12, 6, 0].map(|shift| digit(bits >> shift));
        out.extend(digits.iter().take(group.len() + 1));
    }
    out
}

fn base64_digit(b: u8) -> Option<u8> {
    Some(match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_nul_and_equals_signs() {
        let pax = Pax::parse(b"29 SCHILY.xattr.user.x=a\n=\0b\n").unwrap();
        assert_eq!(pax.xattrs[&b"user.x"[..]], b"a\n=\0b");
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bad in [
            &b"99 path=a\n"[..],
            b"8 path=a\n",
            b"11 path=a\n",
            b"0 path=a\n",
            b" path=a\n",
            b"10 path=a\n\0",
            b"7 =abc\n",
            b"6 abc\n",
            b"99999999999999999999999 path=a\n",
            b"-10 path=a\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{bad:?}");
        }
        let pax = Pax::parse(b"10 path=a\n10 path=b\n8 path=\n").unwrap();
        assert_eq!(pax.path, None, "an empty value takes it back");
    }

    #[test]
    fn times_count_nanoseconds_upwards() {
        let t = |s| time(s).map(|t| (t.sec, t.nsec));
        assert_eq!(t("1.5"), Some((1, 500_000_000)));
        assert_eq!(t("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(t("-1"), Some((-1, 0)));
        assert_eq!(t("0.0000000019"), Some((0, 1)));
        for bad in ["", "-", "1.x", "1e3", "99999999999999999999", "--1"] {
            assert_eq!(t(bad), None, "{bad}");
        }
    }

    #[test]
    fn libarchives_names_and_values_decode() {
        for (text, bytes) in [
            (&b""[..], &b""[..]),
            (b"YQ", b"a"),
            (b"YQ==", b"a"),
            (b"YWI=", b"ab"),
            (b"YWJj", b"abc"),
            (b"YWJjZA", b"abcd"),
        ] {
            assert_eq!(base64(text).as_deref(), Some(bytes));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(base64(&to_base64(&all)), Some(all));
        assert_eq!(base64(b"Y"), None);
        assert_eq!(base64(b"Y?"), None);
    }

    #[test]
    fn sparse_records_of_both_old_formats_parse() {
        let old = Pax::parse(b"23 GNU.sparse.offset=5\n25 GNU.sparse.numbytes=7\n").unwrap();
        assert_eq!(old.sparse.extents, [(5, 7)]);
        let new = Pax::parse(b"26 GNU.sparse.map=5,7,9,0\n").unwrap();
        assert_eq!(new.sparse.extents, [(5, 7), (9, 0)]);
        for bad in [
            &b"25 GNU.sparse.numbytes=7\n"[..],
            b"23 GNU.sparse.offset=5\n",
            b"22 GNU.sparse.map=5,7,\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{bad:?}");
        }
    }
}
