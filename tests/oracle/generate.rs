//! Random layer stacks and operations.
//!
//! Few names, so that operations meet: the same path is a file in one layer, a directory in another, a whiteout
//! in a third. `d e g` are mostly directories, the others mostly not, else most paths would end in ENOTDIR.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

use super::ops::{Case, Data, Item, Op, Path, Step, Then, Thing, Value, When, Who};

const DIRS: &[&[u8]] = &[b"d", b"e"];
const LEAVES: &[&[u8]] = &[b"f", b"h", b"f", b"h", b"k", b"d", b"e", b"n\xff \n"];
/// 255 bytes, the longest there is, and one byte more.
const LONG: &[u8] = &[b'L'; 255];
const TOO_LONG: &[u8] = &[b'T'; 256];

/// Which callers and attributes a mode can have.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Several users (needs more than one mapped id).
    pub users: bool,
    /// `user.overlay.*` attributes (in root's modes they mean different things).
    pub user_overlay: bool,
    /// Hard links in lowers (their count includes names that the merged tree does not show).
    pub links: bool,
    /// Hard links made by operations.
    pub link_ops: bool,
    /// Steps in a case.
    pub steps: usize,
    /// Files with sgid. Without FUSE_HANDLE_KILLPRIV_V2 nobody tells a daemon of a write that is to clear one without
    /// group execution, as kernels of that time did not clear it.
    pub sgid: bool,
    /// At least and at most so many lower layers.
    pub lowers: (usize, usize),
}

fn dir_path() -> BoxedStrategy<Path> {
    let parts = prop_oneof![
        1 => vec(select(DIRS), 0..=0),
        8 => vec(select(DIRS), 1),
        5 => vec(select(DIRS), 2),
        1 => vec(select(DIRS), 3),
    ];
    parts.prop_map(Path).boxed()
}

fn path() -> BoxedStrategy<Path> {
    let leaf = prop_oneof![60 => select(LEAVES), 1 => Just(LONG), 1 => Just(TOO_LONG)];
    let parents = prop_oneof![
        10 => vec(select(DIRS), 0..=0),
        10 => vec(select(DIRS), 1),
        4 => vec(select(DIRS), 2),
        1 => vec(select(DIRS), 3),
        1 => vec(select(LEAVES), 1..=2),
    ];
    let deep = (parents, leaf).prop_map(|(mut parts, leaf)| {
        parts.push(leaf);
        Path(parts)
    });
    prop_oneof![20 => deep, 4 => dir_path()].boxed()
}

fn data() -> impl Strategy<Value = Data> {
    let len = prop_oneof![2 => Just(0u32), 8 => 1..100u32, 4 => 100..20_000u32];
    (any::<u8>(), len).prop_map(|(seed, len)| Data { seed, len })
}

fn mode(scope: Scope) -> impl Strategy<Value = u32> {
    select(
        &[
            0o644u32, 0o600, 0o755, 0o777, 0o666, 0o000, 0o4755, 0o2755, 0o6777, 0o1777, 0o2775,
            0o2644, 0o400, 0o070,
        ][..],
    )
    .prop_map(move |mode| match scope.sgid {
        true => mode,
        false => mode & !libc::S_ISGID,
    })
}

fn dir_mode() -> impl Strategy<Value = u32> {
    select(
        &[
            0o755u32, 0o755, 0o777, 0o1777, 0o2775, 0o2777, 0o700, 0o555, 0o000, 0o711,
        ][..],
    )
}

fn id() -> impl Strategy<Value = u32> {
    select(&[0u32, 0, 1000, 1000, 1001, 77777][..])
}

