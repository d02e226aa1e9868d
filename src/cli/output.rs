//! Results on stdout: tables for people, JSON for programs, bare names for `$(…)`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::app::{Failure, FailureKind};

use super::args::{Format, Global};
use super::failure;

/// Number of the JSON's form; it changes when a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// Where and how a command answers.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    global: &'a Global,
}

/// What a command hands over to be printed.
#[derive(Debug, Default)]
pub struct Report {
    /// Titles of the columns.
    pub head: Vec<&'static str>,
    /// Lines of the table.
    pub rows: Vec<Vec<String>>,
    /// Lines with `-q`: names.
    pub names: Vec<String>,
    /// The same for programs, without `schema_version`.
    pub json: Value,
}

impl<'a> Output<'a> {
    /// As the command line says.
    pub fn new(global: &'a Global) -> Self {
        Output { global }
    }

    /// Whether nothing but names is wanted.
    pub fn is_quiet(self) -> bool {
        self.global.quiet
    }

    /// Prints a report.
    pub fn report(self, report: &Report) {
        raw(self.text(report).as_bytes());
    }

    /// Prints a report to stderr, where stdout is another program's.
    pub fn aside(self, report: &Report) {
        eprint!("{}", self.text(report));
    }

    fn text(self, report: &Report) -> String {
        match (self.global.format, self.global.quiet) {
            (Format::Json, _) => spread(&report.json),
            (_, true) => joined(report.names.iter().map(String::as_str)),
            (_, false) => joined(
                aligned(&report.head, &report.rows)
                    .iter()
                    .map(String::as_str),
            ),
        }
    }

    /// Prints a value for programs; an object gets the version of its form.
    pub fn json(self, value: &Value) {
        raw(spread(value).as_bytes());
    }

    /// Says that something was made: its name, or its record.
    pub fn made(self, name: &str, record: &Value) {
        match self.global.format {
            Format::Json => self.json(record),
            Format::Table | Format::Openmetrics => lines(std::iter::once(name)),
        }
    }

    /// Prints a path as its bytes are, and nothing else.
    pub fn path(self, path: &Path) {
        use std::os::unix::ffi::OsStrExt;
        match self.global.format {
            Format::Json => self.json(&json!({ "path": path.to_string_lossy() })),
            Format::Table | Format::Openmetrics => {
                raw(&[path.as_os_str().as_bytes(), b"\n"].concat())
            }
        }
    }

    /// Says something beside the result, unless `-q`.
    pub fn note(self, sentence: &str) {
        if !self.global.quiet {
            eprintln!("acetate: {sentence}");
        }
    }

    /// Warns.
    pub fn warn(self, sentence: &str) {
        eprintln!("acetate: warning: {sentence}");
    }

    /// Prints why something failed; the exit code.
    pub fn failed(self, failure: &Failure) -> ExitCode {
        match self.global.format {
            Format::Table | Format::Openmetrics => {
                failure::print("acetate", &failure.what, &failure.hint);
            }
            Format::Json => {
                let error = json!({"error": {
                    "code": code_word(failure.kind),
                    "message": failure.what,
                    "hint": failure.hint,
                }});
                eprintln!("{error}");
            }
        }
        ExitCode::from(failure::failure_code(failure.kind))
    }

    /// The exit code of a command that answers with nothing but its success.
    pub fn ended(self, outcome: Result<(), Failure>) -> ExitCode {
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => self.failed(&e),
        }
    }
}

/// A value for programs, with the version of its form where it is an object.
pub fn versioned(value: &Value) -> Value {
    let mut value = value.clone();
    if let Value::Object(fields) = &mut value {
        fields.insert("schema_version".to_owned(), json!(SCHEMA_VERSION));
    }
    value
}

fn code_word(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::General => "failed",
        FailureKind::Usage => "usage",
        FailureKind::NotFound => "not_found",
        FailureKind::InUse => "in_use",
        FailureKind::Exists => "exists",
        FailureKind::Integrity => "integrity",
        FailureKind::Mount => "mount_failed",
        FailureKind::Conflict => "conflict",
    }
}

/// Columns side by side, each as wide as its widest field, the last one as it is.
pub fn aligned(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let titles: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&titles)
        .filter(|t| !t.is_empty())
        .chain(rows)
        .collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &all {
        for (at, field) in row.iter().enumerate() {
            let width = field.chars().count();
            match widths.get_mut(at) {
                Some(w) => *w = (*w).max(width),
                None => widths.push(width),
            }
        }
    }
    let line = |row: &&Vec<String>| {
        let fields = row
            .iter()
            .zip(&widths)
            .map(|(field, width)| format!("{field:width$}"));
        fields.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

/// Over several lines, for people to read as well.
fn spread(value: &Value) -> String {
    format!("{:#}\n", versioned(value))
}

fn joined<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn lines<'a>(lines: impl Iterator<Item = &'a str>) {
    raw(joined(lines).as_bytes());
}

/// A reader that has gone away is no failure.
fn raw(bytes: &[u8]) {
    drop(write(bytes));
}

/// Prints bytes as they are.
///
/// # Errors
/// What stdout answers: mostly that its reader has gone away.
pub fn write(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(bytes)?;
    out.flush()
}

/// A number of bytes for people.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut scaled = count as f64;
    let mut unit = "";
    for next in UNITS {
        scaled /= 1024.0;
        unit = next;
        if scaled < 1024.0 {
            break;
        }
    }
    format!("{scaled:.1} {unit}")
}

/// The first digits of a digest.
pub fn short(digest: &str) -> String {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_field() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let lines = aligned(&["NAME", "SIZE"], &[row("a", "1 B"), row("longer", "2 B")]);
        assert_eq!(lines, ["NAME    SIZE", "a       1 B", "longer  2 B"]);
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }
}
