//! `acetate doctor`, with each thing taken away in turn: in mount namespaces of its own, so that nothing of the machine
//! is changed.

use std::process::Output;

use crate::world::{World, can_mount, text};

/// The lines of one check, its remedy among them.
fn check(out: &Output, name: &str) -> String {
    let said = text(out);
    let mut lines = said
        .lines()
        .skip_while(|l| l.split_whitespace().nth(1) != Some(name));
    let first = lines
        .next()
        .unwrap_or_else(|| panic!("no check {name} in {said}"));
    let rest: Vec<&str> = lines.take_while(|l| l.starts_with(' ')).collect();
    format!("{first}\n{}", rest.join("\n"))
}

/// Whether a check has this mark, and says this.
fn expect(out: &Output, name: &str, mark: &str, says: &str) {
    let found = check(out, name);
    assert!(
        found.starts_with(mark) && found.contains(says),
        "{name} {mark} {says:?}: {}",
        text(out)
    );
}

/// What holds for every answer: a verdict that is the exit code's, and a remedy for everything that is missing.
fn is_sound(out: &Output) {
    let said = text(out);
    let code = if said.contains("A mount is possible.") {
        0
    } else {
        assert!(said.contains("No mount is possible"), "{said}");
        1
    };
    assert_eq!(out.status.code(), Some(code), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        let has_remedy = lines
            .get(i + 1)
            .is_some_and(|next| next.trim_start().starts_with("→ "));
        let needs = line.starts_with('✗') || line.starts_with('!');
        assert!(!needs || has_remedy, "no remedy for {line}: {said}");
    }
}

/// A script in a mount namespace of its own.
fn apart(world: &World, script: &str) -> Output {
    std::fs::write(world.path("script"), script).unwrap();
    let out = world.sh(
        "cp \"$ACETATE\" acetate; chmod 755 acetate; test -e fuse || mknod -m 666 fuse c 10 229; \
         exec unshare -m --propagation private sh -e ./script",
    );
    is_sound(&out);
    out
}

/// The same as uid 1001, after `before`, which root runs.
fn as_user(world: &World, before: &str, script: &str) -> Output {
    std::fs::write(world.path("inner"), script).unwrap();
    apart(
        world,
        &format!(
            "chmod 777 .; mount --bind fuse /dev/fuse; {before}\n\
             exec setpriv --reuid=1001 --regid=1001 --clear-groups env TMPDIR=\"$PWD\" sh -e ./inner"
        ),
    )
}

fn can_be_a_user() -> bool {
    if !can_mount() {
        return false;
    }
    let there = World::new().sh("command -v fusermount3 && command -v setpriv && unshare -Ur true");
    if !there.status.success() {
        eprintln!("SKIPPED: needs fusermount3, setpriv and user namespaces");
    }
    there.status.success()
}

#[test]
fn root_is_told_that_a_mount_is_possible_and_nothing_is_left_behind() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = apart(
        &world,
        "cat /proc/self/mountinfo >before; ls -A u >>before\n\
         TMPDIR=$PWD ./acetate doctor u\n\
         cat /proc/self/mountinfo >after; ls -A u >>after; cmp before after >&2; ls -d .acetate-doctor* 2>/dev/null && exit 9; exit 0",
    );
    for (name, mark) in [
        ("kernel", "✓"),
        ("dev_fuse", "✓"),
        ("mount_by_kernel", "✓"),
        ("fuse_protocol", "✓"),
        ("dir_writable", "✓"),
        ("dir_whiteouts", "✓"),
    ] {
        expect(&out, name, mark, "");
    }
}

