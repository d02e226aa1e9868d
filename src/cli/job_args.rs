//! The words of `run` and `try`. The doc comments are the help text.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::store_args::ViewArgs;

/// What both take.
#[derive(Debug, Args)]
pub struct CommandArgs {
    /// Set an environment variable for the command; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<OsString>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// `acetate run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub view: ViewArgs,
    /// A workspace that is there, mounted or not, instead of a new one
    #[arg(
        short = 'w',
        long,
        value_name = "WORKSPACE",
        required_unless_present_any = ["layers", "chains"],
        conflicts_with_all = ["layers", "chains", "options", "uidmap", "gidmap", "name"]
    )]
    pub workspace: Option<String>,
    /// The new workspace's name; without it one is found
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Make the new workspace a plain tree, for where nothing can be mounted
    #[arg(long, conflicts_with = "workspace")]
    pub copy: bool,
    /// Make the changes a layer of this name, if the command succeeds (exit code 0)
    #[arg(long, value_name = "NAME")]
    pub commit: Option<String>,
    /// Remove the workspace afterwards, with its changes
    #[arg(long)]
    pub rm: bool,
    /// Show a file or directory of the host at the same or another place of the
    /// tree; may be repeated
    #[arg(long, value_name = "SRC[:DST][:ro]", value_hint = ValueHint::AnyPath)]
    pub bind: Vec<PathBuf>,
    /// Where the command begins, in the tree
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub workdir: PathBuf,
    /// As whom; without privileges your own ids under other numbers, or subordinate ones
    #[arg(long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub job: CommandArgs,
}

/// `acetate try`.
#[derive(Debug, Args)]
pub struct TryArgs {
    /// The directory that is to stay as it is; the current one where none is named
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
    /// The new workspace's name; without it one is found
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Options of the mount, separated by commas, as for `acetate mount`
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub job: CommandArgs,
}
