//! Private ioctls on the mount's root directory.
//!
//! A mount is spoken to through itself: that works from any namespace and needs
//! no socket. Only root and the user whose process serves the mount may; an older
//! one answers ENOTTY. Version 3:
//!
//! | number | since | meaning |
//! |---|---|---|
//! | `_IOR('A', 1, [u8; 8192])` | 1 | request counts, `name count` lines, NUL padded |
//! | `_IOWR('A', 2, [u8; 16])` | 2 | hold changes: version (u32, 1), lease in ms (u32), 8 bytes of zeros; answers with the same and the token in the last 8 |
//! | `_IOW('A', 3, [u8; 16])` | 2 | renew a hold: version, lease, token (u64) |
//! | `_IOW('A', 4, [u8; 16])` | 2 | release a hold: version, 0, token; ESTALE where it had ended before |
//! | `_IOWR('A', 5, [u8; 8192])` | 3 | figures, of any directory of the mount: version (u32, 1), number of the first line (u32), zeros; answers with lines of text, NUL padded: [`super::figures`] |
//!
//! Numbers are in the machine's byte order. What a hold is: [`super::gate`].

/// `_IOR('A', 1, [u8; 8192])`.
pub const STATS: u32 = (2 << 30) | ((STATS_LEN as u32) << 16) | (0x41 << 8) | 1;
/// Size of the answer to [`STATS`].
pub const STATS_LEN: usize = 8192;

/// Size of a [`Lease`].
pub const LEASE_LEN: usize = 16;
/// `_IOWR('A', 2, [u8; 16])`.
pub const HOLD: u32 = (3 << 30) | ((LEASE_LEN as u32) << 16) | (0x41 << 8) | 2;
/// `_IOW('A', 3, [u8; 16])`.
pub const RENEW: u32 = (1 << 30) | ((LEASE_LEN as u32) << 16) | (0x41 << 8) | 3;
/// `_IOW('A', 4, [u8; 16])`.
pub const RELEASE: u32 = (1 << 30) | ((LEASE_LEN as u32) << 16) | (0x41 << 8) | 4;

/// Size of a part of [`super::figures`].
pub const FIGURES_LEN: usize = 8192;
/// `_IOWR('A', 5, [u8; 8192])`.
pub const FIGURES: u32 = (3 << 30) | ((FIGURES_LEN as u32) << 16) | (0x41 << 8) | 5;

/// Form of [`Lease`].
const VERSION: u32 = 1;

/// What the ioctls about holds carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How long the hold lasts without being renewed.
    pub milliseconds: u32,
    /// Which hold.
    pub token: u64,
}

impl Lease {
    /// As it is sent.
    pub fn encode(self) -> [u8; LEASE_LEN] {
        let mut bytes = [0; LEASE_LEN];
        let (head, token) = bytes.split_at_mut(8);
        let (version, milliseconds) = head.split_at_mut(4);
        version.copy_from_slice(&VERSION.to_ne_bytes());
        milliseconds.copy_from_slice(&self.milliseconds.to_ne_bytes());
        token.copy_from_slice(&self.token.to_ne_bytes());
        bytes
    }

    /// As it was sent; `None` for another version or length.
    pub fn decode(bytes: &[u8]) -> Option<Lease> {
        let bytes: &[u8; LEASE_LEN] = bytes.try_into().ok()?;
        let (head, token) = bytes.split_at(8);
        let (version, milliseconds) = head.split_at(4);
        if u32::from_ne_bytes(version.try_into().ok()?) != VERSION {
            return None;
        }
        Some(Lease {
            milliseconds: u32::from_ne_bytes(milliseconds.try_into().ok()?),
            token: u64::from_ne_bytes(token.try_into().ok()?),
        })
    }
}

/// FS_IOC_GETFLAGS. (The kernel turns a 32-bit caller's number into this one.)
pub const GETFLAGS: [u32; 1] = [0x8008_6601];
/// FS_APPEND_FL and FS_IMMUTABLE_FL: root's alone to change.
pub const ROOT_FLAGS: u32 = 0x20 | 0x10;
/// FS_IOC_FSGETXATTR: the kernel asks it before it sets any flag.
pub const FSGETXATTR: u32 = 0x801c_581f;
/// FS_IOC_FSSETXATTR.
pub const FSSETXATTR: u32 = 0x401c_5820;
/// FS_IOC_SETFLAGS.
pub const SETFLAGS: [u32; 1] = [0x4008_6602];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_survives_its_way_and_another_version_is_refused() {
        let lease = Lease {
            milliseconds: 2_000,
            token: u64::MAX - 1,
        };
        let mut bytes = lease.encode();
        assert_eq!(Lease::decode(&bytes), Some(lease));
        assert_eq!(Lease::decode(&bytes[..15]), None);
        bytes[0] ^= 0xff;
        bytes[3] ^= 0xff;
        assert_eq!(Lease::decode(&bytes), None);
    }
}
