//! `acetate materialize`.

use std::process::ExitCode;

use crate::app::store_root::{self, Use};
use crate::app::workspace::Mounting;
use crate::app::{Outcome, WorkspaceKind, materialize, workspace};
use crate::cli::args::Global;
use crate::cli::cmd::ws::{say_done, wanted};
use crate::cli::output::Output;
use crate::cli::store_args::MaterializeArgs;

/// Runs it.
pub fn run(global: &Global, output: Output<'_>, args: MaterializeArgs) -> ExitCode {
    output.ended(materialize(global, output, args))
}

fn materialize(global: &Global, output: Output<'_>, args: MaterializeArgs) -> Outcome<()> {
    let copied = args.copy;
    let new = wanted(args.name, WorkspaceKind::View, args.stack, Mounting::Now)?;
    let store = store_root::open(global.root.as_deref(), Use::Change)?;
    if copied {
        output.path(&materialize::copy(&store, &new)?);
        return Ok(());
    }
    say_done(output, &workspace::create(&store, &new)?);
    Ok(())
}
