//! The oracle: random operations on acetate and on kernel overlayfs, everything compared.
//!
//! A case is a random stack of lower layers and some batches of operations (`generate.rs`). It runs on two mounts
//! of the same lowers (`judge.rs`): every result and errno must be equal, and after each batch the whole trees,
//! after a remount, after the upper became a lower, and after each side's upper was mounted by the other.
//! `intended.rs` is the only list of differences that are let through.
//!
//! | variable | meaning |
//! |---|---|
//! | `ORACLE_SEED` | seed of the run (printed; default 1; `now`: the time) |
//! | `ORACLE_CASE` | run only this case of the seed |
//! | `ORACLE_SECONDS` | how long each mode runs (default 20) |
//! | `ORACLE_OPS` | steps per case, about (default 60) |
//! | `ORACLE_HUNT` | do not stop at a failure: collect one shrunk example of each class |
//! | `ORACLE_SHRINK` | seconds to make a failing case small (default 20) |
//! | `ORACLE_EXTRA` | more options for acetate's mounts (`fd_cache=4`) |
//! | `ORACLE_BASE` | `disk` or `shm` (default: most on shm, every eighth case on disk) |

#![allow(unsafe_code)]
// libc calls with plain numbers and C strings, one a line, said once in `pathops.rs`.
#![allow(clippy::undocumented_unsafe_blocks)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod fdops;
mod generate;
mod hunt;
mod intended;
mod judge;
mod moved;
mod old_kernel;
mod ops;
mod pathops;
mod shrink;
mod stack;
mod watchdog;
mod world;

use judge::Setup;
use std::os::unix::fs::OpenOptionsExt;
use support::host::require_userns;
use support::{Base, Kind, Layers, Mount, require_fuse, require_kernel_overlay, require_root};

const TRUSTED: &str = "trusted.overlay.";
const REDIRECT: &str = "redirect_dir=on,index=on,metacopy=off";
/// Without the mtimes of files: the kernel moves a metacopy's when its data follows, by an open for writing even.
const METACOPY: &str = "redirect_dir=on,index=on,metacopy=on";

/// Root against the kernel; the other setups say what is different.
const ROOT: Setup = Setup {
    name: "root",
    reference: (Kind::Kernel, REDIRECT),
    subject: (Kind::Acetate, REDIRECT),
    marks: TRUSTED,
    users: true,
    cross: true,
    file_times: true,
    links: true,
    lowers: (1, 4),
};

/// Kernel against kernel: the oracle itself must not see differences where there are none.
#[test]
fn the_kernel_agrees_with_itself() {
    if !(require_root() && require_kernel_overlay()) {
        return;
    }
    hunt::run(
        Setup {
            name: "kernel-kernel",
            subject: (Kind::Kernel, REDIRECT),
            ..ROOT
        },
        0.25,
    );
}

#[test]
fn acetate_does_what_the_kernel_does() {
    if !(require_root() && require_fuse() && require_kernel_overlay()) {
        return;
    }
    hunt::run(ROOT, 1.0);
}

/// Directories of many lowers are listed once, and then only those lowers asked that have a name.
#[test]
fn acetate_does_what_the_kernel_does_with_many_lowers() {
    if !(require_root() && require_fuse() && require_kernel_overlay()) {
        return;
    }
    hunt::run(
        Setup {
            name: "root-many-lowers",
            lowers: (5, 9),
            ..ROOT
        },
        0.7,
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
            file_times: false,
            ..ROOT
        },
        1.0,
    );
}

/// fuser does not hand on FUSE_TMPFILE; programs then make a file with a name. Any other errno would end them.
#[test]
fn a_file_without_a_name_is_refused_as_not_supported() {
    if !(require_root() && require_fuse()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "");
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(&layers.merged);
    assert_eq!(opened.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    mount.unmount();
}

/// Without hard links: the kernel's index is silently off in a user namespace, so its links break. They are
/// compared with a plain directory.
const USERXATTR: Setup = Setup {
    name: "userns",
    reference: (Kind::Kernel, "userxattr"),
    subject: (Kind::Acetate, "userxattr"),
    marks: "user.overlay.",
    users: false,
    links: false,
    ..ROOT
};

/// Runs the named test again as root of a new user namespace; true if this is already that run.
fn inside_userns(test: &str) -> bool {
    if std::env::var_os("ORACLE_INSIDE").is_some() {
        return true;
    }
    if require_userns() {
        let _turn = hunt::turn();
        let status = std::process::Command::new("unshare")
            .args(["-Urm", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("ORACLE_INSIDE", "1")
            .status()
            .unwrap();
        assert!(status.success(), "inside the user namespace: {status}");
    }
    false
}

#[test]
fn acetate_in_a_user_namespace_does_what_the_kernel_does() {
    if inside_userns("acetate_in_a_user_namespace_does_what_the_kernel_does")
        && require_fuse()
        && require_kernel_overlay()
    {
        hunt::run(USERXATTR, 0.7);
    }
}

/// Directory renames above all, which the kernel refuses there.
#[test]
fn acetate_in_a_user_namespace_does_what_a_plain_directory_does() {
    if inside_userns("acetate_in_a_user_namespace_does_what_a_plain_directory_does")
        && require_fuse()
        && require_kernel_overlay()
    {
        hunt::run(
            Setup {
                name: "userns-plain",
                reference: (Kind::Plain, "userxattr"),
                cross: false,
                links: true,
                ..USERXATTR
            },
            0.7,
        );
    }
}

/// Root against a plain directory: what kernel overlayfs itself gets wrong must not be taken over.
#[test]
fn acetate_does_what_a_plain_directory_does() {
    if !(require_root() && require_fuse() && require_kernel_overlay()) {
        return;
    }
    hunt::run(
        Setup {
            name: "root-plain",
            reference: (Kind::Plain, ""),
            cross: false,
            ..ROOT
        },
        0.5,
    );
}

/// The kernel against a plain directory, to know what the comparison with one is worth.
#[test]
#[ignore = "about the kernel, not about acetate"]
fn the_kernel_does_what_a_plain_directory_does() {
    if !(require_root() && require_kernel_overlay()) {
        return;
    }
    hunt::run(
        Setup {
            name: "kernel-plain",
            reference: (Kind::Plain, ""),
            subject: (Kind::Kernel, REDIRECT),
            cross: false,
            ..ROOT
        },
        0.5,
    );
}
