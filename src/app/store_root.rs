//! Which store is meant, and opening it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::sys::process;

/// Names the store's root.
const VARIABLE: &str = "ACETATE_ROOT";
/// A store in the current directory.
const LOCAL: &str = ".acetate";
/// The system's store.
const SYSTEM: &str = "/var/lib/acetate";

/// Where a store is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// Somebody said so.
    Named(PathBuf),
    /// Where it is when nobody says anything: made at its first use.
    Default(PathBuf),
}

/// What the command is going to do with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Look.
    Read,
    /// Put something into it, or change it.
    Change,
}

/// Opens the store: `root` if given, else `$ACETATE_ROOT`, else `./.acetate` if it
/// is the caller's own and nobody else may write there, else the caller's default.
pub fn open(root: Option<&Path>, what_for: Use) -> Outcome<Store> {
    let store = match (find(root)?, what_for) {
        (Found::Named(path), _) => Store::open(&path)?,
        (Found::Default(path), Use::Read) => Store::open(&path)?,
        (Found::Default(path), Use::Change) => Store::init(&path)?,
    };
    if what_for == Use::Change {
        store.sweep();
    }
    Ok(store)
}

/// `acetate init [PATH]`.
pub fn init(root: Option<&Path>, path: Option<&Path>) -> Outcome<Store> {
    match path {
        Some(path) => Store::init(path),
        None => match find(root)? {
            Found::Named(path) | Found::Default(path) => Store::init(&path),
        },
    }
}

fn find(root: Option<&Path>) -> Outcome<Found> {
    if let Some(root) = root {
        return Ok(Found::Named(root.to_owned()));
    }
    if let Some(root) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        return Ok(Found::Named(PathBuf::from(root)));
    }
    if is_trusted(Path::new(LOCAL)) {
        return Ok(Found::Named(PathBuf::from(LOCAL)));
    }
    default_root().map(Found::Default)
}

/// Whether a directory, not a symlink, is the caller's own, and nobody else may
/// write to it: a store that somebody else put in our way would be given trust.
fn is_trusted(path: &Path) -> bool {
    const OTHERS_WRITE: u32 = 0o022;
    path.symlink_metadata().is_ok_and(|found| {
        found.is_dir()
            && found.uid() == process::effective_ids().0
            && found.mode() & OTHERS_WRITE == 0
    })
}

fn default_root() -> Outcome<PathBuf> {
    let is_system = process::effective_ids().0 == 0 && process::in_first_user_namespace();
    if is_system {
        return Ok(PathBuf::from(SYSTEM));
    }
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("acetate"))
        .ok_or_else(|| {
            Failure::new(
                FailureKind::Usage,
                "no store is named, and without HOME there is no default",
                format!("give --root PATH, or set {VARIABLE}"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_store_that_others_may_write_to_is_not_taken_from_the_current_directory() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        std::fs::create_dir(&own).unwrap();
        let mode = |m| std::fs::set_permissions(&own, std::fs::Permissions::from_mode(m)).unwrap();
        mode(0o755);
        assert!(is_trusted(&own));
        mode(0o775);
        assert!(!is_trusted(&own));
        mode(0o757);
        assert!(!is_trusted(&own));
        mode(0o700);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(!is_trusted(&link), "a symlink may be somebody else's");
    }
}
