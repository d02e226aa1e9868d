//! `acetate stats`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use crate::app::stats::{Figures, Mount};
use crate::app::{Failure, FailureKind, Outcome};
use crate::cli::args::{Format, Global, StatsArgs};
use crate::cli::figures::{self, Interval};
use crate::cli::openmetrics::exposition;
use crate::cli::output::{Output, versioned, write};

/// Moves to the upper left corner and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Runs it.
pub fn run(global: &Global, output: Output<'_>, args: &StatsArgs) -> ExitCode {
    let mount = match Mount::of(&args.path) {
        Ok(mount) => mount,
        Err(e) => return output.failed(&e),
    };
    output.ended(match args.watch {
        Some(every) => watch(global.format, output, &mount, every),
        None => once(global.format, output, &mount),
    })
}

fn once(format: Format, output: Output<'_>, mount: &Mount) -> Outcome<()> {
    let now = mount.figures()?;
    match format {
        Format::Openmetrics => drop(write(exposition(&mount.mountpoint, &now).as_bytes())),
        Format::Table | Format::Json => output.report(&figures::report(&mount.mountpoint, &now)),
    }
    Ok(())
}

/// Until the mount ends, nobody reads any more, or a signal ends the process.
fn watch(format: Format, output: Output<'_>, mount: &Mount, every: Duration) -> Outcome<()> {
    if format == Format::Openmetrics {
        return Err(Failure::new(
            FailureKind::Usage,
            "--watch has no form for --format openmetrics",
            "who reads it asks again and again",
        ));
    }
    let on_terminal = std::io::stdout().is_terminal();
    let mut before: Option<Figures> = None;
    loop {
        let now = match (mount.figures(), &before) {
            // The same place and device, but a newer mount.
            (Ok(now), Some(old)) if now.values.uptime_ns < old.values.uptime_ns => break,
            (Ok(now), _) => now,
            (Err(e), Some(_)) if e.kind == FailureKind::NotFound => break,
            (Err(e), _) => return Err(e),
        };
        let since = before.take().unwrap_or_default();
        let interval = Interval::between(&since, &now);
        let text = match (format, on_terminal) {
            (Format::Json, _) => {
                let value = figures::as_json(&mount.mountpoint, &now);
                format!("{}\n", versioned(&value))
            }
            (_, true) => format!("{CLEAR}{}", interval.screen(&mount.mountpoint)),
            (_, false) => interval.line(),
        };
        if write(text.as_bytes()).is_err() {
            return Ok(());
        }
        before = Some(now);
        std::thread::sleep(every);
    }
    output.note(&format!(
        "the mount at {} has ended",
        mount.mountpoint.display()
    ));
    Ok(())
}
