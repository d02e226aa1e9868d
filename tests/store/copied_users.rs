//! Copies of ordinary users: everything in them is the user's own, and what the layers
//! record of owners, modes and devices is in their commits all the same.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::shop::{Answer, Shop};
use super::support::host::{own_mounts, require_program};
use super::support::mount::acetate_bin;
use super::support::{as_user, require_root};
use super::users::open_to_users;

/// An ordinary user, whose copies belong to the user alone.
const USER: u32 = 65_534;

/// Runs a script as that user, in a home beside the store's place, with an archive of
/// many owners; what it printed.
pub fn as_a_user(shop: &Shop, script: &str) -> String {
    let (home, program) = (shop.at("home"), shop.at("acetate"));
    if !home.exists() {
        own_mounts();
        fs::set_permissions(shop.at(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(&home).unwrap();
        fs::copy(acetate_bin(), &program).unwrap();
        archive_of_many(shop, &home);
        std::os::unix::fs::chown(&home, Some(USER), Some(USER)).unwrap();
    }
    let script = format!(
        "set -eu; cd {0}; export HOME={0} PATH={1}:$PATH
         trap 'acetate ws list -q | while read -r w; do acetate ws rm -f $w; done' EXIT
         {script}",
        home.display(),
        shop.at("").display()
    );
    let answer = Answer::of(&as_user(USER, &script).output().unwrap());
    assert_eq!(answer.code, 0, "{script}: {answer:?}");
    answer.out
}

fn archive_of_many(shop: &Shop, home: &Path) {
    let tree = shop.at("many");
    fs::create_dir_all(tree.join("dir/in")).unwrap();
    for file in ["file", "other", "setuid", "capable", "dir/in/deep", "gone"] {
        fs::write(tree.join(file), format!("{file}\n")).unwrap();
    }
    symlink("file", tree.join("link")).unwrap();
    let words = |program: &str, words: &[&str]| {
        let done = Command::new(program)
            .current_dir(&tree)
            .args(words)
            .status();
        assert!(done.unwrap().success(), "{program} {words:?}");
    };
    words("mknod", &["null", "c", "1", "3"]);
    words("chown", &["5:6", "file"]);
    words("chown", &["7:8", "dir"]);
    words("chown", &["-h", "1000:1000", "link"]);
    words("chmod", &["4755", "setuid"]);
    words("chmod", &["0640", "file"]);
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(
        tree.join("capable"),
        "security.capability",
        capability,
        flags,
    )
    .unwrap();
    let tar = home.join("many.tar");
    let tar = tar.to_str().unwrap();
    words(
        "tar",
        &[
            "--xattrs",
            "--xattrs-include=*",
            "--format=pax",
            "-cf",
            tar,
            ".",
        ],
    );
    fs::set_permissions(tar, fs::Permissions::from_mode(0o644)).unwrap();
}

/// The line of an archive's listing that ends with this name, its time left out.
fn line(listing: &str, name: &str) -> String {
    let found = listing.lines().find(|l| {
        let mut words = l.split_whitespace().skip(5);
        words.next() == Some(name)
    });
    let found = found.unwrap_or_else(|| panic!("no {name}: {listing}"));
    let words: Vec<&str> = found.split_whitespace().collect();
    [&words[..3], &words[5..]].concat().join(" ")
}

#[test]
fn an_ordinary_users_copy_keeps_what_layers_record() {
    if !require_root() || !require_program("setpriv") {
        return;
    }
    let shop = Shop::bare();
    let listing = as_a_user(
        &shop,
        "acetate layer import many.tar base >/dev/null
         acetate ws create --copy job -l base >/dev/null; cd $(acetate ws path job)
         test -z \"$(acetate ws diff job)\"
         chmod 600 file; chmod 700 capable; mv null nothing; mv link alias; mv dir moved; rm gone
         echo more >>setuid; echo new >new; ln -s new sym; echo anew >x; mv x other
         acetate ws diff job; cd
         acetate layer commit job app >/dev/null; acetate layer commit job flat --squash >/dev/null
         for l in app flat; do acetate layer export $l $l.tar >/dev/null; echo == $l
         tar --numeric-owner --xattrs --xattrs-include='*' -tvvf $l.tar; done; acetate fsck --digests",
    );
    let (shown, tars) = listing.split_once("== app\n").unwrap();
    let (app, flat) = tars.split_once("== flat\n").unwrap();
    let shown: Vec<String> = shown
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let expected = [
        "A /alias",
        "C /capable mode",
        "D /dir",
        "C /file mode",
        "D /gone",
        "D /link",
        "A /moved",
        "A /moved/in",
        "A /moved/in/deep",
        "A /new",
        "A /nothing",
        "D /null",
        "C /other owner,content,mtime",
        "C /setuid mode,content,mtime",
        "A /sym",
    ];
    assert_eq!(shown, expected);
    for tar in [app, flat] {
        assert_eq!(line(tar, "file"), "-rw------- 5/6 5 file");
        assert_eq!(line(tar, "alias"), "lrwxrwxrwx 1000/1000 0 alias -> file");
        assert_eq!(line(tar, "nothing"), "crw-r--r-- 0/0 1,3 nothing");
        assert_eq!(line(tar, "moved/"), "drwxr-xr-x 7/8 0 moved/");
        // A write takes the bit away, as anywhere.
        assert_eq!(line(tar, "setuid"), "-rwxr-xr-x 0/0 12 setuid");
        assert_eq!(line(tar, "other"), "-rw-r--r-- 65534/65534 5 other");
        assert_eq!(line(tar, "new"), "-rw-r--r-- 65534/65534 4 new");
        assert_eq!(line(tar, "sym"), "lrwxrwxrwx 65534/65534 0 sym -> new");
        let mut lines = tar.lines().skip_while(|l| !l.ends_with(" capable"));
        assert!(
            lines.next().unwrap().starts_with("-rwx------* 0/0"),
            "{tar}"
        );
        assert!(
            lines.next().unwrap().contains("security.capability"),
            "{tar}"
        );
    }
    assert!(app.contains(" .wh.gone") && !flat.contains(".wh."), "{app}");
}

/// The same by an ordinary user in a mounted workspace and in a copied one.
#[test]
fn an_ordinary_users_mount_and_copy_find_the_same() {
    let Some(_device) = open_to_users(|| require_program("fusermount3")) else {
        return;
    };
    let shop = Shop::bare();
    let out = as_a_user(
        &shop,
        "acetate layer import many.tar base >/dev/null
         own='--uidmap 0:65534:1 --gidmap 0:65534:1'
         acetate ws create mounted -l base $own >/dev/null
         acetate ws create --copy copied -l base $own >/dev/null
         for w in mounted copied; do
           ( cd $(acetate ws path $w); chmod 600 setuid; rm gone; echo anew >x; mv x other
             mkfifo fifo; echo deep >capable; mkdir new; echo new >new/file; ln new/file new/same
             touch -h -d @1700000000 new/file new fifo other capable . )
           acetate ws diff $w >$w.diff
         done
         diff mounted.diff copied.diff
         acetate layer commit mounted m >/dev/null; acetate layer commit copied c >/dev/null
         for l in m c; do acetate layer export $l - | tar --numeric-owner --full-time --xattrs --xattrs-include='*' -tvvf - >$l.list; done
         diff m.list c.list
         for w in mounted copied; do
           acetate layer commit $w $w.flat --squash >/dev/null
           acetate layer export $w.flat - | tar --numeric-owner -tvf - | grep -c '1000/1000 .* link -> file'
         done
         wc -l <c.list
         acetate ws unmount mounted; acetate ws rm mounted copied; acetate fsck --digests",
    );
    // The owner that a layer records of a symlink is in the squashed layers too.
    let lines = out.trim().strip_prefix("1\n1\n");
    assert!(
        lines.is_some_and(|n| n.parse::<u32>().unwrap() > 8),
        "{out}"
    );
}

/// A directory in place, which belongs to somebody else: the user's copy of it can be
/// worked in, and the layer records whose it is.
#[test]
fn a_copy_of_somebody_elses_directory_can_be_worked_in() {
    if !require_root() || !require_program("setpriv") {
        return;
    }
    let shop = Shop::bare();
    let theirs = shop.tree("theirs");
    std::os::unix::fs::chown(theirs.join("dir/file"), Some(5), Some(6)).unwrap();
    let out = as_a_user(
        &shop,
        "acetate ws create --copy job -l $(readlink -f ../theirs) >/dev/null; cd $(acetate ws path job)
         test -z \"$(acetate ws diff job)\"
         echo more >>dir/file; rm link; cd; acetate ws diff job
         acetate layer commit job app >/dev/null; acetate layer export app - | tar --numeric-owner -tvvf -",
    );
    assert!(out.contains("C  /dir/file  content,mtime"), "{out}");
    assert!(out.contains("D  /link"), "{out}");
    assert_eq!(line(&out, "dir/file"), "-rw-r--r-- 5/6 10 dir/file");
    assert_eq!(line(&out, "dir/"), "drwxr-xr-x 0/0 0 dir/");
    // What the user cannot read cannot be copied, and is named.
    let closed = as_a_user(
        &shop,
        "acetate ws create --copy two -l $(readlink -f ../many) 2>&1 && exit 1
         test -z \"$(acetate ws list -q)\"",
    );
    assert!(
        closed.contains("/file cannot be copied: Permission denied"),
        "{closed}"
    );
}
