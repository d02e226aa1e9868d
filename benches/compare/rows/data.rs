//! Rows that move data of one file: large and small, in order and at random, buffered, direct, mapped.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{pread, pwrite};

use super::super::host::{Outcome, doing, failed};
use super::super::trees::Part;
use super::{Answer, Client, Row, changes, reads, timed};

#[path = "../../../tests/support/mapping.rs"]
mod mapping;

const WORK: &[Part] = &[Part::Work];
const DATA: &[Part] = &[Part::Data];
/// What a sequential row moves at once.
const MIB: usize = 1 << 20;
/// What a random row moves at once.
const PAGE: usize = 4096;

/// The rows.
pub const ROWS: &[Row] = &[
    changes(
        "write-small",
        "pwrite of 100 bytes into a hot new file",
        WORK,
        write_small,
    ),
    changes(
        "write-seq",
        "1 MiB of a new file, buffered, closed at the end",
        WORK,
        |c| write_in_order(c, OFlags::empty()),
    ),
    changes(
        "write-seq-direct",
        "1 MiB of a new file, O_DIRECT",
        WORK,
        |c| write_in_order(c, OFlags::DIRECT),
    ),
    changes(
        "write-rand",
        "4 KiB anywhere in a new file, buffered",
        WORK,
        |c| write_anywhere(c, OFlags::empty()),
    ),
    changes(
        "write-rand-direct",
        "4 KiB anywhere in a new file, O_DIRECT",
        WORK,
        |c| write_anywhere(c, OFlags::DIRECT),
    ),
    changes(
        "write-mmap",
        "4 KiB anywhere in a mapped new file, then msync",
        WORK,
        write_mapped,
    ),
    reads(
        "read-seq",
        "1 MiB of a lower file, buffered, first time",
        DATA,
        |c| read_in_order(c, OFlags::empty(), 1),
    ),
    reads("read-seq-warm", "the same again", DATA, |c| {
        read_in_order(c, OFlags::empty(), 2)
    }),
    reads(
        "read-seq-direct",
        "1 MiB of a lower file, O_DIRECT",
        DATA,
        |c| read_in_order(c, OFlags::DIRECT, 1),
    ),
    reads(
        "read-rand",
        "4 KiB anywhere in a lower file, buffered, first time",
        DATA,
        |c| read_anywhere(c, OFlags::empty()),
    ),
    reads(
        "read-rand-direct",
        "4 KiB anywhere in a lower file, O_DIRECT",
        DATA,
        |c| read_anywhere(c, OFlags::DIRECT),
    ),
    reads(
        "read-mmap",
        "4 KiB anywhere in a mapped lower file, first time",
        DATA,
        read_mapped,
    ),
];

/// Memory at an address that O_DIRECT accepts.
struct Aligned {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let memory = vec![7_u8; len + PAGE];
        let from = memory.as_ptr().align_offset(PAGE);
        Aligned { memory, from, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}

/// Offsets that look random and are the same in every run: Marsaglia's xorshift64.
struct Offsets {
    state: u64,
    pages: u64,
}

impl Offsets {
    fn over(bytes: u64) -> Self {
        Offsets {
            state: 0x9e37_79b9_7f4a_7c15,
            pages: (bytes / PAGE as u64).max(1),
        }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % self.pages) * PAGE as u64
    }
}

fn new_file(c: &Client, flags: OFlags) -> Outcome<OwnedFd> {
    let path = c.own_dir("data")?.join("file");
    let flags = flags | OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    doing(
        "create",
        openat(CWD, path, flags, Mode::from_raw_mode(0o644)),
    )
}

fn lower_file(c: &Client, flags: OFlags) -> Outcome<OwnedFd> {
    let path = c.part(Part::Data)?.join("file");
    doing(
        "open",
        openat(
            CWD,
            path,
            flags | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        ),
    )
}

fn fully(done: usize, wanted: usize) -> Outcome<()> {
    if done == wanted {
        Ok(())
    } else {
        failed(format!("{done} bytes of {wanted} were moved"))
    }
}

