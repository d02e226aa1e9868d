//! Owner, mode and type kept in an xattr of a plain file (`xattr_permissions`,
//! `force_mask`): for users who may not chown, and file systems that refuse ids.
//!
//! Value: `UID:GID:MODE_OCTAL[:TYPE]`, TYPE one of `file dir symlink pipe socket
//! block-MAJ-MIN char-MAJ-MIN` (mount-program contract 2.3).

use crate::sys::{Kind, Stat};

/// `xattr_permissions=1`.
pub const SECURITY_OVERRIDE: &[u8] = b"security.fuseoverlayfs.override_stat";
/// `xattr_permissions=2`, and what containers/storage writes.
pub const USER_OVERRIDE: &[u8] = b"user.containers.override_stat";
/// The older name, still read.
pub const OLD_OVERRIDE: &[u8] = b"user.fuseoverlayfs.override_stat";

/// Prefix under which `security.X` is kept where the daemon may not set it
/// (`xattr_permissions=2`; contract 2.3).
pub const DISGUISED: &[u8] = b"user.containers.override_";
/// The same, of the names it is used for.
pub const SECURITY_DISGUISED: &[u8] = b"user.containers.override_security.";

/// The name itself where it is one of the override xattrs.
pub fn is_override(name: &[u8]) -> Option<&[u8]> {
    [SECURITY_OVERRIDE, USER_OVERRIDE, OLD_OVERRIDE]
        .contains(&name)
        .then_some(name)
}

/// What an override xattr says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disguise {
    /// Owner on disk, before id mapping.
    pub uid: u32,
    /// Group on disk.
    pub gid: u32,
    /// Permission bits, 0o7777.
    pub mode: u32,
    /// The real type; `None` where the file's own counts.
    pub kind: Option<Kind>,
    /// (major, minor) of a device.
    pub rdev: (u32, u32),
}

impl Disguise {
    /// Parses a value; `None` where it is malformed.
    pub fn parse(v: &[u8]) -> Option<Disguise> {
        let s = std::str::from_utf8(v).ok()?;
        let s = s.trim_end_matches('\0');
        let mut parts = s.splitn(4, ':');
        let uid = parts.next()?.parse().ok()?;
        let gid = parts.next()?.parse().ok()?;
        let mode = u32::from_str_radix(parts.next()?, 8).ok()? & 0o7777;
        let (kind, rdev) = match parts.next() {
            None | Some("") => (None, (0, 0)),
            Some(t) => parse_type(t)?,
        };
        Some(Disguise {
            uid,
            gid,
            mode,
            kind,
            rdev,
        })
    }

    /// The value to store.
    pub fn encode(&self) -> Vec<u8> {
        let mut s = format!("{}:{}:{:o}", self.uid, self.gid, self.mode & 0o7777);
        let (maj, min) = self.rdev;
        match self.kind {
            None => {}
            Some(Kind::File) => s.push_str(":file"),
            Some(Kind::Dir) => s.push_str(":dir"),
            Some(Kind::Symlink) => s.push_str(":symlink"),
            Some(Kind::Fifo) => s.push_str(":pipe"),
            Some(Kind::Socket) => s.push_str(":socket"),
            Some(Kind::Block) => s.push_str(&format!(":block-{maj}-{min}")),
            Some(Kind::Char) => s.push_str(&format!(":char-{maj}-{min}")),
        }
        s.into_bytes()
    }

    /// The stat of what the file stands for.
    pub fn apply(&self, s: &Stat) -> Stat {
        let mut out = *s;
        out.uid = self.uid;
        out.gid = self.gid;
        // A directory is one on disk too, and nothing else is.
        let is_dir = |k: &Kind| *k == Kind::Dir;
        let fits = |k: &Kind| is_dir(k) == is_dir(&s.kind());
        let kind = self.kind.filter(fits).unwrap_or_else(|| s.kind());
        out.mode = kind.mode_bits() | self.mode;
        if matches!(kind, Kind::Char | Kind::Block) {
            out.rdev = self.rdev;
        }
        out
    }

    /// What would be stored for a stat.
    pub fn of(s: &Stat) -> Disguise {
        Disguise {
            uid: s.uid,
            gid: s.gid,
            mode: s.mode & 0o7777,
            kind: Some(s.kind()),
            rdev: s.rdev,
        }
    }
}

fn parse_type(t: &str) -> Option<(Option<Kind>, (u32, u32))> {
    let mut w = t.split('-');
    let kind = match w.next()? {
        "file" => Kind::File,
        "dir" => Kind::Dir,
        "symlink" => Kind::Symlink,
        "pipe" => Kind::Fifo,
        "socket" => Kind::Socket,
        "block" => Kind::Block,
        "char" => Kind::Char,
        _ => return None,
    };
    let mut rdev = (0, 0);
    if matches!(kind, Kind::Block | Kind::Char) {
        rdev = (w.next()?.parse().ok()?, w.next()?.parse().ok()?);
    }
    Some((Some(kind), rdev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_contract_parse() {
        let d = Disguise::parse(b"0:0:0755:dir").unwrap();
        assert_eq!(
            (d.uid, d.gid, d.mode, d.kind),
            (0, 0, 0o755, Some(Kind::Dir))
        );
        let d = Disguise::parse(b"1:2:644").unwrap();
        assert_eq!(d.kind, None);
        let d = Disguise::parse(b"0:5:0620:char-5-1-extra").unwrap();
        assert_eq!((d.kind, d.rdev), (Some(Kind::Char), (5, 1)));
        for bad in [
            &b""[..],
            b"1",
            b"1:2",
            b"a:b:c",
            b"0:0:9",
            b"0:0:644:char",
            b"0:0:644:what",
        ] {
            assert_eq!(Disguise::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_value_survives_a_round_trip() {
        let d = Disguise::parse(b"7:8:4755:block-8-1").unwrap();
        assert_eq!(Disguise::parse(&d.encode()), Some(d));
    }
}
