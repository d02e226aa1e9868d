//! Words, names, exit codes.

use std::fs;

use crate::world::{World, can_mount, text};

#[test]
fn every_name_has_a_version_and_help() {
    let world = World::new();
    for (name, args) in [
        ("acetate", &["--version"][..]),
        ("fuse-overlayfs", &["--version"]),
        ("fuse-overlayfs", &["-V"]),
        ("acetate", &["fuse-overlayfs", "--version"]),
        ("mount.acetate", &["-V"]),
    ] {
        let out = world.called(name, args);
        assert!(out.status.success());
        assert!(
            String::from_utf8_lossy(&out.stdout).contains(env!("CARGO_PKG_VERSION")),
            "{}",
            text(&out)
        );
        assert!(out.stderr.is_empty());
    }
    for (name, args) in [
        ("acetate", &["--help"][..]),
        ("acetate", &["mount", "--help"]),
        ("acetate", &["unmount", "--help"]),
        ("fuse-overlayfs", &["--help"]),
        ("fuse-overlayfs", &["-h"]),
        ("acetate", &["fuse-overlayfs", "--help"]),
    ] {
        let out = world.called(name, args);
        assert!(out.status.success(), "{name} {args:?}");
        assert!(
            text(&out).to_lowercase().contains("usage"),
            "{}",
            text(&out)
        );
    }
}

#[test]
fn wrong_calls_are_told_apart_by_their_exit_codes() {
    let world = World::new();
    for (name, args, code) in [
        ("acetate", &[][..], 2),
        ("acetate", &["frobnicate"], 2),
        ("acetate", &["mount"], 2),
        ("acetate", &["mount", "-o", "lowerdir=a,frobnicate", "m"], 2),
        (
            "acetate",
            &["mount", "-o", "lowerdir=a,timeout=soon", "m"],
            2,
        ),
        ("acetate", &["mount", "m"], 32),
        ("acetate", &["unmount", "m"], 3),
        ("acetate", &["unmount", "missing"], 3),
        ("fuse-overlayfs", &["-o", "lowerdir=a"], 1),
        ("fuse-overlayfs", &["--frobnicate", "m"], 1),
        ("fuse-overlayfs", &["-o", "lowerdir=missing", "m"], 32),
        ("mount.acetate", &["none"], 32),
    ] {
        let out = world.called(name, args);
        assert_eq!(
            out.status.code(),
            Some(code),
            "{name} {args:?}: {}",
            text(&out)
        );
        assert!(!out.stderr.is_empty());
    }
}

#[test]
fn a_wrong_mount_says_what_is_wrong_and_what_to_do() {
    let world = World::new();
    fs::write(world.path("file"), "").unwrap();
    for (args, what, remedy) in [
        (
            &["-o", "lowerdir=missing", "m"][..],
            "lowerdir=",
            "check the spelling",
        ),
        (
            &["-o", "lowerdir=a:file", "m"],
            "file is not a directory",
            "directory tree",
        ),
        (
            &["-o", "lowerdir=a,upperdir=missing,workdir=w", "m"],
            "upperdir=",
            "mkdir -p",
        ),
        (
            &["-o", "lowerdir=a,upperdir=u,workdir=missing", "m"],
            "workdir=",
            "mkdir -p",
        ),
        (
            &["-o", "lowerdir=a,upperdir=u", "m"],
            "without a workdir",
            "workdir=DIR",
        ),
        (
            &["-o", "lowerdir=a,workdir=w", "m"],
            "without an upperdir",
            "upperdir=DIR",
        ),
        (&["m"], "no lower layer", "lowerdir=A:B:C"),
        (&["-o", "lowerdir=a", "missing"], "mount point", "mkdir -p"),
        (
            &["-o", "lowerdir=a", "file"],
            "not a directory",
            "directory",
        ),
    ] {
        let args: Vec<&str> = std::iter::once("mount")
            .chain(args.iter().copied())
            .collect();
        let out = world.acetate(&args);
        assert_eq!(out.status.code(), Some(32), "{args:?}");
        let said = text(&out);
        assert!(
            said.contains(what) && said.contains(remedy),
            "{args:?}: {said}"
        );
        assert_eq!(said.lines().count(), 2, "{said}");
    }
    assert!(world.daemons().is_empty());
}

