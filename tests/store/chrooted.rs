//! `acetate run --copy` where no namespace can be had: by chroot(2) alone.
//!
//! The place is a container's: root without CAP_SYS_ADMIN, no user namespace allowed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::run::{nothing_is_left, programs, wait_for};
use super::shop::{Answer, Shop};
use super::support::host::{require_program, require_userns};
use super::support::mount::acetate_bin;
use super::support::require_root;

/// A store with a layer `base` in which programs run; `None` where that is not possible.
fn shop() -> Option<Shop> {
    let needed = ["setpriv", "ldd", "chroot"];
    if !require_root() || !require_userns() || !needed.iter().all(|p| require_program(p)) {
        return None;
    }
    let shop = Shop::new();
    let tree = shop.tree("tree");
    programs(&tree);
    fs::create_dir(tree.join("tmp")).unwrap();
    shop.ok(&["layer", "create", "base", tree.to_str().unwrap()]);
    // What a shell opens for what it starts in the background: no node can be made here.
    let null = shop.at("null/dev");
    fs::create_dir_all(&null).unwrap();
    fs::write(null.join("null"), "").unwrap();
    shop.ok(&["layer", "create", "null", shop.at("null").to_str().unwrap()]);
    Some(shop)
}

/// A shell's line in the container; `also` are words for setpriv(1).
fn container(shop: &Shop, also: &str, line: &str) -> Command {
    let inside = format!(
        "set -e; echo 0 >/proc/sys/user/max_user_namespaces
         exec setpriv --bounding-set -sys_admin{also} sh -c \"$1\""
    );
    let line = format!(
        "acetate() {{ {} --root {} \"$@\"; }}; {line}",
        acetate_bin().display(),
        shop.root().display()
    );
    let mut command = Command::new("unshare");
    command
        .args(["-Umr", "sh", "-c", &inside, "sh", &line])
        .current_dir(shop.at(""))
        .stdin(Stdio::null());
    command
}

fn said(mut command: Command) -> Answer {
    Answer::of(&command.output().unwrap())
}

/// Starts a command in a copy, and waits until it runs.
fn start(shop: &Shop, script: &str) -> Child {
    shop.ok(&["ws", "create", "--copy", "job", "-l", "null", "-l", "base"]);
    let line = format!(
        "exec {} --root {} run -w job -- sh -c \"{script}\"",
        acetate_bin().display(),
        shop.root().display()
    );
    let child = container(shop, "", &line).spawn().unwrap();
    wait_for(&shop.inside("workspaces/job/copy/tree/ready"));
    child
}

#[test]
fn a_copy_is_entered_by_chroot_where_no_namespace_can_be_had() {
    let Some(shop) = shop() else { return };
    let answer = said(container(
        &shop,
        "",
        "acetate run --copy -l base --name job --workdir /dir --env A=b -- sh -c 'cat file; cd ../../../..; ls -d bin; echo $A; id -u; echo new >/new; rm /a; exit 3'",
    ));
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (3, "file\nbin\nb\n0\n"),
        "{answer:?}"
    );
    let warned = answer.err.matches("by chroot(2) alone").count();
    assert_eq!(warned, 1, "once: {answer:?}");
    assert!(answer.err.contains("no /dev/null"), "{answer:?}");
    assert_eq!(shop.ok(&["ws", "diff", "job", "-q"]), "/a\n/new");
    let line = "acetate run -w job --commit made --rm -- sh -c 'echo more >/more'";
    let answer = said(container(&shop, "", line));
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(shop.ok(&["layer", "diff", "made", "-q"]), "/a\n/more\n/new");
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "");
    let code = |command: &str| {
        let line = format!("acetate run --copy --rm -l base -- {command}");
        said(container(&shop, "", &line)).code
    };
    assert_eq!(code("no-such-program"), 127);
    assert_eq!(code("/dir/file"), 126);
    assert_eq!(code("sh -c 'kill -TERM $$'"), 143);
    nothing_is_left(&shop.root());
    shop.is_sound();
}

