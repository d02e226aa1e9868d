//! Layers that hold nothing but the data of metacopy files.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::found::LowerPlace;
use crate::layer::mark::Marks;
use crate::layer::{Layer, Object, Probe};
use crate::overlay::inode::node::Place;
use crate::sys::{Kind, Name, Result};

/// The file at `path` of such a layer. Only a plain file on the layer's own file system
/// is data; marks mean nothing here (ovl_lookup_data_layer()).
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
    let Probe::Object(mut object) = layer.probe(&dir, &name, false, false)? else {
        return Ok(None);
    };
    if object.stat.kind() != Kind::File || object.mount_point {
        return Ok(None);
    }
    object.marks = Marks {
        disguise: object.marks.disguise,
        ..Marks::default()
    };
    let parent = Place::chain(ancestors);
    let own = Place::child(&parent, &name);
    Ok(Some((*object, LowerPlace { parent, name, own })))
}
