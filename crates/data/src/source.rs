//! The one place that opens input files, on a disk or in an object store. Reads on a disk are positioned and never mapped: a mapped
//! file that shrinks kills the process. Of an object the wanted parts are fetched before they are decoded.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};

use crate::input::Place;
use crate::objects::{Objects, cut};
use crate::positioned::{read_at, read_exact_at};
use crate::stores::{Store, Stores, inside, key_below};
use crate::{Change, DataError};

const MAGIC: &[u8; 4] = b"PAR1";
const TAIL_BYTES: usize = 8;
/// Page headers are some dozens of bytes and read one by one.
const HEADER_BUFFER_BYTES: usize = 1 << 10;
/// Read with the first question to an object: few footers are larger.
const END_BYTES: u64 = 64 << 10;
/// How many times what is read a buffer may be.
const MOST_TOO_LARGE: usize = 4;
/// Parts of an object that are nearer to each other than this are fetched as one: a request costs about as much time.
const GAP_BYTES: u64 = 512 << 10;

/// An open input file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    bytes: Bytewise,
    size_bytes: u64,
    modified_ns: Option<u64>,
    etag: Option<String>,
}

#[derive(Debug, Clone)]
enum Bytewise {
    File(Arc<File>, Arc<Buffers>),
    Object(Arc<Object>),
}

/// One version of an object, and what has been fetched of it.
#[derive(Debug)]
struct Object {
    objects: Objects,
    key: String,
    /// For people.
    shown: PathBuf,
    etag: Option<String>,
    /// By offset, without overlaps.
    parts: Vec<(u64, Bytes)>,
    /// What kept bytes from a decoder, which turns every error into words.
    trouble: Mutex<Option<DataError>>,
}

/// The end of a Parquet file: what it holds and where.
#[derive(Debug)]
pub(crate) struct Footer {
    /// BLAKE3 of the footer's bytes, its length and magic included.
    pub(crate) hash: blake3::Hash,
    pub(crate) metadata: Arc<ParquetMetaData>,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// For what it is: a sentence about it.
    File(String),
    /// For what is between it and us.
    Way(DataError),
}

impl From<DataError> for Unusable {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Io { source, .. } => Self::File(format!("it cannot be opened: {source}")),
            other => Self::Way(other),
        }
    }
}

impl Source {
    /// Opens a file; of an object the version with the ETag `if_match` only.
    pub(crate) fn open(
        place: &Place,
        stores: &Stores,
        if_match: Option<&str>,
    ) -> Result<Self, DataError> {
        let location = match place {
            Place::Path(path) => return Self::open_file(path),
            Place::Location(location) => location,
        };
        match stores.get(location)? {
            Store::Local { root } => Self::open_file(&inside(root, &root.join(location.key()))?),
            Store::Objects { objects, prefix } => {
                let key = key_below(prefix, location.key());
                Self::open_object(objects, key, place.shown(), if_match)
            }
        }
    }

