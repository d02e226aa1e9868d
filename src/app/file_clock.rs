//! The clock that files get their times from.
//!
//! It is read once a tick of some milliseconds, so that two changes may have one time;
//! since Linux 6.13 it is finer where somebody looks (current_time() and
//! Documentation/filesystems/multigrain-ts.rst).

use std::time::Duration;

use crate::store::record::Moment;
use crate::sys::process;

/// A moment that has passed for files too: whatever has changed by now has no later
/// time, and what changes from now on has.
pub fn a_moment_ago() -> Moment {
    let moment = |(sec, nsec)| Moment { sec, nsec };
    let passed = moment(process::time());
    // At most a tick of the slowest kernel, 10 ms; a clock that was set back ends it.
    for _ in 0..1_000 {
        if moment(process::coarse_time()) > passed {
            break;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    passed
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
            // Asked for, a time is a fine one from now on.
            let fine = ctime("before");
            assert!(before <= between && between < after && between < fine);
            assert!(fine <= a_moment_ago());
        }
    }
}
