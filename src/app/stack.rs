//! What a mount is made of, by names: layers, chains, live directories.

use std::path::{Path, PathBuf};

use crate::store::Store;
use crate::store::failure::{Failure, FailureKind, Outcome};
use crate::store::record::{Lower, Parent};

use super::copy::Owners;
use super::layer::{Parents, chain};

/// One `-l` or `--chain`, in the order they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// One layer, or a directory where it is an absolute path.
    Layer(PathBuf),
    /// A layer and all its recorded parents.
    Chain(String),
}

/// Finds what was asked for, uppermost first.
pub fn resolve(store: &Store, asked: &[Asked]) -> Outcome<Vec<Lower>> {
    let mut lowers = Vec::new();
    for part in asked {
        match part {
            Asked::Layer(path) if path.is_absolute() => lowers.push(directory(path)?),
            Asked::Layer(name) => {
                let name = name.to_str().unwrap_or_default();
                let record = store.layer(name)?;
                lowers.push(Lower::Layer(Parent {
                    name: record.name,
                    diff_id: record.diff_id,
                }));
            }
            Asked::Chain(name) => lowers.extend(chain(store, name)?.into_iter().map(Lower::Layer)),
        }
    }
    if lowers.is_empty() {
        return Err(Failure::new(
            FailureKind::Usage,
            "no layer is given",
            "name at least one: -l LAYER, -l /ABSOLUTE/DIR or --chain LAYER",
        ));
    }
    Ok(lowers)
}

fn directory(path: &Path) -> Outcome<Lower> {
    if path.is_dir() {
        return Ok(Lower::Directory {
            directory: path.to_owned(),
        });
    }
    Err(Failure::new(
        FailureKind::NotFound,
        format!("{} is no directory", path.display()),
        "a layer is named by its name, a directory in place by its absolute path",
    ))
}

/// Where the trees of a stack are.
///
/// # Errors
/// Integrity where a layer is not any more what it was when the stack was made.
pub fn trees(store: &Store, lowers: &[Lower]) -> Outcome<Vec<PathBuf>> {
    lowers
        .iter()
        .map(|lower| match lower {
            Lower::Layer(layer) => {
                store.content(&layer.diff_id)?;
                Ok(store.tree_path(&layer.diff_id))
            }
            Lower::Directory { directory: path } => match path.is_dir() {
                true => Ok(path.clone()),
                false => Err(Failure::new(
                    FailureKind::Integrity,
                    format!("the directory {} is not there any more", path.display()),
                    "bring it back, or make the workspace anew",
                )),
            },
        })
        .collect()
}

/// Whether owners stand in xattrs in any of the layers.
pub fn is_disguised(store: &Store, lowers: &[Lower]) -> Outcome<bool> {
    for lower in lowers {
        if let Lower::Layer(layer) = lower
            && store.content(&layer.diff_id)?.disguised
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How a layer upon a stack keeps owners.
pub fn owners(store: &Store, lowers: &[Lower]) -> Outcome<Owners> {
    Ok(match is_disguised(store, lowers)? {
        true => Owners::Disguised,
        false => Owners::Real,
    })
}

/// What a layer that is made upon a stack stands on: the layers above the first
/// live directory.
pub fn parents(lowers: &[Lower]) -> Parents {
    let layers = lowers.iter().map_while(|l| match l {
        Lower::Layer(layer) => Some(layer.clone()),
        Lower::Directory { .. } => None,
    });
    let layers: Vec<Parent> = layers.collect();
    Parents {
        incomplete: layers.len() < lowers.len(),
        layers,
    }
}
