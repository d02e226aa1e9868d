//! How many requests of each kind were served, and how long they took.
//!
//! Always on. A request costs two readings of the clock (the vDSO's, no system
//! call) and three additions to the thread's own cache lines; READ and WRITE one
//! more for their bytes. Measured (`cargo bench --bench engine -- counting`, time of
//! the thread itself, lowest and highest median of three runs on two CPUs with a
//! load of 10):
//!
//! | what | ns |
//! |---|---|
//! | one request | 67 to 81 |
//! | the same beside a second thread that counts the same | 66 to 69 |
//! | two readings of the clock alone | 49 to 52 |
//!
//! A round trip takes 18 µs and more: less than half a percent of it.

use std::time::{Duration, Instant};

use super::histogram::{BUCKETS, bucket_of};
use crate::overlay::figures::nanoseconds;
use crate::overlay::tally::Tally;

macro_rules! ops {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// A kind of request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Op { $($variant),* }
        impl Op {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Op] = &[$(Op::$variant),*];
            const COUNT: usize = Op::ALL.len();

            /// A stable name.
            pub fn name(self) -> &'static str {
                match self { $(Op::$variant => $name),* }
            }
        }
    };
}

ops! {
    Lookup "lookup", Getattr "getattr", Setattr "setattr", Readlink "readlink", Mknod "mknod",
    Mkdir "mkdir", Unlink "unlink", Rmdir "rmdir", Symlink "symlink", Rename "rename",
    Link "link", Open "open", Read "read", Write "write", Flush "flush", Release "release",
    Fsync "fsync", Opendir "opendir", Readdir "readdir", Readdirplus "readdirplus",
    Releasedir "releasedir", Fsyncdir "fsyncdir", Statfs "statfs", Setxattr "setxattr",
    Getxattr "getxattr", Listxattr "listxattr", Removexattr "removexattr", Create "create",
    Ioctl "ioctl", Fallocate "fallocate", Lseek "lseek", CopyFileRange "copy_file_range",
    Forget "forget", Access "access",
}

/// Data that went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// Answers to READ.
    Read,
    /// WRITE.
    Written,
    /// COPY_FILE_RANGE.
    Copied,
}

/// The numbers of one kind: how many came, the time of those answered, the longest
/// of them, and the histogram of their times.
const CAME: usize = 0;
const TIME: usize = 1;
const LONGEST: usize = 2;
const FIRST_BUCKET: usize = 3;
const OF_A_KIND: usize = FIRST_BUCKET + BUCKETS;
/// Behind those of all kinds: one for each [`Moved`].
const MOVED: usize = Op::COUNT * OF_A_KIND;
const NUMBERS: usize = MOVED + 3;

/// The counts of one mount.
#[derive(Debug)]
pub struct Counters {
    since: Instant,
    tally: Tally<NUMBERS>,
}

/// What is known of one kind of request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// How many came; those that are being served are in no other number.
    pub came: u64,
    /// The time of all that were answered, in nanoseconds.
    pub total_ns: u64,
    /// The longest.
    pub longest_ns: u64,
    /// How many took how long: [`super::histogram`].
    pub buckets: Vec<u64>,
}

impl Counters {
    /// Counts from now on, as long as the process lives: a [`super::serving::Serving`]
    /// goes from thread to thread without a count of its own.
    pub fn start() -> &'static Counters {
        Box::leak(Box::new(Counters {
            since: Instant::now(),
            tally: Tally::default(),
        }))
    }

    /// A request has come. (Told apart from its end, so that whoever has got an
    /// answer finds the request counted.)
    pub fn came(&self, op: Op) {
        self.tally.add(op as usize * OF_A_KIND + CAME, 1);
    }

    /// It was answered.
    pub fn answered(&self, op: Op, time: Duration) {
        let (first, ns) = (op as usize * OF_A_KIND, nanoseconds(time));
        self.tally.add(first + TIME, ns);
        self.tally.raise(first + LONGEST, ns);
        self.tally.add(first + FIRST_BUCKET + bucket_of(ns), 1);
    }

    /// Data has gone through.
    pub fn moved(&self, what: Moved, bytes: usize) {
        self.tally.add(MOVED + what as usize, bytes as u64);
    }

    /// How much data went through.
    pub fn bytes(&self, what: Moved) -> u64 {
        self.tally.sum(MOVED + what as usize)
    }

    /// All about one kind.
    pub fn of(&self, op: Op) -> Served {
        let first = op as usize * OF_A_KIND;
        let bucket = |i| self.tally.sum(first + FIRST_BUCKET + i);
        Served {
            came: self.tally.sum(first + CAME),
            total_ns: self.tally.sum(first + TIME),
            longest_ns: self.tally.highest(first + LONGEST),
            buckets: (0..BUCKETS).map(bucket).collect(),
        }
    }

    /// Since when it counts.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// `name count` lines.
    pub fn text(&self) -> String {
        let came = |op: &Op| self.tally.sum(*op as usize * OF_A_KIND + CAME);
        let line = |op: &Op| format!("{} {}\n", op.name(), came(op));
        Op::ALL.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::serving::Serving;

    #[test]
    fn every_kind_has_numbers_of_its_own() {
        let counters = Counters::start();
        for (i, op) in (1u64..).zip(Op::ALL) {
            for _ in 0..i {
                counters.came(*op);
                counters.answered(*op, Duration::from_micros(i));
            }
        }
        counters.moved(Moved::Copied, 7);
        for (i, op) in (1u64..).zip(Op::ALL) {
            let served = counters.of(*op);
            let times = (served.total_ns, served.longest_ns);
            assert_eq!((served.came, times), (i, (i * i * 1000, i * 1000)));
            assert_eq!(served.buckets.iter().sum::<u64>(), i, "{}", op.name());
            assert_eq!(served.buckets[bucket_of(i * 1000)], i);
        }
        assert_eq!(counters.bytes(Moved::Copied), 7);
        assert_eq!(counters.bytes(Moved::Read), 0);
    }

    #[test]
    fn a_request_counts_when_it_comes_and_its_time_when_it_is_answered() {
        let counters = Counters::start();
        let serving = Serving::begin(counters, None, Op::Write, None);
        assert_eq!(counters.of(Op::Write).came, 1);
        assert_eq!(counters.of(Op::Write).total_ns, 0);
        let elsewhere = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(3));
            drop(serving);
        });
        elsewhere.join().unwrap();
        assert!(counters.of(Op::Write).longest_ns >= 3_000_000);
    }

    /// An event loop's work is 10 µs and more. The best of many rounds, since other
    /// programs run beside this one.
    #[test]
    fn a_measurement_costs_next_to_nothing() {
        let counters = Counters::start();
        let round = || {
            let begun = Instant::now();
            for _ in 0..1000 {
                drop(Serving::begin(counters, None, Op::Getattr, None));
            }
            begun.elapsed() / 1000
        };
        let best = (0..100).map(|_| round()).min().unwrap();
        assert!(best < Duration::from_micros(1), "{best:?} a request");
    }
}
