//! A mount's life: INIT, event loops, priming, signals, the end.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use fuser::{Config, Session, SessionACL};

use crate::overlay::options::{FollowClient, PollRequests};
use crate::overlay::setup::SetupError;
use crate::sys::{Errno, apart, process, signal};

use super::adapter::{Adapter, PrimeHandle, RootShape, ShutdownHandle};
use super::attach::Undo;
use super::fence::Fence;
use super::following::Following;
use super::polling::Polling;
use super::serving::Waiting;
use super::shown::{Shown, no_thread};

/// Event loops when nobody asked for a number.
fn default_threads() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 4)
}

/// How a mount is served.
#[derive(Debug)]
pub struct Manner {
    /// How many event loops; `None` lets us choose.
    pub threads: Option<usize>,
    /// Whether they look out for requests before they sleep.
    pub polling: PollRequests,
    /// Whether one more loop goes where the client is; only without polling.
    pub follow_client: FollowClient,
    /// What the daemon gives away, if anything.
    pub fence: Option<Arc<Fence>>,
}

/// Serves a mount until it is unmounted.
///
/// `ready` is called once the mount serves; when it answers false nobody
/// wants the mount any more, and it is taken away again.
///
/// The signals of `sys::signal::END` must be blocked already.
pub fn serve(
    adapter: Adapter,
    device: OwnedFd,
    shape: RootShape,
    shown: Shown,
    manner: Manner,
    ready: impl FnOnce() -> bool,
) -> Result<(), SetupError> {
    let prime = adapter.prime_handle();
    let shutdown = adapter.shutdown_handle();
    let shown = Arc::new(Mutex::new(shown));
    let fence = manner.fence.clone();
    if let Some(fence) = &fence {
        fence.rights();
    }
    let started = start_loops(adapter, device, &manner, fence.clone()).inspect_err(|_| {
        undo(&shown);
    })?;
    watch_signals(Arc::clone(&shown), shutdown.clone());

    let settled = settle(&shown, shape, &prime, fence.as_deref());
    // Somebody saw it and unmounted it before we had looked at it: it has ended as
    // mounts end. Whoever waits for it to be ready hears nothing.
    let taken_away = settled.is_err() && lock(&shown).was_taken_away();
    if !taken_away && (settled.is_err() || !ready()) && undo(&shown) == Undone::NotOurs {
        end_served(&shutdown);
    }
    let ended = started.join();
    if matches!(ended, Ok(Err(_)) | Err(_)) {
        // Nobody serves it any more: better no mount than a dead one.
        undo(&shown);
    }
    let synced = shutdown.finish();
    match settled {
        Err(e) if taken_away => tracing::info!("unmounted at once: {e}"),
        settled => settled?,
    }
    synced.map_err(|e| {
        SetupError::new(
            format!("the upper layer could not be synced to disk at the end: {e}"),
            "look after its disk; what was written last may be lost",
        )
    })?;
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(SetupError::new(
            format!("the connection to the kernel broke: {e}"),
            "",
        )),
        Err(_) => Err(SetupError::new(
            "an event loop ended unexpectedly",
            "this is a bug in acetate; please report it with the log (-f -d)",
        )),
    }
}

/// Answers the kernel's INIT and starts the event loops.
fn start_loops(
    adapter: Adapter,
    device: OwnedFd,
    manner: &Manner,
    fence: Option<Arc<Fence>>,
) -> Result<JoinHandle<std::io::Result<()>>, SetupError> {
    let mut config = Config::default();
    let loops = manner.threads.unwrap_or_else(default_threads).max(1);
    // Who may come in is the kernel's to decide (allow_other,
    // default_permissions); fuser's own check would refuse other users.
    config.acl = SessionACL::All;
    let failed = |e: std::io::Error| match e.raw_os_error().map(Errno::from_raw) {
        // fuse_get_dev(): only a descriptor from elsewhere can be such a one.
        Some(Errno::EPERM) => SetupError::new(
            "nothing is mounted with the descriptor of /dev/fuse that was given as mount point",
            "mount(2) comes first, with fd=N in its data, then acetate with /dev/fd/N as mount point",
        ),
        _ => SetupError::new(
            format!("the kernel and acetate did not agree on how to speak FUSE: {e}"),
            "the log (-f -d) says more",
        ),
    };
    let connect = adapter.connect_handle();
    let waiting = waiting_of(manner, &device, loops).map_err(failed)?;
    let follower = matches!(waiting, Some(Waiting::Following(_)));
    config.n_threads = Some(loops + usize::from(follower));
    let session = Session::from_fd(adapter, device, SessionACL::All, config).map_err(failed)?;
    connect.connect(session.notifier(), waiting);
    std::thread::Builder::new()
        .name("session".to_owned())
        .spawn(move || {
            if let Some(fence) = fence {
                fence.paths();
            }
            session.run()
        })
        .map_err(|e| no_thread(Errno::from_io(&e)))
}

