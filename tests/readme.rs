//! Runs what the README tells people to type: every block marked `sh`.
//!
//! Blocks marked otherwise (`console`, `text`, `toml`) show things that are not
//! there in a test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ACETATE: &str = env!("CARGO_BIN_EXE_acetate");

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text of every block that begins with three backquotes and `sh`.
fn runnable_blocks(readme: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let body: Vec<&str> = lines
                .by_ref()
                .take_while(|l| !l.starts_with("```"))
                .collect();
            if line == "```sh" {
                blocks.push(body.join("\n"));
            }
        }
    }
    blocks
}

/// A folder in which `acetate` is a command and `scripts/` is ours.
fn make_place() -> tempfile::TempDir {
    let place = tempfile::Builder::new()
        .prefix("acetate-readme-")
        .tempdir()
        .unwrap();
    fs::create_dir(place.path().join("bin")).unwrap();
    symlink(ACETATE, place.path().join("bin/acetate")).unwrap();
    symlink(repository().join("scripts"), place.path().join("scripts")).unwrap();
    place
}

fn mounts_below(place: &Path) -> Vec<String> {
    let lines = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = place.display().to_string();
    lines
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .filter(|m| m.starts_with(&below))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_runnable_block_of_the_readme_runs() {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root || !Path::new("/dev/fuse").exists() {
        eprintln!("SKIPPED: needs root and /dev/fuse");
        return;
    }
    let blocks = runnable_blocks(&fs::read_to_string(repository().join("README.md")).unwrap());
    assert!(blocks.len() >= 3, "the blocks were not found");
    for block in blocks {
        let place = make_place();
        let path = format!(
            "{}:{}",
            place.path().join("bin").display(),
            std::env::var("PATH").unwrap()
        );
        let out = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &block])
            .current_dir(place.path())
            .env("PATH", path)
            .env("ACETATE", ACETATE)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let left = mounts_below(place.path());
        for mount in &left {
            Command::new("umount")
                .arg("-l")
                .arg(mount)
                .status()
                .unwrap();
        }
        assert!(
            out.status.success() && left.is_empty(),
            "{block}\n--\n{}{}\nleft mounted: {left:?}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
    }
}

#[test]
fn every_option_of_the_help_is_in_the_readme() {
    let out = Command::new(ACETATE)
        .args(["fuse-overlayfs", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(out.stdout).unwrap();
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let options = help
        .lines()
        .skip_while(|l| !l.starts_with("Options"))
        .filter_map(|line| {
            let word = line.strip_prefix("  ")?;
            let end = word.find([' ', '=', ',', '[']).unwrap_or(word.len());
            (!word.starts_with(' ')).then(|| word[..end].to_owned())
        });
    let missing: Vec<String> = options.filter(|o| !readme.contains(o.as_str())).collect();
    assert!(missing.is_empty(), "not in the README: {missing:?}");
}
