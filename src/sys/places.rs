//! Mounts in a mount namespace of one's own: what a tree needs to be a root.
//!
//! Every target is a descriptor, found beneath the tree by [`find`]: a symlink in a
//! hostile tree leads to somewhere in the tree.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::features::{self, Feature};
use super::process::path_of_descriptor;
use super::{Errno, Result, dir};

/// Nothing that is mounted from now on is seen outside. What is unmounted there goes
/// here too, where mounts are shared: a copy would keep a FUSE daemon from ending.
pub fn make_own() -> Result<()> {
    let downstream = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    Ok(rustix::mount::mount_change("/", downstream)?)
}

/// Lets go of the copies of FUSE mounts in this namespace but the one at `keep`, as
/// far as that is allowed: where mounts are not shared, their daemons could not end.
pub fn forget_others(keep: &Path) {
    for line in super::mountinfo::read().unwrap_or_default() {
        if line.fstype.starts_with("fuse.") && line.mountpoint != keep {
            let gone = super::mount::unmount(&line.mountpoint, super::mount::Detach::Now);
            super::best_effort("let go of a copy of a mount", gone);
        }
    }
}

/// Holds what a path leads to, taken as if `root` were the root directory; it is
/// not opened.
pub fn find(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if features::allowed(Feature::Openat2) {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: a rename or a mount elsewhere raced with the check.
        for _ in 0..100 {
            match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                Err(
                    rustix::io::Errno::NOSYS | rustix::io::Errno::PERM | rustix::io::Errno::INVAL,
                ) => {
                    features::is_missing(Feature::Openat2);
                    break;
                }
                r => return Ok(r?),
            }
        }
    }
    // Kernels before 5.6, seccomp filters: no symlink at all.
    let mut at = rustix::io::fcntl_dupfd_cloexec(root, 3)?;
    for part in path.components() {
        match part {
            Component::Normal(name) => {
                at = rustix::fs::openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(Errno::EXDEV),
        }
    }
    if rustix::fs::fstat(&at)?.st_mode & libc::S_IFMT == libc::S_IFLNK {
        return Err(Errno::ELOOP);
    }
    Ok(at)
}

/// Shows what is at `source` at the target too; with what is mounted below it.
pub fn bind_all(source: &Path, target: &OwnedFd) -> Result<()> {
    Ok(rustix::mount::mount_bind_recursive(
        source,
        path_of_descriptor(target),
    )?)
}

/// The same without what is mounted below.
pub fn bind(source: &Path, target: &OwnedFd) -> Result<()> {
    Ok(rustix::mount::mount_bind(
        source,
        path_of_descriptor(target),
    )?)
}

/// A file system of a kind.
fn fresh(kind: &str, target: &OwnedFd, flags: MountFlags, data: &CStr) -> Result<()> {
    let at = path_of_descriptor(target);
    Ok(rustix::mount::mount(kind, at, kind, flags, Some(data))?)
}

/// /proc of this process's PID namespace.
///
/// # Errors
/// EPERM in a user namespace of a container whose own /proc is covered in parts.
pub fn proc(target: &OwnedFd) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    fresh("proc", target, flags, c"")
}

/// An empty directory in memory; `mode` in octal digits.
pub fn memory(target: &OwnedFd, data: &CStr) -> Result<()> {
    fresh(
        "tmpfs",
        target,
        MountFlags::NOSUID | MountFlags::NODEV,
        data,
    )
}

/// An empty directory that nothing can be put into.
pub fn emptiness(target: &OwnedFd) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    fresh("tmpfs", target, flags, c"mode=555,size=4k")
}

/// Terminals of one's own.
pub fn terminals(target: &OwnedFd) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    // Group 5 is tty; where it is not mapped the caller's group has them.
    let with_group = c"newinstance,ptmxmode=0666,mode=620,gid=5";
    match fresh("devpts", target, flags, with_group) {
        Err(Errno::EINVAL) => fresh(
            "devpts",
            target,
            flags,
            c"newinstance,ptmxmode=0666,mode=620",
        ),
        r => r,
    }
}

/// Makes what is mounted at a place, and below, read-only.
pub fn read_only(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    // Found anew: the descriptor of before is of what is covered now.
    let place = find(root, path)?;
    match dir::set_mount_attr(&place, libc::MOUNT_ATTR_RDONLY) {
        Err(Errno::ENOSYS) => {
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            Ok(rustix::mount::mount_remount(
                path_of_descriptor(&place),
                flags,
                "",
            )?)
        }
        r => r,
    }
}

/// Makes a directory (a mount of its own) the root, and takes the old root away.
pub fn become_root(directory: &OwnedFd) -> Result<()> {
    rustix::process::fchdir(directory)?;
    // Both in one place: the old root comes to lie upon the new one (pivot_root(2)).
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Files of /dev that every program may want, and their numbers (Linux's
/// Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, (u32, u32)); 6] = [
    ("null", (1, 3)),
    ("zero", (1, 5)),
    ("full", (1, 7)),
    ("random", (1, 8)),
    ("urandom", (1, 9)),
    ("tty", (5, 0)),
];
/// Its symlinks.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A /dev in memory with the usual few devices, at `path` in `root`.
pub fn devices(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    memory(&find(root, path)?, c"mode=755")?;
    let folder = find(root, path)?;
    for (name, _) in DEVICES {
        let source = Path::new("/dev").join(name);
        if !source.exists() {
            continue;
        }
        let at = dir::create_file(folder.as_fd(), name.as_bytes(), 0o644)?;
        bind(&source, &at)?;
    }
    for (name, target) in LINKS {
        dir::symlink(target.as_bytes(), folder.as_fd(), name.as_bytes())?;
    }
    for name in ["pts", "shm"] {
        dir::mkdir(folder.as_fd(), name.as_bytes(), 0o755)?;
    }
    memory(&find(root, &path.join("shm"))?, c"mode=1777")?;
    super::best_effort(
        "mount terminals",
        find(root, &path.join("pts")).and_then(|at| terminals(&at)),
    );
    Ok(())
}

/// A name that was made in a tree so that something can be mounted there.
#[derive(Debug)]
pub struct Made {
    parent: OwnedFd,
    name: Vec<u8>,
    kind: Want,
    id: super::ObjectId,
    before: super::Timespec,
    after: super::Timespec,
}

/// What is to be at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A directory.
    Directory,
    /// Something that is none.
    File,
    /// A character device, for everybody.
    Device((u32, u32)),
}

