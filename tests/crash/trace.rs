//! The order of system calls on a copy-up, seen by strace: data is on the disk before the name is, and the name
//! before the caller may rely on it; with `volatile` nothing is waited for.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::host::require_program;
use crate::support::{Base, Layers, Mount, require_fuse, require_root};

/// The calls that matter, as strace prints them, while `body` uses a mount with `options`.
fn traced(options: &str, body: impl FnOnce(&Layers)) -> Vec<String> {
    // On disk: on tmpfs an implementation may know that fsync means nothing.
    let layers = Layers::new(Base::Disk, 1);
    fs::create_dir_all(layers.lowers[0].join("d/e")).unwrap();
    fs::write(layers.lowers[0].join("d/e/file"), vec![b'x'; 300_000]).unwrap();
    let mount = Mount::acetate(&layers, options);
    // The walk there is not what is looked at.
    assert_eq!(fs::metadata(layers.at("d/e/file")).unwrap().len(), 300_000);
    let log = layers.root.join("trace");
    let calls = "fsync,fdatasync,syncfs,sync_file_range,linkat,renameat,renameat2,write,pwrite64,pwritev,\
                 copy_file_range,ioctl,sendfile";
    let mut strace = Command::new("strace")
        .args(["-f", "-y", "-e", &format!("trace={calls}"), "-o"])
        .arg(&log)
        .args(["-p", &mount.pid().unwrap().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // "Process N attached" comes when it is; the pipe is not read to its end as strace goes on.
    wait_until(|| {
        fs::read_to_string(format!("/proc/{}/status", mount.pid().unwrap()))
            .unwrap()
            .contains(&format!("TracerPid:\t{}", strace.id()))
    });
    body(&layers);
    mount.unmount();
    wait_until(|| strace.try_wait().unwrap().is_some());
    fs::read_to_string(log)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "strace does not come or go"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn syncs(line: &str) -> bool {
    ["fsync(", "fdatasync(", "syncfs("]
        .iter()
        .any(|call| line.contains(call))
}

/// The line that gives the copied file its name in the upper.
fn publishing(lines: &[String]) -> usize {
    let names = |line: &&String| {
        (line.contains("linkat(") || line.contains("renameat")) && line.contains("\"file\"")
    };
    lines
        .iter()
        .position(|line| names(&line))
        .unwrap_or_else(|| panic!("no line publishes: {lines:#?}"))
}

#[test]
fn a_copy_up_is_synced_before_it_has_a_name() {
    if !(require_root() && require_fuse() && require_program("strace")) {
        return;
    }
    let lines = traced("", |layers| {
        let file = fs::OpenOptions::new()
            .append(true)
            .open(layers.at("d/e/file"))
            .unwrap();
        std::io::Write::write_all(&mut &file, b"more").unwrap();
        file.sync_all().unwrap();
    });
    let named = publishing(&lines);
    let data = lines[..named].iter().rposition(|line| {
        ["copy_file_range(", "pwrite64(", "FICLONE", "sendfile("]
            .iter()
            .any(|call| line.contains(call))
            || (line.contains(" write(") && !line.contains("/dev/fuse"))
    });
    let data = data.unwrap_or_else(|| panic!("no data was copied before the name: {lines:#?}"));
    assert!(
        lines[data..named].iter().any(|line| syncs(line)),
        "the data is not synced before the name: {lines:#?}"
    );
    assert!(
        lines[named..].iter().any(|line| syncs(line)),
        "nothing is synced after the name: {lines:#?}"
    );
    // The caller's fsync came after its write, and so must ours: the last write to the file is synced.
    let written = lines
        .iter()
        .rposition(|line| line.contains("write") && line.contains("more"));
    let written = written.unwrap_or_else(|| panic!("the caller's write is not seen: {lines:#?}"));
    assert!(
        lines[written..].iter().any(|line| syncs(line)),
        "the caller's fsync did nothing: {lines:#?}"
    );
}

#[test]
fn a_volatile_mount_waits_for_no_disk() {
    if !(require_root() && require_fuse() && require_program("strace")) {
        return;
    }
    let lines = traced("volatile", |layers| {
        let file = fs::OpenOptions::new()
            .append(true)
            .open(layers.at("d/e/file"))
            .unwrap();
        std::io::Write::write_all(&mut &file, b"more").unwrap();
        file.sync_all().unwrap();
    });
    publishing(&lines);
    let synced: Vec<_> = lines.iter().filter(|line| syncs(line)).collect();
    assert!(synced.is_empty(), "{synced:#?}");
}
