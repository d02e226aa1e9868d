//! Section D, first part: the data of files. Sizes, holes and permissions are in `data_limits.rs`;
//! F#475 (silent corruption after copy-up, under sqlite) is `tests/integrity.rs`.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::OFlags;

use crate::support::mapping::Map;
use crate::support::story::{Story, on_ours, require_real_root, sh, sh_as};
use crate::support::{Base, Layers, Mount};

/// The ways the kernel's page cache can be used.
const CACHES: [&str; 3] = ["", "writeback", "timeout=0"];

/// tytso/e2fsprogs#223, perkeep/perkeep#1218: a shorter overwrite kept the old tail (FUSE_ATOMIC_O_TRUNC negotiated, not
/// done). O_TRUNC over a lower file, an upper file, with the file open or mapped elsewhere, under every cache mode.
#[test]
fn e2fsprogs223_a_shorter_overwrite_keeps_no_old_tail() {
    for words in CACHES {
        on_ours(
            Base::Shm,
            1,
            "for f in a b c; do seq 1 5000 > l0/$f; done",
            words,
            |layers, _| {
                let open_elsewhere = File::open(layers.at("b")).unwrap();
                let map = Map::shared(
                    &File::options()
                        .read(true)
                        .write(true)
                        .open(layers.at("c"))
                        .unwrap(),
                    4096,
                );
                for round in 0..3 {
                    for name in ["a", "b", "c"] {
                        let text = format!("short {round}\n");
                        fs::write(layers.at(name), &text).unwrap();
                        assert_eq!(
                            fs::read_to_string(layers.at(name)).unwrap(),
                            text,
                            "{words}: {name}"
                        );
                        // With writeback the kernel may still hold the data, but never an old tail.
                        let upper = fs::read_to_string(layers.upper.join(name)).unwrap();
                        assert!(
                            upper == text || (words == "writeback" && upper.len() <= text.len()),
                            "{words}: {name}: upper {upper:?}"
                        );
                    }
                    let mut text = String::new();
                    let mut handle = &open_elsewhere;
                    handle.rewind().unwrap();
                    handle.read_to_string(&mut text).unwrap();
                    assert_eq!(text, format!("short {round}\n"), "{words}: the old handle");
                    assert_eq!(
                        map.read(0, 8),
                        format!("short {round}\n").as_bytes(),
                        "{words}: the mapping"
                    );
                    sh(&layers.merged, "seq 1 3000 > a; seq 1 3000 > b").unwrap();
                }
            },
        );
    }
}

/// F#134, B#1821, F#333: files were empty or corrupt after a build, depending on the number of CPUs, some only with
/// writeback. Many writers on one CPU and on all; after close and sync, what lies in the upper is what was written.
#[test]
fn f134_what_was_written_and_synced_is_in_the_upper_on_one_cpu_and_on_many() {
    let work = "i=0; while [ $i -lt 40 ]; do
            (seq $i 2000 > new$i; cat lower$i >> new$i; echo tail$i >> lower$i; cp new$i copy$i; : > empty$i; echo x > empty$i) &
            i=$((i + 1)); done; wait; sync -f .";
    for words in ["", "writeback"] {
        for pin in ["", "taskset -c 0 "] {
            if !pin.is_empty() && !crate::support::host::require_program("taskset") {
                continue;
            }
            on_ours(
                Base::Disk,
                1,
                "i=0; while [ $i -lt 40 ]; do seq $i 1500 > l0/lower$i; i=$((i + 1)); done",
                words,
                |layers, _| {
                    fs::write(layers.root.join("work.sh"), work).unwrap();
                    sh(&layers.merged, &format!("{pin}sh -eu ../work.sh")).unwrap();
                    let check = "i=0; while [ $i -lt 40 ]; do
                    (seq $i 2000; seq $i 1500) | cmp - new$i; (seq $i 1500; echo tail$i) | cmp - lower$i; cmp new$i copy$i; test \"$(cat empty$i)\" = x
                    i=$((i + 1)); done";
                    for dir in [&layers.upper, &layers.merged] {
                        sh(dir, check)
                            .unwrap_or_else(|e| panic!("{words} {pin}: {}: {e}", dir.display()));
                    }
                },
            );
        }
    }
}

