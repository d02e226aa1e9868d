//! The command line of fuse-overlayfs, of mount(8)'s helpers and of mount.fuse3.
//!
//! Pure: words in, a value out. The callers are listed in the tests, each with
//! the call it makes. What they have in common:
//!
//! * `-o OPTS DIR` and `SOURCE DIR -o OPTS`, several `-o`, in any order;
//! * fuse-overlayfs takes `-f` for foreground, a mount helper for "fake"
//!   (`mount.acetate SPEC DIR [-sfnv] [-N ns] [-o opts] [-t type]`, mount(8)).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::args::Acetate;
use super::failure::Usage;
use super::options::{Meaning, Reader};

/// By which name, and so by which rules, the program was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `fuse-overlayfs …`: the drop-in.
    FuseOverlayfs,
    /// `acetate SOURCE DIR -o …`, as mount.fuse3 calls it for `-t fuse.acetate`.
    MountFuse,
    /// `mount.acetate …`, as mount(8) calls it.
    Helper,
}

impl Dialect {
    /// The name in messages.
    pub fn program(self) -> &'static str {
        match self {
            Dialect::FuseOverlayfs => "fuse-overlayfs",
            Dialect::MountFuse => "acetate",
            Dialect::Helper => "mount.acetate",
        }
    }

    /// What /proc/mounts shows behind `fuse.`.
    pub fn subtype(self) -> &'static str {
        match self {
            Dialect::FuseOverlayfs => "fuse-overlayfs",
            Dialect::MountFuse | Dialect::Helper => "acetate",
        }
    }

    fn how_to_call(self) -> String {
        format!(
            "call it as: {} -o lowerdir=A:B[,upperdir=U,workdir=W] MOUNTPOINT",
            self.program()
        )
    }
}

/// A call, understood.
#[derive(Debug, Clone)]
pub enum Call {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// A mount.
    Mount(Box<MountCall>),
}

/// A mount, as asked for.
#[derive(Debug, Clone, Default)]
pub struct MountCall {
    /// What the options mean.
    pub meaning: Meaning,
    /// The first of two words that are no options.
    pub source: Option<OsString>,
    /// The last of them.
    pub mountpoint: PathBuf,
    /// `-f` for fuse-overlayfs.
    pub foreground: bool,
    /// `-d`, `--debug`.
    pub debug: bool,
    /// `-f` for a mount helper: check the words, mount nothing.
    pub fake: bool,
    /// `-N`: the mount namespace to mount in.
    pub namespace: Option<PathBuf>,
}

/// What has been seen so far.
#[derive(Debug)]
struct Seen {
    dialect: Dialect,
    reader: Reader,
    call: MountCall,
    places: Vec<OsString>,
    one_thread: bool,
    answer: Option<Call>,
}

/// Understands a command line, without its first word.
pub fn parse(dialect: Dialect, args: &[OsString]) -> Result<Call, Usage> {
    let mut seen = Seen {
        dialect,
        reader: Reader::default(),
        call: MountCall::default(),
        places: Vec::new(),
        one_thread: false,
        answer: None,
    };
    let mut args = args.iter();
    let mut only_places = false;
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if only_places || !bytes.starts_with(b"-") || bytes == b"-" {
            seen.places.push(arg.clone());
        } else if bytes == b"--" {
            only_places = true;
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            seen.take_long(long)?;
        } else {
            seen.take_short(bytes.get(1..).unwrap_or_default(), &mut args)?;
        }
    }
    seen.finish()
}

impl Seen {
    fn take_long(&mut self, name: &[u8]) -> Result<(), Usage> {
        match name {
            b"help" => self.answer = Some(Call::Help),
            b"version" => self.answer = Some(Call::Version),
            b"debug" => self.call.debug = true,
            b"foreground" => self.call.foreground = true,
            _ => return Err(self.unknown_option("--", name)),
        }
        Ok(())
    }

