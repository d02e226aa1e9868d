//! This process: its descriptors, its session, its children, its limits.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::features::{self, Feature};
use super::{Errno, Result};
use rustix::process::{Pid, Resource, WaitOptions};
use rustix::thread::{CapabilitySet, UnshareFlags};

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy)]
pub enum Fork {
    /// The process that called; with the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Makes a child process that goes on from here.
///
/// Refused while other threads run: a lock that one of them holds would stay
/// locked in the child for ever.
pub fn fork() -> Result<Fork> {
    if !alone_soon() {
        return Err(Errno::EBUSY);
    }
    // SAFETY: no other thread exists (checked above), so the child may do
    // whatever the parent might.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Errno::last()),
        0 => Ok(Fork::Child),
        _ => Pid::from_raw(pid).map(Fork::Parent).ok_or(Errno::EIO),
    }
}

/// Whether this is the only thread, or will be in a moment: one that was told
/// to end may still be on its way out.
pub(super) fn alone_soon() -> bool {
    (0..200).any(|_| {
        let alone = thread_count() <= 1;
        if !alone {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        alone
    })
}

/// Threads of this process; 1 where /proc is not there to tell.
fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// How a child ended, as half a sentence.
pub fn how_it_ended(child: Pid) -> String {
    match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
        Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("it exited with status {code}"),
            (None, Some(signal)) => format!("signal {signal} ended it"),
            (None, None) => "it ended".to_owned(),
        },
        // Somebody made us ignore SIGCHLD: the status is gone.
        _ => "it ended without a word".to_owned(),
    }
}

/// Closes every descriptor above 2 but those in `keep`.
///
/// For the first moments of the program, before it has opened anything, and for a
/// thread or process with a table of its own:
/// callers (podman) leak sockets and lock files to their children, and wait
/// for them to be closed.
pub fn close_inherited(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .filter(|fd| *fd > 2)
        .collect();
    keep.sort_unstable();
    let mut first = 3u32;
    for fd in keep {
        if fd > first {
            close_span(first, fd - 1);
        }
        first = first.max(fd.saturating_add(1));
    }
    close_span(first, u32::MAX);
}

/// Closes everything but these and puts /dev/null in the place of stdin,
/// stdout and stderr: for a forked process that ends with [`leave`] and never
/// returns to the owners of what is closed here.
pub fn keep_only(keep: &[RawFd]) {
    close_inherited(keep);
    if stdio_to_null().is_err() {
        leave(1);
    }
}

/// Ends a forked process without the cleanups that belong to its parent.
pub fn leave(status: i32) -> ! {
    // SAFETY: _exit(2) takes a number.
    unsafe { libc::_exit(status) }
}

fn close_span(first: u32, last: u32) {
    if features::allowed(Feature::CloseRange) {
        // SAFETY: no owner of a descriptor of this span will use it: nothing has
        // been opened yet (close_inherited), or the caller does not return to the
        // owners (keep_only), or it has a table of its own (sys/apart.rs).
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if done == 0 {
            return;
        }
    }
    // Linux before 5.9, or a seccomp filter: one by one.
    let open: Vec<u32> = std::fs::read_dir("/proc/thread-self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| (first..=last).contains(fd)) {
        if let Ok(fd) = i32::try_from(fd) {
            // SAFETY: as above; the descriptor of read_dir is closed already,
            // a second close of its number does nothing.
            unsafe { libc::close(fd) };
        }
    }
}

/// Marks the inherited descriptors that stay open so that no child gets them.
pub fn close_on_exec(fds: &[RawFd]) {
    for fd in fds {
        // SAFETY: fcntl(2) on a number; a wrong one answers EBADF.
        unsafe { libc::fcntl(*fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Puts /dev/null in the place of stdin, stdout and stderr.
pub fn stdio_to_null() -> Result<()> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|e| Errno::from_io(&e))?;
    for fd in 0..=2 {
        // SAFETY: dup2 over 0, 1 and 2, which std never owns, only uses.
        if unsafe { libc::dup2(null.as_raw_fd(), fd) } < 0 {
            return Err(Errno::last());
        }
    }
    Ok(())
}

/// Leaves the caller's session, so that its terminal's signals do not reach us.
pub fn new_session() {
    // Fails only for a process group leader, which a fresh child is not.
    if let Err(e) = rustix::process::setsid() {
        tracing::debug!("setsid: {e}");
    }
}

/// Directory `/` and umask 0: no caller's directory is held, and modes are
/// what the requests say.
pub fn leave_surroundings() {
    if let Err(e) = rustix::process::chdir("/") {
        tracing::debug!("chdir /: {e}");
    }
    rustix::process::umask(rustix::fs::Mode::empty());
}

/// Raises the number of descriptors to what is allowed; the result.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let soft = limit.current;
        limit.current = limit.maximum;
        if rustix::process::setrlimit(Resource::Nofile, limit).is_err() {
            limit.current = soft;
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

/// So many descriptors find room from the start.
const ROOM: u64 = 4096;

/// Makes the table of descriptors as large as a busy daemon needs it, of which `limit`
/// are allowed. For a process that has one thread yet.
///
/// The kernel doubles the table as it fills, and where threads share it each time waits
/// until all CPUs have gone through a quiet state (expand_fdtable() in fs/file.c calls
/// synchronize_rcu()): 10 to 20 ms each, in which whoever opens a file waits. The first
/// 1,000 files that a mount opened took 60 µs each for that, on any number of threads, in
/// place of 17. The table takes 8 bytes a descriptor.
pub fn make_room_for_descriptors(limit: u64) {
    let last = i32::try_from(limit.min(ROOM).saturating_sub(1)).unwrap_or(0);
    // Nothing is lost where it fails, but time.
    let made = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last).map(drop);
    super::best_effort(
        "make room for descriptors",
        made.map_err(super::Errno::from),
    );
}

/// Whether this process may mount, as far as its capabilities go.
pub fn may_mount() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|c| c.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Whether this process may change its root directory, as far as its capabilities go.
pub fn may_chroot() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|c| c.effective.contains(CapabilitySet::SYS_CHROOT))
}

