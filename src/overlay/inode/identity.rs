//! (file system, inode number) → the number that stat and readdir show.
//!
//! A pure function of the object, so that listing and stat agree without a
//! table. Objects of one file system keep their own numbers; with several, the
//! file system's position goes into the bits above. Numbers 0 and 1 are never
//! given (readdir skips 0, 1 is FUSE's root).

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Bits that a backing number may use when file systems are told apart above it.
const INO_BITS: u32 = 56;

/// Numbers with this bit are handed out one by one to objects whose own number
/// is taken.
pub const ALLOCATED: u64 = 1 << 62;

/// How numbers are made for one mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// All layers stand on one file system.
    pub one_fs: bool,
    /// `ino32_t`.
    pub bits32: bool,
}

impl Numbers {
    /// The number for an object.
    pub fn number(self, fs: u8, ino: u64) -> u64 {
        if self.bits32 {
            let direct = self.one_fs && ino < 1 << 31;
            return if direct && ino > 1 {
                ino
            } else {
                (hash(fs, ino) & 0x7fff_ffff).max(2)
            };
        }
        if ino <= 1 {
            return hash(fs, ino) >> 8 | 1 << 61;
        }
        if self.one_fs && ino < 1 << 61 {
            return ino;
        }
        if ino < 1 << INO_BITS && fs < 16 {
            return u64::from(fs) << INO_BITS | ino;
        }
        hash(fs, ino) >> 8 | 1 << 61
    }
}

fn hash(fs: u8, ino: u64) -> u64 {
    // A fixed key: numbers must be the same after a remount.
    let mut h = SipHasher13::new_with_keys(0x6163_6574_6174_6521, 0x696e_6f64_6573_2121);
    h.write_u8(fs);
    h.write_u64(ino);
    h.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_between_file_systems_and_are_never_0_or_1() {
        let n = Numbers {
            one_fs: false,
            bits32: false,
        };
        assert_ne!(n.number(0, 5), n.number(1, 5));
        for ino in [0, 1, u64::MAX] {
            assert!(n.number(0, ino) > 1 && n.number(0, ino) & ALLOCATED == 0);
        }
        let n = Numbers {
            one_fs: true,
            bits32: false,
        };
        assert_eq!(n.number(0, 1234), 1234);
    }

    #[test]
    fn ino32_fits_32_bits() {
        let n = Numbers {
            one_fs: true,
            bits32: true,
        };
        assert_eq!(n.number(0, 77), 77);
        assert!(n.number(0, 1 << 40) <= u64::from(u32::MAX));
    }
}
