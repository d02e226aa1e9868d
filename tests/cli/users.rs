//! Ordinary users and user namespaces. Nothing of the machine is changed: what
//! must be different for a test (the mode of /dev/fuse, /etc/fuse.conf) is
//! different in a mount namespace of its own.

use crate::world::{World, can_mount, text};

/// A script as uid 1001 in a private mount namespace where /dev/fuse is open
/// to all and /etc/fuse.conf is as given.
fn as_user(world: &World, conf: &str, script: &str) -> std::process::Output {
    std::fs::write(world.path("fuse.conf"), conf).unwrap();
    std::fs::write(world.path("script"), script).unwrap();
    world.sh(
        "chown -R 1001:1001 a b u w m; cp \"$ACETATE\" acetate; chmod 755 acetate; \
         mknod fuse c 10 229 && chmod 666 fuse && \
         unshare -m --propagation slave sh -c 'mount --bind fuse /dev/fuse; touch /etc/fuse.conf; mount --bind fuse.conf /etc/fuse.conf; \
           exec setpriv --reuid=1001 --regid=1001 --clear-groups sh -e ./script'",
    )
}

fn can_be_a_user() -> bool {
    if !can_mount() {
        return false;
    }
    let world = World::new();
    let out = as_user(&world, "", "test -r /dev/fuse && command -v fusermount3");
    if !out.status.success() {
        eprintln!(
            "SKIPPED: needs fusermount3, setpriv and device nodes in the temporary directory"
        );
    }
    out.status.success()
}

#[test]
fn in_a_user_namespace_it_mounts_by_itself() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.sh(&format!(
        "unshare -Urm --propagation slave sh -ec '\"$ACETATE\" mount -o {} m; grep \"$PWD/m \" /proc/self/mountinfo; ls m; umount m'",
        world.options(true)
    ));
    assert!(out.status.success(), "{}", text(&out));
    assert!(text(&out).contains("allow_other"), "{}", text(&out));
    // A mask may hide the calls that give the mount this root (Linux 5.2).
    let masked = std::env::var_os("ACETATE_KERNEL_FEATURES").is_some();
    assert!(masked || text(&out).contains("/merged"), "{}", text(&out));
    assert!(!text(&out).contains("nodev"), "{}", text(&out));
    world.wait_for_the_end();
}

#[test]
fn an_ordinary_user_mounts_through_fusermount3() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    let script = "./acetate mount -o lowerdir=a:b,upperdir=u,workdir=w m\n\
         grep \"$PWD/m \" /proc/self/mountinfo\nls m\n./acetate unmount m\n! grep \"$PWD/m \" /proc/self/mountinfo";
    let out = as_user(&world, "", script);
    assert!(out.status.success(), "{}", text(&out));
    let said = text(&out);
    assert!(
        said.contains("fuse.acetate")
            && !said.contains("allow_other,")
            && said.contains("nosuid,nodev"),
        "{said}"
    );
    assert!(
        said.contains("warning: only you will see this mount"),
        "{said}"
    );
    world.wait_for_the_end();
}

#[test]
fn fuse_conf_may_open_the_mount_to_others() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    let script = "./acetate mount -o lowerdir=a:b,upperdir=u,workdir=w m\n\
         grep \"$PWD/m \" /proc/self/mountinfo\nfusermount3 -u m";
    let out = as_user(&world, "user_allow_other\n", script);
    assert!(out.status.success(), "{}", text(&out));
    assert!(
        text(&out).contains("allow_other") && !text(&out).contains("warning"),
        "{}",
        text(&out)
    );
    world.wait_for_the_end();
}

#[test]
fn sigterm_unmounts_an_ordinary_users_mount_from_inside_its_namespace() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    // The serving process holds /dev/fuse; the one that waits outside does not.
    let script = "./acetate mount -o lowerdir=a:b,upperdir=u,workdir=w m 2>/dev/null\n\
         for p in /proc/[0-9]*; do if ls -l $p/fd 2>/dev/null | grep -q /dev/fuse && grep -q \"$PWD\" $p/maps; then cat $p/uid_map; kill ${p#/proc/}; fi; done\n\
         for i in 1 2 3 4 5 6 7 8 9 10; do grep -q \"$PWD/m \" /proc/self/mountinfo || exit 0; sleep 0.2; done; exit 9";
    let out = as_user(&world, "", script);
    assert!(out.status.success(), "{}", text(&out));
    let map: Vec<String> = text(&out).split_whitespace().map(str::to_owned).collect();
    assert_eq!(
        map,
        ["1001", "1001", "1"],
        "the daemon is in a namespace of its own"
    );
    world.wait_for_the_end();
}

#[test]
fn a_failing_mount_of_an_ordinary_user_leaves_nothing_mounted() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    let script = "mkdir u/w; ./acetate mount -o lowerdir=a,upperdir=u,workdir=u/w m || echo failed with $?\n\
         ! grep \"$PWD/m \" /proc/self/mountinfo";
    let out = as_user(&world, "", script);
    assert!(
        out.status.success() && text(&out).contains("failed with 32"),
        "{}",
        text(&out)
    );
    assert!(
        !text(&out).contains("/proc/self/fd"),
        "paths as the user gave them: {}",
        text(&out)
    );
    world.wait_for_the_end();
}

#[test]
fn a_mount_point_of_somebody_else_is_refused_with_a_reason() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    let script = "./acetate mount -o lowerdir=a:b /usr && exit 9; exit 0";
    let out = as_user(&world, "", script);
    assert!(out.status.success(), "{}", text(&out));
    assert!(
        text(&out).contains("belongs to that user"),
        "{}",
        text(&out)
    );
}

#[test]
fn without_fusermount3_an_ordinary_user_is_told_to_install_it() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    std::fs::write(
        world.path("script"),
        "PATH=/nowhere ./acetate mount -o lowerdir=a:b m; test $? = 32",
    )
    .unwrap();
    let out = world.sh(
        "chown -R 1001 a b m; cp \"$ACETATE\" acetate; mkdir empty; \
         unshare -m --propagation slave sh -c 'for f in /usr/bin/fusermount3 /usr/bin/fusermount /bin/fusermount3 /bin/fusermount; do test -e $f && mount -t tmpfs none empty && break; done; \
           mkdir empty/d; for f in /usr/bin/fusermount3 /usr/bin/fusermount; do mount --bind empty/d $f 2>/dev/null || mount --bind /dev/null $f; done; \
           exec setpriv --reuid=1001 --regid=1001 --clear-groups sh ./script'",
    );
    assert!(out.status.success(), "{}", text(&out));
    assert!(text(&out).contains("no fusermount3"), "{}", text(&out));
}
