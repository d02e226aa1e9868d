//! Checking a store, digests included.

use crate::store::Store;
use crate::store::failure::{FailureKind, Outcome};

use super::layer;

pub use crate::store::check::{Issue, Repair, Severity};

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Records and folders.
    Records,
    /// Every byte of every layer too.
    Digests,
}

/// Looks for what is wrong; mends what can be mended.
pub fn fsck(store: &Store, repair: Repair, depth: Depth) -> Outcome<Vec<Issue>> {
    let chain = |record: &crate::store::record::LayerRecord| match record.chain_id {
        // A live directory is part of it: nothing can be said.
        None => None,
        Some(_) => layer::chain_id(record),
    };
    let mut issues = store.check(repair, &chain)?;
    if depth == Depth::Digests {
        for record in store.layers()?.records {
            match layer::verify(store, &record.name) {
                // What cannot be read was told of already.
                Err(e)
                    if e.kind == FailureKind::Integrity && store.tree(&record.diff_id).is_ok() =>
                {
                    issues.push(Issue {
                        about: format!("layer {}", record.name),
                        what: e.what,
                        severity: Severity::Damage,
                        repaired: false,
                    });
                }
                Err(e) if e.kind != FailureKind::Integrity => return Err(e),
                _ => {}
            }
        }
    }
    Ok(issues)
}
