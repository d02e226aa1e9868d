//! What can be wrong with an archive or a tree, each with the entry's name.

use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::sys::Errno;

/// Why an archive was not read, unpacked or written.
#[derive(Debug)]
pub enum Error {
    /// The archive's bytes break the format, or end too early.
    Format {
        /// The entry, or where in the archive.
        place: Place,
        /// What is wrong.
        what: String,
    },
    /// The archive asks for something that a layer must not be given.
    Refused {
        /// The entry.
        place: Place,
        /// What it asks for.
        what: String,
    },
    /// The archive could not be read (its compression included).
    Source(io::Error),
    /// The archive could not be written.
    Sink(io::Error),
    /// The layer's tree could not be written or read.
    Tree {
        /// The path below the layer's root.
        path: Vec<u8>,
        /// What was tried.
        doing: Cow<'static, str>,
        /// What the kernel said.
        errno: Errno,
    },
    /// The layer's tree holds what no archive can.
    Unfit {
        /// The path below the layer's root.
        path: Vec<u8>,
        /// What is wrong.
        what: String,
    },
    /// A thread of ours ended without a word: a fault of ours.
    Bug(&'static str),
}

/// Where in an archive something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An entry, by the name it has in the archive.
    Entry(Vec<u8>),
    /// A position, in bytes of the uncompressed archive.
    At(u64),
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn format(place: Place, what: impl Into<String>) -> Error {
        Error::Format {
            place,
            what: what.into(),
        }
    }

    pub(crate) fn refused(entry: &[u8], what: impl Into<String>) -> Error {
        Error::Refused {
            place: Place::Entry(entry.to_vec()),
            what: what.into(),
        }
    }

    pub(crate) fn unfit(path: &[u8], what: impl Into<String>) -> Error {
        Error::Unfit {
            path: path.to_vec(),
            what: what.into(),
        }
    }

    /// Whether the disk, a quota or a file-size limit is what was in the way.
    pub fn is_out_of_space(&self) -> bool {
        let full = [Errno::ENOSPC, Errno::EDQUOT, Errno::EFBIG];
        match self {
            Error::Tree { errno, .. } => full.contains(errno),
            Error::Sink(e) => full.contains(&Errno::from_io(e)),
            _ => false,
        }
    }
}

/// Says which path a system call was for.
pub(crate) trait For<T> {
    /// `doing` reads as in "cannot DOING PATH".
    fn doing(self, doing: impl Into<Cow<'static, str>>, path: &[u8]) -> Result<T>;
}

impl<T> For<T> for crate::sys::Result<T> {
    fn doing(self, doing: impl Into<Cow<'static, str>>, path: &[u8]) -> Result<T> {
        self.map_err(|errno| Error::Tree {
            path: path.to_vec(),
            doing: doing.into(),
            errno,
        })
    }
}

/// Bytes of a name as a person reads them: what is not printable is escaped, so that
/// a name cannot draw on a terminal.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 512;
        let part = self.0.get(..LONGEST).unwrap_or(self.0);
        for chunk in part.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if c.is_control() || turns_text(c) => write!(f, "{}", c.escape_default())?,
                    c => write!(f, "{c}")?,
                }
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        if part.len() < self.0.len() {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

/// Marks that change the direction of what follows: a name could show as another.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Entry(name) => write!(f, "entry {}", Shown(name)),
            Place::At(offset) => write!(f, "at byte {offset}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Format { place, what } => write!(f, "the archive is damaged: {place}: {what}"),
            Error::Refused { place, what } => write!(f, "the archive is refused: {place}: {what}"),
            Error::Source(e) => write!(f, "the archive cannot be read: {e}"),
            Error::Sink(e) => write!(f, "the archive cannot be written: {e}"),
            Error::Tree { path, doing, errno } => {
                let root: &[u8] = b"(the layer's root)";
                let path = if path.is_empty() { root } else { path };
                write!(f, "cannot {doing} {}: {errno}", Shown(path))
            }
            Error::Unfit { path, what } => {
                write!(f, "the layer cannot be archived: {}: {what}", Shown(path))
            }
            Error::Bug(what) => write!(f, "internal error: {what}; please report it"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Source(e) | Error::Sink(e) => Some(e),
            Error::Tree { errno, .. } => Some(errno),
            _ => None,
        }
    }
}
