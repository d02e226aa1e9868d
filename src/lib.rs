//! acetate: a userspace overlay filesystem.
#[allow(unsafe_code)]
pub mod sys;
pub mod idmap;
pub mod layer;
pub mod overlay;
pub mod fuse;
pub mod app;
pub mod cli;
