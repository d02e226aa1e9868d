//! Section F: owners that are somebody else, have no name here, or cannot be stored.
//!
//! Rows without a test here: `user.containers.override_stat` in read-only stores, symlinks included (F#228, CS#744, CL#115,
//! F#431) is `tests/interop/marks.rs`; that fuse.conf's refusal of allow_other stops nothing (F#35, F#39) is
//! `tests/cli/users.rs::an_ordinary_user_mounts_through_fusermount3`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::support::host::{own_mounts, require_program, require_userns};
use crate::support::mount::{acetate_bin, is_peer};
use crate::support::story::{on_ours, require_real_root, sh, sh_as};
use crate::support::{Base, DevFuseOpen, Layers, Mount, as_user, skip};

/// A script as user 1000 in the directory around layers that `setup` made; `$ACETATE` is the program, `$options` are those
/// of the layers. `None` where this host cannot do it.
fn as_an_ordinary_user(
    layers: &Layers,
    inside: &str,
    script: &str,
) -> Option<Result<String, String>> {
    if !(require_real_root() && require_program("setpriv")) || is_peer(&acetate_bin()) {
        return None;
    }
    let reachable = format!("test -x '{}'", acetate_bin().display());
    if !as_user(1000, reachable).status().is_ok_and(|s| s.success()) {
        skip("user 1000 cannot reach the program");
        return None;
    }
    let _open = DevFuseOpen::new()?;
    let script = format!(
        "set -eu; cd '{}'; ACETATE='{}'; options='{}'; {script}",
        layers.root.display(),
        acetate_bin().display(),
        layers.options()
    );
    let out = Command::new("setpriv")
        .args(["--reuid=1000", "--regid=1000", "--clear-groups", "--"])
        .args(inside.split_whitespace())
        .args(["sh", "-c", &script])
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    Some(if out.status.success() {
        Ok(said)
    } else {
        Err(said)
    })
}

/// Layers of root's, with a place for changes that belongs to user 1000.
fn of_root_for_a_user(setup: &str) -> Option<Layers> {
    if !require_real_root() {
        return None;
    }
    let layers = Layers::new(Base::Disk, 1);
    sh(&layers.root, setup).unwrap();
    for path in [&layers.upper, &layers.work, &layers.merged, &layers.root] {
        chown(path, Some(1000), Some(1000)).unwrap();
    }
    Some(layers)
}

const FOREIGN: &str = "mkdir -m 755 l0/dir; mkdir -m 1777 l0/open; echo text > l0/dir/file; echo all > l0/open/all; chmod 666 l0/open/all; \
     echo secret > l0/dir/secret; chmod 600 l0/dir/secret; mkdir -m 700 l0/closed";