/// Owner and group, not both left out.
fn ids() -> impl Strategy<Value = (Option<u32>, Option<u32>)> {
    prop_oneof![
        3 => (id(), id()).prop_map(|(uid, gid)| (Some(uid), Some(gid))),
        2 => id().prop_map(|uid| (Some(uid), None)),
        2 => id().prop_map(|gid| (None, Some(gid))),
    ]
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        1 => Just(When::Omit),
        1 => Just(When::Now),
        4 => select(&[(1_000_000_000i64, 123_456_789i64), (0, 0), (0, 1), (-1, 999_999_999), (-2, 200_000_000),
                      (-315_360_000, 5), (951_782_400, 0), (4_102_444_800, 7)][..])
            .prop_map(|(s, n)| When::At(s, n)),
    ]
}

fn acl() -> impl Strategy<Value = Value> {
    let bits = 0..8u16;
    (
        bits.clone(),
        proptest::option::of(bits.clone()),
        bits.clone(),
        bits.clone(),
        bits,
    )
        .prop_map(|(user, named, group, mask, other)| Value::Acl {
            user,
            named,
            group,
            mask,
            other,
        })
}

/// Names and values that make sense together, and some that do not.
fn xattr(scope: Scope) -> BoxedStrategy<(&'static str, Value)> {
    let plain = vec(any::<u8>(), 0..20).prop_map(Value::Bytes);
    prop_oneof![
        6 => (select(&["user.a", "user.b", "user.c"][..]), plain.clone()),
        2 => (Just("trusted.t"), plain.clone()),
        2 => (select(&["trusted.overlay.foo", "trusted.overlay.opaque", "trusted.overlay.origin",
                       "trusted.overlay.overlay.x"][..]), plain.clone()),
        2 => (select(&["user.overlay.foo", "user.overlay.opaque"][..]), plain.clone()).prop_map(move |(name, value)| {
            (if scope.user_overlay { name } else { "user.a" }, value)
        }),
        1 => (select(&["security.test", "bogus.name", "user.", "system.other"][..]), plain.clone()),
        1 => (Just("user.big"), Just(Value::Bytes(vec![7; 3000]))),
        1 => (Just("security.capability"), Just(Value::Capability)),
        3 => (Just("system.posix_acl_access"), acl()),
        3 => (Just("system.posix_acl_default"), acl()),
        1 => (select(&["system.posix_acl_access", "system.posix_acl_default"][..]), plain),
    ]
    .boxed()
}

fn xattr_name(scope: Scope) -> impl Strategy<Value = &'static str> {
    xattr(scope).prop_map(|(name, _)| name)
}

fn slot() -> std::ops::Range<usize> {
    0..super::world::SLOTS
}

fn offset() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0u32), 4 => 1..200u32, 2 => 4000..9000u32, 1 => 60_000..140_000u32]
}

fn open_flags() -> impl Strategy<Value = i32> {
    use libc::{
        O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR, O_TRUNC,
        O_WRONLY,
    };
    prop_oneof![
        6 => Just(O_RDONLY),
        6 => Just(O_RDWR),
        2 => Just(O_WRONLY),
        8 => Just(O_RDWR | O_CREAT),
        3 => Just(O_RDWR | O_CREAT | O_EXCL),
        2 => Just(O_WRONLY | O_CREAT | O_TRUNC),
        2 => Just(O_RDWR | O_TRUNC),
        2 => Just(O_RDWR | O_APPEND),
        4 => Just(O_RDONLY | O_DIRECTORY),
        1 => Just(O_RDONLY | O_NOFOLLOW),
        1 => Just(O_RDONLY | O_TRUNC),
        1 => Just(O_RDONLY | O_CREAT),
        1 => Just(O_PATH),
    ]
}

fn write_flags() -> impl Strategy<Value = i32> {
    use libc::{O_APPEND, O_CREAT, O_EXCL, O_TRUNC, O_WRONLY};
    select(
        &[
            O_WRONLY | O_CREAT | O_TRUNC,
            O_WRONLY | O_CREAT,
            O_WRONLY | O_CREAT | O_EXCL,
            O_WRONLY,
            O_WRONLY | O_TRUNC,
            O_WRONLY | O_APPEND,
            O_WRONLY | O_CREAT | O_APPEND,
        ][..],
    )
}

