//! Which of the changes: all, or those at and below some paths.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::changes::{self, Act};
use crate::app::view::components;
use crate::layer::Layer;
use crate::layer::mark;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::sys::dir::{self, Rename};
use crate::sys::{Errno, Name, Result};

/// A path from the root; the root's is empty.
pub(super) type Path = Vec<Name>;

/// What was chosen; nothing named: all.
#[derive(Debug, Clone)]
pub(super) struct Selection(Vec<Path>);

/// How a path lies to what was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Chosen, or below what is.
    Within,
    /// On the way to it.
    Above,
    /// Elsewhere.
    Outside,
}

/// A system call's failure, or one that has its sentence already.
pub(super) enum Trouble {
    System(Errno),
    Told(Failure),
}

impl Trouble {
    pub(super) fn or(self, tell: impl FnOnce(Errno) -> Failure) -> Failure {
        match self {
            Trouble::System(e) => tell(e),
            Trouble::Told(f) => f,
        }
    }
}

impl From<Errno> for Trouble {
    fn from(e: Errno) -> Self {
        Trouble::System(e)
    }
}

impl Selection {
    /// Everything.
    pub(super) fn all() -> Selection {
        Selection(Vec::new())
    }

    /// What a user named; the root is everything.
    pub(super) fn of_paths(paths: &[PathBuf]) -> Outcome<Selection> {
        let mut chosen = Vec::new();
        for path in paths {
            let names: Path = components(path)?.into_iter().map(Name::from).collect();
            if names.is_empty() {
                return Ok(Selection::all());
            }
            chosen.push(names);
        }
        Ok(Selection(chosen))
    }

    /// What a record says.
    pub(super) fn of_text(text: &[String]) -> Option<Selection> {
        of_text(text).map(Selection)
    }

    /// For a record.
    pub(super) fn to_text(&self) -> Vec<String> {
        to_text(&self.0)
    }

    pub(super) fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn place(&self, path: &[Name]) -> Place {
        if self.is_all() || self.0.iter().any(|chosen| path.starts_with(chosen)) {
            return Place::Within;
        }
        match self.0.iter().any(|chosen| chosen.starts_with(path)) {
            true => Place::Above,
            false => Place::Outside,
        }
    }

    /// Whether a path as it is printed was chosen.
    pub(super) fn holds_text(&self, path: &str, hex: Option<&str>) -> bool {
        let bytes = match hex.and_then(from_hex) {
            Some(bytes) => bytes,
            None => path.as_bytes().to_vec(),
        };
        self.place(&split(&bytes)) == Place::Within
    }

    /// The first path that was named and of which the upper says nothing.
    pub(super) fn first_missing(&self, upper: &Layer) -> Result<Option<String>> {
        for path in &self.0 {
            if !says_something(upper, path)? {
                return Ok(Some(shown(path)));
            }
        }
        Ok(None)
    }

    /// Fails where a path lies in something that was replaced or deleted as a whole.
    pub(super) fn check_wholes(&self, upper: &Layer) -> std::result::Result<(), Trouble> {
        for path in &self.0 {
            let mut at = upper.root.clone();
            for (depth, name) in path.iter().enumerate() {
                let Some(entry) = changes::entry(upper, &at, name)? else {
                    break;
                };
                let on_the_way = depth + 1 < path.len();
                if on_the_way && entry.act != Act::Merge {
                    let whole = path.get(..=depth).unwrap_or_default();
                    return Err(Trouble::Told(Failure::new(
                        FailureKind::Usage,
                        format!("{} was replaced or deleted as a whole", shown(whole)),
                        format!("name {} itself", shown(whole)),
                    )));
                }
                if on_the_way {
                    at = changes::below(&at, std::slice::from_ref(name))?;
                }
            }
        }
        Ok(())
    }
}

/// Whether the upper has something at a path, or hides what is above it.
fn says_something(upper: &Layer, path: &[Name]) -> Result<bool> {
    let mut at = upper.root.clone();
    for (depth, name) in path.iter().enumerate() {
        match changes::entry(upper, &at, name)? {
            None => return Ok(false),
            Some(entry) if entry.act != Act::Merge || depth + 1 == path.len() => {
                return Ok(true);
            }
            Some(_) => at = changes::below(&at, std::slice::from_ref(name))?,
        }
    }
    Ok(true)
}

