//! Real clients: podman, buildah, skopeo, umoci and docker from Debian's packages, as root and as an ordinary user, on
//! acetate, each listing compared with the one that the `vfs` driver gives. The work is `scripts/clients`; here runs the
//! part of it that fits in five minutes (`--ci`). No network.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

/// What `scripts/clients` ends with where it cannot run, having said why.
const CANNOT_RUN: i32 = 77;
/// A run that skipped everything must not look like one that passed. (`vfs`, which makes the listings to compare with,
/// has the fewest steps.)
const FEWEST_PASSED: u32 = 12;

#[test]
fn podman_buildah_and_docker_see_what_the_vfs_driver_shows() {
    // At once: the clients sleep much of their time (to the next full second after each layer, for one).
    let runs = ["root", "rootless"].map(|mode| (mode, std::thread::spawn(move || run(mode))));
    for (mode, run) in runs {
        judge(mode, &run.join().unwrap());
    }
}

fn run(mode: &str) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/clients");
    Command::new(script)
        .args(["--ci", "--mode", mode])
        .args(["--acetate", env!("CARGO_BIN_EXE_acetate")])
        // Packages are installed by .ci/run, or by a person: a test changes no host.
        .env("ACETATE_CLIENTS_NO_INSTALL", "1")
        .output()
        .unwrap()
}

fn judge(mode: &str, out: &Output) {
    let said = String::from_utf8_lossy(&out.stdout);
    if out.status.code() == Some(CANNOT_RUN) {
        assert!(said.contains("SKIPPED: "), "no reason was given: {said}");
        eprintln!("{mode}: {}", said.trim_end());
        return;
    }
    assert!(
        out.status.success(),
        "{mode}: {said}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    println!("{said}");
    let passed = said
        .lines()
        .find(|line| line.starts_with("PASS"))
        .unwrap_or_default();
    let counts: Vec<u32> = passed
        .split_whitespace()
        .skip(1)
        .map(|n| n.parse().unwrap())
        .collect();
    assert!(
        counts.len() == 2 && counts.iter().all(|n| *n >= FEWEST_PASSED),
        "{mode}: passed: {passed}"
    );
}
