//! Many lowers: only those that have a name are asked for it (`src/overlay/presence.rs`), and nothing is missed by that.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::support::story::{require_real_root, sh};
use crate::support::{Base, Layers, Mount};

const LOWERS: usize = 12;
const NAMES: usize = 40;

/// Layer after layer changes what the ones below show: files, directories, deletions in every dialect, opaque directories,
/// directories that moved. Which name meets what where is scattered by a small generator.
fn scattered(layers: &Layers) {
    let mut script = String::from("set -e\n");
    let mut random = 12_345_u64;
    for layer in 0..LOWERS {
        writeln!(
            script,
            "mkdir -p l{layer}/d/sub; touch l{layer}/d/own{layer}"
        )
        .unwrap();
        for name in 0..NAMES {
            random = random.wrapping_mul(6_364_136_223_846_793_005) + 1;
            let line = match random >> 60 {
                0 => format!("echo {layer} > n{name}"),
                1 => format!("mkdir n{name}; touch n{name}/in{layer} n{name}/all"),
                2 => format!("mknod n{name} c 0 0"),
                3 => format!("touch .wh.n{name}"),
                4 => format!("echo {layer} > n{name}; touch .wh.n{name}"),
                5 => {
                    format!(
                        "mkdir n{name}; touch n{name}/in{layer} n{name}/.wh..wh..opq n{name}/all"
                    )
                }
                6 => format!(
                    "mkdir n{name}; touch n{name}/x{layer}; setfattr -n trusted.overlay.redirect -v /d/n{} n{name}",
                    (name + 1) % NAMES
                ),
                7 => format!(
                    "mkdir n{name}; setfattr -n trusted.overlay.redirect -v n{} n{name}",
                    (name + 3) % NAMES
                ),
                8 => format!("ln -s n0 n{name}"),
                _ => continue,
            };
            writeln!(script, "(cd l{layer}/d; {line})").unwrap();
        }
    }
    sh(&layers.root, &script).unwrap();
}

/// What each possible name of a directory is, asked one by one.
fn asked(dir: &Path) -> Vec<String> {
    let names = (0..NAMES).map(|n| format!("n{n}"));
    let own = (0..LOWERS).map(|n| format!("own{n}"));
    let also = ["sub", "none", ".wh.n1", ".wh..wh..opq"].map(String::from);
    let ask = |name: String| {
        let path = dir.join(&name);
        let Ok(found) = fs::symlink_metadata(&path) else {
            return name;
        };
        let inside = || {
            let mut names: Vec<_> = fs::read_dir(&path)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            names.sort();
            format!("{names:?}")
        };
        let content = match found.file_type() {
            t if t.is_dir() => inside(),
            t if t.is_file() => fs::read_to_string(&path).unwrap(),
            _ => format!("{:?}", fs::read_link(&path).unwrap()),
        };
        format!("{name} {content}")
    };
    names.chain(own).chain(also).map(ask).collect()
}

