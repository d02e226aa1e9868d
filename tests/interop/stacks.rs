//! Random stacks of layers whose directories and files carry the kernel's own marks in every combination: redirects
//! to names and paths (some of them nonsense), opaque marks, whiteouts of both kinds, metacopies, and layers that
//! hold data only. Read by kernel overlayfs and by acetate, read only; the answers must be the same.
//!
//! Not generated: redirects with `.` or `..`, which the kernel takes or refuses as the layers below happen to be, and
//! acetate never follows; whiteouts by xattr in directories without `opaque=x`, which the kernel lists and cannot find
//! (the format asks for the mark, and acetate takes such a file for a file).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{whiteout, xattr};
use crate::support::host::own_mounts;
use crate::support::{Base, Kind, Layers, Mount};
use crate::support::{require_fuse, require_kernel_overlay, require_root};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Stacks of each kind.
const STACKS: u64 = 300;

/// What the layers may carry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carried {
    /// Redirects, also such as say nothing.
    Redirects,
    /// Metacopies, redirects that can be read, and layers of data.
    Metacopies,
}

/// splitmix64; and how many of [`NAMES`] it gives: fewer names and deeper trees meet more often.
struct Chance(u64, u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }

    fn name(&mut self) -> &'static str {
        let n = self.below(self.1);
        NAMES[usize::try_from(n).unwrap()]
    }

    fn names(&self) -> &'static [&'static str] {
        &NAMES[..usize::try_from(self.1).unwrap()]
    }

    fn deepest(&self) -> u32 {
        if self.1 < 5 { 4 } else { 3 }
    }

    fn redirect(&mut self, carried: Carried) -> String {
        match self.below(20) {
            0..=8 => (0..=self.below(u64::from(self.deepest())))
                .map(|_| format!("/{}", self.name()))
                .collect(),
            9..=17 => self.name().to_owned(),
            18 if carried == Carried::Redirects => {
                ["", "/", "a/b", "/a//b", "/a/"][usize::try_from(self.below(5)).unwrap()].to_owned()
            }
            _ => "/nowhere".to_owned(),
        }
    }
}

/// Fills a directory of a layer.
fn fill(chance: &mut Chance, dir: &Path, depth: u32, carried: Carried) {
    let mut holds_xattr_whiteouts = false;
    for name in chance.names() {
        if !chance.percent(if depth == 0 { 70 } else { 40 }) {
            continue;
        }
        let path = dir.join(name);
        match chance.below(100) {
            0..=44 if depth < chance.deepest() => {
                fs::create_dir(&path).unwrap();
                match chance.below(10) {
                    0 | 2 => xattr(&path, "trusted.overlay.opaque", "y"),
                    1 => xattr(&path, "trusted.overlay.opaque", "n"),
                    _ => {}
                }
                if chance.percent(25) {
                    let to = chance.redirect(carried);
                    xattr(&path, "trusted.overlay.redirect", &to);
                }
                fill(chance, &path, depth + 1, carried);
            }
            45..=59 => whiteout(&path),
            60..=67 => {
                fs::write(&path, "").unwrap();
                xattr(&path, "trusted.overlay.whiteout", "y");
                holds_xattr_whiteouts = true;
            }
            68..=70 => std::os::unix::fs::symlink(chance.name(), &path).unwrap(),
            _ => plain(chance, &path, carried),
        }
    }
    if holds_xattr_whiteouts {
        xattr(dir, "trusted.overlay.opaque", "x");
    }
}