    fn open_file(path: &Path) -> Result<Self, DataError> {
        let failed = |error| DataError::io("open", path, error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let modified = metadata.modified().ok();
        let modified_ns = modified
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .and_then(|age| u64::try_from(age.as_nanos()).ok());
        Ok(Self {
            bytes: Bytewise::File(Arc::new(file), Arc::default()),
            size_bytes: metadata.len(),
            modified_ns,
            etag: None,
        })
    }

    fn open_object(
        objects: &Objects,
        key: String,
        shown: PathBuf,
        if_match: Option<&str>,
    ) -> Result<Self, DataError> {
        let (meta, end) = match objects.tail(&key, END_BYTES, if_match) {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(DataError::io("open", shown, io::ErrorKind::NotFound.into()));
            }
            Err(error) => return Err(not_fetched(&shown, error)),
        };
        let object = Object {
            objects: objects.clone(),
            key,
            shown,
            etag: meta.e_tag.clone(),
            parts: vec![(meta.size - end.len() as u64, end)],
            trouble: Mutex::default(),
        };
        Ok(Self {
            bytes: Bytewise::Object(Arc::new(object)),
            size_bytes: meta.size,
            modified_ns: None,
            etag: meta.e_tag,
        })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Nanoseconds since 1970, where the file system knows.
    pub(crate) fn modified_ns(&self) -> Option<u64> {
        self.modified_ns
    }

    /// What names this version of an object.
    pub(crate) fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// The same file, ready to be read in `ranges` without further questions. Of an object they are in memory as long as the answer.
    pub(crate) fn fetch(&self, ranges: Vec<Range<u64>>) -> Result<Self, DataError> {
        let Bytewise::Object(object) = &self.bytes else {
            return Ok(self.clone());
        };
        let parts: Vec<Range<u64>> = merged(ranges, self.size_bytes)
            .into_iter()
            .flat_map(cut)
            .collect();
        let bytes = object.get(&parts)?;
        let starts = parts.into_iter().map(|part| part.start);
        let fetched = Object {
            objects: object.objects.clone(),
            key: object.key.clone(),
            shown: object.shown.clone(),
            etag: object.etag.clone(),
            parts: starts.zip(bytes).collect(),
            trouble: Mutex::default(),
        };
        Ok(Self {
            bytes: Bytewise::Object(Arc::new(fetched)),
            ..self.clone()
        })
    }

    /// Reads and decodes the footer.
    pub(crate) fn footer(&self) -> Result<Footer, Unusable> {
        let bytes = self.footer_bytes()?;
        let metadata =
            ParquetMetaDataReader::decode_metadata(&bytes[..bytes.len() - TAIL_BYTES])
                .map_err(|error| Unusable::File(format!("its footer is damaged: {error}")))?;
        Ok(Footer {
            hash: blake3::hash(&bytes),
            metadata: Arc::new(metadata),
        })
    }

    fn footer_bytes(&self) -> Result<Bytes, Unusable> {
        let smallest = (MAGIC.len() + TAIL_BYTES) as u64;
        if self.size_bytes < smallest {
            return Err(Unusable::File(format!(
                "size_bytes={} is too small for a Parquet file",
                self.size_bytes
            )));
        }
        let tail = self.read(self.size_bytes - TAIL_BYTES as u64, TAIL_BYTES)?;
        let tail = tail.first_chunk().expect("as many bytes as asked for");
        let Ok(tail) = FooterTail::try_new(tail) else {
            let head = self.read(0, MAGIC.len())?;
            return Err(Unusable::File(match *head == *MAGIC {
                true => "it begins as Parquet but has no footer: it is truncated".to_owned(),
                false => "it is not Parquet".to_owned(),
            }));
        };
        if tail.is_encrypted_footer() {
            return Err(Unusable::File("it is encrypted".to_owned()));
        }
        let footer_bytes = tail.metadata_length() as u64 + TAIL_BYTES as u64;
        if footer_bytes > self.size_bytes - MAGIC.len() as u64 {
            return Err(Unusable::File(format!(
                "its footer says footer_bytes={footer_bytes} of size_bytes={}: it is truncated",
                self.size_bytes
            )));
        }
        self.read(self.size_bytes - footer_bytes, footer_bytes as usize)
    }

    /// Bytes that the file has.
    fn read(&self, start: u64, length: usize) -> Result<Bytes, Unusable> {
        match &self.bytes {
            Bytewise::File(file, _) => {
                let mut buffer = vec![0; length];
                read_exact_at(file, &mut buffer, start)
                    .map_err(|error| Unusable::File(format!("it cannot be read: {error}")))?;
                Ok(buffer.into())
            }
            Bytewise::Object(object) => Ok(object.read(start, length)?),
        }
    }

    /// What kept bytes from a decoder, once.
    pub(crate) fn take_trouble(&self) -> Option<DataError> {
        match &self.bytes {
            Bytewise::File(..) => None,
            Bytewise::Object(object) => object.lock_trouble().take(),
        }
    }
}

/// Buffers that pages are read into one after the other: fresh ones would be zeroed before each. In order of length.
#[derive(Debug, Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

/// One of them, until nobody looks at it.
struct Lent {
    buffer: Vec<u8>,
    buffers: Arc<Buffers>,
}

impl Buffers {
    fn read(self: &Arc<Self>, file: &File, start: u64, length: usize) -> io::Result<Bytes> {
        let mut lent = Lent {
            buffer: self.take(length),
            buffers: self.clone(),
        };
        // Only what is beyond the buffer's length is zeroed, so it does not shrink.
        if lent.buffer.len() < length {
            lent.buffer.resize(length, 0);
        }
        read_exact_at(file, &mut lent.buffer[..length], start)?;
        Ok(Bytes::from_owner(lent).slice(..length))
    }

    /// The shortest that is long enough, or the longest of the others.
    fn take(&self, length: usize) -> Vec<u8> {
        let mut buffers = self.lock();
        let first = buffers.partition_point(|buffer| buffer.len() < length);
        // A decoder may keep what it was given: then a far larger buffer would be kept with it. Pages of dictionaries are large, and those
        // that follow them are not.
        let fits = |buffer: &Vec<u8>| buffer.len() / MOST_TOO_LARGE <= length;
        let at = match buffers.get(first).is_some_and(fits) {
            true => Some(first),
            false => first.checked_sub(1),
        };
        at.map_or_else(Vec::new, |at| buffers.remove(at))
    }

    fn put(&self, buffer: Vec<u8>) {
        let mut buffers = self.lock();
        let at = buffers.partition_point(|other| other.len() < buffer.len());
        buffers.insert(at, buffer);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.buffers.put(std::mem::take(&mut self.buffer));
    }
}

impl Object {
    fn read(&self, start: u64, length: usize) -> Result<Bytes, DataError> {
        if let Some(bytes) = self.fetched(start, length) {
            return Ok(bytes);
        }
        let range = start..start + length as u64;
        let parts = self.get(&cut(range).collect::<Vec<_>>())?;
        Ok(match parts.as_slice() {
            [whole] => whole.clone(),
            parts => parts.concat().into(),
        })
    }

