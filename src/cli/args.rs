//! The words of our own commands. The doc comments are the help text.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A userspace overlay filesystem: layers of directories shown as one tree
#[derive(Debug, Parser)]
#[command(name = "acetate", version, about, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Acetate {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount layers as one tree
    #[command(after_help = MOUNT_HELP)]
    Mount(MountArgs),
    /// Unmount, with everything written to disk
    #[command(visible_alias = "umount")]
    Unmount(UnmountArgs),
    /// Be a drop-in for fuse-overlayfs: the same arguments, the same exit codes
    #[command(name = "fuse-overlayfs", disable_help_flag = true)]
    FuseOverlayfs {
        /// As fuse-overlayfs takes them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// `acetate mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// Options, separated by commas: lowerdir=A:B:C and so on, see below
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// A lower layer (read only); may be repeated, uppermost first
    #[arg(long, value_name = "DIR")]
    pub lower: Vec<PathBuf>,
    /// The upper layer, which takes all changes
    #[arg(long, value_name = "DIR")]
    pub upper: Option<PathBuf>,
    /// The work directory: empty, on the same file system as the upper layer
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Stay in the foreground
    #[arg(short = 'f', long)]
    pub foreground: bool,
    /// Log every request to stderr; stays in the foreground
    #[arg(short = 'd', long)]
    pub debug: bool,
    /// Where to mount
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
}

/// `acetate unmount`.
#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// Take it out of sight at once; it ends when its last user does
    #[arg(short = 'l', long)]
    pub lazy: bool,
    /// What to unmount
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
}

/// Under `acetate --help`.
pub const EXAMPLES: &str = "\
Examples:
  A writable tree over two layers:
    acetate mount -o lowerdir=app:base,upperdir=changes,workdir=work merged
  The same, read only:
    acetate mount --lower app --lower base merged
  The end of it:
    acetate unmount merged
  For podman, in storage.conf:
    [storage.options.overlay]
    mount_program = \"/usr/local/bin/fuse-overlayfs\"    # a symlink to acetate

Exit codes: 0 done, 1 failed, 2 wrong command line, 3 not mounted, 4 in use,
32 the mount failed.";

/// The list of options, as a literal to build the help texts of.
macro_rules! option_list {
    () => {
        "\
Options for -o:
  lowerdir=A:B:C        layers to read, uppermost first; `\\:` for a colon in a
                        path, `::` before layers that only hold file data
  upperdir=U,workdir=W  where changes go; without them the mount is read only
  ro                    read only although there is an upper layer
  uidmapping=D:S:N[:…]  users D.. on disk are shown as S.., N of them
  gidmapping=D:S:N[:…]  the same for groups
  squash_to_root, squash_to_uid=N, squash_to_gid=N
                        every file is shown as belonging to this one
  xattr_permissions=1|2 owner, mode and type kept in an extended attribute:
                        1 security.fuseoverlayfs.override_stat,
                        2 user.containers.override_stat
  volatile, fsync=0     nothing is synced to disk
  timeout=SECONDS       how long the kernel may keep names and attributes
  threaded=0, max_threads=N
                        one event loop, or N
  writeback             the kernel collects writes
  noacl                 POSIX ACLs are neither enforced nor shown
  static_nlink          every directory has one link
  xino=off|auto|on, ino32_t
                        how inode numbers are made
  redirect_dir=on|off|follow|nofollow
                        how directories of lower layers are renamed
  metacopy=on           chown and chmod copy no data
  index=off             hard links of lower layers may come apart
  userxattr             marks in user.overlay.* even where trusted.* works
  xattr_search=off      read-only mounts: never say that extended attributes are
                        not supported, even where no file has any
  submounts=follow      show what is mounted below a lower layer's root
  fd_cache=N, dir_cache=N
                        how many descriptors and directory entries are kept
  nosuid nodev noexec noatime and mount(8)'s other words"
    };
}

/// For `fuse-overlayfs --help`.
pub const OPTION_HELP: &str = option_list!();

/// Under `acetate mount --help`.
const MOUNT_HELP: &str = concat!(
    option_list!(),
    "

Example:
  mkdir -p changes work merged
  acetate mount -o lowerdir=app:base,upperdir=changes,workdir=work merged"
);
