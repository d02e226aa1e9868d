//! SIGKILL while the mount comes up: the process looks into a mount that it
//! serves itself, and what it waits for there never comes once its loops are dead.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::{ACETATE, World, can_mount, signal, text, wait_until};

/// How long one reply to the kernel is held back.
const HELD: Duration = Duration::from_secs(6);
/// A mount sends no more replies than this before it serves.
const MOST_REPLIES: u32 = 14;

/// A mount in the foreground whose `nth` reply to the kernel is held back by
/// strace(1), before the kernel gets it.
struct Slow {
    world: World,
    strace: Child,
    /// The daemon, once it is killed.
    killed: Option<i32>,
}

impl Slow {
    fn mount(nth: u32) -> Slow {
        let world = World::new();
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=writev", "-e"])
            .arg(format!(
                "inject=writev:delay_enter={}:when={nth}",
                HELD.as_micros()
            ))
            // One event loop: `when` counts the calls of each thread.
            .args([ACETATE, "mount", "-f", "-d", "-o"])
            .arg(format!("threaded=0,{}", world.options(true)))
            .arg(world.path("m"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(world.path("log")).unwrap())
            .spawn()
            .unwrap();
        Slow {
            world,
            strace,
            killed: None,
        }
    }

    /// Waits until the mount serves; false where it hangs in the reply. The mount
    /// itself is not asked.
    fn serves(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < HELD / 3 {
            let log = fs::read_to_string(self.world.path("log")).unwrap();
            if log.contains("serving /") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        if let Some(pid) = self.killed {
            set_free(&self.world, pid);
        }
        for pid in self.world.daemons() {
            signal(pid, "KILL");
        }
        if self.strace.kill().is_ok() {
            self.strace.wait().unwrap();
        }
    }
}

/// Ends the connection of a process that hangs in its own mount: only through
/// fusectl can that be done.
fn set_free(world: &World, pid: i32) {
    for info in fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = fs::read_to_string(info.path()).unwrap_or_default();
        let number = text
            .lines()
            .find_map(|l| l.strip_prefix("fuse_connection:"));
        if let Some(number) = number.map(str::trim) {
            eprintln!("process {pid} hangs");
            world.sh(&format!(
                "mkdir ctl && mount -t fusectl none ctl && echo 1 >ctl/{number}/abort; umount ctl"
            ));
            return;
        }
    }
}

/// Whether no thread of a process runs or waits any more; strace may not have
/// taken notice yet.
fn is_gone(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.is_empty() || status.contains("State:\tZ") || status.contains("State:\tX")
    })
}

#[test]
fn killed_while_a_first_request_waits_it_is_gone_and_its_upper_free() {
    if !can_mount() {
        return;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: needs strace");
        return;
    }
    let held: Vec<u32> = std::thread::scope(|scope| {
        let tries: Vec<_> = (1..=MOST_REPLIES)
            .map(|nth| scope.spawn(move || killed_in(nth).then_some(nth)))
            .collect();
        let outcomes = tries.into_iter().map(|t| t.join().unwrap());
        outcomes.flatten().collect()
    });
    assert!(
        held.starts_with(&[1, 2, 3]) && !held.contains(&MOST_REPLIES),
        "INIT, a name and a listing come before it serves: {held:?}"
    );
}

/// Kills a mount that waits for its own `nth` reply; false where it serves before.
fn killed_in(nth: u32) -> bool {
    let mut slow = Slow::mount(nth);
    if slow.serves() {
        return false;
    }
    let daemons = slow.world.daemons();
    assert_eq!(daemons.len(), 1, "{daemons:?}");
    let daemon = daemons[0];
    signal(daemon, "KILL");
    slow.killed = Some(daemon);
    wait_until(&format!("killed in reply {nth}, it ends"), || {
        is_gone(daemon)
    });
    if slow.world.mount_line().is_some() {
        let gone = Command::new("umount").arg(slow.world.path("m")).status();
        assert!(gone.unwrap().success());
    }
    let out = slow
        .world
        .acetate(&["mount", "-o", &slow.world.options(true), "m"]);
    assert!(out.status.success(), "reply {nth}: {}", text(&out));
    true
}

#[test]
fn unmounted_before_it_has_looked_at_itself_it_ends_without_a_complaint() {
    if !can_mount() {
        return;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: needs strace");
        return;
    }
    let world = World::new();
    // Every reply waits, so that the mount is seen long before it is ready.
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=writev", "-e"])
        .arg("inject=writev:delay_enter=200000")
        .args([ACETATE, "mount", "-f", "-o"])
        .arg(world.options(true))
        .arg(world.path("m"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it is seen", || world.mount_line().is_some());
    let gone = Command::new("umount")
        .arg("-l")
        .arg(world.path("m"))
        .status();
    assert!(gone.unwrap().success());
    let ended = strace.wait().unwrap();
    assert!(ended.success(), "{ended}");
}
