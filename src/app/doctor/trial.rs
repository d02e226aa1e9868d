//! Trial mounts: each way to mount is tried, and taken away again at once.

use std::path::{Path, PathBuf};

use super::{Check, State};
use crate::fuse::offer::{self, LEVERS, Offer, PASSTHROUGH};
use crate::overlay::setup::SetupError;
use crate::sys::mount::{Errno, reason};
use crate::sys::{fusermount, process};

/// How the trials went.
pub(super) struct Trials {
    pub(super) checks: Vec<Check>,
    /// What the first one that worked was offered.
    pub(super) offer: Option<Offer>,
}

/// A new, empty directory that only we may look into; removed when dropped.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new_in(parent: &Path) -> std::io::Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!(".acetate-doctor-{}", std::process::id());
        let path = parent.join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("{} could not be removed: {e}", self.0.display());
        }
    }
}

pub(super) fn run() -> Result<Trials, SetupError> {
    let parent = std::env::temp_dir();
    let scratch = Scratch::new_in(&parent).map_err(|e| {
        SetupError::new(
            format!(
                "no directory for a trial mount could be made in {}: {e}",
                parent.display()
            ),
            "set TMPDIR to a directory that you may write to",
        )
    })?;
    let mut trials = Trials {
        checks: Vec::new(),
        offer: None,
    };
    trials.add(by_kernel(&scratch.0));
    let enough = trials.checks.iter().any(|c| c.state == State::Ok);
    trials.add(by_program(&scratch.0, enough));
    trials.add(in_user_namespace(&scratch.0, enough));
    Ok(trials)
}

impl Trials {
    fn add(&mut self, (check, request): (Check, Option<Vec<u8>>)) {
        self.checks.push(check);
        let offer = request.and_then(|r| Offer::parse(&r));
        self.offer = self.offer.or(offer);
    }
}

type Trial = (Check, Option<Vec<u8>>);

const KERNEL: &str = "mount_by_kernel";
const PROGRAM: &str = "mount_by_fusermount3";
const NAMESPACE: &str = "mount_in_user_namespace";

fn by_kernel(place: &Path) -> Trial {
    if !process::may_mount() {
        let found = "mount(2) takes CAP_SYS_ADMIN, which you have not";
        return (Check::unneeded(KERNEL, found), None);
    }
    let tried = process::in_child(|| {
        process::own_mount_namespace()
            .and_then(|()| offer::by_kernel(place))
            .map_err(reason)
    });
    match tried {
        Ok(request) => (Check::ok(KERNEL, "a trial mount worked"), Some(request)),
        Err(why) => (Check::missing(KERNEL, refused(&why), CONTAINER), None),
    }
}

const CONTAINER: &str = "see dev_fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN, and where AppArmor or \
     a seccomp profile forbids mount(2), --security-opt apparmor=unconfined or seccomp=unconfined";

fn refused(why: &str) -> String {
    format!("a trial mount failed: {why}")
}

fn by_program(place: &Path, enough: bool) -> Trial {
    if enough {
        return (Check::unneeded(PROGRAM, "you may mount yourself"), None);
    }
    match offer::by_program(place) {
        Ok(request) => (Check::ok(PROGRAM, "a trial mount worked"), Some(request)),
        Err(fusermount::Error::Missing) => (
            Check::missing(
                PROGRAM,
                "there is no fusermount3",
                "install the package fuse3",
            ),
            None,
        ),
        Err(fusermount::Error::Broken(why) | fusermount::Error::Refused(why)) => (
            Check::missing(
                PROGRAM,
                refused(&why),
                "see dev_fuse and fusermount3; behind no_new_privs (--security-opt no-new-privileges, NoNewPrivileges=) \
                 and in containers without CAP_SYS_ADMIN it cannot work: mount outside and hand the descriptor in as \
                 /dev/fd/N",
            ),
            None,
        ),
    }
}

fn in_user_namespace(place: &Path, enough: bool) -> Trial {
    if enough {
        return (Check::unneeded(NAMESPACE, "you may mount yourself"), None);
    }
    let tried = process::in_child(|| {
        process::enter_own_user_namespace()?;
        process::own_mount_namespace()
            .and_then(|()| offer::by_kernel(place))
            .map_err(reason)
    });
    match tried {
        Ok(request) => (
            Check::ok(NAMESPACE, "a trial mount worked: `unshare -Urm`"),
            Some(request),
        ),
        Err(why) => (
            Check::missing(NAMESPACE, refused(&why), "see dev_fuse and user_namespaces"),
            None,
        ),
    }
}

/// What the kernel's FUSE offers.
pub(super) fn levers(offer: Option<Offer>) -> Vec<Check> {
    let Some(offer) = offer else {
        return Vec::new();
    };
    let mut checks = vec![Check::ok(
        "fuse_protocol",
        format!("version 7.{}", offer.minor),
    )];
    checks.extend(LEVERS.iter().map(|lever| {
        if offer.has(lever.bit) {
            Check::ok(lever.name, "offered by the kernel")
        } else {
            Check::limited(
                lever.name,
                format!("not offered: {}", lever.without),
                format!("Linux {} or newer has it", lever.since),
            )
        }
    }));
    let found = match offer.has(PASSTHROUGH) {
        true => "offered, and not used: it would cost a request for each open",
        false => "not offered, and not used",
    };
    checks.push(Check::unneeded("fuse_passthrough", found));
    checks
}

/// Why a device could not be opened, for those who ask about it.
pub(super) fn open_device() -> Result<(), Errno> {
    crate::sys::mount::open_fuse_device().map(drop)
}
