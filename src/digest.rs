//! Digests: what names the bytes of a layer.
//!
//! Only SHA-256 (FIPS 180-4), in the text form of the OCI image-spec (descriptor.md,
//! "Digests"): `sha256:` and 64 lower-case hexadecimal digits. Pure values: no I/O of
//! its own; a [`HashWriter`] hashes what passes through it.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What stands before the digits.
const PREFIX: &str = "sha256:";
/// Bytes of a SHA-256.
const LEN: usize = 32;

/// A SHA-256 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; LEN]);

/// A text that is no digest, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotADigest(String);

impl fmt::Display for NotADigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no digest: sha256: and 64 hexadecimal digits are expected",
            self.0
        )
    }
}

impl std::error::Error for NotADigest {}

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The 64 digits alone, as file names hold them.
    pub fn hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut s, b| {
            for nibble in [b >> 4, b & 15] {
                s.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
            s
        })
    }

    /// The chain ID of a layer with this diff ID above the layers with `parent`
    /// (OCI image-spec config.md, "Layer ChainID"): the diff ID itself for a
    /// bottom layer, else the digest of `PARENT DIFF`.
    pub fn chain(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
        match parent {
            None => *diff_id,
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        }
    }

    /// The chain ID of a whole stack, bottom layer first; `None` without layers.
    pub fn chain_of(diff_ids: &[Digest]) -> Option<Digest> {
        diff_ids.iter().fold(None, |below, diff| {
            Some(Digest::chain(below.as_ref(), diff))
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Digest, NotADigest> {
        parse(text).ok_or_else(|| NotADigest(text.chars().take(100).collect()))
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Digest, NotADigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

fn parse(text: &str) -> Option<Digest> {
    let digits = text.strip_prefix(PREFIX)?.as_bytes();
    if digits.len() != 2 * LEN {
        return None;
    }
    let mut bytes = [0u8; LEN];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(Digest(bytes))
}

/// Upper-case digits are none: one digest has one text.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Hashes bytes as they come.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// A writer whose bytes are hashed and counted on the way.
#[derive(Debug)]
pub struct HashWriter<W> {
    inner: W,
    hasher: Hasher,
    count: u64,
}

impl<W: Write> HashWriter<W> {
    /// Around another writer.
    pub fn new(inner: W) -> Self {
        HashWriter {
            inner,
            hasher: Hasher::default(),
            count: 0,
        }
    }

    /// The digest and the number of the bytes written, and the writer.
    pub fn finish(self) -> (Digest, u64, W) {
        (self.hasher.finish(), self.count, self.inner)
    }
}

impl<W: Write> Write for HashWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(buf.get(..n).unwrap_or_default());
        self.count = self.count.saturating_add(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_has_one_text() {
        assert_eq!(Digest::of(b"abc").to_string(), ABC);
        assert_eq!(ABC.parse::<Digest>(), Ok(Digest::of(b"abc")));
        let upper = ABC.to_uppercase().replace("SHA256", "sha256");
        for bad in [
            "",
            "sha256:",
            &ABC[7..],
            &ABC[..70],
            &upper,
            &format!("{ABC}0"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn chain_ids_are_those_of_the_image_spec() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(Digest::chain_of(&[]), None);
        assert_eq!(Digest::chain_of(&[a]), Some(a));
        let ab = Digest::of(format!("{a} {b}").as_bytes());
        assert_eq!(Digest::chain_of(&[a, b]), Some(ab));
        let abb = Digest::of(format!("{ab} {b}").as_bytes());
        assert_eq!(Digest::chain_of(&[a, b, b]), Some(abb));
    }

    #[test]
    fn what_passes_through_is_hashed_and_counted() {
        let mut writer = HashWriter::new(Vec::new());
        io::copy(&mut &b"abc"[..], &mut writer).unwrap();
        assert_eq!(writer.finish(), (Digest::of(b"abc"), 3, b"abc".to_vec()));
    }
}
