//! What a process gives away so that a fault in it can do less harm.
//!
//! Three fences, each of which works without the others, each silent where the
//! kernel has none (a line in the debug log); who puts up which, and when, is
//! decided in `fuse/fence.rs`:
//!
//! * [`caps`]: capabilities, per thread, handed on to the threads made later;
//! * [`calls`]: a seccomp filter, for every thread of the process at once;
//! * [`paths`]: a Landlock domain, per thread, handed on to threads made later.

pub mod calls;
pub mod caps;
pub mod paths;

/// Whether a fence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It does.
    Up,
    /// The kernel, or a container around us, has none to give.
    Unavailable(super::Errno),
}

impl Outcome {
    fn of(result: super::Result<()>) -> Self {
        match result {
            Ok(()) => Outcome::Up,
            Err(e) => Outcome::Unavailable(e),
        }
    }
}

/// No program that this thread runs from now on gains rights by being setuid;
/// without that an ordinary user may put up no fence.
pub fn no_new_privileges() -> Outcome {
    Outcome::of(rustix::thread::set_no_new_privs(true).map_err(Into::into))
}
