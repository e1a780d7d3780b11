//! Where a run leaves its results: a folder that is either committed or nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::folder::{Created, Folder};
use crate::objects::REQUEST_BYTES;
use crate::{DataError, threads};

/// Written last; without it a folder is no result.
pub const COMMITTED: &str = "_COMMITTED";
/// Marks a folder as ours while it is not committed; on a disk it is locked by the process that writes it.
const UNFINISHED: &str = "_UNFINISHED";
/// Folder of intermediate files.
pub const WORK: &str = "_work";
/// Read of a file on a disk at a time: stays in cache until it is hashed.
const DISK_BYTES: u64 = 256 << 10;
/// Files that are asked for side by side where that is waiting and no work.
const FILES_AT_ONCE: usize = 8;
const NOTICE: &[u8] =
    b"A clientele run is being written here, or was never finished. The next run into this folder deletes what is in it.\n";

/// A run directory being written. Dropped without [`RunDir::commit`] it stays as an unfinished run, which the next one cleans.
#[derive(Debug)]
pub struct RunDir {
    folder: Folder,
    work_dir: Folder,
    /// Holds the lock, on a disk.
    _unfinished: Option<File>,
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

/// What to do with an unfinished run that is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Cleaned,
    Kept,
}

impl RunDir {
    /// Makes `folder` a run directory: a new folder, an empty one, or an unfinished run, which is cleaned. Writes to it at once, so
    /// that a folder that cannot be written to is found before any work. Object stores have no locks: there nothing keeps a second
    /// process from cleaning a run that a first one is writing, and whoever commits first has the result.
    ///
    /// # Errors
    /// [`DataError::RunExists`], [`DataError::RunBusy`], [`DataError::NotARun`], [`DataError::Unwritable`],
    /// [`DataError::DiskFull`], [`DataError::Store`].
    pub fn create(folder: impl Into<Folder>) -> Result<Self, DataError> {
        Self::start(folder.into(), Found::Cleaned)
    }

    /// As [`RunDir::create`], but keeps what is in an unfinished run: somebody put it there for this one.
    ///
    /// # Errors
    /// As [`RunDir::create`].
    pub fn adopt(folder: impl Into<Folder>) -> Result<Self, DataError> {
        Self::start(folder.into(), Found::Kept)
    }

    /// Opens an unfinished run to go on with it. Takes the lock if it is free; if not, whoever has it is taken for dead or slow, as
    /// every file of a run has one content and one process commits it.
    ///
    /// # Errors
    /// [`DataError::RunExists`] when it is committed, [`DataError::NoSuchFile`] and [`DataError::NotARun`] when it is none,
    /// [`DataError::Io`], [`DataError::Store`].
    pub fn resume(folder: impl Into<Folder>) -> Result<Self, DataError> {
        let folder = folder.into();
        let path = folder.shown("");
        if folder.size(COMMITTED)?.is_some() {
            return Err(DataError::RunExists { path });
        }
        if folder.size(UNFINISHED)?.is_none() {
            return Err(match folder.list()?.into_iter().next() {
                Some(example) => DataError::NotARun { path, example },
                None => DataError::NoSuchFile { path },
            });
        }
        let unfinished = match folder.local_path() {
            None => None,
            Some(local) => {
                let marker = local.join(UNFINISHED);
                let failed = |error| DataError::io("open", &marker, error);
                let file = File::options().write(true).open(&marker).map_err(failed)?;
                match file.try_lock() {
                    Ok(()) => Some(file),
                    Err(TryLockError::WouldBlock) => None,
                    Err(TryLockError::Error(error)) => return Err(failed(error)),
                }
            }
        };
        Ok(Self {
            work_dir: folder.child(WORK)?,
            folder,
            _unfinished: unfinished,
        })
    }

