//! `acetate run`: what a command sees, how it ends, what is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::shop::{Answer, Shop};
use super::support::host::{require_program, require_userns, slowly};
use super::support::{DevFuseOpen, in_userns, require_fuse, require_root};
use super::users::{home, open_to_users, told};

/// Programs that a tree of ours has.
const PROGRAMS: &[&str] = &[
    "sh", "cat", "id", "ls", "sleep", "touch", "rm", "mkdir", "true", "kill", "stat", "readlink",
    "dd", "env", "mv", "ln", "head",
];

/// Copies programs and the libraries that they need into a tree.
pub fn programs(tree: &Path) {
    let bin = tree.join("bin");
    fs::create_dir_all(&bin).unwrap();
    for name in PROGRAMS {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|folder| folder.join(name))
            .find(|path| path.exists());
        // `kill` and `env` may be missing: builtins of the shell do.
        let Some(path) = found else { continue };
        fs::copy(&path, bin.join(name)).unwrap();
        let said = Command::new("ldd").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        for library in text.split_whitespace().filter(|w| w.starts_with('/')) {
            let at = tree.join(library.trim_start_matches('/'));
            if !at.exists() {
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                fs::copy(library, &at).unwrap();
            }
        }
    }
}

/// A store with a layer `base` in which programs run; `None` where that is not possible.
fn shop() -> Option<Shop> {
    if !require_root() || !require_fuse() || !require_program("ldd") {
        return None;
    }
    let shop = Shop::new();
    let tree = shop.tree("tree");
    programs(&tree);
    shop.ok(&["layer", "create", "base", tree.to_str().unwrap()]);
    Some(shop)
}

/// Runs a script in a tree of the layer `base`.
fn run(shop: &Shop, options: &[&str], script: &str) -> Answer {
    let words = [&["run"], options, &["--", "sh", "-c", script]].concat();
    shop.run(&words)
}

/// Mounts and processes that speak of a path.
fn left_of(path: &Path) -> Vec<String> {
    let shown = path.display().to_string();
    let mut found: Vec<String> = fs::read_to_string("/proc/thread-self/mountinfo")
        .unwrap()
        .lines()
        .filter(|l| l.contains(&shown))
        .map(str::to_owned)
        .collect();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(&shown) {
            found.push(words);
        }
    }
    found
}

