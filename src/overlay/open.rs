//! From options to a stack: layers opened, the upper locked and probed.
//!
//! Everything here happens before the mount is made, so that a lower may be the
//! mountpoint itself, and every failure is a sentence.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};

use parking_lot::{Mutex, RwLock};

use super::Overlay;
use super::inode::identity::Numbers;
use super::inode::locate::FdCache;
use super::inode::node::{DirPart, Links, LowerSpot, NO_NLINK, Node, Place};
use super::inode::recent::Recent;
use super::inode::table::Table;
use super::kept::Kept;
use super::listing::Listings;
use super::lock;
use super::options::{Durability, Options, XattrPermissions, Xino};
use super::orphan::Orphans;
use super::setup::SetupError;
use super::stack::{Settings, Stack};
use super::upper::{Namespace, Upper, index, work};
use crate::idmap::IdMap;
use crate::layer::mark::Marks;
use crate::layer::records::SideTable;
use crate::layer::{Hold, Known, Layer, LayerId, UPPER, acl};
use crate::sys::dir::Cross;
use crate::sys::probe::WhiteoutKind;
use crate::sys::{
    Errno, Kind, Name, ObjectId, Result, Spot, best_effort, dir, mount, probe, xattr,
};

/// Most lowers a mount may have: what podman may ask for (contract 2.2).
const MAX_LOWERS: usize = 500;
/// Entries of merged listings kept by default.
/// The kernel keeps the listings themselves; these serve changes between them.
const DIR_CACHE: usize = 100_000;
/// Names kept of merged directories' lowers, at 8 bytes each.
const PRESENCES: usize = 1_000_000;

impl Overlay {
    /// Opens the layers, takes and probes the upper.
    ///
    /// # Errors
    /// A sentence and a hint; nothing was changed but the work directory.
    pub fn open(options: &Options) -> std::result::Result<Overlay, SetupError> {
        let mut warnings = Vec::new();
        let mut known = Known::default();
        let mut lowers = open_lowers(options, &mut known)?;
        let mut upper = None;
        match (&options.upper, options.read_only) {
            (Some(u), false) => {
                let u = open_upper(options, u, &lowers, (&mut known, &mut warnings))?;
                share_uuid(&u.layer, &mut lowers);
                upper = Some(u);
            }
            (Some(u), true) => {
                // Read-only: the upper is but the uppermost layer.
                let l = open_lower(0, u, options, &mut known)?;
                lowers.insert(0, l);
                for (i, l) in lowers.iter_mut().enumerate() {
                    l.id = LayerId::try_from(i + 1).unwrap_or(LayerId::MAX);
                }
            }
            (None, _) => {}
        }
        let numbers = number_file_systems(options, &mut lowers, upper.as_mut(), &mut warnings);
        let stack = Stack::new(upper, lowers);
        let table = Table::default();
        let root = make_root(&stack, numbers, &table)
            .map_err(|e| SetupError::new(format!("cannot read the layers' roots: {e}"), ""))?;
        table.insert_root(root.clone());
        let limit = probe::descriptor_limit();
        let budget = limit.saturating_sub(stack.lowers.len() + 64);
        let settings = settings(options, &stack, numbers, warnings);
        Ok(Overlay {
            fds: FdCache::new(options.fd_cache.unwrap_or((budget / 2).clamp(16, 16384))),
            orphans: Orphans::new(options.fd_cache.unwrap_or(budget / 4)),
            recent: Recent::default(),
            listings: Listings::new(options.dir_cache.unwrap_or(DIR_CACHE)),
            presences: Kept::new(PRESENCES),
            rename: RwLock::new(()),
            counts: Default::default(),
            stack,
            settings,
            table,
            root,
        })
    }
}

