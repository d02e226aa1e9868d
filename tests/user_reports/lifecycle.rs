//! Section I: how other programs start it, end it, and read what it says.
//!
//! Rows that `tests/cli` tells, where the command line and the daemon are tested by themselves:
//! * CS#191, CS#453 (three arguments, the store as working directory, FUSE's magic number): `places.rs::a_store_as_podman_lays_it_out`;
//! * CS#1375, B#3708, sysbox#725, gvisor#14699 (500 layers, 30 kB of options, layers by descriptor):
//!   `places.rs::five_hundred_layers`, `layers_may_be_named_by_descriptors`;
//! * F#404, F#430, P#24605, CS#627 (noise about options): `calls.rs::unknown_words_are_named_on_one_line_and_ignored`;
//! * F#57, puzzlefs#66, astrid#1856 (a failure in the background): `calls.rs::a_wrong_mount_says_what_is_wrong_and_what_to_do`,
//!   `daemon.rs::a_serving_process_that_dies_at_the_start_is_reported`;
//! * CS#1654, P#7061 (daemons that outlive their mounts): `daemon.rs::it_serves_when_the_command_returns_and_ends_with_the_mount`.
//!   There is no list of daemons to reap: the mount table is the list (`findmnt -t fuse.acetate,fuse.fuse-overlayfs`), and
//!   each daemon ends with its last mount;
//! * F#341, F#388 (SIGTERM, systemd): `daemon.rs::sigterm_and_sigint_unmount`, `systemd_is_told_when_the_mount_serves`;
//! * TB#1512, P#14165 (the program removed while containers live): `tests/package.rs` removes the package under a mount; that
//!   uppers are usable without us is `tests/interop`.
//!
//! A wish: handing a live mount to a new daemon for an upgrade (stargz-snapshotter#318, #2387, nydus#1788). Not built; an upgrade
//! of the program touches no running daemon, as `tests/package.rs` shows.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::host::require_program;
use crate::support::mount::{acetate_bin, is_mountpoint, is_peer};
use crate::support::story::{require_real_root, sh};
use crate::support::{Base, Layers, Mount};

fn possible() -> bool {
    require_real_root() && !is_peer(&acetate_bin())
}

/// Runs a script in the layers' directory; `$ACETATE` is the program, `$options` those of the layers.
fn script(layers: &Layers, text: &str) -> Result<String, String> {
    let head = format!(
        "ACETATE='{}'; options='{}'\n",
        acetate_bin().display(),
        layers.options()
    );
    sh(&layers.root, &(head + text))
}

/// F#440: paths with escaped colons were refused. Every hard character, in every place that a path can have.
#[test]
fn f440_hard_characters_in_every_path() {
    if !possible() {
        return;
    }
    for hard in [
        ":", ",", "\\", "\"", " ", "=", "\\:", ",,", "\n", "'", "\u{e9}", "%s",
    ] {
        let layers = Layers::new(Base::Shm, 0);
        let root = layers.root.join(format!("r{hard}r"));
        let mut inside = Layers::of(
            root.clone(),
            vec![root.join(format!("{hard}l")), root.join(format!("l{hard}"))],
        );
        inside.merged = root.join(format!("m{hard}m"));
        fs::create_dir(&inside.merged).unwrap();
        fs::write(inside.lowers[1].join("f"), "through").unwrap();
        let escaped = |path: &std::path::Path| {
            let mut text = String::new();
            for c in path.to_str().unwrap().chars() {
                if matches!(c, ':' | ',' | '\\') {
                    text.push('\\');
                }
                text.push(c);
            }
            text
        };
        let options = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            escaped(&inside.lowers[0]),
            escaped(&inside.lowers[1]),
            escaped(&inside.upper),
            escaped(&inside.work)
        );
        let run =
            |args: &[&std::ffi::OsStr]| Command::new(acetate_bin()).args(args).output().unwrap();
        let out = run(&[
            "mount".as_ref(),
            "-o".as_ref(),
            options.as_ref(),
            inside.merged.as_os_str(),
        ]);
        assert!(
            out.status.success(),
            "{hard:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        assert_eq!(
            fs::read_to_string(inside.merged.join("f")).unwrap(),
            "through"
        );
        fs::write(inside.merged.join("new"), "x").unwrap();
        let out = run(&["unmount".as_ref(), inside.merged.as_os_str()]);
        assert!(
            out.status.success(),
            "{hard:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(inside.upper.join("new").exists(), "{hard:?}");
    }
}

