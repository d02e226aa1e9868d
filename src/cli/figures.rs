//! The figures of a mount as tables for people and as JSON.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::app::stats::{Figures, Kind, Values, end_of, quantile};

use super::output::{Report, aligned, bytes};

/// Shares of all requests whose times are shown.
const MEDIAN: f64 = 0.5;
const SLOW: f64 = 0.99;

/// Everything, since the mount was made.
pub fn report(at: &Path, figures: &Figures) -> Report {
    let v = &figures.values;
    let field = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        field("mount", at.display().to_string()),
        field(
            "served by",
            format!(
                "acetate {}, process {}, for {}",
                figures.version,
                v.pid,
                time(v.uptime_ns)
            ),
        ),
        field(
            "data",
            format!(
                "{} read, {} written, {} copied",
                bytes(v.bytes_read),
                bytes(v.bytes_written),
                bytes(v.bytes_copied)
            ),
        ),
        field("copy-ups", copy_ups(v)),
    ];
    let caches = [
        ("attributes", v.attribute_hits, v.attribute_misses),
        ("xattrs", v.xattr_hits, v.xattr_misses),
        ("listings", v.listing_hits, v.listing_misses),
        ("descriptors", v.descriptor_hits, v.descriptor_misses),
    ];
    rows.extend(caches.map(|(name, hits, misses)| field(name, cache(hits, misses))));
    rows.extend([
        field(
            "open",
            format!(
                "{} descriptors of {} that may be, {} closed for others",
                v.open_descriptors, v.descriptor_budget, v.descriptor_evictions
            ),
        ),
        field(
            "in memory",
            format!(
                "{} inodes, {} deleted ones, {} changes that wait",
                v.known_inodes, v.kept_orphans, v.parked_changes
            ),
        ),
    ]);
    let mut lines = aligned(&[], &rows);
    lines.push(String::new());
    lines.extend(kinds_table(figures));
    Report {
        head: Vec::new(),
        rows: lines.into_iter().map(|line| vec![line]).collect(),
        names: served(figures).map(|k| k.name.clone()).collect(),
        json: as_json(at, figures),
    }
}

fn copy_ups(v: &Values) -> String {
    format!(
        "{}, {} of data, in {}, the longest {}",
        v.copy_ups,
        bytes(v.copy_up_bytes),
        time(v.copy_up_ns),
        time(v.copy_up_longest_ns)
    )
}

fn cache(hits: u64, misses: u64) -> String {
    let all = hits.saturating_add(misses);
    let share = match all {
        0 => String::new(),
        all => format!(" ({:.0} %)", hits as f64 * 100.0 / all as f64),
    };
    format!("{hits} at hand{share}, {misses} not")
}

fn served(figures: &Figures) -> impl Iterator<Item = &Kind> {
    figures.kinds.iter().filter(|k| k.served.came > 0)
}

fn kinds_table(figures: &Figures) -> Vec<String> {
    let row = |k: &Kind| {
        let s = &k.served;
        let q = |share| time(quantile(&s.buckets, share, s.longest_ns));
        vec![
            k.name.clone(),
            s.came.to_string(),
            q(MEDIAN),
            q(SLOW),
            time(s.longest_ns),
            time(s.total_ns),
        ]
    };
    let rows: Vec<_> = served(figures).map(row).collect();
    aligned(&["REQUEST", "COUNT", "P50", "P99", "MAX", "TOTAL"], &rows)
}

/// For programs. Fields are only ever added.
pub fn as_json(at: &Path, figures: &Figures) -> Value {
    let mut fields = Map::new();
    fields.insert("mountpoint".to_owned(), json!(at.to_string_lossy()));
    fields.insert("version".to_owned(), json!(figures.version));
    for (name, value, ..) in figures.values.listed() {
        fields.insert(name.to_owned(), json!(value));
    }
    let kinds = figures.kinds.iter();
    let kinds: Map<_, _> = kinds.map(|k| (k.name.clone(), kind_as_json(k))).collect();
    fields.insert("requests".to_owned(), Value::Object(kinds));
    Value::Object(fields)
}

fn kind_as_json(kind: &Kind) -> Value {
    let s = &kind.served;
    let buckets = s.buckets.iter().enumerate().filter(|(_, n)| **n > 0);
    let histogram: Vec<_> = buckets
        .map(|(bucket, count)| json!({"up_to_ns": end_of(bucket), "count": count}))
        .collect();
    json!({
        "count": s.came,
        "total_ns": s.total_ns,
        "p50_ns": quantile(&s.buckets, MEDIAN, s.longest_ns),
        "p99_ns": quantile(&s.buckets, SLOW, s.longest_ns),
        "max_ns": s.longest_ns,
        "histogram": histogram,
    })
}

/// What happened between two looks.
#[derive(Debug)]
pub struct Interval {
    seconds: f64,
    /// Kinds that were asked for: name, how many came, histogram, longest ever.
    kinds: Vec<(String, u64, Vec<u64>, u64)>,
    read: u64,
    written: u64,
    copied_up: u64,
    now: Values,
}

