//! `acetate __complete`: names for the shell, one a line.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::app::Outcome;
use crate::app::store_root::{self, Use};
use crate::cli::complete::{Wanted, place};

/// Prints the names that fit. What cannot be found out is not told: there is nobody
/// to read it.
pub fn run(words: &[OsString]) -> ExitCode {
    for name in names(words).unwrap_or_default() {
        crate::cli::say(&name);
    }
    ExitCode::SUCCESS
}

fn names(words: &[OsString]) -> Outcome<Vec<String>> {
    let place = place(words);
    let Some(wanted) = place.wanted else {
        return Ok(Vec::new());
    };
    let store = store_root::open(place.root.as_deref(), Use::Read)?;
    Ok(match wanted {
        Wanted::Layer => store
            .layers()?
            .records
            .into_iter()
            .map(|r| r.name)
            .collect(),
        Wanted::Workspace => {
            let records = store.workspaces()?.records.into_iter();
            records.map(|r| r.name).collect()
        }
    })
}
