//! A whole tree as a value, and the readable difference of two.
//!
//! Taking one also checks what must hold of any directory: `d_type` and `d_ino` agree with `stat`, no name
//! appears twice, every listed name can be looked up, and no inode number is 0.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::hash::Hasher;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags};

use super::raw;

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Type as one letter: `f d l p s c b`.
    pub kind: char,
    /// Permission bits with suid, sgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size of files and symlinks, 0 for the others (a directory's size is the file system's own affair).
    pub size: u64,
    /// Content of a file as a hash and its first bytes, target of a symlink.
    pub content: String,
    /// Device number of device nodes.
    pub rdev: u64,
    /// Link count.
    pub nlink: u64,
    /// The first name (in order) of the same inode.
    pub same_as: String,
    /// Every extended attribute that can be seen.
    pub xattrs: BTreeMap<String, String>,
    /// Modification time.
    pub mtime: (i64, i64),
    /// Inode number.
    pub ino: u64,
}

/// A tree: relative name (escaped where it is not ASCII) → object; the root is `.`.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The objects.
    pub objects: BTreeMap<String, Object>,
    /// What is wrong with the tree in itself.
    pub faults: Vec<String>,
}

/// What a comparison looks at beside names, types, modes, owners, sizes and contents.
#[derive(Clone, Copy, Debug)]
pub struct Facets {
    /// Extended attributes.
    pub xattrs: bool,
    /// Link counts of everything but directories, and which names are one file.
    pub links: bool,
    /// Modification times of everything but directories.
    pub mtimes: bool,
    /// Modification times of directories.
    pub dir_mtimes: bool,
    /// Inode numbers.
    pub inos: bool,
}

impl Facets {
    /// What two mounts of the same layers must agree on.
    pub const TREE: Self = Self {
        xattrs: true,
        links: true,
        mtimes: false,
        dir_mtimes: false,
        inos: false,
    };
    /// What must not change over a remount.
    pub const REMOUNT: Self = Self {
        mtimes: true,
        dir_mtimes: true,
        ..Self::TREE
    };
}

impl Snapshot {
    /// Reads the whole tree at `root`. A name that is listed but cannot be read is a fault, not a panic.
    pub fn of(root: &Path) -> Self {
        let mut walk = Walk {
            snapshot: Self::default(),
            inodes: HashMap::new(),
        };
        match root.symlink_metadata() {
            Ok(meta) => walk.object(root, ".", &meta),
            Err(e) => walk.fault(".", &format!("stat: {e}")),
        }
        walk.snapshot
    }

    /// The names.
    pub fn names(&self) -> Vec<&str> {
        self.objects.keys().map(String::as_str).collect()
    }

    /// For a tree of kernel overlayfs (6.18), which has two faults that are not ours: it lists the whiteouts of a
    /// directory that only one lower has (it hands on that directory's own readdir), then denies them; and in a
    /// directory of the upper alone, `d_ino` of a copied-up object is not always its `st_ino`.
    pub fn forgive_the_kernel(mut self) -> Self {
        self.faults.retain(|fault| {
            let stray =
                fault.ends_with("listed, but stat says No such file or directory (os error 2)");
            !stray && !fault.contains(": d_ino ")
        });
        self
    }

    /// Panics if the tree is wrong in itself.
    pub fn assert_sound(&self, what: &str) {
        assert!(self.faults.is_empty(), "{what}: {:#?}", self.faults);
    }
}

struct Walk {
    snapshot: Snapshot,
    inodes: HashMap<(u64, u64), String>,
}

impl Walk {
    fn fault(&mut self, name: &str, what: &str) {
        self.snapshot.faults.push(format!("{name}: {what}"));
    }

    fn object(&mut self, path: &Path, name: &str, meta: &std::fs::Metadata) {
        let kind = letter(FileType::from_raw_mode(meta.mode()));
        if meta.ino() == 0 {
            self.fault(name, "st_ino is 0");
        }
        let content = match kind {
            'f' => file_content(path).unwrap_or_else(|e| self.failed(name, "read", &e)),
            'l' => std::fs::read_link(path)
                .map(|t| t.display().to_string())
                .unwrap_or_else(|e| self.failed(name, "readlink", &e)),
            _ => String::new(),
        };
        let xattrs = self.xattrs(path, name);
        let same_as = match kind {
            'd' => name.to_owned(),
            _ => self
                .inodes
                .entry((meta.dev(), meta.ino()))
                .or_insert_with(|| name.to_owned())
                .clone(),
        };
        let object = Object {
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            size: if matches!(kind, 'f' | 'l') {
                meta.size()
            } else {
                0
            },
            content,
            rdev: if matches!(kind, 'c' | 'b') {
                meta.rdev()
            } else {
                0
            },
            nlink: meta.nlink(),
            same_as,
            xattrs,
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ino: meta.ino(),
        };
        self.snapshot.objects.insert(name.to_owned(), object);
        if kind == 'd' {
            self.children(path, name);
        }
    }

    fn failed(&mut self, name: &str, call: &str, e: &std::io::Error) -> String {
        self.fault(name, &format!("{call}: {e}"));
        format!("<{call}: {e}>")
    }

