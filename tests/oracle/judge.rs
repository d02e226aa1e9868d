//! One case on two mounts: same layers, same steps, and every outcome and tree compared.

use std::collections::BTreeMap;

use super::intended::{
    Difference, intended, left_out, moves_mtimes_for_nothing, refused_by_the_kernel,
};
use super::ops::{Case, Step, Then};
use super::stack;
use super::watchdog;
use super::world::{Shown, World, when_seen};
use crate::support::snapshot::Object;
use crate::support::{Base, Facets, Kind, Layers, Mount, Snapshot, diff_with};

/// How both sides are mounted.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What this is called in messages.
    pub name: &'static str,
    /// Who is right.
    pub reference: (Kind, &'static str),
    /// Who is tested.
    pub subject: (Kind, &'static str),
    /// The prefix of overlay attributes in layers.
    pub marks: &'static str,
    /// Several users can act.
    pub users: bool,
    /// At the end each side's upper is mounted by the other.
    pub cross: bool,
    /// Modification times of files are compared.
    pub file_times: bool,
    /// Link counts are compared, and which names are one file.
    pub links: bool,
    /// At least and at most so many lower layers.
    pub lowers: (usize, usize),
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Steps run on both sides.
    pub steps: u64,
    /// Of these, steps that succeeded on the reference.
    pub succeeded: u64,
    /// Trees compared.
    pub trees: u64,
    /// Per operation: how many, and how many succeeded on the reference.
    pub by_op: BTreeMap<String, (u64, u64)>,
    /// Intended differences met, by name: how often, and the reason.
    pub intended: BTreeMap<&'static str, (u64, &'static str)>,
}

impl Tally {
    fn left_out(&mut self, name: &'static str) {
        self.intended
            .entry(name)
            .or_insert((0, "not run on the subject"))
            .0 += 1;
    }
}

/// A difference that is not intended.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind, without the particulars: shrinking keeps it.
    pub class: String,
    /// The particulars.
    pub text: String,
}

/// Not a difference: somebody else's mount namespace holds a copy of a mount that was just taken down.
pub const BUSY: &str = "the kernel calls the upper busy";

/// Dropped in this order: descriptors, mounts, directories.
struct Pair {
    setup: Setup,
    timed: bool,
    /// Whether mtimes of directories are compared: see `intended::moves_mtimes_for_nothing`.
    dir_times: bool,
    worlds: [Option<World>; 2],
    mounts: [Option<Mount>; 2],
    layers: [Layers; 2],
    /// Directories that former uppers live in.
    kept: Vec<Layers>,
}

/// Runs a case; adds what it did to `tally`.
pub fn run_case(case: &Case, setup: Setup, base: Base, tally: &mut Tally) -> Result<(), Failure> {
    let first = Layers::new(base, case.layers.len());
    for (i, items) in case.layers.iter().enumerate() {
        stack::build(&first.lowers[i], items, i, setup.marks);
    }
    let second = first.sibling(base);
    for layers in [&first, &second] {
        fresh_upper(layers);
    }
    let mut pair = Pair {
        setup,
        timed: case.timed && setup.file_times,
        dir_times: true,
        layers: [first, second],
        mounts: [None, None],
        worlds: [None, None],
        kept: vec![],
    };
    watchdog::begin();
    let result = pair.run(case, tally);
    watchdog::end();
    result
}

fn fresh_upper(layers: &Layers) {
    use std::os::unix::fs::PermissionsExt;
    // Ordinary users may create in the root of the mount.
    std::fs::set_permissions(&layers.upper, std::fs::Permissions::from_mode(0o777)).unwrap();
}