fn settings(
    options: &Options,
    stack: &Stack,
    numbers: Numbers,
    mut warnings: Vec<String>,
) -> Settings {
    Settings {
        users: IdMap::new(options.uid_map.clone(), options.squash_uid),
        groups: IdMap::new(options.gid_map.clone(), options.squash_gid),
        numbers,
        static_nlink: options.static_nlink,
        acls: !options.no_acl && holds_acls(stack),
        redirect_dir: options.redirect_dir,
        metacopy: options.metacopy,
        read_only: options.read_only || stack.upper.is_none(),
        timeout: options.timeout,
        writeback: options.writeback,
        xattr_search: !options.no_xattr_search,
        push_ahead: options.push_ahead,
        passthrough: passes_through(options, &mut warnings),
        disguised_security: options.xattr_permissions == Some(XattrPermissions::User),
        traps: traps(stack),
        warnings,
    }
}

/// Whether the kernel may be asked to read and write by itself: it allows that root of
/// the first user namespace alone, and not beside its own cache of writes
/// (process_init_reply() in fs/fuse/inode.c).
fn passes_through(options: &Options, warnings: &mut Vec<String>) -> bool {
    let cannot = match options.passthrough {
        false => return false,
        true if options.writeback => "it cannot be had together with writeback",
        true if !crate::sys::process::in_first_user_namespace()
            || crate::sys::process::effective_ids().0 != 0 =>
        {
            "only root of the first user namespace may have it"
        }
        true => return true,
    };
    warnings.push(format!("passthrough=on is ignored: {cannot}"));
    false
}

/// What a lower that contains the upper must not show.
fn traps(stack: &Stack) -> Vec<ObjectId> {
    let Some(u) = &stack.upper else {
        return Vec::new();
    };
    vec![ObjectId::of(&u.layer.root_stat), u.work_root]
}

/// Whether any layer's file system can hold an ACL.
fn holds_acls(stack: &Stack) -> bool {
    let mut layers = stack.upper.iter().map(|u| &u.layer).chain(&stack.lowers);
    layers.any(|l| {
        let r = xattr::get_strict(&Spot::fd(l.root.clone()), acl::ACCESS);
        !matches!(r, Err(Errno::EOPNOTSUPP))
    })
}

fn open_lowers(
    options: &Options,
    known: &mut Known,
) -> std::result::Result<Vec<Layer>, SetupError> {
    if options.lowers.iter().all(|l| l.data_only) {
        return Err(SetupError::new(
            "no lower layer was given",
            "add lowerdir=DIR[:DIR…]",
        ));
    }
    if options.lowers.len() > MAX_LOWERS {
        return Err(SetupError::new(
            format!(
                "{} lower layers were given, {MAX_LOWERS} is the most",
                options.lowers.len()
            ),
            "merge some of them into one layer",
        ));
    }
    let mut out = Vec::with_capacity(options.lowers.len());
    for (i, arg) in options.lowers.iter().enumerate() {
        let id = LayerId::try_from(i + 1).unwrap_or(LayerId::MAX);
        let mut layer = open_lower(id, &arg.path, options, known)?;
        layer.data_only = arg.data_only;
        if let Some(records) = &arg.beside {
            let in_xattrs = says_disguised(&layer);
            layer.beside = Some(SideTable::new(records.clone(), in_xattrs));
            layer.disguised = true;
        }
        out.push(layer);
    }
    Ok(out)
}

fn open_lower(
    id: LayerId,
    path: &Path,
    options: &Options,
    known: &mut Known,
) -> std::result::Result<Layer, SetupError> {
    let cross = if options.follow_submounts {
        Cross::Follow
    } else {
        Cross::Refuse
    };
    let mut layer = Layer::open(id, path, Hold::Lower(cross), known).map_err(|e| {
        SetupError::new(
            format!("lowerdir {}: {e}", path.display()),
            "each lowerdir must be a directory that you may search",
        )
    })?;
    layer.disguised = options.xattr_permissions.is_some() || says_disguised(&layer);
    Ok(layer)
}

/// Whether a layer's root has its owner in an xattr.
fn says_disguised(layer: &Layer) -> bool {
    super::ops::readdir::root_is_disguised(&Spot::fd(layer.root.clone())).unwrap_or(false)
}

