//! What a commit takes along, mounted and not, and that a layer stands alone.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::shop::{Shop, text};
use super::support::host::{require_program, slowly};
use super::support::{Facets, Snapshot, diff_with, require_fuse, require_root, skip};

/// Changes of every kind, in a mounted workspace over the layer of `Shop::tree`.
fn change_everything(at: &Path) {
    fs::write(at.join("a"), "changed\n").unwrap();
    fs::write(at.join("new"), "new\n").unwrap();
    fs::hard_link(at.join("new"), at.join("new-too")).unwrap();
    fs::remove_file(at.join("dir/file")).unwrap();
    fs::remove_dir_all(at.join("dir/deep")).unwrap();
    fs::create_dir(at.join("dir/deep")).unwrap();
    fs::write(at.join("dir/deep/fresh"), "fresh\n").unwrap();
    fs::remove_file(at.join("link")).unwrap();
    fs::create_dir(at.join("link")).unwrap();
    let sparse = fs::File::create(at.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (64 << 20) - 3).unwrap();
    run("setfattr", &["-n", "user.note", "-v", "hello", "new"], at);
    run("mkfifo", &["fifo"], at);
    run("mknod", &["device", "c", "1", "3"], at);
    fs::set_permissions(at.join("new"), fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(at.join("dir"), Some(7), Some(8)).unwrap();
}

fn run(program: &str, words: &[&str], at: &Path) {
    let done = Command::new(program)
        .args(words)
        .current_dir(at)
        .output()
        .unwrap();
    assert!(done.status.success(), "{program} {words:?}: {done:?}");
}

fn ready() -> bool {
    require_root() && require_fuse() && require_program("setfattr")
}

/// What a mount of a chain shows, as a value.
fn seen(shop: &Shop, name: &str, layer: &str) -> Snapshot {
    let point = shop.at(&format!("view-{name}"));
    shop.ok(&[
        "materialize",
        name,
        "--chain",
        layer,
        "-m",
        point.to_str().unwrap(),
    ]);
    let snapshot = Snapshot::of(&point);
    shop.ok(&["ws", "rm", "-f", name]);
    snapshot
}

fn facets() -> Facets {
    Facets::REMOUNT
}

#[test]
fn a_commit_shows_what_the_workspace_showed_mounted_or_not() {
    if !ready() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let at = shop.workspace("job", &["base"]);
    // All names of a hard link are known when it is written: the upper has them all, and can become the layer.
    drop(Snapshot::of(&at));
    change_everything(&at);
    let before = Snapshot::of(&at);
    shop.ok(&["layer", "commit", "job", "live"]);
    assert_eq!(text(at.join("a")), "changed\n", "the workspace goes on");
    shop.ok(&["ws", "unmount", "job"]);
    shop.ok(&["layer", "commit", "job", "moved"]);
    for layer in ["live", "moved"] {
        let differences = diff_with(&before, &seen(&shop, layer, layer), facets());
        assert!(differences.is_empty(), "{layer}: {differences:?}");
    }
    let (live, moved) = (
        shop.json(&["layer", "info", "live"]),
        shop.json(&["layer", "info", "moved"]),
    );
    assert_eq!(
        live["diff_id"], moved["diff_id"],
        "the same changes have the same digest"
    );
    // The workspace stands upon the new layer now, without changes of its own.
    assert_eq!(shop.ok(&["ws", "diff", "job"]), "");
    shop.ok(&["ws", "mount", "job"]);
    let differences = diff_with(&before, &Snapshot::of(&at), facets());
    assert!(differences.is_empty(), "{differences:?}");
    shop.is_sound();
}

#[test]
fn a_layer_has_no_marks_that_only_an_upper_needs() {
    if !ready() || !require_program("getfattr") {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    for (name, live) in [("one", true), ("two", false)] {
        let at = shop.workspace(name, &["base"]);
        change_everything(&at);
        if !live {
            shop.ok(&["ws", "unmount", name]);
        }
        shop.ok(&["layer", "commit", name, &format!("of-{name}")]);
        let tree = shop.ok(&["layer", "path", &format!("of-{name}")]);
        let shown = Command::new("getfattr")
            .args(["-R", "-d", "-m", "-", &tree])
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        for mark in ["origin", "impure", "nlink", "redirect", "metacopy"] {
            assert!(
                !shown.contains(&format!("overlay.{mark}")),
                "{name}: {shown}"
            );
        }
        assert!(
            shown.contains("overlay.opaque") && shown.contains("user.note"),
            "{shown}"
        );
        assert!(
            PathBuf::from(&tree)
                .join("dir/file")
                .symlink_metadata()
                .unwrap()
                .file_type()
                .is_char_device()
        );
    }
}

#[test]
fn a_moved_directory_is_whole_in_the_layer() {
    if !ready() {
        return;
    }
    for live in [true, false] {
        let shop = Shop::new();
        shop.layer("base");
        let at = shop.workspace("job", &["base"]);
        fs::rename(at.join("dir"), at.join("moved")).unwrap();
        fs::write(at.join("moved/file"), "changed\n").unwrap();
        fs::rename(at.join("moved/deep"), at.join("shallow")).unwrap();
        let before = Snapshot::of(&at);
        if !live {
            shop.ok(&["ws", "unmount", "job"]);
        }
        shop.ok(&["layer", "commit", "job", "app"]);
        let tree = PathBuf::from(shop.ok(&["layer", "path", "app"]));
        assert_eq!(text(tree.join("moved/file")), "changed\n");
        assert_eq!(
            text(tree.join("shallow/other")),
            "other\n",
            "the lower's data is in the layer"
        );
        let differences = diff_with(&before, &seen(&shop, "view", "app"), facets());
        assert!(differences.is_empty(), "live {live}: {differences:?}");
        shop.is_sound();
    }
}

/// A directory that was moved away and back is merged again: its redirect leads to
/// its own place. Marks that hide nothing do not reach the layer.
#[test]
fn a_directory_that_came_back_is_not_copied_into_the_layer() {
    if !ready() {
        return;
    }
    for live in [true, false] {
        let shop = Shop::new();
        shop.layer("base");
        let at = shop.workspace("job", &["base"]);
        fs::rename(at.join("dir"), at.join("away")).unwrap();
        fs::rename(at.join("away"), at.join("dir")).unwrap();
        fs::remove_file(at.join("link")).unwrap();
        fs::create_dir(at.join("link")).unwrap();
        if !live {
            shop.ok(&["ws", "unmount", "job"]);
        }
        shop.ok(&["layer", "commit", "job", "app"]);
        let tar = shop.at("app.tar");
        shop.ok(&["layer", "export", "app", tar.to_str().unwrap()]);
        let listed = Command::new("tar").arg("-tf").arg(&tar).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert_eq!(listed, "./\ndir/\nlink/\n", "live {live}");
        assert_eq!(shop.ok(&["layer", "cat", "app", "dir/file"]), "file");
    }
}

#[test]
fn a_metacopy_has_its_data_in_the_layer() {
    if !ready() {
        return;
    }
    for live in [true, false] {
        let shop = Shop::new();
        shop.layer("base");
        shop.ok(&["ws", "create", "job", "-l", "base", "-o", "metacopy=on"]);
        let at = PathBuf::from(shop.ok(&["ws", "path", "job"]));
        fs::set_permissions(at.join("dir/file"), fs::Permissions::from_mode(0o600)).unwrap();
        if !live {
            shop.ok(&["ws", "unmount", "job"]);
        }
        shop.ok(&["layer", "commit", "job", "app"]);
        let tree = PathBuf::from(shop.ok(&["layer", "path", "app"]));
        assert_eq!(text(tree.join("dir/file")), "file\n");
        assert_eq!(
            tree.join("dir/file").metadata().unwrap().mode() & 0o7777,
            0o600
        );
    }
}

#[test]
fn every_name_of_a_hard_link_is_in_the_layer() {
    if !ready() {
        return;
    }
    for live in [true, false] {
        let shop = Shop::new();
        let tree = shop.tree("tree");
        fs::create_dir(tree.join("far")).unwrap();
        fs::hard_link(tree.join("a"), tree.join("far/c")).unwrap();
        shop.ok(&["layer", "create", "base", tree.to_str().unwrap()]);
        let at = shop.workspace("job", &["base"]);
        // Written by one name; the others are not looked at.
        fs::write(at.join("a"), "changed\n").unwrap();
        if !live {
            shop.ok(&["ws", "unmount", "job"]);
        }
        shop.ok(&["layer", "commit", "job", "app"]);
        let point = shop.at("view");
        shop.ok(&[
            "materialize",
            "view",
            "--chain",
            "app",
            "-m",
            point.to_str().unwrap(),
        ]);
        for name in ["a", "b", "far/c"] {
            assert_eq!(text(point.join(name)), "changed\n", "live {live}: {name}");
        }
        let inode = |name: &str| point.join(name).metadata().unwrap().ino();
        assert_eq!((inode("a"), inode("a")), (inode("b"), inode("far/c")));
        shop.ok(&["layer", "commit", "job", "flat", "--squash"]);
        let flat = PathBuf::from(shop.ok(&["layer", "path", "flat"]));
        let inode = |name: &str| flat.join(name).metadata().unwrap().ino();
        assert_eq!(
            (inode("a"), inode("a")),
            (inode("b"), inode("far/c")),
            "squashed, live {live}"
        );
        assert_eq!(text(flat.join("far/c")), "changed\n");
        let time = |at: PathBuf| at.join("far").metadata().unwrap().mtime_nsec();
        assert_eq!(
            time(flat.clone()),
            time(tree.clone()),
            "a directory's time stays"
        );
    }
}

#[test]
fn squash_makes_one_layer_that_stands_on_nothing() {
    if !ready() {
        return;
    }
    for live in [true, false] {
        let shop = Shop::new();
        shop.layer("base");
        let at = shop.workspace("job", &["base"]);
        change_everything(&at);
        let before = Snapshot::of(&at);
        if !live {
            shop.ok(&["ws", "unmount", "job"]);
        }
        shop.ok(&["layer", "commit", "job", "flat", "--squash"]);
        let info = shop.json(&["layer", "info", "flat"]);
        assert_eq!(info["parents"].as_array().unwrap().len(), 0);
        assert_eq!(info["chain_id"], info["diff_id"]);
        let tree = PathBuf::from(shop.ok(&["layer", "path", "flat"]));
        assert!(
            !tree.join("dir/file").exists() && tree.join("dir/file").symlink_metadata().is_err(),
            "no whiteouts"
        );
        let differences = diff_with(&before, &seen(&shop, "view", "flat"), facets());
        assert!(differences.is_empty(), "live {live}: {differences:?}");
    }
}

#[test]
fn a_commit_of_no_changes_is_an_empty_layer() {
    if !ready() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    shop.workspace("job", &["base"]);
    shop.ok(&["layer", "commit", "job", "nothing"]);
    let info = shop.json(&["layer", "info", "nothing"]);
    // The root has an entry where its time is not 0.
    assert!(info["entries"].as_u64().unwrap() <= 1, "{info}");
    assert_eq!(shop.ok(&["layer", "diff", "nothing"]), "");
    shop.fails(
        5,
        "there is a layer base",
        &["layer", "commit", "job", "base"],
    );
    shop.fails(
        3,
        "there is no workspace nobody",
        &["layer", "commit", "nobody", "x"],
    );
}

/// While it is committed a program appends numbered lines to one file after the
/// other: line N is in file 2 only if line N is in file 1, at every moment.
#[test]
fn a_live_commit_is_of_one_moment() {
    if !ready() {
        return;
    }
    let shop = Shop::new();
    let tree = shop.at("tree");
    fs::create_dir(&tree).unwrap();
    for i in 0..200 {
        fs::write(tree.join(format!("filler-{i}")), vec![0u8; 50_000]).unwrap();
    }
    shop.ok(&["layer", "create", "base", tree.to_str().unwrap()]);
    let at = shop.workspace("job", &["base"]);
    for i in 0..200 {
        fs::write(at.join(format!("filler-{i}")), vec![1u8; 50_000]).unwrap();
    }
    let (stop, lines) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let writer = {
        let (stop, lines, at) = (stop.clone(), lines.clone(), at.clone());
        std::thread::spawn(move || {
            use std::io::Write;
            let open = |name: &str| {
                fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(at.join(name))
                    .unwrap()
            };
            let (mut first, mut second) = (open("aaa"), open("zzz"));
            while !stop.load(Ordering::SeqCst) {
                first.write_all(b"x").unwrap();
                second.write_all(b"x").unwrap();
                lines.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    for round in 0..5 {
        let before = lines.load(Ordering::SeqCst);
        shop.ok(&["layer", "commit", "job", &format!("moment-{round}")]);
        let tree = PathBuf::from(shop.ok(&["layer", "path", &format!("moment-{round}")]));
        let length = |name: &str| tree.join(name).metadata().map_or(0, |m| m.len());
        let (first, second) = (length("aaa"), length("zzz"));
        assert!(
            first >= before,
            "what was written before the commit is in it"
        );
        assert!(
            first == second || first == second + 1,
            "{first} and {second}"
        );
    }
    let before = lines.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(50));
    assert!(lines.load(Ordering::SeqCst) > before, "the writer goes on");
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    shop.is_sound();
}

#[test]
fn what_is_in_the_page_cache_is_in_a_live_commit() {
    if !ready() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    shop.ok(&["ws", "create", "job", "-l", "base", "-o", "writeback"]);
    let at = PathBuf::from(shop.ok(&["ws", "path", "job"]));
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(at.join("dir/file"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"dirty", 0).unwrap();
    shop.ok(&["layer", "commit", "job", "app"]);
    assert_eq!(shop.ok(&["layer", "cat", "app", "dir/file"]), "dirty");
    drop(file);
}

#[test]
fn an_asker_that_is_killed_or_stopped_holds_a_mount_for_a_moment_only() {
    if !ready() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let at = shop.workspace("job", &["base"]);
    let big = fs::File::create(at.join("big")).unwrap();
    std::io::copy(
        &mut std::io::Read::take(std::io::repeat(7), 300 << 20),
        &mut &big,
    )
    .unwrap();
    drop(big);
    for signal in [Signal::KILL, Signal::STOP] {
        let mut child = shop
            .command()
            .args(["layer", "commit", "job", "cut"])
            .spawn()
            .unwrap();
        // Somewhere in the copy, whatever has happened until then.
        std::thread::sleep(Duration::from_millis(300));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        let begun = Instant::now();
        fs::write(at.join("after"), "after\n").unwrap();
        assert!(
            begun.elapsed() < slowly(Duration::from_secs(15)),
            "{:?}",
            begun.elapsed()
        );
        // Gone already where it was killed.
        let _gone = rustix::process::kill_process(pid, Signal::CONT);
        let ended = child.wait().unwrap();
        if signal == Signal::STOP && ended.success() {
            // It was stopped after the release: then the layer is of a moment before.
            assert_eq!(shop.run(&["layer", "cat", "cut", "after"]).code, 3);
        }
        let _gone = shop.run(&["layer", "rm", "cut"]);
        fs::remove_file(at.join("after")).unwrap();
    }
    shop.is_sound();
}

#[test]
fn only_the_mounts_owner_and_root_may_hold_its_changes() {
    if !ready() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let point = shop.at("point");
    shop.ok(&[
        "ws",
        "create",
        "job",
        "-l",
        "base",
        "-m",
        point.to_str().unwrap(),
    ]);
    fs::set_permissions(shop.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    // _IOWR('A', 2, [u8; 16]) with version 1 and a lease of one second.
    let script = format!(
        "import fcntl,os,struct\nfd=os.open({:?},os.O_RDONLY)\nfcntl.ioctl(fd,0xc0104102,struct.pack('=IIQ',1,1000,0))",
        point.display().to_string()
    );
    if !Path::new("/usr/bin/python3").exists() {
        skip("needs /usr/bin/python3");
        return;
    }
    let other = Command::new("setpriv")
        .args([
            "--reuid=12345",
            "--regid=12345",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            &script,
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(
        !other.status.success() && said.contains("Operation not permitted"),
        "{said}"
    );
    let own = Command::new("/usr/bin/python3")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert!(own.status.success(), "{own:?}");
    // Nobody renews it: changes go on within its second.
    let begun = Instant::now();
    fs::write(point.join("new"), "").unwrap();
    assert!(begun.elapsed() < slowly(Duration::from_secs(5)));
}

/// A commit of few changes must not look at the whole of a large base.
#[test]
fn a_commit_opens_no_more_than_what_was_changed() {
    if !ready() || !require_program("strace") {
        return;
    }
    let shop = Shop::new();
    let tree = shop.at("tree");
    for d in 0..50 {
        fs::create_dir_all(tree.join(format!("d{d}"))).unwrap();
        for f in 0..40 {
            fs::write(tree.join(format!("d{d}/f{f}")), "x").unwrap();
        }
    }
    shop.ok(&["layer", "create", "base", tree.to_str().unwrap()]);
    let at = shop.workspace("job", &["base"]);
    fs::write(at.join("d7/f7"), "changed").unwrap();
    shop.ok(&["ws", "unmount", "job"]);
    let log = shop.at("calls");
    let plain = shop.command();
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-e", "trace=openat,openat2,open", "-o"])
        .arg(&log)
        .arg("--")
        .arg(plain.get_program());
    traced
        .args(plain.get_args())
        .args(["layer", "commit", "job", "app"]);
    let done = traced.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let opened = text(&log).lines().count();
    assert!(
        opened < 200,
        "{opened} files were opened for one that was changed"
    );
}
