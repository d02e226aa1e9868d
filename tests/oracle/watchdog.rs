//! Ends a case that hangs: a FUSE daemon that does not answer would stop the whole run for ever.
//!
//! Killing the daemon makes every waiting call fail with ENOTCONN, so the case ends as a difference that says so.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::host::slowly;

/// A case normally takes some tens of milliseconds.
const LIMIT: Duration = Duration::from_secs(60);

static WATCHED: Mutex<(Option<Instant>, Vec<u32>)> = Mutex::new((None, Vec::new()));

/// Starts the watching thread; once per process.
pub fn start() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let mut watched = WATCHED.lock().unwrap();
                if watched
                    .0
                    .is_some_and(|since| since.elapsed() > slowly(LIMIT))
                {
                    for pid in std::mem::take(&mut watched.1) {
                        eprintln!("watchdog: no answer for {LIMIT:?}, killing daemon {pid}");
                        // SAFETY: plain numbers; the process is our child and not yet waited for.
                        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
                    }
                }
            }
        });
    });
}

/// A case begins.
pub fn begin() {
    *WATCHED.lock().unwrap() = (Some(Instant::now()), Vec::new());
}

/// A daemon belongs to the case.
pub fn watch(pid: Option<u32>) {
    WATCHED.lock().unwrap().1.extend(pid);
}

/// The case has ended.
pub fn end() {
    *WATCHED.lock().unwrap() = (None, Vec::new());
}
