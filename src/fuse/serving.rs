//! What happens around every request.

use super::answers::Shared;
use super::counters::Op;

/// A request that is served, from its beginning to its end.
pub(super) struct Serving<'a>(&'a Shared);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if let Some(polling) = self.0.polling.get() {
            polling.end();
        }
    }
}

impl Shared {
    /// Begins with a request.
    pub(super) fn serving(&self, op: Op) -> Serving<'_> {
        self.counters.count(op);
        if let Some(polling) = self.polling.get() {
            polling.begin();
        }
        Serving(self)
    }
}
