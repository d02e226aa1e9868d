//! The store on disk: format 1. Everything in it can be read by a person.
//!
//! ```text
//! ROOT/
//!   store.json                      {"format": 1}
//!   names/NAME.json                 one layer as its users know it
//!   layers/HEX/                     one content; HEX is its diff ID without "sha256:"
//!     layer.json                    diff ID, sizes, whether owners stand in xattrs
//!     side-records                  what files cannot be given (archive::records); often none
//!     tree/                         the tree, never changed once it is here
//!   workspaces/NAME/
//!     workspace.json                what it is made of, how and where it is mounted
//!     upper/  work/                 its changes (overlayfs format); none for a view
//!     merged/                       where it is mounted unless it was told another place
//!     commit/                       only while a commit is under way, see below
//!     apply.json                    only while `ws apply` is under way: what is brought back
//!     copy/                         of a copy, in the place of the three above:
//!       tree/                       what the lowers show, written out; it is written to
//!       manifest                    what was written, see `manifest`
//!   staging/ID/                     what somebody is making; rubbish where nobody locks it
//!   locks/KIND.NAME                 empty files, locked with flock(2)
//!   damaged/                        what `fsck --repair` took out of the way
//! ```
//!
//! **A layer** is a record in `names/`: name, diff ID (sha256 of its canonical
//! tar), chain ID (OCI image-spec, config.md "Layer ChainID"), parents from the
//! next one downwards, sizes, when it was made and of what, labels. Records with
//! one diff ID share one folder of `layers/`: identical layers are stored once.
//!
//! **Records** are JSON (RFC 8259), at most [`RECORD_MAX`] bytes. Fields that a
//! version does not know are kept by it. `format` in `store.json` grows when an
//! older version could do damage; a version refuses stores newer than itself.
//!
//! **A change** is prepared in `staging/` or `commit/`, written to disk, and given
//! its place by one rename(2), after which the directory is synced. What a crash
//! leaves in `staging/` is removed by whoever opens the store next.
//!
//! **A commit without a copy** moves two things, so its plan is written first:
//!
//! | step | on disk |
//! |---|---|
//! | 1 | `commit/` appears: `layer/layer.json`, `name.json`, `workspace.json`, empty `upper/` and `work/` |
//! | 2 | `upper` → `commit/layer/tree`: from here on the commit is carried out, whoever does it |
//! | 3 | marks that only an upper needs are taken off the tree |
//! | 4 | `commit/layer` → `layers/HEX` (removed where that content is there already) |
//! | 5 | `commit/name.json` → `names/NAME.json` |
//! | 6 | `work` is removed, `commit/work` → `work`, `commit/upper` → `upper` |
//! | 7 | `commit/workspace.json` → `workspace.json` |
//! | 8 | `commit/` is removed |
//!
//! A crash before step 2 leaves the old state, and `commit/` is removed; after it
//! the next command that works on the workspace, `gc` or `fsck --repair` goes on
//! where it ended.

/// Version of the format that this program writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// Longest record.
pub const RECORD_MAX: u64 = 1 << 20;

/// File at the root that makes a directory a store.
pub const STORE: &[u8] = b"store.json";
/// Records of layers.
pub const NAMES: &[u8] = b"names";
/// Contents of layers.
pub const LAYERS: &[u8] = b"layers";
/// Workspaces.
pub const WORKSPACES: &[u8] = b"workspaces";
/// What is being made.
pub const STAGING: &[u8] = b"staging";
/// Lock files.
pub const LOCKS: &[u8] = b"locks";
/// What was taken out of the way.
pub const DAMAGED: &[u8] = b"damaged";
/// Every directory of the root but [`DAMAGED`], which appears when it is needed.
pub const DIRECTORIES: [&[u8]; 5] = [NAMES, LAYERS, WORKSPACES, STAGING, LOCKS];

/// Record of a content.
pub const CONTENT: &[u8] = b"layer.json";
/// What the tree of a content could not be given, one line an object.
pub const SIDE_RECORDS: &[u8] = b"side-records";
/// Longest of those.
pub const SIDE_RECORDS_MAX: u64 = 1 << 28;
/// Tree of a content.
pub const TREE: &[u8] = b"tree";
/// Record of a workspace.
pub const WORKSPACE: &[u8] = b"workspace.json";
/// Changes of a workspace.
pub const UPPER: &[u8] = b"upper";
/// Work directory beside it.
pub const WORK: &[u8] = b"work";
/// Mount point inside a workspace.
pub const MERGED: &[u8] = b"merged";
/// An apply under way.
pub const APPLY: &[u8] = b"apply.json";
/// A plain tree and its manifest: one folder, so that both change in one step.
pub const COPY: &[u8] = b"copy";
/// The manifest in it; its tree is called [`TREE`].
pub const MANIFEST: &[u8] = b"manifest";
/// Longest manifest.
pub const MANIFEST_MAX: u64 = 1 << 30;
/// A commit under way.
pub const COMMIT: &[u8] = b"commit";
/// The same, before it counts.
pub const COMMIT_NEW: &[u8] = b"commit.new";
/// The layer's folder in it.
pub const COMMIT_LAYER: &[u8] = b"layer";
/// The layer's record in it.
pub const COMMIT_NAME: &[u8] = b"name.json";

/// Longest name of a layer or workspace.
const NAME_LONGEST: usize = 128;
/// Digits of a sha256 in hexadecimal.
const HEX_DIGITS: usize = 64;

/// Whether this may be the name of a layer or workspace: letters, digits, `.`,
/// `_` and `-`, beginning with a letter or digit, at most 128 of them.
pub fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    text.len() <= NAME_LONGEST
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(plain)
}

/// The file of a layer's record.
pub fn record_file(name: &str) -> Vec<u8> {
    format!("{name}.json").into_bytes()
}

/// The name of a layer whose record is this file.
pub fn name_of_record(file: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(file).ok()?.strip_suffix(".json")?;
    is_name(name).then_some(name)
}

/// Whether this is the folder of a content.
pub fn is_hex(text: &str) -> bool {
    let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.len() == HEX_DIGITS && text.chars().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_are_none() {
        for good in ["a", "debian-12.1", "A_b", "0", &"x".repeat(128)] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a b",
            "é",
            "a\n",
            "a:b",
            &"x".repeat(129),
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert_eq!(name_of_record(b"a.json.json"), Some("a.json"));
        assert_eq!(name_of_record(b"..json"), None);
        assert_eq!(name_of_record(b"a.tmp"), None);
    }

    #[test]
    fn a_content_is_named_by_sixty_four_lower_case_digits() {
        assert!(is_hex(&"0a".repeat(32)));
        assert!(!is_hex(&"0A".repeat(32)) && !is_hex("0a"));
    }
}
