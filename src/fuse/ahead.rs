//! Pushing what will be read next into the kernel's page cache: read-only mounts.
//!
//! A client that reads the files of a directory in the order of its listing (tar,
//! cp -r, find | xargs) pays one request for each. A thread sees two of them
//! follow each other and hands the kernel the next ones before they are asked for
//! (FUSE_NOTIFY_STORE; fuse.md, lever 13).
//!
//! **Never on a mount that can be written.** What is stored takes the place of
//! pages that a writer or a shared mapping has just made dirty, and nobody tells
//! the daemon that there is one. [`Ahead::of`] is the only way to have one, and
//! gives none where there is an upper.
//!
//! It is bounded: files of at most [`SMALL`], at most [`MOST`] of them ahead, and
//! only in step with a client that goes on in listing order. What is pushed in vain
//! the kernel drops first, as pages that nobody has used.
//!
//! **Only where it is asked for** (`push_ahead=on`). The kernel locks a page for a
//! store, and waits where a READ for it is under way. Event loops answer that, never
//! this thread; but if the process is killed (SIGKILL) at that moment, the READ is
//! never answered, and this thread, which cannot be killed in that wait, keeps
//! /dev/fuse open: the process stays until somebody aborts the connection
//! (/sys/fs/fuse/connections/N/abort). Seen in 2 of 345 kills in the middle of a
//! client's reading. What `sys::apart` does cannot be done here: the write itself holds
//! the descriptor.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use fuser::{INodeNo, Notifier};

use super::answers::Shared;
use crate::overlay::Overlay;
use crate::overlay::inode::node::Node;
use crate::overlay::listing::{Listing, cookie};
use crate::sys::Kind;

/// Larger files are left to the kernel's own read-ahead.
const SMALL: u64 = 128 << 10;
/// What is read of a file whose length is not known.
const MOST_ARE_SHORTER: usize = 16 << 10;
/// Files pushed ahead at first, and at most.
const FIRST: usize = 8;
const MOST: usize = 32;
/// A file counts as the next one where so many lie between.
const GAP: usize = 3;
/// Directories in which clients are followed at once.
const DIRECTORIES: usize = 16;
/// Reads that wait to be looked at; more are not looked at.
const QUEUE: usize = 256;

/// The way to the thread that pushes.
#[derive(Debug)]
pub(super) struct Ahead(SyncSender<Arc<Node>>);

impl Ahead {
    /// For a mount that cannot be written; `None` for any other, and where no
    /// thread is to be had. On an event loop, so that the thread stands behind the
    /// same fences (see `fence`).
    pub(super) fn of(shared: &Arc<Shared>, notifier: Notifier) -> Option<Ahead> {
        if !shared.overlay.pushes_ahead() {
            return None;
        }
        let (sender, reads) = sync_channel(QUEUE);
        // The thread must not keep alive what it waits for.
        let shared = Arc::downgrade(shared);
        let follow = move || follow(&reads, &notifier, &shared);
        let thread = std::thread::Builder::new().name("ahead".to_owned());
        match thread.spawn(follow) {
            Ok(_) => Some(Ahead(sender)),
            Err(e) => {
                tracing::debug!("nothing is pushed ahead: {e}");
                None
            }
        }
    }

    /// A file is read from its beginning.
    pub(super) fn is_read(&self, node: &Arc<Node>) {
        // Full, or nobody there: then nothing is pushed.
        drop(self.0.try_send(node.clone()));
    }
}

/// A client's way through one directory.
#[derive(Debug, Clone, Copy)]
struct Track {
    dir: u64,
    /// The last file that was asked for.
    at: u64,
    /// The last one that was pushed, or `at`.
    pushed: u64,
    window: usize,
}

impl Track {
    fn new(dir: u64, at: u64) -> Self {
        Track {
            dir,
            at,
            pushed: at,
            window: 0,
        }
    }

    /// Takes a further file into account; whether it follows the last one.
    fn goes_on(&mut self, listing: &Listing, at: u64) -> bool {
        let last = self.pushed.max(self.at);
        let next = at > self.at
            && (at <= last || listing.after(last, GAP + 1).iter().any(|i| i.cookie == at));
        if next {
            self.at = at;
            self.pushed = last.max(at);
            self.window = (self.window * 2).clamp(FIRST, MOST);
        } else {
            *self = Track::new(self.dir, at);
        }
        next
    }
}

