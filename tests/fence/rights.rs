//! /proc/PID/status of daemons.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::host::{own_mounts, require_program, require_userns};
use crate::support::story::require_real_root;
use crate::support::{Base, Layers, Mount, skip};

/// As the table in src/sys/fence/caps.rs: chown, dac_override, dac_read_search, fowner, fsetid, setgid, setuid,
/// linux_immutable, sys_admin, sys_resource, sys_nice, mknod, setfcap.
const ANY_OWNER: u64 = 1
    | 1 << 1
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 6
    | 1 << 7
    | 1 << 9
    | 1 << 21
    | 1 << 23
    | 1 << 24
    | 1 << 27
    | 1 << 31;
/// chown, dac_override, dac_read_search, fowner, fsetid, setfcap.
const OWN_NAMESPACE: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 31;

/// What the kernel says of one thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rights {
    inheritable: u64,
    permitted: u64,
    effective: u64,
    bounding: u64,
    ambient: u64,
    no_new_privs: u64,
    seccomp: u64,
}

fn rights(status: &str) -> Rights {
    let number = |key: &str, base: u32| {
        let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
        u64::from_str_radix(line.trim(), base).unwrap()
    };
    Rights {
        inheritable: number("CapInh:", 16),
        permitted: number("CapPrm:", 16),
        effective: number("CapEff:", 16),
        bounding: number("CapBnd:", 16),
        ambient: number("CapAmb:", 16),
        no_new_privs: number("NoNewPrivs:", 10),
        seccomp: number("Seccomp:", 10),
    }
}

/// Those of every thread of a process, which must be the same.
fn rights_of(pid: u32) -> Rights {
    // A thread that has ended is in the list for a moment more.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let all: BTreeSet<Rights> = tasks
            .flatten()
            .filter_map(|t| {
                Some(rights(
                    &std::fs::read_to_string(t.path().join("status")).ok()?,
                ))
            })
            .collect();
        if all.len() == 1 {
            return all.into_iter().next().unwrap();
        }
        assert!(Instant::now() < deadline, "threads differ: {all:#x?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn fenced(kept: u64, bounding: u64) -> Rights {
    Rights {
        inheritable: 0,
        permitted: kept,
        effective: kept,
        bounding,
        ambient: 0,
        no_new_privs: 1,
        seccomp: 2,
    }
}

fn own() -> Rights {
    rights(&std::fs::read_to_string("/proc/self/status").unwrap())
}

#[test]
fn roots_daemon_keeps_what_files_of_many_owners_need() {
    if !require_real_root() {
        return;
    }
    own_mounts();
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "");
    let before = own();
    let now = rights_of(mount.pid().unwrap());
    assert_eq!(
        now,
        fenced(before.permitted & ANY_OWNER, before.bounding & ANY_OWNER),
        "{now:#x?}"
    );
    // A worker and what it makes, too: a copy-up of this size is a worker's.
    std::fs::write(layers.at("new"), vec![0; 1 << 22]).unwrap();
    mount.unmount();
}

#[test]
fn a_worker_is_behind_the_fence_too() {
    if !require_real_root() {
        return;
    }
    own_mounts();
    let layers = Layers::new(Base::Disk, 1);
    std::fs::write(layers.lowers[0].join("big"), vec![1; 8 << 20]).unwrap();
    let mount = Mount::acetate(&layers, "");
    let file = std::fs::OpenOptions::new()
        .append(true)
        .open(layers.at("big"))
        .unwrap();
    std::io::Write::write_all(&mut &file, b"more").unwrap();
    let pid = mount.pid().unwrap();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names: Vec<_> = tasks
        .flatten()
        .map(|t| std::fs::read_to_string(t.path().join("comm")).unwrap())
        .collect();
    assert!(names.iter().any(|n| n.starts_with("worker")), "{names:?}");
    let before = own();
    assert_eq!(
        rights_of(pid),
        fenced(before.permitted & ANY_OWNER, before.bounding & ANY_OWNER)
    );
    drop(file);
    mount.unmount();
}

#[test]
fn fence_off_keeps_everything() {
    if !require_real_root() {
        return;
    }
    own_mounts();
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "fence=off");
    assert_eq!(rights_of(mount.pid().unwrap()), own());
    mount.unmount();
}

