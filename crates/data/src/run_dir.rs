//! Where a run leaves its results: a folder that is either committed or nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::DataError;

/// Written last; without it a folder is no result.
pub const COMMITTED: &str = "_COMMITTED";
/// Marks a folder as ours while it is not committed; locked by the process that writes it.
const UNFINISHED: &str = "_UNFINISHED";
const WORK: &str = "_work";
const NOTICE: &[u8] =
    b"A clientele run is being written here, or was never finished. The next run into this folder deletes what is in it.\n";

/// A run directory being written. Dropped without [`RunDir::commit`] it stays as an unfinished run, which the next one cleans.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Holds the lock.
    _unfinished: File,
}

/// What a committed run says of its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// By name, with `/` between folders.
    pub files: BTreeMap<String, CommittedFile>,
}

/// One file of a committed run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedFile {
    /// Size.
    pub size_bytes: u64,
    /// BLAKE3, in hexadecimal.
    pub blake3: String,
}

impl RunDir {
    /// Makes `path` a run directory: a new folder, an empty one, or an unfinished run, which is cleaned. Writes to it at once, so
    /// that a folder that cannot be written to is found before any work.
    ///
    /// # Errors
    /// [`DataError::RunExists`], [`DataError::RunBusy`], [`DataError::NotARun`], [`DataError::Unwritable`],
    /// [`DataError::DiskFull`].
    pub fn create(path: &Path) -> Result<Self, DataError> {
        let unwritable = |error: io::Error| match DataError::io("write to", path, error) {
            DataError::Io { path, source, .. } => DataError::Unwritable { path, source },
            full => full,
        };
        if path.join(COMMITTED).exists() {
            return Err(DataError::RunExists { path: path.into() });
        }
        fs::create_dir_all(path).map_err(unwritable)?;
        let marker = path.join(UNFINISHED);
        let is_ours = marker.exists();
        if !is_ours && let Some(example) = first_name(path).map_err(unwritable)? {
            return Err(DataError::NotARun {
                path: path.into(),
                example,
            });
        }
        let mut unfinished = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&marker)
            .map_err(unwritable)?;
        match unfinished.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataError::RunBusy { path: path.into() }),
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        // Another process may have finished between the first look and the lock.
        if path.join(COMMITTED).exists() {
            return Err(DataError::RunExists { path: path.into() });
        }
        unfinished
            .write_all(NOTICE)
            .and_then(|()| unfinished.sync_all())
            .map_err(unwritable)?;
        if is_ours {
            clean(path).map_err(unwritable)?;
        }
        fs::create_dir_all(path.join(WORK)).map_err(unwritable)?;
        Ok(Self {
            path: path.into(),
            _unfinished: unfinished,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For intermediate files; gone when the run is committed.
    pub fn work_dir(&self) -> PathBuf {
        self.path.join(WORK)
    }

    /// Writes a file, whole or not at all; `name` may have folders, divided by `/`.
    ///
    /// # Errors
    /// [`DataError::BadName`], [`DataError::DiskFull`], [`DataError::Io`].
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), DataError> {
        write_whole(&checked_join(&self.path, name)?, bytes)
    }

    /// Ends the run: removes work files, makes everything durable, and writes `_COMMITTED` last, with the size and hash of every
    /// file. Returns what it says.
    ///
    /// # Errors
    /// [`DataError::DiskFull`], [`DataError::Io`]; the folder is then still unfinished.
    pub fn commit(self) -> Result<Committed, DataError> {
        let failed = |error| DataError::io("commit", &self.path, error);
        remove_if_there(fs::remove_dir_all(self.work_dir())).map_err(failed)?;
        let mut files = BTreeMap::new();
        for name in file_names(&self.path).map_err(failed)? {
            let path = self.path.join(&name);
            let failed = |error| DataError::io("read", &path, error);
            let file = File::open(&path).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            files.insert(name, describe(&file).map_err(failed)?);
        }
        let committed = Committed { files };
        let mut json =
            serde_json::to_vec_pretty(&committed).map_err(|error| failed(error.into()))?;
        json.push(b'\n');
        write_whole(&self.path.join(COMMITTED), &json)?;
        // A marker that stays behind harms nothing: `_COMMITTED` is what counts.
        remove_if_there(fs::remove_file(self.path.join(UNFINISHED))).map_err(failed)?;
        Ok(committed)
    }
}

/// Checks that a folder is a committed run and that its files are those that were committed.
///
/// # Errors
/// [`DataError::NotCommitted`]; [`DataError::RunDamaged`], naming the first file that differs; [`DataError::Io`].
pub fn verify(path: &Path) -> Result<Committed, DataError> {
    let damaged = |name: &str, reason: String| DataError::RunDamaged {
        path: path.into(),
        name: name.to_owned(),
        reason,
    };
    let json = match fs::read(path.join(COMMITTED)) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DataError::NotCommitted { path: path.into() });
        }
        Err(error) => return Err(DataError::io("read", path.join(COMMITTED), error)),
    };
    let committed: Committed =
        serde_json::from_slice(&json).map_err(|error| damaged(COMMITTED, error.to_string()))?;
    for (name, expected) in &committed.files {
        let file_path = checked_join(path, name)?;
        let file = match File::open(&file_path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(name, "it is gone".to_owned()));
            }
            Err(error) => return Err(DataError::io("read", &file_path, error)),
        };
        let found = describe(&file).map_err(|error| DataError::io("read", &file_path, error))?;
        if found.size_bytes != expected.size_bytes {
            let (found, expected) = (found.size_bytes, expected.size_bytes);
            return Err(damaged(
                name,
                format!("size_bytes={found}, committed size_bytes={expected}"),
            ));
        }
        if found.blake3 != expected.blake3 {
            return Err(damaged(name, "its bytes are others".to_owned()));
        }
    }
    Ok(committed)
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    publish(path, |file| {
        file.write_all(bytes)
            .map_err(|error| DataError::io("write", path, error))
    })
}

