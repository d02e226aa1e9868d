//! File systems without room, without descriptors, or without xattrs.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::support::story::sh;
use crate::support::{Base, Layers, Mount};
use crate::{Scratch, Watch, able, code, descriptors, inside};

/// A tmpfs for the upper with room for few objects.
const SMALL: &str = "-t tmpfs -o nr_inodes=64,size=8m none";

/// Takes all inodes of the small file system but `free`.
fn fill(layers: &Layers, free: usize) {
    let dir = layers.root.join("fs/fill");
    fs::create_dir_all(&dir).unwrap();
    let made = (0..1000)
        .take_while(|i| File::create(dir.join(i.to_string())).is_ok())
        .count();
    assert!(made < 1000, "the file system has no end");
    for i in made.saturating_sub(free)..made {
        fs::remove_file(dir.join(i.to_string())).unwrap();
    }
}

/// Gives them back.
fn empty(layers: &Layers) {
    fs::remove_dir_all(layers.root.join("fs/fill")).unwrap();
}

/// Finding 4: a removed directory held open, whose inode number the file system had given away again, was taken for the new
/// directory when nothing kept its inode (few descriptors): what was made in the new one failed with ENOENT.
#[test]
fn finding_04_a_reused_inode_number_is_a_new_directory() {
    if !able() {
        return;
    }
    for base in [Base::Disk, Base::Shm] {
        let layers = Layers::new(base, 1);
        let mount = Mount::acetate(&layers, "fd_cache=4");
        let watch = Watch::over(&mount);
        for round in 0..3 {
            let all = |kind: &str| {
                (0..12)
                    .map(|i| layers.at(&format!("{kind}{round}-{i}")))
                    .collect::<Vec<_>>()
            };
            let (old, new) = (all("d"), all("e"));
            old.iter().for_each(|d| fs::create_dir(d).unwrap());
            let open: Vec<_> = old.iter().map(|d| File::open(d).unwrap()).collect();
            old.iter().for_each(|d| fs::remove_dir(d).unwrap());
            new.iter().for_each(|d| fs::create_dir(d).unwrap());
            let made: Vec<_> = new
                .iter()
                .map(|d| code(fs::write(d.join("f"), "x")))
                .collect();
            assert_eq!(made, vec![Ok(()); 12], "{base:?}, round {round}");
            drop(open);
        }
        drop(watch);
        mount.unmount();
        assert_eq!(
            sh(&layers.upper, "find . -name f | wc -l").unwrap(),
            "36\n",
            "{base:?}"
        );
    }
}

/// Finding 4, the rest: fstat(2) of a removed directory that is still open was ENOENT where nothing kept its inode. It is a
/// directory without links, as on any file system, and empty.
#[test]
fn finding_04_a_removed_directory_that_is_open_still_answers() {
    if !able() {
        return;
    }
    let layers = Layers::new(Base::Disk, 1);
    sh(
        &layers.lowers[0],
        "for i in 0 1 2 3 4 5 6 7 8 9; do mkdir low-$i; done",
    )
    .unwrap();
    let mount = Mount::acetate(&layers, "fd_cache=4");
    let watch = Watch::over(&mount);
    let mut answers = Vec::new();
    for kind in ["low", "new"] {
        let all: Vec<_> = (0..10).map(|i| layers.at(&format!("{kind}-{i}"))).collect();
        all.iter()
            .filter(|_| kind == "new")
            .for_each(|d| fs::create_dir(d).unwrap());
        let open: Vec<_> = all.iter().map(|d| File::open(d).unwrap()).collect();
        all.iter().for_each(|d| fs::remove_dir(d).unwrap());
        answers.extend(open.iter().map(|f| {
            f.metadata()
                .map(|m| (m.is_dir(), m.nlink()))
                .map_err(|e| e.raw_os_error())
        }));
    }
    drop(watch);
    mount.unmount();
    assert_eq!(answers, vec![Ok((true, 0)); 20]);
}

