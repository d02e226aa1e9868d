//! Section B, first part: rename and unlink. Listings are in `rename_listing.rs`.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, RenameFlags};

use crate::support::story::{Story, on_both, on_ours, sh, sh_as};
use crate::support::{Base, Snapshot};

/// What a source or a target of a rename can be.
const KINDS: [&str; 9] = [
    "upper_f", "lower_f", "both_f", "upper_d", "lower_d", "full_d", "white_f", "white_d", "none",
];

/// Every pair of them, each in a directory of its own: (directory, source, target).
fn pairs() -> Vec<(String, &'static str, &'static str)> {
    KINDS
        .iter()
        .flat_map(|s| KINDS.iter().map(move |t| (format!("{s}-{t}"), *s, *t)))
        .collect()
}

/// The names of all objects whose kind is one of `kinds`, each with `prefix` and `suffix`.
fn all(kinds: &[&str], prefix: &str, suffix: &str) -> String {
    let mut names = String::new();
    for (dir, source, target) in pairs() {
        for (end, kind) in [("s", source), ("t", target)] {
            if kinds.contains(&kind) {
                names += &format!(" {prefix}{dir}/{end}{suffix}");
            }
        }
    }
    names
}

/// F#271, F#274: RENAME_NOREPLACE said EEXIST onto a deleted name. Every flag, from every kind of source onto every
/// kind of target: the errno and the tree are the kernel's.
#[test]
fn f271_rename_flags_from_every_kind_onto_every_kind() {
    let dirs: String = pairs()
        .iter()
        .map(|(dir, ..)| format!(" l1/{dir}"))
        .collect();
    let setup = format!(
        "mkdir {dirs}; mkdir {}; mkdir -p {}; for f in {}; do echo lower > $f; done",
        all(&["lower_d", "full_d", "white_d"], "l1/", ""),
        all(&["full_d"], "l0/", ""),
        all(&["lower_f", "both_f", "white_f"], "l1/", "")
            + &all(&["full_d", "white_d"], "l1/", "/x"),
    );
    let inside = format!(
        "for f in {}; do echo upper >> $f; done; mkdir {}; rm -r {}",
        all(&["upper_f", "both_f"], "", ""),
        all(&["upper_d"], "", ""),
        all(&["white_f", "white_d"], "", ""),
    );
    let flags = [
        RenameFlags::empty(),
        RenameFlags::NOREPLACE,
        RenameFlags::EXCHANGE,
        RenameFlags::WHITEOUT,
        RenameFlags::NOREPLACE | RenameFlags::EXCHANGE,
    ];
    for flag in flags {
        on_both(2, &setup, |root| {
            sh(root, &inside).unwrap();
            let mut outcomes = Vec::new();
            for (dir, ..) in pairs() {
                let (from, to) = (root.join(&dir).join("s"), root.join(&dir).join("t"));
                let result = rustix::fs::renameat_with(CWD, from, CWD, to, flag);
                outcomes.push(format!(
                    "{flag:?} {dir}: {:?}",
                    result.map_err(|e| e.raw_os_error())
                ));
            }
            let tree = Snapshot::of(root);
            tree.assert_sound("after the renames");
            let names: Vec<_> = tree
                .objects
                .iter()
                .map(|(name, o)| format!("{name} {} {}", o.kind, o.content))
                .collect();
            (outcomes, names)
        });
    }
}