/// google/gvisor#1006, docker/docs#3709, MM#31587: a descriptor opened before the copy-up went on reading the old file
/// (`tail -f` never saw a line, rpm and yum broke: MM#10180, MM#25705). The kernel still does that; we do not.
#[test]
fn gvisor1006_a_reader_opened_before_the_copy_up_sees_later_writes() {
    for words in CACHES {
        on_ours(
            Base::Shm,
            1,
            "echo first > l0/log; echo first > l0/map; echo first > l0/two",
            words,
            |layers, _| {
                let mut tail = File::open(layers.at("log")).unwrap();
                let mut text = String::new();
                tail.read_to_string(&mut text).unwrap();
                sh(&layers.merged, "echo second >> log").unwrap();
                text.clear();
                tail.read_to_string(&mut text).unwrap();
                assert_eq!(text, "second\n", "{words}: tail -f");
                // A read-only shared mapping made before.
                let reader = File::options()
                    .read(true)
                    .write(true)
                    .open(layers.at("map"))
                    .unwrap();
                let map = Map::shared(&reader, 4096);
                assert_eq!(map.read(0, 5), b"first");
                sh(
                    &layers.merged,
                    "printf FIRST | dd of=map conv=notrunc 2>/dev/null",
                )
                .unwrap();
                assert_eq!(map.read(0, 5), b"FIRST", "{words}: MAP_SHARED");
                // rpm: one descriptor to read, then another to write, of one file.
                let ro = File::open(layers.at("two")).unwrap();
                let rw = File::options()
                    .read(true)
                    .write(true)
                    .open(layers.at("two"))
                    .unwrap();
                rw.write_all_at(b"XY", 0).unwrap();
                let mut got = [0; 2];
                ro.read_exact_at(&mut got, 0).unwrap();
                assert_eq!(&got, b"XY", "{words}: RO then RW");
                assert_eq!(ro.metadata().unwrap().len(), 6);
            },
        );
    }
    // The real program.
    let out = Story::new(1, "echo one > l0/log")
        .step("tail -n +1 -f log > out & p=$!; sleep 0.2; echo two >> log; i=0; until grep -q two out || [ $i -gt 50 ]; do sleep 0.1; i=$((i + 1)); done; kill $p; cat out; rm out")
        .not_the_kernel("its tail -f follows the lower file for ever")
        .run();
    assert!(out.iter().all(|out| out == "one\ntwo\n"), "{out:?}");
}

/// F#399: cp to a new file of mode 0444 failed and left an empty file, because copy_file_range reopened it by path.
/// As an ordinary user, with cp's several ways to copy.
#[test]
fn f399_copying_into_a_read_only_file_one_has_open() {
    on_ours(
        Base::Shm,
        1,
        "seq 1 3000 > l0/src; chmod 444 l0/src; chown -R 1000:1000 l0 upper",
        "",
        |layers, _| {
            sh_as(1000, &layers.merged, "cp -p src dst; cmp src dst; stat -c %a dst; cp --reflink=never --sparse=always src dst2; cmp src dst2; install -m 0400 src dst3; cmp src dst3")
            .map(|out| assert_eq!(out, "444\n"))
            .unwrap();
            let from = File::open(layers.at("src")).unwrap();
            let to = File::options()
                .write(true)
                .create_new(true)
                .mode(0o0)
                .open(layers.at("range"))
                .unwrap();
            let (mut a, mut b) = (0, 0);
            let n = rustix::fs::copy_file_range(&from, Some(&mut a), &to, Some(&mut b), 1 << 20)
                .unwrap();
            assert_eq!(n as u64, from.metadata().unwrap().len());
            assert_eq!(
                fs::read(layers.at("range")).unwrap(),
                fs::read(layers.at("src")).unwrap()
            );
        },
    );
}

