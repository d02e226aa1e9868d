//! Copied workspaces: the same commands over a plain tree, and the same answers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::crashes::Dice;
use super::script::Script;
use super::shop::{Shop, text};
use super::support::host::{fewer, own_mounts, require_program};
use super::support::{is_mountpoint, require_fuse, require_root};

/// A copied workspace; where its tree is.
fn copied(shop: &Shop, name: &str, layers: &[&str]) -> PathBuf {
    let mut words = vec!["ws", "create", "--copy", name];
    layers.iter().for_each(|l| words.extend(["-l", l]));
    assert_eq!(shop.ok(&words), name);
    PathBuf::from(shop.ok(&["ws", "path", name]))
}

/// Layers with something of every kind, of which the upper one hides some of the lower.
fn layers(shop: &Shop) {
    let tree = shop.tree("low");
    for dir in ["one", "two", "two/three", "two/three/four", "empty"] {
        fs::create_dir(tree.join(dir)).unwrap();
        fs::write(tree.join(dir).join("file"), format!("{dir}\n")).unwrap();
    }
    for dir in 0..6 {
        let dir = tree.join(format!("more-{dir}"));
        fs::create_dir_all(dir.join("sub")).unwrap();
        for at in ["one", "two", "sub/one", "sub/two"] {
            fs::write(dir.join(at), format!("{at}\n")).unwrap();
        }
    }
    fs::remove_file(tree.join("empty/file")).unwrap();
    fs::hard_link(tree.join("a"), tree.join("two/three/c")).unwrap();
    fs::hard_link(tree.join("one/file"), tree.join("one/same")).unwrap();
    fs::set_permissions(tree.join("one/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(tree.join("two"), Some(3), Some(4)).unwrap();
    symlink("../one", tree.join("two/link")).unwrap();
    let low = tree.to_str().unwrap();
    let set = |name: &str, path: &str| {
        let path = tree.join(path);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(path, name, b"low", flags).unwrap();
    };
    set("user.note", "dir/file");
    set("user.note", "two/three/file");
    shop.ok(&["layer", "create", "low", low]);
    let at = copied(shop, "maker", &["low"]);
    fs::remove_file(at.join("two/three/file")).unwrap();
    fs::remove_dir_all(at.join("dir/deep")).unwrap();
    fs::create_dir(at.join("dir/deep")).unwrap();
    fs::write(at.join("dir/deep/top"), "top\n").unwrap();
    shop.ok(&["layer", "commit", "maker", "top"]);
    shop.ok(&["ws", "rm", "maker"]);
}

fn changes(shop: &Shop, name: &str) -> serde_json::Value {
    shop.json(&["ws", "diff", name])["changes"].clone()
}

/// What is in an archive, for people.
fn listed(shop: &Shop, layer: &str) -> String {
    let tar = shop.at(&format!("{layer}.tar"));
    shop.ok(&["layer", "export", layer, tar.to_str().unwrap()]);
    let words = [
        "--full-time",
        "--numeric-owner",
        "--xattrs",
        "--acls",
        "-tvvf",
    ];
    let listed = Command::new("tar").args(words).arg(&tar).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

fn same_layers(shop: &Shop, one: &str, other: &str, script: &Script) {
    let id = |name: &str| shop.json(&["layer", "info", name])["diff_id"].clone();
    if id(one) == id(other) {
        return;
    }
    let (a, b) = (listed(shop, one), listed(shop, other));
    let only = |x: &str, y: &str| -> Vec<String> {
        let y: Vec<&str> = y.lines().collect();
        let lines = x.lines().filter(|l| !y.contains(l));
        lines.map(str::to_owned).collect()
    };
    panic!(
        "{one} and {other} differ.\nonly in {one}: {:#?}\nonly in {other}: {:#?}\n{:#?}",
        only(&a, &b),
        only(&b, &a),
        script.told
    );
}

/// The same random changes, mounted and copied: the same diffs, the same layers byte
/// by byte (committed while mounted, after the unmount, and squashed).
#[test]
fn a_copied_workspace_finds_what_a_mounted_one_finds() {
    if !require_root() || !require_fuse() {
        return;
    }
    own_mounts();
    let mut dice = Dice::new();
    let mut told = String::new();
    for round in 0..fewer(9) {
        // On a disk, and on a tmpfs, which give out numbers and times differently.
        let shop = match round % 3 {
            0 => Shop::new(),
            _ => Shop::in_memory(),
        };
        layers(&shop);
        let mounted = shop.workspace("mounted", &["top", "low"]);
        let plain = copied(&shop, "copied", &["top", "low"]);
        let mut script = Script::new(&[&mounted, &plain], dice.another());
        // Short scripts leave more of the layers, long ones change what they changed.
        for step in 0..15 * (1 + round % 4) {
            script.step();
            if step % 15 == 14 {
                let (m, c) = (changes(&shop, "mounted"), changes(&shop, "copied"));
                assert_eq!(m, c, "round {round}, step {step}: {:#?}", script.told);
                told.push_str(&c.to_string());
            }
        }
        shop.ok(&["layer", "commit", "copied", "plain"]);
        shop.ok(&["layer", "commit", "mounted", "live"]);
        same_layers(&shop, "live", "plain", &script);
        shop.ok(&["layer", "commit", "copied", "plain-flat", "--squash"]);
        shop.ok(&["layer", "commit", "mounted", "live-flat", "--squash"]);
        same_layers(&shop, "live-flat", "plain-flat", &script);
        shop.ok(&["ws", "unmount", "mounted"]);
        shop.ok(&["layer", "commit", "mounted", "moved"]);
        same_layers(&shop, "moved", "plain", &script);
        told.push_str(&listed(&shop, "plain"));
        shop.is_sound();
    }
    // That they are alike says nothing unless there was something.
    for part in [
        "added",
        "deleted",
        "mode",
        "owner",
        "content",
        ".wh..wh..opq",
        ".wh.",
    ] {
        assert!(told.contains(part), "no {part} in {} bytes", told.len());
    }
}

#[test]
fn the_commands_of_a_mount_work_over_a_plain_tree() {
    let shop = Shop::new();
    shop.layer("base");
    let link = shop.at("at");
    let words = [
        "ws",
        "create",
        "--copy",
        "job",
        "-l",
        "base",
        "-m",
        link.to_str().unwrap(),
    ];
    assert_eq!(shop.ok(&words), "job");
    assert_eq!(shop.ok(&["ws", "path", "job"]), link.display().to_string());
    assert!(!is_mountpoint(&link) && link.join("dir/file").exists());
    assert_eq!(shop.ok(&["ws", "diff", "job"]), "");
    fs::write(link.join("a"), "changed\n").unwrap();
    fs::remove_file(link.join("dir/file")).unwrap();
    let shown = shop.ok(&["ws", "diff", "job"]);
    for change in ["C  /a", "C  /b", "D  /dir/file"] {
        assert!(shown.contains(change), "{change}: {shown}");
    }
    shop.ok(&["layer", "verify"]);
    // A mount's words have nothing to do, and say so.
    shop.fails(2, "nothing to mount", &["ws", "mount", "job"]);
    shop.fails(3, "nothing to unmount", &["ws", "unmount", "job"]);
    shop.fails(2, "its changes are in its tree", &["ws", "upper", "job"]);
    let info = shop.json(&["ws", "info", "job"]);
    assert_eq!(
        (&info["kind"], &info["mounted_at"]),
        (&"copy".into(), &serde_json::Value::Null)
    );
    assert!(shop.ok(&["ws", "list"]).contains("copy"));
    shop.fails(4, "in use by the workspace job", &["layer", "rm", "base"]);
    // A clone goes its own way, and knows what was changed already.
    shop.ok(&["ws", "clone", "job", "twin"]);
    let twin = PathBuf::from(shop.ok(&["ws", "path", "twin"]));
    assert_eq!(shop.ok(&["ws", "diff", "twin"]), shown);
    assert_eq!(
        text(twin.join("b")),
        "changed\n",
        "hard links stay together"
    );
    fs::write(twin.join("a"), "twin\n").unwrap();
    assert_eq!(text(link.join("a")), "changed\n");
    // A commit, what it shows, and the workspace stays as it is.
    shop.ok(&["layer", "commit", "job", "app"]);
    assert_eq!(shop.ok(&["ws", "diff", "job"]), shown);
    assert_eq!(shop.ok(&["layer", "cat", "app", "b"]), "changed");
    assert_eq!(shop.ok(&["layer", "diff", "app"]), shown);
    shop.ok(&["ws", "reset", "job"]);
    assert_eq!(shop.ok(&["ws", "diff", "job"]), "");
    assert_eq!(text(link.join("b")), "base.tree a\n");
    shop.ok(&["ws", "rm", "job", "twin"]);
    assert!(link.symlink_metadata().is_err(), "its link goes with it");
    shop.is_sound();
}

#[test]
fn a_copy_is_not_made_where_it_cannot_be_what_was_asked_for() {
    let shop = Shop::new();
    shop.layer("base");
    let taken = shop.at("taken");
    fs::create_dir(&taken).unwrap();
    let words = [
        "ws",
        "create",
        "--copy",
        "job",
        "-l",
        "base",
        "-m",
        taken.to_str().unwrap(),
    ];
    shop.fails(5, "no link can lead from it", &words);
    let words = ["ws", "create", "--copy", "job", "-l", "base", "-o", "nodev"];
    shop.fails(2, "the option nodev is for a mount", &words);
    let words = ["ws", "create", "--copy", "job", "-l", "base", "--no-mount"];
    assert_eq!(shop.run(&words).code, 2);
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "");
    shop.is_sound();
}

/// The tree is written to: it shares no inode with the layers, and a change of a file
/// whose size and time are put back shows all the same.
#[test]
fn a_change_whose_time_was_put_back_is_found() {
    let shop = Shop::new();
    shop.layer("base");
    let at = copied(&shop, "job", &["base"]);
    let layer = PathBuf::from(shop.ok(&["layer", "path", "base"]));
    let (own, theirs) = (at.join("dir/file"), layer.join("dir/file"));
    assert_ne!(
        own.metadata().unwrap().ino(),
        theirs.metadata().unwrap().ino()
    );
    let before = own.metadata().unwrap();
    fs::write(&own, "FILE\n").unwrap();
    let file = fs::File::options().write(true).open(&own).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(own.metadata().unwrap().mtime_nsec(), before.mtime_nsec());
    let shown = changes(&shop, "job");
    assert_eq!(shown[0]["path"], "/dir/file");
    assert_eq!(shown[0]["reasons"], serde_json::json!(["content"]));
    // Put back altogether, it is touched and no change.
    fs::write(&own, "file\n").unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(shop.ok(&["ws", "diff", "job"]), "");
    shop.ok(&["layer", "verify"]);
}

/// With few changes in a large tree, few files are opened.
#[test]
fn files_that_were_left_alone_are_not_read() {
    if !require_program("strace") {
        return;
    }
    let shop = Shop::new();
    let tree = shop.at("tree");
    for d in 0..20 {
        fs::create_dir_all(tree.join(format!("d{d}"))).unwrap();
        for f in 0..40 {
            fs::write(tree.join(format!("d{d}/f{f}")), "x").unwrap();
        }
    }
    shop.ok(&["layer", "create", "base", tree.to_str().unwrap()]);
    let at = copied(&shop, "job", &["base"]);
    fs::write(at.join("d7/f7"), "y").unwrap();
    for (name, words) in [
        ("diff", &["ws", "diff", "job"][..]),
        ("commit", &["layer", "commit", "job", "app"]),
    ] {
        let log = shop.at(name);
        let plain = shop.command();
        let mut traced = Command::new("strace");
        traced
            .args(["-f", "-e", "trace=openat,openat2,open", "-o"])
            .arg(&log)
            .arg("--");
        traced
            .arg(plain.get_program())
            .args(plain.get_args())
            .args(words);
        assert!(traced.output().unwrap().status.success());
        let log = text(&log);
        let files = log.lines().filter(|l| l.contains("\"f")).count();
        assert!((1..10).contains(&files), "{name} opened {files} files");
    }
    assert_eq!(
        shop.ok(&["layer", "diff", "app"]),
        "C  /d7/f7  content,mtime"
    );
}

#[test]
fn a_tree_that_is_worked_in_is_not_committed() {
    let shop = Shop::new();
    shop.layer("base");
    let at = copied(&shop, "job", &["base"]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0u64;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                n += 1;
                fs::write(at.join("busy"), n.to_string()).unwrap();
            }
        });
        while !at.join("busy").exists() {
            std::thread::yield_now();
        }
        // On a busy machine the writer may pause for as long as a commit takes.
        let refused = (0..50).any(|n| {
            let answer = shop.run(&["layer", "commit", "job", &format!("app-{n}")]);
            assert!([0, 4].contains(&answer.code), "{answer:?}");
            answer.code == 4 && answer.err.contains("while it was copied")
        });
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(refused, "none of 50 commits met a change");
    });
    assert_eq!(fs::read_dir(shop.inside("staging")).unwrap().count(), 0);
    shop.ok(&["layer", "commit", "job", "app"]);
    assert_eq!(
        shop.ok(&["layer", "cat", "app", "busy"]),
        text(at.join("busy"))
    );
}

