//! Layers: made of a directory, named, looked into, checked, removed.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::{self, Digests, Ids, Owners, PackOptions, SideRecords};
use crate::digest::Digest;
use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
pub use crate::store::layers::Added;
use crate::store::layout;
use crate::store::record::{Content, LayerRecord, Lower, Parent, now};
use crate::store::staging::Staging;
use crate::store::tidy::{MANY, Sync, tidy};
use crate::sys::dir::{self, Cross};
use crate::sys::stat::SetTime;
use crate::sys::tree::{self, Enter, Visitor};
use crate::sys::{Errno, Kind, Spot, Timespec, file, mount, process, small};

use super::content;
use super::copy::{self, Links, Marks};
use super::own_files;
use super::stack;
use super::view::{View, components};

/// The folder in staging that becomes a layer.
const FOLDER: &[u8] = b"layer";

/// What a new layer is to be called, and what is to be known of it.
#[derive(Debug, Clone, Default)]
pub struct NewLayer {
    /// Its name.
    pub name: String,
    /// The layer that it stands on.
    pub parent: Option<String>,
    /// A user's own words.
    pub labels: BTreeMap<String, String>,
    /// What it is made of, for people.
    pub source: String,
}

/// A layer that was made.
#[derive(Debug)]
pub struct Made {
    /// Its record.
    pub record: LayerRecord,
    /// Whether its content is new.
    pub added: Added,
}

/// A tree in the making.
#[derive(Debug)]
pub struct Growing {
    staging: Staging,
    tree: Arc<OwnedFd>,
}

impl Growing {
    /// An empty tree in a folder of its own.
    pub fn new(store: &Store) -> Outcome<Growing> {
        let staging = store.stage()?;
        let failed = |e| Failure::system(staging.path(), "be written", e);
        dir::mkdir(staging.dir().as_fd(), FOLDER, 0o755).map_err(failed)?;
        let folder = open(staging.dir(), FOLDER).map_err(failed)?;
        dir::mkdir(folder.as_fd(), layout::TREE, 0o755).map_err(failed)?;
        let tree = open(&folder, layout::TREE).map_err(failed)?;
        Ok(Growing { staging, tree })
    }

    /// The tree.
    pub fn tree(&self) -> &Arc<OwnedFd> {
        &self.tree
    }

    /// Where it stands.
    pub fn path(&self) -> PathBuf {
        self.staging.path().join("layer/tree")
    }

    /// Room for hard links while it is copied.
    pub fn links(&self) -> Outcome<Links> {
        let failed = |e| Failure::system(self.staging.path(), "be written", e);
        dir::mkdir(self.staging.dir().as_fd(), b"links", 0o700).map_err(failed)?;
        Ok(Links::new(
            open(self.staging.dir(), b"links").map_err(failed)?,
        ))
    }

    /// Writes it to disk and makes it a layer.
    pub fn finish(
        self,
        store: &Store,
        content: &Content,
        records: &SideRecords,
        new: &NewLayer,
    ) -> Outcome<Made> {
        let parents = parents_of(store, new.parent.as_deref())?;
        self.finish_upon(store, content, records, new, parents)
    }

    /// The same upon these layers, the next one first.
    pub fn finish_upon(
        self,
        store: &Store,
        content: &Content,
        records: &SideRecords,
        new: &NewLayer,
        parents: Parents,
    ) -> Outcome<Made> {
        if !records.is_empty() {
            let failed = |e| Failure::system(self.staging.path(), "be written", e);
            let folder = open(self.staging.dir(), FOLDER).map_err(failed)?;
            let text = records.to_text();
            small::write_new(folder.as_fd(), layout::SIDE_RECORDS, text.as_bytes())
                .map_err(failed)?;
        }
        let synced = match content.entries > MANY {
            true => file::sync_fs(self.tree.as_fd()),
            false => tidy(&self.tree, Sync::Each),
        };
        synced.map_err(|e| Failure::system(&self.path(), "be written to disk", e))?;
        let record = describe(content, new, parents);
        let added = store.add(&self.staging, FOLDER, content, &record)?;
        Ok(Made { record, added })
    }
}

