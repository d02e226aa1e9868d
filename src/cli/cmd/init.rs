//! `acetate init`.

use std::process::ExitCode;

use crate::app::store_root;
use crate::cli::args::Global;
use crate::cli::output::Output;
use crate::cli::store_args::InitArgs;

/// Runs it.
pub fn run(global: &Global, output: Output<'_>, args: &InitArgs) -> ExitCode {
    match store_root::init(global.root.as_deref(), args.path.as_deref()) {
        Ok(store) => {
            output.path(store.path());
            ExitCode::SUCCESS
        }
        Err(e) => output.failed(&e),
    }
}
