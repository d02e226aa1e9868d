//! What users reported about other overlay filesystems, sections A to E, G and L of the list in the project's
//! design notes, each a test that tells its story. The id in a doc comment names the report
//! (F = containers/fuse-overlayfs, P = podman, MM = moby, …). Rows that hold by design, or are a wish, are named at
//! the end of their section's file with the reason why no test stands there.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod data;
mod data_limits;
mod hangs;
mod links;
mod metadata;
mod metadata_kinds;
mod rename;
mod rename_listing;
mod unions;
mod whiteouts;
mod whiteouts_matrix;