/// Whether this process may make device nodes: CAP_MKNOD, outside of every user
/// namespace but the first.
pub fn may_make_devices() -> bool {
    in_first_user_namespace()
        && rustix::thread::capabilities(None)
            .is_ok_and(|c| c.effective.contains(CapabilitySet::MKNOD))
}

/// Whether this process is in no user namespace but the first: every id is its own.
pub fn in_first_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Whether this process may give files to every user and group that a layer is
/// likely to name: root, also of a user namespace with subordinate ids.
pub fn keeps_every_owner() -> bool {
    /// As many as newuidmap(1) usually maps, the user's own beside them.
    const USUAL: u64 = 65_536;
    let mapped = |file: &str| {
        let map = std::fs::read_to_string(file).unwrap_or_default();
        let count = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
        map.lines().filter_map(count).sum::<u64>()
    };
    effective_ids().0 == 0
        && mapped("/proc/self/uid_map") >= USUAL
        && mapped("/proc/self/gid_map") >= USUAL
}

/// The ids this process acts with: user and group.
pub fn effective_ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

/// Enters a user namespace of its own in which this process keeps its ids and
/// holds every capability over what belongs to them (fuse.md 1(c)).
///
/// For a single-threaded process only. Where it fails after the namespace was
/// made, the process sees every id as nobody's and is of no use any more: see
/// [`own_user_namespace_works`].
pub fn enter_own_user_namespace() -> std::result::Result<(), String> {
    enter_user_namespace_as(effective_ids())
}

/// The same, in which this process has the ids `inside` (user and group).
pub fn enter_user_namespace_as(inside: (u32, u32)) -> std::result::Result<(), String> {
    let (uid, gid) = effective_ids();
    if thread_count() > 1 {
        return Err("this process has several threads".to_owned());
    }
    // SAFETY: CLONE_NEWUSER unshares no descriptor table and no memory.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }
        .map_err(|e| format!("unshare: {e}"))?;
    let write =
        |file: &str, text: String| std::fs::write(file, text).map_err(|e| format!("{file}: {e}"));
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("{} {uid} 1", inside.0))?;
    write("/proc/self/gid_map", format!("{} {gid} 1", inside.1))
}

/// Whether [`enter_own_user_namespace`] would work, tried out in a child:
/// AppArmor lets some programs make a namespace but gives them nothing in it.
pub fn own_user_namespace_works() -> bool {
    match fork() {
        Ok(Fork::Child) => {
            let works = enter_own_user_namespace().is_ok() && may_mount();
            leave(if works { 0 } else { 1 })
        }
        Ok(Fork::Parent(child)) => {
            let ended = rustix::process::waitpid(Some(child), WaitOptions::empty());
            ended
                .ok()
                .flatten()
                .and_then(|(_, status)| status.exit_status())
                == Some(0)
        }
        Err(_) => false,
    }
}

/// Has a child process do something, and hears from it how that went: for what
/// changes a process for good.
pub fn in_child(
    work: impl FnOnce() -> std::result::Result<Vec<u8>, String>,
) -> std::result::Result<Vec<u8>, String> {
    let failed = |what: &str, e: Errno| format!("{what}: {e}");
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (reader, writer) = pipe.map_err(|e| failed("pipe", e.into()))?;
    match fork().map_err(|e| failed("fork", e))? {
        Fork::Child => {
            let (kind, text) = match work() {
                Ok(bytes) => (b'+', bytes),
                Err(why) => (b'-', why.into_bytes()),
            };
            let mut writer = File::from(writer);
            let told = writer
                .write_all(&[kind])
                .and_then(|()| writer.write_all(&text));
            leave(i32::from(told.is_err()))
        }
        Fork::Parent(child) => {
            drop(writer);
            let mut answer = Vec::new();
            let heard = File::from(reader).read_to_end(&mut answer);
            let ended = how_it_ended(child);
            match (heard, answer.split_first()) {
                (Ok(_), Some((b'+', bytes))) => Ok(bytes.to_vec()),
                (Ok(_), Some((_, why))) => Err(String::from_utf8_lossy(why).into_owned()),
                _ => Err(ended),
            }
        }
    }
}

