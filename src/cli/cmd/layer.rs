//! `acetate layer …`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::app::layer::{self, Made, NewLayer};
use crate::app::store_root::{self, Use};
use crate::app::{Failure, FailureKind, LayerRecord, Outcome, Store, commit, diff};
use crate::cli::args::Global;
use crate::cli::cmd::transfer;
use crate::cli::output::{Output, Report, bytes, short};
use crate::cli::store_args::{CommitArgs, CreateArgs, LayerCommand, LayerDiffArgs};

/// Runs it.
pub fn run(global: &Global, output: Output<'_>, what: LayerCommand) -> ExitCode {
    let root = global.root.as_deref();
    output.ended(match what {
        LayerCommand::Create(args) => create(root, output, args),
        LayerCommand::List => list(root, output),
        LayerCommand::Rm(args) => remove(root, output, &args.names),
        LayerCommand::Path(args) => path(root, output, &args.name),
        LayerCommand::Info(args) => info(root, output, &args.name),
        LayerCommand::Import(args) => transfer::import(global, output, args),
        LayerCommand::Export(args) => transfer::export(global, output, &args),
        LayerCommand::Commit(args) => commit(root, output, args),
        LayerCommand::Ls(args) => ls(root, output, &args.name, &args.path),
        LayerCommand::Cat(args) => cat(root, &args.name, &args.path),
        LayerCommand::Du(args) => du(root, output, &args.names),
        LayerCommand::Verify(args) => verify(root, output, &args.names),
        LayerCommand::Diff(args) => compare(root, output, &args),
    })
}

/// `KEY=VALUE` words.
pub fn labels(words: &[String]) -> Outcome<BTreeMap<String, String>> {
    let split = |word: &String| {
        let pair = word.split_once('=').filter(|(key, _)| !key.is_empty());
        pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
            .ok_or_else(|| {
                let what = format!("the label {word:?} has no key and value");
                Failure::new(FailureKind::Usage, what, "write --label KEY=VALUE")
            })
    };
    words.iter().map(split).collect()
}

fn create(root: Option<&Path>, output: Output<'_>, args: CreateArgs) -> Outcome<()> {
    let store = store_root::open(root, Use::Change)?;
    let new = NewLayer {
        labels: labels(&args.new.labels)?,
        parent: args.new.parent,
        source: args
            .dir
            .as_ref()
            .map_or_else(String::new, |d| d.display().to_string()),
        name: args.name,
    };
    say_made(output, &layer::create(&store, &new, args.dir.as_deref())?);
    Ok(())
}

fn commit(root: Option<&Path>, output: Output<'_>, args: CommitArgs) -> Outcome<()> {
    let store = store_root::open(root, Use::Change)?;
    let how = match args.squash {
        true => commit::How::Squash,
        false => commit::How::Changes,
    };
    let new = NewLayer {
        labels: labels(&args.labels)?,
        parent: None,
        source: format!("workspace {}", args.workspace),
        name: args.name,
    };
    say_made(output, &commit::commit(&store, &args.workspace, &new, how)?);
    Ok(())
}

/// Says what layer was made.
pub fn say_made(output: Output<'_>, made: &Made) {
    output.made(&made.record.name, &record_json(&made.record));
    if made.added == layer::Added::Shared {
        output.note("the same content was in the store: it is stored once");
    }
}

fn record_json(record: &LayerRecord) -> Value {
    serde_json::to_value(record).unwrap_or(Value::Null)
}

fn list(root: Option<&Path>, output: Output<'_>) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    let listed = store.layers()?;
    let row = |r: &LayerRecord| {
        let parent = r.parents.first().map_or("-", |p| &p.name);
        vec![
            r.name.clone(),
            short(&r.diff_id.to_string()),
            parent.to_owned(),
            bytes(r.size),
            r.created.clone(),
        ]
    };
    output.report(&Report {
        head: vec!["NAME", "DIFF ID", "PARENT", "SIZE", "CREATED"],
        rows: listed.records.iter().map(row).collect(),
        names: listed.records.iter().map(|r| r.name.clone()).collect(),
        json: json!({ "layers": listed.records }),
    });
    say_damaged(output, &listed.damaged)
}

/// What could be read was printed; the rest is a failure.
pub fn say_damaged(output: Output<'_>, damaged: &[Failure]) -> Outcome<()> {
    let Some((last, others)) = damaged.split_last() else {
        return Ok(());
    };
    others.iter().for_each(|e| output.warn(&e.what));
    Err(last.clone())
}

fn remove(root: Option<&Path>, output: Output<'_>, names: &[String]) -> Outcome<()> {
    let store = store_root::open(root, Use::Change)?;
    each(output, names, |name| store.remove_layer(name).map(drop))
}

/// Does something for each name; the first failure is the command's, the others
/// are said too, and what can be done is done.
pub fn each(
    output: Output<'_>,
    names: &[String],
    mut act: impl FnMut(&str) -> Outcome<()>,
) -> Outcome<()> {
    let mut first = Ok(());
    for name in names {
        if let Err(e) = act(name) {
            if first.is_err() {
                output.warn(&e.what);
            } else {
                first = Err(e);
            }
        }
    }
    first
}

