//! `acetate ws apply`: the directory becomes what the view showed; what others have
//! changed is not overwritten.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::shop::{Answer, Shop, text};
use super::support::host::{require_program, require_userns};
use super::support::snapshot::diff_with;
use super::support::{Facets, Snapshot, require_fuse, require_root};
use super::users::{home, open_to_users, told};

/// A live directory with all kinds of things, and a mounted workspace over it; where.
pub fn live(shop: &Shop) -> (PathBuf, PathBuf) {
    let live = shop.tree("live");
    fs::create_dir_all(live.join("gone/deep/er")).unwrap();
    fs::write(live.join("gone/deep/er/file"), "old\n").unwrap();
    fs::create_dir_all(live.join("full/of")).unwrap();
    fs::write(live.join("full/of/things"), "things\n").unwrap();
    fs::write(live.join("stays"), "stays\n").unwrap();
    fs::write(live.join("odd\n\u{1f600} name"), "odd\n").unwrap();
    fs::set_permissions(live.join("full"), fs::Permissions::from_mode(0o2751)).unwrap();
    let at = over(shop, "job", &live);
    (live, at)
}

/// A mounted workspace over a directory; where.
fn over(shop: &Shop, name: &str, directory: &Path) -> PathBuf {
    shop.workspace(name, &[directory.to_str().unwrap()])
}

/// Sets an xattr by attr's own tool-less way.
fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    use rustix::fs::{XattrFlags, lsetxattr};
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// POSIX ACL: user::rw-, user:7:r--, group::r--, mask::r--, other::---.
const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 7, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255,
    255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

