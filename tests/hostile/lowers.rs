//! Layers that overlap, share a UUID, or hold what belongs to somebody else.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::support::host::require_program;
use crate::support::story::{Story, sh};
use crate::support::{Base, Layers, Mount};
use crate::{Scratch, able, inside};

/// Finding 1: the index names a copied-up hard link by its lower's file handle and UUID. Two cloned images have one UUID and
/// equal handles, so a write to one image's file showed in the other's, and writes to that one changed the first.
/// Every name must keep the content of its own image, and the names of one file stay one file.
#[test]
fn finding_01_cloned_images_do_not_share_their_anchors() {
    if !(able() && require_program("mkfs.ext4")) {
        return;
    }
    let layers = Layers::new(Base::Disk, 2);
    sh(
        &layers.root,
        "truncate -s 8M 1.img; mkfs.ext4 -q -F -O ^has_journal 1.img",
    )
    .unwrap();
    let Some(made) = Scratch::mount("-o loop 1.img", &layers.lowers[0]) else {
        return;
    };
    sh(&layers.root, "echo AAAA > l0/a; ln l0/a l0/b").unwrap();
    drop(made);
    sh(&layers.root, "sync -f 1.img; cp 1.img 2.img").unwrap();
    let Some(_two) = Scratch::mount("-o loop 2.img", &layers.lowers[1]) else {
        return;
    };
    sh(&layers.root, "mv l1/a l1/c; mv l1/b l1/d; echo BBBB > l1/c").unwrap();
    let Some(_one) = Scratch::mount("-o loop,ro 1.img", &layers.lowers[0]) else {
        return;
    };
    let number = |name: &str| {
        layers.lowers[usize::from(name > "b")]
            .join(name)
            .metadata()
            .unwrap()
            .ino()
    };
    assert_eq!(
        number("a"),
        number("c"),
        "the test needs equal inode numbers in both images"
    );
    let out = inside(&layers, "", "echo x >> a; cat a b c d").unwrap();
    assert_eq!(out, "AAAA\nx\nAAAA\nx\nBBBB\nBBBB\n");
    let out = inside(&layers, "", "cat c a; echo y >> d; cat b c").unwrap();
    assert_eq!(out, "BBBB\nAAAA\nx\nAAAA\nx\nBBBB\ny\n");
    assert_eq!(
        inside(&layers, "", "cat d b").unwrap(),
        "BBBB\ny\nAAAA\nx\n"
    );
}

/// Finding 2: one lower inode that two layers show (a lower inside another, layers made by `cp -al`): the second name's first
/// write failed for ever with EEXIST, and which content a name had depended on the order of the lookups.
/// As on the kernel, which knows the inode itself: all names are one file.
#[test]
fn finding_02_hard_links_across_two_lowers_are_one_file() {
    if !able() {
        return;
    }
    for order in [
        "echo one >> a; echo two >> b",
        "echo one >> b; echo two >> a",
        "cat b; echo one >> a; mv b c; echo two >> c",
    ] {
        Story::new(2, "echo orig > l0/a; ln l0/a l1/b; ln l0/a l1/z")
            .on_disk()
            .step(&format!("{order}; cat *"))
            .step("cat *; echo three >> a; cat z; stat -c %i * | uniq | wc -l")
            .run();
    }
}

/// Finding 2 again, with a lower inside another lower (which the kernel refuses): four names, two layers, one file.
#[test]
fn finding_02_a_lower_inside_another_lower_writes_through_every_name() {
    if !able() {
        return;
    }
    let mut layers = Layers::new(Base::Disk, 1);
    layers.lowers.push(layers.lowers[0].join("sub"));
    sh(
        &layers.root,
        "mkdir l0/sub; echo orig > l0/sub/a; ln l0/sub/a l0/sub/b",
    )
    .unwrap();
    let all = "for f in a b sub/a sub/b; do echo $(cat $f); done | sort -u";
    let out = inside(
        &layers,
        "",
        &format!("echo one >> sub/a; echo two >> a; {all}"),
    )
    .unwrap();
    assert_eq!(out, "orig one two\n");
    let out = inside(&layers, "", &format!("{all}; echo three >> b; {all}")).unwrap();
    assert_eq!(out, "orig one two\norig one two three\n");
}