fn follow(reads: &Receiver<Arc<Node>>, notifier: &Notifier, shared: &std::sync::Weak<Shared>) {
    let mut tracks: Vec<Track> = Vec::new();
    let mut buffer = vec![0; usize::try_from(SMALL).unwrap_or(0)];
    while let Ok(node) = reads.recv() {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let Some(link) = node.any_link() else {
            continue;
        };
        let (dir, at) = (link.parent.ino, cookie(&link.name));
        // Only one that is at hand: whoever goes by it has just asked for it.
        let Some(listing) = shared.overlay.listing_at_hand(&link.parent) else {
            continue;
        };
        let place = tracks.iter().position(|t| t.dir == dir);
        // The one used last stands last.
        let mut track = match place.map(|i| tracks.remove(i)) {
            Some(track) => track,
            None => Track::new(dir, u64::MAX),
        };
        if track.goes_on(&listing, at) {
            push(&shared, notifier, &listing, &mut track, &mut buffer);
        }
        if tracks.len() >= DIRECTORIES {
            tracks.remove(0);
        }
        tracks.push(track);
    }
}

fn push(
    shared: &Shared,
    notifier: &Notifier,
    listing: &Listing,
    track: &mut Track,
    buffer: &mut [u8],
) {
    let window = listing.after(track.at, track.window);
    let new = window.partition_point(|i| i.cookie <= track.pushed);
    // Left out: the READ for it says how far the client has come, while what lies
    // beyond it is still there to be read.
    let bell = (new + window.len()) / 2;
    for (place, item) in window.into_iter().enumerate().skip(new) {
        track.pushed = item.cookie;
        if place == bell {
            continue;
        }
        if item.kind != Kind::File {
            continue;
        }
        // The kernel takes pages only of what it knows.
        let Ok(node) = shared.overlay.node(item.ino) else {
            continue;
        };
        let Some(n) = small_file(&shared.overlay, &node, buffer) else {
            continue;
        };
        let data = buffer.get(..n).unwrap_or_default();
        if let Err(e) = notifier.store(INodeNo(shared.number(node.ino)), 0, data) {
            tracing::trace!(ino = node.ino, "not pushed: {e}");
        }
    }
}

/// Reads a whole small file; `None` where it is none.
fn small_file(overlay: &Overlay, node: &Arc<Node>, buffer: &mut [u8]) -> Option<usize> {
    if node.kind != Kind::File {
        return None;
    }
    // Most are small enough to be had without asking how long they are.
    let first = buffer.get_mut(..MOST_ARE_SHORTER)?;
    let n = overlay.read(node, 0, first).ok()?;
    if n < MOST_ARE_SHORTER {
        return (n > 0).then_some(n);
    }
    let size = overlay.getattr(node).ok()?.stat.size;
    if size > SMALL {
        return None;
    }
    let whole = buffer.get_mut(..usize::try_from(size).ok()?)?;
    let n = overlay.read(node, 0, whole).ok()?;
    (n == whole.len()).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::listing::Item;

    #[test]
    fn a_client_in_listing_order_is_followed_and_another_is_not() {
        let items = (10..100).map(|c| Item {
            cookie: c,
            ino: c,
            kind: Kind::File,
            name: c.to_string().into_bytes().into(),
        });
        let listing = Listing::new(items.collect());
        let mut track = Track::new(1, u64::MAX);
        assert!(!track.goes_on(&listing, 20), "the first");
        assert!(track.goes_on(&listing, 21));
        assert_eq!(track.window, FIRST);
        track.pushed = 29;
        // What was pushed is not asked for.
        assert!(track.goes_on(&listing, 30));
        assert_eq!(track.window, 2 * FIRST);
        // The client was quicker than we.
        track.pushed = 46;
        assert!(track.goes_on(&listing, 35));
        assert!(!track.goes_on(&listing, 12), "back");
        assert!(!track.goes_on(&listing, 60), "far away");
        assert_eq!(track.window, 0);
    }
}
