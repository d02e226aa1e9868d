//! What an ordinary user of a mount that root made could do to others.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::support::story::{as_uid, require_user_xattrs, sh, sh_as};
use crate::support::{Base, Layers, Mount, raw, skip};
use crate::{Watch, able, code, inside};

const GETFLAGS: u64 = 0x8008_6601;
const SETFLAGS: u64 = 0x4008_6602;
const SETFLAGS_32: u64 = 0x4004_6602;
const FSGETXATTR: u64 = 0x801c_581f;
const FSSETXATTR: u64 = 0x401c_5820;
const IMMUTABLE: u64 = 0x10;
const APPEND: u64 = 0x20;
const NOATIME: u64 = 0x80;

/// ioctl(2) with a buffer that is longer than any of these calls needs.
fn ioctl(file: &File, number: u64, flags: u64) -> Result<u64, i32> {
    let mut buffer = [flags, 0, 0, 0];
    // SAFETY: the buffer is longer than what any of the numbers above reads or writes.
    let rc = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            number as libc::c_ulong,
            buffer.as_mut_ptr(),
        )
    };
    raw::ret(rc).map(|_| buffer[0])
}

/// True if the file system of the layers keeps inode flags.
fn require_flags(layers: &Layers) -> bool {
    ioctl(&File::open(&layers.upper).unwrap(), GETFLAGS, 0).is_ok()
        || skip("no inode flags in the layers")
}

/// Finding 7: an ioctl number that the VFS does not know (the 32-bit FS_IOC_SETFLAGS, called by a 64-bit program) is checked by
/// nobody and reached the daemon: any user who could read a file made it immutable, as root.
/// By whatever number: flags are the owner's to change, and those two root's alone.
#[test]
fn finding_07_a_user_cannot_set_flags_of_others_by_any_number() {
    let layers = Layers::new(Base::Disk, 1);
    if !(able() && require_flags(&layers)) {
        return;
    }
    sh(
        &layers.root,
        "echo x > l0/f; chmod 644 l0/f; echo x > l0/own; chown 1000:1000 l0/own; mkdir l0/d",
    )
    .unwrap();
    let mount = Mount::acetate(&layers, "");
    let watch = Watch::over(&mount);
    let by_user = as_uid(1000, || {
        let mut seen = Vec::new();
        for name in ["f", "own", "d"] {
            let file = File::open(layers.at(name)).unwrap();
            for number in [SETFLAGS_32, SETFLAGS, FSSETXATTR] {
                // FS_XFLAG_IMMUTABLE is 8, FS_XFLAG_APPEND 0x10.
                let (immutable, append) = if number == FSSETXATTR {
                    (8, 0x10)
                } else {
                    (IMMUTABLE, APPEND)
                };
                seen.push((
                    name,
                    number,
                    ioctl(&file, number, immutable).is_ok(),
                    ioctl(&file, number, append).is_ok(),
                ));
            }
        }
        let file = File::open(layers.at("own")).unwrap();
        let innocent = ioctl(&file, SETFLAGS, NOATIME).and_then(|_| ioctl(&file, GETFLAGS, 0));
        (seen, innocent.map(|flags| flags & NOATIME))
    });
    let written = fs::write(layers.at("f"), "root");
    drop(watch);
    mount.unmount();
    // Whatever happened, the temporary directory must be removable.
    sh(&layers.root, "chattr -R -f -i -a upper || :").unwrap();
    for (name, number, immutable, append) in by_user.0 {
        assert!(
            !immutable && !append,
            "{name}: {number:#x}: immutable {immutable}, append-only {append}"
        );
    }
    assert_eq!(by_user.1, Ok(NOATIME), "an owner's harmless flag");
    assert_eq!(code(written), Ok(()));
    assert!(!layers.upper.join("f/g").exists());
}

