//! The bytes of an archive: read, decompressed and hashed by a thread of its own, so
//! that this work overlaps with writing the tree.
//!
//! Compression is seen by the first bytes, never by a name. Several gzip members,
//! zstd frames, xz or bzip2 streams one after another are one archive; anything else
//! behind them is an error. The thread and the reader share a bounded channel of
//! [`CHUNK`]s; dropping the [`Input`] ends the thread at its next chunk.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use super::header::begins_archive;
use super::limits::{BLOCK, CHUNK, CHUNKS_WAITING, XZ_MEMORY_KIB, ZSTD_WINDOW_LOG};
use crate::digest::{Digest, Hasher};

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz file format.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Compression {
    /// What the first bytes of a stream tell.
    pub fn of(head: &[u8]) -> Compression {
        let magics: [(&[u8], Compression); 4] = [
            (b"\x1f\x8b\x08", Compression::Gzip),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"BZh", Compression::Bzip2),
        ];
        // A name may begin like a magic; a header's checksum proves it a name.
        if head.first_chunk::<BLOCK>().is_some_and(begins_archive) {
            return Compression::None;
        }
        // A skippable frame, 0x184D2A50 to 5F, may stand before zstd's first.
        if let [low, 0x2a, 0x4d, 0x18, ..] = head
            && low & 0xf0 == 0x50
        {
            return Compression::Zstd;
        }
        magics
            .iter()
            .find(|(magic, _)| head.starts_with(magic))
            .map_or(Compression::None, |(_, compression)| *compression)
    }
}

/// Whether an archive's own digests are wanted: they cost a second for a few
/// gigabytes, and say nothing of the tree that becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digests {
    /// Both of them.
    Count,
    /// Neither.
    Skip,
}

impl Digests {
    fn hasher(self) -> Option<Hasher> {
        (self == Digests::Count).then(Hasher::default)
    }
}

/// What is known of a stream once its end was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Digest of the bytes as they came, compressed or not; `None` where it was not
    /// wanted.
    pub source: Option<Digest>,
    /// How many they were.
    pub source_size: u64,
    /// Digest of the uncompressed archive: its diff ID in the OCI image-spec. `None`
    /// where it was not wanted.
    pub tar: Option<Digest>,
    /// Its size.
    pub tar_size: u64,
    /// The compression found.
    pub compression: Compression,
}

enum Message {
    Chunk(Vec<u8>),
    End(Totals),
    Failed(io::Error),
}

/// An archive's uncompressed bytes.
#[derive(Debug)]
pub struct Input {
    chunks: Receiver<Message>,
    /// Emptied chunks go back to be filled again.
    empties: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    totals: Option<Totals>,
    read: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Input {
    /// Begins to read `source`.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn new(source: impl Read + Send + 'static, digests: Digests) -> io::Result<Input> {
        let (full, chunks) = sync_channel(CHUNKS_WAITING);
        let (empties, empty) = channel();
        let read = Arc::new(AtomicU64::new(0));
        let counter = read.clone();
        let thread = std::thread::Builder::new()
            .name("decompress".to_owned())
            .spawn(move || {
                let last = match pump(source, digests, &counter, &full, &empty) {
                    Ok(Some(totals)) => Message::End(totals),
                    // Nobody listens any more.
                    Ok(None) => return,
                    Err(e) => Message::Failed(e),
                };
                // The reader may have given up meanwhile: then nothing is to be told.
                drop(full.send(last));
            })?;
        Ok(Input {
            chunks,
            empties,
            current: Vec::new(),
            at: 0,
            totals: None,
            read,
            thread: Some(thread),
        })
    }

    /// How many bytes of the source were read so far, for progress.
    pub fn source_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// What is known at the end; `None` before it.
    pub fn totals(&self) -> Option<Totals> {
        self.totals
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        if self.totals.is_some() {
            return Ok(());
        }
        let emptied = std::mem::take(&mut self.current);
        if emptied.capacity() > 0 {
            // The thread may have ended already: then nobody needs it.
            drop(self.empties.send(emptied));
        }
        self.at = 0;
        match self.chunks.recv() {
            Ok(Message::Chunk(chunk)) => self.current = chunk,
            Ok(Message::End(totals)) => self.totals = Some(totals),
            Ok(Message::Failed(e)) => return Err(e),
            Err(_) => {
                let panicked = self.thread.take().is_some_and(|t| t.join().is_err());
                return Err(io::Error::other(match panicked {
                    true => "the decompressor broke down over these bytes: they are damaged",
                    false => "the decompressor has ended already",
                }));
            }
        }
        Ok(())
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.current.len() {
            self.next_chunk()?;
        }
        Ok(self.current.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.current.len());
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut there = self.fill_buf()?;
        let n = there.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

/// Counts what is read, where another thread can see it, and hashes it.
struct Counted<'a, R> {
    inner: R,
    count: &'a AtomicU64,
    hasher: Option<Hasher>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buf.get(..n).unwrap_or_default());
        }
        Ok(n)
    }
}

