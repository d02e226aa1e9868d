//! Looking out for the next request for a moment before going to sleep.
//!
//! A client that waits for each answer before it asks again costs two wake-ups a
//! request, and where they are slow (an idle CPU of a virtual machine) those are
//! most of what a request costs (fuse.md, lever 10). So the event loop that has
//! just answered looks for the next request without sleeping, for as long as it
//! lately took until one came, and only while a trial says that it pays.
//!
//! - **Trial.** Whether a wake-up is slow depends on what else runs and on which
//!   CPUs, from one moment to the next. So it is tried: [`TRIAL`] requests
//!   without and as many with polling, then the better way for [`SETTLED`]. It must
//!   be better by a quarter: where wake-ups are quick, or other work keeps the CPUs
//!   awake, nothing is polled.
//! - **Bursts.** A gap of more than [`BURST`] ends a burst; nothing is polled after
//!   it until requests come quickly again. Without requests no time is spent.
//! - **One looks, the others stay away.** An event loop that sleeps in read(2) is
//!   woken for a request even though another sees it at once, which costs the
//!   client as much as before. So a loop that finds another one looking out waits
//!   until that one gives up, or has been busy with one request for
//!   [`BUSY`]: at most [`LOOK_UP`] too late. It never depends on being woken. Where
//!   requests are there already when the last one is answered, several clients ask
//!   at once: nobody stays away.
//!
//! # Locks
//! `turn` is held only to wait on; nothing is taken under it.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::overlay::options::PollRequests;
use crate::sys::poll;

/// Longest gap between an answer and the next request that is part of a burst.
const BURST: u64 = 200_000;
/// Longest time spent looking, in nanoseconds.
const LONGEST: u64 = 60_000;
/// Shortest.
const SHORTEST: u64 = 15_000;
/// Requests that each way is tried with.
const TRIAL: u32 = 96;
/// Requests until the next trial.
const SETTLED: u32 = 6_000;
/// A request that takes longer, in nanoseconds, brings the other loops back.
const BUSY: u64 = 500_000;
/// Requests that were there at once, after which there are several clients.
const SEVERAL: u32 = 3;
/// How often a loop that stays away looks up.
const LOOK_UP: Duration = Duration::from_millis(1);

/// What is known of the gaps between requests.
#[derive(Debug)]
struct Trial {
    stage: Stage,
    seen: u32,
    sum: u64,
    /// Mean gap without polling, of this trial.
    without: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Without,
    With,
    Settled,
}

impl Trial {
    fn new() -> Self {
        Trial {
            stage: Stage::Without,
            seen: 0,
            sum: 0,
            without: 0,
        }
    }

    /// Takes a gap into account; what is to be done from now on, where that changes.
    fn gap(&mut self, nanoseconds: u64) -> Option<bool> {
        self.seen += 1;
        self.sum = self.sum.saturating_add(nanoseconds);
        let most = match self.stage {
            Stage::Settled => SETTLED,
            _ => TRIAL,
        };
        if self.seen < most {
            return None;
        }
        let mean = self.sum / u64::from(self.seen);
        (self.seen, self.sum) = (0, 0);
        match self.stage {
            Stage::Settled => {
                self.stage = Stage::Without;
                Some(false)
            }
            Stage::Without => {
                self.stage = Stage::With;
                self.without = mean;
                Some(true)
            }
            Stage::With => {
                self.stage = Stage::Settled;
                Some(mean.saturating_mul(4) < self.without.saturating_mul(3))
            }
        }
    }
}

std::thread_local! {
    /// Whether this thread is an event loop that is at work on a request.
    static LOOP: Cell<bool> = const { Cell::new(false) };
    /// Whether this event loop is the one that looks out.
    static LEADS: Cell<bool> = const { Cell::new(false) };
    /// How often in succession the next request was there already.
    static CROWDED: Cell<u32> = const { Cell::new(0) };
}

/// One mount's.
#[derive(Debug)]
pub struct Polling {
    when: PollRequests,
    device: OwnedFd,
    begun: Instant,
    /// When the last answer was given, in nanoseconds since `begun`.
    answered: AtomicU64,
    /// Gap that is to be expected, in nanoseconds; [`BURST`] outside of bursts.
    expected: AtomicU64,
    /// What the trial says.
    pays: AtomicBool,
    trial: Mutex<Trial>,
    /// Whether some event loop looks out, or is at work and will.
    led: AtomicBool,
    /// Since when it is at work, in nanoseconds; 0 while it looks out.
    busy: AtomicU64,
    turn: Mutex<()>,
    given_up: Condvar,
}

