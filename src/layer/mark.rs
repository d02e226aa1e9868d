//! Marks: whiteouts, opaque directories, redirects, metacopy and origins, in
//! every dialect that layers come in.
//!
//! | meaning | kernel (`trusted.overlay.` or `user.overlay.`) | AUFS, OCI, containers/storage | fuse-overlayfs |
//! |---|---|---|---|
//! | NAME deleted | character device 0:0, or empty file with `whiteout` in a directory whose `opaque` is `x` | file `.wh.NAME` | either |
//! | directory opaque | `opaque` = `y` | file `.wh..wh..opq` inside | `user.fuseoverlayfs.opaque` = `y` |
//! | looked up elsewhere below | `redirect` = name or /path | | |
//! | data lies below | `metacopy` | | |
//! | copied up from | `origin` = struct ovl_fb | | |
//!
//! Sources: Documentation/filesystems/overlayfs.rst ("whiteouts and opaque
//! directories", "redirect_dir", "metadata only copy up"), fs/overlayfs/overlayfs.h
//! (struct ovl_fb), OCI image-spec layer.md ("Whiteouts").
//! A mark hides what lies in layers *below*, never its siblings.
//!
//! Without `opaque` = `x` on its directory a file with `whiteout` is a file here. The
//! kernel finds no such name and lists it all the same; asking every empty file of a
//! listing costs more than such layers, which the format does not allow, are worth.

use crate::sys::handle::Handle;
use crate::sys::{Errno, Result, Spot, xattr};

/// The prefix of AUFS marker names.
pub const DOT_WH: &[u8] = b".wh.";

/// Names inside a directory that make it opaque.
pub const OPAQUE_FILES: [&[u8]; 2] = [b".wh..wh..opq", b".wh..opq"];

/// Longest redirect we follow: a path of the kernel's.
const REDIRECT_MAX: usize = 4096;

/// Whether a name is a marker and never shown.
pub fn is_dot_wh(name: &[u8]) -> bool {
    name.starts_with(DOT_WH)
}

/// `.wh.NAME`; `None` where that is no possible name.
pub fn dot_wh_name(name: &[u8]) -> Option<Vec<u8>> {
    (name.len() + DOT_WH.len() <= 255).then(|| [DOT_WH, name].concat())
}

/// What a directory's opaque mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Opaque {
    /// Layers below are merged in.
    #[default]
    No,
    /// Layers below are hidden.
    Yes,
    /// Merged, and its empty files may be whiteouts (`opaque` = `x`, Linux 6.7).
    MayHoldXattrWhiteouts,
}

/// Where the layers below are to be asked instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// Another name in the same directory.
    Name(Vec<u8>),
    /// A path from the layers' roots.
    Path(Vec<Vec<u8>>),
}

impl Redirect {
    /// Parses a redirect's value; `None` where it is malformed (empty, `.` or
    /// `..` components, a relative path of several, NUL, too long).
    pub fn parse(v: &[u8]) -> Option<Redirect> {
        if v.is_empty() || v.len() > REDIRECT_MAX || v.contains(&0) {
            return None;
        }
        let ok = |c: &[u8]| !c.is_empty() && c != b"." && c != b".." && c.len() <= 255;
        match v.strip_prefix(b"/") {
            None => (ok(v) && !v.contains(&b'/')).then(|| Redirect::Name(v.to_vec())),
            Some(rest) => {
                let comps: Vec<Vec<u8>> = rest.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
                comps.iter().all(|c| ok(c)).then_some(Redirect::Path(comps))
            }
        }
    }
}

/// The private xattrs of one object, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Opaque mark of a directory.
    pub opaque: Opaque,
    /// Redirect of a directory or of a metacopy file.
    pub redirect: Option<Redirect>,
    /// The redirect could not be read: the object must not be merged by guess.
    pub bad_redirect: bool,
    /// The data lies in a layer below.
    pub metacopy: bool,
    /// An empty file that stands for a whiteout.
    pub whiteout: bool,
    /// The object this one was copied up from.
    pub origin: Option<Origin>,
    /// Owner, mode and type disguised in an xattr.
    pub disguise: Option<super::disguise::Disguise>,
    /// Link count of the merged view (`nlink` = `U+n`, `L-n`).
    pub nlink: Option<NlinkMark>,
    /// A directory whose entries may have origins.
    pub impure: bool,
    /// The object has at least one xattr of its own, so asking it is worth a call.
    pub has_plain: bool,
}

