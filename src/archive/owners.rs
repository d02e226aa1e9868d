//! How a layer's tree keeps owners, modes, types and xattrs, both ways.

use crate::idmap::IdMap;
use crate::layer::acl;
use crate::layer::disguise::{DISGUISED, USER_OVERRIDE};

/// Numbers of an archive and numbers on disk: an archive's are the *view* of
/// [`IdMap`], the tree's the *disk*.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// Of users.
    pub users: IdMap,
    /// Of groups.
    pub groups: IdMap,
}

impl Ids {
    /// The owner on disk; `None` where the archive's has no place in the map.
    pub(super) fn to_disk(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        Some((self.users.to_disk(uid)?, self.groups.to_disk(gid)?))
    }

    /// The owner in an archive; `None` where the one on disk has no place in the map.
    pub(super) fn to_archive(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let (u, g) = (self.users.to_view(uid), self.groups.to_view(gid));
        // An id without a place is shown as the overflow id, which leads back to
        // another one.
        (self.to_disk(u, g) == Some((uid, gid))).then_some((u, g))
    }
}

/// Where a tree keeps what its files cannot be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owners {
    /// Files have their owners, modes and types: for root, also that of a user
    /// namespace, whose numbers [`Ids`] gives. What cannot be made even so (a device
    /// in a user namespace) is an empty file with a side record.
    Real(Ids),
    /// Files belong to whoever unpacks. Owner, mode and type stand in
    /// `user.containers.override_stat`; xattrs outside of `user.` have their names
    /// behind `user.containers.override_`; symlinks of others than 0:0 have side
    /// records, and so has everything where the file system keeps no `user.` xattrs.
    Recorded,
}

/// The name under which an xattr that only root may set is kept.
pub(super) fn disguised_xattr(name: &[u8]) -> Vec<u8> {
    [DISGUISED, name].concat()
}

/// The xattr that a disguised name stands for.
pub(super) fn undisguised_xattr(disk: &[u8]) -> Option<&[u8]> {
    match disk == USER_OVERRIDE {
        true => None,
        false => disk.strip_prefix(DISGUISED),
    }
}

/// Whether an xattr is a layer's, on the way in and out: what users and containers set.
/// Labels and signatures of the host's security modules are no part of a layer, and
/// other `system.` names and file systems' own properties belong to their file system.
pub fn is_layers(name: &[u8]) -> bool {
    const HOSTS: [&[u8]; 5] = [
        b"security.selinux",
        b"security.ima",
        b"security.evm",
        b"security.apparmor",
        b"security.SMACK64",
    ];
    let known = [&b"user."[..], b"trusted.", b"security."];
    let hosts = HOSTS.iter().any(|h| name.starts_with(h));
    let acl = name == acl::ACCESS || name == acl::DEFAULT;
    acl || (!hosts && known.iter().any(|k| name.starts_with(k)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idmap::IdExtent;

    #[test]
    fn ids_without_a_place_are_told_and_not_shown_as_nobody() {
        let map = IdMap::new(
            vec![IdExtent {
                disk: 100_000,
                view: 0,
                count: 65_536,
            }],
            None,
        );
        let ids = Ids {
            users: map.clone(),
            groups: map,
        };
        assert_eq!(ids.to_disk(0, 5), Some((100_000, 100_005)));
        assert_eq!(ids.to_disk(70_000, 0), None);
        assert_eq!(ids.to_archive(100_000, 165_534), Some((0, 65_534)));
        assert_eq!(ids.to_archive(99_999, 100_000), None);
        assert_eq!(Ids::default().to_archive(7, 65_534), Some((7, 65_534)));
    }

    #[test]
    fn disguised_names_come_back() {
        let disk = disguised_xattr(b"security.capability");
        assert_eq!(undisguised_xattr(&disk), Some(&b"security.capability"[..]));
        assert_eq!(undisguised_xattr(USER_OVERRIDE), None);
        assert_eq!(undisguised_xattr(b"user.x"), None);
    }
}
