//! A second mount of an upper whose first daemon still lives.
//!
//! Why the second one waits and is then refused, and does not take the upper over: see `overlay::lock`. The tests here
//! are the proof of what stands there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::world::{World, can_mount, text, wait_until};

/// A world in a mount namespace of this test's own: those that other tests make meanwhile would hold copies of our
/// mounts.
#[allow(unsafe_code)]
fn alone() -> World {
    use rustix::mount::{MountPropagationFlags, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: a mount namespace of this thread's own shares no memory and no descriptors less than before.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .unwrap();
    World::new()
}

impl World {
    /// Mounts once more; what is said when that is refused.
    fn refusal(&self) -> String {
        let out = self.acetate(&["mount", "-o", &self.options(true), "m"]);
        assert_eq!(out.status.code(), Some(32), "{}", text(&out));
        assert_eq!(self.mount_line(), None);
        text(&out)
    }

    fn do_sh(&self, script: &str) {
        let out = self.sh(script);
        assert!(out.status.success(), "{script}: {}", text(&out));
    }

    fn content(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The one daemon's process id.
    fn daemon(&self) -> i32 {
        let daemons = self.daemons();
        assert_eq!(daemons.len(), 1, "{daemons:?}");
        daemons[0]
    }
}

/// Checks that a refusal names who keeps the upper; before Linux 6.16 nothing says which mount is the daemon's.
fn names(said: &str, daemon: i32, parts: &[&str]) {
    let by = format!("in use by process {daemon}");
    assert!(said.contains(&by), "{said}");
    let infos = fs::read_dir(format!("/proc/{daemon}/fdinfo")).unwrap();
    let told = infos
        .flatten()
        .any(|i| fs::read_to_string(i.path()).is_ok_and(|t| t.contains("fuse_connection:")));
    if !told {
        eprintln!("SKIPPED: this kernel does not say which mount a daemon serves");
        return;
    }
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

/// A process that ends with the test.
struct Helper(Child);

impl Helper {
    /// Runs a shell script in the world's folder until it has said "ready".
    fn new(world: &World, script: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-ec", script])
            .current_dir(world.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 6];
        let read = child.stdout.as_mut().unwrap().read_exact(&mut said);
        let helper = Self(child);
        read.unwrap_or_else(|e| panic!("{script}: {e}"));
        assert_eq!(&said, b"ready\n");
        helper
    }

    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What `umount -l` leaves behind is somebody's who goes on writing.
#[test]
fn whoever_writes_into_a_mount_that_is_out_of_sight_keeps_the_upper() {
    if !can_mount() {
        return;
    }
    let world = alone();
    world.mount(true);
    let mut file = File::create(world.path("m/log")).unwrap();
    writeln!(file, "one").unwrap();
    let old = world.daemon();
    world.do_sh("umount -l m");

    let me = format!("process {} ", std::process::id());
    names(&world.refusal(), old, &["out of sight", &me, "/log in it"]);

    writeln!(file, "two").unwrap();
    file.sync_all().unwrap();
    assert_eq!(world.content("u/log"), "one\ntwo\n");
    drop(file);
    world.mount(true);
    assert_eq!(world.content("m/log"), "one\ntwo\n");
    assert_ne!(world.daemon(), old);
}

/// A user that ends within the wait is waited for, with all that it writes.
#[test]
fn the_last_user_of_a_mount_that_is_out_of_sight_is_waited_for() {
    if !can_mount() {
        return;
    }
    let world = alone();
    world.mount(true);
    let mut file = File::create(world.path("m/log")).unwrap();
    writeln!(file, "one").unwrap();
    world.do_sh("umount -l m");
    let late = std::thread::spawn(move || {
        for n in 0..10 {
            std::thread::sleep(Duration::from_millis(100));
            writeln!(file, "late {n}").unwrap();
        }
    });
    world.mount(true);
    let shown = world.content("m/log");
    late.join().unwrap();
    assert_eq!(shown.lines().count(), 11, "{shown}");
    world.do_sh("echo more >>m/log; umount m");
    world.wait_for_the_end();
    assert_eq!(world.content("u/log").lines().count(), 12);
}

/// A program that runs from the mount keeps no descriptor of it, and no working directory.
#[test]
fn a_program_run_from_a_mount_that_is_out_of_sight_is_named() {
    if !can_mount() {
        return;
    }
    let world = alone();
    world.mount(true);
    world.do_sh("cp \"$(command -v sleep)\" m/own-sleep");
    let user = Helper::new(&world, "echo ready; exec m/own-sleep 100");
    wait_until("it runs", || {
        fs::read_to_string(format!("/proc/{}/comm", user.id())).is_ok_and(|c| c == "own-sleep\n")
    });
    world.do_sh("umount -l m");
    let who = format!("process {} (own-sleep) runs or maps", user.id());
    names(&world.refusal(), world.daemon(), &[&who]);
    drop(user);
    world.mount(true);
}

/// A container's root is such a copy: it must not be taken from it.
#[test]
fn a_copy_of_the_mount_in_another_namespace_keeps_the_upper() {
    if !can_mount() {
        return;
    }
    let world = alone();
    world.mount(true);
    let mut user = Helper::new(
        &world,
        "exec unshare -m --propagation private sh -ec 'cd /; echo ready; read line; echo inside >$1/m/inside; echo ready; exec sleep 100' - $PWD",
    );
    world.do_sh("umount m");

    let who = format!("process {} (sh)", user.id());
    let how = format!("nsenter -t {} -m umount", user.id());
    names(&world.refusal(), world.daemon(), &[&who, &how]);

    user.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut said = [0; 6];
    user.0
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    assert_eq!(world.content("u/inside"), "inside\n");
    drop(user);
    world.mount(true);
    assert_eq!(world.content("m/inside"), "inside\n");
}

/// A mount may be in no namespace and used by nobody's file, and yet come back: whoever starts containers holds it by
/// open_tree(2) until they attach it. No table of mounts shows that.
#[test]
fn a_mount_that_no_namespace_has_can_come_back_and_be_written() {
    if !can_mount() {
        return;
    }
    let world = alone();
    world.mount(true);
    let device = device_of(&world.mount_line().unwrap());
    let Some(tree) = open_tree(&world.path("m")) else {
        eprintln!("SKIPPED: this kernel has no open_tree(2)");
        return;
    };
    world.do_sh("umount m; mkdir elsewhere");
    assert_eq!(
        namespaces_that_have(&device),
        0,
        "a mount table shows what is held by open_tree(2) alone"
    );

    names(&world.refusal(), world.daemon(), &[]);

    let back = world.path("elsewhere");
    move_mount(&tree, &back);
    fs::write(back.join("new"), "written after it came back").unwrap();
    // While it is open the mount is busy.
    drop(tree);
    world.do_sh("umount elsewhere");
    world.mount(true);
    assert_eq!(world.content("m/new"), "written after it came back");
}

/// `0:52`
fn device_of(mount_line: &str) -> String {
    mount_line.split(' ').nth(2).unwrap().to_owned()
}

/// How many processes have a mount of this device in their table.
fn namespaces_that_have(device: &str) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("mountinfo")).ok())
        .filter(|table| table.lines().any(|line| device_of(line) == device))
        .count()
}

fn open_tree(path: &std::path::Path) -> Option<std::os::fd::OwnedFd> {
    use rustix::mount::OpenTreeFlags;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(rustix::fs::CWD, path, flags).ok()
}

fn move_mount(tree: &std::os::fd::OwnedFd, to: &std::path::Path) {
    use rustix::mount::MoveMountFlags;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", rustix::fs::CWD, to, flags).unwrap();
}