/// Finding 7, what must go on working: root sets the flags, by the number that chattr(1) uses.
#[test]
fn finding_07_root_still_sets_and_clears_them() {
    let layers = Layers::new(Base::Disk, 1);
    if !(able() && require_flags(&layers)) {
        return;
    }
    fs::write(layers.lowers[0].join("f"), "x").unwrap();
    let mount = Mount::acetate(&layers, "");
    let watch = Watch::over(&mount);
    let file = File::open(layers.at("f")).unwrap();
    let set = ioctl(&file, SETFLAGS, IMMUTABLE);
    let (got, refused) = (
        ioctl(&file, GETFLAGS, 0),
        code(fs::write(layers.at("f"), "y")),
    );
    let xflags = ioctl(&file, FSGETXATTR, 0).map(|v| v & 8);
    let cleared = ioctl(&file, SETFLAGS, 0);
    drop(file);
    drop(watch);
    mount.unmount();
    sh(&layers.root, "chattr -R -f -i -a upper || :").unwrap();
    assert!(set.is_ok() && cleared.is_ok(), "{set:?} {cleared:?}");
    assert_eq!(
        (got.map(|v| v & IMMUTABLE), xflags, refused),
        (Ok(IMMUTABLE), Ok(8), Err(libc::EPERM))
    );
}

/// 400 names of 250 bytes on one file: more than listxattr(2) can hold.
fn crowd(path: &Path) -> Result<(), i32> {
    let path = raw::c(path.as_os_str().as_bytes());
    (0..400).try_for_each(|i| {
        let name = raw::c(format!("user.{i:04}{}", "x".repeat(240)));
        raw::set_xattr(&path, &name, b"", 0).map(drop)
    })
}

/// Finding 8: a file with more xattr names than fit a list made its directory unlistable and itself immovable, also after a remount;
/// any user of the mount could do that to a shared directory. Its neighbours, and it too, must stay usable.
#[test]
fn finding_08_a_file_with_very_many_xattrs_harms_nobody() {
    if !(able() && require_user_xattrs(Base::Shm)) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    sh(
        &layers.root,
        "mkdir l0/d; echo n > l0/d/neighbour; chmod 1777 l0/d",
    )
    .unwrap();
    let mount = Mount::acetate(&layers, "");
    let watch = Watch::over(&mount);
    sh_as(
        1000,
        &layers.at("d"),
        "echo mine > crowded; mkdir crowd; echo y > crowd/g",
    )
    .unwrap();
    let full = as_uid(1000, || {
        crowd(&layers.at("d/crowded")).and_then(|()| crowd(&layers.at("d/crowd")))
    });
    drop(watch);
    mount.unmount();
    if full.is_err() {
        skip(&format!(
            "this file system does not take so many xattrs: {full:?}"
        ));
        return;
    }
    let out = inside(
        &layers,
        "",
        "ls d d/crowd; stat -c %s d/crowded; cat d/crowded d/crowd/g d/neighbour",
    )
    .unwrap();
    assert_eq!(
        out,
        "d:\ncrowd\ncrowded\nneighbour\n\nd/crowd:\ng\n5\nmine\ny\nn\n"
    );
    let out = inside(&layers, "", "ls -l d >/dev/null; mv d/crowded d/moved; mv d/crowd d/c; chmod 600 d/moved; echo more >> d/moved; cat d/moved d/c/g").unwrap();
    assert_eq!(out, "mine\nmore\ny\n");
    assert_eq!(
        inside(&layers, "", "rm d/moved; ls d; rm -r d; ls").unwrap(),
        "c\nneighbour\n"
    );
}

/// Finding 8 from below: the same in a hostile lower. What lies in such a directory can be read, replaced and removed.
#[test]
fn finding_08_a_lower_with_very_many_xattrs_is_listed_read_and_removed() {
    let steps = [
        (
            "ls d; cat d/crowded d/crowd/g d/n; stat -c %s d/crowded; ls d/crowd",
            "crowd\ncrowded\nn\nc\ng\nn\n2\ng\n",
        ),
        ("rm d/crowded; echo h > d/n; ls d; cat d/n", "crowd\nn\nh\n"),
    ];
    for (script, expected) in steps {
        let Some(layers) = hostile_lower() else {
            return;
        };
        assert_eq!(inside(&layers, "", script).as_deref(), Ok(expected));
    }
}

