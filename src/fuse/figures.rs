//! The figures of a mount, and how they travel through the ioctl FIGURES of
//! [`super::control`].
//!
//! They are lines of text, each complete in itself, in an order that does not change
//! while a mount lives:
//!
//! ```text
//! acetate 0.1.0
//! request NAME CAME TOTAL LONGEST BUCKET:COUNT ...   for each kind of request
//! NAME NUMBER                                        for each field of [`Values`]
//! ```
//!
//! Times are nanoseconds, buckets those of [`super::histogram`] that are not empty.
//! A part of the answer holds the lines from the one asked for, as many as fit, and
//! ends with `next NUMBER` where there are more, else with `end`. A reader leaves
//! out lines that it does not know, and takes what is missing for 0: lines and
//! fields behind the known ones may be added without a new version.

use super::answers::Shared;
use super::control::FIGURES_LEN;
use super::counters::{Moved, Op, Served};
use super::histogram::BUCKETS;
use crate::overlay::figures::nanoseconds;
use crate::overlay::{Errno, Result};

/// Version of the form, the first word of a question.
const VERSION: u32 = 1;

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grows {
    /// It only grows: a rate can be made of it.
    Ever,
    /// It goes up and down.
    AndShrinks,
}

macro_rules! values {
    ($($name:ident $grows:ident $says:literal),* $(,)?) => {
        /// The numbers that are of no kind of request.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Values { $(#[doc = $says] pub $name: u64),* }

        impl Values {
            /// Name, number, how it behaves, and what it is.
            pub fn listed(&self) -> Vec<(&'static str, u64, Grows, &'static str)> {
                vec![$((stringify!($name), self.$name, Grows::$grows, $says)),*]
            }

            fn set(&mut self, name: &str, value: u64) {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => {}
                }
            }
        }
    };
}

values! {
    pid AndShrinks "The process that serves the mount, as it knows itself.",
    uptime_ns AndShrinks "Nanoseconds since the mount was made.",
    bytes_read Ever "Bytes that were read.",
    bytes_written Ever "Bytes that were written.",
    bytes_copied Ever "Bytes copied within the mount by copy_file_range.",
    copy_ups Ever "Objects copied to the upper layer, directories among them.",
    copy_up_bytes Ever "Length of the file data copied to the upper layer.",
    copy_up_ns Ever "Nanoseconds that copying up took altogether.",
    copy_up_longest_ns AndShrinks "Nanoseconds that the longest copy-up took.",
    attribute_hits Ever "Attributes of nodes answered from memory.",
    attribute_misses Ever "Attributes of nodes asked of a layer.",
    xattr_hits Ever "Extended attributes known from memory to be absent.",
    xattr_misses Ever "Extended attributes asked of a layer.",
    listing_hits Ever "Directory listings at hand.",
    listing_misses Ever "Directory listings that had to be merged.",
    descriptor_hits Ever "Descriptors of backing objects at hand.",
    descriptor_misses Ever "Descriptors of backing objects that were opened and kept.",
    descriptor_evictions Ever "Descriptors closed to make room for others.",
    open_descriptors AndShrinks "Descriptors of backing objects kept open.",
    descriptor_budget AndShrinks "Descriptors of backing objects that may be kept open.",
    known_inodes AndShrinks "Inodes in memory.",
    kept_orphans AndShrinks "Deleted objects kept because they may be open.",
    parked_changes AndShrinks "Changes that wait until a hold ends.",
}

/// One kind of request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kind {
    /// Its name.
    pub name: String,
    /// Its numbers.
    pub served: Served,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Of the program that serves the mount.
    pub version: String,
    /// Each kind of request, served or not.
    pub kinds: Vec<Kind>,
    /// The others.
    pub values: Values,
}

impl Shared {
    /// How things stand now.
    pub(super) fn figures(&self) -> Figures {
        let (counters, engine) = (self.counters, self.overlay.figures());
        let kind = |op: &Op| Kind {
            name: op.name().to_owned(),
            served: counters.of(*op),
        };
        Figures {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: Op::ALL.iter().map(kind).collect(),
            values: Values {
                pid: u64::from(std::process::id()),
                uptime_ns: nanoseconds(counters.age()),
                bytes_read: counters.bytes(Moved::Read),
                bytes_written: counters.bytes(Moved::Written),
                bytes_copied: counters.bytes(Moved::Copied),
                copy_ups: engine.copy_ups,
                copy_up_bytes: engine.copy_up_bytes,
                copy_up_ns: engine.copy_up_ns,
                copy_up_longest_ns: engine.copy_up_longest_ns,
                attribute_hits: engine.attributes.hits,
                attribute_misses: engine.attributes.misses,
                xattr_hits: engine.xattrs.hits,
                xattr_misses: engine.xattrs.misses,
                listing_hits: engine.listings.hits,
                listing_misses: engine.listings.misses,
                descriptor_hits: engine.descriptors.hits,
                descriptor_misses: engine.descriptors.misses,
                descriptor_evictions: engine.evicted,
                open_descriptors: engine.open,
                descriptor_budget: engine.budget,
                known_inodes: engine.nodes,
                kept_orphans: engine.orphans,
                parked_changes: self.gate.parked() as u64,
            },
        }
    }
}

/// A question for the lines from this one on.
pub fn question(first: u32) -> Vec<u8> {
    let mut bytes = vec![0; FIGURES_LEN];
    let words = VERSION.to_ne_bytes().into_iter().chain(first.to_ne_bytes());
    bytes.iter_mut().zip(words).for_each(|(b, w)| *b = w);
    bytes
}

/// What a question asks for; `None` for another version.
fn first_line(question: &[u8]) -> Option<usize> {
    let (version, rest) = question.split_first_chunk()?;
    let (first, _) = rest.split_first_chunk()?;
    let known = u32::from_ne_bytes(*version) == VERSION;
    known.then_some(u32::from_ne_bytes(*first) as usize)
}

