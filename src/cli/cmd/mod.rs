//! One file per command: its glue, no more.

pub mod completions;
pub mod doctor;
pub mod man;
pub mod mount;
pub mod unmount;
