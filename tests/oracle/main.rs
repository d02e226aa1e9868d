//! The oracle: random operations on acetate and on kernel overlayfs, everything compared.
//!
//! A case is a random stack of lower layers and some batches of operations (`generate.rs`). It runs on two mounts
//! of the same lowers (`judge.rs`): every result and errno must be equal, and after each batch the whole trees,
//! after a remount, after the upper became a lower, and after each side's upper was mounted by the other.
//! `intended.rs` is the only list of differences that are let through.
//!
//! | variable | meaning |
//! |---|---|
//! | `ORACLE_SEED` | seed of the run (printed; default: the time) |
//! | `ORACLE_CASE` | run only this case of the seed |
//! | `ORACLE_SECONDS` | how long each mode runs (default 20) |
//! | `ORACLE_OPS` | steps per case, about (default 60) |
//! | `ORACLE_HUNT` | do not stop at a failure: collect one shrunk example of each class |
//! | `ORACLE_BASE` | `disk` or `shm` (default: most on shm, every eighth case on disk) |

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod fdops;
mod generate;
mod hunt;
mod intended;
mod judge;
mod ops;
mod pathops;
mod stack;
mod watchdog;
mod world;

use judge::Setup;
use support::{Kind, require_fuse, require_kernel_overlay, require_root};

const TRUSTED: &str = "trusted.overlay.";
const REDIRECT: &str = "redirect_dir=on,index=on,metacopy=off";
const METACOPY: &str = "redirect_dir=on,index=on,metacopy=on";

/// Kernel against kernel: the oracle itself must not see differences where there are none.
#[test]
fn the_kernel_agrees_with_itself() {
    if !(require_root() && require_kernel_overlay()) {
        return;
    }
    hunt::run(
        Setup {
            name: "kernel-kernel",
            reference: (Kind::Kernel, REDIRECT),
            subject: (Kind::Kernel, REDIRECT),
            marks: TRUSTED,
            users: true,
            cross: true,
        },
        0.25,
    );
}

#[test]
fn acetate_does_what_the_kernel_does() {
    if !(require_root() && require_fuse() && require_kernel_overlay()) {
        return;
    }
    hunt::run(
        Setup {
            name: "root",
            reference: (Kind::Kernel, REDIRECT),
            subject: (Kind::Acetate, REDIRECT),
            marks: TRUSTED,
            users: true,
            cross: true,
        },
        1.0,
    );
}

#[test]
fn acetate_does_what_the_kernel_does_with_metacopy() {
    if !(require_root() && require_fuse() && require_kernel_overlay()) {
        return;
    }
    hunt::run(
        Setup {
            name: "root-metacopy",
            reference: (Kind::Kernel, METACOPY),
            subject: (Kind::Acetate, METACOPY),
            marks: TRUSTED,
            users: true,
            cross: true,
        },
        1.0,
    );
}