/// Waits until nothing is left; fails where that takes long.
pub fn nothing_is_left(path: &Path) {
    let until = Instant::now() + slowly(Duration::from_secs(10));
    loop {
        let left = left_of(path);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "left behind: {left:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a file that a command inside makes.
pub fn wait_for(path: &Path) {
    let until = Instant::now() + slowly(Duration::from_secs(20));
    while !path.exists() {
        assert!(Instant::now() < until, "{} did not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_command_sees_the_tree_as_root_and_its_changes_stay_in_the_workspace() {
    let Some(shop) = shop() else { return };
    let answer = run(
        &shop,
        &["-l", "base", "--name", "job"],
        "set -e; cat /dir/file; echo new >/new; rm /a; id -u; readlink /proc/self; cat /proc/1/comm
         echo x >/dev/null; head -c 4 /dev/zero | dd of=/dev/full 2>/dev/null || echo full
         test -d /sys/class; test ! -w /sys/class/new; echo t >/tmp/t; test -c /dev/pts/ptmx; test -d /dev/shm; ls /proc/self/fd",
    );
    assert_eq!(answer.code, 0, "{answer:?}");
    let words: Vec<&str> = answer.out.split_whitespace().collect();
    assert_eq!(words[..2], ["file", "0"], "{answer:?}");
    assert!(
        words.contains(&"acetate") && words.contains(&"full"),
        "{answer:?}"
    );
    assert!(answer.err.contains("the workspace is job"), "{answer:?}");
    assert_eq!(shop.ok(&["ws", "diff", "job", "-q"]), "/a\n/new");
    // Where proc and the like were mounted nothing is left, and the root's time is its own.
    let upper = shop.inside("workspaces/job/upper");
    assert!(!upper.join("proc").exists() && !upper.join("dev").exists());
    nothing_is_left(&shop.root());
    shop.is_sound();
}

#[test]
fn a_command_that_changes_nothing_leaves_no_change() {
    let Some(shop) = shop() else { return };
    let file = shop.at("file");
    fs::write(&file, "of the host\n").unwrap();
    let bind = format!("{}:/mnt/deep/file:ro", file.display());
    let answer = run(
        &shop,
        &["-l", "base", "--name", "job", "--bind", &bind],
        "cat /mnt/deep/file; echo no >/mnt/deep/file; ls /tmp /proc/self >/dev/null",
    );
    assert!(answer.out.starts_with("of the host"), "{answer:?}");
    assert!(answer.err.contains("Read-only"), "{answer:?}");
    assert_eq!(shop.ok(&["ws", "diff", "job"]), "");
    let before = fs::metadata(shop.at("tree")).unwrap().modified().unwrap();
    let after = fs::metadata(shop.inside("workspaces/job/upper")).unwrap();
    assert_eq!(
        after.modified().unwrap(),
        before,
        "the root's time is as it was"
    );
}

#[test]
fn exit_codes_are_the_commands_or_say_whose_they_are() {
    let Some(shop) = shop() else { return };
    shop.ok(&["ws", "create", "job", "-l", "base", "--no-mount"]);
    let code = |words: &[&str]| {
        let words = [&["run", "-w", "job", "--"], words].concat();
        shop.run(&words).code
    };
    for wanted in [0, 1, 2, 3, 32, 124, 255] {
        assert_eq!(code(&["sh", "-c", &format!("exit {wanted}")]), wanted);
    }
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), 137);
    assert_eq!(code(&["sh", "-c", "kill -TERM $$"]), 143);
    assert_eq!(code(&["no-such-program"]), 127);
    assert_eq!(code(&["/no/such/program"]), 127);
    assert_eq!(code(&["/dir/file"]), 126, "it is not executable");
    assert_eq!(code(&["/dir"]), 126);
    let said = shop.run(&["run", "-w", "nobody", "--", "true"]);
    assert_eq!(said.code, 125, "{said:?}");
    let said = shop.run(&["run", "-w", "job", "--workdir", "/nowhere", "--", "true"]);
    assert!(
        said.code == 125 && said.err.contains("/nowhere"),
        "{said:?}"
    );
    let said = shop.run(&["run", "--", "true"]);
    assert_eq!(said.code, 2, "neither layer nor workspace: {said:?}");
    nothing_is_left(&shop.root());
}

#[test]
fn directory_environment_and_user_are_as_asked_for() {
    let Some(shop) = shop() else { return };
    let options = [
        "-l",
        "base",
        "--rm",
        "--workdir",
        "/dir",
        "--env",
        "A=b=c",
        "--env",
        "E=",
    ];
    let options = [&options[..], &["--user", "7:8"]].concat();
    let answer = run(
        &shop,
        &options,
        "ls; echo \"$A|$E|\"; id -u; id -g; touch /x",
    );
    let words: Vec<&str> = answer.out.split_whitespace().collect();
    assert_eq!(words, ["deep", "file", "b=c||", "7", "8"], "{answer:?}");
    assert_eq!(
        answer.code, 1,
        "another user may not write there: {answer:?}"
    );
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "", "--rm");
}

#[test]
fn a_workspace_that_is_mounted_is_entered_where_it_is() {
    let Some(shop) = shop() else { return };
    let at = shop.workspace("job", &["base"]);
    let answer = run(&shop, &["-w", "job"], "echo inside >/made; cat /a");
    assert_eq!((answer.code, answer.out.as_str()), (0, "tree a\n"));
    assert_eq!(fs::read_to_string(at.join("made")).unwrap(), "inside\n");
    let said = run(&shop, &["-w", "job", "--rm"], "touch /never");
    assert!(said.code == 125 && said.err.contains("mounted"), "{said:?}");
    assert!(!at.join("never").exists());
}

#[test]
fn changes_become_a_layer_only_where_the_command_succeeds() {
    let Some(shop) = shop() else { return };
    let options = ["-l", "base", "--name", "job", "--commit", "made"];
    let answer = run(&shop, &options, "echo 1 >/one; exit 3");
    assert_eq!(answer.code, 3);
    shop.fails(3, "made", &["layer", "info", "made"]);
    let answer = run(&shop, &["-w", "job", "--commit", "made", "--rm"], "rm /b");
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(shop.ok(&["layer", "diff", "made", "-q"]), "/b\n/one");
    let again = run(&shop, &["--chain", "made", "--commit", "made"], "touch /x");
    assert_eq!(again.code, 125, "the name is taken: {again:?}");
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "", "and nothing was made");
    shop.is_sound();
}

