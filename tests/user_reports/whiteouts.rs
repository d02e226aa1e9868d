//! Section A: whiteouts, opaque directories and lookup, as shell stories. The matrices are in
//! `whiteouts_matrix.rs`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::support::host::{in_initial_userns, kernel_seen};
use crate::support::story::{Story, on_ours, require_real_root, require_user_xattrs, sh};
use crate::support::{Base, Layers, Mount, Snapshot, diff, require_kernel_overlay, skip};

/// F#136, F#138, P#3021: a file in a subdirectory of a deleted and re-created directory was visible again,
/// because the deletion was looked for one level up only. Three layers, in every format a deletion can have.
#[test]
fn f136_content_below_a_deleted_and_recreated_directory_stays_deleted() {
    if !(require_real_root() && require_user_xattrs(Base::Shm)) {
        return;
    }
    let formats = [
        (
            "a kernel whiteout beside the new directory is impossible: opaque trusted",
            "setfattr -n trusted.overlay.opaque -v y l0/a",
        ),
        (
            "opaque user.overlay",
            "setfattr -n user.overlay.opaque -v y l0/a",
        ),
        (
            "opaque user.fuseoverlayfs",
            "setfattr -n user.fuseoverlayfs.opaque -v y l0/a",
        ),
        ("opaque marker file", ": > l0/a/.wh..wh..opq"),
        ("whiteout file in the middle layer", ": > l1/.wh.a"),
        ("whiteout device in the middle layer", "mknod l1/a c 0 0"),
        (
            "whiteout file beside the directory that replaces it",
            ": > l0/.wh.a",
        ),
    ];
    for (what, mark) in formats {
        let layers = Layers::new(Base::Shm, 3);
        sh(
            &layers.root,
            &format!(
                "mkdir -p l2/a/b/c/d; for f in a a/b a/b/c a/b/c/d; do echo old > l2/$f/old; done
                 mkdir -p l0/a/b/c; echo new > l0/a/b/c/new; {mark}"
            ),
        )
        .unwrap();
        let mount = Mount::acetate(&layers, "");
        // Deep names first: the order in which the report met them.
        for deep in ["a/b/c/d/old", "a/b/c/old", "a/b/old", "a/old"] {
            assert!(
                layers.at(deep).symlink_metadata().is_err(),
                "{what}: {deep} is back"
            );
        }
        let tree = Snapshot::of(&layers.merged);
        tree.assert_sound(what);
        assert_eq!(
            tree.names(),
            [".", "a", "a/b", "a/b/c", "a/b/c/new"],
            "{what}"
        );
        mount.unmount();
    }
}

/// F#478, F#445, F#324: directories re-created in a cache tree showed lower files, and rmdir then said ENOTEMPTY
/// (CodeQL). What only the upper has must never ask the lowers.
#[test]
fn f478_recreated_cache_directories_show_no_lower_file() {
    let out = Story::new(
        2,
        "for l in l0 l1; do mkdir -p $l/cache/a/b/c $l/cache/x/y; echo $l > $l/cache/a/b/c/f; echo $l > $l/cache/x/y/g; done",
    )
    .step(
        "for i in 1 2 3; do
            rm -rf cache/a; mkdir -p cache/a/b/c; test -z \"$(ls -A cache/a/b/c)\"
            echo $i > cache/a/b/n; mv cache/a cache/moved; mkdir -p cache/a/b; ls -A cache/a/b
            rmdir cache/a/b cache/a; mv cache/moved cache/a; cat cache/a/b/n
            rmdir cache/a/b/c
         done; mkdir -p cache/a/b/c; rmdir cache/a/b/c",
    )
    .step("find . | sort; rm -rf cache; mkdir -p cache/x/y; rmdir cache/x/y cache/x cache")
    .run();
    if let Some(last) = out.last() {
        assert_eq!(
            last,
            ".\n./cache\n./cache/a\n./cache/a/b\n./cache/a/b/n\n./cache/x\n./cache/x/y\n./cache/x/y/g\n"
        );
    }
}

