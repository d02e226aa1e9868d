//! The measuring program measures: a small run of two systems, end to end, and the two other verbs.
//!
//! It starts itself anew for every sample, so this test has a `main` of its own; it speaks as much of libtest's language
//! as cargo-nextest needs.

#![allow(unsafe_code)]
#![allow(clippy::expect_used)]

use std::process::{Command, ExitCode};

#[path = "../benches/compare/main.rs"]
#[allow(unreachable_pub)]
mod program;

/// Name and body of each test.
const TESTS: [(&str, fn()); 3] = [
    ("a_quick_run_of_two_systems_gives_figures", figures),
    ("growth_is_printed_with_its_slope", growth),
    ("an_operation_is_profiled", profile),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let verb = words.first().map(String::as_str);
    let has = |word: &str| words.iter().any(|w| w == word);
    // What the program calls itself with, and what this test calls it with.
    if matches!(
        verb,
        Some("agent" | "client" | "floor" | "scale" | "profile")
    ) || has("--quick")
    {
        return program::main();
    }
    let chosen = |name: &str| {
        let mut filters = words.iter().filter(|w| !w.starts_with("--")).peekable();
        filters.peek().is_none() || filters.any(|f| name.contains(f.as_str()))
    };
    if has("--list") {
        let tests = TESTS.iter().filter(|_| !has("--ignored"));
        tests.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    for (name, body) in TESTS.iter().filter(|(name, _)| chosen(name)) {
        println!("test {name}");
        body();
    }
    ExitCode::SUCCESS
}

/// Runs the program; what it printed. `None` where this host cannot: it says so.
fn run(words: &[&str]) -> Option<String> {
    let lacks_root = !rustix::process::geteuid().is_root();
    if lacks_root || !std::path::Path::new("/dev/fuse").exists() {
        eprintln!("SKIP: needs root and /dev/fuse");
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("figures.json");
    let out = Command::new(std::env::current_exe().expect("this program"))
        .args(words)
        .arg("--dir")
        .arg(dir.path())
        .arg("--json")
        .arg(&json)
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}\n{said}");
    let figures: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).expect("JSON")).expect("JSON");
    for cell in figures["cells"].as_array().expect("cells") {
        assert!(cell["trouble"].is_null(), "{cell}");
    }
    std::fs::remove_file(&json).expect("JSON");
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .expect("the directory")
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&*dir.path().to_string_lossy()), "{mounts}");
    Some(text)
}

fn figures() {
    let words = [
        "--quick",
        "--rows",
        "stat,missing",
        "--systems",
        "native,acetate,floor",
        "--ways",
        "root",
        "--repeat",
        "1",
    ];
    let Some(text) = run(&words) else { return };
    let has_figure = |name: &str| {
        text.lines().any(|l| {
            l.starts_with(&format!("{name} "))
                && l.matches(" ns").count() + l.matches(" µs").count() >= 3
        })
    };
    assert!(has_figure("stat") && has_figure("missing"), "{text}");
}

fn growth() {
    let words = [
        "scale",
        "--quick",
        "--rows",
        "depth-stat-warm",
        "--systems",
        "acetate",
        "--repeat",
        "1",
    ];
    let Some(text) = run(&words) else { return };
    assert!(
        text.contains("depth-stat-warm") && text.contains("slope "),
        "{text}"
    );
    assert!(!text.contains("slope     -"), "{text}");
}

fn profile() {
    let has_strace = Command::new("strace").arg("--version").output().is_ok();
    if !has_strace {
        eprintln!("SKIP: strace is not installed");
        return;
    }
    let Some(text) = run(&["profile", "create", "--count", "50"]) else {
        return;
    };
    let line = text
        .lines()
        .find(|l| l.starts_with("create "))
        .expect("a line");
    assert!(
        line.contains("create 1.0") && line.contains("openat"),
        "{text}"
    );
}
