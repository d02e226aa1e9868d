//! Rows that open and read files of the lower.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Barrier;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, openat};

use super::super::host::{Outcome, Trouble};
use super::super::trees::Part;
use super::super::walk::{self, Which};
use super::{Answer, Client, Row, Sample, numbered, reads, timed_names};

const TREE: &[Part] = &[Part::Tree];

/// The rows.
pub const ROWS: &[Row] = &[
    reads(
        "open-close",
        "open and close of one file, again",
        TREE,
        open_close,
    ),
    reads(
        "readall-cold",
        "open, read and close of a file, first time",
        TREE,
        |c| read_all(c, 1, 1),
    ),
    reads("readall-warm", "the same again", TREE, |c| {
        read_all(c, 1, 2)
    }),
    reads("readall-cold-4", "first time, by 4 threads", TREE, |c| {
        read_all(c, 4, 1)
    }),
    reads("readall-warm-4", "again, by 4 threads", TREE, |c| {
        read_all(c, 4, 2)
    }),
];

fn open_close(c: &Client) -> Answer {
    let root = c.part(Part::Tree)?;
    let file = walk::paths(&root, Which::Files)?.into_iter().next();
    let file = file.ok_or_else(|| Trouble::Failed("the tree is empty".into()))?;
    let dir = walk::open_path(&root)?;
    let turns = numbered("", c.n.hot);
    let pass = || {
        timed_names(&turns, |_| {
            openat(&dir, &file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(drop)
        })
    };
    pass()?;
    pass()
}

/// Opens, reads to the end and closes.
pub fn read_file(dir: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<()> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    while rustix::io::read(&file, &mut *buffer)? > 0 {}
    Ok(())
}

fn read_all(c: &Client, threads: usize, passes: u32) -> Answer {
    let root = c.part(Part::Tree)?;
    let names = walk::paths(&root, Which::Files)?;
    let dir = walk::open_path(&root)?;
    let mut sample = Err(Trouble::Failed("no pass".into()));
    for _ in 0..passes {
        sample = in_threads(&names, threads, |name, buffer| {
            read_file(dir.as_fd(), name, buffer)
        });
        sample.as_ref().map_err(Clone::clone)?;
    }
    sample
}

/// Deals the names out to threads that start together; the time is the whole's, so it falls where they run in parallel.
pub fn in_threads(
    names: &[CString],
    threads: usize,
    act: impl Fn(&CStr, &mut [u8]) -> rustix::io::Result<()> + Sync,
) -> Answer {
    let each = names.len().div_ceil(threads.max(1)).max(1);
    let shares: Vec<_> = names.chunks(each).collect();
    let start_line = Barrier::new(shares.len() + 1);
    let (act, line) = (&act, &start_line);
    let (started, done): (Instant, Vec<Outcome<()>>) = std::thread::scope(|scope| {
        // Taken before they start: on one CPU they may have ended before we go on.
        let runners: Vec<_> = shares
            .iter()
            .map(|share| {
                scope.spawn(move || {
                    let mut buffer = vec![0_u8; 128 * 1024];
                    line.wait();
                    for name in *share {
                        act(name, &mut buffer)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let started = Instant::now();
        line.wait();
        let dead = || Err(Trouble::Failed("a thread died".into()));
        (
            started,
            runners
                .into_iter()
                .map(|r| r.join().unwrap_or_else(|_| dead()))
                .collect(),
        )
    });
    let amount = started.elapsed().as_nanos() as f64;
    done.into_iter().collect::<Outcome<()>>()?;
    Ok(Sample {
        amount,
        ops: names.len() as u64,
    })
}
