//! fusermount3: the setuid program that mounts for ordinary users.
//!
//! The protocol is libfuse's: the program gets the number of a socket in the
//! environment variable `_FUSE_COMMFD`, mounts, and sends the descriptor of
//! /dev/fuse through that socket.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::FdFlags;

use super::pass;

/// The names it goes by, newest first.
const NAMES: [&str; 2] = ["fusermount3", "fusermount"];
/// Where it stands when PATH says nothing (mount(8) resets it).
const FOLDERS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];

/// Why fusermount3 did not do it.
#[derive(Debug)]
pub enum Error {
    /// There is no such program.
    Missing,
    /// It could not be run, or did not speak the protocol.
    Broken(String),
    /// It said no; its own words.
    Refused(String),
}

/// The program's path.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let from_path: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|p| p.is_absolute())
        .collect();
    NAMES.iter().find_map(|name| {
        from_path
            .iter()
            .cloned()
            .chain(FOLDERS.iter().map(PathBuf::from))
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    })
}

/// Mounts at `mountpoint` and hands over the FUSE descriptor.
pub fn mount(mountpoint: &Path, options: &OsStr) -> Result<OwnedFd, Error> {
    let program = find().ok_or(Error::Missing)?;
    let broken = |what: &str, why: &dyn std::fmt::Display| Error::Broken(format!("{what}: {why}"));
    let (ours, theirs) = pass::pair().map_err(|e| broken("no socket pair", &e))?;
    // Only this process runs: no other child can inherit it meanwhile.
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).map_err(|e| broken("no socket pair", &e))?;
    let child = Command::new(&program)
        .arg("-o")
        .arg(options)
        .arg("--")
        .arg(mountpoint)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| broken(&format!("{} cannot be run", program.display()), &e))?;
    drop(theirs);
    let received = pass::receive(&ours);
    let output = child
        .wait_with_output()
        .map_err(|e| broken("waiting for fusermount3", &e))?;
    match received {
        Some(fd) => Ok(fd),
        None => Err(Error::Refused(words_of(&output.stderr))),
    }
}

/// Unmounts through fusermount3.
pub fn unmount(mountpoint: &Path, detach: super::mount::Detach) -> Result<(), Error> {
    let program = find().ok_or(Error::Missing)?;
    let mut command = Command::new(&program);
    command.arg("-u");
    if detach == super::mount::Detach::Now {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(mountpoint)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .map_err(|e| Error::Broken(format!("{} cannot be run: {e}", program.display())))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(Error::Refused(words_of(&output.stderr)))
    }
}

/// What it said on stderr, as one line.
fn words_of(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    if lines.is_empty() {
        "it said nothing".to_owned()
    } else {
        lines.join("; ")
    }
}

/// Whether /etc/fuse.conf lets ordinary users open their mounts to others.
pub fn others_are_allowed() -> bool {
    std::fs::read("/etc/fuse.conf").is_ok_and(|text| allows_others(&text))
}

fn allows_others(text: &[u8]) -> bool {
    text.split(|b| *b == b'\n')
        .any(|line| line.trim_ascii() == b"user_allow_other")
}

/// One word of fusermount3's `-o`: commas and backslashes in the value escaped.
pub fn word(key: &str, value: &OsStr) -> OsString {
    let mut text = key.as_bytes().to_vec();
    text.push(b'=');
    for byte in value.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    std::os::unix::ffi::OsStringExt::from_vec(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuse_conf_must_say_it_on_a_line_of_its_own() {
        assert!(allows_others(
            b"# comment\n  user_allow_other \nmount_max = 3\n"
        ));
        assert!(!allows_others(b"#user_allow_other\n"));
        assert!(!allows_others(b"user_allow_other_people\n"));
    }

    #[test]
    fn commas_in_a_source_name_are_escaped() {
        assert_eq!(
            word("fsname", OsStr::new(r"a,b\c")),
            OsStr::new(r"fsname=a\,b\\c")
        );
    }
}
