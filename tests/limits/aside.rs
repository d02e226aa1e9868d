//! A file that is moved aside because nobody may hold one more descriptor, while it is read.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::held::Held;
use crate::support::host::require_program;
use crate::support::story::require_real_root;
use crate::support::{Base, Layers, Mount};

/// So long does each renameat2(2) of the daemon take: strace(1) holds it after the kernel has done it.
const HELD: Duration = Duration::from_millis(600);

/// Found by the stress with four descriptors on a busy machine: between the rename into the work directory and the note
/// of it, the object was found nowhere, and a reader got ESTALE.
#[test]
fn an_open_file_can_be_read_while_its_last_name_goes_beyond_the_orphan_budget() {
    if !(require_real_root() && require_program("strace")) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "fd_cache=4");
    let made = |i: usize| -> File {
        let path = layers.at(&format!("f{i}"));
        fs::write(&path, vec![b'a'; 1 << 16]).unwrap();
        File::open(path).unwrap()
    };
    let files: Vec<File> = (0..12).map(made).collect();
    let gone = |i: usize| fs::remove_file(layers.at(&format!("f{i}"))).unwrap();
    (0..6).for_each(gone);
    let read = |file: &File| {
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut buffer = [0; 4096];
        file.read_at(&mut buffer, 4096).map(|n| (n, buffer[0]))
    };
    let pid = mount.pid().unwrap();
    let strace = Held::every(pid, "renameat2", "delay_exit", HELD);
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| gone(6));
        let start = Instant::now();
        let mut reads = 0;
        while start.elapsed() < HELD * 2 && !removing.is_finished() {
            // The others take the descriptors there are.
            files[7..].iter().for_each(|f| assert!(read(f).is_ok()));
            let answer = read(&files[6]).map_err(|e| e.raw_os_error());
            assert_eq!(answer, Ok((4096, b'a')), "after {:?}", start.elapsed());
            reads += 1;
        }
        assert!(reads > 1, "the file was read while its name went");
    });
    strace.end();
    assert_eq!(read(&files[6]).unwrap(), (4096, b'a'));
    drop(files);
    mount.unmount();
}

/// Found by the stress with four descriptors: a file's descriptor went out of the cache between the look whether it was
/// there and its use, and a stat said ENOTDIR.
#[test]
fn stats_and_reads_of_more_files_than_descriptors_never_fail() {
    if !require_real_root() {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    // Nothing is remembered by the kernel: each stat asks.
    let mount = Mount::acetate(&layers, "fd_cache=4,timeout=0,max_threads=8");
    let path = |i: u64| layers.at(&format!("f{i}"));
    (0..12).for_each(|i| fs::write(path(i), vec![b'a'; 1 << 13]).unwrap());
    let until = Instant::now() + Duration::from_secs(6);
    std::thread::scope(|scope| {
        for worker in 0..8_u64 {
            scope.spawn(move || {
                let mut n = worker;
                while Instant::now() < until {
                    n = n
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(worker + 1);
                    let file = path((n >> 33) % 12);
                    let meta = fs::metadata(&file).unwrap_or_else(|e| panic!("stat: {e}"));
                    assert_eq!(meta.len(), 1 << 13);
                    let file = fs::OpenOptions::new().write(true).open(&file).unwrap();
                    file.write_at(b"a", 5)
                        .unwrap_or_else(|e| panic!("write: {e}"));
                }
            });
        }
    });
    mount.unmount();
}

/// A lower with one file under two names, which is in the upper under the first and known under neither.
fn one_of_two_names_is_up() -> (Layers, Mount) {
    let layers = Layers::new(Base::Shm, 1);
    // Below the root, which is listed at the mount.
    let lower = |name: &str| layers.lowers[0].join(name);
    fs::create_dir_all(lower("one")).unwrap();
    fs::create_dir_all(lower("two")).unwrap();
    fs::write(lower("one/a"), b"text").unwrap();
    fs::hard_link(lower("one/a"), lower("two/b")).unwrap();
    let mount = Mount::acetate(&layers, "");
    open(&layers.at("one/a")).write_at(b"more", 4).unwrap();
    mount.unmount();
    let mount = Mount::acetate(&layers, "fd_cache=4");
    (layers, mount)
}

pub fn open(path: &Path) -> File {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).open(path).unwrap()
}

/// Gives an open file one more name.
pub fn link(file: &File, name: &Path) {
    let fd = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let (cwd, follow) = (rustix::fs::CWD, rustix::fs::AtFlags::SYMLINK_FOLLOW);
    rustix::fs::linkat(cwd, fd, cwd, name, follow).unwrap();
}

/// Deleted files that are open: as many as are kept by a descriptor, and more.
pub fn take_the_budget(layers: &Layers) -> Vec<File> {
    let deleted = |i| {
        let path = layers.at(&format!("f{i}"));
        fs::write(&path, "x").unwrap();
        let file = open(&path);
        fs::remove_file(path).unwrap();
        file
    };
    (0..8).map(deleted).collect()
}

