//! Files that the kernel reads and writes by itself: `passthrough=on`.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::support::counters::requests;
use super::support::host::{kernel_seen, require_program};
use super::support::mapping::Map;
use super::support::mount::acetate_bin;
use super::support::story::{as_uid, require_real_root, sh};
use super::support::{Base, Kind, Layers, Mount, skip};

/// Whether this kernel has it, and we may ask for it.
fn can() -> bool {
    if !require_real_root() {
        return false;
    }
    if kernel_seen() < (6, 9) {
        skip("Linux 6.9 brought FUSE_PASSTHROUGH");
        return false;
    }
    true
}

fn layers() -> Layers {
    let layers = Layers::new(Base::Shm, 1);
    let lower = layers.lowers.first().unwrap();
    fs::write(lower.join("big"), vec![b'l'; 4 << 20]).unwrap();
    fs::write(lower.join("small"), "lower").unwrap();
    layers
}

/// READ and WRITE requests so far.
fn moved(root: &Path) -> (u64, u64) {
    (requests(root, "read"), requests(root, "write"))
}

#[test]
fn a_read_only_mounts_files_are_read_without_us() {
    if !can() {
        return;
    }
    let mut layers = layers();
    layers.writable = false;
    let mount = Mount::acetate(&layers, "passthrough=on");
    let before = moved(&layers.merged);
    let mut first = File::open(layers.at("big")).unwrap();
    let mut second = File::open(layers.at("big")).unwrap();
    let mut data = Vec::new();
    first.read_to_end(&mut data).unwrap();
    drop(first);
    assert!(data == vec![b'l'; 4 << 20]);
    data.clear();
    second.read_to_end(&mut data).unwrap();
    assert_eq!(data.len(), 4 << 20);
    let map = Map::read_only(&second, 4096);
    drop(second);
    assert_eq!(map.read(0, 4), b"llll");
    drop(map);
    assert_eq!(fs::read(layers.at("small")).unwrap(), b"lower");
    assert_eq!(moved(&layers.merged), before);
    mount.unmount();
}

#[test]
fn a_new_file_is_written_and_read_without_us_and_looks_as_it_is() {
    if !can() {
        return;
    }
    let layers = layers();
    let mount = Mount::acetate(&layers, "passthrough=on");
    let before = moved(&layers.merged);
    let path = layers.at("new");
    let mut file = File::create_new(&path).unwrap();
    let begun = file.metadata().unwrap();
    file.write_all(&vec![b'n'; 1 << 20]).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    assert_eq!(path.metadata().unwrap().len(), 1 << 20);

    let mut appending = OpenOptions::new().append(true).open(&path).unwrap();
    appending.write_all(b"end").unwrap();
    assert_eq!(path.metadata().unwrap().len(), (1 << 20) + 3);
    let reading = File::open(&path).unwrap();
    let mut end = [0; 4];
    reading.read_exact_at(&mut end, (1 << 20) - 1).unwrap();
    assert_eq!(&end, b"nend");

    file.set_len(5).unwrap();
    assert_eq!(path.metadata().unwrap().len(), 5);
    assert_eq!(reading.read_at(&mut end, 4).unwrap(), 1);
    drop((file, appending, reading));
    assert_eq!(fs::read(&path).unwrap(), b"nnnnn");
    assert!(path.metadata().unwrap().mtime_nsec() != begun.mtime_nsec());

    // A name that goes while the file is open takes nothing along.
    let held = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    fs::remove_file(&path).unwrap();
    held.write_all_at(b"gone", 0).unwrap();
    let mut data = [0; 5];
    held.read_exact_at(&mut data, 0).unwrap();
    assert_eq!(&data, b"gonen");
    assert_eq!(held.metadata().unwrap().nlink(), 0);
    drop(held);
    assert_eq!(moved(&layers.merged), before);
    mount.unmount();
}

#[test]
fn what_is_written_through_a_mapping_moves_the_time() {
    if !can() {
        return;
    }
    let layers = layers();
    let mount = Mount::acetate(&layers, "passthrough=on");
    let path = layers.at("mapped");
    fs::write(&path, vec![0; 8192]).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let map = Map::shared(&file, 8192);
    map.write(4096, b"mapped");
    map.sync();
    assert!(file.metadata().unwrap().mtime() > 0);
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    map.write(0, b"again");
    map.sync();
    drop(map);
    drop(file);
    let seen = fs::read(&path).unwrap();
    assert_eq!(&seen[4096..4102], b"mapped");
    assert!(path.metadata().unwrap().mtime() > 0);
    mount.unmount();
}

