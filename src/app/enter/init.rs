//! The first process beside the command: makes the tree what the command sees, runs
//! it, takes in processes that lost their parents, passes signals on.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::tell::Tell;
use super::{Access, Bind, CANNOT, Entry, Job, NO_COMMAND, NOT_EXECUTABLE, User};
use crate::store::failure::{Failure, FailureKind, Outcome, reason};
use crate::sys::places;
use crate::sys::process::{self, Fork};
use crate::sys::{Errno, dir, namespace, relay};

/// Whether uid 0 here is the caller under another name: no other id is known.
const MAPS: (&str, &str) = ("uid_map", "gid_map");

/// All of this process's life.
pub(super) fn begin(at: &Path, entry: &Entry, job: &Job, tell: &mut Tell) -> ! {
    let ready = match entry {
        Entry::AsRoot(binds) => enter_root(at, binds, tell),
        Entry::Over { directory, hidden } => cover(at, directory, hidden),
    };
    if let Err(failure) = ready {
        tell.failed(failure);
        process::leave(i32::from(CANNOT));
    }
    // By this process's directory and descriptors the command could reach what lies
    // below the view, and the store.
    if let Err(e) = places::go_to(Path::new("/")) {
        tell.failed(Failure::system(
            Path::new("/"),
            "be the current directory",
            e,
        ));
        process::leave(i32::from(CANNOT));
    }
    namespace::close_own(&[tell.number()]);
    match process::fork() {
        Ok(Fork::Child) => {
            let (code, failure) = execute(job, Takes::of(job.user));
            tell.not_run(code, failure);
            process::leave(i32::from(code))
        }
        Ok(Fork::Parent(command)) => process::leave(i32::from(relay::until_end(command))),
        Err(e) => {
            tell.failed(Failure::system(Path::new("a process"), "be made", e));
            process::leave(i32::from(CANNOT))
        }
    }
}

/// A path that something could not be mounted on.
fn unmounted(path: &Path, e: Errno) -> Failure {
    let what = format!("{} cannot be set up: {}", path.display(), reason(e));
    Failure::new(
        FailureKind::Mount,
        what,
        "`acetate doctor` says what this host allows",
    )
}

/// The tree as root, with what every program wants.
fn enter_root(at: &Path, binds: &[Bind], tell: &mut Tell) -> Outcome<()> {
    let root = mount_of_its_own(at, at)?;
    let fd = root.as_fd();
    // A tree that is read only may lack some.
    let room = |path: &str| places::find(fd, Path::new(path)).ok();
    if let Some(place) = room("/sys") {
        let shown = places::bind_all(Path::new("/sys"), &place)
            .and_then(|()| places::read_only(fd, Path::new("/sys")));
        crate::sys::best_effort("show /sys", shown);
    }
    if let Some(place) = room("/proc")
        && let Err(e) = places::proc(&place)
    {
        tell.warn(format!(
            "there is no /proc inside: this container does not allow one: {}",
            reason(e)
        ));
    }
    if room("/dev").is_some() {
        let dev = Path::new("/dev");
        places::devices(fd, dev).map_err(|e| unmounted(dev, e))?;
    }
    if let Some(place) = room("/tmp") {
        places::memory(&place, c"mode=1777").map_err(|e| unmounted(Path::new("/tmp"), e))?;
    }
    for bind in binds {
        show(&root, bind).map_err(|e| unmounted(&bind.target, e))?;
    }
    places::become_root(&root).map_err(|e| unmounted(at, e))
}

fn show(root: &OwnedFd, bind: &Bind) -> crate::sys::Result<()> {
    let place = places::find(root.as_fd(), &bind.target)?;
    places::bind_all(&bind.source, &place)?;
    match bind.access {
        Access::Write => Ok(()),
        Access::Read => places::read_only(root.as_fd(), &bind.target),
    }
}

/// Mounts the tree at a path; the mount's root.
fn mount_of_its_own(tree: &Path, at: &Path) -> Outcome<OwnedFd> {
    let failed = |e| unmounted(at, e);
    let place = dir::open_root(at).map_err(failed)?;
    places::bind(tree, &place).map_err(failed)?;
    dir::open_root(at).map_err(failed)
}