#[test]
fn what_no_layer_can_hold_is_named() {
    let shop = Shop::new();
    shop.layer("base");
    let at = copied(&shop, "job", &["base"]);
    fs::write(at.join("dir/.wh.file"), "").unwrap();
    assert!(shop.ok(&["ws", "diff", "job"]).contains("A  /dir/.wh.file"));
    shop.fails(
        1,
        "dir/.wh.file cannot be in a layer",
        &["layer", "commit", "job", "app"],
    );
    fs::remove_file(at.join("dir/.wh.file")).unwrap();
    if require_root() {
        let done = Command::new("mknod")
            .arg(at.join("null"))
            .args(["c", "0", "0"])
            .status();
        assert!(done.unwrap().success());
        shop.fails(
            1,
            "null cannot be in a layer",
            &["layer", "commit", "job", "app"],
        );
        fs::remove_file(at.join("null")).unwrap();
    }
    shop.ok(&["layer", "commit", "job", "app"]);
    shop.is_sound();
}

#[test]
fn fsck_knows_the_tree_and_its_manifest() {
    let shop = Shop::new();
    shop.layer("base");
    let at = copied(&shop, "job", &["base"]);
    shop.is_sound();
    shop.ok(&["gc"]);
    assert!(at.join("a").exists(), "gc leaves a workspace alone");
    let manifest = shop.inside("workspaces/job/copy/manifest");
    let good = fs::read(&manifest).unwrap();
    let mut bad = good.clone();
    bad[30] ^= 1;
    fs::write(&manifest, &bad).unwrap();
    let found = shop.run(&["fsck"]);
    assert_eq!(found.code, 6, "{found:?}");
    assert!(
        found.out.contains("its checksum is another one"),
        "{found:?}"
    );
    shop.fails(6, "manifest is damaged", &["ws", "diff", "job"]);
    shop.fails(6, "manifest is damaged", &["layer", "commit", "job", "x"]);
    // Made anew it is whole.
    shop.ok(&["ws", "reset", "job"]);
    shop.is_sound();
    fs::remove_dir_all(&at).unwrap();
    let found = shop.run(&["fsck", "--repair"]);
    assert_eq!(found.code, 0, "{found:?}");
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "");
    assert_eq!(fs::read_dir(shop.inside("damaged")).unwrap().count(), 1);
    shop.is_sound();
}