fn listed(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn lowers_that_need_not_be_asked_change_no_answer() {
    if !require_real_root() {
        return;
    }
    let layers = Layers::new(Base::Shm, LOWERS);
    scattered(&layers);
    let dir = layers.merged.join("d");
    // With a timeout every lower is asked each time.
    let mount = Mount::acetate(&layers, "timeout=1000000");
    let truth = asked(&dir);
    let names = listed(&dir);
    mount.unmount();
    assert!(
        truth.iter().filter(|t| t.contains(' ')).count() > 30,
        "{truth:#?}"
    );

    let mount = Mount::acetate(&layers, "");
    assert_eq!(asked(&dir), truth, "asked first, listed by that");
    assert_eq!(listed(&dir), names);
    mount.unmount();
    let mount = Mount::acetate(&layers, "");
    assert_eq!(listed(&dir), names);
    assert_eq!(asked(&dir), truth, "listed first");
    // The same through changes, which make the upper part of it.
    for name in &names {
        let to = dir.join("moved");
        let from = dir.join(name);
        fs::rename(&from, &to).unwrap();
        assert!(fs::symlink_metadata(&from).is_err(), "{name} shows again");
        fs::rename(&to, &from).unwrap();
    }
    assert_eq!(
        asked(&dir),
        truth,
        "after every name had moved and come back"
    );
    mount.unmount();
}

/// What is listed once and then not asked again must not hide what a server comes to have.
#[test]
fn lowers_of_a_fuse_mount_are_asked_each_time() {
    if !require_real_root() {
        return;
    }
    let below = Layers::new(Base::Shm, 1);
    sh(&below.lowers[0], "mkdir -p 0/d 1/d 2/d 3/d; touch 3/d/a").unwrap();
    let first = Mount::acetate(&below, "");
    let mut above = Layers::new(Base::Shm, 0);
    above.lowers = (0..4).map(|i| below.merged.join(i.to_string())).collect();
    let second = Mount::acetate(&above, "");
    assert_eq!(
        listed(&above.merged.join("d")),
        BTreeSet::from(["a".into()])
    );
    fs::write(below.merged.join("2/d/new"), "").unwrap();
    assert!(above.merged.join("d/new").exists());
    second.unmount();
    first.unmount();
}

/// Whoever says that the kernel is to ask again expects that lowers change.
#[test]
fn lowers_that_change_are_seen_with_a_timeout() {
    if !require_real_root() {
        return;
    }
    let layers = Layers::new(Base::Shm, 6);
    sh(
        &layers.root,
        "for i in 0 1 2 3 4 5; do mkdir l$i/d; done; touch l5/d/a",
    )
    .unwrap();
    let mount = Mount::acetate(&layers, "timeout=0");
    let dir = layers.merged.join("d");
    assert_eq!(listed(&dir), BTreeSet::from(["a".into()]));
    for i in 0..20 {
        assert!(!dir.join(format!("no{i}")).exists());
    }
    fs::write(layers.lowers[4].join("d/new"), "").unwrap();
    assert!(dir.join("new").exists());
    mount.unmount();
}

/// A lower that gets a name after it was listed: what is removed or moved above that name stays so.
#[test]
fn what_hides_is_written_for_lowers_that_changed() {
    if !require_real_root() {
        return;
    }
    let layers = Layers::new(Base::Shm, 4);
    sh(
        &layers.root,
        "for i in 0 1 2 3; do mkdir l$i/d; done; touch l3/d/a",
    )
    .unwrap();
    let dir = layers.merged.join("d");
    let mount = Mount::acetate(&layers, "");
    assert_eq!(listed(&dir), BTreeSet::from(["a".into()]));
    fs::write(dir.join("f"), "up").unwrap();
    fs::write(dir.join("g"), "up").unwrap();
    for name in ["f", "g"] {
        fs::write(layers.lowers[2].join("d").join(name), "low").unwrap();
    }
    fs::remove_file(dir.join("f")).unwrap();
    fs::rename(dir.join("g"), dir.join("h")).unwrap();
    mount.unmount();
    let mount = Mount::acetate(&layers, "");
    assert_eq!(listed(&dir), BTreeSet::from(["a".into(), "h".into()]));
    mount.unmount();
}

/// A directory whose lowers hold more names than are ever kept of one, beside others that are listed.
#[test]
fn lowers_with_very_many_names_are_asked_each_time() {
    if !require_real_root() {
        return;
    }
    let layers = Layers::new(Base::Shm, 5);
    sh(
        &layers.root,
        "mkdir l0/d l1/d l2/d l3/d l4/d; (cd l2/d; seq -f m%g 0 17999 | xargs touch)
        (cd l4/d; seq -f b%g 0 9999 | xargs touch; touch m0 gone1 gone2 gone3); mknod l0/d/m17999 c 0 0
        touch l1/d/.wh.gone1 l1/d/.wh.gone2 l1/d/.wh.gone3 l3/d/b7",
    )
    .unwrap();
    let dir = layers.merged.join("d");
    let mount = Mount::acetate(&layers, "");
    // Other names each time: what it was told once the kernel does not ask again.
    let answers = |time: usize| {
        let there = [format!("m{}", 17_995 + time), format!("b{}", time + 6)];
        assert!(there.iter().all(|n| dir.join(n).exists()));
        let gone = [
            format!("gone{time}"),
            format!("m{}", 17_998 + time),
            format!("b{}", 9_999 + time),
        ];
        assert!(gone.iter().all(|n| !dir.join(n).exists()));
    };
    answers(1);
    // Enough questions for every listing there may be.
    for i in 0..9000 {
        assert!(!dir.join(format!("no{i}")).exists());
    }
    answers(2);
    assert_eq!(listed(&dir).len(), 18_000 - 1 + 10_000);
    answers(3);
    mount.unmount();
}

/// More directories than are kept, in turn: what was dropped is found out again.
#[test]
fn what_is_known_of_lowers_may_be_dropped() {
    if !require_real_root() {
        return;
    }
    const DIRS: usize = 1100;
    let layers = Layers::new(Base::Shm, 3);
    let mut script = format!("for l in l0 l1 l2; do (cd $l; seq 1 {DIRS} | xargs mkdir); done");
    for round in 0..3 {
        for made in ["l2/%g/low", "l1/%g/.wh.hid", "l2/%g/hid"] {
            write!(script, "; seq -f {made}{round} 1 {DIRS} | xargs touch").unwrap();
        }
    }
    sh(&layers.root, &script).unwrap();
    let mount = Mount::acetate(&layers, "");
    for round in 0..3 {
        for dir in 1..=DIRS {
            let dir = layers.merged.join(dir.to_string());
            for i in 0..3 {
                assert!(!dir.join(format!("no{round}.{i}")).exists());
            }
            assert!(dir.join(format!("low{round}")).exists());
            assert!(!dir.join(format!("hid{round}")).exists());
        }
    }
    mount.unmount();
}

/// Mounts below a lower that are entered: a name that one of them has is found however often others were asked in vain.
#[test]
fn mounts_that_are_entered_are_asked_each_time() {
    if !require_real_root() {
        return;
    }
    crate::support::host::own_mounts();
    let layers = Layers::new(Base::Shm, 4);
    sh(
        &layers.root,
        "mkdir l0/d l1/d l2/d l3/d; mount -t tmpfs none l2/d; touch l2/d/a",
    )
    .unwrap();
    let dir = layers.merged.join("d");
    let mount = Mount::acetate(&layers, "submounts=follow");
    for i in 0..40 {
        assert!(!dir.join(format!("no{i}")).exists());
    }
    fs::write(layers.lowers[2].join("d/new"), "").unwrap();
    assert!(dir.join("a").exists() && dir.join("new").exists());
    mount.unmount();
    sh(&layers.root, "umount l2/d").unwrap();
}
