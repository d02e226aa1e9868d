//! Mounting: from a request to a process that serves, and to its end.
//!
//! The process that was called forks before it does anything else. The child
//! does all of the work, from opening the layers to priming the mount, and
//! says through a pipe how it went; only then does the parent exit. So there
//! is one process whose descriptors, namespaces and locks matter, and a caller
//! that waits for us (podman, mount(8)) finds a mount that serves.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fuse::adapter::Adapter;
use crate::fuse::attach::{self, Attached, Look, Place, Refusal};
use crate::fuse::fence::{Fence, Owners};
use crate::fuse::session::{self, Manner};
use crate::overlay::Overlay;
use crate::overlay::options::Options;
use crate::overlay::setup::SetupError;
use crate::sys::features::Hidden;
use crate::sys::mount::{self, MountFlags, reason};
use crate::sys::process::{self, ByteWriter, Fork, ReadySocket};
use crate::sys::signal;

use super::layers::{self, Held};

/// Where the serving process stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// In the background, once the mount serves.
    Background,
    /// In the foreground, until it is unmounted.
    Foreground,
}

/// A mount to be made.
#[derive(Debug, Clone)]
pub struct Request {
    /// For the engine.
    pub options: Options,
    /// Where.
    pub mountpoint: PathBuf,
    /// First column of /proc/mounts.
    pub source: OsString,
    /// The type is `fuse.` and this.
    pub subtype: String,
    /// `nodev` and so on; `ro` is in the options.
    pub flags: MountFlags,
    /// SELinux contexts.
    pub contexts: Vec<(String, OsString)>,
    /// What the kernel is not asked for.
    pub hidden: Hidden,
    /// Foreground or background.
    pub stay: Stay,
    /// The mount namespace to mount in, if another one.
    pub namespace: Option<PathBuf>,
    /// Whether the daemon gives up what it does not need.
    pub fence: bool,
    /// Files of side records, each with the lower that it belongs to, from 0.
    pub beside: Vec<(usize, PathBuf)>,
}

/// How a mount tells its story; the command line prints it.
pub trait Report {
    /// Something the user should know; the mount goes on.
    fn warn(&self, sentence: &str);
    /// The mount failed. Returns the exit code for it.
    fn failed(&self, error: &SetupError) -> u8;
    /// Starts logging, in the process that serves.
    fn start_log(&self);
}

/// Makes the mount. In the foreground this returns at its end, in the
/// background once it serves. The value is the exit code.
///
/// For a program that does nothing else: it closes every descriptor above 2,
/// changes directory and umask, and may fork.
pub fn mount(mut request: Request, report: &dyn Report) -> u8 {
    request.hidden.hide();
    // Before anything else is opened: see close_inherited.
    let inherited = layers::named_descriptors(&request.options, &request.mountpoint);
    process::close_inherited(&inherited);
    process::close_on_exec(&inherited);
    signal::restore_child_signal();

    let prepared = prepare(&mut request);
    match (prepared, request.stay) {
        (Err(e), _) => report.failed(&e),
        (Ok(()), Stay::Foreground) => {
            let socket = ReadySocket::from_environment();
            let ready = || {
                socket.tell();
                true
            };
            match serve(request, report, ready) {
                Ok(()) => 0,
                Err(e) => report.failed(&e),
            }
        }
        (Ok(()), Stay::Background) => in_background(request, report),
    }
}

/// What needs the caller's directory and namespace. Entering a namespace
/// changes the directory, so paths are made absolute before.
fn prepare(request: &mut Request) -> Result<(), SetupError> {
    layers::make_absolute(&mut request.options)?;
    layers::read_beside(&mut request.options, &request.beside)?;
    request.mountpoint = std::path::absolute(&request.mountpoint).map_err(|e| {
        SetupError::new(
            format!("the mount point cannot be made an absolute path: {e}"),
            "give an absolute path",
        )
    })?;
    if let Some(namespace) = &request.namespace {
        process::enter_mount_namespace(namespace).map_err(|e| {
            SetupError::new(
                format!(
                    "the mount namespace {} cannot be entered: {e}",
                    namespace.display()
                ),
                "this needs root",
            )
        })?;
    }
    layers::check(&mut request.options)
}

