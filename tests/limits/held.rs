//! The daemon, stopped in the middle of a request.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// strace(1), which tampers with every call of one kind in all of a daemon's threads.
pub struct Held(Child);

impl Held {
    /// Held for some time: `delay_enter`, before the kernel does it, or `delay_exit`, after.
    pub fn every(pid: u32, call: &str, when: &str, time: Duration) -> Self {
        Self::tampered(pid, call, &format!("{when}={}", time.as_micros()))
    }

    /// As strace's `inject` says.
    pub fn tampered(pid: u32, call: &str, how: &str) -> Self {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-e", &format!("trace={call}"), "-e"])
            .arg(format!("inject={call}:{how}"))
            .args(["-o", "/dev/null", "-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let traced = format!("TracerPid:\t{}", strace.id());
        let every_thread_is = || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            let status =
                |t: fs::DirEntry| fs::read_to_string(t.path().join("status")).unwrap_or_default();
            tasks.flatten().all(|t| status(t).contains(&traced))
        };
        while !every_thread_is() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "strace does not come"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Self(strace)
    }

    /// From now on nothing is held.
    pub fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
