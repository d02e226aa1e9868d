//! A large tree on its way to disk while it is still made.
//!
//! Such a tree is synced with its file system, once, when it is complete. Whoever makes
//! it waits for that with a disk that had nothing to do before. Here a thread syncs the
//! file system meanwhile, so that the last sync has little left. That one stays as it
//! is: nothing counts as being on disk because of this one.
//!
//! Of an error in writing back the kernel tells each descriptor once, and new ones not
//! at all when somebody has heard of it (errseq_sample(), lib/errseq.c). So what this
//! thread is told must be asked for ([`EarlySync::end`]): the last sync may not hear it.
//!
//! Locks: none. Threads: one, joined by [`EarlySync::end`]; dropped before, it ends
//! after the sync that is under way.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::store::tidy::MANY;
use crate::sys::{Errno, Result, file};

/// Bytes after which the next sync begins: enough that others who write to the file
/// system do not feel it, few enough that the last sync has little left.
const STEP: u64 = 128 << 20;

/// Syncs a growing tree's file system.
#[derive(Debug)]
pub struct EarlySync {
    tell: SyncSender<()>,
    thread: Option<JoinHandle<Result<()>>>,
    /// The next sync begins at so many bytes.
    due: u64,
}

impl EarlySync {
    /// Of the file system that `tree` stands on. Where no thread can be had, nothing
    /// is synced early.
    pub fn new(tree: &Arc<OwnedFd>) -> EarlySync {
        let (tell, told) = sync_channel(1);
        let tree = tree.clone();
        let thread = std::thread::Builder::new()
            .name("sync".to_owned())
            .spawn(move || work(&tree, &told));
        if let Err(e) = &thread {
            tracing::debug!("nothing is synced early: {e}");
        }
        EarlySync {
            tell,
            thread: thread.ok(),
            due: STEP,
        }
    }

    /// So many entries and bytes of the tree were made until now.
    pub fn made(&mut self, entries: u64, bytes: u64) {
        if entries > MANY && bytes >= self.due {
            self.due = bytes.saturating_add(STEP);
            self.begin();
        }
    }

    /// The tree of so many entries is complete.
    pub fn complete(&self, entries: u64) {
        if entries > MANY {
            self.begin();
        }
    }

    fn begin(&self) {
        // One under way and one that waits are enough; a thread that has ended has an
        // error to tell.
        if self.tell.try_send(()).is_err() {
            tracing::trace!("the disk is behind");
        }
    }

    /// Waits until nothing is synced any more.
    ///
    /// # Errors
    /// What the kernel has said of writing back.
    pub fn end(self) -> Result<()> {
        drop(self.tell);
        match self.thread.map(JoinHandle::join) {
            None => Ok(()),
            Some(ended) => ended.map_err(|_| Errno::EIO)?,
        }
    }
}

fn work(tree: &OwnedFd, told: &Receiver<()>) -> Result<()> {
    while told.recv().is_ok() {
        file::sync_fs(tree.as_fd())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system cannot be synced by what is no directory.
    fn fails() -> EarlySync {
        let file = tempfile::tempfile().unwrap();
        EarlySync::new(&Arc::new(file.into()))
    }

    #[test]
    fn an_error_that_the_last_sync_may_not_hear_is_told() {
        let sync = fails();
        sync.complete(MANY + 1);
        assert_eq!(sync.end(), Err(Errno::ENOTDIR));
        let mut sync = fails();
        sync.made(MANY + 1, STEP);
        assert_eq!(sync.end(), Err(Errno::ENOTDIR));
    }

    #[test]
    fn few_entries_or_bytes_do_not_sync_the_whole_file_system() {
        let mut sync = fails();
        sync.made(MANY, u64::MAX);
        sync.made(MANY + 1, STEP - 1);
        sync.complete(MANY);
        assert_eq!(sync.end(), Ok(()));
    }
}