/// F#189, F#191: a directory stayed behind as a ghost: not listed, but there for stat, root 0700. bitbake hard-links a
/// whole tree, removes the old one and renames the new one into its place, again and again.
#[test]
fn f189_a_farm_of_hard_links_renamed_into_place_leaves_no_ghost() {
    Story::new(1, "mkdir -p l0/sysroot/usr/lib l0/sysroot/usr/bin; for i in 1 2 3; do echo $i > l0/sysroot/usr/lib/f$i; done; echo b > l0/sysroot/usr/bin/b")
        .step(
            "for i in 1 2 3; do
                cp -al sysroot sysroot.new; echo $i > sysroot.new/usr/stamp; rm -rf sysroot; test ! -e sysroot
                mv sysroot.new sysroot; test ! -e sysroot.new; ! stat sysroot.new 2>/dev/null; cat sysroot/usr/stamp; stat -c %a sysroot sysroot/usr
             done; stat -c %h sysroot/usr/lib/f1",
        )
        .step("rm -rf sysroot/usr/lib; test ! -e sysroot/usr/lib; mkdir sysroot/usr/lib; ls -A sysroot/usr/lib; find . | sort")
        .run();
}

/// F#160, F#164, F#280: a file overwritten and then deleted showed the original of a lower again; the answers were
/// stale after a directory move. A dnf update, then the removal, over three layers.
#[test]
fn f160_overwritten_then_deleted_is_deleted() {
    Story::new(
        3,
        "for l in l0 l1 l2; do mkdir -p $l/usr/lib/pkg; echo $l > $l/usr/lib/pkg/lib.so; done; echo 2 > l2/usr/lib/pkg/only2; ln -s lib.so l2/usr/lib/pkg/lib.so.1",
    )
    .step(
        "cd usr/lib/pkg; cat lib.so; echo new > lib.so.rpmnew; mv lib.so.rpmnew lib.so; cat lib.so.1; rm lib.so; test ! -e lib.so; test ! -e lib.so.1
         cd ..; mv pkg pkg2; test ! -e pkg/only2; ls pkg2; mv pkg2 pkg; ls pkg; ! cat pkg/lib.so 2>/dev/null",
    )
    .step("cd usr/lib; ls pkg; test ! -e pkg/lib.so; rm -r pkg; mkdir pkg; ls -A pkg; echo back > pkg/lib.so; cat pkg/lib.so")
    .step("cat usr/lib/pkg/lib.so; ls usr/lib/pkg")
    .run();
}

/// TB#208, scylladb/scylladb#5350, A#2950: dnf renames its new repodata directory over the old one, which it has emptied:
/// "Directory not empty", or "File exists", because whiteouts were left in it.
#[test]
fn tb208_a_directory_renamed_over_an_emptied_lower_directory() {
    Story::new(2, "mkdir -p l1/repo/repodata l0/repo/repodata; for i in 1 2 3; do echo $i > l1/repo/repodata/$i; done; echo 0 > l0/repo/repodata/0")
        .step("cd repo; mkdir .repodata; echo new > .repodata/repomd; rm repodata/*; mv -T .repodata repodata; ls -A . repodata")
        .step("cd repo; ls repodata; mkdir .repodata; echo newer > .repodata/repomd2; rm repodata/*; mv -T .repodata repodata; ls -A . repodata; rm repodata/*; rmdir repodata")
        .run();
    // The same with a merged directory as the source: the kernel needs redirect_dir=on, we need nothing.
    Story::new(2, "mkdir -p l1/old l1/new/s l0/new; echo o > l1/old/o; echo n > l1/new/s/n; echo m > l0/new/m")
        .step("rm old/o; mv -T new old; find . | sort; mkdir new; ls -A new")
        .step("cat old/s/n old/m; ! mv -T new old 2>/dev/null; rmdir new; mv -T old new; find . | sort")
        .run();
}

