//! What a user can ask for: one file per verb. Nothing here prints.

pub mod doctor;
pub mod layers;
pub mod mount;
pub mod unmount;

pub use crate::idmap::IdExtent;
pub use crate::overlay::options::{
    Durability, LowerArg, Options, RedirectDir, XattrPermissions, Xino,
};
pub use crate::overlay::setup::SetupError;
pub use crate::sys::features::Hidden as HiddenFeatures;
pub use crate::sys::mount::MountFlags;
pub use unmount::Trouble;