fn open_upper(
    options: &Options,
    path: &Path,
    lowers: &[Layer],
    (known, warnings): (&mut Known, &mut Vec<String>),
) -> std::result::Result<Upper, SetupError> {
    let fail = |what: &str, e: Errno, hint: &str| {
        SetupError::new(format!("{what} {}: {e}", path.display()), hint)
    };
    let layer = Layer::open(UPPER, path, Hold::Upper, known)
        .map_err(|e| fail("upperdir", e, "it must be a directory that you may write"))?;
    let Some(work_path) = &options.work else {
        return Err(SetupError::new(
            "upperdir was given without workdir",
            "add workdir=DIR, an empty directory on the same file system as the upperdir",
        ));
    };
    let work_dir = Layer::open(UPPER, work_path, Hold::Upper, known).map_err(|e| {
        SetupError::new(
            format!("workdir {}: {e}", work_path.display()),
            "it must be an empty directory on the same file system as the upperdir",
        )
    })?;
    check_places(path, work_path, &layer, &work_dir, lowers, warnings)?;
    let mut locks = Vec::new();
    for (l, p, what) in [
        (&layer, path, "upperdir"),
        (&work_dir, work_path, "workdir"),
    ] {
        locks.push(lock::take(l, p, what)?);
    }
    let in_work = |e: Errno| {
        SetupError::new(
            format!("workdir {} cannot be written: {e}", work_path.display()),
            "acetate must be able to make files in it: check its owner and mode, and that its file system is not read-only or full",
        )
    };
    let was_volatile = unclean_volatile(&work_dir);
    let work = work::open_or_make(work_dir.root.as_fd(), b"work").map_err(in_work)?;
    if work::holds_foreign(&work).map_err(in_work)? {
        return Err(SetupError::new(
            format!(
                "{}/work holds files that no overlay has put there",
                work_path.display()
            ),
            "it would be emptied: use an empty directory as workdir",
        ));
    }
    prepare(&work).map_err(in_work)?;
    if was_volatile {
        warnings.push(format!(
            "the last mount of upperdir {} was volatile and did not end well: its newest files may be incomplete",
            path.display()
        ));
    }
    let upper = finish_upper(options, layer, &work_dir, work, locks).map_err(in_work)?;
    tell_limits(&upper, path, warnings);
    Ok(upper)
}

fn finish_upper(
    options: &Options,
    mut layer: Layer,
    work_dir: &Layer,
    work: Arc<OwnedFd>,
    locks: Vec<OwnedFd>,
) -> Result<Upper> {
    let namespace = find_namespace(&work, options.userxattr);
    let index = match options.index {
        Some(false) => None,
        _ if namespace == Namespace::None => None,
        _ => {
            let fd = work::open_or_make(work_dir.root.as_fd(), b"index")?;
            drop_default_acl(&fd);
            layer.uuid = index::claim(&fd, &layer, namespace)?;
            Some(fd)
        }
    };
    layer.disguised = options.xattr_permissions.is_some() || says_disguised(&layer);
    let disguise = options.xattr_permissions;
    // The upper takes a write before the mount says that it does.
    let whiteouts = probe::whiteout_kind(work.as_fd())?;
    if whiteouts == WhiteoutKind::Xattr && namespace == Namespace::None {
        return Err(Errno::EOPNOTSUPP);
    }
    let is_char = whiteouts == WhiteoutKind::CharDevice;
    let upper = Upper {
        rename_whiteout: is_char && probe::rename_whiteout(work.as_fd()).unwrap_or(false),
        unnamed_files: probe::unnamed_files(work.as_fd()),
        whiteouts,
        work_root: ObjectId::of(&work_dir.root_stat),
        namespace,
        index,
        durability: options.durability,
        in_memory: mount::is_memory(work.as_fd()),
        disguise,
        squashed: options.squash_uid.is_some() && options.squash_gid.is_some(),
        counter: AtomicU64::new(1),
        layer,
        work,
        _locks: locks,
    };
    if upper.durability == Durability::Volatile {
        work::mark_volatile(upper.work.as_fd())?;
    }
    Ok(upper)
}

