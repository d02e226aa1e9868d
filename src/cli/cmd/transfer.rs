//! `acetate layer import` and `export`.

use std::io::IsTerminal;
use std::path::Path;

use serde_json::json;

use crate::app::import::{self, Source};
use crate::app::layer::{self, NewLayer};
use crate::app::store_root::{self, Use};
use crate::app::{Compress, Digest, Failure, FailureKind, Outcome, export};
use crate::cli::args::Global;
use crate::cli::cmd::layer::{labels, say_made};
use crate::cli::output::Output;
use crate::cli::progress::{Progress, Unit};
use crate::cli::store_args::{ExportArgs, ImportArgs};

/// stdin or stdout.
const STREAM: &str = "-";

/// Runs `acetate layer import`.
pub fn import(global: &Global, output: Output<'_>, args: ImportArgs) -> Outcome<()> {
    let wanted = args.digest.as_deref().map(parse_digest).transpose()?;
    let from_stdin = args.source == Path::new(STREAM);
    let new = NewLayer {
        labels: labels(&args.new.labels)?,
        parent: args.new.parent,
        source: if from_stdin {
            "stdin".to_owned()
        } else {
            args.source.display().to_string()
        },
        name: args.name,
    };
    if from_stdin && std::io::stdin().is_terminal() {
        let what = "an archive is not typed: stdin is a terminal";
        return Err(Failure::new(
            FailureKind::Usage,
            what,
            "pipe it in, or name a file",
        ));
    }
    let store = store_root::open(global.root.as_deref(), Use::Change)?;
    if args.source.is_dir() {
        if wanted.is_some() {
            let what = format!(
                "{} is a directory: it has no digest to check",
                args.source.display()
            );
            return Err(Failure::new(FailureKind::Usage, what, "leave --digest out"));
        }
        say_made(output, &layer::create(&store, &new, Some(&args.source))?);
        return Ok(());
    }
    let source = match from_stdin {
        true => Source::stdin()?,
        false => Source::file(&args.source)?,
    };
    let mut progress = Progress::new(global, Unit::Bytes);
    let made = import::import(&store, source, &new, wanted.as_ref(), &mut |s| {
        progress.step(s)
    });
    drop(progress);
    say_made(output, &made?);
    Ok(())
}

fn parse_digest(text: &str) -> Outcome<Digest> {
    text.parse().map_err(|e| {
        let what = format!("--digest: {e}");
        Failure::new(
            FailureKind::Usage,
            what,
            "sha256sum FILE prints it, without sha256:",
        )
    })
}

/// Runs `acetate layer export`.
pub fn export(global: &Global, output: Output<'_>, args: &ExportArgs) -> Outcome<()> {
    let store = store_root::open(global.root.as_deref(), Use::Read)?;
    let compress = match (args.gzip, args.zstd) {
        (true, _) => Compress::Gzip,
        (_, true) => Compress::Zstd,
        _ => Compress::No,
    };
    let mut progress = Progress::new(global, Unit::Entries);
    let mut step = |s| progress.step(s);
    if args.file == Path::new(STREAM) {
        let out = std::io::stdout();
        if out.is_terminal() {
            let what = "an archive is not written to a terminal";
            return Err(Failure::new(
                FailureKind::Usage,
                what,
                "name a file, or pipe it on",
            ));
        }
        return export::to_stream(&store, &args.name, compress, out, &mut step).map(drop);
    }
    let packed = export::to_file(&store, &args.name, compress, &args.file, &mut step)?;
    drop(progress);
    let (digest, blob) = (packed.diff_id.to_string(), packed.blob.to_string());
    output.made(
        &blob,
        &json!({"diff_id": digest, "digest": blob, "size": packed.blob_size, "entries": packed.entries}),
    );
    Ok(())
}
