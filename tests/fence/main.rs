//! What a serving daemon has given away, read from the kernel for each way of mounting, and tried out: a thread of the
//! daemon is made to call what it must not.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(target_arch = "x86_64")]
mod probe;
#[path = "../support/mod.rs"]
mod support;

mod cost;
mod rights;
#[cfg(target_arch = "x86_64")]
mod tried;
