//! One request while it is served: from its method's first line until it was answered.
//!
//! A request that is parked or goes to a worker takes this along, so that its time
//! ends with the answer and not with the method.

use std::time::Instant;

use super::counters::{Counters, Op};

/// Begins a measurement; dropped, it ends it.
#[derive(Debug)]
#[must_use = "dropped at once, it measures nothing"]
pub struct Serving {
    counters: &'static Counters,
    op: Op,
    begun: Instant,
}

impl Serving {
    /// A request of this kind has come.
    pub fn begin(counters: &'static Counters, op: Op) -> Serving {
        counters.came(op);
        Serving {
            counters,
            op,
            begun: Instant::now(),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.counters.answered(self.op, self.begun.elapsed());
    }
}
