//! What the follower itself does: waits until it is called, goes where its client is,
//! waits for requests. When it is called and who looks after it: [`super::following`].
//!
//! # Locks
//! `own` is the follower's alone.

use std::sync::atomic::Ordering;
use std::thread;

use super::following::{AWAY, Following, QUIET, SERVING, WAITING, Why};
use crate::sys::cpu::{self, Cpus, Watched};
use crate::sys::poll;

/// Requests from one look at how busy the machine is to the next.
const BUSY_LOOK: u32 = 64;

/// What only the follower uses.
#[derive(Debug, Default)]
pub(super) struct Own {
    idle_class: bool,
    client: Option<(u32, Watched)>,
    cpu: Option<usize>,
    requests: u32,
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
                return;
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
        while !self.ended.load(Ordering::Acquire)
            && !(self.on.load(Ordering::Acquire) && self.readers.load(Ordering::Acquire) == 0)
        {
            thread::park();
        }
        let mut own = self.own.lock();
        (own.cpu, own.requests, own.crowded) = (None, 0, false);
    }

    /// Whether somebody is to be followed still.
    fn may_follow(&self) -> Result<(), Why> {
        if self.run.load(Ordering::Relaxed) == 0 {
            return Err(Why::Others);
        }
        let mut own = self.own.lock();
        if !own.idle_class {
            cpu::run_when_idle().map_err(|_| Why::Unable)?;
            own.idle_class = true;
        }
        Ok(())
    }

    /// Whether the machine has other things to do. The client waits.
    fn is_crowded(&self) -> bool {
        let mut own = self.own.lock();
        own.requests = own.requests.wrapping_add(1);
        if own.requests % BUSY_LOOK != 0 {
            return false;
        }
        // Once may be chance.
        let now = self.heeds_others && self.others_running() >= self.cpus.count() / 2;
        std::mem::replace(&mut own.crowded, now) && now
    }

    /// Goes where the client is.
    fn follow(&self) -> Result<(), Why> {
        let mut own = self.own.lock();
        let own = &mut *own;
        let client = self.client.load(Ordering::Relaxed);
        if own.client.as_ref().is_none_or(|(c, _)| *c != client) {
            own.client = Watched::new(client).ok().map(|w| (client, w));
        }
        let Some(seen) = own.client.as_ref().and_then(|(_, watched)| watched.look()) else {
            own.client = None;
            return Err(Why::Others);
        };
        let cpu = seen.cpu;
        if !self.cpus.has(cpu) {
            return Err(Why::Unable);
        }
        if own.cpu == Some(cpu) {
            return Ok(());
        }
        own.cpu = Some(cpu);
        match Cpus::only(cpu).map(|there| there.confine(None)) {
            Some(Ok(())) => Ok(()),
            _ => Err(Why::Unable),
        }
    }
}