/// Writes the whole file; ops are MiB.
fn fill(file: &OwnedFd, mebibytes: u64) -> Answer {
    let mut buffer = Aligned::new(MIB);
    let bytes = buffer.bytes();
    timed(mebibytes, || {
        for i in 0..mebibytes {
            fully(pwrite(file, bytes, i * MIB as u64)?, MIB)?;
        }
        Ok(())
    })
}

/// With the close: a system that only collects what is written sends it then.
fn write_in_order(c: &Client, flags: OFlags) -> Answer {
    let mut file = Some(new_file(c, flags)?);
    let mut buffer = Aligned::new(MIB);
    let bytes = buffer.bytes();
    timed(c.n.data, || {
        if let Some(file) = file.take() {
            for i in 0..c.n.data {
                fully(pwrite(&file, &*bytes, i * MIB as u64)?, MIB)?;
            }
        }
        Ok(())
    })
}

fn write_small(c: &Client) -> Answer {
    let file = new_file(c, OFlags::empty())?;
    let bytes = [7_u8; 100];
    let pass = || {
        timed(c.n.hot, || {
            for i in 0..c.n.hot {
                pwrite(&file, &bytes, (i % 40) * 100)?;
            }
            Ok(())
        })
    };
    pass()?;
    pass()
}

/// How many random accesses: a hot loop's, but at most each page twice.
fn accesses(c: &Client) -> u64 {
    c.n.hot.min(c.n.data * 512)
}

fn write_anywhere(c: &Client, flags: OFlags) -> Answer {
    let file = new_file(c, flags)?;
    fill(&file, c.n.data)?;
    let (mut buffer, mut offsets) = (Aligned::new(PAGE), Offsets::over(c.n.data << 20));
    let bytes = buffer.bytes();
    timed(accesses(c), || {
        for _ in 0..accesses(c) {
            fully(pwrite(&file, bytes, offsets.next())?, PAGE)?;
        }
        Ok(())
    })
}

fn length(c: &Client) -> Outcome<usize> {
    usize::try_from(c.n.data << 20).or_else(|_| failed("the file is too long to be mapped"))
}

fn write_mapped(c: &Client) -> Answer {
    let file = new_file(c, OFlags::empty())?;
    fill(&file, c.n.data)?;
    let map = mapping::Map::shared(&File::from(file), length(c)?);
    let mut offsets = Offsets::over(c.n.data << 20);
    timed(accesses(c), || {
        for i in 0..accesses(c) {
            map.write(
                usize::try_from(offsets.next()).unwrap_or(0),
                &i.to_ne_bytes(),
            );
        }
        map.sync();
        Ok(())
    })
}

fn read_in_order(c: &Client, flags: OFlags, passes: u32) -> Answer {
    let file = lower_file(c, flags)?;
    let mut buffer = Aligned::new(MIB);
    let bytes = buffer.bytes();
    let mut sample = failed("no pass");
    for _ in 0..passes {
        sample = timed(c.n.data, || {
            for i in 0..c.n.data {
                fully(pread(&file, &mut *bytes, i * MIB as u64)?, MIB)?;
            }
            Ok(())
        });
        sample.as_ref().map_err(Clone::clone)?;
    }
    sample
}

fn read_anywhere(c: &Client, flags: OFlags) -> Answer {
    let file = lower_file(c, flags)?;
    let (mut buffer, mut offsets) = (Aligned::new(PAGE), Offsets::over(c.n.data << 20));
    let bytes = buffer.bytes();
    timed(accesses(c), || {
        for _ in 0..accesses(c) {
            fully(pread(&file, &mut *bytes, offsets.next())?, PAGE)?;
        }
        Ok(())
    })
}

fn read_mapped(c: &Client) -> Answer {
    // Shared and read only: the lower is not to be copied up.
    let file = lower_file(c, OFlags::empty())?;
    let map = mapping::Map::read_only(&File::from(file), length(c)?);
    let mut offsets = Offsets::over(c.n.data << 20);
    timed(accesses(c), || {
        let mut sum = 0_u64;
        for _ in 0..accesses(c) {
            sum = sum.wrapping_add(u64::from(
                map.byte(usize::try_from(offsets.next()).unwrap_or(0)),
            ));
        }
        std::hint::black_box(sum);
        Ok(())
    })
}
