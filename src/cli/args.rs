//! The words of our own commands. The doc comments are the help text.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};

use super::help;
use super::job_args::{RunArgs, TryArgs};
use super::store_args::{FsckArgs, InitArgs, LayerCommand, MaterializeArgs, WsCommand};

/// A userspace overlay filesystem: layers of directories shown as one tree
#[derive(Debug, Parser)]
#[command(name = "acetate", version, about, after_help = help::program(), disable_help_subcommand = true)]
pub struct Acetate {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub global: Global,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What every command of the store takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The store; else $ACETATE_ROOT, ./.acetate if it is yours alone to write,
    /// ~/.local/share/acetate, for root /var/lib/acetate
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,
    /// Print names only, and no remarks
    #[arg(short = 'q', long, global = true)]
    pub quiet: bool,
    /// Say more on stderr
    #[arg(short = 'v', long, global = true)]
    pub verbose: bool,
    /// How to print it
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub format: Format,
}

impl Acetate {
    /// Whether this is the name of a command, or another name of one.
    pub fn has_command(word: &OsStr) -> bool {
        <Self as CommandFactory>::command()
            .find_subcommand(word)
            .is_some()
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount layers as one tree
    #[command(after_help = help::mount())]
    Mount(MountArgs),
    /// Unmount, with everything written to disk
    #[command(visible_alias = "umount")]
    Unmount(UnmountArgs),
    /// Say what a mount has served, how fast, and how its caches do
    #[command(after_help = help::STATS)]
    Stats(StatsArgs),
    /// Make a store
    Init(InitArgs),
    /// Layers: immutable trees, each a set of changes to those below it
    #[command(subcommand, after_help = help::LAYER, disable_help_subcommand = true)]
    Layer(LayerCommand),
    /// Workspaces: writable views of layers
    #[command(
        subcommand,
        visible_alias = "workspace",
        after_help = help::WS,
        disable_help_subcommand = true
    )]
    Ws(WsCommand),
    /// Run a command with a workspace as its root directory
    #[command(after_help = help::run())]
    Run(Box<RunArgs>),
    /// Run a command over a view of a directory, which stays as it is
    #[command(after_help = help::attempt())]
    Try(TryArgs),
    /// Show layers as one read-only tree, mounted or copied
    Materialize(MaterializeArgs),
    /// Remove from the store what nobody needs
    Gc,
    /// Check the store
    Fsck(FsckArgs),
    /// Say what this host allows, and what to do about what it does not
    #[command(after_help = help::DOCTOR)]
    Doctor(DoctorArgs),
    /// Be a drop-in for fuse-overlayfs: the same arguments, the same exit codes
    #[command(name = "fuse-overlayfs", disable_help_flag = true)]
    FuseOverlayfs {
        /// As fuse-overlayfs takes them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Print the completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the names that could stand for the last word (for completions)
    #[command(name = "__complete", hide = true)]
    Complete {
        /// What was typed behind the program's name
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Write the man pages into a directory (for packages)
    #[command(hide = true)]
    Man {
        /// Where; `man1` and `man8` are made in it
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// `acetate mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// Options, separated by commas: lowerdir=A:B:C and so on, see below
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// A lower layer (read only); may be repeated, uppermost first
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub lower: Vec<PathBuf>,
    /// What a store keeps beside the N-th lower, from 1: N=FILE (the store's mounts)
    #[arg(long, value_name = "N=FILE", hide = true)]
    pub side_records: Vec<OsString>,
    /// The upper layer, which takes all changes
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub upper: Option<PathBuf>,
    /// The work directory: empty, on the same file system as the upper layer
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub work: Option<PathBuf>,
    /// Do without what this kernel has: 4.18, or -NAME,-NAME (for tests, and to
    /// get around faults of a kernel)
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub kernel_features: Vec<OsString>,
    /// Stay in the foreground
    #[arg(short = 'f', long)]
    pub foreground: bool,
    /// Log every request to stderr; stays in the foreground
    #[arg(short = 'd', long)]
    pub debug: bool,
    /// Where to mount; or /dev/fd/N, a descriptor of /dev/fuse that the caller
    /// has mounted already
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,
}

/// `acetate doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// A directory that is to hold an upper layer: what can its file system?
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs: names and fields stay as they are
    Json,
    /// For Prometheus and its like; `acetate stats` alone
    Openmetrics,
}

/// `acetate stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// The mount point, or any path below it
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
    /// Again every so many seconds (1, if no number stands here), what happened since
    #[arg(
        short = 'w',
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = seconds
    )]
    pub watch: Option<Duration>,
}

/// A time to wait between two looks.
fn seconds(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(10);
    let time = text.parse().ok().map(Duration::try_from_secs_f64);
    match time {
        Some(Ok(time)) if time >= LEAST => Ok(time),
        _ => Err(
            "a number of seconds stands here, 0.01 or more; the mount point comes before it"
                .to_owned(),
        ),
    }
}

/// `acetate unmount`.
#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// Take it out of sight at once; it ends when its last user does
    #[arg(short = 'l', long)]
    pub lazy: bool,
    /// What to unmount
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,
}
