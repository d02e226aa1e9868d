//! `acetate mount`, and the same by other names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::mount::{Report, Request, Stay, mount};
use crate::app::{LowerArg, SetupError};
use crate::cli::args::MountArgs;
use crate::cli::compat::{Dialect, MountCall};
use crate::cli::failure::{self, Codes, Usage};
use crate::cli::log::{self, Verbosity};
use crate::cli::options::{Meaning, Reader, features};

/// Runs `acetate mount`.
pub fn run(args: MountArgs) -> ExitCode {
    let (stay, verbosity) = stay_and_verbosity(args.foreground, args.debug);
    let mountpoint = args.mountpoint.clone();
    let beside = side_records(&args.side_records);
    let meaning = own_meaning(args).and_then(with_environment);
    let (meaning, beside) = match meaning.and_then(|m| Ok((m, beside?))) {
        Ok(both) => both,
        Err(usage) => {
            failure::print("acetate", &usage.what, &usage.hint);
            return ExitCode::from(Codes::Own.usage());
        }
    };
    let request = Request {
        options: meaning.options,
        mountpoint,
        source: meaning.source.unwrap_or_else(|| "acetate".into()),
        subtype: "acetate".to_owned(),
        flags: meaning.flags,
        contexts: meaning.contexts,
        hidden: meaning.hidden,
        stay,
        namespace: None,
        fence: meaning.fence,
        beside,
    };
    ExitCode::from(mount(
        request,
        &Terminal {
            program: "acetate",
            codes: Codes::Own,
            verbosity,
        },
    ))
}

fn own_meaning(args: MountArgs) -> Result<Meaning, Usage> {
    let mut reader = Reader::default();
    for text in &args.options {
        reader.read(text.as_bytes())?;
    }
    let mut meaning = reader.finish();
    if !meaning.unknown.is_empty() {
        return Err(Usage::new(
            format!("unknown option for -o: {}", listed(&meaning.unknown)),
            "`acetate fuse-overlayfs --help` lists the options",
        ));
    }
    let lowers = args.lower.into_iter().map(|path| LowerArg {
        path,
        data_only: false,
        beside: None,
    });
    meaning.options.lowers.extend(lowers);
    meaning.options.upper = args.upper.or(meaning.options.upper);
    meaning.options.work = args.work.or(meaning.options.work);
    for list in &args.kernel_features {
        let hidden = features("--kernel-features", list.as_bytes())?;
        meaning.hidden = meaning.hidden.and(hidden);
    }
    Ok(meaning)
}

/// Words `N=FILE`, N from 1.
fn side_records(words: &[OsString]) -> Result<Vec<(usize, PathBuf)>, Usage> {
    let one = |word: &OsString| {
        let bytes = word.as_bytes();
        let at = bytes.iter().position(|b| *b == b'=')?;
        let number: usize = std::str::from_utf8(bytes.get(..at)?).ok()?.parse().ok()?;
        let path = PathBuf::from(OsStr::from_bytes(bytes.get(at + 1..)?));
        Some((number.checked_sub(1)?, path))
    };
    let read = words.iter().map(one).collect::<Option<Vec<_>>>();
    read.ok_or_else(|| {
        Usage::new(
            "--side-records is malformed",
            "write --side-records N=FILE for the N-th lower layer",
        )
    })
}

/// `ACETATE_KERNEL_FEATURES`, on top of what the command line hides.
fn with_environment(mut meaning: Meaning) -> Result<Meaning, Usage> {
    let name = "ACETATE_KERNEL_FEATURES";
    if let Some(list) = std::env::var_os(name) {
        meaning.hidden = meaning.hidden.and(features(name, list.as_bytes())?);
    }
    Ok(meaning)
}

/// Runs a mount that was asked for in another program's words.
pub fn run_compat(dialect: Dialect, call: MountCall) -> ExitCode {
    let program = dialect.program();
    let (stay, verbosity) = stay_and_verbosity(call.foreground, call.debug);
    let terminal = Terminal {
        program,
        codes: Codes::Mount,
        verbosity,
    };
    let meaning = match with_environment(call.meaning) {
        Ok(meaning) => meaning,
        Err(usage) => {
            failure::print(program, &usage.what, &usage.hint);
            return ExitCode::from(Codes::Mount.usage());
        }
    };
    if !meaning.unknown.is_empty() {
        terminal.warn(&format!(
            "unknown options ignored: {}",
            listed(&meaning.unknown)
        ));
    }
    if call.fake {
        return ExitCode::SUCCESS;
    }
    let request = Request {
        options: meaning.options,
        mountpoint: call.mountpoint,
        source: call
            .source
            .or(meaning.source)
            .unwrap_or_else(|| dialect.subtype().into()),
        subtype: dialect.subtype().to_owned(),
        flags: meaning.flags,
        contexts: meaning.contexts,
        hidden: meaning.hidden,
        stay,
        namespace: call.namespace,
        fence: meaning.fence,
        beside: Vec::new(),
    };
    ExitCode::from(mount(request, &terminal))
}

/// `-d` stays in the foreground, as it does with libfuse, unless the log goes
/// to a file.
fn stay_and_verbosity(foreground: bool, debug: bool) -> (Stay, Verbosity) {
    let stay = if foreground || (debug && !log::goes_to_a_file()) {
        Stay::Foreground
    } else {
        Stay::Background
    };
    let verbosity = match (debug, stay) {
        (true, _) => Verbosity::Debug,
        (false, Stay::Foreground) => Verbosity::Warnings,
        (false, Stay::Background) => Verbosity::FileOnly,
    };
    (stay, verbosity)
}

fn listed(words: &[OsString]) -> String {
    words
        .iter()
        .map(|w| w.to_string_lossy())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Tells the person, or the program, that called.
struct Terminal {
    program: &'static str,
    codes: Codes,
    verbosity: Verbosity,
}

impl Report for Terminal {
    fn warn(&self, sentence: &str) {
        eprintln!("{}: warning: {sentence}", self.program);
    }

    fn failed(&self, error: &SetupError) -> u8 {
        failure::print(self.program, &error.what, &error.hint);
        self.codes.mount_failed()
    }

    fn start_log(&self) {
        log::start(self.verbosity);
    }
}
