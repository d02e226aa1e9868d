//! The bytes of an archive, taken one after another and counted.

use std::io::{BufRead, ErrorKind};

use super::error::{Error, Place, Result};
use super::limits::BLOCK;

/// A stream that is read once, forwards.
#[derive(Debug)]
pub(super) struct Stream<R> {
    input: R,
    /// Bytes taken.
    offset: u64,
}

impl<R: BufRead> Stream<R> {
    pub(super) fn new(input: R) -> Self {
        Stream { input, offset: 0 }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn input(&self) -> &R {
        &self.input
    }

    /// Bytes that are there; none at the end of the stream.
    pub(super) fn there(&mut self) -> Result<&[u8]> {
        loop {
            match self.input.fill_buf() {
                Ok(_) => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::Source(e)),
            }
        }
        // Asked twice for the borrow checker's sake: what is buffered is given again.
        self.input.fill_buf().map_err(Error::Source)
    }

    /// So many of them are done with.
    pub(super) fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.offset = self.offset.saturating_add(count as u64);
    }

    /// Passes over bytes of the entry `name`.
    pub(super) fn skip(&mut self, name: &[u8], mut left: u64) -> Result<()> {
        while left > 0 {
            let there = self.there()?.len();
            if there == 0 {
                return Err(cut_short(name, left));
            }
            let now = usize::try_from(left).map_or(there, |left| there.min(left));
            self.consume(now);
            left -= now as u64;
        }
        Ok(())
    }

    /// Fills `buf`; fewer bytes where the stream ends.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let there = self.there()?;
            let now = there.len().min(rest.len());
            if now == 0 {
                break;
            }
            if let (Some(to), Some(from)) = (rest.get_mut(..now), there.get(..now)) {
                to.copy_from_slice(from);
            }
            self.consume(now);
            done += now;
        }
        Ok(done)
    }

    /// `size` bytes of the entry `name`. The buffer grows as they come: a claimed
    /// size alone costs nothing.
    pub(super) fn take(&mut self, name: &[u8], size: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let left = size - bytes.len() as u64;
            let there = self.there()?;
            let now = there.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if now == 0 {
                return Err(cut_short(name, left));
            }
            bytes.extend_from_slice(there.get(..now).unwrap_or_default());
            self.consume(now);
        }
        Ok(bytes)
    }

    /// To the end of the stream: GNU tar pads to 10 KiB.
    pub(super) fn expect_zeros(&mut self) -> Result<()> {
        loop {
            let bytes = self.there()?;
            if bytes.is_empty() {
                return Ok(());
            }
            if bytes.iter().any(|b| *b != 0) {
                let what = "something follows the end marker: this is no single archive";
                return Err(Error::format(Place::At(self.offset), what));
            }
            let count = bytes.len();
            self.consume(count);
        }
    }
}

pub(super) fn cut_short(name: &[u8], left: u64) -> Error {
    let what = format!("the archive is cut short: {left} bytes of it are missing");
    Error::format(Place::Entry(name.to_vec()), what)
}

/// What fills the last block of `size` bytes.
pub(super) fn padding(size: u64) -> u64 {
    let block = BLOCK as u64;
    (block - size % block) % block
}
