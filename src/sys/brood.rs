//! A process and all that descends from it, where there is no PID namespace whose end
//! would end them.
//!
//! Who has called [`adopt`] becomes the parent of every descendant that loses its own
//! (PR_SET_CHILD_SUBREAPER, prctl(2)): killing its children until it has none ends them
//! all, those too that have begun a session of their own.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

use super::{Errno, Result, relay};

/// This process.
pub fn own_number() -> Pid {
    rustix::process::getpid()
}

/// From now on descendants that lose their parents become this process's children.
pub fn adopt() -> Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(own_number()))?)
}

/// Has the kernel tell of the parent's end by SIGCHLD, for which
/// [`relay::until_end_below`] waits. That the parent has not ended before is for the
/// caller to find out.
pub fn hear_of_parent() -> Result<()> {
    let told = rustix::process::set_parent_process_death_signal(Some(Signal::CHILD));
    Ok(told?)
}

/// Kills all that descends from this process, which has adopted it, and waits for it.
///
/// # Errors
/// EBUSY where something is still alive after this time: it may not be killed, or makes
/// processes faster than they are ended. What /proc answers where it cannot tell.
pub fn end_all(most: Duration) -> Result<()> {
    let until = Instant::now() + most;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
            Ok(None) => {}
        }
        // A child's number stays its own until it is waited for: nobody else is hit.
        for child in children()? {
            relay::send(child, libc::SIGKILL);
        }
        if Instant::now() > until {
            return Err(Errno::EBUSY);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The children of this process, which has one thread.
fn children() -> Result<Vec<Pid>> {
    let number = |text: &str| text.parse().ok().and_then(Pid::from_raw);
    match std::fs::read_to_string("/proc/thread-self/children") {
        Ok(text) => return Ok(text.split_whitespace().filter_map(number).collect()),
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(e) => tracing::debug!("children: {e}"),
    }
    let own = own_number();
    let all = std::fs::read_dir("/proc").map_err(|e| Errno::from_io(&e))?;
    let all = all.flatten();
    let numbers = all.filter_map(|entry| number(entry.file_name().to_str()?));
    Ok(numbers.filter(|pid| parent_of(*pid) == Some(own)).collect())
}

/// proc_pid_stat(5): number (name) state parent …; the name may hold anything.
fn parent_of(pid: Pid) -> Option<Pid> {
    let file = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let text = String::from_utf8_lossy(&std::fs::read(file.join("stat")).ok()?).into_owned();
    let (_, rest) = text.rsplit_once(')')?;
    Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_parent_is_found_in_proc() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        assert_eq!(parent_of(pid), Some(own_number()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(parent_of(pid), None);
    }
}