/// Operations on open descriptors.
fn fd_op(scope: Scope) -> BoxedStrategy<Op> {
    use libc::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE};
    prop_oneof![
        1 => slot().prop_map(|slot| Op::Close { slot }),
        6 => (slot(), proptest::option::weighted(0.8, offset()), data()).prop_map(|(slot, at, data)| Op::Write { slot, at, data }),
        5 => (slot(), offset(), 1..30_000u32).prop_map(|(slot, at, len)| Op::Read { slot, at, len }),
        3 => (slot(), offset()).prop_map(|(slot, len)| Op::Ftruncate { slot, len }),
        5 => slot().prop_map(|slot| Op::Fstat { slot }),
        1 => (slot(), any::<bool>()).prop_map(|(slot, data)| Op::Fsync { slot, data }),
        2 => (slot(), select(&[0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE][..]), offset(), 1..20_000u32)
            .prop_map(|(slot, mode, at, len)| Op::Fallocate { slot, mode, at, len }),
        2 => (slot(), select(&[libc::SEEK_DATA, libc::SEEK_HOLE, libc::SEEK_END][..]), offset()).prop_map(|(slot, whence, at)| Op::Seek { slot, whence, at }),
        2 => (slot(), slot(), offset(), offset(), 1..20_000u32)
            .prop_map(|(from, to, from_at, to_at, len)| Op::CopyRange { from, to, from_at, to_at, len }),
        2 => (slot(), offset(), any::<u8>()).prop_map(|(slot, at, byte)| Op::MmapWrite { slot, at, byte }),
        1 => slot().prop_map(|slot| Op::MmapRead { slot }),
        2 => (slot(), mode(scope)).prop_map(|(slot, mode)| Op::Fchmod { slot, mode }),
        2 => (slot(), ids()).prop_map(|(slot, (uid, gid))| Op::Fchown { slot, uid, gid }),
        1 => (slot(), when(), when()).prop_map(|(slot, atime, mtime)| Op::Futimens { slot, atime, mtime }),
        2 => (slot(), xattr(scope), 0..3i32).prop_map(|(slot, (name, value), flags)| Op::Fsetxattr { slot, name, value, flags }),
        1 => slot().prop_map(|slot| Op::Flistxattr { slot }),
        2 => slot().prop_map(|slot| Op::Getdents { slot }),
        1 => (slot(), path()).prop_map(move |(slot, to)| match scope.link_ops {
            true => Op::Linkfd { slot, to },
            false => Op::Fstat { slot },
        }),
    ]
    .boxed()
}

/// Operations that change names.
fn name_op(scope: Scope) -> BoxedStrategy<Op> {
    let flags = prop_oneof![8 => Just(0), 2 => Just(libc::RENAME_NOREPLACE), 2 => Just(libc::RENAME_EXCHANGE), 1 => Just(libc::RENAME_WHITEOUT)];
    let special = select(
        &[
            (libc::S_IFIFO | 0o644, (0, 0)),
            (libc::S_IFSOCK | 0o777, (0, 0)),
            (libc::S_IFCHR | 0o666, (1, 3)),
            (libc::S_IFBLK | 0o600, (7, 99)),
            (libc::S_IFREG | 0o640, (0, 0)),
            (libc::S_IFCHR | 0o600, (0, 0)),
        ][..],
    );
    prop_oneof![
        12 => (path(), open_flags(), mode(scope), slot()).prop_map(|(path, flags, mode, slot)| Op::Open { path, flags, mode, slot }),
        5 => (path(), write_flags(), data()).prop_map(|(path, flags, data)| Op::WriteFile { path, flags, data }),
        2 => (path(), data()).prop_map(|(path, data)| Op::Replace { path, data }),
        6 => (dir_path(), dir_mode()).prop_map(|(path, mode)| Op::Mkdir { path, mode }),
        2 => (path(), dir_mode()).prop_map(|(path, mode)| Op::Mkdir { path, mode }),
        2 => (path(), special).prop_map(|(path, (mode, rdev))| Op::Mknod { path, mode, rdev }),
        2 => (path(), path()).prop_map(|(path, target)| Op::Symlink { path, target }),
        6 => (path(), path(), any::<bool>()).prop_map(move |(from, to, follow)| match scope.link_ops {
            true => Op::Link { from, to, follow },
            false => Op::Stat { path: from, follow },
        }),
        5 => path().prop_map(|path| Op::Unlink { path }),
        4 => dir_path().prop_map(|path| Op::Rmdir { path }),
        2 => dir_path().prop_map(|path| Op::RemoveTree { path }),
        6 => (path(), path(), flags.clone()).prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
        5 => (dir_path(), dir_path(), flags).prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
    ]
    .boxed()
}