/// fuse-overlayfs 2.0.0 writes into the lower layer here: its second open gets the
/// backing file of the first.
#[test]
fn a_lower_file_that_is_read_may_be_written_and_stays_as_it_is() {
    if !can() {
        return;
    }
    for words in ["passthrough=on", ""] {
        let layers = layers();
        let mount = Mount::acetate(&layers, words);
        for name in ["big", "small"] {
            let path = layers.at(name);
            let before = fs::read(layers.lowers.first().unwrap().join(name)).unwrap();
            let reading = File::open(&path).unwrap();
            let mut start = [0; 4];
            reading.read_exact_at(&mut start, 0).unwrap();
            let writing = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            writing.write_all_at(b"UPPER", 0).unwrap();
            let later = File::open(&path).unwrap();
            for file in [&reading, &writing, &later] {
                file.read_exact_at(&mut start, 0).unwrap();
                assert_eq!(&start, b"UPPE", "{name}, {words}");
            }
            drop((reading, writing, later));
            assert_eq!(&fs::read(&path).unwrap()[..5], b"UPPER");
            let lower = fs::read(layers.lowers.first().unwrap().join(name)).unwrap();
            assert!(lower == before, "{name}: the layer was changed");
        }
        mount.unmount();
    }
}

/// What the page cache holds from before is not shown after a write past it.
#[test]
fn pages_read_before_a_write_are_not_shown_after_it() {
    if !can() {
        return;
    }
    let layers = layers();
    let mount = Mount::acetate(&layers, "passthrough=on");
    let path = layers.at("small");
    assert_eq!(fs::read(&path).unwrap(), b"lower");
    let before = moved(&layers.merged).1;
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all(b"UP")
        .unwrap();
    assert_eq!(moved(&layers.merged).1, before, "it was written by us");
    assert_eq!(fs::read(&path).unwrap(), b"UPwer");
    let script = "cp small copy; echo more >>small; test \"$(cat small)\" = UPwermore; test \"$(cat copy)\" = UPwer";
    sh(&layers.merged, script).unwrap();
    mount.unmount();
}

#[test]
fn a_write_by_others_takes_suid_away() {
    if !can() {
        return;
    }
    let layers = layers();
    for kind in [Kind::Acetate, Kind::Kernel] {
        let words = match kind {
            Kind::Acetate => "passthrough=on",
            _ => "",
        };
        let mount = Mount::with(kind, &layers, words);
        let path = layers.at(&format!("suid-{kind:?}"));
        fs::write(&path, "program").unwrap();
        let writing = |path: &Path| OpenOptions::new().write(true).open(path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        // Opened before the file became one that gives privileges, and after.
        let early = as_uid(1000, || writing(&path));
        fs::set_permissions(&path, PermissionsExt::from_mode(0o4777)).unwrap();
        as_uid(1000, || early.write_all_at(b"P", 0).unwrap());
        drop(early);
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o777, "{kind:?}");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o4777)).unwrap();
        as_uid(1000, || writing(&path).write_all_at(b"Q", 0).unwrap());
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o777, "{kind:?}");
        // By one who could not have opened it.
        fs::set_permissions(&path, PermissionsExt::from_mode(0o6755)).unwrap();
        let handed_on = writing(&path);
        as_uid(1000, || handed_on.write_all_at(b"R", 0).unwrap());
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o755, "{kind:?}");
        drop(handed_on);
        mount.unmount();
    }
}