#[test]
fn unknown_words_are_named_on_one_line_and_ignored() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let options = format!(
        "{},frobnicate,loverdir=/x,lazytime,xino=off,private",
        world.options(true)
    );
    let out = world.called("fuse-overlayfs", &["-o", &options, "m"]);
    assert!(out.status.success(), "{}", text(&out));
    let about: Vec<String> = text(&out)
        .lines()
        .filter(|l| l.contains("unknown"))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        about,
        ["fuse-overlayfs: warning: unknown options ignored: frobnicate, loverdir=/x"]
    );
}

#[test]
fn each_name_has_its_type_in_the_mount_table() {
    if !can_mount() {
        return;
    }
    for (name, before, shown) in [
        ("acetate", &["mount"][..], " - fuse.acetate acetate "),
        (
            "fuse-overlayfs",
            &[],
            " - fuse.fuse-overlayfs fuse-overlayfs ",
        ),
        (
            "acetate",
            &["fuse-overlayfs"],
            " - fuse.fuse-overlayfs fuse-overlayfs ",
        ),
        (
            "fuse-overlayfs",
            &["overlay"],
            " - fuse.fuse-overlayfs overlay ",
        ),
        ("acetate", &["none"], " - fuse.acetate none "),
        ("mount.acetate", &["none"], " - fuse.acetate none "),
    ] {
        let world = World::new();
        let options = world.options(true);
        let args: Vec<&str> = before
            .iter()
            .copied()
            .chain(["m", "-o", &options])
            .collect();
        let out = world.called(name, &args);
        assert!(out.status.success(), "{name} {args:?}: {}", text(&out));
        let line = world.mount_line().unwrap();
        assert!(line.contains(shown), "{line}");
    }
}

#[test]
fn a_mount_helper_that_only_pretends_mounts_nothing() {
    let world = World::new();
    let out = world.called("mount.acetate", &["none", "m", "-f", "-o", "lowerdir=a"]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(world.mount_line(), None);
}

#[test]
fn mount_fuse3_runs_it_as_mount_8_would() {
    if !can_mount() || !std::path::Path::new("/sbin/mount.fuse3").exists() {
        eprintln!("SKIPPED: needs root and mount.fuse3");
        return;
    }
    let world = World::new();
    let out = world.sh(&format!(
        "/sbin/mount.fuse3 none m -o rw,{} -t \"$ACETATE\"",
        world.options(true)
    ));
    assert!(out.status.success(), "{}", text(&out));
    assert!(
        world
            .mount_line()
            .unwrap()
            .contains(" - fuse.acetate none ")
    );
}

#[test]
fn a_line_of_fstab_mounts() {
    if !can_mount() || !std::path::Path::new("/sbin/mount.fuse3").exists() {
        eprintln!("SKIPPED: needs root and mount.fuse3");
        return;
    }
    let world = World::new();
    let line = format!(
        "none {} fuse.acetate {},nofail,x-systemd.automount,user,exec 0 0\n",
        world.path("m").display(),
        world.options(true)
    );
    fs::write(world.path("fstab"), line).unwrap();
    // A place of PATH with our program in it, for this test alone.
    let out = world.sh(
        "unshare -m --propagation slave sh -ec 'mount -t tmpfs none /usr/local/bin; cp \"$ACETATE\" /usr/local/bin/acetate; \
           mount -T fstab \"$PWD/m\"; grep \"$PWD/m \" /proc/self/mountinfo; ls m; umount m'",
    );
    assert!(out.status.success(), "{}", text(&out));
    assert!(
        text(&out).contains(" - fuse.acetate none "),
        "{}",
        text(&out)
    );
    world.wait_for_the_end();
}
