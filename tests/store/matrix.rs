//! The README's matrix of privileges: every cell is tried out.
//!
//! A row is one line of [`ROWS`]: what must be there, and the command. All of a
//! column's rows are run by one shell, each in a store of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::shop::{Answer, Shop};
use super::support::host::{own_mounts, require_program, require_userns};
use super::support::mount::acetate_bin;
use super::support::{as_user, require_fuse, require_root};
use super::users::open_to_users;

/// Of a user that every system has: fusermount3 asks for the name.
const USER: u32 = 65_534;

/// The command as the README calls it; what is done before, by a shell; the command
/// itself. `COPY` stands where `--copy` goes.
const ROWS: &[(&str, &str, &str)] = &[
    ("init", "", "init fresh"),
    ("layer create", "", "layer create x tree"),
    ("layer import", "", "layer import ../layer.tar x"),
    ("layer export", "", "layer export base x.tar"),
    ("layer list", "", "layer list"),
    ("layer info", "", "layer info base"),
    ("layer path", "", "layer path base"),
    ("layer ls", "", "layer ls base"),
    ("layer cat", "", "layer cat base a"),
    ("layer du", "", "layer du"),
    ("layer diff", "", "layer diff base"),
    ("layer verify", "", "layer verify"),
    ("layer commit", ANY, "layer commit job x"),
    ("layer rm", "", "layer rm base"),
    ("ws create", "", "ws create COPY job -l base"),
    ("ws list", "", "ws list"),
    ("ws info", ANY, "ws info job"),
    ("ws path", ANY, "ws path job"),
    ("ws upper", LATER, "ws upper job"),
    ("ws mount", LATER, "ws mount job"),
    ("ws unmount", ANY, "ws unmount job"),
    ("ws diff", ANY, "ws diff job"),
    ("ws reset", LATER, "ws reset job"),
    ("ws clone", LATER, "ws clone job twin --no-mount"),
    ("ws rm", ANY, "ws rm -f job"),
    ("ws apply", TRIED, "ws apply job"),
    ("run", PROGRAM, "run -l program --rm -- /busybox true"),
    ("try", "mkdir d", "try --dir d -- true"),
    ("materialize", "", "materialize view -l base -m out COPY"),
    ("mount", "mkdir m", "mount --lower tree m"),
    (
        "unmount",
        "mkdir m; acetate mount --lower tree m || true",
        "unmount m",
    ),
    ("gc", "", "gc"),
    ("fsck", "", "fsck"),
    ("doctor", "", "doctor ."),
];

/// A workspace, as far as it can be had.
const ANY: &str = "acetate ws create job -l base || acetate ws create job -l base --copy";
/// Changes over a directory.
const TRIED: &str = "mkdir d; acetate try --dir d --name job -- touch d/new";
/// A layer with a program that needs nothing else.
const PROGRAM: &str = "mkdir p; cp $(command -v busybox) p/busybox; acetate layer create program p";
/// One that is not mounted.
const LATER: &str = "acetate ws create job -l base --no-mount";

/// The README's rows: the command, and its cells.
fn table() -> BTreeMap<String, Vec<String>> {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let text = fs::read_to_string(readme).unwrap();
    let head = "| command | root | ordinary user | in a user namespace | nothing allowed |";
    let lines = text.lines().skip_while(|l| *l != head).skip(2);
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split('|').map(|c| c.trim());
        let name = cells.next().unwrap().trim_matches('`').to_owned();
        (name, cells.map(str::to_owned).collect::<Vec<_>>())
    };
    lines.take_while(|l| l.starts_with('|')).map(row).collect()
}

/// One shell's work: every row, each told by a line `=NAME=CODE=CODE WITH COPY`
/// behind what it said.
fn script(place: &str) -> String {
    let mut script = format!("PATH={place}:$PATH; export HOME=$PWD\n");
    for (at, (name, before, command)) in ROWS.iter().enumerate() {
        let plain = command.replace("COPY", "");
        script.push_str(&format!(
            "mkdir r{at}; cd r{at}; export ACETATE_ROOT=$PWD/store; mkdir tree; echo a >tree/a
             acetate init >/dev/null; acetate layer create base tree >/dev/null
             ( {} ) >/dev/null 2>&1
             acetate {plain} >out.txt 2>said; code=$?; with=-\n",
            if before.is_empty() { "true" } else { before },
        ));
        if command.contains("COPY") {
            let copy = command.replace("COPY", "--copy");
            script.push_str(&format!(
                "if [ $code != 0 ]; then acetate {copy} >out.txt 2>&1; with=$?; fi\n"
            ));
        }
        script.push_str(&format!(
            "acetate unmount m >/dev/null 2>&1
             acetate ws list -q | while read -r w; do acetate ws rm -f $w >/dev/null 2>&1; done
             echo \"={name}=$code=$with=$(tr '\\n' ' ' <said)\"; cd ..\n"
        ));
    }
    script
}

