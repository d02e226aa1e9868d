//! Section G: what froze, leaked or killed a daemon.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use crate::support::host::slowly;
use crate::support::mapping::Map;
use crate::support::story::{on_ours, require_real_root, sh};
use crate::support::{Base, Layers, Mount, Snapshot};

/// F#22, F#67, P#5498: the daemon opened a FIFO of a layer and hung, with everything behind it (plan9port; gitlab "until ls").
/// FIFOs of a lower: walked, changed, copied up, used by two processes, while nothing else waits for them.
#[test]
fn f22_a_fifo_in_a_layer_freezes_nothing() {
    on_ours(
        Base::Shm,
        2,
        "mkdir l0/d l1/d; mkfifo l1/p l1/d/q l0/d/r; mknod l1/d/null c 1 3; mknod l1/d/tty c 5 0; echo x > l1/f",
        "",
        |layers, _| {
            let out = sh(
            &layers.merged,
            "find . | sort; timeout 1 cat p & sleep 0.1; stat -c %F p d/q; cat f; wait || true
             chmod 600 p; mv d/q d/q2; ln d/r d/r2; touch d/q2; chown 1:1 d/r; setfattr -n trusted.x -v 1 p; rm d/r2; cp -a p p2
             (echo through > p) & cat p; wait; (echo again > d/q2) & cat d/q2; wait
             du -s . >/dev/null; tar -cf - . | wc -c >/dev/null; ls -l . d >/dev/null; rm p d/q2; cat f",
        )
        .unwrap();
            assert!(out.ends_with("through\nagain\nx\n"), "{out}");
            assert!(Snapshot::of(&layers.merged).faults.is_empty());
        },
    );
}

/// F#80, F#82: two processes that flock one file deadlocked (git clone, go get), because locks were taken in the daemon.
/// flock and POSIX locks, by several processes, over a copy-up, on a lower and a new file.
#[test]
fn f80_locks_of_two_processes_do_not_deadlock() {
    on_ours(
        Base::Shm,
        1,
        "echo x > l0/lower; mkdir l0/d",
        "",
        |layers, _| {
            sh(&layers.merged, "echo x > new").unwrap();
            for name in ["lower", "new", "d"] {
                let script = format!(
                    "for i in 1 2 3 4 5 6; do (flock {name} sh -c 'sleep 0.02; echo in; sleep 0.02; echo out') & done; wait"
                );
                let out = sh(&layers.merged, &script).unwrap();
                assert_eq!(
                    out,
                    "in\nout\n".repeat(6),
                    "{name}: a lock that excludes nobody"
                );
            }
            // The lock survives the copy-up of the file that holds it.
            let held = File::open(layers.at("lower")).unwrap();
            rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
            sh(&layers.merged, "echo y >> lower; ! flock -n lower true").unwrap();
            drop(held);
            sh(&layers.merged, "flock -n lower true").unwrap();
        },
    );
}

/// F#344, F#382, F#277, F#198, F#318, F#393, rootlesskit#227: a mount over its own lower, over its upper's parent, or with `/`
/// as a lower with the upper inside: find never ended, the machine had to be restarted. Mounting over one's own lower
/// works, and every walk ends.
#[test]
fn f344_a_mount_over_its_own_lower_works() {
    if !(require_real_root()) {
        return;
    }
    let mut layers = Layers::new(Base::Shm, 1);
    sh(
        &layers.root,
        "mkdir -p home/d; echo own > home/d/f; echo g > home/g",
    )
    .unwrap();
    layers.lowers = vec![layers.root.join("home")];
    layers.merged = layers.root.join("home");
    let mount = Mount::acetate(&layers, "");
    let out = sh(
        &layers.merged,
        "timeout 20 find . | sort; echo changed > d/f; rm g; mkdir n; cat d/f; ls",
    )
    .unwrap();
    assert_eq!(out, ".\n./d\n./d/f\n./g\nchanged\nd\nn\n");
    mount.unmount();
    assert_eq!(
        sh(&layers.merged, "cat d/f g; ls").unwrap(),
        "own\ng\nd\ng\n",
        "the lower is unchanged"
    );
    let mount = Mount::acetate(&layers, "");
    assert_eq!(
        sh(&layers.merged, "cat d/f; ls").unwrap(),
        "changed\nd\nn\n"
    );
    mount.unmount();
}

