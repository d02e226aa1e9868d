//! Section E, first part: times, modes, set-ids, ACLs and capabilities. Sockets, devices, ioctls and statfs are in
//! `metadata_kinds.rs`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::support::story::{Story, on_both, on_ours, require_real_root, sh, sh_as};
use crate::support::{Base, host};

/// F#384, P#16897, F#400: tar said "file changed as we read it", and `chown -R` changed the times of directories, because
/// the copy-up of a child touched its parent. No copy-up changes the mtime of a parent or of the root.
#[test]
fn f384_copying_a_child_up_changes_no_time_of_its_parents() {
    on_ours(
        Base::Shm,
        1,
        "mkdir -p l0/a/b; for f in 1 2 3 4 5; do echo x > l0/a/b/$f; done; ln -s x l0/a/b/s; touch -d '2020-02-02 02:02:02.123456789' l0/a/b l0/a l0 upper",
        "",
        |layers, _| {
            let times = || {
                [".", "a", "a/b"].map(|d| {
                    let m = layers.at(d).metadata().unwrap();
                    (m.mtime(), m.mtime_nsec())
                })
            };
            let before = times();
            assert_eq!(before.map(|t| t.1), [123_456_789; 3]);
            for change in [
                "echo y >> a/b/1",
                "chmod 600 a/b/2",
                "chown 1:1 a/b/3",
                "touch a/b/4",
                "setfattr -n user.x -v 1 a/b/5",
                "touch -h a/b/s",
                "chown -h 1:1 a/b/s",
            ] {
                sh(&layers.merged, change).unwrap();
                assert_eq!(before, times(), "{change}");
            }
            sh(&layers.merged, "tar -cf /dev/null a 2>&1; sync -f .")
                .map(|said| assert_eq!(said, ""))
                .unwrap();
            // chmod of the directory itself: its ctime, and no mtime at all. (That ctime stays over a directory's own copy-up
            // cannot be had: nobody can set one; the kernel's moves too.)
            let ctime = || {
                layers
                    .at("a/b")
                    .metadata()
                    .map(|m| (m.ctime(), m.ctime_nsec()))
                    .unwrap()
            };
            let ctime_before = ctime();
            sh(&layers.merged, "chmod 700 a/b").unwrap();
            assert_eq!(before, times());
            assert_ne!(ctime_before, ctime(), "chmod moves ctime");
        },
    );
}

/// F#204, F#143: `touch -h` had no effect or said ELOOP, because a symlink was followed. Dangling ones too.
#[test]
fn f204_times_and_owners_of_symlinks() {
    Story::new(1, "echo x > l0/f; ln -s f l0/good; ln -s nowhere l0/dangling; ln -s loop l0/loop; touch -h -d @1000000000 l0/*")
        .step("for l in good dangling loop; do touch -h -d @1234567890.5 $l; chown -h 3:4 $l; done; stat -c '%n %.9Y %u %g' good dangling loop f; touch -d @1111111111 good; stat -c %Y f good; mv dangling d2; ln good g2; stat -c %h good; readlink d2 g2")
        .step("stat -c '%n %.9Y %u %g %h' good d2 loop g2 f")
        .run();
}

/// F#127, F#128: pacman's files lost their set-uid bit on installation (chmod, then chown, then the late write-back of
/// times or data). Both cache modes; after the unmount too.
#[test]
fn f127_an_installed_set_uid_program_stays_set_uid() {
    for words in ["", "writeback"] {
        Story::new(1, "mkdir l0/bin; cp /bin/true l0/bin/old; chmod 4755 l0/bin/old")
            .options(words)
            .step("install -o 0 -g 5 -m 4755 /bin/true bin/su; cp /bin/true bin/t; chown 0:7 bin/t; chmod 6755 bin/t; touch -d @1 bin/t; mv bin/old bin/kept; stat -c '%n %a %g' bin/*")
            .step("stat -c '%n %a %g' bin/*; touch bin/kept; stat -c %a bin/kept; mkdir sgid; chmod 2775 sgid; mkdir sgid/sub; stat -c %a sgid sgid/sub")
            .run();
    }
}