fn open(parent: &Arc<OwnedFd>, name: &[u8]) -> crate::sys::Result<Arc<OwnedFd>> {
    dir::open_dir_at(parent.as_fd(), name, Cross::Refuse).map(Arc::new)
}

/// What a layer stands on.
#[derive(Debug, Clone, Default)]
pub struct Parents {
    /// The next one first.
    pub layers: Vec<Parent>,
    /// Whether that is all: a live directory cannot be named by a digest.
    pub incomplete: bool,
}

/// A layer and everything recorded below it.
pub fn chain(store: &Store, asked: &str) -> Outcome<Vec<Parent>> {
    let record = store.layer(asked)?;
    let own = Parent {
        name: record.name,
        diff_id: record.diff_id,
    };
    Ok(std::iter::once(own).chain(record.parents).collect())
}

fn parents_of(store: &Store, parent: Option<&str>) -> Outcome<Parents> {
    let layers = parent.map_or(Ok(Vec::new()), |p| chain(store, p))?;
    Ok(Parents {
        layers,
        incomplete: false,
    })
}

/// The record of a layer.
pub fn describe(content: &Content, new: &NewLayer, parents: Parents) -> LayerRecord {
    let mut record = LayerRecord {
        name: new.name.clone(),
        diff_id: content.diff_id,
        chain_id: None,
        parents: parents.layers,
        size: content.size,
        entries: content.entries,
        created: now(),
        source: new.source.clone(),
        labels: new.labels.clone(),
        rest: serde_json::Map::new(),
    };
    if !parents.incomplete {
        record.chain_id = chain_id(&record);
    }
    record
}

/// The chain ID that follows from a record's parents; none where it has none.
pub fn chain_id(record: &LayerRecord) -> Option<String> {
    let mut ids: Vec<Digest> = record.parents.iter().rev().map(|p| p.diff_id).collect();
    ids.push(record.diff_id);
    Digest::chain_of(&ids).map(|id| id.to_string())
}

/// Makes a layer: empty, or a copy of a directory.
pub fn create(store: &Store, new: &NewLayer, from: Option<&Path>) -> Outcome<Made> {
    store.check_free(&new.name)?;
    parents_of(store, new.parent.as_deref())?;
    let growing = Growing::new(store)?;
    let mut records = SideRecords::default();
    match from {
        None => at_no_time(&growing)?,
        Some(path) => {
            let source = hold(path)?;
            if process::keeps_every_owner() || is_all_own(&source, path)? {
                own_files::reach();
                copy_directory(&source, path, &growing)?;
            } else {
                records = through_archive(&source, path, &growing)?;
            }
        }
    }
    let content = content::measure(
        growing.tree(),
        &growing.path(),
        &records,
        &content::owners(),
    )?;
    growing.finish(store, &content, &records, new)
}

/// Whoever makes an empty layer gets the same one: no time of its making.
fn at_no_time(growing: &Growing) -> Outcome<()> {
    let at = SetTime::At(Timespec::default());
    Spot::fd(growing.tree().clone())
        .set_times(at, at)
        .map_err(|e| Failure::system(&growing.path(), "be written", e))
}

fn copy_directory(source: &Arc<OwnedFd>, path: &Path, growing: &Growing) -> Outcome<()> {
    let mut links = growing.links()?;
    let copied = copy::copy_tree(source, growing.tree(), &mut links, Marks::OfLayer);
    copied.map_err(|e| match e {
        Errno::EXDEV => Failure::new(
            FailureKind::Usage,
            format!("something is mounted below {}", path.display()),
            "a layer is one tree of one file system: unmount it, or name another directory",
        ),
        e => Failure::system(path, "be copied", e),
    })
}

