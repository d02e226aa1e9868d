//! Requests: `impl Overlay`, one file per family. Each takes its locks, asks
//! the pure decisions, changes the upper, then memory, and answers.

pub mod attr;
pub mod create;
mod data_only;
pub mod detach;
mod displace;
pub mod ensure_upper;
pub mod file;
mod found;
pub mod hold;
pub mod link;
pub mod long;
pub mod lookup;
pub mod nlink;
mod number;
pub mod readdir;
pub mod remove;
pub mod rename;
pub mod resolve;
pub mod xattr;