impl Pair {
    fn run(&mut self, case: &Case, tally: &mut Tally) -> Result<(), Failure> {
        self.mount()?;
        self.compare("at the start", tally)?;
        for (i, (steps, then)) in case.batches.iter().enumerate() {
            for step in steps {
                self.step(step, tally)?;
            }
            let trees = self.compare(&format!("after batch {i}"), tally)?;
            match then {
                Then::GoOn => {}
                // A plain directory has no layers, and its root no upper that could be exchanged.
                _ if self.setup.reference.0 == Kind::Plain => self.remount(&trees, tally)?,
                Then::Remount => self.remount(&trees, tally)?,
                Then::PushOwn | Then::PushReference => self.push(*then, tally)?,
            }
        }
        let trees = self.compare("at the end", tally)?;
        self.remount(&trees, tally)?;
        if self.setup.cross {
            self.cross(&trees, tally)?;
        }
        self.unmount()
    }

    fn mount(&mut self) -> Result<(), Failure> {
        for i in 0..2 {
            let (kind, options) = if i == 0 {
                self.setup.reference
            } else {
                self.setup.subject
            };
            self.mount_as(i, kind, options)?;
        }
        Ok(())
    }

    fn mount_as(&mut self, i: usize, kind: Kind, options: &str) -> Result<(), Failure> {
        let mounted = Mount::try_with(kind, &self.layers[i], options);
        let side = ["reference", "subject"][i];
        let mount = mounted.map_err(|e| Failure {
            class: match &e {
                e if kind == Kind::Kernel && e.raw_os_error() == Some(libc::EBUSY) => {
                    BUSY.to_owned()
                }
                _ => format!("mount of the {side}'s layers by {kind:?} fails"),
            },
            text: format!("{side}, {kind:?} with {options:?}: {e}"),
        })?;
        watchdog::watch(mount.pid());
        self.worlds[i] = Some(World::new(&mount.point, kind, self.shown()));
        self.mounts[i] = Some(mount);
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), Failure> {
        self.worlds = [None, None];
        for mount in &mut self.mounts {
            if let Some(mount) = mount.take() {
                let who = mount.kind;
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| mount.unmount()))
                    .map_err(|e| Failure {
                        class: format!("unmount of {who:?}"),
                        text: e.downcast_ref::<String>().cloned().unwrap_or_default(),
                    })?;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step, tally: &mut Tally) -> Result<(), Failure> {
        let [Some(reference), Some(subject)] = &mut self.worlds else {
            unreachable!("both are mounted")
        };
        if let Some(name) = left_out(step, self.setup.reference.0) {
            tally.left_out(name);
            return Ok(());
        }
        if self.setup.reference.0 == Kind::Kernel && reference.would_hit_the_orphan_bug(step) {
            tally.left_out("kernel-orphans");
            return Ok(());
        }
        let (directory, read_only) = (reference.is_directory(step), reference.is_read_only(step));
        let orphan = reference.changes_an_orphan(step);
        let expected = reference.run(step);
        if let Some(name) = refused_by_the_kernel(step, &expected, self.setup.reference.0) {
            tally.left_out(name);
            return Ok(());
        }
        let actual = subject.run(step);
        self.dir_times &= !moves_mtimes_for_nothing(step, &expected, self.setup.reference.0);
        tally.steps += 1;
        tally.succeeded += u64::from(expected.errno == 0);
        let op = format!("{:?}", step.op);
        let op = op.split([' ', '{']).next().unwrap_or_default();
        let counts = tally.by_op.entry(op.to_owned()).or_default();
        *counts = (counts.0 + 1, counts.1 + u64::from(expected.errno == 0));
        if expected == actual {
            return Ok(());
        }
        if let Some(known) = intended(&Difference {
            step,
            reference: self.setup.reference.0,
            orphan,
            directory,
            read_only,
            expected: &expected,
            actual: &actual,
        }) {
            tally
                .intended
                .entry(known.name)
                .or_insert((0, known.reason))
                .0 += 1;
            if orphan {
                // What is open differs now; no name does.
                reference.close_all();
                subject.close_all();
            }
            return Ok(());
        }
        Err(Failure {
            class: format!("{op}: errno {} is {}", expected.errno, actual.errno),
            text: format!("{step:?}\n  expected: {expected}\n  actual:   {actual}"),
        })
    }

    fn compare(&mut self, when: &str, tally: &mut Tally) -> Result<[Snapshot; 2], Failure> {
        tally.trees += 2;
        let trees = [0, 1].map(|i| self.tree(i));
        self.same(&trees[0], &trees[1], "reference and subject", when)?;
        Ok(trees)
    }

