//! A directory that holds what a mount is made of.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Where layers lie: the file system under them matters (reflinks, xattr limits, fsync).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// tmpfs, fast; no `user.` xattrs before Linux 6.6.
    Shm,
    /// `ACETATE_TEST_DIR`, else the temporary directory: usually a disk file system.
    Disk,
}

impl Base {
    /// The directory to make temporary directories in.
    pub fn dir(self) -> PathBuf {
        match self {
            Base::Shm if Path::new("/dev/shm").is_dir() => PathBuf::from("/dev/shm"),
            Base::Shm | Base::Disk => {
                std::env::var_os("ACETATE_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
            }
        }
    }
}

/// Lowers (topmost first, as in `lowerdir=`), upper, work and the mountpoint, all inside one temporary directory.
#[derive(Debug)]
pub struct Layers {
    /// The lowers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// The upper directory.
    pub upper: PathBuf,
    /// The work directory, beside the upper.
    pub work: PathBuf,
    /// The mountpoint.
    pub merged: PathBuf,
    /// The directory around them.
    pub root: PathBuf,
    /// False: mounted without upper and work, so read-only.
    pub writable: bool,
    temp: Option<TempDir>,
}

impl Layers {
    /// Empty layers: `count` lowers `l0` (topmost) … in a new directory under `base`.
    pub fn new(base: Base, count: usize) -> Self {
        let temp = tempfile::Builder::new()
            .prefix("acetate-test-")
            .tempdir_in(base.dir())
            .unwrap();
        // Other users must be able to walk to the mountpoint.
        set_mode(temp.path(), 0o755);
        let root = temp.path().to_owned();
        let lowers: Vec<_> = (0..count).map(|i| root.join(format!("l{i}"))).collect();
        let mut layers = Self::of(root, lowers);
        layers.temp = Some(temp);
        layers
    }

    /// Upper, work and mountpoint in `root` over lowers that lie anywhere; nothing is removed at the end.
    pub fn of(root: PathBuf, lowers: Vec<PathBuf>) -> Self {
        let layers = Self {
            upper: root.join("upper"),
            work: root.join("work"),
            merged: root.join("merged"),
            lowers,
            root,
            writable: true,
            temp: None,
        };
        for dir in layers
            .lowers
            .iter()
            .chain([&layers.upper, &layers.work, &layers.merged])
        {
            std::fs::create_dir_all(dir).unwrap();
        }
        layers
    }

    /// The same directories, which stay the property of this value.
    pub fn borrowed(&self) -> Self {
        Self {
            lowers: self.lowers.clone(),
            upper: self.upper.clone(),
            work: self.work.clone(),
            merged: self.merged.clone(),
            root: self.root.clone(),
            writable: self.writable,
            temp: None,
        }
    }

    /// The same lowers under a new empty upper (for a second mount of one stack).
    pub fn sibling(&self, base: Base) -> Self {
        let mut other = Self::new(base, 0);
        other.lowers = self.lowers.clone();
        other
    }

    /// The `lowerdir=…[,upperdir=…,workdir=…]` words of a mount of these layers.
    pub fn options(&self) -> String {
        let lowers: Vec<_> = self
            .lowers
            .iter()
            .map(|l| l.display().to_string())
            .collect();
        let mut words = format!("lowerdir={}", lowers.join(":"));
        if self.writable {
            words += &format!(
                ",upperdir={},workdir={}",
                self.upper.display(),
                self.work.display()
            );
        }
        words
    }

    /// A path under the mountpoint.
    pub fn at(&self, name: &str) -> PathBuf {
        self.merged.join(name)
    }

    /// Keeps the directory after the test, to look at it.
    pub fn keep(&mut self) {
        if let Some(temp) = self.temp.take() {
            let _kept = temp.keep();
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
