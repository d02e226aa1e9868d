//! Memory: who is who. Never writes to a layer.

pub mod identity;
pub mod locate;
pub mod node;
pub mod recent;
pub mod table;
