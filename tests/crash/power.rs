//! A power cut: what was reported as synced is there afterwards, and a copied-up file never lost its old content.
//!
//! The upper lies on an ext4 of its own, in an image. `EXT4_IOC_SHUTDOWN` stops it at once, without writing what is
//! in memory; with or without the journal's last transactions. Then it is mounted again, as after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::host::{own_mounts, require_program};
use crate::support::{Base, Layers, Mount, require_fuse, require_root, skip};

/// What the shutdown still writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Journal {
    /// Names are committed, data that was not synced is not: the worst case for a copy-up that publishes early.
    Flushed = 1,
    /// Nothing.
    Lost = 2,
}

/// An ext4 in an image, mounted; taken down when dropped.
struct Disk {
    image: PathBuf,
    point: PathBuf,
}

fn run(program: &str, args: &[&Path]) -> bool {
    Command::new(program)
        .args(args)
        .output()
        .is_ok_and(|out| out.status.success())
}

impl Disk {
    fn new(root: &Path) -> Option<Self> {
        let disk = Self {
            image: root.join("image"),
            point: root.join("disk"),
        };
        fs::create_dir(&disk.point).unwrap();
        File::create(&disk.image)
            .unwrap()
            .set_len(64 << 20)
            .unwrap();
        (run("mkfs.ext4", &[Path::new("-q"), &disk.image]) && disk.mount()).then_some(disk)
    }

    fn mount(&self) -> bool {
        run(
            "mount",
            &[Path::new("-o"), Path::new("loop"), &self.image, &self.point],
        )
    }

    /// Cuts the power.
    fn cut(&self, journal: Journal) {
        // _IOR('X', 125, __u32)
        const EXT4_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
        let flags = journal as u32;
        let dir = File::open(&self.point).unwrap();
        // SAFETY: the ioctl reads one u32.
        let rc = unsafe { libc::ioctl(dir.as_raw_fd(), EXT4_IOC_SHUTDOWN, &flags) };
        assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    }

    fn unmount(&self) -> bool {
        run("umount", &[&self.point])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn old(n: u32) -> Vec<u8> {
    format!("old {n:04}\n").repeat(20_000).into_bytes()
}

fn new(n: u32) -> Vec<u8> {
    format!("NEW {n:04}!\n").repeat(10_000).into_bytes()
}

fn synced_dir(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

/// What a client does to `d/fN`, by its number.
fn work(root: &Path) {
    for n in 0..25 {
        let path = root.join(format!("d/f{n}"));
        match n % 5 {
            // Overwritten in place and synced.
            0 => {
                let mut file = OpenOptions::new()
                    .write(true)
                    .truncate(true)
                    .open(&path)
                    .unwrap();
                file.write_all(&new(n)).unwrap();
                file.sync_all().unwrap();
            }
            // Replaced as editors do, and synced.
            1 => {
                let temporary = root.join("d/temporary");
                let mut file = File::create(&temporary).unwrap();
                file.write_all(&new(n)).unwrap();
                file.sync_all().unwrap();
                fs::rename(&temporary, &path).unwrap();
                synced_dir(&root.join("d"));
            }
            // Nobody synced these: the old content is all that is asked for.
            2 => OpenOptions::new()
                .append(true)
                .open(&path)
                .unwrap()
                .write_all(b"appended")
                .unwrap(),
            3 => fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap(),
            _ => fs::rename(&path, root.join(format!("d/moved{n}"))).unwrap(),
        }
    }
}

fn check(root: &Path, journal: Journal) -> Vec<String> {
    let mut wrong = Vec::new();
    for n in 0..25 {
        let read = |name: String| fs::read(root.join("d").join(name)).ok();
        let found = read(format!("f{n}")).or_else(|| read(format!("moved{n}")));
        let right = match (&found, n % 5) {
            (Some(found), 0 | 1) => *found == new(n),
            // Appended or not, or a size whose data was not written: but what was there is there.
            (Some(found), _) => found.starts_with(&old(n)),
            (None, _) => false,
        };
        if !right {
            let seen = found
                .map(|f| format!("{} bytes, {}", f.len(), f[..f.len().min(10)].escape_ascii()));
            wrong.push(format!("{journal:?}: f{n} (kind {}): {seen:?}", n % 5));
        }
    }
    wrong
}

fn cut_and_look(journal: Journal, options: &str) -> Option<Vec<String>> {
    own_mounts();
    let outside = Layers::new(Base::Disk, 1);
    fs::create_dir(outside.lowers[0].join("d")).unwrap();
    for n in 0..25 {
        fs::write(outside.lowers[0].join(format!("d/f{n}")), old(n)).unwrap();
    }
    let Some(disk) = Disk::new(&outside.root) else {
        skip("no ext4 image can be mounted");
        return None;
    };
    let layers = Layers::of(disk.point.join("layers"), outside.lowers.clone());
    let mount = Mount::acetate(&layers, options);
    synced_dir(&disk.point);
    // SAFETY: no memory is involved.
    unsafe { libc::sync() };
    work(&layers.merged);
    disk.cut(journal);
    mount.kill_daemon();
    assert!(
        disk.unmount() && disk.mount(),
        "the image does not mount again"
    );
    let again = Mount::acetate(&layers, options);
    let wrong = check(&layers.merged, journal);
    again.unmount();
    let left: Vec<_> = layers
        .work
        .join("work")
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "left in the work directory: {left:?}");
    Some(wrong)
}

fn ready() -> bool {
    require_root() && require_fuse() && require_program("mkfs.ext4")
}

#[test]
fn a_power_cut_takes_nothing_that_was_synced_and_no_old_content() {
    if !ready() {
        return;
    }
    for journal in [Journal::Lost, Journal::Flushed] {
        if let Some(wrong) = cut_and_look(journal, "") {
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
}

/// The same with `volatile`, which promises nothing: if nothing were lost the test above would show nothing.
#[test]
fn a_volatile_mount_loses_something_in_a_power_cut() {
    if !ready() {
        return;
    }
    if let Some(wrong) = cut_and_look(Journal::Flushed, "volatile") {
        assert!(
            !wrong.is_empty(),
            "the power cut lost nothing, so it is none"
        );
    }
}
