//! A mount that somebody else made, and whose descriptor is handed in as /dev/fd/N: how a container without the right
//! to mount is served (mount.fuse3 and libfuse have the same convention). And what such a container is told without.

use crate::world::{World, can_mount, text};

/// A script in a mount namespace of its own, with `3` a descriptor of /dev/fuse that is mounted at `m`.
fn given(world: &World, script: &str) -> std::process::Output {
    std::fs::write(world.path("script"), script).unwrap();
    world.sh(
        "cp \"$ACETATE\" acetate; chmod 755 acetate; exec unshare -m --propagation private sh -ec '\
           exec 3<>/dev/fuse; \
           mount -i -t fuse.acetate -o fd=3,rootmode=40755,user_id=0,group_id=0,default_permissions,allow_other none m; \
           . ./script'",
    )
}

/// `exec 3>&-` and after the unmount no daemon may be left.
const ENDS: &str = "umount m; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do \
     kill -0 $daemon 2>/dev/null || break; sleep 0.2; done; wait $daemon; echo ended with $?\n";

fn check(out: &std::process::Output, wanted: &str) {
    assert!(
        out.status.success() && text(out).contains(wanted),
        "{}",
        text(out)
    );
}

#[test]
fn root_without_the_right_to_mount_serves_a_given_mount() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let script = "setpriv --bounding-set=-sys_admin --inh-caps=-all --no-new-privs \
         ./acetate mount -f -o lowerdir=a:b,upperdir=u,workdir=w /dev/fd/3 & daemon=$!\nexec 3>&-\n\
         cat m/from-a; rm m/from-b; echo new >m/new; chown 7:8 m/new; mkdir m/d; mv m/new m/d/; ls m; stat -c %u:%g m/d/new\n";
    let out = given(&world, &format!("{script}{ENDS}ls u"));
    check(&out, "ad\nfrom-a\n7:8\nended with 0\nd\nfrom-b\n");
}

#[test]
fn a_given_mount_is_served_in_the_background_too() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let script = "./acetate mount -o lowerdir=a:b /dev/fd/3; exec 3>&-; ls m; umount m";
    check(&given(&world, script), "from-a\nfrom-b\n");
    world.wait_for_the_end();
}

#[test]
fn a_descriptor_that_is_stdin_is_served_in_the_background_too() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let script = "./acetate mount -o lowerdir=a:b /dev/fd/0 <&3; exec 3>&-; \
         timeout -s KILL 10 ls m; timeout -s KILL 10 cat m/from-a; umount m";
    check(&given(&world, script), "from-a\nfrom-b\na");
    world.wait_for_the_end();
}

#[test]
fn a_negative_number_is_no_descriptor() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let script = "! ./acetate mount -f -o lowerdir=a:b /dev/fd/-1 <&3; umount m; echo refused";
    let out = given(&world, script);
    check(&out, "refused");
    assert!(text(&out).contains("does not exist"), "{}", text(&out));
}

#[test]
fn an_ordinary_user_without_any_right_serves_a_given_mount() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let script = "chown -R 1001:1001 a b u w; \
         setpriv --reuid=1001 --regid=1001 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
           ./acetate mount -f -o lowerdir=a:b,upperdir=u,workdir=w /dev/fd/3 & daemon=$!\nexec 3>&-\n\
         setpriv --reuid=1001 --regid=1001 --clear-groups sh -ec \"cat m/from-a; echo new >m/new; rm m/from-b\"; ls m\n";
    let out = given(&world, &format!("{script}{ENDS}"));
    check(&out, "afrom-a\nnew\nended with 0\n");
}

#[test]
fn sigterm_ends_the_service_of_a_given_mount_and_leaves_the_mount_to_its_maker() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let script = "./acetate mount -f -o lowerdir=a:b,upperdir=u,workdir=w /dev/fd/3 & daemon=$!\nexec 3>&-\n\
         echo new >m/new; kill $daemon; wait $daemon; echo ended with $?; cat u/new; \
         ls m 2>&1 | grep -o 'not connected'; umount m; ! grep \"$PWD/m \" /proc/self/mountinfo\n";
    check(&given(&world, script), "ended with 0\nnew\nnot connected\n");
}