/// The same, with upper, work and the mountpoint inside the lower, and with `/` as the lower.
#[test]
fn f382_a_lower_that_contains_upper_work_and_mountpoint() {
    if !(require_real_root()) {
        return;
    }
    let mut layers = Layers::new(Base::Shm, 0);
    sh(
        &layers.root,
        "mkdir -p tree/d; echo f > tree/d/f; mkdir -p tree/m tree/u tree/w",
    )
    .unwrap();
    layers.lowers = vec![layers.root.join("tree")];
    layers.merged = layers.root.join("tree/m");
    layers.upper = layers.root.join("tree/u");
    layers.work = layers.root.join("tree/w");
    let mount = Mount::acetate(&layers, "");
    let out = sh(&layers.merged, "timeout 20 find . -path ./w -prune -o -path ./u -prune -o -print | sort; echo x > d/new; ls -A m; timeout 20 find . >/dev/null 2>&1 || test $? != 124; cat d/new").unwrap();
    // What ./u and ./w show is nobody's promise (the kernel answers ELOOP there); that every walk ends is.
    assert_eq!(out, ".\n./d\n./d/f\n./m\nx\n");
    mount.unmount();

    let mut root = Layers::new(Base::Shm, 0);
    root.lowers = vec!["/".into()];
    let mount = Mount::acetate(&root, "");
    let script = "timeout 60 find etc -xdev | wc -l; timeout 20 ls -A dev proc sys | wc -l; ls -d usr/bin; echo mine >> etc/hostname.acetate; cat etc/hostname.acetate; timeout 20 find dev/shm | wc -l";
    let out = sh(&root.merged, script).unwrap();
    assert!(out.contains("usr/bin\nmine\n"), "{out}");
    mount.unmount();
    assert!(!std::path::Path::new("/etc/hostname.acetate").exists());
}

/// F#344 again: what is mounted below a lower is an empty directory in the overlay, which can be listed, entered and written
/// to, also where the layers' mounts cannot be cloned (a user namespace).
#[test]
fn f344_mount_points_below_a_lower_are_empty_directories() {
    if !require_real_root() {
        return;
    }
    let mut root = Layers::new(Base::Shm, 0);
    root.lowers = vec!["/".into()];
    let mount = Mount::acetate(&root, "");
    let script =
        "ls -A proc sys; stat -c %F proc sys dev; find proc sys | sort; cd proc; test -z \"$(ls)\"";
    let out = sh(&root.merged, script).unwrap();
    assert_eq!(
        out,
        "proc:\n\nsys:\ndirectory\ndirectory\ndirectory\nproc\nsys\n"
    );
    mount.unmount();
}

/// MF#1319: an overlay on a branch of a union that itself looks into that overlay: D state. Two mounts of ours, each with
/// the other's mountpoint inside a lower.
#[test]
fn mf1319_two_mounts_inside_one_lower() {
    circle("");
}

/// The same with what is mounted below a lower shown: each would look into the other for ever, every event loop waiting for
/// the other daemon's, and not even kill -9 would end them.
#[test]
fn mf1319_a_circle_of_two_mounts_that_follow_submounts_ends() {
    circle("submounts=follow");
}

/// The same where a lower's mount cannot be cloned: before Linux 5.2, and for ordinary users. It hung.
#[test]
fn mf1319_a_circle_of_two_mounts_without_clones_ends() {
    circle("submounts=follow,kernel_features=-open-tree");
    circle("submounts=follow,kernel_features=4.18");
}

fn circle(words: &str) {
    if !(require_real_root()) {
        return;
    }
    let mut a = Layers::new(Base::Shm, 0);
    sh(&a.root, "mkdir -p t/x t/y t/ma t/mb; echo 1 > t/x/f").unwrap();
    let tree = a.root.join("t");
    a.lowers = vec![tree.clone()];
    a.merged = tree.join("ma");
    let mut b = Layers::new(Base::Shm, 0);
    b.lowers = vec![tree.clone()];
    b.merged = tree.join("mb");
    let first = Mount::acetate(&a, words);
    let second = Mount::acetate(&b, words);
    for m in [&a.merged, &b.merged] {
        sh(m, "timeout 30 find . -maxdepth 6 >/dev/null; echo y > x/n; cat x/f; timeout 10 ls ma mb >/dev/null").map(|o| assert_eq!(o, "1\n")).unwrap();
    }
    second.unmount();
    first.unmount();
}

