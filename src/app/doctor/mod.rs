//! What this host allows, found by trying, and what to do about what it does not.
//!
//! Nothing is left behind: trial mounts are made in mount namespaces that end
//! with the trial, or are taken away again; files in directories that are
//! removed again.

mod folder;
mod host;
mod trial;

use std::path::Path;

use crate::overlay::setup::SetupError;

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// It works with less, or slower.
    Limited,
    /// It is missing.
    Missing,
    /// It does not matter here.
    Unneeded,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A stable name.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do; never empty where something is missing.
    pub remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Check {
            name,
            state: State::Ok,
            found: found.into(),
            remedy: String::new(),
        }
    }

    fn unneeded(name: &'static str, found: impl Into<String>) -> Self {
        Check {
            state: State::Unneeded,
            ..Check::ok(name, found)
        }
    }

    fn limited(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Check {
            state: State::Limited,
            remedy: remedy.into(),
            ..Check::ok(name, found)
        }
    }

    fn missing(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Check {
            state: State::Missing,
            ..Check::limited(name, found, remedy)
        }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// In the order to read it.
    pub checks: Vec<Check>,
    /// Whether a mount can be made here by whoever asks.
    pub can_mount: bool,
}

/// Looks at this host, and at a directory that is to hold an upper layer.
///
/// For a program with one thread that does nothing else: it forks.
pub fn examine(folder: Option<&Path>) -> Result<Diagnosis, SetupError> {
    let mut checks = host::before_trials();
    let trials = trial::run()?;
    let can_mount = trials.checks.iter().any(|c| c.state == State::Ok);
    checks.extend(trials.checks);
    checks.extend(trial::levers(trials.offer));
    checks.extend(host::fences());
    checks.extend(host::limits());
    if let Some(folder) = folder {
        checks.extend(folder::checks(folder)?);
    }
    Ok(Diagnosis { checks, can_mount })
}
