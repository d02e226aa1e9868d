//! Sizes: memory stays bounded, sparse files stay small, a full disk is an error.

use std::io::{BufReader, Cursor, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use acetate::archive::{PackOptions, Reader, Sync, UnpackOptions, pack, unpack};
use acetate::sys::dir;

use super::craft::{Block, Craft};
use super::{Base, packed, real, temp, unpack_into, unpacked};
use crate::support::host::own_mounts;
use crate::support::{require_root, skip};

/// An archive of many small files that is made while it is read.
struct Many {
    left: u32,
    current: Cursor<Vec<u8>>,
}

impl Many {
    fn new(files: u32) -> Many {
        Many {
            left: files,
            current: Cursor::default(),
        }
    }
}

impl Read for Many {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.current.read(buf)?;
        if n > 0 || self.left == u32::MAX {
            return Ok(n);
        }
        let mut next = Craft::default();
        let from = self.left;
        self.left = self.left.saturating_sub(1000);
        for n in self.left..from {
            let name = format!("d{:03}/file-{n:07}", n / 1000);
            next = next.with_data(Block::new(name.as_bytes(), b'0'), b"");
        }
        let mut bytes = next.0;
        if self.left == 0 {
            bytes.extend_from_slice(&[0; 1024]);
            self.left = u32::MAX;
        }
        self.current = Cursor::new(bytes);
        self.read(buf)
    }
}

/// The most memory that this process has had, in KiB; `None` where tests share one.
fn peak() -> Option<u64> {
    std::env::var_os("NEXTEST")?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().ok()
}

const LIMIT: u64 = 64 << 10;

#[track_caller]
fn assert_small(what: &str) {
    match peak() {
        Some(peak) => assert!(peak < LIMIT, "{what} took {peak} KiB"),
        None => {
            skip("memory is measured with one process a test (cargo nextest)");
        }
    }
}

#[test]
fn a_million_files_need_no_more_memory_than_one() {
    let into = tempfile::tempdir_in(Base::Shm.dir()).unwrap();
    let root = dir::open_root(into.path()).unwrap();
    let options = UnpackOptions {
        sync: Sync::No,
        ..UnpackOptions::new(real())
    };
    let start = Instant::now();
    let done = unpack(Many::new(1_000_000), root.as_fd(), &options, &mut |_| {}).unwrap();
    assert_eq!(done.entries, 1_000_000);
    assert_small("unpacking a million files");
    let packed = pack(
        root.as_fd(),
        std::io::sink(),
        &PackOptions::new(real()),
        &mut |_| {},
    );
    assert_eq!(packed.unwrap().entries, 1_001_000);
    assert_small("packing a million files");
    println!("both: {:?}", start.elapsed());
}

#[test]
fn the_caller_can_limit_the_number_of_entries() {
    let into = temp();
    let root = dir::open_root(into.path()).unwrap();
    let options = UnpackOptions {
        max_entries: 10,
        ..UnpackOptions::new(real())
    };
    let error = unpack(Many::new(11), root.as_fd(), &options, &mut |_| {}).unwrap_err();
    assert!(
        error.to_string().contains("more than 10 entries"),
        "{error}"
    );
}

#[test]
fn an_8_gib_sparse_file_takes_no_room_and_no_time() {
    let size = 8u64 << 30;
    let map = format!("{},4", size - 4);
    let archive = Craft::default()
        .pax(&[
            ("GNU.sparse.size", size.to_string().as_bytes()),
            ("GNU.sparse.map", map.as_bytes()),
        ])
        .file("huge", "data")
        .end();
    let tree = unpacked(&archive);
    let huge = tree.path().join("huge").metadata().unwrap();
    assert_eq!(huge.len(), size);
    assert!(huge.blocks() * 512 < 1 << 20);
    assert_small("unpacking");
    // Out again plainly, as far as a reader wants it: a header of more than eleven
    // octal digits, and zeros.
    let root = dir::open_root(tree.path()).unwrap();
    let mut head = Head(Vec::new());
    let stopped = pack(
        root.as_fd(),
        &mut head,
        &PackOptions::new(real()),
        &mut |_| {},
    );
    assert!(stopped.is_err());
    let mut reader = Reader::new(BufReader::new(&head.0[..]));
    assert_eq!(reader.next_entry().unwrap().unwrap().size, size);
    assert_small("packing");
}

/// Takes a megabyte and then no more.
struct Head(Vec<u8>);