/// CS#191: lowers, upper and mount point relative to the working directory of the call, which is the driver's home.
#[test]
fn cs191_everything_relative_to_the_callers_directory() {
    if !possible() {
        return;
    }
    let layers = Layers::new(Base::Shm, 2);
    let said = script(
        &layers,
        "echo a > l0/a; echo b > l1/b; ln -s ../l1 l0x; mkdir cwd; cd cwd
         \"$ACETATE\" fuse-overlayfs -o lowerdir=../l0:../l1,upperdir=../upper,workdir=../work ../merged
         cat ../merged/a ../merged/b; echo n > ../merged/n; \"$ACETATE\" unmount ../merged; cat ../upper/n",
    );
    assert_eq!(said.as_deref(), Ok("a\nb\nn\n"));
}

/// F#57 and its kin: callers that have closed what a program may want to write to. The mount works, and descriptors 0 to 2 of the
/// daemon are taken, so that no file of the layers becomes its stderr.
#[test]
fn f57_a_caller_with_stdin_stdout_and_stderr_closed() {
    if !possible() {
        return;
    }
    for closed in ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"] {
        let layers = Layers::new(Base::Shm, 1);
        let said = script(
            &layers,
            &format!(
                "echo x > l0/f; \"$ACETATE\" mount -o \"$options\" merged {closed}; cat merged/f; echo y > merged/g; chmod 600 merged/f
                 for i in 1 2 3; do \"$ACETATE\" mount -o lowerdir=missing merged {closed} && exit 1; done
                 \"$ACETATE\" unmount merged {closed}; cat upper/f upper/g"
            ),
        );
        assert_eq!(said.as_deref(), Ok("x\nx\ny\n"), "{closed}");
    }
}

/// C#4387, fuse-overlayfs-snapshotter#12: "wait: no child processes" under a program that reaps every orphan (containerd's shim
/// is a subreaper) or ignores SIGCHLD. The caller's wait for the command must work, and the daemon become the reaper's child.
#[test]
fn c4387_under_a_subreaper() {
    if !(possible() && require_program("perl")) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    // prctl(PR_SET_CHILD_SUBREAPER, 1); mount; unmount; then every child that is left must end.
    let perl = r#"
        use POSIX ":sys_wait_h";
        syscall(157, 36, 1, 0, 0, 0) == 0 or die "prctl: $!";
        my ($program, $options, $point) = @ARGV;
        for my $ignore (0, 1) {
            $SIG{CHLD} = $ignore ? "IGNORE" : "DEFAULT";
            my $command = fork() // die "fork: $!";
            if (!$command) { exec($program, "mount", "-o", $options, $point) or die "exec: $!"; }
            if ($ignore) { for (1 .. 500) { last if -e "$point/f"; select(undef, undef, undef, 0.02); } }
            else { waitpid($command, 0) == $command or die "wait: $!"; die "mount: $?" if $?; }
            -e "$point/f" or die "not mounted";
            if (!$ignore) {
                open(my $children, "<", "/proc/$$/task/$$/children") or die; my $daemon = <$children> // "";
                $daemon =~ /^\d+ $/ or die "the daemon is nobody's child: '$daemon'";
            }
            system($program, "unmount", $point) == 0 or $ignore or die "unmount: $?";
            my $left; my $until = time() + 10;
            do { $left = waitpid(-1, WNOHANG); select(undef, undef, undef, 0.02); } while ($left >= 0 and time() < $until);
            die "a child does not end" if $left >= 0;
        }
        print "well";
    "#;
    fs::write(layers.lowers[0].join("f"), "").unwrap();
    let out = Command::new("perl")
        .args(["-e", perl])
        .arg(acetate_bin())
        .arg(layers.options())
        .arg(&layers.merged)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if is_mountpoint(&layers.merged) {
        sh(&layers.root, "umount -l merged").unwrap();
    }
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "well",
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// P#10454, P#26178, P#19913: a second unmount must not look like trouble, and after a lazy one the same upper can be mounted
/// again at once, with everything that was written, while the first daemon still ends.
#[test]
fn p10454_unmounting_twice_and_mounting_again_at_once() {
    if !possible() {
        return;
    }
    let layers = Layers::new(Base::Disk, 1);
    let said = script(
        &layers,
        "for i in $(seq 10); do
             \"$ACETATE\" mount -o \"$options\" merged; for j in $(seq 1 $i); do test $j = $i || grep -qx $j merged/f$j; done
             echo $i > merged/f$i
             case $((i % 3)) in 0) umount -l merged ;; 1) \"$ACETATE\" unmount --lazy merged ;; 2) fusermount3 -u merged 2>/dev/null || umount merged ;; esac
             code=0; \"$ACETATE\" unmount merged 2>/dev/null || code=$?; test $code = 3
         done; cat upper/f10",
    );
    assert_eq!(said.as_deref(), Ok("10\n"));
}

