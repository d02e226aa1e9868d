//! An old kernel, as `--kernel-features` plays it: everything that Linux 4.18 lacks is hidden, one thing alone or all at
//! once, and what a user sees must not change. What the mounts do at large is compared by the oracle
//! (`tests/oracle/old_kernel.rs`); here is what is special about the ways around.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::host::{require_program, require_userns, slowly};
use support::mount::acetate_bin;
use support::story::{Story, require_real_root, sh};
use support::{Base, Kind, Layers, Mount, in_userns, require_fuse, require_root};

/// Each feature alone, and the kernels.
const HIDDEN: &[&str] = &[
    "-zero-open",
    "-zero-opendir",
    "-zero-open:-zero-opendir",
    "-killpriv-v2",
    "-cache-symlinks",
    "-cache-dir",
    "-max-pages",
    "-fuse-copy-range",
    "-parallel-dirops",
    "-readdirplus",
    "-openat2",
    "-statx",
    "-statx-mount-id",
    "-fchmodat2",
    "-xattrat",
    "-open-tree",
    "-mount-setattr",
    "-close-range",
    "-copy-range",
    "-copy-across",
    "-reflink",
    "-utimensat-empty",
    "-link-own-file",
    "-fs-uuid",
    "-ext4-uuid",
    "-fs-uuid:-ext4-uuid:-disk-by-uuid",
    "-rename-whiteout",
    "-rename-exchange",
    "-unnamed-file",
    "-tmpfs-user-xattr",
    "4.18",
    "5.4",
    "5.10",
];

fn words(hidden: &str) -> String {
    format!("kernel_features={hidden}")
}

/// What a mount does with files while they are open: truncation, appending, copies up under open descriptors, files
/// without a name. One text, the same under each mask.
fn open_files(root: &Path) -> String {
    let mut told = String::new();
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    // Opened before the copy-up, read after it.
    let mut early = File::open(root.join("low")).unwrap();
    let mut appender = File::options().append(true).open(root.join("low")).unwrap();
    appender.write_all(b"+one").unwrap();
    let mut text = String::new();
    early.read_to_string(&mut text).unwrap();
    told += &format!("early {text}, ");
    File::options()
        .write(true)
        .truncate(true)
        .open(root.join("low"))
        .unwrap();
    appender.write_all(b"two").unwrap();
    told += &format!("cut {}, ", read("low"));
    // A name goes while the file is open, and another file takes it.
    let mut gone = File::options()
        .read(true)
        .write(true)
        .open(root.join("d/gone"))
        .unwrap();
    fs::remove_file(root.join("d/gone")).unwrap();
    fs::write(root.join("d/gone"), "new").unwrap();
    gone.write_all_at(b"WORDS", 4).unwrap();
    gone.rewind().unwrap();
    let mut text = String::new();
    gone.read_to_string(&mut text).unwrap();
    told += &format!(
        "gone {text} {} {}, ",
        gone.metadata().unwrap().nlink(),
        read("d/gone")
    );
    // A directory is removed while it is open.
    let dir = File::open(root.join("d/empty")).unwrap();
    fs::remove_dir(root.join("d/empty")).unwrap();
    told += &format!("rmdir {}, ", dir.metadata().unwrap().nlink());
    // Large enough for several messages, and for copy_file_range(2).
    let big: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    fs::write(root.join("big"), &big).unwrap();
    fs::copy(root.join("big"), root.join("copy")).unwrap();
    fs::copy(root.join("low-big"), root.join("copy-of-low")).unwrap();
    told += &format!(
        "big {} {}, ",
        fs::read(root.join("copy")).unwrap() == big,
        fs::read(root.join("copy-of-low")).unwrap() == vec![7; 300_000]
    );
    told += &format!("link {:?}, ", fs::read_link(root.join("link")).unwrap());
    let mut names: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    told + &names.join(" ")
}

const OPEN_FILES: &str = "early low+one, cut two, gone the WORDS 0 new, rmdir 0, big true true, link \"low\", \
                          big copy copy-of-low d link low low-big";