#[test]
fn a_descriptor_that_nothing_is_mounted_with_is_named_as_such() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let run = |script: &str| {
        let out = world.sh(script);
        assert_eq!(out.status.code(), Some(32), "{}", text(&out));
        text(&out)
    };
    let said = run("exec 3<>/dev/fuse; \"$ACETATE\" mount -o lowerdir=a /dev/fd/3");
    assert!(said.contains("nothing is mounted with"), "{said}");
    for script in [
        "\"$ACETATE\" mount -o lowerdir=a /dev/fd/0 </dev/null",
        "\"$ACETATE\" mount -o lowerdir=a /dev/fd/9 9>&-",
    ] {
        let said = run(script);
        assert!(said.contains("must be open, and be a directory"), "{said}");
    }
}

#[test]
fn a_descriptor_of_a_directory_is_a_mount_point_as_before() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world
        .sh("exec 3<m; \"$ACETATE\" mount -o lowerdir=a:b /dev/fd/3; exec 3<&-; ls m; umount m");
    check(&out, "from-a\nfrom-b\n");
    world.wait_for_the_end();
}

#[test]
fn a_container_that_may_not_mount_is_told_what_may_help() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    for more in ["", "--no-new-privs"] {
        let out = world.sh(&format!(
            "command -v fusermount3 >&2 || exit 77; \
             setpriv --bounding-set=-sys_admin --inh-caps=-all {more} \"$ACETATE\" mount -o lowerdir=a m"
        ));
        if out.status.code() == Some(77) {
            eprintln!("SKIPPED: needs fusermount3");
            return;
        }
        let said = text(&out);
        assert_eq!(out.status.code(), Some(32), "{said}");
        assert!(
            said.contains("CAP_SYS_ADMIN") && said.contains("/dev/fd/N"),
            "{said}"
        );
    }
}

/// A script as uid 1001, with these groups, where /dev/fuse has this owner and mode.
fn with_device(world: &World, mode: &str, groups: &str, script: &str) -> std::process::Output {
    std::fs::write(world.path("script"), script).unwrap();
    world.sh(&format!(
        "chown -R 1001:1001 a b u w m; cp \"$ACETATE\" acetate; chmod 755 acetate; \
         mknod fuse c 10 229; chown 0:777 fuse; chmod {mode} fuse; \
         exec unshare -m --propagation private sh -ec 'mount --bind fuse /dev/fuse; \
           exec setpriv --reuid=1001 --regid=1001 {groups} sh -e ./script'"
    ))
}

#[test]
fn dev_fuse_may_be_open_to_all_or_to_a_group() {
    if !can_mount() {
        return;
    }
    for (mode, groups) in [("0666", "--clear-groups"), ("0660", "--groups=777")] {
        for script in [
            "command -v fusermount3 >/dev/null || exit 77; ./acetate mount -o lowerdir=a:b,upperdir=u,workdir=w m; ls m; touch m/new; ./acetate unmount m; ls u",
            "unshare -Urm true || exit 77; exec unshare -Urm sh -ec './acetate mount -o lowerdir=a:b,upperdir=u,workdir=w m; ls m; touch m/new; ./acetate unmount m; ls u'",
        ] {
            let world = World::new();
            let out = with_device(&world, mode, groups, script);
            if out.status.code() == Some(77) {
                eprintln!("SKIPPED: needs fusermount3 and user namespaces");
                continue;
            }
            check(&out, "from-a\nfrom-b\nnew\n");
            world.wait_for_the_end();
        }
    }
}

#[test]
fn a_closed_dev_fuse_is_named_with_its_remedy() {
    if !can_mount() {
        return;
    }
    for (mode, groups) in [("0600", "--groups=777"), ("0660", "--clear-groups")] {
        for how in ["", "unshare -Urm "] {
            let world = World::new();
            let script = format!("{how}./acetate mount -o lowerdir=a:b m || echo failed with $?");
            let out = with_device(&world, mode, groups, &script);
            let said = text(&out);
            assert!(said.contains("failed with 32"), "{said}");
            assert!(
                said.contains("chmod 0666 /dev/fuse") || said.contains("no fusermount3"),
                "{said}"
            );
        }
    }
}

#[test]
fn a_missing_dev_fuse_is_named_with_its_remedy() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.sh(
        "mkdir dev; mknod -m 666 dev/null c 1 3; unshare -m --propagation private sh -c '\
           mount --bind dev /dev; \"$ACETATE\" mount -o lowerdir=a:b m'",
    );
    let said = text(&out);
    assert_eq!(out.status.code(), Some(32), "{said}");
    assert!(
        said.contains("there is no /dev/fuse") && said.contains("--device /dev/fuse"),
        "{said}"
    );
}
