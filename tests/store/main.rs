//! The layer store through the real program: every command, its errors and exit
//! codes, crashes, many processes at once, root and ordinary users.
//!
//! | file | what it proves |
//! |---|---|
//! | `archives.rs` | import, export: the same layer, the same bytes |
//! | `layers.rs` | layers: made, named, read, checked, removed |
//! | `workspaces.rs` | workspaces: made, mounted, reset, copied, removed |
//! | `commits.rs` | what a commit takes along, mounted and not, and what stands alone |
//! | `changes.rs` | diff |
//! | `copies.rs` | copied workspaces: the same commands and answers without a mount |
//! | `upkeep.rs` | gc, fsck, damaged records |
//! | `crashes.rs` | kill -9 at any moment; a commit cut off at each of its steps |
//! | `copied_users.rs` | copied workspaces of ordinary users |
//! | `matrix.rs` | the README's matrix of privileges, cell by cell |
//! | `shown.rs` | what a mount shows of owners that no file can carry |
//! | `shells.rs` | completion in bash, and the job-runner script |
//! | `together.rs` | many processes, many layers |
//! | `chrooted.rs` | the same in a copy where no namespace can be had |
//! | `run.rs` | a command with a workspace as root: what it sees, exit codes, signals, kill -9 |
//! | `attempt.rs` | a command over a live directory, which stays as it is |
//! | `apply.rs` | changes brought back to a live directory, and what others changed there |
//! | `apply_crash.rs` | kill -9 at any system call of an apply |
//! | `users.rs` | an ordinary user, a user namespace, where the store is looked for |
//!
//! `ACETATE_CRASHES` says how often `crashes.rs` kills.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../support/mod.rs"]
mod support;

mod apply;
mod apply_crash;
mod archives;
mod attempt;
mod changes;
mod chrooted;
mod commits;
mod copied_users;
mod copies;
mod crashes;
mod layers;
mod matrix;
mod run;
mod script;
mod shells;
mod shop;
mod shown;
mod together;
mod upkeep;
mod users;
mod workspaces;
