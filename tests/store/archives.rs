//! Layers from archives and back: the same layer, the same bytes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use acetate::digest::Digest;

use super::shop::{Answer, Shop, text};
use super::support::host::{own_mounts, require_program};
use super::support::mount::acetate_bin;
use super::support::{as_user, require_root};

fn run(program: &str, words: &[&str], at: &Path) -> Vec<u8> {
    let done = Command::new(program)
        .args(words)
        .current_dir(at)
        .output()
        .unwrap();
    assert!(done.status.success(), "{program} {words:?}: {done:?}");
    done.stdout
}

/// A tar of a tree with owners, a device, capabilities-like modes and odd names.
fn archive(shop: &Shop) -> PathBuf {
    let tree = shop.tree("source");
    fs::write(tree.join("odd\nname"), "odd").unwrap();
    fs::set_permissions(tree.join("a"), fs::Permissions::from_mode(0o4755)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(tree.join("dir"), Some(1000), Some(100)).unwrap();
        std::os::unix::fs::lchown(tree.join("link"), Some(1000), Some(1000)).unwrap();
        run("mknod", &["null", "c", "1", "3"], &tree);
    }
    let file = shop.at("source.tar");
    run(
        "tar",
        &[
            "--numeric-owner",
            "-C",
            tree.to_str().unwrap(),
            "-cf",
            file.to_str().unwrap(),
            ".",
        ],
        &tree,
    );
    file
}

/// Runs the program with something on stdin.
fn with_input(shop: &Shop, words: &[&str], input: &[u8]) -> Answer {
    let mut child = shop
        .command()
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || pipe.write_all(&input));
    let answer = Answer::of(&child.wait_with_output().unwrap());
    let _it_may_have_stopped_reading = feeder.join().unwrap();
    answer
}

#[test]
fn every_compression_gives_the_same_layer_from_a_file_and_from_stdin() {
    let shop = Shop::new();
    let tar = archive(&shop);
    let tar = tar.to_str().unwrap();
    shop.ok(&["layer", "import", tar, "plain"]);
    let digest = shop.json(&["layer", "info", "plain"])["diff_id"].clone();
    for (program, name) in [
        ("gzip", "gz"),
        ("zstd", "zst"),
        ("xz", "xz"),
        ("bzip2", "bz2"),
    ] {
        if !require_program(program) {
            continue;
        }
        let packed = run(program, &["-c", tar], &shop.at(""));
        let file = shop.at("odd-extension.tar");
        fs::write(&file, &packed).unwrap();
        shop.ok(&["layer", "import", file.to_str().unwrap(), name]);
        assert_eq!(
            shop.json(&["layer", "info", name])["diff_id"],
            digest,
            "{name}"
        );
        let piped = with_input(
            &shop,
            &["layer", "import", "-", &format!("{name}-stdin")],
            &packed,
        );
        assert_eq!(piped.code, 0, "{piped:?}");
        assert_eq!(
            shop.json(&["layer", "info", &format!("{name}-stdin")])["diff_id"],
            digest,
            "{name}"
        );
    }
    assert_eq!(
        fs::read_dir(shop.inside("layers")).unwrap().count(),
        1,
        "stored once"
    );
    assert_eq!(shop.ok(&["layer", "cat", "plain", "dir/file"]), "file");
    shop.is_sound();
}

