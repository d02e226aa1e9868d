//! `acetate doctor`: a table for people, JSON for programs.

use std::process::ExitCode;

use crate::app::doctor::{Check, Diagnosis, State, examine};
use crate::cli::args::{DoctorArgs, Format};
use crate::cli::{failure, json, say};

/// Number of the JSON's form; it changes when a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// Runs it. 0 where a mount is possible, 1 where not.
pub fn run(args: &DoctorArgs, format: Format) -> ExitCode {
    let diagnosis = match examine(args.dir.as_deref()) {
        Ok(diagnosis) => diagnosis,
        Err(e) => {
            failure::print("acetate", &e.what, &e.hint);
            return ExitCode::FAILURE;
        }
    };
    match format {
        Format::Table | Format::Openmetrics => say(&table(&diagnosis)),
        Format::Json => say(&as_json(&diagnosis)),
    }
    match diagnosis.can_mount {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn table(diagnosis: &Diagnosis) -> String {
    let widest = diagnosis.checks.iter().map(|c| c.name.len()).max();
    let width = widest.unwrap_or_default();
    let mut lines = Vec::new();
    for check in &diagnosis.checks {
        let mark = match check.state {
            State::Ok => "✓",
            State::Limited => "!",
            State::Missing => "✗",
            State::Unneeded => "-",
        };
        lines.push(format!("{mark} {:width$}  {}", check.name, check.found));
        if !check.remedy.is_empty() {
            lines.push(format!("  {:width$}  → {}", "", check.remedy));
        }
    }
    lines.push(match diagnosis.can_mount {
        true => "A mount is possible.".to_owned(),
        false => "No mount is possible: see what is marked ✗.".to_owned(),
    });
    lines.join("\n")
}

fn as_json(diagnosis: &Diagnosis) -> String {
    let checks: Vec<String> = diagnosis.checks.iter().map(check_as_json).collect();
    format!(
        "{{\n  \"schema_version\": {SCHEMA_VERSION},\n  \"can_mount\": {},\n  \"checks\": [\n{}\n  ]\n}}",
        diagnosis.can_mount,
        checks.join(",\n")
    )
}

fn check_as_json(check: &Check) -> String {
    let state = match check.state {
        State::Ok => "ok",
        State::Limited => "limited",
        State::Missing => "missing",
        State::Unneeded => "unneeded",
    };
    let remedy = match check.remedy.as_str() {
        "" => "null".to_owned(),
        remedy => json::string(remedy),
    };
    format!(
        "    {{\"name\": {}, \"state\": {}, \"found\": {}, \"remedy\": {remedy}}}",
        json::string(check.name),
        json::string(state),
        json::string(&check.found)
    )
}
