//! Copies of file data inside the kernel: reflink, else copy_file_range, else
//! read and write; holes stay holes.

use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::features::{self, Feature};
use super::stat::{Stat, stat_at};
use super::{Errno, Result, file};

/// How much one copy_file_range(2) is asked for: long enough to be cheap,
/// short enough that a signal or a dying mount is seen.
const STEP: u64 = 64 << 20;

/// What is copied by read and write: two calls, which for so little cost less than one
/// copy_file_range(2) (it goes through a pipe where blocks cannot be shared).
const LITTLE: u64 = 32 << 10;

/// Copies the first `size` bytes of `src` to `dst` (empty, writable) and leaves
/// `dst` exactly `size` long.
pub fn clone_data(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, size: u64) -> Result<()> {
    clone_holes(src, dst, size, None)
}

/// The same of a file with these attributes: in a little one whose blocks hold all of
/// its bytes no holes are looked for.
///
/// Without blocks the attributes are none of the data's own (a metacopy's).
pub fn clone_known(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
    clone_holes(src, dst, stat.size, (stat.blocks > 0).then_some(stat))
}

fn clone_holes(
    src: BorrowedFd<'_>,
    dst: BorrowedFd<'_>,
    size: u64,
    known: Option<&Stat>,
) -> Result<()> {
    if size == 0 {
        return Ok(());
    }
    if shares_blocks(src, dst, known.map(|s| s.dev)) {
        return file::truncate(dst, size);
    }
    let dense = |s: &Stat| s.blocks.saturating_mul(512) >= size;
    if size <= LITTLE && known.is_some_and(dense) {
        return match copy_by_hand(src, dst, 0, size)? < size {
            // It is shorter than its attributes said.
            true => file::truncate(dst, size),
            false => Ok(()),
        };
    }
    // The length first: trailing holes need nothing more.
    file::truncate(dst, size)?;
    let mut pos = 0u64;
    while pos < size {
        let (start, end) = match file::seek_data(src, pos) {
            Ok(start) => {
                let end = file::seek_hole(src, start).unwrap_or(size).min(size);
                (start, end)
            }
            Err(Errno::ENXIO) => break,
            // No SEEK_DATA on this file system: everything is data.
            Err(_) => (pos, size),
        };
        if start >= size {
            break;
        }
        copy_run(src, dst, start, end)?;
        pos = end.max(start + 1);
    }
    Ok(())
}

/// Of which file system blocks could not be shared with another one last.
static APART: AtomicU64 = AtomicU64::new(0);

/// Makes `dst` share all blocks of `src` where both can. That a whole file system
/// cannot is remembered for the source last asked for: copies come in runs.
fn shares_blocks(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, dev: Option<u64>) -> bool {
    if !features::allowed(Feature::Reflink) || dev.is_some_and(|d| d == APART.load(Relaxed)) {
        return false;
    }
    match rustix::fs::ioctl_ficlone(dst, src) {
        Ok(()) => true,
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::XDEV | rustix::io::Errno::NOTTY) => {
            if let Some(dev) = dev {
                APART.store(dev, Relaxed);
            }
            false
        }
        Err(_) => false,
    }
}

fn copy_run(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, start: u64, end: u64) -> Result<()> {
    let (mut off_in, mut off_out) = (start, start);
    if !kernel_copies(src, dst)? {
        return copy_by_hand(src, dst, start, end).map(drop);
    }
    while off_in < end {
        let want = usize::try_from((end - off_in).min(STEP)).unwrap_or(1 << 20);
        match rustix::fs::copy_file_range(src, Some(&mut off_in), dst, Some(&mut off_out), want) {
            // The file is shorter than stat said, or the file system cannot: by hand.
            Ok(0) => return copy_by_hand(src, dst, off_in, end).map(drop),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(
                e @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::IO),
            ) => return Err(e.into()),
            Err(_) => return copy_by_hand(src, dst, off_in, end).map(drop),
        }
    }
    Ok(())
}

/// Returns how far it got: the end, or the end of the file.
fn copy_by_hand(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, start: u64, end: u64) -> Result<u64> {
    let most = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
    let mut buf = vec![0u8; most.min(1 << 20)];
    let mut pos = start;
    while pos < end {
        let want = usize::try_from((end - pos).min(buf.len() as u64)).unwrap_or(buf.len());
        let Some(chunk) = buf.get_mut(..want) else {
            return Err(Errno::EIO);
        };
        let n = file::read_at(src, chunk, pos)?;
        if n == 0 {
            return Ok(pos);
        }
        let mut done = 0;
        while done < n {
            let Some(rest) = chunk.get(done..n) else {
                return Err(Errno::EIO);
            };
            let w = file::write_at(dst, rest, pos + done as u64)?;
            if w == 0 {
                return Err(Errno::EIO);
            }
            done += w;
        }
        pos += n as u64;
    }
    Ok(pos)
}

/// copy_file_range(2) between two open files, once; a short count is an answer.
pub fn copy_range(src: (BorrowedFd<'_>, u64), dst: (BorrowedFd<'_>, u64), len: u64) -> Result<u64> {
    if !kernel_copies(src.0, dst.0)? {
        return Err(Errno::EOPNOTSUPP);
    }
    let (mut i, mut o) = (src.1, dst.1);
    let want = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
    match rustix::fs::copy_file_range(src.0, Some(&mut i), dst.0, Some(&mut o), want) {
        // The layers' business, not the caller's, who sees one file system: this
        // answer makes the kernel's FUSE client copy by itself (before 5.3 and
        // EXDEV alike, that one did not).
        Err(rustix::io::Errno::XDEV | rustix::io::Errno::NOSYS) => Err(Errno::EOPNOTSUPP),
        r => Ok(r? as u64),
    }
}

/// Whether copy_file_range(2) is to be tried. Only a feature that was hidden, or
/// missed, makes this ask the files.
fn kernel_copies(src: BorrowedFd<'_>, dst: BorrowedFd<'_>) -> Result<bool> {
    if !features::allowed(Feature::CopyRange) {
        return Ok(false);
    }
    Ok(features::allowed(Feature::CopyAcross) || stat_at(src, b"")?.dev == stat_at(dst, b"")?.dev)
}
