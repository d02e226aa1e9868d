//! One request while it is served: from its method's first line until it was answered.
//!
//! A request that is parked or goes to a worker takes this along, so that its time
//! ends with the answer and not with the method.

use std::time::{Duration, Instant};

use fuser::Request;

use super::answers::Shared;
use super::counters::{Counters, Op};
use super::following::Following;
use super::polling::Polling;
use crate::sys::cpu;

/// What event loops do between an answer and the next request, other than sleep in
/// read(2).
#[derive(Debug)]
pub enum Waiting {
    /// They look out for it.
    Polling(Polling),
    /// One of them goes where the client is.
    Following(Following),
}

impl Waiting {
    fn begin(&'static self, client: u32, now: Instant) {
        match self {
            Waiting::Polling(polling) => polling.begin(),
            Waiting::Following(following) => following.begin(client, now),
        }
    }

    /// Where this is an event loop at work on a request: it is done with it.
    pub(super) fn end(&'static self) {
        match self {
            Waiting::Polling(polling) => polling.end(),
            Waiting::Following(following) => following.end(),
        }
    }
}

/// How the time of a request is taken.
#[derive(Debug, Clone, Copy)]
enum Clock {
    Real(Instant),
    /// The time that the follower itself needs, which had so many nanoseconds before;
    /// the real time where another thread answers.
    Own(u64, Instant),
    Not,
}

/// Begins a measurement; dropped, it ends it.
#[derive(Debug)]
#[must_use = "dropped at once, it measures nothing"]
pub struct Serving {
    counters: &'static Counters,
    waiting: Option<&'static Waiting>,
    op: Op,
    clock: Clock,
}

impl Serving {
    /// A request of this kind has come, from this thread (0: from nobody).
    pub fn begin(
        counters: &'static Counters,
        waiting: Option<&'static Waiting>,
        op: Op,
        client: u32,
    ) -> Serving {
        counters.came(op);
        let now = Instant::now();
        let mut clock = Clock::Real(now);
        if let Some(waiting) = waiting {
            waiting.begin(client, now);
            if let Waiting::Following(following) = waiting {
                clock = match following.samples() {
                    None => clock,
                    Some(true) => Clock::Own(cpu::time_on_cpu(), now),
                    Some(false) => Clock::Not,
                };
            }
        }
        Serving {
            counters,
            waiting,
            op,
            clock,
        }
    }

    /// It moves much data.
    pub fn is_bulk(&self) {
        if let Some(Waiting::Following(following)) = self.waiting {
            following.is_bulk();
        }
    }
}

impl Shared {
    /// A request has come; to be held until it is answered.
    pub(super) fn serving(&self, op: Op, req: &Request) -> Serving {
        let waiting = self.waiting.get().copied();
        // FORGETs come in batches of thousands and nobody waits for them: whether one
        // loop is enough is not asked between them.
        let asks = waiting.filter(|w| op != Op::Forget || matches!(w, Waiting::Following(_)));
        let client = if op == Op::Forget { 0 } else { req.pid() };
        Serving::begin(self.counters, asks, op, client)
    }

    /// The request goes on elsewhere: this event loop is done with it.
    pub(super) fn handed_over(&self) {
        if let Some(waiting) = self.waiting.get() {
            waiting.end();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let time = match self.clock {
            Clock::Real(begun) => Some(begun.elapsed()),
            Clock::Own(before, _) if Following::is_follower() => Some(Duration::from_nanos(
                cpu::time_on_cpu().saturating_sub(before),
            )),
            Clock::Own(_, begun) => Some(begun.elapsed()),
            Clock::Not => None,
        };
        if let Some(time) = time {
            self.counters.answered(self.op, time);
        }
        // Where it was answered on an event loop that has nothing else to do.
        if let Some(waiting) = self.waiting {
            waiting.end();
        }
    }
}
