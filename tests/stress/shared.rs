//! What one process does where the others are too: any of the ordinary refusals is right, anything else is wrong.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::block::{self, FileId};
use super::{Random, SHARED};
use crate::support::snapshot::list;

/// Refusals that follow from somebody having been faster, or from a random choice that makes no sense.
const ORDINARY: &[i32] = &[
    libc::ENOENT,
    libc::EEXIST,
    libc::ENOTEMPTY,
    libc::ENOTDIR,
    libc::EISDIR,
    // rename of a directory into itself
    libc::EINVAL,
];

/// The shared directories.
#[derive(Debug)]
pub struct Shared {
    root: PathBuf,
    worker: u64,
    sequence: u64,
    /// Files kept open while their names move, go, and are used again.
    held: Vec<(File, FileId)>,
    /// Operations that succeeded.
    pub done: u64,
}

impl Shared {
    /// In the mount at `root`.
    pub fn new(root: &Path, worker: u64) -> Self {
        Self {
            root: root.to_owned(),
            worker,
            sequence: 0,
            held: Vec::new(),
            done: 0,
        }
    }

    fn dir(&self, random: &mut Random) -> PathBuf {
        let dir = self
            .root
            .join(SHARED[random.below(SHARED.len() as u64) as usize]);
        match random.below(6) {
            0 => dir.join("sub"),
            1 => dir.join("sub/deep"),
            2 => dir.join(format!("d{}", random.below(6))),
            _ => dir,
        }
    }

    fn name(&self, random: &mut Random) -> PathBuf {
        self.dir(random).join(format!("n{}", random.below(40)))
    }

    fn count(&mut self, what: &str, result: io::Result<()>) {
        match result {
            Ok(()) => self.done += 1,
            Err(e) if e.raw_os_error().is_some_and(|n| ORDINARY.contains(&n)) => {}
            Err(e) => panic!("{what}: {e}"),
        }
    }

    /// One operation.
    pub fn step(&mut self, random: &mut Random) {
        let name = self.name(random);
        let what = random.below(25);
        let result = match what {
            0..=4 => {
                self.sequence += 1;
                let id = FileId::new(format!("W{}-{}", self.worker, self.sequence));
                block::create(&name, &id, 1 + random.below(5))
            }
            5..=6 => write(&name, random),
            7..=8 => fs::remove_file(&name),
            9..=10 => fs::rename(&name, self.name(random)),
            11 => fs::hard_link(&name, self.name(random)),
            12 => fs::create_dir(self.directory(random)),
            13 => fs::remove_dir(self.directory(random)),
            14 => fs::rename(self.directory(random), self.directory(random)),
            15 => shrink(&name),
            20..=21 => self.hold(&name),
            22..=24 => self.use_held(random),
            16..=17 => {
                let dir = self.dir(random);
                walk(&dir)
            }
            _ => block::verify(&name).map(|_| ()).map_err(io::Error::other),
        };
        self.count(&format!("operation {what} on {}", name.display()), result);
    }

    fn hold(&mut self, name: &Path) -> io::Result<()> {
        let file = fs::OpenOptions::new().read(true).write(true).open(name)?;
        if let Some(id) = block::identity(&file)? {
            if self.held.len() >= 16 {
                self.held.remove(0);
            }
            self.held.push((file, id));
        }
        Ok(())
    }

    /// An open file stays the file it was, whatever became of its names.
    fn use_held(&mut self, random: &mut Random) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let (file, id) = &self.held[random.below(self.held.len() as u64) as usize];
        if random.below(2) == 0 {
            block::write(file, id, 1 + random.below(60))?;
        }
        match block::verify_open(file).map_err(io::Error::other)? {
            Some(found) if found != *id => Err(io::Error::other(format!(
                "{id:?} was opened, {found:?} is read"
            ))),
            _ => Ok(()),
        }
    }

    fn directory(&self, random: &mut Random) -> PathBuf {
        let top = self
            .root
            .join(SHARED[random.below(SHARED.len() as u64) as usize]);
        match random.below(5) {
            0 => top.join("sub"),
            n => top.join(format!("d{n}")),
        }
    }
}

/// Writes one block, as the file that the descriptor says it is.
fn write(name: &Path, random: &mut Random) -> io::Result<()> {
    let file = fs::OpenOptions::new().read(true).write(true).open(name)?;
    match block::identity(&file)? {
        Some(id) => block::write(&file, &id, 1 + random.below(60)),
        None => Ok(()),
    }
}

/// Keeps the first block: the identity stays.
fn shrink(name: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new().read(true).write(true).open(name)?;
    if block::identity(&file)?.is_some() {
        file.set_len(block::BLOCK)
    } else {
        Ok(())
    }
}

/// Lists and looks at everything listed: it may be gone by then, and nothing else.
fn walk(dir: &Path) -> io::Result<()> {
    for (name, _, ino) in list(dir)? {
        if ino == 0 {
            return Err(io::Error::other(format!(
                "{name:?} is listed with inode number 0"
            )));
        }
        match dir.join(&name).symlink_metadata() {
            Ok(_) => {}
            Err(e) if e.raw_os_error().is_some_and(|n| ORDINARY.contains(&n)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
