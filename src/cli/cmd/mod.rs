//! One file per command: its glue, no more.

pub mod doctor;
pub mod mount;
pub mod unmount;
