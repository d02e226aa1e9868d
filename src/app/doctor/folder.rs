//! A directory that is to hold an upper layer: what its file system can.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::trial::Scratch;
use super::{Check, State};
use crate::overlay::setup::SetupError;
use crate::sys::dir;
use crate::sys::mount::reason;
use crate::sys::probe::{self, WhiteoutKind};
use crate::sys::{Errno, Spot, xattr};

pub(super) fn checks(folder: &Path) -> Result<Vec<Check>, SetupError> {
    let failed = |what: &str, why: String| {
        SetupError::new(
            format!("{} {what}: {why}", folder.display()),
            "give a directory that is there and that you may write to",
        )
    };
    let meta = folder
        .metadata()
        .map_err(|e| failed("cannot be looked at", e.to_string()))?;
    if !meta.is_dir() {
        return Err(failed(
            "cannot be looked at",
            "it is not a directory".to_owned(),
        ));
    }
    let scratch = match Scratch::new_in(folder) {
        Ok(scratch) => scratch,
        Err(e) => {
            return Ok(vec![Check::missing(
                "dir_writable",
                format!("{} cannot be written: {e}", folder.display()),
                "an upper layer must be writable for whoever mounts; as a lower layer it will do",
            )]);
        }
    };
    let root = dir::open_root(&scratch.0).map_err(|e| failed("cannot be opened", reason(e)))?;
    let root = Arc::new(root);
    Ok(vec![
        Check::ok("dir_writable", folder.display().to_string()),
        file_types(&root),
        attributes(&root),
        whiteouts(&root),
        unnamed(&root),
        reflink(&root),
    ])
}

type Root = Arc<std::os::fd::OwnedFd>;

fn file_types(root: &Root) -> Check {
    const NAME: &str = "dir_file_types";
    let mut typed = None;
    let made = dir::create_file(root.as_fd(), b"typed", 0o600).and_then(|_| {
        dir::list(root.as_fd(), |entry| {
            if entry.name == b"typed" {
                typed = Some(entry.kind.is_some());
            }
        })
    });
    match (made, typed) {
        (Ok(()), Some(true)) => Check::ok(NAME, "listings say what each name is (d_type)"),
        (Ok(()), _) => Check::limited(
            NAME,
            "listings do not say what each name is: each costs a stat",
            "XFS needs ftype=1 when it is made, ext4 the feature filetype",
        ),
        (Err(e), _) => Check::missing(NAME, reason(e), "see dir_writable"),
    }
}

fn works(root: &Root, name: &[u8]) -> Result<(), Errno> {
    let spot = Spot::fd(root.clone());
    xattr::set(&spot, name, b"y", 0)?;
    xattr::remove(&spot, name)
}

fn attributes(root: &Root) -> Check {
    const NAME: &str = "dir_xattrs";
    let trusted = works(root, b"trusted.overlay.acetate-doctor");
    let user = works(root, b"user.overlay.acetate-doctor");
    match (trusted, user) {
        (Ok(()), Ok(())) => Check::ok(
            NAME,
            "trusted.* and user.*: marks as the kernel writes them",
        ),
        (Ok(()), Err(_)) => Check::ok(NAME, "trusted.*: marks as the kernel writes them"),
        (Err(_), Ok(())) => Check::ok(
            NAME,
            "user.*: marks that the kernel reads with userxattr (trusted.* takes root)",
        ),
        (Err(_), Err(e)) => Check {
            state: State::Limited,
            remedy: "use ext4, XFS or btrfs; tmpfs has user.* since Linux 6.6, NFS since 5.9"
                .to_owned(),
            ..Check::ok(
                NAME,
                format!(
                    "none can be set ({}): no renamed directories, no hard links kept",
                    reason(e)
                ),
            )
        },
    }
}

fn whiteouts(root: &Root) -> Check {
    const NAME: &str = "dir_whiteouts";
    match probe::whiteout_kind(root.as_fd()) {
        Ok(WhiteoutKind::CharDevice) => {
            let quick = probe::rename_whiteout(root.as_fd()).unwrap_or(false);
            let how = match quick {
                true => "character devices 0:0, renames leave one in one step",
                false => "character devices 0:0",
            };
            Check::ok(NAME, how)
        }
        Ok(WhiteoutKind::DotWh) => Check::limited(
            NAME,
            "no character devices 0:0: whiteouts are files `.wh.NAME`, which the kernel's overlay does not read",
            "Linux 5.8 or newer makes them without root; a mount with nodev is no obstacle, some network file systems are",
        ),
        Ok(WhiteoutKind::Xattr) => Check::limited(
            NAME,
            "neither character devices 0:0 nor `.wh.` names: whiteouts are empty files with an xattr, which the kernel's overlay reads since 6.7",
            "this is inside a mount of another overlay; a volume, tmpfs or disk there serves better as upper",
        ),
        Err(e) => Check::missing(
            NAME,
            format!("nothing can be made: {}", reason(e)),
            "see dir_writable; the disk may be full",
        ),
    }
}

fn unnamed(root: &Root) -> Check {
    const NAME: &str = "dir_unnamed_files";
    match probe::unnamed_files(root.as_fd()) {
        true => Check::ok(
            NAME,
            "O_TMPFILE works: a copy-up leaves nothing behind in a crash",
        ),
        false => Check::limited(
            NAME,
            "no O_TMPFILE: a copy-up has a temporary name in the work directory",
            "ext4, XFS, btrfs and tmpfs have it; nothing needs it",
        ),
    }
}

fn reflink(root: &Root) -> Check {
    const NAME: &str = "dir_reflink";
    match probe::reflinks(root.as_fd()) {
        Ok(()) => Check::ok(NAME, "copies share their data (FICLONE)"),
        Err(e) => Check::limited(
            NAME,
            format!("no reflinks ({}): a copy-up copies all data", reason(e)),
            "btrfs has them, and XFS made with reflink=1; nothing needs them",
        ),
    }
}
