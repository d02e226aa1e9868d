//! What shells see: completion of names, and the job-runner script.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::shop::{Answer, Shop};
use super::support::host::{own_mounts, require_program};
use super::support::mount::acetate_bin;
use super::support::{DevFuseOpen, as_user, require_fuse, require_root};

/// What bash would offer for the last of these words.
fn offered(shop: &Shop, words: &[&str]) -> Vec<String> {
    let script = "eval \"$(\"$ACETATE\" completions bash)\"
        how=$(complete -p acetate) || exit 1
        [[ $how == *-F\\ _acetate_or_names* ]] || exit 2
        COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        prev=$((COMP_CWORD - 1))
        _acetate_or_names \"$1\" \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[prev]}\"
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let out = Command::new("bash")
        .args(["-c", script, "bash", acetate_bin().to_str().unwrap()])
        .args(words)
        .env("ACETATE", acetate_bin())
        .env("ACETATE_ROOT", shop.root())
        .output()
        .unwrap();
    let answer = Answer::of(&out);
    assert_eq!(answer.code, 0, "{words:?}: {answer:?}");
    let lines = answer.out.lines().filter(|l| !l.is_empty());
    lines.map(str::to_owned).collect()
}

#[test]
fn bash_completes_names_of_layers_and_workspaces() {
    if !require_program("bash") {
        return;
    }
    let shop = Shop::new();
    for layer in ["base", "built", "other"] {
        shop.ok(&["layer", "create", layer]);
    }
    for space in ["job", "work"] {
        shop.ok(&["ws", "create", space, "-l", "base", "--no-mount"]);
    }
    assert_eq!(
        offered(&shop, &["layer", "rm", ""]),
        ["base", "built", "other"]
    );
    assert_eq!(
        offered(&shop, &["layer", "rm", "other", "b"]),
        ["base", "built"]
    );
    assert_eq!(offered(&shop, &["ws", "create", "x", "-l", "o"]), ["other"]);
    assert_eq!(offered(&shop, &["ws", "path", ""]), ["job", "work"]);
    assert_eq!(offered(&shop, &["layer", "commit", "w"]), ["work"]);
    // What is no name is completed as before.
    assert_eq!(offered(&shop, &["ws", "unm"]), ["unmount"]);
    assert!(offered(&shop, &["ws", "rm", "--f"]).contains(&"--force".to_owned()));
    let nowhere = shop.at("nowhere");
    let root = format!("--root={}", nowhere.display());
    let without = offered(&shop, &[&root, "ws", "path", ""]);
    assert!(!without.contains(&"job".to_owned()), "{without:?}");
}

/// The example of the README: nothing is left when it is done.
#[test]
fn the_job_runner_works_for_root_and_for_an_ordinary_user() {
    if !require_root() || !require_fuse() || !require_program("unshare") {
        return;
    }
    own_mounts();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/job-runner");
    let mode = script.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "it can be executed");
    let shop = Shop::new();
    let root = shop.root();
    let run = |words: &[&str]| {
        let mut command = Command::new(&script);
        command.args(words).env("ACETATE", acetate_bin());
        command
            .env("ACETATE_ROOT", &root)
            .env("TMPDIR", shop.at(""));
        Answer::of(&command.output().unwrap())
    };
    let answer = run(&["--keep", "result"]);
    is_whole(&answer);
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "");
    assert_eq!(
        shop.ok(&["layer", "cat", "result", "out/program"]),
        "HELLO FROM THE JOB"
    );
    // Another archive, another command: its exit code is the script's.
    let tar = shop.at("base.tar");
    shop.ok(&["layer", "export", "result", tar.to_str().unwrap()]);
    let failed = run(&[tar.to_str().unwrap(), "sh", "-c", "cat out/status; exit 7"]);
    assert_eq!(failed.code, 7, "{failed:?}");
    assert!(failed.out.contains("\ndone\n"), "{failed:?}");
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "");
    shop.is_sound();
    if !require_program("setpriv") || !require_program("fusermount3") {
        return;
    }
    let Some(_device) = DevFuseOpen::new() else {
        return;
    };
    fs::set_permissions(shop.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    let (home, program) = (shop.at("home"), shop.at("acetate"));
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65_534), Some(65_534)).unwrap();
    fs::copy(acetate_bin(), &program).unwrap();
    fs::copy(&script, shop.at("job-runner")).unwrap();
    let inside = format!(
        "cd {0}; export HOME={0} TMPDIR={0} ACETATE={1}; bash ../job-runner; code=$?; ls -A; exit $code",
        home.display(),
        program.display()
    );
    let answer = Answer::of(&as_user(65_534, inside).output().unwrap());
    is_whole(&answer);
    assert!(
        answer.out.ends_with("removed\n"),
        "nothing is left: {answer:?}"
    );
}

fn is_whole(answer: &Answer) {
    assert_eq!(answer.code, 0, "{answer:?}");
    for part in [
        "mounted at",
        "runs in",
        "seen: ",
        "out/program",
        "ended with 0",
        "D  /obsolete",
        "A  /out/program",
        "removed",
    ] {
        assert!(answer.out.contains(part), "{part}: {answer:?}");
    }
}
