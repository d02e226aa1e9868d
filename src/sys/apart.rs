//! Work on a thread that holds no descriptor of the process.
//!
//! A process that serves a FUSE mount must not wait in it: the wait for an answer
//! that the server has begun to give cannot be killed (request_wait_answer() in
//! fs/fuse/dev.c). If the process is killed there, its event loops die, the thread
//! that waits does not, and as it holds the descriptor of /dev/fuse the kernel
//! never learns that nobody serves any more. The process stays for ever, and with
//! it every lock it has. A thread with a descriptor table of its own, without
//! /dev/fuse in it, keeps nothing alive: the other threads end, the connection
//! with them, and the answer it waits for is ENOTCONN.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::thread::UnshareFlags;

use super::features::{self, Feature};
use super::pass;
use super::process::close_inherited;
use super::{Errno, Result};

/// Does the work on such a thread and waits for it.
///
/// Only stdin, stdout and stderr are open there. The work must not own or name a
/// descriptor from outside; what it opens is closed with the thread. Namespaces,
/// root and current directory are those of the calling thread.
///
/// # Errors
/// EAGAIN where no thread can be had, EIO where the work panicked.
pub fn work<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    keeping(name, &[], work)
}

/// The same for work that opens something: the descriptor is handed over.
pub fn open(name: &str, work: impl FnOnce() -> Result<OwnedFd> + Send) -> Result<OwnedFd> {
    let (ours, theirs) = pass::pair()?;
    let number = theirs.as_raw_fd();
    let to_us = theirs.as_fd();
    keeping(name, &[number], || pass::send(to_us, work()?.as_fd()))??;
    // It lies in the socket; if it does not, that is at its end.
    drop(theirs);
    pass::receive(&ours).ok_or(Errno::EIO)
}

fn keeping<T: Send>(name: &str, keep: &[RawFd], work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let apart = move || {
            match own_descriptors() {
                Ok(()) => close_inherited(keep),
                // A filter that allows neither: as well as it goes, in our own table.
                Err(e) => tracing::debug!("no descriptor table of a thread's own: {e}"),
            }
            work()
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, apart)
            .map_err(|e| Errno::from_io(&e))?;
        // A panic is told by its hook.
        thread.join().map_err(|_| Errno::EIO)
    })
}

/// Gives the calling thread a copy of the descriptor table for its own.
fn own_descriptors() -> Result<()> {
    // Filters that refuse unshare(2) in containers know this one as harmless.
    if features::allowed(Feature::CloseRange) {
        // SAFETY: numbers. That last descriptor cannot be open (RLIMIT_NOFILE); the
        // flag makes the copy all the same (Linux 5.9, close_range(2)).
        let done = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                libc::c_uint::MAX,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_UNSHARE,
            )
        };
        if done == 0 {
            return Ok(());
        }
    }
    // SAFETY: whoever owns a descriptor runs on other threads, whose table stays as
    // it is (see `work`).
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_sees_no_descriptor_and_what_it_opens_is_handed_over() {
        let held = std::fs::File::open("/dev/null").unwrap();
        let number = held.as_raw_fd();
        let open_there = work("apart", move || {
            let entries = std::fs::read_dir("/proc/thread-self/fd").unwrap();
            let names = entries
                .flatten()
                .filter_map(|e| e.file_name().to_str()?.parse().ok());
            names.filter(|n: &i32| *n > 2).count()
        });
        // The listing's own.
        assert_eq!(open_there.unwrap(), 1);
        assert!(std::path::Path::new(&format!("/proc/self/fd/{number}")).exists());

        let opened = open("apart", || {
            let file = std::fs::File::open("/proc/self/status").map_err(|e| Errno::from_io(&e))?;
            Ok(file.into())
        });
        let text = std::io::read_to_string(std::fs::File::from(opened.unwrap())).unwrap();
        assert!(text.starts_with("Name:"), "{text}");

        let refused = open("apart", || Err(Errno::EACCES));
        assert_eq!(refused.unwrap_err(), Errno::EACCES);
        drop(held);
    }
}
