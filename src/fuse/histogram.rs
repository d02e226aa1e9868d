//! Times sorted into buckets, four to each doubling: a quantile read from it is
//! at most a quarter too high.
//!
//! Bucket 0 is up to 256 ns; of the others, 1 + 4e + m goes up to
//! 256 × 2^e × (1 + (m + 1) / 4) ns, included; the last one has no end (beyond
//! 137 s).

/// Bucket 0 goes up to this power of two.
const FIRST: u32 = 8;
/// The last one begins with this one.
const LAST: u32 = 37;
/// Buckets to a doubling.
const PARTS: usize = 4;
/// How many there are.
pub const BUCKETS: usize = 2 + (LAST - FIRST) as usize * PARTS;

/// The bucket of a time.
pub fn bucket_of(ns: u64) -> usize {
    // Ends belong to the bucket that they end.
    let below = ns.saturating_sub(1);
    match below.checked_ilog2() {
        Some(power) if power >= LAST => BUCKETS - 1,
        Some(power) if power >= FIRST => {
            let part = below >> (power - 2) & 3;
            1 + (power - FIRST) as usize * PARTS + part as usize
        }
        _ => 0,
    }
}

/// Where a bucket ends, in nanoseconds; `None` for the last one.
pub fn end_of(bucket: usize) -> Option<u64> {
    if bucket + 1 >= BUCKETS {
        return None;
    }
    let Some(above) = bucket.checked_sub(1) else {
        return Some(1 << FIRST);
    };
    let power = FIRST + u32::try_from(above / PARTS).ok()?;
    let part = above % PARTS + 1;
    Some((PARTS as u64 + part as u64) << (power - 2))
}

/// The time that this share of all did not exceed, as far as buckets tell; 0
/// where there are none.
pub fn quantile(buckets: &[u64], share: f64, longest_ns: u64) -> u64 {
    let all: u64 = buckets.iter().sum();
    if all == 0 {
        return 0;
    }
    let wanted = ((all as f64 * share).ceil() as u64).max(1);
    let mut sum = 0;
    for (bucket, count) in buckets.iter().enumerate() {
        sum += count;
        if sum >= wanted {
            return end_of(bucket).unwrap_or(longest_ns).min(longest_ns);
        }
    }
    longest_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_one_bucket_that_has_room_for_it() {
        let ends: Vec<u64> = (0..BUCKETS).filter_map(end_of).collect();
        assert_eq!(ends.len(), BUCKETS - 1);
        assert!(ends.windows(2).all(|w| w[0] < w[1]));
        assert_eq!((ends[0], ends[1], ends[4], ends[5]), (256, 320, 512, 640));
        for (bucket, end) in ends.iter().enumerate() {
            assert_eq!(bucket_of(*end), bucket, "{end} ns");
            assert_eq!(bucket_of(*end + 1), bucket + 1, "{} ns", end + 1);
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn quantiles_are_at_most_a_quarter_too_high() {
        let mut buckets = vec![0; BUCKETS];
        for us in 1..=1000 {
            buckets[bucket_of(us * 1000)] += 1;
        }
        let q = |share| quantile(&buckets, share, 1_000_000) as f64;
        assert!((500e3..625e3).contains(&q(0.5)), "{}", q(0.5));
        assert_eq!(q(0.99), 1e6, "never above the longest");
        assert_eq!(quantile(&[0, 0], 0.5, 9), 0);
        assert_eq!(quantile(&buckets, 0.0, 1_000_000), 1024);
    }
}
