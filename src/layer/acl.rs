//! POSIX ACL values as xattrs hold them: parse, shift ids, inherit, write.
//!
//! Format: include/uapi/linux/posix_acl_xattr.h (version 2, little endian:
//! 16-bit tag, 16-bit permissions, 32-bit id per entry).

use crate::idmap::IdMap;

/// The access ACL.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The default ACL of a directory.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// An ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    /// Parses a value; `None` where it is malformed.
    pub fn parse(v: &[u8]) -> Option<Acl> {
        let (head, rest) = v.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*head) != VERSION || rest.len() % 8 != 0 {
            return None;
        }
        let entries = rest
            .chunks_exact(8)
            .map(|c| match *c {
                [t0, t1, p0, p1, i0, i1, i2, i3] => Some(Entry {
                    tag: u16::from_le_bytes([t0, t1]),
                    perm: u16::from_le_bytes([p0, p1]),
                    id: u32::from_le_bytes([i0, i1, i2, i3]),
                }),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Acl { entries })
    }

    /// The value to store.
    pub fn encode(&self) -> Vec<u8> {
        let mut v = VERSION.to_le_bytes().to_vec();
        for e in &self.entries {
            v.extend_from_slice(&e.tag.to_le_bytes());
            v.extend_from_slice(&e.perm.to_le_bytes());
            v.extend_from_slice(&e.id.to_le_bytes());
        }
        v
    }

    /// Parses the text form that archives hold: `user::rwx,user:1000:r-x,group::r-x,…`
    /// (acl(5), "ACL TEXT FORMS"; star and libarchive add the number as a fourth
    /// field). Entries are put into the order that the kernel asks for.
    ///
    /// # Errors
    /// A sentence: what is malformed, or which name has no number.
    pub fn from_text(text: &str) -> Result<Acl, String> {
        let mut entries = text
            .split([',', '\n'])
            .map(|part| part.split('#').next().unwrap_or_default().trim())
            .filter(|part| !part.is_empty())
            .map(entry_of_text)
            .collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|e| (e.tag, e.id));
        Ok(Acl { entries })
    }

    /// The text form, with numbers for names.
    pub fn to_text(&self) -> String {
        let parts = self.entries.iter().map(|e| {
            let kind = match e.tag {
                USER_OBJ | USER => "user",
                GROUP_OBJ | GROUP => "group",
                MASK => "mask",
                _ => "other",
            };
            let who = match e.tag {
                USER | GROUP => e.id.to_string(),
                _ => String::new(),
            };
            let bit = |bit: u16, c: char| if e.perm & bit == 0 { '-' } else { c };
            format!("{kind}:{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x'))
        });
        parts.collect::<Vec<_>>().join(",")
    }

    /// Changes the named ids; `None` where one has no counterpart.
    fn shift(
        mut self,
        users: impl Fn(u32) -> Option<u32>,
        groups: impl Fn(u32) -> Option<u32>,
    ) -> Option<Acl> {
        for e in &mut self.entries {
            match e.tag {
                USER => e.id = users(e.id)?,
                GROUP => e.id = groups(e.id)?,
                _ => {}
            }
        }
        Some(self)
    }

    /// A disk value as the view shows it.
    pub fn to_view(v: &[u8], users: &IdMap, groups: &IdMap) -> Option<Vec<u8>> {
        let acl = Acl::parse(v)?.shift(|u| Some(users.to_view(u)), |g| Some(groups.to_view(g)))?;
        Some(acl.encode())
    }

    /// A value of the view as it is stored; `None` where an id has no mapping.
    pub fn to_disk(v: &[u8], users: &IdMap, groups: &IdMap) -> Option<Vec<u8>> {
        Some(
            Acl::parse(v)?
                .shift(|u| users.to_disk(u), |g| groups.to_disk(g))?
                .encode(),
        )
    }

    /// The permission bits that a mode shows for it. See posix_acl_equiv_mode().
    pub fn permissions(&self) -> u32 {
        let of = |tag| self.entries.iter().find(|e| e.tag == tag);
        let bits = |e: Option<&Entry>| e.map_or(0, |e| u32::from(e.perm & 7));
        let group = of(MASK).or_else(|| of(GROUP_OBJ));
        bits(of(USER_OBJ)) << 6 | bits(group) << 3 | bits(of(OTHER))
    }

    /// What a new object in a directory with this default ACL gets: its access
    /// ACL (`None` where plain mode bits say it all) and its mode.
    /// See posix_acl_create_masq() in fs/posix_acl.c.
    pub fn inherit(&self, mode: u32) -> (Option<Acl>, u32) {
        let mut acl = self.clone();
        let mut perm = mode & 0o777;
        let has_mask = acl.entries.iter().any(|e| e.tag == MASK);
        let extended = acl
            .entries
            .iter()
            .any(|e| matches!(e.tag, USER | GROUP | MASK));
        for e in &mut acl.entries {
            let shift = match e.tag {
                USER_OBJ => 6,
                MASK => 3,
                GROUP_OBJ if !has_mask => 3,
                OTHER => 0,
                _ => continue,
            };
            e.perm &= ((perm >> shift) & 7) as u16;
            perm = (perm & !(7 << shift)) | (u32::from(e.perm) << shift);
        }
        ((extended).then_some(acl), (mode & !0o777) | perm)
    }
}

