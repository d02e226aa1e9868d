//! Threads for what may take long: an event loop never waits for a copy-up, a
//! sync or a large copy.
//!
//! The pool grows while jobs wait and shrinks when idle; two jobs never wait
//! for each other but through an engine lock of one file.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// Most threads: beyond it jobs wait their turn.
const MAX_THREADS: usize = 256;
/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
}

/// The pool.
#[derive(Default, Clone)]
pub struct Workers(Arc<Shared>);

impl Workers {
    /// Runs a job on some thread; at once on this one if none can be had.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut s = self.0.state.lock();
        s.jobs.push_back(Box::new(job));
        if s.idle >= s.jobs.len() || s.threads >= MAX_THREADS {
            self.0.work.notify_one();
            return;
        }
        s.threads += 1;
        drop(s);
        let shared = self.0.clone();
        let spawned = std::thread::Builder::new()
            .name("worker".to_string())
            .spawn(move || serve(&shared));
        if let Err(e) = spawned {
            tracing::warn!(error = %e, "no thread for a long request");
            let mut s = self.0.state.lock();
            s.threads -= 1;
            let job = if s.threads == 0 {
                s.jobs.pop_back()
            } else {
                None
            };
            drop(s);
            if let Some(job) = job {
                job();
            }
        }
    }

    /// Waits until nothing runs or waits.
    pub fn drain(&self) {
        let mut s = self.0.state.lock();
        while !s.jobs.is_empty() || s.idle < s.threads {
            self.0.done.wait_for(&mut s, Duration::from_millis(100));
        }
    }
}

fn serve(shared: &Shared) {
    let mut s = shared.state.lock();
    loop {
        if let Some(job) = s.jobs.pop_front() {
            drop(s);
            job();
            s = shared.state.lock();
            continue;
        }
        s.idle += 1;
        shared.done.notify_all();
        let timed_out = shared.work.wait_for(&mut s, IDLE).timed_out();
        s.idle -= 1;
        if timed_out && s.jobs.is_empty() {
            s.threads -= 1;
            shared.done.notify_all();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_job_runs_and_drain_waits_for_them() {
        let w = Workers::default();
        let n = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let n = n.clone();
            w.run(move || {
                std::thread::sleep(Duration::from_millis(1));
                n.fetch_add(1, Ordering::SeqCst);
            });
        }
        w.drain();
        assert_eq!(n.load(Ordering::SeqCst), 100);
    }
}
