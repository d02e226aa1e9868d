//! Headers of the canonical archive, written.
//!
//! ustar wherever it can say all; else one PAX header before it, with a fixed name and
//! its records sorted (formats 3.5). Names of users are never written, nor access
//! and change times.

use super::error::{Error, Result};
use super::limits::BLOCK;
use super::limits::PAX_MAX;
use crate::layer::acl::{self, Acl};
use crate::layer::escape;
use crate::sys::Timespec;

/// What a header says.
pub(super) struct Head<'a> {
    /// The name; a directory's ends with `/`.
    pub(super) path: &'a [u8],
    /// The type flag.
    pub(super) flag: u8,
    /// Target of a link.
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes of data that follow.
    pub(super) size: u64,
    pub(super) mtime: Timespec,
    /// (major, minor)
    pub(super) rdev: (u32, u32),
    /// By name, in order.
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Largest number of seven octal digits: ids and device numbers.
const SEVEN_DIGITS: u64 = 0o7_777_777;
/// Largest number of eleven: sizes and times.
const ELEVEN_DIGITS: u64 = 0o77_777_777_777;
/// Bytes of ustar's name and prefix.
const NAME: usize = 100;
const PREFIX: usize = 155;

/// Adds a header to `out`, the PAX header it needs before it.
pub(super) fn header(out: &mut Vec<u8>, head: &Head<'_>) -> Result<()> {
    let records = records(head);
    if !records.is_empty() {
        let name = pax_name(head.path);
        if records.len() as u64 > PAX_MAX {
            let what = "its xattrs are more than an archive may have";
            return Err(Error::unfit(head.path, what));
        }
        let pax = Head {
            path: &name,
            flag: b'x',
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: records.len() as u64,
            mtime: Timespec::default(),
            rdev: (0, 0),
            xattrs: &[],
        };
        ustar(out, &pax);
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    ustar(out, head);
    Ok(())
}

/// One block. What does not fit is cut off or zero: a PAX record says it then.
fn ustar(out: &mut Vec<u8>, head: &Head<'_>) {
    let mut header = tar::Header::new_ustar();
    if let Some(h) = header.as_ustar_mut() {
        let (prefix, name) = split(head.path).unwrap_or((b"", head.path));
        text(&mut h.prefix, prefix);
        text(&mut h.name, name);
        text(&mut h.linkname, head.link);
        octal(&mut h.mode, u64::from(head.mode), SEVEN_DIGITS);
        octal(&mut h.uid, u64::from(head.uid), SEVEN_DIGITS);
        octal(&mut h.gid, u64::from(head.gid), SEVEN_DIGITS);
        octal(&mut h.size, head.size, ELEVEN_DIGITS);
        octal(
            &mut h.mtime,
            seconds(head.mtime).unwrap_or(0),
            ELEVEN_DIGITS,
        );
        octal(&mut h.dev_major, u64::from(head.rdev.0), SEVEN_DIGITS);
        octal(&mut h.dev_minor, u64::from(head.rdev.1), SEVEN_DIGITS);
        h.typeflag = [head.flag];
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
}

/// Prefix and name of a path that ustar can hold.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= NAME {
        return Some((b"", path));
    }
    // The longest prefix that fits; a directory's last slash divides nothing.
    let end = path.len().min(PREFIX + 1);
    let body = path.get(..path.len() - 1)?;
    let at = body
        .get(..end.min(body.len()))?
        .iter()
        .rposition(|b| *b == b'/')?;
    let (prefix, name) = (path.get(..at)?, path.get(at + 1..)?);
    (!prefix.is_empty() && name.len() <= NAME).then_some((prefix, name))
}

fn text(field: &mut [u8], value: &[u8]) {
    for (to, from) in field.iter_mut().zip(value) {
        *to = *from;
    }
}

/// Octal digits and a NUL; zero where the number is too large.
fn octal(field: &mut [u8], value: u64, max: u64) {
    let value = if value <= max { value } else { 0 };
    let digits = field.len().saturating_sub(1);
    text(field, format!("{value:0digits$o}\0").as_bytes());
}

/// A time that a header can say.
fn seconds(time: Timespec) -> Option<u64> {
    u64::try_from(time.sec)
        .ok()
        .filter(|sec| *sec <= ELEVEN_DIGITS && time.nsec == 0)
}

/// `PaxHeaders.0/` and the last part of the name.
fn pax_name(path: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let last = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let mut name = [b"PaxHeaders.0/", last].concat();
    name.truncate(NAME);
    name
}

