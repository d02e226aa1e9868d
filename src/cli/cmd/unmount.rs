//! `acetate unmount`.

use std::process::ExitCode;

use crate::app::unmount::{How, unmount};
use crate::cli::args::UnmountArgs;
use crate::cli::failure;

/// Runs it.
pub fn run(args: &UnmountArgs) -> ExitCode {
    let how = if args.lazy { How::Lazy } else { How::WhenIdle };
    match unmount(&args.mountpoint, how) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            let error = failure::trouble_error(&trouble);
            failure::print("acetate", &error.what, &error.hint);
            ExitCode::from(failure::trouble_code(&trouble))
        }
    }
}
