//! The kernel.
pub mod fusermount;
pub mod mount;
pub mod mountinfo;
pub mod process;
pub mod signal;
