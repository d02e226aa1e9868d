//! What a mount is asked to be: plain values, already parsed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::idmap::IdExtent;
use crate::layer::records::SideRecords;

/// One lower layer as the user named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowerArg {
    /// Where the layer's tree stands.
    pub path: PathBuf,
    /// Given after `::`: never merged, only the data of metacopy files is found in it.
    pub data_only: bool,
    /// What the store keeps beside it; none for a directory of somebody else's.
    pub beside: Option<Arc<SideRecords>>,
}

/// `xattr_permissions=`: owner, mode and type kept in an xattr of a plain file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrPermissions {
    /// `=1`: `security.fuseoverlayfs.override_stat`.
    Security,
    /// `=2`: `user.containers.override_stat`.
    User,
}

/// When event loops look out for the next request before they sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PollRequests {
    /// While requests come quickly and a trial says that it pays.
    Auto,
    /// While requests come quickly.
    Always,
    /// Never. The default: on two CPUs what it gains where wake-ups are slow (GETATTR
    /// 45 to 20 µs) it loses where client and daemon share a CPU (9 to 20 µs), and
    /// creates and renames lose more than a twentieth.
    #[default]
    Never,
}

/// `follow_client=`: whether an event loop goes to the CPU that its client runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FollowClient {
    /// While one client asks in a burst, the machine has little else to do, nobody
    /// polls for requests, and the daemon may take back the low priority that it needs.
    #[default]
    Auto,
    /// The same, whether it may or not.
    InBursts,
    /// The same, whatever else the machine has to do: for tests.
    Always,
    /// Never.
    Never,
}

/// `redirect_dir=`: what a rename of a directory that has lower layers does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectDir {
    /// A redirect xattr where the kernel would read it (trusted.*), else the
    /// subtree is copied up first. Never EXDEV.
    #[default]
    Auto,
    /// A redirect xattr always.
    On,
    /// Redirects are followed, none is made: rename of such a directory is EXDEV.
    Follow,
    /// Redirects are neither followed nor made.
    NoFollow,
}

/// `xino=`: whether inode numbers of several filesystems are composed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Xino {
    /// Numbers are the layers' own where one filesystem holds them all.
    Off,
    /// Composed where it fits.
    #[default]
    Auto,
    /// Composed; a warning where it does not fit.
    On,
}

/// How durable the upper layer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// fsync(2) means fsync, copy-up is synced before it is published.
    #[default]
    Full,
    /// `volatile`, `fsync=0`: no sync at all, not even at the end.
    Volatile,
}

/// Everything the engine needs to know before it opens the layers.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lower layers, uppermost first.
    pub lowers: Vec<LowerArg>,
    /// The writable layer; `None` means a read-only mount.
    pub upper: Option<PathBuf>,
    /// The work directory, on the upper's filesystem.
    pub work: Option<PathBuf>,
    /// `uidmapping=`: disk id → shown id.
    pub uid_map: Vec<IdExtent>,
    /// `gidmapping=`: disk id → shown id.
    pub gid_map: Vec<IdExtent>,
    /// `squash_to_uid=`, or `squash_to_root` (0): every owner is shown as this.
    pub squash_uid: Option<u32>,
    /// `squash_to_gid=`, or `squash_to_root` (0).
    pub squash_gid: Option<u32>,
    /// `xattr_permissions=`.
    pub xattr_permissions: Option<XattrPermissions>,
    /// `static_nlink`: every directory has one link.
    pub static_nlink: bool,
    /// `noacl`: POSIX ACLs are neither enforced nor shown.
    pub no_acl: bool,
    /// `volatile`, `fsync=0`.
    pub durability: Durability,
    /// `timeout=` (seconds, fractions allowed): how long the kernel may keep
    /// names and attributes; `None` means for ever.
    pub timeout: Option<Duration>,
    /// `writeback`: the kernel collects writes.
    pub writeback: bool,
    /// `threaded=0` or `max_threads=N`: event loops; `None` lets us choose.
    pub threads: Option<usize>,
    /// `polling=`.
    pub polling: PollRequests,
    /// `follow_client=`.
    pub follow_client: FollowClient,
    /// `xino=`.
    pub xino: Xino,
    /// `ino32_t`: every inode number fits 32 bits.
    pub ino32: bool,
    /// `redirect_dir=`.
    pub redirect_dir: RedirectDir,
    /// `metacopy=on`: chown, chmod and such copy no data.
    pub metacopy: bool,
    /// `index=off` switches the hard-link index off; `None` means on where it works.
    pub index: Option<bool>,
    /// `userxattr`: `user.overlay.*` even where `trusted.overlay.*` would work.
    pub userxattr: bool,
    /// `ro`: read-only although an upper is given.
    pub read_only: bool,
    /// `submounts=follow`: mounts below a lower's root are shown; default: their
    /// mount points are empty directories.
    pub follow_submounts: bool,
    /// `xattr_search=off`: a read-only mount never looks whether it has any
    /// xattrs at all.
    pub no_xattr_search: bool,
    /// `push_ahead=on`: a read-only mount hands the kernel the files that a client
    /// is likely to read next. Off by default: see `fuse::ahead`.
    pub push_ahead: bool,
    /// `passthrough=on`: the kernel reads and writes files by itself where it can. Off
    /// by default: see `fuse::passthrough`.
    pub passthrough: bool,
    /// `fd_cache=N`: descriptors the engine may keep open; `None`: from RLIMIT_NOFILE.
    pub fd_cache: Option<usize>,
    /// `dir_cache=N`: entries of merged listings kept; `None`: 100,000.
    pub dir_cache: Option<usize>,
}
