//! Which files the user means.

use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;

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
        } else if input.contains(['*', '?', '[']) {
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
