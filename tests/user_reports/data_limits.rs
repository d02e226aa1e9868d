//! Section D, second part: sizes, holes, and what is not copied at all.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::SeekFrom;

use crate::support::Base;
use crate::support::story::{on_ours, sh};

/// vasi/squashfuse#125: overwriting a lower file of more than 2 GB gave EOVERFLOW. A sparse file of 5 GiB: copied up with
/// its holes, written behind 4 GiB.
#[test]
fn squashfuse125_a_lower_file_of_more_than_4_gib() {
    on_ours(
        Base::Shm,
        1,
        "truncate -s 5G l0/big; printf middle | dd of=l0/big bs=1 seek=4500000000 conv=notrunc 2>/dev/null",
        "",
        |layers, _| {
            let file = File::options()
                .read(true)
                .write(true)
                .open(layers.at("big"))
                .unwrap();
            file.write_all_at(b"end", 5_368_709_117).unwrap();
            file.write_all_at(b"start", 0).unwrap();
            let mut got = [0; 6];
            file.read_exact_at(&mut got, 4_500_000_000).unwrap();
            assert_eq!(&got, b"middle");
            assert_eq!(file.metadata().unwrap().len(), 5 << 30);
            let upper = fs::metadata(layers.upper.join("big")).unwrap();
            assert!(
                upper.blocks() * 512 < 4 << 20,
                "{} KiB in the upper: the holes were filled",
                upper.blocks() / 2
            );
        },
    );
}

/// F#60, C#12956, kernel/hypeman#212: copy-up should keep holes (and reflink, which the kernel tells us nothing about on a
/// filesystem that cannot; there FICLONE is tried and copy_file_range does it). Blocks compared, SEEK_DATA and SEEK_HOLE too.
#[test]
fn f60_copy_up_keeps_holes_where_they_are() {
    let setup = "truncate -s 64M l0/holes; for at in 0 1 100 101 5000 16383; do printf %04096d $at | dd of=l0/holes bs=4096 seek=$at conv=notrunc 2>/dev/null; done; cp --sparse=always l0/holes keep; truncate -s 1G l0/empty";
    on_ours(Base::Disk, 1, setup, "", |layers, _| {
        let map = |path: &std::path::Path| {
            let file = File::open(path).unwrap();
            let (mut at, mut extents) = (0, Vec::new());
            while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
                let hole = rustix::fs::seek(&file, SeekFrom::Hole(data)).unwrap();
                extents.push((data, hole));
                at = hole;
            }
            extents
        };
        let wanted = map(&layers.lowers[0].join("holes"));
        assert_eq!(
            map(&layers.at("holes")),
            wanted,
            "of the lower, through the mount"
        );
        sh(&layers.merged, "touch holes empty; cmp holes ../keep").unwrap();
        let blocks = |name: &str| fs::metadata(name).unwrap().blocks();
        let (lower, upper) = (layers.lowers[0].join("holes"), layers.upper.join("holes"));
        assert_eq!(map(&upper), wanted, "of the copy in the upper");
        assert_eq!(
            map(&layers.at("holes")),
            wanted,
            "of the copy, through the mount"
        );
        assert!(blocks(upper.to_str().unwrap()) <= blocks(lower.to_str().unwrap()) + 8);
        assert!(fs::metadata(layers.upper.join("empty")).unwrap().blocks() <= 8);
        // st_blocks through the mount tells the truth too (du, tar -S).
        assert_eq!(
            fs::metadata(layers.at("holes")).unwrap().blocks(),
            fs::metadata(&upper).unwrap().blocks()
        );
    });
}

/// wasmerio/wasmer#5445, openshift/ci-operator#268: opening a file for writing without writing, or chmod -R, copied all data.
/// An open copies nothing; a chmod copies the data once, or with `metacopy=on` none of it.
#[test]
fn wasmer5445_opening_without_writing_copies_nothing() {
    let setup =
        "mkdir l0/d; for i in 1 2 3; do head -c 1000000 /dev/zero | tr '\\0' x > l0/d/f$i; done";
    on_ours(Base::Shm, 1, setup, "", |layers, _| {
        sh(
            &layers.merged,
            "for f in d/*; do exec 3<>$f; exec 3>&-; exec 3>>$f; exec 3>&-; done",
        )
        .unwrap();
        assert_eq!(sh(&layers.upper, "find . -type f").unwrap(), "");
    });
    on_ours(Base::Shm, 1, setup, "metacopy=on", |layers, _| {
        sh(&layers.merged, "chmod -R go-rwx d; chown -R 5:5 d; cat d/f1 | wc -c; du -s --apparent-size d >/dev/null").unwrap();
        let kib: u64 = sh(&layers.upper, "du -sk .")
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(kib < 200, "{kib} KiB in the upper");
        sh(&layers.merged, "echo y >> d/f2; test $(wc -c < d/f2) = 1000002; head -c 3 d/f2; stat -c '%a %u' d/f2 d/f1").map(|o| assert_eq!(o, "xxx600 5\n600 5\n")).unwrap();
    });
}