#[test]
fn json_has_a_version_and_the_same_checks() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = world.acetate(&["doctor", "--format", "json", "u"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let json = String::from_utf8(out.stdout).unwrap();
    assert!(
        json.starts_with("{\n  \"schema_version\": 1,\n  \"can_mount\": true,\n  \"checks\": ["),
        "{json}"
    );
    let table = text(&world.acetate(&["doctor", "u"]));
    let names = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    for name in table
        .lines()
        .filter(|l| l.starts_with(['✓', '!', '✗', '-']))
        .filter_map(names)
    {
        let field = format!("{{\"name\": \"{name}\", \"state\": \"");
        assert_eq!(json.matches(&field).count(), 1, "{name}: {json}");
    }
    // As a program reads it.
    std::fs::write(world.path("json"), &json).unwrap();
    let read = world.sh(
        "command -v python3 >/dev/null || exit 77; python3 -c '\n\
         import json\n\
         d = json.load(open(\"json\"))\n\
         assert all(set(c) == {\"name\", \"state\", \"found\", \"remedy\"} for c in d[\"checks\"])\n\
         assert all(c[\"state\"] in (\"ok\", \"limited\", \"missing\", \"unneeded\") for c in d[\"checks\"])\n\
         assert all(c[\"remedy\"] for c in d[\"checks\"] if c[\"state\"] in (\"limited\", \"missing\"))'",
    );
    match read.status.code() {
        Some(77) => eprintln!("SKIPPED: no python3 to read it with"),
        code => assert_eq!(code, Some(0), "{}", text(&read)),
    }
}

#[test]
fn a_missing_device_is_named() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = apart(
        &world,
        "mkdir dev; mknod -m 666 dev/null c 1 3; mount --bind dev /dev; ./acetate doctor",
    );
    expect(&out, "dev_fuse", "✗", "--device /dev/fuse");
    expect(&out, "mount_by_kernel", "✗", "No such file");
    assert_eq!(out.status.code(), Some(1));
}

#[test]
fn a_device_that_is_another_one_is_named() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = apart(&world, "mount --bind /dev/null /dev/fuse; ./acetate doctor");
    expect(&out, "dev_fuse", "✗", "mknod -m 0666 /dev/fuse c 10 229");
    assert_eq!(out.status.code(), Some(1));
}

#[test]
fn an_ordinary_user_is_told_that_fusermount3_mounts_and_nothing_is_left_behind() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    let out = as_user(
        &world,
        "",
        "cat /proc/self/mountinfo >before; ./acetate doctor .\n\
         cat /proc/self/mountinfo >after; cmp before after >&2; ls -d .acetate-doctor* 2>/dev/null && exit 9; exit 0",
    );
    expect(&out, "mount_by_kernel", "-", "CAP_SYS_ADMIN");
    expect(&out, "fusermount3", "✓", "setuid root");
    expect(&out, "mount_by_fusermount3", "✓", "");
    expect(&out, "mount_in_user_namespace", "✓", "unshare -Urm");
    expect(&out, "user_allow_other", "!", "/etc/fuse.conf");
}

#[test]
fn a_closed_device_is_named() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    let out = as_user(&world, "chmod 600 fuse", "./acetate doctor");
    expect(&out, "dev_fuse", "✗", "chmod 0666 /dev/fuse");
    expect(&out, "mount_by_fusermount3", "✗", "Permission denied");
    expect(&out, "mount_in_user_namespace", "✗", "Permission denied");
    assert_eq!(out.status.code(), Some(1));
}

#[test]
fn fusermount3_without_its_setuid_bit_is_named() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    let out = as_user(
        &world,
        "f=$(command -v fusermount3); cp $f plain; chmod 755 plain; mount --bind plain $(realpath $f)",
        "./acetate doctor",
    );
    expect(&out, "fusermount3", "✗", "chmod u+s");
    expect(
        &out,
        "mount_by_fusermount3",
        "✗",
        "see dev_fuse and fusermount3",
    );
    expect(&out, "mount_in_user_namespace", "✓", "");
    assert_eq!(out.status.code(), Some(0), "there is another way");
}

