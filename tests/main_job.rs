//! The main job, on real input: three layers of a real Debian are mounted with an empty upper, packages are installed in a
//! chroot, a C program is compiled, directories are removed, re-created and renamed, files of the lowers edited; after a
//! remount everything is as it was left, and the lowers are bit for bit unchanged, access times included.
//!
//! The work is `scripts/main-job`, once for each way to mount. It takes the layers that `scripts/main-job prepare` made with
//! debootstrap where they are, else it makes smaller ones from this host's own packages, and prints which. No network.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::story::require_real_root;
use support::{DevFuseOpen, host, skip};

/// Where `scripts/main-job prepare` puts its layers by default.
fn prepared_cache() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/acetate"));
    let named = std::env::var_os("ACETATE_CACHE").map(PathBuf::from);
    let candidates = [named, Some("/work/tmp/acetate-cache".into()), home];
    candidates
        .into_iter()
        .flatten()
        .find(|cache| cache.join("layers/complete").exists())
}

fn main_job(way: &str) {
    let made_here = Path::new(env!("CARGO_TARGET_TMPDIR")).join("main-job");
    let (cache, source) = match prepared_cache() {
        Some(cache) => (cache, "mirror"),
        None if host::require_program("dpkg-query") && host::require_program("gcc") => {
            (made_here, "host")
        }
        None => {
            skip("neither prepared layers nor a Debian host to make them of");
            return;
        }
    };
    std::fs::create_dir_all(&cache).unwrap();
    let reachable = format!(
        "test -x {} && test -r {}",
        support::mount::acetate_bin().display(),
        cache.display()
    );
    if way != "root"
        && !support::as_user(1000, reachable)
            .status()
            .unwrap()
            .success()
    {
        skip("an ordinary user cannot reach the program or the layers (a checkout below /root?)");
        return;
    }
    let out = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/main-job"))
        .arg(way)
        .env("ACETATE_BIN", support::mount::acetate_bin())
        .env("ACETATE_CACHE", &cache)
        .env("MJ_SOURCE", source)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    println!("{text}");
    assert!(
        out.status.success(),
        "scripts/main-job {way}, layers in {}:\n{text}{}",
        cache.display(),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(text.contains(&format!("{way}: PASS")), "{text}");
}

fn possible() -> bool {
    // setpriv, unshare and the tools of the comparison come with every Debian; the script is bash.
    require_real_root()
        && host::require_program("bash")
        && host::require_program("setpriv")
        && host::require_program("getfattr")
}

/// As root, layers in the kernel's own format.
#[test]
fn the_main_job_as_root() {
    if possible() {
        main_job("root");
    }
}

/// As root of a user namespace, layers that the user owns, unpacked as podman does it.
#[test]
fn the_main_job_in_a_user_namespace() {
    if !(possible() && host::require_userns()) {
        return;
    }
    if let Some(_open) = DevFuseOpen::new() {
        main_job("userns");
    }
}

/// The same with owners and modes in `user.containers.override_stat`.
#[test]
fn the_main_job_in_a_user_namespace_with_owners_in_xattrs() {
    if !(possible() && host::require_userns()) {
        return;
    }
    if let Some(_open) = DevFuseOpen::new() {
        main_job("override");
    }
}

/// An ordinary user, through fusermount3.
#[test]
fn the_main_job_as_an_ordinary_user() {
    if !(possible() && host::require_userns() && host::require_program("fusermount3")) {
        return;
    }
    if let Some(_open) = DevFuseOpen::new() {
        main_job("user");
    }
}