/// What a cell must be, from what was seen.
fn cell(code: &str, with: &str, said: &str) -> String {
    match (code, with) {
        ("0", _) => "yes".to_owned(),
        ("32", "0") if said.contains("--copy") => "--copy".to_owned(),
        (code, "-") if code != "2" && said.contains("error:") => "no".to_owned(),
        // doctor fails by its code alone: its answer is on stdout.
        ("1", "-") if said.is_empty() => "no".to_owned(),
        _ => format!("code {code}, with --copy {with}: {said}"),
    }
}

fn check(column: usize, who: &str, answer: &Answer) {
    let mut wrong = Vec::new();
    let mut seen = 0;
    let table = table();
    for line in answer.out.lines().filter_map(|l| l.strip_prefix('=')) {
        let mut parts = line.splitn(4, '=');
        let mut part = || parts.next().unwrap_or_default();
        let (name, code, with, said) = (part(), part(), part(), part());
        seen += 1;
        let is = cell(code, with, said);
        let promised = table.get(name).and_then(|cells| cells.get(column));
        if promised.map(String::as_str) != Some(&*is) {
            wrong.push(format!(
                "{name} for {who}: README {promised:?}, but {is} ({said})"
            ));
        }
    }
    assert_eq!(seen, ROWS.len(), "{who}: {answer:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A directory with the program and an archive, for everybody to use.
fn place(owner: u32) -> (Shop, String) {
    own_mounts();
    let shop = Shop::bare();
    fs::set_permissions(shop.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    let home = shop.at("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(owner), Some(owner)).unwrap();
    fs::copy(acetate_bin(), shop.at("acetate")).unwrap();
    fs::write(home.join("a"), "a\n").unwrap();
    let words = ["--owner=0", "--group=0", "-cf", "layer.tar", "a"];
    let packed = Command::new("tar").current_dir(&home).args(words).status();
    assert!(packed.unwrap().success());
    let path = shop.at("").display().to_string();
    (shop, path)
}

fn run(shop: &Shop, mut command: Command) -> Answer {
    Answer::of(&command.current_dir(shop.at("home")).output().unwrap())
}

#[test]
fn the_readmes_matrix_and_this_test_have_the_same_rows() {
    let table = table();
    let mut rows: Vec<&str> = ROWS.iter().map(|(name, ..)| *name).collect();
    rows.sort_unstable();
    assert_eq!(table.keys().collect::<Vec<_>>(), rows);
    assert!(table.values().all(|cells| cells.len() == 4), "{table:?}");
}

#[test]
fn what_the_readme_promises_root_is_so() {
    if !require_root() || !require_fuse() {
        return;
    }
    let (shop, path) = place(0);
    let mut sh = Command::new("sh");
    sh.arg("-c").arg(script(&path));
    check(0, "root", &run(&shop, sh));
}

#[test]
fn what_the_readme_promises_an_ordinary_user_is_so() {
    let Some(_device) = open_to_users(|| require_program("fusermount3")) else {
        return;
    };
    let (shop, path) = place(USER);
    check(
        1,
        "an ordinary user",
        &run(&shop, as_user(USER, script(&path))),
    );
}

#[test]
fn what_the_readme_promises_in_a_user_namespace_is_so() {
    let Some(_device) = open_to_users(require_userns) else {
        return;
    };
    let (shop, path) = place(USER);
    fs::write(shop.at("script"), script(&path)).unwrap();
    let inside = format!("exec unshare -Urm sh {path}/script");
    check(
        2,
        "root of a user namespace",
        &run(&shop, as_user(USER, inside)),
    );
}

/// No device, no capability, no further namespace, as in a locked container.
#[test]
fn what_the_readme_promises_where_nothing_is_allowed_is_so() {
    if !require_root() || !require_program("setpriv") || !require_userns() {
        return;
    }
    let (shop, path) = place(USER);
    fs::write(shop.at("script"), script(&path)).unwrap();
    fs::write(
        shop.at("shut"),
        format!(
            "set -e
             if [ -e /dev/fuse ]; then mount --bind /dev/null /dev/fuse; fi
             echo 0 >/proc/sys/user/max_user_namespaces
             exec setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all sh {path}/script"
        ),
    )
    .unwrap();
    let inside = format!("exec unshare -Um --map-current-user --keep-caps sh {path}/shut");
    let answer = run(&shop, as_user(USER, inside));
    check(3, "whom nothing is allowed", &answer);
}
