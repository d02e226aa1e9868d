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
