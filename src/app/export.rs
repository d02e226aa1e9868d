//! A layer becomes its canonical archive.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::archive::{Compress, Packed};
use crate::store::Store;
use crate::store::failure::{Failure, Outcome};
use crate::sys::{Errno, best_effort};

use super::content;
use super::import::Step;
use super::own_files;

/// Writes a layer's archive to a stream. What was written before a failure is no
/// archive.
pub fn to_stream(
    store: &Store,
    asked: &str,
    compress: Compress,
    out: impl Write + Send,
    progress: &mut dyn FnMut(Step),
) -> Outcome<Packed> {
    own_files::reach();
    let record = store.layer(asked)?;
    let mut told = |entries| {
        progress(Step {
            done: entries,
            total: Some(record.entries),
            entries,
        });
    };
    content::write_archive(store, &record, compress, out, &mut told)
}

/// Writes a layer's archive to a file, which appears when it is complete and on disk.
///
/// # Crash
/// `.NAME.acetate-PID` may be left beside it.
pub fn to_file(
    store: &Store,
    asked: &str,
    compress: Compress,
    path: &Path,
    progress: &mut dyn FnMut(Step),
) -> Outcome<Packed> {
    let failed = |e: std::io::Error| Failure::system(path, "be written", Errno::from_io(&e));
    let name = path.file_name().ok_or_else(|| {
        let what = format!("{} is no file", path.display());
        Failure::new(
            crate::store::failure::FailureKind::Usage,
            what,
            "name a file to write",
        )
    })?;
    let hidden = format!(".{}.acetate-{}", name.to_string_lossy(), std::process::id());
    let aside = path.with_file_name(hidden);
    let file = File::create_new(&aside).map_err(failed)?;
    let written = to_stream(store, asked, compress, &file, progress).and_then(|packed| {
        file.sync_all().map_err(failed)?;
        std::fs::rename(&aside, path).map_err(failed)?;
        let above = path.parent().filter(|p| !p.as_os_str().is_empty());
        let above = File::open(above.unwrap_or(Path::new("."))).map_err(failed)?;
        above.sync_all().map_err(failed)?;
        Ok(packed)
    });
    if written.is_err() {
        let removed = std::fs::remove_file(&aside).map_err(|e| Errno::from_io(&e));
        best_effort("remove an archive that was not finished", removed);
    }
    written
}
