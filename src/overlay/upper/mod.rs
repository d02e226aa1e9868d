//! Disk: every change of the upper layer's name space.
//!
//! An object gets its final name only when it is complete (O2); what has no
//! final name stands in the work directory and is removed at the next start
//! (O9). This folder knows no node numbers and takes no lock of the engine.

pub mod copy_up;
pub mod index;
pub mod meta;
pub mod stage;
pub mod work;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::layer::Layer;
use crate::layer::mark::{self, OPAQUE_FILES, Origin};
use crate::overlay::options::{Durability, XattrPermissions};
use crate::sys::dir::{self, Rename};
use crate::sys::probe::WhiteoutKind;
use crate::sys::{Errno, Name, ObjectId, Result, Spot, best_effort, handle, xattr};

/// Which xattrs carry the marks we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `trusted.overlay.`: root in the initial user namespace.
    Trusted,
    /// `user.overlay.`: everyone else, or `userxattr`.
    User,
    /// The upper's file system keeps no xattrs: markers are files.
    None,
}

impl Namespace {
    /// The whole name of a mark; `None` where there are no xattrs.
    pub fn name(self, mark: &str) -> Option<String> {
        match self {
            Namespace::Trusted => Some(format!("trusted.overlay.{mark}")),
            Namespace::User => Some(format!("user.overlay.{mark}")),
            Namespace::None => None,
        }
    }
}

/// The writable layer.
#[derive(Debug)]
pub struct Upper {
    /// Its tree.
    pub layer: Layer,
    /// `WORKDIR/work`.
    pub work: Arc<OwnedFd>,
    /// WORKDIR itself, which no lower may show.
    pub work_root: ObjectId,
    /// `WORKDIR/index`: anchors of copied-up hard links.
    pub index: Option<Arc<OwnedFd>>,
    /// Where marks are written.
    pub namespace: Namespace,
    /// How names are hidden.
    pub whiteouts: WhiteoutKind,
    /// renameat2(2) RENAME_WHITEOUT works here.
    pub rename_whiteout: bool,
    /// O_TMPFILE works here.
    pub unnamed_files: bool,
    /// Whether anything is synced.
    pub durability: Durability,
    /// It lies in memory: a sync has nothing to wait for.
    pub in_memory: bool,
    /// Owner and mode are written to an xattr instead.
    pub disguise: Option<XattrPermissions>,
    /// Every owner and group is shown as one, whatever is on disk: an owner that
    /// cannot be kept is not missed.
    pub squashed: bool,
    /// Counts temporary names.
    pub(super) counter: AtomicU64,
    /// Locks on upper and work, held while mounted.
    pub(super) _locks: Vec<OwnedFd>,
}

/// What stands at a name of the upper that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// Anything but a directory.
    NonDir,
    /// A directory, empty in the merged view.
    Dir,
}

impl Upper {
    /// Whether syncs are to happen.
    pub fn syncs(&self) -> bool {
        self.durability == Durability::Full
    }

