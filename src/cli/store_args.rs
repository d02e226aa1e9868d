//! The words of the store's commands. The doc comments are the help text.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::help;

/// `acetate init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where; without it the place where the store is looked for
    #[arg(value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub path: Option<PathBuf>,
}

/// `acetate layer …`.
#[derive(Debug, Subcommand)]
pub enum LayerCommand {
    /// Make a layer: empty, or a copy of a directory
    Create(CreateArgs),
    /// List layers
    List,
    /// Remove layers that nothing stands on
    #[command(visible_alias = "remove")]
    Rm(NamesArgs),
    /// Print where a layer's tree is, and nothing else
    Path(NameArgs),
    /// Say all that is known of a layer
    Info(NameArgs),
    /// Make a workspace's changes a layer
    Commit(CommitArgs),
    /// Make a layer of an archive: tar, plain or compressed by gzip, zstd, xz, bzip2
    Import(ImportArgs),
    /// Write a layer's archive: the same layer, the same bytes
    Export(ExportArgs),
    /// List what a layer, upon those below it, shows at a path
    Ls(LsArgs),
    /// Print a file of a layer
    Cat(CatArgs),
    /// Say how much room layers take up
    Du(SomeArgs),
    /// Compute the digests of layers anew: all where none is named
    Verify(SomeArgs),
    /// Say what a layer changes, or how two differ
    Diff(LayerDiffArgs),
}

/// One layer or workspace.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Its name, or enough of a layer's digest
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Several of them.
#[derive(Debug, Args)]
pub struct NamesArgs {
    /// Their names
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// Any number of them.
#[derive(Debug, Args)]
pub struct SomeArgs {
    /// Their names
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// What every new layer may be given.
#[derive(Debug, Args)]
pub struct NewLayerArgs {
    /// The layer that it stands on
    #[arg(long, value_name = "LAYER")]
    pub parent: Option<String>,
    /// A word of your own for it; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
}

/// `acetate layer create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name: letters, digits, `.`, `_` and `-`
    #[arg(value_name = "NAME")]
    pub name: String,
    /// A directory to copy; without it the layer is empty
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub new: NewLayerArgs,
}

/// `acetate layer import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// An archive, a directory, or - for stdin
    #[arg(value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    pub source: PathBuf,
    /// The layer's name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The digest that the archive must have, compressed as it is or not
    #[arg(long, value_name = "sha256:DIGITS")]
    pub digest: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub new: NewLayerArgs,
}

/// `acetate layer export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The layer
    #[arg(value_name = "NAME")]
    pub name: String,
    /// A file, or - for stdout
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Compress it
    #[arg(long, conflicts_with = "zstd")]
    pub gzip: bool,
    /// Compress it
    #[arg(long)]
    pub zstd: bool,
}

/// `acetate layer commit`.
#[derive(Debug, Args)]
pub struct CommitArgs {
    /// The workspace, mounted or not
    #[arg(value_name = "WORKSPACE")]
    pub workspace: String,
    /// The new layer's name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// One layer with everything that the workspace shows, standing on nothing
    #[arg(long)]
    pub squash: bool,
    /// A word of your own for it; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
}

/// `acetate layer ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// The layer
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What to list
    #[arg(value_name = "PATH", default_value = "/")]
    pub path: PathBuf,
}

/// `acetate layer cat`.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// The layer
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The file
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

/// `acetate layer diff`.
#[derive(Debug, Args)]
pub struct LayerDiffArgs {
    /// A layer: without a second one, what it changes in those below it
    #[arg(value_name = "A")]
    pub first: String,
    /// A second one: what is other in it
    #[arg(value_name = "B")]
    pub second: Option<String>,
}

/// Layers for a view, and where it is mounted.
#[derive(Debug, Args)]
pub struct StackArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub view: ViewArgs,
    /// Where to mount it; without it in a folder of the store's
    #[arg(short = 'm', long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub mountpoint: Option<PathBuf>,
}