/// F#299, F#374, F#428, F#232, U#138: over a tree of somebody else's, `cd` was EPERM, and a file that everybody may write could
/// not be, because the copy cannot be given to its owner. Here reading needs nothing; what may not be done is EACCES; what would
/// need a change of owner is EPERM, and never half done; with `xattr_permissions=2` the owner is kept in an xattr and all works;
/// and with `squash_to_uid=` and `squash_to_gid=` everything is the user's own.
#[test]
fn f299_a_tree_of_somebody_elses_as_an_ordinary_user() {
    let Some(layers) = of_root_for_a_user(FOREIGN) else {
        return;
    };
    if !require_program("fusermount3") {
        return;
    }
    let refused = "$ACETATE mount -o $options merged 2>/dev/null; trap '$ACETATE unmount merged' EXIT
         cd merged; cat dir/file; (cd dir; pwd >/dev/null); (set +e; cat dir/secret; ls closed; echo x >> dir/file; echo x > dir/new) 2>&1 | sed 's/.*: //'
         (set +e; mkdir open/d; touch open/new; dd if=/dev/zero of=open/all conv=notrunc oflag=append count=1 status=none) 2>&1 | sed 's/.*: //'
         echo x > mine; cat open/all mine; cd ..; ls -A upper work/work";
    if let Some(done) = as_an_ordinary_user(&layers, "", refused) {
        let denied = "Permission denied\n".repeat(4);
        let owner = "Operation not permitted\n".repeat(3);
        assert_eq!(
            done.unwrap(),
            format!("text\n{denied}{owner}all\nx\nupper:\nmine\n\nwork/work:\n")
        );
    }
    let works = "$ACETATE mount -o $options,xattr_permissions=2 merged 2>/dev/null; trap '$ACETATE unmount merged' EXIT
         cd merged; echo more >> open/all; cat open/all; stat -c %u:%a open/all open; echo mine > open/new; mkdir open/d; echo x > open/d/y; cat open/d/y
         (set +e; cat dir/secret; ls closed; echo x >> dir/file; rm open/all) 2>&1 | sed 's/.*: //'; stat -c %u open/new; cd ..";
    if let Some(done) = as_an_ordinary_user(&layers, "", works) {
        let denied = "Permission denied\n".repeat(3);
        assert_eq!(
            done.unwrap(),
            format!("all\nmore\n0:666\n0:1777\nx\n{denied}Operation not permitted\n1000\n")
        );
    }
    let squashed = "rm -rf upper/* upper/.w*; $ACETATE mount -o $options,squash_to_uid=1000,squash_to_gid=1000 merged 2>/dev/null; trap '$ACETATE unmount merged' EXIT
         cd merged; echo more >> open/all; cat open/all; stat -c %u:%g:%a open/all dir; echo x > dir/new; echo more >> dir/file; cat dir/file; rm -r open; cd ..";
    if let Some(done) = as_an_ordinary_user(&layers, "", squashed) {
        assert_eq!(
            done.unwrap(),
            "all\nmore\n1000:1000:666\n1000:1000:755\ntext\nmore\n"
        );
    }
}

/// TRY#194, pelagos-containers/pelagos#528: as root of a namespace that has no name for the owner of a directory, mkdir in it was
/// EOVERFLOW. The kernel lets nobody write to what belongs to no one (inode_permission()), whichever file system it is: that is
/// EACCES here. Shown as somebody's (`squash_to_root`, or `xattr_permissions=2` with a map), the tree takes new files.
#[test]
fn try194_directories_of_owners_without_a_name_take_new_files() {
    let Some(layers) = of_root_for_a_user(FOREIGN) else {
        return;
    };
    if !require_userns() {
        return;
    }
    let script = "$ACETATE mount -o $options merged; stat -c %u merged/open; cat merged/dir/file; mkdir merged/open/new 2>&1 | sed 's/.*: //'; $ACETATE unmount merged
         $ACETATE mount -o $options,squash_to_root merged; cd merged; stat -c %u open; mkdir open/new; echo x > open/new/file; echo more >> open/all
         cat open/all open/new/file; mv open/new open/newer; rm -r open/newer; echo more >> dir/file; cat dir/file; mkdir dir/d; cd ..; $ACETATE unmount merged";
    if let Some(done) = as_an_ordinary_user(&layers, "unshare -Urm", script) {
        assert_eq!(
            done.unwrap(),
            "65534\ntext\nPermission denied\n0\nall\nmore\nx\ntext\nmore\n"
        );
    }
}

