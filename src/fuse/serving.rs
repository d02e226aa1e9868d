//! One request while it is served: from its method's first line until it was answered.
//!
//! A request that is parked or goes to a worker takes this along, so that its time
//! ends with the answer and not with the method.

use std::cell::Cell;
use std::time::Instant;

use fuser::Request;

use super::answers::Shared;
use super::counters::{Counters, Op};
use super::following::Following;
use super::polling::Polling;

/// What event loops do between an answer and the next request, other than sleep in
/// read(2).
#[derive(Debug)]
pub enum Waiting {
    /// They look out for it.
    Polling(Polling),
    /// One of them goes where the client is.
    Following(Box<Following>),
}

impl Waiting {
    fn begin(&'static self, client: Option<u32>, now: Instant) {
        LOOP.set(true);
        match self {
            Waiting::Polling(polling) => polling.begin(),
            Waiting::Following(following) => following.begin(client, now),
        }
    }

    /// Where this is an event loop at work on a request: it is done with it.
    pub(super) fn end(&'static self) {
        if !LOOP.replace(false) {
            return;
        }
        match self {
            Waiting::Polling(polling) => polling.end(),
            Waiting::Following(following) => following.end(),
        }
    }
}

std::thread_local! {
    /// Whether this thread is an event loop that is at work on a request.
    static LOOP: Cell<bool> = const { Cell::new(false) };
    /// When the follower was about to send the answer to its request.
    static ANSWERING: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The answer is ready and is sent now. To be said where requests are answered that
/// come in bursts: the follower is interrupted by its client as soon as that has its
/// answer, and the time that the client then needs is none of ours.
pub(super) fn answering() {
    if Following::is_follower() {
        ANSWERING.set(Some(Instant::now()));
    }
}

/// Begins a measurement; dropped, it ends it.
#[derive(Debug)]
#[must_use = "dropped at once, it measures nothing"]
pub struct Serving {
    counters: &'static Counters,
    waiting: Option<&'static Waiting>,
    op: Op,
    begun: Instant,
}

impl Serving {
    /// A request of this kind has come, from this thread (`None`: nobody waits for it).
    pub fn begin(
        counters: &'static Counters,
        waiting: Option<&'static Waiting>,
        op: Op,
        client: Option<u32>,
    ) -> Serving {
        counters.came(op);
        let begun = Instant::now();
        if let Some(waiting) = waiting {
            waiting.begin(client, begun);
        }
        Serving {
            counters,
            waiting,
            op,
            begun,
        }
    }

    /// It moves much data.
    pub fn is_bulk(&self) {
        if let Some(Waiting::Following(following)) = self.waiting {
            following.is_bulk();
        }
    }
}

/// Who waits for a request. The kernel sends some for nobody, without a number.
fn client_of(op: Op, req: &Request) -> Option<u32> {
    let for_nobody = matches!(op, Op::Forget | Op::Release | Op::Releasedir);
    (!for_nobody).then(|| req.pid())
}

impl Shared {
    /// A request has come; to be held until it is answered.
    pub(super) fn serving(&self, op: Op, req: &Request) -> Serving {
        let mut asks = self.waiting.get().copied();
        if op == Op::Forget {
            // They come in batches of which fuser tells us one after the other
            // (it does not export the type of a batch), and nobody waits for them:
            // between them an event loop must not wait for anything.
            if let Some(Waiting::Following(following)) = asks.take() {
                following.forgets();
            }
        }
        Serving::begin(self.counters, asks, op, client_of(op, req))
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
        let time = match ANSWERING.take() {
            Some(at) => at.saturating_duration_since(self.begun),
            None => self.begun.elapsed(),
        };
        self.counters.answered(self.op, time);
        // Where it was answered on an event loop that has nothing else to do.
        if let Some(waiting) = self.waiting {
            waiting.end();
        }
    }
}