/// Operations on what a name stands for.
fn object_op(scope: Scope) -> BoxedStrategy<Op> {
    prop_oneof![
        3 => (path(), offset()).prop_map(|(path, len)| Op::Truncate { path, len }),
        4 => (path(), mode(scope)).prop_map(|(path, mode)| Op::Chmod { path, mode }),
        2 => (dir_path(), dir_mode()).prop_map(|(path, mode)| Op::Chmod { path, mode }),
        4 => (path(), ids(), any::<bool>()).prop_map(|(path, (uid, gid), follow)| Op::Chown { path, uid, gid, follow }),
        3 => (path(), when(), when(), any::<bool>()).prop_map(|(path, atime, mtime, follow)| Op::Utimens { path, atime, mtime, follow }),
        4 => (path(), xattr(scope), 0..3i32).prop_map(|(path, (name, value), flags)| Op::Setxattr { path, name, value, flags }),
        2 => (path(), xattr_name(scope)).prop_map(|(path, name)| Op::Getxattr { path, name }),
        1 => path().prop_map(|path| Op::Listxattr { path }),
        2 => (path(), xattr_name(scope)).prop_map(|(path, name)| Op::Removexattr { path, name }),
        2 => path().prop_map(|path| Op::ReadFile { path }),
        3 => dir_path().prop_map(|path| Op::Readdir { path }),
        3 => (path(), any::<bool>()).prop_map(|(path, follow)| Op::Stat { path, follow }),
        1 => path().prop_map(|path| Op::Readlink { path }),
        1 => (path(), 0..8i32).prop_map(|(path, mode)| Op::Access { path, mode }),
        1 => path().prop_map(|path| Op::GetFlags { path }),
    ]
    .boxed()
}

fn step(scope: Scope) -> BoxedStrategy<Step> {
    let who = if scope.users {
        prop_oneof![8 => Just(Who::Root), 2 => Just(Who::User(1000)), 1 => Just(Who::User(1001)), 1 => Just(Who::Grouped)].boxed()
    } else {
        Just(Who::Root).boxed()
    };
    let umask = select(&[0o022u32, 0o022, 0, 0o077, 0o027][..]);
    let at = proptest::option::weighted(0.15, slot());
    let op = Union::new_weighted(vec![
        (5, name_op(scope)),
        (3, object_op(scope)),
        (3, fd_op(scope)),
    ]);
    (who, umask, at, op)
        .prop_map(|(who, umask, at, op)| {
            let by_root = match &op {
                // See `mmap_write`: it has to take privileges away first.
                Op::MmapWrite { .. } => true,
                // See `intended.rs`.
                Op::Removexattr { name, .. } => *name == "system.posix_acl_access",
                _ => false,
            };
            let who = if by_root { Who::Root } else { who };
            Step { who, umask, at, op }
        })
        .boxed()
}

