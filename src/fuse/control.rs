//! Private ioctls on the mount's root directory.
//!
//! A mount is spoken to through itself: that works from any namespace and needs
//! no socket. Version 1:
//!
//! | number | meaning |
//! |---|---|
//! | `_IOR('A', 1, [u8; 8192])` | request counts, `name count` lines, NUL padded |

/// `_IOR('A', 1, [u8; 8192])`.
pub const STATS: u32 = (2 << 30) | ((STATS_LEN as u32) << 16) | (0x41 << 8) | 1;
/// Size of the answer to [`STATS`].
pub const STATS_LEN: usize = 8192;

/// FS_IOC_GETFLAGS, as 64-bit and 32-bit callers write it.
pub const GETFLAGS: [u32; 2] = [0x8008_6601, 0x8004_6601];
/// FS_IOC_FSGETXATTR: the kernel asks it before it sets any flag.
pub const FSGETXATTR: u32 = 0x801c_581f;
/// FS_IOC_FSSETXATTR.
pub const FSSETXATTR: u32 = 0x401c_5820;
/// FS_IOC_SETFLAGS.
pub const SETFLAGS: [u32; 2] = [0x4008_6602, 0x4004_6602];