/// Found after a stress in which the kernel's memory did not show what was on the disk: an open file that had lost its
/// one known name was not taken for the file that another name of it led to, so one file had two numbers, and the kernel
/// kept its pages twice.
#[test]
fn an_open_hard_link_whose_known_name_went_beyond_the_budget_is_one_file_with_its_other_name() {
    if !require_real_root() {
        return;
    }
    let (layers, mount) = one_of_two_names_is_up();
    let file = open(&layers.at("two/b"));
    let gone = take_the_budget(&layers);
    fs::remove_file(layers.at("two/b")).unwrap();
    let other = layers.at("one/a");
    assert_eq!(fs::read(&other).unwrap(), b"textmore");
    assert_eq!(
        fs::metadata(&other).unwrap().ino(),
        file.metadata().unwrap().ino()
    );
    file.write_at(b"MORE", 4).unwrap();
    assert_eq!(fs::read(&other).unwrap(), b"textMORE");
    // It has a name, so it may be given one more.
    link(&file, &layers.at("more"));
    assert_eq!(fs::metadata(layers.at("more")).unwrap().nlink(), 2);
    drop((file, gone));
    mount.unmount();
    let mount = Mount::acetate(&layers, "");
    assert_eq!(fs::read(&other).unwrap(), b"textMORE");
    assert_eq!(fs::metadata(&other).unwrap().nlink(), 2);
    mount.unmount();
}

/// Found by the stress on sixteen cores while the kernel forgot: the name in the work directory was counted as a link of
/// the file when another name of it was looked up, and the kernel kept that.
#[test]
fn a_name_aside_is_no_link_of_a_file_that_has_another_name() {
    if !require_real_root() {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "");
    fs::create_dir(layers.at("one")).unwrap();
    fs::create_dir(layers.at("two")).unwrap();
    fs::write(layers.at("one/a"), "text").unwrap();
    fs::hard_link(layers.at("one/a"), layers.at("two/b")).unwrap();
    mount.unmount();
    let mount = Mount::acetate(&layers, "fd_cache=4");
    let file = open(&layers.at("one/a"));
    let gone = take_the_budget(&layers);
    fs::remove_file(layers.at("one/a")).unwrap();
    let links = |name: &str| fs::metadata(layers.at(name)).unwrap().nlink();
    assert_eq!(links("two/b"), 1);
    fs::hard_link(layers.at("two/b"), layers.at("two/c")).unwrap();
    assert_eq!((links("two/b"), links("two/c")), (2, 2));
    // Its last name goes once more, and another is found again.
    fs::remove_file(layers.at("two/b")).unwrap();
    assert_eq!(links("two/c"), 1);
    fs::remove_file(layers.at("two/c")).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_at(b"TEXT", 0).unwrap();
    drop((file, gone));
    mount.unmount();
    assert_eq!(fs::read_dir(layers.work.join("work")).unwrap().count(), 0);
}

/// Found by the stress while the kernel forgot: a name in the work directory was counted as a link where one file is
/// renamed over another, so kernel overlayfs found one link too few on the disk, then took the count for broken.
#[test]
fn a_hard_link_that_is_replaced_beyond_the_budget_is_counted_right_on_the_disk() {
    if !require_real_root() {
        return;
    }
    let (layers, mount) = one_of_two_names_is_up();
    let gone = take_the_budget(&layers);
    fs::write(layers.at("new"), "new").unwrap();
    fs::rename(layers.at("new"), layers.at("one/a")).unwrap();
    let other = layers.at("two/b");
    assert_eq!(fs::metadata(&other).unwrap().nlink(), 1);
    drop(gone);
    mount.unmount();
    let kernel = Mount::kernel(&layers, "redirect_dir=on,index=on");
    assert_eq!(fs::read(&other).unwrap(), b"textmore");
    assert_eq!(
        fs::metadata(&other).unwrap().nlink(),
        1,
        "on kernel overlayfs"
    );
    kernel.unmount();
}

/// Found by the stress with four descriptors: the last name of a copied-up hard link that only the lower had was not
/// counted as one that somebody may have open, and its anchor went with it.
#[test]
fn an_open_hard_link_stays_when_its_last_name_goes_beyond_the_orphan_budget() {
    if !require_real_root() {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    fs::create_dir(layers.lowers[0].join("sub")).unwrap();
    fs::write(layers.lowers[0].join("a"), b"text").unwrap();
    fs::hard_link(layers.lowers[0].join("a"), layers.lowers[0].join("sub/b")).unwrap();
    let mount = Mount::acetate(&layers, "fd_cache=4");
    let file = open(&layers.at("a"));
    file.write_at(b"more", 4).unwrap();
    let there = [
        layers.upper.join("a").exists(),
        layers.upper.join("sub/b").exists(),
    ];
    assert_eq!(there, [true, false]);
    assert_eq!(fs::read(layers.at("sub/b")).unwrap(), b"textmore");
    let gone = take_the_budget(&layers);
    fs::remove_file(layers.at("a")).unwrap();
    fs::remove_file(layers.at("sub/b")).unwrap();
    for i in (0..20).chain(0..20) {
        fs::write(layers.at(&format!("g{i}")), "x").unwrap();
    }
    file.write_at(b"!", 8).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut text = [0; 16];
    assert_eq!(file.read_at(&mut text, 0).unwrap(), 9);
    assert_eq!(&text[..9], b"textmore!");
    drop((file, gone));
    mount.unmount();
    let left = |dir: &str| fs::read_dir(layers.work.join(dir)).unwrap().count();
    assert_eq!(
        (left("work"), left("index")),
        (0, 0),
        "nothing is left of it"
    );
}
