//! What serves one mount: what its requests share, and how they are carried out, here or
//! by a worker. The requests themselves are in `requests`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

pub use super::answers::RootShape;
use super::answers::{FOR_EVER, PRIME_NAME, Shared};
use super::counters::Counters;
use super::gate::Gate;
use super::notify::OldAttributes;
use super::serving::{Serving, Waiting};
use super::workers::Workers;
use crate::overlay::absence::Absence;
use crate::overlay::{Overlay, Result};

/// The file system as fuser sees it.
pub struct Adapter {
    pub(super) shared: Arc<Shared>,
    pub(super) no_open: bool,
    pub(super) no_opendir: bool,
}

/// Ends the priming (see fuse.md, lever 1(d)).
pub struct PrimeHandle(Arc<Shared>);

impl PrimeHandle {
    /// The file is gone from now on.
    pub fn done(&self) {
        self.0.priming.store(false, Ordering::Release);
    }
}

/// Takes the way to the kernel that is no reply.
pub struct ConnectHandle(Arc<Shared>);

impl ConnectHandle {
    /// There it is, and what event loops do between its requests but sleep.
    pub fn connect(&self, notifier: fuser::Notifier, waiting: Option<Waiting>) {
        self.0.old.connect(notifier);
        if let Some(waiting) = waiting {
            // A second connection cannot be: an adapter serves one mount.
            // It goes with requests from thread to thread, as the counters do.
            self.0.waiting.get_or_init(|| Box::leak(Box::new(waiting)));
        }
    }
}

/// Ends the mount when the event loops are over.
#[derive(Clone)]
pub struct ShutdownHandle(Arc<Shared>);

impl ShutdownHandle {
    /// Waits for what is still at work and syncs the upper unless volatile.
    pub fn finish(&self) -> Result<()> {
        self.0.workers.drain();
        self.0.overlay.finish()
    }
}

impl Adapter {
    /// An adapter for an overlay.
    pub fn new(overlay: Overlay, shape: RootShape) -> Adapter {
        let ttl = overlay.timeout().unwrap_or(FOR_EVER);
        let workers = Workers::default();
        let shared = Shared {
            gate: Gate::new(workers.clone()),
            absence: Absence::new(&overlay),
            overlay,
            shape,
            priming: AtomicBool::new(true),
            counters: Counters::start(),
            ahead: OnceLock::new(),
            waiting: OnceLock::new(),
            passthrough: OnceLock::new(),
            workers,
            old: OldAttributes::default(),
            ttl,
            forgotten: AtomicUsize::new(0),
            looking_again: AtomicBool::new(false),
        };
        Adapter {
            shared: Arc::new(shared),
            no_open: false,
            no_opendir: false,
        }
    }

    /// The name of the file to open once through the mount before it is shown.
    pub fn prime_name() -> &'static str {
        PRIME_NAME
    }

    /// To be called when that was done.
    pub fn prime_handle(&self) -> PrimeHandle {
        PrimeHandle(self.shared.clone())
    }

    /// To be called with the connection, before it is served.
    pub fn connect_handle(&self) -> ConnectHandle {
        ConnectHandle(self.shared.clone())
    }

    /// To be called when the event loops have ended.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle(self.shared.clone())
    }

    /// Serves a request here, or on a worker where it may take long.
    pub(super) fn run<T: Send + 'static>(
        &self,
        serving: Serving,
        long: bool,
        reply: T,
        work: impl FnOnce(&Shared, T) + Send + 'static,
    ) {
        if !long {
            work(&self.shared, reply);
            return drop(serving);
        }
        let shared = self.shared.clone();
        self.shared.workers.run(move || {
            work(&shared, reply);
            drop(serving);
        });
        self.shared.handed_over();
    }

    /// The same for what changes the upper: parked while changes are held.
    pub(super) fn change<T: Send + 'static>(
        &self,
        serving: Serving,
        long: bool,
        reply: T,
        work: impl FnOnce(&Shared, T) + Send + 'static,
    ) {
        let mut job = Some((serving, reply, work));
        let park = || -> Box<dyn FnOnce(_) + Send> {
            let (shared, job) = (self.shared.clone(), job.take());
            Box::new(move |_pass| {
                if let Some((_serving, reply, work)) = job {
                    work(&shared, reply);
                }
            })
        };
        let pass = self.shared.gate.enter_or(park);
        if let (Some(pass), Some((serving, reply, work))) = (pass, job) {
            self.run(serving, long, reply, move |shared, reply| {
                work(shared, reply);
                drop(pass);
            });
        } else {
            self.shared.handed_over();
        }
    }
}
