//! Records: what is known of a layer, of a content, of a workspace.
//!
//! Fields that this version does not know are kept in `rest` and written again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;

/// `store.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoreRecord {
    /// See [`super::layout::FORMAT`].
    pub format: u32,
    /// What this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `layers/HEX/layer.json`: what can be found out from the tree itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// sha256 of its canonical tar.
    pub diff_id: Digest,
    /// Bytes of its canonical tar.
    pub size: u64,
    /// How many names.
    pub entries: u64,
    /// Owners, modes and types stand in xattrs (`user.containers.override_stat`).
    #[serde(default)]
    pub disguised: bool,
    /// What this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A layer that another one stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// As it was called then.
    pub name: String,
    /// What it was then.
    pub diff_id: Digest,
}

/// `names/NAME.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Its name.
    pub name: String,
    /// Its content.
    pub diff_id: Digest,
    /// Digest of the whole chain; none where a live directory is part of it.
    pub chain_id: Option<String>,
    /// The layers below, the next one first.
    pub parents: Vec<Parent>,
    /// Bytes of its canonical tar.
    pub size: u64,
    /// How many names.
    pub entries: u64,
    /// When, RFC 3339.
    pub created: String,
    /// What it was made of.
    pub source: String,
    /// A user's own words.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// One lower of a workspace, uppermost first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Lower {
    /// A layer of the store.
    Layer(Parent),
    /// A directory in place.
    Directory {
        /// Where.
        directory: PathBuf,
    },
}

/// What a workspace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkspaceKind {
    /// An upper over lowers, mounted.
    Overlay,
    /// Lowers only, mounted read only.
    View,
    /// A plain tree with what the lowers show written out: nothing is mounted.
    Copy,
}

/// `workspaces/NAME/workspace.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkspaceRecord {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: WorkspaceKind,
    /// What it was made of, uppermost first.
    pub lowers: Vec<Lower>,
    /// Words of `-o` for the mount.
    pub options: Vec<String>,
    /// Where it is mounted; of a copy, where its tree is, or a link to that.
    pub mountpoint: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Until when what lies below was left alone for sure: a later ctime there says
    /// that somebody changed it since the workspace shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Moment>,
    /// What this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A moment of the clock that files get their times from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since 1970.
    pub sec: i64,
    /// Nanoseconds of the second.
    pub nsec: u32,
}

impl WorkspaceRecord {
    /// Whether its mount shows every file as one user's, so that owners say nothing.
    pub fn squashes(&self) -> bool {
        let words = self.options.iter().flat_map(|o| o.split(','));
        words.into_iter().any(|word| word.starts_with("squash_to_"))
    }

    /// The layers of the store in it.
    pub fn layers(&self) -> impl Iterator<Item = &Parent> {
        self.lowers.iter().filter_map(|l| match l {
            Lower::Layer(layer) => Some(layer),
            Lower::Directory { .. } => None,
        })
    }
}

/// A record as it is written: indented, with a newline at its end.
pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec_pretty(record)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// This moment as RFC 3339 has it, in whole seconds of UTC.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    rfc3339(since.map_or(0, |d| d.as_secs()))
}

/// Seconds since 1970 as RFC 3339 has them.
fn rfc3339(seconds: u64) -> String {
    // Days to a date: "civil from days" of the proleptic Gregorian calendar,
    // counted in eras of 400 years from 1 March 0000.
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_700_000, "2026-11-26T13:33:20Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn fields_of_a_later_version_survive() {
        let text = format!(
            r#"{{"diff_id":"sha256:{}","size":1,"entries":2,"later":{{"a":[1]}}}}"#,
            "ab".repeat(32)
        );
        let content: Content = serde_json::from_str(&text).unwrap();
        let again = String::from_utf8(encode(&content).unwrap()).unwrap();
        assert!(
            again.contains("\"later\"") && again.ends_with("}\n"),
            "{again}"
        );
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let record = r#"{"diff_id":"sha256:../../etc","size":1,"entries":2}"#;
        assert!(serde_json::from_str::<Content>(record).is_err());
    }

    #[test]
    fn lowers_are_layers_or_directories() {
        let text = format!(
            r#"[{{"name":"a","diff_id":"sha256:{}"}},{{"directory":"/home"}}]"#,
            "0".repeat(64)
        );
        let lowers: Vec<Lower> = serde_json::from_str(&text).unwrap();
        assert!(matches!(
            lowers.as_slice(),
            [Lower::Layer(_), Lower::Directory { .. }]
        ));
    }
}
