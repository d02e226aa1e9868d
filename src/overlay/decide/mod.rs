//! Pure decisions: values in, values out. No I/O, no locks, no clock.

pub mod mode;
pub mod resolve;