/// Where chunks go and come back from.
struct Chunks<'a> {
    full: &'a SyncSender<Message>,
    empty: &'a Receiver<Vec<u8>>,
    /// Of the uncompressed bytes, where they are not the source's.
    hasher: Option<Hasher>,
    size: u64,
}

/// Reads all of `source`; `None` where the reader went away.
fn pump(
    source: impl Read,
    digests: Digests,
    count: &AtomicU64,
    full: &SyncSender<Message>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<Option<Totals>> {
    let mut counted = Counted {
        inner: source,
        count,
        hasher: digests.hasher(),
    };
    let mut head = Vec::with_capacity(BLOCK);
    counted.by_ref().take(BLOCK as u64).read_to_end(&mut head)?;
    if head.is_empty() {
        return Err(damaged("it is empty, which is no archive"));
    }
    let compression = Compression::of(&head);
    let mut reader = BufReader::with_capacity(CHUNK, io::Cursor::new(head).chain(counted));
    let mut chunks = Chunks {
        full,
        empty,
        hasher: match compression {
            Compression::None => None,
            _ => digests.hasher(),
        },
        size: 0,
    };
    if !decompress(&mut reader, compression, &mut chunks)? {
        return Ok(None);
    }
    if !reader.fill_buf()?.is_empty() {
        return Err(damaged("something follows the compressed archive"));
    }
    let (_, counted) = reader.into_inner().into_inner();
    let source = counted.hasher.map(Hasher::finish);
    Ok(Some(Totals {
        source,
        source_size: count.load(Ordering::Relaxed),
        tar: chunks.hasher.map(Hasher::finish).or(source),
        tar_size: chunks.size,
        compression,
    }))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Whether the reader is still there at the end.
fn decompress<R: BufRead>(
    reader: &mut R,
    compression: Compression,
    chunks: &mut Chunks<'_>,
) -> io::Result<bool> {
    match compression {
        Compression::None => chunks.fill_from(reader),
        Compression::Gzip => chunks.fill_from(Gzip {
            member: Some(flate2::bufread::GzDecoder::new(reader)),
        }),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            chunks.fill_from(decoder)
        }
        Compression::Xz => chunks.fill_from(lzma_rust2::XzReader::new_mem_limit(
            reader,
            true,
            XZ_MEMORY_KIB,
        )),
        Compression::Bzip2 => chunks.fill_from(bzip2::bufread::MultiBzDecoder::new(reader)),
    }
}

impl Chunks<'_> {
    fn fill_from(&mut self, mut reader: impl Read) -> io::Result<bool> {
        loop {
            let mut chunk = self.empty.try_recv().unwrap_or_default();
            chunk.resize(CHUNK, 0);
            let mut done = 0;
            while let Some(rest) = chunk.get_mut(done..).filter(|rest| !rest.is_empty()) {
                match reader.read(rest) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            let ended = done < CHUNK;
            chunk.truncate(done);
            self.size = self.size.saturating_add(done as u64);
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&chunk);
            }
            if !chunk.is_empty() && self.full.send(Message::Chunk(chunk)).is_err() {
                return Ok(false);
            }
            if ended {
                return Ok(true);
            }
        }
    }
}

/// All members of a gzip file, as gzip(1) reads them: zeros behind the last (from
/// tapes) are passed over.
struct Gzip<R> {
    member: Option<flate2::bufread::GzDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.member else {
                return Ok(0);
            };
            let n = member.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            let Some(mut rest) = self.member.take().map(|m| m.into_inner()) else {
                return Ok(0);
            };
            match rest.fill_buf()?.first() {
                None => return Ok(0),
                Some(0x1f) => self.member = Some(flate2::bufread::GzDecoder::new(rest)),
                Some(_) => return pass_zeros(rest).map(|()| 0),
            }
        }
    }
}

fn pass_zeros(mut reader: impl BufRead) -> io::Result<()> {
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.iter().any(|b| *b != 0) {
            return Err(damaged("something follows the last gzip member"));
        }
        let count = bytes.len();
        reader.consume(count);
    }
}
