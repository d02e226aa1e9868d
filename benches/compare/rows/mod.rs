//! What is measured: the table of rows, and the process that measures one of them on a mount.

mod changes;
mod data;
mod growth;
mod names;
mod programs;
mod reading;
mod upward;

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use super::args::Cell;
use super::host::{Outcome, Trouble};
use super::systems::{System, Way};
use super::trees::{Amounts, Part};

/// What one sample found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Nanoseconds, or bytes.
    pub amount: f64,
    /// By how many operations it is divided.
    pub ops: u64,
}

impl Sample {
    /// For each operation.
    pub fn each(self) -> f64 {
        self.amount / self.ops.max(1) as f64
    }
}

/// What a row gives.
pub type Answer = Outcome<Sample>;

/// Who measures it.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A client on a mount that stands.
    Client(fn(&Client) -> Answer),
    /// The agent: the time until the mount of as many layers answers.
    Mounting(u64),
    /// The agent: the daemon's memory per inode after a client; in kernel's memory pressure or not.
    Memory(fn(&Client) -> Answer, After),
}

/// When the daemon's memory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Right after the client.
    Client,
    /// After `drop_caches`.
    DropCaches,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What one operation is.
    pub says: &'static str,
    /// What it counts.
    pub unit: &'static str,
    /// What of the lower it needs.
    pub parts: &'static [Part],
    /// Whether it changes these parts: a plain directory then gets copies of them.
    pub changes: Changes,
    /// Further mount words.
    pub options: &'static str,
    /// Who measures it.
    pub kind: Kind,
}

/// Whether a row changes what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Changes {
    Nothing,
    Parts,
}

/// A row that only reads.
pub const fn reads(
    name: &'static str,
    says: &'static str,
    parts: &'static [Part],
    act: fn(&Client) -> Answer,
) -> Row {
    let kind = Kind::Client(act);
    Row {
        name,
        says,
        unit: "ns",
        parts,
        changes: Changes::Nothing,
        options: "",
        kind,
    }
}

/// A row that changes its parts.
pub const fn changes(
    name: &'static str,
    says: &'static str,
    parts: &'static [Part],
    act: fn(&Client) -> Answer,
) -> Row {
    let kind = Kind::Client(act);
    Row {
        name,
        says,
        unit: "ns",
        parts,
        changes: Changes::Parts,
        options: "",
        kind,
    }
}

const fn mounting(name: &'static str, says: &'static str, layers: u64) -> Row {
    let kind = Kind::Mounting(layers);
    Row {
        name,
        says,
        unit: "ns",
        parts: &[],
        changes: Changes::Nothing,
        options: "",
        kind,
    }
}

const MOUNTS: [Row; 2] = [
    mounting("mount-3", "mount of 3 lowers until it answers", 3),
    mounting("mount-500", "mount of 500 lowers until it answers", 500),
];

/// All rows of the comparison, in order.
pub fn all() -> Vec<Row> {
    let families: [&[Row]; 7] = [
        &MOUNTS,
        names::ROWS,
        reading::ROWS,
        changes::ROWS,
        data::ROWS,
        programs::ROWS,
        upward::ROWS,
    ];
    families.into_iter().flatten().copied().collect()
}

/// All rows of growth.
pub fn growing() -> Vec<Row> {
    growth::ROWS.to_vec()
}

/// The row of a name.
pub fn find(name: &str) -> Outcome<Row> {
    let found = all().into_iter().chain(growing()).find(|r| r.name == name);
    found.ok_or_else(|| Trouble::Failed(format!("there is no row {name}: --list shows them")))
}

/// The process that measures.
#[derive(Debug)]
pub struct Client {
    /// The mount's root.
    pub root: PathBuf,
    /// Who serves it.
    pub system: System,
    /// Who asks.
    pub way: Way,
    /// How much of everything.
    pub n: Amounts,
    /// What grows.
    pub x: u64,
}

impl Client {
    /// A part's directory on the mount; where it could not be made, the reason.
    pub fn part(&self, part: Part) -> Outcome<PathBuf> {
        let path = self.root.join(part.name());
        match std::fs::read_to_string(path.join("SKIPPED")) {
            Ok(why) => Err(Trouble::Skipped(why)),
            Err(_) => Ok(path),
        }
    }

    /// An empty directory of the client's own.
    pub fn own_dir(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.part(Part::Work)?.join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }
}

/// Times one loop.
pub fn timed(ops: u64, f: impl FnOnce() -> Outcome<()>) -> Answer {
    let start = Instant::now();
    f()?;
    Ok(Sample {
        amount: start.elapsed().as_nanos() as f64,
        ops,
    })
}

/// Times a loop over names made before.
pub fn timed_names(
    names: &[CString],
    mut f: impl FnMut(&std::ffi::CStr) -> rustix::io::Result<()>,
) -> Answer {
    timed(names.len() as u64, || {
        for name in names {
            f(name)?;
        }
        Ok(())
    })
}

/// `prefix0`, `prefix1`, ...
pub fn numbered(prefix: &str, count: u64) -> Vec<CString> {
    (0..count)
        .filter_map(|i| CString::new(format!("{prefix}{i}")).ok())
        .collect()
}

/// The client's `main`: one line, `ok AMOUNT OPS`, `skipped WHY` or `failed WHY`.
pub fn run(cell: &Cell) -> ExitCode {
    let answer = find(&cell.row).and_then(|row| {
        let client = Client {
            root: root_of(cell),
            system: cell.system,
            way: cell.way,
            n: Amounts::new(cell.quick),
            x: cell.x,
        };
        match row.kind {
            Kind::Client(act) | Kind::Memory(act, _) => act(&client),
            Kind::Mounting(_) => Err(Trouble::Failed("the agent measures this row".into())),
        }
    });
    say(&answer);
    ExitCode::SUCCESS
}

fn root_of(cell: &Cell) -> PathBuf {
    // Where a plain directory is only read, the lower itself is that directory.
    let note = cell.cell.join("instead");
    std::fs::read_to_string(note)
        .map_or_else(|_| cell.cell.join("merged"), |p| Path::new(&p).to_owned())
}

/// Prints an answer for the process that asked.
pub fn say(answer: &Answer) {
    match answer {
        Ok(s) => println!("ok {} {}", s.amount, s.ops),
        Err(Trouble::Skipped(why)) => println!("skipped {}", why.replace('\n', " ")),
        Err(Trouble::Failed(why)) => println!("failed {}", why.replace('\n', " ")),
    }
}

/// Reads what [`say`] printed.
pub fn heard(text: &str) -> Answer {
    let line = text.lines().last().unwrap_or_default();
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "ok" => {
            let numbers = rest
                .split_once(' ')
                .and_then(|(a, n)| Some((a.parse().ok()?, n.parse().ok()?)));
            let (amount, ops) =
                numbers.ok_or_else(|| Trouble::Failed(format!("not an answer: {line}")))?;
            Ok(Sample { amount, ops })
        }
        "skipped" => Err(Trouble::Skipped(rest.into())),
        "failed" => Err(Trouble::Failed(rest.into())),
        _ => Err(Trouble::Failed(
            "the measuring process ended without an answer".into(),
        )),
    }
}
