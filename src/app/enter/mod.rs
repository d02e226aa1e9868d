//! A command in a tree: namespaces, the processes in them, and what they tell.
//!
//! *Where the tree is* ([`Tree`]) is apart from *how it is entered* ([`Entry`]).
//!
//! ```text
//! acetate            passes signals on, waits; the caller's namespaces
//! └─ keeper          first of PID namespace 1; user namespace where needed; mounts the tree, unmounts it
//!    ├─ daemon       serves the mount; out of the command's sight
//!    └─ init         first of PID namespace 2, mounts of its own: the tree as root (or over a directory), /proc …
//!       └─ COMMAND
//! ```
//!
//! The keeper dies with `acetate` (PR_SET_PDEATHSIG), and with it the kernel ends
//! everything in its PID namespaces and the mounts that only they have seen: a
//! kill -9 leaves a workspace as a crash would, and nothing else.
//!
//! The namespaces hold copies of the mounts that there were. Unmounted outside they go
//! in here too where mounts are shared, as they are wherever systemd runs; elsewhere
//! the keeper lets go of copies of FUSE mounts, whose daemons else could not end. An
//! ordinary user's keeper may not, and a command over a directory is to see them.
//!
//! Where namespaces cannot be had a plain tree is entered by chroot(2) alone:
//! `chrooted.rs`. Where a mount was asked for that is never done.
//!
//! No lock of the store is held while the command runs: the daemon's lock on the
//! upper says that the workspace is in use.

mod chrooted;
mod init;
mod keeper;
mod tell;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::store::Store;
use crate::store::failure::{Failure, FailureKind};
use crate::store::lock::Lock;
use crate::store::record::WorkspaceRecord;
use crate::sys::namespace::{self, Own};
use crate::sys::process::{self, ByteWriter, Fork};
use crate::sys::relay::{self, Pid};
use crate::sys::{Errno, signal};

/// Where the tree is.
#[derive(Debug)]
pub enum Tree {
    /// There, for all to see: mounted already.
    There(PathBuf),
    /// A plain tree, which nobody mounts: where no namespace can be had, chroot(2) will do.
    Plain(PathBuf),
    /// In this workspace, which is mounted where only the command sees it. Its lock
    /// is given up once it is.
    Hidden(Box<WorkspaceRecord>, Lock),
}

/// A file or directory of the host to be seen in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The host's, an absolute path.
    pub source: PathBuf,
    /// Where in the tree, an absolute path.
    pub target: PathBuf,
    /// Whether it may be written to.
    pub access: Access,
}

/// What may be done to a bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All that its modes allow.
    Write,
    /// Nothing is changed.
    Read,
}

/// How the tree is entered.
#[derive(Debug)]
pub enum Entry {
    /// It is the root directory, with /proc, /dev, /tmp and /sys of its own.
    AsRoot(Vec<Bind>),
    /// It lies over a directory of the host.
    Over {
        /// The directory, without symlinks in its path.
        directory: PathBuf,
        /// What must not be seen: each an empty directory.
        hidden: Vec<PathBuf>,
    },
}

/// As whom the command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// As the caller, or as root where a user namespace had to be made.
    AsItComes,
    /// As this user and group: any for root; without privileges the caller's own
    /// under these numbers, or subordinate ones.
    Ids(u32, u32),
}

/// Which ids a user namespace knows, where one has to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// The caller's: what the command makes belongs to the caller on disk.
    CallersOnly,
    /// Subordinate ones too, where the caller has them.
    Subordinate,
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Job {
    /// The command: a path, or a name for PATH.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables beside the caller's.
    pub env: Vec<(OsString, OsString)>,
    /// As whom.
    pub user: User,
    /// Where it begins, as it is seen in there.
    pub directory: PathBuf,
    /// Which ids it is to know.
    pub ids: Ids,
}

/// Why a command was not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRun {
    /// The exit code: 125, or 126 and 127 as a shell has them.
    pub code: u8,
    /// What failed.
    pub failure: Failure,
}

impl From<Failure> for NotRun {
    fn from(failure: Failure) -> NotRun {
        NotRun {
            code: CANNOT,
            failure,
        }
    }
}

/// Exit code where we failed, not the command.
pub const CANNOT: u8 = 125;
/// Exit code where it cannot be run.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code where there is no such command.
const NO_COMMAND: u8 = 127;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, or 128 and the number of the signal that ended it.
    pub code: u8,
    /// What a person should be told of the mount.
    pub warnings: Vec<String>,
}