/// Layers for a view, and how it is mounted.
#[derive(Debug, Args)]
pub struct ViewArgs {
    /// A layer, uppermost first, or an absolute path: that directory in place; may
    /// be repeated
    #[arg(short = 'l', long = "layer", value_name = "LAYER")]
    pub layers: Vec<PathBuf>,
    /// A layer and all that it stands on; may be repeated
    #[arg(long = "chain", value_name = "LAYER")]
    pub chains: Vec<String>,
    /// Options of the mount, separated by commas, as for `acetate mount`
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// Users CONTAINER.. of the layers are shown as HOST.., SIZE of them
    #[arg(long, value_name = "CONTAINER:HOST:SIZE")]
    pub uidmap: Vec<String>,
    /// The same for groups
    #[arg(long, value_name = "CONTAINER:HOST:SIZE")]
    pub gidmap: Vec<String>,
}

/// `acetate ws …`.
#[derive(Debug, Subcommand)]
pub enum WsCommand {
    /// Make a workspace, a writable view of layers, and mount it
    Create(WsCreateArgs),
    /// List workspaces
    List,
    /// Say all that is known of a workspace
    Info(NameArgs),
    /// Print where a workspace is mounted, and nothing else
    Path(NameArgs),
    /// Print where a workspace's changes are, and nothing else
    Upper(NameArgs),
    /// Mount a workspace that is not
    Mount(WsMountArgs),
    /// Unmount a workspace
    #[command(visible_alias = "umount")]
    Unmount(WsUnmountArgs),
    /// Remove workspaces with their changes
    #[command(visible_alias = "remove")]
    Rm(WsRmArgs),
    /// Say what was changed in a workspace
    Diff(NameArgs),
    /// Bring the changes back to the directory that the workspace was made over
    #[command(after_help = help::APPLY)]
    Apply(WsApplyArgs),
    /// Throw a workspace's changes away
    Reset(NameArgs),
    /// Make a second workspace with the same layers and a copy of the changes
    Clone(WsCloneArgs),
}

/// `acetate ws create`.
#[derive(Debug, Args)]
pub struct WsCreateArgs {
    /// Its name: letters, digits, `.`, `_` and `-`
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub stack: StackArgs,
    /// Do not mount it yet
    #[arg(long, conflicts_with = "copy")]
    pub no_mount: bool,
    /// Make it a plain tree, for where nothing can be mounted; -m PATH is then a link
    /// to it
    #[arg(long)]
    pub copy: bool,
}

/// `acetate ws mount`.
#[derive(Debug, Args)]
pub struct WsMountArgs {
    /// The workspace
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where, from now on
    #[arg(short = 'm', long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub mountpoint: Option<PathBuf>,
}

/// `acetate ws unmount`.
#[derive(Debug, Args)]
pub struct WsUnmountArgs {
    /// The workspace
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Take it out of sight at once; it ends when its last user does
    #[arg(long)]
    pub lazy: bool,
}

/// `acetate ws rm`.
#[derive(Debug, Args)]
pub struct WsRmArgs {
    /// Their names
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Unmount them first
    #[arg(short = 'f', long)]
    pub force: bool,
}

/// `acetate ws apply`.
#[derive(Debug, Args)]
pub struct WsApplyArgs {
    /// The workspace, unmounted
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What to bring back, as `ws diff` shows it, with all below it; without it everything
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Also over what somebody else has changed in the meantime
    #[arg(long)]
    pub force: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `acetate ws clone`.
#[derive(Debug, Args)]
pub struct WsCloneArgs {
    /// The workspace, unmounted
    #[arg(value_name = "FROM")]
    pub from: String,
    /// The new one's name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where to mount it; without it in a folder of the store's
    #[arg(short = 'm', long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub mountpoint: Option<PathBuf>,
    /// Do not mount it yet
    #[arg(long)]
    pub no_mount: bool,
}

/// `acetate materialize`.
#[derive(Debug, Args)]
pub struct MaterializeArgs {
    /// The view's name
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub stack: StackArgs,
    /// Write a plain tree to the path given with -m instead of mounting
    #[arg(long)]
    pub copy: bool,
}

/// `acetate fsck`.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Mend what can be mended, put the rest aside
    #[arg(long)]
    pub repair: bool,
    /// Compute the digest of every layer too
    #[arg(long)]
    pub digests: bool,
}
