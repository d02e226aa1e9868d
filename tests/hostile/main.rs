//! What a hostile reader found before the first release, each as a test that tells its story: the number of the
//! finding, what went wrong, and what must hold. None may hang: what waits on the mount is under a [`Watch`].
//!
//! | file | findings |
//! |---|---|
//! | `lowers.rs` | layers that overlap, share a UUID, or belong to somebody else: 1, 2, 3, 6, 20 |
//! | `marks.rs` | layers whose marks lie: 5, 16, 17, 18 |
//! | `clients.rs` | what an ordinary user of a mount may do to others: 7, 8, 9 |
//! | `ordinary.rs` | the daemon of an ordinary user: 11, 12 |
//! | `room.rs` | file systems without room, descriptors or xattrs: 4, 10, 13, 14 |
//! | `together.rs` | several calls at once: 15, 19 |
//! | `later.rs` | what came after the first twenty: 21 to 24 |

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod later;
mod lowers;
mod marks;
mod ordinary;
mod room;
mod together;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use support::story::sh;
use support::{Layers, Mount, require_fuse, require_root, skip};

/// True where a test can mount; from then on its mounts are its own: a copy of one in another test's mount namespace would keep
/// the daemon alive.
fn able() -> bool {
    let able = require_root() && require_fuse();
    if able {
        support::host::own_mounts();
    }
    able
}

/// Kills a daemon that has not been left in peace after two minutes, so that what waits for it fails instead.
///
/// Drop it before the mount: a number that was waited for may belong to somebody else.
struct Watch(Option<(Sender<()>, JoinHandle<()>)>);

impl Watch {
    fn over(mount: &Mount) -> Self {
        mount.pid().map_or(Self(None), Self::pid)
    }

    fn pid(pid: u32) -> Self {
        let (done, wait) = channel::<()>();
        let pid = i32::try_from(pid).unwrap();
        let thread = std::thread::spawn(move || {
            if wait.recv_timeout(support::host::slowly(Duration::from_secs(120)))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                eprintln!("the daemon {pid} hangs: killed");
                // SAFETY: a plain number; the process is our child and not yet waited for.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        });
        Self(Some((done, thread)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.0.take() {
            drop(done);
            thread.join().unwrap();
        }
    }
}

/// Mounts, runs one script inside, and unmounts.
fn inside(layers: &Layers, words: &str, script: &str) -> Result<String, String> {
    let mount = Mount::acetate(layers, words);
    let watch = Watch::over(&mount);
    let out = sh(&layers.merged, script);
    drop(watch);
    mount.unmount();
    out
}

/// A file system of this test's own; unmounted when dropped.
struct Scratch(PathBuf);

impl Scratch {
    /// `mount ARGS POINT`; says why not and is None.
    fn mount(args: &str, point: &Path) -> Option<Self> {
        std::fs::create_dir_all(point).unwrap();
        match sh(
            point.parent().unwrap(),
            &format!("mount {args} {}", point.display()),
        ) {
            Ok(_) => Some(Self(point.to_owned())),
            Err(e) => {
                skip(&format!(
                    "no `mount {args}` here: {}",
                    e.lines().nth(2).unwrap_or_default()
                ));
                None
            }
        }
    }

    /// One for the upper and the work directory of `layers`.
    fn under(layers: &mut Layers, args: &str) -> Option<Self> {
        let point = layers.root.join("fs");
        let scratch = Self::mount(args, &point)?;
        layers.upper = point.join("upper");
        layers.work = point.join("work");
        std::fs::create_dir(&layers.upper).unwrap();
        std::fs::create_dir(&layers.work).unwrap();
        Some(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let point = CString::new(self.0.as_os_str().as_bytes()).unwrap();
        // SAFETY: a NUL-terminated path that lives until the call returns. A loop device made by mount(8) goes with
        // its last mount.
        unsafe { libc::umount2(point.as_ptr(), libc::MNT_DETACH) };
    }
}

/// The errno of a failed call.
fn code<T>(result: std::io::Result<T>) -> Result<(), i32> {
    result.map(drop).map_err(|e| e.raw_os_error().unwrap_or(-1))
}

/// How many descriptors a daemon has open.
fn descriptors(mount: &Mount) -> usize {
    mount.pid().map_or(0, |pid| {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    })
}
