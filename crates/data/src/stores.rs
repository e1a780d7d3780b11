//! Where files are, by the names that coordinator and workers share.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};

use crate::folder::Folder;
use crate::objects::{GIVE_UP_AFTER, Objects};
use crate::{DataError, Location};

/// The store that plain paths are looked for in.
const LOCAL: &str = "local";
/// What says that a bucket is not at its usual place.
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"];
/// What may hold the keys to a bucket on the network of its provider.
const CREDENTIALS: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_METADATA_ENDPOINT",
    "AWS_SKIP_SIGNATURE",
];

/// Stores by alias. A job names files as [`Location`]s; where a store is, and what opens it, each process knows for itself.
#[derive(Debug, Clone, Default)]
pub struct Stores(Arc<BTreeMap<String, Store>>);

/// A folder that files are below, and nothing else.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    /// A local folder; `root` has no links in it.
    Local { root: Arc<Path> },
    /// A bucket, or the part of it below `prefix`.
    Objects { objects: Objects, prefix: String },
}

impl Stores {
    /// Stores as the command line names them: `alias=PATH` or `alias=s3://bucket/prefix`, credentials and endpoint from the
    /// environment. Without any, `local` is the working directory.
    ///
    /// # Errors
    /// [`DataError::BadStore`].
    pub fn parse(texts: &[String]) -> Result<Self, DataError> {
        if texts.is_empty() {
            return Self::default().with_local(LOCAL, Path::new("."));
        }
        let mut stores = Self::default();
        for text in texts {
            let bad = |reason: &str| bad_store(text, reason);
            let (alias, place) = text.split_once('=').ok_or_else(|| bad("it has no `=`"))?;
            if stores.0.contains_key(alias) {
                return Err(bad("its name is given twice"));
            }
            stores = match place.split_once("://") {
                Some(("s3", bucket)) => {
                    let (bucket, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
                    let objects = s3(text, bucket)?;
                    stores.with(alias, objects, prefix.trim_end_matches('/'))?
                }
                Some(_) => return Err(bad("only local folders and s3:// can be stores")),
                None => stores.with_local(alias, Path::new(place))?,
            };
        }
        Ok(stores)
    }

    /// These and a local folder.
    ///
    /// # Errors
    /// [`DataError::BadStore`] when it is no folder.
    pub fn with_local(&self, alias: &str, folder: &Path) -> Result<Self, DataError> {
        let bad = |reason: &str| bad_store(&format!("{alias}={}", folder.display()), reason);
        let root = folder
            .canonicalize()
            .map_err(|error| bad(&error.to_string()))?;
        match root.is_dir() {
            true => self.insert(alias, Store::Local { root: root.into() }),
            false => Err(bad("it is no folder")),
        }
    }

    /// These and the part of an object store below `prefix`. Nothing is asked of it before it is used.
    ///
    /// # Errors
    /// [`DataError::BadStore`] when the alias or the prefix cannot be one.
    pub fn with_object_store(
        &self,
        alias: &str,
        store: Arc<dyn ObjectStore>,
        prefix: &str,
    ) -> Result<Self, DataError> {
        self.with(alias, Objects::new(store.clone(), store), prefix)
    }

    fn with(&self, alias: &str, objects: Objects, prefix: &str) -> Result<Self, DataError> {
        // A prefix is divided as a key is.
        Location::new(LOCAL, prefix).map_err(|_| bad_store(alias, "its prefix cannot be one"))?;
        let prefix = prefix.to_owned();
        self.insert(alias, Store::Objects { objects, prefix })
    }

    fn insert(&self, alias: &str, store: Store) -> Result<Self, DataError> {
        let reason = "names are 1 to 64 lowercase letters, digits, `-` and `_`";
        Location::new(alias, "").map_err(|_| bad_store(alias, reason))?;
        let mut stores = BTreeMap::clone(&self.0);
        stores.insert(alias.to_owned(), store);
        Ok(Self(Arc::new(stores)))
    }

    /// Names of the stores, in order.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What the user means by `text`: `lake:customers/*.parquet`, or a path (or pattern) below the folder of the store `local`.
    ///
    /// # Errors
    /// [`DataError::UnknownStore`]; [`DataError::OutsideStores`]; [`DataError::BadName`] for a path that cannot be a key.
    pub fn locate(&self, text: &str) -> Result<Location, DataError> {
        let is_file = || Path::new(text).exists();
        match text.parse::<Location>() {
            Ok(location) if self.0.contains_key(location.store()) => return Ok(location),
            Ok(location) if !is_file() => return Err(self.unknown(location.store())),
            _ => {}
        }
        let Some(Store::Local { root }) = self.0.get(LOCAL) else {
            return Err(outside(text, None));
        };
        let resolved = std::path::absolute(text).and_then(|path| canonical(&path));
        let resolved = resolved.map_err(|_| outside(text, Some(root)))?;
        let below = resolved
            .strip_prefix(root)
            .map_err(|_| outside(text, Some(root)))?;
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        Location::new(LOCAL, &parts.join("/"))
    }

    /// The folder `location`, whether it exists or not.
    ///
    /// # Errors
    /// [`DataError::UnknownStore`]; [`DataError::LeavesStore`] when a link leads out of the store.
    pub fn folder(&self, location: &Location) -> Result<Folder, DataError> {
        Folder::in_store(self.get(location)?, location)
    }

    pub(crate) fn get(&self, location: &Location) -> Result<&Store, DataError> {
        let alias = location.store();
        self.0.get(alias).ok_or_else(|| self.unknown(alias))
    }

    fn unknown(&self, alias: &str) -> DataError {
        DataError::UnknownStore {
            alias: alias.to_owned(),
            known: self.aliases().map(str::to_owned).collect(),
        }
    }
}

/// The key of `location` in a bucket that is used below `prefix`.
pub(crate) fn key_below(prefix: &str, key: &str) -> String {
    match (prefix.is_empty(), key.is_empty()) {
        (true, _) => key.to_owned(),
        (_, true) => prefix.to_owned(),
        _ => format!("{prefix}/{key}"),
    }
}

/// `path` without links, if that is below `root`; of what does not exist yet, as far as it exists.
pub(crate) fn inside(root: &Path, path: &Path) -> Result<PathBuf, DataError> {
    match canonical(path) {
        Ok(found) if found.starts_with(root) => Ok(found),
        Ok(_) => Err(DataError::LeavesStore {
            path: path.into(),
            root: root.into(),
        }),
        Err(error) => Err(DataError::io("find", path, error)),
    }
}

/// `path` with its links resolved, as far as it exists.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    let mut missing = Vec::new();
    let mut at = path;
    loop {
        match at.canonicalize() {
            Ok(found) => {
                return Ok(missing
                    .iter()
                    .rev()
                    .fold(found, |path, name| path.join(name)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // `..` has no name: after something that does not exist it means nothing.
                let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else {
                    return Err(error);
                };
                missing.push(name);
                at = parent;
            }
            Err(error) => return Err(error),
        }
    }
}

fn s3(text: &str, bucket: &str) -> Result<Objects, DataError> {
    if bucket.is_empty() {
        return Err(bad_store(text, "it names no bucket"));
    }
    // At another endpoint there is no metadata service to ask for credentials, and asking takes a minute.
    let one_is_set = |names: &[&str]| names.iter().any(|name| std::env::var_os(name).is_some());
    if one_is_set(&ENDPOINTS) && !one_is_set(&CREDENTIALS) {
        return Err(bad_store(text, "the environment has no AWS_ACCESS_KEY_ID"));
    }
    let build = |max_retries: usize| {
        let retries = RetryConfig {
            backoff: BackoffConfig {
                max_backoff: Duration::from_secs(5),
                ..BackoffConfig::default()
            },
            max_retries,
            retry_timeout: GIVE_UP_AFTER,
        };
        // Not `with_client_options`: it would forget what the environment says of them.
        let limit = |key| AmazonS3ConfigKey::Client(key);
        AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_config(limit(ClientConfigKey::ConnectTimeout), "5 seconds")
            .with_config(limit(ClientConfigKey::Timeout), "30 seconds")
            .with_retry(retries)
            .build()
            .map_err(|error| bad_store(text, &error.to_string()))
    };
    Ok(Objects::new(Arc::new(build(10)?), Arc::new(build(0)?)))
}

fn bad_store(text: &str, reason: &str) -> DataError {
    DataError::BadStore {
        text: text.to_owned(),
        reason: reason.to_owned(),
    }
}

fn outside(text: &str, root: Option<&Path>) -> DataError {
    DataError::OutsideStores {
        path: text.into(),
        root: root.map(Path::to_owned),
    }
}
