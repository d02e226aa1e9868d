//! The figures as a table for people and as JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::host::{Outcome, Trouble, doing};
use super::rows::Row;
use super::series::{Figures, Key, Table};
use super::systems::{Disk, System, Way};

/// How many cells are named that have one reason for having no figure.
const NAMED: usize = 10;

/// All that a report is made of.
#[derive(Debug)]
pub struct Report<'a> {
    /// The rows, in order.
    pub rows: &'a [Row],
    /// The systems, and what they call themselves.
    pub systems: &'a [(System, String)],
    /// The figures.
    pub table: &'a Table,
    /// Whether the amounts are small.
    pub quick: bool,
}

impl Report<'_> {
    /// The ways and uppers that have figures, in order.
    pub fn panels(&self) -> Vec<(Way, Disk)> {
        let mut panels: Vec<_> = self.table.keys().map(|k| (k.way, k.upper)).collect();
        panels.dedup();
        panels
    }

    /// A cell's median.
    pub fn median(&self, key: Key) -> Option<f64> {
        self.table.get(&key)?.median()
    }

    /// A cell's figure over kernel overlay's.
    pub fn over_kernel(&self, key: Key) -> Option<f64> {
        Some(
            self.median(key)?
                / self.median(Key {
                    system: System::Kernel,
                    ..key
                })?,
        )
    }

    /// A cell's figure over the best of the other FUSE systems.
    pub fn over_peer(&self, key: Key) -> Option<f64> {
        let others = System::ALL
            .into_iter()
            .filter(|s| s.is_peer() && *s != key.system);
        let best = others
            .filter_map(|system| self.median(Key { system, ..key }))
            .min_by(f64::total_cmp)?;
        Some(self.median(key)? / best)
    }

    /// The tables, one for each way and upper.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (way, upper) in self.panels() {
            let heads: Vec<_> = self
                .systems
                .iter()
                .map(|(s, _)| format!("{:>26}", s.name()))
                .collect();
            let panel = format!("{}, upper on {}", way.name(), upper.name());
            let _infallible = writeln!(
                out,
                "\n{panel}: median per operation, ± (max - min) / median, × kernel overlay\n{:<18}{} {:>9} {:>9}",
                "row",
                heads.concat(),
                "÷ kernel",
                "÷ peer"
            );
            for (row, described) in self.rows.iter().enumerate() {
                let key = |system| Key {
                    way,
                    upper,
                    row,
                    x: 0,
                    system,
                };
                let cells: String = self
                    .systems
                    .iter()
                    .map(|(s, _)| self.cell(key(*s)))
                    .collect();
                let ours = key(System::Acetate);
                let _infallible = writeln!(
                    out,
                    "{:<18}{cells} {:>9} {:>9}",
                    described.name,
                    times(self.over_kernel(ours)),
                    times(self.over_peer(ours))
                );
            }
            out.push_str(&self.troubles(way, upper));
        }
        out
    }

    fn cell(&self, key: Key) -> String {
        let figures = self.table.get(&key);
        let text = match figures.and_then(|f| Some((f.median()?, f.spread()?))) {
            Some((median, spread)) => {
                format!(
                    "{} ±{:.0}% {}",
                    duration(median),
                    spread * 100.0,
                    times(self.over_kernel(key))
                )
            }
            None if matches!(
                figures.and_then(|f| f.trouble.as_ref()),
                Some(Trouble::Failed(_))
            ) =>
            {
                "FAILED".into()
            }
            None => "SKIPPED".into(),
        };
        format!("{text:>26}")
    }

    /// Every failure and every skipped cell in words, once for each reason.
    fn troubles(&self, way: Way, upper: Disk) -> String {
        let mut said: Vec<(String, Vec<String>)> = Vec::new();
        for (key, figures) in self
            .table
            .iter()
            .filter(|(k, _)| k.way == way && k.upper == upper)
        {
            let Some(trouble) = &figures.trouble else {
                continue;
            };
            let Some(row) = self.rows.get(key.row) else {
                continue;
            };
            let (words, cell) = (
                trouble.to_string(),
                format!("{} {}", row.name, key.system.name()),
            );
            match said.iter_mut().find(|(w, _)| *w == words) {
                Some((_, cells)) => cells.push(cell),
                None => said.push((words, vec![cell])),
            }
        }
        let named = |cells: &[String]| match cells.split_at_checked(NAMED) {
            Some((first, rest)) if !rest.is_empty() => {
                format!("{} and {} more", first.join(", "), rest.len())
            }
            _ => cells.join(", "),
        };
        said.iter()
            .map(|(words, cells)| format!("  {}: {words}\n", named(cells)))
            .collect()
    }

    /// The same for programs.
    pub fn json(&self) -> Outcome<String> {
        let cells: Vec<_> = self
            .table
            .iter()
            .filter_map(|(key, figures)| self.json_cell(*key, figures))
            .collect();
        pretty(&document("compare", self.systems, self.quick, &cells))
    }

    fn json_cell(&self, key: Key, figures: &Figures) -> Option<Value> {
        let row = self.rows.get(key.row)?;
        Some(json!({
            "row": row.name,
            "operation": row.says,
            "unit": row.unit,
            "way": key.way.name(),
            "upper": key.upper.name(),
            "system": key.system.name(),
            "x": key.x,
            "median": figures.median(),
            "spread": figures.spread(),
            "samples": figures.samples,
            "over_kernel": self.over_kernel(key),
            "over_best_peer": self.over_peer(key),
            "trouble": figures.trouble.as_ref().map(ToString::to_string),
        }))
    }
}

/// What stands around the cells of every JSON file.
pub fn document(kind: &str, systems: &[(System, String)], quick: bool, cells: &[Value]) -> Value {
    let systems: serde_json::Map<_, _> =
        systems.iter().map(|(s, v)| (s.name(), json!(v))).collect();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    json!({ "kind": kind, "kernel": kernel, "cpus": cpus, "quick": quick, "systems": systems, "cells": cells })
}

/// JSON in lines.
pub fn pretty(value: &Value) -> Outcome<String> {
    doing("JSON", serde_json::to_string_pretty(value)).map(|text| text + "\n")
}

/// Nanoseconds in a unit that suits.
pub fn duration(ns: f64) -> String {
    match ns {
        n if n < 10_000.0 => format!("{n:.0} ns"),
        n if n < 10_000_000.0 => format!("{:.1} µs", n / 1e3),
        n if n < 10_000_000_000.0 => format!("{:.1} ms", n / 1e6),
        n => format!("{:.1} s", n / 1e9),
    }
}

/// A ratio.
pub fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(
        || "-".into(),
        |r| {
            if r < 10.0 {
                format!("{r:.2}×")
            } else {
                format!("{r:.0}×")
            }
        },
    )
}
