//! A directory that is empty only in the merged view, out of the way of a rename.

use std::os::fd::AsFd;

use super::rename::End;
use crate::layer::disguise::Disguise;
use crate::overlay::upper::{Namespace, Upper};
use crate::sys::{Name, Result, Spot, best_effort, dir};

/// Puts an empty directory in the place of one that is empty only in the merged
/// view, so that the rename over it is one step; the view stays as it is. Where
/// the old one stands now; `None` where it is truly empty itself.
pub(super) fn displace(upper: &Upper, b: &End<'_>) -> Result<Option<Name>> {
    if dir_is_bare(b)? {
        return Ok(None);
    }
    let spot = Spot::at(b.at.clone(), b.name.clone());
    let raw = spot.stat()?;
    let temp = upper.temp_name();
    let work = upper.work.as_fd();
    dir::mkdir(work, &temp, 0o700)?;
    let stand_in = Spot::at(upper.work.clone(), temp.clone());
    let placed = stand_in
        .stat()
        .and_then(|now| upper.set_owner_and_mode(&stand_in, &now, &Disguise::of(&raw)))
        .and_then(|()| match upper.namespace {
            // A marker inside would make it non-empty: one beside it says the same.
            _ if !b.lowers_show => Ok(()),
            Namespace::None => upper.add_dot_wh(b.at.as_fd(), &b.name),
            _ => upper.set_opaque(&stand_in),
        })
        .and_then(|()| upper.swap(&temp, b.at.as_fd(), &b.name));
    if let Err(e) = placed {
        best_effort("remove a stand-in", dir::rmdir(work, &temp));
        return Err(e);
    }
    Ok(Some(temp))
}

/// Undoes [`displace`].
pub(super) fn put_back(upper: &Upper, b: &End<'_>, temp: &Name) -> Result<()> {
    let work = upper.work.as_fd();
    upper.swap(temp, b.at.as_fd(), &b.name)?;
    dir::rmdir(work, temp)
}

/// Whether the target directory holds nothing at all, markers included.
fn dir_is_bare(b: &End<'_>) -> Result<bool> {
    let fd = dir::open_dir_at(b.at.as_fd(), &b.name, dir::Cross::Refuse)?;
    let mut bare = true;
    dir::list(fd.as_fd(), |_| bare = false)?;
    Ok(bare)
}