/// `overlay.nlink`: the merged link count relative to a backing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NlinkMark {
    /// Relative to the upper inode's count.
    Upper(i32),
    /// Relative to the lower inode's count.
    Lower(i32),
}

impl NlinkMark {
    fn parse(v: &[u8]) -> Option<Self> {
        let (kind, num) = v.split_first()?;
        let n: i32 = std::str::from_utf8(num).ok()?.parse().ok()?;
        match kind {
            b'U' => Some(NlinkMark::Upper(n)),
            b'L' => Some(NlinkMark::Lower(n)),
            _ => None,
        }
    }

    /// As it is stored.
    pub fn encode(self) -> Vec<u8> {
        match self {
            NlinkMark::Upper(n) => format!("U{n:+}").into_bytes(),
            NlinkMark::Lower(n) => format!("L{n:+}").into_bytes(),
        }
    }
}

impl Marks {
    /// Reads an object's marks: one call where it has no xattrs.
    pub fn read(spot: &Spot) -> Result<Marks> {
        let mut m = Marks::default();
        let list = match xattr::list(spot) {
            // More names than a list may hold: ours are asked one by one.
            Err(Errno::E2BIG | Errno::ERANGE) => return m.ask_each(spot).map(|()| m),
            r => r?,
        };
        for name in xattr::names(&list) {
            m.take(spot, name)?;
        }
        Ok(m)
    }