/// Finding 4 for files: removed ones that are still open keep their content beside new ones with their numbers.
#[test]
fn finding_04_a_reused_inode_number_is_a_new_file() {
    if !able() {
        return;
    }
    let layers = Layers::new(Base::Disk, 1);
    let mount = Mount::acetate(&layers, "fd_cache=4");
    let watch = Watch::over(&mount);
    for round in 0..3 {
        let name = |kind: &str, i: i32| layers.at(&format!("{kind}{round}-{i}"));
        (0..12).for_each(|i| fs::write(name("old", i), format!("old {i}")).unwrap());
        let mut open: Vec<_> = (0..12)
            .map(|i| File::open(name("old", i)).unwrap())
            .collect();
        (0..12).for_each(|i| fs::remove_file(name("old", i)).unwrap());
        (0..12).for_each(|i| fs::write(name("new", i), format!("new {i}")).unwrap());
        for (i, file) in open.iter_mut().enumerate() {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, format!("old {i}"), "round {round}");
        }
        (0..12).for_each(|i| {
            assert_eq!(
                fs::read_to_string(name("new", i)).unwrap(),
                format!("new {i}"),
                "round {round}"
            )
        });
    }
    drop(watch);
    mount.unmount();
}

/// Finding 10: a copy-up of a hard-linked file that ran out of room after its anchor was made left the anchor: every later write
/// failed with EEXIST, though there was room again. A failure must leave nothing that hinders the next try.
#[test]
fn finding_10_a_copy_up_that_failed_for_room_succeeds_when_there_is_some() {
    if !able() {
        return;
    }
    for free in 0..7 {
        let mut layers = Layers::new(Base::Shm, 1);
        sh(
            &layers.root,
            "mkdir -p l0/d/e; echo orig > l0/d/a; ln l0/d/a l0/d/e/b; ln l0/d/a l0/c",
        )
        .unwrap();
        let Some(_fs) = Scratch::under(&mut layers, SMALL) else {
            return;
        };
        let mount = Mount::acetate(&layers, "");
        let watch = Watch::over(&mount);
        fill(&layers, free);
        let first = sh(&layers.merged, "echo one >> d/a");
        let same = sh(&layers.merged, "cat c d/e/b");
        let second = sh(&layers.merged, "echo two >> d/e/b");
        empty(&layers);
        let now = "cat d/a > ../seen; cmp d/a d/e/b; cmp d/a c; stat -c '%h %i' d/a d/e/b c | uniq | wc -l";
        let third = sh(
            &layers.merged,
            &format!("echo three >> d/e/b; echo four >> d/a; {now}; cat ../seen"),
        );
        drop(watch);
        mount.unmount();
        let wrote = |r: &Result<String, String>, text| if r.is_ok() { text } else { "" };
        let text = format!(
            "orig\n{}{}three\nfour\n",
            wrote(&first, "one\n"),
            wrote(&second, "two\n")
        );
        assert!(same.is_ok(), "{free} inodes free: {same:?}");
        assert_eq!(
            third,
            Ok(format!("1\n{text}")),
            "{free} inodes free: {first:?} {second:?}"
        );
        let after = inside(
            &layers,
            "",
            &format!("{now}; cat c; rm d/a d/e/b; stat -c %h c"),
        )
        .unwrap();
        assert_eq!(
            after,
            format!("1\n{text}1\n"),
            "{free} inodes free, after a remount"
        );
    }
}

/// Finding 13: on an upper without xattrs a directory could not be moved over one whose lower content had been removed
/// (ENOTEMPTY: the stand-in was marked by a file inside of it), and the target was ESTALE until the next mount.
#[test]
fn finding_13_a_directory_moves_over_an_emptied_one_on_an_upper_without_xattrs() {
    if !able() {
        return;
    }
    let mut layers = Layers::new(Base::Shm, 1);
    sh(
        &layers.root,
        "mkdir -p l0/d/deep l0/x; echo g > l0/d/g; echo h > l0/d/deep/h; echo y > l0/x/y",
    )
    .unwrap();
    let Some(_fs) = Scratch::under(&mut layers, "-t ramfs none") else {
        return;
    };
    let out = inside(&layers, "", "mkdir e; echo n > e/n; rm -r d/g d/deep; mv -T e d; ls -A d; ls; mkdir f; rm d/n x/y; mv -T d x; mv -T x f; find .").unwrap();
    assert_eq!(out, "n\nd\nx\n.\n./f\n");
    assert_eq!(
        inside(&layers, "", "find .; mkdir d x; find . | sort").unwrap(),
        ".\n./f\n.\n./d\n./f\n./x\n"
    );
}

