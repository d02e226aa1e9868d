//! The adapter: fuser's types stop here.
//!
//! What FUSE guarantees: name-space changes of one directory come one at a
//! time; a node is not used after its FORGET. What it does not: lookups and
//! listings run in parallel with each other, RELEASE and FORGET arrive whenever
//! they like, READ and WRITE come without a handle (zero-message open).
//! From a request nothing is sent to the kernel but the reply and, before it, that
//! attributes are old (`notify`).

pub mod adapter;
mod ahead;
mod answers;
pub mod attach;
pub mod control;
pub mod convert;
pub mod counters;
pub mod fence;
pub mod figures;
mod follower;
pub mod following;
mod forgetting;
pub mod gate;
pub mod hidden;
pub mod histogram;
mod negotiate;
mod notify;
pub mod offer;
pub mod outside;
mod passthrough;
pub mod polling;
mod requests;
pub mod serving;
pub mod session;
pub mod shown;
pub mod workers;