    /// Letters behind one dash; one that takes a value takes the rest of the
    /// word or the next one.
    fn take_short<'a>(
        &mut self,
        letters: &[u8],
        more: &mut impl Iterator<Item = &'a OsString>,
    ) -> Result<(), Usage> {
        let helper = self.dialect == Dialect::Helper;
        for (at, letter) in letters.iter().enumerate() {
            match letter {
                b'f' if helper => self.call.fake = true,
                b'f' => self.call.foreground = true,
                b'd' => self.call.debug = true,
                b's' if !helper => self.one_thread = true,
                b's' | b'n' | b'v' => {}
                b'h' => self.answer = Some(Call::Help),
                b'V' => self.answer = Some(Call::Version),
                b'o' | b't' | b'N' => {
                    let rest = letters.get(at + 1..).unwrap_or_default();
                    let value = if rest.is_empty() {
                        more.next().map(|v| v.as_bytes().to_vec())
                    } else {
                        Some(rest.to_vec())
                    };
                    return self.take_value(*letter, value);
                }
                _ => return Err(self.unknown_option("-", &[*letter])),
            }
        }
        Ok(())
    }

    fn take_value(&mut self, letter: u8, value: Option<Vec<u8>>) -> Result<(), Usage> {
        let Some(value) = value else {
            return Err(Usage::new(
                format!("-{} needs a value behind it", char::from(letter)),
                self.dialect.how_to_call(),
            ));
        };
        match letter {
            b'o' => self.reader.read(&value),
            b'N' => {
                self.call.namespace = Some(PathBuf::from(OsString::from_vec(value)));
                Ok(())
            }
            // -t TYPE: we know what we are.
            _ => Ok(()),
        }
    }

    fn unknown_option(&self, dashes: &str, name: &[u8]) -> Usage {
        Usage::new(
            format!("unknown option {dashes}{}", String::from_utf8_lossy(name)),
            self.dialect.how_to_call(),
        )
    }

    fn finish(mut self) -> Result<Call, Usage> {
        if let Some(answer) = self.answer {
            return Ok(answer);
        }
        let wrong = |what: &str| Err(Usage::new(what, self.dialect.how_to_call()));
        let mut places = self.places.into_iter();
        let (source, mountpoint) = match (places.next(), places.next(), places.next()) {
            (Some(mountpoint), None, _) => (None, mountpoint),
            (Some(source), Some(mountpoint), None) => (Some(source), mountpoint),
            (None, ..) => return wrong("no mount point given"),
            _ => return wrong("more than a source and a mount point given"),
        };
        if mountpoint.is_empty() {
            return wrong("the mount point given is an empty word");
        }
        self.call.meaning = self.reader.finish();
        if self.one_thread {
            self.call.meaning.options.threads = Some(1);
        }
        self.call.source = source.filter(|s| !s.is_empty());
        self.call.mountpoint = PathBuf::from(mountpoint);
        Ok(Call::Mount(Box::new(self.call)))
    }
}

/// Whether these words (behind the program's name) are mount.fuse3's call
/// `SOURCE DIR -o OPTS` or `-o OPTS DIR`, and not one of our commands.
pub fn looks_like_a_mount(args: &[OsString]) -> bool {
    let has_o = args.iter().any(|a| a.as_bytes().starts_with(b"-o"));
    let is_command = |word: &OsStr| word == "help" || Acetate::has_command(word);
    has_o && behind_global_options(args).is_some_and(|first| !is_command(first))
}

/// The first word that is none of the options every command takes.
fn behind_global_options(args: &[OsString]) -> Option<&OsStr> {
    let mut words = args.iter();
    loop {
        let word = words.next()?;
        match word.as_bytes() {
            b"-q" | b"-v" | b"--quiet" | b"--verbose" => {}
            b"--root" | b"--format" => {
                words.next()?;
            }
            w if w.starts_with(b"--root=") || w.starts_with(b"--format=") => {}
            _ => return Some(word),
        }
    }
}

#[cfg(test)]
#[path = "compat_tests.rs"]
mod tests;
