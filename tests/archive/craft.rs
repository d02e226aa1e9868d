//! Archives written byte by byte, right or wrong as a test wants them.

/// An archive that grows.
#[derive(Clone, Default)]
pub struct Craft(pub Vec<u8>);

/// One header to be changed before it is written.
#[derive(Clone)]
pub struct Block(pub [u8; 512]);

impl Block {
    /// A ustar header of root's, 0644, time 0.
    pub fn new(name: &[u8], flag: u8) -> Block {
        let mut block = Block([0; 512]);
        block.put(0, &name[..name.len().min(100)]);
        for (at, value) in [(100, "0000644"), (108, "0000000"), (116, "0000000")] {
            block.put(at, value.as_bytes());
        }
        block.put(124, b"00000000000");
        block.put(136, b"00000000000");
        block.0[156] = flag;
        block.put(257, b"ustar\x0000");
        block
    }

    /// Bytes at an offset.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The size field.
    pub fn size(mut self, size: u64) -> Block {
        self.put(124, format!("{size:011o}").as_bytes());
        self
    }

    /// The mode field.
    pub fn mode(mut self, mode: u32) -> Block {
        self.put(100, format!("{mode:07o}").as_bytes());
        self
    }

    /// Owner and group.
    pub fn owner(mut self, uid: u32, gid: u32) -> Block {
        self.put(108, format!("{uid:07o}").as_bytes());
        self.put(116, format!("{gid:07o}").as_bytes());
        self
    }

    /// The time.
    pub fn mtime(mut self, sec: u64) -> Block {
        self.put(136, format!("{sec:011o}").as_bytes());
        self
    }

    /// The link target.
    pub fn link(mut self, target: &[u8]) -> Block {
        self.put(157, target);
        self
    }

    /// Device numbers.
    pub fn device(mut self, major: u32, minor: u32) -> Block {
        self.put(329, format!("{major:07o}").as_bytes());
        self.put(337, format!("{minor:07o}").as_bytes());
        self
    }

    /// With its checksum.
    pub fn sealed(mut self) -> [u8; 512] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|b| u32::from(*b)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Craft {
    /// A header.
    pub fn block(mut self, block: Block) -> Craft {
        self.0.extend_from_slice(&block.sealed());
        self
    }

    /// Bytes and their padding.
    pub fn data(mut self, bytes: &[u8]) -> Craft {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A header with data of its size.
    pub fn with_data(self, block: Block, bytes: &[u8]) -> Craft {
        self.block(block.size(bytes.len() as u64)).data(bytes)
    }

    /// A file.
    pub fn file(self, name: &str, content: &str) -> Craft {
        self.with_data(Block::new(name.as_bytes(), b'0'), content.as_bytes())
    }

    /// A directory, 0755.
    pub fn dir(self, name: &str) -> Craft {
        self.block(Block::new(name.as_bytes(), b'5').mode(0o755))
    }

    /// A symlink.
    pub fn symlink(self, name: &str, target: &str) -> Craft {
        self.block(Block::new(name.as_bytes(), b'2').link(target.as_bytes()))
    }

    /// A hard link.
    pub fn hard_link(self, name: &str, target: &str) -> Craft {
        self.block(Block::new(name.as_bytes(), b'1').link(target.as_bytes()))
    }

    /// A PAX header of these records.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Craft {
        let body: Vec<u8> = records.iter().flat_map(|(k, v)| record(k, v)).collect();
        self.with_data(Block::new(b"PaxHeaders.0/x", b'x'), &body)
    }

    /// The end marker.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// One PAX record.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut len = body + 1;
    while body + len.to_string().len() != len {
        len = body + len.to_string().len();
    }
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}