/// A small disk: what does not fit is not made, and what was there stays.
#[test]
fn a_full_disk_leaves_the_old_state() {
    if !require_root() {
        return;
    }
    own_mounts();
    let shop = Shop::bare();
    fs::create_dir(shop.root()).unwrap();
    let words = ["-t", "tmpfs", "-o", "size=14m", "none"];
    let done = Command::new("mount").args(words).arg(shop.root()).status();
    assert!(done.unwrap().success());
    shop.ok(&["init"]);
    let tree = shop.tree("tree");
    fs::write(tree.join("big"), vec![7u8; 4 << 20]).unwrap();
    shop.ok(&["layer", "create", "base", tree.to_str().unwrap()]);
    let at = copied(&shop, "job", &["base"]);
    let staging = || fs::read_dir(shop.inside("staging")).unwrap().count();
    // 8 of 14 MiB are taken.
    let filler = shop.inside("filler");
    fs::write(&filler, vec![7u8; 4 << 20]).unwrap();
    fs::write(at.join("note"), "kept\n").unwrap();
    let shown = shop.ok(&["ws", "diff", "job"]);
    shop.fails(
        1,
        "No space left",
        &["ws", "create", "--copy", "two", "-l", "base"],
    );
    shop.fails(1, "No space left", &["ws", "reset", "job"]);
    shop.fails(1, "No space left", &["ws", "clone", "job", "two"]);
    fs::set_permissions(at.join("big"), fs::Permissions::from_mode(0o600)).unwrap();
    shop.fails(1, "No space left", &["layer", "commit", "job", "app"]);
    assert_eq!(staging(), 0, "nothing half-made is left");
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "job");
    assert_eq!(text(at.join("note")), "kept\n");
    assert!(shop.ok(&["ws", "diff", "job"]).contains(&shown));
    shop.is_sound();
    fs::remove_file(&filler).unwrap();
    shop.ok(&["layer", "commit", "job", "app"]);
    shop.ok(&["ws", "rm", "job"]);
    let done = Command::new("umount").arg(shop.root()).status();
    assert!(done.unwrap().success());
}

#[test]
fn maps_of_ids_work_in_a_copy() {
    if !require_root() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let map = ["--uidmap", "0:5000:100", "--gidmap", "0:6000:100"];
    shop.ok(&[&["ws", "create", "--copy", "job", "-l", "base"][..], &map].concat());
    let at = PathBuf::from(shop.ok(&["ws", "path", "job"]));
    let owner = |p: &Path| p.metadata().map(|m| (m.uid(), m.gid())).unwrap();
    assert_eq!(owner(&at.join("a")), (5000, 6000));
    assert_eq!(shop.ok(&["ws", "diff", "job"]), "");
    fs::write(at.join("new"), "").unwrap();
    std::os::unix::fs::chown(at.join("new"), Some(5007), Some(6007)).unwrap();
    fs::set_permissions(at.join("dir/file"), fs::Permissions::from_mode(0o600)).unwrap();
    shop.ok(&["layer", "commit", "job", "app"]);
    let tree = PathBuf::from(shop.ok(&["layer", "path", "app"]));
    assert_eq!(owner(&tree.join("new")), (7, 7));
    assert_eq!(owner(&tree.join("dir/file")), (0, 0));
}