/// Whether everything in a tree is the caller's own.
fn is_all_own(source: &Arc<OwnedFd>, path: &Path) -> Outcome<bool> {
    struct Owned {
        by: (u32, u32),
        all: bool,
    }
    impl Visitor for Owned {
        fn entry(
            &mut self,
            dir: &Arc<OwnedFd>,
            name: &crate::sys::Name,
            _kind: Kind,
        ) -> crate::sys::Result<Enter> {
            let stat = Spot::at(dir.clone(), name.clone()).stat()?;
            self.all &= (stat.uid, stat.gid) == self.by;
            Ok(if self.all { Enter::Yes } else { Enter::No })
        }
        fn leave(&mut self, _dir: &Arc<OwnedFd>) -> crate::sys::Result<()> {
            Ok(())
        }
    }
    let failed = |e| Failure::system(path, "be read", e);
    let by = process::effective_ids();
    let root = crate::sys::stat::of_descriptor(source.as_fd()).map_err(failed)?;
    let all = (root.uid, root.gid) == by;
    let mut owned = Owned { by, all };
    match tree::walk(source, &mut owned) {
        // One's own directory that shuts out its owner: nobody else has put it there.
        Err(Errno::EACCES) => {}
        r => r.map_err(failed)?,
    }
    Ok(owned.all)
}

/// What belongs to others cannot be copied as it is without root: it goes the way of
/// an archive, and its owners are recorded.
fn through_archive(source: &Arc<OwnedFd>, path: &Path, growing: &Growing) -> Outcome<SideRecords> {
    let failed = |e: std::io::Error| Failure::system(path, "be copied", Errno::from_io(&e));
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    let from = source.clone();
    let packing = std::thread::spawn(move || {
        let options = PackOptions::new(Owners::Real(Ids::default()));
        archive::pack(from.as_fd(), writer, &options, &mut |_| {}).map(drop)
    });
    let unpacked = super::import::unpack(growing, reader, path, Digests::Skip, &mut |_| {});
    match packing.join() {
        // Its error is the reason, where both sides have one.
        Ok(Err(e)) => Err(content::failure(&e, path)),
        Ok(Ok(())) => Ok(unpacked?.records),
        Err(_) => Err(failed(std::io::Error::other("a thread ended unexpectedly"))),
    }
}

fn hold(path: &Path) -> Outcome<Arc<OwnedFd>> {
    mount::hold_directory(path)
        .map(Arc::new)
        .map_err(|e| match e {
            Errno::ENOENT => Failure::new(
                FailureKind::NotFound,
                format!("{} does not exist", path.display()),
                "check the spelling",
            ),
            e => Failure::system(path, "be opened", e),
        })
}

/// The view of a layer upon its parents, and its name in messages.
pub fn view(store: &Store, asked: &str) -> Outcome<View> {
    own_files::reach();
    let layers: Vec<Lower> = chain(store, asked)?.into_iter().map(Lower::Layer).collect();
    let owners = stack::owners(store, &layers)?;
    View::keeping(&stack::trees(store, &layers)?, owners)
}

/// One name in a directory.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Row {
    /// The name; bytes that are no UTF-8 replaced.
    pub name: String,
    /// Its type.
    pub kind: &'static str,
    /// Permission bits, in octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Where a symlink leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A type's name.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::Char => "character device",
        Kind::Block => "block device",
    }
}

/// What a layer, upon its parents, shows at a path: the names in a directory, or
/// the one object.
pub fn ls(store: &Store, asked: &str, path: &Path) -> Outcome<Vec<Row>> {
    let view = view(store, asked)?;
    let parts = components(path)?;
    let failed = |e| Failure::system(path, "be read", e);
    let entry = view.at(parts.iter().copied()).map_err(failed)?;
    let entry = entry.ok_or_else(|| not_there(asked, path))?;
    if entry.node.kind != Kind::Dir {
        let name = parts.last().copied().unwrap_or(b"/");
        return Ok(vec![row(&view, name, &entry).map_err(failed)?]);
    }
    let mut rows = Vec::new();
    for item in view.names(&entry.node).map_err(failed)? {
        if let Some(found) = view.child(&entry.node, &item.name).map_err(failed)? {
            rows.push(row(&view, &item.name, &found).map_err(failed)?);
        }
    }
    Ok(rows)
}

