//! Making a random layer stack real.
//!
//! Items that do not fit (a file where a directory stands, a link to nothing) are left out: that is decided by
//! the file system, the same way every time. Times are old and all different, so that a directory whose mtime an
//! operation changed, or must not have changed, is told apart by value.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ops::{Item, Thing, Value};
use crate::support::raw::{self, c};

/// The value of an attribute as the kernel takes it.
pub fn value_bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Bytes(bytes) => bytes.clone(),
        Value::Capability => {
            // struct vfs_cap_data, revision 2, effective; permitted = CAP_NET_RAW.
            let words: [u32; 5] = [0x0200_0001, 1 << 13, 0, 0, 0];
            words.iter().flat_map(|w| w.to_le_bytes()).collect()
        }
        Value::Acl {
            user,
            named,
            group,
            mask,
            other,
        } => {
            let mut bytes = 2u32.to_le_bytes().to_vec();
            let mut entry = |tag: u16, perm: u16, id: u32| {
                bytes.extend(tag.to_le_bytes());
                bytes.extend(perm.to_le_bytes());
                bytes.extend(id.to_le_bytes());
            };
            entry(0x01, *user, u32::MAX);
            if let Some(named) = named {
                entry(0x02, *named, 1000);
            }
            entry(0x04, *group, u32::MAX);
            if named.is_some() {
                entry(0x10, *mask, u32::MAX);
            }
            entry(0x20, *other, u32::MAX);
            bytes
        }
    }
}

/// Fills the empty directory `root`; `marks` is the prefix of overlay attributes (`trusted.overlay.`).
pub fn build(root: &Path, items: &[Item], layer: usize, marks: &str) {
    let mut made: Vec<PathBuf> = Vec::new();
    for item in items {
        let path = root.join(std::ffi::OsStr::from_bytes(&item.path.bytes()));
        if !parents(root, &path, &mut made) || !object(root, &path, item, marks) {
            continue;
        }
        made.push(path);
    }
    made.push(root.to_owned());
    // Last made first: a directory's time is set after everything inside it.
    made.sort();
    made.dedup();
    for (i, path) in made.iter().enumerate().rev() {
        let time = 1_100_000_000 + i as i64 * 1000 + layer as i64;
        let spec = libc::timespec {
            tv_sec: time,
            tv_nsec: 1 + i as i64,
        };
        // SAFETY: a NUL-terminated path and two timespecs.
        unsafe {
            libc::utimensat(
                libc::AT_FDCWD,
                c(path.as_os_str().as_bytes()).as_ptr(),
                [spec, spec].as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
            )
        };
    }
}

fn parents(root: &Path, path: &Path, made: &mut Vec<PathBuf>) -> bool {
    let Some(parent) = path.parent() else {
        return false;
    };
    if path == root || parent == root {
        return true;
    }
    match parent.symlink_metadata() {
        Ok(meta) => meta.is_dir(),
        Err(_) => {
            let ok = parents(root, parent, made) && fs::create_dir(parent).is_ok();
            if ok {
                made.push(parent.to_owned());
            }
            ok
        }
    }
}

fn object(root: &Path, path: &Path, item: &Item, marks: &str) -> bool {
    let name = c(path.as_os_str().as_bytes());
    let exists = path.symlink_metadata();
    let done = match &item.thing {
        Thing::Dir | Thing::Opaque => {
            exists.is_ok_and(|m| m.is_dir()) || fs::create_dir(path).is_ok()
        }
        _ if exists.is_ok() => false,
        Thing::File { data, hole } => file(path, &data.bytes(), *hole),
        Thing::Symlink(target) => {
            std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&target.bytes()), path).is_ok()
        }
        Thing::Fifo => raw::mknod(&name, libc::S_IFIFO | 0o600, (0, 0)).is_ok(),
        Thing::Device => raw::mknod(&name, libc::S_IFCHR | 0o600, (1, 3)).is_ok(),
        Thing::Whiteout => return raw::mknod(&name, libc::S_IFCHR, (0, 0)).is_ok(),
        Thing::Link(to) => {
            let to = root.join(std::ffi::OsStr::from_bytes(&to.bytes()));
            // A link keeps the owner and mode of what it links to. No links to whiteouts: what a whiteout's link
            // count shows is nobody's business.
            return !is_whiteout(&to) && fs::hard_link(to, path).is_ok();
        }
    };
    if !done {
        return false;
    }
    if item.thing == Thing::Opaque {
        let _not_root = raw::set_xattr(&name, &c(format!("{marks}opaque")), b"y", 0);
    }
    // SAFETY: a NUL-terminated path.
    unsafe { libc::lchown(name.as_ptr(), item.owner, item.owner) };
    if !matches!(item.thing, Thing::Symlink(_)) {
        // SAFETY: a NUL-terminated path, and no symlink.
        unsafe { libc::chmod(name.as_ptr(), item.mode) };
    }
    if let Some((key, value)) = &item.xattr
        && !key.contains("overlay.")
    {
        let _may_be_refused = raw::set_xattr(&name, &c(key), &value_bytes(value), 0);
    }
    true
}

fn is_whiteout(path: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    path.symlink_metadata()
        .is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

fn file(path: &Path, data: &[u8], hole: bool) -> bool {
    use std::os::unix::fs::FileExt;
    let Ok(file) = fs::File::create_new(path) else {
        return false;
    };
    let at = if hole { 1 << 20 } else { 0 };
    file.write_all_at(data, at).is_ok()
}