#[test]
fn a_layer_comes_out_as_the_same_bytes_from_any_store() {
    let (shop, other) = (Shop::new(), Shop::new());
    let tar = archive(&shop);
    shop.ok(&["layer", "import", tar.to_str().unwrap(), "base"]);
    let first = shop.at("first.tar");
    let said = shop.ok(&["layer", "export", "base", first.to_str().unwrap()]);
    assert_eq!(
        said,
        shop.json(&["layer", "info", "base"])["diff_id"],
        "the digest is printed"
    );
    other.ok(&["layer", "import", first.to_str().unwrap(), "again"]);
    let piped = other
        .command()
        .args(["layer", "export", "again", "-"])
        .output()
        .unwrap();
    assert!(piped.status.success() && piped.stderr.is_empty());
    assert!(piped.stdout == fs::read(&first).unwrap(), "byte for byte");
    assert_eq!(
        other.json(&["layer", "info", "again"])["chain_id"],
        shop.json(&["layer", "info", "base"])["chain_id"]
    );
    for (flag, program) in [("--gzip", "gzip"), ("--zstd", "zstd")] {
        if !require_program(program) {
            continue;
        }
        let packed = shop.at("packed");
        shop.ok(&["layer", "export", "base", packed.to_str().unwrap(), flag]);
        let plain = run(program, &["-dc", packed.to_str().unwrap()], &shop.at(""));
        let plain = if plain.is_empty() {
            panic!("{flag}")
        } else {
            plain
        };
        assert!(plain == fs::read(&first).unwrap(), "{flag}");
    }
}

/// So many that the file system is synced, early and at the end, and not each file.
#[test]
fn of_thousands_of_files_in_any_order_the_diff_id_is_the_digest_of_the_export() {
    let shop = Shop::in_memory();
    let tree = shop.at("many");
    for n in 0..2_200 {
        let dir = tree.join(format!("d{}", n % 40));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{n}")), vec![b'x'; n]).unwrap();
    }
    let (shuffled, canonical) = (shop.at("shuffled.tar"), shop.at("canonical.tar"));
    let (shuffled, canonical) = (shuffled.to_str().unwrap(), canonical.to_str().unwrap());
    run(
        "sh",
        &[
            "-c",
            "find . -type f | sort -r | tar --no-recursion -cf \"$0\" -T -",
            shuffled,
        ],
        &tree,
    );
    shop.ok(&["layer", "import", shuffled, "shuffled"]);
    let diff_id = shop.json(&["layer", "info", "shuffled"])["diff_id"].clone();
    shop.ok(&["layer", "export", "shuffled", canonical]);
    let digest = Digest::of(&fs::read(canonical).unwrap()).to_string();
    assert_eq!(diff_id, digest.as_str());
    assert_ne!(Digest::of(&fs::read(shuffled).unwrap()).to_string(), digest);

    let other = Shop::in_memory();
    other.ok(&["layer", "import", canonical, "canonical"]);
    assert_eq!(
        other.json(&["layer", "info", "canonical"])["diff_id"],
        digest.as_str()
    );
    shop.is_sound();
    other.is_sound();
}

#[test]
fn a_commit_comes_back_from_its_archive_as_the_same_layer() {
    if !require_root() || !super::support::require_fuse() {
        return;
    }
    let (shop, other) = (Shop::new(), Shop::new());
    shop.layer("base");
    let at = shop.workspace("job", &["base"]);
    fs::remove_file(at.join("a")).unwrap();
    fs::remove_dir_all(at.join("dir")).unwrap();
    fs::create_dir(at.join("dir")).unwrap();
    fs::write(at.join("dir/new"), "new\n").unwrap();
    shop.ok(&["layer", "commit", "job", "app"]);
    let names = {
        let tar = shop.at("app.tar");
        shop.ok(&["layer", "export", "app", tar.to_str().unwrap()]);
        other.ok(&["layer", "import", tar.to_str().unwrap(), "app"]);
        String::from_utf8(run("tar", &["-tf", tar.to_str().unwrap()], &shop.at(""))).unwrap()
    };
    assert!(
        names.lines().any(|n| n.trim_start_matches("./") == ".wh.a"),
        "{names}"
    );
    assert!(
        names
            .lines()
            .any(|n| n.trim_start_matches("./") == "dir/.wh..wh..opq"),
        "{names}"
    );
    assert_eq!(
        shop.json(&["layer", "info", "app"])["diff_id"],
        other.json(&["layer", "info", "app"])["diff_id"]
    );
    other.is_sound();
}