/// Starts a script that says that it runs, and what it does about signals.
fn start(shop: &Shop, name: &str, script: &str) -> (std::process::Child, PathBuf) {
    let shared = shop.at("shared");
    fs::create_dir_all(&shared).unwrap();
    let mut command = shop.command();
    let bind = format!("{}:/shared", shared.display());
    command.args(["run", "-l", "base", "--name", name, "--bind", &bind]);
    let child = command
        .args(["--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&shared.join("ready"));
    (child, shared)
}

#[test]
fn signals_are_passed_on_and_what_the_command_has_started_ends_with_it() {
    let Some(shop) = shop() else { return };
    let script =
        "trap 'echo got >/shared/got; exit 9' INT TERM HUP QUIT; sleep 1000 & touch /shared/ready
        while :; do sleep 0.05; done";
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        let (mut child, shared) = start(&shop, &format!("job-{signal}"), script);
        let pid = child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
        let ended = child.wait().unwrap();
        assert_eq!(ended.code(), Some(9), "SIG{signal}");
        assert!(shared.join("got").exists(), "SIG{signal}");
        fs::remove_dir_all(&shared).unwrap();
        nothing_is_left(&shop.root());
    }
}

#[test]
fn kill_9_leaves_no_process_and_no_mount_and_the_workspace_is_usable() {
    let Some(shop) = shop() else { return };
    let script = "trap '' INT TERM HUP; sleep 1000 & echo kept >/kept; touch /shared/ready; while :; do echo x >>/log; sleep 0.01; done";
    let (mut child, _shared) = start(&shop, "job", script);
    assert!(
        !left_of(&shop.root()).iter().any(|l| l.contains(" - fuse")),
        "the mount is nobody else's"
    );
    shop.fails(4, "in use by process", &["ws", "rm", "job"]);
    child.kill().unwrap();
    child.wait().unwrap();
    nothing_is_left(&shop.root());
    let answer = run(&shop, &["-w", "job"], "cat /kept");
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (0, "kept\n"),
        "{answer:?}"
    );
    shop.ok(&["gc"]);
    shop.is_sound();
}

#[test]
fn a_tree_with_hostile_links_is_set_up_inside_itself() {
    let Some(shop) = shop() else { return };
    let tree = shop.at("hostile");
    programs(&tree);
    let outside = shop.at("outside");
    fs::create_dir(&outside).unwrap();
    let way_out = format!("../../../../../../../..{}", outside.display());
    std::os::unix::fs::symlink(&way_out, tree.join("mnt")).unwrap();
    std::os::unix::fs::symlink("/proc/self/cwd/../../etc", tree.join("sys")).unwrap();
    std::os::unix::fs::symlink("/../../bin/../devices", tree.join("dev")).unwrap();
    fs::create_dir_all(tree.join("devices")).unwrap();
    fs::create_dir_all(tree.join(outside.strip_prefix("/").unwrap())).unwrap();
    shop.ok(&["layer", "create", "hostile", tree.to_str().unwrap()]);
    let answer = run(
        &shop,
        &["-l", "hostile", "--rm"],
        "echo x >/dev/null; test -c /devices/null; touch /tmp/x; touch /mnt/x",
    );
    assert!(answer.err.contains("/sys"), "{answer:?}");
    fs::remove_file(tree.join("sys")).unwrap();
    shop.ok(&["layer", "create", "milder", tree.to_str().unwrap()]);
    let bind = format!("{}:/mnt/here", shop.at("tree").display());
    for bound in [&["--bind", &bind][..], &[]] {
        let options = [&["-l", "milder", "--rm"][..], bound].concat();
        let script = "echo x >/dev/null; test -c /devices/null; touch /tmp/x";
        // /mnt leads into the tree's own /tmp, over which a fresh one lies.
        let answer = run(&shop, &options, script);
        let wanted = if bound.is_empty() { 0 } else { 125 };
        assert_eq!(answer.code, wanted, "{answer:?}");
    }
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "nothing got out"
    );
    nothing_is_left(&shop.root());
}

