//! Which times an operation moved: of the object, and of the directory that it is in.
//!
//! A copy-up, which is a create and a rename below, must not show in the parent's mtime; an operation that
//! succeeds must show in the object's ctime, or backup programs miss the change. Only whether a time moved is
//! compared, as two mounts are not used at the same instant; and only in some cases, as it takes waiting.

use std::os::fd::RawFd;

use super::ops::{Op, Path};
use crate::support::raw::{c, ret};

/// mtime and ctime of one object, the latter only of what is no directory, and its inode number, as a name may
/// stand for another object afterwards; None if there is none.
///
/// A directory's ctime moves when a child is copied up, at once on the kernel, with the next refresh on ours.
type Times = Option<([(i64, i64); 2], u64)>;

/// What was seen before an operation.
#[derive(Debug)]
pub struct Before(Vec<(String, Target, Times)>);

#[derive(Clone, Debug)]
enum Target {
    Name(RawFd, Vec<u8>),
    Open(RawFd),
}

fn times(target: &Target) -> Times {
    // SAFETY: stat is plain numbers, valid as zeroes; NUL-terminated names; a buffer that outlives the calls.
    let stat = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        let result = match target {
            Target::Name(dir, name) => {
                libc::fstatat(*dir, c(name).as_ptr(), &mut stat, libc::AT_SYMLINK_NOFOLLOW)
            }
            Target::Open(fd) => libc::fstat(*fd, &mut stat),
        };
        ret(result).ok()?;
        stat
    };
    let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    if stat.st_mode & libc::S_IFMT == libc::S_IFIFO {
        // See `world::describe`.
        return None;
    }
    let ctime = if directory {
        (0, 0)
    } else {
        (stat.st_ctime, stat.st_ctime_nsec)
    };
    Some(([(stat.st_mtime, stat.st_mtime_nsec), ctime], stat.st_ino))
}

/// Waits until the file systems' clock, which goes by ticks, is past every time that was seen: else a change in
/// the same tick moves nothing.
fn wait_for_a_tick(seen: impl Iterator<Item = (i64, i64)>) {
    let newest = seen.max().unwrap_or_default();
    loop {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: a timespec that outlives the call.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut now) };
        // A time that was set into the future is never reached, and is not this clock's.
        if (now.tv_sec, now.tv_nsec) > newest || newest.0 > now.tv_sec + 1 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_micros(300));
    }
}

impl Before {
    /// Looks at what `op` may change; `root` is the directory of the second name of a rename or link.
    pub fn look(op: &Op, root: RawFd, slot: impl Fn(usize) -> Option<RawFd>) -> Self {
        let mut targets = Vec::new();
        let mut name = |label: &str, dir: RawFd, path: &Path| {
            let parent = path
                .0
                .split_last()
                .map_or(Path(vec![]), |(_, above)| Path(above.to_vec()));
            targets.push((format!("{label}parent"), Target::Name(dir, parent.bytes())));
            targets.push((label.trim_end().to_owned(), Target::Name(dir, path.bytes())));
        };
        const HERE: RawFd = libc::AT_FDCWD;
        match op {
            Op::Mkdir { path, .. }
            | Op::Mknod { path, .. }
            | Op::Symlink { path, .. }
            | Op::Unlink { path }
            | Op::Rmdir { path }
            | Op::Chmod { path, .. }
            | Op::Chown { path, .. }
            | Op::Utimens { path, .. }
            | Op::Setxattr { path, .. }
            | Op::Removexattr { path, .. }
            | Op::Truncate { path, .. }
            | Op::WriteFile { path, .. }
            | Op::Replace { path, .. }
            | Op::Open { path, .. } => {
                name("object ", HERE, path);
            }
            Op::Rename { from, to, .. } | Op::Link { from, to, .. } => {
                name("source ", HERE, from);
                name("target ", root, to);
            }
            Op::Write { slot: s, .. }
            | Op::Ftruncate { slot: s, .. }
            | Op::Fallocate { slot: s, .. }
            | Op::Fchmod { slot: s, .. }
            | Op::Fchown { slot: s, .. }
            | Op::Futimens { slot: s, .. }
            | Op::Fsetxattr { slot: s, .. }
            | Op::CopyRange { to: s, .. }
            | Op::Linkfd { slot: s, .. } => {
                targets.extend(slot(*s).map(|fd| ("object".to_owned(), Target::Open(fd))));
            }
            _ => {}
        }
        let seen: Vec<_> = targets
            .into_iter()
            .map(|(label, t)| {
                let seen = times(&t);
                (label, t, seen)
            })
            .collect();
        wait_for_a_tick(
            seen.iter()
                .filter_map(|(_, _, times)| *times)
                .flat_map(|(times, _)| times),
        );
        Self(seen)
    }

    /// Which times are others now. An object that came or went says nothing.
    pub fn moved(self) -> String {
        let mut text = String::new();
        for (label, target, before) in self.0 {
            if let (Some((before, ino)), Some((after, now))) = (before, times(&target))
                && ino == now
            {
                for (i, what) in ["mtime", "ctime"].into_iter().enumerate() {
                    if before[i] != after[i] {
                        text += &format!(" [{label} {what} moved]");
                    }
                }
            }
        }
        text
    }
}
