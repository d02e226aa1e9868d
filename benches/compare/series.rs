//! All samples: which there are, interleaved, and bounded in time.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::args::{Cell, Wanted};
use super::host::{Host, Outcome, Trouble, Workplace, doing, failed, run};
use super::rows::{Answer, Kind, Row, all, heard};
use super::systems::{Disk, System, Way};
use super::{chart, report, trees};

/// Which cell of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Who mounts and who asks.
    pub way: Way,
    /// Where the upper is.
    pub upper: Disk,
    /// Index of the row.
    pub row: usize,
    /// What grows; 0 where nothing does.
    pub x: u64,
    /// Who serves.
    pub system: System,
}

/// What is known of a cell.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// For each operation, one of each sample.
    pub samples: Vec<f64>,
    /// Why there are none, or no more.
    pub trouble: Option<Trouble>,
    spent: Duration,
}

impl Figures {
    /// The middle one; none where a sample failed.
    pub fn median(&self) -> Option<f64> {
        if self.trouble.is_some() || self.samples.is_empty() {
            return None;
        }
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = sorted.get(middle).copied()?;
        let lower = sorted
            .get(middle - usize::from(sorted.len().is_multiple_of(2)))
            .copied()?;
        Some(f64::midpoint(lower, upper))
    }

    /// (max - min) / median.
    pub fn spread(&self) -> Option<f64> {
        let median = self.median()?;
        let max = self.samples.iter().copied().fold(f64::MIN, f64::max);
        let min = self.samples.iter().copied().fold(f64::MAX, f64::min);
        Some((max - min) / median.max(f64::MIN_POSITIVE))
    }
}

/// The whole table.
pub type Table = BTreeMap<Key, Figures>;

/// How long is measured.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Samples of a cell.
    pub repeat: u32,
    /// A cell that has taken this long gets no further one.
    pub cell: Duration,
    /// One sample, at most.
    pub sample: Duration,
    /// Then nothing more is begun.
    pub end: Option<Instant>,
    /// Samples of each cell that are thrown away first.
    pub warm_up: u32,
}

impl Limits {
    /// From the words.
    pub fn new(wanted: &Wanted) -> Limits {
        let minutes = wanted.minutes.or(wanted.quick.then_some(9.0));
        let (repeat, seconds, sample) = if wanted.quick {
            (3, 1.0, 30)
        } else {
            (5, 20.0, 900)
        };
        Limits {
            repeat: wanted.repeat.unwrap_or(repeat).max(1),
            cell: Duration::from_secs_f64(wanted.seconds.unwrap_or(seconds).max(0.0)),
            sample: Duration::from_secs(sample),
            end: minutes.map(|m| Instant::now() + Duration::from_secs_f64(m.max(0.0) * 60.0)),
            warm_up: u32::from(!wanted.quick),
        }
    }
}

/// What takes samples.
#[derive(Debug)]
pub struct Series<'a> {
    /// Where.
    pub place: &'a Workplace,
    /// What was asked for.
    pub wanted: &'a Wanted,
    /// How long.
    pub limits: Limits,
    /// The figures so far.
    pub table: Table,
}

/// Some cells that are measured side by side: one row, one way, one upper.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// Which row.
    pub row: &'a Row,
    /// Its index.
    pub index: usize,
    /// Who mounts and who asks.
    pub way: Way,
    /// Where the upper is.
    pub upper: Disk,
    /// What grows.
    pub x: u64,
    /// The lower layers' directory.
    pub material: &'a Path,
}

