//! Where the log goes: stderr in the foreground, else a file, else nowhere.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use tracing_subscriber::EnvFilter;

/// Names the file to log to.
const FILE: &str = "ACETATE_LOG_FILE";
/// Says what to log, in the words of tracing's `EnvFilter`.
const FILTER: &str = "ACETATE_LOG";

/// How much is logged where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Every request.
    Debug,
    /// What went wrong.
    Warnings,
    /// What went wrong, and only if there is a file for it.
    FileOnly,
}

/// Whether `ACETATE_LOG_FILE` is set.
pub fn goes_to_a_file() -> bool {
    std::env::var_os(FILE).is_some_and(|f| !f.is_empty())
}

/// Starts logging. fuser logs through the `log` crate; what it says, every
/// request among it, is taken over.
pub fn start(verbosity: Verbosity) {
    let level = if verbosity == Verbosity::Debug {
        "debug"
    } else {
        "warn"
    };
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false);
    let started = match std::env::var_os(FILE).filter(|f| !f.is_empty()) {
        Some(path) => match OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(file) => log.with_writer(file).try_init(),
            Err(e) => {
                eprintln!(
                    "acetate: warning: no log: {FILE}={}: {e}",
                    path.to_string_lossy()
                );
                return;
            }
        },
        None if verbosity == Verbosity::FileOnly => return,
        None => log.with_writer(std::io::stderr).try_init(),
    };
    if started.is_ok() {
        log_panics();
    }
}

/// A background process has no stderr to say on that it broke.
fn log_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tracing::error!("{info}");
        print(info);
    }));
}
