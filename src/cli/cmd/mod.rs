//! One file per command: its glue, no more.

pub mod apply;
pub mod complete;
pub mod completions;
pub mod doctor;
pub mod init;
pub mod job;
pub mod layer;
pub mod man;
pub mod materialize;
pub mod mount;
pub mod stats;
pub mod transfer;
pub mod unmount;
pub mod upkeep;
pub mod ws;
