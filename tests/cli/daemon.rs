//! The process that serves: what it keeps, what ends it.

use std::fs;
use std::process::{Command, Stdio};

use crate::world::{ACETATE, World, can_mount, signal, text, wait_until};

/// A mask of /proc/PID/status, such as `SigIgn`.
fn signal_mask(pid: i32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with(field)).unwrap();
    u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
}

fn the_daemon(world: &World) -> i32 {
    let daemons = world.daemons();
    assert_eq!(daemons.len(), 1, "{daemons:?}");
    daemons[0]
}

#[test]
fn it_serves_when_the_command_returns_and_ends_with_the_mount() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(true);
    assert!(world.mount_line().unwrap().contains(" - fuse.acetate "));
    fs::read_dir(world.path("m")).unwrap().count();
    let out = world.acetate(&["unmount", "m"]);
    assert!(
        out.status.success() && text(&out).is_empty(),
        "{}",
        text(&out)
    );
    assert_eq!(world.mount_line(), None);
    world.wait_for_the_end();
}

#[test]
fn it_holds_nothing_of_its_caller() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let leaked = world.path("leaked");
    fs::write(&leaked, "").unwrap();
    let out = world.sh(&format!(
        "umask 077; exec 7<leaked 9>>leaked; exec \"$ACETATE\" mount -o {} m",
        world.options(true)
    ));
    assert!(out.status.success(), "{}", text(&out));
    let pid = the_daemon(&world);
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        assert_ne!(
            target,
            leaked,
            "inherited descriptor {:?} is still open",
            entry.file_name()
        );
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        if number < 3 {
            assert_eq!(target, std::path::Path::new("/dev/null"));
        }
    }
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
        std::path::Path::new("/")
    );
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Umask:\t0000"), "{status}");
    let session = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(
        session.rsplit(") ").next().unwrap().split(' ').nth(3),
        Some(pid.to_string().as_str())
    );
}

#[test]
fn it_outlives_hangup_broken_pipes_and_file_size_limits() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.sh(&format!(
        "ulimit -f 1; exec \"$ACETATE\" mount -o {} m",
        world.options(true)
    ));
    assert!(out.status.success(), "{}", text(&out));
    let pid = the_daemon(&world);
    let ignored = signal_mask(pid, "SigIgn");
    for number in [1u32, 13, 25] {
        assert!(
            ignored & (1 << (number - 1)) != 0,
            "signal {number} is not ignored"
        );
    }
    for name in ["HUP", "PIPE", "XFSZ"] {
        signal(pid, name);
    }
    fs::read_dir(world.path("m")).unwrap().count();
    assert_eq!(the_daemon(&world), pid);
}

#[test]
fn sigterm_and_sigint_unmount() {
    if !can_mount() {
        return;
    }
    for name in ["TERM", "INT"] {
        let world = World::new();
        world.mount(true);
        signal(the_daemon(&world), name);
        world.wait_for_the_end();
        assert_eq!(world.mount_line(), None);
    }
}

#[test]
fn sigterm_with_a_user_inside_hides_the_mount_and_a_second_one_kills() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(true);
    let inside = fs::File::open(world.path("m")).unwrap();
    let pid = the_daemon(&world);
    signal(pid, "TERM");
    wait_until("the mount is out of sight", || world.mount_line().is_none());
    assert_eq!(world.daemons(), [pid], "it serves those who are inside");
    signal(pid, "TERM");
    world.wait_for_the_end();
    drop(inside);
}

#[test]
fn a_mount_in_use_is_not_unmounted_unless_lazily() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(true);
    let inside = fs::File::open(world.path("m")).unwrap();
    let out = world.acetate(&["unmount", "m"]);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    assert!(
        text(&out).contains("in use") && text(&out).contains("--lazy"),
        "{}",
        text(&out)
    );
    let out = world.acetate(&["unmount", "--lazy", "m"]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(world.mount_line(), None);
    assert_eq!(world.daemons().len(), 1);
    drop(inside);
    world.wait_for_the_end();
}

#[test]
fn other_programs_may_unmount_it() {
    if !can_mount() {
        return;
    }
    for program in ["umount", "fusermount3 -u", "umount -l"] {
        let world = World::new();
        world.mount(true);
        let out = world.sh(&format!("{program} m"));
        assert!(out.status.success(), "{program}: {}", text(&out));
        world.wait_for_the_end();
    }
}

#[test]
fn a_daemon_that_was_killed_leaves_a_mount_that_can_be_taken_away() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(true);
    signal(the_daemon(&world), "KILL");
    // The kernel opens the directory without asking, and knows its attributes.
    wait_until("the mount is dead", || {
        !fs::read_dir(world.path("m"))
            .is_ok_and(|mut names| names.next().is_some_and(|n| n.is_ok()))
    });
    let out = world.acetate(&["unmount", "m"]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(world.mount_line(), None);
    world.mount(true);
}

