//! The bytes of an archive on their way out: hashed, compressed and written by a
//! thread of its own, so that this work overlaps with reading the tree.
//!
//! Compression has fixed parameters, but its bytes depend on the library's version:
//! only the uncompressed archive's digest (the diff ID) is the same everywhere.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::error::{Error, Result};
use super::limits::{CHUNK, CHUNKS_WAITING};
use crate::digest::{Digest, HashWriter, Hasher};

/// How an archive is to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compress {
    /// Not at all.
    #[default]
    No,
    /// gzip(1)'s default level; no time and no system in its header.
    Gzip,
    /// zstd(1)'s default level, with a checksum.
    Zstd,
}

const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// RFC 1952: "unknown" operating system.
const GZIP_OS_UNKNOWN: u8 = 255;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// Digest and size of the uncompressed archive.
    pub(super) tar: (Digest, u64),
    /// Digest and size as written.
    pub(super) blob: (Digest, u64),
}

enum Message {
    Chunk(Vec<u8>),
    End,
}

/// Takes an archive's bytes.
pub(super) struct Output {
    current: Vec<u8>,
    at: usize,
    full: SyncSender<Message>,
    empties: Receiver<Vec<u8>>,
}

/// Lets `fill` write an archive that goes, compressed, to `out`.
pub(super) fn with_output<T>(
    out: impl Write + Send,
    compress: Compress,
    fill: impl FnOnce(&mut Output) -> Result<T>,
) -> Result<(T, Written)> {
    let (full, chunks) = sync_channel(CHUNKS_WAITING);
    let (empty, empties) = channel();
    std::thread::scope(|scope| {
        let writer = std::thread::Builder::new()
            .name("compress".to_owned())
            .spawn_scoped(scope, move || drain(out, compress, &chunks, &empty))
            .map_err(Error::Sink)?;
        let mut output = Output {
            current: vec![0; CHUNK],
            at: 0,
            full,
            empties,
        };
        let filled = fill(&mut output).and_then(|filled| {
            output.send()?;
            let told = output.full.send(Message::End);
            told.map_err(|_| gone()).map(|()| filled)
        });
        // Its channel goes too: the thread ends in any case.
        drop(output);
        let written = writer
            .join()
            .map_err(|_| Error::Bug("the compressor broke down"))?;
        match (filled, written) {
            // What the sink said explains why it went away.
            (_, Err(e)) => Err(Error::Sink(e)),
            (Err(e), _) => Err(e),
            (Ok(filled), Ok(Some(written))) => Ok((filled, written)),
            (Ok(_), Ok(None)) => Err(Error::Bug("the compressor missed the end")),
        }
    })
}

fn gone() -> Error {
    Error::Sink(io::Error::from(io::ErrorKind::BrokenPipe))
}

impl Output {
    /// Takes bytes.
    pub(super) fn bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let now = space.len().min(bytes.len());
            let (head, rest) = bytes.split_at_checked(now).unwrap_or((bytes, b""));
            if let Some(space) = space.get_mut(..now) {
                space.copy_from_slice(head);
            }
            self.filled(now);
            bytes = rest;
        }
        Ok(())
    }

    /// Takes zeros.
    pub(super) fn zeros(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let space = self.space()?;
            let now = usize::try_from(count).map_or(space.len(), |c| c.min(space.len()));
            space.get_mut(..now).unwrap_or_default().fill(0);
            self.filled(now);
            count -= now as u64;
        }
        Ok(())
    }

    /// Room to be filled, never empty; [`Output::filled`] says how much was.
    pub(super) fn space(&mut self) -> Result<&mut [u8]> {
        if self.at >= self.current.len() {
            self.send()?;
        }
        Ok(self.current.get_mut(self.at..).unwrap_or_default())
    }

    /// So many bytes of the room are filled.
    pub(super) fn filled(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.current.len());
    }

    fn send(&mut self) -> Result<()> {
        let mut next = self.empties.try_recv().unwrap_or_default();
        next.resize(CHUNK, 0);
        let mut full = std::mem::replace(&mut self.current, next);
        full.truncate(self.at);
        self.at = 0;
        self.full.send(Message::Chunk(full)).map_err(|_| gone())
    }
}

enum Encoder<W: Write> {
    Plain(W),
    Gzip(flate2::write::GzEncoder<HashWriter<W>>),
    Zstd(zstd::stream::write::Encoder<'static, HashWriter<W>>),
}

impl<W: Write> Encoder<W> {
    fn new(out: W, compress: Compress) -> io::Result<Encoder<W>> {
        Ok(match compress {
            Compress::No => Encoder::Plain(out),
            Compress::Gzip => {
                let header = flate2::GzBuilder::new()
                    .mtime(0)
                    .operating_system(GZIP_OS_UNKNOWN);
                let level = flate2::Compression::new(GZIP_LEVEL);
                Encoder::Gzip(header.write(HashWriter::new(out), level))
            }
            Compress::Zstd => {
                let mut encoder =
                    zstd::stream::write::Encoder::new(HashWriter::new(out), ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Encoder::Zstd(encoder)
            }
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Plain(out) => out.write_all(bytes),
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Ends the stream; digest and size of what was written where that is not the
    /// archive itself.
    fn finish(self) -> io::Result<Option<(Digest, u64)>> {
        let hashed = match self {
            Encoder::Plain(mut out) => {
                out.flush()?;
                return Ok(None);
            }
            Encoder::Gzip(encoder) => encoder.finish()?,
            Encoder::Zstd(encoder) => encoder.finish()?,
        };
        let (digest, size, mut out) = hashed.finish();
        out.flush()?;
        Ok(Some((digest, size)))
    }
}

/// Writes all chunks; `None` where they end without their end.
fn drain(
    out: impl Write,
    compress: Compress,
    chunks: &Receiver<Message>,
    empty: &Sender<Vec<u8>>,
) -> io::Result<Option<Written>> {
    let mut encoder = Encoder::new(out, compress)?;
    let (mut hasher, mut size) = (Hasher::default(), 0u64);
    while let Ok(message) = chunks.recv() {
        let Message::Chunk(chunk) = message else {
            let tar = (hasher.finish(), size);
            let blob = encoder.finish()?.unwrap_or(tar);
            return Ok(Some(Written { tar, blob }));
        };
        hasher.update(&chunk);
        size = size.saturating_add(chunk.len() as u64);
        encoder.write_all(&chunk)?;
        // Nobody may want it back any more.
        drop(empty.send(chunk));
    }
    Ok(None)
}