fn in_background(request: Request, report: &dyn Report) -> u8 {
    let no_process = |what: &str, e| {
        SetupError::new(
            format!(
                "the serving process could not be started: {what}: {}",
                reason(e)
            ),
            "the limit of processes (ulimit -u) or of descriptors (ulimit -n) may be reached",
        )
    };
    let (mut result, tell) = match process::byte_pipe() {
        Ok(pipe) => pipe,
        Err(e) => return report.failed(&no_process("pipe", e)),
    };
    match process::fork() {
        Err(e) => report.failed(&no_process("fork", e)),
        Ok(Fork::Parent(child)) => {
            drop(tell);
            match result.wait() {
                Some(code) => code,
                None => report.failed(&SetupError::new(
                    format!(
                        "the serving process is gone: {}",
                        process::how_it_ended(child)
                    ),
                    "run it again with -f -d to see how far it gets",
                )),
            }
        }
        Ok(Fork::Child) => {
            drop(result);
            process::new_session();
            serve_in_child(request, report, tell)
        }
    }
}

fn serve_in_child(request: Request, report: &dyn Report, tell: ByteWriter) -> u8 {
    let tell = std::sync::Mutex::new(Some(tell));
    let say = |code: u8| {
        let writer = tell
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        writer.is_some_and(|mut w| w.tell(code))
    };
    let served = serve(request, report, || {
        // The caller may wait for the end of stderr: let go of it first.
        process::stdio_to_null().is_ok() && say(0)
    });
    match served {
        Ok(()) => 0,
        Err(e) => {
            tracing::error!("{e}");
            let code = report.failed(&e);
            say(code);
            code
        }
    }
}

/// All of it, in the process that stays.
fn serve(
    request: Request,
    report: &dyn Report,
    ready: impl FnOnce() -> bool,
) -> Result<(), SetupError> {
    signal::ignore_what_would_kill_a_daemon();
    signal::block_end();
    process::make_room_for_descriptors(process::raise_descriptor_limit());
    report.start_log();
    let target = Target::of(&request.mountpoint)?;
    process::leave_surroundings();
    let look = look_of(&request);
    let threads = request.options.threads;
    let (polling, follow_client) = (request.options.polling, request.options.follow_client);
    let fenced = request.fence;
    let parts = if process::may_mount() {
        with_privilege(request.options, target, &look, report)?
    } else {
        as_ordinary_user(request.options, target, &look, report)?
    };
    let (device, shape, shown) = parts.attached.into_parts();
    let fence = fenced.then(|| Arc::new(Fence::new(&parts.overlay, parts.owners)));
    let adapter = Adapter::new(parts.overlay, shape);
    let manner = Manner {
        threads,
        polling,
        follow_client,
        fence,
    };
    let ended = session::serve(adapter, device, shape, shown, manner, ready);
    drop(parts.held);
    ended
}

/// Where the mount is, or is to be.
enum Target {
    Place(Place),
    /// Somebody else has mounted it, and gave us the descriptor: libfuse's
    /// convention, a mount point of the form /dev/fd/N.
    Given(PathBuf, OwnedFd),
}

impl Target {
    fn of(path: &Path) -> Result<Self, SetupError> {
        let number = layers::descriptor_named(path);
        if let Some(device) = number.and_then(mount::take_fuse_descriptor) {
            return Ok(Target::Given(path.to_owned(), device));
        }
        Place::hold(path).map(Target::Place).map_err(|e| match number {
            None => e,
            Some(_) => SetupError::new(
                e.what,
                "a descriptor given as mount point must be open, and be a directory or /dev/fuse with a mount made",
            ),
        })
    }

