//! One sample: mount, measure, unmount. A process of its own, in the namespaces of its way.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::args::Cell;
use super::host::{Outcome, Trouble, as_user, cpu_time_of, doing, memory_of, run as run_program};
use super::rows::{After, Answer, Changes, Kind, Row, Sample, find, heard, say};
use super::systems::{Mounted, Plan, System, Way};

/// The descriptors that the daemon of the row `descriptors` may have.
const FEW_DESCRIPTORS: u64 = 8_000;
/// How long a daemon may take to give memory back.
const CALM: Duration = Duration::from_millis(1500);

/// The agent's `main`: it prints one answer.
pub fn run(cell: &Cell) -> ExitCode {
    say(&sample(cell));
    ExitCode::SUCCESS
}

fn sample(cell: &Cell) -> Answer {
    let row = find(&cell.row)?;
    let lowers = lowers_of(cell, &row)?;
    if cell.system == System::Native {
        return plain(cell, &row, &lowers);
    }
    let options = words(cell, &row);
    let plan = Plan {
        system: cell.system,
        way: cell.way,
        lowers: &lowers,
        cell: &cell.cell,
        programs: &cell.programs,
        options: &options,
        descriptors: (row.name == "descriptors").then_some(FEW_DESCRIPTORS),
    };
    let start = Instant::now();
    let mount = plan.mount()?;
    let mounted = start.elapsed();
    let answer = match row.kind {
        Kind::Mounting(_) => Ok(Sample {
            amount: mounted.as_nanos() as f64,
            ops: 1,
        }),
        Kind::Client(_) => client(cell),
        Kind::Memory(_, after) => memory(cell, &mount, after),
    };
    let ended = mount.unmount();
    // What was measured on a mount that did not end well is no figure.
    answer.and_then(|a| ended.map(|()| a))
}

/// The lower layers, uppermost first.
fn lowers_of(cell: &Cell, row: &Row) -> Outcome<Vec<PathBuf>> {
    let base = cell.material.join("base");
    if let Kind::Mounting(count) = row.kind {
        let layers = cell.material.join("layers");
        return Ok((0..count)
            .map(|i| layers.join(format!("l{i:03}")))
            .collect());
    }
    if cell.x == 0 {
        let above = (0..cell.lowers).map(|i| cell.material.join(format!("above{i}")));
        return Ok(above.chain([base]).collect());
    }
    // In `scale` the material is one directory with the layers themselves.
    let mut layers: Vec<_> = doing("the layers", std::fs::read_dir(&cell.material))?
        .flatten()
        .map(|e| e.path())
        .collect();
    layers.sort();
    Ok(layers)
}

fn words(cell: &Cell, row: &Row) -> String {
    let own = if cell.system == System::Acetate {
        cell.options.as_str()
    } else {
        ""
    };
    let both = [row.options, own];
    both.iter()
        .filter(|w| !w.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(",")
}

/// A plain directory: the lower itself, or copies of the parts that are changed.
fn plain(cell: &Cell, row: &Row, lowers: &[PathBuf]) -> Answer {
    let base = lowers
        .last()
        .ok_or_else(|| Trouble::Failed("no lower layer".into()))?;
    match (row.kind, row.changes) {
        (Kind::Mounting(_) | Kind::Memory(..), _) => {
            Err(Trouble::Skipped("nothing is mounted".into()))
        }
        _ if lowers.len() > 1 && cell.x > 0 => {
            Err(Trouble::Skipped("a plain directory has no layers".into()))
        }
        (_, Changes::Nothing) => {
            std::fs::write(
                cell.cell.join("instead"),
                base.as_os_str().as_encoded_bytes(),
            )?;
            client(cell)
        }
        (_, Changes::Parts) => {
            let names: Vec<_> = match cell.x {
                0 => row.parts.iter().map(|p| p.name()).collect(),
                _ => vec!["d"],
            };
            for name in names {
                let from = base.join(name);
                run_program(
                    Command::new("cp")
                        .arg("-a")
                        .arg(from)
                        .arg(cell.cell.join("merged")),
                )?;
            }
            client(cell)
        }
    }
}

/// Runs the client: this program again, as who asks.
fn client(cell: &Cell) -> Answer {
    let program = std::env::current_exe()?;
    let mut command = match cell.way {
        Way::Other => as_user(&program),
        _ => Command::new(&program),
    };
    let out = command
        .arg("client")
        .args(cell.words())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    let out = doing("the client", out)?;
    match heard(&String::from_utf8_lossy(&out.stdout)) {
        Err(Trouble::Failed(why)) if !out.stderr.is_empty() => {
            let said = String::from_utf8_lossy(&out.stderr);
            Err(Trouble::Failed(format!(
                "{why}: {}",
                said.lines().last().unwrap_or("")
            )))
        }
        answer => answer,
    }
}

/// Bytes of the daemon for each inode.
fn memory(cell: &Cell, mount: &Mounted, after: After) -> Answer {
    let pid = mount
        .pid()
        .ok_or_else(|| Trouble::Skipped("it has no daemon".into()))?;
    let before = memory_of(pid, "VmRSS")?;
    let ops = client(cell)?.ops;
    if after == After::DropCaches {
        doing(
            "drop_caches",
            std::fs::write("/proc/sys/vm/drop_caches", "2"),
        )
        .map_err(|e| Trouble::Skipped(e.to_string()))?;
        wait_until_idle(pid)?;
    }
    let grown = memory_of(pid, "VmRSS")?.saturating_sub(before);
    Ok(Sample {
        amount: grown as f64 * 1024.0,
        ops,
    })
}

/// Waits until a process has used no CPU for a while: the forgets are dealt with.
fn wait_until_idle(pid: u32) -> Outcome<()> {
    let deadline = Instant::now() + 40 * CALM;
    let mut used = cpu_time_of(pid)?;
    while Instant::now() < deadline {
        std::thread::sleep(CALM);
        let now = cpu_time_of(pid)?;
        if now.saturating_sub(used) < 5_000_000 {
            return Ok(());
        }
        used = now;
    }
    Ok(())
}