fn row(view: &View, name: &[u8], entry: &crate::overlay::Entry) -> crate::sys::Result<Row> {
    let stat = &entry.attr.stat;
    let target = match entry.node.kind {
        Kind::Symlink => Some(view.target(&entry.node)?),
        _ => None,
    };
    Ok(Row {
        name: String::from_utf8_lossy(name).into_owned(),
        kind: kind_name(entry.node.kind),
        mode: format!("{:04o}", stat.mode & 0o7777),
        uid: stat.uid,
        gid: stat.gid,
        size: stat.size,
        mtime: stat.mtime.sec,
        target: target.map(|t| String::from_utf8_lossy(&t).into_owned()),
    })
}

fn not_there(asked: &str, path: &Path) -> Failure {
    Failure::new(
        FailureKind::NotFound,
        format!("the layer {asked} has no {}", path.display()),
        format!("`acetate layer ls {asked}` shows what it has"),
    )
}

/// Writes a file's data out.
pub fn cat(store: &Store, asked: &str, path: &Path, out: &mut dyn Write) -> Outcome<()> {
    let view = view(store, asked)?;
    let parts = components(path)?;
    let failed = |e| Failure::system(path, "be read", e);
    let entry = view.at(parts.into_iter()).map_err(failed)?;
    let entry = entry.ok_or_else(|| not_there(asked, path))?;
    if entry.node.kind != Kind::File {
        return Err(Failure::new(
            FailureKind::Usage,
            format!("{} is a {}", path.display(), kind_name(entry.node.kind)),
            "only files have data to print; `acetate layer ls` shows the others",
        ));
    }
    let data = view.data(&entry.node).map_err(failed)?;
    let mut buffer = vec![0u8; 1 << 17];
    let mut at = 0u64;
    loop {
        let n = file::read_at(data.as_fd(), &mut buffer, at).map_err(failed)?;
        let part = buffer.get(..n).unwrap_or_default();
        if part.is_empty() {
            return Ok(());
        }
        out.write_all(part).map_err(|e| {
            Failure::new(
                FailureKind::General,
                format!("the data cannot be written: {e}"),
                "",
            )
        })?;
        at = at.saturating_add(n as u64);
    }
}

/// What a layer takes up.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Room {
    /// The layer.
    pub name: String,
    /// Bytes of file data in it.
    pub size: u64,
    /// Bytes that its removal would free: none where another name has the content.
    pub unique: u64,
    /// Bytes with everything below it.
    pub chain: u64,
}

/// What layers take up: of all where none is named.
pub fn du(store: &Store, asked: &[String]) -> Outcome<Vec<Room>> {
    let all = store.layers()?.records;
    let mut names: HashMap<Digest, usize> = HashMap::new();
    let mut sizes: HashMap<Digest, u64> = HashMap::new();
    for record in &all {
        *names.entry(record.diff_id).or_default() += 1;
        sizes.insert(record.diff_id, record.size);
    }
    let wanted = match asked {
        [] => all,
        asked => asked
            .iter()
            .map(|a| store.layer(a))
            .collect::<Outcome<_>>()?,
    };
    let room = |record: LayerRecord| {
        let below = record.parents.iter().filter_map(|p| sizes.get(&p.diff_id));
        let shared = names.get(&record.diff_id).is_some_and(|n| *n > 1);
        Room {
            unique: if shared { 0 } else { record.size },
            chain: below.fold(record.size, |sum, size| sum.saturating_add(*size)),
            size: record.size,
            name: record.name,
        }
    };
    Ok(wanted.into_iter().map(room).collect())
}

/// Whether a layer's tree is still what its digest says.
///
/// # Errors
/// Integrity where it is not.
pub fn verify(store: &Store, asked: &str) -> Outcome<LayerRecord> {
    own_files::reach();
    let record = store.layer(asked)?;
    let sink = std::io::sink();
    let compress = archive::Compress::No;
    content::write_archive(store, &record, compress, sink, &mut |_| {})?;
    Ok(record)
}
