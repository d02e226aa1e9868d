//! `acetate try`: the command sees its changes, the directory stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::run::nothing_is_left;
use super::shop::{Answer, Shop};
use super::support::host::require_userns;
use super::support::mount::acetate_bin;
use super::support::{Snapshot, diff, in_userns, require_fuse, require_root};
use super::users::{USER, home, open_to_users, told};

/// A store and a directory with things in it; `None` where nothing can be mounted.
fn shop() -> Option<(Shop, PathBuf)> {
    if !require_root() || !require_fuse() {
        return None;
    }
    let shop = Shop::new();
    let tree = shop.tree("live");
    Some((shop, tree))
}

fn attempt(shop: &Shop, from: &Path, options: &[&str], script: &str) -> Answer {
    let mut command = shop.command();
    command.current_dir(from).arg("try").args(options);
    Answer::of(&command.args(["--", "sh", "-c", script]).output().unwrap())
}

#[test]
fn the_command_sees_its_changes_and_the_directory_stays() {
    let Some((shop, live)) = shop() else { return };
    let before = Snapshot::of(&live);
    let answer = attempt(
        &shop,
        &live.join("dir"),
        &["--dir", live.to_str().unwrap(), "--name", "job"],
        "set -e; pwd; echo changed >file; cat file; rm ../a; echo new >../new; mv deep ../moved; ls ..; exit 4",
    );
    assert_eq!(answer.code, 4, "{answer:?}");
    let words: Vec<&str> = answer.out.split_whitespace().collect();
    assert_eq!(words[0], live.join("dir").to_str().unwrap());
    assert_eq!(words[1..], ["changed", "b", "dir", "link", "moved", "new"]);
    for line in [
        "D  /a",
        "C  /dir/file",
        "A  /new",
        "A  /moved",
        "D  /dir/deep",
    ] {
        assert!(answer.err.contains(line), "{line} in {answer:?}");
    }
    assert!(answer.err.contains("acetate ws apply job"), "{answer:?}");
    let after = Snapshot::of(&live);
    assert_eq!(diff(&before, &after), Vec::<String>::new());
    let listed = shop.ok(&["ws", "diff", "job", "-q"]);
    assert!(listed.contains("/dir/file"), "{listed}");
    nothing_is_left(&shop.root());
}

#[test]
fn a_workspace_without_changes_is_not_kept() {
    let Some((shop, live)) = shop() else { return };
    let answer = attempt(&shop, &live, &[], "cat a >/dev/null");
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.err.contains("nothing was changed"), "{answer:?}");
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "");
    let answer = attempt(&shop, &live, &["-q"], "echo x >x");
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("", "/x\n"));
    assert_eq!(shop.ok(&["ws", "list", "-q"]).lines().count(), 1);
}

