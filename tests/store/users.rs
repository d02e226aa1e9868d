//! Ordinary users, user namespaces, and where the store is looked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::shop::{Answer, Shop};
use super::support::host::require_program;
use super::support::mount::acetate_bin;
use super::support::{DevFuseOpen, as_user, in_userns, require_fuse, require_root};

/// Of a user that every system has: fusermount3 asks for the name.
pub const USER: u32 = 65_534;

/// A directory of an ordinary user, with a copy of the program that they may run.
pub fn home() -> (Shop, std::path::PathBuf) {
    let shop = Shop::bare();
    fs::set_permissions(shop.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    let home = shop.at("home");
    fs::create_dir(&home).unwrap();
    let program = shop.at("acetate");
    fs::copy(acetate_bin(), &program).unwrap();
    std::os::unix::fs::chown(&home, Some(USER), Some(USER)).unwrap();
    (shop, home)
}

/// Runs a script in the user's directory; it must succeed.
pub fn told(shop: &Shop, home: &Path, script: &str) -> String {
    let script = format!(
        "set -eu; cd {0}; export HOME={0}; PATH={1}:$PATH; {script}",
        home.display(),
        shop.at("").display()
    );
    let answer = Answer::of(&as_user(USER, &script).output().unwrap());
    assert_eq!(answer.code, 0, "{script}: {answer:?}");
    answer.out
}

/// /dev/fuse for everybody, as long as this is held, for a test as an ordinary user;
/// `None`, with the reason printed, where the host lacks something for it.
pub fn open_to_users(also: impl FnOnce() -> bool) -> Option<DevFuseOpen> {
    if !require_root() || !require_fuse() || !require_program("setpriv") || !also() {
        return None;
    }
    DevFuseOpen::new()
}

#[test]
fn an_ordinary_user_needs_no_root() {
    let Some(_device) = open_to_users(|| require_program("fusermount3")) else {
        return;
    };
    let (shop, home) = home();
    let out = told(
        &shop,
        &home,
        "mkdir -p tree/dir; echo hello >tree/a; ln tree/a tree/b; mkdir tree/secret; echo x >tree/secret/f
         acetate layer create base tree
         acetate ws create job -l base >/dev/null; at=$(acetate ws path job)
         echo new >$at/new; rm $at/a; chmod 000 $at/secret/f; chmod 000 $at/secret
         acetate ws diff job
         acetate layer commit job live
         acetate ws unmount job
         acetate layer commit job moved
         acetate layer verify -q
         acetate layer diff live moved
         acetate ws mount job >/dev/null; cat $at/new $at/b; acetate ws rm -f job
         acetate materialize plain --chain moved --copy -m out; cat out/new
         acetate layer rm live moved base; acetate gc >/dev/null; acetate fsck --digests; ls .local/share/acetate/layers | wc -l",
    );
    let words: Vec<&str> = out.split_whitespace().collect();
    let text = words.join(" ");
    assert!(text.contains("A /new"), "{text}");
    assert!(
        text.contains("live moved base live moved new hello"),
        "{text}"
    );
    assert!(text.ends_with("/out new 0"), "{text}");
}

#[test]
fn root_of_a_user_namespace_uses_the_users_own_store() {
    if !require_root() || !require_fuse() || !require_program("unshare") {
        return;
    }
    if !super::support::host::require_userns() {
        return;
    }
    let (shop, home) = home();
    std::os::unix::fs::chown(&home, Some(0), Some(0)).unwrap();
    let script = format!(
        "set -eu; cd {0}; export HOME={0}; A={1}; mkdir tree; echo hello >tree/a
         $A layer create base tree; $A ws create job -l base; at=$($A ws path job)
         echo new >$at/new; $A layer commit job app; $A ws rm -f job; $A layer cat app new; ls {0}/.local/share/acetate",
        home.display(),
        shop.at("acetate").display()
    );
    let answer = Answer::of(&in_userns(&script).output().unwrap());
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        answer.out.contains("new") && answer.out.contains("store.json"),
        "{answer:?}"
    );
}

#[test]
fn another_users_store_in_the_current_directory_is_not_taken() {
    if !require_root() || !require_program("setpriv") {
        return;
    }
    let (shop, home) = home();
    let trap = home.join(".acetate");
    let made = Command::new(acetate_bin())
        .arg("init")
        .arg(&trap)
        .output()
        .unwrap();
    assert!(made.status.success());
    fs::set_permissions(&trap, fs::Permissions::from_mode(0o755)).unwrap();
    told(&shop, &home, "acetate layer create mine");
    assert_eq!(
        fs::read_dir(trap.join("names")).unwrap().count(),
        0,
        "root's store was left alone"
    );
    assert!(home.join(".local/share/acetate/names/mine.json").exists());
}

#[test]
fn the_store_is_the_one_named_by_option_variable_or_directory() {
    let shop = Shop::bare();
    let run = |words: &[&str], variable: Option<&str>| {
        let mut command = Command::new(acetate_bin());
        command
            .args(words)
            .current_dir(shop.at(""))
            .env("HOME", shop.at("home"))
            .env_remove("ACETATE_ROOT");
        if let Some(root) = variable {
            command.env("ACETATE_ROOT", root);
        }
        Answer::of(&command.output().unwrap())
    };
    for (name, words) in [
        ("by-variable", &["init"][..]),
        ("x", &["init", "by-option"]),
    ] {
        let answer = run(words, Some(shop.at(name).to_str().unwrap()));
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    assert!(shop.at("by-variable/store.json").exists() && shop.at("by-option/store.json").exists());
    assert_eq!(run(&["init", ".acetate"], None).code, 0);
    assert_eq!(run(&["layer", "create", "local"], None).code, 0);
    assert!(shop.at(".acetate/names/local.json").exists());
    let option = shop.at("by-option");
    let by_option = run(
        &[
            "layer",
            "create",
            "other",
            "--root",
            option.to_str().unwrap(),
        ],
        Some("/nowhere"),
    );
    assert_eq!(by_option.code, 0, "--root wins: {by_option:?}");
    let answer = run(&["layer", "list"], Some("/no/such/store"));
    assert_eq!(answer.code, 3, "{answer:?}");
    assert!(
        answer.err.contains("acetate init /no/such/store"),
        "{answer:?}"
    );
}

/// The README's walk-through, as root and as an ordinary user.
#[test]
fn the_walk_through_works_for_root_and_for_an_ordinary_user() {
    if !require_root() || !require_fuse() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/walkthrough");
    let done = Command::new("bash")
        .arg(&script)
        .env("ACETATE", acetate_bin())
        .output()
        .unwrap();
    let answer = Answer::of(&done);
    assert!(
        answer.code == 0 && answer.out.ends_with("It works.\n"),
        "{answer:?}"
    );
    if !require_program("setpriv") || !require_program("fusermount3") {
        return;
    }
    let Some(_device) = DevFuseOpen::new() else {
        return;
    };
    let (shop, home) = home();
    fs::copy(&script, shop.at("walkthrough")).unwrap();
    let out = told(&shop, &home, "TMPDIR=$HOME bash ../walkthrough");
    assert!(out.ends_with("It works.\n"), "{out}");
}
