//! Acetate beside its peers, on the same layers: how long operations take, and how that grows.
//!
//! ```text
//! scripts/compare [--quick] [--rows stat,missing] [--systems kernel,acetate] [--ways root,userns,user,other]
//!                 [--uppers tmpfs,disk] [--repeat N] [--seconds S] [--minutes M] [--json FILE] [--svg FILE]
//! scripts/scale   the same words: how cost grows with layers, entries, depth, threads, inodes, descriptors
//! scripts/profile OP...   one operation's FUSE requests, the daemon's system calls and CPU time
//! ```
//!
//! # How one figure is made
//! A **sample** is one process, the *agent* (`agent.rs`), in mount and user namespaces of its own: it mounts one system
//! on the lower layers with an empty upper, starts a *client* (`rows/`) that sets the scene, warms up, and times one tight
//! loop, and unmounts. So every sample starts from the same state. Samples of the systems are interleaved: what the
//! machine does meanwhile hits all of them. A cell's figure is the median of its samples; its spread is (max - min) / median.
//!
//! *Cold* means: a fresh mount, with the lower's pages and names in the kernel's caches. *Warm* means: the same was done
//! on this mount before.
//!
//! # Ways
//! `root`: all is root's. `userns`: root of `unshare -Urm`. `user`: uid 1000, mounted by fusermount3 (kernel overlay, which
//! has no such thing, in that user's own user namespace). `other`: root's mount of a tree that root owns, used by uid 1000.
//!
//! # What cannot go wrong
//! Everything runs below an `unshare` with mount and process namespaces that end with this program, ^C included: no mount
//! and no process is left. A system that fails a row shows its error and no number.
//!
//! | file | what it knows |
//! |---|---|
//! | `args.rs` | the words |
//! | `host.rs` | namespaces, the working directory, /proc |
//! | `systems.rs` | the systems and the ways; mounting and unmounting them |
//! | `floor.rs` | what FUSE costs without an overlay (`--systems floor`) |
//! | `trees.rs` | what the lower layers hold |
//! | `walk.rs` | listing without allocation |
//! | `rows/` | what is measured, one file per family |
//! | `agent.rs` | one sample |
//! | `series.rs` | all samples, interleaved and bounded |
//! | `report.rs`, `chart.rs` | table and JSON; SVG |
//! | `scale.rs` | growth and its slope |
//! | `profile.rs` | requests, system calls and CPU time of one operation |

#![allow(unsafe_code)]

mod agent;
mod args;
mod chart;
mod floor;
mod host;
mod profile;
mod report;
mod rows;
mod scale;
mod series;
mod systems;
mod trees;
mod walk;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Verb};

/// Runs one of the verbs; also what `tests/compare.rs` calls.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.verb {
        Some(Verb::Agent(cell)) => return agent::run(cell),
        Some(Verb::Client(cell)) => return rows::run(cell),
        Some(Verb::Floor(words)) => return floor::run(words),
        Some(Verb::Scale(wanted)) => host::inside().and_then(|h| scale::run_verb(&h, wanted)),
        Some(Verb::Profile(wanted)) => host::inside().and_then(|h| profile::run(&h, wanted)),
        None => host::inside().and_then(|h| series::compare(&h, &args.wanted)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("compare: {trouble}");
            ExitCode::FAILURE
        }
    }
}
