//! Layers made by one implementation, read by another: kernel overlayfs, acetate, and the C fuse-overlayfs if it is
//! installed; and every whiteout and opaque mark that clients leave in layers, in every position.
//!
//! | file | what |
//! |---|---|
//! | `uppers.rs` | uppers made by one and read by the others, as upper and as a middle layer |
//! | `marks.rs` | whiteouts and opaque marks of all dialects, laid by hand |
//! | `stacks.rs` | random stacks with the kernel's marks, read by the kernel and by acetate |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod marks;
mod stacks;
mod uppers;

use std::fs;
use std::path::Path;

use support::raw;

fn c(path: &Path) -> std::ffi::CString {
    raw::c(path.as_os_str().as_encoded_bytes())
}

/// A file with its directories.
fn file(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn xattr(path: &Path, name: &str, value: &str) {
    raw::set_xattr(&c(path), &raw::c(name), value.as_bytes(), 0).unwrap();
}

fn whiteout(path: &Path) {
    raw::mknod(&c(path), libc::S_IFCHR, (0, 0)).unwrap();
}
