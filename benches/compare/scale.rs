//! How cost grows: the same row at growing sizes, and the slope.
//!
//! The slope is the exponent of the power law that fits best (least squares over logarithms): 0 is a cost that does
//! not grow, 1 one that grows as its size does.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::args::Wanted;
use super::host::{Host, Outcome, Workplace, doing, run};
use super::report::{document, duration, pretty};
use super::rows::{Row, growing};
use super::series::{Group, Key, Limits, Series, Table, chosen, install, list, write};
use super::systems::{Disk, System, Way};
use super::trees::{Sizes, files, files_in};

/// What grows in a family of rows: those whose names begin with its name.
struct Growth {
    name: &'static str,
    quick: &'static [u64],
    full: &'static [u64],
    /// Makes layers of that size in a directory; each has a directory `d`.
    make: fn(&Path, u64) -> Outcome<()>,
}

const GROWTHS: &[Growth] = &[
    Growth {
        name: "layers-",
        quick: &[1, 3, 30, 128, 500],
        full: &[1, 3, 30, 128, 500],
        make: layers,
    },
    Growth {
        name: "entries-",
        quick: &[1_000, 10_000],
        full: &[1_000, 10_000, 100_000, 1_000_000],
        make: entries,
    },
    Growth {
        name: "depth-",
        quick: &[10, 100, 1_000],
        full: &[10, 30, 100, 300, 1_000],
        make: depth,
    },
    Growth {
        name: "threads-",
        quick: &[1, 4, 16],
        full: &[1, 2, 4, 8, 16],
        make: |at, _| tree(at, 2_000),
    },
    Growth {
        name: "inodes-",
        quick: &[10_000, 50_000],
        full: &[10_000, 100_000, 500_000, 2_000_000],
        make: tree,
    },
    Growth {
        name: "descriptors",
        quick: &[1_000, 20_000],
        full: &[1_000, 10_000, 100_000],
        make: tree,
    },
];

fn layers(at: &Path, count: u64) -> Outcome<()> {
    for i in 0..count {
        let dir = at.join(format!("l{i:03}/d"));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("own{i}")), "x")?;
    }
    let lowest = at.join(format!("l{:03}/d", count.saturating_sub(1)));
    for i in 0..200 {
        doing(
            "make the lowest layer",
            fs::write(lowest.join(format!("low{i}")), "x"),
        )?;
    }
    Ok(())
}

fn entries(at: &Path, count: u64) -> Outcome<()> {
    files_in(&at.join("l000/d"), count, Sizes::Small)
}

fn tree(at: &Path, count: u64) -> Outcome<()> {
    files(&at.join("l000/d"), count, Sizes::Small)
}

fn depth(at: &Path, levels: u64) -> Outcome<()> {
    let mut path = at.join("l000/d");
    for _ in 0..levels {
        path.push("n");
    }
    fs::create_dir_all(&path)?;
    Ok(fs::write(path.join("file"), "x")?)
}

/// Measures the growth of what was asked for.
pub fn run_rows(series: &mut Series<'_>, rows: &[Row], systems: &[System]) -> Outcome<()> {
    let wanted = series.wanted;
    for growth in GROWTHS {
        let family: Vec<_> = rows
            .iter()
            .enumerate()
            .filter(|(_, r)| r.name.starts_with(growth.name))
            .collect();
        let sizes = if wanted.quick {
            growth.quick
        } else {
            growth.full
        };
        for x in sizes.iter().filter(|_| !family.is_empty()) {
            // On tmpfs: making two million files there takes seconds.
            let material = series.place.tmpfs.join("material");
            fs::create_dir(&material)?;
            (growth.make)(&material, *x)?;
            let users = wanted.ways.iter().any(|w| w.is_users());
            if users {
                run(Command::new("chown")
                    .args(["-R", "1000:1000"])
                    .arg(&material))?;
            }
            for way in &wanted.ways {
                for upper in &wanted.uppers {
                    for (index, row) in &family {
                        eprintln!("{} {} {} {x}", way.name(), upper.name(), row.name);
                        let group = Group {
                            row,
                            index: *index,
                            way: *way,
                            upper: *upper,
                            x: *x,
                            material: &material,
                        };
                        series.measure(systems, group)?;
                    }
                }
            }
            run(Command::new("rm").arg("-rf").arg(&material))?;
        }
    }
    Ok(())
}

