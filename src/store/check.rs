//! fsck: whether records, contents and workspaces fit together; what can be
//! mended without losing anything is mended, the rest is put into `damaged/`.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::failure::{Failure, Outcome};
use super::lock::{Hold, Object};
use super::record::{LayerRecord, WorkspaceKind, WorkspaceRecord};
use super::{Store, layout, staging};
use crate::digest::Digest;
use crate::sys::dir::{self, Rename};
use crate::sys::{Errno, best_effort};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// What it concerns: a path, a layer, a workspace.
    pub about: String,
    /// What is wrong with it.
    pub what: String,
    /// Whether data is not what it should be; else it is only untidy.
    pub severity: Severity,
    /// Whether it was put right.
    pub repaired: bool,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Left by a crash, takes up room, hurts nobody.
    Untidy,
    /// Something cannot be used.
    Damage,
}

/// Whether to mend what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Only say.
    No,
    /// Mend.
    Yes,
}

impl Store {
    /// Looks at every record and folder. Digests are not computed here: that takes
    /// a canonical tar, of which the store knows nothing.
    ///
    /// `chain` says what a record's chain ID must be.
    pub fn check(
        &self,
        repair: Repair,
        chain: &dyn Fn(&LayerRecord) -> Option<String>,
    ) -> Outcome<Vec<Issue>> {
        let mut issues = Vec::new();
        self.check_commits(repair, &mut issues)?;
        let layers = self.layers()?;
        for damage in &layers.damaged {
            issues.push(self.damaged_record(damage, "names", repair));
        }
        let mut contents: HashMap<Digest, Option<Failure>> = HashMap::new();
        let mut check_content = |id: &Digest| -> Option<Failure> {
            let known = contents.entry(*id);
            known.or_insert_with(|| self.tree(id).err()).clone()
        };
        for layer in &layers.records {
            for (id, part) in ids_of(layer) {
                if let Some(e) = check_content(id) {
                    issues.push(damage(
                        format!("layer {}", layer.name),
                        format!("{part}{e}"),
                    ));
                }
            }
            if layer.chain_id != chain(layer) {
                let what = "its chain ID does not follow from its parents".to_owned();
                issues.push(damage(format!("layer {}", layer.name), what));
            }
        }
        let workspaces = self.workspaces()?;
        for damage in &workspaces.damaged {
            issues.push(self.damaged_record(damage, "workspaces", repair));
        }
        for workspace in &workspaces.records {
            for layer in workspace.layers() {
                if let Some(e) = check_content(&layer.diff_id) {
                    issues.push(damage(format!("workspace {}", workspace.name), e.what));
                }
            }
            issues.extend(self.check_parts(workspace, repair)?);
        }
        self.check_rubbish(repair, &mut issues)?;
        Ok(issues)
    }

    fn check_commits(&self, repair: Repair, issues: &mut Vec<Issue>) -> Outcome<()> {
        let before = issues.len();
        for workspace in self.workspaces()?.records {
            let held = self.try_lock(Object::Workspace(&workspace.name), Hold::Shared)?;
            if held.is_some() && self.commit_is_pending(&workspace.name)? {
                let mut issue = damage(
                    format!("workspace {}", workspace.name),
                    "a commit was cut off; it will be ended by the next command that uses it"
                        .into(),
                );
                issue.severity = Severity::Untidy;
                issues.push(issue);
            }
        }
        if repair == Repair::Yes && issues.len() > before {
            self.end_commits()?;
            issues
                .iter_mut()
                .skip(before)
                .for_each(|i| i.repaired = true);
        }
        Ok(())
    }

    fn check_parts(&self, workspace: &WorkspaceRecord, repair: Repair) -> Outcome<Vec<Issue>> {
        let mut issues = Vec::new();
        let parts: &[&[u8]] = match workspace.kind {
            WorkspaceKind::Overlay => &[layout::UPPER, layout::WORK],
            WorkspaceKind::View => &[],
            WorkspaceKind::Copy => return self.check_copy(workspace, repair),
        };
        let Some(_lock) = self.try_lock(Object::Workspace(&workspace.name), Hold::Alone)? else {
            return Ok(issues);
        };
        if self.commit_is_pending(&workspace.name).unwrap_or(true) {
            return Ok(issues);
        }
        if !matches!(self.pending_apply(&workspace.name), Ok(None)) {
            let mut issue = damage(
                format!("workspace {}", workspace.name),
                format!(
                    "an apply was cut off: `acetate ws apply {}` ends it",
                    workspace.name
                ),
            );
            issue.severity = Severity::Untidy;
            issues.push(issue);
        }
        let folder = self.workspace_folder(&workspace.name)?;
        for part in parts {
            let found = dir::probe(folder.as_fd(), part);
            if !matches!(found, Ok(None)) {
                continue;
            }
            let shown = String::from_utf8_lossy(part);
            let mut issue = damage(
                format!("workspace {}", workspace.name),
                format!("its directory {shown} is missing"),
            );
            if repair == Repair::Yes {
                issue.repaired = dir::mkdir(folder.as_fd(), part, 0o755).is_ok();
            }
            issues.push(issue);
        }
        Ok(issues)
    }