/// Changes of every kind.
pub fn change(at: &Path) {
    // Seen before, so that both names are copied up: of a name that nobody has seen
    // only the index knows, and that no more once others remove its twin below.
    assert!(at.join("b").metadata().unwrap().is_file());
    fs::write(at.join("a"), "both names\n").unwrap();
    fs::remove_file(at.join("stays")).unwrap();
    fs::remove_dir_all(at.join("gone")).unwrap();
    fs::write(at.join("gone"), "a file now\n").unwrap();
    fs::rename(at.join("full"), at.join("moved")).unwrap();
    fs::write(at.join("moved/of/more"), "more\n").unwrap();
    fs::remove_file(at.join("link")).unwrap();
    fs::create_dir(at.join("link")).unwrap();
    symlink("../a", at.join("link/back")).unwrap();
    fs::remove_dir_all(at.join("dir/deep")).unwrap();
    fs::create_dir(at.join("dir/deep")).unwrap();
    fs::write(at.join("dir/deep/else"), vec![7; 100_000]).unwrap();
    fs::hard_link(at.join("dir/deep/else"), at.join("dir/deep/same")).unwrap();
    fs::hard_link(at.join("dir/deep/else"), at.join("else")).unwrap();
    fs::create_dir_all(at.join("new/tree")).unwrap();
    fs::write(at.join("new/tree/leaf"), "").unwrap();
    fs::set_permissions(at.join("new"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(at.join("dir/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::rename(at.join("odd\n\u{1f600} name"), at.join("odder\\ name")).unwrap();
    let made = Command::new("mkfifo")
        .arg(at.join("fifo"))
        .status()
        .unwrap();
    assert!(made.success());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(at.join("new/tree/leaf"), Some(12), Some(34)).unwrap();
        std::os::unix::fs::lchown(at.join("link/back"), Some(5), None).unwrap();
    }
    set_xattr(&at.join("new/tree"), "user.colour", b"blue");
    set_xattr(&at.join("moved/of/more"), "system.posix_acl_access", ACL);
    fs::set_permissions(at.join("dir"), fs::Permissions::from_mode(0o700)).unwrap();
    let old = Command::new("touch")
        .args(["-h", "-d", "2001-02-03 04:05:06.789"])
        .args([at.join("else"), at.join("link/back"), at.join("new")])
        .status();
    assert!(old.unwrap().success());
}

/// What a program sees of a tree; not the inode numbers.
const SEEN: Facets = Facets {
    xattrs: true,
    links: true,
    mtimes: true,
    dir_mtimes: true,
    inos: false,
};

/// The directory is what the view showed.
pub fn is_as(live: &Path, view: &Snapshot) {
    let now = Snapshot::of(live);
    assert_eq!(diff_with(view, &now, SEEN), Vec::<String>::new());
}

fn ready() -> Option<Shop> {
    if !require_root() || !require_fuse() {
        return None;
    }
    Some(Shop::new())
}

/// Unmounts the workspace; what it showed.
fn closed(shop: &Shop, at: &Path) -> Snapshot {
    let view = Snapshot::of(at);
    shop.ok(&["ws", "unmount", "job"]);
    view
}

#[test]
fn the_directory_becomes_what_the_view_showed() {
    let Some(shop) = ready() else { return };
    let (live, at) = live(&shop);
    change(&at);
    shop.fails(4, "mounted", &["ws", "apply", "job"]);
    let view = closed(&shop, &at);
    let before = Snapshot::of(&live);
    let said = shop.ok(&["ws", "apply", "job", "--dry-run"]);
    assert_eq!(shop.ok(&["ws", "diff", "job"]), said);
    is_as(&live, &before);
    assert_eq!(shop.ok(&["ws", "apply", "job"]), said);
    is_as(&live, &view);
    assert_eq!(shop.ok(&["ws", "diff", "job"]), "");
    assert_eq!(
        shop.ok(&["ws", "apply", "job"]),
        "",
        "nothing is left to do"
    );
    // The workspace shows the same and can be used and applied again.
    shop.ok(&["ws", "mount", "job"]);
    is_as(&at, &view);
    fs::write(at.join("a"), "again\n").unwrap();
    fs::remove_file(at.join("else")).unwrap();
    let view = closed(&shop, &at);
    shop.ok(&["ws", "apply", "job"]);
    is_as(&live, &view);
    shop.is_sound();
}

#[test]
fn what_a_try_has_changed_is_applied() {
    let Some(shop) = ready() else { return };
    let live = shop.tree("live");
    let mut command = shop.command();
    command
        .current_dir(&live)
        .args(["try", "--name", "job", "--", "sh", "-c"]);
    let said = command
        .arg("mv dir moved && echo x >moved/x && rm a")
        .output();
    assert_eq!(said.unwrap().status.code(), Some(0));
    shop.ok(&["ws", "apply", "job"]);
    assert!(live.join("moved/deep/other").exists() && !live.join("dir").exists());
    assert!(live.join("moved/x").exists() && !live.join("a").exists());
    assert_eq!(text(live.join("b")), "live a\n");
    shop.is_sound();
}

#[test]
fn named_paths_are_applied_and_the_others_stay() {
    let Some(shop) = ready() else { return };
    let (live, at) = live(&shop);
    change(&at);
    let view = closed(&shop, &at);
    let before = Snapshot::of(&live);
    shop.fails(
        3,
        "nothing was changed at /dir/nothing",
        &["ws", "apply", "job", "/dir/nothing"],
    );
    shop.fails(
        2,
        "replaced or deleted as a whole",
        &["ws", "apply", "job", "/moved/of/more"],
    );
    shop.fails(2, "..", &["ws", "apply", "job", "../x"]);
    let said = shop.ok(&["ws", "apply", "job", "-q", "dir/deep", "/new/tree", "/full"]);
    let paths: Vec<&str> = said.lines().collect();
    assert!(paths.contains(&"/dir/deep/else") && paths.contains(&"/new/tree/leaf"));
    assert!(!paths.contains(&"/stays") && !live.join("full").exists());
    assert_eq!(
        fs::metadata(live.join("dir")).unwrap().mode() & 0o777,
        0o755
    );
    assert_eq!(
        fs::metadata(live.join("new")).unwrap().mode() & 0o777,
        0o750
    );
    assert!(live.join("stays").exists());
    // What was deleted below is still shown where it was moved to.
    shop.ok(&["ws", "mount", "job"]);
    assert_eq!(text(at.join("moved/of/things")), "things\n");
    shop.ok(&["ws", "unmount", "job"]);
    shop.ok(&["ws", "apply", "job"]);
    let now = Snapshot::of(&live);
    // Links between what was applied at different times are no more.
    let facets = Facets {
        links: false,
        dir_mtimes: false,
        ..SEEN
    };
    assert_eq!(diff_with(&view, &now, facets), Vec::<String>::new());
    assert_ne!(diff_with(&before, &now, facets), Vec::<String>::new());
    shop.is_sound();
}

#[test]
fn what_others_have_changed_in_the_meantime_is_refused_as_a_whole() {
    let Some(shop) = ready() else { return };
    let (live, at) = live(&shop);
    change(&at);
    let view = closed(&shop, &at);
    fs::write(live.join("gone/deep/er/new"), "somebody's\n").unwrap();
    fs::write(live.join("dir/file"), "somebody's\n").unwrap();
    fs::write(live.join("fifo"), "somebody's\n").unwrap();
    fs::remove_file(live.join("a")).unwrap();
    fs::write(live.join("unrelated"), "somebody's\n").unwrap();
    let before = Snapshot::of(&live);
    let said = shop.run(&["ws", "apply", "job"]);
    assert_eq!((said.code, said.out.as_str()), (7, ""), "{said:?}");
    for line in [
        "  /dir/file: changed",
        "  /fifo: changed",
        "  /gone: something in it changed",
        "  /a: removed",
    ] {
        assert!(said.err.contains(line), "{line} in {said:?}");
    }
    assert!(!said.err.contains("unrelated"), "{said:?}");
    is_as(&live, &before);
    let said = shop.run(&["ws", "apply", "job", "--dry-run"]);
    assert!(said.code == 7 && said.out.contains("/fifo"), "{said:?}");
    let said = shop.json_error(&["ws", "apply", "job"]);
    assert_eq!(said["error"]["code"], "conflict");
    // What is not in conflict can be applied by itself.
    shop.ok(&["ws", "apply", "job", "/new", "/else"]);
    assert!(live.join("new/tree/leaf").exists());
    let said = shop.run(&["ws", "apply", "job"]);
    assert_eq!(said.code, 7, "the others are in conflict still: {said:?}");
    shop.ok(&["ws", "apply", "job", "--force"]);
    assert_eq!(text(live.join("unrelated")), "somebody's\n");
    fs::remove_file(live.join("unrelated")).unwrap();
    let facets = Facets {
        links: false,
        dir_mtimes: false,
        ..SEEN
    };
    let now = Snapshot::of(&live);
    assert_eq!(diff_with(&view, &now, facets), Vec::<String>::new());
}

#[test]
fn times_that_were_set_back_hide_no_change() {
    let Some(shop) = ready() else { return };
    let (live, at) = live(&shop);
    fs::write(at.join("stays"), "mine\n").unwrap();
    closed(&shop, &at);
    let file = live.join("stays");
    let stat = fs::metadata(&file).unwrap();
    fs::write(&file, "other\n").unwrap();
    let back = fs::FileTimes::new().set_modified(stat.modified().unwrap());
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_times(back)
        .unwrap();
    assert_eq!(
        fs::metadata(&file).unwrap().modified().unwrap(),
        stat.modified().unwrap()
    );
    shop.fails(7, "/stays: changed", &["ws", "apply", "job"]);
}

#[test]
fn new_files_beside_the_changes_are_no_conflict_and_stay() {
    let Some(shop) = ready() else { return };
    let (live, at) = live(&shop);
    fs::write(at.join("dir/file"), "mine\n").unwrap();
    fs::write(at.join("dir/deep/mine"), "mine\n").unwrap();
    closed(&shop, &at);
    fs::write(live.join("dir/deep/theirs"), "theirs\n").unwrap();
    fs::write(live.join("dir/theirs"), "theirs\n").unwrap();
    let time = fs::metadata(live.join("dir")).unwrap().modified().unwrap();
    shop.ok(&["ws", "apply", "job"]);
    assert_eq!(text(live.join("dir/deep/theirs")), "theirs\n");
    assert_eq!(text(live.join("dir/file")), "mine\n");
    let now = fs::metadata(live.join("dir")).unwrap().modified().unwrap();
    assert!(now >= time, "the time says that something came");
}

#[test]
fn a_symlink_that_came_in_between_is_not_followed() {
    let Some(shop) = ready() else { return };
    let (live, at) = live(&shop);
    let outside = shop.tree("outside");
    fs::write(at.join("dir/deep/mine"), "mine\n").unwrap();
    fs::write(at.join("dir/file"), "mine\n").unwrap();
    closed(&shop, &at);
    let before = Snapshot::of(&outside);
    fs::rename(live.join("dir"), live.join("aside")).unwrap();
    symlink(outside.join("dir"), live.join("dir")).unwrap();
    shop.fails(7, "/dir: changed", &["ws", "apply", "job"]);
    is_as(&outside, &before);
    shop.ok(&["ws", "apply", "job", "--force"]);
    is_as(&outside, &before);
    assert!(live.join("dir").symlink_metadata().unwrap().is_dir());
    assert_eq!(text(live.join("dir/deep/mine")), "mine\n");
}

#[test]
fn directories_swapped_for_symlinks_all_the_time_lead_nowhere() {
    let Some(shop) = ready() else { return };
    let (live, at) = live(&shop);
    let outside = shop.tree("outside");
    for i in 0..40 {
        fs::create_dir_all(at.join(format!("dir/{i}"))).unwrap();
        fs::write(at.join(format!("dir/{i}/file")), "mine\n").unwrap();
    }
    closed(&shop, &at);
    let before = Snapshot::of(&outside);
    symlink(outside.join("dir"), live.join("trap")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let (dir, trap) = (live.join("dir"), live.join("trap"));
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &dir,
                    rustix::fs::CWD,
                    &trap,
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .unwrap();
            }
        });
        for _ in 0..30 {
            let _any_end = shop.run(&["ws", "apply", "job", "--force"]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    is_as(&outside, &before);
    if live.join("dir").symlink_metadata().unwrap().is_symlink() {
        fs::rename(live.join("dir"), live.join("x")).unwrap();
        fs::rename(live.join("trap"), live.join("dir")).unwrap();
    }
    shop.ok(&["ws", "apply", "job", "--force"]);
    shop.is_sound();
}

#[test]
fn only_a_workspace_over_one_directory_can_be_applied() {
    let Some(shop) = ready() else { return };
    shop.layer("base");
    shop.workspace("job", &["base"]);
    shop.ok(&["ws", "unmount", "job"]);
    shop.fails(2, "not made over a directory", &["ws", "apply", "job"]);
    let (one, two) = (shop.tree("one"), shop.tree("two"));
    let words = ["ws", "create", "two", "--no-mount", "-l"];
    shop.ok(&[
        &words[..],
        &[one.to_str().unwrap(), "-l", two.to_str().unwrap()],
    ]
    .concat());
    shop.fails(2, "several directories", &["ws", "apply", "two"]);
}

#[test]
fn layers_above_the_directory_are_not_applied() {
    let Some(shop) = ready() else { return };
    shop.layer("over");
    let live = shop.tree("live");
    let at = shop.workspace("job", &["over", live.to_str().unwrap()]);
    assert_eq!(text(at.join("a")), "over.tree a\n");
    fs::write(at.join("dir/file"), "mine\n").unwrap();
    closed(&shop, &at);
    shop.ok(&["ws", "apply", "job"]);
    assert_eq!(text(live.join("dir/file")), "mine\n");
    assert_eq!(text(live.join("a")), "live a\n");
}

#[test]
fn a_full_disk_leaves_an_apply_that_goes_on_when_there_is_room() {
    let Some(shop) = ready() else { return };
    if !require_program("unshare") {
        return;
    }
    let small = shop.at("small");
    fs::create_dir(&small).unwrap();
    let script = format!(
        "set -e; mount -t tmpfs -o size=1m none {small}; cd {small}; echo old >a; echo old >z
         A='{bin} --root {root}'; $A ws create job -l {small} >/dev/null; at=$($A ws path job)
         echo new >$at/a; head -c 900000 /dev/urandom >$at/big; echo new >$at/z; $A ws unmount job
         head -c 500000 /dev/zero >filler
         $A ws apply job && exit 1 || echo code $?
         ls -A; cat a z; $A ws mount job && exit 1 || echo code $?
         rm filler; $A ws apply job -q; cat a z; ls -A; $A ws diff job; $A fsck",
        small = small.display(),
        bin = super::support::mount::acetate_bin().display(),
        root = shop.root().display(),
    );
    let said = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", &script])
        .output();
    let answer = Answer::of(&said.unwrap());
    assert_eq!(answer.code, 0, "{answer:?}");
    let words: Vec<&str> = answer.out.split_whitespace().collect();
    let all = words.join(" ");
    assert!(all.starts_with("code 1"), "{answer:?}");
    assert!(answer.err.contains("No space left"), "{answer:?}");
    assert!(
        answer
            .err
            .contains("an apply of the workspace job was cut off"),
        "{answer:?}"
    );
    assert!(all.ends_with("new new a big z"), "{answer:?}");
}

#[test]
fn an_ordinary_user_applies_what_is_the_users_own() {
    let Some(_device) = open_to_users(require_userns) else {
        return;
    };
    let (shop, home) = home();
    let out = told(
        &shop,
        &home,
        "mkdir -p live/dir live/shut; echo one >live/a; ln live/a live/b; echo x >live/dir/x; cd live
         acetate try --name job -- sh -c 'echo two >a; mv dir moved; chmod 000 shut; mkdir -m 000 dark; ln -s a s; chmod 555 .' 2>/dev/null
         acetate ws apply job -q; cat a moved/x; stat -c %a dark shut .; readlink s; acetate ws diff job; ls -A; acetate fsck
         chmod 755 . ; acetate try --dir / --name all -- sh -c 'echo three >$HOME/live/a; echo no >>/etc/passwd' 2>/dev/null
         acetate ws apply all $HOME/live -q && cat a; acetate ws apply all 2>/dev/null || echo refused",
    );
    let words: Vec<&str> = out.split_whitespace().collect();
    let all = words.join(" ");
    assert!(
        all.contains("two x 0 0 555 a a b dark moved s shut"),
        "{out}"
    );
    let of_home = format!("{}/live/a three", home.display());
    assert!(all.ends_with(&format!("{of_home} refused")), "{out}");
    assert!(!text("/etc/passwd").contains("no\n"));
}

#[test]
fn what_was_changed_before_a_reset_is_no_conflict_after_it() {
    let Some(shop) = ready() else { return };
    let (live, at) = live(&shop);
    closed(&shop, &at);
    fs::write(live.join("stays"), "theirs\n").unwrap();
    shop.ok(&["ws", "reset", "job"]);
    shop.ok(&["ws", "mount", "job"]);
    fs::write(at.join("stays"), "mine\n").unwrap();
    closed(&shop, &at);
    shop.ok(&["ws", "apply", "job"]);
    assert_eq!(text(live.join("stays")), "mine\n");
}

#[test]
fn a_workspace_that_does_not_say_since_when_it_is_takes_everything_for_changed() {
    let Some(shop) = ready() else { return };
    let (live, at) = live(&shop);
    fs::write(at.join("stays"), "mine\n").unwrap();
    fs::write(at.join("new"), "mine\n").unwrap();
    closed(&shop, &at);
    let record = shop.inside("workspaces/job/workspace.json");
    let mut value: serde_json::Value = serde_json::from_str(&text(&record)).unwrap();
    assert!(value.as_object_mut().unwrap().remove("since").is_some());
    fs::write(&record, value.to_string()).unwrap();
    shop.fails(7, "/stays: changed", &["ws", "apply", "job"]);
    shop.ok(&["ws", "apply", "job", "--force"]);
    assert_eq!(
        text(live.join("stays")) + &text(live.join("new")),
        "mine\nmine\n"
    );
}

#[test]
fn a_default_acl_of_the_directory_is_not_given_to_what_has_none() {
    let Some(shop) = ready() else { return };
    let live = shop.tree("live");
    set_xattr(&live.join("dir"), "system.posix_acl_default", ACL);
    let at = over(&shop, "job", &live);
    fs::write(at.join("dir/inherits"), "made there\n").unwrap();
    fs::write(at.join("made-elsewhere"), "x\n").unwrap();
    fs::rename(at.join("made-elsewhere"), at.join("dir/bare")).unwrap();
    fs::create_dir_all(at.join("dir/below/it")).unwrap();
    fs::create_dir(at.join("bare")).unwrap();
    fs::rename(at.join("bare"), at.join("dir/bare-too")).unwrap();
    let view = closed(&shop, &at);
    shop.ok(&["ws", "apply", "job"]);
    is_as(&live, &view);
    let has = |name: &str| {
        let list = Command::new("getfattr")
            .args(["-m-", "-d"])
            .arg(live.join(name))
            .output();
        list.map(|l| String::from_utf8_lossy(&l.stdout).contains("posix_acl"))
    };
    if let (Ok(inherits), Ok(bare)) = (has("dir/inherits"), has("dir/bare")) {
        assert!(inherits && !bare, "the file system keeps ACLs");
    }
}
