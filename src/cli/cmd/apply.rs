//! `acetate ws apply`.

use std::path::Path;

use crate::app::Outcome;
use crate::app::apply::{self, Dare, Extent, Request};
use crate::app::store_root::{self, Use};
use crate::cli::cmd::layer::say_changes;
use crate::cli::output::Output;
use crate::cli::store_args::WsApplyArgs;

/// Runs it.
pub fn run(root: Option<&Path>, output: Output<'_>, args: WsApplyArgs) -> Outcome<()> {
    let store = store_root::open(root, Use::Change)?;
    let request = Request {
        paths: args.paths,
        dare: match args.force {
            true => Dare::OverOthers,
            false => Dare::Alone,
        },
        extent: match args.dry_run {
            true => Extent::OnlySay,
            false => Extent::Carry,
        },
    };
    let done = apply::apply(&store, &args.name, &request)?;
    if let Some(what) = &done.resumed {
        output.note(what);
    }
    say_changes(output, &done.changes);
    match done.refused {
        Some(refused) => Err(refused),
        None => Ok(()),
    }
}