/// F#42, F#308, F#414, A#2033, F#265: ftruncate on a file of mode 000, the copy-up of read-only files, mkdir with mode 0555,
/// `sed -i`: they failed for ordinary users, because the daemon reopened by path or set the final mode first.
#[test]
fn f42_read_only_files_and_directories_of_an_ordinary_user() {
    on_ours(
        Base::Shm,
        1,
        "mkdir l0/ro; echo old > l0/ro/f; chmod 444 l0/ro/f; echo 000 > l0/none; chmod 000 l0/none; echo s > l0/sed; chmod 440 l0/sed; chmod 555 l0/ro; chown -R 1000:1000 l0 upper",
        "",
        |layers, _| {
            let script = "
                ! (echo x >> ro/f) 2>/dev/null; chmod 644 ro/f; echo more >> ro/f; cat ro/f; chmod 444 ro/f
                ! (: > ro/new) 2>/dev/null; mkdir -m 0555 dir555; ! (: > dir555/x) 2>/dev/null; rmdir dir555
                chmod 755 ro; mv ro/f ro/g; chmod 555 ro; ls ro
                sed -i 's/s/t/' sed; cat sed; stat -c %a sed none
                chmod 600 none; cat none; (umask 777; echo made > made000); stat -c %a made000; ! cat made000 2>/dev/null";
            sh_as(1000, &layers.merged, script)
                .map(|out| assert_eq!(out, "old\nmore\ng\nt\n440\n0\n000\n0\n"))
                .unwrap();
            // ftruncate through a descriptor of a file that nobody may open any more.
            let file = File::options()
                .read(true)
                .write(true)
                .open(layers.at("ro/g"))
                .unwrap();
            fs::set_permissions(
                layers.at("ro/g"),
                std::os::unix::fs::PermissionsExt::from_mode(0o0),
            )
            .unwrap();
            file.set_len(3).unwrap();
            file.write_all_at(b"X", 1).unwrap();
            let mut got = [0; 3];
            file.read_exact_at(&mut got, 0).unwrap();
            assert_eq!(&got, b"oXd");
        },
    );
}

/// F#168, MF#950, scylladb/seastar#3518: O_DIRECT gave EINVAL, or fcntl accepted the flag and the reads failed. Odd
/// offsets and lengths, on lower and upper files, opened with the flag or given it later.
#[test]
fn f168_direct_io_at_odd_offsets() {
    for words in CACHES {
        on_ours(Base::Disk, 1, "seq 1 20000 > l0/f", words, |layers, _| {
            let plain = fs::read(layers.at("f")).unwrap();
            let direct = File::options()
                .read(true)
                .write(true)
                .custom_flags(libc::O_DIRECT)
                .open(layers.at("f"))
                .unwrap();
            let later = File::open(layers.at("f")).unwrap();
            rustix::fs::fcntl_setfl(&later, OFlags::DIRECT).unwrap();
            for (at, len) in [
                (0, 512),
                (1, 1),
                (511, 4097),
                (4096, 8192),
                (100_000, 100_000),
                (12_345, 3),
            ] {
                for file in [&direct, &later] {
                    let mut got = vec![0; len];
                    let n = file
                        .read_at(&mut got, at as u64)
                        .unwrap_or_else(|e| panic!("{words}: {len} at {at}: {e}"));
                    assert_eq!(
                        got[..n],
                        plain[at..(at + len).min(plain.len())],
                        "{words}: {len} at {at}"
                    );
                }
            }
            direct.write_all_at(b"odd", 777).unwrap();
            direct.write_all_at(&[b'z'; 4096], 8192).unwrap();
            let now = fs::read(layers.at("f")).unwrap();
            assert_eq!(
                (&now[777..780], &now[8192..8195], now.len()),
                (&b"odd"[..], &b"zzz"[..], plain.len()),
                "{words}"
            );
        });
    }
}

