//! The gate that every change of the upper passes, and how it is closed for a while.
//!
//! Whoever copies the upper of a mounted workspace asks for a hold by an ioctl
//! ([`super::control`]). From then on changes are parked: no thread waits for
//! them, so that the event loops go on answering, the release among it. A hold is
//! a lease. It ends when it is released, when it was not renewed in time (its
//! asker is gone or stopped), and after ten minutes in any case; then what was
//! parked is done. The asker learns at its release whether the hold lasted: only
//! then is the copy of one moment.
//!
//! # Locks
//! One of its own, held for an instant, with nothing taken under it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::workers::Workers;
use crate::overlay::{Errno, Result};

/// What waits for the gate to open.
type Parked = Box<dyn FnOnce(Pass) + Send>;

/// How long changes that had begun may take to end before a hold is refused.
const DRAIN: Duration = Duration::from_secs(10);
/// Longest time between two renewals.
const LEASE_MAX: Duration = Duration::from_secs(10);
/// Longest hold, however often it is renewed.
const LONGEST: Duration = Duration::from_secs(600);

#[derive(Default)]
struct State {
    inside: usize,
    hold: Option<Hold>,
    parked: Vec<Parked>,
    tokens: u64,
}

struct Hold {
    token: u64,
    until: Instant,
    bound: Instant,
}

/// The gate.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<(Mutex<State>, Condvar)>,
    workers: Workers,
}

/// Held by a change while it is made.
pub struct Pass(Arc<(Mutex<State>, Condvar)>);

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.inside -= 1;
        if state.inside == 0 && state.hold.is_some() {
            self.0.1.notify_all();
        }
    }
}

impl Gate {
    /// An open gate; what was parked is done by these workers.
    pub fn new(workers: Workers) -> Gate {
        Gate {
            shared: Arc::default(),
            workers,
        }
    }

    /// Lets a change through; while the gate is closed what `park` makes is kept.
    pub fn enter_or(&self, park: impl FnOnce() -> Parked) -> Option<Pass> {
        let mut state = self.shared.0.lock();
        if state.hold.is_some() {
            state.parked.push(park());
            return None;
        }
        state.inside += 1;
        Some(Pass(self.shared.clone()))
    }

    /// How many changes wait.
    pub fn parked(&self) -> usize {
        self.shared.0.lock().parked.len()
    }

    /// Closes the gate and waits until the changes that had begun are made. The
    /// token is for [`Gate::renew`] and [`Gate::release`].
    ///
    /// # Errors
    /// EBUSY where it is closed already, or where a change takes too long.
    pub fn hold(&self, lease: Duration) -> Result<u64> {
        let (lock, turned) = &*self.shared;
        let mut state = lock.lock();
        if state.hold.is_some() {
            return Err(Errno::EBUSY);
        }
        state.tokens += 1;
        let (token, now) = (state.tokens, Instant::now());
        state.hold = Some(Hold {
            token,
            until: now + DRAIN + lease.min(LEASE_MAX),
            bound: now + LONGEST,
        });
        while state.inside > 0 {
            if turned.wait_until(&mut state, now + DRAIN).timed_out() && state.inside > 0 {
                drop(state);
                self.open(token);
                return Err(Errno::EBUSY);
            }
        }
        drop(state);
        let watched = self.clone();
        let watch = std::thread::Builder::new().name("hold".to_owned());
        if watch.spawn(move || watched.watch(token)).is_err() {
            self.open(token);
            return Err(Errno::EAGAIN);
        }
        self.renew(token, lease)?;
        Ok(token)
    }

    /// Prolongs a hold.
    ///
    /// # Errors
    /// ESTALE where it has ended.
    pub fn renew(&self, token: u64, lease: Duration) -> Result<()> {
        let mut state = self.shared.0.lock();
        match &mut state.hold {
            Some(hold) if hold.token == token => {
                hold.until = Instant::now() + lease.min(LEASE_MAX);
                // Whoever watches may wait for a later moment than this.
                self.shared.1.notify_all();
                Ok(())
            }
            _ => Err(Errno::ESTALE),
        }
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// ESTALE where it had ended: changes may have been made since.
    pub fn release(&self, token: u64) -> Result<()> {
        match self.open(token) {
            true => Ok(()),
            false => Err(Errno::ESTALE),
        }
    }

    /// Opens the gate if this hold closed it.
    fn open(&self, token: u64) -> bool {
        let (lock, turned) = &*self.shared;
        let mut state = lock.lock();
        if state.hold.as_ref().is_none_or(|h| h.token != token) {
            return false;
        }
        state.hold = None;
        let parked = std::mem::take(&mut state.parked);
        state.inside += parked.len();
        drop(state);
        turned.notify_all();
        for job in parked {
            let pass = Pass(self.shared.clone());
            self.workers.run(move || job(pass));
        }
        true
    }

    /// Ends a hold that is not renewed.
    fn watch(&self, token: u64) {
        let (lock, turned) = &*self.shared;
        let mut state = lock.lock();
        loop {
            let end = match &state.hold {
                Some(hold) if hold.token == token => hold.until.min(hold.bound),
                _ => return,
            };
            if Instant::now() >= end {
                drop(state);
                tracing::warn!("a hold on changes was not released in time: they go on");
                self.open(token);
                return;
            }
            turned.wait_until(&mut state, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const LONG: Duration = Duration::from_secs(5);
    const SHORT: Duration = Duration::from_millis(50);

    fn gate() -> (Gate, Workers) {
        let workers = Workers::default();
        (Gate::new(workers.clone()), workers)
    }

    fn change(gate: &Gate, done: &Arc<AtomicUsize>) {
        let parked = done.clone();
        let pass = gate.enter_or(|| {
            Box::new(move |_pass| {
                parked.fetch_add(1, Ordering::SeqCst);
            })
        });
        if pass.is_some() {
            done.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn changes_are_parked_while_held_and_made_after() {
        let (gate, workers) = gate();
        let done = Arc::new(AtomicUsize::new(0));
        change(&gate, &done);
        let token = gate.hold(LONG).unwrap();
        change(&gate, &done);
        change(&gate, &done);
        assert_eq!(done.load(Ordering::SeqCst), 1);
        assert_eq!(gate.hold(LONG), Err(Errno::EBUSY), "a second hold");
        gate.release(token).unwrap();
        workers.drain();
        assert_eq!(done.load(Ordering::SeqCst), 3);
        assert_eq!(gate.release(token), Err(Errno::ESTALE));
    }

    #[test]
    fn a_hold_that_nobody_renews_ends_and_says_so() {
        let (gate, workers) = gate();
        let done = Arc::new(AtomicUsize::new(0));
        let token = gate.hold(SHORT).unwrap();
        change(&gate, &done);
        let until = Instant::now() + LONG;
        while done.load(Ordering::SeqCst) == 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        workers.drain();
        assert_eq!(done.load(Ordering::SeqCst), 1, "the change was made");
        assert_eq!(gate.renew(token, LONG), Err(Errno::ESTALE));
        assert_eq!(gate.release(token), Err(Errno::ESTALE));
    }

    #[test]
    fn a_hold_waits_for_changes_that_had_begun() {
        let (gate, _workers) = gate();
        let pass = gate.enter_or(|| Box::new(|_| {})).unwrap();
        let other = gate.clone();
        let holder = std::thread::spawn(move || other.hold(LONG));
        std::thread::sleep(SHORT);
        assert!(!holder.is_finished(), "a change is still being made");
        drop(pass);
        assert!(holder.join().unwrap().is_ok());
    }
}