/// libfuse#1491, cberner/fuser#731, #686: a daemon that is killed leaves a dead mount, which everything must get past: unmount
/// takes it away, the same upper mounts again, and what was synced is there.
#[test]
fn libfuse1491_after_kill_9_the_mount_can_be_made_anew() {
    if !possible() {
        return;
    }
    let layers = Layers::new(Base::Disk, 1);
    fs::write(layers.lowers[0].join("f"), "lower").unwrap();
    let mount = Mount::acetate(&layers, "");
    sh(
        &layers.merged,
        "echo kept > kept; sync kept; echo more >> f; sync f; mkdir d; mv kept d",
    )
    .unwrap();
    let inside = fs::File::open(layers.at("f")).unwrap();
    let pid = mount.pid().unwrap();
    sh(&layers.root, &format!("kill -9 {pid}")).unwrap();
    let said = script(
        &layers,
        "for i in $(seq 100); do if ! ls merged >/dev/null 2>&1; then break; fi; sleep 0.05; done
         code=0; \"$ACETATE\" mount -o \"$options\" merged 2>said || code=$?; test $code = 32; grep -q 'acetate unmount' said
         \"$ACETATE\" unmount merged || \"$ACETATE\" unmount --lazy merged; \"$ACETATE\" mount -o \"$options\" merged; cat merged/d/kept merged/f; ls merged; \"$ACETATE\" unmount merged",
    );
    drop(inside);
    drop(mount);
    assert_eq!(said.as_deref(), Ok("kept\nlowermore\nd\nf\n"));
}

/// F#220, F#203: openat2 refused by a seccomp profile (EPERM: docker before 20.10, ENOSYS since) became ENOENT for the clients;
/// F#311, F#319, P#9006: the same with statx. A story told with those calls refused must end as any other.
#[test]
fn f220_f311_openat2_and_statx_refused_by_a_filter() {
    if !(possible() && require_program("strace")) {
        return;
    }
    for (call, error) in [
        ("openat2", "EPERM"),
        ("openat2", "ENOSYS"),
        ("openat2", "EINVAL"),
        ("statx", "ENOSYS"),
        ("statx", "EPERM"),
        ("openat2,statx", "EPERM"),
        (
            "openat2,statx,close_range,open_tree,move_mount,mount_setattr,faccessat2",
            "ENOSYS",
        ),
    ] {
        let layers = Layers::new(Base::Shm, 2);
        let said = script(
            &layers,
            &format!(
                "mkdir -p l0/d l1/d/sub l1/e; echo 0 > l0/d/f; echo 1 > l1/d/sub/g; echo link > l1/h; ln l1/h l1/h2; ln -s h l1/s; mkfifo l1/p
                 strace -f -qq -o /dev/null -e trace={call} -e inject={call}:error={error} \"$ACETATE\" mount -f -o \"$options\" merged & s=$!
                 for i in $(seq 500); do if grep -q \"$PWD/merged \" /proc/self/mountinfo && test -e merged/h; then break; fi; sleep 0.02; done
                 cd merged; cat d/f d/sub/g h s; echo more >> d/sub/g; rm d/f; mkdir n; echo x > n/x; ln h h3; chmod 600 h2; stat -c '%h %a' h
                 touch -d @5 s -h; rm -r e; mkdir e; ls -A e; find . | sort | tr '\\n' ' '; cd ..; umount merged; wait $s; ls -A work/work"
            ),
        );
        let wanted =
            "0\n1\nlink\nlink\n3 600\n. ./d ./d/sub ./d/sub/g ./e ./h ./h2 ./h3 ./n ./n/x ./p ./s ";
        assert_eq!(said.as_deref(), Ok(wanted), "{call} answers {error}");
    }
}