/// The other half of MF#1319: overlay on overlay, three deep, written at the top.
#[test]
fn mf1319_overlay_on_overlay_three_deep() {
    if !(require_real_root()) {
        return;
    }
    let base = Layers::new(Base::Shm, 1);
    fs::write(base.lowers[0].join("f"), "deep").unwrap();
    let m1 = Mount::acetate(&base, "");
    let mut l2 = Layers::new(Base::Shm, 0);
    l2.lowers = vec![base.merged.clone()];
    let m2 = Mount::acetate(&l2, "");
    let mut l3 = Layers::new(Base::Shm, 0);
    l3.lowers = vec![l2.merged.clone()];
    let m3 = Mount::acetate(&l3, "");
    sh(
        &l3.merged,
        "cat f; echo er >> f; cat f; mkdir d; mv f d/f; rm -r d; ls -A",
    )
    .map(|o| assert_eq!(o, "deepdeeper\n"))
    .unwrap();
    assert_eq!(fs::read_to_string(l2.at("f")).unwrap(), "deep");
    m3.unmount();
    m2.unmount();
    m1.unmount();
}

/// F#343, F#281: the exit of a program took a minute because of the throttling of dirty pages of mappings, a stall every
/// 30 s. A mapping writer that exits at once, under both cache modes, with the data in place afterwards.
#[test]
fn f343_a_mapping_writer_exits_without_a_stall() {
    for words in ["", "writeback"] {
        on_ours(Base::Disk, 1, "truncate -s 64M l0/m", words, |layers, _| {
            let start = Instant::now();
            {
                let file = File::options()
                    .read(true)
                    .write(true)
                    .open(layers.at("m"))
                    .unwrap();
                let map = Map::shared(&file, 64 << 20);
                for page in 0..(64 << 20) / 4096 {
                    map.write(page * 4096, b"dirty");
                }
            }
            let took = start.elapsed();
            assert!(
                took < crate::support::host::slowly(Duration::from_secs(30)),
                "{words}: {took:?}"
            );
            sh(&layers.merged, "sync -f m; tr -d '\\0' < m | wc -c")
                .map(|o| assert_eq!(o.trim(), (5 * (64 << 20) / 4096).to_string()))
                .unwrap();
        });
    }
}