/// Everything about one run.
struct Plan<'a> {
    store: &'a Store,
    tree: Tree,
    entry: Entry,
    job: Job,
}

/// Why a command was not run in namespaces.
enum Hindered {
    /// There are none that are of use; nothing was done.
    NoNamespaces(Failure),
    /// Something else.
    Otherwise(NotRun),
}

impl<T: Into<NotRun>> From<T> for Hindered {
    fn from(why: T) -> Hindered {
        Hindered::Otherwise(why.into())
    }
}

/// Runs a command in a tree and waits for its end. For a process with one thread.
pub fn run(store: &Store, tree: Tree, entry: Entry, job: Job) -> Result<Ended, NotRun> {
    let instead = chrooted::Chrooted::of(&tree, &entry, &job);
    match (in_namespaces(store, tree, entry, job), instead) {
        (Ok(ended), _) => Ok(ended),
        (Err(Hindered::NoNamespaces(why)), Some(instead)) => instead.run(why),
        (Err(Hindered::NoNamespaces(why)), None) => Err(why.into()),
        (Err(Hindered::Otherwise(why)), _) => Err(why),
    }
}

fn in_namespaces(store: &Store, tree: Tree, entry: Entry, job: Job) -> Result<Ended, Hindered> {
    let own = match process::may_mount() {
        true => Own::MountsAndProcesses,
        false => Own::UsersToo,
    };
    let more = match job.ids {
        Ids::Subordinate => namespace::subordinates(),
        Ids::CallersOnly => None,
    };
    let (heard, tell) = tell::channel().map_err(no_process)?;
    let (go, may_go) = process::byte_pipe().map_err(no_process)?;
    let plan = Plan {
        store,
        tree,
        entry,
        job,
    };
    prepare_to_attend();
    let keeper = match namespace::fork_into(own) {
        Ok(Fork::Child) => {
            drop((heard, may_go));
            keeper::keep(plan, tell, go)
        }
        Ok(Fork::Parent(pid)) => pid,
        Err(e) => {
            relay::release();
            return Err(Hindered::NoNamespaces(no_namespaces(own, e)));
        }
    };
    // The keeper has its own copies: of the lock, which it gives up, and of the pipes.
    drop((plan, tell, go));
    if own == Own::UsersToo
        && let Err(e) = namespace::map_ids(keeper, more)
    {
        relay::kill(keeper);
        relay::release();
        return Err(Hindered::NoNamespaces(no_namespaces(own, e)));
    }
    attend(keeper, may_go, heard)
}

fn no_process(e: Errno) -> Failure {
    let what = format!(
        "no process could be made: {}",
        crate::store::failure::reason(e)
    );
    Failure::new(
        FailureKind::General,
        what,
        "the limit of processes may be reached",
    )
}

/// Before a process is made that is to be waited for with [`attend`].
fn prepare_to_attend() {
    // A caller that ignores SIGCHLD would take the exit codes from us.
    signal::restore_child_signal();
    relay::hold();
}

/// Lets the process below begin, passes signals on to it, and hears how it ended.
fn attend(below: Pid, mut may_go: ByteWriter, mut heard: tell::Heard) -> Result<Ended, Hindered> {
    if !may_go.tell(1) {
        tracing::debug!("the process below is gone already");
    }
    let code = relay::until_end(below);
    relay::release();
    let told = heard.all();
    match told.not_run {
        Some(why) if told.no_namespaces => Err(Hindered::NoNamespaces(why.failure)),
        Some(why) => Err(why.into()),
        None => Ok(Ended {
            code,
            warnings: told.warnings,
        }),
    }
}

fn no_namespaces(own: Own, e: Errno) -> Failure {
    let why = crate::store::failure::reason(e);
    match own {
        Own::MountsAndProcesses => Failure::new(
            FailureKind::Mount,
            format!("no mount and PID namespace could be made: {why}"),
            "a container's seccomp filter may forbid it, or a limit in /proc/sys/user is reached",
        ),
        Own::UsersToo => Failure::new(
            FailureKind::Mount,
            format!(
                "no user namespace could be made, and without one only root can do this: {why}"
            ),
            "`acetate doctor` says what forbids it: sysctls (user.max_user_namespaces, kernel.unprivileged_userns_clone), AppArmor, a seccomp filter",
        ),
    }
}