#[test]
fn root_of_a_user_namespace_keeps_the_same() {
    if !(require_real_root() && require_userns()) {
        return;
    }
    let out = Place::new().run(
        "unshare -Urm --propagation slave sh -ec './acetate mount -o $MARK,lowerdir=l,upperdir=u,workdir=w m; ./show; umount m'",
    );
    assert_eq!(
        shown(&out),
        [fenced(ANY_OWNER, ANY_OWNER)],
        "{}",
        text(&out)
    );
}

#[test]
fn an_ordinary_users_daemon_keeps_the_rights_over_that_users_files() {
    let place = Place::new();
    if !place.can_be_a_user() {
        return;
    }
    let out = place.as_user(
        "./acetate mount -o $MARK,lowerdir=l,upperdir=u,workdir=w m; ./show; ./acetate unmount m",
    );
    let own = own();
    let outside = Rights {
        permitted: 0,
        effective: 0,
        ..own
    };
    // The process that waits to unmount runs a setuid program, and so has given nothing away; it has nothing.
    assert_eq!(
        shown(&out),
        [outside, fenced(OWN_NAMESPACE, OWN_NAMESPACE)],
        "{}",
        text(&out)
    );
}

#[test]
fn an_ordinary_users_daemon_over_somebody_elses_layers_has_no_rights_at_all() {
    let place = Place::new();
    if !place.can_be_a_user() {
        return;
    }
    std::fs::create_dir(place.root.path().join("of-root")).unwrap();
    let out =
        place.as_user("./acetate mount -o $MARK,lowerdir=of-root m; ./show; ./acetate unmount m");
    let bounding = own().bounding;
    let shown = shown(&out);
    // Without a capability the bounding set cannot be changed; behind no_new_privs nothing is bounded by it.
    assert_eq!(shown.last(), Some(&fenced(0, bounding)), "{}", text(&out));
    assert_eq!(shown.len(), 2, "with the one that unmounts: {}", text(&out));
}

#[test]
fn sigterm_unmounts_for_a_user_without_a_namespace() {
    let place = Place::new();
    if !place.can_be_a_user() {
        return;
    }
    std::fs::create_dir(place.root.path().join("of-root")).unwrap();
    let out = place.as_user(
        "./acetate mount -f -o $MARK,lowerdir=of-root m & daemon=$!\n\
         for i in 1 2 3 4 5 6 7 8 9 10; do grep -q \"$PWD/m \" /proc/self/mountinfo && break; sleep 0.2; done\n\
         ls m; kill $daemon; wait $daemon; echo ended with $?\n! grep \"$PWD/m \" /proc/self/mountinfo",
    );
    assert!(
        out.status.success() && text(&out).contains("ended with 0"),
        "{}",
        text(&out)
    );
}

#[test]
fn a_daemon_that_can_have_no_fence_serves_without() {
    if !(require_real_root() && require_program("setpriv")) {
        return;
    }
    // What a container's filter answers to seccomp(2) and to Landlock's calls cannot be had here without a filter of
    // our own; that no capability can be dropped from the bounding set can: CAP_SETPCAP is not there.
    let out = Place::new().run(
        "unshare -m --propagation private setpriv --bounding-set=-setpcap --inh-caps=-all sh -ec \
           './acetate mount -o $MARK,lowerdir=l,upperdir=u,workdir=w m; ./show; echo x >m/new; cat u/new; umount m'",
    );
    let before = own();
    let no_setpcap = !(1 << 8);
    assert_eq!(
        shown(&out),
        [fenced(
            before.permitted & ANY_OWNER,
            before.bounding & no_setpcap
        )],
        "{}",
        text(&out)
    );
}

