//! Ids that occur twice, found in bounded memory: every shard leaves sorted fingerprints behind, and each range of hashes is then
//! looked at over all shards.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::ids::{Fingerprint, shown};
use crate::manifest::ShardId;
use crate::positioned::read_exact_at;
use crate::run_dir::publish;

/// Fingerprints of one range, about: 32 MiB.
const RANGE_ROWS: u64 = 1 << 21;
/// Examples shown, at most.
pub const MAX_EXAMPLES: usize = 5;
const WIDTH: usize = size_of::<Fingerprint>();
const HEADER_BYTES: u64 = 8;

/// Rows that share their id with another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Duplicates {
    /// Rows beyond the first of each id.
    pub n_surplus: u64,
    /// Hashes of some ids that occur more than once, the lowest ones.
    pub examples: Vec<String>,
}

impl Duplicates {
    /// Adds what was found in another range.
    pub fn merge(&mut self, other: Self) {
        self.n_surplus += other.n_surplus;
        self.examples.extend(other.examples);
        self.examples.sort_unstable();
        self.examples.truncate(MAX_EXAMPLES);
    }
}

/// Ranges of hashes to look at one by one, for a table of `n_rows`.
pub fn n_ranges(n_rows: u64) -> u32 {
    let n_ranges = n_rows.div_ceil(RANGE_ROWS).max(1);
    u32::try_from(n_ranges).unwrap_or(u32::MAX)
}

/// Leaves the fingerprints of a shard's ids in `work_dir`, sorted, for [`find_duplicates`]. Written under another name first, so
/// that the file is whole or not there; written again it is the same.
///
/// # Errors
/// [`DataError::DiskFull`], [`DataError::Io`].
pub fn write_fingerprints(
    work_dir: &Path,
    shard: ShardId,
    mut fingerprints: Vec<Fingerprint>,
) -> Result<(), DataError> {
    fingerprints.sort_unstable();
    let path = path_of(work_dir, shard);
    publish(&path, |file| {
        let mut out = BufWriter::with_capacity(1 << 16, file);
        let write = |out: &mut BufWriter<&mut File>| -> io::Result<()> {
            out.write_all(&(fingerprints.len() as u64).to_le_bytes())?;
            fingerprints
                .iter()
                .try_for_each(|print| out.write_all(&print.to_be_bytes()))?;
            out.flush()
        };
        write(&mut out).map_err(|error| DataError::io("write", &path, error))
    })
}

/// Looks for ids that occur twice in range `range_idx` of `n_ranges`, over the shards `0..n_shards`.
///
/// # Errors
/// [`DataError::FingerprintsDamaged`] when a file has not the length it says; [`DataError::Io`].
pub fn find_duplicates(
    work_dir: &Path,
    n_shards: u32,
    range_idx: u32,
    n_ranges: u32,
) -> Result<Duplicates, DataError> {
    let mut fingerprints = Vec::new();
    for shard in (0..n_shards).map(ShardId) {
        SortedFile::open(path_of(work_dir, shard))?.read_range(
            range_idx,
            n_ranges,
            &mut fingerprints,
        )?;
    }
    fingerprints.sort_unstable();
    let mut found = Duplicates::default();
    for same in fingerprints
        .chunk_by(|a, b| a == b)
        .filter(|same| same.len() > 1)
    {
        found.n_surplus += same.len() as u64 - 1;
        if found.examples.len() < MAX_EXAMPLES {
            found.examples.push(shown(same[0]));
        }
    }
    Ok(found)
}

fn path_of(work_dir: &Path, shard: ShardId) -> PathBuf {
    work_dir
        .join("fingerprints")
        .join(format!("{:06}.bin", shard.0))
}

/// Which of `n_ranges` equal ranges of hashes a fingerprint belongs to.
fn range_of(fingerprint: Fingerprint, n_ranges: u32) -> u32 {
    let top = fingerprint >> 96;
    ((top * u128::from(n_ranges)) >> 32) as u32
}

struct SortedFile {
    path: PathBuf,
    file: File,
    n_fingerprints: u64,
}

impl SortedFile {
    fn open(path: PathBuf) -> Result<Self, DataError> {
        let failed = |error| DataError::io("read", &path, error);
        let file = File::open(&path).map_err(failed)?;
        let size_bytes = file.metadata().map_err(failed)?.len();
        let mut header = [0; HEADER_BYTES as usize];
        read_exact_at(&file, &mut header, 0).map_err(failed)?;
        let (expected, found) = (
            u64::from_le_bytes(header),
            size_bytes.saturating_sub(HEADER_BYTES) / WIDTH as u64,
        );
        let is_whole = size_bytes
            .saturating_sub(HEADER_BYTES)
            .is_multiple_of(WIDTH as u64);
        match expected == found && is_whole {
            true => Ok(Self {
                path,
                file,
                n_fingerprints: found,
            }),
            false => Err(DataError::FingerprintsDamaged {
                path,
                expected,
                found,
            }),
        }
    }

