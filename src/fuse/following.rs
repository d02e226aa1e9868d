//! The follower: one event loop that runs where its client runs.
//!
//! **Why.** A client that waits for each answer before it asks again never needs two
//! CPUs, and the kernel gives it two: it wakes the event loop on an idle one, and the
//! client again on an idle one. Between idle CPUs of a virtual machine that is 20 µs and
//! more for each of the two; on one CPU both together are 3 µs (fuse.md, lever 10).
//! Binding the loop to the client's CPU alone does not help, since the kernel then wakes
//! the client elsewhere. But it leaves a thread where it was if nothing but SCHED_IDLE
//! threads run there (`select_idle_sibling()` with `sched_idle_cpu()`, kernel/sched/fair.c).
//! So the follower is of that class *and* bound to the CPU on which its client was last
//! seen. (A client on the same CPU interrupts it as soon as it is woken, and its next
//! request is there when the follower gets on; where there is none, it looks where the
//! client is now.) Measured on two idle CPUs:
//! create+write 160 -> 82 µs, unlink 66 -> 43, mkdir 93 -> 62, rmdir 67 -> 44, rename
//! 100 -> 80; either half of it alone gains nothing.
//!
//! **When.** [`START`] requests of one thread in succession, each soon after the last,
//! and no more threads running on the machine than it has CPUs. Then the other loops stay
//! away from read(2), each after its next answer, and the follower begins when the last
//! of them is away. It steps back when other threads ask too, after [`QUIET`] without a
//! request, and where large reads or writes come (they gain from a CPU of their own).
//!
//! **What must not happen.** A SCHED_IDLE thread gets next to nothing of a CPU that
//! somebody else computes on, and an unprivileged one can never leave that class. So the
//! follower does not sleep in read(2), where the kernel might hand it a request that it
//! cannot get to: it waits in poll(2) and reads what it has seen there. One of the loops
//! that stay away looks after it every [`TICK`]: a request that lies there unread, or one
//! that does not end, brings all loops back, lets the follower run on any CPU, and
//! nobody follows for a time, which doubles if it happens again soon. Without requests no
//! thread wakes up for any of this.
//!
//! # Locks
//! `turn` is held only to wait on, and never by the follower: nobody may wait for a lock
//! that a thread of its class holds. (It does take the engine's, and may be made to wait
//! while it holds one; hence the care above.)

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::follower::Own;
use crate::overlay::options::FollowClient;
use crate::sys::cpu::{self, Cpus, Watched};
use crate::sys::poll;

/// Requests of one thread in succession, after which it is followed.
const START: u32 = 32;
/// Longest time from one request's beginning to the next one's, in nanoseconds.
const SOON: u64 = 500_000;
/// The same on a machine that may be busy.
const SOON_ENOUGH: u64 = 50_000_000;
/// What a request of somebody else takes back, in requests.
const STRANGER: u32 = 8;
/// Without requests for so long the follower steps back.
pub(super) const QUIET: Duration = Duration::from_millis(10);
/// How often somebody looks after the follower.
const TICK: Duration = Duration::from_millis(4);
/// After so many looks that found it doing nothing it steps back.
const QUIET_TICKS: u32 = 3;
/// How long nobody follows after the follower had stepped back for others.
const PAUSE: u64 = 20_000_000;
/// The same where the machine had other things to do, at first and at the most.
const FIRST_PAUSE: u64 = 50_000_000;
const LONGEST_PAUSE: u64 = 10_000_000_000;
/// A follower that did well for so long, in nanoseconds, has its troubles forgotten.
const DID_WELL: u64 = 1_000_000_000;

/// The follower is away, or on its way to its place.
pub(super) const AWAY: u32 = 0;
/// It waits for requests.
pub(super) const WAITING: u32 = 1;
/// It has seen one and reads it, or is at work on it.
pub(super) const SERVING: u32 = 2;

std::thread_local! {
    /// Whether this thread is an event loop that is at work on a request.
    static LOOP: Cell<bool> = const { Cell::new(false) };
    /// Whether this event loop is the follower.
    static FOLLOWER: Cell<bool> = const { Cell::new(false) };
    /// Tells the follower when this event loop ends.
    static ENDING: Cell<Option<Ending>> = const { Cell::new(None) };
}

/// Dropped at the end of an event loop.
struct Ending(&'static Following);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.call_follower();
    }
}