/// What stands for "no id" (ACL_UNDEFINED_ID, include/uapi/linux/posix_acl.h).
const NO_ID: u32 = u32::MAX;

fn entry_of_text(part: &str) -> Result<Entry, String> {
    let malformed = || format!("the ACL entry {part:?} is malformed");
    let mut fields = part.split(':').map(str::trim);
    let (kind, who) = (fields.next(), fields.next().unwrap_or_default());
    let perms = fields.next().ok_or_else(malformed)?;
    let number = fields.next();
    let tag = match (kind, who.is_empty()) {
        (Some("user" | "u"), true) => USER_OBJ,
        (Some("user" | "u"), false) => USER,
        (Some("group" | "g"), true) => GROUP_OBJ,
        (Some("group" | "g"), false) => GROUP,
        (Some("mask" | "m"), true) => MASK,
        (Some("other" | "o"), true) => OTHER,
        _ => return Err(malformed()),
    };
    let mut perm = 0;
    for c in perms.chars() {
        perm |= match c {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return Err(malformed()),
        };
    }
    let id = match who.is_empty() {
        true => NO_ID,
        false => number.unwrap_or(who).parse().map_err(|_| {
            format!("the ACL entry {part:?} names somebody without a number (tar --numeric-owner)")
        })?,
    };
    Ok(Entry { tag, perm, id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idmap::IdExtent;

    fn acl(e: &[(u16, u16, u32)]) -> Acl {
        Acl {
            entries: e
                .iter()
                .map(|&(tag, perm, id)| Entry { tag, perm, id })
                .collect(),
        }
    }

    #[test]
    fn inheritance_masks_as_the_kernel_does() {
        let d = acl(&[
            (USER_OBJ, 7, 0),
            (USER, 7, 5),
            (GROUP_OBJ, 7, 0),
            (MASK, 7, 0),
            (OTHER, 5, 0),
        ]);
        let (a, m) = d.inherit(0o640);
        assert_eq!(m, 0o640);
        let want = acl(&[
            (USER_OBJ, 6, 0),
            (USER, 7, 5),
            (GROUP_OBJ, 7, 0),
            (MASK, 4, 0),
            (OTHER, 0, 0),
        ]);
        assert_eq!(a, Some(want));
        let plain = acl(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 0, 0)]);
        assert_eq!(plain.inherit(0o666), (None, 0o640));
    }

    #[test]
    fn ids_shift_both_ways() {
        let m = IdMap::new(
            vec![IdExtent {
                disk: 0,
                view: 100,
                count: 10,
            }],
            None,
        );
        let v = acl(&[(USER_OBJ, 7, 0), (USER, 7, 5), (OTHER, 0, 0)]).encode();
        let shown = Acl::to_view(&v, &m, &m).unwrap();
        assert_eq!(Acl::parse(&shown).unwrap().entries[1].id, 105);
        assert_eq!(Acl::to_disk(&shown, &m, &m).unwrap(), v);
        assert_eq!(Acl::to_disk(&v, &m, &m), None);
    }

    #[test]
    fn the_text_of_archives_becomes_what_the_kernel_reads() {
        let gnu = Acl::from_text("user::rwx,user:7:r-x,group::r-x,mask::r-x,other::---").unwrap();
        let libarchive =
            Acl::from_text("other::---\nmask::r-x\nuser:joe:r-x:7\ngroup::r-x\nuser::rwx").unwrap();
        assert_eq!(gnu, libarchive);
        assert_eq!(gnu.permissions(), 0o750);
        assert_eq!(
            gnu.to_text(),
            "user::rwx,user:7:r-x,group::r-x,mask::r-x,other::---"
        );
        assert_eq!(Acl::parse(&gnu.encode()), Some(gnu));
        for bad in [
            "user",
            "user::q",
            "mask:1:r",
            "user:joe:r",
            "who::r",
            "user:-1:r",
        ] {
            assert!(Acl::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn garbage_is_no_acl() {
        for bad in [&b""[..], b"\x02\0\0", b"\x01\0\0\0", b"\x02\0\0\0abc"] {
            assert_eq!(Acl::parse(bad), None);
        }
    }
}
