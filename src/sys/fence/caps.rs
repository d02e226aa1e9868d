//! Capabilities: what an overlay daemon keeps, and why.
//!
//! | kept | for |
//! |---|---|
//! | CHOWN, FOWNER, FSETID | owner, mode, times and ACLs of objects that are anybody's |
//! | DAC_OVERRIDE, DAC_READ_SEARCH | files whose mode shuts their owner out; linkat(AT_EMPTY_PATH) |
//! | SETUID, SETGID | setfsuid(2), setfsgid(2): whom a new object belongs to |
//! | MKNOD | device nodes, and whiteouts before Linux 5.8 |
//! | SETFCAP | security.capability of a file that is copied up |
//! | SYS_ADMIN | `trusted.*`, other `security.*`, and the unmount at a signal |
//! | SYS_RESOURCE | the blocks a file system keeps for root: else a write would find the disk full or not by which thread it meets |
//! | SYS_NICE | the way out of SCHED_IDLE (`fuse::following`) |
//! | LINUX_IMMUTABLE | `chattr +i`, `+a` |
//!
//! In the user namespace of an ordinary user's own everything belongs to that
//! one user: nobody to become, nothing to mount, no device to make, so only
//! [`OWN_NAMESPACE`] is kept. What is not there is not asked for.

use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

use super::Outcome;
use crate::sys::best_effort;

/// For files of many owners.
pub const ANY_OWNER: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

/// In a user namespace with one user.
pub const OWN_NAMESPACE: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP);

/// Gives up every capability but these, in this thread and those it makes from
/// now on: effective, permitted, inheritable, ambient, and the bounding set
/// where that is allowed.
pub fn keep_only(keep: CapabilitySet) -> Outcome {
    Outcome::of(drop_others(keep))
}

fn drop_others(keep: CapabilitySet) -> crate::sys::Result<()> {
    let now = capabilities(None)?;
    if now.permitted.contains(CapabilitySet::SETPCAP) {
        let raised = CapabilitySets {
            effective: now.effective | CapabilitySet::SETPCAP,
            ..now
        };
        set_capabilities(None, raised)?;
        for bit in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            // A kernel answers EINVAL to the capabilities of younger ones.
            if !keep.contains(one) && capability_is_in_bounding_set(one).unwrap_or(false) {
                let dropped = remove_capability_from_bounding_set(one);
                best_effort("drop from the bounding set", dropped.map_err(Into::into));
            }
        }
        let set = set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP);
        if best_effort("securebits", set.map_err(Into::into)).is_some() {
            crate::sys::cred::effective_set_stays();
        }
    }
    best_effort(
        "clear the ambient set",
        clear_ambient_capability_set().map_err(Into::into),
    );
    let left = now.permitted & keep;
    let sets = CapabilitySets {
        effective: left,
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}