    /// For a decoder. It asks for nothing that was not fetched, as long as the footer says where its pages are.
    fn read_for_decoder(&self, start: u64, length: usize) -> io::Result<Bytes> {
        self.read(start, length).map_err(|error| {
            let words = error.to_string();
            *self.lock_trouble() = Some(error);
            io::Error::other(words)
        })
    }

    fn lock_trouble(&self) -> MutexGuard<'_, Option<DataError>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, DataError> {
        self.objects
            .get_ranges(&self.key, ranges, self.etag.as_deref())
            .map_err(|error| not_fetched(&self.shown, error))
    }

    /// Bytes of which all are here; copied only where one part ends and the next begins.
    fn fetched(&self, start: u64, length: usize) -> Option<Bytes> {
        let mut some = self.some_fetched(start, length)?;
        if some.len() == length {
            return Some(some);
        }
        let mut bytes = Vec::with_capacity(length);
        loop {
            bytes.extend_from_slice(&some);
            if bytes.len() == length {
                return Some(bytes.into());
            }
            some = self.some_fetched(start + bytes.len() as u64, length - bytes.len())?;
        }
    }

    /// Up to `length` bytes, at least one.
    fn some_fetched(&self, start: u64, length: usize) -> Option<Bytes> {
        let after = self.parts.partition_point(|(offset, _)| *offset <= start);
        let (offset, bytes) = self.parts.get(after.checked_sub(1)?)?;
        let skipped = usize::try_from(start - offset).ok()?;
        let n_bytes = bytes.len().checked_sub(skipped)?.min(length);
        (n_bytes > 0).then(|| bytes.slice(skipped..skipped + n_bytes))
    }
}

/// `ranges` in order, those that are near to each other as one, none beyond `size_bytes`.
fn merged(mut ranges: Vec<Range<u64>>, size_bytes: u64) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let range = range.start..range.end.min(size_bytes);
        match merged.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if range.start <= last.end.saturating_add(GAP_BYTES) => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    merged
}

fn not_fetched(shown: &Path, error: object_store::Error) -> DataError {
    let path = shown.to_owned();
    match error {
        object_store::Error::Precondition { .. } => DataError::InputChanged {
            path,
            source: Change::Replaced,
        },
        object_store::Error::NotFound { .. } => DataError::InputChanged {
            path,
            source: Change::Gone,
        },
        other => DataError::store("read", path, other),
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.size_bytes
    }
}

impl ChunkReader for Source {
    type T = BufReader<Cursor>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let cursor = Cursor {
            source: self.clone(),
            offset: start,
        };
        Ok(BufReader::with_capacity(HEADER_BUFFER_BYTES, cursor))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.size_bytes) {
            return Err(ParquetError::EOF(format!(
                "{length} bytes at {start} are beyond the end at {}",
                self.size_bytes
            )));
        }
        match &self.bytes {
            Bytewise::File(file, buffers) => Ok(buffers.read(file, start, length)?),
            Bytewise::Object(object) => Ok(object.read_for_decoder(start, length)?),
        }
    }
}

/// A position in a file of its own.
pub(crate) struct Cursor {
    source: Source,
    offset: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = match &self.source.bytes {
            Bytewise::File(file, _) => read_at(file, buffer, self.offset)?,
            Bytewise::Object(object) => {
                let left = self.source.size_bytes.saturating_sub(self.offset);
                let length = usize::try_from(left).map_or(buffer.len(), |n| n.min(buffer.len()));
                let some = match object.some_fetched(self.offset, length) {
                    Some(some) => some,
                    None if length == 0 => Bytes::new(),
                    None => object.read_for_decoder(self.offset, length)?,
                };
                buffer[..some.len()].copy_from_slice(&some);
                some.len()
            }
        };
        self.offset += n_read as u64;
        Ok(n_read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_pages_have_buffers_of_their_own() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        let buffers = Arc::<Buffers>::default();
        let read = |start: usize, length: usize| {
            let found = buffers.read(&file, start as u64, length).unwrap();
            assert_eq!(found, bytes[start..start + length]);
            found
        };
        let lengths = || buffers.lock().iter().map(Vec::len).collect::<Vec<_>>();
        for _ in 0..3 {
            read(10, 90_000);
            read(7, 1_000);
            read(0, 800);
            assert_eq!(lengths(), [1_000, 90_000]);
        }
        let held = [read(1, 900), read(2, 900)];
        assert_eq!(lengths(), [90_000], "far too long for either");
        drop(held);
        read(3, 5_000);
        assert_eq!(lengths(), [900, 5_000, 90_000], "one has grown");
    }
}
