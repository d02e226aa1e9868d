//! Container clients ask every file of a tree for its extended attributes. Where a read-only mount has none at all, the
//! kernel learns it and asks no more (`src/overlay/absence.rs`); where there is one, however deep, every question is answered.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/mod.rs"]
mod support;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use support::counters::requests;
use support::raw::{c, get_xattr, list_xattrs};
use support::story::{require_real_root, sh};
use support::{Base, Layers, Mount};

/// 40 directories of 50 files, over two layers, some of them in both, some removed.
const TREE: &str = "for d in $(seq 1 40); do mkdir -p l1/d$d l0/d$d; for f in $(seq 1 50); do echo $f > l1/d$d/f$f; done
         echo new > l0/d$d/f1; echo more > l0/d$d/n; ln -s n l0/d$d/s; mknod l0/d$d/f2 c 0 0; done; mkfifo l1/p; mknod l1/null c 1 3";

/// How many GETXATTR and LISTXATTR the daemon was sent.
fn questions(root: &Path) -> u64 {
    requests(root, "getxattr") + requests(root, "listxattr")
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), found);
        }
    }
}

/// What a whole walk was told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// "has none": ENODATA, an empty list.
    none: usize,
    /// "not supported", by the kernel itself.
    unsupported: usize,
    /// Names of what has some.
    some: Vec<String>,
}

/// Asks everything what container clients ask.
fn ask_all(root: &Path) -> Told {
    let mut names = Vec::new();
    walk(root, &mut names);
    names.sort();
    let mut told = Told::default();
    for path in names {
        let at = c(path.as_os_str().as_bytes());
        let answers = [
            get_xattr(&at, c"security.capability").map(|_| true),
            list_xattrs(&at).map(|names| !names.is_empty()),
        ];
        for answer in answers {
            match answer {
                Ok(true) => told
                    .some
                    .push(path.file_name().unwrap().to_string_lossy().into_owned()),
                Ok(false) | Err(libc::ENODATA) => told.none += 1,
                Err(libc::EOPNOTSUPP) => told.unsupported += 1,
                Err(e) => panic!("{}: errno {e}", path.display()),
            }
        }
    }
    told
}

fn layers(more: &str, writable: bool) -> Layers {
    let mut layers = Layers::new(Base::Shm, 2);
    sh(&layers.root, &format!("{TREE}\n{more}")).unwrap();
    layers.writable = writable;
    layers
}

/// A walk of about 4,000 questions: after a few hundred the kernel answers the rest, on this walk and on all later ones.
#[test]
fn a_read_only_mount_without_attributes_is_asked_no_more() {
    if !require_real_root() {
        return;
    }
    // What is never shown does not count; nor do ACLs where they are switched off.
    let marks = "setfattr -n trusted.overlay.opaque -v y l0/d1; setfattr -n trusted.overlay.origin -v 0s l0/d2/n; setfattr -n user.fuseoverlayfs.opaque -v n l0/d3";
    for (more, options) in [
        (marks.to_owned(), ""),
        (format!("{marks}; setfacl -m u:5:r l1/d7/f9"), "noacl"),
    ] {
        let layers = layers(&more, false);
        let mount = Mount::acetate(&layers, options);
        let told = ask_all(&layers.merged);
        assert_eq!(told.some, Vec::<String>::new());
        // About 2,250 objects of both layers at 16 a question, after 64 free ones.
        let asked = questions(&layers.merged);
        assert!((100..=400).contains(&asked), "{asked} questions asked");
        assert!(told.unsupported > 3000, "{told:?}");
        let again = ask_all(&layers.merged);
        assert_eq!((again.none, again.some.len()), (0, 0));
        assert_eq!(questions(&layers.merged), asked);
        mount.unmount();
    }
}