/// Finding 3: the work directory is swept at each mount, and a lower inside of it went with the rest.
/// Such a mount must be refused, and the lower be left as it is. (As root a lower is held by a clone of its mount, and the root of a
/// clone has nothing above it: the first check saw nothing.) A lower inside the upper is refused alike.
#[test]
fn finding_03_a_lower_inside_the_work_directory_is_refused_and_kept() {
    if !able() {
        return;
    }
    for place in [
        "work/work/data",
        "work/work",
        "work/index/d",
        "work/index",
        "work/elsewhere",
        "upper/low",
        "upper/a/b/c",
    ] {
        let mut layers = Layers::new(Base::Shm, 0);
        let lower = layers.root.join(place);
        fs::create_dir_all(lower.join("d")).unwrap();
        fs::write(lower.join("d/f"), "precious").unwrap();
        layers.lowers.push(lower.clone());
        let mounted = Mount::try_acetate(&layers, "");
        let there = fs::read_to_string(lower.join("d/f"));
        assert!(mounted.is_err(), "{place}: mounted");
        assert_eq!(there.ok().as_deref(), Some("precious"), "{place}");
    }
}

/// Finding 3, the other half: `workdir=$HOME` with a `~/work` of the user's own was emptied. What no overlay has put there
/// must stay; what an overlay's crash left behind may go, and must not hinder a mount.
#[test]
fn finding_03_a_work_directory_of_the_users_own_is_not_emptied() {
    if !able() {
        return;
    }
    for (mode, name) in [
        (0o755, "letters"),
        (0o700, "letters"),
        (0o755, "cafe"),
        (0o700, "d"),
    ] {
        let layers = Layers::new(Base::Shm, 1);
        sh(&layers.root, &format!("mkdir -p work/work/{name}/deep; echo precious > work/work/{name}/deep/f; echo n > work/work/{name}/n")).unwrap();
        fs::set_permissions(layers.work.join("work"), fs::Permissions::from_mode(mode)).unwrap();
        let tree = || sh(&layers.work, "find work | sort").unwrap();
        let before = tree();
        let mounted = Mount::try_acetate(&layers, "").map(Mount::unmount);
        assert_eq!(before, tree(), "mode {mode:o}, {mounted:?}");
    }
    let layers = Layers::new(Base::Shm, 1);
    sh(&layers.root, "mkdir -m 0 -p work/work; mkdir -p 'work/work/#3/d' work/work/incompat/volatile; : > 'work/work/#7'; echo x > l0/f").unwrap();
    assert_eq!(inside(&layers, "", "echo y >> f; cat f").unwrap(), "x\ny\n");
    assert_eq!(
        sh(&layers.root, "ls -A work/work | grep '#' || true").unwrap(),
        ""
    );
}

/// Finding 6: a new upper with an old work directory showed the old upper's content, out of `work/index`.
/// The index belongs to one upper: with another one, the lowers show.
#[test]
fn finding_06_an_index_of_another_upper_is_not_used() {
    if !able() {
        return;
    }
    for base in [Base::Shm, Base::Disk] {
        let layers = Layers::new(base, 1);
        sh(&layers.root, "echo orig > l0/a; ln l0/a l0/b").unwrap();
        inside(&layers, "", "echo changed > a").unwrap();
        sh(&layers.root, "mv upper kept; mkdir upper").unwrap();
        let out = inside(&layers, "", "cat a b; echo more >> b; cat a; stat -c %h b").unwrap();
        assert_eq!(out, "orig\norig\norig\nmore\n2\n", "{base:?}");
        assert_eq!(
            inside(&layers, "", "cat a b").unwrap(),
            "orig\nmore\norig\nmore\n",
            "{base:?}"
        );
    }
}

/// Finding 20: upper and work directory inside a lower are shown empty, but `WORKDIR/index` was shown with its anchors:
/// whoever walked the mount met (and could change) the inner life of the mount itself.
#[test]
fn finding_20_the_index_does_not_show_where_a_lower_holds_the_work_directory() {
    if !able() {
        return;
    }
    let mut layers = Layers::new(Base::Disk, 1);
    layers.upper = layers.lowers[0].join("in/upper");
    layers.work = layers.lowers[0].join("in/work");
    sh(
        &layers.root,
        "mkdir -p l0/in/upper l0/in/work; echo orig > l0/a; ln l0/a l0/b",
    )
    .unwrap();
    for _ in 0..2 {
        let out = inside(
            &layers,
            "",
            "echo x >> a; cat b >/dev/null; find in/upper in/work ! -type d",
        )
        .unwrap();
        assert_eq!(out, "", "what the mount keeps for itself is seen in it");
    }
}