fn tell_limits(upper: &Upper, path: &Path, warnings: &mut Vec<String>) {
    if upper.namespace == Namespace::None {
        warnings.push(format!(
            "the file system of upperdir {} keeps no xattrs: what needs one is marked by .wh. files, and hard links of lower files are not kept together over a remount",
            path.display()
        ));
    }
}

/// The upper, work and lowers must not lie in each other in ways that would
/// write to a lower or lose the upper.
fn check_places(
    path: &Path,
    work_path: &Path,
    upper: &Layer,
    work: &Layer,
    lowers: &[Layer],
    warnings: &mut Vec<String>,
) -> std::result::Result<(), SetupError> {
    let (u, w) = (
        ObjectId::of(&upper.root_stat),
        ObjectId::of(&work.root_stat),
    );
    if upper.root_stat.dev != work.root_stat.dev || upper.root_stat.mnt_id != work.root_stat.mnt_id
    {
        return Err(SetupError::new(
            format!(
                "workdir {} is on another file system or mount than upperdir {}",
                work_path.display(),
                path.display()
            ),
            "put both below one directory of one mount",
        ));
    }
    let (above_upper, above_work) = (&upper.above, &work.above);
    if u == w || above_work.contains(&u) || above_upper.contains(&w) {
        return Err(SetupError::new(
            format!(
                "workdir {} and upperdir {} overlap",
                work_path.display(),
                path.display()
            ),
            "make them two directories side by side",
        ));
    }
    for l in lowers {
        let id = ObjectId::of(&l.root_stat);
        if id == u || id == w {
            return Err(SetupError::new(
                format!(
                    "upperdir {} or its workdir is also a lowerdir",
                    path.display()
                ),
                "a lower layer is never written: use an empty directory as upperdir",
            ));
        }
        if l.above.contains(&w) {
            return Err(SetupError::new(
                format!("a lowerdir lies inside workdir {}", work_path.display()),
                "the work directory is emptied at each mount: use an empty directory of its own",
            ));
        }
        if l.above.contains(&u) {
            return Err(SetupError::new(
                format!("a lowerdir lies inside upperdir {}", path.display()),
                "writing to the mount would change that lower layer: put it elsewhere",
            ));
        }
        if above_upper.contains(&id) {
            warnings.push(format!(
                "upperdir {} lies inside a lowerdir: it is shown there as an empty directory",
                path.display()
            ));
        }
    }
    Ok(())
}

fn unclean_volatile(work_dir: &Layer) -> bool {
    let at = |d: &OwnedFd, n: &[u8]| dir::open_dir_at(d.as_fd(), n, Cross::Refuse);
    at(&work_dir.root, b"work")
        .and_then(|d| at(&d, b"incompat"))
        .and_then(|d| at(&d, b"volatile"))
        .is_ok()
}

/// Empties the work directory and frees it of what it would hand on.
fn prepare(work: &Arc<OwnedFd>) -> Result<()> {
    work::sweep(work)?;
    drop_default_acl(work);
    Ok(())
}

/// A default ACL inherited from above would be given to every staged object.
fn drop_default_acl(dir: &Arc<OwnedFd>) {
    match xattr::remove(&Spot::fd(dir.clone()), acl::DEFAULT) {
        Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
        r => {
            best_effort("remove the work directory's default ACL", r);
        }
    }
}

/// Where marks can be written, found by writing one.
fn find_namespace(work: &Arc<OwnedFd>, user_only: bool) -> Namespace {
    let spot = Spot::fd(work.clone());
    let works = |ns: Namespace| {
        let Some(name) = ns.name("acetate-probe") else {
            return false;
        };
        let set = xattr::set(&spot, name.as_bytes(), b"y", 0).is_ok();
        set && xattr::remove(&spot, name.as_bytes()).is_ok()
    };
    if !user_only && works(Namespace::Trusted) {
        Namespace::Trusted
    } else if works(Namespace::User) {
        Namespace::User
    } else {
        Namespace::None
    }
}