#[test]
fn a_digest_that_does_not_fit_imports_nothing() {
    let shop = Shop::new();
    let tar = archive(&shop);
    let path = tar.to_str().unwrap();
    let sum = String::from_utf8(run("sha256sum", &[path], &shop.at(""))).unwrap();
    let right = format!("sha256:{}", &sum[..64]);
    let wrong = format!("sha256:{}", "0".repeat(64));
    shop.fails(
        6,
        "has the digest",
        &["layer", "import", path, "x", "--digest", &wrong],
    );
    shop.fails(
        2,
        "is no digest",
        &["layer", "import", path, "x", "--digest", "md5:00"],
    );
    assert_eq!(shop.ok(&["layer", "list", "-q"]), "");
    assert_eq!(fs::read_dir(shop.inside("staging")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(shop.inside("layers")).unwrap().count(), 0);
    shop.ok(&["layer", "import", path, "x", "--digest", &right]);
    if require_program("gzip") {
        let packed = shop.at("packed");
        fs::write(&packed, run("gzip", &["-c", path], &shop.at(""))).unwrap();
        shop.ok(&[
            "layer",
            "import",
            packed.to_str().unwrap(),
            "y",
            "--digest",
            &right,
        ]);
    }
}

#[test]
fn a_bad_archive_leaves_nothing() {
    let shop = Shop::new();
    let tar = archive(&shop);
    let mut bytes = fs::read(&tar).unwrap();
    bytes.truncate(bytes.len() / 2);
    let cut = shop.at("cut.tar");
    fs::write(&cut, &bytes).unwrap();
    shop.fails(
        6,
        "cut.tar: the archive is damaged",
        &["layer", "import", cut.to_str().unwrap(), "x"],
    );
    fs::write(&cut, vec![7u8; 100_000]).unwrap();
    assert_ne!(
        shop.run(&["layer", "import", cut.to_str().unwrap(), "x"])
            .code,
        0
    );
    shop.fails(
        3,
        "does not exist",
        &["layer", "import", "/no/such/file", "x"],
    );
    if require_program("python3") && Path::new("/usr/bin/python3").exists() {
        let evil = shop.at("evil.tar");
        let script = "import tarfile,sys,io\nt=tarfile.open(sys.argv[1],'w')\ni=tarfile.TarInfo('good');t.addfile(i)\ni=tarfile.TarInfo('../../evil');i.size=1\nt.addfile(i,io.BytesIO(b'x'))\nt.close()";
        run(
            "/usr/bin/python3",
            &["-c", script, evil.to_str().unwrap()],
            &shop.at(""),
        );
        let answer = shop.run(&["layer", "import", evil.to_str().unwrap(), "x"]);
        assert_ne!(answer.code, 0);
        assert!(
            answer.err.contains("../../evil"),
            "the entry is named: {answer:?}"
        );
    }
    assert_eq!(shop.ok(&["layer", "list", "-q"]), "");
    for part in ["staging", "layers"] {
        assert_eq!(
            fs::read_dir(shop.inside(part)).unwrap().count(),
            0,
            "{part}"
        );
    }
    assert!(!shop.at("evil").exists());
    shop.is_sound();
}

#[test]
fn an_export_that_fails_leaves_no_archive() {
    let shop = Shop::new();
    shop.layer("base");
    let path = shop.ok(&["layer", "path", "base"]);
    fs::write(format!("{path}/a"), "evil").unwrap();
    let out = shop.at("out");
    fs::create_dir(&out).unwrap();
    let file = out.join("base.tar");
    shop.fails(
        6,
        "was changed",
        &["layer", "export", "base", file.to_str().unwrap()],
    );
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    assert_eq!(
        shop.run(&["layer", "export", "nobody", file.to_str().unwrap()])
            .code,
        3
    );
}

#[test]
fn a_terminal_is_refused_an_archive_and_shown_a_bar() {
    if !require_program("script") {
        return;
    }
    let shop = Shop::new();
    let tar = archive(&shop);
    shop.ok(&["layer", "import", tar.to_str().unwrap(), "base"]);
    let on_terminal = |words: &str| {
        let line = format!(
            "{} --root {} {words}",
            acetate_bin().display(),
            shop.root().display()
        );
        let done = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            // There no bar is drawn.
            .env_remove("CI")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Answer::of(&done)
    };
    let refused = on_terminal("layer export base -");
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.out.contains("not written to a terminal"),
        "{refused:?}"
    );
    // Long enough that the bar is drawn.
    let big = shop.at("big");
    fs::create_dir(&big).unwrap();
    for i in 0..8_000 {
        fs::write(big.join(format!("{i}")), "x").unwrap();
    }
    let tar = shop.at("big.tar");
    run(
        "tar",
        &[
            "-C",
            big.to_str().unwrap(),
            "-cf",
            tar.to_str().unwrap(),
            ".",
        ],
        &big,
    );
    let shown = on_terminal(&format!("layer import {} big", tar.display()));
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(
        shown.out.contains(" left") && shown.out.contains("/s"),
        "{shown:?}"
    );
    let quiet = on_terminal(&format!("layer import {} quiet -q", tar.display()));
    assert!(!quiet.out.contains(" left"), "{quiet:?}");
    let piped = shop.run(&["layer", "import", tar.to_str().unwrap(), "piped"]);
    assert!(
        !piped.err.contains(" left"),
        "no bar where nobody looks: {piped:?}"
    );
}

