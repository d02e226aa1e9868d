//! A shared mapping of a file, for the tests that write through one.

use std::fs::File;
use std::os::fd::AsRawFd;

/// A shared mapping of a file.
#[derive(Debug)]
pub struct Map(*mut u8, usize);

impl Map {
    /// Maps the first `len` bytes; a file that ends earlier reads as zeros up to the end of its last page.
    pub fn shared(file: &File, len: usize) -> Self {
        Self::with(file, len, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// The same, to be read only: of a file that is open for reading.
    #[allow(dead_code, reason = "every test binary uses a part of this folder")]
    pub fn read_only(file: &File, len: usize) -> Self {
        Self::with(file, len, libc::PROT_READ)
    }

    fn with(file: &File, len: usize, prot: libc::c_int) -> Self {
        // SAFETY: a new mapping at an address the kernel chooses; unmapped when dropped.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                prot,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(
            at,
            libc::MAP_FAILED,
            "mmap: {}",
            std::io::Error::last_os_error()
        );
        Self(at.cast(), len)
    }

    /// Copies bytes out.
    #[allow(dead_code, reason = "every test binary uses a part of this folder")]
    pub fn read(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= self.1);
        // SAFETY: inside the mapping; volatile, because other mappings write to it.
        (at..at + len)
            .map(|i| unsafe { self.0.add(i).read_volatile() })
            .collect()
    }

    /// One byte, without an allocation.
    #[allow(dead_code, reason = "every test binary uses a part of this folder")]
    pub fn byte(&self, at: usize) -> u8 {
        assert!(at < self.1);
        // SAFETY: inside the mapping; volatile, because other mappings write to it.
        unsafe { self.0.add(at).read_volatile() }
    }

    /// Stores bytes.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.1);
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: inside the mapping.
            unsafe { self.0.add(at + i).write_volatile(*byte) };
        }
    }

    /// msync(MS_SYNC) of all of it.
    pub fn sync(&self) {
        // SAFETY: the mapping's own address and length.
        let rc = unsafe { libc::msync(self.0.cast(), self.1, libc::MS_SYNC) };
        assert_eq!(rc, 0, "msync: {}", std::io::Error::last_os_error());
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `shared`, no reference into it is left.
        unsafe { libc::munmap(self.0.cast(), self.1) };
    }
}
