//! A folder of a run, on a disk or in an object store: files appear whole or not at all.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::NamedTempFile;

use crate::objects::{Objects, cut};
use crate::positioned::read_exact_at;
use crate::stores::{Store, inside, key_below};
use crate::{DataError, Location};

/// Ends the names of files that are being written.
const TEMPORARY: &str = ".tmp";

/// Whether a file was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// By this call.
    New,
    /// It was there already and is as it was.
    There,
}

/// Where files of a run are. Names are relative, divided by `/`, and lead nowhere else; folders in between are made as needed.
#[derive(Debug, Clone)]
pub struct Folder(Home);

#[derive(Debug, Clone)]
enum Home {
    Local {
        path: PathBuf,
        /// The store it must not leave, and its name there.
        store: Option<(Arc<Path>, Location)>,
        lasting: Lasting,
    },
    Objects {
        objects: Objects,
        key: String,
        location: Location,
    },
}

/// What files must outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// A crash of the system.
    Synced,
    /// Nothing but the process.
    Scratch,
}

impl Folder {
    /// A folder on a disk, whether it exists or not.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        Self(Home::Local {
            path: path.into(),
            store: None,
            lasting: Lasting::Synced,
        })
    }

    pub(crate) fn in_store(store: &Store, location: &Location) -> Result<Self, DataError> {
        let location = location.clone();
        Ok(Self(match store {
            Store::Local { root } => Home::Local {
                path: inside(root, &root.join(location.key()))?,
                store: Some((root.clone(), location)),
                lasting: Lasting::Synced,
            },
            Store::Objects { objects, prefix } => Home::Objects {
                objects: objects.clone(),
                key: key_below(prefix, location.key()),
                location,
            },
        }))
    }

    /// The folder `name` in this one.
    ///
    /// # Errors
    /// [`DataError::BadName`]; [`DataError::LeavesStore`] when a link leads out of the store.
    pub fn child(&self, name: &str) -> Result<Self, DataError> {
        checked(name)?;
        Ok(Self(match &self.0 {
            Home::Local { store, lasting, .. } => Home::Local {
                path: self.file_path(name)?,
                store: match store {
                    Some((root, location)) => Some((root.clone(), location.child(name)?)),
                    None => None,
                },
                lasting: *lasting,
            },
            Home::Objects {
                objects,
                key,
                location,
            } => Home::Objects {
                objects: objects.clone(),
                key: key_below(key, name),
                location: location.child(name)?,
            },
        }))
    }

    /// The same folder, for files that nobody reads after a crash of the system: on a disk they are not synced, so that most are gone
    /// before they ever get there.
    #[must_use]
    pub fn for_scratch(mut self) -> Self {
        if let Home::Local { lasting, .. } = &mut self.0 {
            *lasting = Lasting::Scratch;
        }
        self
    }

    /// Where it is, if it is on a disk.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.0 {
            Home::Local { path, .. } => Some(path),
            Home::Objects { .. } => None,
        }
    }

    /// Writes a file unless there is one; of many that try, one finds it new. Where an answer was lost, a file that holds these bytes
    /// counts as written by this call: callers who must tell each other apart write different bytes.
    ///
    /// # Errors
    /// [`DataError::BadName`], [`DataError::DiskFull`], [`DataError::Io`], [`DataError::Store`].
    pub fn create_if_absent(&self, name: &str, bytes: &[u8]) -> Result<Created, DataError> {
        match &self.0 {
            Home::Local { .. } => {
                let path = self.file_path(name)?;
                let mut file = temporary_beside(&path)?;
                let failed = |error| DataError::io("write", &path, error);
                file.write_all(bytes).map_err(failed)?;
                file.as_file().sync_all().map_err(failed)?;
                match file.persist_noclobber(&path) {
                    Ok(_) => sync_parent(&path).map_err(failed).map(|()| Created::New),
                    Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                        Ok(Created::There)
                    }
                    Err(error) => Err(failed(error.error)),
                }
            }
            Home::Objects { objects, key, .. } => objects
                .create(&key_in(key, name)?, &Bytes::copy_from_slice(bytes))
                .map_err(|error| self.failed("write", name, error)),
        }
    }

    /// Writes a file, whole or not at all, in place of an earlier one.
    ///
    /// # Errors
    /// [`DataError::BadName`], [`DataError::DiskFull`], [`DataError::Io`], [`DataError::Store`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataError> {
        match &self.0 {
            Home::Local { lasting, .. } => {
                let path = self.file_path(name)?;
                let mut file = temporary_beside(&path)?;
                file.write_all(bytes)
                    .map_err(|error| DataError::io("write", &path, error))?;
                publish(file, &path, *lasting)
            }
            Home::Objects { objects, key, .. } => objects
                .put(&key_in(key, name)?, &Bytes::copy_from_slice(bytes))
                .map_err(|error| self.failed("write", name, error)),
        }
    }

    /// Makes the file `name` of what `write` writes, whole or not at all, in place of an earlier one; as every file of a run has one
    /// content, it does not matter who wrote it last. On the way to an object store it is a file in `spill_dir`.
    ///
    /// # Errors
    /// [`DataError::BadName`], [`DataError::DiskFull`], [`DataError::Io`], [`DataError::Store`]; what `write` returns.
    pub fn write_with<E: From<DataError>>(
        &self,
        name: &str,
        spill_dir: &Path,
        write: impl FnOnce(&mut File) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut new = self.begin(name, spill_dir)?;
        write(new.file_mut())?;
        Ok(new.finish()?)
    }

    /// As [`Folder::write_with`], for what is written bit by bit: the file appears when [`NewFile::finish`] is called.
    ///
    /// # Errors
    /// [`DataError::BadName`], [`DataError::DiskFull`], [`DataError::Io`].
    pub fn begin(&self, name: &str, spill_dir: &Path) -> Result<NewFile, DataError> {
        let to = match &self.0 {
            Home::Local { lasting, .. } => {
                let path = self.file_path(name)?;
                let (file, lasting) = (temporary_beside(&path)?, *lasting);
                To::Path {
                    path,
                    file,
                    lasting,
                }
            }
            Home::Objects { objects, key, .. } => To::Object {
                objects: objects.clone(),
                key: key_in(key, name)?,
                file: tempfile::tempfile_in(spill_dir)
                    .map_err(|error| DataError::io("make a spill file in", spill_dir, error))?,
            },
        };
        Ok(NewFile {
            shown: self.shown(name),
            to,
        })
    }

    /// A whole file; none if there is none.
    ///
    /// # Errors
    /// [`DataError::BadName`], [`DataError::Io`], [`DataError::Store`].
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DataError> {
        match &self.0 {
            Home::Local { .. } => {
                let path = self.file_path(name)?;
                if_there(fs::read(&path)).map_err(|error| DataError::io("read", path, error))
            }
            Home::Objects { objects, key, .. } => {
                let found = objects.get(&key_in(key, name)?);
                let found = found.map_err(|error| self.failed("read", name, error))?;
                Ok(found.map(Vec::from))
            }
        }
    }

    /// `n_bytes` of a file from `offset` on: all of them or an error.
    ///
    /// # Errors
    /// [`DataError::BadName`], [`DataError::Io`], [`DataError::Store`].
    pub fn read_range(
        &self,
        name: &str,
        offset: u64,
        n_bytes: usize,
    ) -> Result<Vec<u8>, DataError> {
        // No store answers a question for nothing.
        if n_bytes == 0 {
            return Ok(Vec::new());
        }
        match &self.0 {
            Home::Local { .. } => {
                let path = self.file_path(name)?;
                let mut bytes = vec![0; n_bytes];
                File::open(&path)
                    .and_then(|file| read_exact_at(&file, &mut bytes, offset))
                    .map_err(|error| DataError::io("read", path, error))?;
                Ok(bytes)
            }
            Home::Objects { objects, key, .. } => {
                let parts: Vec<_> = cut(offset..offset + n_bytes as u64).collect();
                objects
                    .get_ranges(&key_in(key, name)?, &parts, None)
                    .map(|parts| parts.concat())
                    .map_err(|error| self.failed("read", name, error))
            }
        }
    }

    /// Size of a file in bytes; none if there is none.
    ///
    /// # Errors
    /// [`DataError::BadName`], [`DataError::Io`], [`DataError::Store`].
    pub fn size(&self, name: &str) -> Result<Option<u64>, DataError> {
        match &self.0 {
            Home::Local { .. } => {
                let path = self.file_path(name)?;
                let found = if_there(fs::metadata(&path));
                let found = found.map_err(|error| DataError::io("read", path, error))?;
                let found = found.filter(fs::Metadata::is_file);
                Ok(found.map(|metadata| metadata.len()))
            }
            Home::Objects { objects, key, .. } => {
                let found = objects.head(&key_in(key, name)?);
                let found = found.map_err(|error| self.failed("read", name, error))?;
                Ok(found.map(|meta| meta.size))
            }
        }
    }

    /// Names of all files at any depth, sorted, without those that are being written; none if there is no such folder.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::Store`].
    pub fn list(&self) -> Result<Vec<String>, DataError> {
        let mut names = self.list_all()?;
        names.retain(|name| !is_temporary(name));
        Ok(names)
    }

    fn list_all(&self) -> Result<Vec<String>, DataError> {
        match &self.0 {
            Home::Local { path, .. } => {
                file_names(path).map_err(|error| DataError::io("read", path, error))
            }
            Home::Objects {
                objects,
                key,
                location,
            } => {
                let found = objects.list(key);
                let found =
                    found.map_err(|error| DataError::store("list", location.to_string(), error))?;
                let below = |meta: &object_store::ObjectMeta| {
                    let name = meta.location.as_ref().strip_prefix(key)?;
                    let name = name.strip_prefix('/').unwrap_or(name);
                    (!name.is_empty()).then(|| name.to_owned())
                };
                Ok(found.iter().filter_map(below).collect())
            }
        }
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// [`DataError::BadName`], [`DataError::Io`], [`DataError::Store`].
    pub fn remove(&self, name: &str) -> Result<(), DataError> {
        match &self.0 {
            Home::Local { .. } => {
                let path = self.file_path(name)?;
                let removed = if_there(fs::remove_file(&path)).map(|_| ());
                removed.map_err(|error| DataError::io("remove", path, error))
            }
            Home::Objects { objects, key, .. } => objects
                .delete([key_in(key, name)?])
                .map_err(|error| self.failed("remove", name, error)),
        }
    }

    /// Removes the folder and all that is in it.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::Store`].
    pub fn remove_all(&self) -> Result<(), DataError> {
        match &self.0 {
            Home::Local { path, .. } => {
                let removed = if_there(fs::remove_dir_all(path)).map(|_| ());
                removed.map_err(|error| DataError::io("remove", path, error))
            }
            Home::Objects {
                objects,
                key,
                location,
            } => {
                let keys = self.list_all()?;
                objects
                    .delete(keys.iter().map(|name| key_below(key, name)))
                    .map_err(|error| DataError::store("remove", location.to_string(), error))
            }
        }
    }

    /// Removes what writers that have died left behind.
    pub(crate) fn remove_temporary(&self) -> Result<(), DataError> {
        let names = self.list_all()?;
        let mut temporary = names.iter().filter(|name| is_temporary(name));
        temporary.try_for_each(|name| self.remove(name))
    }

    /// `name` in this folder, for people.
    pub(crate) fn shown(&self, name: &str) -> PathBuf {
        match &self.0 {
            Home::Local {
                path, store: None, ..
            } if name.is_empty() => path.clone(),
            Home::Local {
                path, store: None, ..
            } => path.join(name),
            Home::Local {
                store: Some((_, location)),
                ..
            }
            | Home::Objects { location, .. } => {
                let key = key_below(location.key(), name);
                format!("{}:{key}", location.store()).into()
            }
        }
    }

    /// Of a folder on a disk.
    fn file_path(&self, name: &str) -> Result<PathBuf, DataError> {
        checked(name)?;
        match &self.0 {
            Home::Local {
                path, store: None, ..
            } => Ok(path.join(name)),
            Home::Local {
                path,
                store: Some((root, _)),
                ..
            } => inside(root, &path.join(name)),
            Home::Objects { location, .. } => Err(DataError::BadName {
                name: location.to_string(),
            }),
        }
    }

    fn failed(&self, action: &'static str, name: &str, error: object_store::Error) -> DataError {
        DataError::store(action, self.shown(name), error)
    }
}

