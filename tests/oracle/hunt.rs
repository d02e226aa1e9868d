//! Case after case until the time is up, and a failing one made small.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::generate::{Scope, case};
use super::judge::{BUSY, Failure, Setup, Tally, run_case};
use super::ops::Case;
use super::shrink::shrink;
use super::{watchdog, world};
use crate::support::{Base, Kind};

pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|e| panic!("{variable}={text}: {e}")),
    )
}

/// One oracle at a time: two would share the time given to each, and the watchdog.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs cases of `setup` for its share of the time; panics with the smallest failing case.
pub fn run(mut setup: Setup, share: f64) {
    if let (Kind::Acetate, Ok(extra)) = (setup.subject.0, std::env::var("ORACLE_EXTRA")) {
        setup.subject.1 = format!("{},{extra}", setup.subject.1).leak();
    }
    let _turn = turn();
    watchdog::start();
    // A thread of its own: it will have a umask and working directory that no other test sees.
    let result = std::thread::spawn(move || {
        world::own_thread_state();
        cases(setup, share)
    })
    .join();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn cases(setup: Setup, share: f64) {
    let seed = match std::env::var("ORACLE_SEED").as_deref() {
        Ok("now") => std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.as_secs()),
        Ok(_) => number("ORACLE_SEED").unwrap_or(1),
        // Fixed, so that a change that breaks something is told from bad luck.
        Err(_) => 1,
    };
    let only = number("ORACLE_CASE");
    let seconds = number("ORACLE_SECONDS").unwrap_or(20) as f64 * share;
    let links = setup.links && setup.reference.0 != Kind::Plain;
    let user_overlay = setup.marks == "user.overlay.";
    let scope = Scope {
        users: setup.users,
        user_overlay,
        links,
        link_ops: setup.links,
        steps: number("ORACLE_OPS").unwrap_or(60) as usize,
        sgid: !["4.18", "-killpriv-v2"]
            .iter()
            .any(|hidden| setup.subject.1.contains(hidden)),
        lowers: setup.lowers,
    };
    let hunting = std::env::var_os("ORACLE_HUNT").is_some();
    eprintln!("oracle {}: ORACLE_SEED={seed}", setup.name);
    let strategy = case(scope);
    // A whiteout that is a file `.wh.NAME` cannot be had for a name of 255 bytes.
    let short_names_only = setup.subject.1.contains("-user-whiteout");
    let (mut tally, start) = (Tally::default(), Instant::now());
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    let mut number = only.unwrap_or(0);
    // A short run on a busy machine gets the time that it needs to mean something.
    let enough = |tally: &Tally| tally.succeeded > 100 || start.elapsed().as_secs() > 120;
    while start.elapsed().as_secs_f64() < seconds || !enough(&tally) {
        let base = base(number);
        let tree = strategy.new_tree(&mut runner(seed, number)).unwrap();
        if short_names_only && format!("{:?}", tree.current()).contains("LLLLLLLL") {
            number += 1;
            continue;
        }
        if let Err(failure) = run_case(&tree.current(), setup, base, &mut tally)
            && failure.class != BUSY
        {
            let times = found.entry(failure.class.clone()).or_default();
            *times += 1;
            if *times == 1 {
                let (case, failure) = shrink(tree.current(), setup, base, failure);
                let report = describe(&case, &failure);
                let report = format!(
                    "oracle {}: ORACLE_SEED={seed} ORACLE_CASE={number}\n{report}",
                    setup.name
                );
                assert!(hunting, "{report}");
                eprintln!("\n=== {report}\n");
            }
        }
        number += 1;
        if only.is_some() {
            break;
        }
    }
    let cases = number - only.unwrap_or(0);
    eprintln!(
        "oracle {}: {cases} cases in {:.0?}, {tally:?}",
        setup.name,
        start.elapsed()
    );
    if found.values().sum::<u64>() > 0 {
        eprintln!("oracle {}: failed cases by class: {found:#?}", setup.name);
    }
    assert!(found.is_empty(), "{} classes of failures", found.len());
    // A run that compared nothing must not count as one that found nothing.
    assert!(
        only.is_some() || tally.succeeded > 100,
        "hardly anything was run: {tally:?}"
    );
}

fn base(number: u64) -> Base {
    match std::env::var("ORACLE_BASE").as_deref() {
        Ok("disk") => Base::Disk,
        Ok("shm") => Base::Shm,
        _ if number % 8 == 7 => Base::Disk,
        _ => Base::Shm,
    }
}

/// Each case has a generator of its own, so that it can be run alone.
fn runner(seed: u64, number: u64) -> TestRunner {
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    TestRunner::new_with_rng(
        Config::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
    )
}

fn describe(case: &Case, failure: &Failure) -> String {
    let mut text = format!(
        "[{}]\n{}\nlowers, topmost first:\n",
        failure.class, failure.text
    );
    for (i, layer) in case.layers.iter().enumerate() {
        for item in layer {
            text += &format!(
                "  l{i}: {} {:?} mode {:o} owner {} {:?}\n",
                item.path, item.thing, item.mode, item.owner, item.xattr
            );
        }
    }
    text += "steps:\n";
    for (steps, then) in &case.batches {
        for step in steps {
            text += &format!("  {step:?}\n");
        }
        text += &format!("  -- compare, then {then:?}\n");
    }
    text
}
