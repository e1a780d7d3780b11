//! Ids that occur twice, found in bounded memory: every shard leaves fingerprints behind in the order of their first bits, and each range of
//! hashes is then looked at over all shards.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::ids::{Fingerprint, shown};
use crate::manifest::ShardId;
use crate::{DataError, Folder, threads};

/// Fingerprints of one range, about: 32 MiB.
const RANGE_ROWS: u64 = 1 << 21;
/// Examples shown, at most.
pub const MAX_EXAMPLES: usize = 5;
const WIDTH: usize = size_of::<Fingerprint>();
const HEADER_BYTES: u64 = 8;
/// Fingerprints of a file between which there is no order, about: a range of hashes is found in it by the others, and to put them in order
/// now would be for nothing, as they are looked at with those of other shards.
const FILED_TOGETHER: usize = 64;
/// Fingerprints compared with each other, about.
const COMPARED_TOGETHER: usize = 4;
/// Fingerprints made bytes and written at a time.
const WRITTEN_TOGETHER: usize = 1 << 12;

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

/// Fingerprints of a shard's ids, as they are filed: in the order of their first bits, 16 at most.
#[derive(Debug)]
pub struct Fingerprints(Vec<Fingerprint>);

impl Fingerprints {
    /// Those of the shard's blocks.
    pub fn of_blocks<'a>(blocks: impl IntoIterator<Item = &'a Vec<Fingerprint>>) -> Self {
        let blocks: Vec<&[Fingerprint]> = blocks.into_iter().map(Vec::as_slice).collect();
        let n_bits = filed_bits(blocks.iter().map(|block| block.len()).sum());
        Self(Buckets::new(&blocks, 1, n_bits).fingerprints)
    }

    /// Leaves them in `work_dir` for [`find_duplicates`]: whole or not there, and written again it is the same. On the way to an object
    /// store they are in a file in `spill_dir`.
    ///
    /// # Errors
    /// [`DataError::DiskFull`], [`DataError::Io`], [`DataError::Store`].
    pub fn write(
        &self,
        work_dir: &Folder,
        spill_dir: &Path,
        shard: ShardId,
    ) -> Result<(), DataError> {
        let name = name_of(shard);
        work_dir.write_with(&name, spill_dir, |file| {
            let write = |file: &mut File| -> io::Result<()> {
                file.write_all(&(self.0.len() as u64).to_le_bytes())?;
                let mut bytes = Vec::with_capacity(WRITTEN_TOGETHER);
                for some in self.0.chunks(WRITTEN_TOGETHER) {
                    bytes.clear();
                    bytes.extend(some.iter().map(|print| print.to_be_bytes()));
                    file.write_all(bytes.as_flattened())?;
                }
                Ok(())
            };
            write(file).map_err(|error| DataError::io("write", work_dir.shown(&name), error))
        })
    }
}

