//! The systems that are compared, and how each is mounted.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

use super::host::{Outcome, Trouble, doing, failed, run};

/// How long a mount may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who serves the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum System {
    /// A plain directory.
    Native,
    /// Kernel overlayfs.
    Kernel,
    /// fuse-overlayfs in C, as the distribution has it.
    C,
    /// fuse-overlayfs 2.0.0 in Rust.
    Rust,
    /// This program.
    Acetate,
    /// FUSE without an overlay; only where it is asked for.
    Floor,
}

/// Who mounts and who asks; see the docs of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[allow(missing_docs)]
pub enum Way {
    Root,
    Userns,
    User,
    Other,
}

/// Where the upper layer lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[allow(missing_docs)]
pub enum Disk {
    Tmpfs,
    Disk,
}

fn name_of<T: ValueEnum>(value: &T) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |v| v.get_name().to_owned())
}

impl System {
    /// What is compared where no system is named, in the order of the columns.
    pub const ALL: [System; 5] = [
        System::Native,
        System::Kernel,
        System::C,
        System::Rust,
        System::Acetate,
    ];

    /// As on the command line.
    pub fn name(self) -> String {
        name_of(&self)
    }

    /// Whether a daemon of another project serves it.
    pub fn is_peer(self) -> bool {
        matches!(self, System::C | System::Rust)
    }

    /// Where its program is put; none where there is no daemon.
    pub fn program(self, programs: &Path) -> Option<PathBuf> {
        match self {
            System::Native | System::Kernel => None,
            System::C => Some(programs.join("c/fuse-overlayfs")),
            System::Rust => Some(programs.join("rust/fuse-overlayfs")),
            System::Acetate => Some(programs.join("acetate")),
            System::Floor => Some(programs.join("floor")),
        }
    }

    /// Where its program comes from.
    fn source(self) -> Option<PathBuf> {
        let from_env = |name: &str| std::env::var_os(name).map(PathBuf::from);
        match self {
            System::Native | System::Kernel => None,
            System::C => Some(
                from_env("C_FUSE_OVERLAYFS").unwrap_or_else(|| "/usr/bin/fuse-overlayfs".into()),
            ),
            System::Rust => from_env("RUST_FUSE_OVERLAYFS"),
            System::Acetate => Some(
                from_env("ACETATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_acetate").into()),
            ),
            System::Floor => std::env::current_exe().ok(),
        }
    }

    /// Copies its program to where every user may run it; what it calls itself, or why it is not here.
    pub fn install(self, programs: &Path) -> Outcome<String> {
        let Some(to) = self.program(programs) else {
            return Ok(String::new());
        };
        let Some(from) = self.source().filter(|p| p.exists()) else {
            let why = "not found: scripts/compare installs it, or name it in $C_FUSE_OVERLAYFS, $RUST_FUSE_OVERLAYFS";
            return Err(Trouble::Skipped(format!("{} {why}", self.name())));
        };
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        doing(&format!("copy {}", from.display()), fs::copy(&from, &to))?;
        if self == System::Floor {
            // This program, which may be a test: it is not asked.
            return Ok(String::new());
        }
        let out = doing("--version", Command::new(&to).arg("--version").output())?;
        let said = String::from_utf8_lossy(&out.stdout);
        // The C one names libfuse's version and fusermount's first.
        let own = said.lines().find(|l| l.contains("overlay"));
        Ok(own.or(said.lines().next()).unwrap_or("").to_owned())
    }
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 4] = [Way::Root, Way::Userns, Way::User, Way::Other];

    /// As on the command line.
    pub fn name(self) -> String {
        name_of(&self)
    }

    /// The command that runs an agent this way: always in a mount namespace of its own.
    pub fn enter(self, system: System, program: &Path) -> Command {
        let mut command = Command::new("unshare");
        let private = ["--propagation", "private", "--"];
        let user = [
            "setpriv",
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "--",
        ];
        match (self, system) {
            (Way::Root | Way::Other, _) => command.arg("-m").args(private),
            (Way::Userns, _) => command.arg("-Urm").args(private),
            // Only in a namespace of their own may users mount kernel overlayfs.
            (Way::User, System::Kernel) => command
                .arg("-m")
                .args(private)
                .args(user)
                .arg("unshare")
                .arg("-Urm")
                .args(private),
            (Way::User, _) => command.arg("-m").args(private).args(user),
        };
        command.arg(program);
        command
    }

    /// Whether uid 1000 owns the layers.
    pub fn is_users(self) -> bool {
        self == Way::User
    }
}

impl Disk {
    /// As on the command line.
    pub fn name(self) -> String {
        name_of(&self)
    }
}

/// What is to be mounted.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Who serves it.
    pub system: System,
    /// Who mounts it.
    pub way: Way,
    /// The lower layers, uppermost first.
    pub lowers: &'a [PathBuf],
    /// The parent of `merged`, `upper` and `work`.
    pub cell: &'a Path,
    /// Where the programs are.
    pub programs: &'a Path,
    /// Further mount words.
    pub options: &'a str,
    /// The daemon's limit of descriptors.
    pub descriptors: Option<u64>,
}

