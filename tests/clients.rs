//! Real clients: podman, buildah, skopeo, umoci and docker from Debian's packages, as root and as an ordinary user, on
//! acetate, each listing compared with the one that the `vfs` driver gives. The work is `scripts/clients`; here runs the
//! part of it that fits in five minutes (`--ci`). No network.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

/// What `scripts/clients` ends with where it cannot run, having said why.
const CANNOT_RUN: i32 = 77;

#[test]
fn podman_buildah_and_docker_see_what_the_vfs_driver_shows() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/clients");
    // The program under test is a debug build; nothing here is timed.
    let out = Command::new(script)
        .args(["--ci", "--acetate", env!("CARGO_BIN_EXE_acetate")])
        // Packages are installed by .ci/run, or by a person: a test changes no host.
        .env("ACETATE_CLIENTS_NO_INSTALL", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    if out.status.code() == Some(CANNOT_RUN) {
        println!("{}", said.trim_end());
        return;
    }
    assert!(
        out.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    println!("{said}");
    // A run that skipped everything must not look like one that passed.
    let passed = said
        .lines()
        .find(|line| line.starts_with("PASS"))
        .unwrap_or_default();
    let counts: Vec<u32> = passed
        .split_whitespace()
        .skip(1)
        .map(|n| n.parse().unwrap())
        .collect();
    assert!(counts.iter().all(|n| *n >= 15), "passed: {passed}");
}