/// F#444: a directory moved away and copied back with `cp -r` failed with "File exists", over two images.
#[test]
fn f444_a_directory_moved_away_and_copied_back() {
    let out = Story::new(2, "mkdir -p l0/app/lib l1/app/lib/deep; echo 0 > l0/app/lib/f0; echo 1 > l1/app/lib/deep/f1")
        .step("mv app/lib app/old; cp -r app/old app/lib; ls app/lib; rm -rf app/lib; cp -r app/old app/lib; find app | sort")
        .step("rm -rf app/old; mv app/lib app/old; mkdir app/lib; cp -r app/old/. app/lib; find app | sort")
        .run();
    if let Some(first) = out.first() {
        assert!(
            first.contains("app/lib/deep/f1") && first.contains("app/old/deep/f1"),
            "{first}"
        );
    }
}

/// F#151: a whiteout of a name in the root hid that name everywhere, since only the base name was compared.
#[test]
fn f151_a_whiteout_in_the_root_hides_that_name_only_there() {
    for mark in [": > l0/.wh.x", "mknod l0/x c 0 0"] {
        let setup = format!(
            "mkdir -p l1/d/x; echo root > l1/f; mkdir l1/x; echo deep > l1/d/x/f; echo f > l1/d/f; {mark}"
        );
        let out = Story::new(2, &setup)
            .step("test ! -e x; cat d/x/f d/f; ls; mkdir x; ls -A x; echo new > x/f; cat d/x/f")
            .not_the_kernel("it does not know .wh. files")
            .run();
        if let Some(first) = out.first() {
            assert_eq!(first, "deep\nf\nd\nf\ndeep\n", "{mark}");
        }
    }
}

/// F#306, F#309: the kernel listed names of an upper that it could not stat, because whiteouts had been made inside an
/// opaque directory. And sylabs/singularity#3177: an upper held two formats at once, and devices called `.wh..opq`.
/// Our uppers: one format, no whiteout where there is nothing to hide, the same tree on the kernel.
#[test]
fn f306_an_upper_of_ours_is_the_same_tree_on_the_kernel() {
    if !(require_real_root() && require_kernel_overlay()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 2);
    sh(&layers.root, "mkdir -p l1/a/b l1/t l0/a; echo 1 > l1/a/f; echo 2 > l1/a/b/g; echo 3 > l0/a/h; echo 4 > l1/t/i; echo 5 > l1/r").unwrap();
    let mount = Mount::acetate(&layers, "");
    sh(
        &layers.merged,
        "rm a/f; rm -rf a/b; mkdir a/b; echo x > a/b/g; rm a/b/g; rm -rf t; mkdir t; echo n > t/i; rm t/i; rm r; echo r > r; rm r",
    )
    .unwrap();
    let ours = Snapshot::of(&layers.merged);
    mount.unmount();
    let found = sh(
        &layers.upper,
        "find . -name '.wh.*'; find a/b t -mindepth 1",
    )
    .unwrap();
    assert_eq!(
        found, "",
        "marker files, or whiteouts inside opaque directories, in the upper"
    );
    let mount = Mount::kernel(&layers, "redirect_dir=on,index=on");
    let kernel = Snapshot::of(&layers.merged);
    kernel.assert_sound("the kernel over our upper");
    mount.unmount();
    assert_eq!(
        diff(&ours, &kernel),
        Vec::<String>::new(),
        "ours | the kernel's"
    );
}