    /// A copied workspace without its tree or manifest cannot be told from its layers
    /// any more: it is put aside, with what is left of it.
    fn check_copy(&self, workspace: &WorkspaceRecord, repair: Repair) -> Outcome<Vec<Issue>> {
        let name = workspace.name.as_str();
        let Some(_lock) = self.try_lock(Object::Workspace(name), Hold::Alone)? else {
            return Ok(Vec::new());
        };
        let Err(e) = self.copy(name) else {
            return Ok(Vec::new());
        };
        let mut issue = damage(format!("workspace {name}"), e.what);
        issue.repaired =
            repair == Repair::Yes && self.put_aside("workspaces", name.as_bytes()).is_ok();
        Ok(vec![issue])
    }

    /// What no record speaks of.
    fn check_rubbish(&self, repair: Repair, issues: &mut Vec<Issue>) -> Outcome<()> {
        let mut foreign = Vec::new();
        for (part, fd) in [
            ("names", &self.names),
            ("layers", &self.layers),
            ("workspaces", &self.workspaces),
        ] {
            dir::list(fd.as_fd(), |e| {
                let name = String::from_utf8_lossy(&e.name).into_owned();
                let known = match part {
                    "names" => layout::name_of_record(&e.name).is_some(),
                    "layers" => layout::is_hex(&name),
                    _ => layout::is_name(&name),
                };
                if !known {
                    foreign.push((part, e.name));
                }
            })
            .map_err(|e| Failure::system(&self.path().join(part), "be listed", e))?;
        }
        for (part, name) in foreign {
            let path = PathBuf::from(part).join(String::from_utf8_lossy(&name).as_ref());
            let mut issue = damage(
                path.display().to_string(),
                "nothing of ours is called that".into(),
            );
            issue.severity = Severity::Untidy;
            issue.repaired = repair == Repair::Yes && self.put_aside(part, &name).is_ok();
            issues.push(issue);
        }
        if repair == Repair::Yes {
            let done = self.collect_garbage()?;
            let removed = [
                (done.staging, "folders in staging that a crash left"),
                (done.contents, "contents that nobody speaks of"),
            ];
            for (count, what) in removed.into_iter().filter(|(count, _)| *count > 0) {
                issues.push(Issue {
                    about: "store".to_owned(),
                    what: format!("{count} {what}"),
                    severity: Severity::Untidy,
                    repaired: true,
                });
            }
        }
        Ok(())
    }

    fn damaged_record(&self, failure: &Failure, part: &'static str, repair: Repair) -> Issue {
        let mut issue = damage(part.to_owned(), failure.what.clone());
        let names = match part {
            "names" => &self.names,
            _ => &self.workspaces,
        };
        let mut entries = Vec::new();
        let listed = dir::list(names.as_fd(), |e| entries.push(e.name));
        best_effort("list records", listed);
        if repair == Repair::Yes {
            // The sentence names the path; the entry is the one it contains.
            let of_path = |e: &&Vec<u8>| {
                let path = self
                    .path()
                    .join(part)
                    .join(String::from_utf8_lossy(e).as_ref());
                failure.what.starts_with(&format!("{} ", path.display()))
                    || failure.what.starts_with(&format!("{}/", path.display()))
            };
            let found = entries.iter().find(of_path);
            issue.repaired = found.is_some_and(|e| self.put_aside(part, e).is_ok());
        }
        issue
    }

    /// Moves something into `damaged/`, where a person can look at it.
    fn put_aside(&self, part: &str, name: &[u8]) -> Result<(), Errno> {
        match dir::mkdir(self.root.as_fd(), layout::DAMAGED, 0o700) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
        let damaged = staging::open(&self.root, layout::DAMAGED)?;
        let from = staging::open(&self.root, part.as_bytes())?;
        let shown = String::from_utf8_lossy(name).into_owned();
        for count in 0..1_000 {
            let to = format!("{part}-{count}-{shown}");
            let to = (damaged.as_fd(), to.as_bytes());
            match dir::rename((from.as_fd(), name), to, Rename::NoReplace) {
                Err(Errno::EEXIST) => {}
                r => return r,
            }
        }
        Err(Errno::EEXIST)
    }
}

fn damage(about: String, what: String) -> Issue {
    Issue {
        about,
        what,
        severity: Severity::Damage,
        repaired: false,
    }
}

/// The contents that a layer needs, and how to speak of them.
fn ids_of(layer: &LayerRecord) -> impl Iterator<Item = (&Digest, String)> {
    let parents = layer
        .parents
        .iter()
        .map(|p| (&p.diff_id, format!("its parent {}: ", p.name)));
    std::iter::once((&layer.diff_id, String::new())).chain(parents)
}
