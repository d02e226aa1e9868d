//! The clock that files get their times from.
//!
//! It is read once a tick of some milliseconds (current_time() in fs/inode.c), so
//! that two changes may have one time.

use std::time::Duration;

use crate::store::record::Moment;
use crate::sys::process;

/// A moment that has passed: whatever has changed by now has at most that time, and
/// what changes from now on has a later one.
pub fn a_moment_ago() -> Moment {
    let passed = moment();
    // At most a tick of the slowest kernel, 10 ms; a clock that was set back ends it.
    for _ in 0..1_000 {
        if moment() != passed {
            break;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    passed
}

fn moment() -> Moment {
    let (sec, nsec) = process::coarse_time();
    Moment { sec, nsec }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_changed_before_is_not_later_and_what_is_changed_after_is() {
        let folder = tempfile::tempdir().unwrap();
        let ctime = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            let found = std::fs::metadata(&path).unwrap();
            Moment {
                sec: found.ctime(),
                nsec: u32::try_from(found.ctime_nsec()).unwrap(),
            }
        };
        for _ in 0..20 {
            let before = ctime("before");
            let between = a_moment_ago();
            let after = ctime("after");
            assert!(before <= between && between < after);
        }
    }
}
