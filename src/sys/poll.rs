//! Whether something can be read, asked without waiting.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec};

/// Whether a read would not wait: there is something, or an end, or an error.
pub fn is_readable(fd: impl AsFd) -> bool {
    let mut asked = [PollFd::new(&fd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    !matches!(rustix::event::poll(&mut asked, Some(&now)), Ok(0))
}

/// Waits until a read would not wait, at most for so long; whether it came to that.
/// A signal ends the waiting like the time.
pub fn becomes_readable(fd: impl AsFd, within: std::time::Duration) -> bool {
    let mut asked = [PollFd::new(&fd, PollFlags::IN)];
    let Ok(most) = Timespec::try_from(within) else {
        return false;
    };
    matches!(rustix::event::poll(&mut asked, Some(&most)), Ok(1..))
}
