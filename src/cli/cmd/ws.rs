//! `acetate ws …`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::app::live::{Insist, mounted_at, mounts};
use crate::app::stack::Asked;
use crate::app::store_root::{self, Use};
use crate::app::tree::Tree;
use crate::app::workspace::{self, Done, Mounting, NewWorkspace, Which};
use crate::app::{Failure, FailureKind, Outcome, WorkspaceKind, WorkspaceRecord, diff};
use crate::cli::args::Global;
use crate::cli::cmd::apply;
use crate::cli::cmd::layer::{each, say_changes, say_damaged};
use crate::cli::failure::Usage;
use crate::cli::options::{Meaning, Reader};
use crate::cli::output::{Output, Report};
use crate::cli::store_args::{StackArgs, ViewArgs, WsCloneArgs, WsCommand, WsCreateArgs};
use crate::cli::words::parse_map;

/// Runs it.
pub fn run(global: &Global, output: Output<'_>, what: WsCommand) -> ExitCode {
    let root = global.root.as_deref();
    output.ended(match what {
        WsCommand::Create(args) => create(root, output, args),
        WsCommand::List => list(root, output),
        WsCommand::Info(args) => info(root, output, &args.name),
        WsCommand::Path(args) => path(root, output, &args.name, Which::Merged),
        WsCommand::Upper(args) => path(root, output, &args.name, Which::Upper),
        WsCommand::Mount(args) => mount(root, output, &args.name, args.mountpoint.as_deref()),
        WsCommand::Unmount(args) => unmount(root, &args.name, insist(args.lazy)),
        WsCommand::Rm(args) => remove(root, output, &args.names, insist(args.force)),
        WsCommand::Diff(args) => changes(root, output, &args.name),
        WsCommand::Apply(args) => apply::run(root, output, args),
        WsCommand::Reset(args) => reset(root, &args.name),
        WsCommand::Clone(args) => clone(root, output, &args),
    })
}

fn insist(forced: bool) -> Insist {
    if forced { Insist::Yes } else { Insist::No }
}

fn mounting(not_yet: bool) -> Mounting {
    if not_yet {
        Mounting::Later
    } else {
        Mounting::Now
    }
}

fn create(root: Option<&Path>, output: Output<'_>, args: WsCreateArgs) -> Outcome<()> {
    let when = mounting(args.no_mount);
    let kind = match args.copy {
        true => WorkspaceKind::Copy,
        false => WorkspaceKind::Overlay,
    };
    let new = wanted(args.name, kind, args.stack, when)?;
    let store = store_root::open(root, Use::Change)?;
    say_done(output, &workspace::create(&store, &new)?);
    Ok(())
}

/// What the words of a stack ask for.
pub fn wanted(
    name: String,
    kind: WorkspaceKind,
    stack: StackArgs,
    mount: Mounting,
) -> Outcome<NewWorkspace> {
    let mountpoint = stack.mountpoint;
    Ok(NewWorkspace {
        mountpoint,
        ..wanted_view(name, kind, stack.view, mount)?
    })
}

/// The same for a view that is mounted in its own folder.
pub fn wanted_view(
    name: String,
    kind: WorkspaceKind,
    view: ViewArgs,
    mount: Mounting,
) -> Outcome<NewWorkspace> {
    let options = mount_options(&view.options, &view.uidmap, &view.gidmap)?;
    let layers = view.layers.into_iter().map(Asked::Layer);
    let chains = view.chains.into_iter().map(Asked::Chain);
    Ok(NewWorkspace {
        name,
        kind,
        layers: layers.chain(chains).collect(),
        options,
        mountpoint: None,
        mount,
    })
}

/// The words of `-o`, `--uidmap` and `--gidmap` for the mount, read once so that a
/// mistake is found now.
pub fn mount_options(
    options: &[OsString],
    uidmap: &[String],
    gidmap: &[String],
) -> Outcome<Vec<String>> {
    read_options(options, uidmap, gidmap)
        .map_err(|usage| Failure::new(FailureKind::Usage, usage.what, usage.hint))
}

fn read_options(
    options: &[OsString],
    uidmap: &[String],
    gidmap: &[String],
) -> Result<Vec<String>, Usage> {
    let mut words = Vec::new();
    let mut reader = Reader::default();
    for text in options {
        reader.read(text.as_bytes())?;
        words.push(
            text.to_str()
                .map(str::to_owned)
                .ok_or_else(|| Usage::new("an option of -o is no UTF-8", "write it in UTF-8"))?,
        );
    }
    check(&reader.finish())?;
    for (key, maps) in [("uidmapping", uidmap), ("gidmapping", gidmap)] {
        if maps.is_empty() {
            continue;
        }
        let joined = maps.join(":");
        parse_map(key, joined.as_bytes())?;
        words.push(format!("{key}={joined}"));
    }
    Ok(words)
}

fn check(meaning: &Meaning) -> Result<(), Usage> {
    let given = &meaning.options;
    if !given.lowers.is_empty() || given.upper.is_some() || given.work.is_some() {
        return Err(Usage::new(
            "lowerdir=, upperdir= and workdir= are the store's to choose",
            "name the layers with -l or --chain",
        ));
    }
    match meaning.unknown.first() {
        None => Ok(()),
        Some(word) => Err(Usage::new(
            format!("unknown option for -o: {}", word.to_string_lossy()),
            "`acetate mount --help` lists the options",
        )),
    }
}

