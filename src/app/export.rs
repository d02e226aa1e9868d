//! A layer becomes its canonical archive.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use crate::archive::{Compress, Packed};
use crate::store::Store;
use crate::store::failure::{Failure, Outcome};
use crate::sys::{Errno, best_effort, file};

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
    let written =
        to_stream(store, asked, compress, Early::to(&file), progress).and_then(|packed| {
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

/// Bytes after which the disk is given what was written.
const STEP: usize = 16 << 20;

/// A file whose bytes are on their way to disk before it is synced.
struct Early<'a> {
    file: &'a File,
    /// Bytes that the disk was not given yet.
    waiting: usize,
}

impl Early<'_> {
    fn to(file: &File) -> Early<'_> {
        Early { file, waiting: 0 }
    }
}

impl Write for Early<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.waiting = self.waiting.saturating_add(n);
        if self.waiting >= STEP {
            file::begin_to_write(self.file.as_fd());
            self.waiting = 0;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
