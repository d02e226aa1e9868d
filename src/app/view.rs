//! The merged view of a stack of layers without a mount: the engine, asked
//! directly.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::overlay::inode::node::Node;
use crate::overlay::listing::Item;
use crate::overlay::options::{LowerArg, Options, XattrPermissions};
use crate::overlay::{Attr, Caller, Entry, Overlay};
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::sys::tree::Trail;
use crate::sys::{Errno, Kind, Name, Result, Spot, copy, dir, xattr};

use super::copy::{Links, Look, Manner, Names, Owners, layer_name};

/// Root, who sees everything.
const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 0,
};

/// A read-only view.
#[derive(Debug)]
pub struct View(Overlay);

impl View {
    /// Opens the view of these trees, uppermost first.
    pub fn open(lowers: &[PathBuf]) -> Outcome<View> {
        View::with(lowers, Options::default())
    }

    /// The same of layers that keep owners so: a mount of disguised ones shows the
    /// capabilities, too, that stand in other xattrs there.
    pub fn keeping(lowers: &[PathBuf], owners: Owners) -> Outcome<View> {
        let permissions = (owners == Owners::Disguised).then_some(XattrPermissions::User);
        View::with(
            lowers,
            Options {
                xattr_permissions: permissions,
                ..Options::default()
            },
        )
    }

    /// The same, as a mount with these options (maps of ids, permissions in xattrs)
    /// shows it.
    pub fn with(lowers: &[PathBuf], options: Options) -> Outcome<View> {
        let lower = |path: &PathBuf| LowerArg {
            path: path.clone(),
            data_only: false,
            beside: None,
        };
        let options = Options {
            lowers: lowers.iter().map(lower).collect(),
            read_only: true,
            no_xattr_search: true,
            ..options
        };
        let opened = Overlay::open(&options);
        opened
            .map(View)
            .map_err(|e| Failure::new(FailureKind::General, e.what, e.hint))
    }

    /// The root.
    pub fn root(&self) -> Arc<Node> {
        self.0.root().clone()
    }

    /// What stands under a name; `None` where nothing does.
    pub fn child(&self, dir: &Arc<Node>, name: &[u8]) -> Result<Option<Entry>> {
        let found = match self.0.lookup(dir, name) {
            Err(Errno::ENOTDIR | Errno::ENAMETOOLONG) => return Ok(None),
            r => r?,
        };
        // A directory is kept for the view's life: the table would else wait, after
        // every file in it that is given back, for whoever holds it to be done.
        if let Some(entry) = found.as_ref().filter(|e| e.node.kind == Kind::Dir) {
            self.0.remember(&entry.node);
        }
        Ok(found)
    }

