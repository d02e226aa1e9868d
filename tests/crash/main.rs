//! The daemon killed at random moments: after a remount each object is its old or its new self.
//!
//! A run takes a random layer stack and random operations from the oracle's generator. Each operation is done on
//! acetate first and, once it has been answered, on kernel overlayfs over the same lowers. When the daemon has
//! been killed, at most one operation is unanswered; so the remounted tree must be the reference's, with or
//! without that operation. Then the work directory must hold no leftovers, and the kernel must read the upper.
//!
//! | variable | meaning |
//! |---|---|
//! | `CRASH_RUNS` | how many runs (default 40) |
//! | `CRASH_SEED` | seed (printed; default 1) |
//! | `CRASH_RUN` | only this run of the seed |

#![allow(unsafe_code, dead_code)]
// As in the oracle, whose operations these are.
#![allow(clippy::undocumented_unsafe_blocks)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../oracle/fdops.rs"]
mod fdops;
#[path = "../oracle/generate.rs"]
mod generate;
#[path = "../oracle/intended.rs"]
mod intended;
#[path = "../oracle/moved.rs"]
mod moved;
#[path = "../oracle/ops.rs"]
mod ops;
#[path = "../oracle/pathops.rs"]
mod pathops;
mod power;
#[path = "../oracle/stack.rs"]
mod stack;
#[path = "../support/mod.rs"]
mod support;
mod trace;
#[path = "../oracle/world.rs"]
mod world;

use std::time::Duration;

use ops::{Case, Op, Step};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::{Base, Kind, Layers, Mount, Snapshot, diff};
use support::{require_fuse, require_kernel_overlay, require_root};
use world::World;

const SHOWN: world::Shown = world::Shown {
    moved: false,
    file_times: true,
    links: true,
};
const OPTIONS: &str = "redirect_dir=on,index=on,metacopy=off";

/// What a run came to.
#[derive(Debug, Default)]
struct Tally {
    answered: u64,
    /// The unanswered operation had happened, or not, or there was none that changes anything.
    after: u64,
    before: u64,
    unseen: u64,
    /// Writes that the kernel had sent a part of.
    half: u64,
}

#[test]
fn killed_at_any_moment_each_file_is_old_or_new() {
    if !(require_root() && require_fuse() && require_kernel_overlay()) {
        return;
    }
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let seed = number("CRASH_SEED").unwrap_or(1);
    let runs = match number("CRASH_RUN") {
        Some(one) => one..one + 1,
        None => 0..number("CRASH_RUNS").unwrap_or(40),
    };
    eprintln!("crash: CRASH_SEED={seed}, runs {runs:?}");
    let (mut tally, mut failed) = (Tally::default(), Vec::new());
    std::thread::scope(|scope| {
        // A thread of its own for the umask and working directory of the operations.
        scope.spawn(|| {
            world::own_thread_state();
            for run in runs.clone() {
                if let Err(text) = one_run(seed, run, &mut tally) {
                    eprintln!("CRASH_SEED={seed} CRASH_RUN={run}: {text}\n");
                    failed.push(run);
                }
            }
        });
    });
    eprintln!("crash: {tally:?}");
    assert_eq!(
        failed,
        Vec::<u64>::new(),
        "runs that left something that is neither old nor new"
    );
    assert!(
        tally.answered > runs.count() as u64,
        "hardly anything was done: {tally:?}"
    );
}

/// Operations of one system call each, which is then done or not done; the compound ones taken apart.
fn simple(step: Step) -> Vec<Step> {
    let with = |op| Step { op, ..step.clone() };
    match &step.op {
        Op::Replace { path, data } => {
            // The temporary file lies beside it.
            if path.0.len() != 1 {
                return vec![];
            }
            let temporary = ops::Path(vec![b"temporary"]);
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
            vec![
                with(Op::Open {
                    path: temporary.clone(),
                    flags,
                    mode: 0o600,
                    slot: 2,
                }),
                with(Op::Write {
                    slot: 2,
                    at: None,
                    data: data.clone(),
                }),
                with(Op::Fsync {
                    slot: 2,
                    data: false,
                }),
                with(Op::Rename {
                    from: temporary,
                    to: path.clone(),
                    flags: 0,
                }),
            ]
        }
        Op::WriteFile { path, flags, data } => vec![
            with(Op::Open {
                path: path.clone(),
                flags: *flags,
                mode: 0o644,
                slot: 1,
            }),
            with(Op::Write {
                slot: 1,
                at: None,
                data: data.clone(),
            }),
        ],
        // A mapping is written back when the kernel likes, RemoveTree is many calls.
        Op::RemoveTree { .. } | Op::MmapWrite { .. } | Op::CopyRange { .. } => vec![],
        _ => vec![step],
    }
}

/// True for errnos of a call that the dead daemon did not answer.
fn unanswered(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENOTCONN | libc::ECONNABORTED | libc::EIO | libc::EINTR
    )
}

/// True for a write of which a part was answered: the kernel sends one as several requests, cut at page borders.
fn half_done(op: &Op, actual: &world::Outcome) -> bool {
    match op {
        Op::Write { data, .. } => actual.errno == 0 && actual.text.parse().unwrap_or(0) < data.len,
        _ => false,
    }
}

fn random_case(seed: u64, run: u64) -> (Case, u64) {
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&run.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let scope = generate::Scope {
        lowers: (1, 4),
        sgid: true,
        users: false,
        user_overlay: false,
        links: true,
        link_ops: true,
        steps: 400,
    };
    let case = generate::case(scope)
        .new_tree(&mut runner)
        .unwrap()
        .current();
    let delay = (0..40_000u64).new_tree(&mut runner).unwrap().current();
    let delay = std::env::var("CRASH_DELAY").map_or(delay, |us| us.parse().unwrap());
    (case, delay)
}