impl Figures {
    fn lines(&self) -> Vec<String> {
        let version = format!("acetate {}", self.version);
        let kinds = self.kinds.iter().map(kind_line);
        let values = self.values.listed().into_iter();
        std::iter::once(version)
            .chain(kinds)
            .chain(values.map(|(name, value, ..)| format!("{name} {value}")))
            .collect()
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// EINVAL for one that is of another version.
    pub fn part(&self, question: &[u8]) -> Result<Vec<u8>> {
        /// `next 4294967295` and its newline.
        const LAST_LINE: usize = 16;
        let first = first_line(question).ok_or(Errno::EINVAL)?;
        let mut text = String::new();
        let mut last = "end\n".to_owned();
        for (at, line) in self.lines().iter().enumerate().skip(first) {
            if text.len() + line.len() + 1 + LAST_LINE > FIGURES_LEN {
                last = format!("next {at}\n");
                break;
            }
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&last);
        let mut bytes = text.into_bytes();
        bytes.resize(FIGURES_LEN, 0);
        Ok(bytes)
    }

    /// Takes a part of an answer in; the line to ask for next, `None` at the end.
    ///
    /// # Errors
    /// EIO for what is no such answer, and one that does not go on.
    pub fn take(&mut self, first: u32, part: &[u8]) -> Result<Option<u32>> {
        let text = part.split(|b| *b == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| Errno::EIO)?;
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "end" => return Ok(None),
                "next" => {
                    let next = rest.parse().ok().filter(|next| *next > first);
                    return next.map(Some).ok_or(Errno::EIO);
                }
                "acetate" => self.version = rest.to_owned(),
                "request" => self.kinds.extend(kind_of(rest)),
                name => {
                    if let Ok(value) = rest.parse() {
                        self.values.set(name, value);
                    }
                }
            }
        }
        Err(Errno::EIO)
    }
}

fn kind_line(kind: &Kind) -> String {
    let s = &kind.served;
    let mut line = format!(
        "request {} {} {} {}",
        kind.name, s.came, s.total_ns, s.longest_ns
    );
    for (bucket, count) in s
        .buckets
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
    {
        line.push_str(&format!(" {bucket}:{count}"));
    }
    line
}

fn kind_of(text: &str) -> Option<Kind> {
    let mut fields = text.split(' ');
    let name = fields.next()?.to_owned();
    let mut number = || fields.next()?.parse().ok();
    let (came, total_ns, longest_ns) = (number()?, number()?, number()?);
    let mut buckets = vec![0; BUCKETS];
    for (bucket, count) in fields.filter_map(|field| field.split_once(':')) {
        let at: Option<&mut u64> = bucket.parse().ok().and_then(|b: usize| buckets.get_mut(b));
        if let (Some(at), Ok(count)) = (at, count.parse()) {
            *at = count;
        }
    }
    let served = Served {
        came,
        total_ns,
        longest_ns,
        buckets,
    };
    Some(Kind { name, served })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(fill: u64) -> Figures {
        let mut values = Values::default();
        for (i, (name, ..)) in (1u64..).zip(Values::default().listed()) {
            values.set(name, fill.saturating_sub(i));
        }
        let kind = |op: &Op| Kind {
            name: op.name().to_owned(),
            served: Served {
                came: fill,
                total_ns: fill,
                longest_ns: fill,
                buckets: vec![fill; BUCKETS],
            },
        };
        Figures {
            version: "9.9.9".to_owned(),
            kinds: Op::ALL.iter().map(kind).collect(),
            values,
        }
    }

    /// All parts, as a client asks for them.
    fn transferred(from: &Figures) -> (Figures, u32) {
        let (mut got, mut first, mut parts) = (Figures::default(), 0, 0);
        loop {
            let part = from.part(&question(first)).unwrap();
            assert_eq!(part.len(), FIGURES_LEN);
            parts += 1;
            match got.take(first, &part).unwrap() {
                Some(next) => first = next,
                None => return (got, parts),
            }
        }
    }

    #[test]
    fn figures_survive_their_way_however_long_they_are() {
        for fill in [0, 1000, u64::MAX] {
            let figures = figures(fill);
            let (got, parts) = transferred(&figures);
            assert_eq!(got, figures);
            assert_eq!(parts > 1, fill > 0, "{parts} parts of {fill}");
        }
    }

    #[test]
    fn a_reader_leaves_out_what_a_newer_one_says() {
        let mut got = Figures::default();
        let newer = b"acetate 12.0 beta\nrequest tmpfile 3 30 20 9:3 later words\nfuture 7\npid 5\nend\n\0\0";
        assert_eq!(got.take(0, newer), Ok(None));
        assert_eq!((got.values.pid, got.version.as_str()), (5, "12.0 beta"));
        assert_eq!(got.kinds[0].served.buckets[9], 3);
    }

    #[test]
    fn neither_side_believes_nonsense() {
        let figures = figures(1);
        assert_eq!(figures.part(b"short").unwrap_err(), Errno::EINVAL);
        let mut other = question(0);
        other[0] ^= 0xff;
        other[3] ^= 0xff;
        assert_eq!(figures.part(&other).unwrap_err(), Errno::EINVAL);
        // Beyond the end there is nothing.
        assert!(
            figures
                .part(&question(u32::MAX))
                .unwrap()
                .starts_with(b"end\n")
        );
        for wrong in [
            &b"pid 5\n"[..],
            b"",
            b"\xff\nend\n",
            b"next 3\n",
            b"next x\n",
        ] {
            assert_eq!(Figures::default().take(3, wrong), Err(Errno::EIO));
        }
    }
}
