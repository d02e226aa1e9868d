//! The event loop that goes where its client is: it holds nobody up, whatever else the
//! machine does, and takes no time where nothing is asked.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::polling::ask;
use super::support::host::require_program;
use super::support::mount::acetate_command;
use super::support::story::require_real_root;
use super::support::{Base, Layers, Mount, skip};

/// `SCHED_IDLE`, as the 41st field of /proc/PID/stat shows it.
const IDLE_CLASS: &str = "5";

/// Threads of a process that are of the idle class.
fn followers(pid: u32) -> Vec<i32> {
    let is_idle = |tid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat"));
        let line = stat.unwrap_or_default();
        let behind_name = line.rsplit(") ").next().unwrap_or_default();
        behind_name.split_whitespace().nth(38) == Some(IDLE_CLASS)
    };
    tasks(pid).into_iter().filter(is_idle).collect()
}

fn tasks(pid: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let number = |task: fs::DirEntry| task.file_name().to_str().unwrap().parse().unwrap();
    tasks.map(|task| number(task.unwrap())).collect()
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn there_are_several_cpus() -> bool {
    let several = cpus() > 1;
    if !several {
        skip("there is one CPU: nobody is followed");
    }
    several
}

/// Asks until there is a follower; requests of a thread of its own in between, since
/// one that steps back may have been held off its CPU by the rest of the machine.
fn until_followed(layers: &Layers, mount: &Mount) {
    let begun = Instant::now();
    while followers(mount.pid().unwrap()).is_empty() {
        ask(layers, "followed", 200);
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "nobody follows a client that asks in a burst"
        );
    }
}

/// Programs that compute until they are dropped, one for each CPU.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(count: usize) -> Hogs {
        let hog = |_| {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", "while :; do :; done"]);
            shell.stdin(Stdio::null()).spawn().unwrap()
        };
        Hogs((0..count).map(hog).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            hog.kill().unwrap();
            hog.wait().unwrap();
        }
    }
}

#[test]
fn one_loop_follows_a_client_that_asks_in_a_burst() {
    if !require_real_root() || !there_are_several_cpus() {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "follow_client=always");
    assert!(followers(mount.pid().unwrap()).is_empty());
    until_followed(&layers, &mount);
    ask(&layers, "more", 2000);
    assert_eq!(followers(mount.pid().unwrap()).len(), 1);
    drop(mount);
}

#[test]
fn nobody_follows_where_that_is_off() {
    if !require_real_root() {
        return;
    }
    for words in [
        "follow_client=off",
        "follow_client=always,polling=on",
        "follow_client=always,max_threads=1",
    ] {
        let layers = Layers::new(Base::Shm, 1);
        let mount = Mount::acetate(&layers, words);
        ask(&layers, "burst", 3000);
        assert!(followers(mount.pid().unwrap()).is_empty(), "{words}");
        drop(mount);
    }
}

/// A thread that cannot leave the idle class again never enters it unasked.
#[test]
fn without_the_right_to_come_back_nobody_follows_unless_that_was_asked_for() {
    if !require_real_root() || !there_are_several_cpus() || !require_program("setpriv") {
        return;
    }
    for (word, follows) in [("auto", false), ("always", true)] {
        let layers = Layers::new(Base::Shm, 1);
        let options = format!("{},follow_client={word}", layers.options());
        let ours = acetate_command(&options, &layers.merged);
        let mut command = Command::new("setpriv");
        command
            .arg("--bounding-set=-sys_nice")
            .arg(ours.get_program())
            .args(ours.get_args());
        let mount = Mount::spawn(command, &layers.merged).unwrap();
        match follows {
            true => until_followed(&layers, &mount),
            false => ask(&layers, "burst", 5000),
        }
        assert_eq!(!followers(mount.pid().unwrap()).is_empty(), follows);
        drop(mount);
    }
}

/// A thread of the idle class gets nothing of a CPU that others compute on: somebody has
/// to see it.
#[test]
fn a_client_is_answered_though_every_cpu_is_taken() {
    if !require_real_root() || !there_are_several_cpus() {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "follow_client=always");
    until_followed(&layers, &mount);
    for round in 0..4 {
        let hogs = Hogs::start(cpus() * 2);
        let begun = Instant::now();
        for i in 0..300 {
            let path = layers.at(&format!("f-{round}-{i}"));
            fs::write(&path, [1; 100]).unwrap();
            assert_eq!(fs::read(&path).unwrap(), [1; 100]);
            fs::remove_file(&path).unwrap();
        }
        let spent = begun.elapsed();
        drop(hogs);
        // 4,000 requests. A follower that nobody looks after takes minutes.
        assert!(spent < Duration::from_secs(30), "{spent:?}");
        ask(&layers, &format!("between-{round}"), 500);
    }
    drop(mount);
}

/// The follower waits in poll(2) while its client computes; then another one comes.
#[test]
fn another_client_is_answered_while_the_first_one_computes() {
    if !require_real_root() || !there_are_several_cpus() {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "follow_client=always,timeout=0");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
        for client in 0..cpus() {
            let layers = &layers;
            scope.spawn(move || {
                while !stopped() {
                    ask(layers, &format!("computing-{client}"), 100);
                    let begun = Instant::now();
                    while begun.elapsed() < Duration::from_millis(30) {
                        std::hint::spin_loop();
                    }
                }
            });
        }
        let mut longest = Duration::ZERO;
        for i in 0..200 {
            std::thread::sleep(Duration::from_millis(3));
            let begun = Instant::now();
            ask(&layers, &format!("other-{i}"), 1);
            longest = longest.max(begun.elapsed());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(longest < Duration::from_secs(3), "{longest:?}");
    });
    drop(mount);
}