impl Polling {
    /// For the connection of this descriptor of /dev/fuse.
    pub fn new(when: PollRequests, device: OwnedFd) -> Self {
        Polling {
            when,
            device,
            begun: Instant::now(),
            answered: AtomicU64::new(0),
            expected: AtomicU64::new(BURST),
            pays: AtomicBool::new(when == PollRequests::Always),
            trial: Mutex::new(Trial::new()),
            led: AtomicBool::new(false),
            busy: AtomicU64::new(0),
            turn: Mutex::new(()),
            given_up: Condvar::new(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// An event loop begins with a request.
    pub fn begin(&self) {
        if self.when == PollRequests::Never {
            return;
        }
        LOOP.set(true);
        let now = self.now();
        if LEADS.get() {
            self.busy.store(now, Ordering::Relaxed);
        }
        let gap = now.saturating_sub(self.answered.load(Ordering::Relaxed));
        if gap >= BURST {
            self.expected.store(BURST, Ordering::Relaxed);
            return;
        }
        // A moving mean over the last four or so.
        let old = self.expected.load(Ordering::Relaxed);
        let mean = if old >= BURST {
            gap
        } else {
            (old * 3 + gap) / 4
        };
        self.expected.store(mean, Ordering::Relaxed);
        if self.when == PollRequests::Auto
            && let Some(mut trial) = self.trial.try_lock()
            && let Some(pays) = trial.gap(gap)
        {
            self.pays.store(pays, Ordering::Relaxed);
        }
    }

    /// A request is done. On an event loop: returns when the next one is there, or
    /// when it is time to sleep in read(2).
    pub fn end(&self) {
        if self.when == PollRequests::Never || !LOOP.replace(false) {
            return;
        }
        let now = self.now();
        self.answered.store(now, Ordering::Relaxed);
        let expected = self.expected.load(Ordering::Relaxed);
        if expected >= LONGEST || !self.pays.load(Ordering::Relaxed) {
            return self.give_up();
        }
        if !LEADS.get() {
            if self.led.swap(true, Ordering::AcqRel) {
                return self.stay_away();
            }
            LEADS.set(true);
        }
        if poll::is_readable(&self.device) {
            CROWDED.set(CROWDED.get() + 1);
            match CROWDED.get() >= SEVERAL {
                true => self.give_up(),
                false => self.busy.store(now, Ordering::Relaxed),
            }
            return;
        }
        CROWDED.set(0);
        self.busy.store(0, Ordering::Relaxed);
        let until = now + (expected * 2).clamp(SHORTEST, LONGEST);
        while !poll::is_readable(&self.device) {
            if self.now() >= until {
                return self.give_up();
            }
            std::hint::spin_loop();
        }
        // From here on, not only from `begin`: what is there may be the end of the
        // connection, or be taken by another loop, and nobody may wait for a begin.
        self.busy.store(self.now(), Ordering::Relaxed);
    }

    /// Lets the others come back.
    fn give_up(&self) {
        if LEADS.replace(false) {
            self.led.store(false, Ordering::Release);
            self.given_up.notify_all();
        }
    }

    /// Waits while another loop looks out for requests and gets to them quickly.
    fn stay_away(&self) {
        let mut turn = self.turn.lock();
        while self.led.load(Ordering::Acquire) {
            self.given_up.wait_for(&mut turn, LOOK_UP);
            let busy = self.busy.load(Ordering::Relaxed);
            if busy != 0 && self.now().saturating_sub(busy) > BUSY {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(without: u64, with: u64) -> bool {
        let mut trial = Trial::new();
        let mut polls = false;
        loop {
            let gap = if polls { with } else { without };
            if let Some(next) = trial.gap(gap) {
                polls = next;
                if trial.stage == Stage::Settled {
                    return polls;
                }
            }
        }
    }

    #[test]
    fn it_must_be_better_by_a_quarter() {
        assert!(settle(60_000, 20_000));
        assert!(settle(20_001, 15_000));
        assert!(!settle(20_000, 15_000));
        assert!(!settle(10_000, 25_000));
        assert!(!settle(0, 0));
    }

    #[test]
    fn it_is_tried_again() {
        let mut trial = Trial::new();
        let turns = (0..3 * (2 * TRIAL + SETTLED))
            .filter_map(|_| trial.gap(1))
            .count();
        assert_eq!(turns, 9);
    }
}
