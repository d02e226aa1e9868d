//! The engine.
pub mod options;
pub mod setup;