/// Makes sure that there is something to mount on; what had to be made for it, the
/// uppermost first. Where that fails nothing is left of it.
pub fn ensure(root: BorrowedFd<'_>, path: &Path, want: Want) -> Result<Vec<Made>> {
    let mut made = Vec::new();
    match ensure_all(root, path, want, &mut made) {
        Ok(()) => Ok(made),
        Err(e) => {
            take_away(made);
            Err(e)
        }
    }
}

fn ensure_all(root: BorrowedFd<'_>, path: &Path, want: Want, made: &mut Vec<Made>) -> Result<()> {
    let mut way = std::path::PathBuf::from("/");
    let parts: Vec<_> = path.components().collect();
    for (at, part) in parts.iter().enumerate() {
        let Component::Normal(name) = part else {
            continue;
        };
        let parent = find(root, &way)?;
        way.push(name);
        match find(root, &way) {
            Ok(_) => continue,
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        let kind = match at + 1 == parts.len() {
            true => want,
            false => Want::Directory,
        };
        let before = changed(&parent)?;
        match kind {
            Want::Directory => dir::mkdir(parent.as_fd(), name.as_bytes(), 0o755)?,
            Want::File => drop(dir::create_file(parent.as_fd(), name.as_bytes(), 0o644)?),
            Want::Device(numbers) => device(parent.as_fd(), name.as_bytes(), numbers)?,
        }
        let after = changed(&parent)?;
        let stat = dir::probe(parent.as_fd(), name.as_bytes())?.ok_or(Errno::ESTALE)?;
        made.push(Made {
            parent,
            name: name.as_bytes().to_vec(),
            kind,
            id: super::ObjectId::of(&stat),
            before,
            after,
        });
    }
    Ok(())
}

/// Makes a character device that everybody may use, whatever the umask is.
fn device(parent: BorrowedFd<'_>, name: &[u8], numbers: (u32, u32)) -> Result<()> {
    let mode = super::Kind::Char.mode_bits() | 0o666;
    dir::mknod(parent, name, mode, numbers)?;
    let parent = std::sync::Arc::new(
        parent
            .try_clone_to_owned()
            .map_err(|e| Errno::from_io(&e))?,
    );
    super::Spot::at(parent, super::Name::from(name)).chmod(0o666)
}

/// Makes what is missing in /dev of the usual devices as nodes in the tree; what was
/// made, and the paths that there are none at: this host allows no nodes there, or
/// none that can be used (a mount without devices).
pub fn make_devices(root: BorrowedFd<'_>) -> (Vec<Made>, Vec<String>) {
    let (mut made, mut missing) = (Vec::new(), Vec::new());
    for (name, numbers) in DEVICES {
        let path = Path::new("/dev").join(name);
        let new = match ensure(root, &path, Want::Device(numbers)) {
            Ok(new) if new.is_empty() => continue,
            Ok(new) => new,
            Err(_) => {
                missing.push(path.display().to_string());
                continue;
            }
        };
        match usable(root, &path) {
            Ok(()) => made.extend(new),
            Err(_) => {
                take_away(new);
                missing.push(path.display().to_string());
            }
        }
    }
    (made, missing)
}

/// Whether a device can be opened; a terminal that this process has not got is one.
fn usable(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let at = path_of_descriptor(&find(root, path)?);
    match rustix::fs::open(at, flags, Mode::empty()) {
        Ok(_) | Err(rustix::io::Errno::NXIO) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Takes away what [`ensure`] made, as far as it is still empty; the directories
/// look as if nothing had been there.
pub fn take_away(made: Vec<Made>) {
    for place in made.into_iter().rev() {
        super::best_effort("take a mount point away", place.take_away());
    }
}

/// When a directory was changed, as its server has it: what the kernel knows of a
/// FUSE one that was just changed is old.
fn changed(directory: &OwnedFd) -> Result<super::Timespec> {
    let stat = rustix::fs::fstat(directory)?;
    Ok(super::Timespec {
        sec: stat.st_mtime,
        nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    })
}

impl Made {
    fn take_away(self) -> Result<()> {
        let parent = self.parent.as_fd();
        let now = changed(&self.parent)?;
        match self.kind {
            Want::Directory => dir::rmdir(parent, &self.name)?,
            Want::File => dir::unlink(parent, &self.name)?,
            Want::Device(_) => {
                // The command may have put something of its own there.
                let found = dir::probe(parent, &self.name)?;
                if found.is_none_or(|s| super::ObjectId::of(&s) != self.id) {
                    return Ok(());
                }
                dir::unlink(parent, &self.name)?;
            }
        }
        let seen = if now == self.after { self.before } else { now };
        let spot = super::Spot::fd(std::sync::Arc::new(self.parent));
        spot.set_times(super::stat::SetTime::Keep, super::stat::SetTime::At(seen))
    }
}

/// Goes to a directory, as it is reached from here and now.
pub fn go_to(path: &Path) -> Result<()> {
    Ok(rustix::process::chdir(path)?)
}
