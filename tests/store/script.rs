//! The same changes made in two trees: what to do is decided by numbers and by what
//! stands in the first tree, and done in both. Times that the clock gives are set anew
//! after every change, so that the trees do not differ in them.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::crashes::Dice;

/// Does the same in every one of some trees.
#[derive(Debug)]
pub struct Script {
    trees: Vec<PathBuf>,
    dice: Dice,
    made: u64,
    /// What was done, for the message of a failed test.
    pub told: Vec<String>,
}

/// Most objects of a tree: above it only removals are done.
const MOST: usize = 120;

impl Script {
    pub fn new(trees: &[&Path], dice: Dice) -> Script {
        Script {
            trees: trees.iter().map(|t| t.to_path_buf()).collect(),
            dice,
            made: 0,
            told: Vec::new(),
        }
    }

    /// Everything in the first tree that fits, below its root.
    fn find(&self, fits: impl Fn(&fs::Metadata) -> bool) -> Vec<PathBuf> {
        let root = &self.trees[0];
        let mut found = Vec::new();
        let mut waiting = vec![root.clone()];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = path.symlink_metadata().unwrap();
                if meta.is_dir() {
                    waiting.push(path.clone());
                }
                if fits(&meta) {
                    found.push(path.strip_prefix(root).unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }

    fn pick(&mut self, fits: impl Fn(&fs::Metadata) -> bool) -> Option<PathBuf> {
        let found = self.find(fits);
        let at = self.dice.below(found.len().max(1) as u64);
        found.get(at as usize).cloned()
    }

    /// A directory, the root among them.
    fn pick_dir(&mut self) -> PathBuf {
        match self.dice.below(4) {
            0 => PathBuf::new(),
            _ => self.pick(fs::Metadata::is_dir).unwrap_or_default(),
        }
    }

    /// A name that is not taken.
    fn fresh(&mut self) -> PathBuf {
        self.made += 1;
        let name = format!("new-{}", self.made);
        self.pick_dir().join(name)
    }

    /// Does something in every tree; all must answer alike.
    fn each(&mut self, what: &str, act: impl Fn(&Path) -> std::io::Result<()>) {
        self.told.push(what.to_owned());
        let answers: Vec<_> = self
            .trees
            .iter()
            .map(|t| act(t).map_err(|e| e.raw_os_error()))
            .collect();
        assert!(
            answers.windows(2).all(|w| w[0] == w[1]),
            "{answers:?}: {:#?}",
            self.told
        );
    }

    /// Gives objects a time that is the same in every tree.
    fn settle(&mut self, paths: &[&Path]) {
        self.made += 1;
        let time = Timespec {
            tv_sec: 1_700_000_000 + self.made as i64,
            tv_nsec: 123_456_789,
        };
        self.settle_at(paths, time);
    }

    fn settle_at(&mut self, paths: &[&Path], time: Timespec) {
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        for tree in &self.trees {
            for path in paths {
                let at = tree.join(path);
                if at.symlink_metadata().is_ok() {
                    rustix::fs::utimensat(CWD, &at, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
                }
            }
        }
    }

    fn settle_made(&mut self, path: &Path) {
        self.settle(&[path, above(path)]);
    }

    /// Makes a change of a random kind.
    pub fn step(&mut self) {
        let full = self.find(|_| true).len() > MOST;
        match self.dice.below(if full { 4 } else { 26 }) {
            0 => self.remove_file(),
            1 | 2 => self.remove_dir(),
            3 => self.renew_dir(),
            4 | 5 => self.new_file(),
            6 | 7 => self.overwrite(),
            8 => self.same_size_same_time(),
            9 => self.new_dir(),
            10 | 11 => self.rename_file(),
            12 | 13 => self.rename_dir(),
            14 => self.away_and_back(),
            15 => self.chmod(),
            16 => self.chown(),
            17 => self.set_xattr(),
            18 => self.remove_xattr(),
            19 | 20 => self.hard_link(),
            21 => self.symlink(),
            22 => self.other_type(),
            23 | 24 => self.renew_dir(),
            _ => self.special(),
        }
    }

    fn new_file(&mut self) {
        let path = self.fresh();
        let text = format!("{}\n", path.display());
        self.each(&format!("write {path:?}"), |t| {
            fs::write(t.join(&path), &text)
        });
        self.settle_made(&path);
    }

    fn overwrite(&mut self) {
        let Some(path) = self.pick(fs::Metadata::is_file) else {
            return;
        };
        self.made += 1;
        let (text, append) = (format!("text {}\n", self.made), self.dice.below(2) == 0);
        self.each(&format!("overwrite {path:?} append {append}"), |t| {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .append(append)
                .truncate(!append)
                .open(t.join(&path))?;
            file.write_all(text.as_bytes())
        });
        self.settle(&[&path]);
    }

    /// A change that only its ctime tells of.
    fn same_size_same_time(&mut self) {
        let Some(path) = self.pick(|m| m.is_file() && m.len() > 0) else {
            return;
        };
        let before = self.trees[0].join(&path).metadata().unwrap();
        self.each(&format!("flip a byte of {path:?}"), |t| {
            let mut bytes = fs::read(t.join(&path))?;
            bytes[0] ^= 1;
            let file = fs::OpenOptions::new().write(true).open(t.join(&path))?;
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes[..1], 0)
        });
        let time = Timespec {
            tv_sec: before.mtime(),
            tv_nsec: before.mtime_nsec(),
        };
        self.settle_at(&[&path], time);
    }

    fn remove_file(&mut self) {
        if let Some(path) = self.pick(|m| !m.is_dir()) {
            self.each(&format!("remove {path:?}"), |t| {
                fs::remove_file(t.join(&path))
            });
            self.settle(&[above(&path)]);
        }
    }

    fn remove_dir(&mut self) {
        if let Some(path) = self.pick(fs::Metadata::is_dir) {
            self.each(&format!("remove all of {path:?}"), |t| {
                fs::remove_dir_all(t.join(&path))
            });
            self.settle(&[above(&path)]);
        }
    }

    /// A directory is removed and made again: it hides what the layers have.
    fn renew_dir(&mut self) {
        let Some(path) = self.pick(fs::Metadata::is_dir) else {
            return;
        };
        let filled = self.dice.below(2) == 0;
        self.each(&format!("renew {path:?}, filled {filled}"), |t| {
            fs::remove_dir_all(t.join(&path))?;
            fs::create_dir(t.join(&path))?;
            match filled {
                true => fs::write(t.join(&path).join("fresh"), "fresh\n"),
                false => Ok(()),
            }
        });
        self.settle(&[&path.join("fresh"), &path, above(&path)]);
    }

    fn new_dir(&mut self) {
        let path = self.fresh();
        self.each(&format!("mkdir {path:?}"), |t| {
            fs::create_dir(t.join(&path))
        });
        self.settle_made(&path);
    }

    fn rename_file(&mut self) {
        let Some(from) = self.pick(|m| !m.is_dir()) else {
            return;
        };
        let over = match self.dice.below(2) {
            0 => self.pick(|m| !m.is_dir()),
            _ => None,
        };
        let to = over.unwrap_or_else(|| self.fresh());
        self.rename(&from, &to);
    }

    fn rename_dir(&mut self) {
        let Some(from) = self.pick(fs::Metadata::is_dir) else {
            return;
        };
        let to = self.fresh();
        if !to.starts_with(&from) {
            self.rename(&from, &to);
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        self.each(&format!("rename {from:?} to {to:?}"), |t| {
            fs::rename(t.join(from), t.join(to))
        });
        self.settle(&[above(from), above(to)]);
    }

    fn away_and_back(&mut self) {
        let Some(from) = self.pick(|_| true) else {
            return;
        };
        let to = self.fresh();
        if !to.starts_with(&from) {
            self.rename(&from, &to);
            self.rename(&to, &from);
        }
    }

    fn chmod(&mut self) {
        let modes = [0o600, 0o644, 0o755, 0o700, 0o4755, 0o2750, 0o1777, 0];
        let mode = modes[self.dice.below(modes.len() as u64) as usize];
        if let Some(path) = self.pick(|m| !m.is_symlink()) {
            self.each(&format!("chmod {mode:o} {path:?}"), |t| {
                fs::set_permissions(t.join(&path), fs::Permissions::from_mode(mode))
            });
        }
    }

    fn chown(&mut self) {
        let (uid, gid) = (self.dice.below(3) as u32, self.dice.below(3) as u32);
        if let Some(path) = self.pick(|_| true) {
            self.each(&format!("chown {uid}:{gid} {path:?}"), |t| {
                std::os::unix::fs::lchown(t.join(&path), Some(uid), Some(gid))
            });
        }
    }

    fn set_xattr(&mut self) {
        self.made += 1;
        let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // Owner rw, user 7 r, group r, mask r, others r.
        let mut acl = vec![2u8, 0, 0, 0];
        for (tag, perm, id) in [
            (1u16, 6u16, u32::MAX),
            (2, 4, 7),
            (4, 4, u32::MAX),
            (16, 4, u32::MAX),
            (32, 4, u32::MAX),
        ] {
            acl.extend(tag.to_le_bytes());
            acl.extend(perm.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        let number = self.made.to_string();
        let (name, value) = match self.dice.below(5) {
            0 => ("security.capability", capability),
            1 => ("trusted.note", number.as_bytes()),
            2 => ("system.posix_acl_access", &acl[..]),
            3 => ("user.overlay.opaque", &b"y"[..]),
            _ => ("user.note", number.as_bytes()),
        };
        if let Some(path) = self.pick(fs::Metadata::is_file) {
            self.each(&format!("setxattr {name} {path:?}"), |t| {
                rustix::fs::lsetxattr(t.join(&path), name, value, XattrFlags::empty())
                    .map_err(Into::into)
            });
        }
    }

    fn remove_xattr(&mut self) {
        if let Some(path) = self.pick(fs::Metadata::is_file) {
            self.each(&format!("removexattr user.note {path:?}"), |t| {
                rustix::fs::lremovexattr(t.join(&path), "user.note").map_err(Into::into)
            });
        }
    }

    fn hard_link(&mut self) {
        if let Some(from) = self.pick(|m| !m.is_dir()) {
            let to = self.fresh();
            self.each(&format!("link {from:?} {to:?}"), |t| {
                fs::hard_link(t.join(&from), t.join(&to))
            });
            self.settle(&[above(&to)]);
        }
    }

    fn symlink(&mut self) {
        let path = self.fresh();
        let target: OsString = format!("nowhere-{}", self.made).into();
        self.each(&format!("symlink {path:?}"), |t| {
            std::os::unix::fs::symlink(&target, t.join(&path))
        });
        self.settle_made(&path);
    }

    /// Something else under the same name.
    fn other_type(&mut self) {
        let Some(path) = self.pick(|_| true) else {
            return;
        };
        self.each(&format!("another type of {path:?}"), |t| {
            let at = t.join(&path);
            let kind = at.symlink_metadata()?.file_type();
            match kind.is_dir() {
                true => fs::remove_dir_all(&at)?,
                false => fs::remove_file(&at)?,
            }
            match kind {
                k if k.is_dir() => fs::write(&at, "was a directory\n"),
                k if k.is_file() => fs::create_dir(&at),
                k if k.is_fifo() => std::os::unix::fs::symlink("was-a-fifo", &at),
                _ => fs::write(&at, "was something\n"),
            }
        });
        self.settle_made(&path);
    }

    fn special(&mut self) {
        let path = self.fresh();
        let (kind, dev) = match self.dice.below(2) {
            0 => (FileType::Fifo, 0),
            _ => (FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        };
        self.each(&format!("{kind:?} {path:?}"), |t| {
            let mode = Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(CWD, t.join(&path), kind, mode, dev).map_err(Into::into)
        });
        self.settle_made(&path);
    }
}

fn above(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}
