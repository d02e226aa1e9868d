//! What a tree holds: its digest, counted over its canonical archive.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::archive::{self, Compress, Ids, Owners, PackOptions, Packed, SideRecords};
use crate::layer::disguise::USER_OVERRIDE;
use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::store::record::{Content, LayerRecord};
use crate::sys::{Errno, Spot, process, xattr};

use super::copy;

/// Computes the record of a tree. Nothing is written.
///
/// `kept`: how whoever made the tree has kept owners. Side records alone do not say so:
/// where files have their owners, a device that could not be made has one all the same.
pub fn measure(
    tree: &Arc<OwnedFd>,
    shown: &Path,
    records: &SideRecords,
    kept: &Owners,
) -> Outcome<Content> {
    // A file system without `user.` xattrs: everything stands in records.
    let all_in_records = *kept == Owners::Recorded && !records.is_empty();
    let disguised = is_disguised(tree) || all_in_records;
    let options = options_for(disguised, records.clone());
    let packed = archive::pack(tree.as_fd(), std::io::sink(), &options, &mut |_| {});
    let packed = packed.map_err(|e| failure(&e, shown))?;
    Ok(Content {
        diff_id: packed.diff_id,
        size: packed.size,
        entries: packed.entries,
        disguised,
        rest: serde_json::Map::new(),
    })
}

/// Writes a stored layer's canonical archive.
///
/// # Errors
/// Integrity where the tree is not any more what its record says; what was written
/// is then not the layer.
pub fn write_archive(
    store: &Store,
    record: &LayerRecord,
    compress: Compress,
    out: impl std::io::Write + Send,
    progress: &mut dyn FnMut(u64),
) -> Outcome<Packed> {
    let content = store.content(&record.diff_id)?;
    let (tree, shown) = (
        store.tree(&content.diff_id)?,
        store.tree_path(&content.diff_id),
    );
    let mut options = options_for(content.disguised, side_records(store, &content)?);
    options.compress = compress;
    let packed = archive::pack(tree.as_fd(), out, &options, progress);
    let packed = packed.map_err(|e| failure(&e, &shown))?;
    match packed.diff_id == content.diff_id {
        true => Ok(packed),
        false => Err(changed(record, &packed)),
    }
}

fn changed(record: &LayerRecord, packed: &Packed) -> Failure {
    Failure::new(
        FailureKind::Integrity,
        format!(
            "the layer {} was changed: its tree has the digest {}, its record says {}",
            record.name, packed.diff_id, record.diff_id
        ),
        "a layer is never written to: import it again under another name",
    )
}

/// What a layer's tree could not be given, as the store keeps it.
pub fn side_records(store: &Store, content: &Content) -> Outcome<SideRecords> {
    let text = store.side_records(&content.diff_id)?;
    SideRecords::from_text(&text).map_err(|why| {
        let what = format!("the layer {} is damaged: {why}", content.diff_id);
        Failure::new(FailureKind::Integrity, what, "import it again")
    })
}

fn options_for(disguised: bool, records: SideRecords) -> PackOptions {
    let mut options = PackOptions::new(match disguised {
        true => Owners::Recorded,
        false => Owners::Real(Ids::default()),
    });
    options.records = records;
    options
}

/// How a copy of a view keeps owners, in the words of archives.
pub fn kept(owners: copy::Owners) -> Owners {
    match owners {
        copy::Owners::Disguised => Owners::Recorded,
        copy::Owners::Real | copy::Owners::Own => Owners::Real(Ids::default()),
    }
}

/// How this process keeps the owners that an archive speaks of.
pub fn owners() -> Owners {
    match process::keeps_every_owner() {
        true => Owners::Real(Ids::default()),
        false => Owners::Recorded,
    }
}

/// Whether owners stand in xattrs: the root's does, then.
pub fn is_disguised(tree: &Arc<OwnedFd>) -> bool {
    matches!(
        xattr::get(&Spot::fd(tree.clone()), USER_OVERRIDE),
        Ok(Some(_))
    )
}

/// What an archive's error is for the store.
pub fn failure(error: &archive::Error, shown: &Path) -> Failure {
    use archive::Error;
    let text = error.to_string();
    match error {
        Error::Format { .. } => Failure::new(
            FailureKind::Integrity,
            format!("{}: {text}", shown.display()),
            "nothing was imported; get the archive again",
        ),
        Error::Refused { .. } => Failure::new(
            FailureKind::General,
            format!("{}: {text}", shown.display()),
            "nothing was imported; what the entry asks for has no place in a layer",
        ),
        Error::Tree { errno, .. } => Failure {
            what: format!("{}: {text}", shown.display()),
            ..Failure::system(shown, "be written", *errno)
        },
        Error::Sink(e) | Error::Source(e) => Failure {
            what: format!("{}: {text}", shown.display()),
            ..Failure::system(shown, "be read", Errno::from_io(e))
        },
        Error::Unfit { .. } | Error::Bug(_) => Failure::new(
            FailureKind::General,
            format!("{}: {text}", shown.display()),
            "",
        ),
    }
}
