//! Files that verify themselves: 64-byte blocks, each with the file's identity, its own place and a checksum.
//!
//! The identity is given once, by whoever creates the file, and every later writer takes it from the first block
//! of the descriptor that it writes to. So a block of another file, wherever it comes from, is noticed.

use std::fs::{File, OpenOptions};
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Size of a block; it divides a page, so that no block lies in two.
pub const BLOCK: u64 = 64;

/// Who a file is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(String);

impl FileId {
    /// At most 20 bytes, no spaces.
    pub fn new(text: String) -> Self {
        assert!(text.len() <= 20 && !text.contains(' '));
        Self(text)
    }
}

fn sum(text: &str) -> u64 {
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

fn block(id: &FileId, number: u64) -> Vec<u8> {
    let text = format!("{} {number}", id.0);
    let mut bytes = format!("{text} {:016x}", sum(&text)).into_bytes();
    bytes.resize(BLOCK as usize - 1, b' ');
    bytes.push(b'\n');
    bytes
}

fn parse(bytes: &[u8], number: u64) -> Result<FileId, String> {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<_> = text.split_whitespace().collect();
    let [id, place, check] = words[..] else {
        return Err(format!("block {number} is {text:?}"));
    };
    let good =
        place == number.to_string() && check == format!("{:016x}", sum(&format!("{id} {place}")));
    if good {
        Ok(FileId(id.to_owned()))
    } else {
        Err(format!("block {number} is {text:?}"))
    }
}

/// Whose block this is, as it says at this place.
pub fn owner(bytes: &[u8], number: u64) -> Result<FileId, String> {
    parse(bytes, number)
}

/// Creates a file (it must not exist) of `blocks` blocks.
pub fn create(path: &Path, id: &FileId, blocks: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let bytes: Vec<u8> = (0..blocks).flat_map(|n| block(id, n)).collect();
    file.write_all_at(&bytes, 0)
}

/// The identity in the first block; None while the creator has not written it.
pub fn identity(file: &File) -> io::Result<Option<FileId>> {
    let mut bytes = vec![0u8; BLOCK as usize];
    match file.read_at(&mut bytes, 0)? {
        0 => Ok(None),
        n => parse(&bytes[..n], 0).map(Some).map_err(io::Error::other),
    }
}

/// Writes block `number` of an open file.
pub fn write(file: &File, id: &FileId, number: u64) -> io::Result<()> {
    file.write_all_at(&block(id, number), number * BLOCK)
}

/// Reads everything: each block is a hole or belongs to this file at this place.
///
/// A reader may meet a write half done, so a bad block is looked at again before it counts.
pub fn verify(path: &Path) -> Result<Option<FileId>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("open: {e}")),
    };
    verify_open(&file)
}

/// As [`verify`], of an open file.
pub fn verify_open(file: &File) -> Result<Option<FileId>, String> {
    let mut result = Ok(None);
    for _ in 0..5 {
        result = verify_once(file);
        if result.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    result
}

fn verify_once(file: &File) -> Result<Option<FileId>, String> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0u8; 16384];
    loop {
        let n = file
            .read_at(&mut buffer, bytes.len() as u64)
            .map_err(|e| format!("read: {e}"))?;
        if n == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..n]);
    }
    let mut id = None;
    for (number, bytes) in (0u64..).zip(bytes.chunks(BLOCK as usize)) {
        if bytes.iter().all(|&b| b == 0) {
            continue;
        }
        let found = parse(bytes, number)?;
        match &id {
            None => id = Some(found),
            Some(id) if *id != found => {
                return Err(format!("block {number} of {id:?} belongs to {found:?}"));
            }
            Some(_) => {}
        }
    }
    Ok(id)
}