/// Looks for ids that occur twice in range `range_idx` of `n_ranges`, over the shards `0..n_shards`.
///
/// # Errors
/// [`DataError::FingerprintsDamaged`] when a file has not the length it says; [`DataError::Io`], [`DataError::Store`].
pub fn find_duplicates(
    work_dir: &Folder,
    n_shards: u32,
    range_idx: u32,
    n_ranges: u32,
) -> Result<Duplicates, DataError> {
    let shards: Vec<ShardId> = (0..n_shards).map(ShardId).collect();
    // A disk answers at once; a store takes its time for each question, and there are some for each shard.
    let n_threads = if work_dir.local_path().is_some() {
        1
    } else {
        16
    };
    let parts = threads::map(n_threads, &shards, |shard| {
        FiledFingerprints::open(work_dir, *shard)?.read_range(range_idx, n_ranges)
    })?;
    let n_bits = n_bits(parts.iter().map(Vec::len).sum(), COMPARED_TOGETHER);
    let fingerprints = Buckets::new(&parts, n_ranges, n_bits).sorted();
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

/// Fingerprints of one of some equal ranges, which are spread evenly over it: the first bits of each place it among a few others.
struct Buckets {
    fingerprints: Vec<Fingerprint>,
    /// Where each bucket ends.
    ends: Vec<u32>,
}

impl Buckets {
    /// `parts`, all of one of `n_ranges` ranges, in 2^`n_bits` buckets; within one, in the order of the parts.
    fn new(parts: &[impl AsRef<[Fingerprint]>], n_ranges: u32, n_bits: u32) -> Self {
        let fingerprints = || parts.iter().flat_map(|part| part.as_ref());
        let mut ends = vec![0_u32; (1 << n_bits) + 1];
        for print in fingerprints() {
            ends[bucket_of(*print, n_ranges, n_bits) + 1] += 1;
        }
        for bucket in 1..ends.len() {
            ends[bucket] += ends[bucket - 1];
        }
        let mut placed = vec![0; ends[1 << n_bits] as usize];
        // Ends become starts on the way: the first of a bucket is where the last of the one before ends.
        for print in fingerprints() {
            let at = &mut ends[bucket_of(*print, n_ranges, n_bits)];
            placed[*at as usize] = *print;
            *at += 1;
        }
        ends.truncate(1 << n_bits);
        Self {
            fingerprints: placed,
            ends,
        }
    }

    /// All in order.
    fn sorted(mut self) -> Vec<Fingerprint> {
        let mut start = 0;
        for end in self.ends {
            self.fingerprints[start..end as usize].sort_unstable();
            start = end as usize;
        }
        self.fingerprints
    }
}

/// Bits by which a file of so many fingerprints is in order.
fn filed_bits(n_fingerprints: usize) -> u32 {
    n_bits(n_fingerprints, FILED_TOGETHER)
}

/// Bits of the number of buckets that hold about `n_together` of `n_fingerprints` each.
fn n_bits(n_fingerprints: usize, n_together: usize) -> u32 {
    (n_fingerprints / n_together).max(2).ilog2().min(16)
}

/// Which of 2^`n_bits` buckets of its range, one of `n_ranges`, a fingerprint belongs to.
fn bucket_of(fingerprint: Fingerprint, n_ranges: u32, n_bits: u32) -> usize {
    // What `range_of` leaves of the product: the place in the range, as a fraction of 2^32.
    let place = ((fingerprint >> 96) as u32).wrapping_mul(n_ranges);
    (place >> (32 - n_bits)) as usize
}

fn name_of(shard: ShardId) -> String {
    format!("fingerprints/{:06}.bin", shard.0)
}

/// Which of `n_ranges` equal ranges of hashes a fingerprint belongs to.
fn range_of(fingerprint: Fingerprint, n_ranges: u32) -> u32 {
    let top = fingerprint >> 96;
    ((top * u128::from(n_ranges)) >> 32) as u32
}

/// The lowest and the highest fingerprint of range `range_idx` of `n_ranges`.
fn bounds(range_idx: u32, n_ranges: u32) -> [Fingerprint; 2] {
    let start = |range_idx: u128| (range_idx << 32).div_ceil(n_ranges.into()) << 96;
    let range_idx = u128::from(range_idx);
    // The end of the last is 2^128.
    [start(range_idx), start(range_idx + 1).wrapping_sub(1)]
}

struct FiledFingerprints<'a> {
    folder: &'a Folder,
    name: String,
    n_fingerprints: u64,
}

impl<'a> FiledFingerprints<'a> {
    fn open(folder: &'a Folder, shard: ShardId) -> Result<Self, DataError> {
        let name = name_of(shard);
        let header = folder.read_range(&name, 0, size_of::<u64>())?;
        let expected = header.try_into().map_or(0, u64::from_le_bytes);
        let size_bytes = folder.size(&name)?.unwrap_or(0);
        let body_bytes = size_bytes.saturating_sub(HEADER_BYTES);
        let found = body_bytes / WIDTH as u64;
        match expected == found && body_bytes.is_multiple_of(WIDTH as u64) {
            true => Ok(Self {
                folder,
                name,
                n_fingerprints: found,
            }),
            false => Err(DataError::FingerprintsDamaged {
                path: folder.shown(&name),
                expected,
                found,
            }),
        }
    }

    /// The fingerprints of one range.
    fn read_range(&self, range_idx: u32, n_ranges: u32) -> Result<Vec<Fingerprint>, DataError> {
        let n = self.n_fingerprints;
        let expected = |range_idx: u64| {
            let first = u128::from(n) * u128::from(range_idx) / u128::from(n_ranges);
            first as u64
        };
        let n_bits = filed_bits(n as usize);
        let filed_in = |print: &Fingerprint| bucket_of(*print, 1, n_bits);
        let [first_bucket, last_bucket] = bounds(range_idx, n_ranges).map(|print| filed_in(&print));
        // Hashes are spread evenly, so this guess (eight standard deviations, and a bucket) is nearly always enough, and one read is all it
        // takes.
        let mut slack = 4 * n.isqrt() + 2 * FILED_TOGETHER as u64;
        loop {
            let start = expected(range_idx.into()).saturating_sub(slack);
            let end = expected(u64::from(range_idx) + 1)
                .saturating_add(slack)
                .min(n);
            let mut window = self.read(start, end)?;
            let first = window.partition_point(|print| filed_in(print) < first_bucket);
            let last = window.partition_point(|print| filed_in(print) <= last_bucket);
            if (start == 0 || first > 0) && (end == n || last < window.len()) {
                window.truncate(last);
                window.drain(..first);
                window.retain(|print| range_of(*print, n_ranges) == range_idx);
                return Ok(window);
            }
            slack = slack.saturating_mul(8);
        }
    }

