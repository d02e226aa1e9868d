//! Layers that hold nothing but the data of metacopy files.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::found::LowerPlace;
use crate::layer::mark::Marks;
use crate::layer::{Layer, Object};
use crate::overlay::inode::node::Place;
use crate::sys::{Kind, Name, Result, dir};

/// The file at `path` of such a layer. Only a plain file, of no mount that is not
/// entered, is data; marks mean nothing here (ovl_lookup_data_layer()).
///
/// # Errors
/// Those of opening the directories on the way.
pub(super) fn at_path(layer: &Layer, path: &[Vec<u8>]) -> Result<Option<(Object, LowerPlace)>> {
    let Some((last, ancestors)) = path.split_last() else {
        return Ok(None);
    };
    let mut dir: Arc<OwnedFd> = layer.root.clone();
    for name in ancestors {
        dir = Arc::new(layer.open_dir(dir.as_fd(), name)?);
    }
    let name = Name::from(&last[..]);
    let stat = match dir::probe(dir.as_fd(), &name)? {
        Some(stat) if stat.kind() == Kind::File && !layer.shut(&stat) => stat,
        _ => return Ok(None),
    };
    let object = Object {
        stat,
        marks: Marks::default(),
        mount_point: false,
    };
    let parent = Place::chain(ancestors);
    let own = Place::child(&parent, &name);
    Ok(Some((object, LowerPlace { parent, name, own })))
}