/// Finding 14: before a directory moves over another one, the target's upper directory is replaced by a stand-in; when the move then
/// failed (no room for a whiteout), the target was ESTALE for ever, and a descriptor was lost. A failed rename must leave both
/// sides as they were.
#[test]
fn finding_14_a_rename_that_failed_leaves_both_sides_usable() {
    if !able() {
        return;
    }
    let mut failed = 0;
    for free in 0..8 {
        let mut layers = Layers::new(Base::Shm, 1);
        sh(
            &layers.root,
            "mkdir l0/from l0/to; echo f > l0/from/f; echo g > l0/to/g; chmod 750 l0/to",
        )
        .unwrap();
        let Some(_fs) = Scratch::under(&mut layers, SMALL) else {
            return;
        };
        let mount = Mount::acetate(&layers, "redirect_dir=on");
        let watch = Watch::over(&mount);
        sh(
            &layers.merged,
            "rm to/g; echo n > from/n; stat to from >/dev/null",
        )
        .unwrap();
        let before = to_and_from(&layers);
        let open = descriptors(&mount);
        fill(&layers, free);
        let mut moved = Err(0);
        for _ in 0..20 {
            moved = code(fs::rename(layers.at("from"), layers.at("to")));
            if moved.is_ok() {
                break;
            }
            failed += 1;
            assert_eq!(
                before,
                to_and_from(&layers),
                "{free} inodes free: {moved:?}"
            );
        }
        let lost = descriptors(&mount).saturating_sub(open);
        empty(&layers);
        if moved.is_err() {
            assert!(
                lost < 15,
                "{free} inodes free: {lost} descriptors lost by 20 failed renames"
            );
            sh(
                &layers.merged,
                "ls -A to; echo x > to/x; rm to/x; mv -T from to",
            )
            .unwrap_or_else(|e| panic!("{free}: {e}"));
        }
        let seen = sh(&layers.merged, "find . | sort; cat to/f to/n");
        drop(watch);
        mount.unmount();
        assert_eq!(
            seen.as_deref(),
            Ok(".\n./to\n./to/f\n./to/n\nf\nn\n"),
            "{free} inodes free"
        );
        assert_eq!(
            inside(&layers, "redirect_dir=on", "find . | sort; cat to/f to/n"),
            seen,
            "{free}, after a remount"
        );
        assert_eq!(
            sh(&layers.work, "find work -mindepth 1 -name '#*' -type d").unwrap(),
            "",
            "{free}: left in the work directory"
        );
    }
    assert!(failed > 0, "no rename failed: the test tests nothing");
}

/// What both sides of that rename look like.
fn to_and_from(layers: &Layers) -> Result<String, String> {
    sh(
        &layers.merged,
        "ls -A to; stat -c '%n %i %a %h' to; ls -A from; stat -c '%n %i %a %h' from; cat from/f from/n",
    )
}

/// Finding 14 for files: the victim of a failing rename kept an entry among the orphans (a descriptor each time, or a link too many).
#[test]
fn finding_14_a_file_that_was_not_replaced_is_not_half_removed() {
    if !able() {
        return;
    }
    let mut failed = 0;
    for (free, words) in (0..6).flat_map(|free| [(free, ""), (free, "fd_cache=4")]) {
        let mut layers = Layers::new(Base::Shm, 1);
        sh(&layers.root, "echo from > l0/from").unwrap();
        let Some(_fs) = Scratch::under(&mut layers, SMALL) else {
            return;
        };
        let mount = Mount::acetate(&layers, words);
        let watch = Watch::over(&mount);
        sh(&layers.merged, "echo more >> from; echo to > to").unwrap();
        // Held open: an orphan must be kept for it.
        let held = File::options()
            .read(true)
            .write(true)
            .open(layers.at("to"))
            .unwrap();
        fill(&layers, free);
        let open = descriptors(&mount);
        for _ in 0..20 {
            if fs::rename(layers.at("from"), layers.at("to")).is_ok() {
                break;
            }
            failed += 1;
            let to = layers.at("to").metadata().unwrap();
            assert_eq!(
                (to.nlink(), held.metadata().unwrap().ino()),
                (1, to.ino()),
                "{free} {words}"
            );
        }
        let lost = descriptors(&mount).saturating_sub(open);
        held.write_at(b"TO", 0).unwrap();
        empty(&layers);
        let done = sh(
            &layers.merged,
            "if test -e from; then cat to; mv from to; fi; cat to",
        );
        drop((held, watch));
        mount.unmount();
        assert!(lost < 15, "{free} {words}: {lost} descriptors lost");
        assert!(
            matches!(done.as_deref(), Ok("from\nmore\n" | "TO\nfrom\nmore\n")),
            "{free} {words}: {done:?}"
        );
    }
    assert!(failed > 0, "no rename failed: the test tests nothing");
}
