//! One path component, checked once.

use super::{Errno, Result};

/// A component that is kept: shared between a node's merged name and its place
/// in a lower layer. Counted without weak references: of a million known inodes each
/// has one, and names of 9 to 16 bytes then fit the allocator's next smaller size.
pub type Name = triomphe::Arc<[u8]>;

/// Longest component of the file systems we serve (NAME_MAX).
pub const NAME_MAX: usize = 255;

/// Checks that `name` is one component that may be looked up or made.
///
/// # Errors
/// ENAMETOOLONG above 255 bytes; EINVAL for an empty name, `.`, `..`, or a name
/// that holds `/` or NUL.
pub fn valid_name(name: &[u8]) -> Result<&[u8]> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if name.is_empty() || name == b"." || name == b".." {
        return Err(Errno::EINVAL);
    }
    if name.iter().any(|b| *b == b'/' || *b == 0) {
        return Err(Errno::EINVAL);
    }
    Ok(name)
}
