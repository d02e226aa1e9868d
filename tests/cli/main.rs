//! The program from the outside: what it prints, what it answers, what it
//! leaves behind. What the parser understands is tested beside the parser.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod calls;
mod daemon;
mod doctor;
mod given;
mod killed;
mod places;
mod remount;
mod stats;
mod users;
mod world;