/// Makes the file `path` of what `write` writes, whole or not at all: written under another name, made durable, then moved. A file
/// that is there already is replaced; as every file of a run has one content, it does not matter who wrote it last.
///
/// # Errors
/// [`DataError::DiskFull`], [`DataError::Io`]; what `write` returns.
pub fn publish<E: From<DataError>>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |error| E::from(DataError::io("write", path, error));
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(failed)?;
    let mut builder = tempfile::Builder::new();
    // A temporary file is private by default; results are as public as the folder they are in.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder
        .prefix(".")
        .suffix(".tmp")
        .tempfile_in(folder)
        .map_err(failed)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_folder(folder).map_err(failed)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

fn describe(mut file: &File) -> io::Result<CommittedFile> {
    let mut hasher = blake3::Hasher::new();
    let size_bytes = io::copy(&mut file, &mut hasher)?;
    Ok(CommittedFile {
        size_bytes,
        blake3: hasher.finalize().to_hex().to_string(),
    })
}

/// Only names below the folder, whatever a file that was read says.
fn checked_join(folder: &Path, name: &str) -> Result<PathBuf, DataError> {
    let relative = Path::new(name);
    let is_inside = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    match is_inside && !name.is_empty() {
        true => Ok(folder.join(relative)),
        false => Err(DataError::BadName {
            name: name.to_owned(),
        }),
    }
}

fn first_name(folder: &Path) -> io::Result<Option<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names.into_iter().min())
}

/// Removes everything but the marker: it says that it will be.
fn clean(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == UNFINISHED {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Names of all files below `folder` but the markers, with `/` between folders.
fn file_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.file_type()?.is_dir() {
                true => folders.push((entry.path(), format!("{name}/"))),
                false => names.push(name),
            }
        }
    }
    names.retain(|name| name != UNFINISHED && name != COMMITTED);
    Ok(names)
}

fn remove_if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn commit_one(path: &Path) -> Committed {
        let run = RunDir::create(path).unwrap();
        run.write_file("model.json", b"{}").unwrap();
        run.write_file("assignments/part-000000.parquet", b"PAR1")
            .unwrap();
        fs::write(run.work_dir().join("scratch"), "x").unwrap();
        run.commit().unwrap()
    }

    #[test]
    fn a_committed_run_names_every_file_and_can_be_verified() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/run");
        let committed = commit_one(&path);
        let names: Vec<&str> = committed.files.keys().map(String::as_str).collect();
        assert_eq!(names, ["assignments/part-000000.parquet", "model.json"]);
        assert_eq!(
            committed.files["model.json"].blake3,
            blake3::hash(b"{}").to_hex().as_str()
        );
        assert_eq!(verify(&path).unwrap(), committed);
        assert!(!path.join(WORK).exists() && !path.join(UNFINISHED).exists());
    }

    #[test]
    fn a_committed_run_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        commit_one(folder.path());
        let refused = RunDir::create(folder.path()).unwrap_err();
        assert!(matches!(refused, DataError::RunExists { .. }), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        verify(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_with_other_things_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
        let refused = RunDir::create(folder.path()).unwrap_err();
        assert!(refused.to_string().contains("thesis.txt"), "{refused}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_run_is_cleaned_and_is_no_result() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        run.write_file("model.json", b"half").unwrap();
        drop(run);
        assert!(matches!(
            verify(folder.path()),
            Err(DataError::NotCommitted { .. })
        ));
        let run = RunDir::create(folder.path()).unwrap();
        assert!(!folder.path().join("model.json").exists());
        run.commit().unwrap();
    }

    #[test]
    fn two_processes_do_not_write_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let first = RunDir::create(folder.path()).unwrap();
        first.write_file("model.json", b"{}").unwrap();
        let refused = RunDir::create(folder.path()).unwrap_err();
        assert!(matches!(refused, DataError::RunBusy { .. }), "{refused}");
        assert_eq!(first.commit().unwrap().files.len(), 1);
    }

    #[test]
    fn one_changed_byte_in_a_committed_run_is_noticed() {
        for (name, bytes, reason) in [
            ("model.json", Some("[]"), "its bytes are others"),
            ("model.json", Some("{ }"), "size_bytes=3"),
            ("model.json", None, "it is gone"),
            (COMMITTED, Some("{"), "EOF"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            commit_one(folder.path());
            let path = folder.path().join(name);
            match bytes {
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            let refused = verify(folder.path()).unwrap_err().to_string();
            assert!(
                refused.contains(name) && refused.contains(reason),
                "{refused}"
            );
        }
    }

    #[test]
    fn names_do_not_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        for name in ["../x", "/x", "", "a/../../x"] {
            assert!(
                matches!(run.write_file(name, b""), Err(DataError::BadName { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_found_before_any_work() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let refused = RunDir::create(&folder.path().join("file/run")).unwrap_err();
        assert!(matches!(refused, DataError::Unwritable { .. }), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_file_whose_writing_fails_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("parts/part-000000.parquet");
        let failed = publish(&path, |file| {
            file.write_all(b"half").unwrap();
            Err(DataError::NoInputs)
        });
        assert!(matches!(failed, Err(DataError::NoInputs)));
        assert_eq!(
            fs::read_dir(folder.path().join("parts")).unwrap().count(),
            0
        );
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let error = DataError::io("write", "x", io::ErrorKind::StorageFull.into());
        assert!(matches!(error, DataError::DiskFull { .. }));
        assert!(error.hint().is_some_and(|hint| hint.contains("space")));
    }
}
