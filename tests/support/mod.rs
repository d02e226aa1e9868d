//! What the integration tests share: layers, mounts, listings of whole trees, and the conditions of the host.
//!
//! Included with `#[path = "support/mod.rs"] mod support;` (or `"../support/mod.rs"`), so every test binary
//! compiles its own copy and uses a part of it.
//!
//! | file | what it knows |
//! |---|---|
//! | `counters.rs` | how many requests of each kind a mount has served |
//! | `host.rs` | what this host can do (root, /dev/fuse, kernel overlayfs), other users, user namespaces |
//! | `layers.rs` | a directory with lowers, upper, work and mountpoint |
//! | `mapping.rs` | a shared memory mapping of a file |
//! | `mount.rs` | a mount of acetate or of kernel overlayfs, taken down when dropped, with its daemon |
//! | `snapshot.rs` | a whole tree as a value, and the readable difference of two |
//! | `story.rs` | stories told on ours and on the kernel: set-up, steps, remounts; threads as another user |
//! | `raw.rs` | system calls as the caller sees them: a number or an errno |
//!
//! Environment:
//! * `ACETATE_BIN`: another program to test. One whose file name is `fuse-overlayfs` is called the way that
//!   program is called; that is how these tests are tried against the peers. `kernel` means
//!   kernel overlayfs itself: that is how the tests are tested.
//! * `ACETATE_TEST_SLOW`: how many times longer than usual things may take (an emulated machine).
//! * `ACETATE_TEST_DIR`: the disk directory for layers (default: `std::env::temp_dir()`).

#![allow(dead_code, unused_imports, unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod counters;
pub mod host;
pub mod layers;
pub mod mapping;
pub mod mount;
pub mod raw;
pub mod snapshot;
pub mod story;

pub use host::{
    DevFuseOpen, as_user, in_userns, require_fuse, require_kernel_overlay, require_root, skip,
};
pub use layers::{Base, Layers};
pub use mount::{Kind, Mount, is_mountpoint};
pub use snapshot::{Facets, Snapshot, diff, diff_with};
