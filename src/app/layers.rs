//! The directories a mount is made of: found, checked, and where needed held.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::layer::records::SideRecords;
use crate::overlay::options::Options;
use crate::overlay::setup::SetupError;
use crate::store::layout::SIDE_RECORDS_MAX;
use crate::sys::mount::{self, reason};
use crate::sys::{Errno, process, small};

/// Which part a directory plays, as the command line calls it.
#[derive(Debug, Clone, Copy)]
enum Part {
    Lower,
    Upper,
    Work,
}

impl Part {
    fn option(self) -> &'static str {
        match self {
            Part::Lower => "lowerdir",
            Part::Upper => "upperdir",
            Part::Work => "workdir",
        }
    }
}

/// Makes every path absolute: the daemon changes to `/`.
pub fn make_absolute(options: &mut Options) -> Result<(), SetupError> {
    for_each_path(options, |part, path| {
        *path = std::path::absolute(&*path).map_err(|e| {
            SetupError::new(
                format!(
                    "{}={} cannot be made an absolute path: {e}",
                    part.option(),
                    path.display()
                ),
                "give an absolute path",
            )
        })?;
        Ok(())
    })
}

/// Reads what a store keeps beside lowers: once, before anything is mounted.
pub fn read_beside(options: &mut Options, files: &[(usize, PathBuf)]) -> Result<(), SetupError> {
    for (number, path) in files {
        let failed = |why: &str| {
            SetupError::new(
                format!("the side records {} cannot be read: {why}", path.display()),
                "they belong to a layer of a store, whose mounts name them: see `acetate fsck`",
            )
        };
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed("that is no file"));
        };
        let lower = options.lowers.get_mut(*number);
        let lower = lower.ok_or_else(|| failed("there is no such lower layer"))?;
        let bytes = mount::hold_directory(folder)
            .and_then(|at| small::read(at.as_fd(), name.as_bytes(), SIDE_RECORDS_MAX));
        let bytes = match bytes {
            // Nothing of the layer is beside it: that says something of symlinks too.
            Err(Errno::ENOENT) => Vec::new(),
            r => r.map_err(|e| failed(&reason(e)))?,
        };
        let text = String::from_utf8(bytes).map_err(|_| failed("that is no text"))?;
        let records = SideRecords::from_text(&text).map_err(|why| failed(&why))?;
        lower.beside = Some(Arc::new(records));
    }
    Ok(())
}

/// Checks that the directories are there and belong together.
pub fn check(options: &mut Options) -> Result<(), SetupError> {
    if options.lowers.is_empty() {
        return Err(SetupError::new(
            "no lower layer is given",
            "name at least one: -o lowerdir=DIR, or several, uppermost first: -o lowerdir=A:B:C",
        ));
    }
    match (&options.upper, &options.work) {
        (Some(upper), None) if !options.read_only => {
            return Err(SetupError::new(
                format!("upperdir={} is given without a workdir", upper.display()),
                "add workdir=DIR: an empty directory on the same file system as the upperdir",
            ));
        }
        (None, Some(work)) => {
            return Err(SetupError::new(
                format!("workdir={} is given without an upperdir", work.display()),
                "add upperdir=DIR to be able to write, or leave the workdir out for a read-only mount",
            ));
        }
        _ => {}
    }
    if options.lowers.iter().all(|l| l.data_only) {
        return Err(SetupError::new(
            "every lower layer given is data-only",
            "give at least one layer to merge before the first `::`",
        ));
    }
    for_each_path(options, |part, path| hold(part, path).map(drop))
}

fn for_each_path(
    options: &mut Options,
    mut act: impl FnMut(Part, &mut PathBuf) -> Result<(), SetupError>,
) -> Result<(), SetupError> {
    for lower in &mut options.lowers {
        act(Part::Lower, &mut lower.path)?;
    }
    if let Some(upper) = &mut options.upper {
        act(Part::Upper, upper)?;
    }
    if let Some(work) = &mut options.work {
        act(Part::Work, work)?;
    }
    Ok(())
}

fn hold(part: Part, path: &Path) -> Result<OwnedFd, SetupError> {
    mount::hold_directory(path).map_err(|errno| {
        let (option, shown) = (part.option(), path.display());
        match errno {
            mount::Errno::ENOENT => SetupError::new(
                format!("{option}={shown} does not exist"),
                match part {
                    Part::Lower => {
                        "check the spelling; a colon or comma in a path is written `\\:` or `\\,`"
                            .to_owned()
                    }
                    Part::Upper | Part::Work => format!("make it first: mkdir -p {shown}"),
                },
            ),
            mount::Errno::ENOTDIR => SetupError::new(
                format!("{option}={shown} is not a directory"),
                "a layer is a directory tree; unpack an archive or mount an image first",
            ),
            mount::Errno::ENOTCONN => SetupError::new(
                format!("{option}={shown} is in a FUSE mount whose process has ended"),
                "unmount that mount (fusermount3 -u) and make it anew",
            ),
            _ => SetupError::new(
                format!("{option}={shown} cannot be opened: {}", reason(errno)),
                "every directory on the way must be searchable for you",
            ),
        }
    })
}

