//! Names that a mount must hide or escape.
//!
//! Private xattrs never show. What a user of the mount sets under such a name
//! (an overlay inside the overlay) is stored escaped, as the kernel does since
//! 6.7: `trusted.overlay.X` inside is `trusted.overlay.overlay.X` on disk
//! (Documentation/filesystems/overlayfs.rst, "Nested overlayfs mounts").

use std::borrow::Cow;

use super::disguise;

const ESCAPED: [(&[u8], &[u8]); 2] = [
    (b"trusted.overlay.", b"trusted.overlay.overlay."),
    (b"user.overlay.", b"user.overlay.overlay."),
];

/// The name on disk for a name inside; `None` where nothing may be stored under it.
pub fn to_disk(inside: &[u8]) -> Option<Cow<'_, [u8]>> {
    for (prefix, escaped) in ESCAPED {
        if let Some(rest) = inside.strip_prefix(prefix) {
            return Some(Cow::Owned([escaped, rest].concat()));
        }
    }
    if hidden(inside) {
        None
    } else {
        Some(Cow::Borrowed(inside))
    }
}

/// The name inside for a name on disk; `None` where it is private.
pub fn to_view(disk: &[u8]) -> Option<Cow<'_, [u8]>> {
    for (prefix, escaped) in ESCAPED {
        if let Some(rest) = disk.strip_prefix(escaped) {
            return Some(Cow::Owned([prefix, rest].concat()));
        }
        if disk.starts_with(prefix) {
            return None;
        }
    }
    if hidden(disk) {
        None
    } else {
        Some(Cow::Borrowed(disk))
    }
}

fn hidden(name: &[u8]) -> bool {
    name.starts_with(b"user.fuseoverlayfs.")
        || name.starts_with(b"security.fuseoverlayfs.")
        || name.starts_with(b"user.containers.override_")
        || disguise::is_override(name).is_some()
}

/// Whether an xattr of a lower is taken along by copy-up: everything but the
/// private ones; escaped names are a user's.
pub fn copied_up(disk: &[u8]) -> bool {
    to_view(disk).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_overlay_names_are_escaped_and_come_back() {
        for n in [
            &b"trusted.overlay.opaque"[..],
            b"user.overlay.redirect",
            b"user.x",
        ] {
            let disk = to_disk(n).unwrap();
            assert_eq!(to_view(&disk).as_deref(), Some(n));
        }
    }

    #[test]
    fn private_names_never_show() {
        for n in [
            &b"trusted.overlay.opaque"[..],
            b"user.overlay.origin",
            b"user.fuseoverlayfs.opaque",
            b"user.containers.override_stat",
            b"security.fuseoverlayfs.override_stat",
        ] {
            assert_eq!(to_view(n), None);
        }
    }
}
