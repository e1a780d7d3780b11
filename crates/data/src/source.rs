//! The one place that opens input files. Reads are positioned and never mapped: a mapped file that shrinks kills the process.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};

use crate::positioned::{read_at, read_exact_at};

const MAGIC: &[u8; 4] = b"PAR1";
const TAIL_BYTES: usize = 8;
/// Page headers are some dozens of bytes and read one by one.
const HEADER_BUFFER_BYTES: usize = 1 << 10;

/// An open input file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    file: Arc<File>,
    size_bytes: u64,
    modified_ns: Option<u64>,
}

/// The end of a Parquet file: what it holds and where.
#[derive(Debug)]
pub(crate) struct Footer {
    /// BLAKE3 of the footer's bytes, its length and magic included.
    pub(crate) hash: blake3::Hash,
    pub(crate) metadata: Arc<ParquetMetaData>,
}

impl Source {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let modified = metadata.modified().ok();
        let modified_ns = modified
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .and_then(|age| u64::try_from(age.as_nanos()).ok());
        Ok(Self {
            file: Arc::new(file),
            size_bytes: metadata.len(),
            modified_ns,
        })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Nanoseconds since 1970, where the file system knows.
    pub(crate) fn modified_ns(&self) -> Option<u64> {
        self.modified_ns
    }

    /// Reads and decodes the footer; the reason is a sentence about the file.
    pub(crate) fn footer(&self) -> Result<Footer, String> {
        let bytes = self.footer_bytes()?;
        let metadata = ParquetMetaDataReader::decode_metadata(&bytes[..bytes.len() - TAIL_BYTES])
            .map_err(|error| format!("its footer is damaged: {error}"))?;
        Ok(Footer {
            hash: blake3::hash(&bytes),
            metadata: Arc::new(metadata),
        })
    }

    fn footer_bytes(&self) -> Result<Vec<u8>, String> {
        let unreadable = |error: io::Error| format!("it cannot be read: {error}");
        let smallest = (MAGIC.len() + TAIL_BYTES) as u64;
        if self.size_bytes < smallest {
            return Err(format!(
                "size_bytes={} is too small for a Parquet file",
                self.size_bytes
            ));
        }
        let (mut head, mut tail) = ([0; MAGIC.len()], [0; TAIL_BYTES]);
        read_exact_at(&self.file, &mut head, 0).map_err(unreadable)?;
        read_exact_at(&self.file, &mut tail, self.size_bytes - TAIL_BYTES as u64)
            .map_err(unreadable)?;
        let Ok(tail) = FooterTail::try_new(&tail) else {
            return Err(match &head == MAGIC {
                true => "it begins as Parquet but has no footer: it is truncated".to_owned(),
                false => "it is not Parquet".to_owned(),
            });
        };
        if tail.is_encrypted_footer() {
            return Err("it is encrypted".to_owned());
        }
        let footer_bytes = tail.metadata_length() as u64 + TAIL_BYTES as u64;
        if footer_bytes > self.size_bytes - MAGIC.len() as u64 {
            return Err(format!(
                "its footer says footer_bytes={footer_bytes} of size_bytes={}: it is truncated",
                self.size_bytes
            ));
        }
        let mut bytes = vec![0; tail.metadata_length() + TAIL_BYTES];
        read_exact_at(&self.file, &mut bytes, self.size_bytes - footer_bytes)
            .map_err(unreadable)?;
        Ok(bytes)
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
            file: self.file.clone(),
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
        let mut buffer = vec![0; length];
        read_exact_at(&self.file, &mut buffer, start)?;
        Ok(buffer.into())
    }
}

/// A position in a file of its own.
pub(crate) struct Cursor {
    file: Arc<File>,
    offset: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = read_at(&self.file, buffer, self.offset)?;
        self.offset += n_read as u64;
        Ok(n_read)
    }
}
