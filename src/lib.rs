//! acetate: a userspace overlay filesystem.
pub mod app;
pub mod cli;
pub mod fuse;
pub mod idmap;
pub mod layer;
pub mod overlay;
#[allow(unsafe_code)]
pub mod sys;