    fn read(&self, start: u64, end: u64) -> Result<Vec<Fingerprint>, DataError> {
        let n_bytes = (end - start) as usize * WIDTH;
        let offset = HEADER_BYTES + start * WIDTH as u64;
        let bytes = self.folder.read_range(&self.name, offset, n_bytes)?;
        let (prints, _) = bytes.as_chunks::<WIDTH>();
        Ok(prints
            .iter()
            .map(|bytes| Fingerprint::from_be_bytes(*bytes))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(i: u64) -> Fingerprint {
        let hash = blake3::hash(&i.to_le_bytes());
        Fingerprint::from_be_bytes(*hash.as_bytes().first_chunk().unwrap())
    }

    fn sorted(parts: &[&[Fingerprint]], n_ranges: u32) -> Vec<Fingerprint> {
        let n_bits = n_bits(parts.iter().map(|part| part.len()).sum(), COMPARED_TOGETHER);
        Buckets::new(parts, n_ranges, n_bits).sorted()
    }

    fn find(shards: &[Vec<u64>], n_ranges: u32) -> Duplicates {
        let folder = tempfile::tempdir().unwrap();
        let work_dir = Folder::local(folder.path());
        for (shard, ids) in (0..).map(ShardId).zip(shards) {
            let ids: Vec<Fingerprint> = ids.iter().copied().map(fingerprint).collect();
            let written = Fingerprints::of_blocks(&[ids]).write(&work_dir, folder.path(), shard);
            written.unwrap();
        }
        let mut found = Duplicates::default();
        for range_idx in 0..n_ranges {
            found.merge(
                find_duplicates(&work_dir, shards.len() as u32, range_idx, n_ranges).unwrap(),
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
    fn fingerprints_are_sorted_as_any_numbers_are() {
        for n_rows in [0, 1, 2, 15, 33, 1_000, 70_000] {
            let even: Vec<Fingerprint> = (0..n_rows).map(fingerprint).collect();
            let uneven: Vec<Fingerprint> = (0..n_rows).map(|i| u128::from(i * 7 % 100)).collect();
            for prints in [even, uneven] {
                let mut expected = prints.clone();
                expected.sort_unstable();
                assert_eq!(sorted(&[&prints], 1), expected);
                let (first, rest) = prints.split_at(prints.len() / 3);
                assert_eq!(sorted(&[first, rest], 1), expected);
                for (range_idx, n_ranges) in [(0, 3), (1, 3), (70, 71), (900, 1_000_003)] {
                    let is_there = |print: &u128| range_of(*print, n_ranges) == range_idx;
                    let some: Vec<_> = prints.iter().copied().filter(is_there).collect();
                    let expected: Vec<_> = expected.iter().copied().filter(is_there).collect();
                    assert_eq!(sorted(&[&some], n_ranges), expected);
                    let lowest_and_highest = [expected.first(), expected.last()];
                    let [start, end] = bounds(range_idx, n_ranges);
                    let inside = |print: &&u128| (start..=end).contains(*print);
                    assert!(lowest_and_highest.iter().flatten().all(inside));
                    assert_eq!(range_of(start, n_ranges), range_idx);
                    assert_eq!(range_of(end, n_ranges), range_idx);
                }
            }
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
        let work_dir = Folder::local(folder.path());
        let written =
            Fingerprints::of_blocks(&[vec![1, 2, 3]]).write(&work_dir, folder.path(), ShardId(0));
        written.unwrap();
        let file = File::options()
            .write(true)
            .open(folder.path().join(name_of(ShardId(0))))
            .unwrap();
        file.set_len(HEADER_BYTES + 2 * WIDTH as u64).unwrap();
        let refused = find_duplicates(&work_dir, 1, 0, 1).unwrap_err();
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