/// A file that says where it was made; perhaps a metacopy of one.
fn plain(chance: &mut Chance, path: &Path, carried: Carried) {
    fs::write(path, format!("{:08x}", chance.next() as u32)).unwrap();
    let mode = if chance.percent(30) { 0o4755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if carried == Carried::Metacopies && chance.percent(40) {
        fs::write(path, "").unwrap();
        fs::File::options()
            .write(true)
            .open(path)
            .and_then(|f| f.set_len(8))
            .unwrap();
        xattr(path, "trusted.overlay.metacopy", "");
        if chance.percent(60) {
            let to = chance.redirect(carried);
            xattr(path, "trusted.overlay.redirect", &to);
        }
    }
}

/// Layers, and how many of them hold data only.
fn stack(seed: u64, carried: Carried) -> (Layers, u64) {
    let mut chance = Chance(seed, if seed.is_multiple_of(2) { 5 } else { 3 });
    let count = 2 + chance.below(7);
    let data = match carried {
        Carried::Metacopies => chance.below(3),
        Carried::Redirects => 0,
    };
    let mut layers = Layers::new(Base::Shm, usize::try_from(count + data).unwrap());
    layers.writable = false;
    for lower in &layers.lowers[..usize::try_from(count).unwrap()] {
        fill(&mut chance, lower, 0, carried);
    }
    for lower in &mut layers.lowers[usize::try_from(count).unwrap()..] {
        for name in NAMES {
            let place = lower.join(chance.name());
            if chance.percent(50) || place.is_file() {
                continue;
            }
            let place = if chance.percent(50) {
                fs::create_dir_all(&place).unwrap();
                place.join(name)
            } else {
                place
            };
            if !place.exists() {
                fs::write(&place, format!("{:08x}", chance.next() as u32)).unwrap();
            }
        }
        // `::` stands before it.
        *lower = PathBuf::from(format!(":{}", lower.display()));
    }
    (layers, data)
}

/// What is at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// Type, mode, size of a file, content or target.
    Object(&'static str, u32, u64, String),
    /// It can be found, but not opened.
    Shut(i32),
    /// It cannot be found.
    Error(i32),
    /// It is listed and not there.
    OnlyListed,
    /// It is there and not listed.
    NotListed,
}

fn number(error: io::Error) -> i32 {
    error.raw_os_error().unwrap()
}

fn look(path: &Path, name: &str, depth: u32, out: &mut BTreeMap<String, Seen>) {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return,
        Err(e) => {
            out.insert(name.to_owned(), Seen::Error(number(e)));
            return;
        }
    };
    let kind = meta.file_type();
    let mode = meta.mode() & 0o7777;
    let seen = if kind.is_dir() {
        Seen::Object("directory", mode, 0, String::new())
    } else if kind.is_symlink() {
        let to = fs::read_link(path).unwrap();
        Seen::Object("symlink", mode, 0, to.display().to_string())
    } else if kind.is_file() {
        match fs::read_to_string(path) {
            Ok(text) => Seen::Object("file", mode, meta.size(), text),
            Err(e) => Seen::Shut(number(e)),
        }
    } else {
        assert!(kind.is_char_device());
        Seen::Object("device", mode, 0, String::new())
    };
    out.insert(name.to_owned(), seen);
    if !kind.is_dir() || depth == 6 {
        return;
    }
    let listed: Option<BTreeSet<String>> = fs::read_dir(path)
        .and_then(|all| {
            all.map(|e| Ok(e?.file_name().into_string().unwrap()))
                .collect()
        })
        .ok();
    for child in NAMES {
        let below = format!("{name}/{child}");
        look(&path.join(child), &below, depth + 1, out);
        // The kernel gives no list at all where one of the names cannot be shown.
        let Some(listed) = &listed else { continue };
        match (listed.contains(child), out.contains_key(&below)) {
            (true, false) => out.insert(below, Seen::OnlyListed),
            (false, true) if !matches!(out[&below], Seen::Error(_)) => {
                out.insert(below, Seen::NotListed)
            }
            _ => None,
        };
    }
}

/// Whether the kernel's answer stands for ours although they differ.
fn meant(kernel: Option<&Seen>, ours: Option<&Seen>, data: u64) -> bool {
    match (kernel, ours) {
        // The kernel lists the whiteouts of directories that only one layer has.
        (Some(Seen::OnlyListed), None) => true,
        // With layers of data the kernel looks for the data when the file is opened, we when it is looked up.
        (Some(Seen::Shut(libc::ENOENT | libc::ENOTDIR)), Some(Seen::Error(libc::EIO))) => data > 0,
        // Where a merged layer has a directory on the way, the kernel does not ask the layers of data; we do.
        (Some(Seen::Error(libc::EIO)), Some(Seen::Object("file", _, 8, text))) => {
            data > 0 && text.len() == 8
        }
        _ => false,
    }
}

fn compare(carried: Carried, options: &str) {
    if !(require_root() && require_fuse() && require_kernel_overlay()) {
        return;
    }
    own_mounts();
    for seed in 0..STACKS {
        let (layers, data) = stack(seed, carried);
        let [kernel, ours] = [Kind::Kernel, Kind::Acetate].map(|kind| {
            let mount = Mount::with(kind, &layers, options);
            let mut seen = BTreeMap::new();
            look(&layers.merged, "", 0, &mut seen);
            mount.unmount();
            seen
        });
        let paths: BTreeSet<_> = kernel.keys().chain(ours.keys()).collect();
        for path in paths {
            let (k, o) = (kernel.get(path), ours.get(path));
            assert!(
                k == o || meant(k, o, data),
                "stack {seed}, {options}: {path}: kernel {k:?}, acetate {o:?}"
            );
        }
    }
}

#[test]
fn redirects_that_are_followed_lead_where_the_kernels_lead() {
    compare(Carried::Redirects, "redirect_dir=follow,metacopy=off");
}

#[test]
fn redirects_that_are_not_followed_are_refused_as_by_the_kernel() {
    compare(Carried::Redirects, "redirect_dir=nofollow,metacopy=off");
}

#[test]
fn metacopies_have_the_data_that_the_kernel_finds() {
    compare(Carried::Metacopies, "redirect_dir=follow,metacopy=on");
}