/// HeddleCo/heddle#85, MF#674: direct I/O broke shared mappings (ENODEV). A writable shared mapping works under every cache
/// mode, of a lower and a new file, and what it wrote is in the upper after the unmount.
#[test]
fn heddle85_shared_writable_mappings_under_every_cache_mode() {
    if !(require_real_root()) {
        return;
    }
    for words in CACHES {
        let layers = Layers::new(Base::Disk, 1);
        sh(&layers.root, "seq 1 5000 > l0/lower").unwrap();
        let mount = Mount::acetate(&layers, words);
        sh(&layers.merged, "seq 1 5000 > new").unwrap();
        for name in ["lower", "new"] {
            let file = File::options()
                .read(true)
                .write(true)
                .open(layers.at(name))
                .unwrap();
            let before = file.metadata().unwrap().modified().unwrap();
            let map = Map::shared(&file, 8192);
            drop(file);
            map.write(10, b"MAPPED");
            map.write(5000, b"SECOND");
            map.sync();
            assert_eq!(
                &fs::read(layers.at(name)).unwrap()[10..16],
                b"MAPPED",
                "{words}: {name}"
            );
            map.write(4090, b"UNSYNCED");
            // Peer bug B6: a write through a mapping did not move the time.
            assert!(
                fs::metadata(layers.at(name)).unwrap().modified().unwrap() > before,
                "{words}: {name}: mtime"
            );
        }
        mount.unmount();
        for name in ["lower", "new"] {
            let bytes = fs::read(layers.upper.join(name)).unwrap();
            assert_eq!(
                (&bytes[10..16], &bytes[4090..4098], &bytes[5000..5006]),
                (&b"MAPPED"[..], &b"UNSYNCED"[..], &b"SECOND"[..]),
                "{words}: {name}"
            );
        }
        assert!(
            fs::read(layers.lowers[0].join("lower"))
                .unwrap()
                .starts_with(b"1\n2\n3\n4\n5\n6\n"),
            "the lower is unchanged"
        );
    }
}

/// opencontainers/runc#1896, P#1506: a failed append on a read-only root still copied the file up.
#[test]
fn runc1896_a_read_only_mount_copies_nothing_up() {
    if !(require_real_root()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    sh(&layers.root, "echo x > l0/f; mkdir l0/d").unwrap();
    let mount = Mount::acetate(&layers, "ro");
    let script = "for c in 'echo y >> f' 'chmod 600 f' 'mkdir d/e' 'rm f' 'mv f g' 'touch f' 'ln f h' 'setfattr -n user.x -v 1 f' ': > new'; do
        if sh -c \"$c\" 2>err; then echo \"succeeded: $c\"; fi; done; cat f";
    let out = sh(&layers.merged, &script.replace("2>err", "2>/dev/null")).unwrap();
    let said = sh(&layers.merged, "sh -c 'echo y >> f' 2>&1 || true").unwrap();
    assert_eq!(out, "x\n");
    assert!(said.contains("Read-only file system"), "{said}");
    mount.unmount();
    assert_eq!(sh(&layers.upper, "find . -mindepth 1").unwrap(), "");
}

/// microsoft/litebox#1195: the copy-up substituted O_RDONLY and so skipped the check of write permission. A user who may
/// not write a lower file gets EACCES, and nothing is copied.
#[test]
fn litebox1195_who_may_not_write_copies_nothing_up() {
    on_ours(
        Base::Shm,
        1,
        "echo x > l0/f; chmod 644 l0/f; mkdir l0/d; chmod 755 l0/d; echo y > l0/d/g",
        "",
        |layers, _| {
            let script = "for c in 'echo y >> f' ': > f' 'chmod 666 f' 'rm d/g' 'mv d/g d/h' ': > d/new' 'truncate -s 0 f' 'touch f' 'exec 3<>f'; do
            if sh -c \"$c\" 2>/dev/null; then echo \"succeeded: $c\"; fi; done; cat f d/g";
            assert_eq!(sh_as(1000, &layers.merged, script).unwrap(), "x\ny\n");
            assert_eq!(sh(&layers.upper, "find . -mindepth 1").unwrap(), "");
        },
    );
}