/// F#169, F#211, F#302: the daemon died (ENOTCONN) in the middle of a build, an assert failed in a git merge. A git history with
/// merges over lower files, then `git fsck`.
#[test]
fn f211_a_big_git_merge() {
    if !crate::support::host::require_program("git") {
        return;
    }
    let git = "export HOME=$PWD/.. GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; g() { git -c gc.auto=0 -c init.defaultBranch=main -c advice.detachedHead=false \"$@\"; }";
    let setup = format!(
        "{git}; cd l0; g init -q r; cd r; for d in 1 2 3 4 5 6 7 8; do mkdir -p d$d/s; for f in 1 2 3 4 5 6 7 8 9; do seq $d 200 > d$d/s/f$f; done; done; g add .; g commit -qm base"
    );
    on_ours(Base::Shm, 1, &setup, "", |layers, _| {
        let script = format!(
            "cd r; {git}
             g checkout -q -b left; for d in 1 2 3; do g mv d$d left$d; done; g rm -rq d8; echo l >> d4/s/f1; g commit -qam left
             g checkout -q -b right main; for d in 5 6; do sed -i 's/^150$/changed/' d$d/s/*; done; echo r >> d1/s/f9; g commit -qam right
             g merge -q left -m merge; test \"$(tail -1 left1/s/f9)\" = r; test ! -e d8; test ! -e d1
             g stash -q 2>/dev/null || true; g checkout -q main; test -e d8/s/f1; g checkout -q right; g rebase -q left 2>/dev/null || g rebase --abort || true; g checkout -q -f right
             g gc -q; g fsck --strict 2>&1 | grep -v dangling || true; g status --porcelain | wc -l"
        );
        assert_eq!(sh(&layers.merged, &script).unwrap(), "0\n");
    });
}

/// F#210, F#92, F#290: descriptors leaked by mkdir and rmdir, by create, by failing renames. Flat over 30,000 operations
/// (300,000 with ACETATE_LONG=1).
#[test]
fn f210_the_daemon_leaks_no_descriptor() {
    let rounds: u32 = if std::env::var_os("ACETATE_LONG").is_some() {
        30_000
    } else {
        crate::support::host::fewer(3_000)
    };
    on_ours(
        Base::Shm,
        1,
        "mkdir l0/d l0/full; for i in 0 1 2 3 4 5 6 7 8 9; do echo x > l0/d/$i; done; echo x > l0/full/x",
        "",
        |layers, mount| {
            let Some(pid) = mount.pid() else { return };
            let count = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
            let round = |i: u32| {
                let at = |name: &str| layers.at(name);
                fs::create_dir(at("m")).unwrap();
                fs::write(at("m/f"), "x").unwrap();
                fs::rename(at("m/f"), at(&format!("d/{}", i % 10))).unwrap();
                assert!(fs::rename(at("m"), at("full")).is_err());
                assert!(fs::rename(at("nothing"), at("full/y")).is_err());
                assert!(fs::remove_dir(at("full")).is_err());
                fs::hard_link(at("d/1"), at("h")).unwrap();
                fs::remove_file(at("h")).unwrap();
                assert!(fs::create_dir(at("full")).is_err());
                fs::remove_dir(at("m")).unwrap();
            };
            (0..300).for_each(round);
            let before = count();
            (0..rounds).for_each(round);
            let after = count();
            let begun = Instant::now();
            // A removed object's descriptor goes with its FORGET, for which no client waits.
            while count() > before + 20 {
                assert!(
                    begun.elapsed() < slowly(Duration::from_secs(5)),
                    "{before} descriptors before, {after} after {} operations, {} later",
                    rounds * 10,
                    count()
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        },
    );
}

/// F#36, F#378: EMFILE, because every open file and every mapping of a client (the linker mold) held a descriptor in the
/// daemon. More files open and mapped than the daemon may have descriptors.
#[test]
fn f36_a_client_with_more_open_files_than_the_daemon_may_have() {
    if !(require_real_root()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    sh(
        &layers.root,
        "mkdir l0/d; cd l0/d; i=0; while [ $i -lt 1500 ]; do echo $i > $i; i=$((i + 1)); done",
    )
    .unwrap();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let mut command = std::process::Command::new("sh");
    let bin = crate::support::mount::acetate_command(&layers.options(), &layers.merged);
    command
        .args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""])
        .arg(bin.get_program())
        .args(bin.get_args());
    let mount = if crate::support::mount::acetate_bin().as_os_str() == "kernel" {
        Mount::kernel(&layers, "")
    } else {
        Mount::spawn(command, &layers.merged).unwrap()
    };
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let mut held = Vec::new();
    for i in 0..1500 {
        let file = File::options()
            .read(true)
            .write(true)
            .open(layers.at(&format!("d/{i}")))
            .unwrap();
        let map = Map::shared(&file, 4096);
        map.write(0, b"M");
        held.push((file, map));
        fs::write(layers.at(&format!("n{i}")), "new").unwrap();
    }
    for (i, (_, map)) in held.iter().enumerate() {
        assert_eq!(map.read(0, 1), b"M", "{i}");
    }
    sh(
        &layers.merged,
        "cat d/* | grep -c M; cat n* | wc -c; rm -r d; ls | wc -l",
    )
    .map(|o| assert_eq!(o, "1500\n4500\n1500\n"))
    .unwrap();
    drop(held);
    mount.unmount();
}

// F#238, F#222, F#360 (memory that grows for weeks): tests/limits.rs.
// F#225 (a segmentation fault without arguments): the command line's own tests.
// F#254 (page cache doubled per container): every FUSE mount has its own inodes and so its own cache; only passthrough
// (an option for root, later) could share it. Documented, nothing to test.