#[test]
fn a_full_disk_ends_an_import_and_changes_nothing() {
    if !require_root() {
        return;
    }
    own_mounts();
    let shop = Shop::bare();
    fs::create_dir(shop.root()).unwrap();
    let root = shop.root();
    run(
        "mount",
        &[
            "-t",
            "tmpfs",
            "-o",
            "size=2m",
            "none",
            root.to_str().unwrap(),
        ],
        &shop.at(""),
    );
    shop.ok(&["init"]);
    shop.layer("base");
    let big = shop.at("big");
    fs::create_dir(&big).unwrap();
    fs::write(big.join("file"), vec![7u8; 4 << 20]).unwrap();
    let tar = shop.at("big.tar");
    run(
        "tar",
        &[
            "-C",
            big.to_str().unwrap(),
            "-cf",
            tar.to_str().unwrap(),
            ".",
        ],
        &big,
    );
    for words in [
        ["layer", "import", tar.to_str().unwrap(), "big"],
        ["layer", "create", "big", big.to_str().unwrap()],
    ] {
        let answer = shop.run(&words);
        assert_eq!(answer.code, 1, "{answer:?}");
        assert!(
            answer.err.contains("No space left") && answer.err.contains("make room"),
            "{answer:?}"
        );
        assert_eq!(shop.ok(&["layer", "list", "-q"]), "base");
        assert_eq!(fs::read_dir(shop.inside("staging")).unwrap().count(), 0);
        shop.is_sound();
    }
    // A commit that has to copy, and one that has not.
    if super::support::require_fuse() {
        let at = shop.workspace("job", &["base"]);
        fs::write(at.join("file"), vec![1u8; 1_200 << 10]).unwrap();
        let answer = shop.run(&["layer", "commit", "job", "app"]);
        assert_eq!(answer.code, 1, "{answer:?}");
        fs::write(at.join("small"), "the mount goes on\n").unwrap();
        shop.is_sound();
        shop.ok(&["ws", "unmount", "job"]);
        shop.ok(&["layer", "commit", "job", "app"]);
        shop.is_sound();
        shop.ok(&["ws", "rm", "job"]);
    }
    run("umount", &["-l", root.to_str().unwrap()], &shop.at(""));
    fs::create_dir_all(shop.root()).unwrap();
}

