//! What an entry's name means: the object's place in the layer, or a whiteout.
//!
//! Names are cleaned as every tool does (`/` in front, `.` and empty components are
//! dropped); `..` is refused wherever it stands. Whiteouts are those of the OCI
//! image-spec (layer.md, "Whiteouts"): `.wh.NAME`, `.wh..wh..opq`; other names that
//! begin with `.wh..wh.` are AUFS's own and are passed over.

use crate::layer::mark::{DOT_WH, OPAQUE_FILES};
use crate::sys::name::NAME_MAX;

use super::limits::NAME_BYTES_MAX;

/// AUFS's own names.
const AUFS: &[u8] = b".wh..wh.";

/// Where an entry goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The layer's root itself.
    Root,
    /// An object.
    Object {
        /// The directories above it, from the root.
        dirs: Vec<&'a [u8]>,
        /// Its name.
        name: &'a [u8],
    },
    /// `name` of the layers below is deleted.
    Whiteout {
        /// The directories above it, from the root.
        dirs: Vec<&'a [u8]>,
        /// The name that is hidden.
        name: &'a [u8],
    },
    /// All that the layers below have in a directory is deleted.
    Opaque {
        /// The directory.
        dir: Vec<&'a [u8]>,
    },
    /// AUFS's own bookkeeping.
    Ignored,
}

/// Reads a name.
///
/// # Errors
/// Why it is refused.
pub fn classify(path: &[u8]) -> Result<Target<'_>, String> {
    if path.len() > NAME_BYTES_MAX {
        return Err(format!("its name has {} bytes", path.len()));
    }
    if path.contains(&0) {
        return Err("its name holds NUL".into());
    }
    let mut dirs: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its name leads out of the layer (..)".into()),
            // What a whiteout hides may have the longest name there is.
            part if part.strip_prefix(DOT_WH).unwrap_or(part).len() > NAME_MAX => {
                return Err(format!("a part of its name has {} bytes", part.len()));
            }
            part => dirs.push(part),
        }
    }
    let Some(name) = dirs.pop() else {
        return match path.is_empty() {
            true => Err("it has no name".into()),
            false => Ok(Target::Root),
        };
    };
    if dirs.iter().any(|d| d.starts_with(AUFS)) {
        return Ok(Target::Ignored);
    }
    if dirs.iter().any(|d| d.starts_with(DOT_WH)) {
        return Err("it lies in a whiteout".into());
    }
    let [opaque, _] = OPAQUE_FILES;
    if name == opaque {
        return Ok(Target::Opaque { dir: dirs });
    }
    if name.starts_with(AUFS) {
        return Ok(Target::Ignored);
    }
    let Some(hidden) = name.strip_prefix(DOT_WH) else {
        return Ok(Target::Object { dirs, name });
    };
    match hidden {
        b"" | b"." | b".." => Err("it is a whiteout of no name".into()),
        hidden => Ok(Target::Whiteout { dirs, name: hidden }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object<'a>(dirs: &[&'a [u8]], name: &'a [u8]) -> Target<'a> {
        Target::Object {
            dirs: dirs.to_vec(),
            name,
        }
    }

    #[test]
    fn names_are_cleaned_and_never_lead_out() {
        assert_eq!(classify(b"a"), Ok(object(&[], b"a")));
        assert_eq!(classify(b"/./a//b/"), Ok(object(&[b"a"], b"b")));
        assert_eq!(classify(b"a\n/\xff"), Ok(object(&[b"a\n"], b"\xff")));
        for root in [&b"."[..], b"./", b"/", b"//."] {
            assert_eq!(classify(root), Ok(Target::Root));
        }
        for bad in [
            &b""[..],
            b"..",
            b"../a",
            b"a/../b",
            b"a/..",
            b"/..",
            b"a\0",
            &[b'a'; 256],
        ] {
            assert!(classify(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn whiteouts_are_told_from_aufs_names_and_tricks() {
        let whiteout = |dirs: &[&'static [u8]], name: &'static [u8]| {
            Ok(Target::Whiteout {
                dirs: dirs.to_vec(),
                name,
            })
        };
        assert_eq!(classify(b"d/.wh.a"), whiteout(&[b"d"], b"a"));
        assert_eq!(classify(b".wh..opq"), whiteout(&[], b".opq"));
        assert_eq!(
            classify(b"d/.wh..wh..opq"),
            Ok(Target::Opaque { dir: vec![b"d"] })
        );
        for aufs in [&b".wh..wh.plnk"[..], b".wh..wh.plnk/1.2", b"d/.wh..wh.aufs"] {
            assert_eq!(classify(aufs), Ok(Target::Ignored));
        }
        for bad in [&b".wh."[..], b".wh..", b".wh...", b"d/.wh...", b".wh.a/b"] {
            assert!(classify(bad).is_err(), "{bad:?}");
        }
    }
}
