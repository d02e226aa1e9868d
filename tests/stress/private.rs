//! What one process does in a directory that nobody else uses: every answer is known.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Random;
use super::block::{self, FileId};
use crate::support::snapshot::list;

/// The directory and what must be in it: name (may contain one `/`) → identity, None for a directory.
#[derive(Debug)]
pub struct Private {
    root: PathBuf,
    worker: u64,
    sequence: u64,
    known: BTreeMap<String, Option<FileId>>,
    /// Operations done.
    pub done: u64,
}

impl Private {
    /// Takes over the directory at `root` with the files that a lower gave it.
    pub fn new(root: &Path, worker: u64) -> Self {
        let mut known = BTreeMap::new();
        for (name, _, _) in list(root).unwrap() {
            let name = name.into_string().unwrap();
            let id = block::verify(&root.join(&name)).unwrap();
            known.insert(name, id);
        }
        Self {
            root: root.to_owned(),
            worker,
            sequence: 0,
            known,
            done: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn any(&self, random: &mut Random, directories: bool) -> Option<String> {
        let names: Vec<_> = self
            .known
            .iter()
            .filter(|(_, id)| id.is_none() == directories)
            .collect();
        (!names.is_empty()).then(|| names[random.below(names.len() as u64) as usize].0.clone())
    }

    /// A name that is free, in the directory itself or in one of its directories.
    fn free(&mut self, random: &mut Random) -> String {
        let dir = if random.below(2) == 0 {
            self.any(random, true)
        } else {
            None
        };
        let leaf = (0..).map(|_| format!("x{}", random.below(200)));
        let names = leaf.map(|leaf| {
            dir.as_ref()
                .map_or(leaf.clone(), |dir| format!("{dir}/{leaf}"))
        });
        names
            .into_iter()
            .find(|name| !self.known.contains_key(name))
            .unwrap()
    }

    /// One operation, and a look at what it did.
    pub fn step(&mut self, random: &mut Random) {
        self.done += 1;
        match random.below(12) {
            0..=2 => {
                let name = self.free(random);
                self.sequence += 1;
                let id = FileId::new(format!("w{}-{}", self.worker, self.sequence));
                block::create(&self.path(&name), &id, 1 + random.below(5))
                    .unwrap_or_else(|e| panic!("create {name}: {e}"));
                self.known.insert(name, Some(id));
            }
            3..=4 => self.unlink(random),
            5..=6 => self.rename(random),
            7 => {
                let name = format!("d{}", random.below(20));
                let made = fs::create_dir(self.path(&name));
                assert_eq!(
                    made.is_err(),
                    self.known.contains_key(&name),
                    "mkdir {name}: {made:?}"
                );
                self.known.insert(name, None);
            }
            8 => self.rmdir(random),
            9 => self.write(random),
            _ => self.look(random),
        }
        if self.known.len() > 150 {
            self.unlink(random);
        }
        if self.done.is_multiple_of(50) {
            self.check();
        }
    }

    fn unlink(&mut self, random: &mut Random) {
        let Some(name) = self.any(random, false) else {
            return;
        };
        fs::remove_file(self.path(&name)).unwrap_or_else(|e| panic!("unlink {name}: {e}"));
        self.known.remove(&name);
        let gone = self.path(&name).symlink_metadata();
        assert!(gone.is_err(), "{name} is still there after unlink");
    }

    fn rename(&mut self, random: &mut Random) {
        let Some(from) = self.any(random, false) else {
            return;
        };
        let to = if random.below(3) == 0 {
            self.any(random, false)
        } else {
            None
        };
        let to = to.unwrap_or_else(|| self.free(random));
        fs::rename(self.path(&from), self.path(&to))
            .unwrap_or_else(|e| panic!("rename {from} {to}: {e}"));
        if from != to {
            let id = self.known.remove(&from).unwrap();
            self.known.insert(to, id);
        }
    }

    fn rmdir(&mut self, random: &mut Random) {
        let Some(name) = self.any(random, true) else {
            return;
        };
        let inside = format!("{name}/");
        let empty = !self.known.keys().any(|known| known.starts_with(&inside));
        let removed = fs::remove_dir(self.path(&name));
        assert_eq!(
            removed.is_ok(),
            empty,
            "rmdir {name}: {removed:?}, known {:?}",
            self.known.keys()
        );
        if empty {
            self.known.remove(&name);
        }
    }

    fn write(&mut self, random: &mut Random) {
        let Some(name) = self.any(random, false) else {
            return;
        };
        let id = self.known[&name].clone().unwrap();
        let file = fs::OpenOptions::new()
            .write(true)
            .open(self.path(&name))
            .unwrap_or_else(|e| panic!("open {name}: {e}"));
        block::write(&file, &id, random.below(40)).unwrap_or_else(|e| panic!("write {name}: {e}"));
    }

    fn look(&self, random: &mut Random) {
        let Some(name) = self.any(random, false) else {
            return;
        };
        let meta = self
            .path(&name)
            .symlink_metadata()
            .unwrap_or_else(|e| panic!("stat {name}: {e}"));
        assert!(meta.is_file() && meta.nlink() == 1, "{name}: {meta:?}");
        let id = block::verify(&self.path(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(id, self.known[&name], "{name} is another file");
    }

    /// The listings are exactly what is known.
    pub fn check(&self) {
        let mut seen = Vec::new();
        self.walk("", &mut seen);
        let known: Vec<_> = self.known.keys().cloned().collect();
        seen.sort();
        assert_eq!(seen, known, "seen | known in {}", self.root.display());
    }

    fn walk(&self, below: &str, seen: &mut Vec<String>) {
        for (name, kind, _) in
            list(&self.path(below)).unwrap_or_else(|e| panic!("readdir {below}: {e}"))
        {
            let name = format!("{below}{}", name.to_str().unwrap());
            if kind == rustix::fs::FileType::Directory {
                self.walk(&format!("{name}/"), seen);
            }
            seen.push(name);
        }
    }
}
