//! What a mount says of the requests it has served.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// `_IOR('A', 1, [u8; 8192])`: the statistics of a mount, asked of its root directory.
const STATS: libc::c_ulong = (2 << 30) | (8192 << 16) | (0x41 << 8) | 1;

/// How many requests of each kind there were.
pub fn all(root: &File) -> BTreeMap<String, u64> {
    let mut text = vec![0_u8; 8192];
    // SAFETY: the request says that 8192 bytes are written, and the buffer has them.
    let rc = unsafe { libc::ioctl(root.as_raw_fd(), STATS, text.as_mut_ptr()) };
    assert_eq!(
        rc,
        0,
        "the statistics ioctl: {}",
        std::io::Error::last_os_error()
    );
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    let text = String::from_utf8(text.get(..end).unwrap().to_vec()).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, count)| (name.to_owned(), count.trim().parse().unwrap()))
        .collect()
}

/// How many of one kind.
pub fn requests(root: &Path, kind: &str) -> u64 {
    let counts = all(&File::open(root).unwrap());
    *counts.get(kind).unwrap()
}