/// A mount; unmounted by [`Mounted::unmount`].
#[derive(Debug)]
pub struct Mounted {
    point: PathBuf,
    way: Way,
    daemon: Option<Child>,
    mounted: bool,
}

impl Plan<'_> {
    /// Mounts it, and waits until it answers.
    pub fn mount(&self) -> Outcome<Mounted> {
        let point = self.cell.join("merged");
        let (daemon, mounted) = match self.system {
            System::Native => (None, false),
            System::Kernel => {
                self.mount_kernel(&point)?;
                (None, true)
            }
            _ => (Some(self.start_daemon(&point)?), true),
        };
        Ok(Mounted {
            point,
            way: self.way,
            daemon,
            mounted,
        })
    }

    fn mount_kernel(&self, point: &Path) -> Outcome<()> {
        use rustix::mount::{
            fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
        };
        let at = |e: rustix::io::Errno| {
            Trouble::Failed(format!("kernel overlay: {}", std::io::Error::from(e)))
        };
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at)?;
        for lower in self.lowers {
            fsconfig_set_string(&fs, "lowerdir+", lower).map_err(at)?;
        }
        fsconfig_set_string(&fs, "upperdir", self.cell.join("upper")).map_err(at)?;
        fsconfig_set_string(&fs, "workdir", self.cell.join("work")).map_err(at)?;
        if matches!(self.way, Way::User | Way::Userns) {
            fsconfig_set_flag(&fs, "userxattr").map_err(at)?;
        }
        for (name, value) in self.options.split(',').filter_map(|w| w.split_once('=')) {
            fsconfig_set_string(&fs, name, value).map_err(at)?;
        }
        fsconfig_create(&fs).map_err(at)?;
        let mount =
            fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(at)?;
        move_mount(
            &mount,
            "",
            rustix::fs::CWD,
            point,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(at)
    }

    /// The daemon's command line, in the foreground.
    fn command(&self, program: PathBuf, point: &Path) -> Command {
        let lowers: Vec<_> = self.lowers.iter().map(|l| l.to_string_lossy()).collect();
        let at = |name: &str| self.cell.join(name).display().to_string();
        let mut words = format!(
            "lowerdir={},upperdir={},workdir={}",
            lowers.join(":"),
            at("upper"),
            at("work")
        );
        if !self.options.is_empty() {
            words = format!("{words},{}", self.options);
        }
        let mut command = Command::new(&program);
        if let Some(n) = self.descriptors {
            command = Command::new("prlimit");
            command
                .arg(format!("--nofile={n}:{n}"))
                .arg("--")
                .arg(program);
        }
        match self.system {
            System::Acetate => drop(command.arg("mount")),
            System::Floor => drop(command.arg("floor")),
            _ => {}
        }
        command.args(["-f", "-o", &words]).arg(point);
        command
    }

    fn start_daemon(&self, point: &Path) -> Outcome<Child> {
        let Some(program) = self.system.program(self.programs) else {
            return failed("it has no program");
        };
        let before = device_of(point)?;
        let mut log = tempfile::tempfile()?;
        let daemon = self
            .command(program, point)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn();
        let mut daemon = doing("start the daemon", daemon)?;
        let deadline = Instant::now() + PATIENCE;
        while device_of(point).map_or(true, |now| now == before) {
            if daemon.try_wait()?.is_some() || Instant::now() > deadline {
                // An error says that it has ended already.
                let _ended = daemon.kill();
                daemon.wait()?;
                return failed(format!("the mount did not come: {}", last_line(&mut log)?));
            }
            // Short against the milliseconds that a mount takes.
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(daemon)
    }
}

fn last_line(log: &mut fs::File) -> Outcome<String> {
    let mut said = String::new();
    std::io::Seek::rewind(log)?;
    log.read_to_string(&mut said)?;
    let last = said.lines().rfind(|l| !l.trim().is_empty());
    Ok(last.unwrap_or("no words").to_owned())
}

fn device_of(path: &Path) -> Outcome<u64> {
    Ok(fs::metadata(path)?.dev())
}

impl Mounted {
    /// The daemon's process.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    fn take_down(&self) -> Outcome<()> {
        if self.way == Way::User && self.daemon.is_some() {
            return run(Command::new("fusermount3").arg("-u").arg(&self.point));
        }
        let done = rustix::mount::unmount(&self.point, UnmountFlags::empty());
        doing("unmount", done)
    }

    /// Takes it down and waits until its daemon has ended.
    pub fn unmount(mut self) -> Outcome<()> {
        if !self.mounted {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        while let Err(e) = self.take_down() {
            // Busy for a moment: a daemon may still be looking at the mount that it has just made.
            if !e.to_string().contains("busy") || Instant::now() > deadline {
                return Err(e);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let Some(daemon) = &mut self.daemon else {
            return Ok(());
        };
        while daemon.try_wait()?.is_none() {
            if Instant::now() > deadline {
                daemon.kill()?;
                daemon.wait()?;
                return failed("the daemon did not end after the unmount");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}