/// One mount's.
#[derive(Debug)]
pub struct Following {
    pub(super) device: OwnedFd,
    pub(super) cpus: Cpus,
    /// Whether it matters what else the machine has to do.
    pub(super) heeds_others: bool,
    begun: Instant,
    /// Whether the follower is to serve, and nobody else.
    pub(super) on: AtomicBool,
    /// [`AWAY`], [`WAITING`] or [`SERVING`]; written by the follower, but for the way
    /// from `WAITING` to `AWAY`.
    pub(super) state: AtomicU32,
    /// Counts what the follower does.
    pub(super) beats: AtomicU64,
    follower: OnceLock<(thread::Thread, cpu::Thread)>,
    pub(super) own: Mutex<Own>,
    /// Event loops that have served something and say when they end.
    known: AtomicUsize,
    /// Whether one of them has ended.
    pub(super) ended: AtomicBool,
    /// Event loops but the follower that are not away.
    pub(super) readers: AtomicUsize,
    /// Whose requests have come in succession: a thread's number.
    pub(super) client: AtomicU32,
    /// How many.
    pub(super) run: AtomicU32,
    /// When the last one came, in nanoseconds since `begun`.
    last: AtomicU64,
    /// Since when there is a follower at work.
    since: AtomicU64,
    /// Nobody is followed before.
    not_before: AtomicU64,
    /// How long not after the next trouble, in nanoseconds.
    pause: AtomicU64,
    turn: Mutex<()>,
    back: Condvar,
    /// Whether somebody looks after the follower.
    watched: AtomicBool,
}

/// What the one that looks after the follower has seen.
#[derive(Debug, Default)]
struct Seen {
    beats: u64,
    /// How often they were the same.
    ticks: u32,
}

/// Why the follower steps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Nothing is asked.
    Quiet,
    /// Others ask too, or the client is gone.
    Others,
    /// The machine has other things to do.
    Busy,
    /// It is not to be found out where the client runs, or not possible to run there.
    Unable,
    /// It does not get to its requests.
    Starved,
}

impl Following {
    /// For a connection that is served by so many event loops; `None` where nobody
    /// wants it or there is nothing to choose: fewer than three loops, or one CPU.
    ///
    /// # Errors
    /// EMFILE where there is no descriptor left.
    pub fn of(when: FollowClient, device: &OwnedFd, loops: usize) -> std::io::Result<Option<Self>> {
        let cpus = Cpus::of_this_thread().ok().filter(|c| c.count() > 1);
        let (Some(cpus), 3..) = (cpus, loops) else {
            return Ok(None);
        };
        let heeds_others = match when {
            FollowClient::Never => return Ok(None),
            FollowClient::InBursts => true,
            FollowClient::Always => false,
        };
        Ok(Some(Following {
            device: device.try_clone()?,
            cpus,
            heeds_others,
            begun: Instant::now(),
            on: AtomicBool::new(false),
            state: AtomicU32::new(AWAY),
            beats: AtomicU64::new(0),
            follower: OnceLock::new(),
            own: Mutex::default(),
            known: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            readers: AtomicUsize::new(loops),
            client: AtomicU32::new(0),
            run: AtomicU32::new(0),
            last: AtomicU64::new(0),
            since: AtomicU64::new(0),
            not_before: AtomicU64::new(0),
            pause: AtomicU64::new(FIRST_PAUSE),
            turn: Mutex::new(()),
            back: Condvar::new(),
            watched: AtomicBool::new(false),
        }))
    }

    fn nanoseconds(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begun);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// An event loop begins with a request of this thread; 0: of nobody.
    pub fn begin(&'static self, client: u32, now: Instant) {
        LOOP.set(true);
        if FOLLOWER.get() {
            self.beats.fetch_add(1, Ordering::Relaxed);
        } else {
            ENDING.with(|ending| match ending.take() {
                Some(known) => ending.set(Some(known)),
                None => {
                    self.known.fetch_add(1, Ordering::Relaxed);
                    ending.set(Some(Ending(self)));
                }
            });
        }
        self.note(client, self.nanoseconds(now));
    }

    fn note(&self, client: u32, now: u64) {
        if client == 0 {
            return;
        }
        let last = self.last.swap(now, Ordering::Relaxed);
        let run = self.run.load(Ordering::Relaxed);
        let same = self.client.load(Ordering::Relaxed) == client;
        let soon = match self.heeds_others {
            true => SOON,
            false => SOON_ENOUGH,
        };
        let run = match (same, now.saturating_sub(last) < soon) {
            (true, true) => (run + 1).min(START),
            (true, false) if self.on.load(Ordering::Relaxed) => run,
            (true, false) => 0,
            (false, _) => {
                self.client.store(client, Ordering::Relaxed);
                run.saturating_sub(STRANGER)
            }
        };
        self.run.store(run, Ordering::Relaxed);
    }

    /// The request moves much data: like one of somebody else.
    pub fn is_bulk(&self) {
        let run = self.run.load(Ordering::Relaxed);
        self.run
            .store(run.saturating_sub(STRANGER), Ordering::Relaxed);
    }

    /// Whether this thread is the follower.
    pub fn is_follower() -> bool {
        FOLLOWER.get()
    }

