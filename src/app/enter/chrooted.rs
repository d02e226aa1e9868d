//! A command in a plain tree where no namespace can be had (root of a container without
//! CAP_SYS_ADMIN): by chroot(2) alone.
//!
//! ```text
//! acetate            passes signals on, waits
//! └─ keeper          parent of whatever loses its own; makes devices, takes them away
//!    └─ COMMAND      the tree as root
//! ```
//!
//! * Nothing is mounted: /proc, /sys and /tmp are what the tree has. Devices that /dev
//!   lacks are made as nodes, as far as that is allowed, and taken away again.
//! * Without a PID namespace the keeper adopts what the command leaves behind and kills
//!   it, so that the tree is at rest when the run is over. It outlives a kill -9 of
//!   `acetate` for as long as that takes; a kill -9 of the keeper itself leaves the
//!   devices, and what the command has started.
//! * The command has no descriptor and no directory outside of the tree, and no right to
//!   another chroot(2). Against root's other rights that is no wall.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::init::{self, Takes};
use super::tell::{self, Tell};
use super::{CANNOT, Ended, Entry, Hindered, Job, NotRun, Tree};
use super::{attend, no_process, prepare_to_attend};
use crate::store::failure::{Failure, FailureKind, Outcome, reason};
use crate::sys::process::{self, ByteReader, Fork};
use crate::sys::relay::{self, Pid};
use crate::sys::{Errno, brood, chroot, dir, namespace, places};

/// How long what the command left behind may take to end once it is killed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A run that needs no namespace.
pub(super) struct Chrooted {
    tree: PathBuf,
    job: Job,
    /// Paths in the tree at which something of the host was to be seen.
    binds: Vec<PathBuf>,
}

impl Chrooted {
    /// That of a plain tree as root; `None` for every other.
    pub(super) fn of(tree: &Tree, entry: &Entry, job: &Job) -> Option<Chrooted> {
        match (tree, entry) {
            (Tree::Plain(path), Entry::AsRoot(binds)) => Some(Chrooted {
                tree: path.clone(),
                job: job.clone(),
                binds: binds.iter().map(|bind| bind.target.clone()).collect(),
            }),
            _ => None,
        }
    }

    /// Runs the command and waits for its end; `why` is what kept it from namespaces.
    pub(super) fn run(self, why: Failure) -> Result<Ended, NotRun> {
        if let Some(hint) = self.hindrance() {
            let hint = match why.hint.is_empty() {
                true => hint,
                false => format!("{hint}; {}", why.hint),
            };
            return Err(Failure { hint, ..why }.into());
        }
        tracing::debug!("no namespaces, chroot(2) instead: {why}");
        let (heard, tell) = tell::channel().map_err(no_process)?;
        let (go, may_go) = process::byte_pipe().map_err(no_process)?;
        let parent = brood::own_number();
        prepare_to_attend();
        let keeper = match process::fork() {
            Ok(Fork::Child) => {
                drop((heard, may_go));
                self.keep(parent, tell, go)
            }
            Ok(Fork::Parent(pid)) => pid,
            Err(e) => {
                relay::release();
                return Err(no_process(e).into());
            }
        };
        drop((tell, go));
        attend(keeper, may_go, heard).map_err(|hindered| match hindered {
            Hindered::NoNamespaces(failure) => failure.into(),
            Hindered::Otherwise(why) => why,
        })
    }

    /// Why chroot(2) will not do either.
    fn hindrance(&self) -> Option<String> {
        if let Some(path) = self.binds.first() {
            return Some(format!(
                "chroot(2) would do without --bind: nothing can be mounted at {}",
                path.display()
            ));
        }
        (!process::may_chroot())
            .then(|| "chroot(2) would do, but needs CAP_SYS_CHROOT, which is not there".to_owned())
    }

    /// All of the keeper's life.
    fn keep(self, parent: Pid, mut tell: Tell, mut go: ByteReader) -> ! {
        let bound = brood::hear_of_parent().and_then(|()| brood::adopt());
        // Where the parent is gone already nobody says so.
        if go.wait().is_none() {
            process::leave(i32::from(CANNOT));
        }
        drop(go);
        let ended = bound
            .map_err(|e| Failure::system(Path::new("this process"), "be bound to its parent", e))
            .and_then(|()| self.within(parent, &mut tell));
        let code = ended.unwrap_or_else(|failure| {
            tell.failed(failure);
            CANNOT
        });
        process::leave(i32::from(code))
    }

    /// The command's whole life, and the end of all that it leaves behind.
    fn within(&self, parent: Pid, tell: &mut Tell) -> Outcome<u8> {
        let failed = |e| Failure::system(&self.tree, "be entered", e);
        let root = dir::open_root(&self.tree).map_err(failed)?;
        let takes = match Takes::of(self.job.user) {
            Takes::Names(uid, gid) => return Err(unknown(uid, gid)),
            takes => takes,
        };
        let (made, missing) = places::make_devices(std::os::fd::AsFd::as_fd(&root));
        tell.warn(warning(&missing));
        let ended = match process::fork() {
            Ok(Fork::Child) => self.begin(root, takes, tell),
            Ok(Fork::Parent(command)) => {
                let code = relay::until_end_below(command, parent);
                // Nobody is left who would be told where the parent has ended.
                brood::end_all(PATIENCE)
                    .map(|()| code.unwrap_or(CANNOT))
                    .map_err(|e| self.not_at_rest(e))
            }
            Err(e) => Err(no_process(e)),
        };
        places::take_away(made);
        ended
    }

    /// Becomes the command.
    fn begin(&self, root: OwnedFd, takes: Takes, tell: &mut Tell) -> ! {
        // Taken off again where the program is another user's or has more rights.
        crate::sys::best_effort("end with the keeper", namespace::die_with_parent());
        let (code, failure) = match chroot::enter(root, tell.number()) {
            Ok(()) => init::execute(&self.job, takes),
            Err(e) => {
                let what = format!(
                    "{} cannot become the root directory: {}",
                    self.tree.display(),
                    reason(e)
                );
                let hint = "a seccomp filter may forbid chroot(2)";
                (CANNOT, Failure::new(FailureKind::Mount, what, hint))
            }
        };
        tell.not_run(code, failure);
        process::leave(i32::from(code))
    }

    fn not_at_rest(&self, e: Errno) -> Failure {
        Failure::new(
            FailureKind::InUse,
            format!(
                "processes that the command has left in {} could not be ended: {}",
                self.tree.display(),
                reason(e)
            ),
            "end them before the tree is used",
        )
    }
}

fn unknown(uid: u32, gid: u32) -> Failure {
    Failure::new(
        FailureKind::General,
        format!(
            "the command cannot be run as user {uid} and group {gid}: this host does not know both"
        ),
        "without a namespace of its own the command can have only ids that are known here",
    )
}

fn warning(missing: &[String]) -> String {
    let mut text = "no namespaces can be had here: the command was run by chroot(2) alone, \
         which is no wall against a hostile one; /proc, /sys and /tmp are what the tree has"
        .to_owned();
    if !missing.is_empty() {
        text.push_str(", and there is no ");
        text.push_str(&missing.join(", "));
    }
    text
}