    fn work_fd(&self) -> BorrowedFd<'_> {
        self.work.as_fd()
    }

    /// What this thread makes from now on belongs to the daemon, not to the
    /// caller it made something for before.
    pub(super) fn as_self(&self) -> Result<()> {
        let (uid, gid) = crate::sys::cred::own_ids();
        crate::sys::cred::create_as(uid, gid)
    }

    /// Writes a mark. EOPNOTSUPP where there are no xattrs.
    pub fn set_mark(&self, spot: &Spot, mark: &str, value: &[u8]) -> Result<()> {
        let name = self.namespace.name(mark).ok_or(Errno::EOPNOTSUPP)?;
        xattr::set(spot, name.as_bytes(), value, 0)
    }

    /// Removes a mark; that it was not there is fine.
    pub fn remove_mark(&self, spot: &Spot, mark: &str) -> Result<()> {
        let Some(name) = self.namespace.name(mark) else {
            return Ok(());
        };
        match xattr::remove(spot, name.as_bytes()) {
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
            r => r,
        }
    }

    /// Makes a directory of the upper hide what lies below it.
    pub fn set_opaque(&self, dir: &Spot) -> Result<()> {
        match self.set_mark(dir, "opaque", b"y") {
            Err(Errno::EOPNOTSUPP | Errno::EPERM | Errno::ENOSPC) => {}
            r => return r,
        }
        let fd = dir.open(rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY)?;
        match dir::create_file(fd.as_fd(), OPAQUE_FILES[0], 0o600) {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Hides `name`, for which the upper has nothing yet.
    pub fn add_whiteout(&self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        self.as_self()?;
        match self.whiteouts {
            WhiteoutKind::CharDevice => match dir::mknod(at, name, libc::S_IFCHR, (0, 0)) {
                Err(Errno::EEXIST) if dir::probe(at, name)?.is_some_and(|s| s.is_whiteout()) => {
                    Ok(())
                }
                r => r,
            },
            WhiteoutKind::DotWh => self.add_dot_wh(at, name),
            WhiteoutKind::Xattr => self.add_xattr_whiteout(at, name),
        }
    }

    /// Makes a whiteout that stands at the name itself, in the work directory:
    /// it is complete before it hides anything.
    pub fn stage_whiteout(&self, name: &[u8]) -> Result<()> {
        self.as_self()?;
        if self.whiteouts == WhiteoutKind::CharDevice {
            return dir::mknod(self.work_fd(), name, libc::S_IFCHR, (0, 0));
        }
        drop(dir::create_file(self.work_fd(), name, 0o600)?);
        self.set_mark(
            &Spot::at(self.work.clone(), Name::from(name)),
            "whiteout",
            b"y",
        )
    }

    fn add_xattr_whiteout(&self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        self.expect_whiteouts(at)?;
        let tmp = self.temp_name();
        self.stage_whiteout(&tmp)?;
        let placed = dir::rename((self.work_fd(), &tmp), (at, name), Rename::NoReplace);
        if placed.is_err() {
            best_effort(
                "remove a staged whiteout",
                dir::unlink(self.work_fd(), &tmp),
            );
        }
        match placed {
            // The resolver saw nothing there: it is a whiteout already.
            Err(Errno::EEXIST) => Ok(()),
            r => r,
        }
    }

    /// Says of a directory that its empty files may be whiteouts, where they are
    /// (Linux 6.7; ovl_check_xwhiteout_xattr()).
    pub fn expect_whiteouts(&self, at: BorrowedFd<'_>) -> Result<()> {
        if self.whiteouts != WhiteoutKind::Xattr {
            return Ok(());
        }
        let spot = Spot::fd(Arc::new(crate::sys::file::duplicate(at)?));
        match mark::Marks::read(&spot)?.opaque {
            mark::Opaque::No => self.set_mark(&spot, "opaque", b"x"),
            mark::Opaque::Yes | mark::Opaque::MayHoldXattrWhiteouts => Ok(()),
        }
    }

    /// Makes `.wh.NAME`.
    pub fn add_dot_wh(&self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let wh = mark::dot_wh_name(name).ok_or(Errno::ENAMETOOLONG)?;
        match dir::create_file(at, &wh, 0o600) {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Removes `.wh.NAME` if it is there: an object has taken its place.
    pub fn drop_dot_wh(&self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let Some(wh) = mark::dot_wh_name(name) else {
            return Ok(());
        };
        match dir::unlink(at, &wh) {
            // EINVAL: an overlay below, where there are no such names.
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Takes `name` away, and hides the layers below if `hide`.
    ///
    /// # Crash
    /// The name is there, or gone and hidden; never gone and not hidden.
    pub fn remove(
        &self,
        at: BorrowedFd<'_>,
        name: &[u8],
        present: Present,
        hide: bool,
    ) -> Result<()> {
        match (present, hide) {
            (Present::Nothing, false) => Ok(()),
            (Present::Nothing, true) => self.add_whiteout(at, name),
            (Present::NonDir, false) => dir::unlink(at, name),
            (Present::Dir, false) => self.remove_dir(at, name),
            (_, true) if self.whiteouts == WhiteoutKind::DotWh => {
                // Beside the object the marker hides only what lies below.
                self.add_dot_wh(at, name)?;
                self.remove(at, name, present, false)
            }
            (_, true) => {
                self.expect_whiteouts(at)?;
                let tmp = self.temp_name();
                self.stage_whiteout(&tmp)?;
                let placed = if present == Present::Dir {
                    self.swap(&tmp, at, name)
                } else {
                    dir::rename((self.work_fd(), &tmp), (at, name), Rename::Replace)
                };
                if let Err(e) = placed {
                    best_effort(
                        "remove a staged whiteout",
                        dir::unlink(self.work_fd(), &tmp),
                    );
                    return Err(e);
                }
                if present == Present::Dir {
                    best_effort("clear a removed directory", self.clear_temp(&tmp));
                }
                Ok(())
            }
        }
    }

    /// Lets an object of the work directory and one with a name change places.
    ///
    /// In one step where the file system can; else (ramfs before Linux 5.16, network
    /// file systems) in three, which only a crash can come between: locks keep
    /// clients out. A `.wh.` marker stands beside the name meanwhile, so that a
    /// crash never brings back what lies below.
    pub fn swap(&self, temp: &[u8], at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let (inside, outside) = ((self.work_fd(), temp), (at, name));
        match dir::rename(inside, outside, Rename::Exchange) {
            Err(Errno::EINVAL) => {}
            r => return r,
        }
        self.add_dot_wh(at, name)?;
        let swapped = self.swap_in_steps(inside, outside);
        best_effort("remove a marker", self.drop_dot_wh(at, name));
        swapped
    }

    fn swap_in_steps(
        &self,
        inside: (BorrowedFd<'_>, &[u8]),
        outside: (BorrowedFd<'_>, &[u8]),
    ) -> Result<()> {
        let spare = self.temp_name();
        let aside = (self.work_fd(), &spare[..]);
        dir::rename(outside, aside, Rename::NoReplace)?;
        if let Err(e) = dir::rename(inside, outside, Rename::NoReplace) {
            let back = dir::rename(aside, outside, Rename::NoReplace);
            best_effort("put an object back in its place", back);
            return Err(e);
        }
        dir::rename(aside, inside, Rename::NoReplace)
    }

    /// Removes a directory that is empty in the merged view: it may hold markers.
    fn remove_dir(&self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        match dir::rmdir(at, name) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            r => return r,
        }
        let tmp = self.temp_name();
        dir::rename((at, name), (self.work_fd(), &tmp), Rename::NoReplace)?;
        best_effort("clear a removed directory", self.clear_temp(&tmp));
        Ok(())
    }

    /// Removes a name of the work directory, whatever it is.
    pub fn clear_temp(&self, name: &[u8]) -> Result<()> {
        work::remove_tree(&self.work, name)
    }

    /// The handle of a lower object as an origin; `None` where its file system
    /// gives none.
    pub fn origin_of(&self, spot: &Spot, layer: &Layer) -> Option<Origin> {
        if layer.ambiguous {
            return None;
        }
        let handle = handle::of(spot).ok()?;
        Some(Origin {
            uuid: layer.uuid,
            handle,
        })
    }

    /// Syncs a directory unless volatile.
    pub fn sync_dir(&self, dir: BorrowedFd<'_>) -> Result<()> {
        if self.syncs() {
            dir::fsync_dir(dir)
        } else {
            Ok(())
        }
    }

    /// The name of the anchor of a lower object in `work/index`: its origin in
    /// hex as the kernel names it (ovl_get_index_name()), else by file system
    /// and number.
    pub fn index_name(origin: Option<&Origin>, fs: u8, ino: u64) -> Name {
        let hex = origin.and_then(Origin::encode).map(|v| {
            v.iter()
                .fold(String::with_capacity(v.len() * 2), |mut s, b| {
                    use std::fmt::Write;
                    // Writing to a String cannot fail.
                    if write!(s, "{b:02x}").is_err() {
                        s.clear();
                    }
                    s
                })
        });
        match hex {
            Some(h) if !h.is_empty() && h.len() <= 255 => Name::from(h.into_bytes()),
            _ => Name::from(format!("acetate-{fs}-{ino:x}").into_bytes()),
        }
    }
}