fn one_run(seed: u64, run: u64, tally: &mut Tally) -> Result<(), String> {
    let (case, delay) = random_case(seed, run);
    let base = if run % 4 == 3 { Base::Disk } else { Base::Shm };
    let ours = Layers::new(base, case.layers.len());
    for (i, items) in case.layers.iter().enumerate() {
        stack::build(&ours.lowers[i], items, i, "trusted.overlay.");
    }
    let theirs = ours.sibling(base);
    let mount = Mount::acetate(&ours, OPTIONS);
    let reference = Mount::kernel(&theirs, OPTIONS);
    let mut worlds = (
        World::new(&mount.point, Kind::Acetate, SHOWN),
        World::new(&reference.point, Kind::Kernel, SHOWN),
    );

    let pid = mount.pid().unwrap() as i32;
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_micros(delay));
        // SAFETY: plain numbers; the process is our child, not yet waited for.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    });
    let (mut open, mut half) = (None, false);
    for step in case
        .batches
        .into_iter()
        .flat_map(|(steps, _)| steps)
        .flat_map(simple)
    {
        if worlds.1.changes_an_orphan(&step) {
            continue;
        }
        let actual = worlds.0.run(&step);
        half = half_done(&step.op, &actual);
        if half || unanswered(actual.errno) {
            open = Some(step);
            break;
        }
        let (directory, read_only) = (worlds.1.is_directory(&step), worlds.1.is_read_only(&step));
        let expected = worlds.1.run(&step);
        tally.answered += 1;
        if std::env::var_os("CRASH_TRACE").is_some() {
            eprintln!("{step:?}: {expected} | {actual}");
        }
        let difference = intended::Difference {
            step: &step,
            reference: Kind::Kernel,
            orphan: false,
            directory,
            read_only,
            expected: &expected,
            actual: &actual,
        };
        if expected != actual && intended::intended(&difference).is_none() {
            if killer.is_finished() && !changes(&step.op) {
                // What the kernel has of a dead mount: some pages, some names.
                break;
            }
            killer.join().unwrap();
            return Err(format!(
                "not a crash, the oracle's business: {step:?}: {expected} | {actual}"
            ));
        }
    }
    killer.join().unwrap();
    drop(worlds.0);
    mount.kill_daemon();

    let again =
        Mount::try_acetate(&ours, OPTIONS).map_err(|e| format!("remount after {open:?}: {e}"))?;
    let after_crash = Snapshot::of(&ours.merged);
    again.unmount();
    let before = diff(
        &Snapshot::of(&theirs.merged).forgive_the_kernel(),
        &after_crash,
    );
    if half {
        // Which part cannot be told from outside; that all is sound can.
        after_crash.assert_sound("after half a write");
        tally.half += 1;
    } else if !before.is_empty() {
        let Some(step) = &open else {
            return Err(format!("expected | found:\n  {}", before.join("\n  ")));
        };
        worlds.1.run(step);
        let after = diff(
            &Snapshot::of(&theirs.merged).forgive_the_kernel(),
            &after_crash,
        );
        let one_file = before.len() == 1 && after.len() == 1;
        let cut = !after.is_empty() && one_file && matches!(step.op, Op::Write { .. });
        if cut {
            // The signal cut our own pwrite(2) between two pages, as it cuts any
            // program's (generic_perform_write()): one file, part of one write.
            after_crash.assert_sound("after half a write");
            tally.half += 1;
        } else if !after.is_empty() {
            return Err(format!(
                "killed in {step:?}\n old | found:\n  {}\n new | found:\n  {}",
                before.join("\n  "),
                after.join("\n  ")
            ));
        }
        tally.after += u64::from(!cut);
    } else if open.is_some() {
        tally.before += 1;
    } else {
        tally.unseen += 1;
    }
    drop(worlds.1);
    reference.unmount();
    clean_work(&ours)?;
    let kernel = Mount::try_kernel(&ours, OPTIONS)
        .map_err(|e| format!("the kernel mounting our upper: {e}"))?;
    let lines = diff(
        &after_crash,
        &Snapshot::of(&ours.merged).forgive_the_kernel(),
    );
    kernel.unmount();
    if lines.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "acetate | kernel on the same upper:\n  {}",
            lines.join("\n  ")
        ))
    }
}

/// False for what only looks.
fn changes(op: &Op) -> bool {
    !matches!(
        op,
        Op::Stat { .. }
            | Op::Fstat { .. }
            | Op::Readdir { .. }
            | Op::Getdents { .. }
            | Op::Read { .. }
            | Op::ReadFile { .. }
            | Op::Seek { .. }
            | Op::Access { .. }
            | Op::Readlink { .. }
            | Op::GetFlags { .. }
            | Op::Getxattr { .. }
            | Op::Listxattr { .. }
            | Op::Flistxattr { .. }
            | Op::MmapRead { .. }
    )
}

/// Nothing half made is left in the work directory.
fn clean_work(layers: &Layers) -> Result<(), String> {
    let work = layers.work.join("work");
    let names: Vec<_> = match work.read_dir() {
        Ok(dir) => dir.map(|entry| entry.unwrap().file_name()).collect(),
        Err(_) => vec![],
    };
    if names.is_empty() {
        Ok(())
    } else {
        Err(format!("left in {}: {names:?}", work.display()))
    }
}
