//! The figures of a mount as OpenMetrics (version 1.0, section "Text format").

use std::path::Path;

use crate::app::stats::{Figures, Grows, Kind, end_of};

/// Every so many buckets one is shown: one to a doubling.
const STEP: usize = 4;

/// The whole exposition. Each sample names the mount point, so that files of several
/// mounts can be joined.
pub fn exposition(at: &Path, figures: &Figures) -> String {
    let mount = format!("mountpoint=\"{}\"", escaped(&at.to_string_lossy()));
    let mut out = String::new();
    family(&mut out, "acetate_mount", "info", "The mount.");
    let version = escaped(&figures.version);
    sample(
        &mut out,
        "acetate_mount_info",
        &format!("{mount},version=\"{version}\""),
        "1",
    );
    for (name, value, grows, says) in figures.values.listed() {
        // A number of a process is no measurement.
        if name == "pid" {
            continue;
        }
        let (name, value, says) = in_base_units(name, value, says);
        let name = format!("acetate_{name}");
        let (kind, ending) = match grows {
            Grows::Ever => ("counter", "_total"),
            Grows::AndShrinks => ("gauge", ""),
        };
        family(&mut out, &name, kind, &says);
        sample(&mut out, &format!("{name}{ending}"), &mount, &value);
    }
    let served = || figures.kinds.iter().filter(|k| k.served.came > 0);
    let labels = |kind: &Kind| format!("{mount},kind=\"{}\"", escaped(&kind.name));
    family(
        &mut out,
        "acetate_requests",
        "counter",
        "Requests that came.",
    );
    for kind in served() {
        let came = kind.served.came.to_string();
        sample(&mut out, "acetate_requests_total", &labels(kind), &came);
    }
    const LONGEST: &str = "acetate_request_longest_seconds";
    family(
        &mut out,
        LONGEST,
        "gauge",
        "The longest that a request took.",
    );
    for kind in served() {
        sample(
            &mut out,
            LONGEST,
            &labels(kind),
            &seconds(kind.served.longest_ns),
        );
    }
    const TIMES: &str = "acetate_request_duration_seconds";
    family(
        &mut out,
        TIMES,
        "histogram",
        "How long requests took to be answered.",
    );
    for kind in served() {
        histogram(&mut out, TIMES, &labels(kind), kind);
    }
    out.push_str("# EOF\n");
    out
}

fn family(out: &mut String, name: &str, kind: &str, says: &str) {
    out.push_str(&format!("# TYPE {name} {kind}\n"));
    if name.ends_with("_seconds") {
        out.push_str(&format!("# UNIT {name} seconds\n"));
    }
    out.push_str(&format!("# HELP {name} {}\n", escaped(says)));
}

fn sample(out: &mut String, name: &str, labels: &str, value: &str) {
    out.push_str(&format!("{name}{{{labels}}} {value}\n"));
}

fn histogram(out: &mut String, name: &str, labels: &str, kind: &Kind) {
    let mut sum = 0;
    for (bucket, count) in kind.served.buckets.iter().enumerate() {
        sum += count;
        if bucket % STEP == 0
            && let Some(end) = end_of(bucket)
        {
            let labels = format!("{labels},le=\"{}\"", seconds(end));
            sample(out, &format!("{name}_bucket"), &labels, &sum.to_string());
        }
    }
    let all = sum.to_string();
    sample(
        out,
        &format!("{name}_bucket"),
        &format!("{labels},le=\"+Inf\""),
        &all,
    );
    sample(out, &format!("{name}_count"), labels, &all);
    let total = seconds(kind.served.total_ns);
    sample(out, &format!("{name}_sum"), labels, &total);
}

/// Names in nanoseconds become seconds: `copy_up_ns` → `copy_up_seconds`.
fn in_base_units(name: &str, value: u64, says: &str) -> (String, String, String) {
    match name.strip_suffix("_ns") {
        Some(stem) => (
            format!("{stem}_seconds"),
            seconds(value),
            says.replace("Nanoseconds", "Seconds"),
        ),
        None => (name.to_owned(), value.to_string(), says.to_owned()),
    }
}

fn seconds(ns: u64) -> String {
    format!("{}", ns as f64 / 1e9)
}

/// Backslashes, quotes and newlines, as label values and HELP want them.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}
