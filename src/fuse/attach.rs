//! How the mount is made: by mount(2) where we may, else by fusermount3.
//!
//! mount(2) is called by ourselves and not through fuser, which gives the type
//! `fuse` without a subtype, nosuid, nodev and owner-only access: containers
//! need device nodes, setuid programs and other users, and tools filter on
//! `fuse.fuse-overlayfs`.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::overlay::setup::SetupError;
use crate::sys::fusermount;
use crate::sys::mount::{self, Errno, MountFlags, reason};
use crate::sys::process;

use super::adapter::RootShape;
use super::hidden::Hidden;
use super::outside::Outside;
use super::shown::Shown;

/// The name of the shown directory below FUSE's root (fuse.md, lever 12).
pub const SHOWN: &str = "merged";

/// What the mount is to be called and allowed.
#[derive(Debug, Clone)]
pub struct Look {
    /// The type is `fuse.` and this.
    pub subtype: String,
    /// The first column of /proc/mounts.
    pub source: OsString,
    /// `ro`, `nodev` and so on.
    pub flags: MountFlags,
    /// SELinux contexts.
    pub contexts: Vec<(String, OsString)>,
    /// Mode of the shown root, with its type.
    pub root_mode: u32,
}

/// The mount point, held since before anything was mounted on it.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    held: OwnedFd,
}