#[test]
fn an_ordinary_users_store_keeps_what_the_archive_says() {
    if !require_root() || !require_program("setpriv") {
        return;
    }
    let shop = Shop::new();
    fs::set_permissions(shop.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    let tar = archive(&shop);
    fs::set_permissions(&tar, fs::Permissions::from_mode(0o644)).unwrap();
    shop.ok(&["layer", "import", tar.to_str().unwrap(), "base"]);
    let by_root = shop.at("root.tar");
    shop.ok(&["layer", "export", "base", by_root.to_str().unwrap()]);
    let home = shop.at("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65_534), Some(65_534)).unwrap();
    let program = shop.at("acetate");
    fs::copy(acetate_bin(), &program).unwrap();
    let script = format!(
        "set -eu; cd {home}; export HOME={home}; A={program}; umask 077
         $A layer import {tar} base; $A layer verify base; $A layer export base user.tar >/dev/null
         $A layer ls base; stat -c %u $($A layer path base)/dir",
        home = home.display(),
        program = program.display(),
        tar = tar.display()
    );
    let answer = Answer::of(&as_user(65_534, &script).output().unwrap());
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        fs::read(home.join("user.tar")).unwrap() == fs::read(&by_root).unwrap(),
        "byte for byte"
    );
    assert!(
        answer.out.contains("1000:100"),
        "the recorded owner is shown: {answer:?}"
    );
    assert!(
        answer.out.ends_with("65534\n"),
        "the files are the user's own: {answer:?}"
    );
    let tree = String::from_utf8(run(
        "tar",
        &["--numeric-owner", "-tvf", by_root.to_str().unwrap()],
        &home,
    ))
    .unwrap();
    assert!(
        tree.contains("1000/1000") && tree.contains("crw-"),
        "symlink and device are in it: {tree}"
    );
}

#[test]
fn an_ordinary_user_may_make_a_layer_of_anybodys_directory() {
    if !require_root() || !require_program("setpriv") {
        return;
    }
    let shop = Shop::new();
    fs::set_permissions(shop.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    let tree = shop.tree("tree");
    std::os::unix::fs::chown(tree.join("dir"), Some(1000), Some(100)).unwrap();
    shop.ok(&["layer", "create", "base", tree.to_str().unwrap()]);
    let home = shop.at("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65_534), Some(65_534)).unwrap();
    let program = shop.at("acetate");
    fs::copy(acetate_bin(), &program).unwrap();
    let script = format!(
        "set -eu; export HOME={home}; {program} layer create base {tree} >/dev/null; {program} layer info base --format json",
        home = home.display(),
        program = program.display(),
        tree = tree.display()
    );
    let answer = Answer::of(&as_user(65_534, &script).output().unwrap());
    assert_eq!(answer.code, 0, "{answer:?}");
    let info: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(
        info["diff_id"],
        shop.json(&["layer", "info", "base"])["diff_id"]
    );
    assert_eq!(info["disguised"], true);
    assert!(text(tree.join("a")).starts_with("tree"));
}

/// Runs a script as root of a user namespace with many ids, which keeps owners but can make no
/// device.
fn as_root_of_many(shop: &Shop, script: &str) -> super::shop::Answer {
    use std::io::{BufRead, BufReader, Write};
    let script = format!(
        "echo ready; read go; PATH={}:$PATH; export HOME=$PWD; exec sh -ec '{script}'",
        acetate_bin().parent().unwrap().display()
    );
    let mut child = Command::new("unshare")
        .args(["-Um", "sh", "-c", &script])
        .current_dir(shop.at(""))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    out.read_line(&mut ready).unwrap();
    for map in ["uid_map", "gid_map"] {
        let path = format!("/proc/{}/{map}", child.id());
        fs::write(path, "0 0 70000").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut told = String::new();
    std::io::Read::read_to_string(&mut out, &mut told).unwrap();
    let ended = child.wait_with_output().unwrap();
    let mut answer = super::shop::Answer::of(&ended);
    answer.out = told;
    answer
}

/// It was taken for one that has its owners in xattrs, and exported with root's only.
#[test]
fn a_layer_with_real_owners_and_a_device_that_could_not_be_made_keeps_its_owners() {
    if !require_root() || !super::support::host::require_userns() {
        return;
    }
    let shop = Shop::bare();
    let tree = shop.at("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "file\n").unwrap();
    std::os::unix::fs::symlink("file", tree.join("link")).unwrap();
    std::os::unix::fs::chown(tree.join("file"), Some(5), Some(6)).unwrap();
    std::os::unix::fs::lchown(tree.join("link"), Some(1000), Some(1000)).unwrap();
    let done = Command::new("mknod")
        .arg(tree.join("null"))
        .args(["c", "1", "3"])
        .status();
    assert!(done.unwrap().success());
    let packed = Command::new("tar")
        .current_dir(&tree)
        .args(["-cf", shop.at("tree.tar").to_str().unwrap(), "."])
        .status();
    assert!(packed.unwrap().success());
    let answer = as_root_of_many(
        &shop,
        "acetate init store >/dev/null; export ACETATE_ROOT=$PWD/store
         acetate layer import tree.tar base >/dev/null
         acetate layer export base - | tar --numeric-owner -tvf - | tr -s \" \" | cut -d\" \" -f1,2,3,6
         acetate layer info base --format json | grep -o \"disguised[^,]*\"
         acetate ws create --copy job -l base >/dev/null; touch $(acetate ws path job)/new
         acetate layer commit job flat --squash >/dev/null
         acetate layer export flat - | tar --numeric-owner -tvf - | tr -s \" \" | cut -d\" \" -f1,2,3,6
         acetate fsck --digests
         test -w /dev/fuse || exit 0
         acetate ws create seen -l base >/dev/null; cd $(acetate ws path seen)
         stat -c %F:%u:%g:%t:%T file link null; cd /; acetate ws rm -f seen",
    );
    assert_eq!(answer.code, 0, "{answer:?}");
    if super::support::require_fuse() {
        let (_, shown) = answer.out.split_once("regular file:").unwrap();
        let wanted = "5:6:0:0\nsymbolic link:1000:1000:0:0\ncharacter special file:0:0:1:3\n";
        assert_eq!(shown, wanted, "{answer:?}");
    }
    for (what, times) in [
        ("-rw-r--r-- 5/6 5 file\n", 2),
        ("lrwxrwxrwx 1000/1000 0 link\n", 2),
        ("crw-r--r-- 0/0 1,3 null\n", 2),
        ("disguised\": false", 1),
    ] {
        assert_eq!(
            answer.out.matches(what).count(),
            times,
            "{what}: {answer:?}"
        );
    }
}

/// `.wh..wh..opq` in the root of an archive hides all layers below (OCI image-spec, layer.md, "Opaque Whiteout"). As root it
/// became an attribute of the layer's root, which a mount does not go by: what was hidden was shown.
#[test]
fn an_opaque_archive_hides_its_parents() {
    let shop = Shop::new();
    let at = shop.at("opaque");
    fs::create_dir(&at).unwrap();
    fs::write(at.join("k"), "").unwrap();
    fs::write(at.join(".wh..wh..opq"), "").unwrap();
    shop.layer("below");
    for (name, names) in [("one", &["."][..]), ("two", &["k", ".wh..wh..opq"])] {
        let file = shop.at(&format!("{name}.tar"));
        let file = file.to_str().unwrap();
        run("tar", &[&["-cf", file], names].concat(), &at);
        shop.ok(&["layer", "import", "--parent", "below", file, name]);
        assert_eq!(shop.ok(&["layer", "ls", name, "-q"]), "k", "{name}");
        // What it deletes is told too.
        assert_eq!(
            shop.ok(&["layer", "diff", name, "-q"]),
            "/a\n/b\n/dir\n/k\n/link",
            "{name}"
        );
        shop.ok(&["layer", "export", name, file]);
        let again = format!("{name}-again");
        shop.ok(&["layer", "import", "--parent", "below", file, &again]);
        assert_eq!(shop.ok(&["layer", "ls", &again, "-q"]), "k", "{again}");
    }
    shop.is_sound();
}
