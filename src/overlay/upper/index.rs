//! Whose an index is: `work/index` holds the anchors of one upper's hard links.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Namespace, work};
use crate::layer::Layer;
use crate::layer::mark::Origin;
use crate::sys::uuid::{UNKNOWN, Uuid};
use crate::sys::{Result, Spot, xattr};

/// Makes an index the upper's own, and empties that of another one (a work
/// directory used again with a fresh upper), whose anchors would show that one's
/// content. See ovl_verify_upper(). The answer is the UUID its anchors are named
/// with.
///
/// Whether a file system's UUID is known depends on the kernel ([`crate::sys::uuid`]):
/// a claim that differs only in that one side does not know it is the upper's
/// own, made on another kernel or by kernel overlayfs, and its anchors stay good.
pub fn claim(index: &Arc<OwnedFd>, upper: &Layer, namespace: Namespace) -> Result<Uuid> {
    let root = Spot::fd(upper.root.clone());
    let ours = crate::sys::handle::of(&root).ok().map(|handle| Origin {
        uuid: upper.uuid,
        handle,
    });
    let text = ours.as_ref().and_then(Origin::encode_upper);
    let text = text.unwrap_or_else(|| {
        let s = &upper.root_stat;
        format!("acetate {} {}", s.dev, s.ino).into_bytes()
    });
    let Some(name) = namespace.name("upper") else {
        return Ok(upper.uuid);
    };
    let spot = Spot::fd(index.clone());
    match xattr::get(&spot, name.as_bytes())? {
        Some(v) if v == text => return Ok(upper.uuid),
        Some(v) => {
            let theirs = Origin::parse(&v);
            if let (Some(a), Some(b)) = (&ours, &theirs)
                && a.handle == b.handle
                && (a.uuid == UNKNOWN || b.uuid == UNKNOWN)
            {
                return Ok(b.uuid);
            }
            work::sweep(index)?;
        }
        None => {}
    }
    xattr::set(&spot, name.as_bytes(), &text, 0)?;
    Ok(upper.uuid)
}
