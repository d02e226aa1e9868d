//! Words in, words out: the only place with clap, terminals and exit codes.
//!
//! The name the program was called by chooses the language: `fuse-overlayfs`
//! and `mount.acetate` speak other programs' ([`compat`]), everything else is
//! ours ([`args`]). Both share one table of options ([`options`]).

pub mod args;
pub mod cmd;
pub mod compat;
pub mod complete;
pub mod failure;
pub mod figures;
pub mod help;
pub mod job_args;
pub mod json;
pub mod log;
pub mod man;
pub mod openmetrics;
pub mod options;
pub mod output;
pub mod progress;
pub mod store_args;
pub mod words;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Acetate, Command, Format, Global};
use compat::{Call, Dialect};
use failure::Codes;
use output::Output;

/// Runs the command line.
pub fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().map(OsString::as_os_str).unwrap_or_default();
    let dialect = Path::new(name)
        .file_name()
        .and_then(|n| match n.as_bytes() {
            b"fuse-overlayfs" => Some(Dialect::FuseOverlayfs),
            b"mount.acetate" | b"mount.fuse.acetate" => Some(Dialect::Helper),
            _ => None,
        });
    let words = if args.is_empty() {
        Vec::new()
    } else {
        args.split_off(1)
    };
    match dialect {
        Some(dialect) => compat_main(dialect, &words),
        None if compat::looks_like_a_mount(&words) => compat_main(Dialect::MountFuse, &words),
        None => own_main(&words),
    }
}

fn own_main(words: &[OsString]) -> ExitCode {
    // Not through clap, which would take `-h`, `-V` and `--` for its own.
    if let Some((first, rest)) = words.split_first()
        && first == "fuse-overlayfs"
    {
        return compat_main(Dialect::FuseOverlayfs, rest);
    }
    let name = std::iter::once(OsString::from("acetate"));
    match Acetate::try_parse_from(name.chain(words.iter().cloned())) {
        Ok(Acetate { global, command }) => run(&global, command),
        Err(e) => {
            let code = if e.use_stderr() {
                Codes::Own.usage()
            } else {
                0
            };
            // Help into a closed pipe is no failure.
            drop(e.print());
            ExitCode::from(code)
        }
    }
}

fn run(global: &Global, command: Command) -> ExitCode {
    let output = Output::new(global);
    if global.format == Format::Openmetrics && !matches!(command, Command::Stats(_)) {
        failure::print(
            "acetate",
            "--format openmetrics is for `acetate stats` alone",
            "--format json is for programs",
        );
        return ExitCode::from(Codes::Own.usage());
    }
    // A mount starts its own log, to where its process may write.
    if global.verbose && !matches!(command, Command::Mount(_) | Command::FuseOverlayfs { .. }) {
        log::start(log::Verbosity::Debug);
    }
    match command {
        Command::Mount(args) => cmd::mount::run(args),
        Command::Unmount(args) => cmd::unmount::run(&args),
        Command::Stats(args) => cmd::stats::run(global, output, &args),
        Command::Init(args) => cmd::init::run(global, output, &args),
        Command::Layer(what) => cmd::layer::run(global, output, what),
        Command::Ws(what) => cmd::ws::run(global, output, what),
        Command::Run(args) => cmd::job::run(global, output, *args),
        Command::Try(args) => cmd::job::attempt(global, output, args),
        Command::Materialize(args) => cmd::materialize::run(global, output, args),
        Command::Gc => cmd::upkeep::gc(global, output),
        Command::Fsck(args) => cmd::upkeep::fsck(global, output, &args),
        Command::Doctor(args) => cmd::doctor::run(&args, global.format),
        Command::FuseOverlayfs { args } => compat_main(Dialect::FuseOverlayfs, &args),
        Command::Completions { shell } => cmd::completions::run(shell),
        Command::Complete { words } => cmd::complete::run(&words),
        Command::Man { directory } => cmd::man::run(&directory),
    }
}

fn compat_main(dialect: Dialect, words: &[OsString]) -> ExitCode {
    match compat::parse(dialect, words) {
        Ok(Call::Help) => {
            let flags = match dialect {
                Dialect::Helper => help::HELPER_FLAGS,
                Dialect::FuseOverlayfs | Dialect::MountFuse => help::OVERLAY_FLAGS,
            };
            say(&format!(
                "usage: {0} [FLAGS] -o OPTIONS [SOURCE] MOUNTPOINT\n\nFlags:\n{1}\n{2}",
                dialect.program(),
                help::listed(flags),
                help::option_list()
            ));
            ExitCode::SUCCESS
        }
        Ok(Call::Version) => {
            say(&format!(
                "{}: version {} (acetate)",
                dialect.program(),
                env!("CARGO_PKG_VERSION")
            ));
            ExitCode::SUCCESS
        }
        Ok(Call::Mount(call)) => cmd::mount::run_compat(dialect, *call),
        Err(usage) => {
            failure::print(dialect.program(), &usage.what, &usage.hint);
            ExitCode::from(Codes::Mount.usage())
        }
    }
}

/// Prints to stdout; a reader that has gone away is no failure.
fn say(text: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stdout(), "{text}"));
}
