//! What the layers have under a name, as a value.

use std::sync::Arc;

use crate::layer::mark::Marks;
use crate::overlay::inode::node::{LowerSpot, Place};
use crate::overlay::upper::Present;
use crate::sys::{Kind, Name, ObjectId, Stat};

/// The object a name stands for.
#[derive(Debug)]
pub struct Found {
    /// Its type in the view.
    pub kind: Kind,
    /// Attributes of the topmost object, undisguised, in disk ids.
    pub stat: Stat,
    /// The upper object's marks and whether it stands under this very name.
    pub upper: Option<UpperPart>,
    /// The lower objects, uppermost first.
    pub lowers: Vec<LowerSpot>,
    /// Link count of the topmost lower object.
    pub lower_nlink: u32,
    /// For a directory: where the lowers' merged view has it.
    pub lower_view: Option<Arc<Place>>,
}

impl Found {
    /// An object that only the upper has, without marks.
    pub(super) fn in_upper(stat: Stat) -> Found {
        Found {
            kind: stat.kind(),
            stat,
            upper: Some(UpperPart {
                id: ObjectId::of(&stat),
                marks: Marks::default(),
                by_index: None,
            }),
            lowers: Vec::new(),
            lower_nlink: 0,
            lower_view: None,
        }
    }

    /// What the upper's own tree has under the name.
    pub(super) fn present(&self) -> Present {
        match &self.upper {
            Some(u) if u.by_index.is_some() => Present::Nothing,
            Some(_) if self.kind == Kind::Dir => Present::Dir,
            Some(_) => Present::NonDir,
            None => Present::Nothing,
        }
    }
}

/// The upper's part of an answer.
#[derive(Debug)]
pub struct UpperPart {
    /// The object.
    pub id: ObjectId,
    /// Its marks.
    pub marks: Marks,
    /// Found through `work/index`, under this anchor: another name of the same
    /// lower file was copied up, this one has nothing in the upper's tree.
    pub by_index: Option<Name>,
}

/// Where a lower object stands.
pub(super) struct LowerPlace {
    /// The directory it is in.
    pub(super) parent: Arc<Place>,
    /// Its name there.
    pub(super) name: Name,
    /// Both, as one.
    pub(super) own: Arc<Place>,
}