fn path(root: Option<&Path>, output: Output<'_>, name: &str) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    let record = store.layer(name)?;
    store.content(&record.diff_id)?;
    output.path(&store.tree_path(&record.diff_id));
    Ok(())
}

fn info(root: Option<&Path>, output: Output<'_>, name: &str) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    let record = store.layer(name)?;
    let content = store.content(&record.diff_id)?;
    let path = store.tree_path(&record.diff_id);
    let mut value = record_json(&record);
    if let Value::Object(fields) = &mut value {
        fields.insert("path".to_owned(), json!(path.to_string_lossy()));
        fields.insert("disguised".to_owned(), json!(content.disguised));
    }
    let parents: Vec<&str> = record.parents.iter().map(|p| p.name.as_str()).collect();
    let row = |key: &str, value: String| vec![key.to_owned(), value];
    let mut rows = vec![
        row("name", record.name.clone()),
        row("diff ID", record.diff_id.to_string()),
        row(
            "chain ID",
            record.chain_id.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        row("parents", parents.join(" ")),
        row("size", bytes(record.size)),
        row("entries", record.entries.to_string()),
        row("created", record.created.clone()),
        row("source", record.source.clone()),
        row("path", path.display().to_string()),
    ];
    rows.extend(
        record
            .labels
            .iter()
            .map(|(k, v)| row("label", format!("{k}={v}"))),
    );
    output.report(&Report {
        head: Vec::new(),
        rows,
        names: vec![record.name.clone()],
        json: value,
    });
    Ok(())
}

fn ls(root: Option<&Path>, output: Output<'_>, name: &str, path: &Path) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    let rows = layer::ls(&store, name, path)?;
    let row = |r: &layer::Row| {
        let name = match &r.target {
            Some(target) => format!("{} -> {target}", printable(&r.name)),
            None => printable(&r.name),
        };
        let owner = format!("{}:{}", r.uid, r.gid);
        vec![
            r.kind.to_owned(),
            r.mode.clone(),
            owner,
            r.size.to_string(),
            name,
        ]
    };
    output.report(&Report {
        head: vec!["KIND", "MODE", "OWNER", "SIZE", "NAME"],
        rows: rows.iter().map(row).collect(),
        names: rows.iter().map(|r| printable(&r.name)).collect(),
        json: json!({ "entries": rows }),
    });
    Ok(())
}

/// A name that cannot break the lines of a table or a terminal.
pub fn printable(name: &str) -> String {
    let plain = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    name.chars().map(plain).collect()
}

fn cat(root: Option<&Path>, name: &str, path: &Path) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    layer::cat(&store, name, path, &mut std::io::stdout())
}

fn du(root: Option<&Path>, output: Output<'_>, names: &[String]) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    let rooms = layer::du(&store, names)?;
    let row = |r: &layer::Room| {
        vec![
            r.name.clone(),
            bytes(r.size),
            bytes(r.unique),
            bytes(r.chain),
        ]
    };
    output.report(&Report {
        head: vec!["NAME", "SIZE", "UNIQUE", "WITH PARENTS"],
        rows: rooms.iter().map(row).collect(),
        names: rooms.iter().map(|r| r.name.clone()).collect(),
        json: json!({ "layers": rooms }),
    });
    Ok(())
}

fn verify(root: Option<&Path>, output: Output<'_>, names: &[String]) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    let names = match names {
        [] => all_names(&store)?,
        names => names.to_vec(),
    };
    each(output, &names, |name| {
        let record = layer::verify(&store, name)?;
        output.made(&record.name, &record_json(&record));
        Ok(())
    })
}

fn all_names(store: &Store) -> Outcome<Vec<String>> {
    Ok(store
        .layers()?
        .records
        .into_iter()
        .map(|r| r.name)
        .collect())
}

fn compare(root: Option<&Path>, output: Output<'_>, args: &LayerDiffArgs) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    let changes = match &args.second {
        None => diff::of_layer(&store, &args.first)?,
        Some(second) => diff::between(&store, &args.first, second)?,
    };
    say_changes(output, &changes);
    Ok(())
}

/// Prints a list of changes.
pub fn say_changes(output: Output<'_>, changes: &[diff::Change]) {
    output.report(&changes_report(changes));
}

/// The list, to be printed.
pub fn changes_report(changes: &[diff::Change]) -> Report {
    let row = |c: &diff::Change| {
        let letter = match c.what {
            diff::What::Added => "A",
            diff::What::Changed => "C",
            diff::What::Deleted => "D",
        };
        vec![letter.to_owned(), printable(&c.path), c.reasons.join(",")]
    };
    Report {
        head: Vec::new(),
        rows: changes.iter().map(row).collect(),
        names: changes.iter().map(|c| printable(&c.path)).collect(),
        json: json!({ "changes": changes }),
    }
}