impl std::io::Write for Head {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() > 1 << 20 {
            return Err(std::io::Error::other("enough"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_error_of_the_receiver_is_told_as_it_is() {
    let tree = unpacked(
        &Craft::default()
            .with_data(Block::new(b"f", b'0'), &vec![1; 9 << 20])
            .end(),
    );
    let root = dir::open_root(tree.path()).unwrap();
    let error = pack(
        root.as_fd(),
        Head(Vec::new()),
        &PackOptions::new(real()),
        &mut |_| {},
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("cannot be written: enough"), "{error}");
}

/// In a mount namespace of its own.
fn with_small_disk(size: &str, test: impl FnOnce(&std::path::Path) + Send + 'static) {
    let size = size.to_owned();
    let thread = std::thread::spawn(move || {
        own_mounts();
        let at = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(at.path())
            .status();
        assert!(made.unwrap().success());
        let tree = at.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        test(&tree);
        let gone = std::process::Command::new("umount").arg(at.path()).status();
        assert!(gone.unwrap().success());
    });
    thread.join().unwrap();
}

#[test]
fn a_full_disk_is_an_error_that_names_the_entry() {
    if !require_root() {
        return;
    }
    with_small_disk("size=1m", |tree| {
        let archive = Craft::default()
            .file("fits", "x")
            .with_data(Block::new(b"d/too-large", b'0'), &vec![b'x'; 3 << 20])
            .file("after", "x");
        let error = unpack_into(&archive.end(), tree, real()).unwrap_err();
        assert!(error.is_out_of_space(), "{error}");
        let said = error.to_string();
        assert!(
            said.contains("d/too-large") && said.contains("No space left"),
            "{said}"
        );
    });
}

#[test]
fn a_disk_without_inodes_is_an_error_that_names_the_entry() {
    if !require_root() {
        return;
    }
    with_small_disk("size=1m,nr_inodes=20", |tree| {
        let archive = (0..30).fold(Craft::default(), |c, n| c.file(&format!("f{n:02}"), ""));
        let error = unpack_into(&archive.end(), tree, real()).unwrap_err();
        assert!(error.is_out_of_space(), "{error}");
        assert!(error.to_string().contains("f1"), "{error}");
    });
}

#[test]
fn a_tree_deeper_than_any_path_goes_in_and_out() {
    // The kernel's PATH_MAX is 4096: this is reached one component at a time.
    let depth = 3000;
    let path = vec!["d"; depth].join("/");
    let archive = Craft::default()
        .pax(&[("path", format!("{path}/f").as_bytes())])
        .file("x", "deep")
        .end();
    let tree = unpacked(&archive);
    let canonical = packed(tree.path());
    let mut reader = Reader::new(&canonical[..]);
    let mut last = None;
    while let Some(entry) = reader.next_entry().unwrap() {
        last = Some(entry);
    }
    let last = last.unwrap();
    assert_eq!((last.path.len(), last.size), (2 * depth + 1, 4));
    assert!(packed(unpacked(&canonical).path()) == canonical);
    assert_small("a deep tree");
}

#[test]
fn large_xattrs_are_kept_and_a_file_that_grows_is_told() {
    let into = tempfile::tempdir_in(Base::Shm.dir()).unwrap();
    let value = vec![b'v'; 60_000];
    let archive = Craft::default()
        .pax(&[("SCHILY.xattr.user.large", &value)])
        .file("f", "x");
    match unpack_into(&archive.end(), into.path(), real()) {
        Ok(_) => {
            let out = packed(into.path());
            assert!(out.windows(60_000).any(|w| w == value));
        }
        // tmpfs before 6.6 keeps none: told, not lost.
        Err(e) => assert!(e.to_string().contains("user.large"), "{e}"),
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error_that_names_it() {
    let tree = unpacked(
        &Craft::default()
            .with_data(Block::new(b"f", b'0'), &vec![7; 9 << 20])
            .end(),
    );
    for size in [1u64 << 20, 20 << 20] {
        let file = tree.path().join("f");
        std::fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .unwrap()
            .set_len(9 << 20)
            .unwrap();
        let root = dir::open_root(tree.path()).unwrap();
        let mut slow = Resize(file, size, 0);
        let error = pack(
            root.as_fd(),
            &mut slow,
            &PackOptions::new(real()),
            &mut |_| {},
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("f: it changed"), "{error}");
    }
}

/// Changes a file's size when the first bytes of its archive arrive.
struct Resize(std::path::PathBuf, u64, usize);

impl std::io::Write for Resize {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.2 == 0 {
            let file = std::fs::OpenOptions::new().write(true).open(&self.0)?;
            file.set_len(self.1)?;
        }
        self.2 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