/// What so many event loops do but sleep.
fn waiting_of(manner: &Manner, device: &OwnedFd, loops: usize) -> std::io::Result<Option<Waiting>> {
    if let Some(polling) = Polling::of(manner.polling, device, loops)? {
        return Ok(Some(Waiting::Polling(polling)));
    }
    let following = Following::of(manner.follow_client, device, loops + 1)?;
    Ok(following.map(|f| Waiting::Following(Box::new(f))))
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn settle(
    shown: &Mutex<Shown>,
    shape: RootShape,
    prime: &PrimeHandle,
    fence: Option<&Fence>,
) -> Result<(), SetupError> {
    let mut shown = lock(shown);
    shown.settle(shape)?;
    if let Some(fence) = fence {
        fence.calls(matches!(shown.undone_by(), Undo::Kernel));
    }
    // Where somebody else mounted it, we cannot know where.
    if !matches!(shown.undone_by(), Undo::Giver) {
        let path = shown.path();
        apart::work("prime", || prime_mount(path)).map_err(no_thread)??;
    }
    prime.done();
    tracing::info!("serving {}", shown.path().display());
    Ok(())
}

/// Sends the first OPEN and OPENDIR through the mount, so that the kernel has
/// learnt that neither is needed before the first client comes (fuse.md, lever
/// 1(d)). Nothing is listed: the first listing looks every name of the root up, in
/// every layer (500 layers with a file each in theirs: 110,000 system calls).
/// Into the mount, so on a thread apart.
fn prime_mount(root: &Path) -> Result<(), SetupError> {
    let failed = |e: std::io::Error| {
        SetupError::new(
            format!("the mount at {} does not answer: {e}", root.display()),
            "this is a bug in acetate; please report it with the log (-f -d)",
        )
    };
    drop(std::fs::File::open(root.join(Adapter::prime_name())).map_err(failed)?);
    drop(std::fs::File::open(root).map_err(failed)?);
    Ok(())
}

/// Whether the mount was ours to take away.
#[derive(PartialEq, Eq)]
enum Undone {
    Tried,
    NotOurs,
}

fn undo(shown: &Mutex<Shown>) -> Undone {
    let mut shown = lock(shown);
    if matches!(shown.undone_by(), Undo::Giver) {
        return Undone::NotOurs;
    }
    shown.undo();
    Undone::Tried
}

/// Ends the process while the mount is still there: its users get ENOTCONN
/// until whoever mounted it takes it away.
fn end_served(shutdown: &ShutdownHandle) {
    let status = match shutdown.finish() {
        Ok(()) => 0,
        Err(e) => {
            tracing::error!("the upper layer could not be synced to disk at the end: {e}");
            1
        }
    };
    process::leave(status)
}

/// The first SIGTERM or SIGINT unmounts; the session ends when the last user
/// is gone. The second ends the process. Where the mount is not ours to take
/// away, the first one writes everything to disk and ends the process.
fn watch_signals(shown: Arc<Mutex<Shown>>, shutdown: ShutdownHandle) {
    let watch = move || {
        let mut asked = false;
        while let Some(signal) = signal::wait_for_end() {
            if asked {
                signal::die_of(signal);
            }
            asked = true;
            tracing::info!("signal {signal}: unmounting");
            // On a thread of its own, so that the second signal is heard even
            // if this hangs.
            let (shown, shutdown) = (Arc::clone(&shown), shutdown.clone());
            best_effort_thread("unmount", move || {
                if undo(&shown) == Undone::NotOurs {
                    end_served(&shutdown);
                }
            });
        }
    };
    // Without the thread the mount works; it only cannot be ended by a signal.
    best_effort_thread("signals", watch);
}

fn best_effort_thread(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(e) = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
    {
        tracing::warn!("the thread for {name} could not be started: {e}");
    }
}