/// The verb.
pub fn run_verb(host: &Host, wanted: &Wanted) -> Outcome<()> {
    let rows = chosen(growing(), &wanted.rows)?;
    if wanted.list {
        list(&rows);
        return Ok(());
    }
    let wanted = &wanted.or(&[System::Kernel, System::Acetate], &[Way::Root]);
    let place = Workplace::new(host, &wanted.dir)?;
    let installed = install(&place, &wanted.systems)?;
    let systems: Vec<_> = installed.iter().map(|(s, _)| *s).collect();
    let mut series = Series {
        place: &place,
        wanted,
        limits: Limits::new(wanted),
        table: Table::new(),
    };
    run_rows(&mut series, &rows, &systems)?;
    let lines = lines_of(&series.table, &rows);
    for line in &lines {
        println!("{}", line.text());
    }
    let cells: Vec<_> = lines.iter().map(Line::json).collect();
    write(
        wanted.json.as_deref(),
        &pretty(&document("scale", &installed, wanted.quick, &cells))?,
    )
}

/// One row of one system: what it costs at each size.
struct Line<'a> {
    row: &'a Row,
    way: Way,
    upper: Disk,
    system: System,
    points: Vec<(u64, Option<f64>)>,
    trouble: Option<String>,
}

fn lines_of<'a>(table: &Table, rows: &'a [Row]) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    let mut keys: Vec<&Key> = table.keys().collect();
    keys.sort_by_key(|k| (k.way, k.upper, k.row, k.system, k.x));
    for key in keys {
        let (Some(row), Some(figures)) = (rows.get(key.row), table.get(key)) else {
            continue;
        };
        let same = |l: &&mut Line<'_>| {
            l.row.name == row.name
                && l.way == key.way
                && l.upper == key.upper
                && l.system == key.system
        };
        if lines.last_mut().filter(same).is_none() {
            let Key {
                way, upper, system, ..
            } = *key;
            lines.push(Line {
                row,
                way,
                upper,
                system,
                points: Vec::new(),
                trouble: None,
            });
        }
        if let Some(line) = lines.last_mut() {
            line.points.push((key.x, figures.median()));
            let trouble = figures
                .trouble
                .as_ref()
                .map(|t| format!("at {}: {t}", key.x));
            line.trouble = line.trouble.take().or(trouble);
        }
    }
    lines
}

/// The exponent of the power law that fits best.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<_> = points
        .iter()
        .filter(|(_, y)| *y > 0.0)
        .map(|(x, y)| (x.ln(), y.ln()))
        .collect();
    let n = logs.len() as f64;
    if logs.len() < 2 {
        return None;
    }
    let mean = |f: fn(&(f64, f64)) -> f64| logs.iter().map(f).sum::<f64>() / n;
    let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
    let across: f64 = logs.iter().map(|(x, y)| (x - mx) * (y - my)).sum();
    let along: f64 = logs.iter().map(|(x, _)| (x - mx).powi(2)).sum();
    (along > 0.0).then(|| across / along)
}

impl Line<'_> {
    fn slope(&self) -> Option<f64> {
        let known: Vec<_> = self
            .points
            .iter()
            .filter_map(|(x, y)| Some((*x as f64, (*y)?)))
            .collect();
        slope(&known)
    }

    fn text(&self) -> String {
        let show = |y: f64| {
            if self.row.unit == "ns" {
                duration(y)
            } else {
                format!("{y:.0} B")
            }
        };
        let points: Vec<_> = self
            .points
            .iter()
            .map(|(x, y)| format!("{x}: {}", y.map_or_else(|| "-".into(), show)))
            .collect();
        let slope = self
            .slope()
            .map_or_else(|| "-".into(), |s| format!("{s:+.2}"));
        let trouble = self
            .trouble
            .as_ref()
            .map(|t| format!("  ({t})"))
            .unwrap_or_default();
        let (way, upper) = (self.way.name(), self.upper.name());
        format!(
            "{way:<6} {upper:<5} {:<20} {:<8} slope {slope:>5}  {}{trouble}",
            self.row.name,
            self.system.name(),
            points.join("  ")
        )
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "row": self.row.name,
            "operation": self.row.says,
            "unit": self.row.unit,
            "way": self.way.name(),
            "upper": self.upper.name(),
            "system": self.system.name(),
            "points": self.points,
            "slope": self.slope(),
            "trouble": self.trouble,
        })
    }
}