    /// What stands at a path, component by component; symlinks are not followed.
    pub fn at<'a>(&self, path: impl Iterator<Item = &'a [u8]>) -> Result<Option<Entry>> {
        let node = self.root();
        let attr = self.0.getattr(&node)?;
        let mut entry = Entry { node, attr };
        for name in path {
            if entry.node.kind != Kind::Dir {
                return Ok(None);
            }
            match self.child(&entry.node, name)? {
                Some(found) => entry = found,
                None => return Ok(None),
            }
        }
        Ok(Some(entry))
    }

    /// The names in a directory, sorted.
    pub fn names(&self, dir: &Arc<Node>) -> Result<Vec<Item>> {
        let mut items = self.0.listing(dir)?.after(0, usize::MAX);
        items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(items)
    }

    /// Attributes.
    pub fn attr(&self, node: &Arc<Node>) -> Result<Attr> {
        self.0.getattr(node)
    }

    /// Where a symlink leads.
    pub fn target(&self, node: &Arc<Node>) -> Result<Vec<u8>> {
        self.0.readlink(node)
    }

    /// A file's data.
    pub fn data(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        self.0.data(node)
    }

    /// Xattrs as the view shows them to root, sorted.
    pub fn xattrs(&self, node: &Arc<Node>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let list = self.0.listxattr(node, ROOT)?;
        let mut found = Vec::new();
        for name in xattr::names(&list) {
            match self.0.getxattr(node, name) {
                Ok(value) => found.push((name.to_vec(), value)),
                Err(Errno::ENODATA) => {}
                Err(e) => return Err(e),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Gives back what a lookup took hold of.
    pub fn release(&self, entry: Entry) {
        self.0.release(entry.node);
    }

    /// What an object of the view is to look like on disk.
    pub fn look(&self, entry: &Entry, manner: Manner) -> Result<Look> {
        let xattrs = self.xattrs(&entry.node)?;
        let on_disk = |(name, value): (Vec<u8>, Vec<u8>)| match manner.names {
            Names::Shown => Some((name, value)),
            Names::OfLayer => layer_name(&name, manner.owners).map(|name| (name, value)),
        };
        Ok(Look {
            stat: entry.attr.stat,
            xattrs: xattrs.into_iter().filter_map(on_disk).collect(),
        })
    }

    /// Writes everything below a directory of the view out as a plain tree, and
    /// gives the target the directory's own look.
    ///
    /// # Errors
    /// What failed, and on which path below it.
    pub fn write_out(
        &self,
        from: &Entry,
        to: &Arc<OwnedFd>,
        links: &mut Links,
        manner: Manner,
    ) -> std::result::Result<(), (PathBuf, Errno)> {
        let mut path = PathBuf::new();
        self.write_below(from, to, links, manner, &mut path)
            .map_err(|e| (path, e))
    }

    fn write_below(
        &self,
        from: &Entry,
        to: &Arc<OwnedFd>,
        links: &mut Links,
        manner: Manner,
        path: &mut PathBuf,
    ) -> Result<()> {
        let mut trail = Trail::new(to)?;
        let mut open = vec![(from.clone(), self.reversed(from)?)];
        while let Some((dir, waiting)) = open.last_mut() {
            let Some(item) = waiting.pop() else {
                let look = self.look(dir, manner)?;
                look.put_on(&Spot::fd(trail.top()?.clone()), manner.owners)?;
                open.pop();
                path.pop();
                trail.pop()?;
                continue;
            };
            push_name(path, &item.name);
            let Some(entry) = self.child(&dir.node, &item.name)? else {
                path.pop();
                continue;
            };
            let name = Name::from(&item.name[..]);
            if entry.node.kind == Kind::Dir {
                dir::mkdir(trail.top()?.as_fd(), &name, 0o700)?;
                let below = dir::open_dir_at(trail.top()?.as_fd(), &name, dir::Cross::Refuse)?;
                trail.push(Arc::new(below))?;
                let waiting = self.reversed(&entry)?;
                open.push((entry, waiting));
                continue;
            }
            self.write_one(&entry, trail.top()?, &name, links, manner)?;
            self.release(entry);
            path.pop();
        }
        Ok(())
    }

    fn reversed(&self, dir: &Entry) -> Result<Vec<Item>> {
        let mut names = self.names(&dir.node)?;
        names.reverse();
        Ok(names)
    }

    /// Writes one object that is no directory.
    pub fn write_one(
        &self,
        entry: &Entry,
        to: &Arc<OwnedFd>,
        name: &Name,
        links: &mut Links,
        manner: Manner,
    ) -> Result<()> {
        let stat = &entry.attr.stat;
        if links.link(stat, to, name)? {
            return Ok(());
        }
        match entry.node.kind {
            Kind::Dir => return Err(Errno::EISDIR),
            Kind::File => {
                let file = dir::create_file(to.as_fd(), name, 0o600)?;
                let data = self.data(&entry.node)?;
                copy::clone_data(data.as_fd(), file.as_fd(), stat.size)?;
            }
            Kind::Symlink => dir::symlink(&self.target(&entry.node)?, to.as_fd(), name)?,
            // Its type and numbers stand in the xattr, too.
            _ if manner.owners == Owners::Disguised => {
                drop(dir::create_file(to.as_fd(), name, 0o600)?);
            }
            kind => self.write_node(kind, stat.rdev, to, name, manner)?,
        }
        self.look(entry, manner)?
            .put_on(&Spot::at(to.clone(), name.clone()), manner.owners)?;
        links.note(stat, to, name)
    }
}

impl View {
    /// A device, FIFO or socket; in a copy whose maker may make no devices, an empty
    /// file stands for one, and the manifest says so.
    fn write_node(
        &self,
        kind: Kind,
        rdev: (u32, u32),
        to: &Arc<OwnedFd>,
        name: &Name,
        manner: Manner,
    ) -> Result<()> {
        let device = matches!(kind, Kind::Char | Kind::Block);
        match dir::mknod(to.as_fd(), name, kind.mode_bits() | 0o600, rdev) {
            Err(Errno::EPERM) if device && manner.names == Names::Shown => {
                dir::create_file(to.as_fd(), name, 0o600).map(drop)
            }
            r => r,
        }
    }
}

fn push_name(path: &mut PathBuf, name: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    path.push(std::ffi::OsStr::from_bytes(name));
}

/// The components of a path that a user gave; `.` and empty ones are nothing.
///
/// # Errors
/// Usage for `..`: a view has no way out.
pub fn components(path: &Path) -> Outcome<Vec<&[u8]>> {
    use std::os::unix::ffi::OsStrExt;
    let mut found = Vec::new();
    for part in path.as_os_str().as_bytes().split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                let what = format!("{} has a `..` in it", path.display());
                return Err(Failure::new(
                    FailureKind::Usage,
                    what,
                    "write the path without it",
                ));
            }
            part => found.push(part),
        }
    }
    Ok(found)
}
