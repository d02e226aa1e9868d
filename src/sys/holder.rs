//! Who holds a file system that cannot be seen: looked up in /proc, for a person
//! to read.
//!
//! What is found is true of the moment and of what this process may look at; it
//! decides nothing. No question is put to the file system itself, whose server
//! may be the one that does not answer.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::mountinfo;

/// `major:minor`, as in mountinfo.
pub type Device = (u32, u32);

/// So many descriptors are looked at before the search is given up.
const MOST_DESCRIPTORS: usize = 200_000;

/// A process that keeps a file system alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, as in /proc/PID/comm.
    pub name: String,
    /// What it has.
    pub how: How,
}

/// How a process keeps a file system alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// By a mount in its mount namespace, at this path there.
    Mount(PathBuf),
    /// By an open file or a directory; the kernel's name of it.
    Open(PathBuf),
    /// By a program, a library or other file that is mapped into its memory.
    Mapped(PathBuf),
}

/// The pid that holds a flock(2) on the inode (`dev`, `ino`), from /proc/locks.
pub fn of_lock(dev: u64, ino: u64) -> Option<u32> {
    let text = std::fs::read_to_string("/proc/locks").ok()?;
    let want = format!(
        "{:02x}:{:02x}:{ino}",
        rustix::fs::major(dev),
        rustix::fs::minor(dev)
    );
    text.lines().find_map(|l| {
        let mut w = l.split_whitespace().skip(1);
        let flock = w.next()? == "FLOCK";
        let pid = w.nth(2)?;
        (flock && w.next()? == want)
            .then(|| pid.parse().ok())
            .flatten()
    })
}

/// The FUSE file system that a process serves: the kernel says it beside the
/// descriptor of /dev/fuse (fuse_dev_show_fdinfo() in fs/fuse/dev.c, since 6.16).
pub fn served_by(pid: u32) -> Option<Device> {
    let infos = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?;
    infos.flatten().find_map(|entry| {
        let text = std::fs::read_to_string(entry.path()).ok()?;
        let number = text
            .lines()
            .find_map(|l| l.strip_prefix("fuse_connection:"));
        // The device number of a file system without a disk: major 0, minor this.
        Some((0, number?.trim().parse().ok()?))
    })
}

/// Where this process sees a file system mounted.
pub fn seen_at(device: Device) -> Option<PathBuf> {
    mounted_in(Path::new("/proc/self/mountinfo"), device)
}

/// A process that keeps a file system alive by a mount or by what it has open;
/// `server` is not looked at.
pub fn of_file_system(device: Device, server: u32) -> Option<Holder> {
    let pids = || processes().filter(move |pid| *pid != server);
    let mount = pids().find_map(|pid| {
        let at = mounted_in(&of_process(pid, "mountinfo"), device)?;
        Some((pid, How::Mount(at)))
    });
    let mut left = MOST_DESCRIPTORS;
    let (pid, how) = mount.or_else(|| {
        pids().find_map(|pid| {
            let open = opened_by(pid, device, &mut left).map(How::Open);
            Some((pid, open.or_else(|| mapped_by(pid, device))?))
        })
    })?;
    let name = std::fs::read(of_process(pid, "comm")).unwrap_or_default();
    Some(Holder {
        pid,
        name: String::from_utf8_lossy(&name).trim_end().to_owned(),
        how,
    })
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn of_process(pid: u32, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{what}"))
}

fn mounted_in(table: &Path, device: Device) -> Option<PathBuf> {
    let lines = mountinfo::parse(&std::fs::read(table).ok()?);
    let line = lines.into_iter().find(|l| l.device == device)?;
    Some(line.mountpoint)
}

/// The kernel's name of something on `device` that the process has open or
/// stands in.
fn opened_by(pid: u32, device: Device, left: &mut usize) -> Option<PathBuf> {
    let descriptors = std::fs::read_dir(of_process(pid, "fd"));
    let descriptors = descriptors.into_iter().flatten().flatten();
    [of_process(pid, "cwd"), of_process(pid, "root")]
        .into_iter()
        .chain(descriptors.map(|e| e.path()))
        .take_while(|_| {
            *left = left.saturating_sub(1);
            *left > 0
        })
        .find(|link| device_of(link) == Some(device))
        .map(|link| std::fs::read_link(link).unwrap_or_default())
}

/// st_dev of what a link in /proc leads to, from what the kernel knows.
fn device_of(link: &Path) -> Option<Device> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let x = rustix::fs::statx(CWD, link, flags, StatxFlags::empty()).ok()?;
    Some((x.stx_dev_major, x.stx_dev_minor))
}

fn mapped_by(pid: u32, device: Device) -> Option<How> {
    let text = std::fs::read(of_process(pid, "maps")).ok()?;
    let path = text
        .split(|b| *b == b'\n')
        .find_map(|line| mapped_on(line, device))?;
    Some(How::Mapped(path))
}

/// The path in a line of /proc/PID/maps, if it is a file on `device`.
fn mapped_on(line: &[u8], device: Device) -> Option<PathBuf> {
    // address perms offset dev inode path; the path may hold blanks.
    let mut fields = line
        .splitn(6, |b| *b == b' ')
        .skip(3)
        .map(|f| f.trim_ascii_start());
    let dev = std::str::from_utf8(fields.next()?).ok()?;
    let (major, minor) = dev.split_once(':')?;
    let number = |hex| u32::from_str_radix(hex, 16).ok();
    if (number(major)?, number(minor)?) != device {
        return None;
    }
    let path = fields.nth(1).unwrap_or_default();
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_is_told_by_its_device() {
        let line = b"7f1c2a000000-7f1c2a021000 r-xp 00001000 00:34 4711                       /bin/with a blank";
        let path = Some(PathBuf::from("/bin/with a blank"));
        assert_eq!(mapped_on(line, (0, 0x34)), path);
        assert_eq!(mapped_on(line, (0, 34)), None);
        let anonymous = b"7f1c2a000000-7f1c2a021000 rw-p 00000000 00:00 0 ";
        assert_eq!(mapped_on(anonymous, (0, 0x34)), None);
        assert_eq!(mapped_on(b"", (0, 0)), None);
    }

    #[test]
    fn the_holder_of_a_file_system_is_found_by_what_it_has_open() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        let me = std::process::id();
        let device = device_of(&of_process(me, "root")).unwrap();
        let mut left = 3;
        assert!(opened_by(me, device, &mut left).is_some());
        left = 1;
        assert_eq!(
            opened_by(me, device, &mut left),
            None,
            "the search is bounded"
        );
        drop(file);
        assert_eq!(served_by(me), None);
        assert_eq!(seen_at((0, u32::MAX)), None);
    }
}