    fn start(folder: Folder, found: Found) -> Result<Self, DataError> {
        let unfinished = match folder.local_path() {
            Some(path) => Some(start_on_disk(path, found)?),
            None => {
                start_in_store(&folder, found)?;
                None
            }
        };
        Ok(Self {
            work_dir: folder.child(WORK)?,
            folder,
            _unfinished: unfinished,
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// For intermediate files; gone when the run is committed.
    pub fn work_dir(&self) -> Folder {
        self.work_dir.clone()
    }

    /// Writes a file, whole or not at all; `name` may have folders, divided by `/`.
    ///
    /// # Errors
    /// [`DataError::BadName`], [`DataError::DiskFull`], [`DataError::Io`], [`DataError::Store`].
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), DataError> {
        self.folder.write(name, bytes)
    }

    /// Writes `files`, names and bytes, side by side: they wait for the disk or the store, and not for each other.
    ///
    /// # Errors
    /// As [`RunDir::write_file`]; some of the others may be there then.
    pub fn write_files<N, B>(&self, files: &[(N, B)]) -> Result<(), DataError>
    where
        N: AsRef<str> + Sync,
        B: AsRef<[u8]> + Sync,
    {
        let write = |(name, bytes): &(N, B)| self.write_file(name.as_ref(), bytes.as_ref());
        threads::map(FILES_AT_ONCE, files, write).map(|_| ())
    }

    /// Ends the run: makes everything durable, writes `_COMMITTED` with the size and hash of every file but intermediate ones, and
    /// removes those. Wherever this is interrupted, there is an unfinished run with its intermediate files, or a committed one.
    /// Returns what `_COMMITTED` says.
    ///
    /// # Errors
    /// [`DataError::RunExists`] when another process has committed other files; [`DataError::DiskFull`], [`DataError::Io`],
    /// [`DataError::Store`]: the folder is then still unfinished.
    pub fn commit(self) -> Result<Committed, DataError> {
        let path = self.folder.shown("");
        let mut names = self.folder.list()?;
        names.retain(|name| is_result(name));
        let described = threads::map(n_at_once(&self.folder), &names, |name| {
            if let Some(local) = self.folder.local_path() {
                let path = local.join(name);
                let synced = File::open(&path).and_then(|file| file.sync_all());
                synced.map_err(|error| DataError::io("read", path, error))?;
            }
            let gone = || DataError::NoSuchFile {
                path: self.folder.shown(name),
            };
            describe(&self.folder, name)?.ok_or_else(gone)
        })?;
        let committed = Committed {
            files: names.into_iter().zip(described).collect(),
        };
        let mut json = serde_json::to_vec_pretty(&committed)
            .map_err(|error| DataError::io("commit", &path, error.into()))?;
        json.push(b'\n');
        if self.folder.create_if_absent(COMMITTED, &json)? == Created::There
            && self.folder.read(COMMITTED)?.as_deref() != Some(&json)
        {
            return Err(DataError::RunExists { path });
        }
        Self::tidy(&self.folder);
        Ok(committed)
    }

    /// Removes from a committed run what is no result, as far as it can: an end that was interrupted has left it. What stays behind
    /// harms nothing: `_COMMITTED` is what counts.
    pub fn tidy(folder: &Folder) {
        if let Ok(work_dir) = folder.child(WORK) {
            if let Ok(names) = work_dir.list() {
                let _ = threads::map(n_at_once(folder), &names, |name| work_dir.remove(name));
            }
            let _ = work_dir.remove_all();
        }
        let _ = folder.remove_temporary();
        let _ = folder.remove(UNFINISHED);
    }
}

/// A disk is asked by as many threads as hash, a store by some that wait.
fn n_at_once(folder: &Folder) -> usize {
    match folder.local_path() {
        Some(_) => std::thread::available_parallelism().map_or(1, |n| n.get().min(8)),
        None => FILES_AT_ONCE,
    }
}

fn start_on_disk(path: &Path, found: Found) -> Result<File, DataError> {
    let unwritable = |error: io::Error| match DataError::io("write to", path, error) {
        DataError::Io { path, source, .. } => DataError::Unwritable { path, source },
        full => full,
    };
    let is_committed = || path.join(COMMITTED).exists();
    if is_committed() {
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
    if is_committed() {
        return Err(DataError::RunExists { path: path.into() });
    }
    unfinished
        .write_all(NOTICE)
        .and_then(|()| unfinished.sync_all())
        .map_err(unwritable)?;
    if is_ours && found == Found::Cleaned {
        clean(path).map_err(unwritable)?;
    }
    fs::create_dir_all(path.join(WORK)).map_err(unwritable)?;
    Ok(unfinished)
}

fn start_in_store(folder: &Folder, found: Found) -> Result<(), DataError> {
    if folder.size(COMMITTED)?.is_some() {
        let path = folder.shown("");
        return Err(DataError::RunExists { path });
    }
    let names = folder.list()?;
    let is_ours = names.iter().any(|name| name == UNFINISHED);
    if let Some(example) = names.first().filter(|_| !is_ours) {
        return Err(DataError::NotARun {
            path: folder.shown(""),
            example: example.clone(),
        });
    }
    folder.write(UNFINISHED, NOTICE)?;
    if is_ours && found == Found::Cleaned {
        let mut others = names.iter().filter(|name| *name != UNFINISHED);
        others.try_for_each(|name| folder.remove(name))?;
    }
    Ok(())
}

/// Checks that a folder is a committed run and that its files are those that were committed.
///
/// # Errors
/// [`DataError::NotCommitted`]; [`DataError::RunDamaged`], naming the first file that differs; [`DataError::Io`],
/// [`DataError::Store`].
pub fn verify(folder: impl Into<Folder>) -> Result<Committed, DataError> {
    let folder = folder.into();
    let damaged = |name: &str, reason: String| DataError::RunDamaged {
        path: folder.shown(""),
        name: name.to_owned(),
        reason,
    };
    let Some(json) = folder.read(COMMITTED)? else {
        let path = folder.shown("");
        return Err(DataError::NotCommitted { path });
    };
    let committed: Committed =
        serde_json::from_slice(&json).map_err(|error| damaged(COMMITTED, error.to_string()))?;
    for (name, expected) in &committed.files {
        let Some(found) = describe(&folder, name)? else {
            return Err(damaged(name, "it is gone".to_owned()));
        };
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

/// Size and hash of a file, read bit by bit; none if it is gone.
fn describe(folder: &Folder, name: &str) -> Result<Option<CommittedFile>, DataError> {
    let Some(size_bytes) = folder.size(name)? else {
        return Ok(None);
    };
    let mut hasher = blake3::Hasher::new();
    let piece_bytes = match folder.local_path() {
        Some(_) => DISK_BYTES,
        None => REQUEST_BYTES,
    };
    let mut offset = 0;
    while offset < size_bytes {
        let n_bytes = (size_bytes - offset).min(piece_bytes);
        hasher.update(&folder.read_range(name, offset, n_bytes as usize)?);
        offset += n_bytes;
    }
    Ok(Some(CommittedFile {
        size_bytes,
        blake3: hasher.finalize().to_hex().to_string(),
    }))
}

/// Whether a file is what a run is about.
fn is_result(name: &str) -> bool {
    name != UNFINISHED && name != COMMITTED && name.split('/').next() != Some(WORK)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn commit_one(path: &Path) -> Committed {
        let run = RunDir::create(path).unwrap();
        let files = [
            ("model.json", &b"{}"[..]),
            ("assignments/part-000000.parquet", b"PAR1"),
        ];
        run.write_files(&files).unwrap();
        run.work_dir().write("scratch", b"x").unwrap();
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
    fn a_full_disk_is_told_apart() {
        let error = DataError::io("write", "x", io::ErrorKind::StorageFull.into());
        assert!(matches!(error, DataError::DiskFull { .. }));
        assert!(error.hint().is_some_and(|hint| hint.contains("space")));
    }
}
