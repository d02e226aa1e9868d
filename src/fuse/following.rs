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
//! create+write 166 -> 71 µs, unlink 61 -> 41, mkdir 93 -> 47, rmdir 70 -> 41, rename
//! 106 -> 63; either half of it alone gains nothing.
//!
//! **When.** `START` requests of one thread in succession, each soon after the last,
//! and few other threads running on the machine. Then the other loops stay away from
//! read(2), each after its next answer, and the follower begins when the last of them is
//! away. It steps back when other threads ask too, after `QUIET` without a request,
//! when the machine gets other things to do, and where large reads or writes come (they
//! gain from a CPU of their own).
//!
//! **What must not happen.** A SCHED_IDLE thread gets next to nothing of a CPU that
//! somebody else computes on: seconds pass until it ends a request that it was
//! interrupted in, and whoever waits for a lock that it holds waits as long (a listing of
//! 35,000 names with eight hogs begun beside it: 27 to 200 ms without a follower, 0.6 to
//! 15 s with one that nobody helps). So one of the loops that stay away looks after it
//! every `TICK`: a request that lies there unread, or one that does not end, brings all
//! loops back, and makes the follower a thread like any other; nobody follows for a time,
//! which doubles if it happens again soon. Only a privileged thread can leave SCHED_IDLE:
//! where ours could not, nobody follows unless that was asked for (`follow_client=on`).
//!
//! The follower does not sleep in read(2), where the kernel might hand it one request
//! while the other loops get the rest: it waits in poll(2) and reads what it has seen
//! there. FORGETs, and requests that fuser answers without us (INTERRUPT), lead to read(2)
//! all the same; once it has stepped back it is like any other loop there. Without
//! requests no thread wakes up for any of this.
//!
//! # Locks
//! `turn` is held only to wait on; `cpus` below it, for a moment. The follower takes
//! neither in the idle class: whoever looks after it must not wait for it. (It does take
//! the engine's locks; hence the care above.)

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::follower::Own;
use crate::overlay::options::FollowClient;
use crate::sys::cpu::{self, Class, Cpus, Watched};
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
/// How often somebody looks after the follower. Not more often: whoever wakes up on the
/// client's CPU makes the kernel move the client (every 1 ms: 875 moves in 40,000 requests
/// and 82 µs a create; every 5 ms: 246 and 71).
const TICK: Duration = Duration::from_millis(4);
/// Fewer beats from one look to the next are few: two a request, and a request takes some
/// 10 µs.
const FEW_BEATS: u64 = 16;
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
/// It has nothing in hand, and may wait in read(2).
pub(super) const READING: u32 = 3;

std::thread_local! {
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
    /// Those that our threads may use. Never locked by the follower in the idle class.
    pub(super) cpus: Mutex<Cpus>,
    /// Whether nobody is to be followed by a thread that cannot leave the idle class.
    wants_way_back: bool,
    /// Whether it matters what else the machine has to do.
    pub(super) heeds_others: bool,
    begun: Instant,
    /// Whether the follower is to serve, and nobody else.
    pub(super) on: AtomicBool,
    /// [`AWAY`], [`WAITING`], [`SERVING`] or [`READING`]; written by the follower, but for the way
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
    /// How often there were few, and a request lay there.
    slow: u32,
}

/// Why the follower steps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Nothing is asked.
    Quiet,
    /// Others ask too, or the client is gone.
    Others,
    /// The machine has other things to do, or it is not to be seen where the client runs.
    Busy,
    /// It is not possible to run where the client runs.
    Unable,
    /// It does not get to its requests.
    Starved,
}

/// The CPUs of this thread, where there are several.
fn several_cpus() -> Option<Cpus> {
    Cpus::of_this_thread().ok().filter(|c| c.count() > 1)
}

