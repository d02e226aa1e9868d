//! Layers whose marks lie: metacopies without data, redirects that lead nowhere, disguises that cannot be.

use crate::support::story::{require_user_xattrs, sh};
use crate::support::{Base, Kind, Layers, Mount, require_kernel_overlay};
use crate::{able, inside};

/// A lower whose root is disguised, so that override xattrs count in it; `script` runs in it.
fn disguised(script: &str) -> Option<Layers> {
    if !(able() && require_user_xattrs(Base::Disk)) {
        return None;
    }
    let layers = Layers::new(Base::Disk, 1);
    let set =
        "as() { setfattr -n user.containers.override_stat -v \"$1\" \"$2\"; }; as 0:0:755:dir .";
    sh(&layers.lowers[0], &format!("{set}; {script}")).unwrap();
    Some(layers)
}

/// Finding 5: a metacopy whose data is in no layer read as zeros, and was copied up as zeros, for ever.
/// It must be an error that no one can take for content, and nothing of it may come into the upper.
#[test]
fn finding_05_a_metacopy_without_data_is_an_error_not_zeros() {
    if !able() {
        return;
    }
    for words in ["", "metacopy=on"] {
        let layers = Layers::new(Base::Disk, 2);
        sh(&layers.root, "truncate -s 5 l0/f; setfattr -n trusted.overlay.metacopy l0/f; echo x > l0/other; mkdir l1/f").unwrap();
        for _ in 0..2 {
            let out = inside(&layers, words, "cat f 2>&1 | tr '\\0' 0; echo x 2>/dev/null >> f || :; chmod 600 f 2>/dev/null || :; mv f g 2>/dev/null || :; cat other").unwrap();
            assert!(
                out.contains("Input/output error") && out.ends_with("x\n"),
                "{words}: {out}"
            );
        }
        let zeros = sh(&layers.root, "test ! -s upper/f && test ! -s upper/g");
        assert!(zeros.is_ok(), "{words}: zeros in the upper");
    }
}

/// Finding 16: a symlink that is a regular file in disguise could be read, but not renamed, chowned or linked: EINVAL.
/// A disguise must do whatever the object would do.
#[test]
fn finding_16_a_disguised_symlink_can_be_moved_chowned_and_linked() {
    for (step, name) in [
        ("mv s t; readlink t", "t"),
        ("chown -h 5:6 s; stat -c %u:%g s", "s"),
        ("ln s t; readlink t", "t"),
        ("mkdir d; mv s d/s; readlink d/s", "d/s"),
        ("touch -h -d 2001-01-01 s; readlink s", "s"),
    ] {
        let Some(layers) = disguised("printf target > s; as 0:0:777:symlink s") else {
            return;
        };
        let out = inside(&layers, "", &format!("readlink s; {step}")).unwrap();
        assert!(out.starts_with("target\n"), "{step}: {out}");
        let out = inside(
            &layers,
            "",
            &format!("readlink {name}; stat -c %F {name}; rm {name}"),
        )
        .unwrap();
        assert_eq!(out, "target\nsymbolic link\n", "{step}, after a remount");
    }
}

/// Finding 17: a directory whose redirect cannot be followed (empty, `/`, `..`, a path without a leading slash) was shown with the
/// upper part alone: a half tree in silence, as a backup or an `rm -r` would believe it. The kernel refuses the name.
#[test]
fn finding_17_a_broken_redirect_is_an_error_not_half_a_tree() {
    if !able() {
        return;
    }
    for (redirect, set) in [
        ("empty", "-v ''"),
        ("/", "-v /"),
        ("..", "-v .."),
        ("a/b", "-v a/b"),
        ("/..", "-v /.."),
    ] {
        let layers = Layers::new(Base::Disk, 2);
        sh(&layers.root, &format!("mkdir l0/d l1/d; echo 0 > l0/d/f0; echo 1 > l1/d/f1; setfattr -n trusted.overlay.redirect {set} l0/d")).unwrap();
        let out = inside(&layers, "", "ls d 2>/dev/null | tr '\\n' ' '").unwrap();
        assert!(
            out.is_empty() || out == "f0 f1 ",
            "{redirect}: half a tree: {out}"
        );
    }
}

/// Finding 17, the other half: a metacopy that leads to a directory, a symlink, a FIFO or a whiteout read as zeros.
#[test]
fn finding_17_a_metacopy_that_leads_to_no_file_is_an_error() {
    if !able() {
        return;
    }
    for target in [
        "mkdir l1/t",
        "ln -s x l1/t",
        "mkfifo l1/t",
        "mknod l1/t c 0 0",
        "mknod l1/t c 1 5",
    ] {
        let layers = Layers::new(Base::Disk, 2);
        sh(&layers.root, &format!("{target}; truncate -s 5 l0/f; setfattr -n trusted.overlay.metacopy l0/f; setfattr -n trusted.overlay.redirect -v t l0/f")).unwrap();
        let out = inside(&layers, "", "timeout 20 cat f 2>&1 | tr '\\0' 0").unwrap();
        assert!(out.contains("Input/output error"), "{target}: {out}");
    }
}

/// Finding 18: a regular file disguised as a directory was listed as one and everything in it was ENOTDIR: it could neither be
/// moved nor removed. A disguise that contradicts what stands on the disk is no disguise.
#[test]
fn finding_18_a_file_disguised_as_a_directory_is_a_file() {
    for (step, left) in [("rm f", "sub\n"), ("mv f g; chmod 640 g", "g\nsub\n")] {
        let Some(layers) =
            disguised("echo x > f; as 0:0:755:dir f; mkdir sub; as 0:0:644:file sub")
        else {
            return;
        };
        let out = inside(&layers, "", &format!("stat -c %F f sub; cat f; {step}; ls")).unwrap();
        assert_eq!(out, format!("regular file\ndirectory\nx\n{left}"), "{step}");
        assert_eq!(
            inside(&layers, "", "ls").unwrap(),
            left,
            "{step}, after a remount"
        );
    }
}

/// What may not be shown is there all the same: a file above a directory with a refused redirect (or above a metacopy without
/// data) is removed and renamed, and a whiteout left, or what lies below would come up. It was EIO, so such a file stayed for ever.
#[test]
fn what_lies_above_a_refused_redirect_can_be_removed() {
    if !able() {
        return;
    }
    for (below, words) in [
        ("-n trusted.overlay.redirect -v /x", "redirect_dir=nofollow"),
        ("-n trusted.overlay.redirect -v a/b", ""),
    ] {
        for kind in [Kind::Acetate, Kind::Kernel] {
            if kind == Kind::Kernel && !require_kernel_overlay() {
                continue;
            }
            let layers = Layers::new(Base::Shm, 2);
            sh(&layers.root, &format!("mkdir -p l0/d l0/e l0/r l1/x; for n in d e r; do setfattr {below} l0/$n; echo $n > upper/$n; done")).unwrap();
            let mount = Mount::with(kind, &layers, words);
            let out = sh(
                &layers.merged,
                "rm d; mv e f; echo new > g; mv g r; ls; cat f r",
            )
            .unwrap();
            assert_eq!(out, "f\nr\nx\ne\nnew\n", "{words}, {kind:?}");
            mount.unmount();
            let left = sh(&layers.root, "stat -c '%n %t:%T %F' upper/[de]").unwrap();
            let whiteouts =
                "upper/d 0:0 character special file\nupper/e 0:0 character special file\n";
            assert_eq!(left, whiteouts, "{words}, {kind:?}");
        }
    }
}
