//! Numbers that every request adds to and hardly anybody reads.
//!
//! Each thread adds to a shard of its own (threads beyond [`SHARDS`] share), in
//! cache lines of its own, with relaxed atomics: no lock, and no line that moves
//! between processors. A reader adds the shards up; what it gets is no picture of
//! one moment, but no addition is ever lost or seen twice. A thread's first
//! addition makes its shard; after that nothing is allocated.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many threads add without sharing: event loops are four at most unless more
/// are asked for.
pub const SHARDS: usize = 8;

/// Apart by two lines: processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<const N: usize>([AtomicU64; N]);

/// `N` numbers.
#[derive(Debug)]
pub struct Tally<const N: usize> {
    shards: [OnceLock<Box<Shard<N>>>; SHARDS],
}

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Tally {
            shards: std::array::from_fn(|_| OnceLock::new()),
        }
    }
}

/// The shard of the calling thread.
fn slot() -> usize {
    const UNKNOWN: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SLOT: Cell<usize> = const { Cell::new(UNKNOWN) };
    }
    SLOT.with(|slot| {
        if slot.get() == UNKNOWN {
            slot.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        slot.get()
    })
}

impl<const N: usize> Tally<N> {
    fn own(&self, at: usize) -> Option<&AtomicU64> {
        let shard = self.shards.get(slot())?;
        let zeros = || Box::new(Shard(std::array::from_fn(|_| AtomicU64::new(0))));
        shard.get_or_init(zeros).0.get(at)
    }

    fn each(&self, at: usize) -> impl Iterator<Item = u64> + '_ {
        let made = self.shards.iter().filter_map(OnceLock::get);
        made.filter_map(move |shard| Some(shard.0.get(at)?.load(Ordering::Relaxed)))
    }

    /// Adds to a number; one that is not there is left alone.
    pub fn add(&self, at: usize, count: u64) {
        if let Some(number) = self.own(at) {
            number.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Raises a number that is read by [`Tally::highest`].
    pub fn raise(&self, at: usize, to: u64) {
        if let Some(number) = self.own(at)
            && number.load(Ordering::Relaxed) < to
        {
            number.fetch_max(to, Ordering::Relaxed);
        }
    }

    /// All that was added.
    pub fn sum(&self, at: usize) -> u64 {
        self.each(at).fold(0, u64::wrapping_add)
    }

    /// The highest that it was raised to.
    pub fn highest(&self, at: usize) -> u64 {
        self.each(at).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_many_threads_add_is_lost() {
        let tally: Tally<2> = Tally::default();
        std::thread::scope(|s| {
            for thread in 0..2 * SHARDS as u64 {
                let tally = &tally;
                s.spawn(move || {
                    for i in 0..1000 {
                        tally.add(0, 1);
                        tally.raise(1, thread * 1000 + i);
                    }
                });
            }
        });
        assert_eq!(tally.sum(0), 16_000);
        assert_eq!(tally.highest(1), 15_999);
        tally.add(2, 1);
        assert_eq!(tally.sum(2), 0, "there is no such number");
    }
}