    fn children(&mut self, path: &Path, name: &str) {
        let listing = match list(path) {
            Ok(listing) => listing,
            Err(e) => return self.fault(name, &format!("readdir: {e}")),
        };
        let mut before: Option<OsString> = None;
        for (child, kind, ino) in listing {
            let shown = child.as_bytes().escape_ascii();
            let relative = if name == "." {
                shown.to_string()
            } else {
                format!("{name}/{shown}")
            };
            if before.as_ref() == Some(&child) {
                self.fault(&relative, "listed twice");
            }
            before = Some(child.clone());
            let full = path.join(&child);
            match full.symlink_metadata() {
                Err(e) => self.fault(&relative, &format!("listed, but stat says {e}")),
                Ok(meta) => {
                    let real = FileType::from_raw_mode(meta.mode());
                    if kind != FileType::Unknown && kind != real {
                        self.fault(&relative, &format!("d_type {kind:?}, stat {real:?}"));
                    }
                    if ino != meta.ino() {
                        self.fault(&relative, &format!("d_ino {ino}, st_ino {}", meta.ino()));
                    }
                    self.object(&full, &relative, &meta);
                }
            }
        }
    }

    fn xattrs(&mut self, path: &Path, name: &str) -> BTreeMap<String, String> {
        let path = raw::c(path.as_os_str().as_bytes());
        let mut all = BTreeMap::new();
        let names = match raw::list_xattrs(&path) {
            Ok(names) => names,
            Err(libc::ENOTSUP) => return all,
            Err(e) => {
                self.fault(name, &format!("listxattr: {}", raw::errno_name(e)));
                return all;
            }
        };
        for key in names {
            let text = key.escape_ascii().to_string();
            match raw::get_xattr(&path, &raw::c(&key)) {
                Ok(value) => drop(all.insert(text, value.escape_ascii().to_string())),
                Err(e) => self.fault(
                    name,
                    &format!("xattr {text} listed, but {}", raw::errno_name(e)),
                ),
            }
        }
        all
    }
}

/// The entries of a directory but `.` and `..`, sorted by name.
pub fn list(path: &Path) -> std::io::Result<Vec<(OsString, FileType, u64)>> {
    let fd = rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut all = Vec::new();
    for entry in Dir::new(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            all.push((
                OsStr::from_bytes(name).to_owned(),
                entry.file_type(),
                entry.ino(),
            ));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

fn file_content(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0u8; 128 << 10];
    let mut head = Vec::new();
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.write(&buffer[..n]);
        if head.len() < 12 {
            head.extend_from_slice(&buffer[..n.min(12)]);
        }
    }
    Ok(format!("{:016x} {}", hasher.finish(), head.escape_ascii()))
}

fn letter(kind: FileType) -> char {
    match kind {
        FileType::RegularFile => 'f',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Unknown => '?',
    }
}

/// The differences of two trees by [`Facets::TREE`], one line each; empty if they are equal and sound.
pub fn diff(a: &Snapshot, b: &Snapshot) -> Vec<String> {
    diff_with(a, b, Facets::TREE)
}

/// As [`diff`], looking at what `facets` says.
pub fn diff_with(a: &Snapshot, b: &Snapshot, facets: Facets) -> Vec<String> {
    let mut lines: Vec<_> = a
        .faults
        .iter()
        .map(|f| format!("first tree: {f}"))
        .collect();
    lines.extend(b.faults.iter().map(|f| format!("second tree: {f}")));
    for (name, x) in &a.objects {
        match b.objects.get(name) {
            None => lines.push(format!(
                "{name}: only in the first ({} {:o})",
                x.kind, x.mode
            )),
            Some(y) => {
                let what = differences(x, y, facets);
                if !what.is_empty() {
                    lines.push(format!("{name} ({}): {}", x.kind, what.join("; ")));
                }
            }
        }
    }
    for (name, y) in b
        .objects
        .iter()
        .filter(|(name, _)| !a.objects.contains_key(*name))
    {
        lines.push(format!(
            "{name}: only in the second ({} {:o})",
            y.kind, y.mode
        ));
    }
    lines
}

fn differences(x: &Object, y: &Object, facets: Facets) -> Vec<String> {
    let mut what = Vec::new();
    let mut say = |label: &str, same: bool, a: String, b: String| {
        if !same {
            what.push(format!("{label} {a} | {b}"));
        }
    };
    let dir = x.kind == 'd' && y.kind == 'd';
    say("type", x.kind == y.kind, x.kind.into(), y.kind.into());
    say(
        "mode",
        x.mode == y.mode,
        format!("{:o}", x.mode),
        format!("{:o}", y.mode),
    );
    say("uid", x.uid == y.uid, x.uid.to_string(), y.uid.to_string());
    say("gid", x.gid == y.gid, x.gid.to_string(), y.gid.to_string());
    say(
        "size",
        x.size == y.size,
        x.size.to_string(),
        y.size.to_string(),
    );
    say(
        "content",
        x.content == y.content,
        x.content.clone(),
        y.content.clone(),
    );
    say(
        "rdev",
        x.rdev == y.rdev,
        x.rdev.to_string(),
        y.rdev.to_string(),
    );
    if facets.links && !dir {
        say(
            "nlink",
            x.nlink == y.nlink,
            x.nlink.to_string(),
            y.nlink.to_string(),
        );
        say(
            "same file as",
            x.same_as == y.same_as,
            x.same_as.clone(),
            y.same_as.clone(),
        );
    }
    if facets.xattrs {
        say(
            "xattrs",
            x.xattrs == y.xattrs,
            format!("{:?}", x.xattrs),
            format!("{:?}", y.xattrs),
        );
    }
    if (facets.mtimes && !dir) || (facets.dir_mtimes && dir) {
        say(
            "mtime",
            x.mtime == y.mtime,
            format!("{:?}", x.mtime),
            format!("{:?}", y.mtime),
        );
    }
    if facets.inos {
        say("ino", x.ino == y.ino, x.ino.to_string(), y.ino.to_string());
    }
    what
}
