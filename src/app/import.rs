//! An archive, from a file or a pipe, becomes a layer.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use crate::archive::{self, Digests, Progress, Sync, UnpackOptions, Unpacked};
use crate::digest::Digest;
use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::sys::Errno;

use super::content;
use super::early_sync::EarlySync;
use super::layer::{Growing, Made, NewLayer};

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Bytes of the archive that were read, compressed as it is.
    pub done: u64,
    /// All of them, where that is known.
    pub total: Option<u64>,
    /// Entries.
    pub entries: u64,
}

/// Where the archive comes from.
#[derive(Debug)]
pub struct Source {
    reader: File,
    total: Option<u64>,
    shown: std::path::PathBuf,
}

impl Source {
    /// A file.
    pub fn file(path: &Path) -> Outcome<Source> {
        let reader = File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Failure::new(
                FailureKind::NotFound,
                format!("{} does not exist", path.display()),
                "name an archive, a directory, or - for stdin",
            ),
            _ => Failure::system(path, "be opened", Errno::from_io(&e)),
        })?;
        let found = reader.metadata().ok().filter(std::fs::Metadata::is_file);
        Ok(Source {
            total: found.map(|m| m.len()),
            shown: path.to_owned(),
            reader,
        })
    }

    /// stdin.
    pub fn stdin() -> Outcome<Source> {
        let shown = Path::new("stdin");
        let input = std::io::stdin();
        let copy = input.as_fd().try_clone_to_owned();
        let copy = copy.map_err(|e| Failure::system(shown, "be read", Errno::from_io(&e)))?;
        Ok(Source {
            reader: File::from(copy),
            total: None,
            shown: shown.to_owned(),
        })
    }
}

/// Makes the layer. `wanted` is the digest that the archive, compressed or not, must
/// have.
pub fn import(
    store: &Store,
    source: Source,
    new: &NewLayer,
    wanted: Option<&Digest>,
    progress: &mut dyn FnMut(Step),
) -> Outcome<Made> {
    store.check_free(&new.name)?;
    let growing = Growing::new(store)?;
    let Source {
        reader,
        total,
        shown,
    } = source;
    let mut early = EarlySync::new(growing.tree());
    let digests = match wanted {
        Some(_) => Digests::Count,
        None => Digests::Skip,
    };
    let unpacked = unpack(&growing, reader, &shown, digests, &mut |p| {
        early.made(p.entries, p.tar_bytes);
        progress(Step {
            done: p.source_bytes,
            total,
            entries: p.entries,
        });
    })?;
    check_digest(&unpacked, wanted, &shown)?;
    early.complete(unpacked.entries);
    let content = content::measure(
        growing.tree(),
        &growing.path(),
        &unpacked.records,
        &content::owners(),
    )?;
    let failed = |e| Failure::system(&growing.path(), "be written to disk", e);
    early.end().map_err(failed)?;
    growing.finish(store, &content, &unpacked.records, new)
}

/// Unpacks an archive into a growing layer.
pub fn unpack(
    growing: &Growing,
    reader: impl Read + Send + 'static,
    shown: &Path,
    digests: Digests,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Outcome<Unpacked> {
    let mut options = UnpackOptions::new(content::owners());
    // The layer is synced when it is complete.
    options.sync = Sync::No;
    options.digests = digests;
    let unpacked = archive::unpack(reader, growing.tree().as_fd(), &options, progress);
    unpacked.map_err(|e| content::failure(&e, shown))
}

fn check_digest(unpacked: &Unpacked, wanted: Option<&Digest>, shown: &Path) -> Outcome<()> {
    let totals = &unpacked.totals;
    let Some(wanted) = wanted else {
        return Ok(());
    };
    if [totals.source, totals.tar].contains(&Some(*wanted)) {
        return Ok(());
    }
    let is = totals.source.map(|is| is.to_string()).unwrap_or_default();
    Err(Failure::new(
        FailureKind::Integrity,
        format!("{} has the digest {is}, not {wanted}", shown.display()),
        "nothing was imported; get the archive again, or ask where the digest is from",
    ))
}
