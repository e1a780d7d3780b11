//! Names of files in stores.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::DataError;

/// A file or folder in a store that coordinator and workers know by the same alias: never a URL, never outside of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location {
    store: String,
    key: String,
}

impl Location {
    /// `store` is 1 to 64 lowercase letters, digits, `-` and `_`; `key` is relative, divided by `/`, without empty parts, `.` or `..`.
    /// An empty key is the root of the store.
    ///
    /// # Errors
    /// [`DataError::BadName`].
    pub fn new(store: &str, key: &str) -> Result<Self, DataError> {
        let is_alias = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        let good_store = (1..=64).contains(&store.len()) && store.chars().all(is_alias);
        let is_part =
            |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0', ':']);
        let good_key = key.len() <= 1_024 && (key.is_empty() || key.split('/').all(is_part));
        if good_store && good_key {
            let (store, key) = (store.to_owned(), key.to_owned());
            return Ok(Self { store, key });
        }
        let name = format!("{store}:{key}");
        Err(DataError::BadName { name })
    }

    /// Alias of the store.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Relative to the root of the store.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What `name`, divided by `/`, is below this.
    ///
    /// # Errors
    /// [`DataError::BadName`].
    pub fn child(&self, name: &str) -> Result<Self, DataError> {
        match self.key.is_empty() {
            true => Self::new(&self.store, name),
            false => Self::new(&self.store, &format!("{}/{name}", self.key)),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.store, self.key)
    }
}

impl FromStr for Location {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let (store, key) = text.split_once(':').unwrap_or(("", text));
        Self::new(store, key)
    }
}

impl TryFrom<String> for Location {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, DataError> {
        text.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_stays_below_its_store() {
        for good in ["lake:customers/2026/*.parquet", "local:", "a-b_1:x"] {
            assert_eq!(good.parse::<Location>().unwrap().to_string(), good);
        }
        for bad in [
            "lake:../secrets",
            "lake:a/../../b",
            "lake:/etc/passwd",
            "s3://bucket/key",
            "file:///etc",
            "lake:a//b",
            "lake:./a",
            "lake:a\\..\\b",
            ":a",
            "plain",
            "LAKE:a",
            "lake:a:b",
        ] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
        let run: Location = "lake:runs/1".parse().unwrap();
        assert_eq!(
            run.child("_work/nonce").unwrap().to_string(),
            "lake:runs/1/_work/nonce"
        );
        assert!(run.child("../2").is_err());
    }
}
