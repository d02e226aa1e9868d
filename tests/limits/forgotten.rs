//! A file that the kernel forgets while another name of it is looked up.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use crate::aside::{link, open, take_the_budget};
use crate::held::Held;
use crate::support::host::require_program;
use crate::support::story::require_real_root;
use crate::support::{Base, Layers, Mount};

/// So long is the daemon stopped while it forgets.
const HELD: Duration = Duration::from_millis(800);

/// A file of the upper with the names `one/a` and `two/b`, neither of which the mount knows yet.
fn one_file_with_two_names(options: &str) -> (Layers, Mount) {
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "");
    fs::create_dir(layers.at("one")).unwrap();
    fs::create_dir(layers.at("two")).unwrap();
    fs::write(layers.at("one/a"), "text").unwrap();
    fs::hard_link(layers.at("one/a"), layers.at("two/b")).unwrap();
    mount.unmount();
    let mount = Mount::acetate(&layers, options);
    (layers, mount)
}

/// Closes a file that has no name: the kernel forgets it, and the daemon comes to where it is held.
fn forget(file: File) {
    drop(file);
    std::thread::sleep(HELD / 4);
}

/// A name in the work directory was counted as a link by whoever looked another name up while it was removed, and the
/// kernel kept that.
#[test]
fn a_name_aside_is_no_link_while_the_file_is_forgotten() {
    if !(require_real_root() && require_program("strace")) {
        return;
    }
    let (layers, mount) = one_file_with_two_names("fd_cache=4");
    let file = open(&layers.at("one/a"));
    let gone = take_the_budget(&layers);
    fs::remove_file(layers.at("one/a")).unwrap();
    let links = || fs::metadata(layers.at("two/b")).unwrap().nlink();
    let strace = Held::every(mount.pid().unwrap(), "unlinkat", "delay_enter", HELD);
    let start = Instant::now();
    forget(file);
    let during = (links(), start.elapsed());
    strace.end();
    assert_eq!((during.0, links()), (1, 1));
    assert!(during.1 > HELD / 2, "nothing was held");
    drop(gone);
    mount.unmount();
    assert_eq!(fs::read_dir(layers.work.join("work")).unwrap().count(), 0);
}

/// What kept the forgotten file was taken for something that keeps the one found by another name, and went: an open file
/// that lost this name too could not be read any more.
#[test]
fn an_open_file_stays_that_was_found_while_its_other_name_was_forgotten() {
    if !(require_real_root() && require_program("strace")) {
        return;
    }
    let (layers, mount) = one_file_with_two_names("");
    let file = open(&layers.at("one/a"));
    fs::remove_file(layers.at("one/a")).unwrap();
    // The daemon has a descriptor of its own for it from then on, to be closed.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert_eq!(file.read_at(&mut [0; 4], 0).unwrap(), 4);
    let strace = Held::every(mount.pid().unwrap(), "close", "delay_enter", HELD);
    forget(file);
    let file = open(&layers.at("two/b"));
    fs::remove_file(layers.at("two/b")).unwrap();
    std::thread::sleep(HELD * 2);
    strace.end();
    let mut text = [0; 4];
    assert_eq!(file.read_at(&mut text, 0).unwrap(), 4);
    assert_eq!(&text, b"text");
    file.write_at(b"TEXT", 0).unwrap();
    drop(file);
    mount.unmount();
}

/// It has a name, so it may be given one more: it was taken for a file without any.
#[test]
fn an_open_file_that_lost_its_known_name_can_be_linked_while_it_has_another() {
    if !require_real_root() {
        return;
    }
    let (layers, mount) = one_file_with_two_names("");
    let file = open(&layers.at("one/a"));
    fs::remove_file(layers.at("one/a")).unwrap();
    link(&file, &layers.at("more"));
    let links = |name: &str| fs::metadata(layers.at(name)).unwrap().nlink();
    assert_eq!((links("more"), links("two/b")), (2, 2));
    drop(file);
    mount.unmount();
    assert_eq!(fs::read(layers.upper.join("more")).unwrap(), b"text");
}

/// Without an index a file of a lower with two names was copied up under the one that was known first, whichever was
/// written: the next mount did not show what was written by the other.
#[test]
fn without_an_index_what_is_written_by_one_of_two_known_names_stays_there() {
    if !require_real_root() {
        return;
    }
    for known in [["one/a", "two/b"], ["two/b", "one/a"]] {
        let layers = Layers::new(Base::Shm, 1);
        for dir in ["one", "two"] {
            fs::create_dir(layers.lowers[0].join(dir)).unwrap();
        }
        let lower = |name: &str| layers.lowers[0].join(name);
        fs::write(lower("one/a"), b"text").unwrap();
        fs::hard_link(lower("one/a"), lower("two/b")).unwrap();
        let mount = Mount::acetate(&layers, "index=off");
        for name in known {
            assert_eq!(fs::metadata(layers.at(name)).unwrap().nlink(), 2);
        }
        open(&layers.at("two/b")).write_at(b"more", 4).unwrap();
        let both = || ["one/a", "two/b"].map(|name| fs::read(layers.at(name)).unwrap());
        let shown = both();
        assert_eq!(shown, [b"textmore"; 2]);
        mount.unmount();
        let mount = Mount::acetate(&layers, "index=off");
        assert_eq!(both(), shown, "known in the order {known:?}");
        mount.unmount();
    }
}

/// A rename that was done was answered with an error where a marker could not be removed after it: the kernel kept the
/// names as they were, and the open file that was replaced was gone.
#[test]
fn a_rename_that_is_done_is_no_error_where_its_marker_stays() {
    if !(require_real_root() && require_program("strace")) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "");
    fs::write(layers.at("a"), "new").unwrap();
    fs::write(layers.at("b"), "text").unwrap();
    let file = open(&layers.at("b"));
    let strace = Held::tampered(mount.pid().unwrap(), "unlinkat", "error=EIO");
    fs::rename(layers.at("a"), layers.at("b")).unwrap();
    strace.end();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut text = [0; 4];
    assert_eq!(file.read_at(&mut text, 0).unwrap(), 4);
    assert_eq!(&text, b"text");
    assert_eq!(fs::read(layers.at("b")).unwrap(), b"new");
    drop(file);
    mount.unmount();
}