/// The PAX records that a header needs.
fn records(head: &Head<'_>) -> Vec<u8> {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut names_are_text = true;
    let mut add = |key: &[u8], value: Vec<u8>| records.push((key.to_vec(), value));
    for (name, value) in head.xattrs {
        // Container tools read ACLs as xattrs, GNU tar, bsdtar and star as text.
        for (acl, key) in [
            (acl::ACCESS, &b"SCHILY.acl.access"[..]),
            (acl::DEFAULT, b"SCHILY.acl.default"),
        ] {
            if name == acl
                && let Some(acl) = Acl::parse(value)
            {
                add(key, acl.to_text().into_bytes());
            }
        }
        match name.contains(&b'=') {
            false => add(&[b"SCHILY.xattr.", &name[..]].concat(), value.clone()),
            // A key ends at the first `=`: libarchive's form can say any name.
            true => add(
                &[b"LIBARCHIVE.xattr.", &escape::encoded(name)[..]].concat(),
                super::pax::to_base64(value),
            ),
        }
    }
    for (key, id) in [(&b"gid"[..], head.gid), (b"uid", head.uid)] {
        if u64::from(id) > SEVEN_DIGITS {
            add(key, id.to_string().into_bytes());
        }
    }
    if head.link.len() > NAME {
        names_are_text &= std::str::from_utf8(head.link).is_ok();
        add(b"linkpath", head.link.to_vec());
    }
    if seconds(head.mtime).is_none() {
        add(b"mtime", time(head.mtime).into_bytes());
    }
    if split(head.path).is_none() {
        names_are_text &= std::str::from_utf8(head.path).is_ok();
        add(b"path", head.path.to_vec());
    }
    if head.size > ELEVEN_DIGITS {
        add(b"size", head.size.to_string().into_bytes());
    }
    records.sort();
    if !names_are_text {
        // Before the names it is about (POSIX pax, "hdrcharset").
        records.insert(0, (b"hdrcharset".to_vec(), b"BINARY".to_vec()));
    }
    let mut out = Vec::new();
    for (key, value) in &records {
        record(&mut out, key, value);
    }
    out
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + " =\n".len();
    let mut len = body;
    loop {
        let next = body + len.to_string().len();
        if next == len {
            break;
        }
        len = next;
    }
    for part in [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"] {
        out.extend_from_slice(part);
    }
}

/// `[-]SECONDS[.FRACTION]` without useless zeros.
fn time(time: Timespec) -> String {
    let (sign, sec, nsec) = match (time.sec < 0, time.nsec) {
        (true, nsec) if nsec > 0 => {
            let sec = time.sec.saturating_add(1).unsigned_abs();
            ("-", sec, 1_000_000_000u32.saturating_sub(nsec))
        }
        (negative, nsec) => {
            let sign = if negative { "-" } else { "" };
            (sign, time.sec.unsigned_abs(), nsec)
        }
    };
    match nsec {
        0 => format!("{sign}{sec}"),
        nsec => {
            let fraction = format!("{nsec:09}");
            format!("{sign}{sec}.{}", fraction.trim_end_matches('0'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::pax::Pax;

    fn head(path: &[u8]) -> Head<'_> {
        Head {
            path,
            flag: b'0',
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timespec::default(),
            rdev: (0, 0),
            xattrs: &[],
        }
    }

    #[test]
    fn ustar_alone_wherever_it_can_say_all() {
        let long = [&[b'd'; 150][..], b"/", &[b'n'; 100]].concat();
        let dir = [&[b'd'; 150][..], b"/", &[b'n'; 99], b"/"].concat();
        for path in [&b"a"[..], &[b'x'; 100], &long, &dir] {
            let mut out = Vec::new();
            header(&mut out, &head(path)).unwrap();
            assert_eq!(out.len(), BLOCK, "{}", path.len());
        }
        for path in [&[b'x'; 101][..], &[&long[..], b"n"].concat()] {
            let mut out = Vec::new();
            header(&mut out, &head(path)).unwrap();
            assert_eq!(out.len(), 3 * BLOCK, "{}", path.len());
        }
    }

    #[test]
    fn records_count_their_own_length() {
        for len in [
            0usize, 1, 3, 4, 88, 89, 90, 91, 92, 986, 987, 988, 989, 9990,
        ] {
            let value = vec![b'v'; len];
            let mut out = Vec::new();
            record(&mut out, b"SCHILY.xattr.user.a", &value);
            let pax = Pax::parse(&out).unwrap();
            assert_eq!(pax.xattrs[&b"user.a"[..]], value);
        }
    }

    #[test]
    fn times_are_read_as_they_were_written() {
        for (sec, nsec) in [(0, 1), (-1, 0), (-1, 999_999_999), (-2, 5), (1 << 40, 120)] {
            let mut out = Vec::new();
            let value = time(Timespec { sec, nsec });
            record(&mut out, b"mtime", value.as_bytes());
            let read = Pax::parse(&out).unwrap().mtime;
            assert_eq!(read, Some(Timespec { sec, nsec }), "{value}");
        }
    }

    #[test]
    fn xattr_names_with_an_equals_sign_come_back() {
        let xattrs = [(b"user.a=b\n%".to_vec(), b"\0=\n".to_vec())];
        let mut head = head(b"a");
        head.xattrs = &xattrs;
        let pax = Pax::parse(&records(&head)).unwrap();
        assert_eq!(pax.xattrs.into_iter().collect::<Vec<_>>(), xattrs);
    }
}