/// Whatever could ever be shown keeps all questions answered: one attribute anywhere, in any layer, hidden or not.
#[test]
fn one_attribute_anywhere_keeps_every_question_answered() {
    if !require_real_root() {
        return;
    }
    for (more, some) in [
        ("setfattr -n user.x -v 1 l1/d40/f50", vec!["f50"]),
        ("setfattr -n trusted.x -v 1 l0/d40/n", vec!["n"]),
        ("setfattr -n trusted.x -v 1 l1/null", vec!["null"]),
        ("setfattr -h -n trusted.x -v 1 l0/d3/s", vec!["s"]),
        ("setcap cap_net_raw+ep l1/d9/f9", vec!["f9", "f9"]),
        ("setfacl -m u:5:r l1/d7/f9", vec!["f9"]),
        ("setfacl -d -m u:5:r l0/d7", vec!["d7"]),
        ("setfattr -n user.x -v 1 l1", vec![]),
        // Seen by nobody, but careful is right.
        ("setfattr -n user.x -v 1 l1/d1/f1", vec![]),
    ] {
        let layers = layers(more, false);
        let mount = Mount::acetate(&layers, "");
        for _ in 0..2 {
            let told = ask_all(&layers.merged);
            assert_eq!(told.unsupported, 0, "{more}");
            assert_eq!(told.some, some, "{more}");
        }
        mount.unmount();
    }
}

/// A mount that can be written may get attributes at any time. An attribute that was asked for in vain and then set is found,
/// by both questions, on files of the upper and of a lower, and gone again after its removal.
#[test]
fn a_writable_mount_is_asked_for_ever() {
    if !require_real_root() {
        return;
    }
    let layers = layers("", true);
    let mount = Mount::acetate(&layers, "");
    let at = |name: &str| c(layers.merged.join(name).as_os_str().as_bytes());
    sh(&layers.merged, "echo u > d1/upper; mkdir d1/dir").unwrap();
    for _ in 0..2 {
        let told = ask_all(&layers.merged);
        assert_eq!((told.unsupported, told.some.len()), (0, 0));
    }
    for name in ["d1/upper", "d2/f7", "d1/dir", "d3"] {
        let set = format!("setfattr -n user.a -v 1 {name}; setfattr -n user.b -v 2 {name}");
        sh(&layers.merged, &set).unwrap();
        assert_eq!(list_xattrs(&at(name)).unwrap(), [b"user.a", b"user.b"]);
        sh(&layers.merged, &format!("setfattr -x user.a {name}")).unwrap();
        assert_eq!(list_xattrs(&at(name)).unwrap(), [b"user.b"]);
    }
    for name in ["d1/upper", "d4/f8", "d5/f9"] {
        sh(&layers.merged, &format!("setcap cap_net_raw+ep {name}")).unwrap();
        assert!(get_xattr(&at(name), c"security.capability").is_ok());
        // A write takes it away again.
        sh(&layers.merged, &format!("echo more >> {name}")).unwrap();
        let gone = get_xattr(&at(name), c"security.capability");
        assert_eq!(gone, Err(libc::ENODATA));
    }
    sh(&layers.merged, "setfacl -m u:7:r d6/f3; setfacl -d -m u:7:rwx d7; mkdir d7/sub; echo x > d7/file; cp -a d6/f3 d6/copy; mv d6/copy d6/f4").unwrap();
    let acl = b"system.posix_acl_access".to_vec();
    for name in ["d6/f3", "d6/f4", "d7/sub", "d7/file"] {
        assert!(list_xattrs(&at(name)).unwrap().contains(&acl), "{name}");
    }
    mount.unmount();
}

/// The switch: programs that must not be told "not supported".
#[test]
fn the_search_can_be_switched_off() {
    if !require_real_root() {
        return;
    }
    let layers = layers("", false);
    let mount = Mount::acetate(&layers, "xattr_search=off");
    let told = ask_all(&layers.merged);
    assert_eq!((told.unsupported, told.some.len()), (0, 0));
    // Two questions for each name, none of them spared.
    assert_eq!(questions(&layers.merged), told.none as u64);
    mount.unmount();
}

/// Eight askers at once, on a tree whose only attribute comes last: nobody is told too early.
#[test]
fn many_askers_at_once_are_all_told_the_truth() {
    if !require_real_root() {
        return;
    }
    for (more, some) in [("", 0), ("setfattr -n user.x -v 1 l1/d9/f49", 1)] {
        let layers = layers(more, false);
        let mount = Mount::acetate(&layers, "");
        let root = layers.merged.clone();
        let asking: Vec<_> = (0..8)
            .map(|_| {
                let root = root.clone();
                std::thread::spawn(move || ask_all(&root))
            })
            .collect();
        for asker in asking {
            let told = asker.join().unwrap();
            assert_eq!(told.some.len(), some);
            assert!(some == 0 || told.unsupported == 0);
        }
        mount.unmount();
    }
}
