//! What an archive may ask of us, and why no more: input is hostile (P18).
//!
//! Memory stays bounded whatever an archive holds: these numbers, a few buffers of
//! [`CHUNK`] and the side records of what cannot carry an xattr are all that is kept.

/// Bytes of one tar block (POSIX pax, "ustar Interchange Format").
pub const BLOCK: usize = 512;

/// Bytes that travel between threads at once: large enough that a hand-over costs
/// nothing beside the work on it, small enough to stay in a processor's cache.
pub const CHUNK: usize = 256 << 10;

/// How many chunks may wait between two threads: they even out a slow disk's pauses.
pub const CHUNKS_WAITING: usize = 8;

/// Longest PAX extended header. It must hold the xattrs of one object (the kernel's
/// list of names is 64 KiB, each value up to 64 KiB; images use a few hundred bytes)
/// or a sparse map of [`SPARSE_MAP_MAX`]. It is held in memory.
pub const PAX_MAX: u64 = 8 << 20;

/// Longest sparse map in any of its forms. GNU tar writes about 20 bytes a hole:
/// 400,000 holes in one file are beyond any disk image (Go allows 1 MiB, which
/// real images exceed; without any limit this was CVE-2025-58183).
pub const SPARSE_MAP_MAX: u64 = 8 << 20;

/// Most data extents of one sparse file: 16 bytes each in memory.
pub const SPARSE_EXTENTS_MAX: usize = 400_000;

/// Longest name or link target. Trees deeper than PATH_MAX exist (each step is one
/// component for us), but every entry's name is held in memory.
pub const NAME_BYTES_MAX: usize = 64 << 10;

/// Longest symlink target the kernel takes (PATH_MAX with its NUL).
pub const SYMLINK_MAX: usize = 4095;

/// Most bytes of xattr names of one object, each with a NUL: XATTR_LIST_MAX of
/// include/uapi/linux/limits.h. An object with more cannot be listed again.
pub const XATTR_NAMES_MAX: usize = 64 << 10;

/// Longest value of one xattr: XATTR_SIZE_MAX of the same header.
pub const XATTR_VALUE_MAX: usize = 64 << 10;

/// Longest name of one xattr: XATTR_NAME_MAX of the same header.
pub const XATTR_NAME_MAX: usize = 255;

/// Most entries of one archive unless the caller asks for other limits: more than
/// any file system of a container has inodes for, so that an endless stream ends.
pub const ENTRIES_MAX: u64 = 1 << 28;

/// Most symlinks followed to find one entry's parent: MAXSYMLINKS of the kernel.
pub const SYMLINKS_FOLLOWED_MAX: usize = 40;

/// Most directories of one path that are held open at once.
pub const OPEN_DIRS_MAX: usize = 64;

/// Dictionary of an xz stream, in KiB, that is the most we allocate: `xz -9` needs
/// 64 MiB and its decoder a little more. A stream may claim 4 GiB.
pub const XZ_MEMORY_KIB: u32 = 80 << 10;

/// Window of a zstd stream, as a power of two: 128 MiB is what `zstd -d` grants
/// without being asked (ZSTD_WINDOWLOG_LIMIT_DEFAULT, zstd.h).
pub const ZSTD_WINDOW_LOG: u32 = 27;

/// Most directories that are remembered because whiteouts alone brought them: an
/// archive with more is no layer that any tool writes, and each is a path in memory.
pub const WHITEOUT_DIRS_MAX: usize = 1 << 16;

/// A run of zeros of this length becomes a hole: smaller ones cost more in the file
/// system's map than they save.
pub const HOLE: usize = 32 << 10;