#[test]
fn arguments_pass_as_they_are() {
    let Some(shop) = shop() else { return };
    use std::os::unix::ffi::OsStringExt;
    let odd = std::ffi::OsString::from_vec(b"a\n \xff'\"$x".to_vec());
    let mut command = shop.command();
    command.args(["run", "-l", "base", "--rm", "-q", "--", "sh", "-c"]);
    let said = command
        .args(["printf '%s|' \"$@\"", "-"])
        .arg(&odd)
        .arg("")
        .output();
    assert_eq!(said.unwrap().stdout, b"a\n \xff'\"$x||");
}

#[test]
fn where_the_tree_cannot_be_mounted_the_command_is_not_run() {
    let Some(shop) = shop() else { return };
    let shared = shop.at("shared");
    fs::create_dir(&shared).unwrap();
    // No /dev/fuse in there.
    let script = format!(
        "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && {} --root {} run -l base --bind {}:/shared -- sh -c 'touch /shared/ran'",
        super::support::mount::acetate_bin().display(),
        shop.root().display(),
        shared.display()
    );
    let answer = Answer::of(
        &Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .output()
            .unwrap(),
    );
    assert_eq!(answer.code, 125, "{answer:?}");
    assert!(
        answer.err.contains("/dev/fuse") && answer.err.contains("--copy"),
        "{answer:?}"
    );
    assert!(!shared.join("ran").exists());
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "", "nothing is left of it");
}

#[test]
fn an_ordinary_user_runs_as_root_of_a_user_namespace() {
    let Some(_device) = open_to_users(require_userns) else {
        return;
    };
    let (shop, home) = home();
    programs(&home.join("tree"));
    own(&home);
    let out = told(
        &shop,
        &home,
        "acetate layer create base tree
         acetate run -l base --name job -- sh -c 'id -u; echo new >/new; chmod 000 /new; cat /proc/1/comm; test -d /dev/pts'
         acetate run -w job --user 1000:100 -- sh -c 'id -u; id -g; stat -c %u:%g /new'
         acetate ws mount job >/dev/null; acetate run -w job -- sh -c 'touch /mounted; id -u'; acetate ws unmount job
         acetate run -w job --commit made --rm -- touch /more
         acetate layer diff made -q; acetate ws list -q; acetate fsck --digests; grep -c $HOME /proc/self/mountinfo || true",
    );
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(
        words.join(" "),
        "base 0 acetate 1000 100 1000:100 0 /more /mounted /new 0",
        "{out}"
    );
    nothing_is_left(&home);
}

/// Gives everything below a directory to the user of these tests.
fn own(path: &Path) {
    let user = super::users::USER;
    let done = Command::new("chown")
        .args(["-R", &format!("{user}:{user}")])
        .arg(path)
        .status();
    assert!(done.unwrap().success());
}