impl Series<'_> {
    /// Measures a row on all systems, in turn, the order moving by one each time.
    pub fn measure(&mut self, systems: &[System], group: Group<'_>) -> Outcome<()> {
        let rounds = self.limits.warm_up + self.limits.repeat;
        for round in 0..rounds {
            for i in 0..systems.len() {
                let at = (i + round as usize) % systems.len().max(1);
                let Some(system) = systems.get(at).copied() else {
                    continue;
                };
                self.one(system, group, round)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, system: System, group: Group<'_>, round: u32) -> Outcome<()> {
        let Group {
            way,
            upper,
            index: row,
            x,
            ..
        } = group;
        let key = Key {
            way,
            upper,
            row,
            x,
            system,
        };
        let known = self.table.entry(key).or_default();
        if known.trouble.is_some() || (!known.samples.is_empty() && known.spent >= self.limits.cell)
        {
            return Ok(());
        }
        if self.limits.end.is_some_and(|end| Instant::now() >= end) {
            if known.samples.is_empty() {
                known.trouble = Some(Trouble::Skipped("the time was up (--minutes)".into()));
            }
            return Ok(());
        }
        let start = Instant::now();
        let answer = self.sample(system, group)?;
        let figures = self.table.entry(key).or_default();
        figures.spent += start.elapsed();
        match answer {
            // A warm-up; but where one sample is all there is time for, it counts.
            Ok(_) if round < self.limits.warm_up && figures.spent * 4 < self.limits.cell => {}
            Ok(sample) => figures.samples.push(sample.each()),
            Err(trouble) => figures.trouble = Some(trouble),
        }
        Ok(())
    }

    fn sample(&self, system: System, group: Group<'_>) -> Outcome<Answer> {
        let below = match group.upper {
            Disk::Tmpfs => &self.place.tmpfs,
            Disk::Disk => &self.place.disk,
        };
        let cell = below.join("cell");
        for name in ["", "merged", "upper", "work"] {
            doing("make a cell", fs::create_dir(cell.join(name)))?;
            if group.way.is_users() {
                doing(
                    "chown",
                    std::os::unix::fs::chown(cell.join(name), Some(1000), Some(1000)),
                )?;
            }
        }
        let words = Cell {
            row: group.row.name.into(),
            system,
            way: group.way,
            cell: cell.clone(),
            material: group.material.to_owned(),
            programs: self.place.programs.clone(),
            lowers: self.wanted.lowers,
            options: self.wanted.options.clone(),
            x: group.x,
            quick: self.wanted.quick,
        };
        let mut command = group
            .way
            .enter(system, &self.place.programs.join("compare"));
        command.arg("agent").args(words.words());
        let answer = bounded(&mut command, self.limits.sample);
        run(Command::new("rm")
            .args(["-rf", "--one-file-system"])
            .arg(&cell))?;
        Ok(answer)
    }
}

/// Runs an agent; after a while it is ended, with all that it started.
fn bounded(command: &mut Command, limit: Duration) -> Answer {
    let agent = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut agent = doing("start the agent", agent)?;
    let deadline = Instant::now() + limit;
    let mut late = false;
    while agent.try_wait()?.is_none() {
        if Instant::now() > deadline && !late {
            late = true;
            end_group(&agent);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // Whatever an agent that died has left behind.
    end_group(&agent);
    if late {
        return failed(format!("no answer within {} s", limit.as_secs()));
    }
    match heard(&text_of(agent.stdout.take())) {
        Err(Trouble::Failed(why)) => {
            let said = text_of(agent.stderr.take());
            let said = said
                .lines()
                .last()
                .map(|l| format!(": {l}"))
                .unwrap_or_default();
            failed(format!("{why}{said}"))
        }
        answer => answer,
    }
}

fn end_group(agent: &Child) {
    let pid = i32::try_from(agent.id()).ok().and_then(Pid::from_raw);
    // ESRCH is what is hoped for: nobody is left.
    let _nobody_left = pid.map(|p| kill_process_group(p, Signal::KILL));
}

fn text_of(pipe: Option<impl Read>) -> String {
    let mut text = Vec::new();
    let _what_came = pipe.map(|mut p| p.read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

/// Installs the programs and this one; systems that are not here are said and left out.
pub fn install(place: &Workplace, systems: &[System]) -> Outcome<Vec<(System, String)>> {
    let own = place.programs.join("compare");
    doing("copy this program", fs::copy(std::env::current_exe()?, own))?;
    let mut found = Vec::new();
    for system in systems {
        match system.install(&place.programs) {
            Ok(version) => found.push((*system, version)),
            Err(Trouble::Skipped(why)) => eprintln!("SKIPPED: {why}"),
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// The rows that the words name, `NAME*` several; all where there is no word.
pub fn chosen(rows: Vec<Row>, words: &[String]) -> Outcome<Vec<Row>> {
    let fits = |row: &Row, word: &String| match word.strip_suffix('*') {
        Some(start) => row.name.starts_with(start),
        None => row.name == word,
    };
    if let Some(word) = words.iter().find(|w| !rows.iter().any(|r| fits(r, w))) {
        return failed(format!(
            "there is no row {word}: --list shows them, and NAME* takes several"
        ));
    }
    Ok(rows
        .into_iter()
        .filter(|r| words.is_empty() || words.iter().any(|w| fits(r, w)))
        .collect())
}

/// Prints the rows.
pub fn list(rows: &[Row]) {
    for row in rows {
        println!("{:<20} {}", row.name, row.says);
    }
}

/// The comparison.
pub fn compare(host: &Host, wanted: &Wanted) -> Outcome<()> {
    let rows = chosen(all(), &wanted.rows)?;
    if wanted.list {
        list(&rows);
        return Ok(());
    }
    let wanted = &wanted.or(&System::ALL, &Way::ALL);
    let place = Workplace::new(host, &wanted.dir)?;
    let installed = install(&place, &wanted.systems)?;
    let systems: Vec<_> = installed.iter().map(|(s, _)| *s).collect();
    let material = make_material(&place, &rows, wanted)?;
    let mut series = Series {
        place: &place,
        wanted,
        limits: Limits::new(wanted),
        table: Table::new(),
    };
    for way in &wanted.ways {
        for upper in &wanted.uppers {
            for (index, row) in rows.iter().enumerate() {
                eprintln!("{} {} {}", way.name(), upper.name(), row.name);
                let material = &trees::of_owner(&material, way.is_users());
                series.measure(
                    &systems,
                    Group {
                        row,
                        index,
                        way: *way,
                        upper: *upper,
                        x: 0,
                        material,
                    },
                )?;
            }
        }
    }
    let report = report::Report {
        rows: &rows,
        systems: &installed,
        table: &series.table,
        quick: wanted.quick,
    };
    print!("{}", report.text());
    write(wanted.json.as_deref(), &report.json()?)?;
    write(wanted.svg.as_deref(), &chart::svg(&report))
}

/// Writes a file that was asked for.
pub fn write(path: Option<&Path>, text: &str) -> Outcome<()> {
    path.map_or(Ok(()), |p| {
        doing(&format!("write {}", p.display()), fs::write(p, text))
    })
}

fn make_material(place: &Workplace, rows: &[Row], wanted: &Wanted) -> Outcome<PathBuf> {
    eprintln!("making the lower layers in {}", place.disk.display());
    let material = place.disk.join("material");
    let mut parts: Vec<_> = rows.iter().flat_map(|r| r.parts).copied().collect();
    parts.sort();
    parts.dedup();
    let users = wanted.ways.iter().any(|w| w.is_users());
    let layers = rows
        .iter()
        .filter_map(|r| {
            if let Kind::Mounting(n) = r.kind {
                Some(n)
            } else {
                None
            }
        })
        .max();
    trees::many_layers(&trees::of_owner(&material, false), layers.unwrap_or(0))?;
    trees::make(&material, &parts, wanted.lowers, wanted.quick, users)?;
    Ok(material)
}