/// F#213: pip moves a package aside, installs the new one, and on an error moves the old one back: files vanished at
/// random.
#[test]
fn f213_pip_moves_aside_installs_fails_and_moves_back() {
    Story::new(
        2,
        "mkdir -p l1/site/pkg/sub l1/site/pkg-1.dist-info; for i in 1 2 3 4; do echo $i > l1/site/pkg/m$i.py; echo s$i > l1/site/pkg/sub/s$i.py; done
         echo r > l1/site/pkg-1.dist-info/RECORD; mkdir -p l0/site/pkg; echo patched > l0/site/pkg/m2.py",
    )
    .step(
        "cd site; for round in 1 2 3; do
            mkdir tmp; mv pkg tmp/pkg; mv pkg-1.dist-info tmp/; mkdir -p pkg/sub; echo broken > pkg/m1.py; echo b > pkg/sub/s1.py
            rm -rf pkg; mv tmp/pkg pkg; mv tmp/pkg-1.dist-info .; rmdir tmp; find . -type f | sort | xargs cat
         done",
    )
    .step("cd site; find . | sort; mkdir tmp; mv pkg/m3.py tmp/; mv pkg tmp/; mv tmp/pkg .; ls -A pkg; mv tmp/m3.py pkg; rmdir tmp; cat pkg/*.py")
    .run();
}

/// F#175, F#256, NVIDIA/enroot#219: a file deleted while open could not be used any more (tempfile, here-strings,
/// pytest): fstat, ftruncate, reopening by /proc/self/fd, for files of the upper and of a lower.
#[test]
fn f175_a_deleted_open_file_works_in_every_call() {
    on_both(
        1,
        "echo lower-content > l0/lower; chmod 640 l0/lower",
        |root| {
            fs::write(root.join("upper"), "upper-content").unwrap();
            let mut seen = Vec::new();
            for name in ["lower", "upper"] {
                let path = root.join(name);
                let mut file = File::options().read(true).write(true).open(&path).unwrap();
                fs::remove_file(&path).unwrap();
                let meta = file.metadata().unwrap();
                seen.push(format!(
                    "{name} {} {} {:o}",
                    meta.nlink(),
                    meta.len(),
                    meta.mode()
                ));
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                seen.push(text);
                file.write_all(b"more").unwrap();
                file.set_len(8).unwrap();
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 100).unwrap();
                rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o604)).unwrap();
                rustix::fs::fsetxattr(&file, "user.x", b"1", rustix::fs::XattrFlags::empty())
                    .unwrap();
                file.sync_all().unwrap();
                let again = fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
                seen.push(again.escape_ascii().to_string());
                let mut second = File::options()
                    .write(true)
                    .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
                    .unwrap();
                second.write_all(b"LOW").unwrap();
                // A new file of the same name is another file.
                fs::write(&path, "new").unwrap();
                file.rewind().unwrap();
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                seen.push(text.trim_end_matches('\0').to_owned());
                let meta = file.metadata().unwrap();
                seen.push(format!("{} {} {:o}", meta.nlink(), meta.len(), meta.mode()));
                seen.push(fs::read_to_string(&path).unwrap());
            }
            seen
        },
    );
    // Here-strings and tempfiles of real programs.
    Story::new(1, "mkdir l0/tmp; echo x > l0/tmp/old")
        .step("exec 3<>tmp/t; rm tmp/t; echo hello >&3; cat /proc/self/fd/3; exec 4<tmp/old; rm tmp/old; cat <&4; TMPDIR=$PWD/tmp sort <<E\nb\na\nE\n")
        .run();
}

/// F#135: a directory of mode 000 could not be removed by its owner, since the daemon opened it.
#[test]
fn f135_a_directory_of_mode_000_is_removed_by_its_owner() {
    on_ours(
        Base::Shm,
        1,
        "mkdir -p l0/d/gone l0/d/lower000; chmod 000 l0/d/lower000; chown -R 1000:1000 l0 upper; chmod 777 upper",
        "",
        |layers, _| {
            sh_as(1000, &layers.merged, "cd d; mkdir m; chmod 000 m; rmdir m; rmdir lower000; chmod 000 gone; rmdir gone; mkdir gone; ls").map(|out| assert_eq!(out, "gone\n")).unwrap();
        },
    );
}

// O_TMPFILE (row F#175): FUSE as served by the fuser library answers EOPNOTSUPP; glibc's tmpfile(3) and the programs that
// use the flag fall back to a named file that is unlinked, which is the test above.
