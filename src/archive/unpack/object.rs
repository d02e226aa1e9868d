//! Objects: files with their data, links, devices.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Unpacker;
use super::keep::{Handle, State, Subject};
use crate::archive::Shown;
use crate::archive::error::{For, Result};
use crate::archive::input::Input;
use crate::archive::limits::HOLE;
use crate::archive::path::{Target, classify};
use crate::archive::reader::{Entry, Reader};
use crate::sys::{self, Errno, Kind, Name, Spot, dir, file, opened, stat};

impl Unpacker {
    /// Makes an object in the deepest directory.
    pub(super) fn object(
        &mut self,
        reader: &mut Reader<Input>,
        entry: &Entry,
        kind: Kind,
        name: &[u8],
    ) -> Result<()> {
        match kind {
            Kind::Dir => self.make_directory(entry, name),
            Kind::File => self.file(reader, entry, name),
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(self.refused("it is a symlink without a target"));
                }
                self.make(name, |at| dir::symlink(&entry.link, at, name))?;
                self.dress(entry, name, (Kind::Symlink, kind))
            }
            Kind::Char if entry.rdev == (0, 0) => {
                Err(self.refused("a character device 0:0 in a layer would be a whiteout"))
            }
            Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => self.special(entry, kind, name),
        }
    }

    /// Makes something under a name, in the place of what has it.
    fn make<T>(
        &mut self,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> sys::Result<T>,
    ) -> Result<T> {
        let at = self.dir()?;
        self.trail.here_mut().touched = true;
        let made = match make(at.as_fd()) {
            Err(Errno::EEXIST) => {
                self.clear(name)?;
                make(at.as_fd())
            }
            made => made,
        };
        made.doing("make", &self.trail.path_of(name))
    }

    /// Gives attributes to what was made by name: (what was made, what it stands for).
    fn dress(&mut self, entry: &Entry, name: &[u8], kinds: (Kind, Kind)) -> Result<()> {
        let (made, kind) = kinds;
        let path = self.trail.path_of(name);
        let subject = Subject {
            path: &path,
            made,
            kind,
            state: State::New,
            plain_parent: self.trail.here().plain,
        };
        let spot = Spot::at(self.dir()?, Name::from(name));
        self.keeper.apply(&Handle::Spot(&spot), &subject, entry)
    }

    fn special(&mut self, entry: &Entry, kind: Kind, name: &[u8]) -> Result<()> {
        let mode = self.keeper.mode(kind, entry.mode);
        if !self.keeper.disguises(kind) {
            let node = |at: BorrowedFd<'_>| {
                match dir::mknod(at, name, kind.mode_bits() | mode, entry.rdev) {
                    // A user namespace has no devices of its own.
                    Err(Errno::EPERM) => Ok(false),
                    made => made.map(|()| true),
                }
            };
            if self.make(name, node)? {
                return self.dress(entry, name, (kind, kind));
            }
        }
        self.make(name, |at| opened::create(at, name, mode))?;
        self.dress(entry, name, (Kind::File, kind))
    }

    fn file(&mut self, reader: &mut Reader<Input>, entry: &Entry, name: &[u8]) -> Result<()> {
        let mode = self.keeper.mode(Kind::File, entry.mode);
        let made = self.make(name, |at| opened::create(at, name, mode))?;
        let path = self.trail.path_of(name);
        write_data(reader, &made, entry.size, &path)?;
        let subject = Subject {
            path: &path,
            made: Kind::File,
            kind: Kind::File,
            state: State::New,
            plain_parent: self.trail.here().plain,
        };
        self.keeper.apply(&Handle::from(&made), &subject, entry)
    }

    /// Gives an earlier entry another name.
    pub(super) fn hard_link(&mut self, entry: &Entry, dirs: &[&[u8]], name: &[u8]) -> Result<()> {
        let shown = Shown(&entry.link).to_string();
        let missing =
            || format!("it is a hard link to {shown}, which is not in the archive before it");
        let (target_dirs, target) = match classify(&entry.link) {
            Ok(Target::Object { dirs, name }) => (dirs, name),
            Ok(_) => return Err(self.refused(missing())),
            Err(bad) => {
                return Err(self.refused(format!("it is a hard link to {shown}: {bad}")));
            }
        };
        if !self.go_to_link_target(&target_dirs)? {
            return Err(self.refused(missing()));
        }
        let from = self.links.fd().doing("open", &entry.link)?.clone();
        let found = dir::probe(from.as_fd(), target).doing("stat", &entry.link)?;
        let found = match found {
            Some(stat) if stat.kind() == Kind::Dir => {
                return Err(self.refused(format!("it is a hard link to {shown}, a directory")));
            }
            Some(stat) if !stat.is_whiteout() => stat,
            _ => return Err(self.refused(missing())),
        };
        self.go_for_object(dirs)?;
        let at = self.dir()?;
        let path = self.trail.path_of(name);
        let there = dir::probe(at.as_fd(), name).doing("stat", &path)?;
        if there.is_some_and(|there| stat::same_object(&there, &found)) {
            return Ok(());
        }
        if there.is_some() {
            self.clear(name)?;
        }
        self.trail.here_mut().touched = true;
        dir::link((from.as_fd(), target), (at.as_fd(), name)).doing("link", &path)?;
        let target_path = [&target_dirs[..], &[target]].concat().join(&b'/');
        self.keeper.link(&target_path, &path);
        Ok(())
    }

    /// Goes to a directory of the tree through directories alone; whether it is there.
    pub(super) fn go_to_link_target(&mut self, dirs: &[&[u8]]) -> Result<bool> {
        let common = self.links.common(dirs);
        if self.links.depth() > common {
            let up = self.links.depth() - common;
            for _ in 0..up {
                let left = self.links.leave();
                left.doing("leave", self.links.path())?;
            }
        }
        for name in dirs.get(common..).unwrap_or_default() {
            match self.links.open(name) {
                Ok(there) => self.links.enter(name, there, ()),
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(false),
                Err(e) => return Err(e).doing("open", &self.links.path_of(name)),
            }
        }
        Ok(true)
    }

    /// The way to link targets may have led through what was removed.
    pub(super) fn forget_link_targets(&mut self) {
        self.links.reset();
    }
}