#[test]
fn a_groups_member_is_known_although_proc_hides_processes() {
    if !(require_real_root() && require_program("setpriv")) {
        return;
    }
    // Any write takes the set-user-ID bit; a group's member leaves the set-group-ID bit of a file that the group may
    // not execute, anybody else's takes that too.
    let out = Place::new().run(
        "unshare -m --propagation private sh -ec '\
           mount -t proc -o hidepid=4 proc /proc; echo 1 >l/f; chown 1000:7 l/f; chmod 6666 l/f; chmod 777 l; \
           ./acetate mount -o $MARK,lowerdir=l,upperdir=u,workdir=w m; \
           setpriv --reuid=1002 --regid=1002 --groups=7 sh -c \"echo 2 >>m/f\"; stat -c %a m/f; \
           setpriv --reuid=1002 --regid=1002 --clear-groups sh -c \"echo 3 >>m/f\"; stat -c %a m/f; umount m'",
    );
    assert!(
        out.status.success() && text(&out).ends_with("2666\n666\n"),
        "{}",
        text(&out)
    );
}

/// A directory with layers in it and the program.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("acetate-fence-")
            .tempdir()
            .unwrap();
        for name in ["l", "u", "w", "m"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        std::fs::copy(env!("CARGO_BIN_EXE_acetate"), root.path().join("acetate")).unwrap();
        // What /proc says of our daemons, which are told from others' by a word of their mount.
        let show = "#!/bin/sh\nfor p in /proc/[0-9]*; do\n\
             tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q \"^./acetate.*$MARK\" || continue\n\
             for t in $p/task/*; do echo \"THREAD $(cat $p/comm)\"; cat $t/status; done\ndone\n";
        std::fs::write(root.path().join("show"), show).unwrap();
        let place = Self { root };
        let out = place.run("chmod 755 . acetate show");
        assert!(out.status.success(), "{}", text(&out));
        place
    }

    fn run(&self, script: &str) -> Output {
        let name = self.root.path().file_name().unwrap().to_str().unwrap();
        Command::new("sh")
            .args(["-c", script])
            .env("MARK", format!("fsname={name}"))
            .current_dir(self.root.path())
            .output()
            .unwrap()
    }

    /// A script as uid 1001, to whom everything here belongs, where /dev/fuse is open to all.
    fn as_user(&self, script: &str) -> Output {
        std::fs::write(self.root.path().join("script"), script).unwrap();
        self.run(
            "chown -R 1001:1001 l u w m; test -e fuse || mknod fuse c 10 229; chmod 666 fuse; \
             exec unshare -m --propagation slave sh -c 'mount --bind fuse /dev/fuse; \
               exec setpriv --reuid=1001 --regid=1001 --clear-groups sh -e ./script'",
        )
    }

    fn can_be_a_user(&self) -> bool {
        if !require_real_root() {
            return false;
        }
        let out = self.as_user("test -r /dev/fuse && command -v fusermount3 && unshare -Ur true");
        out.status.success()
            || skip(
                "needs fusermount3, setpriv, user namespaces and device nodes in the temporary directory",
            )
    }
}

/// The processes that `./show` showed, by name; all threads of one must be alike.
fn shown(out: &Output) -> Vec<Rights> {
    let text = String::from_utf8_lossy(&out.stdout);
    let threads: BTreeSet<(String, Rights)> = text
        .split("THREAD ")
        .skip(1)
        .map(|t| (t.lines().next().unwrap().to_owned(), rights(t)))
        .collect();
    let mut all: Vec<_> = threads.into_iter().collect();
    // `acetate-unmount` before `acetate`.
    all.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    all.into_iter().map(|(_, r)| r).collect()
}

fn text(out: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

#[test]
fn the_table_of_capabilities_is_the_kernels() {
    // So that the numbers above are what their names say.
    let header = Path::new("/usr/include/linux/capability.h");
    let Ok(text) = std::fs::read_to_string(header) else {
        skip("no kernel headers");
        return;
    };
    let number = |name: &str| {
        let line = text
            .lines()
            .find(|l| l.starts_with("#define") && l.split_whitespace().nth(1) == Some(name));
        line.unwrap()
            .split_whitespace()
            .nth(2)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let all = |names: &str| {
        names
            .split(' ')
            .fold(0, |m, n| m | 1 << number(&format!("CAP_{n}")))
    };
    assert_eq!(
        all(
            "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID SETGID SETUID LINUX_IMMUTABLE SYS_ADMIN SYS_RESOURCE SYS_NICE MKNOD SETFCAP"
        ),
        ANY_OWNER
    );
    assert_eq!(
        all("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID SETFCAP"),
        OWN_NAMESPACE
    );
}