/// F#329, F#328, P#12347: opaque directories made by the kernel in a user namespace (user.overlay.opaque) were
/// ignored. Made here by the kernel itself, with userxattr.
#[test]
fn f329_an_opaque_mark_of_the_kernel_in_user_overlay_is_read() {
    let kernel_does = || {
        require_kernel_overlay() && crate::support::host::require_kernel_overlay_with("userxattr")
    };
    if !(require_real_root() && kernel_does() && require_user_xattrs(Base::Shm)) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    sh(
        &layers.root,
        "mkdir -p l0/d/s l0/e; echo old > l0/d/old; echo old > l0/d/s/old; echo old > l0/e/old",
    )
    .unwrap();
    let mount = Mount::kernel(&layers, "userxattr");
    sh(
        &layers.merged,
        "rm -rf d; mkdir d; echo new > d/new; mkdir d/s; rm e/old",
    )
    .unwrap();
    let kernel = Snapshot::of(&layers.merged);
    mount.unmount();
    let mark = sh(
        &layers.root,
        "getfattr --only-values -n user.overlay.opaque upper/d",
    )
    .unwrap();
    assert_eq!(mark, "y", "the set-up must make what the report is about");
    let mount = Mount::acetate(&layers, "");
    let ours = Snapshot::of(&layers.merged);
    mount.unmount();
    assert_eq!(
        diff(&ours, &kernel),
        Vec::<String>::new(),
        "ours | the kernel's"
    );
    // The same as a lower layer of another mount.
    let mut second = Layers::new(Base::Shm, 0);
    second.lowers = vec![layers.upper.clone(), layers.lowers[0].clone()];
    let mount = Mount::acetate(&second, "");
    let ours = Snapshot::of(&second.merged);
    mount.unmount();
    assert_eq!(
        diff(&ours, &kernel),
        Vec::<String>::new(),
        "as a lower: ours | the kernel's"
    );
}

