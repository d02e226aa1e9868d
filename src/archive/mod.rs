//! Archives: layers as tar, in and out.
//!
//! This folder turns a stream into a layer's tree ([`unpack()`]) and a layer's tree into
//! a stream ([`pack()`]). It knows layers' marks and where owners are kept; it knows no
//! store and no mount. The caller gives an empty directory that nobody else uses, and
//! throws it away after an error.
//!
//! # Invariants
//! * Input is never trusted: every size is limited ([`limits`]), every name is one
//!   component at a time, every error names the entry ([`Error`]).
//! * Memory does not grow with the archive, side records apart.
//! * The same tree gives the same bytes, and they give the same tree again: an
//!   archive that [`pack()`] wrote comes out of it again byte for byte.
//!
//! | file | what it knows |
//! |---|---|
//! | `input`, `output` | compression and hashing, each in a thread of its own |
//! | `stream`, `header`, `pax`, `sparse`, `reader` | the format, read |
//! | `path` | what a name means |
//! | `trail`, `remove` | directories held open, one component a step |
//! | `owners`, `records` | where owners are kept that files cannot have |
//! | `unpack` | the rules of a layer's entries |
//! | `pack`, `encode` | the canonical archive |
//!
//! Locks: none. Threads: one for each stream, joined to its channel's life.

pub mod error;
pub mod input;
pub mod limits;
pub mod output;
pub mod owners;
pub mod pack;
pub mod path;
pub mod reader;
pub mod unpack;

mod encode;
mod header;
mod pax;
mod remove;
mod sparse;
mod stream;
mod trail;

pub use crate::layer::records::{SideRecord, SideRecords};
pub use error::{Error, Place, Result, Shown};
pub use input::{Compression, Digests, Input, Totals};
pub use output::Compress;
pub use owners::{Ids, Owners, is_layers};
pub use pack::{PackOptions, Packed, Redirects, Times, pack};
pub use reader::{Entry, EntryKind, Piece, Reader};
pub use unpack::{Progress, Sync, UnpackOptions, Unpacked, unpack};