/// F#241, BX#815: with squashed owners `ls /root` showed an empty directory where it should have been EACCES, and chown failed.
#[test]
fn f241_squashed_owners_still_refuse_and_chown_still_works() {
    on_ours(
        Base::Shm,
        1,
        "mkdir -m 700 l0/root; echo x > l0/root/f; echo y > l0/f; chown -R 5:6 l0/root l0/f; chmod 640 l0/f",
        "squash_to_root",
        |layers, _| {
            let all = sh(&layers.merged, "stat -c '%u:%g' root root/f f").unwrap();
            assert_eq!(all, "0:0\n0:0\n0:0\n");
            for refused in ["ls root", "cat root/f", "cat f", "echo z >> f"] {
                let error = sh_as(1000, &layers.merged, refused).unwrap_err();
                assert!(error.contains("ermission denied"), "{refused}: {error}");
            }
            sh(&layers.merged, "chown 0:0 f root/f; chown -R 0:0 .; tar -cf - . | tar -xf - -C root; ls root/root/f").unwrap();
            assert_eq!(
                sh(&layers.merged, "stat -c '%u:%g' f root/f").unwrap(),
                "0:0\n0:0\n"
            );
        },
    );
}

/// F#380: copying a tree with hard links under a map gave ENOENT; CL#735: the root directory was nobody's under CRI-O, mapped
/// twice. Map x owner of the upper's root: every owner is shown through the map once, and stored back through it.
#[test]
fn f380_a_map_is_applied_once_whoever_owns_the_upper() {
    for owner in [0u32, 1000, 100_000] {
        on_ours(
            Base::Shm,
            1,
            &format!(
                "mkdir l0/d; echo x > l0/d/a; ln l0/d/a l0/d/b; ln -s a l0/d/s; chown -hR 0:0 l0; chown 1000:1000 l0/d/a; chown {owner}:{owner} upper"
            ),
            "uidmapping=0:100000:65536,gidmapping=0:100000:65536",
            |layers, _| {
                let shown = |path: &Path| {
                    (
                        path.metadata().unwrap().uid(),
                        path.metadata().unwrap().gid(),
                    )
                };
                let root = if owner < 65_536 {
                    100_000 + owner
                } else {
                    65_534
                };
                assert_eq!(
                    shown(&layers.merged),
                    (root, root),
                    "the upper's owner is {owner}"
                );
                assert_eq!(shown(&layers.at("d")), (100_000, 100_000));
                assert_eq!(shown(&layers.at("d/b")), (101_000, 101_000));
                let out = sh(&layers.merged, "cp -a d copy; cat copy/b; stat -c '%h %u' copy/a copy/b; chown 100007:100008 d/a; stat -c %u:%g d/b").unwrap();
                assert_eq!(out, "x\n2 101000\n2 101000\n100007:100008\n");
                assert_eq!(
                    sh(&layers.upper, "stat -c %u:%g copy copy/a d/a").unwrap(),
                    "0:0\n1000:1000\n7:8\n"
                );
                let error = sh(&layers.merged, "chown 7 d/a").unwrap_err();
                assert!(
                    error.contains("nvalid argument") || error.contains("too large"),
                    "an owner that the map does not have: {error}"
                );
            },
        );
    }
}