/// A thread that ptrace(2) holds still.
struct Still(i32);

impl Still {
    fn hold(tid: i32) -> Still {
        trace(libc::PTRACE_SEIZE, tid);
        trace(libc::PTRACE_INTERRUPT, tid);
        let mut status = 0;
        // SAFETY: one int, which lives.
        let who = unsafe { libc::waitpid(tid, &mut status, libc::__WALL) };
        assert!(who == tid && libc::WIFSTOPPED(status), "{status:x}");
        Still(tid)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        trace(libc::PTRACE_DETACH, self.0);
    }
}

fn trace(request: u32, tid: i32) {
    // SAFETY: these requests take no pointer.
    let done = unsafe { libc::ptrace(request, tid, 0, 0) };
    let error = std::io::Error::last_os_error();
    assert!(done != -1, "ptrace {request}: {error}");
}

/// One that does not get to its requests is a thread of the idle class no more: behind what
/// it has in hand nobody waits longer than for any other loop. The others serve meanwhile.
#[test]
fn a_follower_that_is_held_up_is_a_thread_like_any_other() {
    if !require_real_root() || !there_are_several_cpus() {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "follow_client=always");
    let pid = mount.pid().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (layers, stop) = (&layers, &stop);
        scope.spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                ask(layers, "followed", 100);
            }
        });
        let begun = Instant::now();
        let follower = loop {
            if let Some(tid) = followers(pid).first() {
                break *tid;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "nobody follows a client that asks in a burst"
            );
        };
        let still = Still::hold(follower);
        std::thread::sleep(Duration::from_millis(300));
        let others: Vec<_> = followers(pid);
        // The client's request may be in its hands; another one's is not.
        ask(layers, "meanwhile", 60);
        drop(still);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(others.is_empty(), "its class is the lowest still");
    });
    drop(mount);
}

/// FORGETs come in batches, and nobody waits for them: all of a batch are done at once.
#[test]
fn forgotten_files_go_though_nobody_asks_any_more() {
    if !require_real_root() || !there_are_several_cpus() {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "follow_client=always");
    let pid = mount.pid().unwrap();
    let open = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    until_followed(&layers, &mount);
    for round in 0..20 {
        let name = |i| layers.at(&format!("f-{round}-{i}"));
        let files: Vec<_> = (0..300)
            .map(|i| {
                fs::write(name(i), "data").unwrap();
                fs::File::open(name(i)).unwrap()
            })
            .collect();
        (0..300).for_each(|i| fs::remove_file(name(i)).unwrap());
        drop(files);
        let begun = Instant::now();
        while open() > 60 {
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "round {round}: {} descriptors",
                open()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    drop(mount);
}

/// Where the daemon may run is for others to say.
#[test]
fn cpus_that_were_taken_from_the_daemon_stay_taken() {
    if !require_real_root() || !there_are_several_cpus() {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "follow_client=always");
    let pid = mount.pid().unwrap();
    until_followed(&layers, &mount);
    let own = rustix::thread::sched_getaffinity(None).unwrap();
    let last = (0..rustix::thread::CpuSet::MAX_CPU).rfind(|c| own.is_set(*c));
    let mut only = rustix::thread::CpuSet::new();
    only.set(last.unwrap());
    let tasks = || tasks(pid).into_iter().map(rustix::thread::Pid::from_raw);
    for task in tasks() {
        rustix::thread::sched_setaffinity(task, &only).unwrap();
    }
    for _ in 0..5 {
        ask(&layers, "confined", 500);
        std::thread::sleep(Duration::from_millis(30));
    }
    for task in tasks() {
        assert_eq!(rustix::thread::sched_getaffinity(task).unwrap(), only);
    }
    drop(mount);
}

/// Its times are in the statistics, and are its own: the client computes for a
/// millisecond after each answer.
#[test]
fn what_the_client_does_after_its_answer_is_not_counted_as_ours() {
    if !require_real_root() || !there_are_several_cpus() {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    let mount = Mount::acetate(&layers, "follow_client=always");
    until_followed(&layers, &mount);
    for i in 0..300 {
        ask(&layers, &format!("slowly-{i}"), 1);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
    }
    let stats = Command::new(env!("CARGO_BIN_EXE_acetate"))
        .args(["stats", "--format", "json"])
        .arg(&layers.merged)
        .output()
        .unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
    let text = stats.to_string();
    let lookup = find(&stats, "lookup").unwrap_or_else(|| panic!("{text}"));
    let median = lookup["p50_ns"]
        .as_u64()
        .unwrap_or_else(|| panic!("{text}"));
    assert!(median < 500_000, "{text}");
    drop(mount);
}

/// The object that describes this kind of request.
fn find<'a>(value: &'a serde_json::Value, kind: &str) -> Option<&'a serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => match map.get(kind) {
            Some(found) if found.is_object() => Some(found),
            _ if map.values().any(|v| v == kind) => Some(value),
            _ => map.values().find_map(|v| find(v, kind)),
        },
        serde_json::Value::Array(items) => items.iter().find_map(|v| find(v, kind)),
        _ => None,
    }
}