impl Place {
    /// Takes hold of a mount point.
    pub fn hold(path: &Path) -> Result<Self, SetupError> {
        let held = mount::hold_directory(path).map_err(|e| not_a_place(path, e))?;
        // It can be opened and mounted over, but then stays below for ever.
        if mount::is_dead(&held) {
            return Err(not_a_place(path, Errno::ENOTCONN));
        }
        // The kernel's own name for it, without symlinks; that is what
        // mountinfo shows and umount2 wants.
        let path = std::fs::read_link(process::path_of_descriptor(&held))
            .unwrap_or_else(|_| path.to_owned());
        Ok(Place { path, held })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path for mount(2): the held directory itself, whatever its path
    /// leads to by now. Where /proc is missing the path has to do.
    fn target(&self) -> PathBuf {
        let by_descriptor = process::path_of_descriptor(&self.held);
        if by_descriptor.exists() {
            by_descriptor
        } else {
            self.path.clone()
        }
    }
}

fn not_a_place(path: &Path, errno: Errno) -> SetupError {
    let path = path.display();
    match errno {
        Errno::ENOENT => SetupError::new(
            format!("the mount point {path} does not exist"),
            format!("make it first: mkdir -p {path}"),
        ),
        Errno::ENOTDIR => SetupError::new(
            format!("the mount point {path} is not a directory"),
            "an overlay can only be mounted on a directory",
        ),
        Errno::ENOTCONN => SetupError::new(
            format!("at the mount point {path} is a FUSE mount whose process has ended"),
            format!("unmount it first: acetate unmount {path}"),
        ),
        _ => SetupError::new(
            format!("the mount point {path} cannot be opened: {}", reason(errno)),
            "its parent directories must be searchable for you",
        ),
    }
}

/// A FUSE mount that nobody serves yet.
#[derive(Debug)]
pub struct Attached {
    /// The descriptor of /dev/fuse that serves it.
    pub device: OwnedFd,
    /// What node 1 must be.
    pub shape: RootShape,
    /// How it is taken away again.
    pub undo: Undo,
    path: PathBuf,
    held: Option<OwnedFd>,
    flags: MountFlags,
    hidden: Option<Hidden>,
}

/// Who unmounts.
#[derive(Debug)]
pub enum Undo {
    /// We may.
    Kernel,
    /// fusermount3, run by a process that was split off before: see there.
    Outside(Outside),
    /// Whoever mounted it, and gave us the descriptor.
    Giver,
}

/// Why mount(2) did not do it.
#[derive(Debug)]
pub enum Refusal {
    /// Not allowed: fusermount3 may be. The place is given back for it.
    NotAllowed(Place, SetupError),
    /// No use in trying another way.
    Final(SetupError),
}

/// Mounts by mount(2).
pub fn by_kernel(place: Place, look: &Look) -> Result<Attached, Refusal> {
    let device = match mount::open_fuse_device() {
        Ok(device) => device,
        Err(e @ (Errno::EACCES | Errno::EPERM)) => {
            return Err(Refusal::NotAllowed(place, no_device(e)));
        }
        Err(e) => return Err(Refusal::Final(no_device(e))),
    };
    let (uid, gid) = process::effective_ids();
    let mut data = OsString::from(format!(
        "fd={},rootmode={:o},user_id={uid},group_id={gid},default_permissions,allow_other",
        mount::number_of(&device),
        look.root_mode
    ));
    // Without SELinux the kernel refuses these words.
    if Path::new("/sys/fs/selinux/status").exists() {
        for (key, value) in &look.contexts {
            data.push(format!(",{key}=\""));
            data.push(value);
            data.push("\"");
        }
    }
    let fstype = format!("fuse.{}", look.subtype);
    let (source, flags) = (look.source.clone(), look.flags);
    let make = move |target: &Path| mount::mount_fuse(target, &fstype, &source, flags, &data);
    // The root is hidden behind a child of it where that can be done.
    let hidden = mount::can_move_mounts(&place.held)
        .then(Hidden::new)
        .flatten();
    let (shape, mounted) = match hidden {
        Some(hidden) => {
            let path = place.path.clone();
            (
                RootShape::Child(SHOWN),
                hidden.mount(move || make(&path)).map(Some),
            )
        }
        None => (RootShape::Direct, make(&place.target()).map(|()| None)),
    };
    match mounted {
        Ok(hidden) => Ok(Attached {
            device,
            shape,
            undo: Undo::Kernel,
            path: place.path,
            held: Some(place.held),
            flags: look.flags,
            hidden,
        }),
        Err(e @ (Errno::EPERM | Errno::EACCES)) => {
            let error = SetupError::new(
                format!(
                    "mounting at {} is not permitted: {}",
                    place.path.display(),
                    reason(e)
                ),
                "run it as root or in `unshare -Urm`: a user namespace needs a mount namespace of its own",
            );
            Err(Refusal::NotAllowed(place, error))
        }
        Err(e) => Err(Refusal::Final(SetupError::new(
            format!("mounting at {} failed: {}", place.path.display(), reason(e)),
            match e {
                Errno::ENODEV => "the kernel has no FUSE: load it with `modprobe fuse`",
                _ => "the kernel log (dmesg) may say more",
            },
        ))),
    }
}

/// What to do where /dev/fuse is closed.
const OPEN_TO_ALL: &str = "its mode should be 0666 (chmod 0666 /dev/fuse as root), and a container must be allowed to use it: --device /dev/fuse";

fn no_device(errno: Errno) -> SetupError {
    match errno {
        Errno::ENOENT => SetupError::new(
            "there is no /dev/fuse",
            "load the module with `modprobe fuse`; in a container, pass the device: --device /dev/fuse",
        ),
        Errno::ENXIO | Errno::ENODEV => SetupError::new(
            "/dev/fuse is there, but the kernel has no FUSE behind it",
            "load the module with `modprobe fuse`",
        ),
        _ => SetupError::new(
            format!("/dev/fuse cannot be opened: {}", reason(errno)),
            OPEN_TO_ALL,
        ),
    }
}

/// Mounts by fusermount3, for an ordinary user. The second value is a warning.
pub fn by_program(place: Place, look: &Look) -> Result<(Attached, Option<String>), SetupError> {
    // Before the descriptor is there, and before anything is given away.
    let undo = Undo::Outside(Outside::start(&place.path)?);
    let (uid, _) = process::effective_ids();
    let mut words: Vec<OsString> = vec![
        fusermount::word("fsname", &look.source),
        fusermount::word("subtype", OsStr::new(&look.subtype)),
        "default_permissions".into(),
    ];
    let open_to_others = uid == 0 || fusermount::others_are_allowed();
    if open_to_others {
        words.push("allow_other".into());
    }
    words.extend(flag_words(look.flags).map(OsString::from));
    let warning = (!open_to_others).then(|| {
        "only you will see this mount, not even root: /etc/fuse.conf has no line `user_allow_other`".to_owned()
    });
    let options = words.join(OsStr::new(","));
    match fusermount::mount(&place.path, &options) {
        Ok(device) => {
            let attached = Attached {
                device,
                shape: RootShape::Direct,
                undo,
                path: place.path,
                held: Some(place.held),
                flags: look.flags,
                hidden: None,
            };
            Ok((attached, warning))
        }
        Err(fusermount::Error::Missing) => Err(SetupError::new(
            format!(
                "you may not mount at {} yourself, and there is no fusermount3 to do it for you",
                place.path.display()
            ),
            "install it (package fuse3), or work as root or in `unshare -Urm`",
        )),
        Err(fusermount::Error::Broken(why)) => Err(SetupError::new(
            format!("fusermount3 did not work: {why}"),
            "reinstall the package fuse3",
        )),
        Err(fusermount::Error::Refused(why)) => Err(refused_by_program(&place, &why)),
    }
}

fn refused_by_program(place: &Place, why: &str) -> SetupError {
    let hint = if why.contains("no write access") || why.contains("not owned") {
        "an ordinary user can only mount on a directory that belongs to that user"
    } else if why.contains("/dev/fuse") && why.contains("Permission denied") {
        OPEN_TO_ALL
    } else if why.contains("/dev/fuse") {
        "load the module with `modprobe fuse`; in a container, pass the device: --device /dev/fuse"
    } else if why.contains("failed to access mountpoint") {
        "if something is mounted there already, unmount it first (acetate unmount)"
    } else if why.contains("Operation not permitted") {
        "fusermount3 must be setuid root (ls -l $(command -v fusermount3)) and not be held back by no_new_privs or by a \
         container without CAP_SYS_ADMIN; there, `unshare -Urm` may help, or whoever started it mounts and hands the \
         descriptor in as /dev/fd/N; `acetate doctor` says what this host allows"
    } else {
        "its own words say what it wants"
    };
    SetupError::new(
        format!(
            "fusermount3 refused to mount at {}: {why}",
            place.path.display()
        ),
        hint,
    )
}

/// A mount that somebody else made, by its descriptor of /dev/fuse.
pub fn given(path: &Path, device: OwnedFd) -> Attached {
    Attached {
        device,
        shape: RootShape::Direct,
        undo: Undo::Giver,
        path: path.to_owned(),
        held: None,
        flags: MountFlags::empty(),
        hidden: None,
    }
}

/// The words for fusermount3; dev and suid are not for ordinary users.
fn flag_words(flags: MountFlags) -> impl Iterator<Item = &'static str> {
    [
        (MountFlags::RDONLY, "ro"),
        (MountFlags::NOEXEC, "noexec"),
        (MountFlags::SYNCHRONOUS, "sync"),
        (MountFlags::DIRSYNC, "dirsync"),
        (MountFlags::NOATIME, "noatime"),
        (MountFlags::NODIRATIME, "nodiratime"),
    ]
    .into_iter()
    .filter(move |(flag, _)| flags.contains(*flag))
    .map(|(_, word)| word)
}

impl Attached {
    /// Splits off the descriptor: the rest knows how to show and to undo.
    pub fn into_parts(self) -> (OwnedFd, RootShape, Shown) {
        let shown = Shown {
            path: self.path,
            held: self.held,
            flags: self.flags,
            undo: self.undo,
            device: None,
            attached: false,
            hidden: self.hidden,
        };
        (self.device, self.shape, shown)
    }

    /// Takes an unserved mount away again.
    pub fn give_up(self) {
        let (device, _, mut shown) = self.into_parts();
        shown.undo();
        drop(device);
    }
}