/// The tree over a directory of the host; what must not be seen is empty.
fn cover(at: &Path, directory: &Path, hidden: &[std::path::PathBuf]) -> Outcome<()> {
    let root = if directory == Path::new("/") {
        let root = mount_of_its_own(at, at)?;
        for (name, access) in [("/dev", Access::Write), ("/sys", Access::Read)] {
            let bind = Bind {
                source: name.into(),
                target: name.into(),
                access,
            };
            match show(&root, &bind) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(unmounted(&bind.target, e)),
            }
        }
        own_shm(&root)?;
        own_proc(&root)?;
        root
    } else {
        mount_of_its_own(at, directory)?;
        let root = dir::open_root(Path::new("/")).map_err(|e| unmounted(Path::new("/"), e))?;
        own_proc(&root)?;
        root
    };
    for path in hidden {
        let covered = match places::find(root.as_fd(), path) {
            // What is not there cannot be seen.
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            r => r.and_then(|place| places::emptiness(&place)),
        };
        covered.map_err(|e| {
            let what = format!("{} cannot be hidden from the command: {}", path.display(), reason(e));
            Failure::new(
                FailureKind::Mount,
                what,
                "it holds the changes, which the command must not see: keep the store elsewhere (--root)",
            )
        })?;
    }
    match directory == Path::new("/") {
        true => places::become_root(&root).map_err(|e| unmounted(at, e)),
        false => Ok(()),
    }
}

/// What programs keep in /dev/shm is no device, and none of the command's.
fn own_shm(root: &OwnedFd) -> Outcome<()> {
    let shm = Path::new("/dev/shm");
    let mounted = match places::find(root.as_fd(), shm) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
        r => r.and_then(|place| places::memory(&place, c"mode=1777")),
    };
    mounted.map_err(|e| unmounted(shm, e))
}

/// Through another's /proc the real files and the changes could be reached.
fn own_proc(root: &OwnedFd) -> Outcome<()> {
    let mounted = places::find(root.as_fd(), Path::new("/proc")).and_then(|at| places::proc(&at));
    mounted.map_err(|e| {
        let what = format!("no /proc of its own can be given to the command: {}", reason(e));
        Failure::new(
            FailureKind::Mount,
            what,
            "in a container that covers parts of /proc this works only for its root with CAP_SYS_ADMIN",
        )
    })
}

/// Becomes the command. Returns where that fails: the exit code, and why.
pub(super) fn execute(job: &Job, takes: Takes) -> (u8, Failure) {
    let cannot = |failure| (CANNOT, failure);
    if let Err(e) = places::go_to(&job.directory) {
        return cannot(Failure::system(
            &job.directory,
            "be the current directory",
            e,
        ));
    }
    let mut command = Command::new(&job.program);
    command.args(&job.args).envs(job.env.iter().cloned());
    if let Err(failure) = become_user(&mut command, takes) {
        return cannot(failure);
    }
    relay::release();
    let e = command.exec();
    let shown = Path::new(&job.program).display().to_string();
    let (code, kind) = match e.kind() {
        // execvp(3) says EACCES too where a directory of PATH is shut.
        ErrorKind::PermissionDenied if !is_in_path(job) => (NO_COMMAND, FailureKind::NotFound),
        ErrorKind::NotFound => (NO_COMMAND, FailureKind::NotFound),
        _ => (NOT_EXECUTABLE, FailureKind::General),
    };
    let hint = match code {
        NO_COMMAND => "what is run is a program of the tree, with the libraries of the tree",
        _ => "",
    };
    let what = format!("{shown} cannot be run: {}", reason(Errno::from_io(&e)));
    (code, Failure::new(kind, what, hint))
}

/// Whether there is such a command, be it one that cannot be run.
fn is_in_path(job: &Job) -> bool {
    if job.program.as_encoded_bytes().contains(&b'/') {
        return true;
    }
    let given = job.env.iter().rev().find(|(name, _)| name == "PATH");
    let path = given.map(|(_, value)| value.clone());
    let path = path
        .or_else(|| std::env::var_os("PATH"))
        .unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(&job.program).exists())
}

/// How the ids of a command are taken on. Asked for where /proc can be seen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Takes {
    /// They are this process's own.
    Nothing,
    /// These are known in this user namespace.
    Known(u32, u32),
    /// These are not: they are new names of the caller's, in a namespace of their own.
    Names(u32, u32),
}

impl Takes {
    pub(super) fn of(user: User) -> Takes {
        match user {
            User::AsItComes => Takes::Nothing,
            User::Ids(uid, gid) if (uid, gid) == process::effective_ids() => Takes::Nothing,
            User::Ids(uid, gid) => {
                let known = namespace::is_mapped(MAPS.0, uid) && namespace::is_mapped(MAPS.1, gid);
                match known {
                    true => Takes::Known(uid, gid),
                    false => Takes::Names(uid, gid),
                }
            }
        }
    }
}

fn become_user(command: &mut Command, takes: Takes) -> Outcome<()> {
    let (uid, gid) = match takes {
        Takes::Nothing => return Ok(()),
        Takes::Known(uid, gid) => {
            command.uid(uid).gid(gid);
            return Ok(());
        }
        Takes::Names(uid, gid) => (uid, gid),
    };
    process::enter_user_namespace_as((uid, gid)).map_err(|why| {
        Failure::new(
            FailureKind::General,
            format!("the command cannot be run as user {uid} and group {gid}: {why}"),
            "without privileges only subordinate ids (/etc/subuid) can be taken beside one's own",
        )
    })
}
