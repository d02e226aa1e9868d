//! Layers and mount points in odd places, flags of the mount.

use std::fs;

use crate::world::{World, can_mount, text, wait_until};

/// The flags of the mount itself, as in `rw,nosuid`.
fn flags(world: &World) -> Vec<String> {
    let line = world.mount_line().unwrap();
    line.split(' ')
        .nth(5)
        .unwrap()
        .split(',')
        .map(str::to_owned)
        .collect()
}

fn has(world: &World, flag: &str) -> bool {
    flags(world).iter().any(|f| f == flag)
}

#[test]
fn no_upper_means_read_only_in_the_kernel_too() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(false);
    assert!(has(&world, "ro"), "{:?}", flags(&world));
    let error = fs::write(world.path("m/new"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn ro_means_ro_although_there_is_an_upper() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.acetate(&["mount", "-o", &format!("{},ro", world.options(true)), "m"]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(has(&world, "ro"), "{:?}", flags(&world));
}

#[test]
fn root_gets_devices_and_setuid_programs_unless_told_otherwise() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(true);
    assert!(
        !has(&world, "nodev") && !has(&world, "nosuid"),
        "{:?}",
        flags(&world)
    );
    assert!(world.mount_line().unwrap().contains("allow_other"));
    let world = World::new();
    let options = format!("{},nodev,nosuid,noexec,noatime", world.options(true));
    let out = world.acetate(&["mount", "-o", &options, "m"]);
    assert!(out.status.success(), "{}", text(&out));
    for flag in ["nodev", "nosuid", "noexec", "noatime", "rw"] {
        assert!(has(&world, flag), "{flag}: {:?}", flags(&world));
    }
}

#[test]
fn relative_paths_and_long_options_are_for_the_callers_directory() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.acetate(&[
        "mount",
        "--lower",
        "a",
        "--lower=b",
        "--upper",
        "u",
        "--work",
        "w",
        "m",
    ]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(world.mount_line().is_some() && !has(&world, "ro"));
}

#[test]
fn five_hundred_layers() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let long = "x".repeat(60);
    let names: Vec<String> = (0..500).map(|i| format!("{long}{i}")).collect();
    for name in &names {
        fs::create_dir(world.path(name)).unwrap();
    }
    let options = format!("lowerdir={},upperdir=u,workdir=w", names.join(":"));
    assert!(options.len() > 30_000);
    let out = world.called("fuse-overlayfs", &["-o", &options, "m"]);
    assert!(out.status.success(), "{}", text(&out));
    fs::read_dir(world.path("m")).unwrap().count();
}

#[test]
fn colons_commas_quotes_and_backslashes_in_paths() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    fs::create_dir(world.path(r#"a:b,c\d"e f"#)).unwrap();
    fs::create_dir(world.path("u,u")).unwrap();
    let out = world.acetate(&[
        "mount",
        "-o",
        r#"lowerdir=a\:b\,c\\d"e f:b,upperdir=u\,u,workdir=w"#,
        "m",
    ]);
    assert!(out.status.success(), "{}", text(&out));
}

#[test]
fn layers_may_be_named_by_descriptors() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.sh(
        "exec 5<a 6<b; exec \"$ACETATE\" mount -o lowerdir=/proc/self/fd/5:/proc/self/fd/6,upperdir=u,workdir=w m",
    );
    assert!(out.status.success(), "{}", text(&out));
}

#[test]
fn a_symlink_to_the_mount_point_and_trailing_slashes() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    std::os::unix::fs::symlink("m", world.path("link")).unwrap();
    let out = world.acetate(&["mount", "-o", &world.options(true), "link/"]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(world.mount_line().is_some());
    let out = world.acetate(&["unmount", "link"]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(world.mount_line().is_none());
}

#[test]
fn over_one_of_its_own_layers() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.acetate(&["mount", "-o", "lowerdir=m:b,upperdir=u,workdir=w", "m"]);
    assert!(out.status.success(), "{}", text(&out));
    fs::read_dir(world.path("m")).unwrap().count();
    let out = world.acetate(&["unmount", "m"]);
    assert!(out.status.success(), "{}", text(&out));
}

#[test]
fn a_mount_of_another_type_is_left_alone() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.sh("mount -t tmpfs none m && \"$ACETATE\" unmount m");
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    assert!(text(&out).contains("tmpfs"), "{}", text(&out));
}

#[test]
fn without_the_fuse_device_it_says_so() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.sh(
        "unshare -m --propagation slave sh -c 'mkdir dev && mknod dev/null c 1 3 && mount --bind dev /dev && \"$ACETATE\" mount -o lowerdir=a m'",
    );
    assert_eq!(out.status.code(), Some(32), "{}", text(&out));
    assert!(
        text(&out).contains("no /dev/fuse") && text(&out).contains("modprobe fuse"),
        "{}",
        text(&out)
    );
}

#[test]
fn a_store_as_podman_lays_it_out() {
    // Lowers are symlinks in `l`, the working directory is the store, the
    // program gets exactly three arguments.
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.sh(
        "mkdir -p s/l s/1/diff s/2/diff s/3/diff s/3/work s/3/merged; \
         ln -s ../1/diff s/l/AAA; ln -s ../2/diff s/l/BBB; ln -s \"$ACETATE\" fuse-overlayfs; w=$PWD; cd s; \
         $w/fuse-overlayfs -o lowerdir=$w/s/l/BBB:$w/s/l/AAA,upperdir=$w/s/3/diff,workdir=$w/s/3/work,,volatile $w/s/3/merged; \
         stat -f -c %t 3/merged; fusermount3 -u 3/merged && mkdir 3/merged.1 && mv -T 3/merged.1 3/merged",
    );
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(text(&out).trim(), "65735546");
}

#[test]
fn many_mounts_at_once() {
    if !can_mount() {
        return;
    }
    let worlds: Vec<World> = (0..12).map(|_| World::new()).collect();
    std::thread::scope(|scope| {
        for world in &worlds {
            scope.spawn(|| {
                world.mount(true);
                let out = world.acetate(&["unmount", "m"]);
                assert!(out.status.success(), "{}", text(&out));
                world.wait_for_the_end();
            });
        }
    });
}

#[test]
fn into_another_mount_namespace() {
    // `mount -N` of mount(8) gives a helper the namespace's file.
    if !can_mount() {
        return;
    }
    let world = World::new();
    let mut there = std::process::Command::new("unshare")
        .args(["-m", "--propagation", "private", "sleep", "60"])
        .spawn()
        .unwrap();
    let namespace = format!("/proc/{}/ns/mnt", there.id());
    let ours = fs::read_link("/proc/self/ns/mnt").unwrap();
    wait_until("the namespace is there", || {
        fs::read_link(&namespace).is_ok_and(|n| n != ours)
    });
    let out = world.called(
        "mount.acetate",
        &["none", "m", "-N", &namespace, "-o", "lowerdir=a:b"],
    );
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", there.id())).unwrap();
    there.kill().unwrap();
    there.wait().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    let place = format!(" {} ", world.path("m").display());
    assert!(
        mounts
            .lines()
            .any(|l| l.contains(&place) && l.contains("fuse.acetate")),
        "{mounts}"
    );
    assert_eq!(world.mount_line(), None);
    world.wait_for_the_end();
}