#[test]
fn root_of_a_user_namespace_needs_no_further_one() {
    if !require_root() || !require_fuse() || !require_userns() {
        return;
    }
    let (shop, home) = home();
    programs(&home.join("tree"));
    std::os::unix::fs::chown(&home, Some(0), Some(0)).unwrap();
    let script = format!(
        "set -eu; cd {0}; export HOME={0}; A={1}; $A layer create base tree
         before=$(readlink /proc/self/ns/user)
         $A run -l base --rm -- sh -c 'id -u; readlink /proc/self/ns/user; echo x >/x'; echo $before",
        home.display(),
        shop.at("acetate").display()
    );
    let answer = Answer::of(&in_userns(&script).output().unwrap());
    assert_eq!(answer.code, 0, "{answer:?}");
    let words: Vec<&str> = answer.out.split_whitespace().collect();
    assert_eq!(words[..2], ["base", "0"], "{answer:?}");
    assert_eq!(words[2], words[3], "the same user namespace");
}

#[test]
fn a_terminal_stays_the_commands_and_its_interrupt_comes_once() {
    let Some(shop) = shop() else { return };
    if !require_program("script") {
        return;
    }
    let shared = shop.at("shared");
    fs::create_dir(&shared).unwrap();
    let inside = "trap 'echo i >>/shared/interrupts' INT; test -t 0 && touch /shared/ready; sleep 0.5; sleep 0.5; sleep 0.5; exit 5";
    // script(1) has a shell run it, and dash, in whose place nothing comes without
    // `exec`, would end by the interrupt itself.
    let line = format!(
        "exec {} --root {} run -l base --rm --bind {}:/shared -- sh -c \"{inside}\"",
        super::support::mount::acetate_bin().display(),
        shop.root().display(),
        shared.display()
    );
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&shared.join("ready"));
    std::thread::sleep(Duration::from_millis(100));
    // What the terminal's driver makes an interrupt of.
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let got = fs::read_to_string(shared.join("interrupts")).unwrap();
    assert_eq!(got, "i\n", "once, not twice");
}

/// A user of this host with subordinate ids: uid and gid.
fn user_with_subordinate_ids() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ranges = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let groups = fs::read_to_string("/etc/subgid").unwrap_or_default();
    let has = |text: &str, name: &str| text.lines().any(|l| l.starts_with(&format!("{name}:")));
    let found = users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let ids = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        (has(&ranges, fields[0]) && has(&groups, fields[0])).then_some(ids)
    });
    if found.is_none() {
        super::support::skip("no user has subordinate ids");
    }
    found
}

#[test]
fn subordinate_ids_are_other_users_where_layers_keep_owners() {
    if !require_root() || !require_fuse() || !require_userns() {
        return;
    }
    let programs_are_there = ["setpriv", "newuidmap", "newgidmap", "tar"];
    if !programs_are_there.iter().all(|p| require_program(p)) {
        return;
    }
    let Some((uid, gid)) = user_with_subordinate_ids().filter(|ids| ids.0 == ids.1) else {
        return;
    };
    let Some(_device) = DevFuseOpen::new() else {
        return;
    };
    let (shop, home) = home();
    let tree = shop.at("tree");
    programs(&tree);
    fs::create_dir_all(tree.join("home/ann")).unwrap();
    std::os::unix::fs::chown(tree.join("home/ann"), Some(1000), Some(1000)).unwrap();
    let archive = shop.at("tree.tar");
    let packed = Command::new("tar")
        .arg("-C")
        .arg(&tree)
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    std::os::unix::fs::chown(&home, Some(uid), Some(gid)).unwrap();
    let script = format!(
        "set -eu; cd {0}; export HOME={0}; PATH={1}:$PATH; acetate layer import {2} base
         acetate run -l base --name job -- sh -c 'id -u; echo r >/home/ann/of-root'
         acetate run -w job --user 1000:1000 -- sh -c 'id -u; echo a >/home/ann/own; touch /no 2>/dev/null || echo refused'
         find .local/share/acetate ! -user {uid} | wc -l
         acetate run -w job --commit made --rm -- true
         acetate layer export made - | tar --numeric-owner -tvf - | grep -E 'own|of-root' | cut -d' ' -f2",
        home.display(),
        shop.at("").display(),
        archive.display(),
    );
    let answer = Answer::of(&super::support::as_user(uid, &script).output().unwrap());
    assert_eq!(answer.code, 0, "{answer:?}");
    let words: Vec<&str> = answer.out.split_whitespace().collect();
    assert_eq!(
        words.join(" "),
        "base 0 1000 refused 0 0/0 1000/1000",
        "{answer:?}"
    );
}

