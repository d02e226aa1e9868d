//! The figures of a mount: found by any path in it, asked by ioctl of a directory.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use crate::fuse::figures::{Figures, Grows, Kind, Values};
pub use crate::fuse::histogram::{end_of, quantile};

use crate::fuse::control::FIGURES;
use crate::fuse::figures::question;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::sys::mountinfo::{self, MountLine};
use crate::sys::{Errno, ask, stat};

/// How long it may take until all lines were told: each part has one at least.
const PARTS: usize = 1000;

/// A mount that figures are asked of.
///
/// Nothing of it is held open between two questions: it can be unmounted.
#[derive(Debug)]
pub struct Mount {
    /// A directory of it.
    dir: PathBuf,
    device: u64,
    /// Where it is mounted, as far as the path given shows.
    pub mountpoint: PathBuf,
    fstype: String,
}

impl Mount {
    /// The mount that a path is on.
    ///
    /// # Errors
    /// NotFound where there is no such path, or it is on no mount of ours.
    pub fn of(path: &Path) -> Outcome<Mount> {
        let real = path.canonicalize().map_err(|e| unseen(path, &e))?;
        let data = real.metadata().map_err(|e| unseen(path, &e))?;
        let dir = match (data.is_dir(), real.parent()) {
            (false, Some(parent)) => parent.to_owned(),
            _ => real,
        };
        let lines = mountinfo::read()
            .map_err(|e| Failure::system(Path::new("/proc"), "be read", Errno::from_io(&e)))?;
        let line = nearest(lines, &dir, data.dev());
        match line {
            Some(line) if line.fstype == "fuse" || line.fstype.starts_with("fuse.") => Ok(Mount {
                dir,
                device: data.dev(),
                mountpoint: line.mountpoint,
                fstype: line.fstype,
            }),
            other => {
                let kind = other.map_or("something else".to_owned(), |line| line.fstype);
                Err(no_mount(path, &kind))
            }
        }
    }

    /// Its figures now.
    ///
    /// # Errors
    /// NotFound where the mount has ended, General where somebody else serves it,
    /// or where it is another user's.
    pub fn figures(&self) -> Outcome<Figures> {
        let dir = File::open(&self.dir).map_err(|e| match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => self.ended(),
            _ => unseen(&self.dir, &e),
        })?;
        let now = dir.metadata().map_err(|e| unseen(&self.dir, &e))?;
        if now.dev() != self.device {
            return Err(self.ended());
        }
        let mut figures = Figures::default();
        let mut first = 0;
        for _ in 0..PARTS {
            let mut part = question(first);
            ask::ioctl(dir.as_fd(), FIGURES, &mut part).map_err(|e| self.refused(e))?;
            match figures.take(first, &part).map_err(|e| self.refused(e))? {
                Some(next) => first = next,
                None => return Ok(figures),
            }
        }
        Err(self.refused(Errno::EIO))
    }

    fn ended(&self) -> Failure {
        let at = self.mountpoint.display();
        Failure::new(
            FailureKind::NotFound,
            format!("the mount at {at} has ended"),
            "",
        )
    }

    fn refused(&self, e: Errno) -> Failure {
        let at = self.mountpoint.display();
        let (what, hint) = match e {
            Errno::ENOTTY | Errno::ENOSYS | Errno::EINVAL if self.fstype == "fuse.acetate" => (
                format!("the mount at {at} tells no figures: another version of acetate serves it"),
                "unmount it and mount it again with this version",
            ),
            Errno::ENOTTY | Errno::ENOSYS | Errno::EINVAL | Errno::EOPNOTSUPP => (
                format!(
                    "the mount at {at} tells no figures: another program serves it, or an older acetate"
                ),
                "acetate serves what `acetate mount` has mounted, or fuse-overlayfs where that is acetate",
            ),
            Errno::EPERM | Errno::EACCES => (
                format!("the mount at {at} is another user's"),
                "only root and the user whose process serves it may ask",
            ),
            Errno::ENOTCONN | Errno::ECONNABORTED => return gone(&self.mountpoint),
            e => return Failure::system(&self.mountpoint, "be asked for its figures", e),
        };
        Failure::new(FailureKind::General, what, hint)
    }
}

/// The mount that shows a directory: of those of its device the one whose mount
/// point is nearest above it, the last made where several are in one place.
fn nearest(lines: Vec<MountLine>, dir: &Path, device: u64) -> Option<MountLine> {
    let wanted = stat::device_numbers(device);
    let above = lines
        .into_iter()
        .filter(|line| line.device == wanted && dir.starts_with(&line.mountpoint));
    above.max_by_key(|line| line.mountpoint.components().count())
}

fn no_mount(path: &Path, fstype: &str) -> Failure {
    Failure::new(
        FailureKind::NotFound,
        format!("{} is on no acetate mount, but on {fstype}", path.display()),
        "findmnt -t fuse.acetate,fuse.fuse-overlayfs lists what is mounted",
    )
}

fn gone(at: &Path) -> Failure {
    Failure::new(
        FailureKind::NotFound,
        format!("the process that served {} has ended", at.display()),
        format!("`acetate unmount {}` takes the mount away", at.display()),
    )
}

fn unseen(path: &Path, e: &std::io::Error) -> Failure {
    match Errno::from_io(e) {
        // Aborted: it ended while it was asked.
        Errno::ENOTCONN | Errno::ECONNABORTED => gone(path),
        Errno::ENOENT | Errno::ENOTDIR => Failure::new(
            FailureKind::NotFound,
            format!("there is no {}", path.display()),
            "give the mount point, or any path below it",
        ),
        e => Failure::system(path, "be looked at", e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_mounts_the_nearest_above_the_directory_is_meant() {
        let text = b"20 1 0:44 / / rw - ext4 x rw\n30 1 0:45 /merged /m rw - fuse.acetate a rw\n\
            31 1 0:45 /merged/sub /m/x/sub rw - fuse.acetate a rw\n32 1 0:45 /merged /elsewhere rw - fuse.acetate a rw\n";
        let found = |dir: &str, device| {
            let line = nearest(mountinfo::parse(text), Path::new(dir), device);
            line.map(|l| l.mountpoint.display().to_string())
        };
        assert_eq!(found("/m/x", 45).unwrap(), "/m");
        assert_eq!(found("/m/x/sub/y", 45).unwrap(), "/m/x/sub");
        assert_eq!(found("/mx", 45), None);
        assert_eq!(found("/mx", 44).unwrap(), "/");
    }
}