/// Moves what was chosen out of the upper into a folder: one rename each.
pub(super) fn take_out(upper: &Layer, selection: &Selection, to: &Arc<OwnedFd>) -> Result<()> {
    let mut count = 0_u32;
    let mut move_out = |parent: &Arc<OwnedFd>, name: &[u8]| -> Result<()> {
        count = count.saturating_add(1);
        let aside = format!("out-{count}");
        let from = (parent.as_fd(), name);
        match dir::rename(from, (to.as_fd(), aside.as_bytes()), Rename::NoReplace) {
            Err(Errno::ENOENT) => Ok(()),
            r => r,
        }
    };
    for path in &selection.0 {
        let Some((name, above)) = path.split_last() else {
            continue;
        };
        let parent = match changes::below(&upper.root, above) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            r => r?,
        };
        move_out(&parent, name)?;
        if let Some(mark) = mark::dot_wh_name(name) {
            move_out(&parent, &mark)?;
        }
        dir::fsync_dir(parent.as_fd())?;
    }
    Ok(())
}

/// For a person: nothing in it can be taken for something else.
pub(super) fn shown(path: &[Name]) -> String {
    let mut text = String::new();
    for name in path {
        text.push('/');
        text.extend(String::from_utf8_lossy(name).escape_debug());
    }
    if text.is_empty() {
        text.push('/');
    }
    text
}

/// Below the directory.
pub(super) fn relative(path: &[Name]) -> PathBuf {
    path.iter().map(|name| OsStr::from_bytes(name)).collect()
}

fn split(bytes: &[u8]) -> Path {
    let parts = bytes.split(|b| *b == b'/').filter(|p| !p.is_empty());
    parts.map(Name::from).collect()
}

/// Paths for a record: their bytes in hexadecimal.
pub(super) fn to_text(paths: &[Path]) -> Vec<String> {
    let text = |path: &Path| {
        let bytes = path.iter().flat_map(|n| [b"/", &n[..]].concat());
        bytes.map(|b| format!("{b:02x}")).collect()
    };
    paths.iter().map(text).collect()
}

/// Paths of a record; `None` where it is damaged.
pub(super) fn of_text(text: &[String]) -> Option<Vec<Path>> {
    let one = |line: &String| {
        let path = split(&from_hex(line)?);
        let sound = path.iter().all(|n| crate::sys::valid_name(n).is_ok());
        (sound && !path.is_empty() || line.is_empty()).then_some(path)
    };
    text.iter().map(one).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        split(text.as_bytes())
    }

    #[test]
    fn a_path_is_chosen_with_all_below_it_and_what_is_above_is_on_the_way() {
        let chosen = Selection::of_paths(&["/a/b".into(), "./c".into()]).unwrap();
        assert_eq!(chosen.place(&path("a/b/x")), Place::Within);
        assert_eq!(chosen.place(&path("c")), Place::Within);
        assert_eq!(chosen.place(&path("a")), Place::Above);
        assert_eq!(chosen.place(&path("")), Place::Above);
        assert_eq!(chosen.place(&path("a/bb")), Place::Outside);
        assert!(
            Selection::of_paths(&["a".into(), "/".into()])
                .unwrap()
                .is_all()
        );
        assert!(Selection::of_paths(&["a/../b".into()]).is_err());
    }

    #[test]
    fn names_of_any_bytes_survive_a_record() {
        let odd = vec![
            vec![Name::from(&b"a\n\xff"[..]), Name::from(&b"b"[..])],
            vec![],
        ];
        let text = to_text(&odd);
        assert_eq!(of_text(&text), Some(odd));
        for damaged in ["0", "zz", "2f2e2e", "2f61002f"] {
            assert_eq!(of_text(&[damaged.to_owned()]), None, "{damaged}");
        }
        assert_eq!(shown(&path("a\nb")), "/a\\nb");
    }
}
