//! The figures as a chart: each row a line, each system a dot, at how many times kernel overlay's figure it is.

use std::fmt::Write;

use super::report::{Report, duration, times};
use super::series::Key;
use super::systems::{Disk, System, Way};

const LINE: f64 = 18.0;
const LEFT: f64 = 150.0;
const WIDTH: f64 = 560.0;
const HEAD: f64 = 62.0;
/// The axis, in powers of two of kernel overlay's figure.
const FROM: f64 = -2.0;
const TO: f64 = 8.0;

fn colour(system: System) -> &'static str {
    match system {
        System::Native => "#8c8c8c",
        System::Kernel => "#000000",
        System::C => "#e08214",
        System::Rust => "#b2182b",
        System::Acetate => "#2166ac",
        System::Floor => "#bdbdbd",
    }
}

fn across(ratio: f64) -> f64 {
    LEFT + (ratio.log2().clamp(FROM, TO) - FROM) / (TO - FROM) * WIDTH
}

/// The whole chart, a panel below another for each way and upper.
pub fn svg(report: &Report<'_>) -> String {
    let panels = report.panels();
    let height = HEAD + LINE * report.rows.len() as f64 + 16.0;
    let (wide, high) = (LEFT + WIDTH + 30.0, height * panels.len().max(1) as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {high}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{wide}\" height=\"{high}\" fill=\"#ffffff\"/>\n"
    );
    for (i, (way, upper)) in panels.into_iter().enumerate() {
        panel(&mut out, report, way, upper, height * i as f64);
    }
    out.push_str("</svg>\n");
    out
}

fn panel(out: &mut String, report: &Report<'_>, way: Way, upper: Disk, top: f64) {
    let title = format!(
        "{}, upper on {}: times kernel overlay's time (less is better)",
        way.name(),
        upper.name()
    );
    text(out, 10.0, top + 16.0, "start", &title);
    for (i, (system, _)) in report.systems.iter().enumerate() {
        let x = LEFT + 90.0 * i as f64;
        dot(out, x, top + 30.0, *system, &system.name());
        text(out, x + 8.0, top + 34.0, "start", &system.name());
    }
    let bottom = top + HEAD + LINE * report.rows.len() as f64;
    for power in FROM as i32..=TO as i32 {
        let x = across(f64::from(power).exp2());
        let shade = if power == 0 { "#000000" } else { "#dddddd" };
        let _infallible = writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"{shade}\" stroke-width=\"0.7\"/>",
            top + HEAD - 8.0
        );
        text(
            out,
            x,
            top + HEAD - 12.0,
            "middle",
            &times(Some(f64::from(power).exp2())),
        );
    }
    for (row, described) in report.rows.iter().enumerate() {
        let y = top + HEAD + LINE * (row as f64 + 0.5);
        text(out, LEFT - 8.0, y + 4.0, "end", described.name);
        for (system, _) in report.systems {
            let key = Key {
                way,
                upper,
                row,
                x: 0,
                system: *system,
            };
            let (Some(ratio), Some(median)) = (report.over_kernel(key), report.median(key)) else {
                continue;
            };
            let says = format!(
                "{} {}: {} ({})",
                system.name(),
                described.name,
                duration(median),
                times(Some(ratio))
            );
            dot(out, across(ratio), y, *system, &says);
        }
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _infallible = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escaped(words)
    );
}

fn dot(out: &mut String, x: f64, y: f64, system: System, says: &str) {
    let (fill, radius) = (
        colour(system),
        if system == System::Acetate { 5.0 } else { 3.5 },
    );
    let _infallible = writeln!(
        out,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{fill}\" fill-opacity=\"0.85\"><title>{}</title></circle>",
        escaped(says)
    );
}

fn escaped(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
