//! `acetate gc` and `acetate fsck`.

use std::process::ExitCode;

use serde_json::json;

use crate::app::store_root::{self, Use};
use crate::app::upkeep::{self, Depth, Issue, Repair, Severity};
use crate::app::{Failure, FailureKind, Outcome, own_files};
use crate::cli::args::Global;
use crate::cli::output::{Output, Report};
use crate::cli::store_args::FsckArgs;

/// Runs `acetate gc`.
pub fn gc(global: &Global, output: Output<'_>) -> ExitCode {
    output.ended(collect(global, output))
}

fn collect(global: &Global, output: Output<'_>) -> Outcome<()> {
    own_files::reach();
    let store = store_root::open(global.root.as_deref(), Use::Read)?;
    let done = store.collect_garbage()?;
    let row = |what: &str, count: usize| vec![what.to_owned(), count.to_string()];
    output.report(&Report {
        head: Vec::new(),
        rows: vec![
            row("unfinished work removed", done.staging),
            row("contents without a name removed", done.contents),
            row("commits ended", done.commits),
            row("locks removed", done.locks),
        ],
        names: Vec::new(),
        json: json!({
            "staging": done.staging,
            "contents": done.contents,
            "commits": done.commits,
            "locks": done.locks,
        }),
    });
    Ok(())
}

/// Runs `acetate fsck`.
pub fn fsck(global: &Global, output: Output<'_>, args: &FsckArgs) -> ExitCode {
    output.ended(check(global, output, args))
}

fn check(global: &Global, output: Output<'_>, args: &FsckArgs) -> Outcome<()> {
    own_files::reach();
    let store = store_root::open(global.root.as_deref(), Use::Read)?;
    let (repair, depth) = (
        if args.repair { Repair::Yes } else { Repair::No },
        if args.digests {
            Depth::Digests
        } else {
            Depth::Records
        },
    );
    let issues = upkeep::fsck(&store, repair, depth)?;
    let word = |i: &Issue| match (i.repaired, i.severity) {
        (true, _) => "repaired",
        (false, Severity::Damage) => "damage",
        (false, Severity::Untidy) => "untidy",
    };
    let values = issues
        .iter()
        .map(|i| json!({"about": i.about, "what": i.what, "state": word(i)}));
    output.report(&Report {
        head: Vec::new(),
        rows: issues
            .iter()
            .map(|i| vec![word(i).to_owned(), i.about.clone(), i.what.clone()])
            .collect(),
        names: issues.iter().map(|i| i.about.clone()).collect(),
        json: json!({ "issues": values.collect::<Vec<_>>() }),
    });
    let open = issues
        .iter()
        .filter(|i| i.severity == Severity::Damage && !i.repaired)
        .count();
    if open == 0 {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Integrity,
        format!(
            "{open} things in the store {} are damaged",
            store.path().display()
        ),
        "`acetate fsck --repair` mends what can be mended and puts the rest aside",
    ))
}
