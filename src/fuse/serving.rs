//! One request while it is served: from its method's first line until it was answered.
//!
//! A request that is parked or goes to a worker takes this along, so that its time
//! ends with the answer and not with the method.

use std::time::Instant;

use super::answers::Shared;
use super::counters::{Counters, Op};
use super::polling::Polling;

/// Begins a measurement; dropped, it ends it.
#[derive(Debug)]
#[must_use = "dropped at once, it measures nothing"]
pub struct Serving {
    counters: &'static Counters,
    polling: Option<&'static Polling>,
    op: Op,
    begun: Instant,
}

impl Serving {
    /// A request of this kind has come.
    pub fn begin(
        counters: &'static Counters,
        polling: Option<&'static Polling>,
        op: Op,
    ) -> Serving {
        counters.came(op);
        if let Some(polling) = polling {
            polling.begin();
        }
        Serving {
            counters,
            polling,
            op,
            begun: Instant::now(),
        }
    }
}

impl Shared {
    /// A request has come; to be held until it is answered.
    pub(super) fn serving(&self, op: Op) -> Serving {
        // FORGETs come in batches of thousands and nobody waits for them: whether one
        // loop is enough is not asked between them.
        let asks = (op != Op::Forget).then(|| self.polling.get().copied());
        Serving::begin(self.counters, asks.flatten(), op)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.counters.answered(self.op, self.begun.elapsed());
        // Where it was answered on an event loop that has nothing else to do.
        if let Some(polling) = self.polling {
            polling.end();
        }
    }
}