    /// Mounts without any right to.
    fn attach_as_user(self, look: &Look, report: &dyn Report) -> Result<Attached, SetupError> {
        let place = match self {
            Target::Given(path, device) => return Ok(attach::given(&path, device)),
            Target::Place(place) => place,
        };
        let (attached, warning) = attach::by_program(place, look)?;
        warning.iter().for_each(|w| report.warn(w));
        Ok(attached)
    }
}

fn look_of(request: &Request) -> Look {
    let mut flags = request.flags;
    flags.set(
        MountFlags::RDONLY,
        request.options.read_only || request.options.upper.is_none(),
    );
    Look {
        subtype: request.subtype.clone(),
        source: request.source.clone(),
        flags,
        contexts: request.contexts.clone(),
        root_mode: layers::root_mode(&request.options),
    }
}

/// A mount, and what it shows.
struct Parts {
    overlay: Overlay,
    attached: Attached,
    held: Option<Held>,
    owners: Owners,
}

/// The layers are opened before the mount is made, so that it may cover them.
fn with_privilege(
    options: Options,
    target: Target,
    look: &Look,
    report: &dyn Report,
) -> Result<Parts, SetupError> {
    let overlay = Overlay::open(&options)?;
    warn_all(&overlay, report, |w| w.to_owned());
    let attached = match target {
        Target::Given(path, device) => attach::given(&path, device),
        Target::Place(place) => match attach::by_kernel(place, look) {
            Ok(attached) => attached,
            Err(Refusal::Final(error)) => return Err(error),
            // A container with the capability but without the permission.
            Err(Refusal::NotAllowed(place, error)) => Target::Place(place)
                .attach_as_user(look, report)
                .map_err(|second| {
                    let what = format!("{}; {}", error.what, second.what);
                    SetupError::new(what, error.hint)
                })?,
        },
    };
    Ok(Parts {
        overlay,
        attached,
        held: None,
        owners: Owners::Any,
    })
}

/// fusermount3 mounts, then the process takes a user namespace of its own in
/// which it has every capability over the user's files (fuse.md, lever 1(c)).
///
/// Only where all layers belong to the user and the user's first group:
/// inside, no other owner has a name, and all would be shown as nobody.
fn as_ordinary_user(
    mut options: Options,
    target: Target,
    look: &Look,
    report: &dyn Report,
) -> Result<Parts, SetupError> {
    let held = Held::take(&mut options)?;
    let ids = process::effective_ids();
    let open = || {
        Overlay::open(&options).map_err(|e| {
            SetupError::new(
                held.with_given_paths(&e.what),
                held.with_given_paths(&e.hint),
            )
        })
    };
    let own = ids.0 != 0 && held.belong_to(ids) && process::own_user_namespace_works();
    let (overlay, attached, owners) = if own {
        let attached = target.attach_as_user(look, report)?;
        match enter_namespace().and_then(|()| open()) {
            Ok(overlay) => (overlay, attached, Owners::One),
            Err(e) => {
                attached.give_up();
                return Err(e);
            }
        }
    } else {
        let overlay = open()?;
        (overlay, target.attach_as_user(look, report)?, Owners::Any)
    };
    warn_all(&overlay, report, |w| held.with_given_paths(w));
    Ok(Parts {
        overlay,
        attached,
        held: Some(held),
        owners,
    })
}

fn enter_namespace() -> Result<(), SetupError> {
    process::enter_own_user_namespace().map_err(|why| {
        SetupError::new(
            format!("the user namespace for the serving process could not be made: {why}"),
            "it could a moment ago; try again",
        )
    })
}

fn warn_all(overlay: &Overlay, report: &dyn Report, rename: impl Fn(&str) -> String) {
    for warning in overlay.warnings() {
        report.warn(&rename(&warning));
    }
}
