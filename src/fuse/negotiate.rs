//! INIT: what is asked of the kernel, of what it offers.

use fuser::{InitFlags, KernelConfig};

use super::answers::{MAX_WRITE, Shared};
use crate::sys::features::{self, Feature};

/// What both sides agreed on and requests go by.
pub(super) struct Agreed {
    /// The kernel opens files without asking, once it was told so.
    pub(super) no_open: bool,
    /// The same of directories.
    pub(super) no_opendir: bool,
}

/// Asks for what the mount needs and the kernel offers.
pub(super) fn agree(shared: &Shared, config: &mut KernelConfig) -> Agreed {
    let offered = offered(config.capabilities());
    let mut want = InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_NO_OPEN_SUPPORT
        | InitFlags::FUSE_NO_OPENDIR_SUPPORT
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_HAS_IOCTL_DIR;
    if shared.overlay.acls() {
        want |= InitFlags::FUSE_POSIX_ACL;
    }
    if shared.overlay.writeback() {
        want |= InitFlags::FUSE_WRITEBACK_CACHE;
    }
    want |= shared.prepare_passthrough(config, offered);
    let passes = shared.passthrough.get().is_some();
    // Only what is offered is asked for, so this cannot be refused.
    if let Err(refused) = config.add_capabilities(want & offered) {
        tracing::warn!(?refused, "the kernel refused capabilities");
    }
    if let Err(most) = config.set_max_write(max_write()) {
        tracing::debug!(most, "max_write");
    }
    if let Err(most) = config.set_max_background(64) {
        tracing::debug!(most, "max_background");
    }
    Agreed {
        no_open: offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT) && !passes,
        no_opendir: offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
    }
}

/// What the kernel offers, less what is hidden from us.
fn offered(by_kernel: InitFlags) -> InitFlags {
    let hideable = [
        (Feature::ZeroOpen, InitFlags::FUSE_NO_OPEN_SUPPORT),
        (Feature::ZeroOpendir, InitFlags::FUSE_NO_OPENDIR_SUPPORT),
        (Feature::KillprivV2, InitFlags::FUSE_HANDLE_KILLPRIV_V2),
        (Feature::CacheSymlinks, InitFlags::FUSE_CACHE_SYMLINKS),
        (Feature::ParallelDirops, InitFlags::FUSE_PARALLEL_DIROPS),
        (
            Feature::Readdirplus,
            InitFlags::FUSE_DO_READDIRPLUS.union(InitFlags::FUSE_READDIRPLUS_AUTO),
        ),
    ];
    hideable
        .into_iter()
        .filter(|(f, _)| !features::allowed(*f))
        .fold(by_kernel, |left, (_, flags)| left - flags)
}

/// Without `max_pages` in its INIT the kernel sends and takes 32 pages.
fn max_write() -> u32 {
    if features::allowed(Feature::MaxPages) {
        MAX_WRITE
    } else {
        128 * 1024
    }
}