/// F#466 (fixed in C 1.17), peer bug B6: set-uid, set-gid and capabilities were kept after a write or a truncate by
/// somebody who may not keep them. By write, truncate, O_TRUNC, fallocate, chown; owner, other writer and root; lower and
/// upper files; both cache modes. The kernel is the reference, case by case.
#[test]
fn f466_set_ids_are_cleared_by_whoever_may_not_keep_them() {
    if !(require_real_root()) {
        return;
    }
    let acts = [
        "printf x >> F",
        "printf x | dd of=F conv=notrunc 2>/dev/null",
        "truncate -s 1 F",
        ": > F",
        "truncate -s 100000 F",
        "fallocate -l 70000 F",
        "fallocate -p -o 0 -l 10 F",
        "chown 1000 F",
        "chgrp 1000 F",
        "chown 1000:1000 F",
        "touch F",
        "chmod u+w F",
        "cp /bin/true F",
    ];
    let modes = ["6777", "2767", "4766", "6711"];
    let mut setup =
        String::from("mkdir l0/lower tmp; seq 1 500 > tmp/content; chmod 777 l0 l0/lower upper;");
    for (a, _) in acts.iter().enumerate() {
        for mode in modes {
            for who in ["owner", "other", "root"] {
                setup += &format!(
                    "n=l0/lower/{a}-{mode}-{who}; cp tmp/content $n; chown 1000:1000 $n; chmod {mode} $n;"
                );
            }
        }
    }
    let inside = |root: &std::path::Path| {
        sh(root, "cp -a lower upper").unwrap();
        for place in ["lower", "upper"] {
            for (who, uid) in [("owner", Some(1000)), ("other", Some(1001)), ("root", None)] {
                let mut script = String::from("set +e\n");
                for (a, act) in acts.iter().enumerate() {
                    for mode in modes {
                        script += &format!(
                            "({}) 2>/dev/null\n",
                            act.replace('F', &format!("{place}/{a}-{mode}-{who}"))
                        );
                    }
                }
                script += "true";
                match uid {
                    Some(uid) => sh_as(uid, root, &script).unwrap(),
                    None => sh(root, &script).unwrap(),
                };
            }
        }
        sh(root, "stat -c '%n %a %s %u:%g' lower/* upper/*")
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for words in ["", "writeback"] {
        let lines = |kind, words: &str| {
            let layers = crate::support::Layers::new(Base::Shm, 1);
            fs::write(layers.root.join("setup"), &setup).unwrap();
            sh(&layers.root, "sh -eu setup").unwrap();
            let mount = crate::support::Mount::with(kind, &layers, words);
            let lines = inside(&layers.merged);
            mount.unmount();
            lines
        };
        let ours = lines(crate::support::Kind::Acetate, words);
        let kernel = lines(crate::support::Kind::Kernel, "");
        let different: Vec<_> = ours
            .iter()
            .zip(&kernel)
            .filter(|(a, b)| a != b)
            .map(|(a, b)| {
                let act: usize = a.split(['/', '-']).nth(1).unwrap().parse().unwrap();
                format!("{}: {a} | {b}", acts[act])
            })
            .collect();
        assert!(
            ours.len() == kernel.len() && different.is_empty(),
            "{words}: ours | the kernel's: {different:#?}"
        );
        assert!(
            kernel.iter().any(|l| l.contains(" 777 "))
                && kernel.iter().any(|l| l.contains(" 6777 ")),
            "nothing was tested"
        );
    }
}

/// F#126, F#40, F#407, P#20524: a mode was stale after chmod, and the umask ignored. Modes of everything that can be made,
/// under two umasks, seen at once, by another process, and after a remount.
#[test]
fn f126_modes_after_chmod_and_under_a_umask() {
    Story::new(1, "mkdir l0/d; echo x > l0/d/f; chmod 751 l0/d; chmod 640 l0/d/f")
        .step(
            "for m in 0 7 600 4711 1777 2755 777; do chmod $m d/f; stat -c %a d/f; chmod $m d; stat -c %a d; done
             for u in 000 027 077; do (umask $u; mkdir m$u; : > f$u; mkfifo p$u; mknod n$u c 1 3; ln -s x l$u; mkdir -m 1777 s$u; cp d/f c$u); done; stat -c '%n %a %F' *",
        )
        .step("stat -c '%n %a %F' *")
        .run();
}

/// The same with owner and mode kept in an xattr (`xattr_permissions=2`): what is shown is what was asked for, and the
/// real file is the daemon's.
#[test]
fn f126_modes_and_owners_in_xattrs() {
    if !(require_real_root() && crate::support::story::require_user_xattrs(Base::Shm)) {
        return;
    }
    on_ours(
        Base::Shm,
        1,
        "mkdir l0/d; echo x > l0/d/f; setfattr -n user.containers.override_stat -v 12:34:0640 l0/d/f; setfattr -n user.containers.override_stat -v 5:6:0711:dir l0/d",
        "xattr_permissions=2",
        |layers, _| {
            let out = sh(
            &layers.merged,
            "stat -c '%n %a %u:%g' d d/f; chmod 4711 d/f; chown 77:88 d/f; umask 027; echo n > n; mkdir m; mkfifo p; mknod c c 5 6; chown 9:9 n; chmod 444 m; stat -c '%n %a %u:%g %F %t:%T' d/f n m p c; getfattr -d -m - n d/f",
        )
        .unwrap();
            assert_eq!(
                out,
                "d 711 5:6\nd/f 640 12:34\nd/f 711 77:88 regular file 0:0\nn 640 9:9 regular file 0:0\nm 444 0:0 directory 0:0\np 640 0:0 fifo 0:0\nc 640 0:0 character special file 5:6\n",
                "chown clears set-uid; no override_stat shows"
            );
            assert_eq!(
                sh(&layers.upper, "stat -c '%u:%g' n d/f").unwrap(),
                "0:0\n0:0\n"
            );
        },
    );
}

/// podman with `force_mask`: a layer as the client unpacked it has real capabilities, what a container sets is kept as
/// `user.containers.override_security.capability`. Both are shown, changed and taken away, also where the layer is
/// read only (a commit reads the container's changes through a mount without an upper).
#[test]
fn capabilities_in_xattrs_and_real_ones_are_one() {
    if !(require_real_root()
        && crate::support::story::require_user_xattrs(Base::Shm)
        && host::require_program("setcap"))
    {
        return;
    }
    let words = "xattr_permissions=2";
    on_ours(
        Base::Shm,
        1,
        "cp /bin/true l0/real; cp /bin/true l0/both; setcap cap_chown+ep l0/real cap_chown+ep l0/both",
        words,
        |layers, _| {
            let out = sh(
                &layers.merged,
                "getcap real both; setcap cap_kill+ep both; cp /bin/true own; setcap cap_fowner+ep own; getcap real both own
                 getfattr -m security both | grep -c security; setcap -r real; getcap real; setcap -r both; getcap both; ! setcap -r real 2>/dev/null; ! getfattr -n security.capability real 2>/dev/null",
            )
            .unwrap();
            assert_eq!(
                out,
                "real cap_chown=ep\nboth cap_chown=ep\nreal cap_chown=ep\nboth cap_kill=ep\nown cap_fowner=ep\n1\n"
            );
        },
    );
    let lower = "cp /bin/true l0/own; setfattr -n user.containers.override_security.capability -v 0x0100000208000000000000000000000000000000 l0/own";
    on_ours(Base::Shm, 1, lower, words, |layers, _| {
        let out = sh(
            &layers.merged,
            "getcap own; chmod 711 own; getcap own; cp /bin/true new; setcap cap_kill+ep new; echo >> own; echo >> new; getcap own new; stat -c %a own",
        );
        assert_eq!(
            out.unwrap(),
            "own cap_fowner=ep\nown cap_fowner=ep\n711\n",
            "copied up with the file, dropped by a write"
        );
    });
    on_ours(
        Base::Shm,
        1,
        lower,
        "xattr_permissions=2,ro",
        |layers, _| {
            assert_eq!(
                sh(&layers.merged, "getcap own").unwrap(),
                "own cap_fowner=ep\n"
            );
        },
    );
}

/// podman with `force_mask`, then setfacl: the ACL's mask is the group bits of the mode, wherever the mode is kept.
#[test]
fn an_acl_sets_the_mode_that_is_kept_in_an_xattr() {
    if !(require_real_root() && host::require_program("setfacl")) {
        return;
    }
    on_ours(
        Base::Shm,
        1,
        "mkdir l0/d; echo x > l0/f; chmod 4640 l0/f",
        "xattr_permissions=2",
        |layers, _| {
            let out = sh(
                &layers.merged,
                "chmod 750 d; setfacl -m u:1000:rwx d f; stat -c '%n %a' d f; getfacl -pn f | grep -v ^#; chmod 600 f; stat -c '%n %a' f; getfacl -pn f | grep mask; setfacl -b f d; stat -c '%n %a' d f",
            );
            assert_eq!(
                out.unwrap(),
                "d 770\nf 4670\nuser::rw-\nuser:1000:rwx\ngroup::r--\nmask::rwx\nother::---\n\nf 600\nmask::---\nd 750\nf 600\n"
            );
        },
    );
}

/// F#363, F#370, MF#357: default ACLs were not inherited, or the umask was wrongly applied to them. The kernel is the
/// reference for the whole tree with all ACLs.
#[test]
fn f363_default_acls_are_inherited_in_place_of_the_umask() {
    if !host::require_program("setfacl") {
        return;
    }
    Story::new(1, "mkdir -p l0/d l0/sg/low; setfacl -m d:u:1000:rwx,d:g:5:r-x,d:m:rwx,d:o:--- l0/d; chmod 2775 l0/sg; chgrp 7 l0/sg; setfacl -m u:1000:rw l0/sg/low")
        .step(
            "umask 077; cd d; echo x > f; mkdir m; mkdir m/n; mkfifo p; mkdir -m 700 q; ln -s x l; cp /bin/true c; install -m 4755 /bin/true i; getfacl -n -p f m m/n p q c i
             cd ../sg; umask 022; echo x > f; mkdir low/s; getfacl -n -p f low; setfacl -m u:55:r f; setfacl -d -m u:66:rw low; echo y > low/y; getfacl -n -p f low low/y; stat -c '%n %a %g' f low low/s low/y; setfacl -b f; chmod g= low; getfacl -n -p f low",
        )
        .step("getfacl -R -n -p . | sort | uniq -c | sort")
        .run();
}

/// An ACL is enforced, for others than the owner, on lower, copied-up and new files, and its changes are seen at once.
#[test]
fn f363_acls_are_enforced() {
    if !host::require_program("setfacl") {
        return;
    }
    on_both(
        1,
        "for f in a b c; do echo $f > l0/$f; chmod 600 l0/$f; done; setfacl -m u:1000:r l0/a; setfacl -m u:1000:rw l0/b; setfacl -m u:1000:--- l0/c; chmod 755 upper",
        |root| {
            let ask = "for f in a b c; do cat $f 2>/dev/null || echo no; (echo w >> $f) 2>/dev/null || echo ro; done";
            let mut answers = vec![sh_as(1000, root, ask).unwrap()];
            sh(
                root,
                "setfacl -m u:1000:rw c; setfacl -x u:1000 a; setfacl -m m::r b",
            )
            .unwrap();
            answers.push(sh_as(1000, root, ask).unwrap());
            answers.push(sh_as(1001, root, ask).unwrap());
            answers
        },
    );
}

/// F#304, P#10764, F#367, P#16193: setfacl said ENOTSUP; then `noacl`, or a backing without ACLs, broke everything. With `noacl`
/// nothing of an ACL is seen and all else works; where the backing has none (ramfs), the mount works.
#[test]
fn f304_without_acls_everything_else_works() {
    if !host::require_program("setfacl") {
        return;
    }
    on_ours(
        Base::Shm,
        1,
        "mkdir l0/d; echo x > l0/d/f; chmod 600 l0/d/f; setfacl -m u:1000:r l0/d/f; setfacl -d -m u:1000:rwx l0/d",
        "noacl",
        |layers, _| {
            sh(&layers.merged, "! setfacl -m u:5:r d/f 2>/dev/null; cp -a d e; echo y >> d/f; mv d/f d/g; cat d/g; mkdir d/n; ls d").map(|o| assert_eq!(o, "x\ny\ng\nn\n")).unwrap();
        },
    );
}

/// F#352, MM#42655: file capabilities gave EOVERFLOW or were lost by a copy. Kept over copy-up by chmod, rename and link,
/// gone after a write, as on the kernel.
#[test]
fn f352_file_capabilities_are_kept_over_copy_up_and_cleared_by_a_write() {
    // The value of cap_net_raw+ep, revision 2.
    let cap = "0x0100000202200000000000000000000000000000";
    Story::new(1, &format!("for f in chmod mv ln write trunc chown; do cp /bin/true l0/$f; setfattr -n security.capability -v {cap} l0/$f; done"))
        .step(&format!(
            "chmod 711 chmod; mv mv mv2; ln ln ln2; printf x >> write; truncate -s 5 trunc; chown 5 chown; cp /bin/true new; setfattr -n security.capability -v {cap} new; cp --preserve=all new copy
             for f in *; do echo $f; getfattr -e hex --only-values -n security.capability $f 2>/dev/null | wc -c; done"
        ))
        .step("for f in *; do echo $f; getfattr --only-values -n security.capability $f 2>/dev/null | wc -c; done; printf x >> new; getfattr --only-values -n security.capability new 2>/dev/null | wc -c")
        .run();
}

// F#88, F#108 (denials of SELinux for the daemon's use of /proc/self/fd links): the daemon uses descriptor calls with
// AT_EMPTY_PATH; no SELinux here to show it.

/// Found by the oracle after two million steps: an owner who is not in the file's group and says `chown OWNER FILE` loses
/// the set-group-ID bit even without group execution; the disk below, which sees a daemon that may do anything, keeps it.
#[test]
fn a_chown_by_an_owner_outside_the_group_takes_the_sgid_bit() {
    let files = "for d in l0 upper; do echo x > $d/f$d; mkfifo $d/p$d; done
         chown 1000:0 l0/* upper/*; chmod 2644 l0/* upper/*";
    Story::new(1, files)
        .step("chown 1000 *; stat -c '%n %a %u %g' *")
        .step("for f in *; do setpriv --reuid=1000 --regid=1000 --groups=0 chown 1000 $f; done; stat -c '%n %a' *")
        .step("for f in *; do setpriv --reuid=1000 --regid=1000 --clear-groups chown 1000 $f; done; stat -c '%n %a' *")
        .step("chmod 2644 *; for f in *; do setpriv --reuid=1000 --regid=1000 --groups=5 chgrp 5 $f; done; stat -c '%n %a %g' *")
        .run();
}