impl Interval {
    /// From an earlier look (the default one: since the mount was made) to this one.
    pub fn between(before: &Figures, now: &Figures) -> Interval {
        let kinds = now.kinds.iter().filter_map(|k| {
            let old = before.kinds.iter().find(|old| old.name == k.name);
            let old = old.map(|old| old.served.clone()).unwrap_or_default();
            let came = k.served.came.saturating_sub(old.came);
            let past = old.buckets.iter().chain(std::iter::repeat(&0));
            let news = k.served.buckets.iter().zip(past);
            let buckets = news.map(|(new, old)| new.saturating_sub(*old)).collect();
            (came > 0).then(|| (k.name.clone(), came, buckets, k.served.longest_ns))
        });
        let (old, new) = (&before.values, &now.values);
        let more = |of: fn(&Values) -> u64| of(new).saturating_sub(of(old));
        Interval {
            seconds: more(|v| v.uptime_ns).max(1) as f64 / 1e9,
            kinds: kinds.collect(),
            read: more(|v| v.bytes_read),
            written: more(|v| v.bytes_written),
            copied_up: more(|v| v.copy_ups),
            now: *new,
        }
    }

    fn rate(&self, count: u64) -> String {
        format!("{:.1}", count as f64 / self.seconds)
    }

    fn data_rate(&self, count: u64) -> String {
        format!("{}/s", bytes((count as f64 / self.seconds) as u64))
    }

    fn all(&self) -> u64 {
        self.kinds.iter().map(|(_, came, ..)| came).sum()
    }

    /// For a terminal.
    pub fn screen(&self, at: &Path) -> String {
        let mut rows = Vec::new();
        for (name, came, buckets, longest) in &self.kinds {
            let q = |share| time(quantile(buckets, share, *longest));
            rows.push(vec![
                name.clone(),
                self.rate(*came),
                q(MEDIAN),
                q(SLOW),
                q(1.0),
            ]);
        }
        let v = &self.now;
        let mut lines = vec![
            format!(
                "{}: {} requests/s in the last {:.1} s; up for {}",
                at.display(),
                self.rate(self.all()),
                self.seconds,
                time(v.uptime_ns)
            ),
            format!(
                "{} read, {} written, {} copy-ups; {} inodes, {} descriptors, {} changes wait",
                self.data_rate(self.read),
                self.data_rate(self.written),
                self.copied_up,
                v.known_inodes,
                v.open_descriptors,
                v.parked_changes
            ),
            String::new(),
        ];
        lines.extend(aligned(
            &["REQUEST", "PER SECOND", "P50", "P99", "MAX"],
            &rows,
        ));
        lines.join("\n") + "\n"
    }

    /// One line.
    pub fn line(&self) -> String {
        let mut all = Vec::new();
        let mut longest = 0;
        for (_, _, buckets, most) in &self.kinds {
            all.resize(buckets.len().max(all.len()), 0_u64);
            all.iter_mut().zip(buckets).for_each(|(sum, n)| *sum += n);
            longest = longest.max(*most);
        }
        let q = |share| time(quantile(&all, share, longest));
        let kinds: Vec<_> = self
            .kinds
            .iter()
            .map(|(name, came, ..)| format!("{name} {}", self.rate(*came)))
            .collect();
        format!(
            "{} requests/s, p50 {}, p99 {}, {} read, {} written, {} copy-ups: {}\n",
            self.rate(self.all()),
            q(MEDIAN),
            q(SLOW),
            self.data_rate(self.read),
            self.data_rate(self.written),
            self.copied_up,
            kinds.join(", ")
        )
    }
}

/// A time for people.
fn time(ns: u64) -> String {
    let scaled = |unit: f64, name: &str| format!("{:.1} {name}", ns as f64 / unit);
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => scaled(1e3, "µs"),
        1_000_000..1_000_000_000 => scaled(1e6, "ms"),
        1_000_000_000..600_000_000_000 => scaled(1e9, "s"),
        600_000_000_000..36_000_000_000_000 => scaled(60e9, "min"),
        _ => scaled(3600e9, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(seconds: u64, lookups: u64, fast: u64, slow: u64) -> Figures {
        let mut f = Figures::default();
        f.values.uptime_ns = seconds * 1_000_000_000;
        f.values.bytes_read = lookups * 1024;
        let mut kind = Kind {
            name: "lookup".to_owned(),
            ..Kind::default()
        };
        kind.served.came = lookups;
        kind.served.longest_ns = 1 << 20;
        kind.served.buckets = vec![fast, 0, 0, 0, slow];
        f.kinds = vec![kind];
        f
    }

    #[test]
    fn rates_are_those_of_the_interval_and_not_of_before() {
        let between = Interval::between(&figures(10, 1000, 999, 1), &figures(12, 1200, 999, 201));
        let line = between.line();
        assert!(line.starts_with("100.0 requests/s, p50 512 ns,"), "{line}");
        assert!(line.contains("100.0 KiB/s read"), "{line}");
        assert!(line.ends_with(": lookup 100.0\n"), "{line}");
        assert!(between.screen(Path::new("/m")).contains("lookup   100.0"));
        let idle = Interval::between(&figures(10, 5, 5, 0), &figures(12, 5, 5, 0));
        assert!(idle.line().starts_with("0.0 requests/s, p50 0 ns"));
        let first = Interval::between(&Figures::default(), &figures(2, 10, 10, 0));
        assert!(first.line().starts_with("5.0 requests/s, p50 256 ns"));
    }

    #[test]
    fn times_are_short() {
        let all = [999, 1_500, 2_500_000, 59_000_000_000, 3_600_000_000_000];
        assert_eq!(
            all.map(time),
            ["999 ns", "1.5 µs", "2.5 ms", "59.0 s", "60.0 min"]
        );
        assert!(time(u64::MAX).ends_with(" h"));
    }
}
