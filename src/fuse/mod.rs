//! The adapter.
pub mod adapter;
pub mod attach;
pub mod outside;
pub mod session;