    /// An event loop is done with its request. Returns when it is to go to read(2).
    pub fn end(&'static self) {
        if !LOOP.replace(false) {
            return;
        }
        if FOLLOWER.get() {
            return self.wait_for_client();
        }
        if self.on.load(Ordering::Acquire) {
            return self.stay_away();
        }
        if self.run.load(Ordering::Relaxed) >= START && self.may_start() {
            let me = || (thread::current(), cpu::Thread::current());
            let mut mine = false;
            self.follower.get_or_init(|| {
                mine = true;
                me()
            });
            self.on.store(true, Ordering::Release);
            if mine {
                FOLLOWER.set(true);
                // It is unparked by the others' ends, not by its own.
                ENDING.with(|ending| ending.take().map(std::mem::forget));
                self.away();
                return self.wait_for_client();
            }
            self.stay_away();
        }
    }

    /// Whether somebody is to be followed now.
    fn may_start(&self) -> bool {
        let now = self.nanoseconds(Instant::now());
        if now < self.not_before.load(Ordering::Relaxed)
            || self.state.load(Ordering::Acquire) != AWAY
            || self.known.load(Ordering::Relaxed) < 2
            || self.ended.load(Ordering::Acquire)
        {
            return false;
        }
        // The client may be running already.
        if self.heeds_others && self.others_running() > self.cpus.count() / 2 {
            self.not_before.store(now + FIRST_PAUSE, Ordering::Relaxed);
            return false;
        }
        self.since.store(now, Ordering::Relaxed);
        true
    }

    /// How many threads of the machine run or want to, but for this one.
    pub(super) fn others_running(&self) -> usize {
        cpu::running().map_or(usize::MAX, |n| n.saturating_sub(1))
    }

    /// One reader fewer; the last one calls the follower.
    fn away(&self) {
        if self.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.call_follower();
        }
    }

    fn call_follower(&self) {
        if let Some((follower, _)) = self.follower.get() {
            follower.unpark();
        }
    }

    /// Waits while the follower serves.
    fn stay_away(&self) {
        self.away();
        let mut turn = self.turn.lock();
        let watches = !self.watched.swap(true, Ordering::AcqRel);
        let mut seen = Seen::default();
        while self.on.load(Ordering::Acquire) {
            if !watches {
                self.back.wait(&mut turn);
                continue;
            }
            self.back.wait_for(&mut turn, TICK);
            self.look_after(&mut seen);
        }
        if watches {
            self.watched.store(false, Ordering::Release);
            self.back.notify_all();
        }
        drop(turn);
        self.readers.fetch_add(1, Ordering::AcqRel);
    }

    /// One look at the follower, after [`TICK`].
    fn look_after(&self, seen: &mut Seen) {
        let beats = self.beats.load(Ordering::Relaxed);
        if seen.beats != beats {
            *seen = Seen { beats, ticks: 0 };
            return;
        }
        seen.ticks += 1;
        if poll::is_readable(&self.device) || self.client_waits() {
            self.step_back(Why::Starved);
        } else if seen.ticks >= QUIET_TICKS {
            // Its client has used the CPU all this time.
            self.step_back(Why::Quiet);
        } else {
            return;
        }
        if let Some((_, thread)) = self.follower.get() {
            // It may be gone.
            self.cpus.confine(Some(*thread)).unwrap_or_default();
        }
    }

    /// Whether a request is being served whose client is not running: one that has its
    /// answer runs, and then the follower need not.
    fn client_waits(&self) -> bool {
        let runs = |client| Watched::new(client).ok()?.look().map(|l| l.runs);
        self.state.load(Ordering::Acquire) == SERVING
            && runs(self.client.load(Ordering::Relaxed)) == Some(false)
    }

    /// Gives the requests back to all loops.
    pub(super) fn step_back(&self, why: Why) {
        let now = self.nanoseconds(Instant::now());
        let pause = match why {
            Why::Quiet => 0,
            Why::Others => PAUSE,
            Why::Unable => LONGEST_PAUSE,
            Why::Busy | Why::Starved => {
                let well = now.saturating_sub(self.since.load(Ordering::Relaxed)) > DID_WELL;
                let pause = match well {
                    true => FIRST_PAUSE,
                    false => self.pause.load(Ordering::Relaxed),
                };
                let next = pause.saturating_mul(2).min(LONGEST_PAUSE);
                self.pause.store(next, Ordering::Relaxed);
                pause
            }
        };
        tracing::debug!(?why, pause, "the follower steps back");
        self.run.store(0, Ordering::Relaxed);
        self.not_before
            .fetch_max(now.saturating_add(pause), Ordering::Relaxed);
        self.on.store(false, Ordering::SeqCst);
        // One that serves goes away by itself.
        self.state
            .compare_exchange(WAITING, AWAY, Ordering::SeqCst, Ordering::Relaxed)
            .unwrap_or_default();
        // Without the lock: one that goes to sleep at this moment is the watcher,
        // which looks again, or is woken by it.
        self.back.notify_all();
    }
}
