//! One event loop on duty, and whether it looks out for requests before it sleeps.
//!
//! **One on duty.** An event loop that sleeps in read(2) is woken for a request even
//! though another one could take it at once, and wakes on another CPU than the
//! client's. A client that waits for each answer before it asks again is served
//! faster by one loop than by two: GETATTR 8.7 instead of 13.3 µs, unlink 27 instead
//! of 36, rename 36 to 45 instead of 58 (two CPUs, `scripts/profile`). So one loop is
//! on duty, and one that has answered a request while another is on duty stays away
//! from read(2), until
//! - the one on duty has been busy with one request for `BUSY`, or finds
//!   `SEVERAL` times in succession that the next request is there already: then
//!   several clients ask at once, and for `CROWD` nobody stays away;
//! - nothing has been asked for `QUIET`.
//!
//! It looks up every `LOOK_UP` and depends on nobody to wake it: the one on duty may
//! end with the connection, and says nothing then.
//!
//! All of this only with `polling=on|auto`, which are off by default: on an idle machine
//! of two CPUs it is not better than two loops that sleep (GETXATTR 20 to 28 against 21
//! to 30 µs; one loop alone: 49 to 61).
//!
//! **Looking out.** A client that waits costs two wake-ups a request, and where they are
//! slow (an idle CPU of a virtual machine) those are most of what a request costs
//! (fuse.md, lever 10). With `polling=on` the loop on duty looks for the next request
//! for a moment without sleeping, in bursts: for as long as it lately took until one
//! came, and not after a gap of `BURST`. With `polling=auto` only while a trial says
//! that it pays: `TRIAL` requests without and as many with it, then the better way
//! for `SETTLED`; it must be better by a quarter. Without requests no time is spent.
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
/// How long nobody stays away after that, in nanoseconds.
const CROWD: u64 = 50_000_000;
/// Without requests for so long everybody goes to sleep in read(2), in nanoseconds.
const QUIET: u64 = 10_000_000;
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
    /// Whether this event loop is the one on duty.
    static ON_DUTY: Cell<bool> = const { Cell::new(false) };
    /// How often in succession the next request was there already.
    static CROWDED: Cell<u32> = const { Cell::new(0) };
}

/// One mount's.
#[derive(Debug)]
pub struct Polling {
    device: OwnedFd,
    /// Whether there is more than one event loop.
    several: bool,
    begun: Instant,
    /// When the last answer was given, in nanoseconds since `begun`.
    answered: AtomicU64,
    /// Gap that is to be expected, in nanoseconds; [`BURST`] outside of bursts.
    expected: AtomicU64,
    /// What the trial says.
    pays: AtomicBool,
    /// Where it is to be tried out.
    trial: Option<Mutex<Trial>>,
    /// Whether some event loop is on duty.
    taken: AtomicBool,
    /// Since when it is at work, in nanoseconds; 0 while it waits for requests.
    busy: AtomicU64,
    /// Until when several clients are taken to ask at once.
    crowded: AtomicU64,
    turn: Mutex<()>,
    given_up: Condvar,
}

impl Polling {
    /// For a connection that is served by so many loops; `None` where nobody asked for
    /// it: then requests pay nothing for it, and no second descriptor of /dev/fuse is
    /// held.
    ///
    /// # Errors
    /// EMFILE where there is no descriptor left.
    pub fn of(when: PollRequests, device: &OwnedFd, loops: usize) -> std::io::Result<Option<Self>> {
        let tried = match when {
            PollRequests::Never => return Ok(None),
            PollRequests::Auto => true,
            PollRequests::Always => false,
        };
        Ok(Some(Polling {
            device: device.try_clone()?,
            several: loops > 1,
            begun: Instant::now(),
            answered: AtomicU64::new(0),
            expected: AtomicU64::new(BURST),
            pays: AtomicBool::new(!tried),
            trial: tried.then(|| Mutex::new(Trial::new())),
            taken: AtomicBool::new(false),
            busy: AtomicU64::new(0),
            crowded: AtomicU64::new(0),
            turn: Mutex::new(()),
            given_up: Condvar::new(),
        }))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// An event loop begins with a request.
    pub fn begin(&self) {
        let now = self.now();
        if ON_DUTY.get() {
            self.busy.store(now, Ordering::Relaxed);
        }
        self.note_gap(now);
    }

    fn note_gap(&self, now: u64) {
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
        let trial = self.trial.as_ref().and_then(Mutex::try_lock);
        if let Some(mut trial) = trial
            && let Some(pays) = trial.gap(gap)
        {
            self.pays.store(pays, Ordering::Relaxed);
        }
    }

    /// An event loop is done with its request. Returns when it is to go to read(2).
    pub fn end(&self) {
        let now = self.now();
        self.answered.store(now, Ordering::Relaxed);
        if now < self.crowded.load(Ordering::Relaxed) {
            return self.step_back();
        }
        if !ON_DUTY.get() {
            if self.taken.swap(true, Ordering::AcqRel) {
                return self.stay_away();
            }
            ON_DUTY.set(true);
        }
        if poll::is_readable(&self.device) {
            // Busy from here on, not only from `begin`: what is there may be the end
            // of the connection, or be taken by another loop.
            self.busy.store(now, Ordering::Relaxed);
            CROWDED.set(CROWDED.get() + 1);
            if self.several && CROWDED.get() >= SEVERAL {
                self.call_all(now);
            }
            return;
        }
        CROWDED.set(0);
        self.busy.store(0, Ordering::Relaxed);
        if self.pays.load(Ordering::Relaxed) {
            self.look_out(now);
        }
    }

    /// Looks for the next request without sleeping, for a moment.
    fn look_out(&self, now: u64) {
        let expected = self.expected.load(Ordering::Relaxed);
        if expected >= LONGEST {
            return;
        }
        let until = now + (expected * 2).clamp(SHORTEST, LONGEST);
        while !poll::is_readable(&self.device) {
            if self.now() >= until {
                return;
            }
            std::hint::spin_loop();
        }
        self.busy.store(self.now(), Ordering::Relaxed);
    }

    /// Several clients ask at once: all loops are to serve them.
    fn call_all(&self, now: u64) {
        self.crowded.store(now + CROWD, Ordering::Relaxed);
        self.step_back();
        self.given_up.notify_all();
    }

    /// Goes off duty.
    fn step_back(&self) {
        CROWDED.set(0);
        if ON_DUTY.replace(false) {
            self.taken.store(false, Ordering::Release);
        }
    }

    /// Waits while another loop is on duty and gets to the requests quickly.
    fn stay_away(&self) {
        let mut turn = self.turn.lock();
        while self.taken.load(Ordering::Acquire) {
            self.given_up.wait_for(&mut turn, LOOK_UP);
            let now = self.now();
            let busy = self.busy.load(Ordering::Relaxed);
            if busy != 0 && now.saturating_sub(busy) > BUSY {
                self.crowded.store(now + CROWD, Ordering::Relaxed);
                return;
            }
            let last = self.answered.load(Ordering::Relaxed).max(busy);
            if now.saturating_sub(last) > QUIET {
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
