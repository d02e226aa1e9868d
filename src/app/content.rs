//! What a tree holds: its digest, counted over its canonical tar.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::digest::Hasher;
use crate::layer::disguise::USER_OVERRIDE;
use crate::store::failure::{Failure, Outcome};
use crate::store::record::Content;
use crate::sys::tree::{Enter, Visitor};
use crate::sys::{Kind, Name, Result, Spot, file, xattr};

/// Computes the record of a tree. Nothing is written.
pub fn measure(tree: &Arc<OwnedFd>, shown: &std::path::Path) -> Outcome<Content> {
    let mut m = Measure {
        hasher: Hasher::default(),
        size: 0,
        entries: 0,
    };
    crate::sys::tree::walk(tree, &mut m).map_err(|e| Failure::system(shown, "be read", e))?;
    Ok(Content {
        diff_id: m.hasher.finish(),
        size: m.size,
        entries: m.entries,
        disguised: is_disguised(tree),
        rest: serde_json::Map::new(),
    })
}

/// Whether owners stand in xattrs: the root's does, then.
pub fn is_disguised(tree: &Arc<OwnedFd>) -> bool {
    matches!(
        xattr::get(&Spot::fd(tree.clone()), USER_OVERRIDE),
        Ok(Some(_))
    )
}

struct Measure {
    hasher: Hasher,
    size: u64,
    entries: u64,
}

impl Visitor for Measure {
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: &Name, _kind: Kind) -> Result<Enter> {
        let spot = Spot::at(dir.clone(), name.clone());
        let s = spot.stat()?;
        self.entries += 1;
        self.hasher.update(
            format!("{:?} {:o} {} {} {:?}", name, s.mode, s.uid, s.gid, s.mtime).as_bytes(),
        );
        if s.kind() == Kind::File {
            self.size += s.size;
            let fd = spot.open(rustix::fs::OFlags::RDONLY)?;
            let mut buf = vec![0u8; 1 << 16];
            let mut at = 0;
            loop {
                let n = file::read_at(fd.as_fd(), &mut buf, at)?;
                if n == 0 {
                    break;
                }
                self.hasher.update(buf.get(..n).unwrap_or_default());
                at += n as u64;
            }
        }
        Ok(Enter::Yes)
    }
    fn leave(&mut self, _dir: &Arc<OwnedFd>) -> Result<()> {
        Ok(())
    }
}