/// Every mask alone, and the kernels' own: the program starts with it, and open files are what they should be.
#[test]
fn files_that_are_open_behave_without_any_one_feature() {
    if !(require_root() && require_fuse()) {
        return;
    }
    for (i, hidden) in HIDDEN.iter().enumerate() {
        // Layers on two file systems, where there are two: data is then copied between them.
        let (upper, lower) = if i % 2 == 0 {
            (Base::Shm, Base::Disk)
        } else {
            (Base::Disk, Base::Disk)
        };
        let below = Layers::new(lower, 1);
        sh(
            &below.root,
            "cd l0; printf low > low; mkdir -p d/empty; printf 'the words' > d/gone; ln -s low link;
             head -c 300000 /dev/zero | tr '\\0' '\\007' > low-big",
        )
        .unwrap();
        let mut layers = Layers::new(upper, 0);
        layers.lowers.push(below.lowers[0].clone());
        let mount = Mount::acetate(&layers, &words(hidden));
        assert_eq!(open_files(&layers.merged), OPEN_FILES, "{hidden}");
        mount.unmount();
        // And again, from the upper.
        let mount = Mount::acetate(&layers, &words(hidden));
        assert_eq!(
            fs::read(layers.at("copy")).unwrap().len(),
            3_000_000,
            "{hidden}"
        );
        mount.unmount();
    }
}

/// Stories that change names and metadata, told on the kernel's overlayfs too.
#[test]
fn names_and_metadata_are_the_kernels_without_the_new_calls() {
    for hidden in [
        "-openat2",
        "-statx",
        "-statx-mount-id",
        "-fchmodat2",
        "-xattrat",
        "-utimensat-empty",
        "-link-own-file",
        "-rename-whiteout",
        "-unnamed-file",
        "-open-tree",
        "4.18",
    ] {
        Story::new(
            2,
            "mkdir -p l0/d/e l1/d/e l1/x; echo 0 > l0/d/a; echo 1 > l1/d/a; echo 1 > l1/d/b; ln l1/d/b l1/x/c;
             ln -s a l1/d/s; mkfifo l1/d/p; setfattr -n user.k -v v l1/x/c 2>/dev/null || true; chmod 4711 l1/x/c",
        )
        .options(&format!(
            "redirect_dir=on,index=on,metacopy=off,{}",
            words(hidden)
        ))
        .on_disk()
        .step("rm d/a; mv d d2; cat d2/b; ls d2; chmod 700 d2/p; touch -h -d @5 d2/s; chown -h 3:4 d2/s")
        .step("echo more >> x/c; cat d2/b; stat -c '%h %a %u:%g' x/c d2/b d2/s d2/p; rm -r d2/e; mkdir d2/e; ls -A d2/e")
        .step("mv d2/b d2/s x; rm -r d2; ls -RA; touch -d @7 x; chmod 1755 x; stat -c '%Y %a' x")
        .run();
    }
}

/// A file system without RENAME_EXCHANGE (ramfs before 5.16, network file systems): directories that lowers have could not be
/// removed, nor a new one be moved over such a one (EINVAL).
#[test]
fn directories_are_removed_and_replaced_where_nothing_can_be_exchanged() {
    for words in ["", "userxattr,"] {
        Story::new(
            2,
            "mkdir -p l0/d/deep l1/d/deep l0/x l1/gone/g; echo g > l0/d/g; echo h > l1/d/deep/h; echo y > l0/x/y; echo z > l1/gone/g/z",
        )
        .options(&format!("{words}kernel_features=-rename-exchange"))
        .not_the_kernel("its upper must be able to")
        .step("mkdir e; echo n > e/n; rm -r d/g d/deep; mv -T e d; ls -A d; ls; mkdir f; rm d/n x/y; mv -T d x; mv -T x f; find . | sort")
        .step("find . | sort; mkdir d x; rm -r gone; mkdir gone; touch gone/new; find . | sort")
        .step("find . | sort; rm -r gone; ls -A")
        .run()
        .into_iter()
        .zip([
            "n\nd\ngone\nx\n.\n./f\n./gone\n./gone/g\n./gone/g/z\n",
            ".\n./f\n./gone\n./gone/g\n./gone/g/z\n.\n./d\n./f\n./gone\n./gone/new\n./x\n",
            ".\n./d\n./f\n./gone\n./gone/new\n./x\nd\nf\nx\n",
        ])
        .for_each(|(printed, wanted)| assert_eq!(printed, wanted));
    }
}

