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