/// Says what workspace was made.
pub fn say_done(output: Output<'_>, done: &Done) {
    done.warnings.iter().for_each(|w| output.warn(w));
    output.made(&done.record.name, &record_json(&done.record));
}

fn record_json(record: &WorkspaceRecord) -> Value {
    serde_json::to_value(record).unwrap_or(Value::Null)
}

fn list(root: Option<&Path>, output: Output<'_>) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    let (listed, mounts) = (store.workspaces()?, mounts());
    let mut report = Report {
        head: vec!["NAME", "KIND", "LAYERS", "MOUNTED AT", "CREATED"],
        ..Report::default()
    };
    let mut values = Vec::new();
    for record in &listed.records {
        let at = mounts
            .of(&store, &record.name)
            .map(|p| p.display().to_string());
        let layers: Vec<String> = record.lowers.iter().map(workspace::shown).collect();
        report.rows.push(vec![
            record.name.clone(),
            kind_word(record.kind).to_owned(),
            layers.join(" "),
            at.clone().unwrap_or_else(|| "-".to_owned()),
            record.created.clone(),
        ]);
        report.names.push(record.name.clone());
        values.push(with_mount(record, at));
    }
    report.json = json!({ "workspaces": values });
    output.report(&report);
    say_damaged(output, &listed.damaged)
}

fn kind_word(kind: WorkspaceKind) -> &'static str {
    match kind {
        WorkspaceKind::Overlay => "overlay",
        WorkspaceKind::View => "view",
        WorkspaceKind::Copy => "copy",
    }
}

/// What the path of a record is.
fn at_word(kind: WorkspaceKind) -> &'static str {
    match kind {
        WorkspaceKind::Copy => "tree",
        WorkspaceKind::Overlay | WorkspaceKind::View => "mount point",
    }
}

fn with_mount(record: &WorkspaceRecord, at: Option<String>) -> Value {
    let mut value = record_json(record);
    if let Value::Object(fields) = &mut value {
        fields.insert("mounted_at".to_owned(), json!(at));
    }
    value
}

fn info(root: Option<&Path>, output: Output<'_>, name: &str) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    let record = store.workspace(name)?;
    let at = mounted_at(&store, name).map(|p| p.display().to_string());
    let row = |key: &str, value: String| vec![key.to_owned(), value];
    let folder = store.workspace_path(name);
    let mut rows = vec![
        row("name", record.name.clone()),
        row("kind", kind_word(record.kind).to_owned()),
        row("mounted at", at.clone().unwrap_or_else(|| "-".to_owned())),
        row(
            at_word(record.kind),
            record.mountpoint.display().to_string(),
        ),
        row("options", record.options.join(",")),
        row("created", record.created.clone()),
        row("folder", folder.display().to_string()),
    ];
    rows.extend(
        record
            .lowers
            .iter()
            .map(|l| row("layer", workspace::shown(l))),
    );
    output.report(&Report {
        head: Vec::new(),
        rows,
        names: vec![record.name.clone()],
        json: with_mount(&record, at),
    });
    Ok(())
}

fn path(root: Option<&Path>, output: Output<'_>, name: &str, which: Which) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    let tree = workspace::path(&store, name, which)?;
    if which == Which::Merged && matches!(tree, Tree::Unmounted(_)) {
        output.note(&format!("the workspace {name} is not mounted"));
    }
    output.path(tree.path());
    Ok(())
}

fn mount(root: Option<&Path>, output: Output<'_>, name: &str, at: Option<&Path>) -> Outcome<()> {
    let store = store_root::open(root, Use::Change)?;
    let done = workspace::mount(&store, name, at)?;
    done.warnings.iter().for_each(|w| output.warn(w));
    output.path(&done.record.mountpoint);
    Ok(())
}

fn unmount(root: Option<&Path>, name: &str, insist: Insist) -> Outcome<()> {
    workspace::unmount(&store_root::open(root, Use::Change)?, name, insist)
}

fn remove(root: Option<&Path>, output: Output<'_>, names: &[String], how: Insist) -> Outcome<()> {
    let store = store_root::open(root, Use::Change)?;
    each(output, names, |name| workspace::remove(&store, name, how))
}

fn changes(root: Option<&Path>, output: Output<'_>, name: &str) -> Outcome<()> {
    let store = store_root::open(root, Use::Read)?;
    say_changes(output, &diff::of_workspace(&store, name)?);
    Ok(())
}

fn reset(root: Option<&Path>, name: &str) -> Outcome<()> {
    workspace::reset(&store_root::open(root, Use::Change)?, name)
}

fn clone(root: Option<&Path>, output: Output<'_>, args: &WsCloneArgs) -> Outcome<()> {
    let store = store_root::open(root, Use::Change)?;
    let new = NewWorkspace {
        name: args.name.clone(),
        kind: WorkspaceKind::Overlay,
        layers: Vec::new(),
        options: Vec::new(),
        mountpoint: args.mountpoint.clone(),
        mount: mounting(args.no_mount),
    };
    say_done(output, &workspace::clone(&store, &args.from, &new)?);
    Ok(())
}