/// As people know it.
impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Home::Local {
                path, store: None, ..
            } => path.display().fmt(f),
            Home::Local {
                store: Some((_, location)),
                ..
            }
            | Home::Objects { location, .. } => location.fmt(f),
        }
    }
}

impl From<&Path> for Folder {
    fn from(path: &Path) -> Self {
        Self::local(path)
    }
}

impl From<&PathBuf> for Folder {
    fn from(path: &PathBuf) -> Self {
        Self::local(path)
    }
}

/// A file that is being written; dropped without [`NewFile::finish`] it never was.
#[derive(Debug)]
pub struct NewFile {
    shown: PathBuf,
    to: To,
}

#[derive(Debug)]
enum To {
    Path {
        path: PathBuf,
        file: NamedTempFile,
        lasting: Lasting,
    },
    Object {
        objects: Objects,
        key: String,
        file: File,
    },
}

impl NewFile {
    /// Its content.
    pub fn file_mut(&mut self) -> &mut File {
        match &mut self.to {
            To::Path { file, .. } => file.as_file_mut(),
            To::Object { file, .. } => file,
        }
    }

    /// Makes the file visible, whole.
    ///
    /// # Errors
    /// [`DataError::DiskFull`], [`DataError::Io`], [`DataError::Store`].
    pub fn finish(self) -> Result<(), DataError> {
        match self.to {
            To::Path {
                path,
                file,
                lasting,
            } => publish(file, &path, lasting),
            To::Object {
                objects,
                key,
                mut file,
            } => {
                let size_bytes = file
                    .seek(io::SeekFrom::End(0))
                    .map_err(|error| DataError::io("read back", &self.shown, error))?;
                objects
                    .put_file(&key, &file, size_bytes)
                    .map_err(|error| DataError::store("write", self.shown, error))
            }
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file_mut().flush()
    }
}

/// Only names below the folder, whatever a file that was read says.
fn checked(name: &str) -> Result<(), DataError> {
    let is_part = |part: &str| {
        let mut components = Path::new(part).components();
        let is_plain = matches!(components.next(), Some(Component::Normal(only)) if only == part);
        is_plain && components.next().is_none() && !part.contains(['\\', '\0', ':'])
    };
    match name.split('/').all(is_part) {
        true => Ok(()),
        false => Err(DataError::BadName {
            name: name.to_owned(),
        }),
    }
}

fn key_in(folder: &str, name: &str) -> Result<String, DataError> {
    checked(name)?;
    Ok(key_below(folder, name))
}

/// In the folder where it will be, as a file can only be moved on its own disk.
fn temporary_beside(path: &Path) -> Result<NamedTempFile, DataError> {
    let folder = path.parent().unwrap_or(path);
    let failed = |error| DataError::io("write", path, error);
    fs::create_dir_all(folder).map_err(failed)?;
    let mut builder = tempfile::Builder::new();
    // A temporary file is private by default; results are as public as the folder they are in.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
        .prefix(".")
        .suffix(TEMPORARY)
        .tempfile_in(folder)
        .map_err(failed)
}

fn publish(file: NamedTempFile, path: &Path, lasting: Lasting) -> Result<(), DataError> {
    let failed = |error| DataError::io("write", path, error);
    if lasting == Lasting::Synced {
        file.as_file().sync_all().map_err(failed)?;
    }
    file.persist(path).map_err(|error| failed(error.error))?;
    match lasting {
        Lasting::Synced => sync_parent(path).map_err(failed),
        Lasting::Scratch => Ok(()),
    }
}

#[cfg(unix)]
fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

#[cfg(not(unix))]
fn sync_parent(_: &Path) -> io::Result<()> {
    Ok(())
}

fn is_temporary(name: &str) -> bool {
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// Names of all files below `folder`, sorted, with `/` between folders. Links are not followed.
fn file_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        // Others may be removing folders.
        for entry in if_there(fs::read_dir(folder))?.into_iter().flatten() {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.file_type()?.is_dir() {
                true => folders.push((entry.path(), format!("{name}/"))),
                false => names.push(name),
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.kind() {
            // The second: below a file. The third: a pattern, where names cannot hold its letters.
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename => Ok(None),
            _ => Err(error),
        },
    }
}
