//! Which files the user means.

use std::fs;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use serde::{Deserialize, Serialize};

use crate::stores::Stores;
use crate::{DataError, Folder, Location};

/// Letters that make a name a pattern.
const WILD: [char; 3] = ['*', '?', '['];

/// Where an input file is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    /// On this machine, as found; relative to the working directory when the input was.
    #[serde(rename = "path")]
    Path(PathBuf),
    /// In a store.
    #[serde(rename = "location")]
    Location(Location),
}

impl Place {
    /// For people: a path, or `alias:key` as one.
    pub fn shown(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Location(location) => shown(location),
        }
    }
}

fn shown(location: &Location) -> PathBuf {
    location.to_string().into()
}

/// The files that `inputs` name, sorted, each once. An input is a file, a folder (its `*.parquet` files at any depth) or a glob
/// pattern. In folders, names that begin with `.` or `_` are skipped, as every engine that writes Parquet expects.
///
/// # Errors
/// When an input does not exist, a folder holds no Parquet file, or a pattern matches nothing.
pub fn expand(inputs: &[String]) -> Result<Vec<PathBuf>, DataError> {
    if inputs.is_empty() {
        return Err(DataError::NoInputs);
    }
    let mut files = Vec::new();
    for input in inputs {
        let path = Path::new(input);
        if path.exists() {
            add_path(path, &mut files)?;
        } else if input.contains(WILD) {
            add_matches(input, &mut files)?;
        } else {
            return Err(DataError::NoSuchFile { path: path.into() });
        }
    }
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

fn add_path(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    if !path.is_dir() {
        files.push(path.into());
        return Ok(());
    }
    let n_before = files.len();
    add_folder(path, files)?;
    if files.len() == n_before {
        return Err(DataError::EmptyFolder { path: path.into() });
    }
    Ok(())
}

fn add_matches(pattern: &str, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let matches = glob::glob(pattern).map_err(|source| DataError::BadGlob {
        pattern: pattern.to_owned(),
        source,
    })?;
    let n_before = files.len();
    for entry in matches {
        let path =
            entry.map_err(|error| DataError::io("read", error.path().to_owned(), error.into()))?;
        match path.is_dir() {
            true => add_folder(&path, files)?,
            false => files.push(path),
        }
    }
    if files.len() == n_before {
        return Err(DataError::GlobWithoutMatch {
            pattern: pattern.to_owned(),
        });
    }
    Ok(())
}

fn add_folder(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let unreadable = |error| DataError::io("read", folder, error);
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(['.', '_']) {
            continue;
        }
        if path.is_dir() {
            add_folder(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("parquet"))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// The files that `inputs` name in their stores, by the same rules as [`expand`].
///
/// # Errors
/// As [`expand`]; [`DataError::UnknownStore`], [`DataError::LeavesStore`], [`DataError::Store`].
pub fn expand_in(stores: &Stores, inputs: &[Location]) -> Result<Vec<Location>, DataError> {
    if inputs.is_empty() {
        return Err(DataError::NoInputs);
    }
    let mut files = Vec::new();
    for input in inputs {
        let root = Location::new(input.store(), "")?;
        for key in keys_in(&stores.folder(&root)?, input)? {
            files.push(root.child(&key)?);
        }
    }
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

/// Keys of the files that `input` names in the store with the folder `root`.
fn keys_in(root: &Folder, input: &Location) -> Result<Vec<String>, DataError> {
    let key = input.key();
    if !key.is_empty() && root.size(key)?.is_some() {
        return Ok(vec![key.to_owned()]);
    }
    let names = list_below(root, key)?;
    if !names.is_empty() {
        let tables: Vec<String> = names
            .iter()
            .filter(|name| is_table(name))
            .map(|name| join(key, name))
            .collect();
        return match tables.is_empty() {
            true => Err(DataError::EmptyFolder { path: shown(input) }),
            false => Ok(tables),
        };
    }
    if key.contains(WILD) {
        return matches_in(root, input);
    }
    Err(DataError::NoSuchFile { path: shown(input) })
}

fn matches_in(root: &Folder, input: &Location) -> Result<Vec<String>, DataError> {
    let key = input.key();
    let pattern = Pattern::new(key).map_err(|source| DataError::BadGlob {
        pattern: input.to_string(),
        source,
    })?;
    let options = MatchOptions {
        require_literal_separator: true,
        ..MatchOptions::new()
    };
    let is_match = |name: &str| pattern.matches_with(name, options);
    // What the pattern says before its first wild part need not be listed.
    let parts = key.split('/').take_while(|part| !part.contains(WILD));
    let base = parts.collect::<Vec<_>>().join("/");
    let is_named = |name: &str| {
        // All that is below: as if the folder had been named.
        if key.ends_with("**") {
            return is_match(name) && is_table(name[base.len()..].trim_start_matches('/'));
        }
        let folders = name.match_indices('/').map(|(at, _)| name.split_at(at));
        let mut in_folders = folders.filter(|(folder, _)| is_match(folder));
        is_match(name) || in_folders.any(|(_, below)| is_table(&below[1..]))
    };
    let names = list_below(root, &base)?;
    let keys = names.iter().map(|name| join(&base, name));
    let keys: Vec<String> = keys.filter(|key| is_named(key)).collect();
    match keys.is_empty() {
        true => Err(DataError::GlobWithoutMatch {
            pattern: input.to_string(),
        }),
        false => Ok(keys),
    }
}

fn list_below(root: &Folder, key: &str) -> Result<Vec<String>, DataError> {
    match key.is_empty() {
        true => root.list(),
        false => root.child(key)?.list(),
    }
}

fn join(folder: &str, name: &str) -> String {
    match folder.is_empty() {
        true => name.to_owned(),
        false => format!("{folder}/{name}"),
    }
}

/// Whether a file, named below the folder that was asked for, belongs to its table.
fn is_table(name: &str) -> bool {
    let is_hidden = |part: &str| part.starts_with(['.', '_']);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    extension.eq_ignore_ascii_case("parquet") && !name.split('/').any(is_hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    fn expand_in(folder: &Path, inputs: &[&str]) -> Result<Vec<String>, DataError> {
        let inputs: Vec<String> = inputs
            .iter()
            .map(|input| folder.join(input).to_string_lossy().into_owned())
            .collect();
        let relative = |path: PathBuf| {
            let path = path.strip_prefix(folder).unwrap();
            path.to_string_lossy().replace('\\', "/")
        };
        Ok(expand(&inputs)?.into_iter().map(relative).collect())
    }

    #[test]
    fn a_folder_is_its_parquet_files_at_any_depth_without_hidden_ones() {
        let folder = folder_with(&[
            "b.parquet",
            "a.parquet",
            "x/bucket=3/c.PARQUET",
            "notes.txt",
            "_SUCCESS.parquet",
            ".hidden/d.parquet",
            "_work/e.parquet",
        ]);
        assert_eq!(
            expand_in(folder.path(), &[""]).unwrap(),
            ["a.parquet", "b.parquet", "x/bucket=3/c.PARQUET"]
        );
    }

    #[test]
    fn files_named_in_several_ways_are_read_once() {
        let folder = folder_with(&["b.parquet", "a.parquet"]);
        let found = expand_in(folder.path(), &["*.parquet", "b.parquet", ""]).unwrap();
        assert_eq!(found, ["a.parquet", "b.parquet"]);
    }

    #[test]
    fn a_file_whose_name_looks_like_a_pattern_is_a_file() {
        let folder = folder_with(&["a[1].parquet"]);
        let found = expand_in(folder.path(), &["a[1].parquet"]).unwrap();
        assert_eq!(found, ["a[1].parquet"]);
    }

    #[test]
    fn inputs_that_name_nothing_are_refused() {
        let folder = folder_with(&["empty/notes.txt"]);
        let refused = |input| expand_in(folder.path(), &[input]).unwrap_err();
        assert!(matches!(
            refused("no.parquet"),
            DataError::NoSuchFile { .. }
        ));
        assert!(matches!(refused("empty"), DataError::EmptyFolder { .. }));
        assert!(matches!(
            refused("*.parquet"),
            DataError::GlobWithoutMatch { .. }
        ));
        assert!(matches!(refused("a[.parquet"), DataError::BadGlob { .. }));
        assert_eq!(refused("no.parquet").kind(), ErrorKind::Input);
        assert!(matches!(expand(&[]), Err(DataError::NoInputs)));
    }
}
