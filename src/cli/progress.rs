//! How far something is, on a terminal: one line on stderr that is written over.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::app::import::Step;

use super::args::Global;
use super::output::bytes;

/// How often the line changes.
const EVERY: Duration = Duration::from_millis(100);
/// Clears to the end of the line.
const CLEAR: &str = "\r\x1b[K";
/// Width of the bar.
const WIDTH: u64 = 24;

/// What the numbers of a step count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Entries.
    Entries,
}

/// A line that says how far it is; nothing where nobody looks.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    unit: Unit,
    begun: Instant,
    last: Instant,
    drawn: bool,
}

impl Progress {
    /// Shown on a terminal only, not with `-q`, not in CI.
    pub fn new(global: &Global, unit: Unit) -> Self {
        let in_ci = std::env::var_os("CI").is_some_and(|v| !v.is_empty() && v != "false");
        let now = Instant::now();
        Progress {
            shown: std::io::stderr().is_terminal() && !global.quiet && !in_ci,
            unit,
            begun: now,
            last: now,
            drawn: false,
        }
    }

    /// Draws it anew, if it is time.
    pub fn step(&mut self, step: Step) {
        if !self.shown || self.last.elapsed() < EVERY {
            return;
        }
        self.last = Instant::now();
        self.drawn = true;
        draw(&line(self.unit, step, self.begun.elapsed()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn {
            draw("");
        }
    }
}

fn draw(text: &str) {
    let mut err = std::io::stderr();
    drop(write!(err, "{CLEAR}{text}").and_then(|()| err.flush()));
}

/// Bar, amount, rate, and how long it will take.
fn line(unit: Unit, step: Step, spent: Duration) -> String {
    let seconds = spent.as_secs_f64().max(0.001);
    let rate = step.done as f64 / seconds;
    let amount = match unit {
        Unit::Bytes => bytes(step.done),
        Unit::Entries => format!("{} entries", step.done),
    };
    let speed = match unit {
        Unit::Bytes => format!("{}/s", bytes(rate as u64)),
        Unit::Entries => format!("{rate:.0}/s"),
    };
    let Some(total) = step.total.filter(|t| *t > 0) else {
        return format!("{amount}, {} entries, {speed}", step.entries);
    };
    let done = step.done.min(total);
    let filled = usize::try_from(done.saturating_mul(WIDTH) / total).unwrap_or(0);
    let bar: String = (0..WIDTH as usize)
        .map(|i| if i < filled { '#' } else { '.' })
        .collect();
    let percent = done.saturating_mul(100) / total;
    let left = (total - done) as f64 / rate.max(0.001);
    format!(
        "[{bar}] {percent:3} %  {amount}, {speed}, {} left",
        clock(left)
    )
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.min(359_999.0) as u64;
    match seconds / 3_600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_amount_rate_and_time_left() {
        let step = Step {
            done: 1 << 20,
            total: Some(4 << 20),
            entries: 7,
        };
        let text = line(Unit::Bytes, step, Duration::from_secs(2));
        assert_eq!(
            text,
            "[######..................]  25 %  1.0 MiB, 512.0 KiB/s, 0:06 left"
        );
        let open = Step {
            total: None,
            ..step
        };
        assert_eq!(
            line(Unit::Bytes, open, Duration::from_secs(1)),
            "1.0 MiB, 7 entries, 1.0 MiB/s"
        );
        assert_eq!(clock(3_725.0), "1:02:05");
    }
}