impl Following {
    /// For a connection that is served by so many event loops; `None` where nobody
    /// wants it or there is nothing to choose: fewer than three loops, or one CPU.
    ///
    /// # Errors
    /// EMFILE where there is no descriptor left.
    pub fn of(when: FollowClient, device: &OwnedFd, loops: usize) -> std::io::Result<Option<Self>> {
        let (cpus, way_back) = match when {
            FollowClient::Never => return Ok(None),
            FollowClient::Auto => (several_cpus(), cpu::may_leave_idle_class()),
            FollowClient::InBursts | FollowClient::Always => (several_cpus(), true),
        };
        let (Some(cpus), 3.., true) = (cpus, loops, way_back) else {
            return Ok(None);
        };
        Ok(Some(Following {
            device: device.try_clone()?,
            cpus: Mutex::new(cpus),
            wants_way_back: when == FollowClient::Auto,
            heeds_others: when != FollowClient::Always,
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

    /// An event loop begins with a request: of this thread, whose number is 0 where it
    /// is in another PID namespace; of nobody who waits for it.
    pub fn begin(&'static self, client: Option<u32>, now: Instant) {
        if FOLLOWER.get() {
            self.beats.fetch_add(1, Ordering::Relaxed);
            self.state.store(SERVING, Ordering::SeqCst);
        } else {
            ENDING.with(|ending| match ending.take() {
                Some(known) => ending.set(Some(known)),
                None => {
                    self.known.fetch_add(1, Ordering::Relaxed);
                    ending.set(Some(Ending(self)));
                }
            });
        }
        if let Some(client) = client {
            self.note(client, self.nanoseconds(now));
        }
    }

    fn note(&self, client: u32, now: u64) {
        let last = self.last.swap(now, Ordering::Relaxed);
        let run = self.run.load(Ordering::Relaxed);
        let same = client != 0 && self.client.load(Ordering::Relaxed) == client;
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

    /// An event loop does a FORGET, and then whatever comes, without a word.
    pub fn forgets(&self) {
        if FOLLOWER.get() {
            self.beats.fetch_add(1, Ordering::Relaxed);
            self.state.store(READING, Ordering::SeqCst);
        }
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
        if FOLLOWER.get() {
            return self.wait_for_client();
        }
        if self.on.load(Ordering::Acquire) {
            return self.stay_away();
        }
        if self.run.load(Ordering::Relaxed) >= START && self.may_start() {
            let me = (thread::current(), cpu::Thread::current());
            let is_first = self.follower.set(me).is_ok();
            self.on.store(true, Ordering::Release);
            if is_first {
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
        // Somebody may have given us others.
        let Some(cpus) = several_cpus() else {
            self.not_before
                .store(now + LONGEST_PAUSE, Ordering::Relaxed);
            return false;
        };
        *self.cpus.lock() = cpus;
        // The client may be running already.
        if self.heeds_others && self.others_running() > cpus.count() / 2 {
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
        let done = beats.wrapping_sub(seen.beats);
        seen.beats = beats;
        if let Ok(now) = Cpus::of_this_thread()
            && std::mem::replace(&mut *self.cpus.lock(), now) != now
        {
            return self.step_back(Why::Busy);
        }
        if done >= FEW_BEATS {
            (seen.ticks, seen.slow) = (0, 0);
            return;
        }
        let asked = poll::is_readable(&self.device);
        seen.slow = if asked { seen.slow + 1 } else { 0 };
        seen.ticks = if done == 0 { seen.ticks + 1 } else { 0 };
        if seen.slow > 1 || (done == 0 && (asked || self.client_waits())) {
            self.step_back(Why::Starved);
        } else if seen.ticks >= QUIET_TICKS {
            // Its client has used the CPU all this time.
            self.step_back(Why::Quiet);
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
        self.set_free();
    }

    /// Makes the follower a thread like the others: whoever waits for what it has in
    /// hand, or for a lock that it holds, waits for no longer than for them.
    pub(super) fn set_free(&self) {
        let Some((_, follower)) = self.follower.get() else {
            return;
        };
        // First of all, as it may be ourselves, and others take that lock too.
        let ordinary = follower.put_in(Class::Ordinary);
        let cpus = *self.cpus.lock();
        let free = ordinary.and(cpus.confine(Some(*follower)));
        if let Err(e) = free {
            tracing::debug!("the follower: {e}");
        }
        if ordinary.is_err() && self.wants_way_back {
            self.not_before.store(u64::MAX, Ordering::Relaxed);
        }
    }
}
