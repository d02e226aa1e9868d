//! Any bytes as an archive: no panic, no loop, data within its file.
//!
//! A checksum that must be right would keep the fuzzer from getting anywhere: every
//! block that could be a header gets its own first, unless the first byte forbids.

#![no_main]

use acetate::archive::{EntryKind, Reader};
use acetate::sys::Kind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else {
        return;
    };
    let mut archive = data.to_vec();
    archive.resize(archive.len().next_multiple_of(512), 0);
    if mode & 1 == 0 {
        archive.chunks_exact_mut(512).for_each(seal);
    }
    if mode & 2 == 0 {
        archive.extend_from_slice(&[0; 1024]);
    }
    // Small pieces, so that everything crosses their edges.
    let small = std::io::BufReader::with_capacity(1 + usize::from(*mode >> 2), &archive[..]);
    let mut reader = Reader::new(small);
    let mut entries = 0;
    while let Ok(Some(entry)) = reader.next_entry() {
        entries += 1;
        assert!(entries <= archive.len() / 512, "more entries than blocks");
        assert!(!entry.path.contains(&0) && entry.uid != u32::MAX);
        assert!(entry.mode <= 0o7777 && entry.mtime.nsec < 1_000_000_000);
        let is_file = entry.kind == EntryKind::Object(Kind::File);
        assert!(is_file || entry.size == 0);
        let mut at = 0;
        while let Ok(Some(piece)) = reader.piece() {
            assert!(is_file && !piece.bytes.is_empty() && piece.offset >= at);
            at = piece.offset + piece.bytes.len() as u64;
            assert!(at <= entry.size);
        }
        let _classified = acetate::archive::path::classify(&entry.path);
    }
});

/// Gives a block the checksum of a header.
fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    if sum == 8 * 32 {
        block[148..156].fill(0);
        return;
    }
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