#[test]
fn a_read_only_view_can_be_entered() {
    let Some(shop) = shop() else { return };
    let at = shop.at("view");
    fs::create_dir(&at).unwrap();
    let place = at.to_str().unwrap();
    shop.ok(&["materialize", "view", "-l", "base", "-m", place]);
    let answer = run(&shop, &["-w", "view"], "cat /a; touch /x");
    assert!(answer.code == 1 && answer.out == "tree a\n", "{answer:?}");
    assert!(
        answer.err.contains("no /proc and is read only"),
        "{answer:?}"
    );
    let answer = run(&shop, &["-w", "view", "--commit", "x"], "true");
    assert!(
        answer.code == 125 && answer.err.contains("read-only view"),
        "{answer:?}"
    );
}

#[test]
fn owners_are_shown_as_the_maps_say() {
    let Some(shop) = shop() else { return };
    let maps = ["--uidmap", "0:5:1", "--gidmap", "0:6:1"];
    let options = [&["-l", "base", "--name", "job"], &maps[..]].concat();
    let answer = run(&shop, &options, "stat -c %u:%g /a; rm /a");
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (0, "5:6\n"),
        "{answer:?}"
    );
    let answer = run(&shop, &["-w", "job", "--uidmap", "0:5:1"], "true");
    assert_eq!(answer.code, 2, "they are the workspace's: {answer:?}");
    let answer = run(&shop, &["-l", "base", "--uidmap", "0:5"], "true");
    assert_eq!(answer.code, 2, "{answer:?}");
}

#[test]
fn a_caller_that_ignores_its_children_gets_the_exit_code() {
    let Some(shop) = shop() else { return };
    let line = format!(
        "trap '' CHLD; exec env --ignore-signal=CHLD {} --root {} run -l base --rm -- sh -c 'exit 6'",
        super::support::mount::acetate_bin().display(),
        shop.root().display()
    );
    let said = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(said.status.code(), Some(6), "{said:?}");
}

#[test]
fn a_running_command_keeps_no_other_workspace_in_use() {
    let Some(shop) = shop() else { return };
    shop.workspace("other", &["base"]);
    let script = "touch /shared/ready; while ! test -e /shared/end; do sleep 0.05; done";
    let (mut child, shared) = start(&shop, "job", script);
    shop.ok(&["ws", "unmount", "other"]);
    shop.ok(&["ws", "rm", "other"]);
    fs::write(shared.join("end"), "").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_copy_is_run_in_and_ends_as_a_mounted_workspace_does() {
    let Some(shop) = shop() else { return };
    let script = "echo new >/new && rm /bin/head && mv /bin/ln /bin/link && mkdir /d && touch /d/f";
    let answers = ["mounted", "copied"].map(|name| {
        let copy: &[&str] = if name == "copied" { &["--copy"] } else { &[] };
        let words = [&["-l", "base", "--name", name, "--commit", name], copy].concat();
        let done = run(&shop, &words, script);
        assert_eq!(done.code, 0, "{done:?}");
        let changes = shop.ok(&["layer", "diff", name, "--format", "json"]);
        assert!(changes.contains("new"), "{changes}");
        changes
    });
    assert_eq!(answers[0], answers[1]);
    // And once more, in what is there.
    let again = run(
        &shop,
        &["-w", "copied"],
        "cat /new; test ! -e /bin/head; exit 7",
    );
    assert_eq!((again.code, again.out.trim()), (7, "new"), "{again:?}");
    let refused = shop.run(&["ws", "apply", "copied"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("is a copy"), "{refused:?}");
}
