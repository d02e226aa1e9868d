//! What follows a FORGET: memory given back now and then, and a second look at nodes
//! that a request still held.
//!
//! A thread that has answered may be taken off its CPU before it gives its node up,
//! since the client that it has woken runs there. No event loop waits for it, and no
//! later request may ever come: a worker looks again ([`crate::overlay::inode::table`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fuser::INodeNo;

use super::answers::Shared;

/// So many nodes must go before memory is given back.
const TRIM_AFTER: usize = 100_000;
/// After how many milliseconds it is looked again for forgotten nodes that were held.
const RETRIES: [u64; 9] = [0, 1, 1, 2, 5, 10, 20, 50, 100];

impl Shared {
    /// The kernel forgets so many lookups of a node.
    pub(super) fn forget(self: &Arc<Self>, ino: INodeNo, nlookup: u64) {
        self.went(self.overlay.forget(ino.0, nlookup));
        if self.overlay.has_missed() {
            self.look_again();
        }
    }

    /// Notes that nodes went, and has memory given back when it is time.
    fn went(self: &Arc<Self>, nodes: usize) {
        let before = self.forgotten.fetch_add(nodes, Ordering::Relaxed);
        if before + nodes >= TRIM_AFTER && self.forgotten.swap(0, Ordering::Relaxed) >= TRIM_AFTER {
            let shared = Arc::clone(self);
            self.workers.run(move || shared.overlay.trim());
        }
    }

    /// Has a worker take the nodes that a request still held when the kernel forgot
    /// them: no event loop waits for another, and nobody may ever come to do it.
    fn look_again(self: &Arc<Self>) {
        if self.looking_again.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(self);
        self.workers.run(move || {
            for wait in RETRIES {
                std::thread::sleep(Duration::from_millis(wait));
                shared.went(shared.overlay.retry_missed());
                if !shared.overlay.has_missed() {
                    break;
                }
            }
            shared.looking_again.store(false, Ordering::Release);
            // Missed since we looked. What was held all the time waits for the next.
            shared.went(shared.overlay.retry_missed());
        });
    }
}