/// With what leads outside a chroot(2) can be left.
#[test]
fn the_command_has_no_descriptor_no_directory_and_no_right_to_leave_the_tree() {
    let Some(shop) = shop() else { return };
    let program = ["/usr/sbin/chroot", "/usr/bin/chroot", "/sbin/chroot"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    fs::copy(program.unwrap(), shop.at("tree/bin/chroot")).unwrap();
    shop.ok(&["layer", "create", "more", shop.at("tree").to_str().unwrap()]);
    let script = "cat <&7 || echo shut; cat && echo null; chroot /dir /bin/true 2>&1 || true; pwd";
    for also in ["", ",-setpcap"] {
        let line = format!("acetate run --copy --rm -l more -- sh -c '{script}' 7</etc </etc");
        let answer = said(container(&shop, also, &line));
        assert_eq!(answer.code, 0, "{answer:?}");
        assert!(answer.out.starts_with("shut\nnull\n"), "{answer:?}");
        assert!(
            answer.out.contains("cannot change root directory") && answer.out.ends_with("/\n"),
            "{answer:?}"
        );
    }
}

#[test]
fn what_the_command_leaves_behind_is_ended_before_the_tree_is_looked_at() {
    let Some(shop) = shop() else { return };
    // Writers in the background, one of them without its parent.
    let script = "w() { while :; do echo x >>/log-$1; done; }; (w 1 &); w 2 & (sleep 1000 &)
        while ! test -s /log-1 || ! test -s /log-2; do :; done; exit 0";
    let line =
        format!("acetate run --copy -l null -l base --name job --commit made -- sh -c '{script}'");
    let answer = said(container(&shop, "", &line));
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(shop.ok(&["layer", "diff", "made", "-q"]), "/log-1\n/log-2");
    let size = || {
        let at = shop.inside("workspaces/job/copy/tree/log-1");
        fs::metadata(at).unwrap().len()
    };
    let before = size();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(before, size(), "nobody writes any more");
}

#[test]
fn signals_are_passed_on_to_a_command_in_a_chroot() {
    for signal in ["TERM", "INT", "HUP", "QUIT", "USR1"] {
        let Some(shop) = shop() else { return };
        let script = format!(
            "trap 'echo got >/got; exit 9' {signal}; sleep 1000 & touch /ready; while :; do sleep 0.05; done"
        );
        let mut child = start(&shop, &script);
        let sent = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(9), "SIG{signal}");
        assert!(shop.ok(&["ws", "diff", "job", "-q"]).contains("/got"));
        nothing_is_left(&shop.root());
    }
}

/// Nobody but the keeper could end them: there is no PID namespace.
#[test]
fn kill_9_of_a_run_by_chroot_leaves_no_process() {
    let Some(shop) = shop() else { return };
    let mark = format!("10{}", std::process::id());
    let script = format!(
        "trap '' INT TERM HUP; (sleep {mark} &); touch /ready; while :; do sleep 0.01; done"
    );
    let mut child = start(&shop, &script);
    let running = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let words = processes.filter_map(|p| fs::read(p.path().join("cmdline")).ok());
        let mark = format!("sleep\0{mark}\0");
        words.filter(|w| w == mark.as_bytes()).count()
    };
    let until = std::time::Instant::now()
        + super::support::host::slowly(std::time::Duration::from_secs(10));
    let began = loop {
        match running() {
            0 if std::time::Instant::now() < until => {}
            count => break count,
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(began, 1, "what is to be left behind has begun");
    while running() > 0 {
        assert!(std::time::Instant::now() < until, "it is left behind");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    nothing_is_left(&shop.root());
    assert_eq!(shop.ok(&["ws", "diff", "job", "-q"]), "/ready");
    shop.is_sound();
}

#[test]
fn a_mount_that_was_wanted_and_cannot_be_had_is_no_chroot() {
    let Some(shop) = shop() else { return };
    let refused = |also: &str, words: &str, says: &str| {
        let line = format!("acetate run {words} -l base -- sh -c 'echo ran'");
        let answer = said(container(&shop, also, &line));
        assert_eq!((answer.code, answer.out.as_str()), (125, ""), "{answer:?}");
        assert!(answer.err.contains(says), "{says}: {answer:?}");
    };
    refused("", "", "--copy");
    refused("", "--copy --bind /etc", "without --bind");
    refused(",-sys_chroot", "--copy", "needs CAP_SYS_CHROOT");
    refused("", "--copy --user 7:8", "does not know both");
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "", "nothing is left of it");
}

/// As root of the host, whose first clone(2), which is to make the namespaces, fails.
#[test]
fn devices_that_the_tree_lacks_are_made_and_taken_away_again() {
    let Some(shop) = shop() else { return };
    if !require_program("strace") {
        return;
    }
    let run = |words: &[&str]| {
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask 077; exec \"$@\"", "sh"])
            .args(["strace", "-qq", "-o", "/dev/null", "-e", "trace=clone"])
            .args(["-e", "inject=clone:error=EPERM:when=1"])
            .arg(acetate_bin())
            .arg("--root")
            .arg(shop.root())
            .args(words)
            .current_dir(shop.at(""))
            .stdin(Stdio::null());
        said(command)
    };
    shop.ok(&["ws", "create", "--copy", "job", "-l", "base"]);
    let script = "set -e; echo x >/dev/null; dd if=/dev/zero of=/new bs=4 count=1 2>/dev/null; echo x 2>&1 >/dev/full || echo full";
    let words = ["run", "-w", "job", "--", "sh", "-c", script];
    let answer = run(&words);
    if answer.err.contains("no /dev/null") {
        super::support::skip("no device nodes can be made here");
        return;
    }
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.err.contains("by chroot(2) alone"), "{answer:?}");
    assert!(answer.out.contains("full"), "{answer:?}");
    assert_eq!(shop.ok(&["ws", "diff", "job", "-q"]), "/new");
    // Another user, to whom they are open too; and one that is put in a device's place stays.
    let script = "echo x >/dev/null && id -u && id -g";
    let words = [
        "run", "-w", "job", "--user", "7:8", "--", "sh", "-c", script,
    ];
    let answer = run(&words);
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (0, "7\n8\n"),
        "{answer:?}"
    );
    let script = "rm /dev/null; echo own >/dev/null";
    let answer = run(&["run", "-w", "job", "--", "sh", "-c", script]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(
        shop.ok(&["ws", "diff", "job", "-q"]),
        "/dev\n/dev/null\n/new"
    );
    shop.is_sound();
}