/// Set-user-ID, set-group-ID and capabilities go by whoever may not keep them: without FUSE_HANDLE_KILLPRIV_V2 the
/// kernel clears them itself, by a SETATTR with the mode and a REMOVEXATTR.
#[test]
fn set_ids_are_cleared_without_killpriv_v2() {
    if !require_real_root() {
        return;
    }
    let acts = [
        "printf x >> F",
        "printf x | dd of=F conv=notrunc 2>/dev/null",
        "truncate -s 1 F",
        ": > F",
        "fallocate -l 70000 F",
        "chgrp 1000 F",
        "touch F",
        "chmod u+w F",
    ];
    let told = |kind, words: &str| {
        let layers = Layers::new(Base::Shm, 1);
        let mut setup = String::from("chmod 777 l0 upper\n");
        for (a, mode) in (0..acts.len()).flat_map(|a| ["6777", "2767", "4766"].map(|m| (a, m))) {
            setup += &format!(
                "for w in 1000 1001 0; do n=l0/{a}-{mode}-$w; seq 9 > $n; chown 1000:1000 $n; chmod {mode} $n; done\n"
            );
        }
        sh(&layers.root, &setup).unwrap();
        let mount = Mount::with(kind, &layers, words);
        for uid in [1000, 1001, 0] {
            let mut script = String::from("set +e\n");
            for (a, act) in acts.iter().enumerate() {
                script += &format!(
                    "for f in {a}-*-{uid}; do ({}) 2>/dev/null; done\n",
                    act.replace('F', "$f")
                );
            }
            script += "true";
            let mut command = support::as_user(uid, script);
            assert!(
                command
                    .current_dir(&layers.merged)
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let lines = sh(&layers.merged, "stat -c '%n %a %s %u:%g' *").unwrap();
        mount.unmount();
        lines.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let kernel = told(Kind::Kernel, "");
    assert!(
        kernel.iter().any(|l| l.contains(" 777 ")) && kernel.iter().any(|l| l.contains(" 6777 ")),
        "nothing was tested: {kernel:#?}"
    );
    for hidden in ["-killpriv-v2", "-killpriv-v2:-zero-open", "4.18"] {
        let ours = told(Kind::Acetate, &words(hidden));
        let different: Vec<_> = ours.iter().zip(&kernel).filter(|(a, b)| a != b).collect();
        assert!(
            ours.len() == kernel.len() && different.is_empty(),
            "{hidden}: ours, the kernel's: {different:#?}"
        );
    }
}

/// What is mounted below a lower is not shown, whichever way it is found out: a mount of another file system and one of
/// the same (a bind mount, which st_dev does not tell). A clone of the lower's mount would not have them at all; without
/// one, a file that is mounted over is shown as what lies upon it, as nothing else can be read there.
#[test]
fn mounts_below_a_lower_stay_hidden_without_the_calls_that_tell() {
    if !require_real_root() {
        return;
    }
    for hidden in [
        "-open-tree",
        "-open-tree:-openat2",
        "-open-tree:-statx-mount-id",
        "-open-tree:-openat2:-statx-mount-id",
        "-open-tree:-openat2:-statx",
        "4.18",
    ] {
        let layers = Layers::new(Base::Shm, 1);
        sh(
            &layers.root,
            "mkdir -p l0/other l0/same l0/deep/same secret; echo s > secret/s;
                 mount -t tmpfs none l0/other; echo s > l0/other/s; mount --bind secret l0/same;
                 mount --bind secret l0/deep/same",
        )
        .unwrap();
        let _below = Below(layers.lowers[0].clone());
        let mount = Mount::acetate(&layers, &words(hidden));
        let found = sh(&layers.merged, "find . ! -type d").unwrap();
        assert_eq!(found, "", "{hidden}");
        for dir in ["other", "same", "deep/same"] {
            assert_eq!(
                fs::read_dir(layers.at(dir)).unwrap().count(),
                0,
                "{hidden}: {dir}"
            );
        }
        // The upper's own are made and found beside them.
        sh(
            &layers.merged,
            "mkdir -p deep/new; echo x > deep/new/x; cat deep/new/x",
        )
        .unwrap();
        mount.unmount();
    }
}

/// What is mounted below a lower, until this is dropped. (Not in a mount namespace, which would keep other tests' mounts.)
struct Below(std::path::PathBuf);

impl Drop for Below {
    fn drop(&mut self) {
        for name in ["other", "same", "deep/same"] {
            let place = support::raw::c(path(&self.0.join(name)));
            // SAFETY: a NUL-terminated path.
            unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

/// A lower that contains the mount point: the mount is met inside of itself.
#[test]
fn a_lower_around_the_mount_point_works_without_clones() {
    if !require_real_root() {
        return;
    }
    for hidden in ["-open-tree", "4.18"] {
        let mut layers = Layers::new(Base::Shm, 0);
        fs::write(layers.root.join("beside"), "x").unwrap();
        layers.lowers.push(layers.root.clone());
        layers.writable = false;
        let mount = Mount::acetate(&layers, &format!("{},threaded=0", words(hidden)));
        let found = sh(&layers.merged, "cat beside; ls merged; ls -a upper").unwrap();
        assert_eq!(found, "x.\n..\n", "{hidden}");
        mount.unmount();
    }
}

/// What is mounted at a name of a lower must not be asked anything: it may be ourselves, and no loop is left to answer.
#[test]
fn a_mount_without_clones_does_not_wait_for_itself() {
    if !require_real_root() {
        return;
    }
    let mut layers = Layers::new(Base::Shm, 0);
    layers.lowers.push(layers.root.join("around"));
    fs::create_dir_all(layers.root.join("around/m")).unwrap();
    layers.merged = layers.root.join("around/m");
    let mount = Mount::acetate(&layers, &format!("{},threaded=0", words("-open-tree")));
    // Changes make the kernel's attributes of our root old, while others look at it through itself.
    let hung = sh(
        &layers.root,
        "in_time() { timeout -s KILL 10 \"$@\" >/dev/null || echo \"$*\" hangs; }; \
         for i in $(seq 30); do \
           in_time touch around/m/new$i & in_time stat around/m/m & in_time ls around/m & sleep 0.02; \
         done; wait",
    );
    assert_eq!(hung.unwrap(), "");
    mount.unmount();
}

/// The directories of a lower are swapped with symlinks that lead out of it while it is read: nothing from outside is ever
/// shown, with openat2(2) or without.
#[test]
fn a_lower_whose_directories_become_symlinks_shows_nothing_from_outside() {
    if !(require_root() && require_fuse()) {
        return;
    }
    for hidden in ["", "-openat2", "-openat2:-statx:-xattrat", "4.18"] {
        let layers = Layers::new(Base::Shm, 1);
        sh(
            &layers.root,
            "mkdir -p outside/e l0/d/e; echo secret > outside/f; echo secret > outside/e/f; echo fine > l0/d/f;
             echo fine > l0/d/e/f; ln -s ../.. l0/up; ln -s / l0/root",
        )
        .unwrap();
        let lower = layers.lowers[0].clone();
        // Lowers do not change behind a mount; one that does must still not lead anywhere.
        symlink(layers.root.join("outside"), lower.join("link")).unwrap();
        let mount = Mount::acetate(&layers, &format!("{},timeout=0,fd_cache=4", words(hidden)));
        let over = AtomicBool::new(false);
        let reads = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (d, link) = (lower.join("d"), lower.join("link"));
                let (d, link) = (support::raw::c(path(&d)), support::raw::c(path(&link)));
                while !over.load(Ordering::Relaxed) {
                    // SAFETY: two NUL-terminated paths.
                    let swapped = unsafe {
                        libc::renameat2(
                            libc::AT_FDCWD,
                            d.as_ptr(),
                            libc::AT_FDCWD,
                            link.as_ptr(),
                            libc::RENAME_EXCHANGE,
                        )
                    };
                    assert_eq!(swapped, 0);
                }
            });
            let begin = std::time::Instant::now();
            let (least, most) = (Duration::from_millis(700), slowly(Duration::from_secs(20)));
            let mut reads = 0;
            // On a machine that emulates another, seconds may pass before one read is between two swaps.
            while begin.elapsed() < least || (reads == 0 && begin.elapsed() < most) {
                for name in ["d/f", "d/e/f", "link/f", "link/e/f"] {
                    // Through the mount a symlink is the client's to follow, and ours leads to an absolute path:
                    // so each step of the walk is taken without following.
                    if let Some(text) = read_beneath(&layers.merged, name) {
                        assert_eq!(text, "fine\n", "{hidden}: {name}");
                        reads += 1;
                    }
                }
            }
            over.store(true, Ordering::Relaxed);
            reads
        });
        assert!(reads > 0, "{hidden}: nothing was read");
        mount.unmount();
    }
}

fn path(p: &Path) -> &[u8] {
    p.as_os_str().as_encoded_bytes()
}

/// Reads `name` below `root`, following no symlink.
fn read_beneath(root: &Path, name: &str) -> Option<String> {
    let mut at = File::open(root).unwrap();
    let (dirs, last) = name.rsplit_once('/').unwrap_or(("", name));
    let open = |at: &File, name: &str, flags: i32| {
        let name = support::raw::c(name);
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: a NUL-terminated name and an open descriptor; the new one is owned by the File alone.
        unsafe {
            let fd = libc::openat(at.as_raw_fd(), name.as_ptr(), flags);
            (fd >= 0).then(|| <File as std::os::fd::FromRawFd>::from_raw_fd(fd))
        }
    };
    for dir in dirs.split('/').filter(|d| !d.is_empty()) {
        at = open(&at, dir, libc::O_DIRECTORY)?;
    }
    let mut text = String::new();
    open(&at, last, libc::O_RDONLY)?
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// Anchors of hard links are named by their file system's UUID, which kernels before 6.9 (ext4: 6.0) do not tell. An upper
/// that was used with the number known and unknown, by us and by kernel overlayfs, as over an upgrade: the index was swept,
/// and the names of one file came apart.
#[test]
fn hard_links_stay_one_file_over_a_change_of_kernel() {
    if !(require_real_root() && support::require_kernel_overlay()) {
        return;
    }
    let unknown = "kernel_features=-fs-uuid:-ext4-uuid:-disk-by-uuid";
    let (old, new) = ((Kind::Acetate, unknown), (Kind::Acetate, ""));
    let kernel = (Kind::Kernel, "index=on");
    for order in [
        [old, new, old],
        [new, old, new],
        [kernel, old, new],
        [kernel, old, kernel],
    ] {
        // Here every tmpfs has one; a disk may have none.
        let layers = Layers::new(Base::Shm, 1);
        sh(
            &layers.root,
            "cd l0; echo 0 > a; ln a b; ln a c; ln a d; echo 0 > e; ln e f",
        )
        .unwrap();
        for (i, ((kind, words), name)) in order.into_iter().zip(["a", "b", "c"]).enumerate() {
            let mount = Mount::with(kind, &layers, words);
            sh(&layers.merged, &format!("echo {} >> {name}", i + 1)).unwrap();
            // A second group of links is only touched by the second.
            if i == 1 {
                sh(&layers.merged, "echo f >> f").unwrap();
            }
            let text = sh(
                &layers.merged,
                "for n in a b c d; do echo $(cat $n); done | uniq; echo $(cat e) $(stat -c %i a b c d | uniq | wc -l)",
            )
            .unwrap();
            let want = ["0 1\n0 1\n", "0 1 2\n0 f 1\n", "0 1 2 3\n0 f 1\n"][i];
            assert_eq!(text, want, "{order:?}, step {i}");
            mount.unmount();
        }
    }
}

/// Before 5.8 a user namespace's root may make no device 0:0: whiteouts are `.wh.` files there, and hide as well.
#[test]
fn without_whiteout_devices_in_a_user_namespace_deletions_last() {
    if !(require_fuse() && require_userns() && require_root()) {
        return;
    }
    for hidden in ["-user-whiteout", "4.18"] {
        let layers = Layers::new(Base::Shm, 1);
        sh(
            &layers.root,
            "mkdir -p l0/d/e l0/gone; echo a > l0/a; echo b > l0/d/b; echo c > l0/d/e/c; echo g > l0/gone/g",
        )
        .unwrap();
        let script = format!(
            "cd {root}; m() {{ {bin} mount -o {options},{words} merged; }}
             m; rm merged/a merged/d/b; rm -r merged/gone; mkdir merged/gone; mv merged/d/e merged/e; find merged ! -name merged | sort
             {bin} unmount merged; m; echo again; find merged ! -name merged | sort; {bin} unmount merged
             echo upper; cd upper; find . -type c; ls -A",
            root = layers.root.display(),
            bin = acetate_bin().display(),
            options = layers.options(),
            words = words(hidden),
        );
        let out = in_userns(format!("set -eu\n{script}")).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        let tree = "merged/d\nmerged/e\nmerged/e/c\nmerged/gone\n";
        assert_eq!(
            said,
            format!("{tree}again\n{tree}upper\n.wh.a\nd\ne\ngone\n"),
            "{hidden}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}

/// The masks do what they say: no hidden call is made, and the kernel sends the messages that it would.
#[test]
fn a_hidden_call_is_not_made() {
    if !(require_real_root() && require_program("strace")) {
        return;
    }
    let calls = |hidden: &str| {
        let layers = Layers::new(Base::Disk, 1);
        sh(
            &layers.root,
            "mkdir -p l0/d/e; echo x > l0/d/e/f; ln l0/d/e/f l0/d/g; head -c 100000 /dev/urandom > l0/d/big",
        )
        .unwrap();
        let log = layers.root.join("trace");
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-e", "signal=none", "-o"])
            .arg(&log)
            .arg(acetate_bin())
            .args(["mount", "-f", "-o", &layers.options()])
            .args([&format!("--kernel-features={hidden}")])
            .arg(&layers.merged)
            // The other half of the comparison hides nothing, also where the whole run is under a mask.
            .env_remove("ACETATE_KERNEL_FEATURES");
        let mount = Mount::spawn(command, &layers.merged).unwrap();
        // Where the root is shown in one step, a mount point is seen before that; this waits for what is in it.
        let end = std::time::Instant::now() + slowly(Duration::from_secs(20));
        while !layers.at("d/e/f").exists() {
            assert!(
                std::time::Instant::now() < end,
                "{hidden}: nothing is shown"
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        sh(
            &layers.merged,
            "echo y >> d/e/f; chmod 600 d/e/f; touch -d @3 d/big; cat d/g; ls -lR; rm d/g; cp d/big d/two",
        )
        .unwrap();
        mount.unmount();
        fs::read_to_string(log).unwrap()
    };
    // As strace prints them: younger than some straces, these three have numbers only.
    let hideable = [
        "openat2(",
        "statx(",
        "fchmodat2(",
        "0x1c4(",
        "getxattrat(",
        "listxattrat(",
        "setxattrat(",
        "0x1d0(",
        "0x1cf(",
        "0x1d1(",
        "open_tree(",
        "move_mount(",
        "mount_setattr(",
        "close_range(",
    ];
    let (plain, old) = (calls(""), calls("4.18:-statx"));
    let made = |text: &str, call: &str| text.lines().any(|l| l.contains(&format!(" {call}")));
    let (was, is): (Vec<_>, Vec<_>) = (
        hideable.iter().filter(|c| made(&plain, c)).collect(),
        hideable.iter().filter(|c| made(&old, c)).collect(),
    );
    // The dynamic loader and the standard library of the program itself may stat by statx(2) before it begins.
    let is: Vec<_> = is.into_iter().filter(|c| **c != "statx(").collect();
    assert!(was.len() >= 5, "the test sees too little: {was:?}");
    assert!(is.is_empty(), "made although hidden: {is:?}");
    // Those ask for no mount id; what the kernel answers stands behind the brace.
    let asks = |l: &str| {
        l.contains(" statx(")
            && l.split('{')
                .next()
                .is_some_and(|q| q.contains("STATX_MNT_ID"))
    };
    assert!(
        plain.lines().any(asks) && !old.lines().any(asks),
        "statx was made although hidden"
    );
}

/// A word that is no feature is refused with the list of those that are, on each way in.
#[test]
fn an_unknown_feature_is_refused_with_the_names_of_all() {
    let layers = Layers::new(Base::Shm, 1);
    let run = |program: &str, variable: Option<&str>, words: &[&str]| {
        let name = layers.root.join(program);
        if !name.exists() {
            symlink(acetate_bin(), &name).unwrap();
        }
        let mut command = Command::new(name);
        command.args(words).arg(&layers.merged);
        command.env_remove("ACETATE_KERNEL_FEATURES");
        if let Some(value) = variable {
            command.env("ACETATE_KERNEL_FEATURES", value);
        }
        let out = command.output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            said.contains("-no-such") && said.contains("-openat2") && said.contains("4.18"),
            "{said}"
        );
        out.status.code()
    };
    let options = layers.options();
    let given = format!("{options},kernel_features=-no-such");
    let own = ["mount", "--kernel-features=-no-such", "-o", &options];
    assert_eq!(run("acetate", None, &own), Some(2));
    assert_eq!(run("acetate", None, &["mount", "-o", &given]), Some(2));
    assert_eq!(run("fuse-overlayfs", None, &["-o", &given]), Some(1));
    let own = ["mount", "-o", &options];
    assert_eq!(run("acetate", Some("-no-such"), &own), Some(2));
    let compat = ["-o", &options];
    assert_eq!(run("fuse-overlayfs", Some("-no-such"), &compat), Some(1));
}
