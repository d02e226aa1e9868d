//! `acetate completions`.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::args::Acetate;
use crate::cli::complete;

/// Prints what the shell is to read.
pub fn run(shell: Shell) -> ExitCode {
    // Into memory first: clap_complete panics where the output is closed.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Acetate::command(), "acetate", &mut text);
    let text = complete::script(shell, String::from_utf8_lossy(&text).into_owned());
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            crate::cli::failure::print(
                "acetate",
                &format!("the completions could not be written: {e}"),
                "",
            );
            ExitCode::FAILURE
        }
    }
}