/// Writes a file's data; holes and long runs of zeros are left out.
fn write_data(reader: &mut Reader<Input>, to: &OwnedFd, size: u64, path: &[u8]) -> Result<()> {
    let mut end = 0u64;
    while let Some(piece) = reader.piece()? {
        let (mut offset, mut rest) = (piece.offset, piece.bytes);
        // Runs of windows that hold something are written at once.
        while !rest.is_empty() {
            let zeros = match size < HOLE as u64 {
                true => 0,
                false => leading(rest, is_zero),
            };
            let (skipped, later) = rest.split_at_checked(zeros).unwrap_or((rest, b""));
            let data = match size < HOLE as u64 {
                true => later.len(),
                false => leading(later, |window| !is_zero(window)),
            };
            let (now, later) = later.split_at_checked(data).unwrap_or((later, b""));
            offset = offset.saturating_add(skipped.len() as u64);
            if !now.is_empty() {
                write_all(to, now, offset).doing("write", path)?;
                offset = offset.saturating_add(now.len() as u64);
                end = offset;
            }
            rest = later;
        }
    }
    if end < size {
        file::truncate(to.as_fd(), size).doing("set the size of", path)?;
    }
    Ok(())
}

fn write_all(to: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> sys::Result<()> {
    while !bytes.is_empty() {
        // A short count comes before the error that made it short.
        let n = file::write_at(to.as_fd(), bytes, offset)?;
        if n == 0 {
            return Err(Errno::EIO);
        }
        bytes = bytes.get(n..).unwrap_or_default();
        offset = offset.saturating_add(n as u64);
    }
    Ok(())
}

/// Whether a part of a file may become a hole as a whole. Blocks are looked at as
/// wholes: a loop that ends at the first other byte is many times slower over zeros.
fn is_zero(window: &[u8]) -> bool {
    window
        .chunks(64)
        .all(|block| block.iter().fold(0, |all, b| all | b) == 0)
}

/// How many bytes in front are windows of a kind.
fn leading(bytes: &[u8], is: impl Fn(&[u8]) -> bool) -> usize {
    bytes
        .chunks(HOLE)
        .take_while(|window| is(window))
        .map(<[u8]>::len)
        .sum()
}