#[test]
fn the_foreground_stays_until_the_end_and_answers_0() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let mut child = Command::new(ACETATE)
        .args(["mount", "-f", "-o", &world.options(true)])
        .arg(world.path("m"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What is in it, not how it stands in the mount table: its root there depends on the kernel.
    wait_until("it is mounted", || world.path("m/from-a").exists());
    assert!(child.try_wait().unwrap().is_none());
    signal(i32::try_from(child.id()).unwrap(), "TERM");
    assert!(child.wait().unwrap().success());
    assert_eq!(world.mount_line(), None);
}

#[test]
fn debug_logs_to_stderr_or_to_a_file() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let log = world.path("log");
    let out = world.sh(&format!(
        "ACETATE_LOG_FILE=log exec \"$ACETATE\" mount -d -o {} m",
        world.options(true)
    ));
    assert!(out.status.success(), "{}", text(&out));
    fs::read_dir(world.path("m")).unwrap().count();
    let said = fs::read_to_string(log).unwrap();
    assert!(
        said.contains("READDIR") && said.contains("serving"),
        "every request: {said}"
    );
}

#[test]
fn callers_that_ignore_sigchld_or_reap_children_are_served() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.sh(&format!(
        "trap '' CHLD; exec \"$ACETATE\" mount -o {} m",
        world.options(true)
    ));
    assert!(out.status.success(), "{}", text(&out));
    let out = world.sh("trap '' CHLD; exec \"$ACETATE\" mount -o lowerdir=missing m");
    assert_eq!(out.status.code(), Some(32));
}

#[test]
fn the_mount_point_can_be_replaced_right_after_the_unmount() {
    // podman: mkdir merged.1; rename(merged.1, merged)
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(true);
    let out = world.sh("fusermount3 -u m && mkdir m.1 && mv -T m.1 m");
    assert!(out.status.success(), "{}", text(&out));
    world.mount(true);
}

/// What a daemon tells when it serves; it may take its time on a busy machine.
fn listener(world: &World) -> std::os::unix::net::UnixDatagram {
    let socket = std::os::unix::net::UnixDatagram::bind(world.path("notify")).unwrap();
    let patience = std::time::Duration::from_secs(30);
    socket.set_read_timeout(Some(patience)).unwrap();
    socket
}

#[test]
fn systemd_is_told_when_the_mount_serves() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let socket = listener(&world);
    let mut child = Command::new(ACETATE)
        .args(["mount", "-f", "-o", &world.options(true)])
        .arg(world.path("m"))
        .env("NOTIFY_SOCKET", world.path("notify"))
        .spawn()
        .unwrap();
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"READY=1");
    assert!(world.mount_line().is_some());
    signal(i32::try_from(child.id()).unwrap(), "TERM");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_serving_process_that_dies_at_the_start_is_reported() {
    if !can_mount() {
        return;
    }
    // A lower layer that does not answer: a mount of ours whose process is stopped.
    let world = World::new();
    world.mount(true);
    let stopped = the_daemon(&world);
    signal(stopped, "STOP");
    fs::create_dir(world.path("m2")).unwrap();
    let caller = Command::new(ACETATE)
        .args(["mount", "-o", "lowerdir=m", "m2"])
        .current_dir(world.path("."))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = None;
    wait_until("it has forked", || {
        let own = format!("/proc/{0}/task/{0}/children", caller.id());
        child = fs::read_to_string(own)
            .unwrap_or_default()
            .trim()
            .parse()
            .ok();
        child.is_some()
    });
    signal(child.unwrap(), "KILL");
    signal(stopped, "CONT");
    let out = caller.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(32), "{}", text(&out));
    assert!(text(&out).contains("signal 9 ended it"), "{}", text(&out));
}

#[test]
fn without_the_calls_that_move_mounts_the_root_itself_is_shown() {
    // Linux before 5.2, or a seccomp filter.
    if !can_mount() || Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: needs root and strace");
        return;
    }
    for call in ["open_tree", "move_mount", "unshare"] {
        let world = World::new();
        let socket = listener(&world);
        let mut strace = Command::new("strace")
            .args([
                "-f",
                "-o",
                "/dev/null",
                "-e",
                &format!("inject={call}:error=ENOSYS"),
                ACETATE,
            ])
            .args(["mount", "-f", "-o", &world.options(true)])
            .arg(world.path("m"))
            .env("NOTIFY_SOCKET", world.path("notify"))
            .spawn()
            .unwrap();
        // The mount shows before its own first requests are through.
        socket.recv(&mut [0; 64]).unwrap();
        fs::read_dir(world.path("m")).unwrap().count();
        let line = world.mount_line().unwrap();
        assert!(
            line.contains(" / ") && line.contains("fuse.acetate"),
            "{line}"
        );
        let out = world.acetate(&["unmount", "m"]);
        assert!(out.status.success(), "{}", text(&out));
        assert!(strace.wait().unwrap().success());
    }
}