    fn remount(&mut self, before: &[Snapshot; 2], tally: &mut Tally) -> Result<(), Failure> {
        self.unmount()?;
        self.mount()?;
        tally.trees += 2;
        for (i, before) in before.iter().enumerate() {
            let after = self.tree(i);
            let who = [
                "the reference before and after",
                "the subject before and after",
            ][i];
            self.same(before, &after, who, "a remount")?;
        }
        Ok(())
    }

    fn cross(&mut self, before: &[Snapshot; 2], tally: &mut Tally) -> Result<(), Failure> {
        self.unmount()?;
        self.mount_as(0, self.setup.subject.0, self.setup.subject.1)?;
        self.mount_as(1, self.setup.reference.0, self.setup.reference.1)?;
        tally.trees += 2;
        for (i, before) in before.iter().enumerate() {
            let after = self.tree(i);
            let who = [
                "the reference's upper read by the subject",
                "the subject's upper read by the reference",
            ][i];
            self.same(before, &after, who, "crossing")?;
        }
        Ok(())
    }

    fn shown(&self) -> Shown {
        Shown {
            moved: self.timed,
            file_times: self.setup.file_times,
            links: self.setup.links,
        }
    }

    fn same(&self, a: &Snapshot, b: &Snapshot, who: &str, when: &str) -> Result<(), Failure> {
        same(
            a,
            b,
            Facets {
                mtimes: self.setup.file_times,
                dir_mtimes: self.dir_times,
                links: self.setup.links,
                ..Facets::REMOUNT
            },
            who,
            when,
        )
    }

    /// The merged tree of one side, without what two mounts cannot have in common.
    fn tree(&self, i: usize) -> Snapshot {
        let mut tree = Snapshot::of(&self.layers[i].merged);
        // Two mounts are not used at the same instant: all times of this run become one value. Times that were set
        // stay exact.
        for Object { kind, mtime, .. } in tree.objects.values_mut() {
            if when_seen(mtime.0, mtime.1) == "now" {
                *mtime = (i64::MAX, 0);
            }
            // See `world::describe`.
            if *kind == 'p' {
                *mtime = (0, 0);
            }
        }
        if self.mounts[i]
            .as_ref()
            .is_some_and(|m| m.kind == Kind::Kernel)
        {
            tree = tree.forgive_the_kernel();
        }
        tree
    }

    fn push(&mut self, then: Then, tally: &mut Tally) -> Result<(), Failure> {
        self.unmount()?;
        let base = if self.layers[0].root.starts_with("/dev/shm") {
            Base::Shm
        } else {
            Base::Disk
        };
        let new = [0, 1].map(|i| {
            let from = if then == Then::PushReference { 0 } else { i };
            let mut layers = self.layers[i].sibling(base);
            layers.lowers = self.layers[from].lowers.clone();
            layers.lowers.insert(0, self.layers[from].upper.clone());
            fresh_upper(&layers);
            layers
        });
        self.kept.extend(std::mem::replace(&mut self.layers, new));
        self.mount()?;
        self.compare("with the upper as a lower", tally)?;
        Ok(())
    }
}

fn same(a: &Snapshot, b: &Snapshot, facets: Facets, who: &str, when: &str) -> Result<(), Failure> {
    let lines = diff_with(a, b, facets);
    let Some(first) = lines.first() else {
        return Ok(());
    };
    // The kind of the first difference, without names and numbers.
    let kind = first
        .trim_start_matches("first tree: ")
        .trim_start_matches("second tree: ");
    let kind = kind.split_once(": ").map_or(kind, |(_, what)| what);
    let kind = kind
        .split_whitespace()
        .take(2)
        .filter(|w| !w.contains(|c: char| c.is_ascii_digit()));
    Err(Failure {
        class: format!("tree, {who}: {}", kind.collect::<Vec<_>>().join(" ")),
        text: format!("trees differ {when}: {who}\n  {}", lines.join("\n  ")),
    })
}