#[test]
fn fusermount3_that_is_not_there_is_named() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    // A device node is no file: the program is not found.
    let out = as_user(
        &world,
        "for f in /usr/bin/fusermount3 /usr/bin/fusermount /bin/fusermount3 /bin/fusermount; do \
           test -e $f && mount --bind /dev/null $f; done",
        "./acetate doctor",
    );
    expect(&out, "fusermount3", "✗", "install the package fuse3");
    expect(
        &out,
        "mount_by_fusermount3",
        "✗",
        "install the package fuse3",
    );
}

#[test]
fn no_new_privs_is_named_where_fusermount3_fails_by_it() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    let out = as_user(&world, "", "exec setpriv --no-new-privs ./acetate doctor");
    expect(&out, "fusermount3", "✓", "setuid root");
    expect(&out, "mount_by_fusermount3", "✗", "no_new_privs");
}

#[test]
fn user_allow_other_is_found() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    let out = as_user(
        &world,
        "echo user_allow_other >conf; touch /etc/fuse.conf; mount --bind conf /etc/fuse.conf",
        "./acetate doctor",
    );
    expect(&out, "user_allow_other", "✓", "");
}

#[test]
fn subordinate_ids_and_their_programs_are_named_where_they_are_missing() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    let with = |text: &str| {
        format!("printf '{text}' >sub; mount --bind sub /etc/subuid; mount --bind sub /etc/subgid")
    };
    let there = world.sh("test -f /etc/subuid && test -f /etc/subgid");
    if !there.status.success() {
        eprintln!("SKIPPED: no /etc/subuid to put another one in the place of");
        return;
    }
    let none = as_user(&world, &with(""), "PATH=/nowhere ./acetate doctor");
    expect(&none, "subordinate_ids", "✗", "usermod --add-subuids");
    expect(&none, "newuidmap", "✗", "uidmap");
    let few = as_user(&world, &with("1001:200000:100\\n"), "./acetate doctor");
    expect(&few, "subordinate_ids", "!", "100 users");
    let enough = as_user(&world, &with("1001:200000:65536\\n"), "./acetate doctor");
    expect(&enough, "subordinate_ids", "✓", "65536 users");
}

#[test]
fn the_sysctl_that_forbids_user_namespaces_is_named() {
    if !can_be_a_user() {
        return;
    }
    let world = World::new();
    // The limit is set in a namespace, for namespaces below it.
    let out = as_user(
        &world,
        "",
        "exec unshare -Ur sh -ec 'echo 0 >/proc/sys/user/max_user_namespaces; exec ./acetate doctor'",
    );
    expect(&out, "user_namespaces", "✗", "user.max_user_namespaces");
}

#[test]
fn a_directory_that_cannot_hold_an_upper_is_told_so() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = apart(&world, "mount -t tmpfs -o ro none u; ./acetate doctor u");
    expect(&out, "dir_writable", "✗", "Read-only file system");
    assert_eq!(out.status.code(), Some(0), "the host can mount");
    let tmpfs = apart(&world, "mount -t tmpfs none u; ./acetate doctor u");
    expect(&tmpfs, "dir_reflink", "!", "nothing needs them");
    for (dir, why) in [("missing", "No such file"), ("a/from-a", "not a directory")] {
        let out = world.acetate(&["doctor", dir]);
        assert_eq!(out.status.code(), Some(1));
        assert!(text(&out).contains(why), "{}", text(&out));
    }
}

#[test]
fn low_limits_are_named() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = apart(
        &world,
        "exec prlimit --nofile=100:100 --nproc=50:50 ./acetate doctor",
    );
    expect(&out, "limit_open_files", "!", "100");
    expect(&out, "limit_processes", "!", "LimitNPROC=");
}

#[test]
fn a_container_without_the_right_to_mount_is_told_what_is_left() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let out = apart(
        &world,
        "exec setpriv --bounding-set=-sys_admin --inh-caps=-all --no-new-privs ./acetate doctor",
    );
    expect(&out, "mount_by_kernel", "-", "CAP_SYS_ADMIN");
    expect(&out, "mount_by_fusermount3", "✗", "/dev/fd/N");
}