    fn ask_each(&mut self, spot: &Spot) -> Result<()> {
        self.has_plain = true;
        let marks = [
            "opaque", "redirect", "origin", "nlink", "metacopy", "whiteout", "impure",
        ];
        let plain = marks.iter().flat_map(|m| {
            PRIVATE_PREFIXES
                .iter()
                .map(move |p| [p, m.as_bytes()].concat())
        });
        let disguises = [
            super::disguise::SECURITY_OVERRIDE,
            super::disguise::USER_OVERRIDE,
            super::disguise::OLD_OVERRIDE,
        ];
        for name in plain.chain(disguises.iter().map(|d| d.to_vec())) {
            if xattr::get(spot, &name)?.is_some() {
                self.take(spot, &name)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, spot: &Spot, name: &[u8]) -> Result<()> {
        if let Some(attr) = super::disguise::is_override(name) {
            if let Some(v) = xattr::get(spot, attr)? {
                self.disguise = super::disguise::Disguise::parse(&v).or(self.disguise);
            }
            return Ok(());
        }
        let Some(attr) = private_suffix(name) else {
            self.has_plain = true;
            return Ok(());
        };
        match attr {
            b"metacopy" => self.metacopy = true,
            b"whiteout" => self.whiteout = true,
            b"impure" => self.impure = true,
            b"opaque" | b"redirect" | b"origin" | b"nlink" => {
                let Some(v) = xattr::get(spot, name)? else {
                    return Ok(());
                };
                match attr {
                    b"opaque" if v == b"y" => self.opaque = Opaque::Yes,
                    b"opaque" if v == b"x" && self.opaque == Opaque::No => {
                        self.opaque = Opaque::MayHoldXattrWhiteouts;
                    }
                    b"redirect" => {
                        self.redirect = Redirect::parse(&v);
                        self.bad_redirect = self.redirect.is_none();
                    }
                    b"origin" => self.origin = Origin::parse(&v).or(self.origin.take()),
                    b"nlink" => self.nlink = NlinkMark::parse(&v).or(self.nlink),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Where marks stand.
const PRIVATE_PREFIXES: [&[u8]; 3] = [
    b"trusted.overlay.",
    b"user.overlay.",
    b"user.fuseoverlayfs.",
];

/// The part behind one of the private prefixes.
pub fn private_suffix(name: &[u8]) -> Option<&[u8]> {
    PRIVATE_PREFIXES.iter().find_map(|p| name.strip_prefix(*p))
}

/// `overlay.origin`: the file handle of the lower object a copy was made from.
///
/// struct ovl_fb (fs/overlayfs/overlayfs.h): version 0, magic 0xfb, length of
/// the whole, flags, handle type, 16 bytes of file system UUID, handle bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// UUID of the origin's file system.
    pub uuid: [u8; 16],
    /// Its handle.
    pub handle: Handle,
}

const OVL_FH_MAGIC: u8 = 0xfb;
const OVL_FB_HEAD: usize = 21;
/// OVL_FH_FLAG_BIG_ENDIAN
const FLAG_BIG_ENDIAN: u8 = 1;
/// OVL_FH_FLAG_PATH_UPPER
const FLAG_PATH_UPPER: u8 = 4;

impl Origin {
    /// Parses the xattr's value; `None` for another version, byte order or length.
    pub fn parse(v: &[u8]) -> Option<Origin> {
        let head = v.get(..OVL_FB_HEAD)?;
        let &[version, magic, len, flags, kind, ..] = head else {
            return None;
        };
        let native = (flags & FLAG_BIG_ENDIAN != 0) == cfg!(target_endian = "big");
        if version != 0 || magic != OVL_FH_MAGIC || usize::from(len) != v.len() || !native {
            return None;
        }
        let uuid = v.get(5..21)?.try_into().ok()?;
        Some(Origin {
            uuid,
            handle: Handle {
                kind: i32::from(kind),
                bytes: v.get(OVL_FB_HEAD..)?.to_vec(),
            },
        })
    }

    /// The xattr's value, which in hex is also the name in `work/index`;
    /// `None` where the handle does not fit the format.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let len = u8::try_from(OVL_FB_HEAD + self.handle.bytes.len()).ok()?;
        let kind = u8::try_from(self.handle.kind).ok()?;
        let flags = if cfg!(target_endian = "big") {
            FLAG_BIG_ENDIAN
        } else {
            0
        };
        let mut v = vec![0, OVL_FH_MAGIC, len, flags, kind];
        v.extend_from_slice(&self.uuid);
        v.extend_from_slice(&self.handle.bytes);
        Some(v)
    }

    /// The value of `overlay.upper` on an index: the handle of the upper's root
    /// (OVL_FH_FLAG_PATH_UPPER, ovl_verify_set_fh()).
    pub fn encode_upper(&self) -> Option<Vec<u8>> {
        let mut v = self.encode()?;
        *v.get_mut(3)? |= FLAG_PATH_UPPER;
        Some(v)
    }

    /// The inode number inside the handle, for the handle types whose layout is
    /// fixed (include/linux/exportfs.h); `None` for others.
    pub fn ino(&self) -> Option<u64> {
        let b = &self.handle.bytes;
        let u32_at = |i: usize| Some(u32::from_ne_bytes(b.get(i..i + 4)?.try_into().ok()?));
        let u64_at = |i: usize| Some(u64::from_ne_bytes(b.get(i..i + 8)?.try_into().ok()?));
        match self.handle.kind {
            // FILEID_INO32_GEN of ext4 and others: ino, generation. tmpfs uses
            // the same type for generation, ino low, ino high.
            1 if b.len() == 8 => u32_at(0).map(u64::from),
            1 if b.len() == 12 => Some(u64::from(u32_at(4)?) | u64::from(u32_at(8)?) << 32),
            // FILEID_BTRFS_WITHOUT_PARENT: objectid first.
            0x4d => u64_at(0),
            // XFS: FILEID_INO64_GEN.
            0x81 => u64_at(0),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_that_could_escape_are_refused() {
        for bad in [
            &b""[..],
            b"/",
            b"a/b",
            b"..",
            b"/a/../b",
            b"/a//b",
            b"/a/\0",
            b".",
        ] {
            assert_eq!(Redirect::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Redirect::parse(b"x"), Some(Redirect::Name(b"x".to_vec())));
        assert_eq!(
            Redirect::parse(b"/a/b"),
            Some(Redirect::Path(vec![b"a".to_vec(), b"b".to_vec()]))
        );
    }

    #[test]
    fn origins_survive_a_round_trip() {
        let o = Origin {
            uuid: [7; 16],
            handle: Handle {
                kind: 1,
                bytes: vec![1, 2, 3, 4, 5, 6, 7, 8],
            },
        };
        let v = o.encode().unwrap();
        assert_eq!(Origin::parse(&v), Some(o.clone()));
        assert_eq!(o.ino(), Some(u64::from(u32::from_ne_bytes([1, 2, 3, 4]))));
        assert_eq!(Origin::parse(&v[..10]), None);
    }

    #[test]
    fn nlink_marks_survive_a_round_trip() {
        for m in [
            NlinkMark::Upper(-3),
            NlinkMark::Lower(2),
            NlinkMark::Upper(0),
        ] {
            assert_eq!(NlinkMark::parse(&m.encode()), Some(m));
        }
        assert_eq!(NlinkMark::parse(b"Q+1"), None);
    }

    #[test]
    fn a_name_of_252_bytes_has_no_dot_wh() {
        assert!(dot_wh_name(&[b'a'; 252]).is_none());
        assert_eq!(dot_wh_name(&[b'a'; 251]).map(|n| n.len()), Some(255));
    }
}
