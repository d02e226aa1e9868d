//! A failing case made small.
//!
//! Not by proptest's own simplification, which takes elements out one by one: a run takes some tens of
//! milliseconds, and most of the steps of a long case do not matter. Here halves go first, then quarters, and so
//! on; what is left is made plainer (root, umask 022, no times).

use std::time::{Duration, Instant};

use super::hunt::number;
use super::judge::{Failure, Setup, Tally, run_case};
use super::ops::{Case, Then, Who};
use crate::support::Base;

struct Shrinker {
    setup: Setup,
    base: Base,
    until: Instant,
    best: (Case, Failure),
}

/// The smallest case found in time that fails in the same way.
pub fn shrink(case: Case, setup: Setup, base: Base, failure: Failure) -> (Case, Failure) {
    let until = Instant::now() + Duration::from_secs(number("ORACLE_SHRINK").unwrap_or(20));
    let mut shrinker = Shrinker {
        setup,
        base,
        until,
        best: (case, failure),
    };
    // Again, as a removal can make another one possible.
    for _ in 0..2 {
        shrinker.batches();
        for batch in 0..shrinker.best.0.batches.len() {
            shrinker.remove_from(|case| case.batches.get_mut(batch).map(|(steps, _)| steps));
        }
        for layer in 0..shrinker.best.0.layers.len() {
            shrinker.remove_from(|case| case.layers.get_mut(layer));
        }
        shrinker.plainer();
    }
    shrinker.best
}

impl Shrinker {
    /// Keeps the changed case if it fails in the same way.
    fn attempt(&mut self, change: impl FnOnce(&mut Case)) -> bool {
        if Instant::now() > self.until {
            return false;
        }
        let mut case = self.best.0.clone();
        change(&mut case);
        match run_case(&case, self.setup, self.base, &mut Tally::default()) {
            Err(failure) if failure.class == self.best.1.class => {
                self.best = (case, failure);
                true
            }
            _ => false,
        }
    }

    fn batches(&mut self) {
        for i in (0..self.best.0.batches.len()).rev() {
            if self.attempt(|case| drop(case.batches.remove(i))) {
                continue;
            }
            self.attempt(|case| case.batches[i].1 = Then::GoOn);
        }
    }

    fn remove_from<T>(&mut self, list: impl Fn(&mut Case) -> Option<&mut Vec<T>>) {
        let mut size = list(&mut self.best.0).map_or(0, |list| list.len().div_ceil(2));
        while size > 0 {
            let mut at = 0;
            while at < list(&mut self.best.0).map_or(0, |list| list.len()) {
                let removed = self.attempt(|case| {
                    if let Some(list) = list(case) {
                        let end = (at + size).min(list.len());
                        list.drain(at..end);
                    }
                });
                if !removed {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    fn plainer(&mut self) {
        self.attempt(|case| case.timed = false);
        while self.best.0.layers.len() > 1 && self.attempt(|case| drop(case.layers.pop())) {}
        for batch in 0..self.best.0.batches.len() {
            for step in 0..self.best.0.batches[batch].0.len() {
                self.attempt(|case| case.batches[batch].0[step].who = Who::Root);
                self.attempt(|case| case.batches[batch].0[step].umask = 0o022);
                self.attempt(|case| case.batches[batch].0[step].at = None);
            }
        }
        for layer in 0..self.best.0.layers.len() {
            for item in 0..self.best.0.layers[layer].len() {
                self.attempt(|case| case.layers[layer][item].xattr = None);
            }
        }
    }
}
