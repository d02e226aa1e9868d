//! Processes in namespaces of their own, and the ids that are known in them.

use std::os::fd::RawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

use super::process::{self, Fork};
use super::{Errno, Result};

/// What a process is to have of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Mounts, and the numbers of processes; needs CAP_SYS_ADMIN.
    MountsAndProcesses,
    /// The users too: it holds every capability over what it has of its own. What
    /// ids it knows is for its parent to say: [`map_ids`].
    UsersToo,
}

/// Makes a child process that goes on from here in namespaces of its own, as the
/// first process of its PID namespace: when it ends, the kernel ends all others
/// in there. Refused while other threads run, as [`process::fork`] is.
///
/// # Errors
/// EPERM and ENOSPC where this host gives no (more) namespaces.
pub fn fork_into(own: Own) -> Result<Fork> {
    if !process::alone_soon() {
        return Err(Errno::EBUSY);
    }
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::SIGCHLD;
    if own == Own::UsersToo {
        flags |= libc::CLONE_NEWUSER;
    }
    let flags = libc::c_long::from(flags);
    // s390x has the stack before the flags (clone(2)).
    #[cfg(target_arch = "s390x")]
    let (first, second) = (0, flags);
    #[cfg(not(target_arch = "s390x"))]
    let (first, second) = (flags, 0);
    // SAFETY: no other thread exists (checked above) and no memory is shared: the
    // child has a copy of this one's stack (a null stack means that, as fork(2)).
    let pid = unsafe { libc::syscall(libc::SYS_clone, first, second, 0, 0, 0) };
    match pid {
        -1 => Err(Errno::last()),
        0 => Ok(Fork::Child),
        _ => i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .map(Fork::Parent)
            .ok_or(Errno::EIO),
    }
}

/// Has the kernel kill this process when its parent ends. That the parent has not
/// ended before is for the caller to find out.
pub fn die_with_parent() -> Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(
        Signal::KILL,
    ))?)
}

/// The subordinate ids of a user, as newuidmap(1) may map them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subordinates {
    /// First user id, and how many.
    pub users: (u32, u32),
    /// The same for groups.
    pub groups: (u32, u32),
}

/// Longest of the files that tell of users; longer ones are not read.
const FILE_MAX: u64 = 16 << 20;

/// The first range of subordinate ids that /etc/subuid and /etc/subgid give this
/// user (subuid(5)).
pub fn subordinates() -> Option<Subordinates> {
    let (uid, _) = process::effective_ids();
    let name = read("/etc/passwd").and_then(|text| name_of(&text, uid));
    let range = |file| first_range(&read(file)?, uid, name.as_deref());
    Some(Subordinates {
        users: range("/etc/subuid")?,
        groups: range("/etc/subgid")?,
    })
}

fn read(file: &str) -> Option<String> {
    let size = std::fs::metadata(file).ok()?.len();
    if size > FILE_MAX {
        return None;
    }
    let bytes = std::fs::read(file).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// passwd(5): name:password:uid:…
fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let found: u32 = fields.nth(1)?.parse().ok()?;
        (found == uid).then(|| name.to_owned())
    })
}

fn first_range(text: &str, uid: u32, name: Option<&str>) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let mine = Some(owner) == name || owner.parse() == Ok(uid);
        let first = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        (mine && count > 0).then_some((first, count))
    })
}

/// Gives a child that [`fork_into`] made with users of its own the ids that it
/// knows: this process's as its root; the subordinate ones from 1 on, where they
/// are given and the programs of shadow-utils are there to map them.
pub fn map_ids(child: Pid, more: Option<Subordinates>) -> Result<()> {
    let (uid, gid) = process::effective_ids();
    if let Some(more) = more {
        let by_program = |program: &str, own: u32, range: (u32, u32)| {
            let words = ["0", &own.to_string(), "1", "1"].map(str::to_owned);
            let status = Command::new(program)
                .arg(child.as_raw_nonzero().to_string())
                .args(words)
                .args([range.0.to_string(), range.1.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|s| s.success())
        };
        // A map is written once: what the first one left open can still be written.
        if by_program("newgidmap", gid, more.groups) && by_program("newuidmap", uid, more.users) {
            return Ok(());
        }
    }
    let of_child = format!("/proc/{}", child.as_raw_nonzero());
    let write = |file: &str, text: String| {
        std::fs::write(Path::new(&of_child).join(file), text).map_err(|e| Errno::from_io(&e))
    };
    let is_written = |file: &str| {
        let text = std::fs::read_to_string(Path::new(&of_child).join(file)).unwrap_or_default();
        !text.trim().is_empty()
    };
    if !is_written("gid_map") {
        write("setgroups", "deny".to_owned())?;
        write("gid_map", format!("0 {gid} 1"))?;
    }
    write("uid_map", format!("0 {uid} 1"))
}

/// Whether an id has a meaning in this user namespace; `map` is `uid_map` or `gid_map`.
pub fn is_mapped(map: &str, id: u32) -> bool {
    let text = std::fs::read_to_string(Path::new("/proc/self").join(map)).unwrap_or_default();
    text.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.nth(1)) {
            (Some(Ok(first)), Some(Ok(count))) => {
                (first..first.saturating_add(count)).contains(&u64::from(id))
            }
            _ => false,
        }
    })
}

/// Closes every descriptor above 2 that no program would be given, but `keep`.
///
/// For a forked process that never returns to the owners of what is closed here.
pub fn close_own(keep: &[RawFd]) {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd > 2 && !keep.contains(fd)) {
        // SAFETY: fcntl(2) and close(2) take a number; the owners are never
        // returned to, and a second close of a number does nothing.
        unsafe {
            let flags = libc::fcntl(fd, libc::F_GETFD);
            if flags >= 0 && flags & libc::FD_CLOEXEC != 0 {
                libc::close(fd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_found_by_name_and_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbroken\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(name_of(passwd, 7), None);
        let text = "bob:1:2\nann:100000:65536\n7:5:6\nann:9:9\n";
        assert_eq!(
            first_range(text, 1000, Some("ann")),
            Some((100_000, 65_536))
        );
        assert_eq!(first_range(text, 7, None), Some((5, 6)));
        assert_eq!(first_range("ann:1:0\nann:x:5\n", 1000, Some("ann")), None);
    }
}