    fn read_range(
        &self,
        range_idx: u32,
        n_ranges: u32,
        out: &mut Vec<Fingerprint>,
    ) -> Result<(), DataError> {
        let start = self.first_from(range_idx, n_ranges)?;
        let end = self.first_from(range_idx.saturating_add(1), n_ranges)?;
        let mut bytes = vec![0; (end - start) as usize * WIDTH];
        self.read(&mut bytes, start)?;
        let (fingerprints, _) = bytes.as_chunks::<WIDTH>();
        out.extend(
            fingerprints
                .iter()
                .map(|bytes| Fingerprint::from_be_bytes(*bytes)),
        );
        Ok(())
    }

    /// Index of the first fingerprint of range `range_idx` or a later one.
    fn first_from(&self, range_idx: u32, n_ranges: u32) -> Result<u64, DataError> {
        let (mut low, mut high) = (0, self.n_fingerprints);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut bytes = [0; WIDTH];
            self.read(&mut bytes, middle)?;
            match range_of(Fingerprint::from_be_bytes(bytes), n_ranges) < range_idx {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }

    fn read(&self, bytes: &mut [u8], first: u64) -> Result<(), DataError> {
        read_exact_at(&self.file, bytes, HEADER_BYTES + first * WIDTH as u64)
            .map_err(|error| DataError::io("read", &self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(i: u64) -> Fingerprint {
        let hash = blake3::hash(&i.to_le_bytes());
        Fingerprint::from_be_bytes(*hash.as_bytes().first_chunk().unwrap())
    }

    fn find(shards: &[Vec<u64>], n_ranges: u32) -> Duplicates {
        let folder = tempfile::tempdir().unwrap();
        for (shard, ids) in (0..).map(ShardId).zip(shards) {
            write_fingerprints(
                folder.path(),
                shard,
                ids.iter().copied().map(fingerprint).collect(),
            )
            .unwrap();
        }
        let mut found = Duplicates::default();
        for range_idx in 0..n_ranges {
            found.merge(
                find_duplicates(folder.path(), shards.len() as u32, range_idx, n_ranges).unwrap(),
            );
        }
        found
    }

    #[test]
    fn surplus_rows_are_counted_over_shards_whatever_the_number_of_ranges() {
        let shards = [
            (0..500).collect(),
            (490..700).collect(),
            vec![3, 3, 3, 900],
            vec![],
        ];
        for n_ranges in [1, 2, 7, 1_000] {
            let found = find(&shards, n_ranges);
            assert_eq!(found.n_surplus, 13, "{n_ranges} ranges");
            let mut expected: Vec<String> = (490..500)
                .chain([3])
                .map(|i| shown(fingerprint(i)))
                .collect();
            expected.sort_unstable();
            assert_eq!(found.examples, expected[..5]);
        }
    }

    #[test]
    fn different_ids_are_no_duplicates() {
        assert_eq!(
            find(&[(0..1_000).collect(), (1_000..3_000).collect()], 3),
            Duplicates::default()
        );
    }

    #[test]
    fn a_range_holds_about_as_many_rows_as_planned() {
        assert_eq!(
            [0, 1, RANGE_ROWS, RANGE_ROWS + 1].map(n_ranges),
            [1, 1, 1, 2]
        );
        assert_eq!(range_of(Fingerprint::MAX, 7), 6);
        assert_eq!(range_of(Fingerprint::MAX, u32::MAX), u32::MAX - 1);
    }

    #[test]
    fn a_truncated_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        write_fingerprints(folder.path(), ShardId(0), vec![1, 2, 3]).unwrap();
        let file = File::options()
            .write(true)
            .open(path_of(folder.path(), ShardId(0)))
            .unwrap();
        file.set_len(HEADER_BYTES + 2 * WIDTH as u64).unwrap();
        let refused = find_duplicates(folder.path(), 1, 0, 1).unwrap_err();
        assert!(
            matches!(
                refused,
                DataError::FingerprintsDamaged {
                    expected: 3,
                    found: 2,
                    ..
                }
            ),
            "{refused}"
        );
    }
}