/// Finding 8, the rest: a crowded lower *directory* must not make what is in it unchangeable: copying it up was E2BIG.
#[test]
fn finding_08_a_lower_directory_with_very_many_xattrs_can_be_changed_and_removed() {
    for (script, expected) in [
        ("echo n > d/crowd/n; rm d/crowd/g; ls d/crowd", "n\n"),
        ("rm -r d; ls", ""),
    ] {
        let Some(layers) = hostile_lower() else {
            return;
        };
        assert_eq!(inside(&layers, "", script).as_deref(), Ok(expected));
    }
}

/// A lower with a crowded file and a crowded merged directory; says why not and is None.
fn hostile_lower() -> Option<Layers> {
    if !(able() && require_user_xattrs(Base::Shm)) {
        return None;
    }
    let layers = Layers::new(Base::Shm, 2);
    sh(&layers.root, "mkdir -p l0/d/crowd l1/d/crowd; echo c > l1/d/crowded; echo n > l1/d/n; echo g > l1/d/crowd/g").unwrap();
    let full = ["l1/d/crowded", "l1/d/crowd", "l0/d/crowd"]
        .iter()
        .try_for_each(|n| crowd(&layers.root.join(n)));
    if full.is_err() {
        skip(&format!(
            "this file system does not take so many xattrs: {full:?}"
        ));
        return None;
    }
    Some(layers)
}

/// Finding 9: with `xattr_permissions=2`, `security.capability` is kept as `user.containers.override_security.capability`; whoever owned a
/// file could set that name itself, and had forged file capabilities. Such names are private: not set, not shown, not removed.
#[test]
fn finding_09_file_capabilities_cannot_be_forged_through_the_raw_name() {
    if !(able() && require_user_xattrs(Base::Disk)) {
        return;
    }
    // VFS_CAP_REVISION_2 with CAP_SETUID effective and permitted.
    let capability = [
        1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let names = [
        "user.containers.override_security.capability",
        "user.containers.override_security.ima",
        "user.containers.override_stat",
        "user.fuseoverlayfs.override_stat",
        "security.fuseoverlayfs.override_stat",
    ];
    for words in ["xattr_permissions=2", "xattr_permissions=1", ""] {
        let layers = Layers::new(Base::Disk, 1);
        let mount = Mount::acetate(&layers, words);
        let watch = Watch::over(&mount);
        fs::write(layers.at("f"), "x").unwrap();
        fs::set_permissions(layers.at("f"), fs::Permissions::from_mode(0o755)).unwrap();
        chown(layers.at("f"), Some(1000), Some(1000)).unwrap();
        let path = raw::c(layers.at("f").as_os_str().as_bytes());
        let (set, seen) = as_uid(1000, || {
            let set: Vec<_> = names
                .iter()
                .map(|n| {
                    (
                        *n,
                        raw::set_xattr(&path, &raw::c(n), &capability, 0).is_ok(),
                    )
                })
                .collect();
            let direct = raw::set_xattr(&path, c"security.capability", &capability, 0);
            assert_eq!(direct, Err(libc::EPERM), "{words}: the name itself");
            (
                set,
                (
                    raw::get_xattr(&path, c"security.capability"),
                    raw::list_xattrs(&path),
                ),
            )
        });
        // Nor does root, whom the kernel lets set any name. Debian's 6.1 lets the owner of a file set `security.fuseoverlayfs.*`
        // too (scripts/old-kernel), so that it is not enough that the kernel should refuse.
        let private_by_root: Vec<_> = names
            .iter()
            .map(|n| (*n, raw::set_xattr(&path, &raw::c(n), &capability, 0)))
            .collect();
        // Root may, and no private name shows.
        let by_root = raw::set_xattr(&path, c"security.capability", &capability, 0);
        let listed = raw::list_xattrs(&path).unwrap();
        drop(watch);
        mount.unmount();
        assert!(set.iter().all(|(_, ok)| !ok), "{words}: {set:?}");
        assert!(
            private_by_root.iter().all(|(_, r)| *r == Err(libc::EPERM)),
            "{words}: {private_by_root:?}"
        );
        assert_eq!(seen, (Err(libc::ENODATA), Ok(vec![])), "{words}");
        assert!(
            by_root.is_err() || listed == [b"security.capability".to_vec()],
            "{words}: {by_root:?} {listed:?}"
        );
    }
}
