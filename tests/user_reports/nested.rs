//! Section J: in containers, and mounts in mounts.
//!
//! Rows without a test here: that a missing /dev/fuse is named with its remedies (B#2084, P#8918, P#6667, A#1411,
//! docker/sbx-releases#253, osbuild/osbuild#2518) is `tests/cli/places.rs::without_the_fuse_device_it_says_so`; podman in
//! podman (F#401, B#4715) is a run of real clients: the steps `nested` and `nested_on_overlay` of `scripts/clients`.

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::host::{own_mounts, skip};
use crate::support::mount::{acetate_bin, is_peer};
use crate::support::story::{on_ours, require_real_root, sh, sh_as};
use crate::support::{Base, Layers, Mount, Snapshot, diff};

/// A FUSE mount that this test made itself and nobody serves yet; the descriptor is number 9 in `command`.
fn mounted_by_the_parent(layers: &Layers, command: &mut Command) -> std::io::Result<()> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")?;
    let data = format!(
        "fd={},rootmode=40755,user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    rustix::mount::mount(
        "sandbox",
        &layers.merged,
        "fuse.sandbox",
        rustix::mount::MountFlags::NODEV,
        Some(std::ffi::CString::new(data)?.as_c_str()),
    )?;
    // SAFETY: dup2 in the child is a plain system call; the device lives in the closure.
    unsafe {
        command.pre_exec(move || match libc::dup2(device.as_raw_fd(), 9) {
            9 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    Ok(())
}

/// B#2084 and its kin: in a pod there is no /dev/fuse to open, and no right to mount. Whoever has both opens the device, mounts,
/// and starts the daemon with the descriptor: libfuse's convention is that the mount point is then called /dev/fd/N.
#[test]
fn b2084_a_descriptor_that_the_parent_mounted_is_served() {
    if !require_real_root() || is_peer(&acetate_bin()) {
        return;
    }
    own_mounts();
    for way in [
        "in the foreground",
        "in the background",
        "without rights",
        "ended by a signal",
    ] {
        let layers = Layers::new(Base::Shm, 1);
        sh(
            &layers.root,
            "echo lower > l0/f; chmod 711 .; chown -R 1000:1000 l0 upper work; chown 1000:1000 .",
        )
        .unwrap();
        let unprivileged = way == "without rights";
        let mut command = if unprivileged {
            let mut command = Command::new("setpriv");
            command
                .args([
                    "--reuid=1000",
                    "--regid=1000",
                    "--clear-groups",
                    "--no-new-privs",
                    "--",
                ])
                .arg(acetate_bin());
            command
        } else {
            Command::new(acetate_bin())
        };
        command
            .arg("mount")
            .args((way != "in the background").then_some("-f"));
        command
            .args(["-o", &layers.options(), "/dev/fd/9"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if unprivileged
            && !crate::support::as_user(1000, format!("test -x '{}'", acetate_bin().display()))
                .status()
                .unwrap()
                .success()
        {
            skip("user 1000 cannot reach the program");
            continue;
        }
        mounted_by_the_parent(&layers, &mut command).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        // Until it is served, and for ever if it never is, a stat waits: so not by this thread.
        let look = "timeout 10 cat merged/f && echo new > merged/g && cat merged/g";
        let served = if unprivileged {
            // Such a daemon makes files of its own user's only.
            sh_as(1000, &layers.root, look)
        } else {
            sh(&layers.root, look)
        };
        if way == "ended by a signal" {
            // SAFETY: a plain number; our child, not yet waited for.
            unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGTERM) };
        } else {
            rustix::mount::unmount(&layers.merged, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
        let deadline = Instant::now() + crate::support::host::slowly(Duration::from_secs(10));
        while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let ended = child.try_wait().unwrap();
        if ended.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        if way == "ended by a signal" {
            // The connection is closed: nobody waits for an answer that never comes. The mount is its maker's to take away.
            assert_eq!(
                rustix::fs::statfs(&layers.merged).unwrap_err(),
                rustix::io::Errno::NOTCONN
            );
            rustix::mount::unmount(&layers.merged, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
        assert_eq!(served.as_deref(), Ok("lower\nnew\n"), "{way}");
        assert!(ended.is_some_and(|s| s.success()), "{way}: {ended:?}");
        assert_eq!(
            fs::read_to_string(layers.upper.join("g")).unwrap(),
            "new\n",
            "{way}"
        );
    }
}

/// A number that is no FUSE device is a mistake of the caller's, said in words.
#[test]
fn b2084_a_descriptor_that_is_no_fuse_device_is_refused() {
    if !require_real_root() || is_peer(&acetate_bin()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    for (given, script) in [
        ("/dev/fd/9", "exec 9</dev/null"),
        ("/dev/fd/9", "exec 9>&-"),
    ] {
        let out = Command::new("sh")
            .args([
                "-c",
                &format!(
                    "{script}; exec \"$0\" mount -o {} {given}",
                    layers.options()
                ),
            ])
            .arg(acetate_bin())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(32), "{said}");
        assert!(
            said.contains("/dev/fd/9") && said.contains("hint"),
            "{said}"
        );
    }
}

/// B#867, B#2175: kernel overlayfs refuses an upper on an overlay, so containers in containers fell back to copies. Here every
/// level has lower, upper and work in the level above; three deep, over a kernel overlay where there is one.
#[test]
fn b867_three_overlays_inside_each_other() {
    on_ours(
        Base::Shm,
        1,
        "mkdir -p l0/d/sub; echo lowest > l0/f; echo sub > l0/d/sub/f; ln l0/f l0/hard; ln -s f l0/link; mkfifo l0/p",
        "",
        |outer, _| {
            let mut mounts = Vec::new();
            let mut place = outer.merged.clone();
            for depth in 0..2 {
                let root = place.join(format!("store{depth}"));
                fs::create_dir(&root).unwrap();
                let lower = root.join("image");
                fs::create_dir(&lower).unwrap();
                sh(
                    &place,
                    &format!("cp -a d f hard link p store{depth}/image/"),
                )
                .unwrap();
                let layers = Layers::of(root, vec![lower]);
                mounts.push(Mount::acetate(&layers, ""));
                place = layers.merged.clone();
            }
            sh(
                &place,
                "echo changed >> f; cat hard; rm -r d/sub; mkdir d/sub; echo new > d/sub/new; mv d e; chmod 600 link
                 ln f hard2; test \"$(stat -c %h f)\" = 3; chown 5:6 e; setfattr -n user.x -v 1 f; rm p; mkfifo p; test \"$(ls -A e/sub)\" = new",
            )
            .unwrap();
            let seen = Snapshot::of(&place);
            assert!(seen.faults.is_empty(), "{:?}", seen.faults);
            // The same work on a plain directory.
            let plain = outer.root.join("plain");
            sh(
                &outer.root,
                "mkdir plain; cd plain; cp -a ../l0/. .; echo changed >> f; rm -r d/sub; mkdir d/sub; echo new > d/sub/new; mv d e; chmod 600 link
                 ln f hard2; chown 5:6 e; setfattr -n user.x -v 1 f; rm p; mkfifo p",
            )
            .unwrap();
            let lines = diff_without_times(&seen, &Snapshot::of(&plain));
            assert!(lines.is_empty(), "three deep | plain: {lines:#?}");
            while let Some(mount) = mounts.pop() {
                mount.unmount();
            }
        },
    );
}

fn diff_without_times(a: &Snapshot, b: &Snapshot) -> Vec<String> {
    diff(a, b)
        .into_iter()
        .filter(|line| !line.contains("mtime") || line.contains("content"))
        .collect()
}

/// Found with the above: the times of what was just changed were those of before, where the upper lies in a FUSE or network file
/// system, which keeps attributes of its own: the upper was asked without asking its server.
#[test]
fn times_and_sizes_are_new_after_each_change_in_a_mount_in_a_mount() {
    on_ours(
        Base::Shm,
        1,
        "mkdir -p l0/store/l0/d; echo x > l0/store/l0/f; touch -d 2001-01-01 l0/store/l0/f l0/store/l0/d",
        "",
        |outer, _| {
            let root = outer.at("store");
            let layers = Layers::of(root.clone(), vec![root.join("l0")]);
            let mount = Mount::acetate(&layers, "");
            let changes = [
                "echo y >> f; echo 1 > d/1",
                "echo z >> f; rm d/1",
                "chmod 600 f; mkdir d/2",
                "mv d/2 d/3; : > f",
            ];
            for change in changes {
                sh(&layers.merged, "stat f d >/dev/null; sleep 0.02").unwrap();
                sh(&layers.merged, change).unwrap();
                let see = |place: &std::path::Path| {
                    sh(place, "stat -c '%n %y %s %a %h' f; stat -c '%n %y' d").unwrap()
                };
                assert_eq!(
                    see(&layers.merged),
                    see(&outer.upper.join("store/upper")),
                    "{change}: shown | on disk"
                );
            }
            mount.unmount();
        },
    );
}

/// Found with the above: where handles of the lower say nothing (FUSE gives numbers of a mount's life), a hard-linked file that had
/// been copied up was two files after a remount: one by its name in the upper, one by the index.
#[test]
fn hard_links_of_a_lower_stay_one_file_in_a_mount_in_a_mount() {
    on_ours(
        Base::Shm,
        1,
        "mkdir -p l0/store/l0/d; echo x > l0/store/l0/a; ln l0/store/l0/a l0/store/l0/d/e; ln -s x l0/store/l0/s; ln l0/store/l0/s l0/store/l0/d/s",
        "",
        |outer, _| {
            let root = outer.at("store");
            let layers = Layers::of(root.clone(), vec![root.join("l0")]);
            let mount = Mount::acetate(&layers, "");
            sh(&layers.merged, "echo new > a; touch -h s").unwrap();
            mount.unmount();
            for order in ["a d/e s d/s", "d/e a d/s s"] {
                let mount = Mount::acetate(&layers, "");
                let out = sh(&layers.merged, &format!("cat d/e a; stat -c '%i %h' {order} | uniq -c | sed 's/^ *//; s/ .* / /'; echo more >> d/e; cat a")).unwrap();
                assert!(out.contains("\n2 2\n2 2\n"), "{order}: {out}");
                assert!(out.ends_with("more\n"), "{out}");
                mount.unmount();
            }
        },
    );
}
