//! Which fences a serving daemon stands behind, and when each goes up.
//!
//! | when | where | what |
//! |---|---|---|
//! | the mount is made, no loop runs | main thread | no_new_privs; capabilities ([`caps`]) |
//! | before the first request | the thread that makes the event loops | paths (`sys::fence::paths`) |
//! | the mount is in its place | every thread | system calls ([`calls`]) |
//!
//! The loops and the workers are made by the fenced thread and are inside all
//! three. The main thread and the one that waits for signals stay outside of
//! the fence of paths, because they unmount, and touch no layer while the mount
//! serves. A process that unmounts by fusermount3 does that through
//! [`super::outside`], which was split off before: a setuid program has no
//! power behind no_new_privs.
//!
//! `fence=off` puts up none of them.
//!
//! # What it costs
//!
//! Time of an operation in a directory nine levels down, with the fences over
//! without them, measured in turns (`what_the_fences_cost` in `tests/fence`;
//! lowest and highest median of three runs, 60 pairs of 200 operations each, on
//! two CPUs with a load of 17, where equal things differ by a tenth):
//!
//! | operation | ratio |
//! |---|---|
//! | stat of a missing name | 0.91 to 1.05 |
//! | create and write | 0.92 to 1.06 |
//! | first read | 0.99 to 1.12 |
//! | unlink | 0.94 to 1.11 |
//!
//! Landlock is what can be seen of it: an open costs 0.4 µs more at a layer's
//! root and about 0.1 µs more for each level below it (walked up to the rule), of
//! the 15 to 100 µs of a request. It stays on, as nothing else makes lowers
//! read-only to us. No request makes more system calls, and one that creates for
//! another user makes two fewer (see `sys/cred.rs`).

use std::os::fd::AsFd;
use std::path::Path;

use parking_lot::Mutex;

use crate::overlay::Overlay;
use crate::sys::fence::caps;
use crate::sys::fence::paths::{Access, Paths, Programs};
use crate::sys::fence::{self, Outcome, calls};
use crate::sys::{Errno, mountinfo};

/// Whose files the daemon serves; says which capabilities it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Anybody's, as far as the capabilities go.
    Any,
    /// One user's, in a user namespace of that user's own.
    One,
}

/// The fences of one mount.
#[derive(Debug)]
pub struct Fence {
    owners: Owners,
    /// Until the thread that makes the loops has entered it.
    paths: Mutex<Option<Paths>>,
}

impl Fence {
    /// For a daemon that serves this overlay.
    pub fn new(overlay: &Overlay, owners: Owners) -> Self {
        let paths = paths_of(overlay).inspect_err(|e| tracing::debug!("no fence of paths: {e}"));
        Fence {
            owners,
            paths: Mutex::new(paths.ok()),
        }
    }

    /// On the main thread, before it makes any thread that serves.
    pub fn rights(&self) {
        let keep = match self.owners {
            Owners::Any => caps::ANY_OWNER,
            Owners::One => caps::OWN_NAMESPACE,
        };
        note("no_new_privs", fence::no_new_privileges());
        note("capabilities", caps::keep_only(keep));
    }

    /// On the thread that makes the event loops.
    pub fn paths(&self) {
        if let Some(paths) = self.paths.lock().take() {
            note("paths", paths.enter());
        }
    }

    /// Once the mount is in its place. `umount`: whether this process unmounts.
    pub fn calls(&self, umount: bool) {
        note("system calls", calls::refuse(umount));
    }
}

fn paths_of(overlay: &Overlay) -> crate::sys::Result<Paths> {
    if processes_are_hidden() {
        return Err(Errno::EOPNOTSUPP);
    }
    let programs = match overlay.passes_through() {
        true => Programs::Open,
        false => Programs::Shut,
    };
    let mut paths = Paths::new(programs)?;
    for (place, writable) in overlay.places() {
        let access = match writable {
            true => Access::Write,
            false => Access::Read,
        };
        paths.allow(place.as_fd(), access)?;
    }
    // /proc/self/fd to reopen, /proc/PID/status for a caller's groups; the
    // program itself for the names in a panic's backtrace.
    paths.allow_path(Path::new("/proc"), Access::Read)?;
    paths.allow_path(Path::new("/proc/self/exe"), Access::Read)?;
    Ok(paths)
}

/// Whether /proc/PID/status is only for those who might trace the process
/// (proc(5), hidepid=): behind a fence of paths we may trace nobody.
fn processes_are_hidden() -> bool {
    let line = mountinfo::at(Path::new("/proc")).ok().flatten();
    line.is_some_and(|l| {
        let hidden = l
            .settings
            .split(',')
            .find_map(|w| w.strip_prefix("hidepid="));
        hidden.is_some_and(|how| how != "0" && how != "off")
    })
}

fn note(what: &str, outcome: Outcome) {
    match outcome {
        Outcome::Up => tracing::debug!("fence up: {what}"),
        Outcome::Unavailable(e) => tracing::debug!("no fence: {what}: {e}"),
    }
}