/// F#476, F#19, F#272: on filesystems where a 0:0 device cannot be made or does not behave (virtiofs), every deletion
/// failed later, one by one. An upper without xattrs (ramfs stands for it here) must work with marker files,
/// and say so; the same tree after a remount.
#[test]
fn f476_an_upper_without_xattrs_keeps_deletions_in_marker_files() {
    if !(require_real_root()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    sh(
        &layers.root,
        "mkdir fs; mount -t ramfs none fs; mkdir fs/upper fs/work; mkdir -p l0/d/s; echo 1 > l0/d/f; echo 2 > l0/d/s/g; echo 3 > l0/h",
    )
    .unwrap();
    let mut on_ramfs = Layers::of(layers.root.clone(), layers.lowers.clone());
    on_ramfs.upper = layers.root.join("fs/upper");
    on_ramfs.work = layers.root.join("fs/work");
    let result = std::panic::catch_unwind(|| {
        let mount = Mount::acetate(&on_ramfs, "");
        sh(
            &on_ramfs.merged,
            "rm h d/f; rm -rf d/s; mkdir d/s; echo new > d/s/n; chmod 700 d",
        )
        .unwrap();
        let before = Snapshot::of(&on_ramfs.merged);
        mount.unmount();
        let mount = Mount::acetate(&on_ramfs, "");
        let after = Snapshot::of(&on_ramfs.merged);
        mount.unmount();
        (before, after)
    });
    sh(&layers.root, "umount -l fs").unwrap();
    let (before, after) = result.unwrap();
    assert_eq!(after.names(), [".", "d", "d/s", "d/s/n"]);
    assert_eq!(diff(&before, &after), Vec::<String>::new());
}

/// F#93, F#94: after a crash in the middle of `rm -r`, the leftovers in the work directory made later removals fail.
/// Whatever an overlay left in work is cleared at the mount, and removing directories works.
#[test]
fn f93_leftovers_in_the_work_directory_do_no_harm() {
    on_ours(
        Base::Shm,
        1,
        "mkdir -p l0/d/s work/work/'#a'/y work/work/#12 work/index work/acetate-junk; echo 1 > l0/d/f
         mknod work/work/'#a'/y/f c 0 0; mknod work/work/'#w' c 0 0; echo left > work/work/#13; chmod 000 work/work/'#a'",
        "",
        |layers, _mount| {
            sh(&layers.merged, "rm d/f; rmdir d/s; rmdir d; mkdir d; rmdir d; test -z \"$(ls -A)\"").unwrap();
            // The kernel too refuses to remove a work directory that is in use; content must be ours only.
            let left = sh(&layers.work, "find . -mindepth 2 ! -path './index/*'").unwrap();
            for name in ["#a", "#12", "#13", "#w"] {
                assert!(!left.contains(name), "{name} still lies in work: {left}");
            }
        },
    );
}

/// F#69, F#71: renaming over a name copied a whiteout up and the daemon died by SIGBUS (glib-compile-schemas: write a
/// temporary file, rename it over a deleted one). F#55: the first unlink after the mount made no whiteout.
#[test]
fn f69_rename_onto_a_whiteout_and_unlink_as_the_first_thing() {
    Story::new(1, "mkdir l0/schemas; echo old > l0/schemas/gschemas.compiled; echo 1 > l0/first")
        .step("rm first")
        .step("test ! -e first; rm schemas/gschemas.compiled; echo new > schemas/t; mv schemas/t schemas/gschemas.compiled; cat schemas/gschemas.compiled")
        .step("ls schemas; echo newer > schemas/t; mv schemas/t schemas/gschemas.compiled; rm schemas/gschemas.compiled; ls schemas")
        .run();
}

/// F#351, F#236, F#237, P#7912: names of 252 to 255 bytes were refused, or could not be listed or deleted, because a
/// whiteout was a file with a longer name.
#[test]
fn f351_names_of_255_bytes_can_be_made_deleted_and_hidden() {
    if kernel_seen() < (5, 8) && !in_initial_userns() {
        skip("a whiteout is a file .wh.NAME here: no name of more than 251 bytes can be hidden");
        return;
    }
    let name = |c: char, n: usize| c.to_string().repeat(n);
    let lower: Vec<String> = (250..=255).map(|n| name('l', n)).collect();
    let setup = lower
        .iter()
        .map(|n| {
            format!(
                "echo {0} > l0/{n}; mkdir l0/d{1}; echo x > l0/d{1}/x;",
                n.len(),
                &n[1..]
            )
        })
        .collect::<String>();
    let deletes = lower
        .iter()
        .map(|n| {
            format!(
                "rm {n}; rm -r d{0}; mkdir d{0}; test -z \"$(ls -A d{0})\";",
                &n[1..]
            )
        })
        .collect::<String>();
    let creates: String = (250..=255)
        .map(|n| {
            format!(
                "echo {n} > {0}; mv {0} {1}; rm {1}; echo again > {1};",
                name('u', n),
                name('v', n)
            )
        })
        .collect();
    Story::new(1, &setup)
        .step(&format!("ls | wc -l; {deletes} ls | wc -l; {creates}"))
        .step(&format!("ls -A | awk '{{ print length($0) }}' | sort -n; ! touch {} 2>/dev/null; rm -r *; ls -A", name('t', 256)))
        .run();
}

/// F#33: removing failed with EXDEV where work lay on another filesystem (a gocryptfs, a subvolume): said at the mount.
#[test]
fn f33_a_work_directory_on_another_filesystem_is_refused_at_the_mount() {
    if !(require_real_root()) {
        return;
    }
    let shm = Layers::new(Base::Shm, 1);
    let mut mixed = Layers::of(shm.root.clone(), shm.lowers.clone());
    let disk = Layers::new(Base::Disk, 0);
    if fs::metadata(&disk.work).unwrap().dev() == fs::metadata(&shm.upper).unwrap().dev() {
        crate::support::skip("both test directories lie on one filesystem");
        return;
    }
    mixed.work = disk.work.clone();
    let said = Mount::try_acetate(&mixed, "")
        .err()
        .map(|e| e.to_string())
        .unwrap_or_else(|| "mounted".to_owned());
    assert!(
        said.contains("work"),
        "the message must name the work directory: {said}"
    );
}
