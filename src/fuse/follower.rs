//! What the follower itself does: waits until it is called, goes where its client is,
//! waits for requests. When it is called and who looks after it: [`super::following`].
//!
//! # Locks
//! `own` is the follower's alone.

use std::sync::atomic::Ordering;
use std::thread;

use super::following::{AWAY, Following, QUIET, SERVING, WAITING, Why};
use crate::sys::cpu::{self, Class, Cpus, Watched};
use crate::sys::poll;

/// Requests from one look at how busy the machine is to the next.
const BUSY_LOOK: u32 = 64;

/// A client that is moved more often than once in so many requests is not followed: it
/// costs more than it gains. Before Linux 5.4 the kernel does not leave it in its place.
const REQUESTS_A_MOVE: u32 = 6;
/// So many moves are no sign of that.
const MOST_MOVES: u32 = 20;

/// What only the follower uses.
#[derive(Debug, Default)]
pub(super) struct Own {
    client: Option<(u32, Watched)>,
    cpu: Option<usize>,
    /// Those that it may use.
    cpus: Option<Cpus>,
    requests: u32,
    moves: u32,
    crowded: bool,
}

impl Following {
    /// The follower, until there is a request for it, or the end.
    pub(super) fn wait_for_client(&self) {
        loop {
            if !self.on.load(Ordering::Acquire) || self.state.load(Ordering::Acquire) == AWAY {
                self.park();
            }
            if self.ended.load(Ordering::Acquire) {
                return self.set_free();
            }
            self.state.store(WAITING, Ordering::SeqCst);
            self.beats.fetch_add(1, Ordering::Relaxed);
            // Whoever called the others back before that store has not seen it.
            if !self.on.load(Ordering::SeqCst) {
                continue;
            }
            let came = match self.wait() {
                Ok(came) => came,
                Err(why) => {
                    self.step_back(why);
                    continue;
                }
            };
            let taken = self.state.compare_exchange(
                WAITING,
                match came {
                    true => SERVING,
                    false => AWAY,
                },
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            match (came, taken) {
                (true, Ok(_)) => return,
                (false, Ok(_)) => self.step_back(Why::Quiet),
                (_, Err(_)) => {}
            }
        }
    }

    /// Waits in poll(2); whether a request is there.
    fn wait(&self) -> Result<bool, Why> {
        self.may_follow()?;
        if poll::is_readable(&self.device) {
            return match self.is_crowded() {
                true => Err(Why::Busy),
                false => Ok(true),
            };
        }
        self.follow()?;
        Ok(poll::becomes_readable(&self.device, QUIET))
    }

    /// Until the other loops are away.
    fn park(&self) {
        self.state.store(AWAY, Ordering::Release);
        let may_begin =
            || self.on.load(Ordering::Acquire) && self.readers.load(Ordering::Acquire) == 0;
        while !self.ended.load(Ordering::Acquire) && !may_begin() {
            thread::park();
        }
        let mut own = self.own.lock();
        *own = Own {
            client: own.client.take(),
            cpus: Some(*self.cpus.lock()),
            ..Own::default()
        };
    }

    /// Whether somebody is to be followed still.
    fn may_follow(&self) -> Result<(), Why> {
        if self.run.load(Ordering::Relaxed) == 0 {
            return Err(Why::Others);
        }
        let mut own = self.own.lock();
        if own.requests == 0 {
            let idle = cpu::Thread::current().put_in(Class::Idle);
            idle.map_err(|_| Why::Unable)?;
        }
        own.requests = own.requests.saturating_add(1);
        Ok(())
    }

    /// Whether the machine has other things to do. The client waits.
    fn is_crowded(&self) -> bool {
        let mut own = self.own.lock();
        if !own.requests.is_multiple_of(BUSY_LOOK) {
            return false;
        }
        // Once may be chance.
        let cpus = own.cpus.map_or(1, |c| c.count());
        let now = self.heeds_others && self.others_running() >= cpus / 2;
        std::mem::replace(&mut own.crowded, now) && now
    }

    /// Goes where the client is.
    fn follow(&self) -> Result<(), Why> {
        let mut own = self.own.lock();
        let own = &mut *own;
        let client = self.client.load(Ordering::Relaxed);
        if own.client.as_ref().is_none_or(|(c, _)| *c != client) {
            let watched = Watched::new(client).map_err(|_| Why::Busy)?;
            own.client = Some((client, watched));
        }
        let Some(seen) = own.client.as_ref().and_then(|(_, watched)| watched.look()) else {
            own.client = None;
            return Err(Why::Others);
        };
        let cpu = seen.cpu;
        if !own.cpus.is_some_and(|c| c.has(cpu)) {
            return Err(Why::Unable);
        }
        if own.cpu == Some(cpu) {
            return Ok(());
        }
        own.cpu = Some(cpu);
        own.moves += 1;
        if own.moves > MOST_MOVES && own.moves > own.requests / REQUESTS_A_MOVE {
            return Err(Why::Unable);
        }
        match Cpus::only(cpu).map(|there| there.confine(None)) {
            Some(Ok(())) => Ok(()),
            _ => Err(Why::Unable),
        }
    }
}