/// What a command can find of a store in all that it sees.
const SEARCH: &str = "
    find \"$1\" 2>/dev/null | grep -c upper
    for p in /proc/[0-9]*; do ls -d $p/root/$1/workspaces/*/upper $p/cwd/workspaces 2>/dev/null; for f in $p/fd/*; do readlink $f; done; done | grep store";

#[test]
fn the_store_is_out_of_sight_wherever_it_is() {
    let Some((shop, live)) = shop() else { return };
    // Beside the directory, inside it, at a second place by a bind mount, and under /.
    let beside = shop.root();
    let inside = live.join("hidden/store");
    fs::create_dir(live.join("hidden")).unwrap();
    let init = |path: &Path| shop.ok(&["init", path.to_str().unwrap()]);
    init(&inside);
    let again = shop.at("again");
    fs::create_dir(&again).unwrap();
    let twice = again.join("hidden/store");
    for (store, dir, places) in [
        (&beside, live.as_path(), ""),
        (&inside, live.as_path(), twice.to_str().unwrap()),
        (&inside, Path::new("/"), twice.to_str().unwrap()),
    ] {
        let script = format!(
            "mount --make-rprivate /; mount --bind {0} {1}; {2} --root {3} try --dir {4} -- sh -c '
             set -- {3}; {SEARCH}; for p in {3} {places}; do ls -a $p; echo lost >$p/x; rm -rf $p/*; done; exit 0'",
            live.display(),
            again.display(),
            acetate_bin().display(),
            store.display(),
            dir.display(),
        );
        let said = Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .current_dir(shop.at(""))
            .output()
            .unwrap();
        let answer = Answer::of(&said);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert!(answer.out.starts_with("0\n"), "{answer:?}");
        assert!(!answer.out.contains("workspaces"), "{answer:?}");
        assert!(!answer.out.contains("fd/"), "{answer:?}");
        assert!(answer.err.contains("Read-only file system"), "{answer:?}");
        let mut fsck = Command::new(acetate_bin());
        fsck.arg("--root").arg(store).arg("fsck");
        let sound = Answer::of(&fsck.output().unwrap());
        assert_eq!(sound.code, 0, "{sound:?}");
    }
    assert!(live.join("hidden/store/store.json").exists());
    nothing_is_left(&shop.at(""));
}

#[test]
fn a_directory_in_the_store_is_refused() {
    let Some((shop, live)) = shop() else { return };
    let inside = shop.inside("workspaces");
    let answer = attempt(
        &shop,
        &live,
        &["--dir", inside.to_str().unwrap()],
        "touch ran",
    );
    assert!(
        answer.code == 125 && answer.err.contains("in the store itself"),
        "{answer:?}"
    );
    assert!(!live.join("ran").exists());
}

#[test]
fn where_the_view_cannot_be_had_the_command_does_not_run() {
    let Some((shop, live)) = shop() else { return };
    let script = format!(
        "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && cd {} && {} --root {} try -- sh -c 'touch ran'",
        live.display(),
        acetate_bin().display(),
        shop.root().display(),
    );
    let said = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .output();
    let answer = Answer::of(&said.unwrap());
    assert!(
        answer.code == 125 && answer.err.contains("/dev/fuse"),
        "{answer:?}"
    );
    assert!(!live.join("ran").exists());
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "");
}

#[test]
fn what_is_mounted_below_is_not_part_of_the_view() {
    let Some((shop, live)) = shop() else { return };
    let script = format!(
        "mount -t tmpfs none {0}/dir && touch {0}/dir/below && cd {0} && {1} --root {2} try --name job -- sh -c 'ls dir; echo new >dir/new' && ls {0}/dir",
        live.display(),
        acetate_bin().display(),
        shop.root().display(),
    );
    let said = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", &script])
        .output();
    let answer = Answer::of(&said.unwrap());
    // As a lower of kernel overlayfs: the directory that the mount covers.
    let wanted = "deep\nfile\nbelow\n";
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (0, wanted),
        "{answer:?}"
    );
}

#[test]
fn nothing_of_the_host_is_changed_by_a_command_over_the_root_directory() {
    let Some((shop, live)) = shop() else { return };
    let name = format!("acetate-test-{}", std::process::id());
    let script = format!(
        "test -c /dev/null && test -d /sys/class && cat /proc/1/comm
         for d in /dev/shm /tmp /run {0}; do echo x >$d/{name}; done; test ! -w /sys/kernel/x; echo over >{0}/a; cat {0}/a",
        live.display()
    );
    let answer = attempt(&shop, &live, &["--dir", "/", "--name", "job"], &script);
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (0, "acetate\nover\n"),
        "{answer:?}"
    );
    for folder in ["/dev/shm", "/tmp", "/run"] {
        assert!(!Path::new(folder).join(&name).exists(), "{folder}");
    }
    assert!(!live.join(&name).exists());
    assert_eq!(fs::read_to_string(live.join("a")).unwrap(), "live a\n");
    let listed = shop.ok(&["ws", "diff", "job", "-q"]);
    let wanted = live.join("a");
    assert!(listed.lines().any(|l| Path::new(l) == wanted), "{listed}");
    nothing_is_left(&shop.root());
}

#[test]
fn kill_9_leaves_the_directory_and_nothing_else() {
    let Some((shop, live)) = shop() else { return };
    let mut command = shop.command();
    command
        .current_dir(&live)
        .args(["try", "--name", "job", "--"]);
    let shared = shop.at("ready");
    let script = format!(
        "rm -r a dir; echo x >x; touch {}; sleep 1000",
        shared.display()
    );
    let mut child = command.args(["sh", "-c", &script]).spawn().unwrap();
    for _ in 0..2_000 {
        if shared.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(shared.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    nothing_is_left(&shop.root());
    assert!(live.join("a").exists() && live.join("dir/file").exists() && !live.join("x").exists());
    assert_eq!(shop.ok(&["ws", "diff", "job", "-q"]), "/a\n/dir\n/x");
    shop.is_sound();
}

#[test]
fn an_ordinary_user_tries_as_oneself_in_a_directory_and_in_the_root() {
    let Some(_device) = open_to_users(require_userns) else {
        return;
    };
    let (shop, home) = home();
    let out = told(
        &shop,
        &home,
        "mkdir mine; echo one >mine/a; cd mine
         acetate try --name job -- sh -c 'id -u; echo two >a; cat a; umount $HOME/.local/share/acetate 2>/dev/null || echo kept; ls $HOME/.local/share/acetate' 2>/dev/null
         cat a; acetate ws diff job -q
         acetate try --dir / --name all -- sh -c 'pwd; echo x >>/etc/passwd; rm -r $HOME/mine; cat /etc/shadow 2>/dev/null || echo shut' 2>/dev/null
         cat a; acetate ws diff all; acetate ws rm job all; acetate fsck",
    );
    let words: Vec<&str> = out.split_whitespace().collect();
    let mine = home.join("mine");
    let mine = mine.to_str().unwrap();
    let wanted =
        format!("{USER} two kept one /a {mine} shut one C /etc/passwd content,mtime D {mine}");
    assert_eq!(words.join(" "), wanted, "{out}");
    nothing_is_left(&home);
}

#[test]
fn root_of_a_user_namespace_may_try() {
    if !require_root() || !require_fuse() || !require_userns() {
        return;
    }
    let (shop, home) = home();
    std::os::unix::fs::chown(&home, Some(0), Some(0)).unwrap();
    let script = format!(
        "set -eu; cd {0}; export HOME={0}; mkdir live; echo one >live/a; cd live
         {1} try -- sh -c 'id -u; rm a; ls'; cat a",
        home.display(),
        shop.at("acetate").display()
    );
    let answer = Answer::of(&in_userns(&script).output().unwrap());
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (0, "0\none\n"),
        "{answer:?}"
    );
}
