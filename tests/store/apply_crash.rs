//! kill -9 at any system call of `ws apply`: run again it ends in the same state.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::apply::{change, is_as, live};
use super::crashes::{Dice, times};
use super::shop::Shop;
use super::support::Snapshot;
use super::support::host::require_program;
use super::support::mount::acetate_bin;
use super::support::{require_fuse, require_root};

/// What changes something on disk.
const CALLS: &str = "?renameat,?renameat2,?mkdirat,?unlinkat,?linkat,?symlinkat,?mknodat,?openat,?fsync,\
    ?syncfs,?fchmodat,?fchmodat2,?fchownat,?utimensat,?setxattr,?lsetxattr,?removexattr,?lremovexattr,\
    ?setxattrat,?removexattrat,?copy_file_range,?ftruncate";

/// A workspace that is to be applied; the directory, and what it is to become.
fn prepared(shop: &Shop) -> (PathBuf, Snapshot) {
    let (live, at) = live(shop);
    change(&at);
    let view = Snapshot::of(&at);
    shop.ok(&["ws", "unmount", "job"]);
    (live, view)
}

/// The program under strace(1).
fn traced(shop: &Shop, options: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq"]).args(options).arg(acetate_bin());
    command.arg("--root").arg(shop.root());
    command
        .args(["ws", "apply", "job"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// How often an apply makes each call.
fn counted() -> BTreeMap<String, u64> {
    let shop = Shop::new();
    let (live, view) = prepared(&shop);
    let log = shop.at("log");
    let trace = format!("trace={CALLS}");
    let ended = traced(&shop, &["-o", log.to_str().unwrap(), "-e", &trace]).status();
    assert!(ended.unwrap().success());
    is_as(&live, &view);
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        // "PID call(…"
        let call = line.split_whitespace().nth(1).unwrap_or_default();
        // Calls that strace does not know by name cannot be named to it either.
        if let Some((name, _)) = call.split_once('(')
            && !name.starts_with("syscall_")
        {
            *counts.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

/// Kills an apply at a call; whether it was killed.
fn killed(shop: &Shop, call: &str, when: u64) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={when}");
    let ended = traced(shop, &["-o", "/dev/null", "-e", &inject]).status();
    !ended.unwrap().success()
}

fn nothing_of_ours(path: &Path) {
    for entry in fs::read_dir(path).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(
            !name.contains("acetate-apply"),
            "{}",
            entry.path().display()
        );
        if entry.file_type().unwrap().is_dir() {
            nothing_of_ours(&entry.path());
        }
    }
}

#[test]
fn an_apply_that_was_killed_is_run_again_and_ends_in_the_same_state() {
    if !require_root() || !require_fuse() || !require_program("strace") {
        return;
    }
    let counts = counted();
    assert!(counts.values().sum::<u64>() > 100, "{counts:?}");
    let mut dice = Dice::new();
    let calls: Vec<&String> = counts.keys().collect();
    let (mut cut, mut pending) = (0, 0);
    for round in 0..times() {
        // Each kind of call in turn, at a random one of it.
        let call = calls[round % calls.len()];
        let when = 1 + dice.below(counts[call]);
        let shop = Shop::new();
        let (live, view) = prepared(&shop);
        cut += usize::from(killed(&shop, call, when));
        let begun = shop.inside("workspaces/job/apply.json").exists();
        if begun {
            pending += 1;
            shop.fails(4, "was cut off", &["ws", "mount", "job"]);
            shop.fails(4, "was cut off", &["ws", "reset", "job"]);
        }
        // Killed a second time on its way.
        let again = calls[usize::try_from(dice.below(calls.len() as u64)).unwrap()];
        cut += usize::from(killed(&shop, again, 1 + dice.below(counts[again])));
        let said = shop.run(&["ws", "apply", "job"]);
        assert_eq!(said.code, 0, "after {call} {when}, {again}: {said:?}");
        is_as(&live, &view);
        nothing_of_ours(&live);
        assert!(!shop.inside("workspaces/job/apply.json").exists());
        assert_eq!(shop.ok(&["ws", "diff", "job"]), "");
        shop.ok(&["gc"]);
        shop.is_sound();
        assert_eq!(fs::read_dir(shop.inside("staging")).unwrap().count(), 0);
    }
    println!("{cut} kills, {pending} of them while the directory was being changed");
    assert!(
        cut > times() / 2 && pending > 0,
        "{cut} kills, {pending} pending"
    );
}

/// Many small files in many directories, and a mounted workspace in which all of them,
/// one in each directory with a second name elsewhere, are other ones.
fn many(shop: &Shop) -> (PathBuf, Snapshot) {
    let live = shop.at("many");
    for d in 0..40 {
        fs::create_dir_all(live.join(format!("d{d:02}"))).unwrap();
        for f in 0..4 {
            fs::write(live.join(format!("d{d:02}/f{f}")), "old").unwrap();
        }
    }
    let at = shop.workspace("job", &[live.to_str().unwrap()]);
    for d in 0..40 {
        for f in 0..4 {
            fs::write(at.join(format!("d{d:02}/f{f}")), format!("{d} {f}")).unwrap();
        }
        let link = at.join(format!("d{:02}/link", (d + 7) % 40));
        fs::hard_link(at.join(format!("d{d:02}/f1")), link).unwrap();
    }
    fs::remove_dir_all(at.join("d20")).unwrap();
    fs::create_dir(at.join("d20")).unwrap();
    fs::write(at.join("d20/whole"), "new").unwrap();
    let view = Snapshot::of(&at);
    shop.ok(&["ws", "unmount", "job"]);
    (live, view)
}

#[test]
fn many_files_are_written_to_disk_together_and_before_any_of_them_gets_its_place() {
    if !require_root() || !require_fuse() || !require_program("strace") {
        return;
    }
    let shop = Shop::new();
    let (live, view) = many(&shop);
    let log = shop.at("log");
    let options = ["-y", "-o", log.to_str().unwrap()];
    let calls = ["-e", "trace=?fsync,?linkat,?renameat,?renameat2"];
    let ended = traced(&shop, &[&options[..], &calls].concat()).status();
    assert!(ended.unwrap().success());
    is_as(&live, &view);
    let mut synced = std::collections::HashSet::new();
    let (mut files, mut rounds, mut syncing) = (0, 0, false);
    for line in fs::read_to_string(&log).unwrap().lines() {
        if line.contains(" fsync(") {
            if let Some((_, rest)) = line.split_once("/many") {
                rounds += usize::from(!syncing);
                syncing = true;
                synced.insert(rest.split_once('>').unwrap().0.to_owned());
            }
            continue;
        }
        // call(…, 5</…/many/d01/.acetate-apply.job>, "new-3", …
        let Some((before, rest)) = line.split_once("/.acetate-apply.job>, \"") else {
            continue;
        };
        let (_, folder) = before.rsplit_once("/many").unwrap();
        let name = rest.split_once('"').unwrap().0;
        let made = format!("{folder}/.acetate-apply.job/{name}");
        if line.contains(" linkat(") {
            // A further name of what has its place already.
            synced.insert(made);
        } else if name.starts_with("new-") {
            syncing = false;
            files += 1;
            let below = format!("{made}/");
            let known = synced.iter().any(|s| *s == made || s.starts_with(&below));
            assert!(known, "{line}");
        }
    }
    assert!(files > 190, "{files} files");
    // One after the other there would be as many rounds as files.
    assert!(
        (2..80).contains(&rounds),
        "{rounds} rounds for {files} files"
    );
}

#[test]
fn an_apply_to_many_directories_that_was_killed_leaves_few_folders_and_ends_the_same() {
    if !require_root() || !require_fuse() || !require_program("strace") {
        return;
    }
    let mut dice = Dice::new();
    let mut most = 0;
    for _ in 0..times().div_ceil(5) {
        let shop = Shop::new();
        let (live, view) = many(&shop);
        let call = ["renameat2", "fsync", "mkdirat", "linkat", "unlinkat"];
        let call = call[usize::try_from(dice.below(5)).unwrap()];
        killed(&shop, call, 1 + dice.below(150));
        let folders = fs::read_dir(&live).unwrap().flatten();
        let folders = folders.filter(|d| d.path().join(".acetate-apply.job").exists());
        let folders = folders.count();
        assert!(folders <= 33, "{folders}");
        most = most.max(folders);
        // Each name is as before or as after.
        for entry in fs::read_dir(live.join("d03")).unwrap().flatten() {
            if let Some(n) = entry.file_name().to_str().and_then(|n| n.strip_prefix('f')) {
                let text = fs::read_to_string(entry.path()).unwrap();
                assert!(text == "old" || text == format!("3 {n}"), "{text}");
            }
        }
        let said = shop.run(&["ws", "apply", "job"]);
        assert_eq!(said.code, 0, "{call}: {said:?}");
        is_as(&live, &view);
        nothing_of_ours(&live);
        shop.is_sound();
    }
    assert!(most > 0, "none was killed in between");
}

#[test]
fn what_somebody_changes_between_the_kill_and_the_next_run_is_a_conflict() {
    if !require_root() || !require_fuse() || !require_program("strace") {
        return;
    }
    let shop = Shop::new();
    let live = shop.tree("live");
    let at = shop.workspace("job", &[live.to_str().unwrap()]);
    for name in ["a", "m", "z"] {
        fs::write(at.join(name), "mine\n").unwrap();
    }
    fs::write(at.join("dir/file"), "mine\n").unwrap();
    shop.ok(&["ws", "unmount", "job"]);
    // The third rename into the directory (one is that of the record).
    let mut when = 1;
    while !live.join("m").exists() || live.join("z").exists() {
        assert!(when < 40, "the place was not found");
        for call in ["renameat", "renameat2"] {
            if !live.join("m").exists() {
                killed(&shop, call, when);
            }
        }
        when += 1;
    }
    fs::write(live.join("dir/file"), "theirs\n").unwrap();
    shop.fails(7, "/dir/file: changed", &["ws", "apply", "job"]);
    assert_eq!(fs::read_to_string(live.join("m")).unwrap(), "mine\n");
    shop.ok(&["ws", "apply", "job", "--force"]);
    assert_eq!(fs::read_to_string(live.join("dir/file")).unwrap(), "mine\n");
    assert_eq!(fs::read_to_string(live.join("z")).unwrap(), "mine\n");
    shop.is_sound();
}
