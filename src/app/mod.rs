//! What a user can ask for: one file per verb. Nothing here prints.

pub mod anchors;
pub mod apply;
pub mod attempt;
pub mod commit;
pub mod content;
pub mod copied;
pub mod copy;
pub mod diff;
pub mod doctor;
pub mod early_sync;
pub mod enter;
pub mod export;
pub mod file_clock;
pub mod hold;
pub mod import;
pub mod layer;
pub mod layers;
pub mod live;
pub mod materialize;
pub mod mount;
pub mod own_files;
pub mod resolve;
pub mod run;
pub mod side;
pub mod stack;
pub mod stats;
pub mod store_root;
pub mod tree;
pub mod unmount;
pub mod upkeep;
pub mod view;
pub mod workspace;

pub use crate::archive::Compress;
pub use crate::digest::Digest;
pub use crate::idmap::IdExtent;
pub use crate::overlay::options::{
    Durability, FollowClient, LowerArg, Options, PollRequests, RedirectDir, XattrPermissions, Xino,
};
pub use crate::overlay::setup::SetupError;
pub use crate::store::Store;
pub use crate::store::failure::{Failure, FailureKind, Outcome};
pub use crate::store::record::{LayerRecord, Lower, WorkspaceKind, WorkspaceRecord};
pub use crate::sys::features::Hidden as HiddenFeatures;
pub use crate::sys::mount::MountFlags;
pub use unmount::Trouble;