/// Opening for writing copies the data of a metacopy up, and writes nothing.
#[test]
fn an_open_for_writing_keeps_capabilities() {
    if !can() || !require_program("setfattr") {
        return;
    }
    let layers = layers();
    let capability =
        "setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 l0/small";
    sh(&layers.root, capability).unwrap();
    let shown = "getfattr --absolute-names -e hex -n security.capability small";
    for words in ["passthrough=on,metacopy=on", "passthrough=on"] {
        let mount = Mount::acetate(&layers, words);
        let before = sh(&layers.merged, shown).unwrap();
        sh(&layers.merged, "touch -m small; : >>small").unwrap();
        assert_eq!(sh(&layers.merged, shown).unwrap(), before, "{words}");
        sh(&layers.merged, "echo >>small").unwrap();
        assert!(sh(&layers.merged, shown).is_err(), "{words}");
        mount.unmount();
        sh(&layers.root, "rm -r upper/* work/*").unwrap();
    }
}

/// The kernel opens what it runs with the daemon's rights.
#[test]
fn programs_run() {
    if !can() {
        return;
    }
    let mut layers = layers();
    let lower = layers.lowers.first().unwrap().clone();
    sh(
        &lower,
        "cp /bin/true lowertrue; printf '#!/bin/sh\nexit 0\n' >script; chmod 755 script",
    )
    .unwrap();
    let run = "./lowertrue; ./script";
    let mount = Mount::acetate(&layers, "passthrough=on");
    let own = "cp /bin/true own; ./own; touch lowertrue script; chmod 755 lowertrue script";
    sh(&layers.merged, &format!("{run}; {own}; {run}")).unwrap();
    mount.unmount();
    layers.writable = false;
    let mount = Mount::acetate(&layers, "passthrough=on");
    sh(&layers.merged, run).unwrap();
    mount.unmount();
}

/// Names forgotten and looked up again by others, while files are opened and closed.
#[test]
fn files_that_are_forgotten_meanwhile_can_be_opened() {
    if !can() {
        return;
    }
    let layers = layers();
    let mount = Mount::acetate(&layers, "passthrough=on,max_threads=4");
    for i in 0..20 {
        fs::write(layers.at(&format!("f{i}")), "content").unwrap();
    }
    let end = Instant::now() + Duration::from_secs(3);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let layers = &layers;
            scope.spawn(move || {
                for i in (0..20).cycle().skip(client * 5) {
                    if Instant::now() > end {
                        return;
                    }
                    let path = layers.at(&format!("f{i}"));
                    assert_eq!(fs::read(&path).unwrap(), b"content", "f{i}");
                    drop(OpenOptions::new().write(true).open(&path).unwrap());
                }
            });
        }
        scope.spawn(|| {
            while Instant::now() < end {
                fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    });
    mount.unmount();
}

#[test]
fn a_file_opened_for_appending_can_be_made_not_to_append() {
    if !can() {
        return;
    }
    let layers = layers();
    let mount = Mount::acetate(&layers, "passthrough=on");
    let path = layers.at("log");
    let file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    (&file).write_all(b"0123456789").unwrap();
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::empty()).unwrap();
    file.write_all_at(b"XX", 0).unwrap();
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"XX23456789");
    mount.unmount();
}

#[test]
fn an_open_that_empties_a_lower_file_copies_nothing_of_it() {
    if !can() {
        return;
    }
    let layers = layers();
    let mount = Mount::acetate(&layers, "passthrough=on");
    fs::write(layers.at("big"), "new").unwrap();
    // Opened for reading, and emptied all the same.
    sh(
        &layers.merged,
        "python3 -c 'import os; os.open(\"small\", os.O_RDONLY | os.O_TRUNC)'",
    )
    .unwrap();
    assert_eq!(fs::read(layers.at("big")).unwrap(), b"new");
    assert_eq!(layers.at("small").metadata().unwrap().len(), 0);
    let stats = format!("{} stats --format json .", acetate_bin().display());
    let said = sh(&layers.merged, &stats).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["copy_up_bytes"], 0, "{said}");
    mount.unmount();
}

#[test]
fn where_it_cannot_be_had_the_mount_works_without() {
    if !can() {
        return;
    }
    let layers = layers();
    let mount = Mount::acetate(&layers, "passthrough=on,writeback");
    let before = moved(&layers.merged).0;
    assert_eq!(fs::read(layers.at("small")).unwrap(), b"lower");
    assert_eq!(fs::read(layers.at("small")).unwrap(), b"lower");
    assert_eq!(requests(&layers.merged, "open"), 1, "the one at the mount");
    assert_eq!(moved(&layers.merged).0, before + 1);
    mount.unmount();
}