/// The UUID of the upper is what its index says; that of its file system, for all.
fn share_uuid(upper: &Layer, lowers: &mut [Layer]) {
    for l in lowers {
        if l.root_stat.dev == upper.root_stat.dev {
            l.uuid = upper.uuid;
        }
    }
}

/// Finds lowers on different file systems with one UUID (or none): the kernel
/// does without their handles too (ovl_lower_uuid_ok() in fs/overlayfs/super.c).
fn mark_ambiguous(lowers: &mut [Layer]) {
    let seen: Vec<([u8; 16], u64)> = lowers.iter().map(|l| (l.uuid, l.root_stat.dev)).collect();
    for l in lowers {
        l.ambiguous |= seen
            .iter()
            .any(|(uuid, dev)| *uuid == l.uuid && *dev != l.root_stat.dev);
    }
}

/// Numbers the file systems among the layers.
fn number_file_systems(
    options: &Options,
    lowers: &mut [Layer],
    upper: Option<&mut Upper>,
    warnings: &mut Vec<String>,
) -> Numbers {
    let mut devs: Vec<u64> = Vec::new();
    let mut number = |dev: u64| -> u8 {
        let at = devs.iter().position(|d| *d == dev).unwrap_or_else(|| {
            devs.push(dev);
            devs.len() - 1
        });
        u8::try_from(at).unwrap_or(u8::MAX)
    };
    mark_ambiguous(lowers);
    // Lowers first: their numbers are what copied-up objects keep showing.
    for l in lowers.iter_mut().rev() {
        l.fs = number(l.root_stat.dev);
    }
    if let Some(u) = upper {
        u.layer.fs = number(u.layer.root_stat.dev);
    }
    if options.xino == Xino::On && devs.len() > 16 {
        warnings.push(format!(
            "xino=on: {} file systems are too many to compose inode numbers of; some are hashed",
            devs.len()
        ));
    }
    Numbers {
        one_fs: devs.len() == 1,
        bits32: options.ino32,
    }
}

fn make_root(stack: &Stack, numbers: Numbers, table: &Table) -> Result<Arc<Node>> {
    let place = Place::root();
    let mut lowers = Vec::new();
    let upper = OnceLock::new();
    let mut impure = false;
    if let Some(u) = &stack.upper {
        let marks = Marks::read(&Spot::fd(u.layer.root.clone()))?;
        upper.get_or_init(|| ObjectId::of(&u.layer.root_stat));
        impure = marks.impure;
    }
    for l in stack.merged() {
        lowers.push(LowerSpot {
            layer: l.id,
            parent: None,
            name: Name::from(&b""[..]),
            place: Some(place.clone()),
            id: ObjectId::of(&l.root_stat),
            xattr_whiteouts: l.xattr_whiteouts,
            mount_point: false,
        });
    }
    let top = stack
        .lowers
        .first()
        .map_or((0, 1), |l| (l.fs, l.root_stat.ino));
    let number = numbers.number(top.0, top.1);
    let ino = if number > 1 {
        number
    } else {
        table.fresh_number()
    };
    Ok(Arc::new(Node {
        ino,
        kind: Kind::Dir,
        nlookup: AtomicU64::new(1),
        upper,
        metacopy: AtomicBool::new(false),
        xattrs: Default::default(),
        nlink: AtomicI64::new(NO_NLINK),
        rare: Mutex::new(None),
        lowers: RwLock::new(lowers.into()),
        links: Mutex::new(Links::default()),
        copy_up: Mutex::new(()),
        orphan: AtomicBool::new(false),
        dir: Some(Box::new(DirPart {
            lock: RwLock::new(()),
            lower_view: Some(place),
            impure: AtomicBool::new(impure),
            xattr_whiteouts: AtomicBool::new(
                stack
                    .upper
                    .as_ref()
                    .is_some_and(|u| u.layer.xattr_whiteouts),
            ),
            children: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            vain: Default::default(),
            names_below: Default::default(),
        })),
    }))
}
