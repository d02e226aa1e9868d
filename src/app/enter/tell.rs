//! What the processes of a run tell the one that waits: a line of JSON each.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use serde::{Deserialize, Serialize};

use super::{CANNOT, NotRun};
use crate::store::failure::Failure;
use crate::sys::Errno;

/// Most that is read: a few sentences.
const MOST: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Warning(String),
    /// Nothing can be mounted in the namespaces that were had; why is told next.
    NoNamespaces,
    NotRun {
        code: u8,
        failure: Failure,
    },
}

/// Two ends.
pub(super) fn channel() -> crate::sys::Result<(Heard, Tell)> {
    let (reader, writer) = std::io::pipe().map_err(|e| Errno::from_io(&e))?;
    Ok((
        Heard(File::from(std::os::fd::OwnedFd::from(reader))),
        Tell(File::from(std::os::fd::OwnedFd::from(writer))),
    ))
}

/// The end that tells. It closes when a program is run.
#[derive(Debug)]
pub(super) struct Tell(File);

/// The end that hears.
#[derive(Debug)]
pub(super) struct Heard(File);

/// All that was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) warnings: Vec<String>,
    pub(super) not_run: Option<NotRun>,
    /// Whether that is for want of namespaces.
    pub(super) no_namespaces: bool,
}

impl Tell {
    pub(super) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(super) fn warn(&mut self, sentence: String) {
        self.line(&Line::Warning(sentence));
    }

    /// That what fails next does so for want of namespaces.
    pub(super) fn no_namespaces(&mut self) {
        self.line(&Line::NoNamespaces);
    }

    /// That the command was not run, because of us.
    pub(super) fn failed(&mut self, failure: Failure) {
        self.not_run(CANNOT, failure);
    }

    pub(super) fn not_run(&mut self, code: u8, failure: Failure) {
        self.line(&Line::NotRun { code, failure });
    }

    fn line(&mut self, line: &Line) {
        let told = serde_json::to_vec(line)
            .map_err(std::io::Error::from)
            .and_then(|mut bytes| {
                bytes.push(b'\n');
                self.0.write_all(&bytes)
            });
        if let Err(e) = told {
            tracing::debug!("nobody hears: {e}");
        }
    }
}

impl Heard {
    /// All of it, when nobody is left who could tell more.
    pub(super) fn all(&mut self) -> Told {
        let mut text = Vec::new();
        if let Err(e) = (&mut self.0).take(MOST).read_to_end(&mut text) {
            tracing::debug!("what the run told cannot be read: {e}");
        }
        let mut told = Told::default();
        for line in text.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(Line::Warning(sentence)) => told.warnings.push(sentence),
                Ok(Line::NoNamespaces) => told.no_namespaces = true,
                Ok(Line::NotRun { code, failure }) => {
                    // What was told first is the cause.
                    told.not_run.get_or_insert(NotRun { code, failure });
                }
                Err(e) => tracing::debug!("an unknown line: {e}"),
            }
        }
        told
    }
}