/// P#22002, P#20551, F#411: a home on NFS, where the server refuses other owners. Here every change of owner is answered EPERM,
/// as root-squashing servers do. What needs none works; chown is refused as the server refuses it; with `xattr_permissions=2`
/// (which containers/storage asks for on network file systems) owners are kept beside.
#[test]
fn p22002_a_backing_that_refuses_chown() {
    if !(require_real_root() && require_program("strace")) || is_peer(&acetate_bin()) {
        return;
    }
    for (words, wanted) in [
        (
            "",
            "640 978307200\nOperation not permitted\n0:0 640\n0:0 640\n",
        ),
        (
            "xattr_permissions=2",
            "640 978307200\n5:6 640\n5:6 4755\n5:6 4755\n",
        ),
    ] {
        let layers = Layers::new(Base::Disk, 1);
        let options = format!("{},{words}", layers.options());
        let mount = format!(
            "strace -f -qq -o /dev/null -e trace=chown,fchown,lchown,fchownat -e inject=chown,fchown,lchown,fchownat:error=EPERM '{}' mount -f -o {options} merged & s=$!
             for i in $(seq 500); do if grep -q \"$PWD/merged \" /proc/self/mountinfo && test -e merged/f; then break; fi; sleep 0.02; done",
            acetate_bin().display()
        );
        let script = format!(
            "gone() {{ umount merged || umount -l merged; wait $s; }}; trap 'umount -l merged 2>/dev/null || true' EXIT
             export TZ=UTC; mkdir l0/d; echo lower > l0/d/f; echo x > l0/f; {mount}
             cd merged; echo new > n; chmod 640 n d/f; touch -d 2001-01-01 d/f n; mkdir e; mv e e2; rm n; ln d/f hard; ln -s x s; stat -c '%a %Y' d/f
             chown 5:6 d/f 2>&1 | sed 's/.*: //'; test -n \"{words}\" || stat -c '%u:%g %a' hard; if test -n \"{words}\"; then stat -c '%u:%g %a' hard; chmod 4755 d/f; stat -c '%u:%g %a' hard; fi
             cd ..; gone; {mount}
             stat -c '%u:%g %a' merged/d/f; gone; stat -c %u:%g upper/d/f >&2"
        );
        let said = sh(&layers.root, &script);
        assert_eq!(said.as_deref(), Ok(wanted), "{words}");
        assert_eq!(layers.upper.join("d/f").metadata().unwrap().uid(), 0);
    }
}

/// F#141, F#418, A#602: an upper that cannot be written made the mount silently read only, or its files `???`. It is refused,
/// with a reason; `ro` is what asks for it.
#[test]
fn f418_an_upper_that_cannot_be_written_is_refused_loudly() {
    if !require_real_root() {
        return;
    }
    own_mounts();
    let layers = Layers::new(Base::Shm, 1);
    sh(&layers.root, "mkdir disk; mount -t tmpfs none disk; mkdir disk/upper disk/work; echo x > disk/upper/f; mount -o remount,ro disk").unwrap();
    let mut inside = layers.borrowed();
    inside.upper = layers.root.join("disk/upper");
    inside.work = layers.root.join("disk/work");
    let refused = Mount::try_acetate(&inside, "")
        .map(Mount::unmount)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("ead-only") || refused.contains("read only"),
        "{refused}"
    );
    assert!(refused.contains("hint"), "{refused}");
    let mount = Mount::acetate(&inside, "ro");
    assert_eq!(fs::read_to_string(layers.at("f")).unwrap(), "x\n");
    mount.unmount();
    sh(&layers.root, "umount disk").unwrap();
}

/// MF#886: files that only a supplementary group may use. The kernel checks with the caller's groups, and the copy-up of such a
/// file is the daemon's work, not the caller's.
#[test]
fn mf886_supplementary_groups_count() {
    on_ours(
        Base::Shm,
        1,
        "mkdir -m 770 l0/d; mkdir -m 2770 l0/set; echo x > l0/d/f; chmod 660 l0/d/f; chgrp -R 4242 l0/d l0/set",
        "",
        |layers, _| {
            let mut command = Command::new("setpriv");
            let script = "set -eu; cat d/f; echo more >> d/f; cat d/f; echo new > d/new; mkdir set/d; echo x > set/d/f; chmod 600 set/d/f; mv d/new set/; rm d/f";
            let out = command
                .args([
                    "--reuid=1000",
                    "--regid=1000",
                    "--groups=7,4242",
                    "--",
                    "sh",
                    "-c",
                    script,
                ])
                .current_dir(&layers.merged)
                .output()
                .unwrap();
            assert!(
                out.status.success(),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
            assert_eq!(String::from_utf8_lossy(&out.stdout), "x\nx\nmore\n");
            assert_eq!(layers.at("set/d").metadata().unwrap().gid(), 4242);
            assert_eq!(
                layers.at("set/d").metadata().unwrap().permissions().mode() & 0o7000,
                0o2000
            );
            sh_as(1000, &layers.merged, "ls d").unwrap_err();
        },
    );
}
