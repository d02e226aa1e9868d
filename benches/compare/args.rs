//! The words of the command line.

use std::path::PathBuf;

use clap::{Args as Words, Parser, Subcommand};

use super::systems::{Disk, System, Way};

/// How long operations take on acetate, on its peers, on kernel overlayfs and on a plain directory.
#[derive(Debug, Parser)]
#[command(name = "compare", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Another thing to do than to compare.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// What is compared.
    #[command(flatten)]
    pub wanted: Wanted,
}

/// What else this program does.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// How cost grows: layers, entries, depth, threads, known inodes, descriptors
    Scale(Wanted),
    /// FUSE requests, system calls and CPU time of operations
    Profile(Operations),
    /// One sample; this program calls itself with it
    #[command(hide = true)]
    Agent(Cell),
    /// The measuring part of a sample
    #[command(hide = true)]
    Client(Cell),
    /// Mounts what is nothing but FUSE (`floor.rs`)
    #[command(hide = true)]
    Floor(FloorWords),
}

/// What is to be measured, and how long.
#[derive(Debug, Clone, Words)]
pub struct Wanted {
    /// Only these rows; NAME* takes several
    #[arg(long, value_delimiter = ',')]
    pub rows: Vec<String>,
    /// Systems to measure [default: all; scale: kernel,acetate]
    #[arg(long, value_delimiter = ',')]
    pub systems: Vec<System>,
    /// Ways to mount and to ask [default: all; scale: root]
    #[arg(long, value_delimiter = ',')]
    pub ways: Vec<Way>,
    /// Where the upper layer lies
    #[arg(long, value_delimiter = ',', default_value = "tmpfs")]
    pub uppers: Vec<Disk>,
    /// Samples of each cell, at most [default: 5; --quick: 3]
    #[arg(long)]
    pub repeat: Option<u32>,
    /// No further sample of a cell that took this long [default: 20; --quick: 1]
    #[arg(long)]
    pub seconds: Option<f64>,
    /// No further sample after this long; cells without any say so [default: none; --quick: 9]
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Lower layers below the tree's own, each nearly empty
    #[arg(long, default_value_t = 2)]
    pub lowers: u32,
    /// Small trees and few samples: all systems in under ten minutes
    #[arg(long)]
    pub quick: bool,
    /// Further mount words for acetate
    #[arg(long, default_value = "")]
    pub options: String,
    /// Directory on a disk to work in
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// Where the figures go as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Where the chart goes
    #[arg(long)]
    pub svg: Option<PathBuf>,
    /// List the rows and do nothing
    #[arg(long)]
    pub list: bool,
    /// Cargo gives this word to every benchmark
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// What is to be profiled.
#[derive(Debug, Clone, Words)]
pub struct Operations {
    /// Operations; none means all
    pub operations: Vec<String>,
    /// How often each is done
    #[arg(long, default_value_t = 500)]
    pub count: u64,
    /// Further mount words
    #[arg(long, default_value = "")]
    pub options: String,
    /// Directory on a disk to work in
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// Where the figures go as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Cargo gives this word to every benchmark
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// A mount by `floor.rs`.
#[derive(Debug, Clone, Words)]
pub struct FloorWords {
    /// In the foreground: the only way.
    #[arg(short)]
    pub foreground: bool,
    /// The mount words of an overlay.
    #[arg(short)]
    pub options: String,
    /// Where.
    pub point: PathBuf,
}

/// One sample, as the agent and the client are told of it.
#[derive(Debug, Clone, Words)]
pub struct Cell {
    /// The row's name.
    #[arg(long)]
    pub row: String,
    /// Who serves.
    #[arg(long)]
    pub system: System,
    /// Who mounts and who asks.
    #[arg(long)]
    pub way: Way,
    /// A directory of this sample's own: `merged`, `upper`, `work`.
    #[arg(long)]
    pub cell: PathBuf,
    /// The lower layers' parent directory.
    #[arg(long)]
    pub material: PathBuf,
    /// Where the programs are.
    #[arg(long)]
    pub programs: PathBuf,
    /// Nearly empty lowers above the tree.
    #[arg(long, default_value_t = 2)]
    pub lowers: u32,
    /// Further mount words for acetate.
    #[arg(long, default_value = "")]
    pub options: String,
    /// What grows, in `scale`.
    #[arg(long, default_value_t = 0)]
    pub x: u64,
    /// Small amounts.
    #[arg(long)]
    pub quick: bool,
}

impl Wanted {
    /// With the systems and ways that are meant where none was named.
    pub fn or(&self, systems: &[System], ways: &[Way]) -> Wanted {
        let mut filled = self.clone();
        if filled.systems.is_empty() {
            filled.systems = systems.to_vec();
        }
        if filled.ways.is_empty() {
            filled.ways = ways.to_vec();
        }
        filled
    }
}

impl Cell {
    /// The words that say the same.
    pub fn words(&self) -> Vec<std::ffi::OsString> {
        let pairs: [(&str, std::ffi::OsString); 9] = [
            ("--row", self.row.clone().into()),
            ("--system", self.system.name().into()),
            ("--way", self.way.name().into()),
            ("--cell", self.cell.clone().into()),
            ("--material", self.material.clone().into()),
            ("--programs", self.programs.clone().into()),
            ("--lowers", self.lowers.to_string().into()),
            ("--options", self.options.clone().into()),
            ("--x", self.x.to_string().into()),
        ];
        let mut words: Vec<_> = pairs
            .into_iter()
            .flat_map(|(word, value)| [word.into(), value])
            .collect();
        if self.quick {
            words.push("--quick".into());
        }
        words
    }
}
