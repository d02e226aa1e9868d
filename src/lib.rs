//! acetate: a userspace overlay filesystem. This page is the map of the crate.
//!
//! # The folders, from the user down to the kernel
//!
//! | folder | what it is | may use |
//! |---|---|---|
//! | [`cli`] | words in, words out: the only place with clap, terminals and exit codes | `app` |
//! | [`app`] | what a user can ask for, one file per verb; no printing | `fuse`, `overlay`, `store`, `archive`, `layer`, `idmap`, `digest`, `sys` |
//! | [`fuse`] | the adapter: fuser's types stop here; mounting, priming, signals | `overlay`, `idmap`, `sys` |
//! | [`overlay`] | the engine: merged view, copy-up, whiteouts; knows no FUSE | `layer`, `idmap`, `sys` |
//! | [`store`] | layers at rest: records and trees on disk; knows no tar and no mount | `layer`, `digest`, `sys` |
//! | [`archive`] | layers as tar, in and out; hostile input stops here | `layer`, `idmap`, `digest`, `sys` |
//! | [`layer`] | what a layer is: a directory tree with marks | `idmap`, `sys` |
//! | [`idmap`] | numbers of users, on disk and shown | nothing |
//! | [`digest`] | the names of bytes: SHA-256, diff IDs, chain IDs | nothing |
//! | [`sys`] | the kernel: the only `unsafe`, the only raw system calls | nothing |
//!
//! Inside [`overlay`]: [`overlay::decide`] decides and does no I/O;
//! [`overlay::inode`] is memory and writes to no layer; [`overlay::upper`] alone
//! changes the upper layer and knows no node; [`overlay::ops`] joins them, one
//! file per family of requests. `tests/architecture.rs` is this table as a test.
//! The engine's glossary, invariants (O1 to O12) and lock order stand at the top
//! of [`overlay`]; the formats on disk in [`layer::mark`], [`layer::disguise`]
//! and [`overlay::upper::work`].
//!
//! # Three walks
//!
//! **A lookup.** LOOKUP(parent, "x") → `fuse::requests` → [`overlay::Overlay::lookup`]
//! takes the rename lock and the directory's for reading → `ops::resolve` asks
//! each layer the parent has, top first ([`layer::Layer::probe`]), and feeds the
//! answers to [`overlay::decide::resolve::Resolver`] until it is done → `ops::lookup`
//! makes the public number ([`overlay::inode::identity`]) and finds or makes the
//! node ([`overlay::inode::table::Table::intern`]) → the reply counts one lookup.
//! A name that is nowhere is answered with node id 0 and a time, so that the
//! kernel remembers that too.
//!
//! **A first write.** WRITE comes without a handle (zero-message open), so the
//! node says where its data is. Not in the upper yet: `ops::ensure_upper` brings
//! the parents up, then under the node's own copy-up lock stages a copy without a
//! name (data, owner, mode, xattrs, times; fsync), and for an instant, under the
//! directory's lock, gives it the name that the node has *now*. A large copy is
//! made by a worker ([`fuse::workers`]), never by an event loop. Readers go to
//! the upper file from then on: the kernel's cached pages stay valid, because it
//! is the same node.
//!
//! **A rename of a directory that has lowers.** Both parents and the directory
//! are brought up first; where the kernel would read it, a redirect says where
//! its lowers are (their path in the lowers' own merged view, which never
//! changes), else its subtree is copied up and cut off from them, which nobody
//! can see. Then, with the rename lock held for writing, one renameat2(2) moves
//! it, leaving a whiteout where the old name would show lowers again.
//!
//! # House rules
//!
//! *split-by-knowledge*: a folder is a right, not a verb. *pure-decisions*.
//! *one-writer*: the upper changes in one folder, and an object gets its name
//! when it is complete. *no-silent-results*: what may fail and does not matter
//! goes through [`sys::best_effort`]. *say-why*, *cite-sources*: comments give
//! the reason, and the kernel function where behaviour follows it.
//! *name-the-test-after-the-bug*. No panic on any path that a request, a layer's
//! bytes or a user's input can reach.

pub mod app;
pub mod archive;
pub mod cli;
pub mod digest;
pub mod fuse;
pub mod idmap;
pub mod layer;
pub mod overlay;
pub mod store;
#[allow(unsafe_code)]
pub mod sys;
