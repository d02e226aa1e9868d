//! A file that is moved aside because nobody may hold one more descriptor, while it is read.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
    let open = |i: usize| -> File {
        let path = layers.at(&format!("f{i}"));
        fs::write(&path, vec![b'a'; 1 << 16]).unwrap();
        File::open(path).unwrap()
    };
    let files: Vec<File> = (0..12).map(open).collect();
    let gone = |i: usize| fs::remove_file(layers.at(&format!("f{i}"))).unwrap();
    (0..6).for_each(gone);
    let read = |file: &File| {
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut buffer = [0; 4096];
        file.read_at(&mut buffer, 4096).map(|n| (n, buffer[0]))
    };
    let pid = mount.pid().unwrap();
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=renameat2", "-e"])
        .arg(format!("inject=renameat2:delay_exit={}", HELD.as_micros()))
        .args(["-o", "/dev/null", "-p", &pid.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let traced = format!("TracerPid:\t{}", strace.id());
    let every_thread_is = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let status =
            |t: fs::DirEntry| fs::read_to_string(t.path().join("status")).unwrap_or_default();
        tasks.flatten().all(|t| status(t).contains(&traced))
    };
    while !every_thread_is() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "strace does not come"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
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
    strace.kill().unwrap();
    strace.wait().unwrap();
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