/// Hard limits of this process; `None` is unlimited.
#[derive(Debug, Clone, Copy)]
pub struct HardLimits {
    /// RLIMIT_NOFILE.
    pub open_files: Option<u64>,
    /// RLIMIT_NPROC.
    pub processes: Option<u64>,
}

/// Reads them.
pub fn hard_limits() -> HardLimits {
    HardLimits {
        open_files: rustix::process::getrlimit(Resource::Nofile).maximum,
        processes: rustix::process::getrlimit(Resource::Nproc).maximum,
    }
}

/// As `uname -r` has it.
pub fn kernel_release() -> String {
    let name = rustix::system::uname();
    name.release().to_string_lossy().into_owned()
}

/// Moves this process into the mount namespace that a file stands for.
pub fn enter_mount_namespace(file: &std::path::Path) -> std::io::Result<()> {
    let file = File::open(file)?;
    let fd = std::os::fd::AsFd::as_fd(&file);
    rustix::thread::move_into_link_name_space(fd, Some(rustix::thread::LinkNameSpaceType::Mount))?;
    Ok(())
}

/// Two ends of a pipe through which one process tells another one byte.
pub fn byte_pipe() -> Result<(ByteReader, ByteWriter)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((
        ByteReader(File::from(reader)),
        ByteWriter(File::from(writer)),
    ))
}

/// The end that waits.
#[derive(Debug)]
pub struct ByteReader(File);

/// The end that tells.
#[derive(Debug)]
pub struct ByteWriter(File);

impl ByteReader {
    /// Its descriptor's number.
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Waits for the byte; `None` when nobody is left who could send it.
    pub fn wait(&mut self) -> Option<u8> {
        let mut byte = [0];
        // read_exact repeats after EINTR.
        self.0.read_exact(&mut byte).ok()?;
        byte.first().copied()
    }
}

impl ByteWriter {
    /// Its descriptor's number.
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sends the byte; false when nobody listens any more.
    pub fn tell(&mut self, byte: u8) -> bool {
        self.0.write_all(&[byte]).is_ok()
    }
}

/// Who is to be told that the service is ready (sd_notify(3)). Asked for early:
/// a daemon behind its fence opens no sockets.
#[derive(Debug)]
pub struct ReadySocket(Option<UnixDatagram>);

impl ReadySocket {
    /// systemd's socket, if it gave us one.
    pub fn from_environment() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|n| !n.is_empty());
        ReadySocket(name.and_then(|name| match connected_to(&name) {
            Ok(socket) => Some(socket),
            Err(e) => {
                tracing::warn!("NOTIFY_SOCKET: {e}");
                None
            }
        }))
    }

    /// Says it.
    pub fn tell(&self) {
        if let Some(Err(e)) = self.0.as_ref().map(|socket| socket.send(b"READY=1")) {
            tracing::warn!("NOTIFY_SOCKET: {e}");
        }
    }
}

fn connected_to(name: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Gives this thread, and in a process with one thread the process, a name for ps(1).
pub fn set_name(name: &std::ffi::CStr) {
    if let Err(e) = rustix::thread::set_name(name) {
        tracing::debug!("set_name: {e}");
    }
}

/// A descriptor's path for calls that take paths.
pub fn path_of_descriptor(fd: &OwnedFd) -> std::path::PathBuf {
    std::path::PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Gives the calling thread a mount namespace of its own, from which nothing
/// spreads to others; unmounts out there still spread into it where mounts are
/// shared, so that it keeps nobody else's mount alive. Needs CAP_SYS_ADMIN;
/// other threads keep theirs.
pub fn own_mount_namespace() -> Result<()> {
    // SAFETY: CLONE_NEWNS (with CLONE_FS, which it implies) concerns the calling
    // thread alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    use rustix::mount::{MountPropagationFlags, mount_change};
    let downstream = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    Ok(mount_change("/", downstream)?)
}

/// Gives free heap memory back to the system, where the C library can.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes the allocator's own locks and touches only
    // free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// CLOCK_REALTIME: seconds and nanoseconds.
pub fn time() -> (i64, u32) {
    clock(rustix::time::ClockId::Realtime)
}

/// CLOCK_REALTIME_COARSE, as files get it: the time of the last tick.
pub fn coarse_time() -> (i64, u32) {
    clock(rustix::time::ClockId::RealtimeCoarse)
}

fn clock(which: rustix::time::ClockId) -> (i64, u32) {
    let now = rustix::time::clock_gettime(which);
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}
