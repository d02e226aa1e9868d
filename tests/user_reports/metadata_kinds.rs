//! Section E, second part: what is no plain file or directory, ioctls, foreign xattrs, statfs.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use crate::support::story::{Story, on_both, on_ours, require_real_root, sh};
use crate::support::{Base, Layers, Mount, Snapshot};

/// F#47, F#66, F#313: ENOTSUP for SELinux labels, for a tmpfs without user xattrs, and for xattrs of device nodes made the
/// copy-up fail. What the upper cannot keep and nobody can miss is left out; everything is copied up all the same.
#[test]
fn f47_xattrs_that_the_upper_refuses_do_not_stop_a_copy_up() {
    Story::new(
        1,
        "mknod l0/null c 1 3; mknod l0/loop b 7 200; mkfifo l0/p; echo x > l0/f; ln -s f l0/l
         for f in null loop p f; do setfattr -n trusted.t -v 1 l0/$f; done; setfattr -h -n trusted.t -v 1 l0/l; setfattr -n user.u -v 2 l0/f",
    )
    .step("chmod 600 null loop p f; chown -h 1:1 l null; mv loop loop2; ln p p2; getfattr -h -d -m - null loop2 p f l; stat -c '%n %a %u %t:%T' null loop2 p f l; echo > null; head -c 4 null | wc -c")
    .step("getfattr -h -d -m - null loop2 p f l; ! setfattr -n user.x -v 1 p 2>/dev/null; ! setfattr -h -n user.x -v 1 l 2>/dev/null; setfattr -n trusted.n -v 1 null; getfattr -d -m - null")
    .run();
    // An upper that keeps no xattr at all.
    if !(require_real_root()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    sh(&layers.root, "mkdir fs; mount -t ramfs none fs; mkdir fs/upper fs/work; echo x > l0/f; setfattr -n user.u -v 1 l0/f; setfattr -n trusted.t -v 1 l0/f; mknod l0/n c 1 3; mkdir l0/d; setfattr -n user.u -v 1 l0/d; echo y > l0/d/g").unwrap();
    let mut on_ramfs = Layers::of(layers.root.clone(), layers.lowers.clone());
    (on_ramfs.upper, on_ramfs.work) = (layers.root.join("fs/upper"), layers.root.join("fs/work"));
    let result = std::panic::catch_unwind(|| {
        let mount = Mount::acetate(&on_ramfs, "");
        let out = sh(
            &on_ramfs.merged,
            "echo more >> f; cat f; chmod 600 n; echo z > d/new; rm d/g; mv d e; ls e; mkdir d; rm -r e; ls -A d .",
        );
        let tree = Snapshot::of(&on_ramfs.merged);
        mount.unmount();
        (out, tree)
    });
    sh(&layers.root, "umount -l fs").unwrap();
    let (out, tree) = result.unwrap();
    tree.assert_sound("an upper without xattrs");
    assert_eq!(out.unwrap(), "x\nmore\nnew\n.:\nd\nf\nn\n\nd:\n");
}

/// B#1158, B#1983, coreos/rpm-ostree#2982: with SELinux everything was fusefs_t. The mount word `context=` is passed on
/// where the kernel has SELinux and accepted in silence where not; labels are xattrs like others.
#[test]
fn b1158_a_context_word_does_not_stop_the_mount() {
    on_ours(
        Base::Shm,
        1,
        "echo x > l0/f",
        "context=\"system_u:object_r:container_file_t:s0:c1,c2\"",
        |layers, _| {
            assert_eq!(
                sh(&layers.merged, "cat f; echo y >> f; cat f").unwrap(),
                "x\nx\ny\n"
            );
        },
    );
}

const FS_IOC_GETFLAGS: libc::c_ulong = 0x8008_6601;
const FS_IOC_SETFLAGS: libc::c_ulong = 0x4008_6602;
const FS_IOC_GETVERSION: libc::c_ulong = 0x8008_7601;
const FS_NOATIME_FL: i32 = 0x80;

fn ioctl(file: &File, request: libc::c_ulong, value: &mut i64) -> Result<i64, i32> {
    // SAFETY: the requests used here read or write at most 8 bytes at `value`.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), request, std::ptr::from_mut(value)) };
    if rc < 0 {
        Err(crate::support::raw::errno())
    } else {
        Ok(*value)
    }
}

/// F#330: lsattr got EIO (a reply of the wrong size). F#59: pacman broke where the ioctls were missing. Flags of files and
/// directories of lower and upper, set and read back over the copy-up; unknown requests are ENOTTY.
#[test]
fn f330_file_flags_by_ioctl_and_unknown_ioctls() {
    on_ours(
        Base::Disk,
        1,
        "mkdir l0/d; echo x > l0/f",
        "",
        |layers, _| {
            sh(&layers.merged, "mkdir new; echo y > new/f").unwrap();
            for name in ["f", "d", "new", "new/f"] {
                let file = File::open(layers.at(name)).unwrap();
                let mut value = 0;
                let flags = ioctl(&file, FS_IOC_GETFLAGS, &mut value)
                    .unwrap_or_else(|e| panic!("{name}: GETFLAGS: errno {e}"))
                    as i32;
                let mut value = i64::from(flags | FS_NOATIME_FL);
                ioctl(&file, FS_IOC_SETFLAGS, &mut value)
                    .unwrap_or_else(|e| panic!("{name}: SETFLAGS: errno {e}"));
                let mut value = 0;
                let now = ioctl(&file, FS_IOC_GETFLAGS, &mut value).unwrap() as i32;
                assert_eq!(
                    now & FS_NOATIME_FL,
                    FS_NOATIME_FL,
                    "{name}: the flag that was set"
                );
                for request in [0x1234_5678, 0x5413, u64::from(0x8008_4104_u32)] {
                    assert_eq!(
                        ioctl(&file, request as libc::c_ulong, &mut 0),
                        Err(libc::ENOTTY),
                        "{name}: {request:#x}"
                    );
                }
                let version = ioctl(&file, FS_IOC_GETVERSION, &mut 0);
                assert!(
                    matches!(version, Ok(_) | Err(libc::ENOTTY)),
                    "{name}: GETVERSION {version:?}"
                );
            }
            assert_eq!(
                sh(
                    &layers.lowers[0],
                    "lsattr -d f d 2>/dev/null | cut -c 8 | sort -u"
                )
                .map(|o| o.contains('A')),
                Ok(false),
                "a flag was set in the lower"
            );
        },
    );
}

/// F#99, F#110, F#111: postgres could not bind or chmod its socket, since the daemon opened it. Bind, connect, chmod, chown,
/// rename, link, copy-up and removal of sockets.
#[test]
fn f99_sockets_are_bound_changed_and_copied_up() {
    on_both(1, "mkdir l0/run", |root| {
        let at = |name: &str| root.join(name);
        let listener = UnixListener::bind(at("run/s")).unwrap();
        UnixStream::connect(at("run/s")).unwrap();
        listener.accept().unwrap();
        sh(
            root,
            "chmod 600 run/s; chown 5:6 run/s; mv run/s run/t; ln run/t run/u; touch -d @5 run/t",
        )
        .unwrap();
        UnixStream::connect(at("run/u")).unwrap();
        assert!(
            UnixListener::bind(at("run/t")).is_err(),
            "the address is in use"
        );
        let datagram = UnixDatagram::bind(at("run/d")).unwrap();
        drop(datagram);
        sh(
            root,
            "stat -c '%n %F %a %u:%g %h %Y' run/t run/u; rm run/*; ls -A run",
        )
        .unwrap()
    });
    // A socket of a lower layer.
    if !(require_real_root()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let _bound = UnixListener::bind(layers.lowers[0].join("s")).unwrap();
    let mount = Mount::acetate(&layers, "");
    sh(&layers.merged, "stat -c %F s; chmod 777 s; chown 3:3 s; mv s t; ln t v; stat -c '%F %a %u %h' t; rm t v; ls -A").map(|o| assert_eq!(o, "socket\nsocket 777 3 2\n")).unwrap();
    mount.unmount();
}

/// F#65, containerd/stargz-snapshotter#2158, apptainer/singularity#2640: statfs gave zeros, or failed after pivot_root, so
/// kubelet and yum refused. The numbers are the upper's, also after the mount has become the root.
#[test]
fn f65_statfs_gives_the_upper_filesystem_also_after_pivot_root() {
    on_ours(
        Base::Shm,
        1,
        "mkdir l0/old l0/bin; cp /bin/busybox l0/bin/busybox 2>/dev/null || true",
        "",
        |layers, _| {
            let (ours, upper) = (
                rustix::fs::statvfs(&layers.merged).unwrap(),
                rustix::fs::statvfs(&layers.upper).unwrap(),
            );
            assert_eq!(
                (ours.f_blocks, ours.f_bsize, ours.f_namemax, ours.f_files),
                (upper.f_blocks, upper.f_bsize, 255, upper.f_files)
            );
            assert!(ours.f_bavail > 0 && ours.f_bavail <= ours.f_blocks);
            if !layers.at("bin/busybox").exists() {
                crate::support::skip("pivot_root part: no static busybox");
                return;
            }
            let script = format!(
                "cd {} && mount --bind . . && cd {} && pivot_root . old && /bin/busybox stat -f -c '%b %l %t' /",
                layers.merged.display(),
                layers.merged.display()
            );
            let out = std::process::Command::new("unshare")
                .args(["-m", "sh", "-euc", &script])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(
                out.status.success(),
                "{text}{}",
                String::from_utf8_lossy(&out.stderr)
            );
            assert_eq!(
                text.split_whitespace().next().unwrap(),
                upper.f_blocks.to_string(),
                "{text}"
            );
        },
    );
}