fn item(scope: Scope) -> impl Strategy<Value = Item> {
    let thing = prop_oneof![
        8 => (data(), proptest::bool::weighted(0.1)).prop_map(|(data, hole)| Thing::File { data, hole }),
        2 => path().prop_map(Thing::Symlink),
        1 => Just(Thing::Fifo),
        1 => Just(Thing::Device),
        4 => path().prop_map(move |path| if scope.links { Thing::Link(path) } else { Thing::Symlink(path) }),
        3 => Just(Thing::Whiteout),
    ];
    let directory = prop_oneof![5 => Just(Thing::Dir), 1 => Just(Thing::Opaque)];
    let opaque_root = |item: &Item| item.path.0.is_empty() && item.thing == Thing::Opaque;
    let xattr = proptest::option::weighted(0.15, xattr(scope));
    let dirs = (dir_path(), directory, dir_mode(), id(), xattr.clone());
    let others = (path(), thing, mode(scope), id(), xattr);
    prop_oneof![
        2 => dirs.prop_map(move |(path, thing, mode, owner, xattr)| {
            let mut item = Item { path, thing, mode, owner, xattr };
            if opaque_root(&item) {
                item.thing = Thing::Dir;
            }
            item
        }),
        3 => others.prop_map(|(path, thing, mode, owner, xattr)| Item { path, thing, mode, owner, xattr }),
    ]
}

/// A whole case.
pub fn case(scope: Scope) -> BoxedStrategy<Case> {
    // Directories to work in come first: else most paths lead nowhere.
    const GROUND: &[&[&[u8]]] = &[
        &[b"d"],
        &[b"e"],
        &[b"d", b"d"],
        &[b"d", b"e"],
        &[b"e", b"d"],
    ];
    let ground = (0..=GROUND.len()).prop_map(|n| {
        let dir = |path: &&[&'static [u8]]| Item {
            path: Path(path.to_vec()),
            thing: Thing::Dir,
            mode: 0o777,
            owner: 0,
            xattr: None,
        };
        GROUND[..n].iter().map(dir).collect::<Vec<_>>()
    });
    let layer = (ground, vec(item(scope), 0..25)).prop_map(|(mut ground, items)| {
        ground.extend(items);
        ground
    });
    let layers = vec(layer, scope.lowers.0..=scope.lowers.1);
    let then = prop_oneof![4 => Just(Then::GoOn), 2 => Just(Then::Remount), 1 => Just(Then::PushOwn), 1 => Just(Then::PushReference)];
    // Each batch opens something first: operations on empty slots teach nothing.
    let opened = (path(), open_flags()).prop_map(|(path, flags)| {
        let op = Op::Open {
            path,
            flags,
            mode: 0o666,
            slot: 0,
        };
        Step {
            who: Who::Root,
            umask: 0o022,
            at: None,
            op,
        }
    });
    let opens = vec(opened, super::world::SLOTS).prop_map(|mut opens| {
        for (i, step) in opens.iter_mut().enumerate() {
            if let Op::Open { slot, .. } = &mut step.op {
                *slot = i;
            }
        }
        opens
    });
    let batch =
        (opens, vec(step(scope), 1..=(scope.steps / 2).max(2))).prop_map(|(mut all, steps)| {
            all.extend(steps);
            all
        });
    let batches = vec((batch, then), 1..=4);
    let timed = proptest::bool::weighted(0.2);
    (layers, batches, timed)
        .prop_map(move |(layers, batches, timed)| {
            let mut case = Case {
                layers,
                batches,
                timed,
            };
            let linked = case
                .layers
                .iter()
                .flatten()
                .any(|item| matches!(item.thing, Thing::Link(_)));
            let links = |step: &Step| matches!(step.op, Op::Link { .. } | Op::Linkfd { .. });
            if linked || case.batches.iter().flat_map(|(steps, _)| steps).any(links) {
                for (_, then) in &mut case.batches {
                    *then = match *then {
                        Then::PushOwn => Then::PushReference,
                        other => other,
                    };
                }
            }
            case
        })
        .boxed()
}
