//! Event loops that look out for requests: they hold nobody up, and take no time
//! where nothing is asked.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::held::Held;
use super::support::host::require_program;
use super::support::story::require_real_root;
use super::support::{Base, Layers, Mount};

/// Names that are not there, one request each.
pub fn ask(layers: &Layers, mark: &str, count: u32) {
    for i in 0..count {
        let path = layers.at(&format!("missing-{mark}-{i}"));
        assert!(path.symlink_metadata().is_err());
    }
}

/// CPU time of a process, in clock ticks (a hundredth of a second).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let number = |i: usize| fields.get(i).unwrap().parse::<u64>().unwrap();
    number(11) + number(12)
}

#[test]
fn a_request_that_waits_for_a_disk_holds_up_no_other() {
    if !require_real_root() || !require_program("strace") {
        return;
    }
    for words in [
        "max_threads=2",
        "polling=on,max_threads=2",
        "follow_client=always,max_threads=2",
    ] {
        one_waits_and_others_do_not(words);
    }
}

fn one_waits_and_others_do_not(words: &str) {
    let layers = Layers::new(Base::Shm, 1);
    fs::write(layers.lowers.first().unwrap().join("slow"), "data").unwrap();
    let mount = Mount::acetate(&layers, words);
    // One of the loops has come to look out, and the other to stay away.
    ask(&layers, "before", 3000);
    let held = Held::every(
        mount.pid().unwrap(),
        "pread64",
        "delay_enter",
        Duration::from_secs(3),
    );
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let mut data = [0; 4];
            let file = File::open(layers.at("slow")).unwrap();
            file.read_exact_at(&mut data, 0).unwrap();
            (data, Instant::now())
        });
        std::thread::sleep(Duration::from_millis(300));
        ask(&layers, "meanwhile", 60);
        let answered = Instant::now();
        let (data, read) = slow.join().unwrap();
        assert_eq!(&data, b"data");
        assert!(answered < read, "answered while the read waited");
    });
    held.end();
    drop(mount);
}

#[test]
fn several_clients_at_once_are_all_answered() {
    if !require_real_root() {
        return;
    }
    for words in ["polling=on", "follow_client=always"] {
        many_are_answered(&format!("{words},max_threads=4,timeout=0"));
    }
}

fn many_are_answered(words: &str) {
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, words);
    std::thread::scope(|scope| {
        for client in 0..8 {
            let layers = &layers;
            scope.spawn(move || {
                for i in 0..300 {
                    let path = layers.at(&format!("f-{client}-{i}"));
                    fs::write(&path, [client]).unwrap();
                    assert_eq!(fs::read(&path).unwrap(), [client]);
                    fs::remove_file(&path).unwrap();
                    // Alone and together in turns, so that loops come and go.
                    if i % 50 == 0 {
                        std::thread::sleep(Duration::from_millis(u64::from(client)));
                    }
                }
            });
        }
    });
    assert_eq!(fs::read_dir(&layers.merged).unwrap().count(), 0);
    drop(mount);
}

#[test]
fn without_requests_no_time_is_spent() {
    if !require_real_root() {
        return;
    }
    for words in [
        "max_threads=3",
        "polling=on",
        "polling=auto",
        "follow_client=always",
    ] {
        let layers = Layers::new(Base::Shm, 1);
        let mount = Mount::acetate(&layers, words);
        ask(&layers, "busy", 5000);
        let pid = mount.pid().unwrap();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        // What was going on ends.
        std::thread::sleep(Duration::from_millis(50));
        let before = ticks(pid);
        std::thread::sleep(Duration::from_secs(1));
        let spent = ticks(pid) - before;
        assert!(
            spent <= 1,
            "{words}: {spent} ticks of 100 in a second of nothing"
        );
        drop(mount);
    }
}

#[test]
fn unmounted_in_the_middle_of_it_the_daemon_ends() {
    if !require_real_root() {
        return;
    }
    for round in 0..12 {
        let layers = Layers::new(Base::Shm, 1);
        let words = [
            "max_threads=3",
            "polling=on,max_threads=3",
            "follow_client=always",
        ][round % 3];
        let mount = Mount::acetate(&layers, words);
        std::thread::scope(|scope| {
            for client in 0..=(round % 4) {
                let layers = &layers;
                scope.spawn(move || ask(layers, &client.to_string(), 400));
            }
        });
        // Waits for its process.
        mount.unmount();
    }
}