/// Mode, type included, that the root of the mount will have.
pub fn root_mode(options: &Options) -> u32 {
    const PLAIN_DIRECTORY: u32 = 0o40755;
    let top = options
        .upper
        .as_ref()
        .or_else(|| options.lowers.first().map(|l| &l.path));
    top.and_then(|path| mount::directory_mode(path).ok())
        .unwrap_or(PLAIN_DIRECTORY)
}

/// Descriptors that the caller left open for us and named: `/proc/self/fd/N`.
pub fn named_descriptors(options: &Options, mountpoint: &Path) -> Vec<RawFd> {
    let lowers = options.lowers.iter().map(|l| l.path.as_path());
    lowers
        .chain(options.upper.as_deref())
        .chain(options.work.as_deref())
        .chain(std::iter::once(mountpoint))
        .filter_map(descriptor_in)
        .collect()
}

/// The descriptor that a path is, and nothing below it.
pub fn descriptor_named(path: &Path) -> Option<RawFd> {
    descriptor_in(path).filter(|fd| path.ends_with(fd.to_string()))
}

fn descriptor_in(path: &Path) -> Option<RawFd> {
    let number = path
        .strip_prefix("/proc/self/fd")
        .or_else(|_| path.strip_prefix("/dev/fd"))
        .ok()?;
    number
        .components()
        .next()?
        .as_os_str()
        .to_str()?
        .parse()
        .ok()
}

/// The directories of a mount, held so that they can be opened whatever is
/// mounted over them.
#[derive(Debug)]
pub struct Held {
    all: Vec<(PathBuf, OwnedFd)>,
}

impl Held {
    /// Takes hold of every directory and has the options name the held ones.
    pub fn take(options: &mut Options) -> Result<Self, SetupError> {
        let mut all = Vec::new();
        for_each_path(options, |part, path| {
            let fd = hold(part, path)?;
            let by_descriptor = process::path_of_descriptor(&fd);
            all.push((std::mem::replace(path, by_descriptor), fd));
            Ok(())
        })?;
        Ok(Held { all })
    }

    /// Whether every one of them belongs to this user and this group.
    pub fn belong_to(&self, ids: (u32, u32)) -> bool {
        self.all
            .iter()
            .all(|(_, fd)| mount::owner_of(fd) == Ok(ids))
    }

    /// A message with the paths that the user gave.
    pub fn with_given_paths(&self, message: &str) -> String {
        // Longest number first: /proc/self/fd/1 is the beginning of …/12.
        let mut names: Vec<(String, String)> = self
            .all
            .iter()
            .map(|(path, fd)| {
                (
                    process::path_of_descriptor(fd).display().to_string(),
                    path.display().to_string(),
                )
            })
            .collect();
        names.sort_by_key(|(by_descriptor, _)| std::cmp::Reverse(by_descriptor.len()));
        names.iter().fold(message.to_owned(), |text, (from, to)| {
            text.replace(from, to)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::options::LowerArg;

    fn options(lowers: &[&Path]) -> Options {
        let lowers = lowers
            .iter()
            .map(|p| LowerArg {
                path: p.to_path_buf(),
                data_only: false,
                beside: None,
            })
            .collect();
        Options {
            lowers,
            ..Options::default()
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_option() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = check(&mut options(&[folder.path(), &missing])).unwrap_err();
        assert!(
            error.what.contains("lowerdir=") && error.what.contains("missing does not exist"),
            "{error}"
        );
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = check(&mut options(&[&file])).unwrap_err();
        assert!(error.what.ends_with("is not a directory"), "{error}");
    }

    #[test]
    fn upper_and_work_go_together() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            check(&mut options(&[]))
                .unwrap_err()
                .what
                .contains("no lower layer")
        );
        let mut one = options(&[folder.path()]);
        one.upper = Some(folder.path().to_owned());
        assert!(
            check(&mut one)
                .unwrap_err()
                .what
                .contains("without a workdir")
        );
        let mut two = options(&[folder.path()]);
        two.work = Some(folder.path().to_owned());
        assert!(
            check(&mut two)
                .unwrap_err()
                .what
                .contains("without an upperdir")
        );
    }

    #[test]
    fn descriptors_of_the_caller_are_found_in_paths() {
        let paths = ["/proc/self/fd/7", "/dev/fd/9/sub", "/l"].map(Path::new);
        assert_eq!(named_descriptors(&options(&paths), Path::new("/m")), [7, 9]);
    }

    #[test]
    fn held_directories_are_shown_by_their_own_names() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(&[folder.path()]);
        let held = Held::take(&mut options).unwrap();
        let message = format!("{} is odd", options.lowers[0].path.display());
        assert_eq!(
            held.with_given_paths(&message),
            format!("{} is odd", folder.path().display())
        );
    }
}
